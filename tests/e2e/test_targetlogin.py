"""
Logging in at targets: certificates, the user's agent, questions, servers on the way, and the
admin's tools for it (target test, host keys that are shown before they are trusted).
"""
import contextlib
import hashlib
import os
import pwd
import secrets
import socket
import struct
import subprocess
import tempfile
import threading
import time

import paramiko
import pexpect
import pytest

import harness
from harness import Client, Sshd, wait_until
from peers import Agent, FakeTarget, Listener, Talker, load_key, _FakeServer

NO_KEYS = "AuthorizedKeysFile none\n"


@pytest.fixture
def make_sshd(scratch, keys):
    made = []

    def make(name, extra=""):
        directory = tempfile.mkdtemp(prefix="s-", dir=scratch)
        os.chmod(directory, 0o755)  # sshd reads authorized keys as their user
        sshd = Sshd(directory, keys, extra=extra, name=name)
        made.append(sshd)
        return sshd.start()

    yield make
    for sshd in made:
        sshd.stop()


@pytest.fixture
def alice(make_proxy, keys):
    """A proxy with alice and no target."""
    p = make_proxy()
    p.add_user("alice", key=keys.make("alice"))
    return p


def client_of(p, keys, target="web01", options=()):
    return Client(p, target=target, key=keys.make("alice"), options=options)


def refused(r, *says):
    assert r.returncode == 255 and r.stdout == "", (r.stdout, r.stderr)
    for text in says:
        assert text in r.stderr, r.stderr


def last_end(p, count=1):
    row = p.wait_history(count)[-1]
    return row["endReason"], row["endText"]


# ---- certificates

def sign(keys, ca, key, *options):
    """A certificate for a copy of the key, so that a key may have several."""
    path = os.path.join(keys.dir, "c-" + secrets.token_hex(4))
    for ending in ("", ".pub"):
        subprocess.run(["cp", "-p", keys.make(key) + ending, path + ending], check=True)
    subprocess.run(["ssh-keygen", "-q", "-s", keys.make(ca), "-I", "test", *options, path + ".pub"],
                   check=True, capture_output=True)
    return path + "-cert.pub"


def add_certified(p, sshd, key, cert, *more, name="web01"):
    p.do("target", "add", name, "--address", sshd.address, "--account", sshd.account, "--auth",
         "key", "--key-file", key, "--cert-file", cert, "--host-key", sshd.host_key_line, *more)


@pytest.mark.parametrize("kind,bits", [("ed25519", None), ("rsa", 3072), ("ecdsa", 256)])
def test_certificate(alice, keys, make_sshd, kind, bits):
    keys.make("ca")
    sshd = make_sshd("cert", NO_KEYS + "TrustedUserCAKeys %s.pub\n" % keys.make("ca"))
    name = "certified_" + kind
    key = keys.make(name, kind, bits)
    add_certified(alice, sshd, key, sign(keys, "ca", name, "-n", sshd.account))
    alice.grant()
    r = client_of(alice, keys).ssh("echo in")
    assert (r.returncode, r.stdout) == (0, "in\n"), r.stderr
    shown = alice.json("target", "show", "web01")
    assert "-cert-v01@openssh.com " in shown["certificate"] and shown["auth"] == "key"
    # the key alone does not open it, and a new key forgets the certificate of the old one
    alice.do("target", "set", "web01", "--key-file", key)
    assert alice.json("target", "show", "web01")["certificate"] is None
    refused(client_of(alice, keys).ssh("echo in"), "web01 refused the login of", "(key)")


def test_certificates_that_do_not_fit(alice, keys, make_sshd):
    sshd = make_sshd("cert", NO_KEYS + "TrustedUserCAKeys %s.pub\n" % keys.make("ca"))
    key = keys.make("certified_ed25519")
    cases = [(("ca", "certified_ed25519", "-n", "somebody-else"), "refused the login"),
             (("ca", "certified_ed25519", "-n", sshd.account, "-V", "20200101:20200102"),
              "refused the login"),
             (("other_ca", "certified_ed25519", "-n", sshd.account), "refused the login"),
             (("ca", "other_key", "-n", sshd.account), "certificate that is stored for web")]
    for n, (how, says) in enumerate(cases):
        name = "web%02d" % n
        add_certified(alice, sshd, key, sign(keys, *how), name=name)
        alice.grant("alice", name)
        refused(client_of(alice, keys, name).ssh("echo in"), says, name)
        assert last_end(alice, n + 1)[0] == "target-unreachable"


def test_certificate_arguments(alice, keys, make_sshd):
    sshd = make_sshd("cert")
    base = ("target", "add", "t", "--address", sshd.address, "--accept-new")
    plain = keys.make("alice") + ".pub"
    for args, code, says in (
            (("--key-file", keys.make("alice"), "--cert-file", plain), 2, "-cert.pub"),
            (("--cert-file", "/nonexistent"), 1, "/nonexistent"),
            (("--auth", "agent", "--cert-file", sign(keys, "ca", "alice", "-n", "x")), 2,
             "certificate")):
        r = alice.ctl(*base, *args)
        assert r.returncode == code and says in r.stderr, (args, r.returncode, r.stderr)
    assert alice.json("target", "ls") == []


# ---- the user's agent

class Go:
    """An agent in front of an agent: signatures wait for a word."""
    def __init__(self, agent, waits=True):
        self.real = agent.path
        self.path = agent.path + ".slow"
        self.go = threading.Event()
        self.asked = threading.Event()
        if not waits:
            self.go.set()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(self.path)
        self.socket.listen(8)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=(self.socket.accept()[0],),
                                 daemon=True).start()

    def frame(self, sock):
        head = self.take(sock, 4)
        return head + self.take(sock, struct.unpack(">I", head)[0])

    @staticmethod
    def take(sock, n):
        data = b""
        while len(data) < n:
            more = sock.recv(n - len(data))
            if not more:
                raise OSError("closed")
            data += more
        return data

    def serve(self, sock):
        with contextlib.suppress(OSError), sock, socket.socket(socket.AF_UNIX) as real:
            real.connect(self.real)
            while True:
                frame = self.frame(sock)
                if frame[4] == 13:  # SSH_AGENTC_SIGN_REQUEST
                    self.asked.set()
                    self.go.wait(60)
                real.sendall(frame)
                sock.sendall(self.frame(real))

    def stop(self):
        self.go.set()
        self.socket.close()


def add_agent_target(p, sshd, name="web01", *more):
    p.do("target", "add", name, "--address", sshd.address, "--account", sshd.account, "--auth",
         "agent", "--host-key", sshd.host_key_line, *more)
    p.grant("alice", name)


def with_agent(p, keys, agent, target="web01", forward=True):
    c = client_of(p, keys, target)
    mine = ["-o", "IdentityAgent=" + agent.path] + (["-A"] if forward else [])
    common = c.common
    c.common = lambda: mine + common()
    return c


def cpu_s(pid):
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_agent(alice, keys, make_sshd, scratch):
    sshd = make_sshd("agent")
    add_agent_target(alice, sshd)
    with Agent(scratch, [keys.make("stranger"), sshd.key]) as agent:
        c = with_agent(alice, keys, agent)
        r = c.ssh("echo in; exit 7")
        assert (r.returncode, r.stdout) == (7, "in\n"), r.stderr
        r = c.ssh("cat", input="x" * 100000)
        assert (r.returncode, len(r.stdout)) == (0, 100000), r.stderr
        t = c.shell()
        t.sendline("echo $((6*7))")
        t.expect("42")
        t.sendline("exit 5")
        t.expect(pexpect.EOF)
        t.close()
        assert t.exitstatus == 5
        r = c.sftp("pwd\n", "-A")
        assert r.returncode == 0, r.stderr
    assert [s["endReason"] for s in alice.wait_history(4)] == ["user-exit"] * 4


@pytest.mark.parametrize("kind,bits", [("rsa", 3072), ("ecdsa", 521)])
def test_agent_with_keys_of_other_kinds(alice, keys, make_sshd, scratch, kind, bits):
    sshd = make_sshd("agent")
    name = "agent_" + kind
    keys.make(name, kind, bits)
    with open(sshd.authorized, "w") as f:
        f.write(keys.public(name) + "\n")
    add_agent_target(alice, sshd)
    with Agent(scratch, [keys.make(name)]) as agent:
        r = with_agent(alice, keys, agent).ssh("echo in")
    assert (r.returncode, r.stdout) == (0, "in\n"), r.stderr


def test_no_agent(alice, keys, make_sshd, scratch):
    """Each is told what to do, at once where that is known."""
    sshd = make_sshd("agent")
    add_agent_target(alice, sshd)
    began = time.monotonic()
    refused(client_of(alice, keys).ssh("echo in"), "ssh -A", "ssh-add")
    assert time.monotonic() - began < 8
    assert "your own agent" in last_end(alice)[1]
    with Agent(scratch, []) as agent:  # nothing in it
        refused(with_agent(alice, keys, agent).ssh("echo in"),
                "refused the login", "the keys of your agent")
    with Agent(scratch, [keys.make("stranger")]) as agent:  # another key in it
        refused(with_agent(alice, keys, agent).ssh("echo in"),
                "refused the login", "the keys of your agent")
        refused(with_agent(alice, keys, agent, forward=False).ssh("echo in"), "ssh -A")
    # nobody comes who could say that there is one
    r = client_of(alice, keys).ssh(flags=("-N",))
    refused(r, "ssh -A")
    t = client_of(alice, keys).terminal()
    t.expect("connect with ssh -A")
    t.expect(pexpect.EOF)


def test_agent_that_takes_its_time(make_proxy, keys, make_sshd, scratch):
    """Its owner is asked, say: keep-alives go on, and so does everything else."""
    p = make_proxy({"ssh": {"keepalive_interval": "1s", "keepalive_count": "2"}})
    p.add_user("alice", key=keys.make("alice"))
    sshd = make_sshd("agent")
    add_agent_target(p, sshd)
    with Agent(scratch, [sshd.key]) as agent:
        slow = Go(agent)
        c = with_agent(p, keys, slow)
        waiting = c.popen("echo in", flags=("-o", "ServerAliveInterval=1", "-o",
                                            "ServerAliveCountMax=2"))
        assert slow.asked.wait(harness.PATIENCE)
        assert p.wait_sessions(1, "connecting")
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 5, "both sides would have given up")
        assert waiting.poll() is None
        assert cpu_s(p.relays()[0]) < 1.0  # it waits, it does not spin
        slow.go.set()
        out, err = waiting.communicate(timeout=harness.PATIENCE)
        assert (waiting.returncode, out) == (0, b"in\n"), err
        slow.stop()


def test_end_while_an_agent_is_awaited(alice, keys, make_sshd, scratch):
    sshd = make_sshd("agent")
    add_agent_target(alice, sshd)
    with Agent(scratch, [sshd.key]) as agent:
        slow = Go(agent)
        waiting = with_agent(alice, keys, slow).popen("echo in")
        assert slow.asked.wait(harness.PATIENCE)
        row = alice.wait_sessions(1)[0]
        alice.do("session", "end", row["id"], "--reason", "lunch", "-y")
        out, err = waiting.communicate(timeout=harness.PATIENCE)
        assert waiting.returncode == 255 and b"lunch" in err and out == b""
        assert last_end(alice)[0] == "admin-ended"
        # and a client that goes away while its agent is asked
        slow.asked.clear()
        waiting = with_agent(alice, keys, slow).popen("echo in")
        assert slow.asked.wait(harness.PATIENCE)
        waiting.kill()
        waiting.communicate()
        alice.wait_history(2)
        wait_until(lambda: alice.relays() == [], "the relays left")
        # a target that goes away meanwhile
        slow.asked.clear()
        waiting = with_agent(alice, keys, slow).popen("echo in")
        assert slow.asked.wait(harness.PATIENCE)
        sshd.stop()
        slow.go.set()
        out, err = waiting.communicate(timeout=harness.PATIENCE)
        assert waiting.returncode == 255 and b"web01 refused the login" in err, err
        slow.stop()


def test_agent_through_the_menu(alice, keys, make_sshd, scratch):
    sshd = make_sshd("agent")
    add_agent_target(alice, sshd)
    with Agent(scratch, [sshd.key]) as agent:
        c = with_agent(alice, keys, agent, target="")
        t = c.terminal()
        t.expect("web01")
        t.send("\r")
        t.sendline("PS1='READ''Y> '; echo $((6*7))")
        t.expect("42")
        t.sendline("exit")
        t.expect(pexpect.EOF)


def test_agent_and_one_connection_for_all(alice, keys, make_sshd, scratch):
    """ControlMaster: the channels that come while the agent is asked wait for the target."""
    sshd = make_sshd("agent")
    add_agent_target(alice, sshd)
    with Agent(scratch, [sshd.key]) as agent:
        slow = Go(agent)
        c = with_agent(alice, keys, slow)
        path = os.path.join(scratch, "m" + secrets.token_hex(4))
        mux = ("-o", "ControlMaster=auto", "-o", "ControlPath=" + path)
        master = c.popen("cat", flags=mux + ("-o", "ControlPersist=no"))
        assert slow.asked.wait(harness.PATIENCE)
        wait_until(lambda: os.path.exists(path), "the master listens")
        others = [c.popen("echo %d" % n, flags=("-S", path)) for n in range(3)]
        slow.go.set()
        for n, other in enumerate(others):
            out, err = other.communicate(timeout=harness.PATIENCE)
            assert (other.returncode, out) == (0, b"%d\n" % n), err
        out, err = master.communicate(b"x" * 1000, timeout=harness.PATIENCE)
        assert (master.returncode, out) == (0, b"x" * 1000), err
        slow.stop()
    assert len(alice.wait_history(1)) == 1


def test_agent_through_a_jump(alice, keys, make_sshd, scratch):
    sshd, gw = make_sshd("agent"), make_sshd("gw1")
    alice.add_target(gw, "gw1")
    add_agent_target(alice, sshd, "web01", "--via", "gw1")
    with Agent(scratch, [sshd.key]) as agent:
        key = keys.make("alice")
        jump = "ssh -F none -i %s -o IdentitiesOnly=yes -o BatchMode=yes -o IdentityAgent=none " \
            "-o StrictHostKeyChecking=no -o UserKnownHostsFile=%s -W %%h:%%p -p %d " \
            "alice@127.0.0.1" % (key, alice.known_hosts, alice.port)
        r = harness.run("ssh", "-F", "none", "-A", "-o", "IdentityAgent=" + agent.path,
                        "-o", "ProxyCommand=" + jump, "-o", "StrictHostKeyChecking=no",
                        "-o", "UserKnownHostsFile=" + alice.known_hosts, "-o", "BatchMode=yes",
                        sshd.account + "@web01", "echo in; exit 4")
        assert (r.returncode, r.stdout) == (4, "in\n"), r.stderr
    assert ("web01", "user-exit") in [(s["resourceName"], s["endReason"])
                                      for s in alice.wait_history(1)]


def test_agent_session_is_recorded(alice, keys, make_sshd, scratch):
    """What was asked for before the target was there is not forgotten: terminal, size, variables."""
    sshd = make_sshd("agent")
    add_agent_target(alice, sshd)
    with Agent(scratch, [sshd.key]) as agent:
        c = with_agent(alice, keys, agent)
        c.options += ["-o", "SetEnv=SP_TEST=seen"]
        t = c.terminal("stty size; echo $SP_TEST $TERM; sleep 0.2", rows=33, cols=99)
        t.expect("33 99\r\nseen xterm-256color")
        t.expect(pexpect.EOF)
    row = alice.wait_history(1)[0]
    assert row["recording"] == "ok"
    assert "33 99" in alice.do("recording", "play", row["id"], "--raw")


def test_agent_for_the_login_only(alice, keys, make_sshd, scratch):
    """The policy says whether the target gets the agent too; the login does not depend on it."""
    sshd = make_sshd("agent")
    add_agent_target(alice, sshd)
    with Agent(scratch, [sshd.key]) as agent:
        c = with_agent(alice, keys, agent)
        r = c.ssh("ssh-add -l")
        assert r.returncode == 0 and "key_agent" in r.stdout, (r.stdout, r.stderr)
        alice.do("target", "set", "web01", "channels=shell,exec")
        r = c.ssh("echo in; ssh-add -l")
        assert r.returncode != 0 and r.stdout.startswith("in\n"), (r.stdout, r.stderr)
        assert "key_agent" not in r.stdout


def test_back_to_the_menu_without_an_agent(alice, keys, make_sshd):
    """The sentence stands in the menu, and another target may be chosen."""
    sshd = make_sshd("agent")
    add_agent_target(alice, sshd, "ag01")
    alice.add_target(sshd, "web02").grant("alice", "web02")
    t = client_of(alice, keys, target="").terminal()
    t.expect("web02")
    t.send("ag01\r")
    t.expect("connect with ssh -A")
    t.send("\x15web02\r")
    t.sendline("echo $((6*7)); exit")
    t.expect("42")
    t.expect(pexpect.EOF)
    assert [s["endReason"] for s in alice.wait_history(2)] == ["target-unreachable", "user-exit"]


@pytest.mark.parametrize("change,says", [
    (("--auth", "agent"), "connect again"), (("--via", "gw1"), "connect again"), ((), None)])
def test_relays_of_the_previous_release(alice, keys, target, change, says):
    """A connection that outlives an upgrade is told to come again for what its relay cannot do."""
    alice.add_target(target).add_target(target, "gw1").grant()
    alice.stop()
    alice.release = "v1"
    alice.start()
    t = client_of(alice, keys, target="").terminal()
    t.expect("web01")
    relays = wait_until(lambda: len(alice.relays()) == 1 and alice.relays(), "hers alone")
    alice.stop()
    alice.release = ""
    alice.start()
    assert relays[0] in alice.relays()
    if change:
        alice.do("target", "set", "web01", *change)
    t.send("\r")
    if says:
        t.expect(says)
        t.send("\x03")
    else:
        t.sendline("echo $((6*7)); exit")
        t.expect("42")
    t.expect(pexpect.EOF)


# ---- questions

class Questions(FakeTarget):
    """Asks rounds of questions: [(name, instruction, [(prompt, echo)..], [answers])..]; with a key
    first when that is wanted."""
    transport = paramiko.Transport

    def __init__(self, key_path, rounds, wants_key=None):
        self.rounds = rounds
        self.wants_key = wants_key
        self.seen = []
        super().__init__(key_path)

    def serve(self, sock):
        transport = self.transport(sock)
        transport.add_server_key(load_key(self.key_path))
        server = _QuestionServer(self)
        transport.start_server(event=threading.Event(), server=server)
        while transport.is_active() and not self.is_over:
            channel = transport.accept(0.2)
            if channel:
                server.wanted.wait(10)
                channel.sendall(("user=%s\r\n" % transport.get_username()).encode())
                channel.send_exit_status(0)
                channel.close()
        transport.close()


class _QuestionServer(_FakeServer):
    def __init__(self, target):
        super().__init__(target)
        self.round = 0
        self.has_key = target.wants_key is None

    def get_allowed_auths(self, username):
        return "keyboard-interactive" if self.has_key else "publickey"

    def check_auth_publickey(self, username, key):
        if key.get_base64() != self.target.wants_key:
            return paramiko.AUTH_FAILED
        self.has_key = True
        return paramiko.AUTH_PARTIALLY_SUCCESSFUL

    def ask(self):
        name, instruction, prompts, _ = self.target.rounds[self.round]
        return paramiko.InteractiveQuery(name, instruction, *prompts)

    def check_auth_interactive(self, username, submethods):
        return self.ask()

    def check_auth_interactive_response(self, responses):
        self.target.seen.append(list(responses))
        if list(responses) != self.target.rounds[self.round][3]:
            return paramiko.AUTH_FAILED
        self.round += 1
        return paramiko.AUTH_SUCCESSFUL if self.round == len(self.target.rounds) else self.ask()

    def check_channel_pty_request(self, *_):
        return True

    def check_channel_shell_request(self, channel):
        self.wanted.set()
        return True


@contextlib.contextmanager
def questions(p, keys, rounds, *more, wants_key=None, **kw):
    fake = Questions(keys.make("fake"), rounds, wants_key)
    p.do("target", "add", "q01", "--address", fake.address, "--account", "bob", "--host-key",
         fake.host_key_line, *more, **kw)
    p.grant("alice", "q01")
    yield fake
    fake.stop()


PASSWORD = ("", "", [("Password: ", False)], ["s3cret"])
CODE = ("Second factor", "Look at your token.\nThen type.",
        [("Code: ", True), ("Pin: ", False)], ["123456", "98\u00fc7"])


def test_questions_on_the_terminal(alice, keys):
    """The stored password answers its question; the others are the user's."""
    with questions(alice, keys, [PASSWORD, CODE], "--auth", "password", "--secret-stdin",
                   input="s3cret\n") as fake:
        t = client_of(alice, keys, "q01").terminal()
        t.expect("q01 asks:\r\nSecond factor\r\nLook at your token.\r\nThen type.\r\nCode: ")
        t.send("12x\x7f3456\r")
        t.expect("12x\b \b3456\r\nPin: ")
        t.send("wrong\x1598\u00fc\u00fc\x7f7\r")
        t.expect("user=bob")
        t.expect(pexpect.EOF)
        t.close()
        assert t.exitstatus == 0
        assert fake.seen == [["s3cret"], CODE[3]]
        assert "98" not in harness.plain(t.before)
    row = alice.wait_history(1)[0]
    assert row["endReason"] == "user-exit"
    assert "98\u00fc7" not in alice.log() and "123456" not in alice.log()


def test_questions_without_a_credential(alice, keys):
    with questions(alice, keys, [PASSWORD], "--auth", "none"):
        t = client_of(alice, keys, "q01").terminal("whoami")
        t.expect("Password: ")
        t.send("s3cret\r")
        t.expect("user=bob")
        t.expect(pexpect.EOF)


class Strict(paramiko.Transport):
    """Hangs up on who sends what is not for before the login, as Dropbear does."""
    def _ensure_authed(self, ptype, message):
        answer = super()._ensure_authed(ptype, message)
        if answer is not None:
            self.close()
        return answer


def test_a_question_is_thought_about(make_proxy, keys):
    """Keep-alives are for those who are logged in: OpenSSH does not answer others."""
    p = make_proxy({"ssh": {"keepalive_interval": "1s", "keepalive_count": "9"}})
    p.add_user("alice", key=keys.make("alice"))
    with questions(p, keys, [PASSWORD], "--auth", "none") as fake:
        fake.transport = Strict
        t = client_of(p, keys, "q01").terminal("whoami")
        t.expect("Password: ")
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 4, "some intervals went by")
        t.send("s3cret\r")
        t.expect("user=bob")
        t.expect(pexpect.EOF)


def test_questions_behind_a_key(alice, keys):
    wanted = keys.public("behind").split()[1]
    with questions(alice, keys, [CODE], "--auth", "key", "--key-file", keys.make("behind"),
                   wants_key=wanted):
        t = client_of(alice, keys, "q01").terminal("whoami")
        t.expect("Code: ")
        t.send("123456\r98\u00fc7\r")
        t.expect("user=bob")
        t.expect(pexpect.EOF)


def test_questions_that_are_not_answered(alice, keys):
    with questions(alice, keys, [CODE], "--auth", "none") as fake:
        refused(client_of(alice, keys, "q01").ssh("whoami"), "q01 asks questions", "ssh -t")
        assert "asks questions" in last_end(alice)[1]
        t = client_of(alice, keys, "q01").terminal()
        t.expect("Code: ")
        t.send("wrong\rwrong\r")
        t.expect("q01 refused the login of bob")
        t.expect(pexpect.EOF)
        t = client_of(alice, keys, "q01").terminal()
        t.expect("Code: ")
        t.send("\x03")
        t.expect("given up")
        t.expect(pexpect.EOF)
        assert fake.seen == [["wrong", "wrong"]]
        # an admin ends it at the question
        t = client_of(alice, keys, "q01").terminal()
        t.expect("Code: ")
        alice.do("session", "end", alice.wait_sessions(1)[0]["id"], "--reason", "lunch", "-y")
        t.expect("lunch")
        t.expect(pexpect.EOF)
    assert [s["endReason"] for s in alice.wait_history(4)] == ["target-unreachable"] * 3 + [
        "admin-ended"]


def test_questions_cannot_draw(alice, keys):
    """A target's words are text: no escape sequence of it reaches the screen."""
    bad = ("a\x1b[2Jb", "c\x1b]0;t\x07d\x08", [("e\x1b[31mf\x9b1m: ", True)], ["x"])
    with questions(alice, keys, [bad], "--auth", "none"):
        t = client_of(alice, keys, "q01").terminal("whoami")
        t.expect("q01 asks:.*: ")
        said = t.match.group(0)
        assert "\x1b" not in said and "\x07" not in said and "\x9b" not in said, repr(said)
        t.send("x\r")
        t.expect("user=bob")


def test_sshd_with_key_and_password(alice, keys, make_sshd):
    """A real one: AuthenticationMethods publickey,keyboard-interactive, through PAM."""
    if not harness.IS_ROOT or not os.path.exists("/etc/pam.d/sshd"):
        pytest.skip("needs root, to make a user, and PAM's file for sshd")
    name, password = "sp" + secrets.token_hex(4), secrets.token_hex(12)
    harness.add_system_user(name, "--no-create-home", "--home-dir", "/", "--shell", "/bin/sh")
    try:
        with harness.user_database():
            subprocess.run(["chpasswd"], input="%s:%s\n" % (name, password), text=True, check=True)
        sshd = make_sshd("pam")
        sshd.stop()
        with open(sshd.config) as f:
            text = f.read().replace("UsePAM no", "UsePAM yes").replace(
                "KbdInteractiveAuthentication no", "KbdInteractiveAuthentication yes")
        with open(sshd.config, "w") as f:
            f.write(text + "AuthenticationMethods publickey,keyboard-interactive\n")
        sshd.start()
        alice.do("target", "add", "web01", "--address", sshd.address, "--account", name, "--auth",
                 "key", "--key-file", sshd.key, "--host-key", sshd.host_key_line)
        alice.grant()
        t = client_of(alice, keys).terminal("id -un")
        t.expect("Password: ")
        t.send(password + "\r")
        t.expect(name)
        t.expect(pexpect.EOF)
        assert password not in alice.log()
        refused(client_of(alice, keys).ssh("id -un"), "asks questions")
    finally:
        harness.remove_system_user(name)


# ---- through other servers

@pytest.fixture
def chain(alice, make_sshd):
    """web01 behind gw2 behind gw1; each has a host key and a key of its own."""
    sshds = {}
    for name, via in (("gw1", None), ("gw2", "gw1"), ("web01", "gw2")):
        sshds[name] = make_sshd(name)
        alice.add_target(sshds[name], name, *(("--via", via) if via else ()))
    alice.grant()
    return sshds


def test_via(alice, keys, chain):
    c = client_of(alice, keys)
    r = c.ssh("echo in; echo out >&2; exit 3")
    assert (r.returncode, r.stdout) == (3, "in\n") and "out" in r.stderr, r.stderr
    row = alice.wait_history(1)[0]
    assert row["address"] == chain["web01"].address and row["endReason"] == "user-exit"
    assert [e["text"] for e in alice.events("via")] == ["gw1, gw2"]
    # nobody needs a grant for what lies on the way, and nobody has one by that
    refused(client_of(alice, keys, "gw1").ssh("true"), "there is no target")
    t = c.shell()
    t.sendline("echo $((6*7))")
    t.expect("42")
    t.sendline("exit")
    t.expect(pexpect.EOF)
    wait_until(lambda: not any(chain[n].sessions() for n in chain), "every connection is closed")


def test_via_carries(alice, keys, chain, tmp_path):
    """Both ways, through three logins, with new keys in between, to the last byte."""
    data = os.urandom(8 << 20)
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(data)
    for sshd in (chain["gw1"], chain["web01"]):
        sshd.stop()
        with open(sshd.config, "a") as f:
            f.write("RekeyLimit 1M\n")
        sshd.start()
    c = client_of(alice, keys)
    remote = tmp_path / "remote"
    r = c.scp(str(source), c.remote(str(remote)))
    assert r.returncode == 0, r.stderr
    assert hashlib.sha256(remote.read_bytes()).digest() == hashlib.sha256(data).digest()
    r = c.scp(c.remote(str(remote)), str(back))
    assert r.returncode == 0, r.stderr
    assert back.read_bytes() == data
    r = c.ssh("sha256sum", input=data.decode("latin-1"), text=True, encoding="latin-1")
    assert r.stdout.split()[0] == hashlib.sha256(data).hexdigest()


def test_hop_down(alice, keys, chain):
    chain["gw1"].stop()
    refused(client_of(alice, keys).ssh("true"), "web01 cannot be reached", "gw1", "refused")
    assert last_end(alice)[0] == "target-unreachable"
    chain["gw1"].start()
    chain["gw2"].stop()
    refused(client_of(alice, keys).ssh("true"), "web01 cannot be reached through gw1",
            chain["gw2"].address)
    assert last_end(alice, 2)[0] == "target-unreachable"
    chain["gw2"].start()
    chain["web01"].stop()
    refused(client_of(alice, keys).ssh("true"), "web01 cannot be reached through gw2")
    assert last_end(alice, 3)[0] == "target-unreachable"


def test_hop_with_another_host_key(alice, keys, chain):
    other = " ".join(keys.public("other").split()[:2])
    alice.do("target", "set", "gw2", "--host-key", other)
    refused(client_of(alice, keys).ssh("true"), "the host key of gw2 has changed",
            "target set gw2 --host-key fetch")
    assert "gw2" in alice.events("host-key-mismatch")[0]["text"]
    alice.do("target", "set", "gw2", "--host-key", "none", "--accept-new")
    r = client_of(alice, keys).ssh("echo in")
    assert r.returncode == 0, r.stderr
    assert alice.json("target", "show", "gw2")["hostKey"] == chain["gw2"].host_key_line
    assert [e["text"].split()[0] for e in alice.events("host-key-pinned")] == ["gw2"]


def test_hop_login_refused(alice, keys, chain):
    alice.do("target", "set", "gw2", "--key-file", keys.make("stranger"))
    refused(client_of(alice, keys).ssh("true"),
            "web01 cannot be reached through gw2: gw2 refused the login of")
    assert last_end(alice)[0] == "target-unreachable"


def test_hop_that_does_not_forward(alice, keys, make_sshd):
    gw = make_sshd("gw1", "AllowTcpForwarding no\n")
    web = make_sshd("web01")
    alice.add_target(gw, "gw1").add_target(web, "web01", "--via", "gw1").grant()
    refused(client_of(alice, keys).ssh("true"), "web01 cannot be reached through gw1",
            "gw1 does not get through to " + web.address)


def test_hop_that_goes_away(alice, keys, chain):
    t = client_of(alice, keys).shell()
    t.sendline("echo $((6*7))")
    t.expect("42")
    chain["gw1"].stop()
    t.expect("on the way to the target, closed the connection")
    t.expect(pexpect.EOF)
    reason, text = last_end(alice)
    assert reason == "target-closed" and "gw1" in text or "gw2" in text


def test_agent_for_each_server_on_the_way(alice, keys, make_sshd, scratch):
    gw, web = make_sshd("gw1"), make_sshd("web01")
    add_agent_target(alice, gw, "gw1")
    add_agent_target(alice, web, "web01", "--via", "gw1")
    with Agent(scratch, [gw.key, web.key]) as agent:
        r = with_agent(alice, keys, agent).ssh("echo in")
        assert (r.returncode, r.stdout) == (0, "in\n"), r.stderr
    with Agent(scratch, [web.key]) as agent:
        refused(with_agent(alice, keys, agent).ssh("echo in"),
                "through gw1: gw1 refused the login", "the keys of your agent")


def test_via_is_checked(alice, chain, make_sshd):
    def refuses(*args, says, code=2):
        r = alice.ctl(*args)
        assert r.returncode == code and says in r.stderr, (args, r.returncode, r.stderr)

    refuses("target", "set", "gw1", "--via", "web01", says="through itself")
    refuses("target", "set", "gw1", "--via", "gw1", says="gw1")
    refuses("target", "set", "web01", "--via", "nowhere", says="there is no target")
    refuses("target", "rm", "gw1", "-y", says="is on the way to", code=1)
    names = ["web01", "a", "b", "c"]
    for before, name in zip(names[:2], names[1:]):
        alice.add_target(chain["web01"], name, "--via", before)
    refuses("target", "add", "c", "--address", "h", "--accept-new", "--via", "b",
            says="more than 4")
    alice.do("target", "add", "win", "--type", "rdp", "--address", "h")
    refuses("target", "set", "web01", "--via", "win", says="no ssh target")
    refuses("target", "set", "win", "--via", "gw1", says="only ssh targets")
    alice.do("target", "set", "web01", "--via", "")
    assert alice.json("target", "show", "web01")["via"] is None


def test_documents(alice, keys, chain):
    """dump and apply carry the way and the certificate; a document with a loop is refused."""
    cert = sign(keys, "ca", "key_gw2", "-n", "root")
    alice.do("target", "set", "gw2", "--cert-file", cert)
    text = alice.do("dump")
    assert '"via": "gw2"' in text and "-cert-v01@openssh.com" in text
    assert alice.do("apply", "-f", "-", input=text).strip() in ("", "No changes.")
    alice.do("target", "set", "web01", "--via", "")
    assert "via gw2" in alice.do("apply", "-f", "-", input=text)
    assert alice.json("target", "show", "web01")["via"] == "gw2"
    r = alice.ctl("apply", "-f", "-", input='{"targets": [{"name": "gw1", "via": "web01"}]}')
    assert r.returncode == 2 and "through itself" in r.stderr, r.stderr
    alice.do("apply", "-f", "-", "--prune", "-y", input='{"targets": []}')
    assert alice.json("target", "ls") == []


# ---- target test

def steps(p, *args, code=0):
    r = p.ctl("-o", "json", "target", "test", *args)
    assert r.returncode == code, (r.returncode, r.stdout, r.stderr)
    import json
    data = json.loads(r.stdout)
    assert data["ok"] == (code == 0)
    return [(s["target"], s["step"], s["result"]) for s in data["steps"]], data["steps"]


ALL = ["resolve", "connect", "banner", "handshake", "host-key", "login", "channel", "command"]


def test_target_test(alice, target):
    alice.add_target(target)
    rows, said = steps(alice, "web01")
    assert rows == [("web01", step, "ok") for step in ALL]
    texts = {s["step"]: s["text"] for s in said}
    assert target.address in texts["connect"] and texts["banner"].startswith("SSH-2.0-OpenSSH")
    assert "as pinned" in texts["host-key"] and "by key" in texts["login"]
    r = alice.ctl("target", "test", "web01")
    assert r.returncode == 0 and "handshake" in r.stdout and "STEP" in r.stdout
    assert alice.sessions("--all") == [] and alice.events("target-test")
    assert alice.ctl("target", "test", "nowhere").returncode == 1


def test_target_test_says_what_fails(alice, target, keys):
    alice.add_target(target)

    def fails(step, *change, says=""):
        if change:
            alice.do("target", "set", "web01", *change)
        rows, said = steps(alice, "web01", code=1)
        assert rows[-1] == ("web01", step, "failed"), said
        assert all(r[2] == "ok" for r in rows[:-1]), said
        assert says in said[-1]["text"], said
        return said

    fails("login", "--key-file", keys.make("stranger"), says="refused the login")
    fails("host-key", "--host-key", " ".join(keys.public("other").split()[:2]), says="has changed")
    fails("host-key", "--host-key", "none", says="no host key is pinned")
    talker = Talker(b"220 mail.example ESMTP\r\n" * 400)
    fails("banner", "--address", talker.address)
    talker.stop()
    silent = socket.create_server(("127.0.0.1", 0))
    dead = "127.0.0.1:%d" % harness.free_port()
    fails("connect", "--address", dead, says="connection refused")
    silent.close()
    fails("resolve", "--address", "no-such-host.invalid:22")
    # nothing is pinned yet, and that is no failure
    alice.do("target", "set", "web01", "--address", target.address, "--accept-new", "--key-file",
             target.key)
    rows, said = steps(alice, "web01")
    assert "the first session pins it" in said[4]["text"]
    assert alice.json("target", "show", "web01")["hostKey"] is None


def test_target_test_of_a_name(alice, target):
    """Every address of a name is tried, and one that answers is enough."""
    alice.add_target(target)
    alice.do("target", "set", "web01", "--address", "localhost:%d" % target.port)
    rows, said = steps(alice, "web01")
    addresses = said[0]["text"].split(", ")
    tried = [s for s in said if s["step"] == "connect"]
    assert 1 <= len(tried) <= len(addresses) and tried[-1]["result"] == "ok"
    assert all(s["text"].split(": ")[0] == a for s, a in zip(tried, addresses))
    assert rows[-1] == ("web01", "command", "ok")


def test_target_test_without_what_only_users_have(alice, target):
    add_agent_target(alice, target, "ag")
    rows, said = steps(alice, "ag")
    assert rows[-1] == ("ag", "login", "skipped") and "agent" in said[-1]["text"]
    alice.do("target", "set", "ag", "--auth", "passthrough", "--account", "")
    r = alice.ctl("target", "test", "ag")
    assert r.returncode == 2 and "account" in r.stderr
    rows, said = steps(alice, "ag", "--account", target.account)
    assert rows[-1] == ("ag", "login", "skipped") and "password" in said[-1]["text"]


def test_target_test_through_others(alice, keys, chain):
    rows, said = steps(alice, "web01")
    tail = ["banner", "handshake", "host-key", "login"]
    assert rows == ([("gw1", s, "ok") for s in ["resolve", "connect"] + tail] +
                    [("gw2", s, "ok") for s in tail] +
                    [("web01", s, "ok") for s in tail + ["channel", "command"]]), said
    alice.do("target", "set", "gw2", "--key-file", keys.make("stranger"))
    rows, said = steps(alice, "web01", code=1)
    assert rows[-1] == ("gw2", "login", "failed"), said
    chain["gw2"].stop()
    rows, said = steps(alice, "web01", code=1)
    assert rows[-1] == ("gw1", "channel", "failed"), said


def sandboxed(p):
    """Processes of a proxy that try targets, under their filter: pid to /proc/PID/status."""
    found = {}
    for pid in harness.children(p.process.pid):
        with contextlib.suppress(OSError), open("/proc/%d/status" % pid) as f:
            status = dict(line.split(":\t", 1) for line in f.read().splitlines())
            if status["Name"] == "sallyport-probe" and status["Seccomp"] == "2":
                found[pid] = status
    return found


def test_target_test_many_at_once_and_their_end(alice, make_proxy, keys):
    """What hangs is bounded, holds up nobody, and does not outlive the proxy."""
    silent = Listener()  # accepts, and says nothing
    alice.do("target", "add", "mute", "--address", silent.address, "--account", "x", "--auth",
             "none", "--accept-new")
    waiting = [subprocess.Popen([os.path.join(harness.bin_dir(), "sallyctl"), "--socket",
                                 alice.socket, "target", "test", "mute"],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
               for _ in range(10)]
    wait_until(lambda: sum(w.poll() is not None for w in waiting) == 2, "two are too many")
    assert b"too many" in [w for w in waiting if w.poll() is not None][0].stderr.read()
    assert alice.ctl("status").returncode == 0
    probes = wait_until(lambda: len(sandboxed(alice)) == 8 and sandboxed(alice), "eight probes")
    for status in probes.values():
        assert status["NoNewPrivs"] == "1", status
        assert int(status["CapEff"], 16) == 0 and int(status["CapPrm"], 16) == 0, status
        if harness.IS_ROOT:
            assert status["Uid"].split()[0] == str(pwd.getpwnam("sallyport-relay").pw_uid)
    alice.stop()
    wait_until(lambda: not any(harness.alive(p) for p in probes), "the probes are gone")
    for w in waiting:
        w.communicate(timeout=harness.PATIENCE)
    silent.stop()


# ---- host keys that are shown before they are trusted

def ctl_terminal(p, *args):
    return pexpect.spawn(os.path.join(harness.bin_dir(), "sallyctl"),
                         ["--socket", p.socket, *args], encoding="utf-8", timeout=harness.PATIENCE,
                         env=p.env(), dimensions=(24, 120))


def finger(path):
    return harness.run("ssh-keygen", "-lf", path + ".pub").stdout.split()[1]


def test_add_shows_the_host_key(alice, target, keys):
    add = ("target", "add", "web01", "--address", target.address, "--account", target.account,
           "--key-file", target.key)
    t = ctl_terminal(alice, *add)
    t.expect("The host key of web01:")
    t.expect("ssh-ed25519 " + finger(target.host_key).replace("+", r"\+"))
    t.expect(r"\(yes/no/fingerprint\)\?")
    t.sendline("no")
    t.expect("Nothing was changed")
    t.expect(pexpect.EOF)
    t.close()
    assert t.exitstatus == 1 and alice.json("target", "ls") == []
    for answer in ("yes", finger(target.host_key)):
        t = ctl_terminal(alice, *add)
        t.expect(r"\(yes/no/fingerprint\)\?")
        t.sendline(answer)
        t.expect("was added")
        t.expect(pexpect.EOF)
        assert alice.json("target", "show", "web01")["hostKey"] == target.host_key_line
        alice.grant()
        assert client_of(alice, keys).ssh("true").returncode == 0
        alice.do("target", "rm", "web01", "-y")
    # it does not answer
    t = ctl_terminal(alice, "target", "add", "dead", "--address",
                     "127.0.0.1:%d" % harness.free_port())
    t.expect("connection refused")
    t.expect("Go on without it")
    t.sendline("y")
    t.expect("was added")
    t.expect(pexpect.EOF)
    assert alice.json("target", "show", "dead")["hostKey"] is None


def test_add_with_a_fingerprint(alice, target, keys):
    add = ("target", "add", "web01", "--address", target.address)
    r = alice.ctl(*add, "--host-key-fingerprint", finger(keys.make("other")))
    assert r.returncode == 1 and finger(target.host_key) in r.stderr
    r = alice.ctl(*add, "--host-key", "fetch")
    assert r.returncode == 2 and "--host-key-fingerprint" in r.stderr
    assert alice.json("target", "ls") == []
    alice.do(*add, "--host-key-fingerprint", finger(target.host_key))
    assert alice.json("target", "show", "web01")["hostKey"] == target.host_key_line


def test_after_a_server_was_set_up_anew(alice, keys, make_sshd):
    """The error says what to do; doing it works, through other servers too."""
    sshd, gw = make_sshd("web01"), make_sshd("gw1")
    alice.add_target(gw, "gw1").add_target(sshd, "web01", "--via", "gw1").grant()
    with open(sshd.config) as f:
        text = f.read()
    with open(sshd.config, "w") as f:
        f.write(text.replace(sshd.host_key, keys.make("new_host", "ecdsa")))
    sshd.stop()
    sshd.start()
    r = client_of(alice, keys).ssh("true")
    refused(r, "web01 has changed", "sallyctl target set web01 --host-key fetch")
    t = ctl_terminal(alice, "target", "set", "web01", "--host-key", "fetch")
    t.expect("ecdsa-sha2-nistp256 ")
    t.sendline("yes")
    t.expect("was changed")
    t.expect(pexpect.EOF)
    assert client_of(alice, keys).ssh("true").returncode == 0
    r = alice.ctl("target", "set", "web01", "--accept-new")
    assert r.returncode == 0 and "pinned stays" in r.stderr


# ---- leaks (see test_leaks.py)

@pytest.mark.skipif(not harness.SANITIZED, reason="needs the sanitized build")
def test_no_leaks(make_proxy, keys, make_sshd, scratch, monkeypatch):
    monkeypatch.setenv("SALLYPORT_LEAK_CHECK", "1")
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=1")
    p = make_proxy({"proxy": {"sandbox": "reduced"}},
                   as_user="nobody" if harness.IS_ROOT else None)
    p.add_user("alice", key=keys.make("alice"))
    gw, web = make_sshd("gw1"), make_sshd("web01")
    p.add_target(gw, "gw1").add_target(web, "web01", "--via", "gw1").grant()
    add_agent_target(p, web, "ag01", "--via", "gw1")
    assert client_of(p, keys).ssh("echo in").returncode == 0
    steps(p, "web01")
    with Agent(scratch, [web.key]) as agent:
        assert with_agent(p, keys, agent, "ag01").ssh("echo in").returncode == 0
        slow = Go(agent)
        waiting = with_agent(p, keys, slow, "ag01").popen("echo in")
        assert slow.asked.wait(harness.PATIENCE)
        p.do("session", "end", "--all", "-y")
        waiting.communicate(timeout=harness.PATIENCE)
        slow.stop()
    refused(client_of(p, keys, "ag01").ssh("echo in"), "ssh -A")
    with questions(p, keys, [CODE], "--auth", "none"):
        t = client_of(p, keys, "q01").terminal("whoami")
        t.expect("Code: ")
        t.send("123456\r98\u00fc7\r")
        t.expect("user=bob")
        t.expect(pexpect.EOF)
        t = client_of(p, keys, "q01").terminal("whoami")
        t.expect("Code: ")
        t.send("12\x03")
        t.expect(pexpect.EOF)
    gw.stop()
    refused(client_of(p, keys).ssh("true"), "cannot be reached")
    steps(p, "web01", code=1)
    wait_until(lambda: not p.relays(), "relays end")
    assert p.stop() == 0, p.log()[-3000:]
    assert "LeakSanitizer" not in p.log() and "detected memory leaks" not in p.log(), p.log()[-8000:]
