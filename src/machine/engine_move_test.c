/* SPDX-License-Identifier: Apache-2.0 */
/* A guest that is moved from one engine to the other while it computes: its
 * state through the saved form, its RAM copied. It must not notice. */
#include "test/test.h"

#include <stdlib.h>

#include "base/buf.h"
#include "machine/microvm.h"
#include "x86/regs.h"

/* At each write to the port the guest is stopped, and may be moved. */
static void pause_here(struct micro *m, const struct micro_access *a)
{
	if (a->space == IO_PIO && a->is_write)
		m->ops->vcpu_kick(m->v[0]);
}

static void save(struct micro *m, struct buf *out)
{
	struct vcpu_state *vs = calloc(1, sizeof(*vs));
	struct state *s;

	assert_non_null(vs);
	micro_get(m, 0, vs);
	buf_init(out);
	s = state_save_new(out);
	vcpu_state_visit(vs, s);
	assert_int_equal(state_finish(s, NULL), 0);
	free(vs);
}

static void load(struct micro *m, struct buf *in)
{
	struct vcpu_state *vs = calloc(1, sizeof(*vs));
	struct state *s = state_load_new(in->bytes, in->len);

	assert_non_null(vs);
	vcpu_state_visit(vs, s);
	assert_int_equal(state_finish(s, NULL), 0);
	micro_set(m, 0, vs);
	free(vs);
	buf_fini(in);
}

static void move(struct micro *from, struct micro *to)
{
	struct buf b;

	save(from, &b);
	memcpy(to->ram, from->ram, MICRO_RAM);
	mem_written(to->mem, 0, MICRO_RAM);
	load(to, &b);
}

/* Until the next pause: true when the guest has ended. */
static bool run_a_bit(struct micro *m)
{
	size_t before = m->log_count;

	for (;;) {
		enum vcpu_exit why;

		memset(&m->err, 0, sizeof(m->err));
		why = m->ops->vcpu_run(m->v[0], &m->err);
		if (why == VCPU_EXIT_ERROR && m->ops == &engine_kvm &&
		    !micro_is_real_kvm())
			micro_skip("this host's KVM: %s", m->err.text);
		if (why != VCPU_EXIT_KICKED)
			fail_msg("%s: exit %d: %s", m->ops->name, why,
				 m->err.text);
		if (atomic_load(&m->is_done))
			return true;
		if (m->log_count > before)
			return false;
	}
}

/* The guest alone on the soft engine, then to and fro from `first`. Leaves the
 * result at MICRO_DATA. Returns the number of moves. */
static u32 to_and_fro(enum micro_mode mode, const u8 *code, const u8 *end,
		      bool kvm_first, void (*prepare)(struct micro *m),
		      u64 *out_alone, u64 *out_moved)
{
	struct micro_pair p;
	struct micro *now, *next;
	u32 moves = 0;

	micro_pair_new(&p, 1);
	micro_load(p.soft, mode, code, end);
	if (prepare)
		prepare(p.soft);
	micro_run_to_stop(p.soft);
	*out_alone = ld_le64(p.soft->ram + MICRO_DATA);
	micro_free(p.soft);
	p.soft = micro_new(&engine_soft, 1);
	p.soft->on_access = p.kvm->on_access = pause_here;
	now = kvm_first ? p.kvm : p.soft;
	next = kvm_first ? p.soft : p.kvm;
	micro_load(now, mode, code, end);
	if (prepare)
		prepare(now);
	while (!run_a_bit(now)) {
		struct micro *was = now;

		move(now, next);
		now = next;
		next = was;
		moves++;
	}
	*out_moved = ld_le64(now->ram + MICRO_DATA);
	micro_pair_free(&p);
	return moves;
}

static void check(enum micro_mode mode, const u8 *code, const u8 *end,
		  void (*prepare)(struct micro *m), u32 moves)
{
	for (int first = 0; first < 2; first++) {
		u64 alone = 0, moved = 1;

		assert_int_equal(to_and_fro(mode, code, end, first, prepare,
					    &alone, &moved),
				 moves);
		assert_true(alone != 0);
		assert_int_equal(alone, moved);
	}
}

/* ---- the guests ---- */

MICRO_GUEST(real_sum, 16,
	    "mov bp, 20\n mov si, 1\n xor di, di\n"
	    "1: mov cx, 50\n 2: imul si, si, 25173\n add si, 13849\n"
	    "add di, si\n rcl di, 1\n loop 2b\n push di\n"
	    "mov dx, 0x500\n mov ax, di\n out dx, ax\n pop di\n"
	    "dec bp\n jnz 1b\n"
	    "mov ax, 0x2000\n mov ds, ax\n mov ds:[0], di\n"
	    "mov ds:[2], si\n xor ax, ax\n mov ds, ax\n"
	    "mov al, 1\n" MICRO_END);

static void a_real_mode_guest_moves_between_engines(void **state)
{
	(void)state;
	check(MICRO_REAL, real_sum, real_sum_end, NULL, 20);
}

MICRO_GUEST(flat_sum, 32,
	    "mov ebp, 20\n mov esi, 1\n xor edi, edi\n mov ebx, 0x30000\n"
	    "1: mov ecx, 50\n 2: imul esi, esi, 1664525\n"
	    "add esi, 1013904223\n mov [ebx+ecx*4], esi\n"
	    "add edi, [ebx+ecx*4]\n adc edi, 0\n loop 2b\n"
	    "mov dx, 0x500\n mov eax, edi\n out dx, eax\n"
	    "dec ebp\n jnz 1b\n"
	    "mov ds:[0x20000], edi\n mov ds:[0x20004], esi\n"
	    "mov al, 1\n" MICRO_END);

static void a_32_bit_guest_moves_between_engines(void **state)
{
	(void)state;
	check(MICRO_PROTECTED, flat_sum, flat_sum_end, NULL, 20);
}

/* With what lives in the odd corners: LSTAR, GS bases, DR0, a CR8. */
MICRO_GUEST(long_sum, 64,
	    "mov r15d, 12\n mov r8d, 1\n xor r9, r9\n"
	    "mov ecx, 0xc0000082\n mov eax, 0x12345678\n mov edx, 0xffffffff\n"
	    "wrmsr\n mov ecx, 0xc0000102\n mov eax, 0x77770000\n mov edx, 0\n"
	    "wrmsr\n mov rax, 0x4400\n mov dr0, rax\n"
	    "mov eax, 5\n mov cr8, rax\n"
	    "1: mov ecx, 40\n"
	    "2: mov rax, 6364136223846793005\n imul r8, rax\n"
	    "mov rax, 1442695040888963407\n add r8, rax\n"
	    "mov [rcx*8+0x30000], r8\n xor r9, [rcx*8+0x30000]\n"
	    "rol r9, 7\n loop 2b\n"
	    "mov dx, 0x500\n mov eax, r9d\n out dx, eax\n"
	    "mov ecx, 0xc0000082\n rdmsr\n add r9, rax\n add r9, rdx\n"
	    "mov rax, dr0\n add r9, rax\n mov rax, cr8\n add r9, rax\n"
	    "swapgs\n mov ecx, 0xc0000101\n rdmsr\n add r9, rax\n"
	    "dec r15d\n jnz 1b\n"
	    "mov [0x20000], r9\n mov al, 1\n" MICRO_END);

static void a_64_bit_guest_moves_between_engines(void **state)
{
	(void)state;
	check(MICRO_LONG, long_sum, long_sum_end, NULL, 12);
}

/* An interrupt that is sent with IF clear is pending over the move, one in
 * service ends after it. */
MICRO_GUEST(irq_sum, 64,
	    "jmp 5f\n .org irq_sum + 0x10\n"
	    "add dword ptr [0x20000], 3\n push rax\n push rdx\n"
	    "mov dx, 0x500\n mov eax, 2\n out dx, eax\n pop rdx\n pop rax\n"
	    "mov dword ptr [rbp+0xb0], 0\n iretq\n"
	    ".org irq_sum + 0x60\n 5: mov ebp, 0xfee00000\n mov r15d, 6\n"
	    "mov dword ptr [rbp+0xf0], 0x1ff\n"
	    "1: mov dword ptr [rbp+0x310], 0\n"
	    "mov dword ptr [rbp+0x300], 0x40049\n"
	    "mov dx, 0x500\n mov eax, 1\n out dx, eax\n"
	    "mov eax, [0x20000]\n add [0x20004], eax\n" /* none yet */
	    "sti\n 7: cmp [0x20000], r14d\n je 7b\n cli\n"
	    "mov r14d, [0x20000]\n"
	    "dec r15d\n jnz 1b\n mov al, 1\n" MICRO_END);

static void irq_gate(struct micro *m)
{
	micro_gate64(m, 0x49, MICRO_CODE + 0x10);
}

static void pending_and_active_interrupts_move_along(void **state)
{
	(void)state;
	check(MICRO_LONG, irq_sum, irq_sum_end, irq_gate, 12);
}

/* The APIC timer runs on at the other engine and wakes the guest there. */
MICRO_GUEST(timer_sum, 64,
	    "jmp 5f\n .org timer_sum + 0x10\n"
	    "inc dword ptr [0x20000]\n mov dword ptr [rbp+0xb0], 0\n iretq\n"
	    ".org timer_sum + 0x60\n 5: mov ebp, 0xfee00000\n mov r15d, 4\n"
	    "mov dword ptr [rbp+0xf0], 0x1ff\n"
	    "mov dword ptr [rbp+0x3e0], 0xb\n"
	    "mov dword ptr [rbp+0x320], 0x49\n"
	    "1: mov ebx, [0x20000]\n mov dword ptr [rbp+0x380], 30000000\n"
	    "mov dx, 0x500\n mov eax, 1\n out dx, eax\n"
	    "7: cli\n cmp [0x20000], ebx\n jne 8f\n sti\n hlt\n jmp 7b\n"
	    "8: dec r15d\n jnz 1b\n mov al, 1\n" MICRO_END);

static void a_running_timer_moves_along(void **state)
{
	(void)state;
	check(MICRO_LONG, timer_sum, timer_sum_end, irq_gate, 4);
}

/* The TSC never goes back and does not leap. */
MICRO_GUEST(tsc_sum, 64,
	    "mov r15d, 8\n rdtsc\n shl rdx, 32\n or rax, rdx\n mov r8, rax\n"
	    "1: mov dx, 0x500\n mov eax, 1\n out dx, eax\n"
	    "rdtsc\n shl rdx, 32\n or rax, rdx\n"
	    "cmp rax, r8\n jbe 9f\n"
	    "mov rbx, rax\n sub rbx, r8\n shr rbx, 36\n jnz 9f\n"
	    "mov r8, rax\n dec r15d\n jnz 1b\n"
	    "mov dword ptr [0x20000], 1\n"
	    "9: mov al, 1\n" MICRO_END);

MICRO_GUEST(reads_tsc, 64,
	    "rdtsc\n shl rdx, 32\n or rax, rdx\n mov [0x20000], rax\n"
	    "mov al, 1\n" MICRO_END);

/* A KVM that shows the host's own TSC cannot take over another's. A new VM's
 * TSC starts at zero. */
static void skip_without_tsc(void)
{
	struct micro *m = micro_new_kvm(1, false);
	u64 seen;

	micro_load(m, MICRO_LONG, reads_tsc, reads_tsc_end);
	micro_run_to_stop(m);
	seen = ld_le64(m->ram + MICRO_DATA);
	micro_free(m);
	if (!micro_is_real_kvm() && seen > BIT64(40))
		micro_skip("this host's KVM shows guests the host's TSC");
	assert_true(seen <= BIT64(40));
}

static void the_tsc_goes_on_over_a_move(void **state)
{
	(void)state;
	skip_without_tsc();
	check(MICRO_LONG, tsc_sum, tsc_sum_end, NULL, 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_real_mode_guest_moves_between_engines),
		cmocka_unit_test(a_32_bit_guest_moves_between_engines),
		cmocka_unit_test(a_64_bit_guest_moves_between_engines),
		cmocka_unit_test(pending_and_active_interrupts_move_along),
		cmocka_unit_test(a_running_timer_moves_along),
		cmocka_unit_test(the_tsc_goes_on_over_a_move),
	};

	return test_run("engine_move", tests);
}
