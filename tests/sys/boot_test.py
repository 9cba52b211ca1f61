#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Direct boot: tiny kernels for the ways in which a run ends, and Debian's
kernel with a busybox initramfs on 1 and on 2 vCPUs."""
import os, re

from guest import *

suite = Suite()
SMALL = ("--memory", "32M", "--network", "none")


def boot(*args, **more):
    status, out, err = run("run", *args, **more)
    same(vmms(), [])
    same(leftovers(private_env()), [])
    return status, out, err


def debug_exit_gives_the_value_times_two_plus_one():
    k = assemble("exit", """
	mov $0x3f8, %dx
	mov $'A', %al
	out %al, %dx
	mov $21, %al
	out %al, $0xf4
""" + SPIN)
    status, out, err = boot("--kernel", k, "--debug-exit", *SMALL)
    same((status, out, err), (43, "A", ""))


def debugcon_keeps_what_is_written_to_port_e9():
    k = assemble("e9", """
	mov $'x', %al
	out %al, $0xe9
	mov $'y', %al
	out %al, $0xe9
	mov $0, %al
	out %al, $0xf4
""" + SPIN)
    log = os.path.join(tmp, "e9.log")
    status, out, err = boot("--kernel", k, "--debug-exit", "--debugcon", log,
                            *SMALL)
    same((status, err), (1, ""))
    with open(log) as f:
        same(f.read(), "xy")


# The NVRAM of the RTC keeps its bytes over a reset.
RESET = """
	mov $0x3f8, %dx
	mov $'R', %al
	out %al, %dx
	mov $0x50, %al
	out %al, $0x70
	in $0x71, %al
	cmp $0x5a, %al
	je 2f
	mov $0x5a, %al
	out %al, $0x71
"""
AGAIN = SPIN + """
2:	mov $3, %al
	out %al, $0xf4
""" + SPIN


def each_kind_of_reset_boots_again():
    for name, how in (
            ("cf9", "mov $0xcf9, %dx\n mov $6, %al\n out %al, %dx\n"),
            ("i8042", "mov $0xfe, %al\n out %al, $0x64\n"),
            ("port92", "mov $1, %al\n out %al, $0x92\n")):
        k = assemble(name, RESET + how + AGAIN)
        status, out, err = boot("--kernel", k, "--debug-exit", *SMALL)
        same((name, status, out, err), (name, 7, "RR", ""))


def a_reset_with_no_reboot_ends_the_run_with_0():
    k = os.path.join(tmp, "cf9.elf")
    status, out, err = boot("--kernel", k, "--debug-exit", "--no-reboot",
                            *SMALL)
    same((status, out, err), (0, "R", ""))


def triple_fault_is_reported_with_the_registers():
    k = assemble("fault", """
	lidt 3f
	mov $0x1234abcd, %ebx
	mov $0xdead000, %ecx
	mov %ecx, %cr3
	ud2
3:	.long 0, 0
""")
    status, out, err = boot("--kernel", k, *SMALL)
    same(status, 1)
    has(err, "triple-fault")
    has(err, "rbx=000000001234abcd")
    has(err, "cr3=000000000dead000")
    assert re.search(r"rip=0008:000000000010\w{4}", err), err


INIT = """
echo skerry-first-line $(nproc)
grep -r . /sys/devices/system/cpu/vulnerabilities
echo begin-dmesg; dmesg -r; echo end-dmesg
poweroff -f
"""
APPEND = "console=ttyS0 quiet panic=-1 "

# No line of the guest may name a mitigation in software, but for what Linux
# does on every CPU, whatever it claims about itself.
ALWAYS = ("spectre_v1:Mitigation: usercopy/swapgs barriers and __user "
          "pointer sanitization",)


def linux(cpus):
    k = debian_kernel()
    rd = initramfs("rd", INIT)
    status, out, err = boot("--kernel", k, "--initrd", rd, "--append", APPEND,
                            "--cpus", str(cpus), "--memory", "256M",
                            timeout=150)
    has(out, "skerry-first-line %d" % cpus)
    same((status, err), (0, ""))
    return out


boots = {}


def debian_kernel_boots_to_busybox_and_powers_off_on_1_cpu():
    boots[1] = linux(1)


def debian_kernel_boots_to_busybox_and_powers_off_on_2_cpus():
    boots[2] = linux(2)


def the_translator_does_what_the_interpreter_does_while_linux_boots():
    rd = initramfs("rd3", "echo checked; poweroff -f\n")
    status, out, err = boot("--kernel", debian_kernel(), "--initrd", rd,
                            "--append", APPEND, "--memory", "256M",
                            "--network", "none", "--verbose",
                            "--lockstep", "20", "--engine", "soft", timeout=150)
    has(out, "checked")
    same(status, 0, err)
    checks = int(re.search(r'"lockstep-checks": (\d+)', err).group(1))
    skips = int(re.search(r'"lockstep-skips": (\d+)', err).group(1))
    assert checks > 30000 and skips * 100 < checks, (checks, skips)


def lockstep_is_for_one_cpu():
    status, out, err = boot("--kernel", debian_kernel(), "--cpus", "2",
                            "--lockstep", "1", "--engine", "soft",
                            *SMALL)
    same(status, 1)
    has(err, "lockstep is for one vCPU")


def no_vulnerability_asks_for_a_software_mitigation():
    for out in boots.values():
        lines = re.findall(r"/vulnerabilities/(.*)", out)
        assert len(lines) >= 10, out
        for line in lines:
            line = line.strip()
            assert (line.endswith("Not affected") or line in ALWAYS), line


def dmesg_has_no_line_of_level_err_or_worse():
    for out in boots.values():
        text = out.split("begin-dmesg")[1].split("end-dmesg")[0]
        lines = re.findall(r"^<(\d+)>(.*)", text, re.M)
        assert len(lines) > 100, text
        for number, line in lines:
            assert int(number) & 7 > 3, line


def a_reboot_of_linux_ends_a_run_with_no_reboot():
    rd = initramfs("rd2", "echo going; reboot -f\n")
    status, out, err = boot("--kernel", debian_kernel(), "--initrd", rd,
                            "--append", APPEND, "--no-reboot", "--memory",
                            "256M", timeout=100)
    has(out, "going")
    same((status, err), (0, ""))


for test in (debug_exit_gives_the_value_times_two_plus_one,
             debugcon_keeps_what_is_written_to_port_e9,
             each_kind_of_reset_boots_again,
             a_reset_with_no_reboot_ends_the_run_with_0,
             triple_fault_is_reported_with_the_registers,
             debian_kernel_boots_to_busybox_and_powers_off_on_1_cpu,
             debian_kernel_boots_to_busybox_and_powers_off_on_2_cpus,
             the_translator_does_what_the_interpreter_does_while_linux_boots,
             lockstep_is_for_one_cpu,
             no_vulnerability_asks_for_a_software_mitigation,
             dmesg_has_no_line_of_level_err_or_worse,
             a_reboot_of_linux_ends_a_run_with_no_reboot):
    suite.check(test)
suite.end()
