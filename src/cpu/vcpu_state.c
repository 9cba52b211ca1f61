/* SPDX-License-Identifier: Apache-2.0 */
/* The saved form of a vCPU: every field by name, none as raw structs, so that
 * padding and fields of later kernels stay out of the stream. Ranges of what
 * indexes something are checked here; what is architecturally legal is the
 * engine's to say in vcpu_set(). */
#include "cpu/vcpu_state.h"

/* Ascending. */
const u32 vcpu_state_msrs[] = {
	0x10,			       /* TSC */
	0x1b,			       /* APIC_BASE */
	0x3b,			       /* TSC_ADJUST */
	0x48,			       /* SPEC_CTRL */
	0x174,	    0x175,	0x176, /* SYSENTER */
	0x17a,			       /* MCG_STATUS */
	0x1a0,			       /* MISC_ENABLE */
	0x200,	    0x201,	0x202,	    0x203,	0x204, 0x205, 0x206,
	0x207, /* MTRRs */
	0x208,	    0x209,	0x20a,	    0x20b,	0x20c, 0x20d, 0x20e,
	0x20f,	    0x250,	0x258,	    0x259,	0x268, 0x269, 0x26a,
	0x26b,	    0x26c,	0x26d,	    0x26e,	0x26f, 0x277, /* PAT */
	0x2ff,				    /* MTRR_DEF_TYPE */
	0x6e0,				    /* TSC_DEADLINE */
	0x4b564d00, 0x4b564d01,		    /* KVM wall clock, system time */
	0x4b564d03, 0x4b564d04, 0x4b564d05, /* steal, PV EOI, poll control */
	0xc0000080,			    /* EFER */
	0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, /* SYSCALL */
	0xc0000102,					/* KERNEL_GS_BASE */
	0xc0000103,					/* TSC_AUX */
};
const size_t vcpu_state_msr_count = ARRAY_SIZE(vcpu_state_msrs);

/* The kernel's __u64 is not our u64: the same width, another type. */
#define ST_U64(s, name, p) st_u64((s), (name), (u64 *)(p))

static void visit_regs(struct kvm_regs *r, struct state *s)
{
	const struct {
		const char *name;
		__u64 *value;
	} fields[] = {
		{"rax", &r->rax}, {"rbx", &r->rbx}, {"rcx", &r->rcx},
		{"rdx", &r->rdx}, {"rsi", &r->rsi}, {"rdi", &r->rdi},
		{"rsp", &r->rsp}, {"rbp", &r->rbp}, {"r8", &r->r8},
		{"r9", &r->r9},	  {"r10", &r->r10}, {"r11", &r->r11},
		{"r12", &r->r12}, {"r13", &r->r13}, {"r14", &r->r14},
		{"r15", &r->r15}, {"rip", &r->rip}, {"rflags", &r->rflags},
	};

	st_begin(s, "regs");
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		ST_U64(s, fields[i].name, fields[i].value);
	st_end(s);
}

static void visit_segment(const char *name, struct kvm_segment *g,
			  struct state *s)
{
	st_begin(s, name);
	ST_U64(s, "base", &g->base);
	st_u32(s, "limit", &g->limit);
	st_u16(s, "selector", &g->selector);
	st_u8(s, "type", &g->type);
	st_u8(s, "present", &g->present);
	st_u8(s, "dpl", &g->dpl);
	st_u8(s, "db", &g->db);
	st_u8(s, "s", &g->s);
	st_u8(s, "l", &g->l);
	st_u8(s, "g", &g->g);
	st_u8(s, "avl", &g->avl);
	st_u8(s, "unusable", &g->unusable);
	st_require(s, g->type < 16 && g->dpl < 4,
		   "a segment's type and privilege level are in range");
	st_end(s);
}

static void visit_table(const char *name, struct kvm_dtable *t, struct state *s)
{
	st_begin(s, name);
	ST_U64(s, "base", &t->base);
	st_u16(s, "limit", &t->limit);
	st_end(s);
}

static void visit_sregs(struct kvm_sregs2 *r, struct state *s)
{
	st_begin(s, "sregs");
	visit_segment("cs", &r->cs, s);
	visit_segment("ds", &r->ds, s);
	visit_segment("es", &r->es, s);
	visit_segment("fs", &r->fs, s);
	visit_segment("gs", &r->gs, s);
	visit_segment("ss", &r->ss, s);
	visit_segment("tr", &r->tr, s);
	visit_segment("ldt", &r->ldt, s);
	visit_table("gdt", &r->gdt, s);
	visit_table("idt", &r->idt, s);
	ST_U64(s, "cr0", &r->cr0);
	ST_U64(s, "cr2", &r->cr2);
	ST_U64(s, "cr3", &r->cr3);
	ST_U64(s, "cr4", &r->cr4);
	ST_U64(s, "cr8", &r->cr8);
	ST_U64(s, "efer", &r->efer);
	ST_U64(s, "apic-base", &r->apic_base);
	ST_U64(s, "flags", &r->flags);
	st_u64_array(s, "pdptrs", (u64 *)r->pdptrs, 4);
	st_end(s);
}

static void visit_fpu(struct vcpu_state *vs, struct state *s)
{
	u32 index[KVM_MAX_XCRS] = {0};
	u64 value[KVM_MAX_XCRS] = {0};
	u32 n;

	st_begin(s, "fpu");
	st_bytes(s, "xsave", vs->xsave.region, sizeof(vs->xsave.region));
	st_u32(s, "xcr-count", &vs->xcrs.nr_xcrs);
	st_require(s, vs->xcrs.nr_xcrs <= KVM_MAX_XCRS,
		   "the number of XCRs is in range");
	n = MIN(vs->xcrs.nr_xcrs, KVM_MAX_XCRS);
	for (u32 i = 0; i < n; i++) {
		index[i] = vs->xcrs.xcrs[i].xcr;
		value[i] = vs->xcrs.xcrs[i].value;
	}
	st_u32_array(s, "xcr-index", index, n);
	st_u64_array(s, "xcr-value", value, n);
	for (u32 i = 0; i < n && state_is_loading(s); i++) {
		vs->xcrs.xcrs[i].xcr = index[i];
		vs->xcrs.xcrs[i].value = value[i];
	}
	st_end(s);
}

static void visit_debugregs(struct kvm_debugregs *d, struct state *s)
{
	st_begin(s, "debugregs");
	st_u64_array(s, "db", (u64 *)d->db, 4);
	ST_U64(s, "dr6", &d->dr6);
	ST_U64(s, "dr7", &d->dr7);
	ST_U64(s, "flags", &d->flags);
	st_end(s);
}

static void visit_events(struct kvm_vcpu_events *e, struct state *s)
{
	st_begin(s, "events");
	st_u8(s, "exception-injected", &e->exception.injected);
	st_u8(s, "exception-nr", &e->exception.nr);
	st_u8(s, "exception-has-error", &e->exception.has_error_code);
	st_u8(s, "exception-pending", &e->exception.pending);
	st_u32(s, "exception-error", &e->exception.error_code);
	st_u8(s, "exception-has-payload", &e->exception_has_payload);
	ST_U64(s, "exception-payload", &e->exception_payload);
	st_u8(s, "interrupt-injected", &e->interrupt.injected);
	st_u8(s, "interrupt-nr", &e->interrupt.nr);
	st_u8(s, "interrupt-soft", &e->interrupt.soft);
	st_u8(s, "interrupt-shadow", &e->interrupt.shadow);
	st_u8(s, "nmi-injected", &e->nmi.injected);
	st_u8(s, "nmi-pending", &e->nmi.pending);
	st_u8(s, "nmi-masked", &e->nmi.masked);
	st_u32(s, "sipi-vector", &e->sipi_vector);
	st_u32(s, "flags", &e->flags);
	st_u8(s, "smm", &e->smi.smm);
	st_u8(s, "smi-pending", &e->smi.pending);
	st_u8(s, "triple-fault-pending", &e->triple_fault.pending);
	st_require(s, e->exception.nr < 32,
		   "the exception's vector is below 32");
	st_require(s, e->sipi_vector < 256, "the SIPI vector is a byte");
	st_end(s);
}

static void visit_msrs(struct vcpu_state *vs, struct state *s)
{
	u32 index[VCPU_MSRS_MAX] = {0};
	u64 value[VCPU_MSRS_MAX] = {0};
	u32 n;

	st_begin(s, "msrs");
	st_u32(s, "count", &vs->msr_count);
	st_require(s, vs->msr_count <= VCPU_MSRS_MAX,
		   "the number of MSRs is in range");
	n = MIN(vs->msr_count, VCPU_MSRS_MAX);
	for (u32 i = 0; i < n; i++) {
		index[i] = vs->msrs[i].index;
		value[i] = vs->msrs[i].data;
	}
	st_u32_array(s, "index", index, n);
	st_u64_array(s, "value", value, n);
	for (u32 i = 0; i < n; i++)
		st_require(s, i == 0 || index[i - 1] < index[i], "MSRs ascend");
	for (u32 i = 0; i < n && state_is_loading(s); i++) {
		vs->msrs[i].index = index[i];
		vs->msrs[i].data = value[i];
	}
	st_end(s);
}

void vcpu_state_visit(struct vcpu_state *vs, struct state *s)
{
	visit_regs(&vs->regs, s);
	visit_sregs(&vs->sregs, s);
	visit_fpu(vs, s);
	visit_debugregs(&vs->debugregs, s);
	visit_events(&vs->events, s);
	st_u32(s, "mp-state", &vs->mp_state.mp_state);
	st_bytes(s, "lapic", vs->lapic.regs, sizeof(vs->lapic.regs));
	visit_msrs(vs, s);
}
