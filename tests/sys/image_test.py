#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""skerry image on files: create, convert, resize, check, map, info, with
qemu-img as the judge."""
import json, os, resource, shutil, signal, subprocess, time

from guest import *

suite = Suite()
folder = os.path.join(tmp, "images")
os.makedirs(folder)


def path(name):
    return os.path.join(folder, name)


def image(*args, want=0, env=None):
    status, out, err = run("image", *args, env=env)
    same(status, want, out + err)
    return out, err


def qemu(*args, want=0):
    r = subprocess.run(args, cwd=folder, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True)
    same(r.returncode, want, r.stdout)
    return r.stdout


def content(name, size, seed=1):
    """A file with data, runs and holes."""
    with open(path(name), "wb") as f:
        f.truncate(size)
        for i in range(0, size - 70000, 200000):
            f.seek(i)
            f.write(os.urandom(60000) + bytes([seed]) * 9000)


def what_is_created_is_what_was_asked_for():
    image("create", path("a.qcow2"), "64M", "--cluster-size", "4K",
          "--refcount-bits", "8", "--lazy-refcounts", "--compression", "zstd")
    said = json.loads(qemu("qemu-img", "info", "--output=json", "a.qcow2"))
    more = said["format-specific"]["data"]
    same((said["virtual-size"], said["cluster-size"], more["refcount-bits"],
          more["lazy-refcounts"], more["compression-type"]),
         (64 << 20, 4096, 8, True, "zstd"))
    out, _ = image("info", "--json", path("a.qcow2"))
    ours = json.loads(out)
    same((ours["size_bytes"], ours["cluster_bytes"], ours["refcount_bits"],
          ours["compression"]), (64 << 20, 4096, 8, "zstd"))
    _, err = image("create", path("a.qcow2"), "64M", want=1)
    has(err, "File exists")
    _, err = image("create", path("b.qcow2"), "64M", "--cluster-size", "5K",
                   want=1)
    has(err, "power of two")
    same(os.path.exists(path("b.qcow2")), False)


def a_conversion_keeps_every_byte():
    content("raw", 7 << 20)
    for options in ((), ("--cluster-size", "512"), ("--cluster-size", "2M"),
                    ("--extended-l2",)):
        image("convert", path("raw"), path("c.qcow2"), *options)
        qemu("qemu-img", "check", "c.qcow2")
        qemu("qemu-img", "compare", "-f", "raw", "-F", "qcow2", "raw",
             "c.qcow2")
        image("convert", path("c.qcow2"), path("back"))
        qemu("cmp", "raw", "back")
        os.remove(path("c.qcow2"))
        os.remove(path("back"))
    qemu("qemu-img", "convert", "-c", "-O", "qcow2", "raw", "c.qcow2")
    image("convert", path("c.qcow2"), path("back"))
    qemu("cmp", "raw", "back")
    same([f for f in os.listdir(folder) if ".part" in f], [])


def a_compressed_copy_is_smaller_and_equal():
    content("soft", 5 << 20)
    with open(path("soft"), "r+b") as f:
        f.seek(1 << 20)
        f.write(b"all work and no play " * 100000)
        f.truncate((5 << 20) + 512)
    for options in ((), ("--compression", "zstd"), ("--cluster-size", "512"),
                    ("--cluster-size", "2M"), ("--refcount-bits", "1"),
                    ("--refcount-bits", "2", "--cluster-size", "4K"),
                    ("--extended-l2", "--compression", "zstd")):
        image("convert", "--compress", path("soft"), path("p.qcow2"), *options)
        has(qemu("qemu-img", "check", "p.qcow2"), "% compressed clusters")
        equal("soft", "raw", "p.qcow2", "qcow2")
        out, _ = image("check", "--json", path("p.qcow2"))
        assert json.loads(out)["compressed"] > 1, out
        image("convert", path("p.qcow2"), path("unpacked"))
        qemu("cmp", "soft", "unpacked")
        qemu("qemu-io", "-c", "write -P 9 1M 70k", "-c", "discard 2M 1M",
             "p.qcow2")
        image("check", path("p.qcow2"))
        if not options:
            assert os.path.getsize(path("p.qcow2")) < 3 << 20
        os.remove(path("p.qcow2"))
        os.remove(path("unpacked"))
    image("convert", "--compress", path("soft"), path("p.raw"), want=1)


def an_overlay_is_flattened_and_mapped():
    content("base", 3 << 20, 2)
    image("create", path("o.qcow2"), "5M", "--backing", "base",
          "--backing-format", "raw")
    qemu("qemu-io", "-c", "write -P 9 1M 64k", "-c", "write -z 2M 64k",
         "o.qcow2")
    image("convert", path("o.qcow2"), path("flat"))
    qemu("qemu-img", "compare", "-f", "raw", "-F", "qcow2", "flat", "o.qcow2")
    out, _ = image("map", path("o.qcow2"))
    rows = [line.split() for line in out.splitlines()[1:]]
    same([(int(r[0], 16), int(r[1], 16), r[2], r[3]) for r in rows],
         [(0, 1 << 20, "data", "1"), (1 << 20, 65536, "data", "0"),
          (0x110000, 0xf0000, "data", "1"), (2 << 20, 65536, "zero", "0"),
          (0x210000, 0xf0000, "data", "1"),
          (3 << 20, 2 << 20, "-", "0")])


def a_disk_grows_and_shrinks():
    for name, options in (("r1.qcow2", ()),
                          ("r2.qcow2", ("--cluster-size", "512")),
                          ("r3.raw", ())):
        fmt = name.split(".")[1]
        image("convert", path("raw"), path(name), *options)
        image("resize", path(name), "40M")
        shutil.copy(path("raw"), path("want"))
        os.truncate(path("want"), 40 << 20)
        qemu("qemu-img", "compare", "-f", "raw", "-F", fmt, "want", name)
        _, err = image("resize", path(name), "1M", want=1)
        has(err, "--shrink")
        image("resize", "--shrink", path(name), "1M")
        image("resize", path(name), "20M")
        os.truncate(path("want"), 1 << 20)
        os.truncate(path("want"), 20 << 20)
        qemu("qemu-img", "compare", "-f", "raw", "-F", fmt, "want", name)
        if fmt == "qcow2":
            qemu("qemu-img", "check", name)
    # What a longer backing file has must not come up.
    image("create", path("g.qcow2"), "1M", "--backing", "base",
          "--backing-format", "raw")
    image("resize", path("g.qcow2"), "4M")
    shutil.copy(path("base"), path("want"))
    os.truncate(path("want"), 1 << 20)
    os.truncate(path("want"), 4 << 20)
    qemu("qemu-img", "compare", "-f", "raw", "-F", "qcow2", "want", "g.qcow2")
    qemu("qemu-img", "check", "g.qcow2")


def damage_is_found_and_repaired():
    image("convert", path("raw"), path("d.qcow2"))
    out, _ = image("check", path("d.qcow2"))
    has(out, "sound")
    with open(path("d.qcow2"), "r+b") as f:
        f.seek(2 * 65536 + 2 * 6)   # the count of cluster 6
        f.write(b"\0\0")
    out, _ = image("check", path("d.qcow2"), want=1)
    has(out, "corruptions")
    qemu("qemu-img", "check", "d.qcow2", want=2)
    out, _ = image("check", "--repair", path("d.qcow2"))
    has(out, "repaired: 1 corruptions")
    qemu("qemu-img", "check", "d.qcow2")
    qemu("qemu-img", "compare", "raw", "d.qcow2")
    image("check", path("raw"), want=2)


def hostile_names_are_refused():
    for backing, part in (("/etc/passwd", "not in the image's folder"),
                          ("h.qcow2", "below itself"),
                          ("missing", "No such file"),
                          ("nbd://x/y", "no file name")):
        if os.path.exists(path("h.qcow2")):
            os.remove(path("h.qcow2"))
        image("create", path("h.qcow2"), "1M", "--backing", backing,
              "--backing-format", "qcow2" if backing[0] == "h" else "raw")
        _, err = image("convert", path("h.qcow2"), path("h.raw"), want=1)
        has(err, part)
        same(os.path.exists(path("h.raw")), False)
        image("info", path("h.qcow2"))  # the image itself can be looked at
        image("check", path("h.qcow2"))
    os.mkfifo(path("fifo"))
    for args in (("info", path("fifo")), ("check", "--format", "qcow2",
                                          path("fifo")),
                 ("info", "/dev/zero"), ("info", folder)):
        image(*args, want=1)


def equal(a, fmt_a, b, fmt_b):
    qemu("qemu-img", "compare", "-f", fmt_a, "-F", fmt_b, a, b)


def an_overlay_is_committed_into_what_is_below():
    for fmt in ("raw", "qcow2"):
        content("cb.raw", 3 << 20, 5)
        qemu("qemu-img", "convert", "-O", fmt, "cb.raw", "cb")
        for options in ((), ("--cluster-size", "4K"), ("--extended-l2",)):
            if os.path.exists(path("c.qcow2")):
                os.remove(path("c.qcow2"))
            image("create", path("c.qcow2"), "5M", "--backing", "cb",
                  "--backing-format", fmt, *options)
            qemu("qemu-io", "-c", "write -P 9 1M 70k", "-c", "write -z 2M 64k",
                 "-c", "write -P 7 4500k 5k", "c.qcow2")
            qemu("qemu-img", "convert", "-O", "raw", "c.qcow2", "want")
            image("commit", path("c.qcow2"))
            equal("want", "raw", "cb", fmt)
            equal("want", "raw", "c.qcow2", "qcow2")
            if fmt == "qcow2":
                qemu("qemu-img", "check", "cb")
    _, err = image("commit", path("a.qcow2"), want=1)
    has(err, "no overlay")


def an_overlay_goes_over_another_file_unchanged():
    content("base2", 4 << 20, 6)
    for options in ((), ("--cluster-size", "512"), ("--cluster-size", "2M"),
                    ("--extended-l2",)):
        if os.path.exists(path("rb.qcow2")):
            os.remove(path("rb.qcow2"))
        image("create", path("rb.qcow2"), "5M", "--backing", "base",
              "--backing-format", "raw", *options)
        qemu("qemu-io", "-c", "write -P 9 1M 70k", "-c", "write -z 2M 64k",
             "rb.qcow2")
        qemu("qemu-img", "convert", "-O", "raw", "rb.qcow2", "want")
        image("rebase", "--backing", "base2", "--backing-format", "raw",
              path("rb.qcow2"))
        has(qemu("qemu-img", "info", "rb.qcow2"), "backing file: base2")
        equal("want", "raw", "rb.qcow2", "qcow2")
        qemu("qemu-img", "check", "rb.qcow2")
        image("rebase", "--none", path("rb.qcow2"))
        same("backing" in qemu("qemu-img", "info", "rb.qcow2"), False)
        equal("want", "raw", "rb.qcow2", "qcow2")
        qemu("qemu-img", "check", "rb.qcow2")
    image("rebase", "--backing", "x", path("rb.qcow2"), want=2)


def a_diff_lists_what_differs():
    image("create", path("x.qcow2"), "3M", "--backing", "base",
          "--backing-format", "raw")
    out, _ = image("diff", path("base"), path("x.qcow2"))
    same(out, "")
    qemu("qemu-io", "-c", "write -P 0xab 1M 8k", "-c", "write -P 1 2M 1",
         "x.qcow2")
    out, _ = image("diff", path("base"), path("x.qcow2"), want=3)
    same([[int(w, 16) for w in line.split()] for line in out.splitlines()],
         [[1 << 20, 8192], [2 << 20, 4096]])
    out, _ = image("diff", "--json", path("x.qcow2"), path("base"), want=3)
    same(len(json.loads(out)), 2)


def a_file_size_limit_is_an_error():
    def set_limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    for args in (("convert", path("raw"), path("z.qcow2")),
                 ("create", path("z.raw"), "5M")):
        status, out, err = run("image", *args, preexec_fn=set_limit)
        same((status, out), (1, ""), err)
        has(err, "File too large")
    same([f for f in os.listdir(folder) if f[0] == "z"], [])


def a_cancelled_conversion_leaves_nothing():
    with open(path("big"), "wb") as f:
        for _ in range(300):
            f.write(os.urandom(1 << 20))
    p = subprocess.Popen([os.path.join(build, "skerry"), "image", "convert",
                          path("big"), path("big.qcow2")],
                         stderr=subprocess.PIPE, text=True)
    wait_for("the copy to begin", lambda: any(
        ".part" in f and os.path.getsize(path(f)) > 1 << 20
        for f in os.listdir(folder)))
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=20)
    same(p.returncode, 1)
    has(err, "cancelled")
    same([f for f in os.listdir(folder) if "big" in f], ["big"])
    os.remove(path("big"))


if not shutil.which("qemu-img") or not shutil.which("qemu-io"):
    print("SKIP: no qemu-img and qemu-io here (qemu-utils)")
    print("0 passed, 0 failed, 1 skipped")
    os._exit(0)
for test in (what_is_created_is_what_was_asked_for,
             a_conversion_keeps_every_byte,
             a_compressed_copy_is_smaller_and_equal,
             an_overlay_is_flattened_and_mapped,
             a_disk_grows_and_shrinks,
             damage_is_found_and_repaired,
             hostile_names_are_refused,
             an_overlay_is_committed_into_what_is_below,
             an_overlay_goes_over_another_file_unchanged,
             a_diff_lists_what_differs,
             a_file_size_limit_is_an_error,
             a_cancelled_conversion_leaves_nothing):
    suite.check(test)
suite.end()
