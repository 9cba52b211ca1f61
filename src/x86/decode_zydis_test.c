/* SPDX-License-Identifier: Apache-2.0 */
/* Decodes random byte strings, and libc's text, here and with Zydis.
 *
 * usage: test_decode_zydis [COUNT [SEED]]
 *
 * Strings are weighted towards prefixes and the opcode maps. Validity, length,
 * mnemonic, sizes, registers, the memory operand, immediates, accesses and
 * flags must agree. What may differ is listed: instruction sets that are not
 * offered (is_offered), and single rules with their reason (exempt_*).
 */
#include "test/test.h"
#include "x86/format_int.h"

#include <ctype.h>
#include <elf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <Zydis/Zydis.h>

#define REPORTS_MAX 100

struct pair {
	const u8 *bytes;
	enum x86_mode mode;
	struct isa_features features;
	struct insn in;
	int len;
	bool is_zydis_ok;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand zo[ZYDIS_MAX_OPERAND_COUNT];
	char why[160];
};

/* Instruction sets that this CPU does not offer: #UD here, or the hint that
 * the opcode was before. */
static bool is_offered(ZydisISASet set)
{
	if (set >= ZYDIS_ISA_SET_AVX512BW_128 &&
	    set <= ZYDIS_ISA_SET_AVX512_VPOPCNTDQ_512)
		return false;
	if (set >= ZYDIS_ISA_SET_KNCE && set <= ZYDIS_ISA_SET_KNC_PF_HINT)
		return false;
	switch (set) {
	case ZYDIS_ISA_SET_AMD3DNOW:
	case ZYDIS_ISA_SET_AMD_INVLPGB:
	case ZYDIS_ISA_SET_AMX_BF16:
	case ZYDIS_ISA_SET_AMX_INT8:
	case ZYDIS_ISA_SET_AMX_TILE:
	case ZYDIS_ISA_SET_AVX_VNNI:
	case ZYDIS_ISA_SET_CET:
	case ZYDIS_ISA_SET_CLDEMOTE:
	case ZYDIS_ISA_SET_ENQCMD:
	case ZYDIS_ISA_SET_FMA4:
	case ZYDIS_ISA_SET_HRESET:
	case ZYDIS_ISA_SET_KEYLOCKER:
	case ZYDIS_ISA_SET_KEYLOCKER_WIDE:
	case ZYDIS_ISA_SET_LWP:
	case ZYDIS_ISA_SET_MCOMMIT:
	case ZYDIS_ISA_SET_MONITORX:
	case ZYDIS_ISA_SET_MOVDIR:
	case ZYDIS_ISA_SET_MPX:
	case ZYDIS_ISA_SET_PADLOCK_ACE:
	case ZYDIS_ISA_SET_PADLOCK_PHE:
	case ZYDIS_ISA_SET_PADLOCK_PMM:
	case ZYDIS_ISA_SET_PADLOCK_RNG:
	case ZYDIS_ISA_SET_PCONFIG:
	case ZYDIS_ISA_SET_PREFETCHWT1:
	case ZYDIS_ISA_SET_PT:
	case ZYDIS_ISA_SET_RTM:
	case ZYDIS_ISA_SET_SGX:
	case ZYDIS_ISA_SET_SGX_ENCLV:
	case ZYDIS_ISA_SET_SMX:
	case ZYDIS_ISA_SET_SNP:
	case ZYDIS_ISA_SET_TBM:
	case ZYDIS_ISA_SET_TDX:
	case ZYDIS_ISA_SET_TSX_LDTRK:
	case ZYDIS_ISA_SET_UINTR:
	case ZYDIS_ISA_SET_VMFUNC:
	case ZYDIS_ISA_SET_VTX:
	case ZYDIS_ISA_SET_WAITPKG:
	case ZYDIS_ISA_SET_XOP:
	case ZYDIS_ISA_SET_XSAVES:
		return false;
	default:
		return true;
	}
}

static bool is_hint(u16 op)
{
	return op == ISA_OP_NOP || op == ISA_OP_PREFETCH ||
	       op == ISA_OP_PREFETCHW;
}

static const char *z_name(const struct pair *p)
{
	return ZydisMnemonicGetString(p->z.mnemonic);
}

/* ---- mnemonics ---- */

static const struct {
	const char *ours, *zydis;
} aliases[] = {
	{"je", "jz"},	      {"jne", "jnz"},	    {"jae", "jnb"},
	{"ja", "jnbe"},	      {"jge", "jnl"},	    {"jg", "jnle"},
	{"sete", "setz"},     {"setne", "setnz"},   {"setae", "setnb"},
	{"seta", "setnbe"},   {"setge", "setnl"},   {"setg", "setnle"},
	{"cmove", "cmovz"},   {"cmovne", "cmovnz"}, {"cmovae", "cmovnb"},
	{"cmova", "cmovnbe"}, {"cmovge", "cmovnl"}, {"cmovg", "cmovnle"},
	{"retf", "ret"},      {"salc", "salc"},	    {"int", "int"},
	{"xlat", "xlat"},     {"fcmovu", "fcmovu"}, {"invlpga", "invlpga"},
};

static bool is_same_name(const char *ours, const char *zydis)
{
	if (!strcmp(ours, zydis))
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(aliases); i++) {
		if (!strcmp(ours, aliases[i].ours) &&
		    !strcmp(zydis, aliases[i].zydis))
			return true;
	}
	return false;
}

/* ---- operands ---- */

static unsigned size_of(const struct pair *p, const struct isa_operand *d);

static const char *check_memory(struct pair *p, const struct isa_operand *d,
				const ZydisDecodedOperand *o)
{
	const struct insn *in = &p->in;
	static const ZydisRegister segs[] = {
		ZYDIS_REGISTER_ES, ZYDIS_REGISTER_CS, ZYDIS_REGISTER_SS,
		ZYDIS_REGISTER_DS, ZYDIS_REGISTER_FS, ZYDIS_REGISTER_GS};
	i64 base = X86_REG_NONE, index = X86_REG_NONE;

	if (o->mem.base == ZYDIS_REGISTER_RIP ||
	    o->mem.base == ZYDIS_REGISTER_EIP)
		base = X86_REG_RIP;
	else if (o->mem.base != ZYDIS_REGISTER_NONE)
		base = ZydisRegisterGetId(o->mem.base);
	if (o->mem.index != ZYDIS_REGISTER_NONE)
		index = ZydisRegisterGetId(o->mem.index);
	/* mod 0, base 101b: disp32 and no base, whatever REX.B says. Zydis
	 * 4.0 takes R13D and no displacement after 67; a host does not. */
	if (base == 13 && in->base == X86_REG_NONE && in->asize == 4 &&
	    p->z.raw.sib.base == 5 && p->z.raw.modrm.mod == 0)
		return NULL;
	if (base != in->base)
		return "base";
	if (index != in->index)
		return "index";
	if (index != X86_REG_NONE && o->mem.scale != 1u << in->scale)
		return "scale";
	if (d->kind == ISA_O_MOFFS
		    ? ((u64)o->mem.disp.value ^ in->imm) << (64 - 8 * in->asize)
		    : (o->mem.disp.has_displacement ? o->mem.disp.value : 0) !=
			      in->disp)
		return "displacement";
	if (in->seg > X86_GS ||
	    (segs[in->seg] != o->mem.segment && in->row->op != ISA_OP_LEA))
		return "segment";
	if (d->size != ISA_S_NONE && d->size != ISA_S_XSAVE &&
	    d->kind != ISA_O_VSIB && o->mem.type != ZYDIS_MEMOP_TYPE_AGEN &&
	    in->mem_size != o->size / 8)
		return "memory size";
	return NULL;
}

static bool is_modrm_memory(const struct pair *p, const struct isa_operand *d)
{
	switch (d->kind) {
	case ISA_O_GPR_RM:
	case ISA_O_XMM_RM:
	case ISA_O_MMX_RM:
	case ISA_O_MEM:
	case ISA_O_VSIB:
	case ISA_O_MOFFS:
		return p->in.is_mem;
	default:
		return false;
	}
}

static bool is_value(const struct isa_operand *d)
{
	return d->kind == ISA_O_IMM || d->kind == ISA_O_IMM2 ||
	       d->kind == ISA_O_REL || d->kind == ISA_O_ONE ||
	       d->kind == ISA_O_FARPTR;
}

static const char *check_value(struct pair *p, const struct isa_operand *d,
			       const ZydisDecodedOperand *o)
{
	const struct insn *in = &p->in;
	u64 mask = size_of(p, d) >= 8 ? ~0ull : BIT64(8 * size_of(p, d)) - 1;

	switch (d->kind) {
	case ISA_O_ONE:
		return o->imm.value.u == 1 ? NULL : "one";
	case ISA_O_IMM2:
		return (u8)o->imm.value.u == in->imm2 ? NULL : "immediate 2";
	case ISA_O_FARPTR:
		return o->ptr.segment == in->imm2 && o->ptr.offset == in->imm
			       ? NULL
			       : "far pointer";
	case ISA_O_REL:
		return o->imm.value.s == (i64)in->imm ? NULL : "displacement";
	default:
		if (in->row->attr & ISA_IMM_SX)
			mask = in->osize == 8 ? ~0ull
					      : BIT64(8 * in->osize) - 1;
		return ((o->imm.value.u ^ in->imm) & mask) ? "immediate" : NULL;
	}
}

/* Zydis may give a wider register where only a part of it is read (PINSRW,
 * LAR), or where the rest is zeroed (MOVMSKPS with REX.W). */
static bool is_same_register(struct pair *p, const struct isa_operand *d,
			     const ZydisDecodedOperand *o)
{
	const char *z = ZydisRegisterGetString(o->reg.value);
	bool is_simd = p->in.row->attr & (ISA_MMX | ISA_SSE | ISA_AVX);
	struct isa_operand wide = *d;
	struct insn in = p->in;
	char name[16];

	x86_format_reg(&in, d, name, sizeof(name));
	if (!z || !strcmp(z, name))
		return z;
	if (d->size == ISA_S_B || (d->access != ISA_A_R && !is_simd))
		return false;
	if (d->kind == ISA_O_XMM_RM || d->kind == ISA_O_XMM_RM_ONLY)
		return false;
	wide.size = ISA_S_V;
	for (in.osize = 4; in.osize <= 8; in.osize *= 2) {
		x86_format_reg(&in, &wide, name, sizeof(name));
		if (!strcmp(z, name))
			return true;
	}
	return false;
}

static unsigned size_of(const struct pair *p, const struct isa_operand *d)
{
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
		return MIN(p->in.osize, 4);
	default:
		return p->in.osize;
	}
}

static const char *check_access(const struct isa_operand *d,
				const ZydisDecodedOperand *o)
{
	unsigned a = o->actions;
	bool is_r = a & ZYDIS_OPERAND_ACTION_MASK_READ;
	bool is_w = a & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	bool ours_r = d->access == ISA_A_R || d->access == ISA_A_RW;
	bool ours_w = d->access == ISA_A_W || d->access == ISA_A_RW ||
		      d->access == ISA_A_CW;

	/* The x87 stack is the host's own: its accesses do not matter. */
	if (d->kind == ISA_O_ST0 || d->kind == ISA_O_STI)
		return NULL;
	if (is_w != ours_w)
		return "write access";
	/* Reading more than needed is allowed: CW, undefined results. */
	if (is_r && !ours_r && d->access != ISA_A_CW && d->access != ISA_A_NONE)
		return "read access";
	return NULL;
}

/* Finds Zydis's operand for ours: NULL when there is none. */
static const ZydisDecodedOperand *
find_operand(struct pair *p, const struct isa_operand *d, u32 *used)
{
	bool is_mem = is_modrm_memory(p, d);

	for (unsigned i = 0; i < p->z.operand_count; i++) {
		const ZydisDecodedOperand *o = &p->zo[i];
		bool fits;

		if (*used & BIT32(i))
			continue;
		if (is_mem)
			fits = o->type == ZYDIS_OPERAND_TYPE_MEMORY &&
			       o->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN;
		else if (is_value(d))
			fits = o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ||
			       o->type == ZYDIS_OPERAND_TYPE_POINTER;
		else
			fits = o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
			       is_same_register(p, d, o);
		if (fits) {
			*used |= BIT32(i);
			return o;
		}
	}
	return NULL;
}

static const char *check_operand(struct pair *p, unsigned i, u32 *used)
{
	const struct isa_operand *d = &p->in.row->operands[i];
	const ZydisDecodedOperand *o;
	const char *why = NULL;

	if (d->kind == ISA_O_NONE || d->kind == ISA_O_STR_SRC ||
	    d->kind == ISA_O_STR_DST)
		return NULL;
	/* MASKMOV's rDI is memory for Zydis. */
	if (d->kind == ISA_O_GPR_FIXED && d->reg == X86_RDI)
		return NULL;
	o = find_operand(p, d, used);
	if (!o)
		return "operand that Zydis does not have";
	if (is_modrm_memory(p, d))
		why = check_memory(p, d, o);
	else if (is_value(d))
		return check_value(p, d, o);
	return why ? why : check_access(d, o);
}

static const char *check_operands(struct pair *p)
{
	u32 used = 0;

	if (is_hint(p->in.row->op) || p->in.row->op == ISA_OP_UD0 ||
	    p->in.row->op == ISA_OP_UD1)
		return NULL; /* they access nothing */
	for (unsigned i = 0; i < ISA_OPERANDS; i++) {
		const char *why = check_operand(p, i, &used);

		if (why) {
			snprintf(p->why, sizeof(p->why), "operand %u: %s",
				 i + 1, why);
			return p->why;
		}
	}
	for (unsigned i = 0; i < p->z.operand_count; i++) {
		const ZydisDecodedOperand *o = &p->zo[i];

		if (!(used & BIT32(i)) && p->in.row->class != ISA_STR &&
		    o->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT) {
			snprintf(p->why, sizeof(p->why),
				 "Zydis's operand %u is missing", i + 1);
			return p->why;
		}
	}
	return NULL;
}

/* ---- flags, sizes ---- */

static const char *check_flags(struct pair *p)
{
	const struct isa_row *row = p->in.row;
	const ZydisAccessedFlags *f = p->z.cpu_flags;
	u32 changed, undefined;

	if (!f)
		return row->flags_changed ? "flags changed" : NULL;
	changed = (f->modified | f->set_0 | f->set_1 | f->undefined) & ISA_ALLF;
	undefined = f->undefined & ISA_ALLF;
	if ((f->tested & ISA_ALLF) & ~row->flags_tested)
		return "flag that is tested";
	if (changed & ~(row->flags_changed | row->flags_undefined))
		return "flag that is changed";
	if (row->flags_changed & ~changed & ~row->flags_tested)
		return "flag that is not changed";
	if (row->flags_undefined & ~undefined & ~row->flags_tested)
		return "flag that is not undefined";
	return NULL;
}

static const char *check_agreement(struct pair *p)
{
	const struct insn *in = &p->in;
	char name[32];
	const char *why;

	if (p->len != p->z.length) {
		snprintf(p->why, sizeof(p->why), "length, Zydis %u",
			 p->z.length);
		return p->why;
	}
	x86_format_mnemonic(in, name, sizeof(name));
	if (!is_same_name(name, z_name(p)))
		return "mnemonic";
	if (in->asize != p->z.address_width / 8)
		return "address size";
	why = check_operands(p);
	return why ? why : check_flags(p);
}

/* ---- one string ---- */

static void decode_both(struct pair *p)
{
	static const ZydisMachineMode modes[] = {
		ZYDIS_MACHINE_MODE_LONG_COMPAT_16,
		ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_MACHINE_MODE_LONG_64};
	static const ZydisStackWidth stacks[] = {ZYDIS_STACK_WIDTH_16,
						 ZYDIS_STACK_WIDTH_32,
						 ZYDIS_STACK_WIDTH_64};
	ZydisDecoder dec;

	ZydisDecoderInit(&dec, modes[p->mode], stacks[p->mode]);
	ZydisDecoderEnableMode(&dec, ZYDIS_DECODER_MODE_AMD_BRANCHES,
			       p->features.is_amd);
	ZydisDecoderEnableMode(&dec, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
	ZydisDecoderEnableMode(&dec, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
	ZydisDecoderEnableMode(&dec, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
	ZydisDecoderEnableMode(&dec, ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_TRUE);
	p->is_zydis_ok = ZYAN_SUCCESS(ZydisDecoderDecodeFull(
		&dec, p->bytes, X86_INSN_MAX, &p->z, p->zo));
	p->len = x86_decode(&p->in, p->bytes, X86_INSN_MAX, p->mode,
			    &p->features);
}

/* Differences with a reason. */
static bool exempt_only_here(const struct pair *p)
{
	return false;
}

static bool exempt_only_zydis(const struct pair *p)
{
	/* Register forms of 0F 0D are undefined on AMD (seen on a host). */
	if (p->features.is_amd && p->z.opcode_map == ZYDIS_OPCODE_MAP_0F &&
	    p->z.opcode == 0x0d && p->z.raw.modrm.mod == 3)
		return true;
	/* W1 outside 64-bit mode is #UD (SDM 2, seen on a host). */
	if ((p->z.mnemonic == ZYDIS_MNEMONIC_VPINSRD ||
	     p->z.mnemonic == ZYDIS_MNEMONIC_VPEXTRD) &&
	    p->mode != X86_MODE_64 && p->z.raw.vex.W)
		return true;
	return !is_offered(p->z.meta.isa_set);
}

static bool exempt_disagreement(const struct pair *p, const char *why)
{
	const struct insn *in = &p->in;
	bool is_66 = in->prefixes & X86_P_OPSIZE;

	switch (in->row->op) {
	case ISA_OP_VMCALL: /* a hypercall keeps the flags */
	case ISA_OP_VMMCALL:
	case ISA_OP_VPTEST: /* Zydis's table has too few flags */
	case ISA_OP_VTESTPS:
	case ISA_OP_VTESTPD:
		return strstr(why, "flag");
	case ISA_OP_MOVSXD: /* SDM: r16, r/m16; AMD reads four bytes */
		return is_66;
	case ISA_OP_CALL_RM: /* Zydis follows AMD for relative ones only */
	case ISA_OP_JMP_RM:
		return is_66 && p->features.is_amd && p->mode == X86_MODE_64;
	case ISA_OP_XCHG: /* F3 41 90 exchanges (seen on a host) */
		return in->opcode == 0x90 &&
		       p->z.mnemonic == ZYDIS_MNEMONIC_PAUSE;
	case ISA_OP_WBNOINVD: /* Zydis 4.0 knows only some encodings */
		return p->z.mnemonic == ZYDIS_MNEMONIC_WBINVD;
	case ISA_OP_FNOP: /* 8087 and 80287 leftovers */
		return in->opcode == 0xdb;
	default:
		return !is_offered(p->z.meta.isa_set) && is_hint(in->row->op);
	}
}

static const char *compare(struct pair *p)
{
	const char *why;

	decode_both(p);
	if (p->len <= 0 && !p->is_zydis_ok)
		return NULL;
	if (p->len <= 0)
		return exempt_only_zydis(p) ? NULL : "only Zydis accepts it";
	if (!p->is_zydis_ok)
		return exempt_only_here(p) ? NULL : "Zydis rejects it";
	why = check_agreement(p);
	return why && exempt_disagreement(p, why) ? NULL : why;
}

/* One report for each mnemonic and reason. */
struct seen {
	u64 keys[REPORTS_MAX];
	unsigned count;
	u64 differences;
};

static bool is_new(struct seen *seen, const struct pair *p, const char *why)
{
	u64 key = p->is_zydis_ok ? p->z.mnemonic : 0;

	key = key * 1000003 + (p->len > 0 ? p->in.row->op : 0);
	for (; *why; why++)
		key = key * 31 + (u8)*why;
	for (unsigned i = 0; i < seen->count; i++) {
		if (seen->keys[i] == key)
			return false;
	}
	if (seen->count == REPORTS_MAX)
		return false;
	seen->keys[seen->count++] = key;
	return true;
}

static void report(struct seen *seen, const struct pair *p, const char *why)
{
	char text[128] = "(bad)";

	seen->differences++;
	if (!is_new(seen, p, why))
		return;
	if (p->len > 0)
		x86_format(&p->in, 0, text, sizeof(text));
	printf("mode %d%s:", 16 << p->mode, p->features.is_amd ? " amd" : "");
	for (unsigned i = 0; i < X86_INSN_MAX; i++)
		printf(" %02x", p->bytes[i]);
	printf(": %d %s | Zydis: %s %d: %s\n", p->len, text,
	       p->is_zydis_ok ? z_name(p) : "(bad)",
	       p->is_zydis_ok ? p->z.meta.isa_set : 0, why);
}

/* ---- random strings ---- */

static u64 random_u64(u64 *state)
{
	u64 x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 0x2545f4914f6cdd1dull;
}

static void random_string(u64 *state, u8 bytes[16])
{
	static const u8 prefixes[] = {0x66, 0x66, 0xf2, 0xf3, 0xf2, 0xf3,
				      0x67, 0xf0, 0x2e, 0x36, 0x64, 0x65,
				      0x26, 0x3e, 0x48, 0x41};
	u64 r = random_u64(state);
	unsigned n = 0, extra;

	for (unsigned i = 0; i < 16; i += 8)
		st_le64(bytes + i, random_u64(state));
	extra = r & 3 ? 0 : (r >> 2) & 3;
	extra += (r >> 4) & 1;
	for (unsigned i = 0; i < extra; i++)
		bytes[n++] = prefixes[(r >> (8 + 4 * i)) & 15];
	if (((r >> 32) & 7) == 0)
		bytes[n++] = 0x40 | ((r >> 36) & 15);
	switch ((r >> 40) & 15) {
	case 0 ... 3:
		bytes[n++] = 0x0f;
		break;
	case 4 ... 5:
		bytes[n++] = 0x0f;
		bytes[n++] = 0x38;
		break;
	case 6:
		bytes[n++] = 0x0f;
		bytes[n++] = 0x3a;
		break;
	case 7 ... 8:
		bytes[n++] = 0xc5;
		break;
	case 9 ... 10: /* C4 with one of the three maps */
		bytes[n++] = 0xc4;
		bytes[n] = (bytes[n] & 0xe0) | (1 + (r >> 44) % 3);
		if (r >> 62)
			bytes[n] |= 0xe0;
		if ((r >> 60) & 1)
			bytes[n + 1] |= 0x78;
		break;
	}
}

static u64 run_random(u64 count, u64 seed)
{
	u64 state = seed * 2654435761u + 1;
	struct seen seen = {0};
	u64 accepted = 0;
	u8 bytes[16];
	struct pair p = {.bytes = bytes};

	for (u64 i = 0; i < count; i++) {
		const char *why;

		random_string(&state, bytes);
		p.mode = i % 5 < 3 ? X86_MODE_64 : i % 5 - 3;
		p.features.bits = ~0ull;
		p.features.is_amd = random_u64(&state) & 1;
		why = compare(&p);
		if (why)
			report(&seen, &p, why);
		accepted += p.len > 0 && p.is_zydis_ok;
	}
	printf("%.0f %% of the strings are instructions\n",
	       100.0 * accepted / count);
	assert_true(accepted > count / 4);
	return seen.differences;
}

/* ---- program text ---- */

static void libc_path(char path[256])
{
	char line[512];
	FILE *maps = fopen("/proc/self/maps", "r");

	path[0] = '\0';
	while (maps && fgets(line, sizeof(line), maps)) {
		if (strstr(line, "/libc.so.6") &&
		    sscanf(line, "%*s %*s %*s %*s %*s %255s", path) == 1)
			break;
	}
	if (maps)
		fclose(maps);
}

/* NULL when it cannot be mapped. */
static const u8 *map_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *p = MAP_FAILED;
	struct stat st;

	if (fd >= 0 && fstat(fd, &st) == 0)
		p = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (fd >= 0)
		close(fd);
	return p == MAP_FAILED ? NULL : p;
}

static u64 sweep(const u8 *code, size_t bytes, u64 *out_count)
{
	struct pair p = {.mode = X86_MODE_64,
			 .features = {.bits = ~0ull, .is_amd = true}};
	struct seen seen = {0};
	u64 count = 0;
	size_t i = 0;

	while (i + X86_INSN_MAX <= bytes) {
		const char *why;

		p.bytes = code + i;
		why = compare(&p);
		if (why)
			report(&seen, &p, why);
		count++;
		i += p.is_zydis_ok ? p.z.length : 1;
	}
	*out_count = count;
	return seen.differences;
}

static u64 options[2] = {1000000, 1};

static void random_strings_decode_as_zydis_does(void **state)
{
	(void)state;
	assert_int_equal(run_random(options[0], options[1]), 0);
}

/* The executable segments of an ELF file. */
static void sweep_file(const char *path)
{
	const u8 *file = map_file(path);
	const Elf64_Ehdr *eh = (const Elf64_Ehdr *)file;
	const Elf64_Phdr *ph;

	if (!file)
		skip();
	ph = (const Elf64_Phdr *)(file + eh->e_phoff);
	for (unsigned i = 0; i < eh->e_phnum; i++) {
		u64 count = 0;

		if (ph[i].p_type != PT_LOAD || !(ph[i].p_flags & PF_X))
			continue;
		assert_int_equal(
			sweep(file + ph[i].p_offset, ph[i].p_filesz, &count),
			0);
		printf("%s: %llu instructions\n", path,
		       (unsigned long long)count);
		assert_true(count > 100000);
	}
}

static void libc_text_decodes_as_zydis_does(void **state)
{
	char path[256];

	(void)state;
	libc_path(path);
	sweep_file(path);
}

static const char *elf_path; /* an argument: a vmlinux, say */

static void a_named_files_text_decodes_as_zydis_does(void **state)
{
	(void)state;
	if (!elf_path)
		skip();
	sweep_file(elf_path);
}

/* usage: test_decode_zydis [COUNT [SEED [ELF-FILE]]] */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_strings_decode_as_zydis_does),
		cmocka_unit_test(libc_text_decodes_as_zydis_does),
		cmocka_unit_test(a_named_files_text_decodes_as_zydis_does),
	};

	for (int i = 1; i < argc && i < 3; i++)
		options[i - 1] = strtoull(argv[i], NULL, 0);
	if (argc > 3)
		elf_path = argv[3];
	return test_run("decode_zydis", tests);
}
