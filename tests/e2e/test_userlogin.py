"""
How users log in beyond a password and a plain key: keyboard-interactive, second factors, user
certificates, FIDO keys, PAM; how access ends while people are in; how a source that fails is slowed
down, blocked and let in again.
"""
import base64
import contextlib
import hashlib
import hmac
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import time

import paramiko
import pexpect
import pytest

import harness
import peers
from harness import BUILD, IS_ROOT, PATIENCE, plain, wait_until
from peers import (CLOSED, USERAUTH_BANNER, USERAUTH_FAILURE, USERAUTH_PK_OK, USERAUTH_REQUEST,
                   USERAUTH_SUCCESS, PasswordClient, RawClient, told)

PASSWORD = "correct horse 7"
NO_LIMIT = {"limits": {"source_failures": "0"}}
INFO_REQUEST, INFO_RESPONSE = 60, 61
STEP = 30


# ---- codes and people

def totp(secret, step):
    """RFC 6238, written down a second time."""
    digest = hmac.new(base64.b32decode(secret + "=" * (-len(secret) % 8)), struct.pack(">Q", step),
                      hashlib.sha1).digest()
    at = digest[-1] & 15
    return "%06d" % ((struct.unpack(">I", digest[at:at + 4])[0] & 0x7fffffff) % 1000000)


class App:
    """An authenticator app whose owner never shows a code twice: the steps of the window one by one."""
    def __init__(self, secret):
        self.secret, self.used = secret, 0

    def code(self):
        def next_step():
            now = time.time()
            if now % STEP > STEP - 5:  # not so near to the end that it is over before it is typed
                return None
            first = max(self.used + 1, int(now) // STEP - 1)
            return first if first <= int(now) // STEP + 1 else None
        self.used = wait_until(next_step, "a step that is not used", timeout=STEP * 4, every=0.5)
        return totp(self.secret, self.used)

    def used_code(self):
        return totp(self.secret, self.used)

    def wrong_code(self):
        good = {totp(self.secret, int(time.time()) // STEP + n) for n in range(-3, 4)}
        return next(c for c in ("%06d" % n for n in range(100)) if c not in good)


def enrol(p, name="alice"):
    """A second factor by the admin's commands; (app, recovery codes)."""
    app = App(p.json("user", "totp", "enable", name)["secret"])
    codes = p.json("user", "totp", "confirm", name, app.code())["recoveryCodes"]
    assert len(set(codes)) == 10
    return app, codes


class Person(harness.Client):
    """OpenSSH at a terminal, asking whatever the server asks."""
    def __init__(self, proxy, user="alice", target="web01", key=None, options=(),
                 methods="publickey,keyboard-interactive"):
        super().__init__(proxy, user, target, None,
                         ["-o", "PreferredAuthentications=" + methods, "-o",
                          "NumberOfPasswordPrompts=3", *options])
        if key:
            self.options += ["-i", key, "-o", "IdentitiesOnly=yes"]
        else:
            self.options += ["-o", "PubkeyAuthentication=no"]

    def begin(self, *command, flags=(), env=None, cols=100):
        argv = self.ssh_argv(*command, flags=flags)
        child = pexpect.spawn(argv[0], argv[1:], timeout=PATIENCE, dimensions=(60, cols),
                              env=dict(os.environ, LC_ALL="C.UTF-8", **(env or {})),
                              encoding="utf-8", codec_errors="replace")
        child.delaybeforesend = None
        self.terminals.append(child)
        return child

    def answer(self, child, prompt, text):
        child.expect(prompt)
        child.waitnoecho() if "hown" not in prompt and "kept" not in prompt else None
        child.sendline(text)

    def log_in(self, *answers, command="echo in", flags=()):
        """Answers to one question each; what was shown after the last one, and the exit code."""
        child = self.begin(command, flags=flags)
        for prompt, text in answers:
            self.answer(child, prompt, text)
        child.expect(pexpect.EOF)
        child.close()
        return child.before, child.exitstatus


CODE, PASS = r"Verification code: $", r"Password: $"
DENIED = r"Permission denied"


def user_with_password(p, name="alice", target="web01"):
    p.add_user(name, password=PASSWORD)
    p.grant(name, target)
    return p


@pytest.fixture
def bastion(make_proxy, target, keys):
    """alice with a key and a password; no limit on failures."""
    p = make_proxy(NO_LIMIT).add_target(target)
    p.add_user("alice", password=PASSWORD)
    p.do("user", "key", "add", "alice", keys.make("alice") + ".pub")
    return p.grant()


def logins(p):
    return [e["text"] for e in p.events("login")]


# ---- keyboard-interactive

def test_password_over_keyboard_interactive(bastion):
    shown, code = Person(bastion).log_in((PASS, PASSWORD))
    assert "in" in shown and code == 0
    row = bastion.wait_history(1)[0]
    assert (row["user"], row["endReason"]) == ("alice", "user-exit")
    assert logins(bastion) == ["password"]


def test_wrong_password_over_keyboard_interactive(bastion):
    shown, code = Person(bastion).log_in((PASS, "one"), (PASS, "two"), (PASS, "three"))
    assert code == 255 and DENIED in shown
    assert len(bastion.events("login-failed")) == 3 and not bastion.sessions("--all")
    shown, code = Person(bastion).log_in((PASS, "one"), (PASS, PASSWORD))
    assert code == 0
    shown, code = Person(bastion, user="nobody").log_in((PASS, PASSWORD), (PASS, PASSWORD),
                                                        (PASS, PASSWORD))
    assert code == 255 and DENIED in shown
    assert PASSWORD not in bastion.log()


def test_plink_types_the_password(bastion):
    """PuTTY asks keyboard-interactive first."""
    r = harness.run("plink", "-batch", "-P", bastion.port, "-l", "alice+web01", "-pw", PASSWORD,
                    "-hostkey", host_key_of(bastion), "127.0.0.1", "echo in",
                    env=dict(os.environ, HOME=bastion.dir))
    assert (r.returncode, r.stdout) == (0, "in\n"), r.stderr


def host_key_of(p):
    r = harness.run("ssh-keygen", "-l", "-f", p.options["ssh"]["host_key"] + ".pub") \
        if os.path.exists(p.options["ssh"]["host_key"] + ".pub") else None
    if r is None or r.returncode:
        r = harness.run("ssh-keygen", "-l", "-f", p.options["ssh"]["host_key"])
    return r.stdout.split()[1]


class Talk(RawClient):
    """A client that says keyboard-interactive by hand."""
    def ask(self, user="alice+web01"):
        self.say(USERAUTH_REQUEST, user, "ssh-connection", "keyboard-interactive", "", "")
        return self.reply()

    def reply(self):
        number, m = self.hear(INFO_REQUEST, USERAUTH_FAILURE, USERAUTH_SUCCESS)
        self.prompts = []
        if number == INFO_REQUEST:
            self.name, self.instruction, _ = m.get_text(), m.get_text(), m.get_text()
            self.prompts = [(m.get_text(), m.get_boolean()) for _ in range(m.get_int())]
        elif number == USERAUTH_FAILURE:
            self.methods, self.is_partial = m.get_text().split(","), m.get_boolean()
        return number

    def answers(self, *texts):
        self.say(INFO_RESPONSE, len(texts), *texts)
        return self.reply()


def test_odd_conversations(bastion):
    with Talk(bastion.port) as c:
        c.begin()
        assert c.ask() == INFO_REQUEST and c.prompts == [("Password: ", False)]
        assert c.answers() == USERAUTH_FAILURE and not c.is_partial  # no answer is a wrong one
        assert sorted(c.methods) == ["keyboard-interactive", "password", "publickey"]
        assert c.ask() == INFO_REQUEST and c.answers("a", "b") == USERAUTH_FAILURE
        # another request ends a conversation: its answer comes too late
        assert c.ask() == INFO_REQUEST
        assert c.password("alice+web01", "wrong") == USERAUTH_FAILURE
        assert c.answers(PASSWORD) == USERAUTH_FAILURE
        assert c.ask() == INFO_REQUEST and c.answers(PASSWORD) == USERAUTH_SUCCESS
    with Talk(bastion.port) as c:  # an answer that nobody asked for
        c.begin()
        assert c.answers(PASSWORD) in (USERAUTH_FAILURE, CLOSED)
    with Talk(bastion.port) as c:  # asking again and again without an answer comes to an end
        c.begin()
        for _ in range(60):
            if c.ask() != INFO_REQUEST:
                break
        else:
            raise AssertionError("it never ended")
    with Talk(bastion.port) as c:
        c.begin()
        assert c.ask() == INFO_REQUEST
        assert c.answers("x" * 5000) == USERAUTH_FAILURE
        assert c.ask("bob+web01") == CLOSED  # one name a connection
    assert harness.Client(bastion, key=os.path.join(bastion.dir, "..", "keys", "alice")) \
        .ssh("true").returncode == 0


# ---- second factors

def test_publickey_then_totp(bastion, keys):
    app, _ = enrol(bastion)
    me = Person(bastion, key=keys.make("alice"))
    shown, code = me.log_in((CODE, app.code()))
    assert "in" in shown and code == 0
    assert logins(bastion) == ["publickey, totp"]
    assert bastion.wait_history(1)[0]["user"] == "alice"
    # without anybody to type a code the key alone opens nothing
    r = harness.Client(bastion, key=keys.make("alice"),
                       options=["-o", "PreferredAuthentications=publickey,password"]).ssh("echo in")
    assert (r.returncode, r.stdout) == (255, "") and "keyboard-interactive" in r.stderr
    assert len(bastion.sessions("--all")) == 1


def test_password_then_totp(bastion):
    app, _ = enrol(bastion)
    me = Person(bastion, methods="password,keyboard-interactive")
    shown, code = me.log_in((r"password: $", PASSWORD), (CODE, app.code()))
    assert "in" in shown and code == 0
    # and both in one conversation
    shown, code = Person(bastion).log_in((PASS, PASSWORD), (CODE, app.code()))
    assert "in" in shown and code == 0
    assert logins(bastion) == ["password, totp"] * 2
    # a wrong password is not followed by a question for a code
    child = Person(bastion).begin("true")
    child.expect(PASS)
    child.sendline("wrong")
    assert child.expect([PASS, CODE]) == 0
    child.close()


def test_code_is_accepted_once(bastion, keys):
    app, _ = enrol(bastion)
    me = Person(bastion, key=keys.make("alice"))
    assert me.log_in((CODE, app.code()))[1] == 0
    shown, code = me.log_in((CODE, app.used_code()), (CODE, app.used_code()), (CODE, app.used_code()))
    assert code == 255 and "used before" in shown
    failed = bastion.events("login-failed")
    assert failed and all("used totp code" in e["text"] for e in failed), failed
    bastion.stop()  # what is used stays used
    bastion.start()
    shown, code = me.log_in((CODE, app.used_code()), (CODE, "x"), (CODE, ""))
    assert code == 255 and len(bastion.sessions("--all")) == 1


def test_codes_out_of_the_window(bastion, keys):
    app, _ = enrol(bastion)
    now = int(time.time()) // STEP
    me = Person(bastion, key=keys.make("alice"))
    shown, code = me.log_in((CODE, totp(app.secret, now - 4)), (CODE, totp(app.secret, now + 5)),
                            (CODE, app.wrong_code()))
    assert code == 255 and not bastion.sessions("--all")
    shown, code = me.log_in((CODE, app.code()[:3] + " " + app.used_code()[3:]))  # as apps show it
    assert code == 0, shown


def test_recovery_code_works_once(bastion, keys):
    _, codes = enrol(bastion)
    me = Person(bastion, key=keys.make("alice"))
    assert me.log_in((CODE, codes[3]))[1] == 0
    assert logins(bastion) == ["publickey, recovery code, 9 left"]
    shown, code = me.log_in((CODE, codes[3]), (CODE, codes[3]), (CODE, "aaaa-bbbb-cccc-dddd"))
    assert code == 255
    assert me.log_in((CODE, codes[4].upper().replace("-", " ")))[1] == 0  # as people type it
    fresh = bastion.json("user", "totp", "recovery", "alice")["recoveryCodes"]
    shown, code = me.log_in((CODE, codes[5]), (CODE, fresh[0]))
    assert code == 0
    for secret in codes + fresh:
        assert secret not in bastion.log()
    assert bastion.json("user", "totp", "show", "alice")["recoveryCodes"] == 9


def test_every_channel_needs_the_code(bastion, keys, scratch):
    """A login is a login, whatever comes after it."""
    app, _ = enrol(bastion)
    me = Person(bastion, key=keys.make("alice"))
    never = harness.Client(bastion, key=keys.make("alice"))
    inner = harness.Client(bastion, target=None, key=keys.make("alice"))
    for r in (never.ssh("true"), never.sftp("ls\n"), never.ssh(flags=["-N"]),
              never.scp(keys.make("alice") + ".pub", never.remote("/tmp/x")),
              never.ssh("sftp", flags=["-s"]), never.ssh(flags=["-W", "127.0.0.1:1"]),
              inner.ssh("sessions"), inner.ssh("targets"), inner.ssh("totp disable")):
        assert r.returncode in (1, 255) and "Permission denied" in r.stderr, r
    assert not bastion.sessions("--all") and logins(bastion) == []
    # with it they work
    argv = ["sftp"] + me.common() + ["-P", str(bastion.port), me.login + "@127.0.0.1"]
    child = pexpect.spawn(argv[0], argv[1:], timeout=PATIENCE, encoding="utf-8")
    child.expect(CODE)
    child.sendline(app.code())
    child.expect("sftp> ")
    child.sendline("bye")
    child.expect(pexpect.EOF)


def test_partial_success_says_what_goes_on(bastion, keys):
    app, _ = enrol(bastion)
    key = peers.load_key(keys.make("alice"))
    with Talk(bastion.port) as c:
        c.begin()
        c.sign("alice+web01", key, wait=False)
        assert c.reply() == USERAUTH_FAILURE and c.is_partial
        assert c.methods == ["keyboard-interactive"]
        # the first factor twice does not make two
        c.sign("alice+web01", key, wait=False)
        assert c.reply() == USERAUTH_FAILURE and not c.is_partial
        assert c.methods == ["keyboard-interactive"]
        assert c.password("alice+web01", PASSWORD) == USERAUTH_FAILURE
        assert c.open_session() != peers.CHANNEL_OPEN_CONFIRMATION
    with Talk(bastion.port) as c:  # codes without a first factor are never asked for
        c.begin()
        assert c.ask() == INFO_REQUEST and c.prompts[0][0] == "Password: "
        assert c.answers(app.code()) == USERAUTH_FAILURE and not c.is_partial


def test_guesses_of_codes_are_limited_by_user(make_proxy, target, keys):
    p = make_proxy({"limits": {"source_failures": "0", "auth_attempts": "4"}}).add_target(target)
    p.add_user("alice", key=keys.make("alice")).grant()
    app, codes = enrol(p)
    key = peers.load_key(keys.make("alice"))
    tried, sentence = 0, ""
    for n in range(6):
        with Talk(p.port, source="127.0.0.%d" % (n + 2)) as c:
            c.begin()
            c.sign("alice+web01", key, wait=False)
            assert c.reply() == USERAUTH_FAILURE
            while c.ask() == INFO_REQUEST:
                tried += 1
                if c.answers(app.wrong_code()) != USERAUTH_FAILURE:
                    break
            sentence = c.sentence or sentence
    assert 10 <= tried <= 11 and "wrong codes for this user" in sentence
    assert len(p.events("second-factor-blocked")) == 1
    with Talk(p.port) as c:  # a right one is not looked at either
        c.begin()
        c.sign("alice+web01", key, wait=False)
        assert c.reply() == USERAUTH_FAILURE and c.ask() == CLOSED


def test_enrolment_at_the_first_login(make_proxy, target, keys):
    p = make_proxy(NO_LIMIT).add_target(target)
    p.do("role", "add", "ops", "--second-factor", "totp")
    p.add_user("alice", key=keys.make("alice"), role="ops").grant()
    assert p.json("user", "totp", "show", "alice")["required"]
    me = Person(p, key=keys.make("alice"))
    child = me.begin("echo in")
    child.expect("authenticator app")
    child.expect("\u2588")  # the picture
    child.expect(r"otpauth://totp/Sallyport:alice@test\?secret=([A-Z2-7]{32})&issuer=Sallyport")
    app = App(child.match.group(1))
    child.expect("key: " + app.secret)
    child.expect("Code that the app shows: $")
    child.sendline(app.wrong_code())
    child.expect("does not fit")
    child.expect("Code that the app shows: $")
    child.sendline(app.code())
    child.expect("recovery codes")
    child.expect("Press Enter when you have kept them: $")
    codes = re.findall(r"[a-z2-9]{4}(?:-[a-z2-9]{4}){3}", child.before)
    assert len(set(codes)) == 10
    child.sendline("")
    child.expect("in\r\n")
    child.expect(pexpect.EOF)
    assert logins(p) == ["publickey, totp, enrolled"]
    assert [e["user"] for e in p.events("totp-enabled")] == ["alice"]
    assert p.json("user", "show", "alice")["totp"] is True
    assert me.log_in((CODE, codes[0]))[1] == 0
    assert me.log_in((CODE, app.code()))[1] == 0
    for secret in [app.secret] + codes:  # nowhere but on that screen
        assert secret not in p.log()
        assert not any(secret in json.dumps(e) for e in p.events())
        with open(os.path.join(p.data, "sallyport.db"), "rb") as f:
            assert secret.encode() not in f.read()


def test_guesses_that_wait_side_by_side_count_too(make_proxy, target, keys):
    """Everybody was asked before the first one was wrong."""
    p = make_proxy(NO_LIMIT).add_target(target)
    p.add_user("alice", key=keys.make("alice")).grant()
    app, _ = enrol(p)
    key = peers.load_key(keys.make("alice"))
    answers = []
    with contextlib.ExitStack() as stack:
        guessers = []
        for n in range(14):
            c = stack.enter_context(Talk(p.port, source="127.0.0.%d" % (n + 2)))
            c.begin()
            c.sign("alice+web01", key, wait=False)
            assert c.reply() == USERAUTH_FAILURE and c.ask() == INFO_REQUEST
            guessers.append(c)
        wrong = app.wrong_code()
        for c in guessers:
            answers.append(c.answers(wrong))
    assert answers.count(USERAUTH_FAILURE) <= 11 and CLOSED in answers, answers
    assert len(p.events("second-factor-blocked")) == 1


def test_two_who_enrol_at_once(make_proxy, target, keys):
    """Somebody who has the first factor too waits with a key of his own: it replaces nothing."""
    p = make_proxy(NO_LIMIT).add_target(target)
    p.add_user("alice", key=keys.make("alice")).grant()
    p.do("user", "set", "alice", "--second-factor", "totp")
    me, other = Person(p, key=keys.make("alice")), Person(p, key=keys.make("alice"))
    children = [other.begin("echo in"), me.begin("echo in")]
    apps = []
    for child in children:
        child.expect(r"secret=([A-Z2-7]{32})")
        apps.append(App(child.match.group(1)))
        child.expect("app shows: $")
    children[1].sendline(apps[1].code())
    children[1].expect("kept them: $")
    children[1].sendline("")
    children[1].expect("in\r\n")
    children[0].sendline(apps[0].code())
    children[0].expect("set up meanwhile")
    children[0].expect(CODE)
    children[0].close()
    assert len(p.events("totp-enabled")) == 1
    assert me.log_in((CODE, apps[1].code()))[1] == 0


def test_enrolment_that_is_not_finished_changes_nothing(make_proxy, target, keys):
    p = make_proxy(NO_LIMIT).add_target(target)
    p.add_user("alice", key=keys.make("alice")).grant()
    p.do("user", "set", "alice", "--second-factor", "totp")
    me = Person(p, key=keys.make("alice"))
    child = me.begin("echo in")
    child.expect(r"secret=([A-Z2-7]{32})")
    first = child.match.group(1)
    child.expect("app shows: $")
    child.close()
    assert not p.json("user", "totp", "show", "alice")["enrolled"]
    child = me.begin("echo in")
    child.expect(r"secret=([A-Z2-7]{32})")
    app = App(child.match.group(1))
    assert app.secret != first
    for _ in range(3):
        child.expect("app shows: $")
        child.sendline(app.wrong_code())
    child.expect("app shows: $")  # a new conversation, the same key
    child.sendline(app.code())
    child.expect("kept them: $")
    child.sendline("")
    child.expect("in\r\n")
    # the user's own setting is stronger than the role's, both ways
    p.do("role", "set", "user", "--second-factor", "totp")
    p.add_user("bob", key=keys.make("bob")).grant("bob")
    p.do("user", "set", "bob", "--second-factor", "no")
    assert harness.Client(p, user="bob", key=keys.make("bob")).ssh("true").returncode == 0
    p.do("user", "set", "bob", "--second-factor", "role")
    r = harness.Client(p, user="bob", key=keys.make("bob")).ssh("true")
    assert r.returncode == 255 and "keyboard-interactive" in r.stderr


def test_jump_asks_for_the_code_once(bastion, keys, target, tmp_path):
    """At the outer login; what it carries needs no second one."""
    app, _ = enrol(bastion)
    config = tmp_path / "config"
    config.write_text("""
Host *
    StrictHostKeyChecking no
    UserKnownHostsFile %s
    IdentityAgent none
Host bastion
    HostName 127.0.0.1
    Port %d
    User alice
    IdentityFile %s
    IdentitiesOnly yes
Host web01
    ProxyJump bastion
    User %s
    PubkeyAuthentication no
""" % (bastion.known_hosts, bastion.port, keys.make("alice"), target.account))
    argv = ["ssh", "-F", str(config), "web01", "echo in"]
    child = pexpect.spawn(argv[0], argv[1:], timeout=PATIENCE, encoding="utf-8")
    child.expect(CODE)
    child.sendline(app.code())
    assert child.expect(["in\r\n", CODE, "assword"]) == 0
    child.expect(pexpect.EOF)
    assert logins(bastion)[0] == "publickey, totp"
    bastion.wait_history(1)
    r = harness.run(*argv[:3], "-o", "BatchMode=yes", *argv[3:])
    assert r.returncode == 255 and len(bastion.sessions("--all")) == 1


# ---- sallyctl user totp

def test_totp_commands(bastion, keys):
    show = lambda: bastion.json("user", "totp", "show", "alice")
    assert "alice has no second factor" in bastion.ctl("user", "totp", "show", "alice").stderr
    assert (show()["enrolled"], show()["required"], show()["recoveryCodes"]) == (False, False, 0)
    argv = [os.path.join(harness.bin_dir(), "sallyctl"), "--socket", bastion.socket, "user", "totp"]
    child = pexpect.spawn(argv[0], argv[1:] + ["enable", "alice"], dimensions=(60, 100),
                          timeout=PATIENCE, encoding="utf-8", env=dict(os.environ, LC_ALL="C.UTF-8"))
    child.expect(r"secret=([A-Z2-7]{32})")
    app = App(child.match.group(1))
    rows = [r for r in plain(child.before).splitlines() if "\u2588" in r]
    assert 18 <= len(rows) <= 24 and len({len(r) for r in rows}) == 1  # a square, on one screen
    child.expect("app shows:")
    child.sendline(app.wrong_code())
    child.expect("does not fit")
    child.expect("app shows:")
    assert not show()["enrolled"]
    child.sendline(app.code())
    child.expect("in use from now on")
    child.expect(pexpect.EOF)
    assert len(re.findall(r"[a-z2-9]{4}(?:-[a-z2-9]{4}){3}", child.before)) == 10
    assert show()["enrolled"] and show()["recoveryCodes"] == 10
    assert Person(bastion, key=keys.make("alice")).log_in((CODE, app.code()))[1] == 0
    # without a terminal nothing is in use before it is confirmed
    r = bastion.ctl("user", "totp", "enable", "alice")
    assert r.returncode == 1 and "totp confirm alice CODE" in r.stderr and "otpauth://" in r.stdout
    bastion.do("user", "totp", "disable", "alice")
    assert not show()["enrolled"] and not bastion.json("user", "show", "alice")["totp"]
    assert harness.Client(bastion, key=keys.make("alice")).ssh("true").returncode == 0
    for words, exit_code in ((("disable", "alice"), 1), (("recovery", "alice"), 1),
                             (("confirm", "alice", "123456"), 1), (("enable", "nobody"), 1),
                             (("show", "nobody"), 1), (("enable",), 2)):
        assert bastion.ctl("user", "totp", *words).returncode == exit_code, words
    kinds = [e["kind"] for e in bastion.events() if e["kind"].startswith("totp")]
    assert kinds == ["totp-enabled", "totp-disabled"]


def test_own_totp_by_the_door(bastion, keys):
    """ssh alice@bastion totp ...: a code of the present one before anything changes."""
    door = Person(bastion, target=None, key=keys.make("alice"))
    child = door.begin("totp enable", flags=["-tt"])
    child.expect(r"secret=([A-Z2-7]{32})")
    app = App(child.match.group(1))
    child.expect("app shows:")
    child.sendline(app.code())
    child.expect("in use from now on")
    codes = []
    child.expect(pexpect.EOF)
    codes = re.findall(r"[a-z2-9]{4}(?:-[a-z2-9]{4}){3}", child.before)
    assert len(codes) == 10
    for wrong in ("000000", codes[0][:-1] + ("x" if codes[0][-1] != "x" else "y")):
        child = door.begin("totp disable", flags=["-tt"])
        child.expect(CODE)
        child.sendline(codes.pop())
        child.expect("present second factor")
        child.sendline(wrong)
        child.expect("wrong, or was used")
        child.expect(pexpect.EOF)
    assert bastion.json("user", "totp", "show", "alice")["enrolled"]
    child = door.begin("totp disable --code " + codes.pop(), flags=["-tt"])
    child.expect(CODE)
    child.sendline(codes.pop())
    child.expect("no second factor any more")
    child.expect(pexpect.EOF)
    assert not bastion.json("user", "totp", "show", "alice")["enrolled"]
    assert len(bastion.events("totp-refused")) == 2


# ---- user certificates

class Ca:
    def __init__(self, directory, name="ca", kind="ed25519", bits=None):
        self.dir, self.count = directory, 0
        self.path = os.path.join(directory, name)
        argv = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", self.path]
        assert harness.run(*argv, *(["-b", bits] if bits else [])).returncode == 0
        os.chmod(self.path + ".pub", 0o644)
        self.public = self.path + ".pub"

    def sign(self, principals="alice", *more, kind="ed25519", bits=None, ca=None, key=None):
        """A key of its own with a certificate beside it; the key's path."""
        self.count += 1
        path = os.path.join(self.dir, "%s-%d" % (os.path.basename(self.path), self.count))
        if key:
            for end in ("", ".pub"):
                shutil.copy(key + end, path + end)
        else:
            argv = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "laptop", "-f", path]
            assert harness.run(*argv, *(["-b", bits] if bits else [])).returncode == 0
        argv = ["ssh-keygen", "-q", "-s", ca or self.path, "-I", "laptop of alice", "-z", "7"]
        if principals:
            argv += ["-n", principals]
        r = harness.run(*argv, *more, path + ".pub")
        assert r.returncode == 0, r.stderr
        return path


@pytest.fixture
def ca(tmp_path):
    return Ca(str(tmp_path))


@pytest.fixture
def certified(make_proxy, target, ca):
    """alice, without a key or a password, and a CA that the proxy trusts."""
    p = make_proxy(NO_LIMIT, start=False)
    p.set({"ssh": {"user_ca": shutil.copy(ca.public, p.dir)}})
    os.chmod(os.path.join(p.dir, os.path.basename(ca.public)), 0o644)
    return p.start().add_target(target).add_user("alice").grant()


def cert_login(p, path, user="alice", options=(), command="echo in"):
    return harness.Client(p, user=user, key=path, options=options).ssh(command)


def test_certificate_makes_no_key_that_stays(certified, ca, keys):
    with open(keys.make("alice") + ".pub") as f:
        r = harness.Client(certified, target="", key=ca.sign()).ssh("keys", "add", stdin=f)
    assert r.returncode == 4 and "you logged in by a certificate" in r.stderr
    assert certified.json("user", "key", "ls", "alice") == []


@pytest.mark.parametrize("kind,bits", [("ed25519", None), ("ecdsa", 256), ("ecdsa", 384),
                                       ("ecdsa", 521), ("rsa", 2048)])
def test_certificate(certified, ca, kind, bits):
    r = cert_login(certified, ca.sign(kind=kind, bits=bits))
    assert (r.returncode, r.stdout) == (0, "in\n"), r.stderr
    row = certified.wait_history(1)[0]
    assert (row["user"], row["endReason"]) == ("alice", "user-exit")
    assert logins(certified) == ['certificate (ID "laptop of alice" serial 7)']


@pytest.mark.parametrize("kind,bits", [("ed25519", None), ("ecdsa", 256), ("ecdsa", 384),
                                       ("ecdsa", 521), ("rsa", 2048), ("rsa", 4096)])
def test_certificate_authority_kinds(make_proxy, target, tmp_path, kind, bits):
    ca = Ca(str(tmp_path), "other", kind, bits)
    p = make_proxy(start=False)
    p.set({"ssh": {"user_ca": [shutil.copy(Ca(str(tmp_path), "first").public, p.dir),
                               shutil.copy(ca.public, p.dir)]}})
    p.start().add_target(target).add_user("alice").grant()
    r = cert_login(p, ca.sign())
    assert (r.returncode, r.stdout) == (0, "in\n"), r.stderr


REFUSED = [  # principals, options of ssh-keygen, what the user is told
    ("alice", ["-V", "20200101:20200102"], "it expired at 2020-01-0"),
    ("alice", ["-V", "20990101:20990102"], "not valid yet"),
    ("bob", [], "does not name the user as a principal"),
    ("alicex,xalice,alice2", [], "does not name the user as a principal"),
    ("", [], "does not name the user as a principal"),
    ("alice", ["-O", "source-address=192.0.2.0/24"], "may not be used from 127.0.0.1"),
    ("alice", ["-O", "source-address=192.0.2.0/24,::/0"], "may not be used from 127.0.0.1"),
    ("alice", ["-O", "force-command=/bin/true"], "force-command"),
    ("alice", ["-O", "verify-required"], "verify-required"),
    ("alice", ["-O", "critical:future@example.com=x"], "future@example.com"),
]


@pytest.mark.parametrize("principals,options,word", REFUSED,
                         ids=["%s %s" % (p, " ".join(o)) for p, o, _ in REFUSED])
def test_certificate_is_refused_with_a_sentence(certified, ca, principals, options, word):
    r = cert_login(certified, ca.sign(principals, *options))
    assert (r.returncode, r.stdout) == (255, ""), r.stderr
    assert "The certificate was not accepted" in r.stderr and word in r.stderr
    assert not certified.sessions("--all") and not logins(certified)
    failed = certified.events("login-failed")
    assert failed and all(word in e["text"] and "laptop of alice" in e["text"] for e in failed)


def test_host_certificate_is_no_users(certified, ca):
    """Which OpenSSH would not even offer."""
    with open(ca.sign("alice", "-h") + "-cert.pub") as f:
        kind, blob = f.read().split()[:2]
    with RawClient(certified.port) as c:
        c.begin()
        c.say(USERAUTH_REQUEST, "alice+web01", "ssh-connection", "publickey", False, kind,
              base64.b64decode(blob))
        number, m = c.hear(USERAUTH_BANNER, USERAUTH_FAILURE, USERAUTH_PK_OK)
        assert number == USERAUTH_BANNER and "host certificate" in m.get_text()
        assert c.answer() == USERAUTH_FAILURE


def test_certificate_of_a_stranger(certified, ca, tmp_path, keys):
    other = Ca(str(tmp_path), "stranger")
    for path in (other.sign(), ca.sign(ca=other.path)):
        r = cert_login(certified, path)
        assert (r.returncode, r.stdout) == (255, "")
        assert "certificate" not in r.stderr  # who is trusted is nobody's business
    # the certificate of one key with the signature of another
    mine, stolen = ca.sign(), keys.make("alice")
    r = cert_login(certified, stolen, options=["-o", "CertificateFile=" + mine + "-cert.pub"])
    assert r.returncode == 255
    # users who are locked, or not there
    certified.do("user", "lock", "alice")
    assert cert_login(certified, ca.sign()).returncode == 255
    assert cert_login(certified, ca.sign("nobody"), user="nobody").returncode == 255
    assert not certified.sessions("--all")
    # a key that is registered stays good when its certificate is not
    certified.do("user", "unlock", "alice")
    path = ca.sign("bob")
    certified.do("user", "key", "add", "alice", path + ".pub")
    assert cert_login(certified, path).returncode == 0


def test_certificate_with_a_damaged_signature(certified, ca):
    path = ca.sign()
    with open(path + "-cert.pub") as f:
        kind, blob, comment = f.read().strip().split(" ", 2)
    blob = bytearray(base64.b64decode(blob))
    good = cert_login(certified, path)
    assert good.returncode == 0, good.stderr
    for at in (len(blob) - 1, len(blob) // 2):
        bad = bytearray(blob)
        bad[at] ^= 1
        with open(path + "-cert.pub", "w") as f:
            f.write("%s %s %s\n" % (kind, base64.b64encode(bad).decode(), comment))
        r = cert_login(certified, path)
        assert (r.returncode, r.stdout) == (255, ""), at


def test_certificate_principals_of_a_user(certified, ca):
    certified.do("user", "set", "alice", "--cert-principals", "ops,a.smith@example.com")
    assert cert_login(certified, ca.sign("x,a.smith@example.com")).returncode == 0
    assert cert_login(certified, ca.sign("ops")).returncode == 0
    r = cert_login(certified, ca.sign("alice"))  # in place of the name, not besides it
    assert r.returncode == 255 and "principal" in r.stderr
    certified.do("user", "set", "alice", "--cert-principals", "")
    assert cert_login(certified, ca.sign("alice")).returncode == 0
    assert certified.ctl("user", "set", "alice", "--cert-principals", "a, b").returncode != 0


def test_certificate_for_sources(certified, ca):
    for networks in ("127.0.0.0/8", "192.0.2.1,127.0.0.1", "127.0.0.1/32"):
        r = cert_login(certified, ca.sign("alice", "-O", "source-address=" + networks))
        assert r.returncode == 0, r.stderr


def test_certificate_that_permits_less(certified, ca, target):
    """permit-port-forwarding, -agent-forwarding and -X11-forwarding, as far as there are kinds."""
    certified.do("grant", "rm", certified.json("grant", "ls")[0]["id"])
    certified.grant("alice", "web01", "channels=all")
    plain_cert, bare = ca.sign(), ca.sign("alice", "-O", "clear")
    argv = lambda path: harness.Client(certified, key=path, options=["-W", "127.0.0.1:%d"
                                                                     % target.port])
    assert argv(plain_cert).ssh(timeout=20).stdout.startswith("SSH-2.0-")
    r = argv(bare).ssh(timeout=20)
    assert r.returncode == 255 and "SSH-2.0-" not in r.stdout
    assert cert_login(certified, bare).returncode == 0  # commands go on
    # and after a restart of the daemon too
    child = harness.Client(certified, key=bare).popen("cat", flags=["-M", "-S", certified.dir + "/m"])
    certified.wait_sessions(1, "active")
    certified.stop()
    certified.start()
    certified.wait_sessions(1)
    certified.do("grant", "add", "alice", "web01", "--account", "nobody")  # resolves policies anew
    r = harness.run("ssh", "-F", "none", "-S", certified.dir + "/m", "-W",
                    "127.0.0.1:%d" % target.port, "x", timeout=20)
    assert "SSH-2.0-" not in r.stdout
    child.stdin.close()
    child.wait(20)


def test_certificate_then_totp(certified, ca):
    app, _ = enrol(certified)
    path = ca.sign()
    shown, code = Person(certified, key=path).log_in((CODE, app.code()))
    assert code == 0, shown
    assert logins(certified) == ['certificate, totp (ID "laptop of alice" serial 7)']


def test_user_ca_is_read_again(certified, ca, tmp_path):
    other = Ca(str(tmp_path), "next")
    assert cert_login(certified, other.sign()).returncode == 255
    trusted = certified.options["ssh"]["user_ca"]
    with open(trusted, "a") as f, open(other.public) as more:
        f.write("# the next one\n" + more.read())
    assert "new keys" in certified.do("reload")
    assert cert_login(certified, other.sign()).returncode == 0
    assert cert_login(certified, ca.sign()).returncode == 0
    shutil.copy(other.public, trusted)
    os.chmod(trusted, 0o644)
    certified.do("reload")
    assert cert_login(certified, ca.sign()).returncode == 255
    with open(trusted, "w") as f:
        f.write("nonsense\n")
    r = certified.ctl("reload")
    assert r.returncode == 1 and "line 1" in r.stderr
    assert cert_login(certified, other.sign()).returncode == 0  # the old ones stay
    r = harness.run(*certified.argv("-t"))
    assert r.returncode == 1 and "user_ca" in r.stderr
    certified.set({"ssh": {"user_ca": "/nowhere/ca.pub"}})
    r = harness.run(*certified.argv("-t"))
    assert r.returncode == 1 and "/nowhere/ca.pub cannot be read" in r.stderr


# ---- FIDO keys

PROVIDER = os.path.join(BUILD, "sk_provider.so")


def fido_key(directory, kind):
    path = os.path.join(str(directory), kind)
    r = harness.run("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", kind, "-f", path, "-w", PROVIDER)
    assert r.returncode == 0, r.stderr
    return path


@pytest.mark.parametrize("kind", ["ed25519-sk", "ecdsa-sk"])
def test_fido_key(make_proxy, target, tmp_path, kind):
    p = make_proxy(NO_LIMIT).add_target(target)
    path = fido_key(tmp_path, kind)
    p.add_user("alice", key=path).grant()
    me = harness.Client(p, key=path, options=["-o", "SecurityKeyProvider=" + PROVIDER])
    r = me.ssh("echo in")
    assert (r.returncode, r.stdout) == (0, "in\n"), r.stderr
    assert p.json("user", "show", "alice")["keys"][0]["type"].startswith("sk-")
    # a key that is not registered, of the same kind
    os.mkdir(str(tmp_path / "other"))
    other = fido_key(tmp_path / "other", kind)
    r = harness.Client(p, key=other, options=["-o", "SecurityKeyProvider=" + PROVIDER]).ssh("true")
    assert r.returncode == 255
    # a signature of another application's key is none of this one
    p.do("user", "key", "rm", "alice", p.json("user", "key", "ls", "alice")[0]["id"])
    assert me.ssh("true").returncode == 255


@pytest.mark.parametrize("kind", ["ed25519-sk", "ecdsa-sk"])
def test_fido_certificate(certified, ca, tmp_path, kind):
    path = ca.sign(key=fido_key(tmp_path, kind))
    r = cert_login(certified, path, options=["-o", "SecurityKeyProvider=" + PROVIDER])
    assert (r.returncode, r.stdout) == (0, "in\n"), r.stderr


# ---- the end of access while somebody is in

def expect_end(child, *words):
    child.expect("You have been disconnected")
    for word in words:
        child.expect(word)
    child.expect(pexpect.EOF)


@pytest.mark.parametrize("how", ["lock", "rm", "grant", "role", "target"])
def test_access_that_ends_ends_sessions(proxy, keys, how):
    me = harness.Client(proxy, key=keys.make("alice"))
    proxy.do("role", "add", "ops")
    if how == "role":
        proxy.do("grant", "rm", proxy.json("grant", "ls")[0]["id"])
        proxy.do("user", "set", "alice", "--role", "ops")
        proxy.grant("@ops")
    t = me.shell()
    piped = me.popen("echo there; exec sleep 1000")
    assert piped.stdout.readline() == b"there\n"
    proxy.wait_sessions(2, "active")
    start = time.monotonic()
    words = {"lock": ("user", "lock", "alice"), "rm": ("user", "rm", "alice"),
             "grant": ("grant", "rm", proxy.json("grant", "ls")[0]["id"]),
             "role": ("user", "set", "alice", "--role", "user"), "target": ("target", "rm", "web01")}
    proxy.do(*words[how])
    expect_end(t, "access was withdrawn")
    assert piped.wait(20) == 255
    assert b"access was withdrawn" in piped.stderr.read()
    assert time.monotonic() - start < 10
    for row in proxy.wait_history(2):
        assert (row["endReason"], row["endedBy"]) == ("revoked", harness.ADMIN), row
    assert me.ssh("true").returncode != 0


def test_lock_ends_a_menu(proxy, keys):
    harness.need_terminals()
    me = harness.Client(proxy, target=None, key=keys.make("alice"))
    t = me.terminal()
    t.expect("web01")
    proxy.do("user", "lock", "alice")
    expect_end(t, "access was withdrawn")
    assert not proxy.sessions("--all")


def test_lock_ends_an_outer_connection_and_what_it_carries(proxy, keys, target):
    inner = harness.Client(proxy, user=target.account, target="", key=keys.make("alice"))
    jump = "ssh %s -p %d -W %%h:%%p alice@127.0.0.1" % (
        " ".join(harness.Client(proxy, key=keys.make("alice")).common()), proxy.port)
    argv = ["ssh"] + inner.common() + ["-o", "ProxyCommand=" + jump, target.account + "@web01",
                                       "echo there; exec sleep 1000"]
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
    assert child.stdout.readline() == b"there\n", child.stderr.read()
    proxy.wait_sessions(1, "active")
    proxy.do("user", "lock", "alice")
    assert child.wait(20) == 255
    assert proxy.wait_history(1)[0]["endReason"] == "revoked"
    wait_until(lambda: not proxy.relays(), "no relay is left")


def test_lock_during_the_login_at_the_target(make_proxy, keys):
    """The target accepts the connection and says nothing."""
    import socket
    p = make_proxy()
    with socket.create_server(("127.0.0.1", 0)) as server:
        p.do("target", "add", "slow", "--type", "ssh", "--address",
             "127.0.0.1:%d" % server.getsockname()[1], "--account", "x", "--accept-new")
        p.add_user("alice", key=keys.make("alice")).grant("alice", "slow")
        child = harness.Client(p, target="slow", key=keys.make("alice")).popen("true")
        p.wait_sessions(1, "connecting")
        p.do("user", "lock", "alice")
        assert child.wait(20) == 255
        assert b"access was withdrawn" in child.stderr.read()
    assert p.wait_history(1)[0]["endReason"] == "revoked"


def test_lock_between_two_factors(bastion, keys):
    app, _ = enrol(bastion)
    child = Person(bastion, key=keys.make("alice")).begin("echo in")
    child.expect(CODE)
    bastion.do("user", "lock", "alice")
    child.sendline(app.code())
    child.expect([CODE, "Permission denied"])
    child.close()
    assert not logins(bastion) and not bastion.sessions("--all")


# ---- sources that fail

def test_source_is_slowed_down_and_others_are_not(make_proxy, target, keys):
    p = make_proxy({"limits": {"source_failures": "30", "source_block": "1h"}}).add_target(target)
    user_with_password(p)
    p.do("user", "key", "add", "alice", keys.make("alice") + ".pub")
    took = []
    with RawClient(p.port) as c:
        c.begin()
        for n in range(5):
            start = time.monotonic()
            assert c.password("alice+web01", "wrong") == USERAUTH_FAILURE
            took.append(time.monotonic() - start)
        # while the answer of one waits, others are served at once, of this source too
        c.say(USERAUTH_REQUEST, "alice+web01", "ssh-connection", "password", False, "wrong")
        start = time.monotonic()
        r = PasswordClient(p, PASSWORD, options=["-b", "127.0.0.2"]).ssh("echo in")
        assert r.returncode == 0, r.stderr
        assert harness.Client(p, key=keys.make("alice")).ssh("true").returncode == 0
    assert took[3] > 0.4 and took[4] > 0.9 and took[4] < 6, took
    row, = p.json("source", "ls", "--all")
    assert row["address"] == "127.0.0.1" and row["failures"] >= 4 and not row["blocked"]
    assert p.json("source", "ls") == []


def test_blocked_source_is_listed_and_let_in_again(make_proxy, target):
    p = make_proxy({"limits": {"source_failures": "3", "source_block": "2h"}}).add_target(target)
    user_with_password(p)
    with RawClient(p.port) as c:
        c.begin()
        while c.password("alice+web01", "wrong") == USERAUTH_FAILURE:
            pass
    r = PasswordClient(p, PASSWORD).ssh("true")
    assert r.returncode == 255 and "Too many failed logins" in r.stderr
    row, = p.json("source", "ls")
    assert (row["address"], row["failures"], row["blocked"]) == ("127.0.0.1", 4, True) or \
        row["failures"] == 3
    assert row["until"] > time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 1800))
    assert "127.0.0.1" in p.do("source", "ls") and len(p.events("source-blocked")) == 1
    assert p.ctl("source", "unblock").returncode == 2
    assert p.ctl("source", "unblock", "nonsense").returncode == 2
    assert p.json("source", "unblock", "192.0.2.1")["unblocked"] == 0
    assert p.json("source", "unblock", "127.0.0.1")["unblocked"] == 1
    assert p.json("source", "ls", "--all") == []
    assert PasswordClient(p, PASSWORD).ssh("true").returncode == 0
    texts = [e["text"] for e in p.events("source-unblocked")]
    assert texts == [harness.ADMIN + ": 192.0.2.1", harness.ADMIN + ": 127.0.0.1"]
    for source in ("127.0.0.2", "127.0.0.3"):
        with RawClient(p.port, source=source) as c:
            c.begin()
            while c.password("alice+web01", "wrong") == USERAUTH_FAILURE:
                pass
    assert len(p.json("source", "ls")) == 2
    assert p.json("source", "unblock", "--all")["unblocked"] == 2
    assert p.json("source", "ls") == []


# ---- PAM

@pytest.fixture
def pam_service():
    """A PAM service of this test's own; give it lines."""
    if not IS_ROOT:
        pytest.skip("a service of PAM is a file in /etc/pam.d")
    name = "sallyport-" + harness.random_name()
    path = "/etc/pam.d/" + name

    def write(*lines):
        with open(path, "w") as f:
            f.write("\n".join(lines) + "\n")
        return name
    yield write
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


CHECK = """#!/bin/sh
# the password on stdin; what PAM says of whom in the environment
read -r password
echo "$PAM_TYPE $PAM_USER $PAM_RHOST $PAM_SERVICE" >> %s
test "$password" = "%s"
"""


@pytest.fixture
def pam(make_proxy, target, pam_service, tmp_path):
    """make(*account lines): alice's password is PAM's business."""
    log = str(tmp_path / "pam.log")
    script = str(tmp_path / "check")
    with open(script, "w") as f:
        f.write(CHECK % (log, PASSWORD))
    os.chmod(script, 0o755)

    def make(account="account required pam_permit.so", *auth):
        auth = auth or ("auth required pam_exec.so quiet expose_authtok " + script,)
        p = make_proxy({"limits": {"source_failures": "0"},
                        "ssh": {"pam": pam_service(*auth, account)}})
        p.add_target(target).add_user("alice").grant()
        p.do("user", "set", "alice", "--auth-source", "pam")
        p.pam_log = log
        return p
    return make


def test_pam_password(pam):
    p = pam()
    r = PasswordClient(p, PASSWORD).ssh("echo in")
    assert (r.returncode, r.stdout) == (0, "in\n"), r.stderr
    shown, code = Person(p).log_in((r"Password: $", PASSWORD))
    assert code == 0 and "in" in shown
    assert logins(p) == ["password", "keyboard-interactive"]
    with open(p.pam_log) as f:
        assert set(f.read().splitlines()) == {
            "auth alice 127.0.0.1 " + p.options["ssh"]["pam"]}
    for method in ("password", "keyboard-interactive"):
        r = PasswordClient(p, "wrong", options=["-o", "PreferredAuthentications=" + method]).ssh("true")
        assert r.returncode == 255
    assert len(p.events("login-failed")) >= 1 and PASSWORD not in p.log()
    wait_until(lambda: not [pid for pid in harness.children(p.process.pid) if "pam" in
                            open("/proc/%d/comm" % pid).read() and harness.children(pid)],
               "no conversation is left, not even dead")


def test_pam_does_not_judge_others(pam, target):
    p = pam()
    p.add_user("bob", password=PASSWORD).grant("bob")
    p.do("user", "set", "bob", "--auth-source", "local")
    assert PasswordClient(p, PASSWORD, user="bob").ssh("true").returncode == 0
    assert not os.path.exists(p.pam_log)
    r = PasswordClient(p, PASSWORD, user="nobody").ssh("true")  # whom PAM might know
    assert r.returncode == 255 and not os.path.exists(p.pam_log)
    p.do("user", "lock", "alice")
    assert PasswordClient(p, PASSWORD).ssh("true").returncode == 255
    assert not os.path.exists(p.pam_log)


def test_pam_account_has_expired(pam, keys):
    p = pam("account required pam_debug.so acct=acct_expired")
    p.do("user", "key", "add", "alice", keys.make("alice") + ".pub")
    for client in (PasswordClient(p, PASSWORD), harness.Client(p, key=keys.make("alice"))):
        r = client.ssh("true")
        assert r.returncode == 255 and "Your account has expired." in r.stderr, r.stderr
    assert not p.sessions("--all")
    r = PasswordClient(p, "wrong").ssh("true")  # told only to those whose password was right
    assert "expired" not in r.stderr


def test_pam_password_has_expired(pam, keys):
    """PAM has it changed at the login, or says so."""
    p = pam("account required pam_debug.so acct=new_authtok_reqd\n"
            "password required pam_debug.so")
    assert Person(p).log_in((PASS, PASSWORD))[1] == 0
    p = pam("account required pam_debug.so acct=new_authtok_reqd\n"
            "password required pam_debug.so chauthtok=authtok_err")
    child = Person(p).begin("echo in")
    child.expect(PASS)
    child.sendline(PASSWORD)
    child.expect("Your password has expired and was not changed.")
    child.expect(PASS)
    child.close()
    assert len(logins(p)) == 0


def test_pam_asks_more_than_a_password(pam, tmp_path):
    p = pam("account required pam_permit.so", "auth required pam_echo.so Welcome, %u",
            "auth required pam_exec.so quiet expose_authtok " + str(tmp_path / "check"))
    child = Person(p).begin("echo in")
    child.expect("Welcome, alice")
    child.expect(r"Password: $")
    child.sendline(PASSWORD)
    child.expect("in\r\n")
    child.expect(pexpect.EOF)


def test_pam_then_totp(pam):
    p = pam()
    app, _ = enrol(p)
    shown, code = Person(p).log_in((PASS, PASSWORD), (CODE, app.code()))
    assert code == 0, shown
    assert logins(p) == ["keyboard-interactive, totp"]


def test_pam_client_that_leaves_leaves_no_process(pam):
    p = pam()
    helper = [pid for pid in harness.children(p.process.pid)
              if open("/proc/%d/comm" % pid).read().startswith("sallyport-pam")]
    assert len(helper) == 1
    child = Person(p).begin("true")
    child.expect(PASS)
    assert len(harness.children(helper[0])) >= 1
    child.close()
    wait_until(lambda: not [c for c in harness.children(helper[0]) if harness.alive(c)],
               "the conversation is over")
    assert PasswordClient(p, PASSWORD).ssh("true").returncode == 0
    p.stop()
    wait_until(lambda: not harness.alive(helper[0]), "the helper ends with the daemon")


def test_pam_client_that_does_not_wait_has_failed(pam, tmp_path):
    """PAM is slow to say no: who leaves before has tried all the same."""
    script = tmp_path / "slow"
    script.write_text("#!/bin/sh\nread -r password\necho asked >> %s\nexec sleep 60\n" %
                      (tmp_path / "pam.log"))
    script.chmod(0o755)
    p = pam("account required pam_permit.so",
            "auth required pam_exec.so quiet expose_authtok %s" % script)
    child = Person(p).begin("true")
    child.expect(PASS)
    child.sendline("a guess")
    wait_until(lambda: os.path.exists(p.pam_log), "PAM was asked")
    child.close()
    wait_until(lambda: [e["text"] for e in p.events("login-failed")] ==
               ["keyboard-interactive, left before the answer"], "it counts")
    child = Person(p).begin("true")
    child.expect(PASS)
    child.close()  # nothing was tried
    wait_until(lambda: p.json("status")["links"] == 0, "it is gone")
    assert len(p.events("login-failed")) == 1


def test_pam_helper_that_dies_is_missed(pam):
    p = pam()
    helper = [pid for pid in harness.children(p.process.pid)
              if open("/proc/%d/comm" % pid).read().startswith("sallyport-pam")]
    os.kill(helper[0], signal.SIGKILL)
    wait_until(lambda: "sallyport-pam is gone" in p.log(), "the log says so")
    assert PasswordClient(p, PASSWORD).ssh("true").returncode == 255


def test_pam_is_off(make_proxy, target):
    p = make_proxy(NO_LIMIT).add_target(target)
    user_with_password(p)
    p.do("user", "set", "alice", "--auth-source", "pam")
    assert PasswordClient(p, PASSWORD).ssh("true").returncode == 255
    assert "[ssh] pam is no" in p.log()
    p.do("user", "set", "alice", "--auth-source", "local")
    assert PasswordClient(p, PASSWORD).ssh("true").returncode == 0


# ---- the daemon is started again in the middle of a login

def test_restart_between_question_and_answer(bastion, keys):
    """The next daemon knows nothing of the first factor: it asks for everything again."""
    app, _ = enrol(bastion)
    with Talk(bastion.port) as c:
        c.begin()
        c.sign("alice+web01", peers.load_key(keys.make("alice")), wait=False)
        assert c.reply() == USERAUTH_FAILURE and c.is_partial
        assert c.ask() == INFO_REQUEST and c.prompts[0][0] == "Verification code: "
        bastion.stop()
        bastion.start()
        assert c.answers(app.code()) == USERAUTH_FAILURE and not c.is_partial
        assert sorted(c.methods) == ["keyboard-interactive", "password", "publickey"]
        assert c.ask() == INFO_REQUEST and c.prompts[0][0] == "Password: "
        assert c.answers(PASSWORD) == INFO_REQUEST
        assert c.prompts[0][0] == "Verification code: "
        assert c.answers(app.code()) == USERAUTH_SUCCESS
    with Talk(bastion.port) as c:  # asked while nobody is there
        c.begin()
        bastion.stop()
        c.say(USERAUTH_REQUEST, "alice+web01", "ssh-connection", "keyboard-interactive", "", "")
        bastion.start()
        assert c.reply() == INFO_REQUEST and c.prompts[0][0] == "Password: "


def test_dump_and_apply(bastion, keys):
    bastion.do("role", "set", "user", "--second-factor", "totp")
    bastion.do("user", "set", "alice", "--second-factor", "no", "--auth-source", "pam",
               "--cert-principals", "a,b")
    text = bastion.do("dump")
    document = json.loads(text)
    user, = document["users"]
    assert (user["second_factor"], user["auth_source"], user["cert_principals"]) == \
        ("no", "pam", "a,b")
    role, = [r for r in document["roles"] if r["name"] == "user"]
    assert role["second_factor"] == "totp"
    for key, value in (("second_factor", "role"), ("auth_source", "local"), ("cert_principals", "")):
        user[key] = value
    role["second_factor"] = "no"
    rows = json.loads(bastion.do("-o", "json", "apply", "-f", "-", input=json.dumps(document)))
    assert {r["section"] for r in rows} == {"users", "roles"}
    again = json.loads(bastion.do("-o", "json", "apply", "-f", "-", input=json.dumps(document)))
    assert again == []
    shown = bastion.json("user", "show", "alice")
    assert (shown["secondFactor"], shown["authSource"], shown["certPrincipals"]) == \
        (None, "local", None)
    user["cert_principals"] = "a b"
    r = bastion.ctl("apply", "-f", "-", input=json.dumps(document))
    assert r.returncode != 0 and "cert_principals" in r.stderr
