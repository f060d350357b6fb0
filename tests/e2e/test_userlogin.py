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


# ---- sallyctl user totp

def test_totp_commands(bastion, keys):
    show = lambda: bastion.json("user", "totp", "show", "alice")
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
    for wrong in ("000000", codes[0][:-1] + "x"):
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
