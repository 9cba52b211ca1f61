#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Forks and clones of a Debian machine: they go on from where it was, what one
changes no other sees, and whatever they came from can go."""
import os, re, subprocess, time

from guest import *

suite = Suite(is_isolated=False)
env = private_env()
private_image(env)
NAME = "sys-fork"


def ok(*args, timeout=120):
    status, out, err = run(*args, env=env, timeout=timeout)
    same(status, 0, err)
    return out.strip()


def refused(part, *args):
    status, out, err = run(*args, env=env)
    same(status, 1, out)
    has(err, part)


def guest(name, command):
    return ok("exec", name, "--", "sh", "-c", command)


def machine(name, *rest):
    return os.path.join(env["SKERRY_DATA_DIR"], "machines", name, *rest)


def forks_go_on_from_where_the_machine_is():
    ok("launch", "debian/12", "--name", NAME, "--memory", "256M",
       timeout=300)
    guest(NAME, "echo disk >/root/mark; sync; echo memory >/dev/shm/mark; "
          "sleep 1000 >/dev/null 2>&1 & echo $! >/dev/shm/pid")
    same(ok("fork", "-n", "2", NAME), NAME + "-1\n" + NAME + "-2")
    for name in (NAME, NAME + "-1", NAME + "-2"):
        same(guest(name, "cat /root/mark /dev/shm/mark; "
                   "kill -0 $(cat /dev/shm/pid) && echo alive"),
             "disk\nmemory\nalive")


IDENTITY = r"""
hostname; cat /etc/hostname /etc/machine-id; cat /sys/class/net/e*/address
grep 127.0.1.1 /etc/hosts; od -An -tx1 -N16 /dev/urandom
perl -e 'socket(S, 40, 1, 0) or die; my $b = pack("L", 0);
open(F, "<", "/dev/vsock") or die; ioctl(F, 0x7b9, $b) or die;
print unpack("L", $b), "\n"'
cat /sys/class/dmi/id/product_uuid >/dev/shm/uuid
"""


def identity(name):
    return guest(name, IDENTITY).split("\n")


def forks_are_other_machines():
    ok("snapshot", "create", NAME, "same")
    ok("fork", "-n", "2", "--name", "other", NAME + "@same")
    ok("fork", "--keep-identity", "--name", "twin", NAME + "@same")
    machines = {n: identity(n) for n in (NAME, "other-1", "other-2", "twin")}
    for name in ("other-1", "other-2"):
        same(machines[name][0], name)
        same(machines[name][1], name)
        assert re.fullmatch("[0-9a-f]{32}", machines[name][2])
        # The kernel of Debian 13 then seeds its random numbers anew, that
        # of Debian 12 has no driver: there the agent does it alone.
        has(guest(name, "cat /sys/firmware/acpi/interrupts/gpe05"), "1  EN")
        has(ok("info", name), name)
    # host name, its file, machine id, MAC, hosts, random bytes, vsock id
    for i, what in enumerate(machines["other-1"]):
        assert len({m[i] for n, m in machines.items() if n != "twin"}) in \
            ((1, 3) if i == 4 else (3,)), (i, machines)
    for i in (0, 1, 2, 3):
        same(machines["twin"][i], machines[NAME][i])
    guest("other-1", "ping -c1 -W5 10.0.2.2 >/dev/null 2>&1 || "
          "getent hosts localhost >/dev/null")
    ok("delete", "--force", "other-1", "other-2", "twin")
    ok("snapshot", "delete", NAME, "same")


def what_one_changes_no_other_sees():
    for i, name in enumerate((NAME, NAME + "-1", NAME + "-2")):
        guest(name, "echo %d >/root/mark; echo %d >/dev/shm/mark; sync; "
              "echo 3 >/proc/sys/vm/drop_caches" % (i, i))
    for i, name in enumerate((NAME, NAME + "-1", NAME + "-2")):
        same(guest(name, "cat /root/mark /dev/shm/mark"), "%d\n%d" % (i, i))


def a_fork_of_a_fork_outlives_what_it_came_from():
    ok("snapshot", "create", NAME + "-2", "deep")
    ok("snapshot", "create", "--note", "child", NAME + "-2", "deeper")
    same(ok("fork", "--name", "leaf", NAME + "-2@deep"), "leaf")
    ok("delete", "--force", NAME + "-1", NAME + "-2")
    ok("snapshot", "create", "leaf", "last")
    same(ok("fork", "--name", "leaf2", "leaf@last"), "leaf2")
    ok("delete", "--force", "leaf")
    same(guest("leaf2", "cat /root/mark /dev/shm/mark"), "2\n2")
    same(guest("leaf2", "sha256sum -c /var/lib/dpkg/info/*.none 2>/dev/null; "
               "dmesg | grep -c 'I/O error' || true"), "0")


def wrong_forks_are_refused():
    refused("there already", "fork", "--name", NAME, NAME)
    refused("no snapshot 'x'", "fork", NAME + "@x")
    refused("does not exist", "fork", "no-such-machine")
    refused("not a machine name", "fork", "../x")
    for args in (["fork"], ["fork", "-n", "0", NAME],
                 ["fork", "--name", "a/b", NAME], ["fork", "-x", NAME],
                 ["clone", NAME], ["clone", "a", "b", "c"]):
        same(run(*args, env=env)[0], 2, args)
    refused("there already", "clone", NAME, "leaf2")
    refused("does not exist", "clone", "no-such-machine", "new")
    refused("not a machine name", "clone", NAME, "../new")
    assert not os.path.exists(machine("new"))


def a_fork_that_is_killed_leaves_nothing():
    before = sorted(os.listdir(machine("")))
    for delay in (0.02, 0.1, 0.25):
        p = popen("fork", "--name", "cut", NAME, env=env)
        time.sleep(delay)
        p.kill()
        p.communicate()
        guest(NAME, "true")
        run("delete", "--force", "cut", env=env)
    ok("list")
    same(sorted(os.listdir(machine(""))), before)
    ok("snapshot", "create", NAME, "after")
    left = os.listdir(os.path.join(env["SKERRY_DATA_DIR"], "snapshots", NAME))
    same(left, ["after"])


def the_list_is_a_tree():
    ok("snapshot", "create", NAME, "second")
    ok("snapshot", "restore", "--force", NAME, "after")
    rows = [r[21:45].rstrip() for r in ok("snapshot", "list", NAME).split("\n")]
    same(rows, ["SNAPSHOT", "after *", " second"])


def many_layers_become_one():
    ok("clone", NAME, "deep")
    ok("launch", "debian/12", "--name", "deep", "--memory", "128M",
       timeout=300)
    for i in range(40):
        guest("deep", "echo %d >/root/mark; sync" % i)
        status, _, err = run("snapshot", "create", "deep", "n%d" % i, env=env)
        if status:
            break
    has(err, "no room for another")
    has(err, "start it again")
    assert i > 20, i
    ok("stop", "--force", "deep")
    time.sleep(1)
    ok("launch", "debian/12", "--name", "deep", "--memory", "128M",
       timeout=300)
    same(guest("deep", "cat /root/mark"), str(i))
    assert len(os.listdir(machine("deep", "disk"))) < 8
    ok("snapshot", "create", "deep", "more")
    for n in (0, i // 2, i - 1):
        ok("snapshot", "restore", "--force", "deep", "n%d" % n)
        same(guest("deep", "echo 3 >/proc/sys/vm/drop_caches; "
                   "cat /root/mark; sha256sum /usr/bin/perl | cut -c1-8"),
             "%d\n%s" % (n, guest(NAME, "sha256sum /usr/bin/perl | "
                                  "cut -c1-8")))
    ok("delete", "--force", "deep")


def a_clone_has_the_disk():
    guest(NAME, "echo cloned >/root/mark; sync")
    ok("clone", NAME, "running")
    ok("stop", NAME)
    for _ in range(100):
        if "stopped" in ok("list"):
            break
        time.sleep(0.1)
    ok("clone", NAME, "shared")
    ok("clone", "--full", NAME, "full")
    full = os.stat(machine("full", "disk", "0.raw"))
    same(full.st_nlink, 1)
    for name in ("running", "shared", "full", NAME):
        ok("launch", "debian/12", "--name", name, "--memory", "256M",
           timeout=300)
        same(guest(name, "cat /root/mark"), "cloned")
        guest(name, "echo %s >/root/mark; sync" % name)
        ok("stop", "--force", name)
    ok("delete", "--force", "leaf2")  # the last that has them locked
    for name in (NAME, "running", "shared", "full"):
        disk = machine(name, "disk")
        for part in os.listdir(disk):
            if part.endswith(".qcow2"):
                subprocess.run(["qemu-img", "check", "-q",
                                os.path.join(disk, part)], check=True)


def nothing_is_left_after_delete():
    for name in (NAME, "running", "shared", "full"):
        ok("delete", "--force", name)
    same(os.listdir(machine("")), [])


for test in (forks_go_on_from_where_the_machine_is,
             forks_are_other_machines,
             what_one_changes_no_other_sees,
             a_fork_of_a_fork_outlives_what_it_came_from,
             wrong_forks_are_refused,
             a_fork_that_is_killed_leaves_nothing,
             the_list_is_a_tree,
             many_layers_become_one,
             a_clone_has_the_disk,
             nothing_is_left_after_delete):
    suite.check(test)
suite.end()
