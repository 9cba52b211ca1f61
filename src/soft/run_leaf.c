/* SPDX-License-Identifier: Apache-2.0 */
/* How generated code finds the next block by itself. */
#include "soft/thunks.h"
#include "soft/xlat_int.h"

/* An instruction may begin here and end in the next page. */
static bool may_cross(gva_t va)
{
	return (va & (PAGE_BYTES - 1)) > PAGE_BYTES - X86_INSN_MAX;
}

static const struct xlat_block *crossing_block(struct vcpu *v, gva_t va,
					       gpa_t gpa)
{
	gva_t next = (va | (PAGE_BYTES - 1)) + 1;
	gpa_t gpa2;

	if (v->key & XLAT_KEY_32)
		next = (u32)next;
	if (!soft_exec_gpa_leaf(v, next, &gpa2) ||
	    !smc_page_of(v->vm->xlat, gpa2))
		return NULL;
	return xlat_find(v->vm->xlat, gpa, gpa2, v->key);
}

/* The page's translation, which was just used, survives a load of CR3. */
static bool is_global_page(const struct soft_space *s, gva_t va)
{
	const struct soft_tlb_entry *e = &s->tlb[soft_tlb_index(va)];

	return e->tag_r >> PAGE_SHIFT == va >> PAGE_SHIFT &&
	       (e->meta & SOFT_TLB_GLOBAL);
}

const struct xlat_block *xlat_block_of_leaf(struct vcpu *v, gva_t va)
{
	const struct xlat_block *b;
	gpa_t gpa;

	if (!soft_exec_gpa_leaf(v, va, &gpa))
		return NULL;
	b = xlat_find(v->vm->xlat, gpa, XLAT_NO_GPA, v->key);
	if (!b && may_cross(va))
		b = crossing_block(v, va, gpa);
	return b;
}

/* Code offset where to enter the block at va, or 0. */
static u32 entry_of(struct vcpu *v, gva_t va, bool *out_is_local)
{
	struct soft_space *space = v->key & XLAT_KEY_USER ? v->user : &v->super;
	const struct xlat_block *b;
	gpa_t gpa;
	u32 entry;

	if (!soft_exec_gpa_leaf(v, va, &gpa))
		return 0;
	*out_is_local = !is_global_page(space, va);
	entry = xlat_find_entry(v->vm->xlat, gpa, v->key);
	if (entry || !may_cross(va))
		return entry;
	b = crossing_block(v, va, gpa);
	if (!b)
		return 0;
	*out_is_local |= !is_global_page(space, va + PAGE_BYTES);
	return xlat_entry_indirect(b);
}

const void *xlat_jc_miss_leaf(struct vcpu *v, u64 va)
{
	struct soft_space *space = v->key & XLAT_KEY_USER ? v->user : &v->super;
	const void *host;
	bool is_local;
	u32 entry;

	v->stats.jc_misses++;
	v->rip = va;
	space->jc[0].host = xlat_code_rx(v->vm->xlat) +
			    xlat_thunk_table(v->vm->xlat)[XT_JC_MISS];
	entry = soft_is_kicked(v) ? 0 : entry_of(v, va, &is_local);
	if (!entry)
		return NULL;
	if (space->jc_key != v->key) {
		soft_jc_flush(space);
		space->jc_key = v->key;
	}
	host = xlat_code_rx(v->vm->xlat) + entry;
	soft_jc_insert(space, va, host, is_local);
	v->pcbase = va & ~(PAGE_BYTES - 1);
	return host;
}

const void *xlat_exit_leaf(struct vcpu *v, const u8 *behind)
{
	struct xlat *x = v->vm->xlat;
	u32 info = ld_le32(behind), block = info >> XLAT_CHAIN_BLOCK;
	struct xlat_block *from =
		xlat_block_get(x, block & (XLAT_BLOCKS_MAX - 1));
	struct xlat_exit e = {
		.site = ld_le16(behind + 4) +
			(info & XLAT_CHAIN_COLD ? from->cold : from->code),
		.unlinked = (u32)(behind - xlat_code_rx(x)) - 5,
		.target = info & XLAT_CHAIN_TARGET,
		.is_twin = info & XLAT_CHAIN_TWIN,
	};

	xlat_lock(x);
	v->rip = v->pcbase + e.target;
	v->key_extra = e.is_twin ? XLAT_KEY_NOGROUP : 0;
	block = xlat_link(x, from, &e);
	xlat_unlock(x);
	if (!block) /* two pages' block, perhaps: those are not linked */
		return e.is_twin ? NULL : xlat_jc_miss_leaf(v, v->rip);
	v->key_extra = 0;
	return xlat_code_rx(x) + xlat_entry_indirect(xlat_block_get(x, block));
}
