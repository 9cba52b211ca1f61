#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""stress-ng in a Debian guest with more vCPUs than the host has processors:
each stressor on every vCPU, with stress-ng's own verification. All the while
the guest must answer, and its kernel must not complain.

SKERRY_STRESS_SECONDS  for how long, in all (60); every stressor runs at least
                       once for a second, in turn, until the time is over
SKERRY_STRESS_ONLY     names of stressors, with spaces between them
SKERRY_STRESS_CPUS     vCPUs (4)
SKERRY_STRESS_HOLD     seconds for which a guest that hangs is kept for
                       whoever wants to look at it (0)

A stressor that the guest's kernel lacks counts as skipped."""
import glob, os, re, shutil, subprocess, tarfile, threading, time

from guest import *
from bundle import libraries

NAME = "stress"
PERIOD = 30   # of the watchdog
PATIENCE = 30  # for an answer of a guest under load
CPUS = int(os.environ.get("SKERRY_STRESS_CPUS", "4"))
SECONDS = int(os.environ.get("SKERRY_STRESS_SECONDS", "60"))
HOLD = int(os.environ.get("SKERRY_STRESS_HOLD", "0"))
STRESSORS = """cpu vm fork switch pipe mmap signal futex timer fault mprotect
clone exec vdso membarrier icache userfaultfd vfork mremap sigq sigsegv sigfpe
sigtrap sigsuspend sigabrt itimer timerfd hrtimers ptrace seccomp sem msg poll
epoll yield affinity atomic bad-altstack branch cache clock context eventfd
far-branch fp funccall goto longjmp lockbus madvise mcontend memcpy memthrash
mutex nanosleep nop opcode peterson dekker pthread qsort rseq resched
schedpolicy shm sigchld sockpair stack str tlb-shootdown vecmath vecwide
vm-splice wait zombie prefetch regs tree matrix misaligned getrandom
sysinfo fanotify dentry aio hdd udp brk munmap shm-sysv sigpending sigrt sigio
sigfd sigpipe tee splice zlib crypt jpeg cyclic kill daemon dup null rdrand
idle-page radixsort hsearch
""".split()
MORE = {"clone": "--clone-max 512",  # the watchdog needs a process, too
        "vm": "--vm-bytes 32M", "mmap": "--mmap-bytes 32M",
        "mremap": "--mremap-bytes 16M",
        "stack": "--stack-mlock",
        "hdd": "--hdd-bytes 8M", "memthrash": "--memthrash-method all",
        "opcode": "--opcode-method inc",
        "userfaultfd": "--userfaultfd-bytes 4M"}
# The C library must not take the one rseq area of each thread.
STRESS_NG = ("env LD_LIBRARY_PATH=/opt/stress "
             "GLIBC_TUNABLES=glibc.pthread.rseq=0 /opt/stress/stress-ng ")
BEGIN = "stress-test begins %s"  # in the kernel's log
NOT_AS_ROOT = {"exec"}
COMPLAINT = re.compile(r"WARNING:|BUG:|Oops|Call Trace|lockup|rcu.*stall|"
                       r"blocked for more than|general protection.*#|"
                       r"double fault|Kernel panic")

suite = Suite(is_isolated=False)
env = private_env()


def in_guest(*command, stdin=b"", timeout=60):
    return run("exec", NAME, "--", *command, stdin=stdin, env=env,
               timeout=timeout)


def archive(program):
    """The program with what it is linked with, but the C library, as a tar
    file that does not touch the guest's libraries; returns its bytes."""
    path = os.path.join(tmp, "program.tar")
    with tarfile.open(path, "w") as t:
        for f in [program] + libraries(program):
            if re.match(r"ld-|lib(c|m|pthread)\.so", os.path.basename(f)):
                continue
            t.add(os.path.realpath(f), "opt/stress/" + os.path.basename(f))
    with open(path, "rb") as f:
        return f.read()


def a_machine_with_the_stressors():
    program = shutil.which("stress-ng")
    if not program:
        raise Skip("no stress-ng")
    private_image(env)
    status, out, err = run(
        "launch", IMAGE, "--name", NAME, "--cpus", str(CPUS), "--memory",
        "1500M", "--engine", "soft", env=env, timeout=400)
    same(status, 0, err)
    status, out, err = in_guest("tar", "-C", "/", "-x",
                                stdin=archive(program), timeout=200)
    same(status, 0, out + err)
    status, out, err = in_guest("sh", "-c", STRESS_NG + "--version")
    if status:
        raise Skip("the host's stress-ng does not run in the image: " + err)


def evidence():
    """All there is to see of a guest that hangs."""
    for pid in vmms():
        print("--- threads of", pid)
        print(text_of("gdb", "-p", str(pid), "-batch", "-nx",
                      "-ex", "thread apply all bt 16"))
    for args in (("info", NAME), ("info", "--engine", NAME)):
        print("--- skerry", *args)
        print(text_of(skerry, *args))
    for path in glob.glob(os.path.join(tmp, "*/*/**/console*"),
                          recursive=True):
        with open(path, "rb") as f:
            print("---", path)
            print(f.read()[-6000:].decode(errors="replace"), flush=True)
    if HOLD:
        print("held for %d s: SKERRY_RUN_DIR=%s" %
              (HOLD, env["SKERRY_RUN_DIR"]), flush=True)
        time.sleep(HOLD)


def text_of(*command):
    try:
        r = subprocess.run(command, env=env, stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           text=True, errors="replace", timeout=60)
        return r.stdout
    except (OSError, subprocess.TimeoutExpired) as e:
        return str(e)


class Clock(threading.Thread):
    """Finds out whether the host itself stood still: it may be a virtual
    machine, too, and then all of the guest's CPUs look stuck."""

    def __init__(self):
        super().__init__(daemon=True)
        self.stood = []  # (when it went on, for how long)

    def run(self):
        last = time.monotonic()
        while True:
            time.sleep(0.2)
            now = time.monotonic()
            if now - last > 5:
                self.stood.append((now, now - last))
                print("    the host stood still for %.1f s" % (now - last))
            last = now

    def stood_since(self, when):
        return any(t > when for t, _ in self.stood)


def is_of_oom(lines, i):
    """The kernel shows a call trace, too, when it runs out of memory, which
    is what some stressors are about. (The line above that says so may have
    left the log's ring already.)"""
    return ("Call Trace" in lines[i] and
            (any("invoked oom-killer" in l for l in lines[max(i - 6, 0):i]) or
             any("out_of_memory+" in l for l in lines[i:i + 12])))


class Watchdog(threading.Thread):
    """Asks the guest every PERIOD seconds; `fault` says what was wrong."""

    def __init__(self):
        super().__init__(daemon=True)
        self.fault, self.asked, self.slowest = None, 0, 0.0
        self.over = threading.Event()
        self.clock = Clock()
        self.before = time.monotonic()  # when the last question was asked

    def run(self):
        self.clock.start()
        while self.fault is None and not self.over.wait(PERIOD):
            self.ask()

    def say(self, what):
        """What is wrong, unless the host stood still since the question
        before: then the guest has one more try."""
        if self.clock.stood_since(self.before):
            print("    not counted, since the host stood still:", what[:200])
            in_guest("dmesg", "-C")
        else:
            self.fault = what

    def ask(self):
        start = time.monotonic()
        try:
            status, _, err = in_guest("true", timeout=PATIENCE)
            self.slowest = max(self.slowest, time.monotonic() - start)
            same(status, 0, err)
            self.asked += 1
            status, out, err = in_guest("dmesg", timeout=2 * PATIENCE)
            lines = out.splitlines()
            for i, line in enumerate(lines):
                if COMPLAINT.search(line) and not is_of_oom(lines, i):
                    raise AssertionError("\n".join(lines[i:i + 60]))
        except AssertionError as e:
            self.say(str(e))
        self.before = start


watchdog = Watchdog()


def stress(name, seconds):
    """One stressor on every vCPU: it must end by itself and find nothing."""
    command = ("echo %s > /dev/kmsg; " % (BEGIN % name) +
               ("exec runuser -u nobody -- " if name in NOT_AS_ROOT else
                "exec ") + STRESS_NG + "--%s %d --timeout %ds --verify --oomable "
               "--temp-path /tmp %s 2>&1" %
               (name, CPUS, seconds, MORE.get(name, "")))
    status, out, err = in_guest("sh", "-c", command, timeout=seconds + 200)
    # no resource, not implemented, or what it says with status 0
    if status in (3, 4) or "No stress workers invoked" in out:
        raise Skip((out.strip() or "?").splitlines()[-1][-70:])
    if status and was_killed_for_memory(name):
        raise Skip("the guest's memory was too little for it")
    same(status, 0, out[-3000:] + err)


def was_killed_for_memory(name):
    """stress-ng calls the counters of a worker that was killed corrupt. The
    kernel shows the first 15 letters of a process's name."""
    _, out, _ = in_guest("dmesg", timeout=2 * PATIENCE)
    since = out.rsplit(BEGIN % name, 1)[-1].splitlines()
    return any("Out of memory: Killed" in l and
               "(%s)" % ("stress-ng-" + name)[:15] in l for l in since)


def check(name, seconds):
    def test():
        try:
            stress(name, seconds)
            assert watchdog.fault is None, watchdog.fault
        except AssertionError:
            if watchdog.fault is None:
                watchdog.ask()
            if watchdog.fault is not None:
                print("the guest does not answer or complains:",
                      watchdog.fault)
                evidence()
            raise
    test.__name__ = name
    suite.check(test)


def the_guest_answered_and_did_not_complain():
    watchdog.over.set()
    watchdog.ask()
    assert watchdog.fault is None, watchdog.fault
    print("    answered %d times, at worst after %.1f s" %
          (watchdog.asked, watchdog.slowest))


suite.check(a_machine_with_the_stressors)
if not suite.failed and not suite.skipped:
    watchdog.start()
    names = os.environ.get("SKERRY_STRESS_ONLY", " ".join(STRESSORS)).split()
    end = time.monotonic() + SECONDS
    rounds = 0
    while rounds == 0 or time.monotonic() < end:
        for n in names:
            left = end - time.monotonic()
            if watchdog.fault is not None or (rounds and left <= 0):
                break
            check(n, max(1, min(10, int(SECONDS / len(names)))))
        rounds += 1
        if watchdog.fault is not None:
            break
    suite.check(the_guest_answered_and_did_not_complain)
suite.end()
