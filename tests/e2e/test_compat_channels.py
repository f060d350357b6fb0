"""X11, the agent and forwards, alone and side by side on one connection, as editors use them."""
import concurrent.futures
import contextlib
import os
import shutil
import socket
import struct
import subprocess
import threading

import pytest

import compat
import harness
import peers
from compat import MB, needs, row


@pytest.fixture(scope="module")
def display():
    """An X server of our own; its DISPLAY and authority."""
    if not shutil.which("Xvfb") or not shutil.which("xdpyinfo"):
        pytest.skip("needs xvfb and x11-utils")
    with compat.short_dir() as where:
        authority = os.path.join(where, "authority")
        read, write = os.pipe()
        p = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "640x480x24",
                              "-nolisten", "tcp", "-auth", authority], pass_fds=(write,),
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
        os.close(write)
        with os.fdopen(read) as f:
            name = ":" + f.readline().strip()
        env = dict(os.environ, DISPLAY=name, XAUTHORITY=authority)
        r = harness.run("xauth", "add", name, ".", "0123456789abcdef" * 2, env=env)
        assert r.returncode == 0, r.stderr
        yield env
        p.terminate()
        p.wait()


@pytest.fixture
def x11_target(proxy, keys, tmp_path):
    sshd = harness.Sshd(str(tmp_path), keys, name="x11", extra="X11Forwarding yes").start()
    proxy.add_target(sshd, "x11").grant("alice", "x11")
    yield sshd
    sshd.stop()


@row("OpenSSH 9 ssh -X, Xvfb")
@needs("Xvfb", "xvfb")
def test_x11(client, display, x11_target):
    """An X11 program at the target draws on the client's display."""
    client.target = "x11"
    r = client.ssh("xdpyinfo", flags=("-X",), env=display)
    assert r.returncode == 0 and "640x480 pixels" in r.stdout, r.stderr


@row("OpenSSH 9 ControlMaster with -Y and -A")
@needs("Xvfb", "xvfb")
def test_parallel_channels_with_x11_and_agent(client, keys, scratch, display, x11_target):
    """X11, agent and commands at once on one connection."""
    client.target = "x11"
    agent_uses = "ssh-add -l | grep -c alice"
    # one session has the display: those of several would race for ~/.Xauthority at the target
    draws = "for n in 1 2 3 4; do xdpyinfo | grep -c '640x480 pixels' & done; wait"
    with peers.Agent(scratch, [keys.make("alice")]) as agent:
        me = peers.AgentClient(client.proxy, agent, key=client.key)
        me.target = "x11"
        me.options = ["-o", "ForwardAgent=" + agent.path]
        with compat.short_dir() as where, compat.master(me, where, "-Y", env=display) as mux:
            commands = [(draws, mux + ("-Y",), "1\n" * 4)]
            commands += [(agent_uses, mux, "1\n"), ("echo 1", mux, "1\n")] * 6
            with concurrent.futures.ThreadPoolExecutor(6) as pool:
                got = list(pool.map(lambda c: me.ssh(c[0], flags=c[1], env=display), commands))
            for (command, _, expected), r in zip(commands, got):
                assert (r.returncode, r.stdout) == (0, expected), (command, r.stderr)


@row("OpenSSH 9 ssh -A")
def test_agent(client, keys, scratch):
    """The forwarded agent signs: ten requests side by side."""
    with peers.Agent(scratch, [keys.make("alice")]) as agent:
        me = peers.AgentClient(client.proxy, agent, key=client.key)
        me.options = ["-o", "ForwardAgent=" + agent.path]
        r = me.ssh("for i in 1 2 3 4 5 6 7 8 9 10; do ssh-add -l & done; wait")
        assert r.returncode == 0 and r.stdout.count("alice") == 10, r.stderr


# ---- editors that live on ssh

def through_socks(port, to_port, timeout=20):
    """A connection through a SOCKS5 proxy of ssh -D."""
    s = socket.create_connection(("127.0.0.1", port), timeout)
    s.sendall(b"\5\1\0")
    assert s.recv(2) == b"\5\0"
    s.sendall(b"\5\1\0\1" + socket.inet_aton("127.0.0.1") + struct.pack(">H", to_port))
    answer = b""
    while len(answer) < 10:
        more = s.recv(10 - len(answer))
        assert more, "the SOCKS connection ended: %r" % answer
        answer += more
    assert answer[1] == 0, answer
    return s


SERVER = r"""
import socket, threading
def serve(c):
    with c:
        while True:
            data = c.recv(65536)
            if not data:
                return
            c.sendall(data)
s = socket.create_server(("127.0.0.1", 0), backlog=64)
print("listening=%d" % s.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"""


@row("VS Code's pattern: OpenSSH 9 ssh -T -D")
def test_editor_over_ssh(client, proxy):
    """`ssh -T -D port host bash`: a script by standard input, a server, many channels that stay."""
    port = harness.free_port()
    p = client.popen("bash", flags=("-T", "-D", str(port)), text=True, bufsize=1)
    connections = []
    try:
        p.stdin.write("echo script-starts\nexec 3<<'END'\n%s\nEND\n"
                      "/usr/bin/python3 /dev/fd/3 &\nserver=$!\n" % SERVER)
        assert p.stdout.readline() == "script-starts\n"
        to_port = int(p.stdout.readline().split("=")[1])

        def talk(n):
            s = through_socks(port, to_port)
            connections.append(s)
            data = os.urandom(MB) + bytes([n])
            sender = threading.Thread(target=s.sendall, args=(data,))
            sender.start()
            got = b""
            while len(got) < len(data):
                got += s.recv(65536)
            sender.join()
            assert got == data

        with concurrent.futures.ThreadPoolExecutor(8) as pool:  # below the limit of channels
            list(pool.map(talk, range(8)))
        for n in range(30):  # the long-lived ones go on while others come and go
            kept = connections[n % 8]
            kept.sendall(b"ping%d" % n)
            assert kept.recv(100) == b"ping%d" % n
            if n % 3 == 0:
                with through_socks(port, to_port) as s:
                    s.sendall(b"x")
                    assert s.recv(1) == b"x"
            p.stdin.write("echo alive-%d\n" % n)
            assert p.stdout.readline() == "alive-%d\n" % n
        assert len(proxy.sessions()) == 1
        for s in connections:
            s.close()
        p.stdin.write("kill $server; exit 4\n")
        assert p.wait(20) == 4
    finally:
        for s in connections:
            s.close()
        with contextlib.suppress(OSError):
            p.stdin.close()
        p.kill()
        p.wait()
    row = proxy.wait_history(1)[0]
    assert row["endReason"] == "user-exit" and row["bytesIn"] > 8 * MB < row["bytesOut"]
