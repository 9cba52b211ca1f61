#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Wrong input and sudden ends: each gives one clear error with what to do,
the right exit status, and leaves no process, lock or half-file."""
import fcntl, os, re, resource, shutil, socket, struct, subprocess, time

from guest import *

suite = Suite()
env = private_env()
SMALL = ("--memory", "32M", "--network", "none")
spin = assemble("spin", """
	mov $0x3f8, %dx
	mov $'A', %al
	out %al, %dx
""" + SPIN)
flood = assemble("flood", """
	mov $0x3f8, %dx
	mov $'F', %al
1:	out %al, %dx
	jmp 1b
""")


def fails(status, *parts, command=(), hint=True, **more):
    """skerry COMMAND ends with status and says parts, in few lines."""
    got, out, err = run(*command, env=env, **more)
    same((got, out), (status, ""), err)
    for part in parts:
        has(err, part)
    assert err.startswith("skerry: ") and err.count("\n") <= 3, err
    same(vmms(), [])
    same(leftovers(env), [])
    return err


def path(name, content=None, size=None):
    p = os.path.join(tmp, name)
    if content is not None:
        with open(p, "wb") as f:
            f.write(content)
    if size is not None:
        with open(p, "ab") as f:
            f.truncate(size)
    return p


# ---- files ----

def a_missing_image_names_what_to_do():
    fails(1, "image 'no/such' does not exist", "skerry image",
          command=("run", "no/such"))


def an_unreadable_image_is_said_to_be_unreadable():
    p = path("unreadable", size=1 << 20)
    os.chmod(p, 0)
    # Root reads everything, but not without its capabilities.
    bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    r = subprocess.run((bare if os.geteuid() == 0 else []) +
                       [skerry, "run", "--kernel", spin, "--disk", p],
                       env=env, stdin=subprocess.DEVNULL, timeout=20,
                       capture_output=True, text=True)
    same((r.returncode, r.stdout), (1, ""))
    has(r.stderr, "open image '%s': Permission denied" % p)
    all_gone(env)


def a_kernel_of_the_wrong_kind_is_refused():
    for name, content in (("text", b"#!/bin/sh\necho no kernel\n" * 99),
                          ("empty", b""), ("zeroes", bytes(65536)),
                          ("host", open("/bin/true", "rb").read())):
        fails(1, "kernel", command=("run", "--kernel", path(name, content),
                                    *SMALL))


def a_truncated_bzimage_is_refused():
    with open(debian_kernel(), "rb") as f:
        whole = f.read()
    # Boot protocol: setup_sects and syssize; a signature may follow.
    end = (whole[0x1f1] + 1) * 512 + 16 * struct.unpack_from(
        "<I", whole, 0x1f4)[0]
    for size in (0x200, 0x260, 0x1000, 0x5000, end // 2, end - 16):
        fails(1, "kernel", command=("run", "--kernel",
                                    path("cut", whole[:size]),
                                    "--memory", "256M"))


def too_little_memory_says_how_much_is_needed():
    fails(1, "memory", "M", command=("run", "--kernel", spin, "--memory",
                                     "1M"))
    err = fails(1, "memory", command=("run", "--kernel", debian_kernel(),
                                      "--memory", "32M"))
    assert re.search(r"\d+ ?M", err), err


def more_memory_than_the_host_has_is_refused():
    fails(1, "memory", command=("run", "--kernel", spin, "--memory", "900T"))


def an_initrd_larger_than_memory_is_refused():
    fails(1, "initrd", command=("run", "--kernel", debian_kernel(),
                                "--initrd", path("huge", size=1 << 30),
                                "--memory", "256M"))


def a_path_that_is_no_file_is_refused_at_once():
    fifo = path("fifo")
    os.mkfifo(fifo)
    link = path("link")
    os.symlink(fifo, link)
    loop = path("loop")
    os.symlink(loop, loop)
    s = socket.socket(socket.AF_UNIX)
    s.bind(path("sock"))
    for p in (fifo, link, loop, path("sock"), "/dev/null", "/dev/zero",
              "/dev/tty", "/proc/self/mem", "/proc/self/environ", "/",
              "/proc"):
        fails(1, p, command=("run", "--kernel", spin, "--disk", p, *SMALL),
              timeout=10)
        # A file of /proc looks like an empty one.
        what = "kernel is empty" if p.startswith("/proc/") else p
        fails(1, what, command=("run", "--kernel", p, *SMALL), timeout=10)
        fails(1, p, command=("image", "import", p, "name"), timeout=10)


def a_symlink_to_a_disk_is_followed():
    link = path("good-link")
    os.symlink(path("linked", size=1 << 20), link)
    k = assemble("bye", "	out %al, $0xf4\n" + SPIN)
    same(run("run", "--kernel", k, "--debug-exit", "--disk", link, *SMALL,
             env=env)[2], "")


def an_image_in_use_names_the_process_that_has_it():
    disk = path("disk", size=1 << 20)
    p = popen("run", "--kernel", spin, "--disk", disk, *SMALL, env=env)
    same(p.stdout.read(1), b"A")
    holder = vmms()
    same(len(holder), 1)
    status, out, err = run("run", "--kernel", spin, "--disk", disk, *SMALL,
                           env=env)
    same((status, out), (1, ""))
    has(err, "in use")
    has(err, "process %d" % holder[0])
    p.terminate()
    same(p.wait(10), 128 + 15)
    all_gone(env)


def readers_may_share_an_image():
    disk = path("disk", size=1 << 20) + ",readonly"
    p = popen("run", "--kernel", spin, "--disk", disk, *SMALL, env=env)
    same(p.stdout.read(1), b"A")
    q = popen("run", "--kernel", spin, "--disk", disk, *SMALL, env=env)
    same(q.stdout.read(1), b"A")
    for x in (p, q):
        x.terminate()
        x.wait(10)


def no_space_for_the_image_leaves_nothing():
    # A file system of 1 MiB, in a mount namespace of its own.
    private_image_once()  # the copy fails, not its source
    script = ("mount -t tmpfs -o size=1m none %s/machines && "
              "exec %s run debian/12 -- true" %
              (env["SKERRY_DATA_DIR"], skerry))
    os.makedirs(os.path.join(env["SKERRY_DATA_DIR"], "machines"),
                exist_ok=True)
    r = subprocess.run(["unshare", "-rm", "sh", "-c", script], env=env,
                       capture_output=True, text=True, timeout=60)
    if "unshare" in r.stderr or "mount:" in r.stderr:
        raise Skip("no mount namespace")
    same((r.returncode, r.stdout), (125, ""))
    has(r.stderr, "No space left on device")
    has(r.stderr, "SKERRY_DATA_DIR")
    all_gone(env)


def private_image_once():
    if not os.path.exists(os.path.join(env["SKERRY_DATA_DIR"], "images",
                                       IMAGE)):
        private_image(env)


# ---- options ----

def unknown_words_name_the_nearest():
    for command, near in ((("rnu",), "run"), (("image", "biuld"), "build"),
                          (("run", "--kernle", "x"), "--kernel"),
                          (("launch", "--nmae", "x"), "--name"),
                          (("stop", "--forec", "x"), "--force"),
                          (("image", "build", "--siez", "1G", "x"), "--size")):
        fails(2, "did you mean '%s'" % near, command=command)


# ---- the network and the guest ----

def a_build_without_a_network_says_so_and_leaves_nothing():
    r = subprocess.run(["unshare", "-rn", skerry, "image", "build",
                        "debian/13"], env=env, stdin=subprocess.DEVNULL,
                       capture_output=True, text=True, timeout=120)
    if "unshare" in r.stderr:
        raise Skip("no network namespace")
    same((r.returncode, r.stdout), (1, ""))
    has(r.stderr, "the package server cannot be reached")
    images = os.path.join(env["SKERRY_DATA_DIR"], "images")
    same([e for e in os.listdir(images) if e.startswith(".")], [])
    assert not os.path.exists(os.path.join(images, "debian/13"))


def an_interrupted_build_leaves_nothing():
    p = popen("image", "build", "debian/13", env=env)
    images = os.path.join(env["SKERRY_DATA_DIR"], "images")
    half = wait_for("a half image", lambda: [
        e for e in os.listdir(images) if e.startswith(".build")])
    time.sleep(1)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=30)
    same(p.returncode, 130, err)
    has(err.decode(), "interrupted")
    same([e for e in os.listdir(images) if e.startswith(".")], [])
    left = subprocess.run(["pgrep", "-f", half[0]], capture_output=True,
                          text=True).stdout
    same(left, "")


def a_guest_that_never_becomes_ready_times_out():
    fails(125, "was not ready after 2 s", "--timeout",
          command=("run", "--kernel", spin, "--timeout", "2", *SMALL, "--",
                   "true"))
    # A launched one is left to its user.
    status, out, err = run("launch", "--kernel", spin, "--timeout", "1",
                           "--name", "slow", *SMALL, env=env)
    same((status, out), (1, ""))
    has(err, "was not ready after 1 s")
    has(err, "delete --force")
    same(run("delete", "--force", "slow", env=env), (0, "", ""))
    all_gone(env)


def exec_in_a_guest_without_the_agent_says_so():
    same(run("launch", "--kernel", spin, "--name", "mute", "--no-wait",
             *SMALL, env=env)[0], 0)
    status, out, err = run("exec", "mute", "--", "true", env=env)
    same((status, out), (125, ""))
    has(err, "reach the agent of 'mute'")
    has(err, "skerry console")
    same(run("delete", "--force", "mute", env=env)[0], 0)
    all_gone(env)


def a_guest_that_ends_before_it_is_ready_says_how():
    k = assemble("dies", "	lidt 9f\n	ud2\n9:	.long 0, 0\n")
    got, out, err = run("run", "--kernel", k, *SMALL, "--", "true", env=env)
    same((got, out), (125, ""))
    has(err, "ended before it was ready: triple-fault")
    all_gone(env)


# ---- sudden ends ----

def start_spin(*args, **more):
    p = popen("run", "--kernel", spin, *SMALL, *args, env=env, **more)
    same(p.stdout.read(1), b"A")
    return p


def a_killed_vmm_is_reported_and_leaves_nothing():
    p = start_spin()
    os.kill(vmms()[0], signal.SIGKILL)
    out, err = p.communicate(timeout=10)
    same(p.returncode, 1)
    has(err.decode(), "killed")
    all_gone(env)


def a_killed_vmm_ends_a_waiting_command_with_125():
    p = popen("run", "--kernel", spin, *SMALL, "--", "true", env=env)
    pid = wait_for("a vmm", vmms)[0]
    time.sleep(0.5)
    os.kill(pid, signal.SIGKILL)
    out, err = p.communicate(timeout=10)
    same(p.returncode, 125, err)
    has(err.decode(), "killed")
    all_gone(env)


def a_killed_command_line_takes_its_machine_with_it():
    p = start_spin()
    p.kill()
    p.wait()
    wait_for("the end of the vmm", lambda: not vmms())
    # What it could not remove goes away with the next command.
    status, out, err = run("list", env=env)
    same((status, out.count("\n")), (0, 1), out)
    same(leftovers(env), [])


def a_closed_terminal_and_other_signals_end_the_machine():
    for sig in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        p = start_spin()
        p.send_signal(sig)
        out, err = p.communicate(timeout=10)
        same(p.returncode, 128 + sig, err)
        all_gone(env)


def a_reader_that_goes_away_ends_the_run():
    p = popen("run", "--kernel", flood, *SMALL, env=env)
    same(p.stdout.read(4), b"FFFF")
    p.stdout.close()
    p.wait(10)
    all_gone(env)


# ---- limits ----

def the_vmm_inherits_only_what_is_listed():
    extra = os.open(path("secret", b"x" * 600), os.O_RDONLY)
    os.set_inheritable(extra, True)
    disk = path("disk", size=1 << 20)
    p = start_spin("--disk", disk, close_fds=False)
    pid = vmms()[0]
    seen = {}
    for fd in os.listdir("/proc/%d/fd" % pid):
        seen[int(fd)] = os.readlink("/proc/%d/fd/%s" % (pid, fd))
    p.terminate()
    p.wait(10)
    os.close(extra)
    allowed = re.compile(
        r"^(/dev/null|pipe:\[\d+\]|socket:\[\d+\]|anon_inode:.*|/memfd:.*|"
        r"%s|%s|.*/console\.log|/dev/kvm|"
        r"/proc/%d/(status|smaps|task/\d+/schedstat))$" %
        (re.escape(disk), re.escape(spin), pid))
    for fd, target in seen.items():
        assert allowed.match(target), "%d: %s of %s" % (fd, target, seen)
    assert disk in seen.values(), seen


def limits_that_are_hit_give_an_error_not_a_crash():
    k = os.path.join(tmp, "bye.elf")

    def limited(which, value):
        def set_limit():
            resource.setrlimit(which, (value, value))
        got, out, err = run("run", "--kernel", k, "--debug-exit",
                            "--memory", "256M", env=env, timeout=20,
                            preexec_fn=set_limit)
        same(vmms(), [])
        # A CLI that could not even open a folder cannot remove it: the next
        # command does.
        run("list", env=env)
        same(leftovers(env), [])
        assert got in (1, 127) or err == "", (value, got, out, err)
        if err and got != 127:  # 127: the loader found no room
            has(err, "skerry: ")
        assert got < 128 and got >= 0, (which, value, got, err)
        return err
    errors = 0
    for n in list(range(4, 40, 3)) + [64]:
        errors += limited(resource.RLIMIT_NOFILE, n) != ""
    for mib in (8, 16, 64, 200, 300):
        errors += limited(resource.RLIMIT_AS, mib << 20) != ""
    errors += limited(resource.RLIMIT_FSIZE, 0) != ""
    errors += limited(resource.RLIMIT_FSIZE, 1 << 20) != ""
    assert errors > 5, errors


def a_file_size_limit_gives_the_guest_an_error_only():
    """The console log may not grow: the run goes on without it."""
    k = assemble("lines", """
	mov $200000, %ecx
	mov $0x3f8, %dx
	mov $'L', %al
1:	out %al, %dx
	loop 1b
	mov $1, %al
	out %al, $0xf4
""" + SPIN)

    def set_limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
    # stdout is a pipe, which has no such limit; RAM is a memfd, which has.
    got, out, err = run("run", "--kernel", k, "--debug-exit", *SMALL,
                        env=env, preexec_fn=set_limit)
    assert got in (1, 3), (got, err)
    all_gone(env)


def a_flood_of_output_stays_bounded():
    p = popen("launch", "--kernel", flood, "--name", "flood", "--no-wait",
              *SMALL, env=env)
    out, err = p.communicate(timeout=20)
    same(p.returncode, 0, err)
    pid = vmms()[0]
    log = os.path.join(env["SKERRY_RUN_DIR"], "flood", "console.log")
    # A console client that does not read does not slow or grow it.
    slow = popen("console", "flood", env=env, stdin=subprocess.PIPE)
    wait_for("output", lambda: os.path.getsize(log) > 1 << 20, 60)
    time.sleep(2)
    assert os.stat(log).st_blocks * 512 <= 9 << 20, os.path.getsize(log)
    with open("/proc/%d/status" % pid) as f:
        kib = int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))
    assert kib < 96 << 10, "%d KiB resident" % kib
    slow.kill()
    slow.wait()
    same(run("delete", "--force", "flood", env=env)[0], 0)
    all_gone(env)


for test in (a_missing_image_names_what_to_do,
             an_unreadable_image_is_said_to_be_unreadable,
             a_kernel_of_the_wrong_kind_is_refused,
             a_truncated_bzimage_is_refused,
             too_little_memory_says_how_much_is_needed,
             more_memory_than_the_host_has_is_refused,
             an_initrd_larger_than_memory_is_refused,
             a_path_that_is_no_file_is_refused_at_once,
             a_symlink_to_a_disk_is_followed,
             an_image_in_use_names_the_process_that_has_it,
             readers_may_share_an_image,
             no_space_for_the_image_leaves_nothing,
             unknown_words_name_the_nearest,
             a_build_without_a_network_says_so_and_leaves_nothing,
             an_interrupted_build_leaves_nothing,
             a_guest_that_never_becomes_ready_times_out,
             exec_in_a_guest_without_the_agent_says_so,
             a_guest_that_ends_before_it_is_ready_says_how,
             a_killed_vmm_is_reported_and_leaves_nothing,
             a_killed_vmm_ends_a_waiting_command_with_125,
             a_killed_command_line_takes_its_machine_with_it,
             a_closed_terminal_and_other_signals_end_the_machine,
             a_reader_that_goes_away_ends_the_run,
             the_vmm_inherits_only_what_is_listed,
             limits_that_are_hit_give_an_error_not_a_crash,
             a_file_size_limit_gives_the_guest_an_error_only,
             a_flood_of_output_stays_bounded):
    suite.check(test)
suite.end()
