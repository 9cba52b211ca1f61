/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * Which pages were written since the last look. KVM knows the guest's writes;
 * ours (devices, loaders) come through mem's listener, into a bitmap for each
 * slot. A fetch adds both and forgets them.
 *
 * KVM tells in one of two ways. Where it has dirty rings, each vCPU has one,
 * shared with us: an entry names a slot and a page; we mark it as collected,
 * and KVM_RESET_DIRTY_RINGS makes KVM watch these pages again. A full ring
 * ends KVM_RUN, and that vCPU's thread empties it into the bitmaps. Otherwise
 * KVM_GET_DIRTY_LOG gives a bitmap, a slot at a time. Rings must be asked for
 * before the first vCPU is made, and then the bitmaps are not to be had.
 *
 * KVM must stop before a ring's last places are in use. One that does not has
 * written over its own entries; then the log fails for good, rather than miss
 * a page.
 *
 * Memory: one bit a page, while logging is on; 64 KiB of ring for each vCPU.
 *
 * Source: Linux Documentation/virt/kvm/api.rst §4.8, §8.29. */
#include "kvm/kvm_int.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define RING_ENTRIES 4096u
#define RESET_TRIES  64
#define WORDS(pages) (((pages) + 63) / 64)

/* ---- rings ---- */

static size_t ring_bytes(const struct engine_vm *vm)
{
	return vm->ring_entries * sizeof(struct kvm_dirty_gfn);
}

int kvm_dirty_init(struct engine_vm *vm, struct err *err)
{
	int cap = KVM_CAP_DIRTY_LOG_RING_ACQ_REL, max = kvm_check(vm, cap);
	u64 bytes;
	int rc;

	if (!max) {
		cap = KVM_CAP_DIRTY_LOG_RING;
		max = kvm_check(vm, cap);
	}
	bytes = MIN((u64)max, RING_ENTRIES * sizeof(struct kvm_dirty_gfn));
	if (bytes < PAGE_BYTES || vm->cfg.no_dirty_ring)
		return 0;
	rc = kvm_enable(vm, cap, bytes, "KVM_CAP_DIRTY_LOG_RING", err);
	if (rc == 0)
		vm->ring_entries = (u32)(bytes / sizeof(struct kvm_dirty_gfn));
	return rc;
}

int kvm_dirty_vcpu_init(struct vcpu *v, struct err *err)
{
	void *p;

	if (!v->vm->ring_entries)
		return 0;
	p = mmap(NULL, ring_bytes(v->vm), PROT_READ | PROT_WRITE, MAP_SHARED,
		 v->fd, (off_t)(KVM_DIRTY_LOG_PAGE_OFFSET * PAGE_BYTES));
	if (p == MAP_FAILED)
		return err_sys(err, -errno, "map vCPU %u's dirty ring", v->id);
	v->ring = p;
	return 0;
}

void kvm_dirty_vcpu_fini(struct vcpu *v)
{
	if (v->ring)
		munmap(v->ring, ring_bytes(v->vm));
	v->ring = NULL;
}

/* ---- bitmaps ---- */

static struct kvm_dirty_slot *find_slot(struct engine_vm *vm, u32 id)
{
	for (size_t i = 0; i < vm->dirty_count; i++)
		if (vm->dirty[i].id == id)
			return &vm->dirty[i];
	return NULL;
}

static void set_page(struct kvm_dirty_slot *s, u64 page)
{
	if (page < s->pages)
		s->bits[page / 64] |= BIT64(page % 64);
}

/* Returns how many entries were taken. */
static u32 collect_ring_locked(struct vcpu *v)
{
	struct engine_vm *vm = v->vm;
	u32 taken = 0;

	while (taken < vm->ring_entries) {
		struct kvm_dirty_gfn *e =
			&v->ring[v->ring_next % vm->ring_entries];
		struct kvm_dirty_slot *s;

		/* Pairs with the kernel's release of the entry. */
		if (!(__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) &
		      KVM_DIRTY_GFN_F_DIRTY))
			break;
		s = find_slot(vm, e->slot & 0xffff);
		if (s)
			set_page(s, e->offset);
		__atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET,
				 __ATOMIC_RELEASE);
		v->ring_next++;
		taken++;
	}
	return taken;
}

static int collect_rings_locked(struct engine_vm *vm, struct err *err)
{
	for (u32 i = 0; i < VCPUS_MAX; i++) {
		u32 n = vm->vcpus[i] ? collect_ring_locked(vm->vcpus[i]) : 0;

		vm->ring_taken += n;
		if (n == vm->ring_entries)
			vm->is_ring_overrun = true;
	}
	if (vm->is_ring_overrun)
		return err_set(err, -EOVERFLOW,
			       "KVM overran a dirty ring: what was written is "
			       "not known");
	/* A signal makes it return early: what is left is for the next one,
	 * of this loop or of the next call. */
	for (int i = 0; vm->ring_taken && i < RESET_TRIES; i++) {
		int rc = KVM_IOCTL(vm->vm_fd, KVM_RESET_DIRTY_RINGS, NULL, err);

		if (rc < 0)
			return rc;
		vm->ring_taken -= MIN((u32)rc, vm->ring_taken);
	}
	return 0;
}

int kvm_dirty_ring_full(struct vcpu *v, struct err *err)
{
	int rc;

	pthread_mutex_lock(&v->vm->dirty_lock);
	rc = collect_rings_locked(v->vm, err);
	pthread_mutex_unlock(&v->vm->dirty_lock);
	return rc;
}

static int collect_log_locked(struct engine_vm *vm, struct kvm_dirty_slot *s,
			      struct err *err)
{
	u64 *bits = calloc(WORDS(s->pages), sizeof(*bits));
	struct kvm_dirty_log log = {.slot = s->id, .dirty_bitmap = bits};
	int rc;

	if (!bits)
		return err_set(err, -ENOMEM, "out of memory");
	rc = KVM_IOCTL(vm->vm_fd, KVM_GET_DIRTY_LOG, &log, err);
	for (u64 i = 0; rc >= 0 && i < WORDS(s->pages); i++)
		s->bits[i] |= bits[i];
	free(bits);
	return MIN(rc, 0);
}

void kvm_dirty_written(struct engine_vm *vm, gpa_t gpa, u64 len)
{
	if (!atomic_load(&vm->is_dirty_on) || !len)
		return;
	pthread_mutex_lock(&vm->dirty_lock);
	for (size_t i = 0; i < vm->dirty_count; i++) {
		struct kvm_dirty_slot *s = &vm->dirty[i];
		u64 end = s->gpa + s->pages * PAGE_BYTES;
		gpa_t from = MAX(gpa, s->gpa), to = MIN(gpa + len, end);

		for (gpa_t at = from & ~(PAGE_BYTES - 1); at < to;
		     at += PAGE_BYTES)
			set_page(s, (at - s->gpa) / PAGE_BYTES);
	}
	pthread_mutex_unlock(&vm->dirty_lock);
}

/* ---- slots ---- */

int kvm_dirty_slot_add(struct engine_vm *vm, const struct mem_slot *slot,
		       struct err *err)
{
	struct kvm_dirty_slot s = {
		.id = slot->id,
		.gpa = slot->gpa,
		.pages = slot->size / PAGE_BYTES,
	};

	s.bits = calloc(WORDS(s.pages), sizeof(*s.bits));
	if (!s.bits)
		return err_set(err, -ENOMEM, "out of memory");
	pthread_mutex_lock(&vm->dirty_lock);
	vm->dirty[vm->dirty_count++] = s;
	pthread_mutex_unlock(&vm->dirty_lock);
	return 0;
}

void kvm_dirty_slot_del(struct engine_vm *vm, u32 id)
{
	struct kvm_dirty_slot *s;

	pthread_mutex_lock(&vm->dirty_lock);
	s = find_slot(vm, id);
	if (s) {
		free(s->bits);
		*s = vm->dirty[--vm->dirty_count];
	}
	pthread_mutex_unlock(&vm->dirty_lock);
}

/* ---- the seam ---- */

void kvm_dirty_stop(struct engine_vm *vm)
{
	const struct mem_slot *slots;
	struct err err = {0};
	size_t n;

	if (!atomic_exchange(&vm->is_dirty_on, false))
		return;
	slots = mem_slots(vm->mem, &n);
	for (size_t i = 0; i < n; i++)
		if (kvm_slot_set(vm, &slots[i], true, &err) < 0)
			kvm_vm_break(vm, &err);
	pthread_mutex_lock(&vm->dirty_lock);
	/* What is left in the rings is of no interest. */
	(void)collect_rings_locked(vm, NULL);
	for (size_t i = 0; i < vm->dirty_count; i++)
		free(vm->dirty[i].bits);
	vm->dirty_count = 0;
	pthread_mutex_unlock(&vm->dirty_lock);
}

int kvm_dirty_start(struct engine_vm *vm, struct err *err)
{
	const struct mem_slot *slots;
	size_t n;
	int rc = 0;

	if (atomic_exchange(&vm->is_dirty_on, true))
		return err_set(err, -EALREADY, "the dirty log is on already");
	slots = mem_slots(vm->mem, &n);
	for (size_t i = 0; rc == 0 && i < n; i++)
		rc = kvm_dirty_slot_add(vm, &slots[i], err);
	for (size_t i = 0; rc == 0 && i < n; i++)
		rc = kvm_slot_set(vm, &slots[i], true, err);
	if (rc < 0)
		kvm_dirty_stop(vm);
	return rc;
}

int kvm_dirty_fetch(struct engine_vm *vm, u32 slot_id, u64 *bitmap, u64 pages,
		    struct err *err)
{
	struct kvm_dirty_slot *s;
	int rc = 0;

	pthread_mutex_lock(&vm->dirty_lock);
	s = find_slot(vm, slot_id);
	if (!s || s->pages != pages)
		rc = err_set(err, -EINVAL,
			     "no dirty log of slot %u, %llu pages", slot_id,
			     (unsigned long long)pages);
	else if (vm->ring_entries)
		rc = collect_rings_locked(vm, err);
	else
		rc = collect_log_locked(vm, s, err);
	for (u64 i = 0; rc == 0 && i < WORDS(pages); i++) {
		bitmap[i] |= s->bits[i];
		s->bits[i] = 0;
	}
	pthread_mutex_unlock(&vm->dirty_lock);
	return rc;
}
