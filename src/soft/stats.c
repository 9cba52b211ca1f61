/* SPDX-License-Identifier: Apache-2.0 */
/* The engine's counters. A row is all that a counter needs: where it is
 * counted, its group, its name and what it says to a person; `skerry info
 * --engine` prints the groups in the order of the table.
 *
 * A counter of one vCPU is written by its thread alone and read here without
 * a lock, so a sum may be a moment old.
 */
#include "soft/lower.h"

#define VCPU_IN(group, name, field, unit, help)                                \
	{                                                                      \
		{name, 0, group, help, ENGINE_STAT_##unit},                    \
			offsetof(struct vcpu, field)                           \
	}
#define VCPU(group, name, field, help) VCPU_IN(group, name, field, COUNT, help)

#define XLAT(group, name, field, unit, help)                                   \
	{                                                                      \
		{name, 0, group, help, ENGINE_STAT_##unit},                    \
			offsetof(struct xlat_stats, field), true               \
	}

static const struct {
	struct engine_stat stat;
	size_t offset; /* in struct vcpu, or: */
	bool is_xlat;  /* in struct xlat_stats; only with a translator */
} rows[] = {
	VCPU("guest", "instructions", instructions,
	     "instructions that the interpreter completed"),
	VCPU("guest", "exceptions", stats.exceptions,
	     "exceptions delivered to the guest"),
	VCPU("guest", "interrupts", stats.interrupts,
	     "interrupts and NMIs delivered to the guest"),
	VCPU("guest", "halts", stats.halts, "HLT instructions that slept"),
	VCPU("guest", "pauses", stats.pauses, "PAUSE instructions"),
	VCPU("guest", "yields", stats.yields,
	     "of them those at which the processor was given to others"),
	VCPU("guest", "cr3-writes", stats.cr3_writes,
	     "changes of the address space"),
	VCPU("slow paths", "tlb-misses", stats.tlb_misses,
	     "page walks: the address was not in the software TLB"),
	VCPU("slow paths", "mmio", stats.mmio,
	     "accesses to device memory and to the APIC's page"),
	VCPU("slow paths", "pio", stats.pio, "accesses to I/O ports"),
	VCPU("slow paths", "jump-misses", stats.jc_misses,
	     "jumps to addresses that the jump cache did not know"),
	VCPU("slow paths", "slot-misses", stats.slot_misses,
	     "accesses to another page than the same one's time before"),
	VCPU("exits", "exits-lookup", stats.xlat_exits[XLAT_EXIT_LOOKUP],
	     "generated code left: no code for the address yet"),
	VCPU("exits", "exits-interpreter", stats.xlat_exits[XLAT_EXIT_INTERP],
	     "generated code left: an instruction for the interpreter"),
	VCPU("exits", "exits-event", stats.xlat_exits[XLAT_EXIT_KICK],
	     "generated code left: an interrupt or a request is waiting"),
	VCPU("exits", "exits-fault", stats.xlat_exits[XLAT_EXIT_FAULT],
	     "generated code left: the host's processor trapped"),
	VCPU("interpreter", "icache-misses", stats.icache_misses,
	     "instructions decoded: not in the decoded cache, or changed"),
	VCPU("interpreter", "stub-misses", stats.stub_misses,
	     "native stubs generated"),
	VCPU("translator", "lockstep-checks", stats.lockstep_checks,
	     "blocks whose effects were compared with the interpreter's"),
	VCPU("translator", "lockstep-skips", stats.lockstep_skips,
	     "of them those that could not be compared to their end"),
	VCPU("translator", "translations", stats.translations,
	     "times that guest code was translated"),
	VCPU_IN("translator", "translation-time", stats.translate_tsc, NS,
		"time that it took"),
	VCPU("translator", "refusals", stats.refusals,
	     "instructions left to the interpreter while translating"),
	XLAT("translator", "blocks", blocks, COUNT, "translated blocks"),
	XLAT("translator", "dead-blocks", dead_blocks, COUNT,
	     "blocks of them that nothing enters any more"),
	XLAT("translator", "code-bytes", code_bytes, BYTES,
	     "code memory in use"),
	XLAT("translator", "translated-bytes", guest_bytes, BYTES,
	     "guest code that the blocks stand for"),
	XLAT("translator", "translated-instructions", guest_insns, COUNT,
	     "guest instructions in the blocks"),
	XLAT("translator", "links", links, COUNT,
	     "direct jumps from block to block"),
	XLAT("translator", "cache-flushes", flushes, COUNT,
	     "times that all blocks were dropped"),
	XLAT("translator", "invalidations", invalidated, COUNT,
	     "blocks dropped because their code was written"),
	XLAT("translator", "promotions", promotions, COUNT,
	     "blocks made again because they run often"),
	XLAT("translator", "demotions", demotions, COUNT,
	     "memory accesses of theirs that change pages too often"),
	XLAT("translator", "revokes", revokes, COUNT,
	     "write permissions asked back from vCPUs"),
	XLAT("translator", "verify-failures", verify_failures, COUNT,
	     "blocks whose code had changed unseen"),
};

/* Times are counted in ticks of the host's TSC. */
static u64 vcpu_sum(struct engine_vm *vm, size_t offset, bool is_time)
{
	u64 sum = 0;

	for (u32 i = 0; i < VCPUS_MAX; i++)
		if (vm->vcpus[i])
			sum += *(const u64 *)((const u8 *)vm->vcpus[i] +
					      offset);
	return is_time ? soft_muldiv(sum, 1000000, vm->tsc_khz) : sum;
}

size_t soft_stats(struct engine_vm *vm, struct engine_stat *out, size_t n)
{
	struct xlat_stats xs;
	size_t count = 0;

	if (vm->xlat)
		xlat_get_stats(vm->xlat, &xs);
	for (size_t i = 0; i < ARRAY_SIZE(rows) && count < n; i++) {
		if (rows[i].is_xlat && !vm->xlat)
			continue;
		out[count] = rows[i].stat;
		out[count++].value =
			rows[i].is_xlat
				? *(const u64 *)((const u8 *)&xs +
						 rows[i].offset)
				: vcpu_sum(vm, rows[i].offset,
					   rows[i].stat.unit == ENGINE_STAT_NS);
	}
	return count;
}
