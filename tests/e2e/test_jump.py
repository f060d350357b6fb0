"""`ssh -J alice@bastion root@web01`: each jump is a session like any other, whatever carries it."""
import base64
import contextlib
import glob
import hashlib
import hmac
import os
import pwd
import re
import signal
import socket
import struct
import subprocess
import time

import pytest

import fakerelay
import harness
import peers
from fakerelay import Process, Relay
from harness import wait_until

MIB = 1024 * 1024


class Jumper:
    """OpenSSH with a configuration of its own: options of the command line do not reach what -J
    starts."""
    def __init__(self, proxy, key, user="alice", extra=""):
        self.proxy = proxy
        self.dir = os.path.join(proxy.dir, harness.random_name())
        os.mkdir(self.dir, 0o700)
        self.config = os.path.join(self.dir, "config")
        self.account = pwd.getpwuid(os.geteuid()).pw_name
        self.control = os.path.join(self.dir, "master")
        self.terminals = []
        with open(self.config, "w") as f:
            f.write("""%s
Host bastion
  HostName 127.0.0.1
  Port %d
  User %s
Host *
  IdentityFile %s
  IdentitiesOnly yes
  IdentityAgent none
  BatchMode yes
  StrictHostKeyChecking no
  UserKnownHostsFile %s
  LogLevel ERROR
  ConnectTimeout 30
""" % (extra, proxy.port, user, key, proxy.known_hosts))

    def argv(self, *command, to="web01", account=None, flags=()):
        if "-tt" in flags:
            harness.need_terminals()
        return ["ssh", "-F", self.config, "-J", "bastion", *flags,
                "%s@%s" % (account or self.account, to), *command]

    def ssh(self, *command, to="web01", account=None, flags=(), **kw):
        return harness.run(*self.argv(*command, to=to, account=account, flags=flags), **kw)

    def popen(self, *command, to="web01", account=None, flags=(), **kw):
        for name in ("stdin", "stdout", "stderr"):
            kw.setdefault(name, subprocess.PIPE)
        return subprocess.Popen(self.argv(*command, to=to, account=account, flags=flags), **kw)

    def shell(self, to="web01"):
        argv = self.argv("env PS1='READY\\$ ' HISTFILE= bash --norc --noprofile -i", to=to,
                         flags=("-tt",))
        t = harness.pexpect.spawn(argv[0], argv[1:], dimensions=(24, 80), encoding="utf-8",
                                  timeout=harness.PATIENCE, codec_errors="replace",
                                  env=dict(os.environ, TERM="xterm-256color"))
        self.terminals.append(t)
        t.expect(r"READY[$#] ")
        return t

    def tool(self, name, *args, **kw):
        """scp or sftp."""
        return harness.run(name, "-F", self.config, "-J", "bastion", *args, **kw)

    def outer(self, *args, **kw):
        """ssh to the bastion itself."""
        return harness.run("ssh", "-F", self.config, *args, **kw)

    @contextlib.contextmanager
    def master(self):
        """A connection to the bastion that what follows shares."""
        with open(self.config) as f:
            text = f.read()
        with open(self.config, "w") as f:
            f.write(text.replace("Host bastion\n", "Host bastion\n  ControlPath %s\n"
                                 % self.control))
        p = subprocess.Popen(["ssh", "-F", self.config, "-M", "-N", "bastion"],
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE)
        wait_until(lambda: os.path.exists(self.control), "the master is there")
        try:
            yield p
        finally:
            if p.poll() is None:
                p.terminate()
            p.communicate(timeout=30)


@pytest.fixture
def jumper(proxy, keys):
    return Jumper(proxy, keys.make("alice"))


def texts(proxy, kind):
    return [e["text"] for e in proxy.events(kind)]


def pids(proxy):
    """The outer relays and the inner ones: a session names its own."""
    inner = {int(proxy.json("session", "show", s["id"])["pid"]) for s in proxy.sessions()}
    return [p for p in proxy.relays() if p not in inner], sorted(inner)


# ---- a session like any other

def test_a_command(proxy, jumper, target):
    r = jumper.ssh("echo out; echo err >&2; exit 4")
    assert (r.returncode, r.stdout, r.stderr) == (4, "out\n", "err\n")
    row = proxy.wait_history(1)[0]
    assert (row["user"], row["account"], row["resourceName"]) == ("alice", target.account, "web01")
    assert row["endReason"] == "user-exit" and row["ipAddress"] == "127.0.0.1"
    assert row["device"].startswith("OpenSSH_") and row["port"] > 0
    assert row["bytesOut"] == 8
    logins = proxy.events("login")
    assert [e["text"] for e in logins] == ["publickey"]  # and no second one
    wait_until(lambda: texts(proxy, "outer-close"), "the outer connection's end is an event")
    assert len(texts(proxy, "outer-open")) == 1
    assert texts(proxy, "jump-open") == ["channel=1 to=web01:22 target=web01"]
    closed = re.fullmatch(r"channel=1 in=(\d+) out=(\d+) by=\w+", texts(proxy, "jump-close")[0])
    assert int(closed[1]) > 1000 and int(closed[2]) > 1000
    assert re.match(r"user-exit in=%s out=%s: " % closed.groups(), texts(proxy, "outer-close")[0])
    wait_until(lambda: proxy.relays() == [], "both relays leave")
    assert len(proxy.history()) == 1


@pytest.mark.parametrize("status", [0, 1, 127, 255])
def test_exit_codes(jumper, status):
    assert jumper.ssh("exit %d" % status).returncode == status


def test_a_terminal_is_recorded(proxy, jumper):
    shell = jumper.shell()
    shell.sendline("echo seen-$((40+2))")
    shell.expect("seen-42")
    row = proxy.wait_sessions(1, "active")[0]
    assert row["recording"] == "ok" and row["channels"] == ["session"]
    shell.sendline("exit 3")
    shell.expect(harness.pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 3
    proxy.wait_history(1)
    cast = harness.run("zstd", "-dcq", glob.glob(proxy.recordings + "/*/*")[0]).stdout
    assert "seen-42" in cast


def test_ended_with_the_notice(proxy, jumper):
    shell = jumper.shell()
    row = proxy.wait_sessions(1, "active")[0]
    proxy.do("session", "message", row["id"], "soon")
    shell.expect("Message from .*: soon")
    proxy.do("session", "end", row["id"], "--reason", "maintenance", "-y")
    shell.expect("You have been disconnected: ended by admin \\w+ \\(maintenance\\)")
    shell.expect("Received disconnect from .*: You have been disconnected: ended by admin")
    shell.expect(harness.pexpect.EOF)
    row = proxy.wait_history(1)[0]
    assert (row["endReason"], row["endedBy"]) == ("admin-ended", harness.ADMIN)
    wait_until(lambda: proxy.relays() == [], "all leave")


def test_idle_is_warned_and_ended(make_proxy, target, keys):
    p = make_proxy({"idle": {"idle_after": "1s", "warn_after": "2s", "disconnect_after": "4s"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    shell = Jumper(p, keys.make("alice")).shell()
    shell.expect_exact("Idle for 2 seconds: you will be disconnected in 2 seconds")
    shell.expect_exact("You have been disconnected: idle for 4 seconds")
    shell.expect(harness.pexpect.EOF)
    assert p.wait_history(1)[0]["endReason"] == "idle-timeout"


def test_what_clients_call_it(proxy, jumper, target):
    """-W as a ProxyCommand, a name in capitals, the target's port, its address."""
    command = "ProxyCommand=ssh -F %s -W %%h:%%p bastion" % jumper.config
    for to, flags in (("web01", ()), ("WEB01", ()), ("web01", ("-p", str(target.port))),
                      ("127.0.0.1", ("-p", str(target.port)))):
        r = harness.run("ssh", "-F", jumper.config, "-o", command, *flags,
                        "%s@%s" % (target.account, to), "id -un")
        assert (r.returncode, r.stdout.strip()) == (0, target.account), (to, r.stderr)
    assert {s["resourceName"] for s in proxy.wait_history(4)} == {"web01"}


def test_a_target_in_capitals(proxy, jumper, target):
    """Clients write host names small."""
    proxy.add_target(target, "DB-Main").grant("alice", "DB-Main")
    assert jumper.ssh("true", to="DB-Main").returncode == 0
    assert proxy.wait_history(1)[0]["resourceName"] == "DB-Main"


def test_one_host_key_for_all(proxy, jumper, target, keys):
    """The proxy's; with HostKeyAlias the bastion's line of known_hosts is enough."""
    proxy.add_target(target, "db02").grant("alice", "db02")
    r = harness.run("ssh-keyscan", "-p", str(proxy.port), "-t", "ed25519", "127.0.0.1")
    known = os.path.join(jumper.dir, "known")
    with open(known, "w") as f:
        f.write(r.stdout)
    strict = Jumper(proxy, keys.make("alice"), extra="""
Host web01 db02
  HostKeyAlias [127.0.0.1]:%d
Host *
  UserKnownHostsFile %s
  StrictHostKeyChecking yes
""" % (proxy.port, known))
    for name in ("web01", "db02"):
        r = strict.ssh("echo in", to=name)
        assert (r.returncode, r.stdout) == (0, "in\n"), r.stderr


def test_file_tools(proxy, jumper, target, scratch):
    source = os.path.join(jumper.dir, "source")
    with open(source, "wb") as f:
        f.write(os.urandom(3 * MIB))
    with open(source, "rb") as f:
        want = f.read()
    there = "%s@web01:%s" % (target.account, jumper.dir)
    for flags in ((), ("-O",)):
        for name in ("a", "b"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(jumper.dir, name))
        r = jumper.tool("scp", "-q", *flags, source, there + "/a")
        assert r.returncode == 0, r.stderr
        r = jumper.tool("scp", "-q", *flags, there + "/a", os.path.join(jumper.dir, "b"))
        assert r.returncode == 0, r.stderr
        with open(os.path.join(jumper.dir, "b"), "rb") as f:
            assert f.read() == want
    r = jumper.tool("sftp", "-b", "-", "%s@web01" % target.account,
                    input="put %s %s/c\nget %s/c %s/d\n" % (source, *[jumper.dir] * 3))
    assert r.returncode == 0, r.stderr
    with open(os.path.join(jumper.dir, "d"), "rb") as f:
        assert f.read() == want
    r = harness.run("rsync", "-e", "ssh -F %s -J bastion" % jumper.config, "--checksum", source,
                    there + "/e")
    assert r.returncode == 0, r.stderr
    with open(os.path.join(jumper.dir, "e"), "rb") as f:
        assert f.read() == want
    assert {s["endReason"] for s in proxy.wait_history(6)} == {"user-exit"}


def digest_of(count):
    block = bytes(range(256)) * 4096
    h = hashlib.sha256()
    for _ in range(count):
        h.update(block)
    return block, h.hexdigest()


@pytest.mark.parametrize("extra", ["", "RekeyLimit 16M\n"], ids=["plain", "rekey"])
def test_256_mib_each_way(proxy, keys, scratch, extra):
    jumper = Jumper(proxy, keys.make("alice"), extra=extra)
    count = 16 if harness.SANITIZED else 256
    block, want = digest_of(count)
    path = os.path.join(jumper.dir, "data")
    with open(path, "wb") as f:
        for _ in range(count):
            f.write(block)
    with open(path, "rb") as f:
        r = jumper.ssh("sha256sum", stdin=f, timeout=300)
    assert (r.returncode, r.stdout.split()[:1]) == (0, [want]), r.stderr
    p = jumper.popen("cat " + path)
    got = hashlib.sha256()
    while chunk := p.stdout.read(MIB):
        got.update(chunk)
    assert p.wait(60) == 0 and got.hexdigest() == want
    rows = proxy.wait_history(2)
    assert [rows[0]["bytesIn"], rows[1]["bytesOut"]] == [count * MIB] * 2


def rss(pid):
    with open("/proc/%d/statm" % pid) as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_client_that_does_not_read(proxy, jumper):
    """A flood behind a client that is stopped stays at the target, not in the relays."""
    p = jumper.popen("yes")
    p.stdout.read(MIB)
    outer, inner = pids(proxy)
    children = [p.pid] + harness.children(p.pid)
    for pid in children:
        os.kill(pid, signal.SIGSTOP)

    def still():
        before = proxy.sessions()[0]["bytesOut"]
        time.sleep(0.5)
        return proxy.sessions()[0]["bytesOut"] == before
    wait_until(still, "the flood stands still")
    limit = 200 * MIB if harness.SANITIZED else 30 * MIB
    assert [pid for pid in outer + inner if rss(pid) > limit] == []
    for pid in children:
        os.kill(pid, signal.SIGCONT)
    p.stdout.read(MIB)
    p.kill()
    p.wait()


def test_a_target_that_does_not_read(proxy, jumper):
    p = jumper.popen("kill -STOP $$")
    proxy.wait_sessions(1, "active")
    os.set_blocking(p.stdin.fileno(), False)

    def full():
        with contextlib.suppress(BlockingIOError):
            while os.write(p.stdin.fileno(), bytes(65536)):
                pass
        time.sleep(0.3)
        with contextlib.suppress(BlockingIOError):
            return not os.write(p.stdin.fileno(), bytes(65536))
        return True
    wait_until(full, "nothing more is taken")
    outer, inner = pids(proxy)
    limit = 200 * MIB if harness.SANITIZED else 30 * MIB
    assert [pid for pid in outer + inner if rss(pid) > limit] == []
    p.kill()
    p.wait()
    proxy.wait_history(1)


# ---- who may go where

def test_unknown_and_forbidden_are_the_same(proxy, jumper, target):
    proxy.add_target(target, "secret")
    seen = []
    for name in ("nowhere", "secret"):
        r = jumper.ssh("echo in", to=name)
        assert (r.returncode, r.stdout) == (255, "")
        assert 'there is no target "%s" for you' % name in r.stderr
        seen.append(re.sub(r"port \d+", "", r.stderr).replace(name, "NAME"))
    assert seen[0] == seen[1]
    assert proxy.history() == []
    assert len(proxy.events("route-refused")) == 2


def test_an_account_that_is_not_granted(proxy, jumper, target):
    r = jumper.ssh("echo in", account="daemon")
    assert (r.returncode, r.stdout) == (255, "")
    assert 'you may not be "daemon" at web01; log in as %s@web01' % target.account in r.stderr
    assert proxy.history() == []
    proxy.grant("alice", "web01", "--account", "daemon")
    r = jumper.ssh("echo in", account="daemon")  # allowed here; the target decides now
    assert "you may not be" not in r.stderr


def test_impossible_accounts(proxy, jumper):
    r = jumper.ssh("echo in", account="alice+root")
    assert (r.returncode, r.stdout) == (255, "")
    assert "The user name of a jump is the account at the target" in r.stderr
    assert proxy.history() == []


def test_a_wrong_key_goes_nowhere(proxy, keys):
    r = Jumper(proxy, keys.make("mallory")).ssh("echo in")
    assert (r.returncode, r.stdout) == (255, "")
    assert "Permission denied" in r.stderr
    assert proxy.events("jump-open") == [] and proxy.history() == []


def forwarded(jumper, to):
    """What `ssh -W` brings, with a line sent."""
    return jumper.outer("-W", to, "bastion", input="hello\n", timeout=60)


def test_other_destinations_are_refused(proxy, jumper, target):
    listener = peers.Listener()
    r = forwarded(jumper, listener.address)
    assert r.returncode == 255 and "forwarding failed" in r.stderr
    r = forwarded(jumper, "web01:80")  # a target's name does not open its other ports
    assert r.returncode == 255 and "forwarding failed" in r.stderr
    wait_until(lambda: len(texts(proxy, "jump-refused")) == 2, "both are events")
    assert texts(proxy, "jump-refused")[0] == listener.address + ": it is no target of yours"
    assert proxy.events("jump-open") == []


def echo_server():
    s = socket.create_server(("127.0.0.1", 0))
    pid = os.fork()
    if pid == 0:
        while True:
            c, _ = s.accept()
            data = b""
            while chunk := c.recv(65536):
                data += chunk
            c.sendall(b"said first\n" + data.upper())  # after the client's end: half closed
            c.close()
    port = s.getsockname()[1]
    s.close()
    return pid, port


def test_passed_on_and_counted(make_proxy, target, keys):
    p = make_proxy({"ssh": {"jump": "any"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    p.add_target(target, "secret")
    jumper = Jumper(p, keys.make("alice"))
    pid, port = echo_server()
    try:
        r = forwarded(jumper, "127.0.0.1:%d" % port)
        assert (r.returncode, r.stdout) == (0, "said first\nHELLO\n"), r.stderr
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    wait_until(lambda: texts(p, "jump-close"), "its end is an event")
    assert texts(p, "jump-open") == ["channel=1 to=127.0.0.1:%d passed" % port]
    assert texts(p, "jump-close")[0].startswith("channel=1 in=6 out=17 by=")
    r = forwarded(jumper, "127.0.0.1:%d" % harness.free_port())
    assert r.returncode == 255
    wait_until(lambda: any("refused" in t for t in texts(p, "jump-refused")), "why is an event")
    # targets stay sessions, and a target that is forbidden is no way around that
    assert jumper.ssh("true").returncode == 0
    assert p.wait_history(1)[0]["resourceName"] == "web01"
    r = jumper.ssh("true", to="secret")
    assert r.returncode == 255 and 'there is no target "secret" for you' in r.stderr
    p.do("grant", "rm", str(p.json("grant", "ls")[0]["id"]))
    r = forwarded(jumper, target.address)
    assert r.returncode == 255 and "SSH-2.0" not in r.stdout


def test_switched_off(make_proxy, target, keys):
    p = make_proxy({"ssh": {"jump": "off"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    jumper = Jumper(p, keys.make("alice"))
    r = jumper.ssh("echo in")
    assert (r.returncode, r.stdout) == (255, "") and "forwarding failed" in r.stderr
    assert texts(p, "jump-refused") == ["web01:22: jumps are switched off here"]
    p.set({"ssh": {"jump": "targets"}})
    p.do("reload")
    assert jumper.ssh("echo in").stdout == "in\n"


def test_a_target_that_wants_the_users_password(proxy, jumper, target):
    """The inner connection has none: said so, before anything is tried."""
    proxy.do("target", "add", "own", "--type", "ssh", "--address", target.address, "--account",
             target.account, "--auth", "passthrough", "--host-key", target.host_key_line)
    proxy.grant("alice", "own")
    r = jumper.ssh("echo in", to="own")
    assert (r.returncode, r.stdout) == (255, "")
    assert "wants your own password" in r.stderr and "by -J" in r.stderr


def test_the_config_that_the_door_prints(proxy, jumper):
    """`ssh alice@bastion config`: its names ending in -jump go this way."""
    r = jumper.outer("bastion", "config")
    assert r.returncode == 0, r.stderr
    path = os.path.join(jumper.dir, "printed")
    with open(jumper.config) as f:
        common = f.read().split("Host *\n")[1]
    with open(path, "w") as f:
        f.write(r.stdout + "\nHost *\n" + common)
    name = re.search(r"\bweb01\.\S*-jump\b", r.stdout)[0]
    r = harness.run("ssh", "-F", path, name, "echo in")
    assert (r.returncode, r.stdout) == (0, "in\n"), r.stderr
    assert len(texts(proxy, "jump-open")) == 1
    assert proxy.wait_history(1)[0]["resourceName"] == "web01"


def test_a_forward_inside_a_jump(proxy, jumper, target):
    """Where the session may forward, it does; the destination is reached from the target."""
    r = jumper.ssh(flags=("-W", target.address), input="x\n", timeout=60)
    assert r.stdout.startswith("SSH-2.0-OpenSSH"), r.stderr
    row = proxy.wait_history(1)[0]
    assert row["resourceName"] == "web01" and row["bytesOut"] > 10


# ---- many on one connection

def test_ten_at_once_over_one_connection(make_proxy, target, keys):
    """Limits for strangers do not count what is logged in already."""
    p = make_proxy({"limits": {"max_unauthenticated": "1", "max_unauthenticated_per_source": "1"}})
    p.add_user("alice", key=keys.make("alice"))
    for i in range(10):
        p.add_target(target, "t%d" % i).grant("alice", "t%d" % i)
    jumper = Jumper(p, keys.make("alice"))
    with jumper.master() as master:
        running = [jumper.popen("cat", to="t%d" % i) for i in range(10)]
        rows = p.wait_sessions(10, "active")
        assert sorted(s["resourceName"] for s in rows) == ["t%d" % i for i in range(10)]
        assert {s["port"] for s in rows} == {rows[0]["port"]}
        assert len(p.events("login")) == 1
        for i, r in enumerate(running):
            out, _ = r.communicate(b"line %d\n" % i, timeout=60)
            assert (r.returncode, out) == (0, b"line %d\n" % i)
        p.wait_sessions(0)
        assert len(p.wait_history(10)) == 10
        assert master.poll() is None and len(p.relays()) == 1
        assert jumper.ssh("echo again", to="t3").stdout == "again\n"
    wait_until(lambda: texts(p, "outer-close"), "it ends")
    assert len(texts(p, "jump-open")) == len(texts(p, "jump-close")) == 11


def test_beside_a_menu(proxy, jumper):
    """A terminal on the same connection chooses from the menu; what it carries goes on."""
    with jumper.master():
        p = jumper.popen("cat")
        proxy.wait_sessions(1, "active")
        argv = ["ssh", "-F", jumper.config, "-tt", "bastion"]
        t = harness.pexpect.spawn(argv[0], argv[1:], dimensions=(24, 80), encoding="utf-8",
                                  timeout=harness.PATIENCE)
        t.expect("web01")
        t.send("\r")
        proxy.wait_sessions(2, "active")
        out, _ = p.communicate(b"both\n", timeout=60)
        assert out == b"both\n"
        proxy.wait_sessions(1, "active")
        t.sendline("exit")
        t.expect(harness.pexpect.EOF)
    proxy.wait_sessions(0)


# ---- ends

def test_the_outer_connection_is_left(proxy, jumper):
    with jumper.master() as master:
        p = jumper.popen("cat")
        proxy.wait_sessions(1, "active")
        master.terminate()  # says goodbye
        master.wait(30)
        assert p.wait(60) == 255
    row = proxy.wait_history(1)[0]
    assert (row["endReason"], row["endedBy"]) == ("user-exit", "alice")
    p.communicate()


def test_the_client_is_killed(proxy, jumper):
    with jumper.master() as master:
        running = [jumper.popen("cat") for _ in range(2)]
        proxy.wait_sessions(2, "active")
        master.kill()
        for p in running:
            assert p.wait(60) == 255
            p.communicate()
    rows = proxy.wait_history(2)
    assert [r["endReason"] for r in rows] == ["network-lost"] * 2
    wait_until(lambda: proxy.relays() == [], "all leave")
    assert texts(proxy, "outer-close")[0].startswith("network-lost ")


def test_only_the_inner_client_is_killed(proxy, jumper):
    with jumper.master():
        p = jumper.popen("cat")
        proxy.wait_sessions(1, "active")
        p.kill()
        p.communicate()
        assert proxy.wait_history(1)[0]["endReason"] == "network-lost"
        assert jumper.ssh("echo on").stdout == "on\n"  # the master is as it was


def test_the_outer_relay_dies(proxy, jumper):
    p = jumper.popen("cat")
    proxy.wait_sessions(1, "active")
    outer, inner = pids(proxy)
    assert len(outer) == len(inner) == 1
    os.kill(outer[0], signal.SIGKILL)
    assert p.wait(60) == 255
    p.communicate()
    assert proxy.wait_history(1)[0]["endReason"] == "network-lost"
    wait_until(lambda: proxy.relays() == [], "the other one leaves")


def test_the_inner_relay_dies(proxy, jumper):
    with jumper.master() as master:
        running = [jumper.popen("cat"), jumper.popen("cat")]
        first, second = proxy.wait_sessions(2, "active")
        pid = int(proxy.json("session", "show", first["id"])["pid"])
        os.kill(pid, signal.SIGKILL)
        row = proxy.wait_history(1)[0]
        assert (row["id"], row["endReason"]) == (first["id"], "relay-crashed")
        wait_until(lambda: sum(p.poll() is not None for p in running) == 1, "its client ends")
        left = next(p for p in running if p.poll() is None)
        out, _ = left.communicate(b"still\n", timeout=60)
        assert (left.returncode, out) == (0, b"still\n")
        assert master.poll() is None
        for p in running:
            p.communicate()
    assert second["id"] in [r["id"] for r in proxy.wait_history(2)]


def test_the_target_goes(proxy, jumper, target):
    p = jumper.popen("cat")
    proxy.wait_sessions(1, "active")
    for pid in target.sessions():
        for child in harness.children(pid):
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
    assert p.wait(60) == 255
    assert b"the target closed the connection" in p.communicate()[1]
    assert proxy.wait_history(1)[0]["endReason"] == "target-closed"


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM])
def test_the_broker_dies(proxy, jumper, sig):
    """Sessions and what carries them go on; new jumps over the old connection work, too."""
    with jumper.master() as master:
        shell = jumper.shell()
        before = proxy.wait_sessions(1, "active")[0]
        relays = proxy.relays()
        for _ in range(2):
            if sig == signal.SIGKILL:
                proxy.kill()
            else:
                assert proxy.stop(sig) == 0
            shell.sendline("echo alone-$((1+1))")
            shell.expect("alone-2")
            proxy.start()
            wait_until(lambda: proxy.json("status")["adopted"] == 2, "both are adopted")
        # the look whether the gate listens may still be there, as a relay of nobody
        assert set(relays) <= set(proxy.relays()) and master.poll() is None
        row = proxy.wait_sessions(1)[0]
        assert (row["id"], row["startTime"]) == (before["id"], before["startTime"])
        assert jumper.ssh("echo new").stdout == "new\n"
        master.terminate()
        master.wait(30)
        shell.expect(harness.pexpect.EOF)
    rows = proxy.wait_history(2)
    assert [r["endReason"] for r in rows if r["id"] == before["id"]] == ["user-exit"]
    wait_until(lambda: proxy.relays() == [], "all leave")


def test_a_jump_is_asked_while_no_broker_is_there(proxy, jumper):
    with jumper.master():
        proxy.kill()
        p = jumper.popen("echo late")
        time.sleep(1)  # it waits
        assert p.poll() is None
        proxy.start()
        out, err = p.communicate(timeout=60)
        assert (p.returncode, out) == (0, b"late\n"), err


def test_a_locked_user(proxy, jumper):
    with jumper.master() as master:
        shell = jumper.shell()
        proxy.wait_sessions(1, "active")
        proxy.do("user", "lock", "alice")
        shell.expect("You have been disconnected: access was withdrawn")
        shell.expect(harness.pexpect.EOF)
        _, err = master.communicate(timeout=30)
        assert b"access was withdrawn" in err or master.returncode != 0
    assert proxy.wait_history(1)[0]["endReason"] == "revoked"
    wait_until(lambda: proxy.relays() == [], "all leave")
    assert texts(proxy, "outer-close")[0].startswith("revoked ")


def test_a_grant_is_removed(proxy, jumper, target):
    """The session at that target ends; the connection and the others do not."""
    proxy.add_target(target, "db02").grant("alice", "db02")
    with jumper.master() as master:
        shell, other = jumper.shell(), jumper.popen("cat", to="db02")
        proxy.wait_sessions(2, "active")
        grant = next(g for g in proxy.json("grant", "ls") if g["target"] == "web01")
        proxy.do("grant", "rm", str(grant["id"]))
        shell.expect("You have been disconnected: access was withdrawn")
        assert proxy.wait_history(1)[0]["endReason"] == "revoked"
        out, _ = other.communicate(b"on\n", timeout=60)
        assert out == b"on\n" and master.poll() is None
        r = jumper.ssh("true")
        assert r.returncode == 255 and 'there is no target "web01" for you' in r.stderr


def test_drain(proxy, jumper):
    with jumper.master() as master:
        p = jumper.popen("cat")
        proxy.wait_sessions(1, "active")
        proxy.do("drain")
        r = jumper.ssh("true")
        assert r.returncode == 255 and "takes no new sessions now" in r.stderr
        out, _ = p.communicate(b"on\n", timeout=60)
        assert out == b"on\n"
        proxy.do("undrain")
        assert jumper.ssh("echo again").stdout == "again\n"
        assert master.poll() is None


def test_shutdown(proxy, jumper):
    with jumper.master() as master:
        shell = jumper.shell()
        proxy.wait_sessions(1, "active")
        proxy.do("shutdown", "--in", "1s")
        shell.expect("You have been disconnected: Sallyport is shutting down")
        shell.expect(harness.pexpect.EOF)
        master.communicate(timeout=30)  # it does not stay alone
    proxy.process.wait(30)
    wait_until(lambda: proxy.relays() == [], "all leave")


def test_nothing_open_for_long(make_proxy, target, keys):
    """What nobody lists does not stay for ever."""
    p = make_proxy({"idle": {"idle_after": "1s", "warn_after": "1s", "disconnect_after": "2s"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    jumper = Jumper(p, keys.make("alice"))
    with jumper.master() as master:
        assert jumper.ssh("echo in").stdout == "in\n"
        _, err = master.communicate(timeout=30)
    assert b"You have been disconnected: nothing was open for 2 seconds" in err or not err
    wait_until(lambda: texts(p, "outer-close"), "its end is an event")
    assert "nothing was open for 2 seconds" in texts(p, "outer-close")[0]
    assert p.wait_history(1)[0]["endReason"] == "user-exit"


# ---- passes

def ticket_key(proxy):
    with open(os.path.join(proxy.run_dir, "ticket.key"), "rb") as f:
        return f.read()


def make_pass(key, nonce, issued_ms, user="alice", target="web01"):
    def name(value):
        return bytes([len(value)]) + value.encode()
    body = struct.pack(">BQQIIIB", 3, nonce, issued_ms, 4711, 1, 0, 0) + name(user) + name(target)
    return body + hmac.new(key, body, hashlib.sha256).digest()


def now_ms():
    return int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1000)


@pytest.fixture
def make_process(proxy, monkeypatch):
    monkeypatch.setattr(fakerelay, "VERSION", 3)
    made = []

    def make():
        made.append(Process(proxy))
        return made[-1]

    yield make
    for p in made:
        p.finish()


def shows(process, ticket, link=None):
    """A relay that says HELLO with this pass; True when it is let in."""
    r = Relay(process, link).hello(ticket=ticket)
    try:
        body = r.hear(fakerelay.WELCOME)
    except (EOFError, ConnectionResetError):
        fakerelay.gone(process)
        return False
    assert b"alice" in body
    return r


def test_passes_that_nobody_gave(proxy, make_process):
    """Right or wrong in form: one that is not out lets nobody in."""
    key = ticket_key(proxy)
    good = make_pass(key, 5, now_ms())
    for bad in (good, make_pass(bytes(32), 5, now_ms()), good[:-1] + bytes([good[-1] ^ 1]),
                make_pass(key, 5, now_ms() + 10 ** 7), make_pass(key, 5, 0), good[:20], b"\3"):
        assert not shows(make_process(), bad)
    assert proxy.events("login") == [] and proxy.sessions() == []


def test_a_pass_is_taken_once(proxy, make_process):
    """One that an earlier broker gave is good within its life, for one relay, to one target."""
    key = ticket_key(proxy)
    ticket = make_pass(key, 77, now_ms())
    process, thief = make_process(), make_process()
    listener = process.ask(b"listen")
    proxy.kill()
    proxy.start()
    link, _ = listener.accept()
    listener.close()
    link.settimeout(30)
    relay = shows(process, ticket, link)
    assert relay
    assert not shows(thief, ticket)  # replayed
    relay.say(fakerelay.ROUTE, fakerelay.text("") + fakerelay.text("db02"))
    fakerelay.gone(process)  # somewhere else
    relay.close()
    assert proxy.sessions() == [] and proxy.history() == []


def test_a_pass_of_a_locked_user(proxy, make_process):
    ticket = make_pass(ticket_key(proxy), 78, now_ms())
    process = make_process()
    listener = process.ask(b"listen")
    proxy.do("user", "lock", "alice")
    proxy.kill()
    proxy.start()
    link, _ = listener.accept()
    listener.close()
    link.settimeout(30)
    assert not shows(process, ticket, link)


def test_a_relay_does_not_end_others(proxy, jumper, make_process, keys):
    """Somebody else's relay cannot end what a user's connection carries."""
    proxy.add_user("bob", key=keys.make("bob")).grant("bob")
    p = jumper.popen("cat")
    proxy.wait_sessions(1, "active")
    process = make_process()
    relay = Relay(process).hello().welcomed()
    blob = base64.b64decode(keys.public("bob").split()[1])
    assert relay.login("bob", blob) == fakerelay.AUTH_OK
    relay.say(21, struct.pack(">IBQQ", 1, 2, 10, 20))  # JUMP_CLOSED of a jump it never had
    relay.closed(1, "bob")
    relay.hear(fakerelay.CLOSED_ACK)
    out, _ = p.communicate(b"on\n", timeout=60)
    assert (p.returncode, out) == (0, b"on\n")
    relay.close()


def test_too_many_are_refused(proxy, keys):
    """A client that opens ever more is told no; what it has goes on."""
    import paramiko
    key = paramiko.Ed25519Key.from_private_key_file(keys.make("alice"))
    t = paramiko.Transport(("127.0.0.1", proxy.port))
    try:
        t.connect(username="alice", pkey=key)
        taken = []
        with pytest.raises(paramiko.ChannelException):
            for _ in range(100):
                taken.append(t.open_channel("direct-tcpip", ("web01", 22), ("127.0.0.1", 1)))
        assert len(taken) == 64
        assert taken[0].recv(8).startswith(b"SSH-2.0")
        for c in taken:
            c.close()
        wait_until(lambda: len(proxy.relays()) == 1, "their relays leave")
        c = t.open_channel("direct-tcpip", ("web01", 22), ("127.0.0.1", 1))
        assert c.recv(8).startswith(b"SSH-2.0")
    finally:
        t.close()
    wait_until(lambda: proxy.relays() == [], "all leave")
    assert proxy.history() == []
