/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY. A model is: an identity (the host's, or a synthetic one), the
 * features that the engines make themselves (always on), and a mask over the
 * host's features (the allow-list, or a fixed set that the host must have).
 * Topology is one package of single-thread cores whose APIC IDs count from 0.
 * The mitigation bits say that the CPU needs none, so that a guest kernel
 * compiles in no retpolines, page-table isolation or buffer clearing.
 *
 * Source: SDM 2 CPUID; APM 3 appendix E; SDM 4 table 2-2
 * (IA32_ARCH_CAPABILITIES).
 */
#include "x86/cpuid.h"

#include <errno.h>
#include <stdlib.h>

#define ENTRIES_MAX 96
#define EAX	    0
#define EBX	    1
#define ECX	    2
#define EDX	    3

struct model {
	const char *name;
	bool is_host;
	/* Host features let through; for a fixed model all are required. */
	u32 f1_ecx, f7_ebx, f7_ecx, f7_edx, f71_eax, fd1_eax, fx1_ecx, fx8_ebx;
};

/* clang-format off */
#define F1_V2  (BIT32(0) | BIT32(9) | BIT32(13) | BIT32(19) | BIT32(20) | \
		BIT32(23))
#define F1_V3  (F1_V2 | BIT32(12) | BIT32(22) | BIT32(26) | BIT32(28) | \
		BIT32(29))
#define F7B_V3 (BIT32(3) | BIT32(5) | BIT32(8))
#define FX1_V2 BIT32(0)
#define FX1_V3 (FX1_V2 | BIT32(5))
static const struct model models[] = {
	{.name = "host-v3", .is_host = true,
	 /* PCLMULQDQ AES RDRAND */
	 .f1_ecx = F1_V3 | BIT32(1) | BIT32(25) | BIT32(30),
	 /* FSGSBASE ERMS ADX CLFLUSHOPT CLWB SHA. Not RDSEED: some hosts
	  * return zeros for it with CF set (AMD-SB-7055). */
	 .f7_ebx = F7B_V3 | BIT32(0) | BIT32(9) | BIT32(19) | BIT32(23) |
		   BIT32(24) | BIT32(29),
	 .f7_ecx = BIT32(8) | BIT32(9) | BIT32(10), /* GFNI VAES VPCLMUL */
	 .f7_edx = BIT32(4), /* FSRM */
	 .f71_eax = BIT32(10) | BIT32(11) | BIT32(12), /* FZRM FSRS FSRC */
	 .fd1_eax = 7, /* XSAVEOPT XSAVEC XGETBV1 */
	 .fx1_ecx = FX1_V3 | BIT32(6) | BIT32(8), /* SSE4A PREFETCHW */
	 .fx8_ebx = BIT32(0) | BIT32(9)}, /* CLZERO WBNOINVD */
	{.name = "v1"},
	{.name = "v2", .f1_ecx = F1_V2, .fx1_ecx = FX1_V2},
	{.name = "v3", .f1_ecx = F1_V3, .f7_ebx = F7B_V3, .fx1_ecx = FX1_V3},
};

/* Features that the engine makes whatever the host has. */
/* DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 FPU
 * CLFSH MMX FXSR SSE SSE2 */
#define MADE_1_EDX  0x078bfbfdu
#define MADE_1_ECX  (BIT32(17) | BIT32(21) | BIT32(24) | BIT32(31))
#define MADE_7_EBX  (BIT32(1) | BIT32(7) | BIT32(10))
#define MADE_7_ECX  (BIT32(2) | BIT32(22))
/* SYSCALL NX PDPE1GB RDTSCP LM */
#define MADE_X1_EDX (BIT32(11) | BIT32(20) | BIT32(26) | BIT32(27) | BIT32(29))
/* What AMD repeats from leaf 1. */
#define AMD_X1_EDX  0x0183f3fdu
/* TSA_SQ_NO TSA_L1_NO, and a later bit of the same kind without which
 * Linux 6.12.117 takes the CPU for affected. */
#define AMD_X21_ECX (BIT32(1) | BIT32(2) | BIT32(7))

/* RDCL_NO IBRS_ALL SKIP_L1DFL_VMENTRY SSB_NO MDS_NO PSCHANGE_MC_NO TAA_NO
 * SBDR_SSDP_NO FBSDP_NO PSDP_NO BHI_NO PBRSB_NO GDS_NO RFDS_NO ITS_NO */
#define ARCH_CAPABILITIES \
	(BIT64(0) | BIT64(1) | BIT64(3) | BIT64(4) | BIT64(5) | BIT64(6) | \
	 BIT64(8) | BIT64(13) | BIT64(14) | BIT64(15) | BIT64(20) | \
	 BIT64(24) | BIT64(26) | BIT64(27) | BIT64(62))
/* clang-format on */

struct builder {
	const struct x86_cpuid_config *cfg;
	const struct model *model;
	struct kvm_cpuid2 *table;
	bool is_amd;
	bool has_xsave, has_avx;
	u32 apic_id_bits; /* log2 of the package's size */
};

void x86_cpuid_host(u32 leaf, u32 subleaf, u32 out[4])
{
	__asm__("cpuid"
		: "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
		: "a"(leaf), "c"(subleaf));
}

/* Leaves past the host's maximum read as zero. */
static void host_leaf(u32 leaf, u32 subleaf, u32 out[4])
{
	u32 max[4];

	x86_cpuid_host(leaf & 0x80000000u, 0, max);
	if (leaf > max[EAX])
		memset(out, 0, 4 * sizeof(out[0]));
	else
		x86_cpuid_host(leaf, subleaf, out);
}

static void add(struct builder *b, u32 leaf, u32 subleaf, bool is_indexed,
		u32 eax, u32 ebx, u32 ecx, u32 edx)
{
	struct kvm_cpuid_entry2 *e = &b->table->entries[b->table->nent++];

	*e = (struct kvm_cpuid_entry2){
		.function = leaf,
		.index = subleaf,
		.flags = is_indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
		.eax = eax,
		.ebx = ebx,
		.ecx = ecx,
		.edx = edx};
}

static void add_identity(struct builder *b)
{
	u32 r[4], max = b->is_amd ? 0x10 : 0x16;
	u32 signature = 0x00a20f10; /* family 19h, model 21h */

	host_leaf(0, 0, r);
	if (!b->model->is_host) {
		memcpy(&r[EBX], "Auth", 4);
		memcpy(&r[EDX], "enti", 4);
		memcpy(&r[ECX], "cAMD", 4);
	}
	add(b, 0, 0, false, max, r[EBX], r[ECX], r[EDX]);
	if (b->model->is_host) {
		host_leaf(1, 0, r);
		signature = r[EAX];
	}
	host_leaf(1, 0, r);
	r[ECX] = (r[ECX] & b->model->f1_ecx) | MADE_1_ECX;
	b->has_xsave = r[ECX] & BIT32(26);
	if (!b->has_xsave)
		r[ECX] &= ~(BIT32(12) | BIT32(28) | BIT32(29));
	b->has_avx = r[ECX] & BIT32(28);
	add(b, 1, 0, false, signature,
	    8u << 8 | MIN(b->cfg->vcpu_count, 255u) << 16, r[ECX],
	    MADE_1_EDX | (b->cfg->vcpu_count > 1 ? BIT32(28) : 0));
}

/* Cache leaves keep the host's sizes; sharing follows the topology. */
static void add_caches(struct builder *b, u32 leaf)
{
	u32 cores = b->cfg->vcpu_count - 1, r[4];

	for (u32 i = 0; i < 8; i++) {
		u32 level;

		host_leaf(leaf, i, r);
		if (!(r[EAX] & 31))
			break;
		level = r[EAX] >> 5 & 7;
		r[EAX] &= 0x3fff;
		if (level >= 3)
			r[EAX] |= cores << 14;
		if (leaf == 4)
			r[EAX] |= MIN(cores, 63u) << 26;
		add(b, leaf, i, true, r[EAX], r[EBX], r[ECX], r[EDX]);
	}
	add(b, leaf, b->table->nent, true, 0, 0, 0, 0);
	b->table->entries[b->table->nent - 1].index =
		b->table->entries[b->table->nent - 2].function == leaf
			? b->table->entries[b->table->nent - 2].index + 1
			: 0;
}

static void add_topology(struct builder *b, u32 leaf)
{
	add(b, leaf, 0, true, 0, 1, 0x100, 0);
	add(b, leaf, 1, true, b->apic_id_bits, b->cfg->vcpu_count, 0x201, 0);
	add(b, leaf, 2, true, 0, 0, 2, 0);
}

static void add_features(struct builder *b)
{
	const struct model *m = b->model;
	u32 r[4], s[4] = {0};

	host_leaf(7, 0, r);
	if (r[EAX] >= 1)
		host_leaf(7, 1, s);
	r[EBX] = (r[EBX] & m->f7_ebx) | MADE_7_EBX;
	r[ECX] = (r[ECX] & m->f7_ecx) | MADE_7_ECX;
	if (!b->has_avx) {
		r[EBX] &= ~BIT32(5);
		r[ECX] &= ~(BIT32(9) | BIT32(10));
	}
	/* SPEC_CTRL and ARCH_CAPABILITIES, inert but for what they say. */
	r[EDX] &= m->f7_edx |
		  (b->cfg->is_honest ? BIT32(10) | BIT32(26) | BIT32(29) : 0);
	if (!b->cfg->is_honest)
		r[EDX] |= BIT32(26) | BIT32(29);
	add(b, 7, 0, true, 1, r[EBX], r[ECX], r[EDX]);
	add(b, 7, 1, true, s[EAX] & m->f71_eax, 0, 0, 0);
}

static void add_xsave(struct builder *b)
{
	u32 size = b->has_avx ? 832 : 576, r[4];

	if (!b->has_xsave) {
		add(b, 0xd, 0, true, 0, 0, 0, 0);
		return;
	}
	host_leaf(0xd, 1, r);
	add(b, 0xd, 0, true, b->has_avx ? 7 : 3, 576, size, 0);
	add(b, 0xd, 1, true, r[EAX] & b->model->fd1_eax, 576, 0, 0);
	if (b->has_avx)
		add(b, 0xd, 2, true, 256, 576, 0, 0);
}

static void add_basic(struct builder *b)
{
	u32 r[4];

	add_identity(b);
	if (!b->is_amd) {
		host_leaf(2, 0, r);
		add(b, 2, 0, false, r[EAX], r[EBX], r[ECX], r[EDX]);
		add_caches(b, 4);
	}
	add(b, 6, 0, false, BIT32(2), 0, 0, 0); /* ARAT */
	add_features(b);
	add_topology(b, 0xb);
	add_xsave(b);
	if (!b->is_amd) {
		u32 mhz = b->cfg->tsc_khz / 1000;

		add(b, 0x15, 0, false, 25000, b->cfg->tsc_khz, 25000000, 0);
		add(b, 0x16, 0, false, mhz, mhz, 100, 0);
	}
}

static void add_kvm(struct builder *b)
{
	/* CLOCKSOURCE NOP_IO_DELAY CLOCKSOURCE2 STEAL_TIME PV_EOI PV_UNHALT
	 * PV_TLB_FLUSH PV_SEND_IPI POLL_CONTROL PV_SCHED_YIELD
	 * CLOCKSOURCE_STABLE */
	u32 features = BIT32(0) | BIT32(1) | BIT32(3) | BIT32(5) | BIT32(6) |
		       BIT32(7) | BIT32(9) | BIT32(11) | BIT32(12) | BIT32(13) |
		       BIT32(24);

	add(b, 0x40000000, 0, false, 0x40000010, 0x4b4d564b, 0x564b4d56, 0x4d);
	add(b, 0x40000001, 0, false, features, 0, 0, 0);
	/* The APIC bus runs at 1 GHz. */
	add(b, 0x40000010, 0, false, b->cfg->tsc_khz, 1000000, 0, 0);
}

static void add_brand(struct builder *b)
{
	char brand[48] = "Skerry virtual CPU ";
	u32 r[4];

	if (!b->model->is_host)
		strcat(brand, b->model->name);
	for (u32 i = 0; i < 3; i++) {
		if (b->model->is_host)
			host_leaf(0x80000002u + i, 0, r);
		else
			memcpy(r, brand + i * 16, 16);
		add(b, 0x80000002u + i, 0, false, r[0], r[1], r[2], r[3]);
	}
}

static u32 physical_bits(const struct builder *b)
{
	return b->cfg->ram_top > BIT64(39) ? 46 : 40;
}

static void add_amd(struct builder *b)
{
	u32 eax = 0, ecx = 0, r[4];

	for (u32 i = 0; i < 2; i++) { /* L1 and TLB, L2 and L3 */
		host_leaf(0x80000005u + i, 0, r);
		add(b, 0x80000005u + i, 0, false, r[0], r[1], r[2], r[3]);
	}
	host_leaf(0x80000019u, 0, r);
	add(b, 0x80000019u, 0, false, r[EAX], r[EBX], 0, 0);
	add_caches(b, 0x8000001du);
	add(b, 0x8000001eu, 0, false, 0, 0, 0, 0);
	if (b->cfg->is_honest) {
		host_leaf(0x80000021u, 0, r);
		eax = r[EAX] & (BIT32(8) | BIT32(27) | BIT32(28) | BIT32(29));
		ecx = r[ECX] & AMD_X21_ECX;
	} else {
		/* AUTO_IBRS SRSO_NO SRSO_USER_KERNEL_NO */
		eax = BIT32(8) | BIT32(29) | BIT32(30);
		ecx = AMD_X21_ECX;
	}
	/* No nested data breakpoints, LFENCE serializes, a null selector
	 * clears the base. */
	eax |= BIT32(0) | BIT32(2) | BIT32(6);
	add(b, 0x80000021u, 0, false, eax, 0, ecx, 0);
}

static void add_extended(struct builder *b)
{
	u32 cores = b->cfg->vcpu_count - 1, ebx, ecx, r[4], x1[4];

	host_leaf(0, 0, r);
	add(b, 0x80000000u, 0, false, b->is_amd ? 0x80000021u : 0x80000008u,
	    b->is_amd ? b->table->entries[0].ebx : 0,
	    b->is_amd ? b->table->entries[0].ecx : 0,
	    b->is_amd ? b->table->entries[0].edx : 0);
	host_leaf(0x80000001u, 0, x1);
	ecx = x1[ECX] & b->model->fx1_ecx;
	if (b->is_amd)
		ecx |= BIT32(22) | (cores ? BIT32(1) : 0);
	add(b, 0x80000001u, 0, false, b->is_amd ? b->table->entries[1].eax : 0,
	    0, ecx,
	    MADE_X1_EDX | (b->is_amd ? AMD_X1_EDX | (x1[EDX] & BIT32(22)) : 0));
	add_brand(b);
	if (!b->is_amd) {
		host_leaf(0x80000006u, 0, r);
		add(b, 0x80000006u, 0, false, 0, 0, r[ECX], 0);
	}
	add(b, 0x80000007u, 0, false, 0, 0, 0, BIT32(8));
	host_leaf(0x80000008u, 0, r);
	ebx = r[EBX] & (b->model->fx8_ebx |
			(b->cfg->is_honest ? BIT32(26) | BIT32(29) : 0));
	if (!b->cfg->is_honest && b->is_amd)
		ebx |= BIT32(26) | BIT32(29); /* SSB_NO BTC_NO */
	add(b, 0x80000008u, 0, false, physical_bits(b) | 48u << 8, ebx,
	    b->is_amd ? cores | b->apic_id_bits << 12 : 0, 0);
	if (b->is_amd)
		add_amd(b);
}

static int check_host(const struct model *m, struct err *err)
{
	u32 f1[4], f7[4], x1[4];

	host_leaf(1, 0, f1);
	host_leaf(7, 0, f7);
	host_leaf(0x80000001u, 0, x1);
	if (m->is_host || (!(m->f1_ecx & ~f1[ECX]) && !(m->f7_ebx & ~f7[EBX]) &&
			   !(m->fx1_ecx & ~x1[ECX])))
		return 0;
	return err_set(err, -ENOTSUP,
		       "use CPU model '%s': this host's CPU lacks features "
		       "of it",
		       m->name);
}

int x86_cpuid_build(const struct x86_cpuid_config *cfg,
		    struct kvm_cpuid2 **out_table, struct err *err)
{
	const char *name = cfg->model ? cfg->model : "host-v3";
	struct builder b = {.cfg = cfg};
	u32 r[4];
	int rc;

	for (size_t i = 0; i < ARRAY_SIZE(models); i++)
		if (!strcmp(models[i].name, name))
			b.model = &models[i];
	if (!b.model)
		return err_set(err, -EINVAL,
			       "unknown CPU model '%s' (known: host-v3, v1, "
			       "v2, v3)",
			       name);
	if (cfg->vcpu_count < 1 || cfg->vcpu_count > 255)
		return err_set(err, -EINVAL, "%u virtual CPUs: not 1 to 255",
			       cfg->vcpu_count);
	rc = check_host(b.model, err);
	if (rc)
		return rc;
	b.table = calloc(1, sizeof(*b.table) +
				    ENTRIES_MAX * sizeof(b.table->entries[0]));
	if (!b.table)
		return err_set(err, -ENOMEM, "allocate the CPUID table");
	while (BIT32(b.apic_id_bits) < cfg->vcpu_count)
		b.apic_id_bits++;
	host_leaf(0, 0, r);
	b.is_amd = !b.model->is_host || r[ECX] == 0x444d4163u ||
		   r[ECX] == 0x656e6975u;
	add_basic(&b);
	add_kvm(&b);
	add_extended(&b);
	*out_table = b.table;
	return 0;
}

const struct kvm_cpuid_entry2 *x86_cpuid_find(const struct kvm_cpuid2 *table,
					      u32 leaf, u32 subleaf)
{
	for (u32 i = 0; i < table->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &table->entries[i];

		if (e->function == leaf &&
		    (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) ||
		     e->index == subleaf))
			return e;
	}
	return NULL;
}

/* ---- instruction features ---- */

struct isa_bit {
	u8 feature;
	u32 leaf, subleaf;
	u8 reg, bit;
};

// clang-format off
static const struct isa_bit isa_bits[] = {
	{ISA_F_SSE3, 1, 0, ECX, 0}, {ISA_F_PCLMUL, 1, 0, ECX, 1},
	{ISA_F_MONITOR, 1, 0, ECX, 3}, {ISA_F_VMX, 1, 0, ECX, 5},
	{ISA_F_SSSE3, 1, 0, ECX, 9}, {ISA_F_FMA, 1, 0, ECX, 12},
	{ISA_F_CX16, 1, 0, ECX, 13}, {ISA_F_SSE41, 1, 0, ECX, 19},
	{ISA_F_SSE42, 1, 0, ECX, 20}, {ISA_F_MOVBE, 1, 0, ECX, 22},
	{ISA_F_POPCNT, 1, 0, ECX, 23}, {ISA_F_AES, 1, 0, ECX, 25},
	{ISA_F_XSAVE, 1, 0, ECX, 26}, {ISA_F_AVX, 1, 0, ECX, 28},
	{ISA_F_F16C, 1, 0, ECX, 29}, {ISA_F_RDRAND, 1, 0, ECX, 30},
	{ISA_F_FSGSBASE, 7, 0, EBX, 0}, {ISA_F_BMI1, 7, 0, EBX, 3},
	{ISA_F_AVX2, 7, 0, EBX, 5}, {ISA_F_BMI2, 7, 0, EBX, 8},
	{ISA_F_INVPCID, 7, 0, EBX, 10}, {ISA_F_RDSEED, 7, 0, EBX, 18},
	{ISA_F_ADX, 7, 0, EBX, 19}, {ISA_F_SMAP, 7, 0, EBX, 20},
	{ISA_F_CLFLUSHOPT, 7, 0, EBX, 23}, {ISA_F_CLWB, 7, 0, EBX, 24},
	{ISA_F_SHA, 7, 0, EBX, 29}, {ISA_F_PKU, 7, 0, ECX, 3},
	{ISA_F_GFNI, 7, 0, ECX, 8}, {ISA_F_VAES, 7, 0, ECX, 9},
	{ISA_F_VPCLMUL, 7, 0, ECX, 10}, {ISA_F_RDPID, 7, 0, ECX, 22},
	{ISA_F_SERIALIZE, 7, 0, EDX, 14},
	{ISA_F_XSAVEOPT, 0xd, 1, EAX, 0}, {ISA_F_XSAVEC, 0xd, 1, EAX, 1},
	{ISA_F_LAHF64, 0x80000001u, 0, ECX, 0},
	{ISA_F_SVM, 0x80000001u, 0, ECX, 2},
	{ISA_F_LZCNT, 0x80000001u, 0, ECX, 5},
	{ISA_F_SSE4A, 0x80000001u, 0, ECX, 6},
	{ISA_F_PREFETCHW, 0x80000001u, 0, ECX, 8},
	{ISA_F_3DNOWPREFETCH, 0x80000001u, 0, ECX, 8},
	{ISA_F_RDTSCP, 0x80000001u, 0, EDX, 27},
	{ISA_F_CLZERO, 0x80000008u, 0, EBX, 0},
	{ISA_F_RDPRU, 0x80000008u, 0, EBX, 4},
	{ISA_F_WBNOINVD, 0x80000008u, 0, EBX, 9},
};
// clang-format on

/* AMD, or Hygon, whose CPUs are AMD's design. */
static bool is_amd_vendor(const struct kvm_cpuid2 *table)
{
	u32 r[4] = {0};

	if (table) {
		const struct kvm_cpuid_entry2 *e = x86_cpuid_find(table, 0, 0);

		if (e)
			memcpy(r, &e->eax, sizeof(r));
	} else {
		host_leaf(0, 0, r);
	}
	return r[ECX] == 0x444d4163u || r[ECX] == 0x656e6975u;
}

/* table NULL: the host. */
static struct isa_features isa_of(const struct kvm_cpuid2 *table)
{
	struct isa_features f = {.bits = BIT64(ISA_F_BASE)};

	for (size_t i = 0; i < ARRAY_SIZE(isa_bits); i++) {
		const struct isa_bit *x = &isa_bits[i];
		u32 r[4] = {0};

		if (table) {
			const struct kvm_cpuid_entry2 *e =
				x86_cpuid_find(table, x->leaf, x->subleaf);

			if (e)
				memcpy(r, &e->eax, sizeof(r));
		} else {
			host_leaf(x->leaf, x->subleaf, r);
		}
		if (r[x->reg] & BIT32(x->bit))
			f.bits |= BIT64(x->feature);
	}
	f.is_amd = is_amd_vendor(table);
	return f;
}

struct isa_features x86_cpuid_isa(const struct kvm_cpuid2 *table)
{
	return isa_of(table);
}

struct isa_features x86_cpuid_host_isa(void)
{
	const u64 avx = BIT64(ISA_F_AVX) | BIT64(ISA_F_AVX2) |
			BIT64(ISA_F_FMA) | BIT64(ISA_F_F16C) |
			BIT64(ISA_F_VAES) | BIT64(ISA_F_VPCLMUL);
	struct isa_features f = isa_of(NULL);
	u32 r[4], lo = 0, hi = 0;

	host_leaf(1, 0, r);
	if (r[ECX] & BIT32(27)) /* OSXSAVE */
		__asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	if ((lo & 6) != 6)
		f.bits &= ~avx;
	return f;
}

u64 x86_cpuid_arch_capabilities(const struct kvm_cpuid2 *table)
{
	const struct kvm_cpuid_entry2 *e = x86_cpuid_find(table, 7, 0);

	return e && (e->edx & BIT32(29)) ? ARCH_CAPABILITIES : 0;
}
