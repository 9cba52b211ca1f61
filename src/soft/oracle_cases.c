/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY. For each row of isa.def the generator builds random encodings:
 * registers, memory forms, prefixes, immediates, with interesting values in
 * the operands. The guest is a vCPU at CPL 3 with identity paging, in 64-bit
 * mode and in compatibility mode with flat 32-bit and with 16-bit segments.
 */
#include "soft/oracle_cases.h"
#include "soft/slotsvm.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "soft/interp_int.h"
#include "x86/cpuid.h"

#define RAM_BYTES (32 * MIB)
#define TABLES	  0x10000ull /* PML4, PDPT, PD, PT */

u64 oracle_rng = 0x9e3779b97f4a7c15ull;

u64 oracle_rnd(void)
{
	oracle_rng ^= oracle_rng << 13;
	oracle_rng ^= oracle_rng >> 7;
	oracle_rng ^= oracle_rng << 17;
	return oracle_rng * 0x2545f4914f6cdd1dull;
}
bool oracle_one_in(unsigned n)
{
	return (oracle_rnd() >> 33) % n == 0;
}

/* ---- the guest ---- */

static void guest_tables(struct oracle_guest *g)
{
	u64 *pml4 = (u64 *)(g->ram + TABLES);
	u64 *pdpt = (u64 *)(g->ram + TABLES + 0x1000);
	u64 *pd = (u64 *)(g->ram + TABLES + 0x2000);
	u64 *pt = (u64 *)(g->ram + TABLES + 0x3000);

	pml4[0] = (TABLES + 0x1000) | 7;
	pdpt[0] = (TABLES + 0x2000) | 7;
	pd[ORACLE_CODE >> 21] = (TABLES + 0x3000) | 7;
	/* Only what the oracle's process has there. */
	for (u64 i = 0; i < ORACLE_CODE_PAGES * PAGE_BYTES; i += 4096)
		pt[(ORACLE_CODE + i) >> 12 & 511] = (ORACLE_CODE + i) | 0x67;
	for (u64 i = 0; i < ORACLE_DATA_BYTES; i += 4096)
		pt[(ORACLE_DATA + i) >> 12 & 511] =
			(ORACLE_DATA + i) | 0x67 | X86_PTE_NX;
}

void oracle_guest_map_read_only(struct oracle_guest *g)
{
	u64 *pt = (u64 *)(g->ram + TABLES + 0x3000);

	pt[ORACLE_READ_ONLY >> 12 & 511] = ORACLE_READ_ONLY | 0x65 | X86_PTE_NX;
	soft_tlb_flush(g->v, false);
}

static void guest_segments(struct vcpu *v)
{
	for (unsigned i = 0; i < 6; i++) {
		v->segs[i] = (struct soft_seg){.limit = ~0u, .sel = 0x2b};
		v->segs[i].attr = 3 | SEG_S | 3 << 5 | SEG_P | SEG_DB | SEG_G;
	}
	/* As the oracle's process has them, for code that stores them. */
	v->segs[X86_DS].sel = v->segs[X86_ES].sel = 0;
	v->segs[X86_FS].sel = v->segs[X86_GS].sel = 0;
	v->segs[X86_GS].base = ORACLE_GS_BASE;
	v->segs[X86_CS].sel = 0x33;
	v->segs[X86_CS].attr = 11 | SEG_S | 3 << 5 | SEG_P | SEG_L | SEG_G;
}

static void add_translator(struct oracle_guest *g, const struct mem_slot *slot)
{
	g->vm->xlat = xlat_new(g->vm, 64 * MIB, NULL);
	ASSERT(g->vm->xlat);
	slots_force_by_env(g->vm);
	g->vm->vcpus[0] = g->v;
	g->vm->vcpu_count = 1;
	smc_slot_changed(g->vm->xlat, slot, true);
	smc_vcpu_started(g->v);
}

void oracle_guest_init(struct oracle_guest *g, bool is_translated)
{
	struct mem_slot slot = {.size = RAM_BYTES};
	struct vcpu *v;

	memset(g, 0, sizeof(*g));
	g->ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT(g->ram != MAP_FAILED);
	slot.hva = g->ram;
	guest_tables(g);
	g->vm = calloc(1, sizeof(*g->vm));
	g->vm->cpuid = calloc(1, sizeof(*g->vm->cpuid)); /* no leaves */
	g->vm->mem = mem_new();
	ASSERT(mem_slot_add(g->vm->mem, &slot, NULL) == 0);
	g->vm->physical_address_bits = 40;
	pthread_mutex_init(&g->vm->pause_lock, NULL);
	g->vm->features = x86_cpuid_host_isa();
	g->vm->stubs = soft_stubs_new(NULL);
	ASSERT(g->vm->stubs);
	ASSERT(soft_stubs_install_signals(NULL) == 0);
	v = soft_vcpu_alloc();
	ASSERT(v);
	g->v = v;
	v->vm = g->vm;
	v->features = g->vm->features;
	v->cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_NE | X86_CR0_MP | X86_CR0_WP;
	v->cr3 = TABLES;
	v->cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT |
		 X86_CR4_OSXSAVE;
	v->efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE | X86_EFER_SCE;
	v->xcr0 = 7;
	v->delivering = 0xffff;
	guest_segments(v);
	v->cpl = 3;
	soft_mode_changed(v);
	soft_tlb_flush(v, false);
	ASSERT(soft_apic_new(v));
	soft_fpu_reset(v);
	if (is_translated)
		add_translator(g, &slot);
}

void oracle_guest_fini(struct oracle_guest *g)
{
	xlat_run_free(g->v);
	if (g->vm->xlat)
		xlat_free(g->vm->xlat);
	soft_icache_free(g->v);
	soft_apic_free(g->v->apic);
	soft_vcpu_release(g->v);
	soft_stubs_free(g->vm->stubs);
	mem_free(g->vm->mem);
	free(g->vm->cpuid);
	free(g->vm);
	munmap(g->ram, RAM_BYTES);
}

static struct soft_seg segment(u16 sel, u64 base, u32 limit, bool is_code)
{
	u32 attr = (is_code ? 11 : 3) | SEG_S | 3 << 5 | SEG_P;

	if (limit == ~0u)
		attr |= SEG_DB | SEG_G;
	return (struct soft_seg){
		.sel = sel, .base = base, .limit = limit, .attr = attr};
}

/* The segments that the oracle's process has in this mode. */
void oracle_guest_set_mode(struct oracle_guest *g, u8 mode)
{
	struct vcpu *v = g->v;
	struct soft_seg ds = segment(ORACLE_DS32, 0, ~0u, false);

	if (v->code_mode == mode)
		return;
	guest_segments(v);
	if (mode == X86_MODE_16)
		ds = segment(ORACLE_DS16, ORACLE_DATA - ORACLE_DATA16,
			     ORACLE_DATA16_LIMIT, false);
	if (mode != X86_MODE_64) {
		v->segs[X86_CS] = mode == X86_MODE_32
					  ? segment(ORACLE_CS32, 0, ~0u, true)
					  : segment(ORACLE_CS16, ORACLE_CODE,
						    0xffff, true);
		v->segs[X86_DS] = v->segs[X86_ES] = v->segs[X86_SS] = ds;
	}
	if (mode == X86_MODE_32)
		v->segs[X86_GS] =
			segment(ORACLE_GS32, ORACLE_GS_BASE, ~0u, false);
	soft_mode_changed(v);
	ASSERT(v->code_mode == mode);
}

/* Code that is there already stays, with its translation. */
static void write_code(struct oracle_guest *g, const struct oracle_case *c)
{
	u64 at = c->in.rip - (c->mode == X86_MODE_16 ? 0 : ORACLE_CODE);
	u8 code[ORACLE_CODE_PAGES * PAGE_BYTES];

	/* What came before may be read or run by a wild pointer. */
	if (c->is_sequence)
		memset(code, 0, sizeof(code));
	else
		memcpy(code, g->ram + ORACLE_CODE, sizeof(code));
	memcpy(code + at, c->code, c->is_sequence ? ORACLE_CODE_BYTES : 16);
	/* #UD ends a translated case of one instruction. */
	if (g->vm->xlat && !c->is_sequence)
		memcpy(code + at + c->len, (const u8[]){0x0f, 0x0b}, 2);
	if (!memcmp(code, g->ram + ORACLE_CODE, sizeof(code)))
		return;
	memcpy(g->ram + ORACLE_CODE, code, sizeof(code));
	if (g->vm->xlat)
		smc_written(g->vm, ORACLE_CODE, sizeof(code));
}

void oracle_guest_run(struct oracle_guest *g, const struct oracle_case *c,
		      struct oracle_state *out, void (*run)(struct vcpu *v))
{
	struct vcpu *v = g->v;
	volatile u8 fault = ORACLE_NO_FAULT;

	if (c->is_sequence) /* one before may have loaded segments */
		v->code_mode = 0xff;
	oracle_guest_set_mode(g, c->mode);
	memcpy(v->gpr, c->in.gpr, sizeof(v->gpr));
	v->rip = c->in.rip;
	soft_set_rflags(v, (c->in.rflags & 0xcd5) | 0x202);
	memcpy(v->xsave, c->in.xsave, sizeof(c->in.xsave));
	memcpy(g->ram + ORACLE_DATA, c->in.data, ORACLE_DATA_BYTES);
	write_code(g, c);
	soft_fpu_enter(v);
	if (sigsetjmp(v->unwind, 0))
		fault = v->exc.vector;
	else
		run(v);
	soft_fpu_leave(v);
	memcpy(out->gpr, v->gpr, sizeof(out->gpr));
	out->rip = v->rip;
	out->rflags = soft_rflags(v) & 0xcd5;
	memcpy(out->xsave, v->xsave, sizeof(out->xsave));
	memcpy(out->data, g->ram + ORACLE_DATA, ORACLE_DATA_BYTES);
	out->fault = fault;
}

/* ---- generator ---- */

static u64 value64(void)
{
	static const u64 nice[] = {
		0,
		1,
		2,
		7,
		8,
		15,
		16,
		31,
		32,
		33,
		63,
		64,
		0x7f,
		0x80,
		0xff,
		0x7fff,
		0x8000,
		0xffff,
		0x7fffffff,
		0x80000000,
		0xffffffff,
		0x7fffffffffffffffull,
		0x8000000000000000ull,
		~0ull,
		0x100000000ull,
		0xaaaaaaaaaaaaaaaaull,
	};

	if (oracle_rnd() & 0x100)
		return oracle_rnd();
	return nice[(oracle_rnd() >> 8) % ARRAY_SIZE(nice)];
}

/* A vector or memory word: integers, floats, doubles, their oddities. */
static u64 fp64(void)
{
	static const u32 floats[] = {
		0,	    0x80000000, 0x3f800000, 0xbf800000,
		0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001,
		1,	    0x007fffff, 0x00800000, 0x7f7fffff,
		0x4f000000, 0x5f000000, 0x3f000000, 0x40490fdb,
	};
	static const u64 doubles[] = {
		0,
		0x8000000000000000ull,
		0x3ff0000000000000ull,
		0xbff0000000000000ull,
		0x7ff0000000000000ull,
		0x7ff8000000000000ull,
		0x7ff0000000000001ull,
		1,
		0x000fffffffffffffull,
		0x7fefffffffffffffull,
		0x41dfffffffc00000ull,
		0x43e0000000000000ull,
	};

	switch (oracle_rnd() >> 11 & 3) {
	case 0:
		return floats[(oracle_rnd() >> 9) % 16] |
		       (u64)floats[(oracle_rnd() >> 9) % 16] << 32;
	case 1:
		return doubles[(oracle_rnd() >> 9) % 12];
	default:
		return value64();
	}
}

static void random_x87(u8 *x)
{
	unsigned top = oracle_rnd() >> 7 & 7;

	st_le16(x, oracle_one_in(8) ? 0x340 | (oracle_rnd() & 0xc3f)
				    : 0x37f | (oracle_rnd() & 0xc00));
	st_le16(x + 2, top << 11 | (oracle_rnd() & 0x4700));
	x[4] = oracle_one_in(3) ? oracle_rnd() >> 5 : 0xff;
	for (unsigned i = 0; i < 8; i++) {
		u8 *r = x + 32 + 16 * i;
		static const u16 exps[] = {0,	   1,	   0x3fff,
					   0x3ffe, 0x4000, 0x403e,
					   0x7fff, 0xbfff, 0xffff};

		st_le64(r, oracle_one_in(3) ? value64()
					    : oracle_rnd() | 1ull << 63);
		st_le16(r + 8, exps[(oracle_rnd() >> 9) % 9]);
	}
}

void oracle_random_registers(struct oracle_state *s)
{
	static const u32 mxcsr[] = {0x1f80, 0x1f80, 0x1f80, 0x9fc0,
				    0x7f80, 0x3f80, 0x5f80, 0x1f80};

	for (unsigned i = 0; i < 16; i++)
		s->gpr[i] = value64();
	s->rflags = oracle_rnd() & 0x8d5;
	if (oracle_one_in(4))
		s->rflags |= X86_FL_DF;
	memset(s->xsave, 0, sizeof(s->xsave));
	random_x87(s->xsave);
	st_le32(s->xsave + 24, oracle_one_in(10)
				       ? oracle_rnd() & 0xffff & ~0x3fu
				       : mxcsr[oracle_rnd() >> 9 & 7]);
	st_le32(s->xsave + 28, 0xffff);
	for (unsigned i = 160; i < 416; i += 8)
		st_le64(s->xsave + i, fp64());
	st_le64(s->xsave + 512, 7);
	for (unsigned i = 576; i < 832; i += 8)
		st_le64(s->xsave + i, fp64());
}

void oracle_random_bytes(u8 *to, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 8)
		st_le64(to + i, fp64());
}

void oracle_random_state(struct oracle_state *s)
{
	oracle_random_registers(s);
	oracle_random_bytes(s->data, ORACLE_DATA_BYTES);
}

static u8 *put_modrm(u8 *p, const struct isa_row *row, bool is_mem)
{
	unsigned reg =
		row->modrm_reg >= 0 ? row->modrm_reg : oracle_rnd() >> 9 & 7;
	unsigned rm =
		row->modrm_rm >= 0 ? row->modrm_rm : oracle_rnd() >> 12 & 7;
	unsigned mod = is_mem ? (oracle_rnd() >> 15) % 3 : 3;

	*p++ = mod << 6 | reg << 3 | rm;
	if (mod != 3 && rm == 4)
		*p++ = oracle_rnd() >> 17;
	if (mod != 3) {
		/* Enough for any displacement; the length is decoded. */
		st_le32(p, (u32)(oracle_rnd() >> 8) % 4096);
	}
	return p;
}

/* Where an operand at this address is, as the case's code names it. */
static u64 data_at(const struct oracle_case *c, u64 address)
{
	return c->mode == X86_MODE_16 ? address - ORACLE_DATA + ORACLE_DATA16
				      : address;
}

/* Prefixes, opcode, ModRM and random bytes behind it. */
void oracle_random_code(struct oracle_case *c, const struct isa_row *row)
{
	bool is_vex =
		row->map >= ISA_MAP_VEX_0F && row->map <= ISA_MAP_VEX_0F3A;
	bool is_64 = c->mode == X86_MODE_64;
	unsigned rarity = c->mode == X86_MODE_16 ? 2 : 10;
	bool is_mem = row->modrm_mod == 1 ||
		      (row->modrm_mod == 0 && oracle_rnd() >> 30 & 1);
	u8 *p = c->code;

	for (unsigned i = 0; i < 16; i++)
		c->code[i] = oracle_rnd() >> 13;
	if (is_mem && c->mode != X86_MODE_16 && oracle_one_in(8))
		*p++ = 0x65;
	if (is_vex) {
		unsigned w =
			row->vex_w < 0 ? oracle_rnd() >> 9 & 1 : row->vex_w;
		unsigned l =
			row->vex_l < 0 ? oracle_rnd() >> 11 & 1 : row->vex_l;
		unsigned pp = row->prefix == 0x66   ? 1
			      : row->prefix == 0xf3 ? 2
			      : row->prefix == 0xf2 ? 3
						    : 0;
		bool has_vvvv = false;

		for (unsigned i = 0; i < ISA_OPERANDS; i++)
			has_vvvv |= row->operands[i].kind == ISA_O_XMM_VVVV ||
				    row->operands[i].kind == ISA_O_GPR_VVVV;
		has_vvvv |= oracle_one_in(40);
		if (oracle_one_in(rarity))
			*p++ = 0x67;
		*p++ = 0xc4;
		/* Without 64-bit mode, R and X clear mean LES. */
		*p++ = (oracle_rnd() >> 8 & 0xe0) | (is_64 ? 0 : 0xc0) |
		       (row->map - ISA_MAP_VEX_0F + 1);
		*p++ = w << 7 | (has_vvvv ? oracle_rnd() >> 9 & 15 : 15) << 3 |
		       l << 2 | pp;
	} else {
		if (row->attr & ISA_LOCK && is_mem && oracle_one_in(3))
			*p++ = 0xf0;
		if (row->attr & ISA_REP && oracle_one_in(2))
			*p++ = oracle_rnd() & 0x100 ? 0xf3 : 0xf2;
		if (oracle_one_in(rarity))
			*p++ = 0x67;
		if (row->prefix > 1)
			*p++ = row->prefix;
		if (row->prefix != 1 && row->prefix != 0x66 &&
		    oracle_one_in(rarity / 2 + 1))
			*p++ = 0x66;
		if (!is_64)
			; /* REX would be INC or DEC */
		else if (row->vex_w == 1)
			*p++ = 0x48 | (oracle_rnd() >> 9 & 7);
		else if (oracle_rnd() & 0x200)
			*p++ = 0x40 |
			       (oracle_rnd() >> 9 & (row->vex_w ? 15 : 7));
		if (row->map == ISA_MAP_0F || row->map == ISA_MAP_0F38 ||
		    row->map == ISA_MAP_0F3A)
			*p++ = 0x0f;
		if (row->map == ISA_MAP_0F38)
			*p++ = 0x38;
		if (row->map == ISA_MAP_0F3A)
			*p++ = 0x3a;
	}
	*p++ = row->opcode;
	put_modrm(p, row, is_mem);
}

/* Points the memory operand at offset `at` of the data area, through the
 * base register if it has one. */
static bool aim(struct oracle_case *c, const struct insn *in, u64 target)
{
	u64 *gpr = c->in.gpr;
	unsigned disp_len = in->asize == 2 ? 2 : 4;
	u64 rest = target - (u64)(i64)in->disp;

	if (in->seg == X86_FS || (in->seg == X86_GS && c->mode == X86_MODE_16))
		return false;
	if (in->seg == X86_GS) {
		target -= ORACLE_GS_BASE;
		rest -= ORACLE_GS_BASE;
	}
	if (in->base == X86_REG_RIP || in->base == X86_REG_NONE) {
		u32 disp = (u32)(target - (in->base == X86_REG_RIP
						   ? c->in.rip + in->len
						   : 0));

		if (in->index != X86_REG_NONE) {
			gpr[in->index] = 0;
		}
		/* The displacement's place: before the immediate. */
		for (unsigned i = 0; i < disp_len; i++)
			c->code[in->len - in->imm_len - disp_len + i] =
				disp >> (8 * i);
		return true;
	}
	if (in->index == in->base) {
		/* Halving may miss the target by one. */
		if (in->scale || in->row->feature == ISA_F_SHA)
			return false;
		rest /= 2;
	} else if (in->index != X86_REG_NONE) {
		gpr[in->index] = oracle_rnd() >> 9 & 63;
		rest -= gpr[in->index] << in->scale;
	}
	gpr[in->base] = rest;
	return true;
}

static void aim_strings(struct oracle_case *c, const struct insn *in)
{
	u64 m = oracle_one_in(4) ? 0 : 2000;

	c->in.gpr[X86_RSI] =
		data_at(c, ORACLE_DATA + 2000 + oracle_rnd() % 2100);
	c->in.gpr[X86_RDI] =
		oracle_one_in(2)
			? c->in.gpr[X86_RSI] + oracle_rnd() % 40 - 20
			: data_at(c, ORACLE_DATA + m + oracle_rnd() % 2100);
	c->in.gpr[X86_RCX] = oracle_rnd() % 120;
	if (in->asize < 8 && oracle_one_in(2))
		c->in.gpr[X86_RCX] |= oracle_rnd() << in->asize * 8;
	if (oracle_one_in(2)) {
		memset(c->in.data, 0x55, ORACLE_DATA_BYTES);
		c->in.gpr[X86_RAX] = 0x5555555555555555ull;
	}
}

bool oracle_has_vsib(const struct isa_row *row)
{
	for (unsigned i = 0; i < ISA_OPERANDS; i++) {
		if (row->operands[i].kind == ISA_O_VSIB)
			return true;
	}
	return false;
}

static void aim_gather(struct oracle_case *c, const struct insn *in)
{
	if (in->base < 16)
		c->in.gpr[in->base] =
			data_at(c, ORACLE_DATA + 4096) - (i64)in->disp;
	for (unsigned i = 0; i < 16; i += 4) {
		u8 *x = c->in.xsave + 160 + 16 * (in->index & 15) + i;

		st_le32(x, oracle_rnd() % 32);
		st_le32(x + 416, oracle_rnd() % 32);
	}
	if (!(in->opcode & 1))
		return;
	for (unsigned i = 4; i < 16; i += 8) {
		st_le32(c->in.xsave + 160 + 16 * (in->index & 15) + i, 0);
		st_le32(c->in.xsave + 576 + 16 * (in->index & 15) + i, 0);
	}
}

/* No more of the registers than the mode has. */
static void narrow(struct oracle_case *c)
{
	if (c->mode != X86_MODE_64)
		for (unsigned i = 0; i < 8; i++)
			c->in.gpr[i] = (u32)c->in.gpr[i];
}

/* false: try again. */
/* MXCSR.MM, bit 17, is AMD's and not offered by us. */
static void spare_mxcsr_mm(struct oracle_case *c)
{
	for (unsigned i = 0; i < ORACLE_DATA_BYTES; i++)
		c->in.data[i] &= i & 2 ? 0 : 0xfd;
}

static bool generate_in_mode(struct oracle_case *c, const struct isa_row *row,
			     const struct isa_features *features)
{
	struct insn in;
	u64 target;
	int len;

	oracle_random_state(&c->in);
	c->in.rip = oracle_rnd() % 4060;
	if (c->mode != X86_MODE_16)
		c->in.rip += ORACLE_CODE;
	oracle_random_code(c, row);
	len = x86_decode(&in, c->code, 15, c->mode, features);
	if (len <= 0 || in.row != row)
		return false;
	c->len = len;
	c->is_rep = row->class == ISA_STR;
	c->in.gpr[X86_RSP] =
		data_at(c, ORACLE_DATA + 4096 - 64 + oracle_rnd() % 128);
	c->in.gpr[X86_RBP] =
		row->op == ISA_OP_LEAVE || row->op == ISA_OP_ENTER
			? data_at(c, ORACLE_DATA + 3000 + oracle_rnd() % 2000)
			: c->in.gpr[X86_RBP];
	if (row->op == ISA_OP_XLAT)
		c->in.gpr[X86_RBX] =
			data_at(c, ORACLE_DATA + oracle_rnd() % 4000);
	if (row->class == ISA_STR)
		aim_strings(c, &in);
	if (row->op == ISA_OP_MASKMOVQ || row->op == ISA_OP_MASKMOVDQU ||
	    row->op == ISA_OP_VMASKMOVDQU) {
		/* Whether an empty mask faults is up to the CPU. */
		if (in.asize == 2 && c->mode == X86_MODE_32)
			return false;
		c->in.gpr[X86_RDI] =
			data_at(c, ORACLE_DATA + 4080 + oracle_rnd() % 32);
	}
	if (row->op == ISA_OP_LDMXCSR || row->op == ISA_OP_VLDMXCSR)
		spare_mxcsr_mm(c);
	if (oracle_has_vsib(row)) {
		if (in.base >= 16)
			return false;
		aim_gather(c, &in);
		return true;
	}
	if (!in.is_mem)
		return true;
	target = data_at(c, ORACLE_DATA + 4096) +
		 ((oracle_rnd() >> 9 & 3) - 2) * 64;
	if (oracle_one_in(4) && row->feature != ISA_F_SHA)
		target += oracle_rnd() >> 9 & 63;
	/* Over the end. What comes first, alignment or limit, is not said. */
	if (oracle_one_in(8) && row->feature != ISA_F_SHA &&
	    !(row->attr & ISA_ALIGN && c->mode == X86_MODE_16))
		target = data_at(c, ORACLE_DATA + ORACLE_DATA_BYTES) -
			 (oracle_one_in(2) ? (oracle_rnd() >> 9) % 40
					   : in.mem_size - oracle_one_in(2));
	if (row->op >= ISA_OP_BT && row->op <= ISA_OP_BTC && !in.imm_len) {
		if (in.reg == in.base)
			return false;
		c->in.gpr[in.reg] = (i64)(oracle_rnd() % 8000) - 4000;
	}
	for (unsigned i = 0; i < ISA_OPERANDS; i++) {
		if (row->operands[i].kind == ISA_O_MOFFS) {
			u64 at = target &
				 (in.asize == 8 ? ~0ull : 0xffffffffull);

			memcpy(c->code + len - in.asize, &at, in.asize);
			return true;
		}
	}
	return aim(c, &in, target);
}

bool oracle_generate(struct oracle_case *c, const struct isa_row *row,
		     const struct isa_features *features, u8 mode)
{
	bool ok;

	c->mode = mode;
	c->is_sequence = false;
	ok = generate_in_mode(c, row, features);
	narrow(c);
	return ok;
}

/* Rows that the interpreter executes itself and that are repeatable. */
bool oracle_is_tested(const struct isa_row *row,
		      const struct isa_features *features, u8 mode)
{
	if (row->attr &
		    (mode == X86_MODE_64 ? ISA_NO64 : ISA_ONLY64 | ISA_REXB) ||
	    !(features->bits & BIT64(row->feature)))
		return false;
	switch (row->op) {
	case ISA_OP_AAA:
	case ISA_OP_AAS:
	case ISA_OP_AAM:
	case ISA_OP_AAD:
	case ISA_OP_DAA:
	case ISA_OP_DAS:
	case ISA_OP_SALC:
	case ISA_OP_PUSHA:
	case ISA_OP_POPA:
	case ISA_OP_BOUND:
	case ISA_OP_ARPL:
	case ISA_OP_LDMXCSR:
	case ISA_OP_VLDMXCSR:
	case ISA_OP_STMXCSR:
	case ISA_OP_VSTMXCSR:
		return true;
	case ISA_OP_RDRAND:
	case ISA_OP_RDSEED:
	case ISA_OP_INS:
	case ISA_OP_OUTS:
	case ISA_OP_PUSHF: /* TF and IF are the tracer's */
	case ISA_OP_POPF:
	case ISA_OP_PUSH_SEG: /* selectors are the kernel's */
	case ISA_OP_POP_SEG:
	case ISA_OP_XSAVE: /* XINUSE is the host's */
	case ISA_OP_XSAVEOPT:
	case ISA_OP_XSAVEC:
	case ISA_OP_XRSTOR:
	case ISA_OP_FXSAVE: /* FIP, FDP and reserved bytes */
	case ISA_OP_FXRSTOR:
	case ISA_OP_FNSTENV:
	case ISA_OP_FNSAVE:
		return false;
	default:
		break;
	}
	return row->class == ISA_PASS || row->class == ISA_CTRL ||
	       row->class == ISA_STR || row->class == ISA_MEMX;
}

/* ---- comparison ---- */

u16 oracle_undefined_flags(u16 op)
{
	switch (op) {
	case ISA_OP_MUL:
	case ISA_OP_IMUL:
		return ISA_SF | ISA_ZF | ISA_AF | ISA_PF;
	case ISA_OP_DIV:
	case ISA_OP_IDIV:
		return ISA_ALLF;
	case ISA_OP_BT:
	case ISA_OP_BTS:
	case ISA_OP_BTR:
	case ISA_OP_BTC:
		return ISA_OF | ISA_SF | ISA_AF | ISA_PF;
	case ISA_OP_TZCNT:
	case ISA_OP_LZCNT:
		return ISA_ALLF & ~(ISA_CF | ISA_ZF);
	case ISA_OP_BSF:
	case ISA_OP_BSR:
		return ISA_ALLF & ~ISA_ZF;
	default:
		return 0;
	}
}

const char *oracle_difference(const struct oracle_state *a,
			      const struct oracle_state *b, u16 op, u8 mode)
{
	u64 mask = mode == X86_MODE_64 ? ~0ull : ~0u;

	if (a->fault != b->fault)
		return "fault";
	for (unsigned i = 0; i < (mode == X86_MODE_64 ? 16 : 8); i++)
		if ((a->gpr[i] ^ b->gpr[i]) & mask)
			return "gpr";
	if (a->rip != b->rip)
		return "rip";
	if (a->rflags != b->rflags)
		return "rflags";
	if (memcmp(a->data, b->data, sizeof(a->data)) &&
	    (op != ISA_OP_ENTER || a->fault == ORACLE_NO_FAULT))
		return "memory";
	if (memcmp(a->xsave, b->xsave, 5))
		return "x87 control, status or tags";
	if (ld_le32(a->xsave + 24) != ld_le32(b->xsave + 24))
		return "mxcsr";
	for (unsigned i = 0; i < 8; i++) {
		if (memcmp(a->xsave + 32 + 16 * i, b->xsave + 32 + 16 * i, 10))
			return "x87 register";
	}
	if (memcmp(a->xsave + 160, b->xsave + 160, 256))
		return "xmm";
	if (memcmp(a->xsave + 576, b->xsave + 576, 256))
		return "ymm";
	return NULL;
}

void oracle_report(const char *name, const struct oracle_case *c,
		   const struct oracle_state *got, const char *what)
{
	const struct oracle_state *want = &c->out;

	printf("%s: %s differs in %u-bit code:", name, what, 16u << c->mode);
	for (unsigned i = 0; i < c->len; i++)
		printf(" %02x", c->code[i]);
	printf("\n  fault %u native %u; rip %llx native %llx; flags %llx "
	       "native %llx in %llx\n",
	       got->fault, want->fault, (unsigned long long)got->rip,
	       (unsigned long long)want->rip, (unsigned long long)got->rflags,
	       (unsigned long long)want->rflags,
	       (unsigned long long)c->in.rflags);
	printf("  native:");
	for (unsigned i = 0; i < 16; i++)
		printf(" %llx", (unsigned long long)want->gpr[i]);
	printf("\n");
	for (unsigned i = 0; i < 16; i++) {
		if (got->gpr[i] != want->gpr[i])
			printf("  r%u %llx native %llx in %llx\n", i,
			       (unsigned long long)got->gpr[i],
			       (unsigned long long)want->gpr[i],
			       (unsigned long long)c->in.gpr[i]);
	}
	for (unsigned i = 0; i < sizeof(got->xsave); i += 8) {
		u64 a = ld_le64(got->xsave + i), b = ld_le64(want->xsave + i);

		if (a != b && (i < 6 || i >= 24) && i != 512)
			printf("  xsave+%u %llx native %llx in %llx\n", i,
			       (unsigned long long)a, (unsigned long long)b,
			       (unsigned long long)ld_le64(c->in.xsave + i));
	}
	for (unsigned i = 0, shown = 0; i < ORACLE_DATA_BYTES; i += 8) {
		u64 a = ld_le64(got->data + i), b = ld_le64(want->data + i);

		if (a != b && shown++ < 8)
			printf("  data+%u %llx native %llx in %llx\n", i,
			       (unsigned long long)a, (unsigned long long)b,
			       (unsigned long long)ld_le64(c->in.data + i));
	}
}
