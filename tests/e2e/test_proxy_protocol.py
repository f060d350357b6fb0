"""Behind a load balancer: the PROXY protocol's header from trusted networks, and from nobody else."""
import socket
import struct
import threading

import paramiko
import pytest

import harness
from harness import wait_until

V1 = b"PROXY TCP4 203.0.113.9 10.0.0.1 51022 22\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x11" + struct.pack(
    ">H4s4sHH", 12, socket.inet_aton("203.0.113.9"), socket.inet_aton("10.0.0.1"), 51022, 22)
V2_V6 = b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x21" + struct.pack(
    ">H16s16sHH", 36 + 3, socket.inet_pton(socket.AF_INET6, "2001:db8::9"),
    socket.inet_pton(socket.AF_INET6, "::1"), 40000, 22) + b"\x04\x00\x00"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n" + b"\x20\x00\x00\x00"


class Balancer:
    """Says what it is given before each connection, in pieces when asked, and passes the rest on."""
    def __init__(self, port, header, pieces=1):
        self.port, self.header, self.pieces = port, header, pieces
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.port))
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            step = max(1, len(self.header) // self.pieces)
            for at in range(0, len(self.header), step):
                server.sendall(self.header[at:at + step])
            for a, b in ((client, server), (server, client)):
                threading.Thread(target=self.copy, args=(a, b), daemon=True).start()

    @staticmethod
    def copy(a, b):
        try:
            while True:
                data = a.recv(65536)
                if not data:
                    b.shutdown(socket.SHUT_WR)
                    return
                b.sendall(data)
        except OSError:
            pass

    def close(self):
        self.listener.close()


@pytest.fixture
def behind(make_proxy, target, keys):
    def make(trusted):
        p = make_proxy({"ssh": {"trusted_proxies": trusted}, "proxy": {"log_level": "debug"}})
        p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
        return p
    return make


@pytest.mark.parametrize("header,pieces,source,port", [
    (V1, 1, "203.0.113.9", 51022), (V1, len(V1), "203.0.113.9", 51022),
    (V2, 1, "203.0.113.9", 51022), (V2_V6, 7, "2001:db8::9", 40000), (LOCAL, 1, "127.0.0.1", None)])
def test_the_client_is_who_the_balancer_says(behind, keys, header, pieces, source, port):
    p = behind("127.0.0.0/8")
    balancer = Balancer(p.port, header, pieces)
    client = harness.Client(p, key=keys.make("alice"),
                            options=["-o", "Port=%d" % balancer.address[1]])
    r = client.ssh("echo through")
    balancer.close()
    assert (r.returncode, r.stdout) == (0, "through\n"), r.stderr
    row = p.wait_history(1)[0]
    assert row["ipAddress"] == source and port in (None, row["port"]), row


def test_a_header_from_a_stranger_is_no_ssh(behind, keys):
    """The network is not trusted: the header is garbage where a banner should be."""
    p = behind("192.0.2.0/24")
    balancer = Balancer(p.port, V1)
    client = harness.Client(p, key=keys.make("alice"),
                            options=["-o", "Port=%d" % balancer.address[1]])
    assert client.ssh("true").returncode == 255
    balancer.close()
    assert harness.Client(p, key=keys.make("alice")).ssh("true").returncode == 0
    assert [r["ipAddress"] for r in p.wait_history(1)] == ["127.0.0.1"]


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH_9.2\r\n", b"PROXY TCP4 nonsense\r\n",
                                  b"PROXY " + b"x" * 200, b"\r\n\r\n\0\r\nQUIT\n\xff\xff\xff\xff"])
def test_what_is_no_header_is_closed(behind, keys, said):
    p = behind("127.0.0.1")
    with socket.create_connection(("127.0.0.1", p.port)) as s:
        s.settimeout(30)
        s.sendall(said)
        try:
            assert s.recv(100) == b""
        except ConnectionResetError:
            pass
    wait_until(lambda: "no PROXY header" in p.log(), "the log says why")
    assert p.relays() == []


def test_one_that_never_says_its_header_goes(behind, keys):
    """And holds up nobody: 40 silent ones, and one that speaks."""
    p = behind("127.0.0.1")
    silent = [socket.create_connection(("127.0.0.1", p.port)) for _ in range(40)]
    silent[0].sendall(b"PROXY TCP4 ")
    balancer = Balancer(p.port, V1)
    client = harness.Client(p, key=keys.make("alice"),
                            options=["-o", "Port=%d" % balancer.address[1]])
    assert client.ssh("true").returncode == 0
    balancer.close()
    for s in silent:
        s.settimeout(30)
        try:
            assert s.recv(10) == b""
        except ConnectionResetError:  # it had said something that nobody read
            pass
        s.close()
    assert "no PROXY header came in time" in p.log()


def test_limits_are_the_clients(behind, keys):
    """Failed logins block the client behind the balancer, not the balancer."""
    p = behind("127.0.0.1")
    p.set({"limits": {"source_failures": "2", "source_block": "1h"}})
    p.do("reload")
    bad, good = Balancer(p.port, V1), Balancer(p.port, V2_V6)
    for _ in range(3):
        with pytest.raises(paramiko.AuthenticationException):
            transport = paramiko.Transport(bad.address)
            transport.connect(username="alice+web01", password="wrong")
        transport.close()
    clients = [harness.Client(p, key=keys.make("alice"), options=["-o", "Port=%d" % b.address[1]])
               for b in (bad, good)]
    refused = clients[0].ssh("true")
    assert refused.returncode == 255 and "Too many failed logins" in refused.stderr
    assert clients[1].ssh("true").returncode == 0
    bad.close()
    good.close()


def test_reload_changes_who_is_trusted(behind, keys):
    p = behind("192.0.2.0/24")
    balancer = Balancer(p.port, V1)
    client = harness.Client(p, key=keys.make("alice"),
                            options=["-o", "Port=%d" % balancer.address[1]])
    assert client.ssh("true").returncode == 255
    p.set({"ssh": {"trusted_proxies": "127.0.0.1"}})
    p.do("reload")
    assert client.ssh("true").returncode == 0
    balancer.close()
    assert p.wait_history(1)[0]["ipAddress"] == "203.0.113.9"
