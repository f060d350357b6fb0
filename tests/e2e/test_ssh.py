"""What people do over SSH, with the programs they have, through the proxy to a real sshd."""
import concurrent.futures
import contextlib
import hashlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import time

import pytest

import harness
import peers
from peers import (CHANNEL_CLOSE, CHANNEL_DATA, CHANNEL_EOF, CHANNEL_EXTENDED_DATA,
                   CHANNEL_FAILURE, CHANNEL_OPEN, CHANNEL_OPEN_CONFIRMATION, CHANNEL_OPEN_FAILURE, CHANNEL_REQUEST,
                   CHANNEL_SUCCESS, CLOSED, GLOBAL_REQUEST, REQUEST_FAILURE, USERAUTH_FAILURE,
                   USERAUTH_SUCCESS, FakeTarget, HastyTarget, PasswordClient, RawClient, told)

MB = 1024 * 1024


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(MB), b""):
            digest.update(block)
    return digest.hexdigest()


@pytest.fixture(scope="module")
def noise(scratch):
    """A file of 200 MB that no compression shrinks and no window divides."""
    path = os.path.join(scratch, "noise")
    block = os.urandom(MB - 7)
    with open(path, "wb") as f:
        for n in range(200):
            f.write(n.to_bytes(7, "big") + block)
    yield path
    os.unlink(path)


@pytest.fixture
def raw(proxy, keys):
    """A raw client, logged in as alice at web01."""
    with RawClient(proxy.port) as c:
        assert c.begin().sign("alice+web01",
                              peers.load_key(keys.make("alice"))) == USERAUTH_SUCCESS
        yield c


def collect(c):
    """(stdout, stderr, requests of the target) of the one channel of a raw client, to its end."""
    out, err, requests = b"", b"", []
    while True:
        number, m = c.hear(CHANNEL_DATA, CHANNEL_EXTENDED_DATA, CHANNEL_REQUEST, CHANNEL_CLOSE)
        if number in (CHANNEL_CLOSE, CLOSED):
            return out, err, requests
        m.get_int()
        if number == CHANNEL_DATA:
            out += m.get_string()
        elif number == CHANNEL_EXTENDED_DATA:
            m.get_int()
            err += m.get_string()
        else:
            requests.append((m.get_text(), m.get_boolean(), m))


def private_kb(pid):
    with open("/proc/%d/smaps_rollup" % pid) as f:
        return sum(int(line.split()[1]) for line in f if line.startswith("Private_"))


# ---- commands

@pytest.mark.parametrize("status", [0, 1, 77, 255])
def test_exit_status(client, proxy, status):
    r = client.ssh("exit %d" % status)
    assert (r.returncode, r.stdout, told(r)) == (status, "", "")
    row = proxy.wait_history(1)[0]
    assert (row["endReason"], row["channels"]) == ("user-exit", [])
    assert row["bytesIn"] == 0 and row["bytesOut"] == 0
    text = [e["text"] for e in proxy.events("channel-close")][0]
    assert "exit=%d" % status in text and "exit %d" % status in text


def test_streams_stay_apart(client, proxy):
    r = client.ssh("cat; echo out; echo err >&2", input="in\0\xff\n")
    assert (r.returncode, r.stdout, told(r)) == (0, "in\0\xff\nout\n", "err")
    row = proxy.wait_history(1)[0]
    assert row["bytesIn"] == len("in\0\xff\n".encode()) and row["bytesOut"] == row["bytesIn"] + 8


def test_exact_bytes(client):
    data = bytes(range(256)) * 257
    r = client.ssh("cat; cat /dev/null >&2", input=data, text=False)
    assert (r.returncode, r.stdout) == (0, data)


def test_exit_signal(raw, client, target):
    raw.open_session()
    assert raw.execute("kill -TERM $$") == CHANNEL_SUCCESS
    _, _, requests = collect(raw)
    name, wants_reply, m = requests[-1]
    assert (name, wants_reply) == ("exit-signal", False)
    assert (m.get_text(), m.get_boolean()) == ("TERM", False)
    assert not [r for r in requests if r[0] == "exit-status"]
    assert client.ssh("kill -KILL $$").returncode == 255


def test_long_command(client):
    text = "x" * 60000
    r = client.ssh("printf %%s %s | wc -c" % text)
    assert (r.returncode, r.stdout.strip()) == (0, "60000")


def test_unknown_command(client):
    r = client.ssh("no-such-command-here")
    assert r.returncode == 127 and "not found" in r.stderr


# ---- terminals

def test_terminal(client, proxy):
    t = client.terminal("stty size; tty; echo TERM=$TERM; exit 7", rows=33, cols=111)
    t.expect("33 111\r\n/dev/pts/[0-9]+\r\nTERM=xterm-256color\r\n")
    t.expect("closed")
    t.close()
    assert t.exitstatus == 7
    row = proxy.wait_history(1)[0]
    assert (row["endReason"], row["recording"]) == ("user-exit", "ok")


def test_shell_and_window_change(client, proxy):
    t = client.shell(rows=24, cols=80)
    t.sendline("stty size")
    t.expect("24 80\r\n")
    t.setwinsize(51, 132)
    t.sendline("while [ \"$(stty size)\" != '51 132' ]; do sleep 0.1; done; echo w=$(stty size)")
    t.expect("w=51 132\r\n")
    t.sendline("stty -echo; cat")
    t.send("typed\x03")  # the terminal's own interrupt
    t.expect(r"READY[$#] ")
    assert [s["status"] for s in proxy.sessions()] == ["active"]
    assert proxy.sessions()[0]["channels"] == ["session"]
    t.sendline("exit 12")
    t.expect("closed")
    t.close()
    assert t.exitstatus == 12 and proxy.wait_history(1)[0]["endReason"] == "user-exit"


def test_shell_without_terminal(client):
    r = client.ssh(flags=("-T",), input="echo hi; tty; exit 5\n")
    assert r.returncode == 5 and "hi\n" in r.stdout and "not a tty" in r.stdout


def test_environment(client):
    r = client.ssh("echo [$SP_A] [$SP_B] [$NOT_ACCEPTED]",
                   flags=("-o", "SetEnv=SP_A=one SP_B=\"t w o\" NOT_ACCEPTED=x"))
    assert (r.returncode, r.stdout) == (0, "[one] [t w o] []\n")


# ---- files

def test_scp_both_ways(client, proxy, tmp_path):
    data = os.urandom(3 * MB + 5)
    (tmp_path / "a").write_bytes(data)
    for n, flag in enumerate(("-p", "-O")):  # sftp underneath, and the old protocol
        up, down = tmp_path / ("up%d" % n), tmp_path / ("down%d" % n)
        r = client.scp(flag, tmp_path / "a", client.remote(str(up)))
        assert r.returncode == 0 and up.read_bytes() == data, r.stderr
        r = client.scp(flag, client.remote(str(up)), down)
        assert r.returncode == 0 and down.read_bytes() == data, r.stderr
    r = client.scp(client.remote(str(tmp_path / "none")), tmp_path / "x")
    assert r.returncode == 1 and "No such file" in r.stderr
    rows = proxy.wait_history(5)
    assert all(s["endReason"] == "user-exit" for s in rows)
    assert rows[0]["bytesIn"] > 3 * MB > rows[0]["bytesOut"]
    assert rows[1]["bytesOut"] > 3 * MB > rows[1]["bytesIn"]


def test_unknown_subsystem(client):
    r = client.ssh("nothing", flags=("-s",))
    assert r.returncode != 0 and "subsystem request failed" in r.stderr


# ---- ends of streams

def test_half_close(client):
    r = client.ssh("sort; echo done", input="b\na\n")
    assert (r.returncode, r.stdout) == (0, "a\nb\ndone\n")
    r = client.ssh("exec >&- 2>&-; wc -c >/dev/null; exit 4", input="x" * MB)
    assert (r.returncode, r.stdout) == (4, "")


def test_close_before_the_exit_status(raw):
    """A client may close once both directions have ended (OpenSSH's multiplexing does): the command
    still runs, and its exit status still comes."""
    raw.open_session()
    raw.execute("exec >&- 2>&-; sleep 0.5; exit 7")
    assert raw.hear(CHANNEL_EOF)[0] == CHANNEL_EOF
    raw.say(CHANNEL_EOF, raw.theirs[0])
    raw.say(CHANNEL_CLOSE, raw.theirs[0])
    name, _, m = collect(raw)[2][-1]
    assert (name, m.get_int()) == ("exit-status", 7)


def test_command_that_ends_at_once(proxy, keys):
    """Its answer and its end arrive together: the client gets both, and the log knows it."""
    fake = HastyTarget(keys.make("fake"), "s3cret")
    add_fake(proxy, fake, "--accept-new")
    with RawClient(proxy.port) as c:
        c.begin().sign("alice+fake01", peers.load_key(keys.make("alice")))
        c.open_session()
        assert c.execute("nothing") == CHANNEL_SUCCESS
        name, _, m = collect(c)[2][-1]
        assert (name, m.get_int()) == ("exit-status", 3)
    opened, = proxy.events("channel-open")
    assert "nothing" in opened["text"]
    fake.stop()


def test_no_input(client):
    r = client.ssh("cat; echo end", flags=("-n",))
    assert (r.returncode, r.stdout) == (0, "end\n")


def test_target_stops_reading(client):
    """The command ends while the client still has much to send."""
    r = client.ssh("head -c 10 >/dev/null; exit 6", input=b"x" * (5 * MB), text=False)
    assert r.returncode == 6


def test_last_words(client):
    """What is written just before the end arrives, all of it, every time."""
    for n in range(10):
        r = client.ssh("head -c 300000 /dev/zero; echo last%d; exit %d" % (n, n), text=False)
        assert r.returncode == n and r.stdout[300000:] == b"last%d\n" % n


# ---- channels

def test_channels_of_one_connection(client, proxy, tmp_path):
    control = tmp_path / "mux"
    master = client.popen(flags=("-M", "-N", "-S", str(control)))
    harness.wait_until(control.exists, "the master listens")
    mux = ("-S", str(control), "-o", "ControlMaster=no")
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        runs = [pool.submit(client.ssh, "cat; sleep 0.3; echo %d; exit %d" % (n, n), flags=mux,
                            input="in%d\n" % n) for n in range(5)]
        for n, r in enumerate(f.result() for f in runs):
            assert (r.returncode, r.stdout) == (n, "in%d\n%d\n" % (n, n)), r.stderr
    assert len(proxy.sessions()) == 1
    left = client.popen("cat", flags=mux)
    harness.wait_until(lambda: proxy.sessions()[0]["channels"] == ["session"], "one channel")
    left.stdin.close()
    assert left.wait(20) == 0
    r = client.ssh(flags=("-S", str(control), "-O", "exit"))
    assert r.returncode == 0
    master.wait(20)
    row = proxy.wait_history(1)[0]
    assert row["endReason"] == "user-exit"
    assert len(proxy.events("channel-open")) == len(proxy.events("channel-close")) == 6


def test_channel_limit(make_proxy, target, keys):
    p = make_proxy({"limits": {"channels": "3"}}).add_target(target)
    p.add_user("alice", key=keys.make("alice")).grant()
    with RawClient(p.port) as c:
        c.begin().sign("alice+web01", peers.load_key(keys.make("alice")))
        got = [c.open_session(n) for n in range(5)]
        assert got == [CHANNEL_OPEN_CONFIRMATION] * 3 + [CHANNEL_OPEN_FAILURE] * 2
        refused = p.events("channel-refused")
        assert len(refused) == 2 and "too many channels" in refused[0]["text"]
        assert c.execute("true", 1) == CHANNEL_SUCCESS
        assert c.hear(CHANNEL_CLOSE)[0] == CHANNEL_CLOSE
        c.say(CHANNEL_CLOSE, c.theirs[1])
        harness.wait_until(lambda: c.open_session(7) == CHANNEL_OPEN_CONFIRMATION,
                           "room for another", every=0.2)
        assert len(p.sessions()) == 1
    p.wait_history(1)


# ---- much data

@pytest.mark.parametrize("side", ["client", "target"])
def test_rekey(proxy, client, keys, scratch, noise, side, tmp_path):
    """100 MB both ways at once, with new keys every 16 MB."""
    source, back = tmp_path / "source", tmp_path / "back"
    with open(noise, "rb") as f:
        source.write_bytes(f.read(100 * MB))
    flags = ("-o", "RekeyLimit=16M", "-v") if side == "client" else ()
    sshd = None
    if side == "target":
        sshd = harness.Sshd(str(tmp_path), keys, name="rekey",
                            extra="RekeyLimit 16M\nLogLevel DEBUG1").start()
        proxy.add_target(sshd, "rekey").grant("alice", "rekey")
        client.target = "rekey"
    try:
        with open(source, "rb") as f, open(back, "wb") as out:
            r = subprocess.run(client.ssh_argv("cat", flags=flags), stdin=f, stdout=out,
                               stderr=subprocess.PIPE, text=True, timeout=120, check=False)
        assert r.returncode == 0, r.stderr[-2000:]
        if sshd:
            with open(sshd.log) as f:
                kex = len(re.findall("SSH2_MSG_KEXINIT sent", f.read()))
        else:
            kex = r.stderr.count("SSH2_MSG_KEXINIT sent")
        assert kex >= 6, kex
        assert sha256(back) == sha256(source)
        row = proxy.wait_history(1)[0]
        said = [x for x in r.stderr.splitlines() if not x.startswith(("debug1", "OpenSSH_"))]
        assert (row["bytesIn"], row["bytesOut"]) == (100 * MB, 100 * MB), said
        assert row["endReason"] == "user-exit"
    finally:
        if sshd:
            sshd.stop()


def test_200_mb_each_way(proxy, client, noise, tmp_path):
    whole = sha256(noise)
    with open(noise, "rb") as f:
        r = subprocess.run(client.ssh_argv("sha256sum"), stdin=f, capture_output=True, text=True,
                           timeout=120, check=False)
    assert r.returncode == 0 and r.stdout.split()[0] == whole
    down = tmp_path / "down"
    with open(down, "wb") as out:
        r = subprocess.run(client.ssh_argv("cat " + noise), stdin=subprocess.DEVNULL, stdout=out,
                           stderr=subprocess.PIPE, timeout=120, check=False)
    assert r.returncode == 0 and sha256(down) == whole
    rows = proxy.wait_history(2)
    assert [s["bytesIn"] for s in rows] == [200 * MB, 0]
    assert [s["bytesOut"] for s in rows] == [len(whole) + 4, 200 * MB]


def test_slow_reader(proxy, client):
    """A client that stops reading holds up nobody, and nothing piles up."""
    t = client.shell()
    quiet = proxy.relays()
    flood = client.popen("cat /dev/zero")
    try:
        harness.wait_until(lambda: len(proxy.relays()) == 2, "the second relay")
        relay = next(pid for pid in proxy.relays() if pid not in quiet)
        flood.stdout.read(MB)
        os.kill(flood.pid, signal.SIGSTOP)

        def moved():
            return max(s["bytesOut"] for s in proxy.sessions())
        seen = [moved()]

        def is_still():
            seen.append(moved())
            return seen[-1] == seen[-2]
        harness.wait_until(is_still, "the flood stops", every=0.5)
        assert harness.SANITIZED or private_kb(relay) < 12 * 1024, private_kb(relay)
        slowest = 0.0
        for n in range(20):
            start = time.monotonic()
            t.sendline("echo $((%d*3))" % (n + 1000))
            t.expect(r"[\r\n]%d\r\n" % ((n + 1000) * 3))
            slowest = max(slowest, time.monotonic() - start)
        assert slowest < 1
        os.kill(flood.pid, signal.SIGCONT)  # and it goes on where it was
        at = moved()
        for _ in range(20):
            assert len(flood.stdout.read(MB)) == MB
        harness.wait_until(lambda: moved() > at, "the flood goes on")
    finally:
        os.kill(flood.pid, signal.SIGCONT)
        flood.kill()
        flood.communicate()
    harness.wait_until(lambda: len(proxy.relays()) == 1, "the relay ends")
    t.sendline("exit")
    t.close()


def test_slow_target(proxy, client):
    """The other way: the target does not read; the client's bytes do not pile up in the relay."""
    up = client.popen("sleep 1000")
    try:
        harness.wait_until(lambda: [s for s in proxy.sessions() if s["status"] == "active"],
                           "the session is up")
        relay = proxy.relays()[0]
        os.set_blocking(up.stdin.fileno(), False)
        sent, since = 0, time.monotonic()
        while time.monotonic() - since < 1.5:  # until nothing was taken for a while
            with contextlib.suppress(BlockingIOError):
                n = os.write(up.stdin.fileno(), b"x" * 65536)
                sent, since = sent + n, time.monotonic()
            assert sent < 64 * MB
            time.sleep(0.001)
        assert harness.SANITIZED or private_kb(relay) < 12 * 1024, (sent, private_kb(relay))
    finally:
        up.kill()
        up.communicate()
    proxy.wait_history(1)


# ---- what is not offered (and test_forwards.py for what a policy does not allow)

@pytest.mark.parametrize("name,fields", [
    ("x11-req", (False, "MIT-MAGIC-COOKIE-1", "00" * 16, 0)),  # this target does not
    ("no-such-request@example.org", ("x",))])
def test_requests_that_are_refused(raw, name, fields):
    raw.open_session()
    raw.request(name, True, *fields)
    assert raw.hear(CHANNEL_SUCCESS, CHANNEL_FAILURE)[0] == CHANNEL_FAILURE
    assert raw.execute("echo on") == CHANNEL_SUCCESS  # and the channel still works
    assert collect(raw)[0] == b"on\n"


@pytest.mark.parametrize("kind,fields", [
    ("direct-tcpip", ("127.0.0.1", 1, "127.0.0.1", 1)),  # nobody listens there
    ("direct-streamlocal@openssh.com", ("/run/x", "", 0)),
    ("tun@openssh.com", (1, 0)), ("x11", ("127.0.0.1", 1)), ("nonsense", ())])
def test_channels_that_are_refused(raw, proxy, kind, fields):
    raw.say(CHANNEL_OPEN, kind, 0, 1 << 21, 1 << 15, *fields)
    number, m = raw.hear(CHANNEL_OPEN_CONFIRMATION, CHANNEL_OPEN_FAILURE)
    assert number == CHANNEL_OPEN_FAILURE
    assert raw.open_session(5) == CHANNEL_OPEN_CONFIRMATION  # and the connection still works
    assert raw.execute("echo on", 5) == CHANNEL_SUCCESS


@pytest.mark.parametrize("name,fields", [
    ("cancel-tcpip-forward", ("127.0.0.1", 1)), ("streamlocal-forward@openssh.com", ("/tmp/x",)),
    ("nonsense@example.org", ())])
def test_global_requests_that_are_refused(raw, name, fields):
    raw.say(GLOBAL_REQUEST, name, True, *fields)
    assert raw.hear(REQUEST_FAILURE, peers.REQUEST_SUCCESS)[0] == REQUEST_FAILURE
    assert raw.open_session() == CHANNEL_OPEN_CONFIRMATION


@pytest.mark.parametrize("wants_reply", [False, True])
def test_2000_variables(raw, proxy, wants_reply):
    raw.open_session()
    relay = proxy.relays()[0]
    for n in range(2000):
        raw.request("env", wants_reply, "SP_%d" % n, "v" * 1000)
    if wants_reply:
        got = [raw.hear(CHANNEL_SUCCESS, CHANNEL_FAILURE)[0] for _ in range(2000)]
        assert 0 < got.count(CHANNEL_SUCCESS) <= 200
    assert raw.execute("env | grep -c ^SP_") == CHANNEL_SUCCESS
    out, _, _ = collect(raw)
    assert 0 < int(out) <= 200
    assert harness.SANITIZED or private_kb(relay) < 12 * 1024


def test_second_command_on_a_channel(raw):
    raw.open_session()
    assert raw.execute("cat") == CHANNEL_SUCCESS
    assert raw.execute("id") == CHANNEL_FAILURE


# ---- logging in at the target

@pytest.fixture(scope="module")
def throw_away():
    """A system user with a password, gone afterwards."""
    if not harness.IS_ROOT:
        pytest.skip("needs root to make a user")
    name, password = "sp" + secrets.token_hex(4), secrets.token_hex(12)
    harness.add_system_user(name, "--no-create-home", "--home-dir", "/", "--shell", "/bin/sh")
    with harness.user_database():
        subprocess.run(["chpasswd"], input="%s:%s\n" % (name, password), text=True, check=True)
    yield name, password
    harness.remove_system_user(name)


def add_password_target(p, sshd, account, secret, name="pw01"):
    p.do("target", "add", name, "--type", "ssh", "--address", sshd.address, "--account", account,
         "--auth", "password", "--secret-stdin", "--host-key", sshd.host_key_line,
         input=secret + "\n")
    p.grant("alice", name)


def test_target_by_password(proxy, client, target, throw_away):
    name, password = throw_away
    add_password_target(proxy, target, name, password)
    client.target = "pw01"
    r = client.ssh("id -un")
    assert (r.returncode, r.stdout) == (0, name + "\n"), r.stderr
    row = proxy.wait_history(1)[0]
    assert (row["account"], row["resourceName"]) == (name, "pw01")
    assert password not in proxy.log() and password not in proxy.do("dump")
    with open(os.path.join(proxy.data, "sallyport.db"), "rb") as f:
        assert password.encode() not in f.read()


def test_signal_reaches_the_target(proxy, target, throw_away, keys):
    """(Not as root: sshd sends signals only where it separates privileges.)"""
    add_password_target(proxy, target, *throw_away)
    with RawClient(proxy.port) as c:
        c.begin().sign("alice+pw01", peers.load_key(keys.make("alice")))
        c.open_session()
        c.execute("trap 'echo got; exit 9' USR1; echo ready; while :; do sleep 0.1; done")
        assert c.hear(CHANNEL_DATA)[0] == CHANNEL_DATA
        c.request("signal", False, "USR1")
        out, _, requests = collect(c)
    assert b"got\n" in out and requests[-1][0] == "exit-status"


def test_wrong_target_password(proxy, client, target, throw_away):
    name, password = throw_away
    add_password_target(proxy, target, name, password + "x")
    client.target = "pw01"
    r = client.ssh("id -un")
    assert (r.returncode, r.stdout) == (255, "")
    assert "pw01 refused the login of %s" % name in r.stderr and "Permission" not in r.stderr
    row = proxy.wait_history(1)[0]
    assert (row["endReason"], row["endedBy"]) == ("target-unreachable", "target")
    assert "refused the login" in row["endText"]


def test_target_with_questions(proxy, client, keys):
    """A target that asks for the password by keyboard-interactive only."""
    fake = FakeTarget(keys.make("fake"), "s3cret", is_interactive=True)
    add_password_target(proxy, fake, "bob", "s3cret")
    client.target = "pw01"
    r = client.ssh("whoami")
    assert (r.returncode, r.stdout) == (0, "user=bob\n"), r.stderr
    fake.stop()


def test_passthrough(make_proxy, target, throw_away, keys):
    name, password = throw_away
    p = make_proxy()
    p.do("target", "add", "pass01", "--type", "ssh", "--address", target.address, "--account",
         name, "--auth", "passthrough", "--host-key", target.host_key_line)
    p.add_user("alice", password=password, key=keys.make("alice")).grant("alice", "pass01")
    r = PasswordClient(p, password, target="pass01").ssh("id -un")
    assert (r.returncode, r.stdout) == (0, name + "\n"), r.stderr
    r = harness.Client(p, target="pass01", key=keys.make("alice")).ssh("id -un")
    assert (r.returncode, r.stdout) == (255, "")
    assert "log in with a password, not with a key" in r.stderr
    assert [s["endReason"] for s in p.wait_history(2)] == ["user-exit", "target-unreachable"]
    p.do("user", "passwd", "alice", "--password-stdin", input="another one\n")
    r = PasswordClient(p, "another one", target="pass01").ssh("id -un")
    assert r.returncode == 255 and "refused the login" in r.stderr


@pytest.mark.parametrize("account", ["DOM\\bob", "svc$", "o'neil", "user@realm", "a b", "\u00fc"])
def test_account_names(proxy, client, keys, account):
    fake = FakeTarget(keys.make("fake"), "s3cret")
    add_password_target(proxy, fake, account, "s3cret")
    client.target = "pw01"
    r = client.ssh("whoami")
    assert (r.returncode, r.stdout) == (0, "user=%s\n" % account), r.stderr
    assert proxy.wait_history(1)[0]["account"] == account
    # and from the login name, when the grant lets any account through
    proxy.do("target", "set", "pw01", "--account", "other")
    proxy.do("grant", "add", "alice", "pw01", "--account", "*")
    with RawClient(proxy.port) as c:
        c.begin().sign("alice+%s+pw01" % account, peers.load_key(keys.make("alice")))
        c.open_session()
        c.execute("whoami")
        assert collect(c)[0].decode() == "user=%s\n" % account
    fake.stop()


@pytest.mark.parametrize("account", ["a\nb", "a\x1b[2Jb", "a\x7fb", "a+b", "x" * 129])
def test_account_names_that_are_none(proxy, keys, account):
    fake = FakeTarget(keys.make("fake"), "s3cret")
    r = proxy.ctl("target", "add", "pw01", "--type", "ssh", "--address", fake.address, "--account",
                  account, "--auth", "password", "--secret-stdin", "--host-key",
                  fake.host_key_line, input="s3cret\n")
    assert r.returncode == 2 and "account" in r.stderr, r.stderr
    add_password_target(proxy, fake, "bob", "s3cret")
    proxy.do("grant", "add", "alice", "pw01", "--account", "*")
    with RawClient(proxy.port) as c:
        key = peers.load_key(keys.make("alice"))
        assert c.begin().sign("alice+%s+pw01" % account, key) == USERAUTH_FAILURE
    assert fake.connections == 0 and fake.attempts == []
    fake.stop()


# ---- host keys

def add_fake(p, fake, *more, name="fake01"):
    p.do("target", "add", name, "--type", "ssh", "--address", fake.address, "--account", "bob",
         "--auth", "password", "--secret-stdin", *more, input="s3cret\n")
    p.grant("alice", name)


@pytest.mark.parametrize("pinned,kind", [("other", "ed25519"), ("other_ecdsa", "ecdsa")])
def test_host_key_mismatch(proxy, client, keys, pinned, kind):
    """Another key, or one of another type: no credential leaves."""
    fake = FakeTarget(keys.make("fake"), "s3cret")
    keys.make(pinned, kind)
    add_fake(proxy, fake, "--host-key", " ".join(keys.public(pinned).split()[:2]))
    client.target = "fake01"
    r = client.ssh("whoami")
    assert (r.returncode, r.stdout) == (255, "")
    assert "host key of fake01 has changed" in r.stderr
    row = proxy.wait_history(1)[0]
    assert row["endReason"] == "target-unreachable" and "host key" in row["endText"]
    event = proxy.events("host-key-mismatch")[0]
    if kind == "ed25519":
        prints = [harness.run("ssh-keygen", "-lf", keys.make(k) + ".pub").stdout.split()[1]
                  for k in ("fake", pinned)]
        assert all(p in event["text"] and p in r.stderr for p in prints)
    assert fake.connections == 1 and fake.attempts == []
    fake.stop()


def test_accept_new_pins_once(proxy, client, keys):
    fake = FakeTarget(keys.make("fake"), "s3cret")
    add_fake(proxy, fake, "--accept-new")
    client.target = "fake01"
    assert proxy.json("target", "show", "fake01")["hostKey"] is None
    for _ in range(2):
        r = client.ssh("whoami")
        assert (r.returncode, r.stdout) == (0, "user=bob\n"), r.stderr
    assert proxy.json("target", "show", "fake01")["hostKey"] == fake.host_key_line
    assert len(proxy.events("host-key-pinned")) == 1
    fake.stop()
    thief = FakeTarget(keys.make("other"), "s3cret", port=fake.port)
    r = client.ssh("whoami")
    assert r.returncode == 255 and "has changed" in r.stderr
    assert thief.connections == 1 and thief.attempts == []
    # the admin looks, and pins the new one
    proxy.do("target", "set", "fake01", "--host-key", thief.host_key_line)
    assert client.ssh("whoami").returncode == 0
    thief.stop()


def test_no_pin(proxy, client, keys):
    fake = FakeTarget(keys.make("fake"), "s3cret")
    add_fake(proxy, fake)
    client.target = "fake01"
    r = client.ssh("whoami")
    assert r.returncode == 255 and "no host key is pinned for fake01" in r.stderr
    assert fake.attempts == []
    fake.stop()


# ---- targets that are not there

def test_target_down(proxy, client):
    proxy.do("target", "add", "down", "--type", "ssh", "--address",
             "127.0.0.1:%d" % harness.free_port(), "--auth", "none", "--accept-new")
    proxy.grant("alice", "down")
    client.target = "down"
    start = time.monotonic()
    r = client.ssh("true")
    assert (r.returncode, r.stdout) == (255, "") and "down cannot be reached" in r.stderr
    assert time.monotonic() - start < 5
    row = proxy.wait_history(1)[0]
    assert (row["endReason"], row["endedBy"]) == ("target-unreachable", "target")
    assert (row["bytesIn"], row["bytesOut"]) == (0, 0)


def test_target_of_no_known_name(proxy, client):
    proxy.do("target", "add", "lost", "--type", "ssh", "--address", "no-such-host.invalid:22",
             "--auth", "none", "--accept-new")
    proxy.grant("alice", "lost")
    client.target = "lost"
    r = client.ssh("true")
    assert r.returncode == 255 and "lost cannot be reached" in r.stderr


@pytest.mark.parametrize("text", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 9000,
                                  b"SSH-1.5-old\r\n", b"SSH-2.0-x\r\n" + os.urandom(3000),
                                  b"SSH-2.0-\x1b[2Jevil\r\n" + b"\xff" * 3000, b"x" * 300000],
                         ids=["http", "zeros", "ssh1", "noise", "escape", "long"])
def test_target_talks_garbage(proxy, client, text):
    class Rude(peers.Talker):
        def serve(self, sock):
            sock.sendall(self.text)
            time.sleep(0.3)
            sock.close()
    rude = Rude(text)
    proxy.do("target", "add", "rude", "--type", "ssh", "--address", rude.address, "--auth", "none",
             "--accept-new")
    proxy.grant("alice", "rude")
    client.target = "rude"
    r = client.ssh("true")
    assert (r.returncode, r.stdout) == (255, "")
    assert "rude" in r.stderr and "\x1b" not in r.stderr, r.stderr
    row = proxy.wait_history(1)[0]
    assert row["endReason"] == "target-unreachable" and "rude" in row["endText"]
    harness.wait_until(lambda: not proxy.relays(), "the relay is gone")
    rude.stop()
    client.target = "web01"
    assert client.ssh("true").returncode == 0


def test_wrong_name_in_json_is_escaped(proxy, client):
    """Whatever a client calls itself, the listing is JSON and the log is lines."""
    s = socket.create_connection(("127.0.0.1", proxy.port))
    s.sendall(b"SSH-2.0-\x1b]0;evil\x07\"'%s%n<b>\r\n")
    s.settimeout(5)
    with contextlib.suppress(OSError):
        s.recv(1000)
    s.close()
    json.loads(proxy.do("-o", "json", "event", "tail"))
    assert "\x1b" not in proxy.log() and "\x07" not in proxy.log()
