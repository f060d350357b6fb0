"""
Forwarded connections: -L, -D, -W, -R, the agent and X11 through the proxy with OpenSSH's client and
a real sshd behind it, and what the policy does not allow. Each is an event with its destination and
its bytes, and counts in the session.
"""
import contextlib
import hashlib
import os
import re
import socket
import subprocess
import threading
import time

import paramiko
import pexpect
import pytest

import harness
import peers
from harness import wait_until
from test_jump import Jumper
from peers import (CHANNEL_OPEN, CHANNEL_OPEN_CONFIRMATION, CHANNEL_OPEN_FAILURE, CHANNEL_SUCCESS,
                   CHANNEL_FAILURE, GLOBAL_REQUEST, REQUEST_FAILURE, REQUEST_SUCCESS)

MIB = 1 << 20


class Echo(peers.Listener):
    """Sends back what comes; ends when the other side has."""
    def serve(self, sock):
        with sock:
            while data := sock.recv(65536):
                sock.sendall(data)


class Answer(peers.Listener):
    """Reads to the end, then says the digest of what came: needs half-close."""
    def serve(self, sock):
        digest = hashlib.sha256()
        with sock:
            while data := sock.recv(65536):
                digest.update(data)
            sock.sendall(digest.hexdigest().encode())


class Source(peers.Listener):
    """Says its name at once, then, when asked, `size` bytes."""
    def __init__(self, size=0):
        self.size = size
        super().__init__()

    def serve(self, sock):
        with sock:
            sock.sendall(b"220 hello\r\n")
            if sock.recv(100):
                left = self.size
                while left:
                    left -= sock.send(b"x" * min(left, 1 << 18))


@contextlib.contextmanager
def served(listener):
    try:
        yield listener
    finally:
        listener.stop()


@contextlib.contextmanager
def tunnel(client, *flags, **kw):
    """ssh -N with these forwards; ended with the block."""
    argv = list(flags) + ["-o", "ExitOnForwardFailure=yes", "-N"]
    p = client.popen(flags=argv, stdin=subprocess.DEVNULL, **kw)
    try:
        yield p
    finally:
        # once more, should it come between a look at the signal's flag and a poll()
        wait_until(lambda: p.poll() is not None or p.terminate(), "ssh ends", every=0.5)


def connected(port, timeout=30):
    """Connected once, as soon as somebody listens: each try would be a channel."""
    def attempt():
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port), timeout)
    return wait_until(attempt, "port %d is listened on" % port)


def read_all(s, size=None):
    data = bytearray()
    while size is None or len(data) < size:
        more = s.recv(65536)
        if not more:
            break
        data += more
    return bytes(data)


def texts(proxy, kind):
    return [e["text"] for e in proxy.events(kind)]


@pytest.fixture(scope="module")
def target(scratch, keys):
    """As the others', and it forwards X11."""
    directory = os.path.join(scratch, "forwards")
    os.makedirs(directory, exist_ok=True)
    os.chmod(directory, 0o755)
    sshd = harness.Sshd(directory, keys, extra="X11Forwarding yes\nGatewayPorts clientspecified")
    sshd.start()
    yield sshd
    sshd.stop()


@pytest.fixture
def echo():
    with served(Echo()) as e:
        yield e


@pytest.fixture
def raw(proxy, keys):
    with peers.RawClient(proxy.port) as r:
        r.begin()
        assert r.sign("alice+web01", peers.load_key(keys.make("alice"))) == peers.USERAUTH_SUCCESS
        yield r


# ---- from the client: -L, -D, -W

def test_local_forward(client, proxy, echo):
    port = harness.free_port()
    with tunnel(client, "-L", "%d:%s" % (port, echo.address)):
        with connected(port) as s:
            s.sendall(b"there and back")
            assert read_all(s, 14) == b"there and back"
            row = wait_until(lambda: [r for r in proxy.sessions() if "forward" in r["channels"]],
                             "a forward is listed")[0]
            assert row["channels"] == ["forward"]
        wait_until(lambda: proxy.sessions()[0]["channels"] == [], "it is closed")
    row = proxy.wait_history(1)[0]
    assert row["bytesIn"] == 14 and row["bytesOut"] == 14
    (opened,) = [t for t in texts(proxy, "channel-open")]
    assert re.fullmatch(r"channel=\d+ forward %s" % re.escape(echo.address), opened.strip()), opened
    (closed,) = texts(proxy, "channel-close")
    assert " forward in=14 out=14" in closed and closed.endswith(echo.address)


def test_stdio_forward(client, proxy, echo):
    r = client.ssh(flags=["-W", echo.address], input="one line\n")
    assert (r.returncode, r.stdout) == (0, "one line\n")
    assert echo.address in texts(proxy, "channel-open")[0]


def test_dynamic_forward(client, proxy):
    body = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nfetch"
    with served(peers.Talker(body)) as web:
        port = harness.free_port()
        with tunnel(client, "-D", str(port)):
            wait_until(lambda: harness.listens(port), "the proxy of ssh listens")
            for how in ("--socks5", "--socks5-hostname", "--socks4"):
                r = harness.run("curl", "-s", how, "127.0.0.1:%d" % port,
                                "http://127.0.0.1:%d/" % web.port)
                assert r.stdout == "fetch", r.stderr
            r = harness.run("curl", "-s", "--socks5-hostname", "127.0.0.1:%d" % port,
                            "http://localhost:%d/" % web.port)
            assert r.stdout == "fetch"
    assert any("localhost:%d" % web.port in t for t in texts(proxy, "channel-open"))


def test_server_that_speaks_first(client):
    """Its first words come right behind the yes; none of 30 are lost."""
    with served(peers.Talker(b"220 mail at your service\r\n")) as mail:
        port = harness.free_port()
        with tunnel(client, "-L", "%d:%s" % (port, mail.address)):
            wait_until(lambda: harness.listens(port), "ssh listens")
            for _ in range(30):
                with connected(port) as s:
                    assert read_all(s, 26) == b"220 mail at your service\r\n"


def test_half_close_both_ways(client):
    data = os.urandom(8 * MIB)
    with served(Answer()) as sink:
        port = harness.free_port()
        with tunnel(client, "-L", "%d:%s" % (port, sink.address)):
            with connected(port) as s:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                assert read_all(s).decode() == hashlib.sha256(data).hexdigest()


def test_destination_that_refuses(client, proxy):
    port, nobody = harness.free_port(), harness.free_port()
    with tunnel(client, "-L", "%d:127.0.0.1:%d" % (port, nobody)):
        with connected(port) as s:
            assert read_all(s) == b""
        text = wait_until(lambda: texts(proxy, "channel-refused"), "an event")[0]
        assert "127.0.0.1:%d" % nobody in text and "the target refused it" in text
        assert proxy.sessions()[0]["channels"] == []


def test_dead_destination_delays_nobody(client, dead, echo):
    to_dead, to_echo = harness.free_port(), harness.free_port()
    with tunnel(client, "-L", "%d:%s" % (to_dead, dead), "-L", "%d:%s" % (to_echo, echo.address)):
        with contextlib.ExitStack() as stack:
            s = stack.enter_context(connected(to_echo))
            for _ in range(10):
                stack.enter_context(connected(to_dead)).sendall(b"x")
            slowest = 0
            for _ in range(50):
                begin = time.monotonic()
                s.sendall(b"y" * 10000)
                assert len(read_all(s, 10000)) == 10000
                slowest = max(slowest, time.monotonic() - begin)
            with connected(to_echo) as new:
                new.sendall(b"new")
                assert read_all(new, 3) == b"new"
            assert slowest < 5


def test_stalled_channel_delays_nobody(client, proxy, echo):
    """One that is not read fills its window and waits; the others go on, and memory is bounded."""
    with served(Source(1 << 40)) as flood:
        to_flood, to_echo = harness.free_port(), harness.free_port()
        with tunnel(client, "-L", "%d:%s" % (to_flood, flood.address),
                    "-L", "%d:%s" % (to_echo, echo.address)):
            with connected(to_flood) as stalled, connected(to_echo) as s:
                stalled.sendall(b"go")
                before = proxy.sessions()[0]["bytesOut"]
                wait_until(lambda: proxy.sessions()[0]["bytesOut"] > before + 100000, "it floods")
                data = os.urandom(4 * MIB)
                sender = threading.Thread(target=s.sendall, args=(data,))
                sender.start()
                assert read_all(s, len(data)) == data
                sender.join()
                relay = proxy.relays()[0]
                with open("/proc/%d/status" % relay) as f:
                    rss_kb = int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))
                assert harness.SANITIZED or rss_kb < 64 * 1024


SLOW = """
import os, select, socket, sys, time
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
while True:
    for f in select.select([s, 0], [], [])[0]:
        data = s.recv(16384) if f is s else os.read(0, 65536)
        if not data:
            sys.exit()
        s.sendall(data) if f == 0 else os.write(1, data)
        time.sleep(0.005 if f is s else 0)
"""


def test_flood_on_a_slow_line_starves_nobody(proxy, keys, echo, tmp_path):
    """3 MB/s towards the client, one channel that could fill it alone, and one that was opened
    later and wants some too."""
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    client = harness.Client(proxy, key=keys.make("alice"), options=[
        "-o", "ProxyCommand=/usr/bin/python3 %s %%p" % script])
    with served(Source(1 << 40)) as flood:
        to_flood, to_echo = harness.free_port(), harness.free_port()
        with tunnel(client, "-L", "%d:%s" % (to_flood, flood.address),
                    "-L", "%d:%s" % (to_echo, echo.address)):
            with connected(to_flood) as busy:
                busy.sendall(b"go")
                drain = threading.Thread(target=lambda: all(iter(lambda: busy.recv(65536), b"")))
                drain.start()
                wait_until(lambda: proxy.sessions()[0]["bytesOut"] > 8 * MIB, "it floods")
                with connected(to_echo) as s:
                    begin = time.monotonic()
                    for _ in range(3):
                        s.sendall(b"z" * 50000)
                        assert len(read_all(s, 50000)) == 50000
                    assert time.monotonic() - begin < 20
                busy.shutdown(socket.SHUT_RDWR)
                drain.join()


def test_100_parallel_connections(client, proxy, echo):
    port = harness.free_port()
    with tunnel(client, "-L", "%d:%s" % (port, echo.address)):
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(connected(port)) for _ in range(100)]
            chunks = [os.urandom(30000) for _ in socks]
            for s, chunk in zip(socks, chunks):
                s.sendall(chunk)
            for s, chunk in zip(socks, chunks):
                assert read_all(s, len(chunk)) == chunk
            row = wait_until(lambda: [r for r in proxy.sessions() if len(r["channels"]) == 100],
                             "100 are listed")[0]
            assert set(row["channels"]) == {"forward"}
            assert re.search(r"CHANNELS +forward x100\n", proxy.do("session", "show", row["id"]))
        wait_until(lambda: proxy.sessions()[0]["channels"] == [], "all are closed")
    row = proxy.wait_history(1)[0]
    assert row["bytesIn"] == row["bytesOut"] == 100 * 30000


def test_forwards_beside_ten_sessions(client, proxy, echo, tmp_path):
    """max_channels counts what runs, as sshd's MaxSessions does."""
    port, master = harness.free_port(), str(tmp_path / "m")
    with tunnel(client, "-M", "-S", master, "-L", "%d:%s" % (port, echo.address)):
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(connected(port)) for _ in range(20)]
            for s in socks:
                s.sendall(b"x")
                assert read_all(s, 1) == b"x"
            r = client.ssh("echo runs", flags=["-S", master])
            assert r.stdout == "runs\n"


def test_forwards_outlive_the_daemon(client, proxy, echo):
    port = harness.free_port()
    with tunnel(client, "-L", "%d:%s" % (port, echo.address)):
        with connected(port) as s, connected(port) as other:
            for one in (s, other):
                one.sendall(b"x")
                assert read_all(one, 1) == b"x"
            proxy.stop()
            s.sendall(b"alone")
            assert read_all(s, 5) == b"alone"
            proxy.start()
            wait_until(lambda: proxy.sessions()[0]["channels"] == ["forward"] * 2, "both are known")
            with connected(port) as third:
                third.sendall(b"new")
                assert read_all(third, 3) == b"new"
            other.close()
            wait_until(lambda: proxy.sessions()[0]["channels"] == ["forward"], "one is left")
            s.sendall(b"on")
            assert read_all(s, 2) == b"on"
    assert proxy.wait_history(1)[0]["bytesIn"] == 12


def test_upload_and_forward_count(client, proxy, echo):
    """`counts = auto`: the traffic of a forward keeps a session from being idle."""
    proxy.do("target", "set", "web01", "idle_after=2s")
    port = harness.free_port()
    with tunnel(client, "-L", "%d:%s" % (port, echo.address)):
        with connected(port) as s:
            for _ in range(8):
                s.sendall(b"x")
                assert read_all(s, 1) == b"x"
                time.sleep(0.5)
                assert proxy.sessions()[0]["status"] == "active"
            proxy.wait_sessions(1, "idle")


# ---- from the target: -R

def test_remote_forward(client, proxy, echo):
    port = harness.free_port()
    with tunnel(client, "-R", "%d:%s" % (port, echo.address)):
        with connected(port) as s:
            s.sendall(b"back and forth")
            assert read_all(s, 14) == b"back and forth"
            wait_until(lambda: "remote-forward" in proxy.sessions()[0]["channels"], "it is listed")
    wait_until(lambda: any(" remote-forward in=14 out=14 " in t
                           for t in texts(proxy, "channel-close")), "an event with its bytes")
    assert any("localhost:%d from 127.0.0.1:" % port in t for t in texts(proxy, "channel-open"))
    assert any("localhost:%d" % port in t for t in texts(proxy, "remote-forward"))
    wait_until(lambda: not harness.listens(port), "the target listens no more")


def test_remote_forward_to_any_port(client, tmp_path):
    """The port that the target chose is told, also while other data flow."""
    master = str(tmp_path / "m")
    with tunnel(client, "-M", "-S", master) as first:
        wait_until(lambda: os.path.exists(master), "the master is there")
        busy = client.popen("cat /dev/zero", flags=["-S", master], stdin=subprocess.DEVNULL)
        reader = threading.Thread(target=lambda: all(iter(lambda: busy.stdout.read(1 << 16), b"")))
        reader.start()
        with contextlib.ExitStack() as stack:
            ports = []
            for _ in range(8):
                to = stack.enter_context(served(Echo())).address
                r = client.ssh(flags=["-S", master, "-O", "forward", "-R", "0:" + to])
                assert r.returncode == 0, r.stderr
                ports.append(int(r.stdout))
            assert len(set(ports)) == 8
            for port in ports:
                with connected(port) as s:
                    s.sendall(b"any")
                    assert read_all(s, 3) == b"any"
        busy.terminate()
        reader.join()
        busy.wait()
        assert first.poll() is None


def test_remote_forward_that_is_taken_back(client, proxy, echo, tmp_path):
    port, master = harness.free_port(), str(tmp_path / "m")
    with tunnel(client, "-M", "-S", master, "-R", "%d:%s" % (port, echo.address)):
        with connected(port) as s:
            s.sendall(b"x")
            assert read_all(s, 1) == b"x"
        r = client.ssh(flags=["-S", master, "-O", "cancel", "-R", "%d:%s" % (port, echo.address)])
        assert r.returncode == 0, r.stderr
        wait_until(lambda: not harness.listens(port), "the target listens no more")
        # and a second time, at the same place
        r = client.ssh(flags=["-S", master, "-O", "forward", "-R", "%d:%s" % (port, echo.address)])
        assert r.returncode == 0, r.stderr
        with connected(port) as s:
            s.sendall(b"y")
            assert read_all(s, 1) == b"y"


def test_remote_forward_that_the_target_refuses(client, proxy, echo):
    p = client.popen(flags=["-N", "-o", "ExitOnForwardFailure=yes",
                            "-R", "127.0.0.1:%d:127.0.0.1:1" % echo.port])  # is taken
    _, err = p.communicate(timeout=60)
    assert p.returncode == 255 and b"remote port forwarding failed" in err


def test_20_remote_forwards_are_answered_in_order(client, echo):
    ports = [harness.free_port() for _ in range(20)]
    taken = ports[7]
    with socket.create_server(("127.0.0.1", taken)):
        flags = [x for p in ports for x in ("-R", "127.0.0.1:%d:%s" % (p, echo.address))]
        p = client.popen(flags=["-N"] + flags, stdin=subprocess.DEVNULL)
        try:
            for port in ports[:7] + ports[8:]:
                with connected(port) as s:
                    s.sendall(b"x")
                    assert read_all(s, 1) == b"x"
        finally:
            p.terminate()
        err = p.communicate(timeout=20)[1].decode()
    assert re.findall(r"remote port forwarding failed for listen port (\d+)", err) == [str(taken)]


def test_remote_forward_without_a_target(client, proxy):
    """Nobody will ever choose one: an answer, and no waiting for ever."""
    client.target = None
    r = client.ssh(flags=["-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1"], timeout=60)
    assert r.returncode == 255 and "remote port forwarding failed" in r.stderr


def test_remote_server_that_speaks_first(client):
    with served(peers.Talker(b"first\n")) as talker:
        port = harness.free_port()
        with tunnel(client, "-R", "%d:%s" % (port, talker.address)):
            wait_until(lambda: harness.listens(port), "the target listens")
            for _ in range(20):
                with connected(port) as s:
                    assert read_all(s, 6) == b"first\n"


def test_global_requests_of_a_raw_client(raw, proxy):
    port = harness.free_port()
    raw.say(GLOBAL_REQUEST, "tcpip-forward", True, "127.0.0.1", port)
    raw.say(GLOBAL_REQUEST, "tcpip-forward", True, "127.0.0.1", 0)
    raw.say(GLOBAL_REQUEST, "cancel-tcpip-forward", True, "127.0.0.1", port)
    raw.say(GLOBAL_REQUEST, "cancel-tcpip-forward", True, "127.0.0.1", port)
    raw.say(GLOBAL_REQUEST, "tcpip-forward", True, "x" * 300, 1)
    raw.say(GLOBAL_REQUEST, "tcpip-forward", False, "127.0.0.1", 0)
    raw.say(GLOBAL_REQUEST, "cancel-tcpip-forward", True, "127.0.0.1", 1)
    kinds, bound = [], None
    for n in range(6):
        kind, m = raw.hear(REQUEST_SUCCESS, REQUEST_FAILURE)
        kinds.append(kind)
        if n == 1:
            bound = m.get_int()
    assert kinds == [REQUEST_SUCCESS] * 3 + [REQUEST_FAILURE] * 3
    assert harness.listens(bound) and not harness.listens(port)


def test_requests_that_pile_up(raw, proxy):
    for _ in range(3000):
        raw.say(GLOBAL_REQUEST, "tcpip-forward", True, "127.0.0.1", 0)
    with contextlib.suppress(AssertionError):
        for _ in range(3000):
            if raw.hear(REQUEST_SUCCESS, REQUEST_FAILURE, timeout=2)[0] == peers.CLOSED:
                break
    assert all(harness.alive(pid) for pid in proxy.relays())


# ---- the agent and X11

def test_agent(proxy, keys, scratch):
    with peers.Agent(scratch, [keys.make("alice"), keys.make("other")]) as agent:
        client = peers.AgentClient(proxy, agent)
        r = client.ssh("ssh-add -l", flags=["-A"])
        assert r.returncode == 0 and r.stdout.count("ED25519") == 2, r.stderr
        want = r.stdout
        r = client.ssh("for i in 1 2 3 4 5 6 7 8 9 10; do ssh-add -l > /tmp/$$.$i & done; wait; "
                       "cat /tmp/$$.*; rm /tmp/$$.*", flags=["-A"])
        assert r.stdout == want * 10, r.stdout + r.stderr
        r = client.ssh("ssh-add -l")  # without -A
        assert r.returncode != 0
    wait_until(lambda: sum(" agent in=" in t for t in texts(proxy, "channel-close")) == 11,
               "eleven uses of the agent are events")


@pytest.fixture(scope="module")
def display(scratch):
    """An X server that wants a cookie."""
    number = os.getpid() % 500 + 100
    authority = os.path.join(scratch, "Xauthority")
    name = ":%d" % number
    r = harness.run("xauth", "-f", authority, "add", name, "MIT-MAGIC-COOKIE-1", "5a" * 16)
    assert r.returncode == 0, r.stderr
    p = subprocess.Popen(["Xvfb", name, "-auth", authority, "-screen", "0", "640x480x24",
                          "-nolisten", "tcp"], stdin=subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    env = dict(os.environ, DISPLAY=name, XAUTHORITY=authority)
    wait_until(lambda: harness.run("xdpyinfo", env=env).returncode == 0, "the X server is up")
    yield env
    p.terminate()
    p.wait()


def test_x11(client, proxy, display):
    r = client.ssh("echo $DISPLAY; xdpyinfo", flags=["-Y"], env=display)
    assert r.returncode == 0 and "dimensions:    640x480" in r.stdout, r.stdout + r.stderr
    assert r.stdout.startswith("localhost:")
    r = client.ssh("xdpyinfo & xdpyinfo & xdpyinfo; wait", flags=["-X"], env=display)
    assert r.stdout.count("dimensions:    640x480") == 3, r.stderr
    wait_until(lambda: sum(" x11 in=" in t for t in texts(proxy, "channel-close")) == 4,
               "they are events")


def test_multiplexed_agent_and_x11(proxy, keys, scratch, display, tmp_path):
    master = str(tmp_path / "m")
    with peers.Agent(scratch, [keys.make("alice")]) as agent:
        client = peers.AgentClient(proxy, agent)
        with tunnel(client, "-M", "-S", master, "-A", "-Y", env=display):
            wait_until(lambda: os.path.exists(master), "the master is there")
            for _ in range(3):
                r = client.ssh("ssh-add -l && xdpyinfo | grep dimensions",
                               flags=["-S", master, "-A", "-Y"], env=display)
                assert r.returncode == 0 and "ED25519" in r.stdout, r.stderr


# ---- the policy

def refused_event(proxy, what):
    return wait_until(lambda: [t for t in texts(proxy, "channel-refused") if what in t],
                      "an event about " + what)[0]


def only(proxy, *kinds):
    proxy.do("target", "set", "web01", "channels=" + (",".join(kinds) or "none"))


def test_policy_refuses_a_shell(client, proxy):
    only(proxy, "exec", "sftp")
    t = client.terminal()
    t.expect("Not allowed here: a shell\\.")
    t.expect(pexpect.EOF)
    t.close()
    assert t.exitstatus == 1
    assert refused_event(proxy, "a shell") == "the policy does not allow a shell"
    assert client.ssh("echo runs").stdout == "runs\n"


def test_policy_refuses_a_command(client, proxy, tmp_path):
    only(proxy, "sftp")
    r = client.ssh("echo runs")
    assert (r.returncode, r.stdout) == (1, "")
    assert "Not allowed here: a command." in r.stderr
    refused_event(proxy, "a command")
    r = client.sftp("pwd\n")
    assert r.returncode == 0, r.stderr
    (tmp_path / "f").write_text("x")
    r = client.scp("-O", str(tmp_path / "f"), client.remote("/dev/null"))
    assert r.returncode != 0 and "Not allowed here: a command." in r.stderr


def test_policy_refuses_sftp(client, proxy):
    only(proxy, "shell", "exec")
    r = client.sftp("pwd\n")
    assert r.returncode != 0 and "Not allowed here: sftp." in r.stderr
    refused_event(proxy, "sftp")
    assert client.ssh("echo runs").stdout == "runs\n"


def test_policy_refuses_forwards(client, proxy, echo):
    only(proxy, "shell", "exec")
    r = client.ssh(flags=["-v", "-W", echo.address], input="x")
    assert r.returncode == 255
    assert "Not allowed here: forwarding to %s" % echo.address in r.stderr
    assert refused_event(proxy, echo.address).startswith("the policy does not allow forwarding to ")
    assert echo.connections == 0


def test_terminal_says_once_what_is_refused(client, proxy, echo):
    only(proxy, "shell", "exec")
    port = harness.free_port()
    t = client.shell(flags=("-tt", "-L", "%d:%s" % (port, echo.address)))
    for _ in range(3):
        with connected(port) as s:
            assert read_all(s) == b""
    t.expect("Not allowed here: forwarding to " + re.escape(echo.address))
    t.sendline("echo o''n")
    t.expect("on\r\n")
    assert "Not allowed" not in t.before
    t.sendline("exit")
    t.expect(pexpect.EOF)


def test_policy_of_destinations(client, proxy, echo):
    with served(Echo()) as other:
        proxy.do("target", "set", "web01",
                 "forward_to=localhost:1-65535,127.0.0.?:%d" % echo.port)
        assert client.ssh(flags=["-W", echo.address], input="in").stdout == "in"
        assert client.ssh(flags=["-W", "LOCALHOST:%d" % other.port], input="in").stdout == "in"
        r = client.ssh(flags=["-W", other.address], input="in")
        assert r.returncode == 255 and other.connections == 1
        refused_event(proxy, "forwarding to " + other.address)
        policy = proxy.json("target", "show", "web01")["policy"]
        assert policy["forward_to"] == "localhost:1-65535,127.0.0.?:%d" % echo.port


def test_policy_refuses_remote_forwards(client, proxy, echo):
    only(proxy, "shell", "exec", "forward", "agent")
    port = harness.free_port()
    r = client.ssh(flags=["-v", "-N", "-o", "ExitOnForwardFailure=yes",
                          "-R", "%d:%s" % (port, echo.address)])
    assert r.returncode == 255 and "remote port forwarding failed" in r.stderr
    assert "Not allowed here: forwarding from localhost:%d of the target" % port in r.stderr
    refused_event(proxy, "forwarding from localhost:%d" % port)


def test_policy_refuses_the_agent(proxy, keys, scratch):
    only(proxy, "shell", "exec", "forward", "x11")
    with peers.Agent(scratch, [keys.make("alice")]) as agent:
        r = peers.AgentClient(proxy, agent).ssh("ssh-add -l", flags=["-v", "-A"])
    assert r.returncode != 0 and "ED25519" not in r.stdout
    assert "Not allowed here: agent forwarding" in r.stderr
    refused_event(proxy, "agent forwarding")


def test_policy_refuses_x11(client, proxy, display):
    only(proxy, "shell", "exec", "forward", "agent")
    r = client.ssh("echo \"<$DISPLAY>\"", flags=["-v", "-Y"], env=display)
    assert r.stdout == "<>\n"
    assert "X11 forwarding request failed" in r.stderr
    assert "Not allowed here: X11 forwarding" in r.stderr
    refused_event(proxy, "X11 forwarding")


def test_sockets_are_refused_at_once(client, proxy, tmp_path):
    """libssh knows no streamlocal: refused whatever the policy says, and said."""
    local = harness.free_port()
    with tunnel(client, "-v", "-L", "%d:/run/some.sock" % local) as p:
        with connected(local) as s:
            assert read_all(s) == b""
    refused_event(proxy, "forwarding to a socket")
    only(proxy, "all")
    begin = time.monotonic()
    r = client.ssh("echo on", flags=["-v", "-R", "/tmp/%s:127.0.0.1:1" % harness.random_name()])
    assert r.stdout == "on\n" and time.monotonic() - begin < 20
    assert "remote port forwarding failed" in r.stderr
    assert "Not allowed here: forwarding of a socket by the target" in r.stderr
    assert refused_event(proxy, "forwarding of a socket by the target").startswith("libssh ")


def test_policy_of_a_grant_and_of_the_configuration(make_proxy, target, keys, echo):
    p = make_proxy({"ssh": {"channels": "exec sftp", "forward_to": "127.0.0.*:*"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target)
    p.grant("alice", "web01", "channels=exec forward")
    c = harness.Client(p, key=keys.make("alice"))
    assert c.ssh("echo runs").stdout == "runs\n"
    assert c.ssh(flags=["-W", echo.address], input="in").stdout == "in"
    assert c.sftp("pwd\n").returncode != 0
    assert c.ssh(flags=["-W", "localhost:%d" % echo.port], input="in").returncode == 255


def test_nothing_is_allowed(client, proxy):
    only(proxy)
    r = client.ssh("id")
    assert (r.returncode, r.stdout, peers.told(r)) == (1, "", "Not allowed here: a command.")


@pytest.mark.parametrize("kind,fields", [
    ("direct-streamlocal@openssh.com", ("/run/x", "", 0)), ("tun@openssh.com", (1, 0)),
    ("x11", ("127.0.0.1", 1)), ("forwarded-tcpip", ("127.0.0.1", 1, "127.0.0.1", 2)),
    ("auth-agent@openssh.com", ()), ("nonsense", ())])
def test_channels_that_no_client_opens(raw, proxy, kind, fields):
    raw.say(CHANNEL_OPEN, kind, 0, 1 << 21, 1 << 15, *fields)
    number, _ = raw.hear(CHANNEL_OPEN_CONFIRMATION, CHANNEL_OPEN_FAILURE)
    assert number == CHANNEL_OPEN_FAILURE
    assert raw.open_session(5) == CHANNEL_OPEN_CONFIRMATION
    assert raw.execute("echo on", 5) == CHANNEL_SUCCESS


def test_requests_on_a_forward_are_refused(raw, echo):
    raw.say(CHANNEL_OPEN, "direct-tcpip", 0, 1 << 21, 1 << 15, "127.0.0.1", echo.port,
            "127.0.0.1", 1)
    number, m = raw.hear(CHANNEL_OPEN_CONFIRMATION, CHANNEL_OPEN_FAILURE)
    assert number == CHANNEL_OPEN_CONFIRMATION
    m.get_int()
    raw.theirs[0] = m.get_int()
    for name, fields in (("shell", ()), ("exec", ("id",)), ("env", ("A", "b")),
                         ("pty-req", ("xterm", 80, 24, 0, 0, "\0"))):
        raw.request(name, True, *fields)
        assert raw.hear(CHANNEL_SUCCESS, CHANNEL_FAILURE)[0] == CHANNEL_FAILURE


def test_forwards_through_a_jump(proxy, keys, echo):
    """-L and -R behind ssh -J: the inner session's, with the events of that."""
    jumper = Jumper(proxy, keys.make("alice"))
    port = harness.free_port()
    p = jumper.popen(flags=["-N", "-L", "%d:%s" % (port, echo.address)])
    try:
        with connected(port) as s:
            s.sendall(b"inside")
            assert read_all(s, 6) == b"inside"
            wait_until(lambda: proxy.sessions()[0]["channels"] == ["forward"], "it is listed")
    finally:
        wait_until(lambda: p.poll() is not None or p.terminate(), "ssh ends", every=0.5)
    wait_until(lambda: any(" forward in=6 out=6 " in t for t in texts(proxy, "channel-close")),
               "an event with its bytes")


# ---- a hostile target

class Pushy(peers.FakeTarget):
    """Opens channels that nobody asked for, once somebody runs something."""
    def __init__(self, key_path):
        self.outcomes = {}
        super().__init__(key_path, password="pw")

    def serve(self, sock):
        transport = paramiko.Transport(sock)
        transport.add_server_key(peers.load_key(self.key_path))
        server = peers._FakeServer(self)
        transport.start_server(event=threading.Event(), server=server)
        channel = transport.accept(20)
        assert channel and server.wanted.wait(10)
        for kind, origin, to in (("forwarded-tcpip", ("127.0.0.1", 1), ("127.0.0.1", 8080)),
                                 ("x11", ("127.0.0.1", 1), None),
                                 ("auth-agent@openssh.com", None, None),
                                 ("session", None, None),
                                 ("direct-tcpip", ("127.0.0.1", 1), ("127.0.0.1", 22))):
            try:
                transport.open_channel(kind, to, origin, timeout=10)
                self.outcomes[kind] = "opened"
            except paramiko.ChannelException as e:
                self.outcomes[kind] = e.code
        channel.sendall(b"done\n")
        channel.send_exit_status(0)
        channel.close()
        while transport.is_active() and not self.is_over:
            time.sleep(0.1)
        transport.close()


def test_unasked_channels_of_the_target_are_refused(make_proxy, keys):
    with served(Pushy(keys.make("pushy"))) as pushy:
        p = make_proxy()
        p.add_user("alice", key=keys.make("alice"))
        p.do("target", "add", "web01", "--type", "ssh", "--address", pushy.address, "--account",
             "someone", "--auth", "password", "--secret-stdin", "--host-key", pushy.host_key_line,
             input="pw\n")
        p.grant()
        r = harness.Client(p, key=keys.make("alice")).ssh("id")
        assert r.stdout == "done\n", r.stderr
        assert set(pushy.outcomes.values()) == {1}, pushy.outcomes  # administratively prohibited
        assert len(pushy.outcomes) == 5
        for what in ("remote-forward that nobody asked for", "the display that nobody forwarded",
                     "the agent that nobody forwarded", "a channel that no client offers"):
            refused_event(p, what)
