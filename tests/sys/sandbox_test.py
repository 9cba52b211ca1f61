#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The sandbox of a running machine, seen from outside, and that machines of
each kind still work in it (disks and a network in use: debian_test.py). What the filter refuses is tested call by call in
src/vmm/sandbox_test.c."""
import json, re

from guest import *

suite = Suite()
SMALL = ("--memory", "128M", "--append", "console=ttyS0 quiet")


def boot(env, init, name, *args):
    """A machine with busybox, started; waits for UP on its console."""
    p = popen("run", "--name", name, "--kernel", debian_kernel(), "--initrd",
              initramfs(name, init), *SMALL, *args, env=env)
    os.set_blocking(p.stdout.fileno(), False)
    seen = b""

    def is_up():
        nonlocal seen
        seen += p.stdout.read() or b""
        assert p.poll() is None, seen + p.stderr.read()
        return b"UP" in seen
    wait_for("the guest's UP", is_up, 120)
    return p


def end(p, status=0):
    try:
        same(p.wait(60), status, p.stderr.read().decode(errors="replace"))
    finally:
        p.kill()


def field(pid, name):
    with open("/proc/%d/status" % pid) as f:
        for line in f:
            if line.startswith(name + ":"):
                return line.split()[1]
    raise AssertionError("no %s in status" % name)


def mappings(pid):
    with open("/proc/%d/maps" % pid) as f:
        return [re.match(r"(\S+) (\S+) \S+ \S+ \S+\s*(.*)", line).groups()
                for line in f]


def a_running_machine_is_confined_and_never_w_and_x():
    env = private_env("confined")
    p = boot(env, "echo UP; sleep 4; poweroff -f\n", "conf",
             "--engine", "soft")
    pid, = vmms()
    for task in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/status" % (pid, task)) as f:
            text = f.read()
        has(text, "Seccomp:\t2\n")
        has(text, "NoNewPrivs:\t1\n")
    with open("/proc/%d/limits" % pid) as f:
        assert re.search(r"core file size +0 +0", f.read())
    status, out, err = run("info", "conf", env=env)
    same((status, err), (0, ""))
    assert re.search(r"^pid +%d$" % pid, out, re.M), out
    status, out, err = run("info", "--engine", "--json", "conf", env=env)
    same((status, err), (0, ""))
    counters = {c["name"]: c for c in json.loads(out)["counters"]}
    assert counters["tlb-misses"]["value"] > 1000, out
    assert all(c["group"] and c["help"] and c["unit"] in (
        "count", "bytes", "ns") for c in counters.values()), out
    status, out, err = run("info", "--engine", "conf", env=env)
    for name, c in counters.items():
        has(out, name)
        has(out, c["help"])
    maps = mappings(pid)
    same([m for m in maps if "w" in m[1] and "x" in m[1]], [])
    code = [m for m in maps if "skerry-code" in m[2]]
    assert {m[1] for m in code} == {"rw-s", "r-xs"}, code
    same(len({m[0] for m in code}), len(code))
    # Executable: programs, libraries, the kernel's own pages and code memory.
    for where, perms, what in maps:
        if "x" in perms:
            assert what.startswith("/") or what in ("[vdso]", "[vsyscall]"), (
                where, perms, what)
    end(p)


def no_sandbox_warns_and_does_not_confine():
    env = private_env("free")
    p = boot(env, "echo UP; sleep 2; poweroff -f\n", "free", "--no-sandbox")
    pid, = vmms()
    same(field(pid, "Seccomp"), "0")
    same(field(pid, "NoNewPrivs"), "1")
    p.wait(60)
    has(p.stderr.read().decode(), "without a sandbox")


def two_vcpus_and_a_user_network_work_and_statistics_are_given():
    env = private_env("work")
    init = ("dd if=/dev/zero of=/big bs=1M count=40 2>/dev/null\n"
            "[ $(nproc) = 2 ] && echo WORKED; poweroff -f\n")
    status, out, err = run(
        "run", "--kernel", debian_kernel(), "--initrd",
        initramfs("work", init), "--cpus", "2", "--forward", "24177:80",
        "--verbose", *SMALL, env=env, timeout=200)
    same(status, 0, out + err)
    has(out, "WORKED")
    # From /proc, which cannot be opened any more.
    assert re.search(r'"resident-anon-kib": [1-9]', err), err


suite.check(a_running_machine_is_confined_and_never_w_and_x)
suite.check(no_sandbox_warns_and_does_not_confine)
suite.check(two_vcpus_and_a_user_network_work_and_statistics_are_given)
suite.end()
