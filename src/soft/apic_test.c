/* SPDX-License-Identifier: Apache-2.0 */
#include "soft/apic_int.h"
#include "test/test.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"

struct rig {
	struct engine_vm vm;
	int eois;
	u8 last_eoi;
};

static void rig_eoi(void *opaque, u8 vector)
{
	struct rig *r = opaque;

	r->eois++;
	r->last_eoi = vector;
}

static const struct engine_irqchip_ops rig_irqchip = {.eoi = rig_eoi};

/* n vCPUs with their APICs enabled. */
static struct rig *rig_new(u32 n)
{
	struct rig *r = calloc(1, sizeof(*r));

	assert_non_null(r);
	r->vm.tsc_khz = soft_tsc_khz_measure();
	r->vm.apic_bus_khz = 1000000;
	r->vm.vcpu_count = n;
	r->vm.cfg.irqchip = &rig_irqchip;
	r->vm.cfg.irqchip_opaque = r;
	for (u32 i = 0; i < n; i++) {
		struct vcpu *v = soft_vcpu_alloc();

		assert_non_null(v);
		v->id = i;
		v->vm = &r->vm;
		r->vm.vcpus[i] = v;
		assert_non_null(soft_apic_new(v));
		soft_apic_mmio_write(v, APIC_SVR, 0x1ff);
	}
	return r;
}

static void rig_free(struct rig *r)
{
	soft_timers_free(r->vm.timers);
	for (u32 i = 0; i < VCPUS_MAX; i++) {
		if (!r->vm.vcpus[i])
			continue;
		soft_apic_free(r->vm.vcpus[i]->apic);
		soft_vcpu_release(r->vm.vcpus[i]);
	}
	free(r);
}

static void to_x2apic(struct vcpu *v)
{
	u64 base;

	assert_true(soft_apic_rdmsr(v, X86_MSR_APIC_BASE, &base));
	assert_true(
		soft_apic_wrmsr(v, X86_MSR_APIC_BASE, base | APIC_BASE_EXTD));
}

static bool wrx2(struct vcpu *v, u32 off, u64 value)
{
	return soft_apic_wrmsr(v, 0x800 + (off >> 4), value);
}

static u32 rd(struct vcpu *v, u32 off)
{
	return soft_apic_mmio_read(v, off);
}

static void wr(struct vcpu *v, u32 off, u32 value)
{
	soft_apic_mmio_write(v, off, value);
}

static void eoi_all(struct vcpu *v)
{
	int n = 0;

	while (soft_apic_ack(v) >= 0 && n++ < 256)
		wr(v, APIC_EOI, 0);
	wr(v, APIC_EOI, 0);
}

static void apic_base_transitions_follow_the_state_diagram(void **state)
{
	struct rig *r = rig_new(1);
	struct vcpu *v = r->vm.vcpus[0];
	u64 x1 = 0xfee00900, x2 = 0xfee00d00, off = 0xfee00100, b, out;

	(void)state;
	assert_true(soft_apic_rdmsr(v, X86_MSR_APIC_BASE, &b));
	assert_int_equal(b, x1);
	assert_false(soft_apic_wrmsr(v, X86_MSR_APIC_BASE, 0xfee00500));
	assert_false(soft_apic_wrmsr(v, X86_MSR_APIC_BASE, x1 | 1));
	assert_false(soft_apic_wrmsr(v, X86_MSR_APIC_BASE, x1 | BIT64(52)));
	assert_false(soft_apic_rdmsr(v, 0x802, &out)); /* not in x2APIC mode */
	assert_true(soft_apic_wrmsr(v, X86_MSR_APIC_BASE, x2));
	assert_int_equal(soft_apic_base(v), ~0ull);
	assert_false(soft_apic_wrmsr(v, X86_MSR_APIC_BASE, x1));
	assert_true(soft_apic_wrmsr(v, X86_MSR_APIC_BASE, off));
	assert_int_equal(soft_apic_base(v), ~0ull);
	assert_false(soft_apic_wrmsr(v, X86_MSR_APIC_BASE, x2));
	assert_true(soft_apic_wrmsr(v, X86_MSR_APIC_BASE, x1));
	assert_int_equal(soft_apic_base(v), 0xfee00000);
	rig_free(r);
}

static void apic_x2_refuses_reserved_bits_and_absent_registers(void **state)
{
	struct rig *r = rig_new(2);
	struct vcpu *v = r->vm.vcpus[1];
	u64 out;

	(void)state;
	to_x2apic(v);
	assert_true(soft_apic_rdmsr(v, 0x802, &out));
	assert_int_equal(out, 1);
	assert_false(wrx2(v, APIC_ID, 0));
	assert_false(wrx2(v, APIC_EOI, 1));
	assert_true(wrx2(v, APIC_EOI, 0));
	assert_false(wrx2(v, APIC_ESR, 1));
	assert_true(wrx2(v, APIC_ESR, 0));
	assert_false(wrx2(v, APIC_TPR, 0x100));
	assert_false(wrx2(v, APIC_TPR, BIT64(32)));
	assert_false(wrx2(v, APIC_ICR, BIT64(13)));
	assert_false(wrx2(v, APIC_ICR, BIT64(20)));
	assert_false(wrx2(v, APIC_LVTT, BIT64(19)));
	assert_false(wrx2(v, APIC_SVR, BIT64(12)));
	assert_false(wrx2(v, APIC_DFR, 0));
	assert_false(wrx2(v, APIC_ICR2, 0));
	assert_false(soft_apic_rdmsr(v, 0x80e, &out)); /* DFR */
	assert_false(soft_apic_rdmsr(v, 0x80b, &out)); /* EOI: write only */
	assert_false(soft_apic_rdmsr(v, 0x83f, &out)); /* SELF IPI */
	assert_false(soft_apic_rdmsr(v, 0x831, &out));
	rig_free(r);
}

static void apic_delivers_by_priority_and_nests(void **state)
{
	struct rig *r = rig_new(1);
	struct vcpu *v = r->vm.vcpus[0];

	(void)state;
	assert_int_equal(soft_apic_msi(&r->vm, 0xfee00000, 0x41), 0);
	assert_true(atomic_load(&v->requests) & SOFT_REQ_INTR);
	assert_true(soft_is_kicked(v));
	assert_int_equal(soft_apic_ack(v), 0x41);
	assert_int_equal(rd(v, APIC_PPR), 0x40);
	soft_apic_msi(&r->vm, 0xfee00000, 0x4f); /* same class: waits */
	assert_int_equal(soft_apic_ack(v), -1);
	soft_apic_msi(&r->vm, 0xfee00000, 0x51);
	assert_int_equal(soft_apic_ack(v), 0x51);
	wr(v, APIC_EOI, 0);
	assert_int_equal(soft_apic_ack(v), -1);
	wr(v, APIC_EOI, 0);
	assert_int_equal(soft_apic_ack(v), 0x4f);
	wr(v, APIC_EOI, 0);
	assert_int_equal(r->eois, 0); /* edge: no broadcast */
	rig_free(r);
}

static void apic_tpr_holds_back_and_lets_go(void **state)
{
	struct rig *r = rig_new(1);
	struct vcpu *v = r->vm.vcpus[0];

	(void)state;
	soft_apic_set_cr8(v, 5);
	assert_int_equal(rd(v, APIC_TPR), 0x50);
	soft_apic_msi(&r->vm, 0xfee00000, 0x5f);
	assert_false(soft_apic_has_interrupt(v));
	atomic_store(&v->requests, 0);
	soft_apic_set_cr8(v, 4);
	assert_true(atomic_load(&v->requests) & SOFT_REQ_INTR);
	assert_int_equal(soft_apic_ack(v), 0x5f);
	rig_free(r);
}

static void apic_edge_interrupts_can_end_in_guest_memory(void **state)
{
	struct rig *r = rig_new(1);
	struct vcpu *v = r->vm.vcpus[0];
	struct mem_slot slot = {.size = PAGE_BYTES};
	u8 *word;

	(void)state;
	slot.hva = aligned_alloc(PAGE_BYTES, PAGE_BYTES);
	memset(slot.hva, 0, PAGE_BYTES);
	word = slot.hva + 0x40;
	r->vm.mem = mem_new();
	assert_int_equal(mem_slot_add(r->vm.mem, &slot, NULL), 0);
	v->pv_eoi = 0x40 | 1;

	soft_apic_msi(&r->vm, 0xfee00000, 0x51);
	assert_int_equal(soft_apic_ack(v), 0x51);
	assert_int_equal(*word, 1);
	*word = 0; /* the guest ends it: 0x41 can come */
	soft_apic_msi(&r->vm, 0xfee00000, 0x41);
	assert_int_equal(soft_apic_ack(v), 0x41);

	/* Taken back: the next one waits for the EOI register. */
	soft_apic_msi(&r->vm, 0xfee00000, 0x42);
	assert_false(soft_apic_has_interrupt(v));
	assert_int_equal(*word, 0);
	wr(v, APIC_EOI, 0);
	assert_int_equal(soft_apic_ack(v), 0x42);

	/* Level-triggered ones are never offered. */
	wr(v, APIC_EOI, 0);
	soft_apic_msi(&r->vm, 0xfee00000, 0xc043);
	assert_int_equal(soft_apic_ack(v), 0x43);
	assert_int_equal(*word, 0);
	mem_free(r->vm.mem);
	free(slot.hva);
	rig_free(r);
}

static void apic_level_eoi_reaches_the_io_apic(void **state)
{
	struct rig *r = rig_new(1);
	struct vcpu *v = r->vm.vcpus[0];

	(void)state;
	soft_apic_msi(&r->vm, 0xfee00000, 0x33 | BIT32(15) | BIT32(14));
	assert_int_equal(soft_apic_ack(v), 0x33);
	wr(v, APIC_EOI, 0);
	assert_int_equal(r->eois, 1);
	assert_int_equal(r->last_eoi, 0x33);
	soft_apic_msi(&r->vm, 0xfee00000, 0x33); /* now edge: TMR cleared */
	assert_int_equal(soft_apic_ack(v), 0x33);
	wr(v, APIC_EOI, 0);
	assert_int_equal(r->eois, 1);
	rig_free(r);
}

static void apic_software_disable_masks_the_lvts(void **state)
{
	struct rig *r = rig_new(1);
	struct vcpu *v = r->vm.vcpus[0];

	(void)state;
	wr(v, APIC_LVTPC, 0x30);
	wr(v, APIC_SVR, 0xff);
	assert_int_equal(rd(v, APIC_LVTPC), APIC_LVT_MASKED | 0x30);
	wr(v, APIC_LVTPC, 0x31);
	assert_int_equal(rd(v, APIC_LVTPC), APIC_LVT_MASKED | 0x31);
	soft_apic_msi(&r->vm, 0xfee00000, 0x41);
	wr(v, APIC_SVR, 0x1ff);
	assert_int_equal(soft_apic_ack(v), -1); /* it was not accepted */
	rig_free(r);
}

static void apic_esr_latches_on_write(void **state)
{
	struct rig *r = rig_new(1);
	struct vcpu *v = r->vm.vcpus[0];

	(void)state;
	wr(v, APIC_LVTERR, 0xe0);
	soft_apic_msi(&r->vm, 0xfee00000, 0x0f);
	assert_int_equal(rd(v, APIC_ESR), 0);
	wr(v, APIC_ESR, 0);
	assert_int_equal(rd(v, APIC_ESR), APIC_ESR_RECEIVE_ILLEGAL);
	assert_int_equal(soft_apic_ack(v), 0xe0);
	wr(v, APIC_EOI, 0);
	wr(v, APIC_ESR, 0);
	assert_int_equal(rd(v, APIC_ESR), 0);
	wr(v, APIC_ICR, 0x40000 | 5); /* self IPI with vector 5 */
	wr(v, APIC_ESR, 0);
	assert_int_equal(rd(v, APIC_ESR),
			 APIC_ESR_RECEIVE_ILLEGAL | APIC_ESR_SEND_ILLEGAL);
	rd(v, 0x040);
	wr(v, APIC_ESR, 0);
	assert_int_equal(rd(v, APIC_ESR), APIC_ESR_REGISTER);
	rig_free(r);
}

static void apic_illegal_error_vector_does_not_recurse(void **state)
{
	struct rig *r = rig_new(1);
	struct vcpu *v = r->vm.vcpus[0];

	(void)state;
	wr(v, APIC_LVTERR, 0x03);
	soft_apic_msi(&r->vm, 0xfee00000, 0x02);
	assert_int_equal(soft_apic_ack(v), -1);
	rig_free(r);
}

/* Which vCPUs have vector 0x77 pending, as a bit mask. */
static u32 pending(struct rig *r)
{
	u32 mask = 0;

	for (u32 i = 0; i < r->vm.vcpu_count; i++) {
		struct vcpu *v = r->vm.vcpus[i];

		if (soft_apic_ack(v) == 0x77)
			mask |= BIT32(i);
		if (apic_is_x2(v->apic))
			wrx2(v, APIC_EOI, 0);
		else
			eoi_all(v);
	}
	return mask;
}

static void send(struct vcpu *v, u32 dest, u32 low)
{
	wr(v, APIC_ICR2, dest << 24);
	wr(v, APIC_ICR, low);
}

static void apic_icr_routes_physical_and_shorthands(void **state)
{
	struct rig *r = rig_new(4);
	struct vcpu *v = r->vm.vcpus[1];

	(void)state;
	send(v, 2, 0x77);
	assert_int_equal(pending(r), 0x4);
	send(v, 0xff, 0x77);
	assert_int_equal(pending(r), 0xf);
	send(v, 9, 0x77);
	assert_int_equal(pending(r), 0);
	send(v, 3, 0x40077); /* self */
	assert_int_equal(pending(r), 0x2);
	send(v, 3, 0x80077); /* all */
	assert_int_equal(pending(r), 0xf);
	send(v, 3, 0xc0077); /* all but self */
	assert_int_equal(pending(r), 0xd);
	rig_free(r);
}

static void apic_xapic_id_is_writable_and_the_x2apic_id_is_not(void **state)
{
	struct rig *r = rig_new(2);
	struct vcpu *v = r->vm.vcpus[0], *w = r->vm.vcpus[1];
	struct kvm_lapic_state s;

	(void)state;
	wr(w, APIC_ID, 0x07ffffff);
	assert_int_equal(rd(w, APIC_ID), 0x07000000);
	wr(v, APIC_ICR2, 1 << 24);
	wr(v, APIC_ICR, 0x4041); /* nobody is 1 now */
	assert_int_equal(soft_apic_ack(w), -1);
	wr(v, APIC_ICR2, 7 << 24);
	wr(v, APIC_ICR, 0x4041);
	soft_apic_get(w->apic, &s);
	wr(w, APIC_ID, 0);
	soft_apic_set(w->apic, &s);
	assert_int_equal(rd(w, APIC_ID), 0x07000000);
	assert_int_equal(soft_apic_ack(w), 0x41);
	to_x2apic(w);
	assert_false(wrx2(w, APIC_ID, 5));
	assert_true(soft_apic_wrmsr(w, X86_MSR_APIC_BASE, 0xfee00000));
	assert_true(soft_apic_wrmsr(w, X86_MSR_APIC_BASE, 0xfee00800));
	assert_int_equal(rd(w, APIC_ID), 0x01000000);
	rig_free(r);
}

static void apic_icr_routes_logical_flat_and_cluster(void **state)
{
	struct rig *r = rig_new(4);
	struct vcpu *v = r->vm.vcpus[0];

	(void)state;
	for (u32 i = 0; i < 4; i++)
		wr(r->vm.vcpus[i], APIC_LDR, BIT32(24 + i));
	send(v, 0x0a, 0x877);
	assert_int_equal(pending(r), 0xa);
	for (u32 i = 0; i < 4; i++) {
		wr(r->vm.vcpus[i], APIC_DFR, 0);
		wr(r->vm.vcpus[i], APIC_LDR,
		   ((i >> 1) << 4 | BIT32(i & 1)) << 24);
	}
	send(v, 0x13, 0x877);
	assert_int_equal(pending(r), 0xc);
	send(v, 0x01, 0x877);
	assert_int_equal(pending(r), 0x1);
	rig_free(r);
}

static void apic_lowest_priority_takes_exactly_one(void **state)
{
	struct rig *r = rig_new(4);
	struct vcpu *v = r->vm.vcpus[0];
	u32 seen = 0;

	(void)state;
	for (u32 i = 0; i < 4; i++)
		wr(r->vm.vcpus[i], APIC_LDR, BIT32(24 + i));
	for (int i = 0; i < 256; i++) {
		u32 mask;

		send(v, 0x06, 0x977);
		mask = pending(r);
		assert_true(mask == 2 || mask == 4);
		seen |= mask;
	}
	assert_int_equal(seen, 6); /* equals take turns */
	wr(r->vm.vcpus[1], APIC_TPR, 0x20);
	send(v, 0x06, 0x977);
	assert_int_equal(pending(r), 4);
	rig_free(r);
}

static void apic_x2_logical_ids_are_clusters_of_sixteen(void **state)
{
	struct rig *r = rig_new(20);
	struct vcpu *v = r->vm.vcpus[0];
	u64 out;

	(void)state;
	for (u32 i = 0; i < 20; i++)
		to_x2apic(r->vm.vcpus[i]);
	assert_true(soft_apic_rdmsr(r->vm.vcpus[18], 0x80d, &out));
	assert_int_equal(out, 0x10004);
	assert_true(wrx2(v, APIC_ICR, 0x0001000cull << 32 | 0x877));
	assert_int_equal(pending(r), BIT32(18) | BIT32(19));
	assert_true(wrx2(v, APIC_ICR, 0xffffffffull << 32 | 0x77));
	assert_int_equal(pending(r), 0xfffff);
	assert_true(wrx2(v, APIC_ICR, 0xffull << 32 | 0x77));
	assert_int_equal(pending(r), 0);
	assert_true(wrx2(v, APIC_SELF_IPI, 0x77));
	assert_int_equal(pending(r), 1);
	rig_free(r);
}

static void apic_init_and_sipi_reach_only_a_waiting_cpu(void **state)
{
	struct rig *r = rig_new(2);
	struct vcpu *v = r->vm.vcpus[0], *ap = r->vm.vcpus[1];

	(void)state;
	atomic_store(&ap->requests, 0);
	send(v, 1, 0x600 | 0x12); /* running: ignored */
	assert_int_equal(atomic_load(&ap->requests), 0);
	send(v, 1, 0x8500); /* INIT level de-assert: nothing */
	assert_int_equal(atomic_load(&ap->requests), 0);
	send(v, 1, 0xc500);
	assert_int_equal(atomic_load(&ap->requests), SOFT_REQ_INIT);
	send(v, 1, 0x600 | 0x12);
	assert_int_equal(atomic_load(&ap->requests),
			 SOFT_REQ_INIT | SOFT_REQ_SIPI);
	assert_int_equal(soft_apic_sipi_vector(ap), 0x12);
	atomic_store(&ap->requests, 0);
	send(v, 1, 0x400);
	assert_int_equal(atomic_load(&ap->requests), SOFT_REQ_NMI);
	rig_free(r);
}

static void apic_msi_checks_the_window(void **state)
{
	struct rig *r = rig_new(1);

	(void)state;
	assert_int_equal(soft_apic_msi(&r->vm, 0xfed00000, 0x41), -EINVAL);
	assert_int_equal(soft_apic_msi(&r->vm, 0x1fee00000ull, 0x41), -EINVAL);
	assert_int_equal(soft_apic_ack(r->vm.vcpus[0]), -1);
	rig_free(r);
}

static void apic_extint_follows_lint0(void **state)
{
	struct rig *r = rig_new(2);
	struct vcpu *v = r->vm.vcpus[0];

	(void)state;
	wr(v, APIC_LVT0, 0x700);
	assert_true(soft_apic_accepts_extint(v));
	assert_false(soft_apic_accepts_extint(r->vm.vcpus[1]));
	wr(v, APIC_LVT0, 0x10700);
	assert_false(soft_apic_accepts_extint(v));
	atomic_store(&r->vm.extint, true);
	atomic_store(&v->requests, 0);
	wr(v, APIC_LVT0, 0x700);
	assert_true(atomic_load(&v->requests) & SOFT_REQ_EXTINT);
	wr(v, APIC_LVT1, 0x400);
	atomic_store(&v->requests, 0);
	soft_apic_lint1_nmi(v);
	assert_int_equal(atomic_load(&v->requests), SOFT_REQ_NMI);
	rig_free(r);
}

static void nap_us(long us)
{
	struct timespec ts = {.tv_nsec = us * 1000};

	nanosleep(&ts, NULL);
}

static void apic_timer_one_shot_fires_once(void **state)
{
	struct rig *r = rig_new(1);
	struct vcpu *v = r->vm.vcpus[0];

	(void)state;
	wr(v, APIC_TDCR, 0xb); /* divide by 1: 1 ns a count */
	wr(v, APIC_LVTT, 0x40);
	wr(v, APIC_TMICT, 2000000);
	assert_in_range(rd(v, APIC_TMCCT), 1, 2000000);
	assert_true(soft_apic_deadline_ns(v) > clock_mono_ns() - 1000000000);
	soft_apic_timer_poll(v);
	nap_us(2500);
	soft_apic_timer_poll(v);
	assert_int_equal(soft_apic_ack(v), 0x40);
	wr(v, APIC_EOI, 0);
	assert_int_equal(rd(v, APIC_TMCCT), 0);
	assert_true(soft_apic_deadline_ns(v) == SOFT_NEVER);
	nap_us(2500);
	soft_apic_timer_poll(v);
	assert_int_equal(soft_apic_ack(v), -1);
	/* Periodic now, but the count is spent: it stays at zero. */
	wr(v, APIC_LVTT, 0x20040);
	assert_int_equal(rd(v, APIC_TMCCT), 0);
	rig_free(r);
}

static void apic_timer_periodic_coalesces_and_is_clamped(void **state)
{
	struct rig *r = rig_new(1);
	struct vcpu *v = r->vm.vcpus[0];
	u64 now;

	(void)state;
	wr(v, APIC_TDCR, 0xb);
	wr(v, APIC_LVTT, 0x20040);
	now = clock_mono_ns();
	wr(v, APIC_TMICT, 1); /* an interrupt storm, were it not clamped */
	assert_true(soft_apic_deadline_ns(v) >= now + 200000);
	nap_us(1000);
	soft_apic_timer_poll(v);
	assert_int_equal(soft_apic_ack(v), 0x40);
	wr(v, APIC_EOI, 0);
	assert_true(soft_apic_deadline_ns(v) != SOFT_NEVER);
	assert_int_equal(soft_apic_ack(v), -1); /* five ticks became one */
	wr(v, APIC_TMICT, 0);
	assert_true(soft_apic_deadline_ns(v) == SOFT_NEVER);
	rig_free(r);
}

static void apic_timer_deadline_in_the_past_fires_at_once(void **state)
{
	struct rig *r = rig_new(1);
	struct vcpu *v = r->vm.vcpus[0];
	u64 out;

	(void)state;
	assert_true(soft_apic_wrmsr(v, X86_MSR_TSC_DEADLINE, 1));
	assert_int_equal(soft_apic_ack(v), -1); /* not in deadline mode */
	wr(v, APIC_LVTT, 0x40040);
	assert_true(soft_apic_wrmsr(v, X86_MSR_TSC_DEADLINE, 1));
	assert_int_equal(soft_apic_ack(v), 0x40);
	wr(v, APIC_EOI, 0);
	assert_true(soft_apic_rdmsr(v, X86_MSR_TSC_DEADLINE, &out));
	assert_int_equal(out, 0);
	assert_true(soft_apic_wrmsr(v, X86_MSR_TSC_DEADLINE, 0));
	assert_true(soft_apic_deadline_ns(v) == SOFT_NEVER);
	/* A change of the timer's mode disarms. */
	assert_true(soft_apic_wrmsr(v, X86_MSR_TSC_DEADLINE,
				    soft_tsc(v) + (1ull << 40)));
	assert_true(soft_apic_deadline_ns(v) != SOFT_NEVER);
	wr(v, APIC_LVTT, 0x40);
	wr(v, APIC_LVTT, 0x40040);
	assert_true(soft_apic_deadline_ns(v) == SOFT_NEVER);
	rig_free(r);
}

static void apic_timer_thread_makes_the_request(void **state)
{
	struct rig *r = rig_new(1);
	struct vcpu *v = r->vm.vcpus[0];
	struct err err = {0};
	u64 end;

	(void)state;
	r->vm.timers = soft_timers_new(&r->vm, &err);
	assert_non_null(r->vm.timers);
	wr(v, APIC_LVTT, 0x40040);
	atomic_store(&v->requests, 0);
	atomic_store(&v->go, SOFT_GO);
	assert_true(soft_apic_wrmsr(v, X86_MSR_TSC_DEADLINE,
				    soft_tsc(v) + r->vm.tsc_khz * 2));
	end = clock_mono_ns() + 5 * NS_PER_SEC;
	soft_sleep(v, end); /* the kick ends it */
	assert_true(clock_mono_ns() < end);
	assert_int_equal(atomic_load(&v->requests), SOFT_REQ_TIMER);
	/* The thread may be early by the calibration's error. */
	for (int i = 0; i < 100 && !soft_apic_has_interrupt(v); i++) {
		nap_us(50);
		soft_apic_timer_poll(v);
	}
	assert_int_equal(soft_apic_ack(v), 0x40);
	rig_free(r);
}

static void apic_state_round_trips(void **state)
{
	struct rig *r = rig_new(2);
	struct kvm_lapic_state a, b;
	struct vcpu *v = r->vm.vcpus[1];

	(void)state;
	wr(v, APIC_TPR, 0x10);
	wr(v, APIC_LDR, 0x02000000);
	wr(v, APIC_LVT0, 0x10700);
	wr(v, APIC_ICR2, 0x07000000);
	soft_apic_msi(&r->vm, 0xfee01000, 0xc031);
	soft_apic_ack(v);
	soft_apic_msi(&r->vm, 0xfee01000, 0x91);
	soft_apic_get(v->apic, &a);
	soft_apic_reset(v->apic, false);
	soft_apic_set(v->apic, &a);
	soft_apic_get(v->apic, &b);
	assert_memory_equal(&a, &b, sizeof(a));
	assert_int_equal(soft_apic_ack(v), 0x91);
	wr(v, APIC_EOI, 0);
	wr(v, APIC_EOI, 0);
	assert_int_equal(r->last_eoi, 0x31);
	rig_free(r);
}

static void apic_hostile_state_leaves_a_legal_apic(void **state)
{
	struct rig *r = rig_new(1);
	struct vcpu *v = r->vm.vcpus[0];
	struct kvm_lapic_state s;
	int vec, n = 0;

	(void)state;
	memset(&s, 0xff, sizeof(s));
	soft_apic_set(v->apic, &s);
	assert_int_equal(rd(v, APIC_ID) & 0xffffff, 0);
	assert_int_equal(rd(v, APIC_LVTT) & ~0x700ffu, 0);
	wr(v, APIC_TPR, 0);
	while (n++ < 1000 && (vec = soft_apic_ack(v)) != -1)
		assert_in_range(vec, 16, 255);
	for (n = 0; n < 300; n++)
		wr(v, APIC_EOI, 0);
	assert_int_equal(rd(v, APIC_PPR), 0);
	rig_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			apic_base_transitions_follow_the_state_diagram),
		cmocka_unit_test(
			apic_x2_refuses_reserved_bits_and_absent_registers),
		cmocka_unit_test(apic_delivers_by_priority_and_nests),
		cmocka_unit_test(apic_tpr_holds_back_and_lets_go),
		cmocka_unit_test(apic_edge_interrupts_can_end_in_guest_memory),
		cmocka_unit_test(apic_level_eoi_reaches_the_io_apic),
		cmocka_unit_test(apic_software_disable_masks_the_lvts),
		cmocka_unit_test(apic_esr_latches_on_write),
		cmocka_unit_test(apic_illegal_error_vector_does_not_recurse),
		cmocka_unit_test(apic_icr_routes_physical_and_shorthands),
		cmocka_unit_test(
			apic_xapic_id_is_writable_and_the_x2apic_id_is_not),
		cmocka_unit_test(apic_icr_routes_logical_flat_and_cluster),
		cmocka_unit_test(apic_lowest_priority_takes_exactly_one),
		cmocka_unit_test(apic_x2_logical_ids_are_clusters_of_sixteen),
		cmocka_unit_test(apic_init_and_sipi_reach_only_a_waiting_cpu),
		cmocka_unit_test(apic_msi_checks_the_window),
		cmocka_unit_test(apic_extint_follows_lint0),
		cmocka_unit_test(apic_timer_one_shot_fires_once),
		cmocka_unit_test(apic_timer_periodic_coalesces_and_is_clamped),
		cmocka_unit_test(apic_timer_deadline_in_the_past_fires_at_once),
		cmocka_unit_test(apic_timer_thread_makes_the_request),
		cmocka_unit_test(apic_state_round_trips),
		cmocka_unit_test(apic_hostile_state_leaves_a_legal_apic),
	};

	return test_run("apic", tests);
}
