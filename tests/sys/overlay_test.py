#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Debian runs from an overlay: what it writes is in the overlay, is there when
it boots again, and the image below stays as it was. A machine that is killed
leaves a sound image."""
import hashlib, json, os, shutil, signal, subprocess

from guest import *

suite = Suite(is_isolated=False)
env = private_env()
private_image(env)
home = os.path.join(env["SKERRY_DATA_DIR"], "images", IMAGE)
disk = os.path.join(home, "disk.raw")
over = os.path.join(home, "over.qcow2")
FLAGS = ("--kernel", os.path.join(home, "vmlinuz"),
         "--initrd", os.path.join(home, "initrd.img"),
         "--append", "root=/dev/vda rw console=ttyS0", "--network", "none",
         "--disk", over + ",format=qcow2")


def digest(name):
    with open(name, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest() if hasattr(
            hashlib, "file_digest") else hashlib.sha256(f.read()).hexdigest()


def in_guest(script):
    status, out, err = run("run", *FLAGS, "--", "sh", "-c", script, env=env,
                           timeout=200)
    same(status, 0, out + err)
    return out.strip()


def check():
    status, out, err = run("image", "check", over, env=env)
    if status not in (0, 3):
        raise AssertionError(out + err)
    if shutil.which("qemu-img"):
        same(subprocess.run(["qemu-img", "check", over],
                            stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL).returncode in (0, 3),
             True)


def what_is_written_is_there_after_a_reboot():
    before = digest(disk)
    status, out, err = run("image", "create", over,
                           "%d" % os.path.getsize(disk), "--backing",
                           "disk.raw", "--backing-format", "raw", env=env)
    same(status, 0, err)
    first = in_guest("head -c 20000000 /dev/urandom >/big; sync; "
                     "sha256sum </big")
    check()
    same(in_guest("sha256sum </big; rm /big; fstrim / || true"), first)
    check()
    same(digest(disk), before)


def a_killed_machine_loses_nothing_that_was_synced():
    p = popen("run", *FLAGS, "--", "sh", "-c",
              "head -c 3000000 /dev/urandom >/kept; sync; sha256sum </kept; "
              "while :; do head -c 1000000 /dev/urandom >/more; "
              "cat /more /more >/more2; done", env=env,
              stdout=subprocess.PIPE, text=True)
    kept = p.stdout.readline().strip()
    time.sleep(0.5)
    for pid in vmms():
        os.kill(pid, signal.SIGKILL)
    p.wait(timeout=30)
    same(len(kept.split()[0]), 64)
    check()
    same(in_guest("sha256sum </kept"), kept)


def a_second_machine_on_the_overlay_is_refused():
    p = popen("run", *FLAGS, "--", "sh", "-c", "echo up; sleep 100", env=env,
              stdout=subprocess.PIPE, text=True)
    same(p.stdout.readline(), "up\n")
    status, out, err = run("run", *FLAGS, "--", "true", env=env)
    same(status, 125, err)
    has(err, "in use")
    status, out, err = run("image", "resize", over, "100G", env=env)
    same(status, 1)
    has(err, "in use")
    p.send_signal(signal.SIGTERM)
    p.wait(timeout=60)


for test in (what_is_written_is_there_after_a_reboot,
             a_killed_machine_loses_nothing_that_was_synced,
             a_second_machine_on_the_overlay_is_refused):
    suite.check(test)
suite.end()
