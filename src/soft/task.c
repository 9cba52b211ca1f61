/* SPDX-License-Identifier: Apache-2.0 */
/* Hardware task switching, protected mode only. SDM 3A §7.3.
 *
 * All that is read is read, and all that is stored to is probed, before the
 * first store: a fault until then belongs to the old task, which is as it was.
 * The outgoing state is saved before the incoming TSS's segments are checked;
 * a fault in those belongs to the new task, as the manual has it. */
#include "soft/soft_int.h"

#include "soft/soft_sys.h"

static const u8 seg_order[] = {X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS};

/* Where the registers lie in a TSS, which is all that is saved on leaving. */
static gva_t saved_part(const struct soft_seg *tss, size_t *out_n)
{
	bool is_32 = SEG_TYPE(tss->attr) & 8;

	*out_n = is_32 ? 0x40 : 0x1c;
	return tss->base + (is_32 ? 0x20 : 0x0e);
}

static void save_task(struct vcpu *v, u64 rip, u64 flags)
{
	bool is_32 = SEG_TYPE(v->tr.attr) & 8;
	unsigned size = is_32 ? 4 : 2, count = is_32 ? 6 : 4;
	size_t n;
	gva_t at = saved_part(&v->tr, &n);

	soft_write(v, at, size, rip, SOFT_SUPER);
	soft_write(v, at + size, size, flags, SOFT_SUPER);
	for (unsigned i = 0; i < 8; i++)
		soft_write(v, at + size * (2 + i), size, v->gpr[i], SOFT_SUPER);
	for (unsigned i = 0; i < count; i++)
		soft_write(v, at + size * (10 + i), 2,
			   v->segs[seg_order[i]].sel, SOFT_SUPER);
}

/* The busy bit of a TSS descriptor in the GDT. */
static void set_busy(struct vcpu *v, u16 sel, bool is_busy)
{
	gva_t va = v->gdtr.base + (sel & ~7u) + 5;
	u64 old = soft_read(v, va, 1, SOFT_SUPER);

	soft_write(v, va, 1, is_busy ? old | 2 : old & ~2ull, SOFT_SUPER);
}

struct task_image {
	u64 cr3, rip, flags, gpr[8];
	u16 sels[6], ldt;
};

static void read_task(struct vcpu *v, const struct soft_seg *tss,
		      struct task_image *t)
{
	bool is_32 = SEG_TYPE(tss->attr) & 8;
	unsigned size = is_32 ? 4 : 2, count = is_32 ? 6 : 4;
	size_t n;
	gva_t at = saved_part(tss, &n);

	*t = (struct task_image){.cr3 = v->cr3};
	if (is_32)
		t->cr3 = soft_read(v, tss->base + 0x1c, 4, SOFT_SUPER);
	t->rip = soft_read(v, at, size, SOFT_SUPER);
	t->flags = soft_read(v, at + size, size, SOFT_SUPER);
	for (unsigned i = 0; i < 8; i++)
		t->gpr[i] = soft_read(v, at + size * (2 + i), size, SOFT_SUPER);
	for (unsigned i = 0; i < count; i++)
		t->sels[i] =
			(u16)soft_read(v, at + size * (10 + i), 2, SOFT_SUPER);
	t->ldt = (u16)soft_read(v, at + size * (10 + count), 2, SOFT_SUPER);
}

static void load_task_ldt(struct vcpu *v, u16 sel, u32 ext)
{
	u64 raw;
	gva_t va;

	soft_seg_set_null(&v->ldtr, sel);
	if (!(sel & 0xfffc))
		return;
	if ((sel & 4) || !soft_desc_read(v, sel, &raw, &va) ||
	    (raw >> 40 & 0x1f) != SYS_LDT || !(raw & BIT64(47)))
		soft_ts(v, (sel & 0xfffcu) | ext);
	soft_desc_parse(raw, sel, &v->ldtr);
}

static void load_task_cs(struct vcpu *v, u16 sel, u32 ext)
{
	u32 error = (sel & 0xfffcu) | ext;
	struct soft_seg cs;
	u64 raw;
	gva_t va;

	if (!soft_desc_read(v, sel, &raw, &va))
		soft_ts(v, error);
	soft_desc_parse(raw, sel, &cs);
	if (!(cs.attr & SEG_S) || !(cs.attr & SEG_TYPE_CODE) ||
	    ((cs.attr & SEG_TYPE_CONF_ED) ? SEG_DPL(cs.attr) > (sel & 3u)
					  : SEG_DPL(cs.attr) != (sel & 3u)))
		soft_ts(v, error);
	if (!(cs.attr & SEG_P))
		soft_np(v, error);
	soft_desc_set_accessed(v, va, &cs);
	v->segs[X86_CS] = cs;
}

static void load_task_data(struct vcpu *v, unsigned seg, u16 sel, u32 ext)
{
	u32 error = (sel & 0xfffcu) | ext;
	struct soft_seg s;
	bool is_code;
	u64 raw;
	gva_t va;

	if (!(sel & 0xfffc))
		return;
	if (!soft_desc_read(v, sel, &raw, &va))
		soft_ts(v, error);
	soft_desc_parse(raw, sel, &s);
	is_code = s.attr & SEG_TYPE_CODE;
	if (!(s.attr & SEG_S) || (is_code && !(s.attr & SEG_TYPE_WR_RD)) ||
	    (!(is_code && (s.attr & SEG_TYPE_CONF_ED)) &&
	     (SEG_DPL(s.attr) < v->cpl || SEG_DPL(s.attr) < (sel & 3u))))
		soft_ts(v, error);
	if (!(s.attr & SEG_P))
		soft_np(v, error);
	soft_desc_set_accessed(v, va, &s);
	v->segs[seg] = s;
}

static void load_task_segs(struct vcpu *v, const struct task_image *t, u32 ext)
{
	struct soft_seg ss;

	for (unsigned i = 0; i < 6; i++)
		soft_seg_set_null(&v->segs[seg_order[i]], t->sels[i]);
	if (v->rflags_sys & X86_FL_VM) {
		for (unsigned i = 0; i < 6; i++)
			soft_seg_set_vm86(&v->segs[seg_order[i]], t->sels[i]);
		soft_mode_changed(v);
		load_task_ldt(v, t->ldt, ext);
		return;
	}
	/* CPL is the new CS's RPL until SS is there. */
	v->segs[X86_SS].attr |= (t->sels[1] & 3u) << 5;
	soft_mode_changed(v);
	load_task_ldt(v, t->ldt, ext);
	load_task_cs(v, t->sels[1], ext);
	soft_load_inner_ss(v, t->sels[2], t->sels[1] & 3u, ext, &ss);
	v->segs[X86_SS] = ss;
	soft_mode_changed(v);
	for (unsigned i = 0; i < 6; i++)
		if (seg_order[i] != X86_CS && seg_order[i] != X86_SS)
			load_task_data(v, seg_order[i], t->sels[i], ext);
}

static void check_tss(struct vcpu *v, u16 sel, enum soft_task_reason reason,
		      u32 ext, struct soft_seg *tss)
{
	u32 error = (sel & 0xfffcu) | ext;
	bool is_iret = reason == TASK_IRET;
	unsigned type;
	u64 raw;
	gva_t va;

	if ((sel & 4) || !soft_desc_read(v, sel, &raw, &va))
		soft_raise_error(v, is_iret ? X86_VEC_TS : X86_VEC_GP, error);
	soft_desc_parse(raw, sel, tss);
	type = raw >> 40 & 0x1f;
	if ((type & ~8u) != (is_iret ? SYS_TSS16_BUSY : SYS_TSS16))
		soft_raise_error(v, is_iret ? X86_VEC_TS : X86_VEC_GP, error);
	if (!(tss->attr & SEG_P))
		soft_np(v, error);
	if (tss->limit < ((type & 8) ? 0x67u : 0x2bu))
		soft_ts(v, error);
}

/* Raises what any store of the switch would raise. */
static void probe_stores(struct vcpu *v, u16 sel, const struct soft_seg *tss,
			 enum soft_task_reason reason, u32 ext)
{
	const unsigned how = SOFT_W | SOFT_SUPER;
	u16 old_sel = v->tr.sel;
	size_t n;
	gva_t at = saved_part(&v->tr, &n);

	if (at - v->tr.base + n - 1 > v->tr.limit)
		soft_ts(v, (old_sel & 0xfffcu) | ext);
	soft_probe(v, at, n, how);
	if (reason == TASK_JMP || reason == TASK_IRET) {
		if ((old_sel | 7u) > v->gdtr.limit)
			soft_ts(v, (old_sel & 0xfffcu) | ext);
		soft_probe(v, v->gdtr.base + (old_sel & ~7u) + 5, 1, how);
	} else {
		soft_probe(v, tss->base, 2, how);
	}
	if (reason != TASK_IRET)
		soft_probe(v, v->gdtr.base + (sel & ~7u) + 5, 1, how);
}

/* The registers of the new task, without its segments. */
static void load_task(struct vcpu *v, const struct task_image *t, bool is_32,
		      u64 extra_flags)
{
	v->cr0 |= X86_CR0_TS;
	for (unsigned i = 0; i < 8; i++)
		v->gpr[i] = is_32 ? (u32)t->gpr[i]
				  : (v->gpr[i] & ~0xffffull) | t->gpr[i];
	soft_set_rflags(v, t->flags | extra_flags);
	v->rip = t->rip;
	v->dr7 &= ~0x155ull;
	soft_debug_changed(v);
	if (is_32 && (v->cr0 & X86_CR0_PG))
		soft_cr3_write(v, t->cr3);
}

void soft_task_switch(struct vcpu *v, u16 sel, enum soft_task_reason reason,
		      u64 next_rip, const struct soft_exception *e)
{
	u64 flags = e ? soft_exc_flags(v, e) : soft_rflags(v);
	u32 ext = e ? soft_exc_ext(e) : 0;
	u16 old_sel = v->tr.sel;
	struct task_image t;
	struct soft_seg tss;
	bool is_32, is_nested = reason == TASK_CALL || reason == TASK_GATE;
	u64 debug_trap = 0;

	check_tss(v, sel, reason, ext, &tss);
	is_32 = SEG_TYPE(tss.attr) & 8;
	read_task(v, &tss, &t);
	if (is_32)
		debug_trap = soft_read(v, tss.base + 0x64, 2, SOFT_SUPER) & 1;
	probe_stores(v, sel, &tss, reason, ext);

	if (reason == TASK_IRET)
		flags &= ~X86_FL_NT;
	save_task(v, next_rip, flags);
	if (is_nested)
		soft_write(v, tss.base, 2, old_sel, SOFT_SUPER);
	else
		set_busy(v, old_sel, false);
	if (reason != TASK_IRET)
		set_busy(v, sel, true);
	v->tr = tss;
	v->tr.attr |= 2;
	load_task(v, &t, is_32, is_nested ? X86_FL_NT : 0);
	load_task_segs(v, &t, ext);
	if (e && e->has_error)
		soft_push(v, e->error, is_32 ? 4 : 2);
	if (v->rip > v->segs[X86_CS].limit)
		soft_gp(v, ext);
	if (debug_trap)
		soft_raise_exc(v, &(struct soft_exception){.vector = X86_VEC_DB,
							   .is_trap = true,
							   .dr6 = DR6_BT});
}
