#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Instruction tests of others, from Debian's source packages, in the guest:
qemu's tests/tcg and valgrind's none/tests. What a program prints natively, on
this host, is what it has to print in the guest. docs/instruction-tests.md
lists the programs and those that are left out."""
import glob, os, subprocess, sys

from guest import *
from bundle import Bundle, debian_source

suite = Suite()
BASE = ["gcc", "-w", "-g", "-O", "-static", "-no-pie", "-pthread"]

# What a program prints of the CPU's model or of the kernel's features is not
# the same in a guest: name -> why.
LEFT_OUT = {
    "qemu-32-test-3dnow": "no CPU of today has 3DNow!",
    "qemu-64-test-3dnow": "no CPU of today has 3DNow!",
    "qemu-32-testthread": "two threads print in any order",
    "qemu-64-testthread": "two threads print in any order",
    "qemu-64-vsyscall": "prints the time",
    "valgrind-amd64-lzcnt64": "prints OF after LZCNT, which is undefined",
    "valgrind-x86-lzcnt32": "prints OF after LZCNT, which is undefined",
    "valgrind-amd64-rdseed": "RDSEED is not offered, nor by the host's CPUID",
    "valgrind-x86-cpuid_c": "prints the CPU's name",
}


class Programs:
    """Compiles, runs on the host, and makes jobs of what can be compared."""

    def __init__(self, name):
        self.b = Bundle(name)
        self.left_out = []

    def build(self, name, sources, *flags, cwd):
        out = os.path.join(tmp, name)
        r = subprocess.run([*BASE, *flags, "-o", out, *sources, "-lm"],
                           cwd=cwd, capture_output=True, text=True)
        if r.returncode:
            why = [l for l in r.stderr.splitlines() if "rror" in l][:1]
            self.left_out.append((name, "does not compile: %s" % why))
            return
        self.b.copy(out, "/t/" + name)
        os.unlink(out)
        self.try_on_host(name)

    def try_on_host(self, name):
        """Two runs on the host must agree, or there is nothing to expect."""
        command = "./%s; echo status $?" % name
        if name in LEFT_OUT:
            self.left_out.append((name, LEFT_OUT[name]))
            return
        first = self.b.host(command, 20)
        if first[0] == 137:
            self.left_out.append((name, "does not end on the host"))
        elif b"status 132" in first[1]:
            self.left_out.append((name, "the host's CPU lacks it (SIGILL)"))
        elif self.b.host(command, 20) != first:
            self.left_out.append((name, "prints something else each time"))
        else:
            self.b.job(name, command, 120, first[1])

    def end(self):
        for name, why in self.left_out:
            print("left out: %s: %s" % (name, why))
        assert len(self.b.jobs) > 10, "only %d" % len(self.b.jobs)
        results = self.b.boot(cpus=1, memory="1G", timeout=500)
        self.b.check(suite, results)


def qemu_tests():
    tcg = os.path.join(debian_source("qemu"), "tests/tcg")
    i386, multi = os.path.join(tcg, "i386"), os.path.join(tcg, "multiarch")
    for script, out, *kinds in (
            ("test-mmx.py", "test-mmx.h", "MMX", "SSE", "SSE2", "SSE3",
             "SSSE3"),
            ("test-mmx.py", "test-3dnow.h", "3DNOW"),
            ("test-avx.py", "test-avx.h")):
        subprocess.run([sys.executable, script, "x86.csv", out, *kinds],
                       cwd=i386, check=True)
    flags = {"test-avx": ["-mavx", "-masm=intel"],
             "test-mmx": ["-masm=intel"], "test-3dnow": ["-masm=intel"],
             "test-i386-sse-exceptions": ["-msse4.1", "-mfpmath=sse"],
             "test-i386-pcmpistri": ["-msse4.2"]}
    only_64 = {"test-avx", "test-mmx", "test-3dnow", "test-i386-ssse3"}
    p = Programs("qemu")
    for bits in ("32", "64"):
        more = ["-m" + bits, "-I" + os.path.join(tcg, "multiarch/libs"),
                "-I" + i386]
        for source in sorted(glob.glob(i386 + "/*.c")):
            name = os.path.basename(source)[:-2]
            if name == "hello-i386" or (bits == "32" and name in only_64):
                continue
            if name == "test-i386" and bits == "32":
                continue  # 16-bit segments and vm86: not in this kernel
            p.build("qemu-%s-%s" % (bits, name), [source],
                    *more, *flags.get(name, []), cwd=i386)
        libs = glob.glob(multi + "/libs/*.c")
        for source in sorted(glob.glob(multi + "/*.c") +
                             (glob.glob(tcg + "/x86_64/*.c")
                              if bits == "64" else [])):
            name = os.path.basename(source)[:-2]
            p.build("qemu-%s-%s" % (bits, name),
                    [source] + (libs if name.startswith("float_") else []),
                    *more, cwd=multi)
    p.end()


def valgrind_tests():
    root = debian_source("valgrind")
    p = Programs("valgrind")
    config = os.path.join(tmp, "config")
    os.makedirs(config)
    with open(os.path.join(config, "config.h"), "w") as f:
        f.write("#define VGO_linux 1\n")
    for folder, bits in (("amd64", "-m64"), ("x86", "-m32")):
        where = os.path.join(root, "none/tests", folder)
        more = [bits, "-I" + config, "-I" + root, "-I" + root + "/include",
                "-I" + where, "-DVGO_linux=1",
                "-DVGA_%s=1" % folder,
                "-DVGP_%s_linux=1" % folder]
        for source in sorted(glob.glob(where + "/*.c")):
            name = os.path.basename(source)[:-2]
            p.build("valgrind-%s-%s" % (folder, name), [source], *more,
                    cwd=where)
        for source in sorted(glob.glob(where + "/insn_*.def")):
            name = os.path.basename(source)[:-4]
            text = subprocess.run(["perl", "gen_insn_test.pl"], cwd=where,
                                  stdin=open(source), capture_output=True)
            c = os.path.join(where, name + "-generated.c")
            with open(c, "wb") as f:
                f.write(text.stdout)
            p.build("valgrind-%s-%s" % (folder, name), [c], "-msse3",
                    "-mssse3", *more, cwd=where)
    p.end()


for test in (qemu_tests, valgrind_tests):
    suite.check(test)
suite.end()
