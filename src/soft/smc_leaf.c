/* SPDX-License-Identifier: Apache-2.0 */
/* Write tags for pages without code: the TLB fill's half of the protocol that
 * smc.c describes. Leaf code: no libc, no lock. */
#include "soft/xlat_int.h"

struct smc_page *smc_page_of(struct xlat *x, gpa_t gpa)
{
	struct smc_page *chunk;
	u64 i = gpa >> SMC_CHUNK_SHIFT;

	if (i >= SMC_CHUNKS)
		return NULL;
	/* Pairs with the release in smc_slot_changed. */
	chunk = atomic_load_explicit(&x->chunks[i], memory_order_acquire);
	if (!chunk)
		return NULL;
	return &chunk[gpa >> PAGE_SHIFT & (SMC_CHUNK_PAGES - 1)];
}

bool smc_may_tag_w(struct vcpu *v, gpa_t gpa)
{
	struct xlat *x = v->vm->xlat;
	struct smc_page *p = x ? smc_page_of(x, gpa) : NULL;
	u64 own = BIT64(v->id);

	if (!p)
		return true;
	/* A refusal leaves no trace, so that stores to a page that holds both
	 * code and data do not make every translation there wait. */
	if (atomic_load(&p->code))
		return false;
	if (!(atomic_load(&p->writers) & own))
		atomic_fetch_or(&p->writers, own);
	/* Dekker: writers, then code; smc_protect: code, then writers. */
	return !atomic_load(&p->code);
}
