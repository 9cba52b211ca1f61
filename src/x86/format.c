/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: the operands stand in the row in Intel's order; each is resolved
 * with the fields of struct insn. Operands that an assembler does not take
 * (implicit registers) are left out. The mnemonic is the row's name in lower
 * case up to the first underscore, but for those whose spelling depends on a
 * condition or a size. */
#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "x86/decode.h"
#include "x86/format_int.h"

static const char *const seg_names[8] = {"es", "cs", "ss", "ds",
					 "fs", "gs", "?",  "?"};

static unsigned operand_bytes(const struct insn *in,
			      const struct isa_operand *d)
{
	unsigned xy = in->vex_l ? 32 : 16;

	switch (d->size) {
	case ISA_S_B:
		return 1;
	case ISA_S_W:
		return 2;
	case ISA_S_D:
		return 4;
	case ISA_S_Q:
		return 8;
	case ISA_S_Z:
		return MIN(in->osize, 4);
	case ISA_S_Y:
		return in->osize == 8 ? 8 : 4;
	case ISA_S_YMM:
		return 32;
	case ISA_S_XY:
		return xy;
	case ISA_S_XYH:
		return xy / 2;
	case ISA_S_XYQ:
		return xy / 4;
	case ISA_S_XYE:
		return xy / 8;
	case ISA_S_X:
		return 16;
	default:
		return in->osize;
	}
}

static int gpr_name(const struct insn *in, unsigned reg, unsigned bytes,
		    char *out, size_t size)
{
	static const char names[8][3] = {"ax", "cx", "dx", "bx",
					 "sp", "bp", "si", "di"};
	static const char low[8][4] = {"al",  "cl",  "dl",  "bl",
				       "spl", "bpl", "sil", "dil"};
	static const char high[4][3] = {"ah", "ch", "dh", "bh"};
	const char *suffix = bytes == 1 ? "b" : bytes == 2 ? "w" : "d";

	reg &= 15;
	if (reg >= 8)
		return snprintf(out, size, "r%u%s", reg,
				bytes == 8 ? "" : suffix);
	if (bytes == 1 && reg >= 4 && !(in->prefixes & X86_P_REX))
		return snprintf(out, size, "%s", high[reg - 4]);
	if (bytes == 1)
		return snprintf(out, size, "%s", low[reg]);
	suffix = bytes == 8 ? "r" : bytes == 4 ? "e" : "";
	return snprintf(out, size, "%s%s", suffix, names[reg]);
}

static int xmm_name(const struct insn *in, const struct isa_operand *d,
		    unsigned reg, char *out, size_t size)
{
	return snprintf(out, size, "%cmm%u",
			operand_bytes(in, d) == 32 ? 'y' : 'x', reg & 15);
}

int x86_format_reg(const struct insn *in, const struct isa_operand *d,
		   char *out, size_t size)
{
	unsigned bytes = operand_bytes(in, d);

	switch (d->kind) {
	case ISA_O_GPR_REG:
		return gpr_name(in, in->reg, bytes, out, size);
	case ISA_O_GPR_RM:
	case ISA_O_GPR_RM_ONLY:
	case ISA_O_GPR_OPC:
		return gpr_name(in, in->rm, bytes, out, size);
	case ISA_O_GPR_VVVV:
		return gpr_name(in, in->vvvv, bytes, out, size);
	case ISA_O_GPR_FIXED:
		return gpr_name(in, d->reg, bytes, out, size);
	case ISA_O_XMM_REG:
		return xmm_name(in, d, in->reg, out, size);
	case ISA_O_XMM_RM:
	case ISA_O_XMM_RM_ONLY:
		return xmm_name(in, d, in->rm, out, size);
	case ISA_O_XMM_VVVV:
		return xmm_name(in, d, in->vvvv, out, size);
	case ISA_O_XMM_IS4:
		return xmm_name(in, d, in->imm >> 4 & 15, out, size);
	case ISA_O_XMM_FIXED:
		return xmm_name(in, d, d->reg, out, size);
	case ISA_O_MMX_REG:
		return snprintf(out, size, "mm%u", in->reg & 7);
	case ISA_O_MMX_RM:
	case ISA_O_MMX_RM_ONLY:
		return snprintf(out, size, "mm%u", in->rm & 7);
	case ISA_O_ST0:
		return snprintf(out, size, "st0");
	case ISA_O_STI:
		return snprintf(out, size, "st%u", in->modrm & 7);
	case ISA_O_SEG_REG:
		return snprintf(out, size, "%s", seg_names[in->reg & 7]);
	case ISA_O_SEG_FIXED:
		return snprintf(out, size, "%s", seg_names[d->reg & 7]);
	case ISA_O_CR:
		return snprintf(out, size, "cr%u", in->reg);
	case ISA_O_DR:
		return snprintf(out, size, "dr%u", in->reg);
	default:
		return snprintf(out, size, "?");
	}
}

/* A piece of text: snprintf at the end of what stands there already. */
struct text {
	char *out;
	size_t size, len;
};

static void put(struct text *t, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void put(struct text *t, const char *fmt, ...)
{
	size_t left = t->len < t->size ? t->size - t->len : 0;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(left ? t->out + t->len : NULL, left, fmt, ap);
	va_end(ap);
	if (n > 0)
		t->len += n;
}

static void put_gpr(struct text *t, const struct insn *in, unsigned reg,
		    unsigned bytes)
{
	char name[16];

	gpr_name(in, reg, bytes, name, sizeof(name));
	put(t, "%s", name);
}

static void put_disp(struct text *t, i32 disp, bool is_alone, unsigned asize)
{
	u64 mask = asize == 8 ? ~0ull : (1ull << (8 * asize)) - 1;

	if (is_alone)
		put(t, "0x%" PRIx64, (u64)(i64)disp & mask);
	else if (disp < 0)
		put(t, "-0x%" PRIx64, -(u64)(i64)disp);
	else if (disp)
		put(t, "+0x%x", disp);
}

static void put_index(struct text *t, const struct insn *in, bool is_vector)
{
	if (in->index == X86_REG_NONE)
		return;
	put(t, in->base == X86_REG_NONE ? "" : "+");
	if (is_vector)
		put(t, "xmm%u", in->index);
	else
		put_gpr(t, in, in->index, in->asize);
	put(t, "*%u", 1u << in->scale);
}

static void put_memory(struct text *t, const struct insn *in,
		       const struct isa_operand *d, u64 rip)
{
	bool is_stack = in->base == X86_RSP || in->base == X86_RBP;

	if (in->seg != (is_stack ? X86_SS : X86_DS))
		put(t, "%s:", seg_names[in->seg & 7]);
	put(t, "[");
	if (d->kind == ISA_O_MOFFS) {
		put(t, "0x%" PRIx64 "]", in->imm);
		return;
	}
	if (in->base == X86_REG_RIP) {
		rip += in->len + (u64)(i64)in->disp;
		put(t, "rip:0x%" PRIx64 "]",
		    in->asize == 4 ? rip & 0xffffffff : rip);
		return;
	}
	if (in->base != X86_REG_NONE)
		put_gpr(t, in, in->base, in->asize);
	put_index(t, in, d->kind == ISA_O_VSIB);
	put_disp(t, in->disp,
		 in->base == X86_REG_NONE && in->index == X86_REG_NONE,
		 in->asize);
	put(t, "]");
}

/* ---- mnemonics ---- */

static const char *const conditions[16] = {"o",	 "no", "b",  "ae", "e", "ne",
					   "be", "a",  "s",  "ns", "p", "np",
					   "l",	 "ge", "le", "g"};

/* How a mnemonic ends by operand size. */
struct sized_name {
	u16 op;
	const char *word, *dword, *qword;
};

static const struct sized_name sized_names[] = {
	{ISA_OP_CBW, "cbw", "cwde", "cdqe"},
	{ISA_OP_CWD, "cwd", "cdq", "cqo"},
	{ISA_OP_CMPXCHG8B, "cmpxchg8b", "cmpxchg8b", "cmpxchg16b"},
	{ISA_OP_IRET, "iret", "iretd", "iretq"},
	{ISA_OP_PUSHF, "pushf", "pushfd", "pushfq"},
	{ISA_OP_POPF, "popf", "popfd", "popfq"},
	{ISA_OP_PUSHA, "pusha", "pushad", "pushad"},
	{ISA_OP_POPA, "popa", "popad", "popad"},
	{ISA_OP_FXSAVE, "fxsave", "fxsave", "fxsave64"},
	{ISA_OP_FXRSTOR, "fxrstor", "fxrstor", "fxrstor64"},
	{ISA_OP_XSAVE, "xsave", "xsave", "xsave64"},
	{ISA_OP_XRSTOR, "xrstor", "xrstor", "xrstor64"},
	{ISA_OP_XSAVEOPT, "xsaveopt", "xsaveopt", "xsaveopt64"},
	{ISA_OP_XSAVEC, "xsavec", "xsavec", "xsavec64"},
	{ISA_OP_MOVD, "movd", "movd", "movq"},
	{ISA_OP_VMOVD, "vmovd", "vmovd", "vmovq"},
	{ISA_OP_PEXTRD, "pextrd", "pextrd", "pextrq"},
	{ISA_OP_PINSRD, "pinsrd", "pinsrd", "pinsrq"},
	{ISA_OP_VPEXTRD, "vpextrd", "vpextrd", "vpextrq"},
	{ISA_OP_VPINSRD, "vpinsrd", "vpinsrd", "vpinsrq"},
};

static const char *by_size(const struct insn *in)
{
	for (size_t i = 0; i < ARRAY_SIZE(sized_names); i++) {
		const struct sized_name *s = &sized_names[i];

		if (s->op == in->row->op)
			return in->osize == 8	? s->qword
			       : in->osize == 4 ? s->dword
						: s->word;
	}
	return NULL;
}

static void put_lower(struct text *t, const char *name)
{
	for (; *name && *name != '_'; name++)
		put(t, "%c", tolower((unsigned char)*name));
}

static void put_string_op(struct text *t, const struct insn *in)
{
	unsigned n = in->opcode & 1 ? in->osize : 1;

	if (n == 8 && (in->opcode & 0xfc) == 0x6c)
		n = 4; /* INS, OUTS */
	put_lower(t, isa_op_names[in->row->op]);
	put(t, "%c", n == 1 ? 'b' : n == 2 ? 'w' : n == 4 ? 'd' : 'q');
}

static const char *special_name(const struct insn *in)
{
	switch (in->row->op) {
	case ISA_OP_RET_NEAR:
		return "ret";
	case ISA_OP_RET_FAR:
		return "retf";
	case ISA_OP_JRCXZ:
		return in->asize == 8	? "jrcxz"
		       : in->asize == 4 ? "jecxz"
					: "jcxz";
	default:
		return by_size(in);
	}
}

static void put_mnemonic(struct text *t, const struct insn *in)
{
	const struct isa_row *row = in->row;
	const char *special = special_name(in);
	const char *cc = conditions[in->opcode & 15];

	if (special)
		put(t, "%s", special);
	else if (row->op == ISA_OP_JCC)
		put(t, "j%s", cc);
	else if (row->op == ISA_OP_SETCC)
		put(t, "set%s", cc);
	else if (row->op == ISA_OP_CMOVCC)
		put(t, "cmov%s", cc);
	else if (row->op == ISA_OP_LOAD_FAR_PTR)
		put(t, "l%s", seg_names[row->operands[2].reg & 7]);
	else if (row->class == ISA_STR)
		put_string_op(t, in);
	else
		put_lower(t, isa_op_names[row->op]);
}

int x86_format_mnemonic(const struct insn *in, char *out, size_t size)
{
	struct text t = {out, size, 0};

	put_mnemonic(&t, in);
	return (int)t.len;
}

/* ---- operands ---- */

static const char *size_word(unsigned bytes)
{
	switch (bytes) {
	case 1:
		return "byte ";
	case 2:
		return "word ";
	case 4:
		return "dword ";
	case 8:
		return "qword ";
	case 10:
		return "tword ";
	case 16:
		return "oword ";
	case 32:
		return "yword ";
	default:
		return "";
	}
}

/* Implicit operands that assemblers do not take. */
static bool is_hidden(const struct insn *in, const struct isa_operand *d)
{
	if (d->kind == ISA_O_NONE || d->kind == ISA_O_STR_SRC ||
	    d->kind == ISA_O_STR_DST)
		return true;
	if (in->row->class == ISA_STR)
		return true;
	switch (in->row->op) {
	case ISA_OP_MUL:
	case ISA_OP_IMUL:
	case ISA_OP_DIV:
	case ISA_OP_IDIV:
	case ISA_OP_CBW:
	case ISA_OP_CWD:
	case ISA_OP_XLAT:
	case ISA_OP_CMPXCHG:
	case ISA_OP_MULX:
		return d->kind == ISA_O_GPR_FIXED;
	case ISA_OP_LOAD_FAR_PTR:
		return d->kind == ISA_O_SEG_FIXED;
	default:
		return false;
	}
}

/* A register operand of the memory operand's size makes the word needless. */
static bool is_size_clear(const struct insn *in)
{
	for (unsigned i = 0; i < ISA_OPERANDS; i++) {
		const struct isa_operand *d = &in->row->operands[i];

		if (is_hidden(in, d))
			continue;
		switch (d->kind) {
		case ISA_O_GPR_REG:
		case ISA_O_GPR_FIXED:
		case ISA_O_XMM_REG:
			if (operand_bytes(in, d) == in->mem_size)
				return true;
		}
	}
	return false;
}

static void put_immediate(struct text *t, const struct insn *in,
			  const struct isa_operand *d)
{
	unsigned bytes =
		in->row->attr & ISA_IMM_SX ? in->osize : operand_bytes(in, d);
	u64 mask = bytes >= 8 ? ~0ull : (1ull << (8 * bytes)) - 1;

	put(t, "0x%" PRIx64, in->imm & mask);
}

static void put_operand(struct text *t, const struct insn *in,
			const struct isa_operand *d, u64 rip)
{
	u64 mask = in->osize == 8 ? ~0ull : (1ull << (8 * in->osize)) - 1;
	char name[16];

	switch (d->kind) {
	case ISA_O_IMM:
		put_immediate(t, in, d);
		return;
	case ISA_O_IMM2:
		put(t, "0x%x", in->imm2);
		return;
	case ISA_O_ONE:
		put(t, "1");
		return;
	case ISA_O_REL:
		put(t, "0x%" PRIx64, (rip + in->len + in->imm) & mask);
		return;
	case ISA_O_FARPTR:
		put(t, "0x%x:0x%" PRIx64, in->imm2, in->imm);
		return;
	case ISA_O_MEM:
	case ISA_O_VSIB:
	case ISA_O_MOFFS:
	case ISA_O_GPR_RM:
	case ISA_O_XMM_RM:
	case ISA_O_MMX_RM:
		if (!in->is_mem)
			break;
		put(t, "%s", is_size_clear(in) ? "" : size_word(in->mem_size));
		put_memory(t, in, d, rip);
		return;
	}
	x86_format_reg(in, d, name, sizeof(name));
	put(t, "%s", name);
}

static void put_prefixes(struct text *t, const struct insn *in)
{
	bool is_compare =
		in->row->op == ISA_OP_CMPS || in->row->op == ISA_OP_SCAS;

	if (in->prefixes & X86_P_LOCK)
		put(t, "lock ");
	if (in->row->class != ISA_STR)
		return;
	if (in->prefixes & X86_P_REPNE)
		put(t, is_compare ? "repne " : "rep ");
	else if (in->prefixes & X86_P_REP)
		put(t, is_compare ? "repe " : "rep ");
}

int x86_format(const struct insn *in, u64 rip, char *out, size_t size)
{
	struct text t = {out, size, 0};
	const char *sep = " ";

	if (!in->row) {
		put(&t, "(bad)");
		return (int)t.len;
	}
	put_prefixes(&t, in);
	put_mnemonic(&t, in);
	for (unsigned i = 0; i < ISA_OPERANDS; i++) {
		const struct isa_operand *d = &in->row->operands[i];

		if (is_hidden(in, d))
			continue;
		put(&t, "%s", sep);
		put_operand(&t, in, d, rip);
		sep = ", ";
	}
	return (int)t.len;
}
