#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Snapshots of a Debian machine with two vCPUs: what it was comes back,
whatever it does meanwhile; what is damaged, half or not there is refused, and
nothing is lost by it. SKERRY_SNAPSHOT_ROUNDS (6) is how often a machine under
load is saved and restored."""
import os, random, re, signal, subprocess, time

from guest import *

ROUNDS = int(os.environ.get("SKERRY_SNAPSHOT_ROUNDS", "6"))
suite = Suite(is_isolated=False)
env = private_env()
private_image(env)
NAME = "sys-snapshot"
LOAD = r"""
mkdir -p /root/load && cd /root/load && rm -f stop bad rounds
head -c 3000000 /dev/urandom >a; sha256sum a >sum
work() {
  i=0
  while [ ! -e stop ]; do
    cp a b.$1 && sha256sum <b.$1 | cut -c1-64 >s.$1
    grep -q "$(cat s.$1)" sum || echo "round $i of $1" >>bad
    i=$((i + 1)); echo $i >rounds.$1
  done
}
tick() { while [ ! -e stop ]; do sleep 0.05; echo x >>ticks; done; }
work 1 >/dev/null 2>&1 & work 2 >/dev/null 2>&1 & tick >/dev/null 2>&1 &
"""


def ok(*args, timeout=120):
    status, out, err = run(*args, env=env, timeout=timeout)
    same(status, 0, err)
    return out.strip()


def refused(part, *args):
    status, out, err = run(*args, env=env)
    same(status, 1, out)
    has(err, part)


def guest(command):
    return ok("exec", NAME, "--", "sh", "-c", command)


def folder(snap=""):
    return os.path.join(env["SKERRY_DATA_DIR"], "snapshots", NAME, snap)


def the_machine_is_what_it_was():
    ok("launch", "debian/12", "--name", NAME, "--memory", "512M", "--cpus",
       "2", timeout=300)
    guest("echo before >/root/mark; echo volatile >/dev/shm/mark; sync; "
          "sleep 1000 >/dev/null 2>&1 & echo $! >/dev/shm/pid")
    same(ok("snapshot", "create", "--note", "a note", NAME, "one"), "one")
    guest("echo after >/root/mark; rm /dev/shm/mark; sync")
    refused("--force", "snapshot", "restore", NAME, "one")
    ok("snapshot", "restore", "--force", NAME, "one")
    same(guest("cat /root/mark /dev/shm/mark; kill -0 $(cat /dev/shm/pid) && "
               "echo alive"), "before\nvolatile\nalive")


def a_stopped_machine_comes_back_to_life():
    ok("stop", "--force", NAME)
    time.sleep(3)
    ok("snapshot", "restore", NAME, "one")
    same(guest("cat /dev/shm/mark; nproc"), "volatile\n2")
    late = time.time() - float(guest("date +%s.%N"))
    assert -1 < late < 1, "the clock is late by %.1f s" % late


def the_list_shows_it():
    out = ok("snapshot", "list")
    has(out, NAME)
    has(out, "a note")
    same(ok("snapshot", "list", "no-such"), "")


def wrong_words_are_refused():
    refused("has no snapshot 'two'", "snapshot", "restore", NAME, "two")
    refused("has no snapshot 'two'", "snapshot", "delete", NAME, "two")
    refused("already", "snapshot", "create", NAME, "one")
    refused("not a snapshot name", "snapshot", "create", NAME, "../x")
    refused("does not exist", "snapshot", "create", "no-such-machine")
    same(run("snapshot", "create", env=env)[0], 2)
    same(run("snapshot", "nonsense", env=env)[0], 2)


def a_snapshot_of_a_foreign_disk_is_refused():
    disk = os.path.join(tmp, "foreign.raw")
    with open(disk, "wb") as f:
        f.truncate(1 << 20)
    ok("launch", "--no-wait", "--name", "foreign", "--memory", "64M",
       "--kernel", os.path.join(image_dir, "vmlinuz"), "--disk", disk)
    refused("not the machine's own", "snapshot", "create", "foreign", "x")
    ok("delete", "--force", "foreign")


def damage(name, change):
    """Runs check and restore on a snapshot with one of its files changed."""
    path = os.path.join(folder("one"), name)
    os.rename(path, path + ".good")
    subprocess.run(["cp", "--sparse=always", path + ".good", path], check=True)
    with open(path, "r+b") as f:
        change(f)
    try:
        refused("damaged", "snapshot", "check", NAME, "one")
        if name == "state":
            refused("damaged", "snapshot", "restore", "--force", NAME, "one")
            guest("true")  # it goes on
    finally:
        os.rename(path + ".good", path)


def flip(at):
    def change(f):
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 0x10]))
    return change


def what_is_damaged_is_refused():
    ok("snapshot", "check", NAME, "one")
    size = os.path.getsize(os.path.join(folder("one"), "state"))
    for at in (0, 20, 60, size // 2, size - 12):
        damage("state", flip(at))
    damage("state", lambda f: f.truncate(size // 2))
    damage("state", lambda f: f.truncate(0))
    damage("memory", flip(40 << 20))
    damage("memory", lambda f: f.truncate(100 << 20))


def a_later_format_is_refused():
    path = os.path.join(folder("one"), "state")
    with open(path, "r+b") as f:
        f.seek(8)
        f.write(b"\x09")
        f.flush()
        refused("format 9; this release knows 1", "snapshot", "check", NAME,
                "one")
        f.seek(8)
        f.write(b"\x01")
    ok("snapshot", "check", NAME, "one")


def one_that_is_broken_off_leaves_a_machine_that_runs():
    for delay in (0.02, 0.1, 0.3):
        p = popen("snapshot", "create", NAME, "half", env=env)
        time.sleep(delay)
        p.kill()
        p.communicate()
        guest("true")
    assert not os.path.exists(folder("half")) or \
        run("snapshot", "delete", NAME, "half", env=env)[0] == 0
    ok("snapshot", "create", NAME, "whole")
    same(sorted(n for n in os.listdir(folder())), ["one", "whole"])


def a_load_that_checks_itself_goes_on():
    guest(LOAD)
    rng = random.Random(4)
    for i in range(ROUNDS):
        time.sleep(rng.random())
        ok("snapshot", "create", NAME, "load")
        time.sleep(rng.random() / 2)
        ok("snapshot", "restore", "--force", NAME, "load")
        before = guest("wc -l </root/load/ticks")
        time.sleep(0.3)
        assert int(guest("wc -l </root/load/ticks")) > int(before)
        same(guest("cat /root/load/bad 2>/dev/null; true"), "")
        ok("snapshot", "delete", NAME, "load")
    guest("touch /root/load/stop; sleep 1; cat /root/load/rounds.*")
    same(guest("dmesg | grep -ci -e 'soft lockup' -e 'rcu.*stall' "
               "-e 'I/O error' -e BUG: || true"), "0")


def what_is_suspended_goes_on():
    guest("echo asleep >/dev/shm/mark")
    ok("suspend", NAME)
    has(ok("list"), "suspended")
    refused("is not running", "suspend", NAME)
    ok("resume", NAME)
    same(guest("cat /dev/shm/mark"), "asleep")
    refused("is not suspended", "resume", NAME)


def a_snapshot_of_a_restored_machine_is_one():
    guest("echo second >/dev/shm/mark")
    ok("snapshot", "create", NAME, "second")
    ok("snapshot", "delete", NAME, "one", "whole")
    ok("snapshot", "restore", "--force", NAME, "second")
    same(guest("cat /dev/shm/mark"), "second")


def of_two_restores_at_once_one_starts_it():
    for _ in range(4):
        ok("stop", "--force", NAME)
        time.sleep(1)
        both = [popen("snapshot", "restore", NAME, "second", env=env)
                for _ in range(2)]
        said = [p.communicate()[1] for p in both]
        same(sorted(p.returncode for p in both), [0, 1], said)
        same(guest("cat /dev/shm/mark"), "second")
        same(sorted(os.listdir(os.path.join(env["SKERRY_DATA_DIR"],
                                            "machines", NAME))),
             ["disk", "head"])


def what_differs_between_two_is_said():
    ok("snapshot", "create", NAME, "before")
    guest("head -c 5000000 /dev/urandom >/root/new; sync")
    ok("snapshot", "create", NAME, "after")
    status, out, _ = run("snapshot", "diff", NAME, "before", "after", env=env)
    same(status, 3)
    has(out, "memory")
    disk = float(re.search(r"disk +([0-9.]+) MiB differ", out).group(1))
    assert 4.7 < disk < 12, out
    same(ok("snapshot", "diff", NAME, "after", "after").split("\n")[-1],
         "disk     the same")
    refused("no snapshot 'x'", "snapshot", "diff", NAME, "after", "x")
    same(run("snapshot", "diff", NAME, "after", env=env)[0], 2)


def nothing_is_left_after_delete():
    ok("delete", "--force", NAME)
    assert not os.path.exists(folder())


for test in (the_machine_is_what_it_was,
             a_stopped_machine_comes_back_to_life,
             the_list_shows_it,
             wrong_words_are_refused,
             a_snapshot_of_a_foreign_disk_is_refused,
             what_is_damaged_is_refused,
             a_later_format_is_refused,
             one_that_is_broken_off_leaves_a_machine_that_runs,
             a_load_that_checks_itself_goes_on,
             what_is_suspended_goes_on,
             a_snapshot_of_a_restored_machine_is_one,
             of_two_restores_at_once_one_starts_it,
             what_differs_between_two_is_said,
             nothing_is_left_after_delete):
    suite.check(test)
suite.end()
