# SPDX-License-Identifier: Apache-2.0
"""What the system tests share: counting, private folders, processes that are
ended whatever happens, tiny guests, and a busybox initramfs.

A test is a function given to Suite.check: it raises AssertionError (or Skip)
and is counted under its name, which states the rule."""
import atexit, fcntl, os, select, shutil, signal, struct, subprocess, sys
import tempfile, termios, time, traceback

top = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
build = os.environ.get("SKERRY_BUILD", os.path.join(top, "build"))
skerry = os.path.join(build, "skerry")
IMAGE = "debian/12"


class Skip(Exception):
    pass


class Suite:
    def __init__(self, is_isolated=True):
        self.is_isolated = is_isolated  # no test builds on another's
        self.passed = self.failed = self.skipped = 0

    def check(self, test, *args):
        name = test.__name__
        start = time.monotonic()
        try:
            test(*args)
            self.passed += 1
            word = "ok"
        except Skip as e:
            self.skipped += 1
            word = "SKIP: %s:" % e
        except Exception:
            self.failed += 1
            word = "FAIL"
            traceback.print_exc(file=sys.stdout)
        if word == "FAIL" and self.is_isolated:
            end_all()
        print("%-4s %s (%.1f s)" % (word, name, time.monotonic() - start),
              flush=True)

    def end(self):
        cleanup()
        print("%d passed, %d failed, %d skipped" %
              (self.passed, self.failed, self.skipped))
        sys.exit(1 if self.failed else 0)


def user_data_dir():
    if os.environ.get("SKERRY_DATA_DIR"):
        return os.environ["SKERRY_DATA_DIR"]
    if os.geteuid() == 0:
        return "/var/lib/skerry"
    if os.environ.get("XDG_DATA_HOME"):
        return os.path.join(os.environ["XDG_DATA_HOME"], "skerry")
    return os.path.expanduser("~/.local/share/skerry")


image_dir = os.path.join(user_data_dir(), "images", IMAGE)
tmp = tempfile.mkdtemp(prefix="skerry-test-")
started = []  # pids that cleanup() ends


def private_env(tag="main"):
    """Folders that no other test sees."""
    base = os.path.join(tmp, tag)
    data, run = os.path.join(base, "d"), os.path.join(base, "r")
    os.makedirs(data, exist_ok=True)
    os.makedirs(run, mode=0o700, exist_ok=True)
    return dict(os.environ, SKERRY_DATA_DIR=data, SKERRY_RUN_DIR=run)


def private_image(env):
    """A copy of the cached image in env's folders, with the agent of this
    build in it: the cached one may be older."""
    debian_kernel()
    mine = os.path.join(env["SKERRY_DATA_DIR"], "images", IMAGE)
    os.makedirs(mine)
    for name in ("vmlinuz", "initrd.img", "image.json"):
        os.symlink(os.path.join(image_dir, name), os.path.join(mine, name))
    disk = os.path.join(mine, "disk.raw")
    subprocess.run(["cp", "--sparse=always", "--reflink=auto",
                    os.path.join(image_dir, "disk.raw"), disk], check=True)
    agent = "/usr/sbin/skerry-agent"
    subprocess.run(
        ["debugfs", "-w", "-f", "-", disk], check=True, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin"),
        input="rm %s\nwrite %s %s\nset_inode_field %s mode 0100755\n"
        "set_inode_field %s uid 0\nset_inode_field %s gid 0\n" %
        (agent, os.path.join(build, "skerry-agent"), agent, agent, agent,
         agent))


def end_all():
    """Ends every process of a test that failed, and removes its machines."""
    for pid in started:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for pid in vmms():
        os.kill(pid, signal.SIGKILL)
    started.clear()
    for e in os.listdir(tmp) if os.path.isdir(tmp) else ():
        for part in ("r", "d/machines"):
            folder = os.path.join(tmp, e, part)
            for m in os.listdir(folder) if os.path.isdir(folder) else ():
                shutil.rmtree(os.path.join(folder, m), ignore_errors=True)


def cleanup():
    end_all()
    shutil.rmtree(tmp, ignore_errors=True)


def vmms():
    """The skerry-vmm processes whose run folder is under our tmp."""
    found = []
    for p in os.listdir("/proc"):
        if not p.isdigit():
            continue
        try:
            with open("/proc/%s/environ" % p, "rb") as f:
                env = f.read()
            with open("/proc/%s/comm" % p) as f:
                comm = f.read().strip()
        except OSError:
            continue
        if comm == "skerry-vmm" and tmp.encode() in env:
            found.append(int(p))
    return found


def leftovers(env):
    """Files of machines under env's folders: [] when all was cleaned up."""
    found = []
    for root in (env["SKERRY_RUN_DIR"],
                 os.path.join(env["SKERRY_DATA_DIR"], "machines")):
        if os.path.isdir(root):
            found += [os.path.join(root, e) for e in os.listdir(root)
                      if e != ".host.json"]  # what is known of the host
    return found


def wait_for(what, condition, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError("%s: not within %d s" % (what, seconds))


def all_gone(env):
    """No process and no folder is left; a process may still be exiting."""
    wait_for("the end of every vmm", lambda: not vmms(), 5)
    same(leftovers(env), [])


def same(got, want, text=""):
    assert got == want, "got %r, wanted %r\n%s" % (got, want, text)


def has(text, part):
    assert part in text, "no %r in:\n%s" % (part, text[-3000:])


def run(*args, env=None, stdin=b"", timeout=60, **more):
    """skerry ARGS: (status, stdout, stderr) as text."""
    p = popen(*args, env=env, stdin=subprocess.PIPE, **more)
    try:
        out, err = p.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        p.kill()
        out, err = p.communicate()
        raise AssertionError("skerry %s: still there after %d s\n%s\n%s" % (
            " ".join(args), timeout, out.decode(errors="replace")[-2000:],
            err.decode(errors="replace")[-2000:]))
    return (p.returncode, out.decode(errors="replace"),
            err.decode(errors="replace"))


def popen(*args, env=None, stdin=subprocess.DEVNULL,
          stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more):
    p = subprocess.Popen([skerry, *args], env=env or private_env(),
                         stdin=stdin, stdout=stdout, stderr=stderr, **more)
    started.append(p.pid)
    return p


class Terminal:
    """skerry ARGS on a terminal of its own: what a person types and sees."""

    def __init__(self, *args, env=None, rows=30, columns=100):
        self.master, slave = os.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(slave)
        self.slave = slave

        def own_terminal():
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        self.process = popen(*args, env=env, stdin=slave, stdout=slave,
                             stderr=slave, start_new_session=True,
                             preexec_fn=own_terminal)
        self.seen = ""

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ,
                    struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.master, text.encode())

    def see(self, text, seconds=20):
        """Waits for text; what was seen up to its end is forgotten."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            left = end - time.monotonic()
            assert left > 0, "no %r within %d s in:\n%s" % (
                text, seconds, self.seen[-3000:])
            if select.select([self.master], [], [], left)[0]:
                try:
                    more = os.read(self.master, 65536)
                except OSError:
                    more = b""
                self.seen += more.decode(errors="replace")
        head, _, self.seen = self.seen.partition(text)
        return head

    def is_as_before(self):
        return termios.tcgetattr(self.slave) == self.before

    def end(self, seconds=20):
        """The exit status; the terminal must be as it was."""
        status = self.process.wait(seconds)
        assert self.is_as_before(), "the terminal was not restored"
        self.close()
        return status

    def close(self):
        for fd in (self.master, self.slave):
            if fd >= 0:
                os.close(fd)
        self.master = self.slave = -1


def assemble(name, code):
    """A multiboot 1 kernel in 32-bit code; returns its path."""
    base = os.path.join(tmp, name)
    with open(base + ".S", "w") as f:
        f.write("""
	.set MAGIC, 0x1badb002
	.section .multiboot,"a"
	.align 4
	.long MAGIC, 0, -MAGIC
	.text
	.globl _start
_start:
""" + code)
    subprocess.run(["as", "--32", "-o", base + ".o", base + ".S"], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext", "0x100000", "-N",
                    "--no-warn-rwx-segments", "-o", base + ".elf",
                    base + ".o"], check=True)
    return base + ".elf"


SPIN = "1:	hlt\n	jmp 1b\n"


def debian_kernel():
    """The cached image's kernel; the image is built when there is none."""
    path = os.path.join(image_dir, "vmlinuz")
    if not os.path.exists(path):
        r = subprocess.run([skerry, "image", "build", IMAGE],
                           stdin=subprocess.DEVNULL, timeout=500,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           text=True)
        if r.returncode:
            raise Skip("no image and none could be built: " +
                       r.stdout.strip().splitlines()[-1])
    return path


def initramfs(name, init):
    """busybox and an init script in a cpio archive; returns its path."""
    busybox = shutil.which("busybox")
    if not busybox:
        raise Skip("no busybox-static")
    root = os.path.join(tmp, name)
    for d in ("bin", "proc", "sys", "dev"):
        os.makedirs(os.path.join(root, d), exist_ok=True)
    shutil.copy(busybox, os.path.join(root, "bin/busybox"))
    with open(os.path.join(root, "init"), "w") as f:
        f.write("#!/bin/busybox sh\n"
                "/bin/busybox --install -s /bin\n"
                "export PATH=/bin\n"
                "mount -t proc proc /proc; mount -t sysfs sys /sys\n"
                "mount -t devtmpfs dev /dev 2>/dev/null\n" + init)
    os.chmod(os.path.join(root, "init"), 0o755)
    path = root + ".cpio"
    with open(path, "wb") as out:
        subprocess.run("find . | cpio -o -H newc --quiet", shell=True,
                       cwd=root, stdout=out, check=True)
    return path


def on_signal(sig, frame):
    sys.exit(128 + sig)


signal.signal(signal.SIGTERM, on_signal)
atexit.register(cleanup)
