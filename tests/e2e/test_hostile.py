"""Hostile peers: what is offered, packets that should not be, resources without end, odd names."""
import os
import re
import shutil
import socket
import struct
import time

import paramiko
import pytest

import harness
from harness import wait_until


def read_banner(s):
    line = b""
    while not line.endswith(b"\n"):
        line += s.recv(1)
    return line


def raw(proxy):
    s = socket.create_connection(("127.0.0.1", proxy.port), 30)
    read_banner(s)
    s.sendall(b"SSH-2.0-test\r\n")
    return s


def read_exact(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def read_packet(s):
    length, padding = struct.unpack(">IB", read_exact(s, 5))
    return read_exact(s, length - 1)[:length - 1 - padding]


def packet(payload):
    padding = 8 - (len(payload) + 5) % 8
    padding += 8 if padding < 4 else 0
    return struct.pack(">IB", len(payload) + padding + 1, padding) + payload + b"\0" * padding


def name_lists(kexinit):
    lists, at = [], 17
    for _ in range(10):
        n, = struct.unpack(">I", kexinit[at:at + 4])
        lists.append(kexinit[at + 4:at + 4 + n].decode().split(","))
        at += 4 + n
    return lists


def is_closed(s, timeout=30):
    s.settimeout(timeout)
    try:
        while s.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def test_what_is_offered(proxy):
    """AEAD first, nothing with SHA-1, CBC, small groups, DSA or compression; strict key exchange."""
    s = raw(proxy)
    kex, keys, c2s, s2c, mac_in, mac_out, zip_in, zip_out, _, _ = name_lists(read_packet(s))
    assert "kex-strict-s-v00@openssh.com" in kex
    assert c2s == s2c and "gcm" in c2s[0]
    assert zip_in == zip_out == ["none"]
    everything = kex + keys + c2s + mac_in + mac_out
    for bad in ("sha1", "-cbc", "md5", "group1-", "group14-sha1", "group-exchange", "ssh-dss",
                "ssh-rsa", "arcfour", "3des"):
        assert not [x for x in everything if bad in x and not x.startswith("rsa-sha2")], bad
    assert mac_in == mac_out == sorted(mac_in, key=lambda m: "-etm@" not in m)  # those first
    s.close()


@pytest.mark.skipif(not shutil.which("ssh-audit"), reason="no ssh-audit")
def test_ssh_audit_finds_no_failure(proxy):
    r = harness.run("ssh-audit", "-n", "-p", str(proxy.port), "127.0.0.1")
    assert "[fail]" not in r.stdout, r.stdout


def test_what_is_offered_to_targets(proxy, client, target):
    """The target leg is as strict: a target with only old algorithms is refused with a sentence."""
    old = harness.Sshd(os.path.dirname(target.dir), harness.Keys(os.path.dirname(target.key)),
                       name="old", extra="KexAlgorithms diffie-hellman-group14-sha1\n"
                                         "Ciphers aes128-cbc")
    old.start()
    try:
        proxy.add_target(old, "old").grant("alice", "old")
        c = harness.Client(proxy, target="old", key=client.key)
        r = c.ssh("true")
        assert r.returncode == 255 and r.stdout == ""
        assert proxy.wait_history(1)[0]["endReason"] == "target-unreachable"
    finally:
        old.stop()


def test_kexinit_flood_and_wrong_guesses(proxy, client):
    """Each connection a wrong guess and no more: nothing stays, others log in."""
    kexinit = (b"\x14" + os.urandom(16) + b"".join(
        struct.pack(">I", len(x)) + x for x in [
            b"curve448-sha512", b"ssh-ed448", b"aes128-gcm@openssh.com", b"aes128-gcm@openssh.com",
            b"none", b"none", b"none", b"none", b"", b""]) + b"\1" + b"\0" * 4)
    for _ in range(100):
        s = raw(proxy)
        s.sendall(packet(kexinit) * 3)
        assert is_closed(s)
    wait_until(lambda: not proxy.relays(), "all are gone")
    assert client.ssh("echo fine").stdout == "fine\n"


@pytest.mark.parametrize("data", [
    struct.pack(">IB", 0xffffffff, 4) + b"x" * 64, struct.pack(">IB", 0, 0) + b"x" * 64,
    struct.pack(">IB", 12, 200) + b"x" * 64, b"\0" * 64, os.urandom(2000)])
def test_bad_lengths(proxy, client, data):
    s = raw(proxy)
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)
    assert is_closed(s)
    wait_until(lambda: not proxy.relays(), "it is gone")
    assert client.ssh("true").returncode == 0


def test_one_byte_at_a_time_is_ended_by_login_grace(make_proxy):
    p = make_proxy({"limits": {"login_grace": "3s"}})
    s = socket.create_connection(("127.0.0.1", p.port), 30)
    read_banner(s)
    began = time.monotonic()
    s.settimeout(0.2)
    closed = False
    for byte in b"SSH-2.0-slow\r\n" + b"\0" * 2000:
        try:
            s.sendall(bytes([byte]))
            closed = s.recv(4096) == b"" or closed
        except socket.timeout:
            pass
        except OSError:
            closed = True
        if closed or time.monotonic() - began > 25:
            break
    assert closed
    wait_until(lambda: not p.relays(), "the relay is gone")


def transport(proxy, keys):
    t = paramiko.Transport(("127.0.0.1", proxy.port))
    t.connect(username="alice+web01",
              pkey=paramiko.Ed25519Key.from_private_key_file(keys.make("alice")))
    return t


def message(*parts):
    m = paramiko.Message()
    for p in parts:
        if isinstance(p, bytes):
            m.add_byte(p)
        elif isinstance(p, str):
            m.add_string(p)
        else:
            m.add_int(p)
    return m


def only_that_session_dies(proxy, client, t):
    wait_until(lambda: not t.is_active() or proxy.sessions() != [], "it reacts")
    assert client.ssh("echo fine").stdout == "fine\n"
    t.close()
    wait_until(lambda: proxy.sessions() == [] and not proxy.relays(), "nothing is left")
    assert "ended by signal" not in proxy.log()


@pytest.mark.parametrize("what", ["zero maximum packet", "window overflow", "unknown channel",
                                  "close twice", "data after end", "unknown message"])
def test_hostile_packets(proxy, client, keys, what):
    t = transport(proxy, keys)
    if what == "zero maximum packet":
        t._send_message(message(b"\x5a", "session", 7, 1 << 20, 0))
    elif what == "unknown message":
        t._send_message(message(b"\xc7", "what"))
    else:
        c = t.open_session()
        c.exec_command("cat")
        n = c.remote_chanid
        if what == "window overflow":
            for _ in range(3):
                t._send_message(message(b"\x5d", n, 0xffffffff))
        elif what == "unknown channel":
            t._send_message(message(b"\x5e", 4711, "data"))
        elif what == "close twice":
            t._send_message(message(b"\x61", n))
            t._send_message(message(b"\x61", n))
        elif what == "data after end":
            t._send_message(message(b"\x60", n))
            t._send_message(message(b"\x5e", n, "data"))
    time.sleep(0.2)
    only_that_session_dies(proxy, client, t)


def test_300_channels(proxy, client, keys):
    """Ten by default; the rest is refused one by one and the connection stays."""
    t = transport(proxy, keys)
    opened = []
    for _ in range(300):
        try:
            opened.append(t.open_session())
        except paramiko.ChannelException:
            pass
    assert len(opened) == 10
    opened[0].exec_command("echo still")
    assert opened[0].recv(100) == b"still\n"
    only_that_session_dies(proxy, client, t)


def test_compression_is_not_used(proxy, keys):
    c = harness.Client(proxy, key=keys.make("alice"), options=["-C", "-vv"])
    r = c.ssh("echo plain")
    assert r.stdout == "plain\n"
    assert len(re.findall("kex: .* compression: none", r.stderr)) == 2


def test_window_that_is_ignored(proxy, client, keys):
    """A client that sends far past its window is ended; memory does not follow it."""
    t = transport(proxy, keys)
    c = t.open_session()
    c.exec_command("sleep 60")
    n, chunk = c.remote_chanid, "x" * 30000
    with pytest.raises((EOFError, OSError, paramiko.SSHException)):
        for _ in range(2000):  # 60 MB
            t._send_message(message(b"\x5e", n, chunk))
        wait_until(lambda: not t.is_active(), "it is ended")
        raise EOFError
    row = proxy.wait_history(1)[0]
    assert row["endReason"] in ("policy", "network-lost")


NASTY = ("\x1b]0;owned\x07", "\x1b[2J", "a\rb", "a\nb", "\x9b31m", "%s%n%s", "\u202egnp.exe",
         "=cmd|' /C calc'!A0", "<script>alert(1)</script>", "'; drop table sessions; --")


@pytest.mark.parametrize("text", NASTY)
def test_text_from_outside_is_escaped(proxy, client, text):
    """A command line, a version text and a login name drive no terminal, log or table."""
    lines = len(proxy.log().split("\n"))
    client.ssh("true # " + text)
    s = socket.create_connection(("127.0.0.1", proxy.port), 30)
    s.sendall(b"SSH-2.0-" + text.encode().replace(b"\n", b"") + b"\r\n")
    s.close()
    row = proxy.wait_history(1)[0]
    for out in (proxy.do("session", "ls", "--all"), proxy.do("session", "show", row["id"]),
                proxy.do("event", "tail", "--since", "1h")):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u202e]", out.replace("\r\n", "\n"))
    opened, = proxy.events("channel-open")  # a program gets the text as it was
    assert text in opened["text"]
    for line in proxy.log().split("\n")[lines:]:
        assert not re.search(r"[\x00-\x1f\x7f\x80-\x9f\u202e]", line)
        assert line == "" or re.match(r"\d{4}-\d\d-\d\dT\S+ (DEBUG|INFO|WARN|ERROR|TRACE) ", line)


def test_many_short_commands_leave_nothing(proxy, client, keys):
    """One connection, a hundred commands: descriptors and memory of the relay stay."""
    t = transport(proxy, keys)

    def once():
        c = t.open_session()
        c.exec_command("true")
        assert c.recv_exit_status() == 0
        c.close()

    for _ in range(10):
        once()
    relay, = proxy.relays()
    before = len(os.listdir("/proc/%d/fd" % relay)), resident(relay)
    for _ in range(100):
        once()
    wait_until(lambda: len(os.listdir("/proc/%d/fd" % relay)) <= before[0], "no descriptor stays")
    if not harness.SANITIZED:
        assert resident(relay) - before[1] < 2048
    t.close()


def resident(pid):
    with open("/proc/%d/status" % pid) as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))
