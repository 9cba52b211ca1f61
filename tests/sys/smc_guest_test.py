#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Code that Linux changes while it runs: text_poke by ftrace, kprobes,
tracepoints and static keys, switched on and off under load on 1, 2 and 4
vCPUs. The kernel must not complain, and each probe must have been hit."""
from guest import *
from bundle import Bundle

# Of switching, for each number of vCPUs. A round takes half a second on one,
# many on four that share two cores: RCU waits for each of them.
SECONDS = 40

LOAD = """
for i in $(seq $(nproc)); do
	( while :; do
		ls -l /proc /bin
		dd if=/dev/zero of=/tmp/f$i bs=4k count=64
		cat /tmp/f$i | sha256sum
	done >/dev/null 2>&1 ) &
done
"""
# Prints what did not work; a last line with the number of rounds.
SWITCH = """
cd /sys/kernel/tracing || exit 1
end=$(( $(date +%%s) + %d ))
rounds=0
put() { echo "$1" >$2 || { echo "cannot write $1 to $2"; exit 1; } }
echo 'p:kp do_sys_openat2' >kprobe_events || exit 1
echo 'r:kr vfs_read' >>kprobe_events || exit 1
put 4096 buffer_size_kb
while [ $(date +%%s) -lt $end ]; do
	# ftrace: all functions of a kind, then off
	put 'vfs_*' set_ftrace_filter
	put function current_tracer
	ls / >/dev/null
	grep -q vfs_ trace || { echo "no function traced"; exit 1; }
	put nop current_tracer
	put '' set_ftrace_filter
	# kprobes: int3 in, then an optimised jump, then out
	put 1 events/kprobes/enable
	ls / >/dev/null
	grep -q 'kp:' trace || { echo "no kprobe hit"; exit 1; }
	put 0 events/kprobes/enable
	# static keys: the scheduler's statistics, tracepoints
	put 1 /proc/sys/kernel/sched_schedstats
	put 1 events/sched/enable
	put 1 events/syscalls/enable
	sleep 0.1
	put 0 events/syscalls/enable
	put 0 events/sched/enable
	put 0 /proc/sys/kernel/sched_schedstats
	put '' trace
	rounds=$((rounds + 1))
done
# once with every function, which rewrites some 40,000 places
put function current_tracer
ls / >/dev/null
put nop current_tracer
echo >kprobe_events || exit 1
cat kprobe_profile
echo rounds $rounds
[ $rounds -ge 1 ]
"""

suite = Suite()


def text_of_the_kernel_changes_under_load(cpus):
    b = Bundle("smc%d" % cpus)
    b.job("switch", LOAD + "(" + SWITCH % SECONDS + ")\nstatus=$?\n"
          "kill $(jobs -p) 2>/dev/null\nexit $status", seconds=150)
    results = b.boot(cpus=cpus, timeout=280)
    for r in results:
        print("   ", r.name, r.status, r.text.splitlines()[-1:])
    found = {r.name: r for r in results}
    assert "switch" in found, b.console[-3000:]
    same(found["switch"].status, 0, found["switch"].text)
    same(found["dmesg"].text, "")


def one_vcpu():
    text_of_the_kernel_changes_under_load(1)


def two_vcpus():
    text_of_the_kernel_changes_under_load(2)


def four_vcpus():
    text_of_the_kernel_changes_under_load(4)


for test in (one_vcpu, two_vcpus, four_vcpus):
    suite.check(test)
suite.end()
