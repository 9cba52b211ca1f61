/* SPDX-License-Identifier: Apache-2.0 */
/* Handlers of instructions that read or change system state: control and
 * debug registers, tables, segments, far transfers, flags. The loop has
 * checked CPL 0 and "not in real mode" by the row's attributes. SDM 2. */
#include "soft/soft_int.h"

#include "soft/soft_sys.h"
#include "soft/sysops.h"
#include "soft/xlat.h"

void sys_set_gpr(struct vcpu *v, unsigned reg, unsigned size, u64 value)
{
	u64 *r = &v->gpr[reg];

	if (size == 8)
		*r = value;
	else if (size == 4)
		*r = (u32)value;
	else
		*r = (*r & ~0xffffull) | (u16)value;
}

gva_t sys_lin(struct vcpu *v, const struct insn *in, size_t n, unsigned how)
{
	return soft_lin(v, in->seg, soft_ea(v, in), n, how);
}

u64 sys_read_rm(struct vcpu *v, const struct insn *in, unsigned size)
{
	if (in->is_mem)
		return soft_read(v, sys_lin(v, in, size, SOFT_R), size, SOFT_R);
	return size == 2   ? (u16)v->gpr[in->rm]
	       : size == 4 ? (u32)v->gpr[in->rm]
			   : v->gpr[in->rm];
}

/* To memory 16 bits, to a register the operand size. */
static void write_rm_word(struct vcpu *v, const struct insn *in, u64 value)
{
	if (in->is_mem)
		soft_write(v, sys_lin(v, in, 2, SOFT_W), 2, value, SOFT_W);
	else
		sys_set_gpr(v, in->rm, in->osize, value);
}

/* A pending event may be deliverable now. */
void sys_unmask(struct vcpu *v)
{
	if (atomic_load(&v->requests))
		soft_kick(v);
}

static void check_umip(struct vcpu *v)
{
	if (v->cpl && (v->cr4 & X86_CR4_UMIP))
		soft_gp(v, 0);
}

/* ---- control and debug registers ---- */

static void op_mov_to_cr(struct vcpu *v, const struct insn *in)
{
	u64 value = v->gpr[in->rm];

	if (v->code_mode != X86_MODE_64)
		value = (u32)value;
	if (in->reg != 8)
		smc_serialize(v);
	switch (in->reg) {
	case 0:
		soft_cr0_write(v, value);
		break;
	case 2:
		v->cr2 = value;
		break;
	case 3:
		soft_cr3_write(v, value);
		break;
	case 4:
		soft_cr4_write(v, value);
		break;
	case 8:
		if (value & ~15ull)
			soft_gp(v, 0);
		soft_apic_set_cr8(v, value);
		sys_unmask(v);
		break;
	default:
		soft_ud(v);
	}
}

static void op_mov_from_cr(struct vcpu *v, const struct insn *in)
{
	u64 value;

	switch (in->reg) {
	case 0:
		value = v->cr0;
		break;
	case 2:
		value = v->cr2;
		break;
	case 3:
		value = v->cr3;
		break;
	case 4:
		value = v->cr4;
		break;
	case 8:
		value = soft_apic_cr8(v);
		break;
	default:
		soft_ud(v);
	}
	sys_set_gpr(v, in->rm, v->code_mode == X86_MODE_64 ? 8 : 4, value);
}

/* DR4 and DR5 alias DR6 and DR7 unless CR4.DE; DR7.GD traps. */
static unsigned debug_register(struct vcpu *v, const struct insn *in)
{
	unsigned n = in->reg;

	if (n > 7 || ((n == 4 || n == 5) && (v->cr4 & X86_CR4_DE)))
		soft_ud(v);
	if (v->dr7 & DR7_GD)
		soft_raise_exc(v, &(struct soft_exception){.vector = X86_VEC_DB,
							   .dr6 = DR6_BD});
	return n == 4 || n == 5 ? n + 2 : n;
}

static void op_mov_to_dr(struct vcpu *v, const struct insn *in)
{
	unsigned n = debug_register(v, in);
	u64 value = v->gpr[in->rm];

	if (v->code_mode != X86_MODE_64)
		value = (u32)value;
	if (n >= 6 && value >> 32)
		soft_gp(v, 0);
	smc_serialize(v);
	if (n == 6)
		v->dr6 = (value & 0xe00f) | DR6_FIXED;
	else if (n == 7)
		v->dr7 = (value & 0xffff23ffull) | DR7_FIXED;
	else
		v->dr[n] = value;
	if (n != 6)
		soft_debug_changed(v);
}

static void op_mov_from_dr(struct vcpu *v, const struct insn *in)
{
	unsigned n = debug_register(v, in);
	u64 value = n == 6   ? v->dr6 | DR6_FIXED
		    : n == 7 ? v->dr7 | DR7_FIXED
			     : v->dr[n];

	sys_set_gpr(v, in->rm, v->code_mode == X86_MODE_64 ? 8 : 4, value);
}

static void op_smsw(struct vcpu *v, const struct insn *in)
{
	check_umip(v);
	write_rm_word(v, in, v->cr0);
}

static void op_lmsw(struct vcpu *v, const struct insn *in)
{
	u64 value = sys_read_rm(v, in, 2) & 15;

	/* PE can be set but not cleared. */
	soft_cr0_write(v, (v->cr0 & ~14ull) | value);
}

static void op_clts(struct vcpu *v, const struct insn *in)
{
	v->cr0 &= ~X86_CR0_TS;
}

static void op_invlpg(struct vcpu *v, const struct insn *in)
{
	u64 va = soft_ea(v, in);

	smc_serialize(v);
	if (in->seg < 6 && (v->code_mode != X86_MODE_64 || in->seg >= X86_FS))
		va += v->segs[in->seg].base;
	if (v->code_mode != X86_MODE_64)
		va = (u32)va;
	soft_tlb_flush_page(v, va);
}

static void op_invpcid(struct vcpu *v, const struct insn *in)
{
	unsigned size = v->code_mode == X86_MODE_64 ? 8 : 4;
	u64 type = size == 8 ? v->gpr[in->reg] : (u32)v->gpr[in->reg];
	u64 desc[2];

	smc_serialize(v);
	soft_read_bytes(v, sys_lin(v, in, 16, SOFT_R), desc, 16, SOFT_R);
	if (type > 3 || desc[0] >> 12)
		soft_gp(v, 0);
	if (type < 2 && !(v->cr4 & X86_CR4_PCIDE) && desc[0])
		soft_gp(v, 0);
	if (type == 0) {
		if (!soft_is_canonical(desc[1]))
			soft_gp(v, 0);
		soft_tlb_flush_pcid_page(v, (u16)desc[0], desc[1]);
	} else if (type == 1) {
		soft_tlb_flush_pcid(v, (u16)desc[0]);
	} else {
		soft_tlb_flush(v, type == 3);
	}
}

/* ---- descriptor tables ---- */

static void store_table(struct vcpu *v, const struct insn *in,
			const struct soft_table *t)
{
	unsigned size = v->code_mode == X86_MODE_64 ? 10 : 6;
	u8 image[10];

	check_umip(v);
	st_le16(image, t->limit);
	st_le64(image + 2, t->base);
	soft_write_bytes(v, sys_lin(v, in, size, SOFT_W), image, size, SOFT_W);
}

static void load_table(struct vcpu *v, const struct insn *in,
		       struct soft_table *t)
{
	unsigned size = v->code_mode == X86_MODE_64 ? 10 : 6;
	u8 image[10] = {0};
	u64 base;

	smc_serialize(v);
	soft_read_bytes(v, sys_lin(v, in, size, SOFT_R), image, size, SOFT_R);
	base = ld_le64(image + 2);
	if (size == 10 && !soft_is_canonical(base))
		soft_gp(v, 0);
	if (size == 6 && in->osize == 2)
		base &= 0xffffff;
	t->limit = ld_le16(image);
	t->base = base;
}

static void op_sgdt(struct vcpu *v, const struct insn *in)
{
	store_table(v, in, &v->gdtr);
}

static void op_sidt(struct vcpu *v, const struct insn *in)
{
	store_table(v, in, &v->idtr);
}

static void op_lgdt(struct vcpu *v, const struct insn *in)
{
	load_table(v, in, &v->gdtr);
}

static void op_lidt(struct vcpu *v, const struct insn *in)
{
	load_table(v, in, &v->idtr);
}

static void op_sldt(struct vcpu *v, const struct insn *in)
{
	check_umip(v);
	write_rm_word(v, in, v->ldtr.sel);
}

static void op_str(struct vcpu *v, const struct insn *in)
{
	check_umip(v);
	write_rm_word(v, in, v->tr.sel);
}

/* An LDT or TSS descriptor from the GDT, with the upper half in long mode. */
static gva_t read_system_desc(struct vcpu *v, u16 sel, struct soft_seg *out)
{
	u32 error = sel & 0xfffcu;
	u64 raw, high;
	gva_t va;

	if ((sel & 4) || !soft_desc_read(v, sel, &raw, &va))
		soft_gp(v, error);
	soft_desc_parse(raw, sel, out);
	if (v->is_long) {
		if (!soft_desc_read_high(v, sel, va, &high) ||
		    (high >> 40 & 0x1f))
			soft_gp(v, error);
		out->base |= high << 32;
	}
	return va;
}

static void op_lldt(struct vcpu *v, const struct insn *in)
{
	u16 sel = (u16)sys_read_rm(v, in, 2);
	struct soft_seg s;

	smc_serialize(v);
	if (!(sel & 0xfffc)) {
		soft_seg_set_null(&v->ldtr, sel);
		return;
	}
	read_system_desc(v, sel, &s);
	if ((s.attr & 0x1f) != SYS_LDT || !soft_is_canonical(s.base))
		soft_gp(v, sel & 0xfffcu);
	if (!(s.attr & SEG_P))
		soft_np(v, sel & 0xfffcu);
	v->ldtr = s;
}

static void op_ltr(struct vcpu *v, const struct insn *in)
{
	u16 sel = (u16)sys_read_rm(v, in, 2);
	u32 error = sel & 0xfffcu;
	struct soft_seg s;
	unsigned type;
	gva_t va;

	smc_serialize(v);
	if (!error)
		soft_gp(v, 0);
	va = read_system_desc(v, sel, &s);
	type = s.attr & 0x1f;
	if ((type != SYS_TSS32 && (v->is_long || type != SYS_TSS16)) ||
	    !soft_is_canonical(s.base))
		soft_gp(v, error);
	if (!(s.attr & SEG_P))
		soft_np(v, error);
	s.attr |= 2;
	soft_write(v, va + 5, 1, s.attr & 0xff, SOFT_SUPER);
	v->tr = s;
}

/* ---- LAR LSL VERR VERW ---- */

static void set_zf(struct vcpu *v, bool value)
{
	v->aflags = value ? v->aflags | 0x4000 : v->aflags & ~0x4000u;
}

static bool inspect(struct vcpu *v, u16 sel, struct soft_seg *s)
{
	u64 raw;
	gva_t va;

	if (!soft_desc_read(v, sel, &raw, &va))
		return false;
	soft_desc_parse(raw, sel, s);
	if ((s->attr & SEG_S) && (s->attr & SEG_TYPE_CODE) &&
	    (s->attr & SEG_TYPE_CONF_ED))
		return true;
	return SEG_DPL(s->attr) >= v->cpl && SEG_DPL(s->attr) >= (sel & 3u);
}

static void op_lar_lsl(struct vcpu *v, const struct insn *in)
{
	bool is_lar = in->row->op == ISA_OP_LAR;
	u16 sel = (u16)sys_read_rm(v, in, 2);
	/* Bit per system type: TSS, LDT; LAR also gates. */
	u32 types = BIT32(2) | BIT32(9) | BIT32(11);
	struct soft_seg s;
	bool ok;

	if (is_lar)
		types |= BIT32(12);
	if (!v->is_long) {
		types |= BIT32(1) | BIT32(3);
		if (is_lar)
			types |= BIT32(4) | BIT32(5);
	}
	ok = inspect(v, sel, &s) &&
	     ((s.attr & SEG_S) || (types & BIT32(SEG_TYPE(s.attr))));
	set_zf(v, ok);
	if (!ok)
		return;
	if (is_lar) {
		u64 raw;
		gva_t va;

		if (!soft_desc_read(v, sel, &raw, &va))
			return;
		sys_set_gpr(v, in->reg, in->osize, (raw >> 32) & 0xffff00);
	} else {
		sys_set_gpr(v, in->reg, in->osize, s.limit);
	}
}

static void op_verr_verw(struct vcpu *v, const struct insn *in)
{
	u16 sel = (u16)sys_read_rm(v, in, 2);
	struct soft_seg s;
	bool ok = inspect(v, sel, &s) && (s.attr & SEG_S);

	if (ok && in->row->op == ISA_OP_VERR)
		ok = !(s.attr & SEG_TYPE_CODE) || (s.attr & SEG_TYPE_WR_RD);
	else if (ok)
		ok = !(s.attr & SEG_TYPE_CODE) && (s.attr & SEG_TYPE_WR_RD);
	set_zf(v, ok);
}

/* ---- segment registers ---- */

static void op_mov_to_seg(struct vcpu *v, const struct insn *in)
{
	unsigned seg = in->modrm >> 3 & 7;
	u16 sel;

	if (seg == X86_CS || seg > X86_GS)
		soft_ud(v);
	sel = (u16)sys_read_rm(v, in, 2);
	soft_load_seg(v, seg, sel);
	if (seg == X86_SS)
		v->shadow = SHADOW_MOV_SS;
}

static void op_mov_from_seg(struct vcpu *v, const struct insn *in)
{
	unsigned seg = in->modrm >> 3 & 7;

	if (seg > X86_GS)
		soft_ud(v);
	write_rm_word(v, in, v->segs[seg].sel);
}

static void read_far(struct vcpu *v, const struct insn *in, u64 *off, u16 *sel)
{
	gva_t va = sys_lin(v, in, in->osize + 2u, SOFT_R);
	u8 image[10];

	soft_read_bytes(v, va, image, in->osize + 2u, SOFT_R);
	*off = in->osize == 8	? ld_le64(image)
	       : in->osize == 4 ? ld_le32(image)
				: ld_le16(image);
	*sel = ld_le16(image + in->osize);
}

static void op_load_far_ptr(struct vcpu *v, const struct insn *in)
{
	unsigned seg = in->map == ISA_MAP_1B
			       ? (in->opcode == 0xc4 ? X86_ES : X86_DS)
			       : (in->opcode & 7u);
	u64 off;
	u16 sel;

	read_far(v, in, &off, &sel); /* 0F B2, B4, B5: SS, FS, GS */
	soft_load_seg(v, seg, sel);
	sys_set_gpr(v, in->reg, in->osize, off);
}

/* ---- far transfers ---- */

static void op_jmp_far(struct vcpu *v, const struct insn *in)
{
	u64 off = in->imm;
	u16 sel = in->imm2;

	if (in->is_mem)
		read_far(v, in, &off, &sel);
	soft_far_jump(v, sel, off, in->osize);
}

static void op_call_far(struct vcpu *v, const struct insn *in)
{
	u64 off = in->imm;
	u16 sel = in->imm2;

	if (in->is_mem)
		read_far(v, in, &off, &sel);
	soft_far_call(v, sel, off, in->osize);
}

static void op_ret_far(struct vcpu *v, const struct insn *in)
{
	soft_far_ret(v, in->osize, in->opcode == 0xca ? (u16)in->imm : 0);
}

static void op_iret(struct vcpu *v, const struct insn *in)
{
	smc_serialize(v);
	soft_iret(v, in->osize);
	sys_unmask(v);
}

static void raise_software(struct vcpu *v, const struct insn *in, u8 vector)
{
	soft_raise_exc(v, &(struct soft_exception){.vector = vector,
						   .is_software = true,
						   .insn_len = in->len});
}

static void op_int(struct vcpu *v, const struct insn *in)
{
	if (v->is_vm86 && (v->rflags_sys >> 12 & 3) < 3)
		soft_gp(v, 0);
	raise_software(v, in, (u8)in->imm);
}

static void op_int3(struct vcpu *v, const struct insn *in)
{
	raise_software(v, in, X86_VEC_BP);
}

static void op_into(struct vcpu *v, const struct insn *in)
{
	if (v->aflags & 1)
		raise_software(v, in, X86_VEC_OF);
}

/* #DB without the DPL check; RIP behind it. */
static void op_int1(struct vcpu *v, const struct insn *in)
{
	v->rip = v->next_rip;
	soft_raise_exc(v, &(struct soft_exception){.vector = X86_VEC_DB,
						   .is_trap = true});
}

/* ---- flags ---- */

static void op_cli(struct vcpu *v, const struct insn *in)
{
	if (v->is_protected && v->cpl > (v->rflags_sys >> 12 & 3))
		soft_gp(v, 0);
	v->rflags_sys &= ~X86_FL_IF;
}

static void op_sti(struct vcpu *v, const struct insn *in)
{
	if (v->is_protected && v->cpl > (v->rflags_sys >> 12 & 3))
		soft_gp(v, 0);
	if (!(v->rflags_sys & X86_FL_IF))
		v->shadow = SHADOW_STI;
	v->rflags_sys |= X86_FL_IF;
	sys_unmask(v);
}

static void op_pushf(struct vcpu *v, const struct insn *in)
{
	if (v->is_vm86 && (v->rflags_sys >> 12 & 3) < 3)
		soft_gp(v, 0);
	soft_push(v, soft_rflags(v) & ~(X86_FL_VM | X86_FL_RF), in->osize);
}

static void op_popf(struct vcpu *v, const struct insn *in)
{
	if (v->is_vm86 && (v->rflags_sys >> 12 & 3) < 3)
		soft_gp(v, 0);
	soft_popf_commit(v, soft_pop(v, in->osize), in->osize);
	sys_unmask(v);
}

// clang-format off
const struct soft_op_entry soft_ops_sys[] = {
	{ISA_OP_MOV_TO_CR, op_mov_to_cr}, {ISA_OP_MOV_FROM_CR, op_mov_from_cr},
	{ISA_OP_MOV_TO_DR, op_mov_to_dr}, {ISA_OP_MOV_FROM_DR, op_mov_from_dr},
	{ISA_OP_SMSW, op_smsw}, {ISA_OP_LMSW, op_lmsw}, {ISA_OP_CLTS, op_clts},
	{ISA_OP_INVLPG, op_invlpg}, {ISA_OP_INVPCID, op_invpcid},
	{ISA_OP_SGDT, op_sgdt}, {ISA_OP_SIDT, op_sidt},
	{ISA_OP_LGDT, op_lgdt}, {ISA_OP_LIDT, op_lidt},
	{ISA_OP_SLDT, op_sldt}, {ISA_OP_STR, op_str},
	{ISA_OP_LLDT, op_lldt}, {ISA_OP_LTR, op_ltr},
	{ISA_OP_LAR, op_lar_lsl}, {ISA_OP_LSL, op_lar_lsl},
	{ISA_OP_VERR, op_verr_verw}, {ISA_OP_VERW, op_verr_verw},
	{ISA_OP_MOV_TO_SEG, op_mov_to_seg},
	{ISA_OP_MOV_FROM_SEG, op_mov_from_seg},
	{ISA_OP_LOAD_FAR_PTR, op_load_far_ptr},
	{ISA_OP_JMP_FAR_PTR, op_jmp_far}, {ISA_OP_JMP_FAR_MEM, op_jmp_far},
	{ISA_OP_CALL_FAR_PTR, op_call_far}, {ISA_OP_CALL_FAR_MEM, op_call_far},
	{ISA_OP_RET_FAR, op_ret_far}, {ISA_OP_IRET, op_iret},
	{ISA_OP_INT, op_int}, {ISA_OP_INT3, op_int3}, {ISA_OP_INTO, op_into},
	{ISA_OP_INT1, op_int1}, {ISA_OP_CLI, op_cli}, {ISA_OP_STI, op_sti},
	{ISA_OP_PUSHF, op_pushf}, {ISA_OP_POPF, op_popf},
	{ISA_OP_SYSCALL, sys_syscall}, {ISA_OP_SYSRET, sys_sysret},
	{ISA_OP_SYSENTER, sys_sysenter}, {ISA_OP_SYSEXIT, sys_sysexit},
	{ISA_OP_SWAPGS, sys_swapgs}, {ISA_OP_HLT, sys_hlt},
	{ISA_OP_RDMSR, sys_rdmsr}, {ISA_OP_WRMSR, sys_wrmsr},
	{ISA_OP_CPUID, sys_cpuid}, {ISA_OP_RDTSC, sys_rdtsc},
	{ISA_OP_RDTSCP, sys_rdtsc}, {ISA_OP_RDPID, sys_rdpid},
	{ISA_OP_RDPMC, sys_rdpmc}, {ISA_OP_IN, sys_in}, {ISA_OP_OUT, sys_out},
	{ISA_OP_XGETBV, sys_xgetbv}, {ISA_OP_XSETBV, sys_xsetbv},
	{ISA_OP_RDFSBASE, sys_rdbase}, {ISA_OP_RDGSBASE, sys_rdbase},
	{ISA_OP_WRFSBASE, sys_wrbase}, {ISA_OP_WRGSBASE, sys_wrbase},
	{ISA_OP_WBINVD, sys_serialize}, {ISA_OP_WBNOINVD, sys_nop},
	{ISA_OP_INVD, sys_serialize}, {ISA_OP_CLFLUSH, sys_clflush},
	{ISA_OP_CLFLUSHOPT, sys_clflush}, {ISA_OP_CLWB, sys_clflush},
	{ISA_OP_CLZERO, sys_clzero}, {ISA_OP_CLAC, sys_clac},
	{ISA_OP_STAC, sys_clac}, {ISA_OP_PAUSE, sys_pause},
	{ISA_OP_NOP, sys_nop}, {ISA_OP_PREFETCH, sys_nop},
	{ISA_OP_PREFETCHW, sys_nop}, {ISA_OP_PREFETCHNTA, sys_nop},
	{ISA_OP_PREFETCHT0, sys_nop}, {ISA_OP_PREFETCHT1, sys_nop},
	{ISA_OP_PREFETCHT2, sys_nop}, {ISA_OP_SERIALIZE, sys_serialize},
	{ISA_OP_VMCALL, sys_vmcall}, {ISA_OP_VMMCALL, sys_vmcall},
	{ISA_OP_UD0, sys_ud}, {ISA_OP_UD1, sys_ud}, {ISA_OP_UD2, sys_ud},
	{ISA_OP_RSM, sys_ud}, {ISA_OP_MONITOR, sys_ud}, {ISA_OP_MWAIT, sys_ud},
	{ISA_OP_RDPKRU, sys_ud}, {ISA_OP_WRPKRU, sys_ud},
	{ISA_OP_RDPRU, sys_ud}, {ISA_OP_VMRUN, sys_ud},
	{ISA_OP_VMLOAD, sys_ud}, {ISA_OP_VMSAVE, sys_ud},
	{ISA_OP_STGI, sys_ud}, {ISA_OP_CLGI, sys_ud}, {ISA_OP_SKINIT, sys_ud},
	{ISA_OP_INVLPGA, sys_ud},
	{0, NULL},
};
// clang-format on
