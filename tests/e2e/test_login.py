"""Logging in: who gets in, who does not, what each is told, and what is left behind."""
import os
import re
import socket
import subprocess
import time

import pytest

import harness
import peers
from peers import (CHANNEL_FAILURE, CHANNEL_OPEN, CHANNEL_OPEN_CONFIRMATION, CHANNEL_REQUEST,
                   CHANNEL_SUCCESS, CLOSED, GLOBAL_REQUEST, USERAUTH_FAILURE, USERAUTH_PK_OK,
                   USERAUTH_REQUEST, USERAUTH_SUCCESS, Agent, AgentClient, PasswordClient, RawClient, told)

PASSWORD = "correct horse 7"
NO_LIMIT = {"limits": {"source_failures": "0"}}


def add_password_user(p, name="alice", password=PASSWORD, target="web01"):
    p.add_user(name, password=password)
    p.grant(name, target)
    return p


def assert_no_sessions(p):
    assert p.sessions("--all") == []


def assert_serves(p, keys):
    """Somebody else still logs in."""
    r = harness.Client(p, key=keys.make("alice")).ssh("echo alive")
    assert (r.returncode, r.stdout) == (0, "alive\n"), r.stderr


# ---- who gets in

def test_password(make_proxy, target):
    p = make_proxy().add_target(target)
    add_password_user(p)
    r = PasswordClient(p, PASSWORD).ssh("echo in; exit 3")
    assert (r.returncode, r.stdout) == (3, "in\n"), r.stderr
    row = p.wait_history(1)[0]
    assert (row["user"], row["resourceName"], row["account"]) == ("alice", "web01", target.account)
    assert row["endReason"] == "user-exit" and row["device"].startswith("OpenSSH_")
    assert row["ipAddress"] == "127.0.0.1" and row["port"] > 0
    assert [e["text"] for e in p.events("login")] == ["password"]
    assert p.json("user", "show", "alice")["lastLogin"]


def test_password_of_any_text(make_proxy, target):
    """Blanks, quotes, letters of other scripts: bytes are bytes."""
    p = make_proxy().add_target(target)
    for n, text in enumerate((" lead and trail ", "q'\"\\$`%s", "пароль-密碼", "x" * 500)):
        add_password_user(p, "u%d" % n, text)
        assert PasswordClient(p, text, user="u%d" % n).ssh("true").returncode == 0
        if text.strip() != text:
            assert PasswordClient(p, text.strip(), user="u%d" % n).ssh("true").returncode == 255


@pytest.mark.parametrize("kind,bits", [("ed25519", None), ("rsa", 2048), ("rsa", 3072),
                                       ("ecdsa", 256), ("ecdsa", 384), ("ecdsa", 521)])
def test_key(proxy, keys, kind, bits):
    name = "%s%s" % (kind, bits or "")
    proxy.add_user("bob", key=keys.make(name, kind, bits)).grant("bob")
    r = harness.Client(proxy, user="bob", key=keys.make(name)).ssh("echo in")
    assert (r.returncode, r.stdout) == (0, "in\n"), r.stderr
    row = proxy.wait_history(1)[0]
    assert (row["user"], row["endReason"]) == ("bob", "user-exit")
    assert [e["text"] for e in proxy.events("login")] == ["publickey"]
    # alice's door does not open with bob's key
    r = harness.Client(proxy, user="alice", key=keys.make(name)).ssh("echo in")
    assert (r.returncode, r.stdout) == (255, ""), r.stderr
    assert "Permission denied" in r.stderr and len(proxy.history()) == 1


def test_sign_without_asking(proxy, keys):
    """A client may send its signature at once (RFC 4252 §7)."""
    with RawClient(proxy.port) as c:
        key = peers.load_key(keys.make("alice"))
        assert c.begin().sign("alice+web01", key) == USERAUTH_SUCCESS
        assert c.open_session() == CHANNEL_OPEN_CONFIRMATION
        proxy.wait_sessions(1, "active")
    proxy.wait_history(1)


# ---- who does not

def test_wrong_unknown_and_locked_look_the_same(make_proxy, target):
    p = make_proxy(NO_LIMIT).add_target(target)
    add_password_user(p)
    add_password_user(p, "carol")
    p.do("user", "lock", "carol")
    p.add_user("keyonly").grant("keyonly")
    seen = {}
    for user, password in (("alice", "wrong"), ("nobody", PASSWORD), ("carol", PASSWORD),
                           ("keyonly", "")):
        r = PasswordClient(p, password, user=user).ssh("echo in")
        assert (r.returncode, r.stdout) == (255, ""), r.stderr
        seen[user] = told(r).replace(user, "USER")
    assert len(set(seen.values())) == 1, seen
    assert "Permission denied" in seen["alice"]
    assert_no_sessions(p)
    failed = p.events("login-failed")
    assert [e["user"] for e in failed] == ["alice", "nobody", "carol", "keyonly"]
    assert all(e["source"] == "127.0.0.1" for e in failed) and not p.events("login")
    p.do("user", "unlock", "carol")
    assert PasswordClient(p, PASSWORD, user="carol").ssh("true").returncode == 0


def test_time_tells_nobody_who_exists(make_proxy, target):
    p = make_proxy({"limits": {"source_failures": "0", "auth_attempts": "100"}})
    p.add_target(target)
    for name in ("alice", "carol"):
        add_password_user(p, name)
    p.do("user", "lock", "carol")
    p.add_user("keyonly").grant("keyonly")
    logins = ["alice+web01", "nobody+web01", "carol+web01", "keyonly+web01", "alice+nowhere",
              "a b\x01"]
    times = {name: [] for name in logins}
    clients = {name: RawClient(p.port).begin() for name in logins}
    for _ in range(9):
        for name, c in clients.items():
            start = time.monotonic()
            assert c.password(name, "wrong") == USERAUTH_FAILURE
            times[name].append(time.monotonic() - start)
    for c in clients.values():
        c.close()
    best = {name: min(t) for name, t in times.items()}  # what the machine's noise adds is no answer
    assert max(best.values()) < 2 * min(best.values()) + 0.01, best


@pytest.mark.parametrize("kind,bits,word", [("rsa", 1024, "2048"), ("dsa", 1024, "DSA")])
def test_weak_keys_are_refused(proxy, keys, kind, bits, word):
    options = ["-o", "PubkeyAcceptedAlgorithms=+ssh-dss"] if kind == "dsa" else []
    known = subprocess.run(["ssh", "-Q", "key"], capture_output=True, text=True, check=True).stdout
    if kind == "dsa" and "ssh-dss" not in known.split():
        pytest.skip("this OpenSSH knows no DSA")
    path = keys.make("weak_" + kind, kind, bits)
    r = proxy.ctl("user", "key", "add", "alice", path + ".pub")
    assert r.returncode in (1, 2) and word in r.stderr, r.stderr
    r = harness.Client(proxy, key=path, options=options).ssh("echo in")
    assert (r.returncode, r.stdout) == (255, "") and "Permission denied" in r.stderr
    assert_no_sessions(proxy)
    assert_serves(proxy, keys)


def test_weak_key_is_refused_even_when_it_is_in_the_store(proxy, keys):
    """The relay looks at the key itself; that an admin's tool would not store it is not enough."""
    import base64
    import sqlite3
    path = keys.make("weak_rsa", "rsa", 1024)
    proxy.stop()
    with open(path + ".pub") as f:
        blob = base64.b64decode(f.read().split()[1])
    db = sqlite3.connect(os.path.join(proxy.data, "sallyport.db"))
    table = [r[0] for r in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND"
                                      " name LIKE '%key%'")]
    columns = {}
    for name in table:
        for row in db.execute("PRAGMA table_info(%s)" % name):
            if row[2].upper() == "BLOB":
                columns[name] = row[1]
    changed = sum(db.execute("UPDATE %s SET %s = ?" % (t, c), (blob,)).rowcount
                  for t, c in columns.items() if "user" in t)
    db.commit()
    db.close()
    assert changed == 1, (table, columns)
    proxy.start()
    r = harness.Client(proxy, key=path).ssh("echo in")
    assert (r.returncode, r.stdout) == (255, ""), r.stderr
    assert_no_sessions(proxy)


# ---- offers (A2)

def test_offer_grants_nothing_and_leaves_no_trace(proxy, keys, target):
    listener = peers.Listener()
    proxy.do("target", "add", "trap", "--type", "ssh", "--address", listener.address,
             "--auth", "none", "--accept-new")
    proxy.grant("alice", "trap")
    before = proxy.events()
    key = peers.load_key(keys.make("alice"))
    for login in ("alice+trap", "alice"):
        with RawClient(proxy.port) as c:
            assert c.begin().offer(login, key) == USERAUTH_PK_OK
            c.say(CHANNEL_OPEN, "session", 0, 1 << 21, 1 << 15)
            assert c.hear(CHANNEL_OPEN_CONFIRMATION, timeout=20)[0] == CLOSED
        with RawClient(proxy.port) as c:
            assert c.begin().offer(login, key) == USERAUTH_PK_OK
    harness.wait_until(lambda: not proxy.relays(), "the relays are gone")
    assert listener.connections == 0
    assert_no_sessions(proxy)
    assert proxy.events() == before
    assert proxy.json("user", "show", "alice")["lastLogin"] is None
    listener.stop()
    assert_serves(proxy, keys)


def test_offer_of_one_key_signature_of_another(proxy, keys):
    mine, other = peers.load_key(keys.make("alice")), peers.load_key(keys.make("bob"))
    proxy.add_user("bob", key=keys.make("bob")).grant("bob")
    with RawClient(proxy.port) as c:
        assert c.begin().offer("alice+web01", mine) == USERAUTH_PK_OK
        assert c.sign("alice+web01", other) == USERAUTH_FAILURE
    assert_no_sessions(proxy)
    assert [(e["kind"], e["user"]) for e in proxy.events() if e["kind"].startswith("login")] == [
        ("login-failed", "alice")]
    with RawClient(proxy.port) as c:  # alice's key, signed by bob's
        c.begin().offer("alice+web01", mine)
        c.sign("alice+web01", other, claimed=mine, wait=False)
        assert c.answer() in (CLOSED, USERAUTH_FAILURE)
    with RawClient(proxy.port) as c:  # a user may not borrow another's offer
        assert c.begin().offer("alice+web01", mine) == USERAUTH_PK_OK
        c.sign("bob+web01", other, wait=False)
        assert c.answer() == CLOSED
    assert not proxy.events("login")
    assert_no_sessions(proxy)


def test_signature_of_another_connection(proxy, keys):
    """A signature is bound to the session identifier of its connection."""
    key = peers.load_key(keys.make("alice"))
    with RawClient(proxy.port) as a, RawClient(proxy.port) as b:
        a.begin()
        b.begin()
        a.transport.session_id, own = b.transport.session_id, a.transport.session_id
        assert own != b.transport.session_id
        a.sign("alice+web01", key, wait=False)
        assert a.answer() in (CLOSED, USERAUTH_FAILURE)
    assert_no_sessions(proxy)


def test_agent_with_seven_keys(proxy, keys, scratch):
    wrong = [keys.make("extra%d" % n) for n in range(6)]
    with Agent(scratch, wrong + [keys.make("alice")]) as agent:
        r = AgentClient(proxy, agent).ssh("echo in")
    assert (r.returncode, r.stdout) == (0, "in\n"), r.stderr
    assert not proxy.events("login-failed")


def test_agent_with_too_many_keys(make_proxy, target, keys, scratch):
    p = make_proxy({"limits": {"key_offers": "5"}}).add_target(target)
    p.add_user("alice", key=keys.make("alice")).grant()
    extra = [keys.make("extra%d" % n) for n in range(6)]
    with Agent(scratch, extra + [keys.make("alice")]) as agent:
        r = AgentClient(p, agent).ssh("echo in")
    assert (r.returncode, r.stdout) == (255, "")
    assert "Too many authentication failures" in r.stderr
    assert_no_sessions(p)
    assert_serves(p, keys)


# ---- limits of one connection

def test_auth_attempts(make_proxy, target):
    p = make_proxy({"limits": {"source_failures": "0", "auth_attempts": "3"}}).add_target(target)
    add_password_user(p)
    with RawClient(p.port) as c:
        c.begin()
        assert [c.password("alice+web01", "wrong%d" % n) for n in range(3)] == [
            USERAUTH_FAILURE, USERAUTH_FAILURE, CLOSED]
        assert c.sentence == "Too many authentication failures"
    with RawClient(p.port) as c:  # the last allowed one may be right
        c.begin()
        assert [c.password("alice+web01", "wrong%d" % n) for n in range(2)] == [
            USERAUTH_FAILURE, USERAUTH_FAILURE]
        assert c.password("alice+web01", PASSWORD) == USERAUTH_SUCCESS
    assert len(p.events("login-failed")) == 5


def test_user_name_changes_in_the_middle(make_proxy, target, keys):
    p = make_proxy().add_target(target)
    add_password_user(p)
    add_password_user(p, "bob")
    for second in ("bob+web01", "alice+other", "alice"):
        with RawClient(p.port) as c:
            assert c.begin().password("alice+web01", "wrong") == USERAUTH_FAILURE
            assert c.password(second, PASSWORD) == CLOSED
            assert "user name" in c.sentence
    assert_no_sessions(p)
    assert not p.events("login")


def test_login_grace(make_proxy, target, keys):
    p = make_proxy({"limits": {"login_grace": "2s"}}).add_target(target)
    p.add_user("alice", key=keys.make("alice")).grant()
    start = time.monotonic()
    silent = socket.create_connection(("127.0.0.1", p.port))
    with RawClient(p.port) as quiet, RawClient(p.port) as half:
        half.begin().offer("alice+web01", peers.load_key(keys.make("alice")))
        assert quiet.hear(timeout=10)[0] == CLOSED
        assert half.hear(timeout=10)[0] == CLOSED
        for c in (quiet, half):
            assert c.sentence == "You have been disconnected: not logged in within 2 seconds"
    silent.settimeout(10)
    while silent.recv(4096):
        pass
    assert 1.5 < time.monotonic() - start < 8
    harness.wait_until(lambda: not p.relays(), "the relays are gone")
    with RawClient(p.port) as c:  # who is in, stays
        assert c.begin().sign("alice+web01", peers.load_key(keys.make("alice"))) == USERAUTH_SUCCESS
        assert c.open_session() == CHANNEL_OPEN_CONFIRMATION
        with pytest.raises(AssertionError):
            c.hear(CLOSED, timeout=3.5)


def test_signature_of_a_type_that_is_not_accepted(proxy, keys):
    """libssh does not answer these; the user must not be left hanging."""
    key = peers.load_key(keys.make("rsa2048", "rsa", 2048))
    proxy.add_user("bob", key=keys.make("rsa2048")).grant("bob")
    with RawClient(proxy.port) as c:
        start = time.monotonic()
        c.begin().sign("bob+web01", key, algorithm="ssh-rsa", wait=False)
        assert c.answer() == CLOSED
        assert "key" in c.sentence and time.monotonic() - start < 10
    with RawClient(proxy.port) as c:
        assert c.begin().sign("bob+web01", key, algorithm="rsa-sha2-512") == USERAUTH_SUCCESS
    assert len(proxy.events("login")) == 1


# ---- before the login (A1)

@pytest.mark.parametrize("name,number,fields", [
    ("userauth-success", USERAUTH_SUCCESS, ()),
    ("userauth-pk-ok", USERAUTH_PK_OK, ("ssh-ed25519", b"x")),
    ("channel-open", CHANNEL_OPEN, ("session", 0, 1 << 21, 1 << 15)),
    ("direct-tcpip", CHANNEL_OPEN, ("direct-tcpip", 0, 1 << 21, 1 << 15, "127.0.0.1", 22,
                                    "127.0.0.1", 1)),
    ("channel-request", CHANNEL_REQUEST, (43, "exec", True, "id")),
    ("global-request", GLOBAL_REQUEST, ("tcpip-forward", True, "", 2222)),
    ("userauth-request", USERAUTH_REQUEST, ("alice+trap", "ssh-connection", "none"))])
@pytest.mark.parametrize("has_begun", [False, True])
def test_messages_before_the_login(proxy, keys, name, number, fields, has_begun):
    listener = peers.Listener()
    proxy.do("target", "add", "trap", "--type", "ssh", "--address", listener.address,
             "--auth", "none", "--accept-new")
    proxy.grant("alice", "trap")
    before = proxy.events()
    with RawClient(proxy.port) as c:
        if has_begun:
            c.begin()
            c.say(USERAUTH_REQUEST, "alice+trap", "ssh-connection", "none")
            assert c.answer() == USERAUTH_FAILURE
        c.say(number, *fields)
        c.say(CHANNEL_OPEN, "session", 0, 1 << 21, 1 << 15)
        c.say(CHANNEL_REQUEST, 43, "exec", True, "id")  # 43: what libssh begins with
        number, _ = c.hear(USERAUTH_SUCCESS, CHANNEL_OPEN_CONFIRMATION, CHANNEL_SUCCESS,
                           CHANNEL_FAILURE, timeout=20)
        assert number == CLOSED
    harness.wait_until(lambda: not proxy.relays(), "the relay is gone")
    assert listener.connections == 0
    listener.stop()
    assert_no_sessions(proxy)
    assert proxy.events() == before
    assert_serves(proxy, keys)


@pytest.mark.parametrize("first", [
    b"GET / HTTP/1.1\r\nHost: bastion\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 40,
    b"SSH-1.5-old\r\n", b"SSH-2.0-" + b"x" * 70000, b"\r\n" * 20000, b"\0" * 5000,
    b"SSH-2.0-x\r\n" + os.urandom(5000), b"SSH-2.0-x\r\n\xff\xff\xff\xff" + b"\x14" * 3000,
    b"SSH-2.0-x\r\n\0\0\0\x0c\x04\x14" + b"\0" * 30, b""],
    ids=["http", "tls", "ssh1", "long", "lines", "zeros", "noise", "length", "kexinit", "nothing"])
def test_not_an_ssh_client(make_proxy, target, keys, first):
    p = make_proxy({"limits": {"login_grace": "4s"}}).add_target(target)
    p.add_user("alice", key=keys.make("alice")).grant()
    before = p.events()
    s = socket.create_connection(("127.0.0.1", p.port))
    s.settimeout(15)
    try:
        s.sendall(first)
        if not first:
            s.shutdown(socket.SHUT_WR)
        while s.recv(65536):
            pass
    except (ConnectionError, BrokenPipeError):
        pass
    s.close()
    harness.wait_until(lambda: not p.relays(), "the relay is gone")
    assert_no_sessions(p)
    assert p.events() == before
    assert_serves(p, keys)


# ---- one source (A4)

def test_brute_force_is_blocked_by_source(make_proxy, target, keys):
    p = make_proxy({"limits": {"source_block": "1h"}}).add_target(target)  # forgets one in 6 min
    add_password_user(p)
    tried = refused = 0
    sentence = ""
    while tried < 200:
        with RawClient(p.port) as c:
            c.begin()
            while tried < 200:
                tried += 1
                if c.password("alice+web01", "wrong%d" % tried) == CLOSED:
                    if "your address" in (c.sentence or ""):
                        refused += 1
                        sentence = c.sentence
                    break
    checked = len(p.events("login-failed"))
    assert 10 <= checked <= 11
    assert refused == 200 - checked and re.search(r"try again in \d+ s", sentence), sentence
    assert len(p.events("source-blocked")) == 1
    assert p.log().count("login failed") == checked and p.log().count("source blocked") == 1
    with RawClient(p.port) as c:  # the right password changes nothing for this source
        assert c.begin().password("alice+web01", PASSWORD) == CLOSED
    r = PasswordClient(p, PASSWORD).ssh("echo in")
    assert (r.returncode, r.stdout) == (255, "") and "Too many failed logins" in r.stderr
    # the account is not locked: from elsewhere its owner is in at once
    start = time.monotonic()
    with RawClient(p.port, source="127.0.0.2") as c:
        assert c.begin().password("alice+web01", PASSWORD) == USERAUTH_SUCCESS
        assert time.monotonic() - start < 2
    r = PasswordClient(p, PASSWORD, options=["-b", "127.0.0.2"]).ssh("echo in")
    assert (r.returncode, r.stdout) == (0, "in\n"), r.stderr


def test_block_of_a_source_ends(make_proxy, target):
    p = make_proxy({"limits": {"source_failures": "3", "source_block": "40s"}}).add_target(target)
    add_password_user(p)
    with RawClient(p.port) as c:
        c.begin()
        tries = 1
        while c.password("alice+web01", "wrong") == USERAUTH_FAILURE:
            tries += 1
        assert 4 <= tries <= 5  # it may have forgotten a little of the first three
        wait_s = int(re.search(r"try again in (\d+) s", c.sentence).group(1))
    assert 15 <= wait_s <= 28
    harness.wait_until(lambda: PasswordClient(p, PASSWORD).ssh("true").returncode == 0,
                       "the block ends", timeout=wait_s + 10, every=0.5)


# ---- login names

def test_login_names(proxy, keys, target):
    me = harness.Client(proxy, key=keys.make("alice"))
    me.target = target.account + "+web01"  # user + account + target
    r = me.ssh("id -un")
    assert (r.returncode, r.stdout.strip()) == (0, target.account), r.stderr
    me.target = "daemon+web01"  # an account that the grant does not give
    r = me.ssh("id -un")
    assert (r.returncode, r.stdout) == (255, "")
    assert 'there is no target "web01" for you' in r.stderr
    assert [s["account"] for s in proxy.wait_history(1)] == [target.account]


BAD_NAMES = [
    "", "+", "alice+", "+web01", "alice++web01", "alice+a+web01+x", "../x", "../x+web01",
    "alice+../x", "alice+web 01", "alice +web01", "alice/../alice+web01", "alice;id+web01",
    "alice+web01\n", "al\x1b[2Jice+web01", "alice+%s%n", "al\xc3\x28ice+web01".encode("latin1"),
    "a" * 65 + "+web01", "alice+" + "t" * 65, "alice+" + "a" * 129 + "+web01", "x" * 30000,
    "alice@web01", "alice:web01", "ALICE+web01", "*", "alice'--+web01"]


def test_names_that_are_none(make_proxy, target):
    """Refused exactly as a wrong password is, whatever is in them; the right one does not help."""
    p = make_proxy(NO_LIMIT).add_target(target)
    add_password_user(p)
    for name in BAD_NAMES:
        with RawClient(p.port) as c:
            assert c.begin().password(name, PASSWORD) == USERAUTH_FAILURE, name
    assert_no_sessions(p)
    assert not p.events("login") and len(p.events("login-failed")) == len(BAD_NAMES)
    assert all(re.fullmatch(r"[^\x00-\x09\x0b-\x1f\x7f-\x9f]*", line)
               for line in p.log().splitlines())
    with RawClient(p.port) as c:
        assert c.begin().password("alice+web01", PASSWORD) == USERAUTH_SUCCESS


def test_separators(make_proxy, target, keys):
    p = make_proxy({"ssh": {"separators": "+:#@"}}).add_target(target)
    p.add_user("alice", key=keys.make("alice")).grant()
    me = harness.Client(p, key=keys.make("alice"))
    for name in ("alice+web01", "alice:web01", "alice#web01", "alice@web01"):
        me.user, me.target = name, None
        assert me.ssh("true").returncode == 0, name
    me.user = "alice+%s:web01" % target.account  # two kinds in one name could mean two things
    assert me.ssh("true").returncode == 255


def test_unknown_and_forbidden_target_are_the_same(make_proxy, target, keys):
    listener = peers.Listener()
    p = make_proxy().add_target(target)
    add_password_user(p)
    p.do("target", "add", "secret", "--type", "ssh", "--address", listener.address,
         "--auth", "none", "--accept-new")
    seen = []
    for name in ("nowhere", "secret"):
        r = PasswordClient(p, PASSWORD, target=name).ssh("echo in")
        assert (r.returncode, r.stdout) == (255, "")
        seen.append(re.sub(r"port \d+", "port N", told(r)).replace(name, "NAME"))
    assert seen[0] == seen[1] and 'there is no target "NAME" for you' in seen[0]
    # before the login nobody learns anything about targets
    wrong = [told(PasswordClient(p, "wrong", target=name).ssh("true")).replace(name, "NAME")
             for name in ("nowhere", "secret", "web01")]
    assert len(set(wrong)) == 1 and "Permission denied" in wrong[0]
    assert listener.connections == 0
    listener.stop()
    assert_no_sessions(p)
    assert len(p.events("route-refused")) == 2


# ---- the banner

def test_banner(make_proxy, target, keys):
    text = "Only for staff of the \u00fcbergroup.\nYou are recorded."
    p = make_proxy(start=False)
    path = os.path.join(p.dir, "banner")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text + "\n")
    p.set({"ssh": {"banner": path}})
    p.start()
    p.add_target(target).add_user("alice", key=keys.make("alice")).grant()
    me = harness.Client(p, key=keys.make("alice"))
    r = me.ssh("echo in", env=dict(os.environ, LC_ALL="C.UTF-8"))
    assert (r.returncode, r.stdout) == (0, "in\n") and text in r.stderr.replace("\r", "")
    # a stranger sees it too, before he has proved anything
    me.key = keys.make("stranger")
    r = me.ssh("true", env=dict(os.environ, LC_ALL="C.UTF-8"))
    assert r.returncode == 255 and text in r.stderr.replace("\r", "")


def test_no_banner(client):
    r = client.ssh("true")
    assert (r.returncode, told(r)) == (0, "")
