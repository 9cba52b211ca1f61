// SPDX-License-Identifier: Apache-2.0
/* Devices where a guest should have memory: vectors, strings, locks, code,
 * stacks, page tables and descriptor tables in MMIO, and where there is
 * nothing at all; in the interpreter and in translated code. What a guest
 * gets is what the devices say, or ones, or the fault that these make: never
 * memory of the host. And it ends.
 */
#include "test/test.h"

#include "soft/smpvm.h"
#include "soft/tiervm.h"

#define RUN(t, tier, ...)                                                      \
	tier_run_bytes(t, (const u8[]){__VA_ARGS__},                           \
		       sizeof((const u8[]){__VA_ARGS__}), tier)

/* Two devices that meet in the middle of a vector; nothing behind 4 KiB. */
#define DEV	  0x10000000u
#define DEV_BYTES 0x1000u
#define EDGE	  0x50u
#define NOTHING	  0x20000000u

struct dev {
	u8 mem[DEV_BYTES];
	u32 base; /* of this one in mem */
	u32 bytes;
	u32 reads, writes;
	bool is_broken; /* a wrong access came */
};

static u8 *dev_at(struct dev *d, u64 off, unsigned size)
{
	bool ok = size <= 8 && !(size & (size - 1)) && !(off & (size - 1)) &&
		  off + size <= d->bytes;

	d->is_broken |= !ok;
	return d->mem + (ok ? off : 0);
}

static u64 dev_read(void *opaque, u64 off, unsigned size)
{
	struct dev *d = opaque;
	u64 value = 0;

	memcpy(&value, dev_at(d, off, size), size);
	d->reads++;
	return value;
}

static void dev_write(void *opaque, u64 off, unsigned size, u64 value)
{
	struct dev *d = opaque;

	memcpy(dev_at(d, off, size), &value, size);
	d->writes++;
}

static const struct io_ops dev_ops = {
	.read = dev_read, .write = dev_write, .min_size = 1, .max_size = 8};

static struct dev devs[2] = {{.bytes = EDGE}, {.bytes = DEV_BYTES - EDGE}};

/* Into the address space once: tests share the machine. */
static void devs_add(struct mem *m)
{
	static struct io_region regions[2];

	if (regions[0].size)
		return;
	for (u32 i = 0; i < 2; i++) {
		regions[i] = (struct io_region){.name = i ? "right" : "left",
						.space = IO_MMIO,
						.base = DEV + i * EDGE,
						.size = devs[i].bytes,
						.ops = &dev_ops,
						.opaque = &devs[i]};
		assert_int_equal(mem_io_add(m, &regions[i]), 0);
	}
}

static u8 *dev_byte(u32 off)
{
	return off < EDGE ? &devs[0].mem[off] : &devs[1].mem[off - EDGE];
}

static u8 pattern(u32 off)
{
	return (u8)(off * 11 + 5);
}

static void devs_fill(void)
{
	for (u32 i = 0; i < DEV_BYTES; i++)
		*dev_byte(i) = pattern(i);
	for (u32 i = 0; i < 2; i++)
		devs[i].reads = devs[i].writes = 0;
}

static u32 dev_accesses(void)
{
	return devs[0].reads + devs[0].writes + devs[1].reads + devs[1].writes;
}

#define VIEW  0x8000000000ull /* the devices, then nothing, then RAM */
#define PDPT2 (TIER_TABLES + 0x3000)
#define PD2   (TIER_TABLES + 0x4000)
#define PT2   (TIER_TABLES + 0x5000)
#define RAM   0x100000u

static struct testvm *mmio_new(void)
{
	struct testvm *t = tier_new();

	devs_add(t->mem);
	devs_fill();
	tier_long(t, TIER_CS64);
	tier_simd(t->v);
	st_le64(t->ram + TIER_TABLES + 8, PDPT2 | 7);
	st_le64(t->ram + PDPT2, PD2 | 7);
	st_le64(t->ram + PD2, PT2 | 7);
	st_le64(t->ram + PT2, DEV | 7);
	st_le64(t->ram + PT2 + 8, NOTHING | 7);
	st_le64(t->ram + PT2 + 16, RAM | 7);
	return t;
}

static void mmio_free(struct testvm *t)
{
	assert_false(devs[0].is_broken || devs[1].is_broken);
	tv_free(t);
}

/* What a load there gives. */
static u8 expected(u32 off)
{
	return off < DEV_BYTES ? pattern(off) : 0xff;
}

/* ---- wide accesses ---- */

static const struct wide {
	const char *name;
	u8 bytes[8], n, size;
	bool is_store;
} wides[] = {
	{"mov rax, m", {0x48, 0x8b, 0x03}, 3, 8, false},
	{"movups xmm0, m", {0x0f, 0x10, 0x03}, 3, 16, false},
	{"movdqu xmm0, m", {0xf3, 0x0f, 0x6f, 0x03}, 4, 16, false},
	{"vmovups ymm0, m", {0xc5, 0xfc, 0x10, 0x03}, 4, 32, false},
	{"vmovdqu ymm0, m", {0xc5, 0xfe, 0x6f, 0x03}, 4, 32, false},
	{"mov m, rax", {0x48, 0x89, 0x03}, 3, 8, true},
	{"movups m, xmm0", {0x0f, 0x11, 0x03}, 3, 16, true},
	{"movdqu m, xmm0", {0xf3, 0x0f, 0x7f, 0x03}, 4, 16, true},
	{"vmovups m, ymm0", {0xc5, 0xfc, 0x11, 0x03}, 4, 32, true},
	{"vmovdqu m, ymm0", {0xc5, 0xfe, 0x7f, 0x03}, 4, 32, true},
};

static u8 reg_byte(const struct vcpu *v, u32 size, u32 i)
{
	if (size == 8)
		return (u8)(v->gpr[X86_RAX] >> 8 * i);
	return i < 16 ? v->xsave[160 + i] : v->xsave[576 + i - 16];
}

static void wide_at(const struct wide *w, enum tier tier, u32 off)
{
	struct testvm *t = mmio_new();
	struct vcpu *v = t->v;

	for (u32 i = 0; i < 32; i++)
		v->xsave[i < 16 ? 160 + i : 560 + i] = (u8)(0x80 + i);
	v->gpr[X86_RAX] = 0x8786858483828180;
	v->gpr[X86_RBX] = VIEW + off;
	assert_true(tier_is_at_end(v, tier_run_bytes(t, w->bytes, w->n, tier)));
	for (u32 i = 0; i < w->size; i++) {
		u8 want = w->is_store ? 0x80 + i : expected(off + i);
		u8 got = w->is_store ? (off + i < DEV_BYTES ? *dev_byte(off + i)
							    : want)
				     : reg_byte(v, w->size, i);

		if (got != want)
			fail_msg("%s: %s at %#x: byte %u is %#x, not %#x",
				 tier_names[tier], w->name, off, i, got, want);
	}
	for (u32 i = 0; w->is_store && i < DEV_BYTES; i++)
		if (i - off >= w->size && *dev_byte(i) != pattern(i))
			fail_msg("%s at %#x: byte %#x as well", w->name, off,
				 i);
	/* Each byte once: no more accesses than bytes. */
	assert_in_range(dev_accesses(), 1, w->size);
	mmio_free(t);
}

static void hostile_50_vectors_reach_devices_byte_for_byte(void **state)
{
	static const u32 at[] = {0,	    0x10,	    1,
				 EDGE - 16, EDGE - 3,	    EDGE - 8,
				 EDGE,	    DEV_BYTES - 32, DEV_BYTES - 5};

	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++)
		for (size_t k = 0; k < ARRAY_SIZE(wides); k++)
			for (size_t i = 0; i < ARRAY_SIZE(at); i++)
				wide_at(&wides[k], tier, at[i]);
}

/* 512 bytes and more: FXSAVE, XSAVE and back; over the devices' edge. */
static void hostile_50_images_go_through_devices(void **state)
{
	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		struct testvm *t = mmio_new();
		struct vcpu *v = t->v;

		for (u32 i = 0; i < 256; i++)
			v->xsave[160 + i] = (u8)(i ^ 0x5a);
		v->gpr[X86_RBX] = VIEW;
		v->gpr[X86_RAX] = 7;
		v->gpr[X86_RDX] = 0;
		assert_true(tier_is_at_end(v, RUN(t, tier, 0x0f, 0xae, 0x03)));
		assert_int_equal(*dev_byte(160 + 17), 17 ^ 0x5a);
		memset(v->xsave + 160, 0, 256);
		assert_true(tier_is_at_end(v, RUN(t, tier, 0x0f, 0xae, 0x0b)));
		for (u32 i = 0; i < 256; i++)
			assert_int_equal(v->xsave[160 + i], i ^ 0x5a);
		/* A header of the device's own making is refused. */
		devs_fill();
		assert_int_equal(RUN(t, tier, 0x0f, 0xae, 0x2b), X86_VEC_GP);
		/* Of ones: MXCSR's reserved bits, then the header. */
		v->gpr[X86_RBX] = VIEW + 0x1000;
		assert_int_equal(RUN(t, tier, 0x0f, 0xae, 0x0b), X86_VEC_GP);
		assert_int_equal(RUN(t, tier, 0x0f, 0xae, 0x2b), X86_VEC_GP);
		mmio_free(t);
	}
}

/* Read once, written once, whether locked or not. */
static void hostile_50_read_modify_write_is_one_read_and_one_write(void **s)
{
	static const struct {
		u8 bytes[8], n;
	} c[] = {
		{{0x83, 0x03, 0x01}, 3},       /* add m, 1 */
		{{0xf0, 0x83, 0x03, 0x01}, 4}, /* lock */
		{{0xf0, 0xff, 0x03}, 3},       /* lock inc */
		{{0xf7, 0x13}, 2},	       /* not */
		{{0x87, 0x03}, 2},	       /* xchg */
		{{0xf0, 0x0f, 0xc1, 0x03}, 4}, /* lock xadd */
		{{0xf0, 0x0f, 0xb1, 0x0b}, 4}, /* lock cmpxchg */
		{{0x0f, 0xba, 0x2b, 0x01}, 4}, /* bts */
		{{0xd1, 0x23}, 2},	       /* shl */
	};

	(void)s;
	for (enum tier tier = 0; tier < TIERS; tier++)
		for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
			struct testvm *t = mmio_new();

			t->v->gpr[X86_RBX] = VIEW + 0x10;
			assert_true(tier_is_at_end(
				t->v,
				tier_run_bytes(t, c[i].bytes, c[i].n, tier)));
			assert_int_equal(devs[0].reads, 1);
			assert_int_equal(devs[0].writes, 1);
			assert_int_equal(devs[1].reads + devs[1].writes, 0);
			mmio_free(t);
		}
}

/* ---- strings ---- */

/* From `from` to `to` in the view, `n` bytes in elements of 1 << log. */
static void copy(enum tier tier, u32 to, u32 from, u32 n, unsigned log)
{
	static const u8 opcodes[4][3] = {{0xf3, 0xa4, 0x90},
					 {0xf3, 0x66, 0xa5},
					 {0xf3, 0xa5, 0x90},
					 {0xf3, 0x48, 0xa5}};
	struct testvm *t = mmio_new();
	struct vcpu *v = t->v;

	for (u32 i = 0; i < 0x1000; i++)
		t->ram[RAM + i] = (u8)(i ^ 0xc3);
	v->gpr[X86_RSI] = VIEW + from;
	v->gpr[X86_RDI] = VIEW + to;
	v->gpr[X86_RCX] = n >> log;
	assert_true(
		tier_is_at_end(v, tier_run_bytes(t, opcodes[log], 3, tier)));
	assert_int_equal(v->gpr[X86_RCX], 0);
	assert_int_equal(v->gpr[X86_RSI], VIEW + from + n);
	for (u32 i = 0; i < n; i++) {
		u32 a = from + i, b = to + i;
		u8 want = a >= 0x2000 ? (u8)((a - 0x2000) ^ 0xc3) : expected(a);

		if (b < DEV_BYTES && *dev_byte(b) != want)
			fail_msg("%s: byte %#x to %#x", tier_names[tier], a, b);
		if (b >= 0x2000 && t->ram[RAM + b - 0x2000] != want)
			fail_msg("%s: byte %#x to %#x is %#x, not %#x",
				 tier_names[tier], a, b,
				 t->ram[RAM + b - 0x2000], want);
	}
	mmio_free(t);
}

static void hostile_50_strings_cross_from_device_to_device_to_memory(void **s)
{
	(void)s;
	for (enum tier tier = 0; tier < TIERS; tier++)
		for (unsigned log = 0; log < 4; log++) {
			copy(tier, 0x2100, 0, 0x200, log);     /* both */
			copy(tier, 0x2100, 0xf80, 0x100, log); /* to nothing */
			copy(tier, 0x2100, 0x1f80, 0x80, log);
			copy(tier, 8, 0x2000, 0x180, log);
			copy(tier, 0xfc0, 0x2000, 0x80, log);  /* off its end */
			copy(tier, 0x1fc0, 0x2800, 0x80, log); /* into RAM */
			copy(tier, 0x800, 0, 0x200, log); /* device to device */
		}
}

/* REP STOS over everything: devices, nothing, memory. */
static void hostile_50_stos_over_everything(void **state)
{
	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		struct testvm *t = mmio_new();
		struct vcpu *v = t->v;

		v->gpr[X86_RDI] = VIEW + 4;
		v->gpr[X86_RCX] = 0x2800 / 4;
		v->gpr[X86_RAX] = 0x44332211;
		assert_true(tier_is_at_end(v, RUN(t, tier, 0xf3, 0xab)));
		assert_int_equal(*dev_byte(3), pattern(3));
		for (u32 i = 4; i < DEV_BYTES; i++)
			assert_int_equal(*dev_byte(i), 0x11 * (1 + i % 4));
		for (u32 i = 0; i < 0x804; i++)
			assert_int_equal(t->ram[RAM + i], 0x11 * (1 + i % 4));
		assert_int_equal(t->ram[RAM + 0x804], 0);
		mmio_free(t);
	}
}

/* ---- code ---- */

static void put_dev(u32 off, const u8 *bytes, u32 n)
{
	for (u32 i = 0; i < n; i++)
		*dev_byte(off + i) = bytes[i];
}
#define PUT_DEV(off, ...)                                                      \
	put_dev(off, (const u8[]){__VA_ARGS__},                                \
		sizeof((const u8[]){__VA_ARGS__}))

static void hostile_50_code_in_a_device_runs_as_it_reads(void **state)
{
	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		struct testvm *t = mmio_new();
		struct vcpu *v = t->v;
		u32 reads;

		/* inc eax; loop; ud2, over the edge of the devices */
		PUT_DEV(EDGE - 2, 0xff, 0xc0, 0xe2, 0xfc, 0x0f, 0x0b);
		v->gpr[X86_RAX] = 0;
		v->gpr[X86_RCX] = 50;
		v->rip = VIEW + EDGE - 2;
		assert_int_equal(tier_run(v, tier), X86_VEC_UD);
		assert_int_equal(v->rip, VIEW + EDGE + 2);
		assert_int_equal(v->gpr[X86_RAX], 50);
		/* It is read anew each time: a device may change its mind. */
		reads = devs[0].reads + devs[1].reads;
		assert_true(reads > 50);
		PUT_DEV(EDGE - 2, 0x0f, 0x0b);
		v->rip = VIEW + EDGE - 2;
		assert_int_equal(tier_run(v, tier), X86_VEC_UD);
		assert_int_equal(v->rip, VIEW + EDGE - 2);
		/* Where there is nothing: FF FF, no instruction. */
		v->rip = VIEW + 0x1100;
		assert_int_equal(tier_run(v, tier), X86_VEC_UD);
		assert_int_equal(v->rip, VIEW + 0x1100);
		/* RAM runs into the device's page */
		st_le64(t->ram + PT2 + 24, RAM | 7);
		st_le64(t->ram + PT2 + 32, DEV | 7);
		PUT_DEV(0, 0x78, 0x56, 0x34, 0x12, 0x0f, 0x0b);
		tier_load(t, RAM + 0xfff, "\xb8", 1);
		v->rip = VIEW + 0x3fff;
		assert_int_equal(tier_run(v, tier), X86_VEC_UD);
		assert_int_equal(v->gpr[X86_RAX], 0x12345678);
		mmio_free(t);
	}
}

/* A page that was memory with code, and is a device behind INVLPG. */
static void hostile_50_code_s_page_becomes_a_device(void **state)
{
	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		struct testvm *t = mmio_new();
		struct vcpu *v = t->v;

		tier_load(t, RAM, "\xb8\1\0\0\0\x0f\x0b", 7);
		PUT_DEV(0, 0xb8, 2, 0, 0, 0, 0x0f, 0x0b);
		for (u32 i = 0; i < 6; i++) {
			st_le64(t->ram + PT2, (i & 1 ? DEV : RAM) | 7);
			soft_tlb_flush_page(v, VIEW);
			v->rip = VIEW;
			assert_int_equal(tier_run(v, tier), X86_VEC_UD);
			assert_int_equal(v->rip, VIEW + 5);
			assert_int_equal(v->gpr[X86_RAX], 1 + (i & 1));
		}
		mmio_free(t);
	}
}

/* ---- the stack ---- */

static void hostile_50_a_device_may_be_the_stack(void **state)
{
	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		struct testvm *t = mmio_new();
		struct vcpu *v = t->v;

		/* push rax; call +0; pop rcx; pop rdx; pushfq; popfq */
		v->gpr[X86_RAX] = 0x1122334455667788;
		v->gpr[X86_RSP] = VIEW + EDGE + 4; /* misaligned, over both */
		assert_true(tier_is_at_end(v, RUN(t, tier, 0x50, 0xe8, 0, 0, 0,
						  0, 0x59, 0x5a, 0x9c, 0x9d)));
		assert_int_equal(v->gpr[X86_RCX], TV_CODE + 6);
		assert_int_equal(v->gpr[X86_RDX], 0x1122334455667788);
		assert_int_equal(v->gpr[X86_RSP], VIEW + EDGE + 4);
		/* Where there is nothing, RET and IRET find ones. */
		v->gpr[X86_RSP] = VIEW + 0x1100;
		RUN(t, tier, 0xc3);
		assert_int_equal(v->rip, ~0ull);
		v->gpr[X86_RSP] = VIEW + 0x1100;
		v->is_halted = false;
		assert_int_equal(RUN(t, tier, 0x48, 0xcf), X86_VEC_GP);
		assert_int_equal(v->rip, TV_CODE);
		assert_int_equal(v->gpr[X86_RSP], VIEW + 0x1100);
		/* POP FS takes what is not there for a selector. */
		v->gpr[X86_RSP] = VIEW + 0x1100;
		assert_int_equal(RUN(t, tier, 0x0f, 0xa1), X86_VEC_GP);
		assert_int_equal(v->exc.error, 0xfffc);
		mmio_free(t);
	}
}

/* ---- page tables ---- */

static void hostile_50_page_tables_in_devices_are_never_read(void **state)
{
	static const u32 entries[] = {TIER_TABLES + 8, PDPT2, PD2};
	static const u64 where[] = {DEV, NOTHING, 0xfee00000, 0xffffffff000};

	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++)
		for (size_t i = 0; i < ARRAY_SIZE(entries) * 4; i++) {
			struct testvm *t = mmio_new();
			struct vcpu *v = t->v;

			/* Even when they would make a good table. */
			for (u32 k = 0; k < DEV_BYTES; k += 8)
				for (u32 b = 0; b < 8; b++)
					*dev_byte(k + b) =
						(u8)((u64)(RAM | 7) >> 8 * b);
			st_le64(t->ram + entries[i / 4], where[i % 4] | 7);
			v->gpr[X86_RBX] = VIEW;
			assert_int_equal(RUN(t, tier, 0x8b, 0x03), X86_VEC_PF);
			assert_int_equal(v->exc.error, 9); /* P, RSVD */
			assert_int_equal(v->exc.cr2, VIEW);
			assert_int_equal(dev_accesses(), 0);
			mmio_free(t);
		}
}

/* ---- descriptor tables ---- */

static void hostile_50_descriptor_tables_in_devices_read_like_memory(void **s)
{
	static const u64 flat = 0x00cf93000000ffff;

	(void)s;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		struct testvm *t = mmio_new();
		struct vcpu *v = t->v;
		u8 raw[8];

		/* mov ds, eax from a GDT over both devices' edge */
		st_le64(raw, flat & ~BIT64(40)); /* A is set there, too */
		put_dev(EDGE - 4 + 8, raw, 8);
		v->gdtr = (struct soft_table){.base = VIEW + EDGE - 4,
					      .limit = 0xff};
		v->gpr[X86_RAX] = 8;
		assert_true(tier_is_at_end(v, RUN(t, tier, 0x8e, 0xd8)));
		assert_int_equal(v->segs[X86_DS].sel, 8);
		assert_int_equal(*dev_byte(EDGE - 4 + 13), 0x93);
		/* of ones: no data segment: code, which is conforming */
		v->gdtr.base = VIEW + 0x1000;
		v->gpr[X86_RAX] = 0x10;
		assert_true(tier_is_at_end(v, RUN(t, tier, 0x8e, 0xd8)));
		assert_int_equal(v->segs[X86_DS].limit, ~0u);
		assert_int_equal(RUN(t, tier, 0x8e, 0xd0), X86_VEC_GP);
		assert_int_equal(v->exc.error, 0x10);
		/* LLDT, LTR: not of that type */
		assert_int_equal(RUN(t, tier, 0x0f, 0x00, 0xd0), X86_VEC_GP);
		assert_int_equal(RUN(t, tier, 0x0f, 0x00, 0xd8), X86_VEC_GP);
		mmio_free(t);
	}
}

/* ---- whole machines that end ---- */

/* IDT, TSS stack, page tables where nothing is: the guest shuts down. RDI:
 * an address where there is nothing. */
SMP_CODE(end_idt, "sub $16, %rsp\n movw $0xfff, 6(%rsp)\n mov %rdi, 8(%rsp)\n"
		  "lidt 6(%rsp)\n ud2\n 1: jmp 1b\n");
SMP_CODE(end_cr3, "mov $0x20000000, %eax\n mov %rax, %cr3\n 1: jmp 1b\n");
SMP_CODE(end_apic_cr3, "mov $0xfee00000, %eax\n mov %rax, %cr3\n 1: jmp 1b\n");
SMP_CODE(end_stack, "mov $-1, %rsp\n shr $1, %rsp\n ud2\n 1: jmp 1b\n");
SMP_CODE(end_gdt, "sub $16, %rsp\n movw $0xfff, 6(%rsp)\n mov %rdi, 8(%rsp)\n"
		  "lgdt 6(%rsp)\n ud2\n 1: jmp 1b\n");
SMP_CODE(end_int, "sub $16, %rsp\n movw $0xfff, 6(%rsp)\n mov %rdi, 8(%rsp)\n"
		  "lidt 6(%rsp)\n int $0x80\n 1: jmp 1b\n");

static void hostile_50_tables_where_nothing_is_shut_the_guest_down(void **state)
{
	static const struct {
		const u8 *code, *end;
	} rows[] = {
		{end_idt, end_idt_end},		  {end_cr3, end_cr3_end},
		{end_apic_cr3, end_apic_cr3_end}, {end_stack, end_stack_end},
		{end_gdt, end_gdt_end},		  {end_int, end_int_end},
	};

	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_SIZE(rows); i++) {
		struct smpvm *t = smp_new(1);
		struct err err = {0};

		if (i & 1) { /* interpreted */
			xlat_free(t->vm->xlat);
			t->vm->xlat = NULL;
		}
		smp_load(t, SMP_CODE0, rows[i / 2].code, rows[i / 2].end);
		/* A page of linear addresses that leads nowhere. */
		st_le64(t->ram + SMP_PML4 + 0x2000 + 8 * 8, NOTHING | 0x87);
		t->v[0]->gpr[X86_RDI] = 0x1000000;
		assert_int_equal(engine_soft.vcpu_run(t->v[0], &err),
				 VCPU_EXIT_SHUTDOWN);
		smp_free(t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			hostile_50_vectors_reach_devices_byte_for_byte),
		cmocka_unit_test(hostile_50_images_go_through_devices),
		cmocka_unit_test(
			hostile_50_read_modify_write_is_one_read_and_one_write),
		cmocka_unit_test(
			hostile_50_strings_cross_from_device_to_device_to_memory),
		cmocka_unit_test(hostile_50_stos_over_everything),
		cmocka_unit_test(hostile_50_code_in_a_device_runs_as_it_reads),
		cmocka_unit_test(hostile_50_code_s_page_becomes_a_device),
		cmocka_unit_test(hostile_50_a_device_may_be_the_stack),
		cmocka_unit_test(
			hostile_50_page_tables_in_devices_are_never_read),
		cmocka_unit_test(
			hostile_50_descriptor_tables_in_devices_read_like_memory),
		cmocka_unit_test(
			hostile_50_tables_where_nothing_is_shut_the_guest_down),
	};

	return test_run("hostile_mmio", tests);
}
