#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compilers at run time in the guest: LuaJIT, Node and a JVM run programs that
make them compile, throw code away and compile again. What they print is what
the host's interpreter of the same language prints."""
import os, shutil, subprocess

from guest import *
from bundle import Bundle

suite = Suite()
HERE = os.path.join(top, "tests/guest")


def program(name):
    path = shutil.which(name)
    if not path:
        raise Skip("no %s" % name)
    return os.path.realpath(path)


def compare(name, cpus, bundle, reference, commands, memory):
    """Each command in the guest prints what `reference` does on the host."""
    status, want = bundle.host(reference, 120)
    same(status, 0, want)
    assert want.count(b"\n") >= 4, want
    for i, command in enumerate(commands):
        bundle.job("%s-%d" % (name, i), command, 200, want)
    bundle.check(suite, bundle.boot(cpus=cpus, memory=memory, timeout=420))


def luajit():
    b = Bundle("luajit")
    b.add(program("luajit"), "/t/luajit")
    b.copy(os.path.join(HERE, "jit.lua"), "/t/jit.lua")
    compare("luajit", 1, b, "./luajit -joff jit.lua",
            ["./luajit -joff jit.lua", "./luajit -jon jit.lua",
             "./luajit -O3 -Ohotloop=2 jit.lua",
             "for i in 1 2 3 4 5 6 7 8; do ./luajit -Ohotloop=$i jit.lua "
             ">/tmp/$i || exit 1; cmp /tmp/$i /tmp/1 || exit 1; done; "
             "cat /tmp/1"], "512M")


def node():
    for cpus in (1, 2):
        b = Bundle("node%d" % cpus)
        b.add(program("node"), "/t/node")
        b.copy(os.path.join(HERE, "jit.js"), "/t/jit.js")
        compare("node-cpus%d" % cpus, cpus, b,
                "./node --jitless jit.js 2>/dev/null",
                ["./node jit.js", "./node --always-sparkplug jit.js"],
                "1500M")


def jvm():
    jlink, javac = program("jlink"), program("javac")
    for cpus in (1, 2):
        b = Bundle("jvm%d" % cpus)
        home = b.root + "/t/java"
        subprocess.run([jlink, "--add-modules", "java.base", "--output", home],
                       check=True)
        subprocess.run([javac, "-d", b.root + "/t", HERE + "/Jit.java"],
                       check=True)
        for folder, _, names in os.walk(home):
            for n in names:
                if n == "java" or ".so" in n:
                    b.libraries_of(os.path.join(folder, n))
        compare("jvm-cpus%d" % cpus, cpus, b, "java/bin/java -Xint Jit",
                ["java/bin/java -XX:TieredStopAtLevel=1 Jit",
                 "java/bin/java Jit"], "1500M")


for test in (luajit, node, jvm):
    suite.check(test)
suite.end()
