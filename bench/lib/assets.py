# SPDX-License-Identifier: Apache-2.0
"""What the benchmark needs on disk, made once under build/bench:

work/      the workloads' programs (static, gcc -O2), scripts and inputs: the
           folder /bench of every engine
work.img   the same as an ext4 disk, for the guests
root/      the image's files, the userland of the native runs
IMAGE      an image of Debian 12 with the programs that workloads use, in
           skerry's own store (`skerry image delete debian/12-bench`)"""
import fcntl, glob, hashlib, os, random, shutil, subprocess, sys

top = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
build = os.environ.get("SKERRY_BUILD", os.path.join(top, "build"))
skerry = os.path.join(build, "skerry")
home = os.path.join(build, "bench")
work, work_disk = os.path.join(home, "work"), os.path.join(home, "work.img")
root = os.path.join(home, "root")
sources = os.path.join(top, "bench/workloads")

IMAGE = "debian/12-bench"
PACKAGES = """gcc libc6-dev make python3 perl lua5.4 luajit sqlite3 nodejs gawk
xz-utils zstd p7zip-full bzip2 gzip openssl""".split()
CFLAGS = ["-O2", "-Wall", "-Wextra", "-ffp-contract=off", "-fno-math-errno",
          "-static"]
TEXT_BYTES, BLOCK_BYTES, BINARY_BYTES = 8 << 20, 64 << 20, 2 << 20


class Missing(Exception):
    """Something that a person has to provide; the text says what."""


def data_dir():
    if os.environ.get("SKERRY_DATA_DIR"):
        return os.environ["SKERRY_DATA_DIR"]
    if os.geteuid() == 0:
        return "/var/lib/skerry"
    return os.path.join(os.environ.get("XDG_DATA_HOME") or
                        os.path.expanduser("~/.local/share"), "skerry")


def image_dir(image=IMAGE):
    return os.path.join(data_dir(), "images", image)


def say(text):
    print("bench: " + text, file=sys.stderr, flush=True)


def step(what, command, **more):
    """Runs a command; its words are shown only when it fails."""
    env = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")
    r = subprocess.run(command, stdin=subprocess.DEVNULL, text=True,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       errors="replace", env=env, **more)
    if r.returncode:
        raise Missing("%s failed:\n%s" % (what, r.stdout[-2000:]))
    return r.stdout


def need_program(name, package):
    """The program's path; root gets it installed, others are told how."""
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if found:
        return found
    if os.geteuid() != 0:
        raise Missing("%s is missing: as root, apt-get install %s" %
                      (name, package))
    say("installing %s" % package)
    step("apt-get update", ["apt-get", "update", "-q"])
    step("apt-get install " + package,
         ["apt-get", "install", "-y", "-q", "--no-install-recommends",
          package])
    found = shutil.which(name)
    if not found:
        raise Missing("%s: %s does not hold it" % (name, package))
    return found


def need_image():
    """The image, built when there is none or when it holds other packages."""
    folder = image_dir()
    mark = os.path.join(folder, "bench-packages")
    want = " ".join(PACKAGES) + "\n"
    if os.path.exists(mark) and open(mark).read() == want:
        return folder
    say("building image %s (some minutes)" % IMAGE)
    options = [x for p in PACKAGES for x in ("--package", p)]
    step("image build", [skerry, "image", "build", IMAGE, "--suite",
                         "bookworm", "--size", "6G", *options])
    with open(mark, "w") as f:
        f.write(want)
    return folder


def need_root():
    """The image's files in a folder. Owners are lost where we are not root;
    the workloads do not look."""
    disk = os.path.join(need_image(), "disk.raw")
    mark = os.path.join(home, "root.made-from")
    stamp = "%d %d\n" % (os.stat(disk).st_ino, os.stat(disk).st_mtime_ns)
    if os.path.exists(mark) and open(mark).read() == stamp:
        return root
    say("unpacking the image's files for the native runs")
    shutil.rmtree(root, ignore_errors=True)
    os.makedirs(root)
    step("debugfs", ["debugfs", "-R", "rdump / " + root, disk])
    if not os.path.exists(os.path.join(root, "bin/sh")):
        raise Missing("debugfs left no /bin/sh in " + root)
    for folder in ("bench", "proc", "dev", "tmp"):
        os.makedirs(os.path.join(root, folder), exist_ok=True)
    with open(mark, "w") as f:
        f.write(stamp)
    return root


def make_text(size):
    """Sentences of words whose frequencies fall off as in a language."""
    r = random.Random(2026)
    letters = "etaoinshrdlucmfwypvbgkqjxz"
    weights = [1 / (i + 2) for i in range(len(letters))]
    words = ["".join(r.choices(letters, weights, k=2 + min(r.randrange(9),
                                                           r.randrange(12))))
             for _ in range(12000)]
    rank = [1 / (i + 3) for i in range(len(words))]
    total, cumulative = 0, []
    for x in rank:
        total += x
        cumulative.append(total)
    out, length = [], 0
    while length < size:
        line = r.choices(words, cum_weights=cumulative,
                         k=5 + r.randrange(10))
        if r.randrange(4) == 0:
            line[r.randrange(len(line))] = str(r.randrange(100000))
        text = " ".join(line).capitalize() + ".\n"
        out.append(text)
        length += len(text)
    return "".join(out).encode()[:size]


C_HEAD = """#include <stdio.h>
#include <stdlib.h>
#include <string.h>
struct node { struct node *next, *other; long key; int kind; char name[24]; };
static long table[256];
"""
C_BODIES = ["""
static long f{i}(struct node *n, long a, long b)
{{
	long sum = {x};
	for (struct node *at = n; at; at = at->next) {{
		switch (at->kind & {m}) {{
		case 0: sum += at->key * a; break;
		case 1: sum ^= at->key + {y}; break;
		case 2: sum -= (long)strlen(at->name); break;
		case 5: sum = sum << 3 | sum >> 61; break;
		default: if (at->other) sum += at->other->key * b;
		}}
		table[sum & 255] += sum;
	}}
	return sum{call};
}}
""", """
static long f{i}(struct node *n, long a, long b)
{{
	long v[{m} + 9], t = a;
	for (int i = 0; i < {m} + 9; i++)
		v[i] = (table[(a + i) & 255] ^ b) * {x};
	for (int i = 1; i < {m} + 9; i++)
		for (int k = i; k > 0 && v[k] < v[k - 1]; k--) {{
			t = v[k]; v[k] = v[k - 1]; v[k - 1] = t;
		}}
	if (n && n->kind > {y}) {{
		snprintf(n->name, sizeof(n->name), "%ld", v[0]);
		t += atoi(n->name);
	}}
	return t + v[{m}]{call};
}}
""", """
static double g{i}(double x, double y)
{{
	double s = {y}.5;
	for (int i = 0; i < {m} + 20; i++) {{
		s = s * x + y / (i + {x});
		if (s > 1e9) s -= 1e9; else if (s < -1e9) s = -s;
	}}
	return s;
}}
static long f{i}(struct node *n, long a, long b)
{{
	double d = g{i}(a, b);
	return (n ? n->key : (long)d){call};
}}
"""]


def make_c(functions, seed):
    """A C file of that many functions, each with something else in it."""
    r = random.Random(seed)
    out = [C_HEAD]
    for i in range(functions):
        call = " + f%d(n, b, a)" % r.randrange(i) if i else ""
        out.append(r.choice(C_BODIES).format(
            i=i, x=r.randrange(1, 99999), y=r.randrange(1, 99),
            m=r.choice((7, 15, 31)), call=call))
    calls = "\n".join("\tsum += f%d(n, %d, sum);" % (i, i)
                      for i in range(functions))
    out.append("long entry(struct node *n)\n{\n\tlong sum = 0;\n%s\n"
               "\treturn sum;\n}\n" % calls)
    return "".join(out).encode()


def source_stamp():
    h = hashlib.sha256(open(os.path.abspath(__file__), "rb").read())
    for path in sorted(glob.glob(os.path.join(sources, "*"))):
        h.update(path.encode() + open(path, "rb").read())
    return h.hexdigest()


def write(path, data):
    with open(os.path.join(work, path), "wb") as f:
        f.write(data)


def need_work():
    """work/ and work.img; made again when a source has changed."""
    mark = os.path.join(home, "work.stamp")
    stamp = source_stamp()
    if os.path.exists(mark) and open(mark).read() == stamp and \
            os.path.exists(work_disk):
        return
    say("compiling the workloads and making their inputs")
    if os.path.exists(mark):
        os.unlink(mark)
    shutil.rmtree(work, ignore_errors=True)
    for folder in ("bin", "data"):
        os.makedirs(os.path.join(work, folder))
    compiler = need_program("gcc", "gcc libc6-dev")
    for path in sorted(glob.glob(os.path.join(sources, "*.c"))):
        name = os.path.splitext(os.path.basename(path))[0]
        step("gcc " + name, [compiler, *CFLAGS, "-o",
                             os.path.join(work, "bin", name), path, "-lm"])
    for path in glob.glob(os.path.join(sources, "*")):
        if not path.endswith((".c", ".h")):
            shutil.copy(path, work)
    text = make_text(TEXT_BYTES)
    write("data/text", text)
    # What compressors meet beside text: machine code and records.
    write("data/mixed", text[:BINARY_BYTES] + b"".join(
        open(p, "rb").read() for p in sorted(
            glob.glob(os.path.join(work, "bin/*"))))[:BINARY_BYTES])
    write("data/blocks", random.Random(17).randbytes(BLOCK_BYTES))
    write("data/big.c", make_c(240, 18))
    write("data/part.c", make_c(100, 19))
    image = work_disk + ".new"
    if os.path.exists(image):
        os.unlink(image)
    with open(image, "wb") as f:
        f.truncate(192 << 20)
    step("mke2fs", ["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-d", work,
                    image])
    os.rename(image, work_disk)
    with open(mark, "w") as f:
        f.write(stamp)


def only_one():
    """Takes build/bench for this process until the returned file is closed:
    benchmarks beside each other measure each other. Folders of machines that
    a killed one left are removed."""
    os.makedirs(home, exist_ok=True)
    lock = open(os.path.join(home, "lock"), "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Missing("another benchmark runs in %s: wait for it" % home)
    for engine in ("native", "skerry", "qemu"):
        for folder in glob.glob(os.path.join(home, engine + "-*")):
            shutil.rmtree(folder, ignore_errors=True)
    return lock


def prepare(engines):
    """Everything that runs in these engines need. Keep what it returns: see
    only_one."""
    if not os.access(skerry, os.X_OK):
        raise Missing("%s is not built: run make" % skerry)
    lock = only_one()
    if "qemu" in engines:
        need_program("qemu-system-x86_64", "qemu-system-x86")
    need_root()
    need_work()
    return lock
