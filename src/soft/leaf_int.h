/* SPDX-License-Identifier: Apache-2.0 */
/* What leaf operations share. */
#pragma once

#include "soft/access.h"
#include "soft/leaf.h"
#include "soft/xlat.h"

/* Host memory of n bytes in one page, with the rights of v->cpl; NULL: for
 * the interpreter. */
static inline u8 *leaf_page(struct vcpu *v, gva_t va, unsigned n, unsigned how)
{
	const struct soft_tlb_entry *e = soft_tlb_at(v, va);
	u64 off = va - (how & SOFT_W ? e->tag_w : e->tag_r);

	if (likely(off <= PAGE_BYTES - n))
		return (u8 *)(uintptr_t)e->hva_page + off;
	if ((va & (PAGE_BYTES - 1)) > PAGE_BYTES - n ||
	    !soft_is_canonical(va) || !soft_tlb_fill_leaf(v, va, how))
		return NULL;
	off = va - (how & SOFT_W ? e->tag_w : e->tag_r);
	return off <= PAGE_BYTES - n ? (u8 *)(uintptr_t)e->hva_page + off
				     : NULL;
}
