/* SPDX-License-Identifier: Apache-2.0 */
/* Interrupts of micro-guests, under both engines alike: the local APIC, MSIs,
 * the I/O APIC's level-triggered ones, the PIC, NMI, the second CPU. */
#include "test/test.h"

#include <stdlib.h>
#include <time.h>

#include "dev/device.h"
#include "hw/i8259.h"
#include "hw/ioapic.h"
#include "kvm/kvm_int.h"
#include "machine/microvm.h"

#define MSI_ADDR 0xfee00000ull
#define COUNT	 MICRO_DATA

/* The handler, at +0x10: counts, ends the interrupt. Then the APIC is on. */
#define IRQ_GUEST(name, body)                                                  \
	MICRO_GUEST(name, 64,                                                  \
		    "jmp 5f\n .org " #name " + 0x10\n"                         \
		    "inc dword ptr [0x20000]\n"                                \
		    "mov dword ptr [rbp+0xb0], 0\n iretq\n"                    \
		    ".org " #name " + 0x40\n"                                  \
		    "5: mov ebp, 0xfee00000\n"                                 \
		    "mov dword ptr [rbp+0xf0], 0x1ff\n" body                   \
		    "cli\n mov al, 1\n" MICRO_END)
/* A slow KVM looks at what it has to report now and then only. */
#define SOME_TIME "mov ecx, 3000\n 8: loop 8b\n"
#define AWAIT	  "7: cmp dword ptr [0x20000], 0\n je 7b\n"
/* No interrupt gets in between STI and HLT. */
#define AWAIT_HALTED                                                           \
	"7: cli\n cmp dword ptr [0x20000], 0\n jne 8f\n sti\n hlt\n"           \
	"jmp 7b\n 8:\n"

/* ---- what a port write sets off ---- */

static void do_msi(struct micro *m, const struct micro_access *a)
{
	if (a->space == IO_PIO && a->is_write)
		assert_true(m->ops->msi(m->vm, MSI_ADDR, (u32)a->value) >= 0);
}

static void do_extint(struct micro *m, const struct micro_access *a)
{
	if (a->space == IO_PIO && a->is_write)
		m->ops->set_extint(m->vm, true);
}

static void do_nmi(struct micro *m, const struct micro_access *a)
{
	if (a->space == IO_PIO && a->is_write)
		m->ops->inject_nmi(m->v[0]);
}

static void *msi_later(void *opaque)
{
	struct micro *m = opaque;
	struct timespec ts = {.tv_nsec = 20000000};

	nanosleep(&ts, NULL);
	m->ops->msi(m->vm, MSI_ADDR, 0x42);
	return NULL;
}

static void *extint_later(void *opaque)
{
	struct micro *m = opaque;
	struct timespec ts = {.tv_nsec = 20000000};

	nanosleep(&ts, NULL);
	m->ops->set_extint(m->vm, true);
	return NULL;
}

struct scene {
	const u8 *code, *end;
	u8 vector;
	void (*on_access)(struct micro *m, const struct micro_access *a);
	void *(*thread)(void *opaque);
};

static void run_one(struct micro *m, const struct scene *s)
{
	pthread_t t;

	micro_load(m, MICRO_LONG, s->code, s->end);
	micro_gate64(m, s->vector, MICRO_CODE + 0x10);
	m->pic_vector = s->vector;
	m->on_access = s->on_access;
	if (s->thread)
		assert_int_equal(pthread_create(&t, NULL, s->thread, m), 0);
	micro_run_to_stop(m);
	if (s->thread)
		pthread_join(t, NULL);
}

static void play(struct micro_pair *p, const struct scene *s, u32 count)
{
	micro_pair_new(p, 1);
	run_one(p->kvm, s);
	run_one(p->soft, s);
	p->kvm->has_timing = true;
	micro_compare(p);
	assert_int_equal(ld_le32(p->kvm->ram + COUNT), count);
}

#define SCENE(name, ...) (&(struct scene){name, name##_end, __VA_ARGS__})

/* ---- the local APIC ---- */

IRQ_GUEST(self_ipi, "sti\n mov dword ptr [rbp+0x310], 0\n"
		    "mov dword ptr [rbp+0x300], 0x40041\n" AWAIT);

static void an_ipi_to_itself_arrives(void **state)
{
	struct micro_pair p;

	(void)state;
	play(&p, SCENE(self_ipi, .vector = 0x41), 1);
	micro_pair_free(&p);
}

IRQ_GUEST(one_shot, "mov dword ptr [rbp+0x3e0], 0xb\n"
		    "mov dword ptr [rbp+0x320], 0x43\n"
		    "mov dword ptr [rbp+0x380], 3000000\n" AWAIT_HALTED);

static void the_apic_timer_wakes_a_halted_cpu(void **state)
{
	struct micro_pair p;

	(void)state;
	play(&p, SCENE(one_shot, .vector = 0x43), 1);
	micro_pair_free(&p);
}

/* Priority: 0x61 waits behind TPR 0x70, then comes. */
IRQ_GUEST(by_priority, "mov dword ptr [rbp+0x80], 0x70\n sti\n"
		       "mov dx, 0x500\n mov eax, 0x61\n out dx, eax\n"
		       "nop\n nop\n mov ebx, [0x20000]\n"
		       "mov ecx, [rbp+0x230]\n"
		       "mov dword ptr [rbp+0x80], 0\n" AWAIT);

static void the_task_priority_holds_interrupts_back(void **state)
{
	struct vcpu_state vs;
	struct micro_pair p;

	(void)state;
	play(&p, SCENE(by_priority, .vector = 0x61, .on_access = do_msi), 1);
	micro_get(p.kvm, 0, &vs);
	assert_int_equal(vs.regs.rbx, 0);
	assert_int_equal(vs.regs.rcx, 2); /* IRR */
	micro_pair_free(&p);
}

/* ---- MSIs ---- */

IRQ_GUEST(msi, "sti\n mov dx, 0x500\n mov eax, 0x42\n out dx, eax\n" AWAIT);

static void an_msi_arrives(void **state)
{
	struct micro_pair p;

	(void)state;
	play(&p, SCENE(msi, .vector = 0x42, .on_access = do_msi), 1);
	assert_int_equal(atomic_load(&p.kvm->eoi_count), 0);
	micro_pair_free(&p);
}

IRQ_GUEST(msi_halted, AWAIT_HALTED);

static void an_msi_of_another_thread_wakes_a_halted_cpu(void **state)
{
	struct micro_pair p;

	(void)state;
	play(&p, SCENE(msi_halted, .vector = 0x42, .thread = msi_later), 1);
	micro_pair_free(&p);
}

/* Level-triggered: its end is reported, each time. */
IRQ_GUEST(by_level,
	  "sti\n mov dx, 0x500\n mov eax, 0xc051\n out dx, eax\n" AWAIT
	  "mov eax, 0xc051\n out dx, eax\n"
	  "7: cmp dword ptr [0x20000], 2\n jne 7b\n" SOME_TIME);

static void the_end_of_a_level_triggered_interrupt_is_reported(void **state)
{
	struct micro_pair p;

	(void)state;
	play(&p, SCENE(by_level, .vector = 0x51, .on_access = do_msi), 2);
	assert_int_equal(atomic_load(&p.soft->eoi_count), 2);
	assert_int_equal(atomic_load(&p.kvm->eoi_count), 2);
	assert_int_equal(p.kvm->eois[0], 0x51);
	assert_int_equal(p.kvm->eois[1], 0x51);
	micro_pair_free(&p);
}

/* ---- the PIC's line and NMI ---- */

IRQ_GUEST(extint, "mov dword ptr [rbp+0x350], 0x700\n"
		  "mov dx, 0x500\n out dx, al\n nop\n"
		  "mov ebx, [0x20000]\n sti\n" AWAIT);

static void the_pics_interrupt_waits_for_if(void **state)
{
	struct micro_pair p;

	(void)state;
	play(&p, SCENE(extint, .vector = 0x30, .on_access = do_extint), 1);
	assert_int_equal(atomic_load(&p.kvm->acks), 1);
	assert_int_equal(atomic_load(&p.soft->acks), 1);
	micro_pair_free(&p);
}

IRQ_GUEST(extint_halted, "mov dword ptr [rbp+0x350], 0x700\n" AWAIT_HALTED);

static void the_pics_interrupt_wakes_a_halted_cpu(void **state)
{
	struct micro_pair p;

	(void)state;
	play(&p, SCENE(extint_halted, .vector = 0x31, .thread = extint_later),
	     1);
	micro_pair_free(&p);
}

IRQ_GUEST(nmi, "mov dword ptr [rbp+0x360], 0x400\n"
	       "mov dx, 0x500\n out dx, al\n" AWAIT);

static void an_nmi_comes_through_lint1_without_if(void **state)
{
	struct micro_pair p;

	(void)state;
	play(&p, SCENE(nmi, .vector = 2, .on_access = do_nmi), 1);
	micro_pair_free(&p);
}

/* The end is the guest's last deed before it is stopped: it is not lost. */
IRQ_GUEST(ends_late,
	  "sti\n mov dx, 0x500\n mov eax, 0xc052\n out dx, eax\n" AWAIT);

static void an_end_of_interrupt_is_not_lost_by_a_kick(void **state)
{
	struct micro_pair p;

	(void)state;
	play(&p, SCENE(ends_late, .vector = 0x52, .on_access = do_msi), 1);
	assert_int_equal(atomic_load(&p.soft->eoi_count), 1);
	assert_int_equal(atomic_load(&p.kvm->eoi_count), 1);
	micro_pair_free(&p);
}

MICRO_GUEST(extint_taken, 64,
	    "jmp 5f\n .org extint_taken + 0x10\n"
	    "inc dword ptr [0x20000]\n iretq\n"
	    ".org extint_taken + 0x40\n 5: sti\n mov dx, 0x500\n"
	    "out dx, al\n"
	    "7: cmp dword ptr [0x20000], 0\n je 7b\n mov al, 1\n" MICRO_END);

static void kick_on_access(struct micro *m, const struct micro_access *a)
{
	(void)a;
	m->ops->vcpu_kick(m->v[0]);
}

/* Acknowledged at the PIC, handed to KVM, and then comes a kick. */
static void a_pic_interrupt_that_kvm_holds_is_saved(void **state)
{
	struct micro *a = micro_new_kvm(1, true), *b = micro_new_kvm(1, true);
	struct vcpu_state *vs = calloc(1, sizeof(*vs));
	struct err err = {0};

	(void)state;
	assert_non_null(vs);
	a->pic_vector = 0x33;
	a->on_access = kick_on_access;
	micro_load(a, MICRO_LONG, extint_taken, extint_taken_end);
	micro_gate64(a, 0x33, MICRO_CODE + 0x10);
	assert_int_equal(a->ops->vcpu_run(a->v[0], &err), VCPU_EXIT_KICKED);
	assert_true(a->v[0]->run->ready_for_interrupt_injection);
	/* What vcpu_run() does before KVM_RUN. */
	a->v[0]->run->immediate_exit = 0;
	atomic_store(&a->vm->extint, true);
	assert_int_equal(kvm_irq_before_run(a->v[0], 0, &err), 0);
	assert_int_equal(atomic_load(&a->acks), 1);
	a->ops->vcpu_kick(a->v[0]);
	assert_int_equal(a->ops->vcpu_run(a->v[0], &err), VCPU_EXIT_KICKED);
	micro_get(a, 0, vs);
	assert_int_equal(vs->events.interrupt.injected, 1);
	assert_int_equal(vs->events.interrupt.nr, 0x33);
	memcpy(b->ram, a->ram, MICRO_RAM);
	micro_set(b, 0, vs);
	micro_run_to_stop(b);
	assert_int_equal(ld_le32(b->ram + COUNT), 1);
	/* And the first one goes on, too; its state then has nothing. */
	a->on_access = NULL;
	micro_run_to_stop(a);
	assert_int_equal(ld_le32(a->ram + COUNT), 1);
	micro_get(a, 0, vs);
	assert_int_equal(vs->events.interrupt.injected, 0);
	free(vs);
	micro_free(a);
	micro_free(b);
}

/* ---- our I/O APIC and PIC ---- */

struct chips {
	struct hw_env env;
	struct device_list devices;
	struct hw_clock clock;
	struct i8259 *pic;
	struct ioapic *ioapic;
	struct irq line;
	u32 to_raise; /* how often the line is raised again */
};

static int chips_msi(void *opaque, u64 addr, u32 data)
{
	struct micro *m = opaque;

	return m->ops->msi(m->vm, addr, data);
}

static void chips_intr(void *opaque, int n, bool level)
{
	struct micro *m = opaque;

	(void)n;
	m->ops->set_extint(m->vm, level);
}

static u8 chips_ack(struct micro *m)
{
	struct chips *c = m->opaque;
	u8 vector;

	pthread_mutex_lock(mem_io_lock(m->mem));
	vector = i8259_ack(c->pic);
	pthread_mutex_unlock(mem_io_lock(m->mem));
	return vector;
}

static void chips_eoi(struct micro *m, u8 vector)
{
	struct chips *c = m->opaque;

	pthread_mutex_lock(mem_io_lock(m->mem));
	ioapic_eoi(c->ioapic, vector);
	pthread_mutex_unlock(mem_io_lock(m->mem));
}

/* A write to the port sets the line. The device lock is held. */
static void chips_access(struct micro *m, const struct micro_access *a)
{
	struct chips *c = m->opaque;

	if (a->space == IO_PIO && a->is_write)
		irq_set(&c->line, a->value & 1);
}

static struct chips *chips_new(struct micro *m)
{
	struct chips *c = calloc(1, sizeof(*c));

	assert_non_null(c);
	device_list_init(&c->devices);
	hw_clock_init(&c->clock, NULL);
	c->env = (struct hw_env){&c->devices, m->mem, irq_router_new(),
				 &c->clock};
	irq_router_set_msi(c->env.router, chips_msi, m);
	c->pic = i8259_new(&c->env, (struct irq){chips_intr, m, 0});
	c->ioapic = ioapic_new(&c->env, 0);
	m->opaque = c;
	m->on_access = chips_access;
	m->on_ack = chips_ack;
	m->on_eoi = chips_eoi;
	return c;
}

static void chips_free(struct micro *m)
{
	struct chips *c = m->opaque;

	m->on_access = NULL;
	device_list_free(&c->devices);
	irq_router_free(c->env.router);
	free(c);
}

/* Pin 5, level-triggered, vector 0x55. The handler lowers the line when it
 * has seen three: until then each end of interrupt brings another. */
MICRO_GUEST(ioapic_guest, 64,
	    "jmp 5f\n .org ioapic_guest + 0x10\n"
	    "push rax\n push rdx\n inc dword ptr [0x20000]\n"
	    "cmp dword ptr [0x20000], 3\n jb 6f\n"
	    "mov dx, 0x500\n xor eax, eax\n out dx, al\n"
	    "6: mov dword ptr [rbp+0xb0], 0\n"
	    "pop rdx\n pop rax\n iretq\n"
	    ".org ioapic_guest + 0x60\n"
	    "5: mov ebp, 0xfee00000\n mov r14d, 0xfec00000\n"
	    "mov dword ptr [rbp+0xf0], 0x1ff\n"
	    "mov dword ptr [r14], 0x1b\n"
	    "mov dword ptr [r14+16], 0\n"
	    "mov dword ptr [r14], 0x1a\n"
	    "mov dword ptr [r14+16], 0x8055\n"
	    "sti\n mov dx, 0x500\n mov al, 1\n out dx, al\n"
	    "7: cmp dword ptr [0x20000], 3\n jne 7b\n" SOME_TIME
	    "mov ebx, [r14+16]\n cli\n mov al, 1\n" MICRO_END);

static void a_level_line_of_the_ioapic_repeats_until_it_falls(void **state)
{
	struct micro_pair p;
	struct micro *each[2];
	struct vcpu_state vs;

	(void)state;
	micro_pair_new(&p, 1);
	each[0] = p.kvm;
	each[1] = p.soft;
	for (int i = 0; i < 2; i++) {
		struct chips *c = chips_new(each[i]);

		c->line = ioapic_input(c->ioapic, 5);
		micro_load(each[i], MICRO_LONG, ioapic_guest, ioapic_guest_end);
		micro_gate64(each[i], 0x55, MICRO_CODE + 0x10);
		micro_run_to_stop(each[i]);
	}
	p.kvm->has_timing = true;
	micro_compare(&p);
	assert_int_equal(ld_le32(p.kvm->ram + COUNT), 3);
	micro_get(p.kvm, 0, &vs);
	assert_int_equal(vs.regs.rbx, 0x8055); /* no remote IRR */
	chips_free(p.kvm);
	chips_free(p.soft);
	micro_pair_free(&p);
}

/* IRQ 3 of a PIC at 0x20: vector 0x23. Non-specific EOI. */
MICRO_GUEST(pic_guest, 64,
	    "jmp 5f\n .org pic_guest + 0x10\n"
	    "push rax\n inc dword ptr [0x20000]\n"
	    "mov al, 0x20\n out 0x20, al\n pop rax\n iretq\n"
	    ".org pic_guest + 0x40\n"
	    "5: mov ebp, 0xfee00000\n mov al, 0x11\n out 0x20, al\n mov al, "
	    "0x20\n out 0x21, al\n"
	    "mov al, 4\n out 0x21, al\n mov al, 1\n out 0x21, al\n"
	    "mov al, 0xf7\n out 0x21, al\n"
	    "mov dword ptr [rbp+0xf0], 0x1ff\n"
	    "mov dword ptr [rbp+0x350], 0x700\n"
	    "sti\n mov dx, 0x500\n mov al, 1\n out dx, al\n"
	    "7: cmp dword ptr [0x20000], 1\n jne 7b\n"
	    "mov al, 0\n out dx, al\n mov al, 1\n out dx, al\n"
	    "7: cli\n cmp dword ptr [0x20000], 2\n je 8f\n sti\n hlt\n"
	    "jmp 7b\n 8: mov al, 1\n" MICRO_END);

static void an_edge_of_the_pic_arrives_each_time(void **state)
{
	struct micro_pair p;
	struct micro *each[2];

	(void)state;
	micro_pair_new(&p, 1);
	each[0] = p.kvm;
	each[1] = p.soft;
	for (int i = 0; i < 2; i++) {
		struct chips *c = chips_new(each[i]);

		c->line = i8259_input(c->pic, 3);
		micro_load(each[i], MICRO_LONG, pic_guest, pic_guest_end);
		micro_gate64(each[i], 0x23, MICRO_CODE + 0x10);
		micro_run_to_stop(each[i]);
	}
	p.kvm->has_timing = true;
	micro_compare(&p);
	assert_int_equal(ld_le32(p.kvm->ram + COUNT), 2);
	chips_free(p.kvm);
	chips_free(p.soft);
	micro_pair_free(&p);
}

/* ---- the second CPU ---- */

/* INIT, SIPI to 0x9000; its code leaves a word in real mode. */
MICRO_GUEST(starts, 64,
	    "mov ebp, 0xfee00000\n"
	    "mov dword ptr [rbp+0xf0], 0x1ff\n"
	    "mov dword ptr [rbp+0x310], 0x01000000\n"
	    "mov dword ptr [rbp+0x300], 0x4500\n"
	    "mov dword ptr [rbp+0x310], 0x01000000\n"
	    "mov dword ptr [rbp+0x300], 0x4609\n"
	    "7: cmp word ptr [0xa000], 0x900\n jne 7b\n"
	    "mov al, 1\n" MICRO_END);
MICRO_GUEST(started, 16,
	    "mov ax, cs\n mov ds:[0xa000], ax\n 1: hlt\n jmp 1b\n");

static void *run_second(void *opaque)
{
	struct micro *m = opaque;
	struct err err = {0};

	while (!atomic_load(&m->is_done))
		if (m->ops->vcpu_run(m->v[1], &err) == VCPU_EXIT_ERROR)
			break;
	return NULL;
}

static void start_second(struct micro *m)
{
	pthread_t t;

	micro_load(m, MICRO_LONG, starts, starts_end);
	memcpy(m->ram + 0x9000, started, (size_t)(started_end - started));
	assert_int_equal(pthread_create(&t, NULL, run_second, m), 0);
	(void)micro_run(m);
	atomic_store(&m->is_done, true);
	m->ops->vcpu_kick(m->v[1]);
	pthread_join(t, NULL);
	if (m->err.text[0])
		fail_msg("%s: %s", m->ops->name, m->err.text);
}

static void init_and_sipi_start_the_second_cpu(void **state)
{
	struct micro_pair p;

	(void)state;
	micro_pair_new(&p, 2);
	start_second(p.kvm);
	start_second(p.soft);
	p.kvm->has_timing = true;
	micro_compare(&p);
	assert_int_equal(ld_le16(p.kvm->ram + 0xa000), 0x900);
	micro_pair_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_ipi_to_itself_arrives),
		cmocka_unit_test(the_apic_timer_wakes_a_halted_cpu),
		cmocka_unit_test(the_task_priority_holds_interrupts_back),
		cmocka_unit_test(an_msi_arrives),
		cmocka_unit_test(an_msi_of_another_thread_wakes_a_halted_cpu),
		cmocka_unit_test(
			the_end_of_a_level_triggered_interrupt_is_reported),
		cmocka_unit_test(an_end_of_interrupt_is_not_lost_by_a_kick),
		cmocka_unit_test(a_pic_interrupt_that_kvm_holds_is_saved),
		cmocka_unit_test(the_pics_interrupt_waits_for_if),
		cmocka_unit_test(the_pics_interrupt_wakes_a_halted_cpu),
		cmocka_unit_test(an_nmi_comes_through_lint1_without_if),
		cmocka_unit_test(
			a_level_line_of_the_ioapic_repeats_until_it_falls),
		cmocka_unit_test(an_edge_of_the_pic_arrives_each_time),
		cmocka_unit_test(init_and_sipi_start_the_second_cpu),
	};

	return test_run("engine_irq", tests);
}
