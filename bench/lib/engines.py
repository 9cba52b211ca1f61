# SPDX-License-Identifier: Apache-2.0
"""Where workloads run: natively, in a Skerry guest, in a QEMU guest.

Every engine has the same end: bench/workloads/agent.c, which runs one command
at a time and answers. Natively it runs in the image's own files (a chroot in
private namespaces), so the programs are the same files in all three.

The CPU time of a guest is that of the whole VMM process, all threads, living
and ended, read from its CPU clock (Linux: clock_getcpuclockid(3)) just before
the command is sent and just after its answer came."""
import json, os, re, select, shutil, signal, socket, subprocess, tempfile, time

import assets

BOOT_LIMIT_S = 900
SETTLE_LIMIT_S = 120
LIMIT_STATUS = 999  # agent.c: STATUS_LIMIT
GRACE_S = 60        # a guest that does not answer by then hangs
SETUP = ("mount -t tmpfs -o mode=1777 tmpfs /tmp && mkdir -p /bench && "
         "mount -o ro /dev/vdb /bench && ")


class Hang(Exception):
    """The guest did not answer in time."""


class Gone(Hang):
    """The machine, or the agent in it, ended or never came up."""


def process_cpu_ns(pid):
    return time.clock_gettime_ns(~pid << 3 | 2)


def status_kib(pid, name):
    with open("/proc/%d/status" % pid) as f:
        m = re.search(r"^%s:\s+(\d+)" % name, f.read(), re.M)
    return int(m.group(1)) if m else 0


def end_process(p):
    """Ends a process that we started; by its pid, and waits for it."""
    if p and p.poll() is None:
        p.kill()
    if p:
        p.wait()


class Channel:
    """Lines and bytes to and from the agent, each with a time limit."""

    def __init__(self, read_fd, write_fd, is_gone=lambda: False):
        self.read_fd, self.write_fd = read_fd, write_fd
        self.is_gone, self.seen = is_gone, b""

    def send(self, line):
        try:
            os.write(self.write_fd, line.encode() + b"\n")
        except OSError as e:
            raise Gone("the agent is gone: %s" % e)

    def _more(self, deadline, what):
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Hang("no %s in time" % what)
            if select.select([self.read_fd], [], [], min(left, 1))[0]:
                break
            if self.is_gone():
                raise Gone("the machine ended")
        try:
            chunk = os.read(self.read_fd, 65536)
        except OSError:
            chunk = b""
        if not chunk:
            raise Gone("the machine ended")
        self.seen += chunk

    def until(self, mark, seconds, what):
        """What comes before mark; mark is taken too."""
        deadline = time.monotonic() + seconds
        while mark not in self.seen:
            self._more(deadline, what)
        head, _, self.seen = self.seen.partition(mark)
        return head

    def exactly(self, count, seconds):
        deadline = time.monotonic() + seconds
        while len(self.seen) < count:
            self._more(deadline, "output")
        head, self.seen = self.seen[:count], self.seen[count:]
        return head


class Engine:
    """One machine (or the host). start() returns when the agent is ready."""
    name = ""

    def __init__(self, cpus=1, memory_mib=2048):
        self.cpus, self.memory_mib = cpus, memory_mib
        self.channel = None
        self.parts = []  # processes to end, last first
        self.dir = None

    def cpu_ns(self):
        raise NotImplementedError

    def run(self, command, limit_s):
        """Runs it; returns what was measured. Hang: end() us, start anew."""
        before, start = self.cpu_ns(), time.monotonic()
        self.channel.send("run %d %s" % (limit_s, command))
        line = self.channel.until(b"\n", limit_s + GRACE_S, "answer")
        after, wall = self.cpu_ns(), time.monotonic() - start
        words = line.decode(errors="replace").split()
        if len(words) != 6 or words[0] != "end":
            raise Gone("a strange answer: %r" % line[:100])
        status, user_us, sys_us, inner_ns, count = map(int, words[1:])
        r = {"exit": status, "wall_s": wall, "inner_wall_s": inner_ns / 1e9,
             "inner_user_s": user_us / 1e6, "inner_sys_s": sys_us / 1e6,
             "cpu_s": (after - before) / 1e9,
             "output": self.channel.exactly(count, GRACE_S).decode(
                 errors="replace")}
        if self.name == "native":
            r["cpu_s"] = r["inner_user_s"] + r["inner_sys_s"]
        return r

    def clock(self):
        """(host ns before, guest ns, host ns after) of the realtime clock."""
        before = time.time_ns()
        self.channel.send("clock")
        words = self.channel.until(b"\n", GRACE_S, "clock").split()
        return before, int(words[1]), time.time_ns()

    def settle(self):
        """Waits until what the boot still does is over: less than 5 % of a
        CPU for a second, or two minutes."""
        end = time.monotonic() + SETTLE_LIMIT_S
        while time.monotonic() < end:
            before = self.cpu_ns()
            time.sleep(1)
            if self.cpu_ns() - before < 50e6:
                return

    def make_dir(self):
        self.dir = tempfile.mkdtemp(prefix="%s-" % self.name, dir=assets.home)
        return self.dir

    def end(self):
        for p in reversed(self.parts):
            end_process(p)
        self.parts = []
        if self.dir:
            shutil.rmtree(self.dir, ignore_errors=True)
            self.dir = None


NATIVE_SCRIPT = """set -e
mount --make-rprivate / 2>/dev/null || :
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -t tmpfs -o mode=1777 tmpfs "$1/tmp"
mount --bind "$2" "$1/bench"
exec chroot "$1" /bench/bin/agent
"""


class Native(Engine):
    name = "native"

    def start(self):
        flags = ["-m", "-p", "-f", "--kill-child=KILL"]
        if os.geteuid() != 0:
            flags.append("-r")
        p = subprocess.Popen(
            ["unshare", *flags, "sh", "-c", NATIVE_SCRIPT, "sh", assets.root,
             assets.work], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True)
        self.parts.append(p)
        self.channel = Channel(p.stdout.fileno(), p.stdin.fileno())
        try:
            self.channel.until(b"ready\n", 30, "agent")
        except Hang:
            end_process(p)
            raise assets.Missing(
                "native runs need namespaces and a chroot: %s" %
                p.stderr.read().decode(errors="replace").strip())

    def cpu_ns(self):
        return 0  # the agent's word on its children is what counts


class Skerry(Engine):
    name = "skerry"

    def start(self, image=None, with_work=True, engine="soft", more=()):
        base = self.make_dir()
        data, run = os.path.join(base, "d"), os.path.join(base, "r")
        os.makedirs(data)
        # The path of a socket is short; a build folder's may not be.
        self.run_dir = tempfile.mkdtemp(prefix="skerry-bench-")
        os.symlink(os.path.join(assets.data_dir(), "images"),
                   os.path.join(data, "images"))
        self.env = dict(os.environ, SKERRY_DATA_DIR=data,
                        SKERRY_RUN_DIR=self.run_dir)
        self.pid = 0
        args = ["--name", "bench", "--engine", engine, "--cpus",
                str(self.cpus), "--memory", "%dM" % self.memory_mib]
        if with_work:
            args += ["--disk", assets.work_disk + ",readonly"]
        args += more
        launcher = subprocess.Popen(
            [assets.skerry, "launch", image or assets.IMAGE, *args,
             "--timeout", str(BOOT_LIMIT_S)], env=self.env,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True)
        self.parts.append(launcher)
        try:
            text, _ = launcher.communicate(timeout=BOOT_LIMIT_S + 30)
        except subprocess.TimeoutExpired:
            raise Hang("skerry launch does not return")
        if launcher.returncode:
            raise Gone("skerry launch: status %d: %s" % (
                launcher.returncode, text.decode(errors="replace")[-800:]))
        self.pid = self.find_pid()
        if with_work:
            self.attach()

    def find_pid(self):
        text = subprocess.run([assets.skerry, "list"], env=self.env,
                              capture_output=True, text=True).stdout
        for line in text.splitlines():
            words = line.split()
            if len(words) >= 6 and words[0] == "bench" and \
                    words[5].isdigit() and int(words[5]) > 0:
                return int(words[5])
        raise Gone("skerry list does not show the machine:\n" + text)

    def counters(self):
        """The VMM's and its engine's, by name."""
        r = subprocess.run([assets.skerry, "info", "--engine", "--json",
                            "bench"], env=self.env, capture_output=True,
                           text=True)
        if r.returncode:
            raise Gone("skerry info: " + r.stderr.strip()[-300:])
        return {c["name"]: c["value"]
                for c in json.loads(r.stdout)["counters"]}

    def log(self):
        """What the VMM itself wrote, among the console's lines."""
        path = os.path.join(self.run_dir, "bench", "console.log")
        try:
            with open(path, errors="replace") as f:
                return "".join(line for line in f
                               if line.startswith("skerry-vmm: "))
        except OSError:
            return ""

    def attach(self):
        p = subprocess.Popen(
            [assets.skerry, "exec", "bench", "--", "/bin/sh", "-c",
             SETUP + "exec /bench/bin/agent"], env=self.env,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, start_new_session=True)
        self.parts.append(p)
        self.channel = Channel(p.stdout.fileno(), p.stdin.fileno())
        self.channel.until(b"ready\n", BOOT_LIMIT_S, "agent")

    def cpu_ns(self):
        try:
            return process_cpu_ns(self.pid)
        except OSError:
            raise Gone("skerry-vmm ended")

    def end(self):
        if getattr(self, "env", None) is None:
            return
        if not self.pid:
            try:
                self.pid = self.find_pid()
            except Hang:
                pass
        if self.pid:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            end = time.monotonic() + 10
            while time.monotonic() < end and \
                    os.path.exists("/proc/%d" % self.pid):
                time.sleep(0.05)
        shutil.rmtree(self.run_dir, ignore_errors=True)
        self.env = None
        super().end()


class Qemu(Engine):
    name = "qemu"

    def start(self, image=None, with_work=True):
        program = assets.need_program("qemu-system-x86_64", "qemu-system-x86")
        folder = assets.image_dir(image or assets.IMAGE)
        base = self.make_dir()
        disk = os.path.join(base, "disk.raw")
        subprocess.run(["cp", "--sparse=always", "--reflink=auto",
                        os.path.join(folder, "disk.raw"), disk], check=True)
        self.sockets = tempfile.mkdtemp(prefix="skerry-bench-")
        self.process = self.launch(program, [
            "-kernel", os.path.join(folder, "vmlinuz"),
            "-initrd", os.path.join(folder, "initrd.img"),
            "-append", "console=ttyS0 root=/dev/vda rw",
            "-drive", "if=none,id=d0,format=raw,file=" + disk,
            "-device", "virtio-blk-pci,drive=d0"], with_work)
        self.console = self.connect("console")
        self.console.until(b"login:", BOOT_LIMIT_S, "login prompt")
        if with_work:
            self.attach()

    def launch(self, program, more, with_work):
        sock = "socket,id=%s,path=" + self.sockets + "/%s,server=on,wait=off"
        args = [program, "-machine", "q35", "-accel",
                "tcg,thread=%s" % ("multi" if self.cpus > 1 else "single"),
                "-cpu", "max", "-smp", str(self.cpus), "-m",
                "%dM" % self.memory_mib, "-object",
                # Shared, as Skerry's: RssShmem is the guest's memory, and
                # the rest is what the VMM takes beside it.
                "memory-backend-memfd,id=ram,share=on,size=%dM" %
                self.memory_mib, "-machine", "memory-backend=ram",
                "-nodefaults", "-no-user-config",
                "-no-reboot", "-display", "none", "-netdev", "user,id=n0",
                "-device", "virtio-net-pci,netdev=n0,romfile=", "-device",
                "virtio-rng-pci", "-chardev", sock % ("console", "console"),
                "-serial", "chardev:console", *more]
        if with_work:
            # Skerry's machine reads the same file and has it locked.
            args += ["-drive", "if=none,id=d1,format=raw,readonly=on,"
                     "file.locking=off,file.filename=" + assets.work_disk,
                     "-device", "virtio-blk-pci,drive=d1",
                     "-chardev", sock % ("agent", "agent"), "-device",
                     "virtio-serial-pci", "-device",
                     "virtserialport,chardev=agent,name=bench"]
        self.log = open(os.path.join(self.dir, "log"), "w+b")
        p = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=self.log,
                             stderr=self.log, start_new_session=True)
        self.parts.append(p)
        return p

    def connect(self, name):
        path = os.path.join(self.sockets, name)
        s = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + 20
        while True:
            try:
                s.connect(path)
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    self.log.seek(0)
                    raise Gone("qemu ended: " + self.log.read(800).decode(
                        errors="replace"))
                time.sleep(0.05)
        setattr(self, name + "_socket", s)
        return Channel(s.fileno(), s.fileno(),
                       lambda: self.process.poll() is not None)

    def attach(self):
        self.channel = self.connect("agent")
        self.log_in()
        self.console.send(
            SETUP + "exec /bench/bin/agent /dev/virtio-ports/bench")
        self.channel.until(b"ready\n", 300, "agent")

    def log_in(self):
        """Root, who has no password, on the console; after `login:`. What is
        typed while login starts is thrown away, so it is typed again."""
        self.console.send("root")
        end = time.monotonic() + 300
        while True:
            try:
                # $((1)): what the terminal echoes is not what sh prints.
                self.console.until(b"in-1", 4, "shell on the console")
                return
            except Gone:
                raise
            except Hang:
                if time.monotonic() > end:
                    raise
            at_login = self.console.seen.rstrip().endswith(b"login:")
            self.console.send("root" if at_login else "echo in-$((1))")

    def cpu_ns(self):
        try:
            return process_cpu_ns(self.process.pid)
        except OSError:
            raise Gone("qemu ended")

    @property
    def pid(self):
        return self.process.pid

    def end(self):
        for name in ("console", "agent"):
            s = getattr(self, name + "_socket", None)
            if s:
                s.close()
        super().end()
        if getattr(self, "sockets", None):
            shutil.rmtree(self.sockets, ignore_errors=True)


engines = {e.name: e for e in (Native, Skerry, Qemu)}
