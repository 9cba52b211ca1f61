/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY. KVM_RUN returned 0: v->run says why. Accesses to ports and device
 * memory go to struct mem on this thread; a read's answer is left in the run
 * area, where the next KVM_RUN takes it. The run area is the kernel's word
 * about a guest's access; what indexes something is checked all the same.
 *
 * MSRs that KVM does not know come here, too. Those that kernels read without
 * asking whether they are there have the soft engine's values; the rest are
 * #GP.
 *
 * Source: Linux Documentation/virt/kvm/api.rst §5. */
#include "kvm/kvm_int.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "base/log.h"

/* ---- errors ---- */

/* The message, and where the guest was. Returns code. */
int kvm_report_error(struct vcpu *v, int code, struct err *err, const char *fmt,
		     ...)
{
	struct kvm_sregs s;
	struct kvm_regs r;
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (ioctl(v->fd, KVM_GET_REGS, &r) < 0 ||
	    ioctl(v->fd, KVM_GET_SREGS, &s) < 0)
		return err_set(err, code, "vCPU %u: %s", v->id, text);
	return err_set(err, code,
		       "vCPU %u: %s (rip=%04x:%016llx rflags=%08llx "
		       "cr0=%08llx cr3=%llx cr4=%llx efer=%llx)",
		       v->id, text, s.cs.selector, r.rip, r.rflags, s.cr0,
		       s.cr3, s.cr4, s.efer);
}

static const char *suberror_name(u32 suberror)
{
	switch (suberror) {
	case KVM_INTERNAL_ERROR_EMULATION:
		return "it cannot emulate an instruction";
	case KVM_INTERNAL_ERROR_SIMUL_EX:
		return "two exceptions at once";
	case KVM_INTERNAL_ERROR_DELIVERY_EV:
		return "an event could not be delivered";
	case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
		return "the CPU gave an unexpected exit";
	default:
		return "internal error";
	}
}

static enum kvm_next internal_error(struct vcpu *v, struct err *err)
{
	const struct kvm_run *r = v->run;
	char bytes[64] = "";
	u32 n = 0;

	if (r->internal.suberror == KVM_INTERNAL_ERROR_EMULATION &&
	    r->internal.ndata >= 4 &&
	    (r->emulation_failure.flags &
	     KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES))
		n = MIN(r->emulation_failure.insn_size, 15u);
	for (u32 i = 0; i < n; i++)
		snprintf(bytes + i * 3, sizeof(bytes) - i * 3, " %02x",
			 r->emulation_failure.insn_bytes[i]);
	kvm_report_error(v, -EIO, err, "KVM cannot go on: %s (suberror %u)%s%s",
			 suberror_name(r->internal.suberror),
			 r->internal.suberror, n ? ", instruction bytes" : "",
			 bytes);
	return KVM_NEXT_ERROR;
}

/* ---- ports ---- */

static u32 pio_load(const u8 *p, u32 size)
{
	return size == 1 ? p[0] : size == 2 ? ld_le16(p) : ld_le32(p);
}

static void pio_store(u8 *p, u32 size, u32 value)
{
	if (size == 1)
		p[0] = (u8)value;
	else if (size == 2)
		st_le16(p, (u16)value);
	else
		st_le32(p, value);
}

static enum kvm_next serve_pio(struct vcpu *v, struct err *err)
{
	u32 size = v->run->io.size, count = v->run->io.count;
	u64 at = v->run->io.data_offset;
	bool is_out = v->run->io.direction == KVM_EXIT_IO_OUT;
	u16 port = v->run->io.port;
	u8 *p;

	if ((size != 1 && size != 2 && size != 4) || at > v->vm->run_bytes ||
	    (u64)size * count > v->vm->run_bytes - at) {
		err_set(err, -EIO,
			"vCPU %u: KVM reports an impossible port "
			"access",
			v->id);
		return KVM_NEXT_ERROR;
	}
	p = (u8 *)v->run + at;
	for (u32 i = 0; i < count; i++, p += size) {
		if (is_out)
			mem_pio_write(v->vm->mem, port, size,
				      pio_load(p, size));
		else
			pio_store(p, size,
				  mem_pio_read(v->vm->mem, port, size));
	}
	return KVM_NEXT_RUN;
}

/* ---- device memory ---- */

static void mmio_part(struct vcpu *v, gpa_t gpa, u8 *bytes, u32 size,
		      bool is_write)
{
	u64 value = 0;

	if (is_write) {
		memcpy(&value, bytes, size);
		mem_mmio_write(v->vm->mem, gpa, size, value);
	} else {
		value = mem_mmio_read(v->vm->mem, gpa, size);
		memcpy(bytes, &value, size);
	}
}

/* KVM reports up to 8 bytes; odd lengths come from unaligned accesses. */
static enum kvm_next serve_mmio(struct vcpu *v, struct err *err)
{
	u32 len = v->run->mmio.len, size;
	bool is_write = v->run->mmio.is_write;
	gpa_t gpa = v->run->mmio.phys_addr;

	if (len > sizeof(v->run->mmio.data)) {
		err_set(err, -EIO,
			"vCPU %u: KVM reports an impossible MMIO "
			"access",
			v->id);
		return KVM_NEXT_ERROR;
	}
	for (u32 i = 0; i < len; i += size) {
		for (size = 8; size > len - i;)
			size /= 2;
		mmio_part(v, gpa + i, v->run->mmio.data + i, size, is_write);
	}
	return KVM_NEXT_RUN;
}

/* ---- MSRs ---- */

/* Read as zero, writes without effect. */
static const struct {
	u32 first, last;
} quiet_msrs[] = {
	{0x17, 0x17},		    /* PLATFORM_ID */
	{0xce, 0xce},		    /* PLATFORM_INFO */
	{0x1d9, 0x1d9},		    /* DEBUGCTL */
	{0xda0, 0xda0},		    /* XSS */
	{0xc0010000u, 0xc0010007u}, /* K7 performance counters */
	{0xc0010010u, 0xc0010010u}, /* SYSCFG */
	{0xc001001au, 0xc001001au}, /* TOP_MEM */
	{0xc001001du, 0xc001001du}, /* TOP_MEM2 */
	{0xc001001fu, 0xc001001fu}, /* NB_CFG */
	{0xc0010055u, 0xc0010055u}, /* INT_PENDING_MSG */
	{0xc0010058u, 0xc0010058u}, /* MMIO_CONF_BASE */
	{0xc0010061u, 0xc001006bu}, /* P-states */
	{0xc0010140u, 0xc0010141u}, /* OSVW */
	{0xc0011020u, 0xc0011023u}, /* LS_CFG … */
	{0xc001102au, 0xc001102au}, /* BU_CFG2 */
};

static bool is_quiet(u32 index)
{
	for (size_t i = 0; i < ARRAY_SIZE(quiet_msrs); i++)
		if (index >= quiet_msrs[i].first && index <= quiet_msrs[i].last)
			return true;
	return false;
}

static enum kvm_next serve_msr(struct vcpu *v, bool is_write)
{
	u32 index = v->run->msr.index;

	v->run->msr.error = !is_quiet(index);
	if (!is_write)
		v->run->msr.data = 0;
	if (v->run->msr.error)
		log_debug("vCPU %u: %s of MSR 0x%x: #GP", v->id,
			  is_write ? "write" : "read", index);
	return KVM_NEXT_RUN;
}

/* ---- all ---- */

static enum kvm_next serve_eoi(struct vcpu *v)
{
	kvm_irq_eoi(v, v->run->eoi.vector);
	return KVM_NEXT_RUN;
}

static enum kvm_next serve_system_event(struct vcpu *v, struct err *err)
{
	u32 type = v->run->system_event.type;

	kvm_report_error(v, -EIO, err, "KVM reports system event %u (%s)", type,
			 type == KVM_SYSTEM_EVENT_SHUTDOWN ? "shutdown"
			 : type == KVM_SYSTEM_EVENT_RESET  ? "reset"
			 : type == KVM_SYSTEM_EVENT_CRASH  ? "crash"
							   : "unknown");
	return KVM_NEXT_ERROR;
}

enum kvm_next kvm_exit_serve(struct vcpu *v, struct err *err)
{
	const struct kvm_run *r = v->run;
	u32 reason = r->exit_reason;

	if (reason < KVM_EXITS_MAX)
		atomic_fetch_add_explicit(&v->exits[reason], 1,
					  memory_order_relaxed);
	switch (reason) {
	case KVM_EXIT_IO:
		return serve_pio(v, err);
	case KVM_EXIT_MMIO:
		return serve_mmio(v, err);
	case KVM_EXIT_X86_RDMSR:
		return serve_msr(v, false);
	case KVM_EXIT_X86_WRMSR:
		return serve_msr(v, true);
	case KVM_EXIT_IOAPIC_EOI:
		return serve_eoi(v);
	case KVM_EXIT_DIRTY_RING_FULL:
		return kvm_dirty_ring_full(v, err) < 0 ? KVM_NEXT_ERROR
						       : KVM_NEXT_RUN;
	case KVM_EXIT_IRQ_WINDOW_OPEN: /* kvm_irq_before_run() sees to it */
	case KVM_EXIT_INTR:
	case KVM_EXIT_HLT:
		return KVM_NEXT_RUN;
	case KVM_EXIT_SHUTDOWN:
		return KVM_NEXT_SHUTDOWN;
	case KVM_EXIT_INTERNAL_ERROR:
		return internal_error(v, err);
	case KVM_EXIT_SYSTEM_EVENT:
		return serve_system_event(v, err);
	case KVM_EXIT_FAIL_ENTRY:
		kvm_report_error(v, -EIO, err,
				 "the CPU refuses to enter the guest, reason "
				 "0x%llx on host CPU %u",
				 r->fail_entry.hardware_entry_failure_reason,
				 r->fail_entry.cpu);
		return KVM_NEXT_ERROR;
	case KVM_EXIT_UNKNOWN:
		kvm_report_error(v, -EIO, err, "unknown hardware exit 0x%llx",
				 r->hw.hardware_exit_reason);
		return KVM_NEXT_ERROR;
	default:
		kvm_report_error(v, -EIO, err, "unexpected KVM exit %u",
				 reason);
		return KVM_NEXT_ERROR;
	}
}
