"""
Bad input on both sides of the RDP relay: each case ends one relay with a reason, a session beside
it goes on, and in the end there are as many processes, descriptors and bytes as before.
"""
# pylint: disable=redefined-outer-name
import concurrent.futures
import contextlib
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time

import pytest

import harness
import rdp_script as rdp
from harness import wait_until
from rdp_fixtures import *  # noqa: F403 pylint: disable=wildcard-import,unused-wildcard-import

GRACE = 10
INPUT = struct.pack("<HHIHHHH", 1, 0, 0, 4, 0, 0x1e, 0)  # a key goes down


class World:
    """A proxy, a good target with a session that lives all the time, and one that does its worst."""
    def __init__(self, scratch, keys):
        self.place = tempfile.mkdtemp(prefix="hostile-", dir=scratch)
        options, port = with_rdp({"limits": {"login_grace": "%ds" % GRACE}})
        self.p = harness.Proxy(scratch, options)
        path = os.path.join(self.p.dir, "host_key")
        shutil.copy(keys.make("proxy_host"), path)
        if self.p.is_root:
            shutil.chown(path, "sallyport")
        self.p.set({"ssh": {"host_key": path}})
        self.p.rdp_port = port
        self.p.start()
        self.p.add_user("alice", password=PASSWORD)
        self.pair = rdp.make_certificate(self.place, "shared")
        self.good = rdp.RawTarget(self.place, "good", echo)
        self.bad = rdp.RawTarget(self.place, "bad")
        add_target(self.p, "good", self.good)
        add_target(self.p, "bad", self.bad)
        self.other = rdp.RawClient(port).go("active", "alice+good", PASSWORD)
        self.p.wait_sessions(1, "active")
        self.count = 0
        self.base = self.usage()

    def usage(self):
        """Descriptors and KiB of the daemon and its gates."""
        pids = [self.p.process.pid, *harness.children(self.p.process.pid)]
        fds = sum(len(os.listdir("/proc/%d/fd" % pid)) for pid in pids)
        kib = 0
        for pid in pids:
            with open("/proc/%d/status" % pid) as f:
                kib += int(next(line for line in f if line.startswith("VmRSS")).split()[1])
        return fds, kib

    def is_alive(self):
        """The session beside: what it types comes back."""
        self.count += 1
        c = self.other
        c.say(rdp.share_data(0x1c, INPUT + bytes([self.count & 0xff]), c.share, c.user))
        while True:
            _, body = c.data()
            if body[2:4] == b"\x17\0" and body[14] == 0x99:
                return body[18] == self.count & 0xff

    def alone(self):
        wait_until(lambda: len(self.p.relays()) == 1, "only the good session's relay is left")
        wait_until(lambda: len(self.p.sessions()) == 1, "only the good session")
        assert self.is_alive()

    def finish(self):
        self.other.close()
        self.good.stop()
        self.bad.stop()
        self.p.clean_up()
        self.p.assert_clean_log()
        shutil.rmtree(self.p.dir, ignore_errors=True)


def echo(s):
    """Answers input with what is behind it."""
    s.go()
    s.sock.settimeout(None)
    while True:
        _, body = s.data()
        if body[2:4] == b"\x17\0" and body[14] == 0x1c:
            s.say(rdp.share_data(0x99, body[-1:], s.share))


@pytest.fixture(scope="module")
def world(scratch, keys):
    w = World(scratch, keys)
    yield w
    w.finish()


@pytest.fixture
def client(world):
    """A client that is to do its worst."""
    c = rdp.RawClient(world.p.rdp_port)
    yield c
    c.close()
    world.alone()


# ---- clients

def long(pdu):
    """The same with a TPKT length of 65535."""
    return pdu[:2] + b"\xff\xff" + pdu[4:]


def blob(size, version=2, chars=1):
    return struct.pack("<IIIIH", size, 0, version, 0, chars) + b"a\0"


EARLY = {
    "garbage": bytes(range(256)) * 16,
    "zeroes": b"\0" * 4096,
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a length of 65535": long(rdp.x224_request()) + b"x" * 20000,
    "a length of 0": b"\3\0\0\0" + b"x" * 100,
    "a length of 5": b"\3\0\0\5\1" + b"x" * 100,
    "a lying length indicator": rdp.tpkt(b"\xff" + rdp.x224_request()[5:]),
    "a confirm": rdp.x224_confirm(),
    "fast-path": b"\0\4\0\0" * 100,
    "a blob of 4 GiB": blob(0xffffffff) * 100,
    "a blob of 15": blob(15) * 100,
    "a blob of lies": blob(20, chars=9) * 100,
    "a blob of version 9": blob(20, 9, 1) * 100,
    "a request twice": rdp.x224_request() * 2,
    "early TLS": rdp.x224_request() + b"\x16\3\1\2\0\1\0\1\xfc\3\3" + b"x" * 400,
    "the old security": rdp.tpkt(b"\6\xe0\0\0\0\0\0"),
    "RDSTLS only": rdp.x224_request(4),
    "a long cookie": rdp.x224_request(0, b"Cookie: mstshash=" + b"a" * 200 + b"\r\n"),
}


@pytest.mark.parametrize("what", EARLY)
def test_before_tls(client, what):
    client.send(EARLY[what])
    client.ends()


SILENCE = {
    "nothing": lambda c: None,
    "half a TPKT": lambda c: c.send(rdp.x224_request()[:7]),
    "half a blob": lambda c: c.send(blob(200)),
    "no TLS": lambda c: c.go("x224"),
    "half a hello": lambda c: (c.go("x224"), c.send(b"\x16\3\1\2\0\1\0\1\xfc\3\3")),
    "no settings": lambda c: c.go("tls"),
    "half the settings": lambda c: (c.go("tls"), c.send(rdp.connect_initial(rdp.cs_blocks())[:99])),
    "no joins": lambda c: c.go("connect"),
    "no login": lambda c: c.go("join"),
}


def test_silence(world):
    """All of them at once: each is ended by the login grace, and none earlier than the others."""
    made = [rdp.RawClient(world.p.rdp_port) for _ in SILENCE]
    since = time.monotonic()
    for c, what in zip(made, SILENCE.values()):
        what(c)
    assert world.is_alive()
    for c in made:
        c.ends()
        assert time.monotonic() - since < GRACE + 10
        c.close()
    assert time.monotonic() - since > GRACE - 2
    world.alone()


def test_a_slow_one(client):
    """A byte now and then does not lengthen the login grace."""
    since = time.monotonic()
    with contextlib.suppress(OSError):
        for byte in rdp.x224_request(token=b"Cookie: mstshash=" + b"a" * 60 + b"\r\n"):
            client.send(bytes([byte]))
            time.sleep(0.2)
            assert time.monotonic() - since < GRACE + 10
    client.ends()
    assert GRACE - 2 < time.monotonic() - since < GRACE + 10


def settings(blocks):
    return lambda c: (c.go("tls"), c.send(rdp.connect_initial(blocks)))


def joined(*pdus):
    return lambda c: (c.go("connect"), c.send(rdp.ERECT + rdp.ATTACH), c.pdu(), c.send(b"".join(pdus)))


def info(**kw):
    return lambda c: (c.go("join"), c.info("alice+bad", PASSWORD, **kw))


CORE = rdp.cs_core()
LATE = {
    "garbage in TLS": lambda c: (c.go("tls"), c.send(bytes(range(256)) * 16)),
    "TLS garbage": lambda c: (c.go("x224"), c.send(bytes(range(256)) * 16)),
    "65535 for settings": lambda c: (c.go("tls"), c.send(
        long(rdp.connect_initial(rdp.cs_blocks())) + b"x" * 20000)),
    "settings without blocks": settings(b""),
    "no core": settings(rdp.cs_net(["rdpdr"])),
    "32 channels": settings(rdp.cs_blocks(["c%d" % i for i in range(32)])),
    "4 billion channels": settings(CORE + rdp.cs_net(["rdpdr"], count=0xffffffff)),
    "a name without an end": settings(rdp.cs_blocks([b"AAAAAAAA"])),
    "more channels than sent": settings(CORE + rdp.cs_net(["rdpdr"], count=2)),
    "a block of 0": settings(CORE + rdp.block(0xc003, b"", 0)),
    "a block of 3": settings(CORE + rdp.block(0xc003, b"", 3)),
    "a block of 65535": settings(CORE + rdp.block(0xc003, b"\0" * 8, 65535)),
    "a core of 4": settings(rdp.block(0xc001, b"")),
    "login first": lambda c: (c.go("tls"), c.send(rdp.data(
        0x64, 1007, rdp.IO, rdp.client_info("alice+bad", PASSWORD)))),
    "settings twice": lambda c: (c.go("connect"), c.send(rdp.connect_initial(rdp.cs_blocks()))),
    "65535 for attach": lambda c: (c.go("connect"), c.send(long(rdp.ATTACH) + b"x" * 20000)),
    "a foreign channel": joined(rdp.join_request(1007, 2000)),
    "joins without end": joined(*[rdp.join_request(1007, rdp.IO)] * 500),
    "an unknown PDU": joined(rdp.x224(b"\xfc" * 9)),
    "an indication": joined(rdp.data(0x68, 1007, rdp.IO, b"x" * 99)),
    "data beside": joined(rdp.data(0x64, 1007, rdp.FIRST_CHANNEL, b"x" * 99)),
    "65535 for the login": lambda c: (c.go("join"), c.send(
        long(rdp.data(0x64, c.user, rdp.IO, b"x" * 99)) + b"x" * 20000)),
    "an empty login": lambda c: (c.go("join"), c.say(b"")),
    "a login of 20": lambda c: (c.go("join"), c.say(rdp.client_info("alice+bad", PASSWORD)[:20])),
    "lengths of 65535": info(lengths=[65535] * 5),
    "odd lengths": info(lengths=[1, 3, 5, 7, 9]),
    "long lengths": info(lengths=[0, 18, 2000, 0, 0]),
    "a login of licences": lambda c: (c.go("join"), c.say(rdp.LICENCE_VALID)),
}


@pytest.mark.parametrize("what", LATE)
def test_before_the_login(world, client, what):
    before = len(world.bad.served)
    with contextlib.suppress(OSError):
        LATE[what](client)
    client.ends()
    assert len(world.bad.served) == before, "no target hears of it"


def test_31_channels(world, client):
    """As many as there may be."""
    world.bad.script = lambda s: s.go().stay()
    client.names = ["chan%03d" % i for i in range(31)]
    client.go("active", "alice+bad", PASSWORD)
    world.p.wait_sessions(2, "active")
    assert len(world.bad.last().names) == 31
    client.bye()


SESSION = {
    "garbage": bytes(range(1, 256)) * 20,
    "half of 65535": b"\3\0\xff\xff" + b"x" * 5000,
    "an unknown PDU": rdp.x224(b"\xfc" * 9),
    "a Connect Initial": rdp.connect_initial(rdp.cs_blocks()),
    "fast-path encrypted": b"\xc4\4\0\0",
}


@pytest.mark.parametrize("what", SESSION)
def test_in_a_session(world, client, what):
    world.bad.script = lambda s: s.go().stay()
    client.go("active", "alice+bad", PASSWORD)
    world.p.wait_sessions(2, "active")
    count = len(world.p.history())
    client.send(SESSION[what])
    if what.startswith("half"):
        client.close()
    else:
        client.ends()
    row = world.p.wait_history(count + 1)[-1]
    assert row["endReason"] in ("policy", "user-exit", "network-lost"), row
    if not what.startswith("half"):
        assert row["endReason"] == "policy" and "not RDP" in row["endText"], row


def share(body):
    return lambda c: c.say(body)


NOISE = {
    "a second login": lambda c: c.info("alice+good", PASSWORD),
    "share lengths": share(b"\xff\xff\x17\0\xea\3" + b"x" * 30),
    "a share of 0": share(b"\0\0\x17\0\xea\3"),
    "input without end": lambda c: c.say(rdp.share_data(0x1c, struct.pack("<HH", 65535, 0), c.share,
                                                        c.user)),
    "fast-path input": lambda c: c.send(b"\x3c\6\xff\xff\xff\xff"),
    "an unknown channel": lambda c: c.say(b"x" * 99, 60000),
    "a licence": share(rdp.LICENCE_VALID),
    "devices": lambda c: c.say(rdp.chunk(b"rDAD\xff\xff\xff\xff" + b"x" * 99), c.channels["rdpdr"]),
    "dynamic": lambda c: c.say(rdp.chunk(b"\x1f"), c.channels["drdynvc"]),
    "no chunk": lambda c: c.say(b"\1\2", c.channels["drdynvc"]),
    "confirm again": lambda c: c.say(rdp.share_control(3, b"\xff" * 30, c.user)),
}


@pytest.mark.parametrize("policy", ["rdp_channels=all", "rdp_channels=printers"])
def test_noise_in_a_session(world, client, policy):
    """What a target can judge by itself is dropped or goes on; the session too."""
    world.p.do("target", "set", "bad", policy)
    world.bad.script = echo
    client.go("active", "alice+bad", PASSWORD)
    world.p.wait_sessions(2, "active")
    for what in NOISE.values():
        what(client)
    client.say(rdp.share_data(0x1c, INPUT + b"!", client.share, client.user))
    while True:
        _, body = client.data()
        if body[2:4] == b"\x17\0" and body[14] == 0x99 and body[18:] == b"!":
            break
    assert world.bad.last().info.find("bob".encode("utf-16-le")) > 0
    client.bye()


# ---- TLS

class Behind:
    """A port of ours that says the X.224 part and hands the rest on, for openssl s_client."""
    def __init__(self, port):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.upstream = rdp.RawClient(port)
        self.upstream.go("x224")
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        sock, _ = self.listener.accept()
        other = threading.Thread(target=self.pump, args=(self.upstream.sock, sock), daemon=True)
        other.start()
        self.pump(sock, self.upstream.sock)
        other.join()

    @staticmethod
    def pump(a, b):
        a.settimeout(rdp.PATIENCE)
        with contextlib.suppress(OSError):
            while True:
                data = a.recv(65536)
                if not data:
                    break
                b.sendall(data)
        with contextlib.suppress(OSError):
            b.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.close()
        self.upstream.close()


def s_client(world, *options, stdin=""):
    behind = Behind(world.p.rdp_port)
    try:
        return subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % behind.port,
                               *options], input=stdin, capture_output=True, text=True, timeout=60,
                              check=False)
    finally:
        behind.close()


def test_renegotiation(world):
    """A client may not ask for it, however often."""
    done = s_client(world, "-tls1_2", stdin="R\n" * 200)
    text = done.stdout + done.stderr
    assert "Secure Renegotiation IS supported" in text and "RENEGOTIATING" in text
    assert "no renegotiation" in text, text[-2000:]
    assert text.count("verify return") <= 4, "one handshake"
    world.alone()


def test_key_updates_without_end(world):
    s_client(world, "-tls1_3", stdin="K\n" * 500)
    world.alone()


@pytest.mark.parametrize("options", [
    ["-tls1"], ["-tls1_1"], ["-tls1_2", "-cipher", "AES128-SHA:AES256-SHA:ECDHE-RSA-AES128-SHA"],
    ["-tls1_2", "-cipher", "AES128-GCM-SHA256"], ["-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"],
], ids=lambda o: "-".join(o)[1:30])
def test_what_is_not_spoken(world, options):
    done = s_client(world, *options)
    assert "Cipher is (NONE)" in done.stdout or done.returncode != 0, done.stdout
    world.alone()


def test_no_resumption_and_no_early_data(world):
    path = os.path.join(world.place, "session")
    done = s_client(world, "-tls1_3", "-sess_out", path)
    assert "Max Early Data: 0" in done.stdout or "Max Early Data" not in done.stdout
    assert not os.path.exists(path), "no ticket was given"
    done = s_client(world, "-tls1_2", "-sess_out", path)
    if os.path.exists(path):
        done = s_client(world, "-tls1_2", "-sess_in", path)
        assert "Reused" not in done.stdout
    world.alone()


# ---- targets

def hybrid(*answers):
    """CredSSP with these answers, each to a message."""
    def script(s):
        s.x224(rdp.x224_confirm(rdp.HYBRID))
        s.tls()
        for answer in answers:
            s.sock.recv(65536)
            s.send(answer)
        s.ends()
    return script


def ts_request(version, token):
    body = b"\xa0\3\2\1" + bytes([version]) + rdp.ber(b"\xa1", rdp.ber(b"\x30", rdp.ber(
        b"\x30", rdp.ber(b"\xa0", rdp.ber(b"\x04", token)))))
    return rdp.ber(b"\x30", body)


def at(step, answer, *more):
    """All steps before, then another answer than is right; more follows."""
    def script(s):
        if step != "x224":
            s.go(s.STEPS[s.STEPS.index(step) - 1])
        getattr(s, step)(answer)
        for pdu in more:
            s.send(pdu)
        s.ends()
    return script


GARBAGE = bytes(range(1, 256)) * 8
NTLM = b"NTLMSSP\0"
TARGETS = {
    "x224: garbage": at("x224", GARBAGE),
    "x224: nothing": lambda s: None,
    "x224: a server's end": lambda s: s.pdu(),
    "x224: 65535": at("x224", b"\3\0\xff\xff" + b"x" * 70000),
    "x224: lying": at("x224", b"\3\0\0\x13\xff\xd0\0\0\0\0\0\2\0\x08\0\1\0\0\0"),
    "x224: a request": at("x224", rdp.x224_request()),
    "x224: unknown failure": at("x224", rdp.x224_confirm(0xffffffff, kind=3)),
    "x224: unknown protocol": at("x224", rdp.x224_confirm(8)),
    "x224: old": at("x224", rdp.tpkt(b"\6\xd0\0\0\0\0\0")),
    "x224: haste": at("x224", rdp.x224_confirm() + GARBAGE),
    "tls: garbage": lambda s: (s.x224(), s.send(GARBAGE), s.ends()),
    "tls: a record of 65535": lambda s: (s.x224(), s.send(b"\x16\3\3\xff\xff" + b"x" * 65535), s.ends()),
    "tls: the end": lambda s: s.x224(),
    "credssp: garbage": hybrid(GARBAGE),
    "credssp: 2 GiB": hybrid(b"\x30\x84\x7f\xff\xff\xff" + b"x" * 100000),
    "credssp: 60000": hybrid(ts_request(6, NTLM + b"\2\0\0\0" + b"x" * 60000)),
    "credssp: no NTLM": hybrid(ts_request(6, b"x" * 100)),
    "credssp: lying NTLM": hybrid(ts_request(6, NTLM + b"\2\0\0\0" + b"\xff" * 48)),
    "credssp: version 0": hybrid(ts_request(0, NTLM + b"\2\0\0\0" + b"\0" * 48)),
    "credssp: empty": hybrid(b"\x30\0"),
    "credssp: the end": lambda s: (s.x224(rdp.x224_confirm(rdp.HYBRID)), s.tls(), s.sock.recv(9)),
    "connect: garbage": at("connect", GARBAGE),
    "connect: garbage, on and on": at("connect", b"\x80" * 1000000),
    "connect: 65535": at("connect", b"\3\0\xff\xff" + b"x" * 70000),
    "connect: fast-path": at("connect", b"\0\4\0\0" * 99),
    "connect: refused": at("connect", rdp.connect_response([1010, 1011], result=2)),
    "connect: encrypted": at("connect", rdp.connect_response([1010, 1011], method=2)),
    "connect: fewer channels": at("connect", rdp.connect_response([1010])),
    "connect: no io": at("connect", rdp.connect_response([1010, 1011], io=0)),
    "connect: cut": at("connect", rdp.x224(b"\x7f\x66\x82\xff\xff\x0a\1\0")),
    "attach: refused": at("attach", rdp.attach_confirm(1007, result=1)),
    "attach: too far": at("attach", rdp.x224(b"\x2e\0\xff\xff")),
    "attach: a join": at("attach", rdp.join_confirm(1007, 1003)),
    "attach: data": at("attach", rdp.data(0x68, 1002, 1003, b"x" * 99)),
    "join: refused": at("join", rdp.join_confirm(1007, 1003, result=1)),
    "join: an ultimatum": at("join", rdp.ULTIMATUM),
    "join: garbage": at("join", GARBAGE),
    "licence: garbage": lambda s: (s.go("login"), s.send(GARBAGE), s.ends()),
    "licence: an ultimatum": lambda s: (s.go("login"), s.send(rdp.ULTIMATUM), s.ends()),
    "licence: the end": lambda s: s.go("login"),
    "active: the end": lambda s: s.go("licence"),
    "active: garbage": lambda s: (s.go("licence"), s.send(GARBAGE), s.ends()),
    "session: garbage": lambda s: (s.go(), s.send(GARBAGE), s.ends()),
    "session: half of 65535": lambda s: (s.go(), s.send(b"\3\0\xff\xff" + b"x" * 99)),
    "session: a share of lies": lambda s: (s.go(), s.say(b"\xff\xff\x17\0\xea\3" + b"x" * 30), s.ends()),
    "session: encrypted": lambda s: (s.go(), s.send(b"\xc0\4\0\0"), s.ends()),
    "session: a redirection of lies": lambda s: (s.go(), s.say(rdp.share_control(10, b"x")), s.ends()),
}


def one_target(world, name, script):
    """None, or what is wrong with the row of a session with such a target."""
    target = rdp.RawTarget(world.place, name, script, certificate=world.pair)
    try:
        add_target(world.p, name, target)
        c = rdp.RawClient(world.p.rdp_port)
        with contextlib.suppress(EOFError, OSError):  # it may be over before the login is
            c.go("info", "alice+" + name, PASSWORD)
            c.error_info()
        c.close()
        rows = wait_until(lambda: [r for r in world.p.history() if r["resourceName"] == name],
                          "the end of " + name)
        return rows[0]
    finally:
        target.stop()


EARLY_STEPS = ("x224", "tls", "credssp", "connect", "attach", "join")


@pytest.mark.parametrize("steps", [EARLY_STEPS[:2], EARLY_STEPS[2:4], EARLY_STEPS[4:],
                                   ("licence", "active", "session")], ids=" ".join)
def test_targets_that_answer_nonsense(world, steps):
    """Side by side, since each end is shown for a while."""
    cases = [what for what in TARGETS if what.split(":")[0] in steps]
    names = {what: "t%d" % list(TARGETS).index(what) for what in cases}
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        rows = dict(zip(cases, pool.map(lambda what: one_target(world, names[what], TARGETS[what]),
                                        cases)))
    wrong = {}
    for what, row in rows.items():
        early = what.split(":")[0] in EARLY_STEPS
        if row["endReason"] not in (("target-unreachable",) if early else
                                    ("target-unreachable", "target-closed")) or not row["endText"]:
            wrong[what] = (row["endReason"], row["endText"])
    assert not wrong
    world.alone()


def test_a_huge_certificate(world, client):
    config = os.path.join(world.place, "huge.cnf")
    with open(config, "w") as f:
        f.write("[req]\ndistinguished_name=dn\nx509_extensions=v3\n[dn]\n[v3]\nsubjectAltName=@alt\n"
                "[alt]\n" + "".join("DNS.%d=%s%d.example\n" % (i, "x" * 40, i) for i in range(2500)))
    pair = rdp.make_certificate(world.place, "huge", "-config", config)
    target = rdp.RawTarget(world.place, "huge-target", certificate=pair)
    try:
        add_target(world.p, "huge", target)
        count = len(world.p.history())
        client.go("info", "alice+huge", PASSWORD).error_info()
        row = world.p.wait_history(count + 1)[-1]
        assert row["endReason"] == "target-unreachable" and row["endText"].startswith("TLS with huge")
    finally:
        target.stop()


SILENT = {
    "x224": lambda s: None,
    "tls": lambda s: s.x224(),
    "connect": lambda s: s.go("tls"),
    "attach": lambda s: s.go("connect"),
    "join": lambda s: s.go("attach"),
    "credssp": lambda s: (s.x224(rdp.x224_confirm(rdp.HYBRID)), s.tls()),
    "licence": lambda s: s.go("login"),
    "active": lambda s: s.go("licence"),
    "desktop": lambda s: (s.go("licence"), s.say(rdp.share_control(
        1, struct.pack("<IHHHH", 1, 65535, 65535, 65535, 0)))),
}


def test_targets_that_fall_silent(world):
    """All of them at once, since each may take its time."""
    targets, made = [], []
    count = len(world.p.history())
    for name, script in SILENT.items():
        def quiet(s, script=script):
            script(s)
            s.sock.settimeout(90)
            s.ends(90)

        targets.append(rdp.RawTarget(world.place, "silent", quiet, certificate=world.pair))
        add_target(world.p, name, targets[-1])
        made.append(rdp.RawClient(world.p.rdp_port).go("info", "alice+" + name, PASSWORD))
    assert world.is_alive()
    rows = wait_until(lambda: len(world.p.history()) >= count + len(SILENT) and world.p.history(),
                      "all of them ended", 60)[count:]
    assert {r["resourceName"] for r in rows} == set(SILENT)
    for r in rows:
        assert r["endReason"] == "target-unreachable" and "in time" in r["endText"], r
    for c in made:
        c.close()
    for t in targets:
        t.stop()
    world.alone()


# ---- the end

def test_nothing_is_left(world):
    """As many descriptors as before, and about as much memory; this is the last test."""
    world.alone()
    wait_until(lambda: world.usage()[0] <= world.base[0], "the descriptors are closed")
    fds, kib = world.usage()
    assert fds <= world.base[0]
    if not harness.SANITIZED:  # which gives nothing back
        assert kib < world.base[1] * 1.5 + 4096, (kib, world.base)
