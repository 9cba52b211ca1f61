# SPDX-License-Identifier: Apache-2.0
"""Programs that run one after the other in one guest: a busybox initramfs with
the programs, the libraries they need, and what each is to print.

    b = Bundle("name")
    b.add("/host/program")                   # to /t/program, with libraries
    b.job("test-a", "./program x", seconds=20, want=bytes or None)
    for r in b.boot(cpus=1): r.name, r.status, r.is_same, r.text

A job's output goes to a file in the guest; the console carries its end only,
and, when there is a `want` from which it differs, the first differing lines.
The host runs what it runs in the same folder layout, so that names in messages
agree (Bundle.host)."""
import os, re, shutil, subprocess

import guest

LOOP = """
mkdir -p /tmp /dev/pts /dev/shm /run
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
ln -s /proc/self/fd /dev/fd 2>/dev/null
ip link set lo up
ulimit -c 0
export HOME=/tmp TZ=UTC LC_ALL=C
cd /t
while read -r name seconds; do
	timeout -s KILL $seconds sh /jobs/$name.sh </dev/null >/tmp/out 2>&1
	status=$?
	how=-
	if [ -f /jobs/$name.want ]; then
		how=same
		cmp -s /tmp/out /jobs/$name.want || how=differs
	fi
	echo
	echo "@begin $name $status $how"
	if [ $how = differs ]; then
		# diff takes long over long files
		timeout 20 diff -U1 /jobs/$name.want /tmp/out | head -n 60 |
			cut -c 1-300
	elif [ $how = - ]; then
		tail -c 6000 /tmp/out
	fi
	echo
	echo "@end $name"
	rm -f /tmp/out
done </jobs/list
echo "@begin dmesg 0 -"
dmesg | grep -v ' traps: ' |
	grep -E 'WARNING:|BUG:|Oops|Call Trace|general protection|lockup|stall'
echo
echo "@end dmesg"
poweroff -f
"""


class Result:
    def __init__(self, name, status, how, text):
        self.name, self.status, self.text = name, status, text
        self.is_same = how == "same"
        self.differs = how == "differs"


def libraries(program):
    """The libraries and the interpreter that the dynamic linker names."""
    r = subprocess.run(["ldd", program], capture_output=True, text=True)
    return re.findall(r"(/\S+) \(0x", r.stdout) if r.returncode == 0 else []


class Bundle:
    def __init__(self, name):
        self.name = name
        self.jobs = []
        self.init = LOOP
        self.root = os.path.join(guest.tmp, name)
        for d in ("t", "jobs"):
            os.makedirs(os.path.join(self.root, d), exist_ok=True)

    def add(self, source, place=None):
        """Copies a program (to /t unless place says where) and what it
        is linked with."""
        place = place or "/t/" + os.path.basename(source)
        self.copy(source, place)
        self.libraries_of(source)

    def libraries_of(self, program):
        for library in libraries(program):
            if not library.startswith(self.root):
                self.copy(library, library)

    def copy(self, source, place):
        target = self.root + place
        if os.path.lexists(target):
            return
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.isdir(source):
            shutil.copytree(source, target, symlinks=True)
        else:
            shutil.copy(source, target)

    def job(self, name, command, seconds=30, want=None):
        assert re.fullmatch(r"[\w.+-]+", name), name
        self.jobs.append((name, seconds))
        base = os.path.join(self.root, "jobs", name)
        with open(base + ".sh", "w") as f:
            f.write(command + "\n")
        if want is not None:
            with open(base + ".want", "wb") as f:
                f.write(want)

    def host(self, command, seconds=30):
        """(status, output) of a job's command on the host."""
        r = subprocess.run(
            ["timeout", "-s", "KILL", str(seconds), "busybox", "sh", "-c",
             "ulimit -c 0\n" + command],
            cwd=os.path.join(self.root, "t"), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=dict(os.environ, HOME="/tmp", TZ="UTC", LC_ALL="C"))
        status = r.returncode
        return (128 - status if status < 0 else status), r.stdout

    def boot(self, cpus=1, memory="512M", timeout=300, append="", options=()):
        """Runs every job; returns the results of those that came to an end."""
        with open(os.path.join(self.root, "jobs/list"), "w") as f:
            f.writelines("%s %d\n" % j for j in self.jobs)
        initrd = guest.initramfs(self.name, self.init)
        try:
            status, out, err = guest.run(
                "run", "--engine", "soft",
                "--kernel", guest.debian_kernel(), "--initrd", initrd,
                "--append",
                "console=ttyS0 quiet loglevel=1 panic=-1 " + append,
                "--cpus", str(cpus), "--memory", memory, "--network", "none",
                "--no-reboot", *options, timeout=timeout)
            self.console = out + err
        except AssertionError as e:
            self.console = str(e)
        finally:
            os.unlink(initrd)
        text = self.console.replace("\r", "")
        found = re.findall(r"^@begin (\S+) (\d+) (\S+)\n(.*?)\n@end \1$", text,
                           re.S | re.M)
        return [Result(n, int(s), how, t.strip()) for n, s, how, t in found]

    def check(self, suite, results, skip=()):
        """Counts each job under its name: it ended with status 0 and, where
        there is one, printed its `want`. skip: name -> why a failure counts
        as skipped. The guest's kernel must not have complained."""
        found = {r.name: r for r in results}
        for name, seconds in self.jobs + [("dmesg", 0)]:
            suite.check(self.verdict(name, found.get(name), dict(skip)))

    def verdict(self, name, r, skip):
        def test():
            assert r, "did not end; the console:\n" + self.console[-1500:]
            bad = r.status or r.differs or (name == "dmesg" and r.text)
            if bad and name in skip:
                raise guest.Skip(skip[name])
            assert not bad, "status %d\n%s" % (r.status, r.text[-4000:])
        test.__name__ = name
        return test


def debian(package):
    """Unpacks a package of the host's sources (a binary one: its files);
    returns the folder."""
    folder = os.path.join(guest.tmp, "deb", package)
    os.makedirs(folder)
    r = subprocess.run(["apt-get", "download", "-q", package], cwd=folder,
                       capture_output=True, text=True, timeout=300)
    debs = [f for f in os.listdir(folder) if f.endswith(".deb")]
    if r.returncode or not debs:
        raise guest.Skip("no package %s: %s" %
                         (package, (r.stderr.strip() or "?").splitlines()[-1]))
    path = os.path.join(folder, debs[0])
    subprocess.run(["dpkg-deb", "-x", path, folder], check=True)
    os.unlink(path)
    return folder


def debian_source(package):
    """Unpacks a source package from the host's sources; returns its folder."""
    folder = os.path.join(guest.tmp, "src", package)
    os.makedirs(folder)
    script = os.path.join(guest.top, "scripts/debian-source")
    r = subprocess.run([script, package, folder], capture_output=True,
                       text=True, timeout=300)
    if r.returncode:
        raise guest.Skip("no source of %s: %s" % (
            package, (r.stderr.strip() or "?").splitlines()[-1]))
    return os.path.join(folder, package)
