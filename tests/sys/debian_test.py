#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The Debian image: a command in a machine of its own, and one machine that
is launched, used in every way, stopped, started again and deleted."""
import os, socket, subprocess, threading, time

from guest import *

suite = Suite(is_isolated=False)
env = private_env()
private_image(env)
NAME = "sys-debian"


def listener(answer):
    """Answers each connection to a loopback port with a line and what it
    heard; returns the port."""
    s = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            c, _ = s.accept()
            heard = c.makefile().readline()
            c.sendall((answer + " " + heard).encode())
            c.close()
    threading.Thread(target=serve, daemon=True).start()
    return s.getsockname()[1]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


forward = free_port()


def state_of(name):
    status, out, err = run("list", env=env)
    same(status, 0, err)
    for line in out.splitlines()[1:]:
        words = line.split()
        if words[0] == name:
            return words
    return None


def guest(*command, stdin=b"", timeout=60):
    return run("exec", NAME, "--", *command, stdin=stdin, env=env,
               timeout=timeout)


def launch_returns_when_the_agent_is_ready():
    status, out, err = run("launch", IMAGE, "--name", NAME, "--cpus", "2",
                           "--forward", "%d:7000" % forward, env=env,
                           timeout=250)
    same((status, out), (0, NAME + "\n"), err)
    words = state_of(NAME)
    same(words[1], "running")
    same(words[3], "2")
    same(words[-1], "ready")


def a_second_machine_of_that_name_is_refused():
    status, out, err = run("launch", IMAGE, "--name", NAME, env=env)
    same((status, out), (1, ""))
    has(err, "machine '%s' runs already" % NAME)
    same(state_of(NAME)[1], "running")


def exec_passes_stdin_stdout_stderr_and_status():
    same(guest("true"), (0, "", ""))
    same(guest("sh", "-c", "exit 7"), (7, "", ""))
    same(guest("cat", stdin=b"hi\n"), (0, "hi\n", ""))
    same(guest("sh", "-c", "echo out; echo err >&2"), (0, "out\n", "err\n"))
    same(guest("nproc"), (0, "2\n", ""))
    same(guest("sh", "-c", "kill -TERM $$")[0], 128 + 15)


def a_missing_command_is_127_and_one_that_cannot_run_126():
    status, out, err = guest("no-such-command")
    same((status, out), (127, ""))
    has(err, "cannot run 'no-such-command'")
    same(guest("/etc/passwd")[0], 126)


def a_megabyte_goes_in_and_out_unchanged():
    bytes_in = os.urandom(1 << 20)
    p = popen("exec", NAME, "--", "cat", env=env, stdin=subprocess.PIPE)
    out, err = p.communicate(bytes_in, timeout=60)
    same((p.returncode, err), (0, b""))
    assert out == bytes_in, "%d bytes came back" % len(out)


def ctrl_c_reaches_the_command():
    p = popen("exec", NAME, "--", "sh", "-c",
              "trap 'echo caught; exit 3' INT; echo up; "
              "while :; do sleep 0.2; done", env=env)
    same(p.stdout.readline(), b"up\n")
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=30)
    same((p.returncode, out), (3, b"caught\n"), err)


def a_killed_client_ends_its_command_in_the_guest():
    p = popen("exec", NAME, "--", "sleep", "4321", env=env)
    wait_for("the command", lambda: guest("pgrep", "-f", "sleep 4321")[0] == 0,
             30)
    p.kill()
    p.wait()
    wait_for("its end", lambda: guest("pgrep", "-f", "^sleep 4321")[0] == 1,
             30)


def the_guest_has_entropy():
    status, out, err = guest(
        "cat", "/sys/class/misc/hw_random/rng_current",
        "/sys/devices/virtual/misc/hw_random/rng_current")
    has(out, "virtio_rng")
    status, out, err = guest("sh", "-c", "head -c 16 /dev/hwrng | wc -c")
    same(out, "16\n", err)


def the_guest_reaches_a_listener_of_the_host():
    port = listener("host heard")
    wait_for("an address", lambda: "10.0.2." in
             guest("ip", "-4", "addr", "show")[1], 60)
    status, out, err = guest(
        "bash", "-c", "exec 3<>/dev/tcp/10.0.2.2/%d; echo knock >&3; "
        "cat <&3" % port)
    same((status, out), (0, "host heard knock\n"), err)


def a_forward_leads_to_a_listener_in_the_guest():
    # Perl is part of every Debian.
    server = guest(
        "bash", "-c",
        "perl -MIO::Socket::INET -e '"
        "$s = IO::Socket::INET->new(LocalPort => 7000, Listen => 1, "
        "ReuseAddr => 1) or die; while ($c = $s->accept) "
        "{ print $c \"guest heard \" . <$c>; close $c; }' "
        "</dev/null >/dev/null 2>&1 & sleep 3")
    same(server[0], 0, server[2])

    def ask():
        try:
            with socket.create_connection(("127.0.0.1", forward), 10) as s:
                s.sendall(b"knock\n")
                return s.makefile().read()
        except OSError:
            return ""
    same(wait_for("an answer", ask, 40), "guest heard knock\n")


def a_disk_keeps_what_was_written_and_synced():
    same(guest("sh", "-c", "echo kept >/root/kept; sync")[0], 0)


def console_shows_a_login_prompt():
    p = popen("console", NAME, env=env, stdin=subprocess.PIPE)
    heard = b""
    end = time.monotonic() + 60
    os.set_blocking(p.stdout.fileno(), False)
    p.stdin.write(b"\n")
    p.stdin.flush()
    while b"login:" not in heard and time.monotonic() < end:
        heard += p.stdout.read() or b""
        time.sleep(0.1)
    p.terminate()
    p.wait(10)
    has(heard.decode(errors="replace"), "login:")
    same(state_of(NAME)[1], "running")


def a_shell_has_a_terminal_of_our_size():
    t = Terminal("shell", NAME, env=env, rows=33, columns=111)
    t.see("# ", 60)
    t.type("stty size; echo term $TERM; tty\r")
    t.see("33 111", 30)
    t.see("term " + os.environ.get("TERM", "dumb"), 30)
    t.see("/dev/pts/", 30)
    t.see("# ", 30)
    t.resize(44, 122)
    os.kill(t.process.pid, signal.SIGWINCH)
    time.sleep(1)
    t.type("stty size\r")
    t.see("44 122", 30)
    t.type("sleep 1000\r")
    time.sleep(1)
    t.type("\x03")
    t.see("# ", 30)
    t.type("exit 9\r")
    same(t.end(30), 9)


def delete_of_a_running_machine_needs_force():
    status, out, err = run("delete", NAME, env=env)
    same(status, 1)
    has(err, "runs")
    same(state_of(NAME)[1], "running")


def stop_shuts_the_machine_down():
    status, out, err = run("stop", NAME, env=env, timeout=150)
    same((status, out, err), (0, "", ""))
    wait_for("the end of the vmm", lambda: not vmms())
    same(state_of(NAME)[1], "stopped")


def exec_in_a_stopped_machine_says_so():
    status, out, err = guest("true")
    same((status, out), (125, ""))
    has(err, "'%s' is not running" % NAME)


def a_vmm_killed_under_a_command_is_reported():
    p = popen("run", IMAGE, "--name", NAME, "--", "sh", "-c",
              "echo up; sleep 100", env=env)
    same(p.stdout.readline(), b"up\n")
    os.kill(vmms()[0], signal.SIGKILL)
    out, err = p.communicate(timeout=20)
    same((p.returncode, out), (125, b""))
    has(err.decode(), "ended before the command did: killed")
    same(vmms(), [])


def run_starts_it_again_with_its_disk_and_passes_all_through():
    status, out, err = run(
        "run", IMAGE, "--name", NAME, "--", "sh", "-c",
        "cat; cat /root/kept; cat /etc/debian_version; "
        "dmesg -l emerg,alert,crit,err; echo oops >&2; exit 7",
        stdin=b"from stdin\n", env=env, timeout=200)
    same((status, err), (7, "oops\n"))
    lines = out.splitlines()
    same((len(lines), lines[:2]), (3, ["from stdin", "kept"]), out)
    assert lines[2].startswith("12."), out
    same(vmms(), [])
    same(state_of(NAME)[1], "stopped")


def delete_removes_the_machine():
    status, out, err = run("delete", NAME, env=env)
    same((status, out, err), (0, "", ""))
    same(state_of(NAME), None)
    same(leftovers(env), [])


tests = [launch_returns_when_the_agent_is_ready,
         a_second_machine_of_that_name_is_refused,
         exec_passes_stdin_stdout_stderr_and_status,
         a_missing_command_is_127_and_one_that_cannot_run_126,
         a_megabyte_goes_in_and_out_unchanged,
         ctrl_c_reaches_the_command,
         a_killed_client_ends_its_command_in_the_guest,
         the_guest_has_entropy,
         the_guest_reaches_a_listener_of_the_host,
         a_forward_leads_to_a_listener_in_the_guest,
         a_disk_keeps_what_was_written_and_synced,
         console_shows_a_login_prompt,
         a_shell_has_a_terminal_of_our_size,
         delete_of_a_running_machine_needs_force,
         stop_shuts_the_machine_down,
         exec_in_a_stopped_machine_says_so,
         a_vmm_killed_under_a_command_is_reported,
         run_starts_it_again_with_its_disk_and_passes_all_through,
         delete_removes_the_machine]
for test in tests:
    suite.check(test)
suite.end()
