#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A debugger and a storm of signals in the guest: single steps, breakpoints
and watchpoints of a program (tests/guest/step.c) and of gdb give what they
give on the host; 10^5 signals lose no register (tests/guest/storm.c)."""
import os, subprocess

from guest import *
from bundle import Bundle, debian

suite = Suite()
SIGNALS = 100000
# Steps through the loop, in and out of a call, past int3 and hardware
# breakpoints, and over a changed register.
GDB = """set confirm off
set width 0
set pagination off
break *loop_head
run
delete
stepi 300
info registers rip rax rbx rcx r12 eflags
hbreak *loop_mid
continue
info registers rax rbx r12
ignore 2 20
continue
info registers rax rbx r12
delete
watch *(long *)&watched
continue
continue
info registers rip rax r12
delete
set $r12 = 2
tbreak *loop_end
continue
info registers rip rax rbx r12
kill
"""


def compiled(b, name, *flags):
    source = os.path.join(top, "tests/guest", name + ".c")
    out = os.path.join(tmp, name)
    subprocess.run(["gcc", "-O1", "-static", "-no-pie", *flags, "-o",
                    out, source], check=True)
    b.add(out)


def gdb_of_debian(b):
    """gdb without Python, which would need its library; a job, or a reason."""
    try:
        folder = debian("gdb-minimal")
    except Skip as e:
        print("SKIP: %s: gdb" % e)
        suite.skipped += 1
        return
    b.add(os.path.join(folder, "usr/bin/gdb"))
    b.add("/usr/bin/env")
    with open(os.path.join(b.root, "t/steps.gdb"), "w") as f:
        f.write(GDB)
    command = ("SHELL=/bin/sh ./gdb -nx -batch -x steps.gdb --args ./step "
               "loop 2>&1 | "
               "grep -v -e warning -e process")
    status, want = b.host(command, 60)
    assert want.count(b"r12") >= 5, want.decode()
    b.job("gdb", command, 120, want)


def debugger_and_signals(cpus):
    b = Bundle("debug%d" % cpus)
    compiled(b, "step")
    compiled(b, "storm", "-mno-red-zone")
    status, want = b.host("./step")
    same(status, 0, want)
    b.job("step", "./step", 120, want)
    b.job("storm", "./storm %d 50" % SIGNALS, 150, b"no state lost\n")
    if cpus == 1:
        gdb_of_debian(b)
    results = b.boot(cpus=cpus, timeout=400)
    b.check(suite, results)


for cpus in (1, 2):
    debugger_and_signals(cpus)
suite.end()
