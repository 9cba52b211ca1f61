#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Skerry in a person's terminal: the console of a run, its keys, and what the
terminal is like afterwards."""
from guest import *

suite = Suite()
env = private_env()
SMALL = ("--memory", "32M", "--network", "none")

# Says R, then echoes each key in brackets.
echo = assemble("echo", """
	mov $0x3f8, %dx
	mov $'R', %al
	out %al, %dx
1:	mov $0x3fd, %dx
	in %dx, %al
	test $1, %al
	jz 1b
	mov $0x3f8, %dx
	in %dx, %al
	mov %al, %bl
	mov $'[', %al
	out %al, %dx
	mov %bl, %al
	out %al, %dx
	mov $']', %al
	out %al, %dx
	jmp 1b
""")


def start():
    t = Terminal("run", "--kernel", echo, "--name", "seen", *SMALL, env=env)
    t.see("Ctrl-] ends the machine")
    t.see("R")
    return t


def every_key_goes_to_the_guest():
    t = start()
    assert not t.is_as_before()
    for key in ("a", "\x03", "\x1a", "\x1c", "\x04", "\r", "\x11", "\x13",
                "\x7f", "\x1b"):
        t.type(key)
        t.see("[%s]" % key)
    t.type("\x1d")
    t.end()


def ctrl_bracket_ends_the_machine_and_restores_the_terminal():
    t = start()
    t.type("x\x1d")
    t.see("machine 'seen' was stopped")
    same(t.end(), 0)
    all_gone(env)


def a_signal_restores_the_terminal_too():
    t = start()
    t.process.send_signal(signal.SIGTERM)
    same(t.end(), 128 + 15)
    all_gone(env)


def a_terminal_that_is_closed_ends_the_machine():
    t = start()
    t.close()  # the kernel sends SIGHUP
    t.process.wait(10)
    all_gone(env)


def a_vmm_that_is_killed_restores_the_terminal():
    t = start()
    os.kill(vmms()[0], signal.SIGKILL)
    t.see("machine ended: killed")
    same(t.end(), 1)


def waiting_shows_the_time_and_clears_its_line():
    t = Terminal("run", "--kernel", echo, "--timeout", "2", *SMALL, "--",
                 "true", env=env)
    t.see("(1 s)")
    t.see("\r\x1b[K")
    t.see("was not ready after 2 s")
    same(t.end(), 125)


def a_console_is_left_by_ctrl_bracket_and_the_machine_goes_on():
    same(run("launch", "--kernel", echo, "--name", "seen", "--no-wait",
             *SMALL, env=env)[0], 0)
    for _ in range(2):
        t = Terminal("console", "seen", env=env)
        t.see("Ctrl-] leaves it")
        t.type("k")
        t.see("[k]")
        t.type("\x1d")
        same(t.end(), 0)
    same(len(vmms()), 1)
    t = Terminal("console", "seen", env=env)
    t.see("Ctrl-] leaves it")
    same(run("stop", "--force", "seen", env=env), (0, "", ""))
    t.end()
    same(run("delete", "seen", env=env)[0], 0)
    all_gone(env)


def root_logs_in_on_the_console_and_poweroff_comes_back():
    private_image(env)
    t = Terminal("run", IMAGE, env=env)
    t.see("Ctrl-] ends the machine")
    t.see("debian login: ", 200)
    t.type("root\r")
    t.see("# ", 60)
    t.type("echo terminal $((6 * 7))\r")
    t.see("terminal 42\r\n", 30)
    t.see("# ", 30)
    t.type("poweroff\r")
    same(t.end(120), 0)
    all_gone(env)


for test in (every_key_goes_to_the_guest,
             ctrl_bracket_ends_the_machine_and_restores_the_terminal,
             a_signal_restores_the_terminal_too,
             a_terminal_that_is_closed_ends_the_machine,
             a_vmm_that_is_killed_restores_the_terminal,
             waiting_shows_the_time_and_clears_its_line,
             a_console_is_left_by_ctrl_bracket_and_the_machine_goes_on,
             root_logs_in_on_the_console_and_poweroff_comes_back):
    suite.check(test)
suite.end()
