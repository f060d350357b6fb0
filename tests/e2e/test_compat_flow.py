"""Those who stop reading: a terminal with ^S, a stopped client; memory is bounded, all arrives."""
import os
import signal
import socket
import time

import compat
import harness
from compat import MB, row
from harness import wait_until

BOUND_KB = 12 * 1024  # windows of both legs and their buffers
CHECKS = 30           # looks at a stopped stream, 0.2 s apart: six keep-alive intervals
CHECKS_MINUTE = 300


def one_relay(proxy):
    return wait_until(lambda: len(proxy.relays()) == 1 and proxy.relays()[0], "one relay")


def moved(proxy):
    return proxy.sessions()[0]["bytesOut"]


def wait_still(proxy):
    """Until nothing moves any more; the bytes that had moved by then."""
    seen = [moved(proxy), -1]

    def is_still():
        seen.append(moved(proxy))
        return seen[-1] == seen[-2] == seen[-3]
    wait_until(is_still, "the stream stands still", every=0.3)
    return seen[-1]


def watch_standing(proxy, relay, at, checks=CHECKS):
    """No byte moves, memory is flat and below the bound, and the session is alive."""
    memory = []
    for _ in range(checks):
        time.sleep(0.2)  # the span of the observation, not a wait for something
        assert moved(proxy) == at
        memory.append(compat.private_kb(relay))
    assert proxy.sessions()[0]["status"] in ("active", "idle") and proxy.history() == []
    if not harness.SANITIZED:
        assert max(memory) < BOUND_KB, memory
        assert max(memory[checks // 2:]) <= max(memory[:checks // 2]) + 512, memory


@row("OpenSSH 9 ssh -tt")
def test_stopped_terminal(make_proxy, target, keys):
    """^S for a minute under a flood, beyond the keep-alives: bytes and memory stand still; ^Q goes
    on; ^C works."""
    p = make_proxy({"ssh": {"keepalive_interval": "1s", "keepalive_count": "3"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    shell = harness.Client(p, key=keys.make("alice")).shell()
    relay = one_relay(p)
    shell.sendline("yes 0123456789012345678901234567890123456789")
    for _ in range(200):
        shell.read_nonblocking(65536)
    shell.send("\x13")
    # what is under way still comes, then nothing more
    end = []

    def drained():
        try:
            shell.read_nonblocking(65536, timeout=1)
            return False
        except harness.pexpect.TIMEOUT:
            end.append(1)
            return True
    wait_until(drained, "the terminal stops", every=0)
    watch_standing(p, relay, wait_still(p), CHECKS_MINUTE)
    at = moved(p)
    shell.send("\x11")
    wait_until(lambda: shell.read_nonblocking(65536) and moved(p) > at + MB, "the flood goes on",
               every=0)
    shell.send("\x03")
    shell.sendline("echo over-$((1+1))")
    shell.expect("over-2", timeout=60)
    shell.sendline("exit")
    shell.expect(harness.pexpect.EOF)
    assert p.wait_history(1)[0]["endReason"] == "user-exit"


@row("OpenSSH 9 ssh")
def test_reader_that_stops(make_proxy, target, keys):
    """A program that does not read what ssh prints: all stands still, then all comes."""
    p = make_proxy({"ssh": {"keepalive_interval": "1s", "keepalive_count": "3"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    size = 100 * MB
    client = harness.Client(p, key=keys.make("alice")).popen("head -c %d /dev/zero" % size)
    try:
        first = client.stdout.read(MB)
        relay = one_relay(p)
        watch_standing(p, relay, wait_still(p))
        rest = client.stdout.read()
        assert client.wait(20) == 0 and len(first) + len(rest) == size
    finally:
        client.kill()
        client.communicate()
    assert p.wait_history(1)[0]["bytesOut"] == size


@row("OpenSSH 9 ssh")
def test_suspended_client(make_proxy, target, keys):
    """A client under SIGSTOP, as on a laptop that sleeps: within the keep-alive limit it goes on
    where it was, beyond it the session ends as lost."""
    p = make_proxy({"ssh": {"keepalive_interval": "1s", "keepalive_count": "5"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    shell = harness.Client(p, key=keys.make("alice")).shell()
    try:
        os.kill(shell.pid, signal.SIGSTOP)
        shell.send("echo kept-$((2+2))\r")
        time.sleep(2)  # the pause itself
        os.kill(shell.pid, signal.SIGCONT)
        shell.expect("kept-4")
        assert p.history() == []
        os.kill(shell.pid, signal.SIGSTOP)
        row = p.wait_history(1)[0]
        assert (row["endReason"], row["endedBy"]) == ("network-lost", "client")
        wait_until(lambda: not p.relays(), "the relay is gone")
    finally:
        os.kill(shell.pid, signal.SIGCONT)
    shell.expect(harness.pexpect.EOF)


@row("OpenSSH 9 ControlMaster")
def test_other_channels_go_on(client, proxy):
    """One channel that nobody reads, others with commands and a copy: none waits for another."""
    with compat.short_dir() as where, compat.master(client, where) as mux:
        stalled = client.popen("cat /dev/zero", flags=mux)
        try:
            stalled.stdout.read(MB)
            wait_still(proxy)
            for n in range(10):
                start = time.monotonic()
                r = client.ssh("echo %d" % n, flags=mux)
                assert r.stdout == "%d\n" % n and time.monotonic() - start < 5
            r = client.ssh("head -c %d /dev/zero" % (50 * MB), flags=mux, text=False)
            assert len(r.stdout) == 50 * MB
        finally:
            stalled.kill()
            stalled.communicate()


@row("any client (TCP)")
def test_closed_receive_window(proxy):
    """A peer that never reads before its login holds up nobody."""
    quiet = []
    try:
        for _ in range(5):
            s = socket.create_connection(("127.0.0.1", proxy.port))
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            s.sendall(b"SSH-2.0-silent\r\n")
            quiet.append(s)
        start = time.monotonic()
        client = harness.Client(proxy, key=None)
        r = client.ssh("true", flags=("-o", "BatchMode=yes"))
        assert r.returncode == 255 and "Permission denied" in r.stderr
        assert time.monotonic() - start < 5
    finally:
        for s in quiet:
            s.close()
