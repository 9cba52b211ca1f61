#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Linux's tools/testing/selftests/x86, built from Debian's linux-source
package, 64- and 32-bit, in a guest: each program ends with status 0."""
import os, subprocess

from guest import *
from bundle import Bundle, debian

PACKAGE = "linux-source-6.1"
# syscall_numbering_64 stops for its tracer some 10,000 times.
SECONDS = 150
suite = Suite()


def has_cpu_flag(flag):
    with open("/proc/cpuinfo") as f:
        return flag in f.read().split()


def build():
    folder = debian(PACKAGE)
    # Not all of the kernel: a tenth of the time.
    subprocess.run(["tar", "xJf", "usr/src/%s.tar.xz" % PACKAGE, "--wildcards",
                    "*/tools/testing/selftests", "*/tools/include",
                    "*/tools/arch/x86", "*/arch/x86/include",
                    "*/scripts"], cwd=folder, check=True)
    out = os.path.join(tmp, "x86")
    os.makedirs(out)
    r = subprocess.run(["make", "-k", "-j2", "CC=gcc", "OUTPUT=" + out, "all"],
                       cwd=os.path.join(folder, PACKAGE,
                                        "tools/testing/selftests/x86"),
                       capture_output=True, text=True)
    same(r.returncode, 0, r.stderr)
    programs = sorted(os.listdir(out))
    assert len(programs) >= 41, "%d programs\n%s" % (len(programs),
                                                     r.stderr[-2000:])
    return out, programs


def linux_selftests():
    out, programs = build()
    b = Bundle("selftests")
    for p in programs:
        b.add(os.path.join(out, p))
        b.job(p, "./" + p, seconds=SECONDS)
    skip = {}
    if not has_cpu_flag("amx_tile"):
        skip["amx_64"] = "the host's CPU has no AMX, the program needs it"
    b.check(suite, b.boot(cpus=1, timeout=420), skip)
    b = Bundle("selftests-smp")
    for p in programs:
        b.add(os.path.join(out, p))
        b.job(p, "./" + p, seconds=SECONDS)
    b.check(suite, b.boot(cpus=2, timeout=420), skip)


suite.check(linux_selftests)
suite.end()
