/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * Kicks. Whoever wants something of a vCPU sets a bit in `requests`, then
 * run->immediate_exit, then signals its thread. The thread clears
 * immediate_exit first and looks at `requests` afterwards, so one of the two
 * sees the other; a KVM_RUN that is entered with immediate_exit set completes
 * a port or MMIO access that is under way and returns -EINTR. The signal's
 * handler does nothing: it only ends a KVM_RUN that has begun.
 *
 * Therefore vcpu_run() returns VCPU_EXIT_KICKED only after an -EINTR: no
 * access is half done then, and the state may be taken.
 */
#include "kvm/kvm_int.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/assert.h"
#include "kvm/vcpu.h"

#define KICK_SIGNAL (SIGRTMAX - 2)

/* ---- kicks ---- */

static void on_kick(int sig)
{
	(void)sig; /* only to interrupt KVM_RUN */
}

int kvm_kick_init(struct err *err)
{
	struct sigaction sa = {.sa_handler = on_kick, .sa_flags = SA_RESTART};

	if (sigaction(KICK_SIGNAL, &sa, NULL) < 0)
		return err_sys(err, -errno, "handle the kick signal");
	return 0;
}

void kvm_vcpu_request(struct vcpu *v, u32 bits)
{
	volatile u8 *now = &v->run->immediate_exit;
	int tid;

	atomic_fetch_or(&v->requests, bits);
	*now = 1;
	/* Pairs with the store of tid before the look at requests. */
	atomic_thread_fence(memory_order_seq_cst);
	tid = atomic_load(&v->tid);
	if (tid)
		syscall(SYS_tgkill, getpid(), tid, KICK_SIGNAL);
}

void kvm_vcpu_kick(struct vcpu *v)
{
	kvm_vcpu_request(v, KVM_REQ_KICK);
}

void kvm_vcpu_attach(struct vcpu *v)
{
	sigset_t set;

	(void)v;
	sigemptyset(&set);
	sigaddset(&set, KICK_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* ---- running ---- */

/* The requests of now; immediate_exit is set iff they include a kick. */
static u32 take_requests(struct vcpu *v)
{
	volatile u8 *now = &v->run->immediate_exit;
	u32 got;

	*now = 0;
	atomic_thread_fence(memory_order_seq_cst);
	got = atomic_fetch_and(&v->requests, KVM_REQ_KICK);
	if (got & KVM_REQ_KICK)
		*now = 1;
	return got;
}

static int fail_broken(struct vcpu *v, struct err *err)
{
	struct engine_vm *vm = v->vm;

	pthread_mutex_lock(&vm->lock);
	if (err)
		*err = vm->broken;
	pthread_mutex_unlock(&vm->lock);
	return -EIO;
}

/* -EINTR: nothing is under way. */
static int run_once(struct vcpu *v, struct err *err)
{
	u32 requests = take_requests(v);
	int rc;

	if (unlikely(atomic_load(&v->vm->is_broken)))
		return fail_broken(v, err);
	rc = kvm_irq_before_run(v, requests, err);
	if (rc < 0)
		return rc;
	if (ioctl(v->fd, KVM_RUN, 0) == 0) {
		v->extint_vector = -1; /* it has run */
		return 0;
	}
	/* -EAGAIN: it waited for INIT or SIPI, and got it. */
	if (errno == EINTR || errno == EAGAIN) {
		atomic_fetch_add_explicit(&v->exits[KVM_EXIT_INTR], 1,
					  memory_order_relaxed);
		return -EINTR;
	}
	return kvm_report_error(v, -errno, err, "KVM_RUN: %s", strerror(errno));
}

static enum vcpu_exit run_loop(struct vcpu *v, struct err *err)
{
	for (;;) {
		int rc = run_once(v, err);
		enum kvm_next next = KVM_NEXT_RUN;

		if (rc == 0)
			next = kvm_exit_serve(v, err);
		else if (rc != -EINTR)
			next = KVM_NEXT_ERROR;
		else if (atomic_fetch_and(&v->requests, ~KVM_REQ_KICK) &
			 KVM_REQ_KICK) {
			kvm_irq_settle_eois(v);
			return VCPU_EXIT_KICKED;
		}
		if (next == KVM_NEXT_SHUTDOWN)
			return VCPU_EXIT_SHUTDOWN;
		if (next == KVM_NEXT_ERROR)
			return VCPU_EXIT_ERROR;
	}
}

enum vcpu_exit kvm_vcpu_run(struct vcpu *v, struct err *err)
{
	enum vcpu_exit why;

	kvm_vcpu_attach(v);
	atomic_store(&v->tid, (int)syscall(SYS_gettid));
	why = run_loop(v, err);
	atomic_store(&v->tid, 0);
	return why;
}

/* ---- life ---- */

void kvm_vcpu_destroy(struct vcpu *v)
{
	if (!v)
		return;
	if (v->vm->vcpus[v->id] == v)
		v->vm->vcpus[v->id] = NULL;
	kvm_dirty_vcpu_fini(v);
	if (v->run)
		munmap(v->run, v->vm->run_bytes);
	if (v->fd >= 0)
		close(v->fd);
	free(v);
}

static int map_run(struct vcpu *v, struct err *err)
{
	void *p = mmap(NULL, v->vm->run_bytes, PROT_READ | PROT_WRITE,
		       MAP_SHARED, v->fd, 0);

	if (p == MAP_FAILED)
		return err_sys(err, -errno, "map vCPU %u's run area", v->id);
	v->run = p;
	return 0;
}

int kvm_vcpu_create(struct engine_vm *vm, u32 id, struct vcpu **out_vcpu,
		    struct err *err)
{
	struct vcpu *v;
	int rc;

	if (id >= vm->cfg.vcpu_count || vm->vcpus[id])
		return err_set(err, -EINVAL, "vCPU id %u is not free", id);
	v = calloc(1, sizeof(*v));
	if (!v)
		return err_set(err, -ENOMEM, "out of memory");
	v->vm = vm;
	v->id = id;
	v->extint_vector = -1;
	v->fd = rc = KVM_IOCTL(vm->vm_fd, KVM_CREATE_VCPU, (uintptr_t)id, err);
	if (rc >= 0)
		rc = map_run(v, err);
	if (rc == 0)
		rc = kvm_dirty_vcpu_init(v, err);
	if (rc == 0)
		rc = kvm_vcpu_set_cpuid(v, err);
	if (rc == 0)
		rc = kvm_vcpu_power_on(v, err);
	if (rc < 0) {
		kvm_vcpu_destroy(v);
		return rc;
	}
	vm->vcpus[id] = v;
	*out_vcpu = v;
	return 0;
}

void kvm_vcpu_reset(struct vcpu *v)
{
	struct err err = {0};

	/* A kick is the machine's, not the guest's. */
	atomic_fetch_and(&v->requests, KVM_REQ_KICK);
	v->extint_vector = -1;
	if (kvm_vcpu_power_on(v, &err) < 0)
		kvm_vm_break(v->vm, &err);
}
