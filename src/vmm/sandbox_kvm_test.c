/* SPDX-License-Identifier: Apache-2.0 */
/* The KVM engine needs nothing that the sandbox refuses: a micro-guest is run,
 * reset, saved, loaded, logged and interrupted by a process that has installed
 * the filter. */
#include "test/test.h"

#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "machine/microvm.h"
#include "vmm/sandbox.h"

#define ALL_WELL 42

MICRO_GUEST(guest, 32,
	    "mov dword ptr ds:[0x20000], 0x1234\n mov dx, 0x500\n"
	    "out dx, al\n mov eax, ds:[0xd0000000]\n mov al, 1\n" MICRO_END);

static int run_guest(struct micro *m)
{
	static const struct sandbox_options how = {.has_kvm = true};
	struct vcpu_state *vs = calloc(1, sizeof(*vs));
	static u64 bits[MICRO_RAM / PAGE_BYTES / 64];
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct mem_doorbell bell = {IO_PIO, 0x510, 1, false, 0, fd};
	const struct engine_ops *ops = m->ops;
	struct err err = {0};

	if (!vs || sandbox_install(&how, &err) < 0)
		return 1;
	if (mem_doorbell_add(m->mem, &bell) < 0)
		return 2;
	mem_doorbell_del(m->mem, &bell);
	if (ops->irqfd_add(m->vm, fd, 0xfee00000, 0x55, &err) < 0)
		return 3;
	ops->irqfd_del(m->vm, fd);
	if (ops->dirty_start(m->vm, &err) < 0)
		return 4;
	if (micro_run(m) != VCPU_EXIT_KICKED || !atomic_load(&m->is_done))
		return 5;
	if (ops->dirty_fetch(m->vm, 0, bits, MICRO_RAM / PAGE_BYTES, &err) < 0)
		return 6;
	ops->dirty_stop(m->vm);
	ops->set_extint(m->vm, true);
	ops->inject_nmi(m->v[0]);
	if (ops->msi(m->vm, 0xfee00000, 0xc055) < 0)
		return 7;
	if (ops->vcpu_get(m->v[0], vs, &err) < 0)
		return 8;
	vs->regs.rip = MICRO_CODE;
	if (ops->vcpu_set(m->v[0], vs, &err) < 0)
		return 9;
	if (micro_run(m) != VCPU_EXIT_KICKED)
		return 10;
	ops->vcpu_reset(m->v[0]);
	if (ops->vcpu_get(m->v[0], vs, &err) < 0 || vs->regs.rip != 0xfff0)
		return 11;
	micro_free(m);
	return ALL_WELL;
}

static void in_sandbox(bool no_dirty_ring)
{
	struct micro *m = micro_new_kvm(1, no_dirty_ring);
	int status;
	pid_t pid;

	/* The VM is this process's: the child must make its own. */
	micro_free(m);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		m = micro_new_kvm(1, no_dirty_ring);
		micro_load(m, MICRO_PROTECTED, guest, guest_end);
		_exit(run_guest(m));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_false(WIFSIGNALED(status));
	assert_int_equal(WEXITSTATUS(status), ALL_WELL);
}

static void the_kvm_engine_needs_nothing_that_is_refused(void **state)
{
	(void)state;
	in_sandbox(true);
	in_sandbox(false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_kvm_engine_needs_nothing_that_is_refused),
	};

	return test_run("sandbox_kvm", tests);
}
