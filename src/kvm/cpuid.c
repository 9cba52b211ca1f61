/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY. The table is a named model's (x86/cpuid.h). Feature words are masked
 * to what KVM says it can do; everything else (identity, caches, topology,
 * sizes) stays, so that the same model shows the same CPU under each engine.
 * What depends on the vCPU is filled in for each: the APIC id. What depends on
 * its state (OSXSAVE, leaf D's sizes) KVM keeps up by itself. */
#include "kvm/kvm_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "x86/cpuid.h"

#define ENTRIES_MAX 512u

enum { EAX, EBX, ECX, EDX };

/* Words of feature bits; `ours` does not need KVM's word for it. */
static const struct feature_word {
	u32 leaf, subleaf, reg, ours;
} words[] = {
	/* X2APIC, the TSC deadline timer, HYPERVISOR: the local APIC is
	 * KVM's, which has all three. HTT is topology. */
	{1, 0, ECX, BIT32(21) | BIT32(24) | BIT32(31)},
	{1, 0, EDX, BIT32(28)},
	{6, 0, EAX, 0},
	{7, 0, EBX, 0},
	{7, 0, ECX, 0},
	/* ARCH_CAPABILITIES is KVM's to emulate, as are all. */
	{7, 0, EDX, 0},
	{7, 1, EAX, 0},
	{0xd, 0, EAX, 0},
	{0xd, 1, EAX, 0},
	{0x40000001, 0, EAX, 0},
	{0x80000001u, 0, ECX, BIT32(1)}, /* CMP_LEGACY: topology */
	{0x80000001u, 0, EDX, 0},
	{0x80000007u, 0, EDX, BIT32(8)}, /* checked apart */
	{0x80000008u, 0, EBX, 0},
	{0x80000021u, 0, EAX, 0},
};

static struct kvm_cpuid2 *table_new(u32 n)
{
	struct kvm_cpuid2 *t =
		calloc(1, sizeof(*t) + n * sizeof(t->entries[0]));

	if (t)
		t->nent = n;
	return t;
}

static u32 offered_word(const struct kvm_cpuid2 *offered,
			const struct feature_word *w)
{
	const struct kvm_cpuid_entry2 *e =
		x86_cpuid_find(offered, w->leaf, w->subleaf);

	return (e ? (&e->eax)[w->reg] : 0) | w->ours;
}

/* A leaf that says more than KVM can: no AVX state without AVX. */
static void fix_xsave(struct kvm_cpuid2 *t)
{
	const struct kvm_cpuid_entry2 *one = x86_cpuid_find(t, 1, 0);
	bool has_xsave = one && (one->ecx & BIT32(26));

	for (u32 i = 0; i < t->nent; i++) {
		struct kvm_cpuid_entry2 *e = &t->entries[i];
		bool has_avx;

		if (e->function != 0xd)
			continue;
		if (!has_xsave) {
			e->eax = e->ebx = e->ecx = e->edx = 0;
			continue;
		}
		has_avx = offered_word(t,
				       &(struct feature_word){0xd, 0, EAX, 0}) &
			  BIT32(2);
		if (e->index == 0)
			e->ecx = has_avx ? 832 : 576;
		else if (e->index == 2 && !has_avx)
			e->eax = e->ebx = 0;
	}
}

static void mask_entry(struct kvm_cpuid_entry2 *e,
		       const struct kvm_cpuid2 *offered)
{
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		const struct feature_word *w = &words[i];
		u32 *reg, lost;

		if (w->leaf != e->function || w->subleaf != e->index)
			continue;
		reg = &e->eax + w->reg;
		lost = *reg & ~offered_word(offered, w);
		if (lost)
			log_info("KVM lacks CPUID %x.%x %s bits %08x", w->leaf,
				 w->subleaf,
				 (const char *[]){"EAX", "EBX", "ECX",
						  "EDX"}[w->reg],
				 lost);
		*reg &= ~lost;
	}
}

int kvm_cpuid_mask(int kvm_fd, const struct kvm_cpuid2 *want,
		   struct kvm_cpuid2 **out, struct err *err)
{
	struct kvm_cpuid2 *offered, *t;
	int rc;

	if (!want || want->nent > ENTRIES_MAX)
		return err_set(err, -EINVAL, "no CPUID table");
	offered = table_new(ENTRIES_MAX);
	t = table_new(want->nent);
	if (!offered || !t) {
		free(offered);
		free(t);
		return err_set(err, -ENOMEM, "out of memory");
	}
	memcpy(t->entries, want->entries, want->nent * sizeof(t->entries[0]));
	rc = KVM_IOCTL(kvm_fd, KVM_GET_SUPPORTED_CPUID, offered, err);
	if (rc < 0) {
		free(offered);
		free(t);
		return rc;
	}
	for (u32 i = 0; i < t->nent; i++)
		mask_entry(&t->entries[i], offered);
	fix_xsave(t);
	free(offered);
	*out = t;
	return 0;
}

int kvm_vcpu_set_cpuid(struct vcpu *v, struct err *err)
{
	const struct kvm_cpuid2 *from = v->vm->cpuid;
	struct kvm_cpuid2 *t = table_new(from->nent);
	int rc;

	if (!t)
		return err_set(err, -ENOMEM, "out of memory");
	memcpy(t->entries, from->entries, t->nent * sizeof(t->entries[0]));
	for (u32 i = 0; i < t->nent; i++) {
		struct kvm_cpuid_entry2 *e = &t->entries[i];

		if (e->function == 1)
			e->ebx = (e->ebx & 0xffffff) | v->id << 24;
		if (e->function == 0xb)
			e->edx = v->id;
		if (e->function == 0x8000001eu) {
			e->eax = v->id;
			e->ebx = (e->ebx & ~0xffu) | (v->id & 0xff);
		}
	}
	rc = KVM_IOCTL(v->fd, KVM_SET_CPUID2, t, err);
	free(t);
	return MIN(rc, 0);
}

int kvm_cpuid_offer(const struct kvm_cpuid2 *want, struct kvm_cpuid2 **out,
		    struct err *err)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int rc;

	if (fd < 0)
		return err_sys(err, -errno, "open /dev/kvm");
	rc = kvm_cpuid_mask(fd, want, out, err);
	close(fd);
	return rc;
}
