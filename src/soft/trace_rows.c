/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: three questions about one instruction, each a switch over its
 * mnemonic: may generated code hold it, which flags does it touch, and where
 * does control go. The flags columns of isa.def do not answer the second one:
 * their `tested` also holds what hosts leave alone where the manuals say
 * undefined, for the stubs' sake.
 *
 * Source: SDM 2, each instruction's "Flags Affected"; SDM 1 appendix A.
 */
#include "soft/trace_rows.h"

#define CF ISA_CF
#define PF ISA_PF
#define AF ISA_AF
#define ZF ISA_ZF
#define SF ISA_SF
#define OF ISA_OF

/* ---- what generated code handles ---- */

enum lower_rule {
	LOWER_NO,
	LOWER_YES,
	LOWER_HINT,   /* touches nothing */
	LOWER_FULL,   /* with the mode's full operand size */
	LOWER_STRING, /* with the mode's full address size */
	LOWER_64,     /* in 64-bit code */
	LOWER_FULL64, /* both */
	LOWER_SUPER,  /* at CPL 0 */
	LOWER_REG,    /* to a whole register */
};

/* Of the rows that are not ISA_PASS. A line moves up when lower.c learns the
 * instruction. */
static enum lower_rule rule_of(u16 op)
{
	switch (op) {
	case ISA_OP_NOP:
	case ISA_OP_PAUSE:
	case ISA_OP_PREFETCH:
	case ISA_OP_PREFETCHW:
	case ISA_OP_PREFETCHNTA:
	case ISA_OP_PREFETCHT0:
	case ISA_OP_PREFETCHT1:
	case ISA_OP_PREFETCHT2:
		return LOWER_HINT;
	case ISA_OP_JCC:
	case ISA_OP_JMP_REL:
	case ISA_OP_JMP_RM:
	case ISA_OP_CALL_REL:
	case ISA_OP_CALL_RM:
	case ISA_OP_RET_NEAR:
	case ISA_OP_LOOP:
	case ISA_OP_LOOPE:
	case ISA_OP_LOOPNE:
	case ISA_OP_JRCXZ:
	case ISA_OP_PUSH_REG:
	case ISA_OP_PUSH_RM:
	case ISA_OP_PUSH_IMM:
	case ISA_OP_POP_REG:
	case ISA_OP_POP_RM:
	case ISA_OP_LEAVE:
		return LOWER_FULL;
	case ISA_OP_BT: /* memory with a register index */
	case ISA_OP_BTS:
	case ISA_OP_BTR:
	case ISA_OP_BTC:
	case ISA_OP_CMPXCHG8B:
	case ISA_OP_XLAT:
	case ISA_OP_CLD:
	case ISA_OP_STD:
	case ISA_OP_LAHF:
	case ISA_OP_SAHF:
		return LOWER_YES;
	case ISA_OP_MOVS:
	case ISA_OP_STOS:
	case ISA_OP_LODS:
	case ISA_OP_SCAS:
	case ISA_OP_CMPS:
		return LOWER_STRING;
	case ISA_OP_PUSHF:
	case ISA_OP_POPF:
	case ISA_OP_SYSRET:
	case ISA_OP_IRET:
		return LOWER_FULL64;
	case ISA_OP_SYSCALL:
	case ISA_OP_SWAPGS:
	case ISA_OP_RDTSC:
	case ISA_OP_RDTSCP:
	case ISA_OP_RDPID:
	case ISA_OP_RDMSR:
	case ISA_OP_WRMSR:
	case ISA_OP_MOV_FROM_CR:
	case ISA_OP_CLTS:
	case ISA_OP_MOV_TO_CR:
	case ISA_OP_INVLPG:
	case ISA_OP_RDFSBASE:
	case ISA_OP_RDGSBASE:
	case ISA_OP_WRFSBASE:
	case ISA_OP_WRGSBASE:
		return LOWER_64;
	case ISA_OP_CLI:
	case ISA_OP_STI:
		return LOWER_SUPER;
	case ISA_OP_MOV_FROM_SEG:
		return LOWER_REG;
	default:
		return LOWER_NO;
	}
}

/* The FPU's state in the key: rows that would raise #NM or #UD. */
static bool is_fpu_refused(u32 attr, u32 key)
{
	if (!(attr & (ISA_X87 | ISA_MMX | ISA_SSE | ISA_AVX)))
		return false;
	return (key & XLAT_KEY_NM) ||
	       ((attr & ISA_SSE) && (key & XLAT_KEY_NOSSE)) ||
	       ((attr & ISA_AVX) && (key & XLAT_KEY_NOAVX));
}

/* In 32-bit code: CS cannot be written to, and FS and GS must have no limit. */
static bool is_segment_refused(const struct insn *in, u32 key)
{
	if (!(key & XLAT_KEY_32) || (in->row->class == ISA_CTRL && !in->is_mem))
		return false;
	if (in->seg == X86_FS)
		return !(key & XLAT_KEY_FS);
	if (in->seg == X86_GS)
		return !(key & XLAT_KEY_GS);
	return in->seg == X86_CS;
}

/* What lockstep.c may execute twice: no event between, no value that the guest
 * does not determine. */
static bool is_repeatable(const struct insn *in)
{
	switch (in->row->op) {
	case ISA_OP_RDRAND:
	case ISA_OP_RDSEED:
		return false;
	case ISA_OP_CLI:
	case ISA_OP_PUSHF:
	case ISA_OP_MOV_FROM_CR:
	case ISA_OP_MOV_FROM_SEG:
	case ISA_OP_RDPID:
		return true;
	default:
		return (in->row->class != ISA_SYS &&
			in->row->class != ISA_INTERP) ||
		       rule_of(in->row->op) == LOWER_HINT;
	}
}

bool xlat_can_lower(const struct insn *in, u32 key)
{
	unsigned full = key & XLAT_KEY_32 ? 4 : 8;
	enum lower_rule rule = LOWER_YES;

	if ((key & XLAT_KEY_LOCKSTEP) && !is_repeatable(in))
		return false;
	/* Outside 64-bit mode they leave registers 8 to 15 alone. */
	if ((key & XLAT_KEY_32) && (in->row->op == ISA_OP_VZEROUPPER ||
				    in->row->op == ISA_OP_VZEROALL))
		return false;

	if (in->row->class != ISA_PASS)
		rule = rule_of(in->row->op);
	if (rule == LOWER_NO || rule == LOWER_HINT)
		return rule == LOWER_HINT;
	if (is_fpu_refused(in->row->attr, key) || in->asize == 2 ||
	    is_segment_refused(in, key))
		return false;
	switch (rule) {
	case LOWER_64:
		return full == 8;
	case LOWER_FULL64:
		return full == 8 && in->osize == 8;
	case LOWER_SUPER:
		return !(key & XLAT_KEY_USER);
	case LOWER_REG:
		return !in->is_mem && in->osize >= 4;
	case LOWER_FULL:
		return in->osize == full;
	case LOWER_STRING:
		return in->asize == full && in->seg != X86_FS &&
		       in->seg != X86_GS;
	default:
		return true;
	}
}

enum trace_flow trace_insn_flow(const struct insn *in)
{
	switch (in->row->op) {
	case ISA_OP_JCC:
	case ISA_OP_LOOP:
	case ISA_OP_LOOPE:
	case ISA_OP_LOOPNE:
	case ISA_OP_JRCXZ:
		return TRACE_COND;
	case ISA_OP_JMP_REL:
		return TRACE_JUMP;
	case ISA_OP_JMP_RM:
	case ISA_OP_CALL_REL:
	case ISA_OP_CALL_RM:
	case ISA_OP_RET_NEAR:
	case ISA_OP_SYSCALL:
	case ISA_OP_SYSRET:
	case ISA_OP_IRET:
	case ISA_OP_MOV_TO_CR: /* the mapping of what follows may change */
	case ISA_OP_INVLPG:
		return TRACE_LEAVE;
	default:
		return TRACE_NEXT;
	}
}

/* ---- flags ---- */

/* The flags of a condition code, the low four bits of the opcode. */
static u16 condition_flags(unsigned cc)
{
	static const u16 flags[8] = {OF, CF, ZF,      CF | ZF,
				     SF, PF, SF | OF, ZF | SF | OF};

	return flags[cc >> 1 & 7];
}

/* A shift or rotate that changes the flags in `f` unless its masked count is
 * zero; `reads` are needed whatever the count. */
static struct trace_flags count_flags(const struct insn *in, u16 reads, u16 f)
{
	unsigned mask =
		in->osize == 8 && !(in->row->attr & ISA_BYTEREGS) ? 63 : 31;
	unsigned count;

	if (in->imm_len)
		count = in->imm & mask;
	else if (in->opcode == 0xd0 || in->opcode == 0xd1)
		count = 1;
	else
		return (struct trace_flags){.reads = reads, .keeps = f};
	if (count == 0)
		return (struct trace_flags){.keeps = f};
	return (struct trace_flags){.reads = reads, .writes = f};
}

/* Which flags an instruction touches on the whole, in the manuals' sense. */
static struct trace_flags both(u16 reads, u16 writes)
{
	return (struct trace_flags){.reads = reads, .writes = writes};
}

static struct trace_flags string_flags(const struct insn *in)
{
	if (in->prefixes & (X86_P_REP | X86_P_REPNE))
		return (struct trace_flags){.keeps = ISA_ALLF};
	return both(0, ISA_ALLF);
}

static struct trace_flags x87_flags(u16 op)
{
	switch (op) {
	case ISA_OP_FCMOVB:
	case ISA_OP_FCMOVNB:
		return both(CF, 0);
	case ISA_OP_FCMOVE:
	case ISA_OP_FCMOVNE:
		return both(ZF, 0);
	case ISA_OP_FCMOVBE:
	case ISA_OP_FCMOVNBE:
		return both(CF | ZF, 0);
	case ISA_OP_FCMOVU:
	case ISA_OP_FCMOVNU:
		return both(PF, 0);
	case ISA_OP_FCOMI:
	case ISA_OP_FCOMIP:
	case ISA_OP_FUCOMI:
	case ISA_OP_FUCOMIP: /* some hosts clear the others, some do not */
		return both(0, ZF | PF | CF);
	default:
		return both(0, 0);
	}
}

struct trace_flags trace_insn_flags(const struct insn *in)
{
	const struct isa_row *row = in->row;

	if (row->map == ISA_MAP_X87)
		return x87_flags(row->op);
	switch (row->op) {
	case ISA_OP_JCC:
	case ISA_OP_SETCC:
	case ISA_OP_CMOVCC:
		return both(condition_flags(in->opcode & 15), 0);
	case ISA_OP_LOOPE:
	case ISA_OP_LOOPNE:
		return both(ZF, 0);
	case ISA_OP_ADC:
	case ISA_OP_SBB:
		return both(CF, ISA_ALLF);
	case ISA_OP_INC:
	case ISA_OP_DEC:
		return both(0, ISA_ALLF & ~CF);
	case ISA_OP_SHL:
	case ISA_OP_SHR:
	case ISA_OP_SAR:
	case ISA_OP_SHLD:
	case ISA_OP_SHRD:
		return count_flags(in, 0, ISA_ALLF);
	case ISA_OP_ROL:
	case ISA_OP_ROR:
		return count_flags(in, 0, CF | OF);
	case ISA_OP_RCL:
	case ISA_OP_RCR:
		return count_flags(in, CF, CF | OF);
	case ISA_OP_BT:
	case ISA_OP_BTS:
	case ISA_OP_BTR:
	case ISA_OP_BTC:
		return both(0, ISA_ALLF & ~ZF);
	case ISA_OP_CMPXCHG8B:
		return both(0, ZF);
	case ISA_OP_ADCX:
	case ISA_OP_CMC:
		return both(CF, CF);
	case ISA_OP_ADOX:
		return both(OF, OF);
	case ISA_OP_CLC:
	case ISA_OP_STC:
		return both(0, CF);
	case ISA_OP_LAHF:
		return both(ISA_ALLF & ~OF, 0);
	case ISA_OP_SAHF:
		return both(0, ISA_ALLF & ~OF);
	case ISA_OP_CMPS:
	case ISA_OP_SCAS:
		return string_flags(in);
	case ISA_OP_POPF:
		return both(0, ISA_ALLF);
	case ISA_OP_PUSHF:
		return both(ISA_ALLF, 0);
	default:
		break;
	}
	/* The rest overwrites all flags or none; PASS rows that change some
	 * only stand above. Others may show them all to someone. */
	if (row->class == ISA_PASS)
		return both(0, row->flags_changed ? ISA_ALLF : 0);
	if (row->flags_changed || row->flags_tested)
		return both(ISA_ALLF, 0);
	return both(0, 0);
}

void xlat_insn_flags(const struct insn *in, u16 *out_reads, u16 *out_writes)
{
	struct trace_flags f = trace_insn_flags(in);

	*out_reads = f.reads | f.keeps;
	*out_writes = f.writes;
}
