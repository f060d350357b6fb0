"""sallyctl as admins and users have it, and what a careless or hostile peer of its socket gets."""
import concurrent.futures
import contextlib
import csv
import io
import json
import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import time

import pexpect
import pytest

import harness
from harness import wait_until

FIELDS = {"id": str, "user": str, "account": str, "resourceName": str, "resourceType": str,
          "address": str, "startTime": str, "endTime": type(None), "duration": str,
          "durationSeconds": int, "status": str, "idleSeconds": int, "lastActivity": str,
          "device": str, "ipAddress": str, "port": int, "location": str, "bytesIn": int,
          "bytesOut": int, "channels": list, "endReason": type(None), "endedBy": type(None),
          "endText": type(None), "endsAt": type(None), "endsBy": type(None),
          "recording": str, "flags": list, "node": str}
UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
STRANGER, LINKED = 54321, 54322


def as_uid(uid):
    return {"user": uid, "group": uid, "extra_groups": []}


@pytest.fixture
def live(client):
    """live(n) starts n sessions that wait, each with a terminal."""
    made = []

    def start(count=1, who=client):
        new = [who.shell() for _ in range(count)]
        made.extend(new)
        return new

    yield start
    for t in made:
        t.close(force=True)


def on_terminal(p, *args):
    env = dict(os.environ, TERM="xterm", TZ="UTC")
    return pexpect.spawn(os.path.join(harness.bin_dir(), "sallyctl"),
                         ["--socket", p.socket] + [str(a) for a in args], encoding="utf-8",
                         timeout=harness.PATIENCE, env=env, dimensions=(40, 200))


class Raw:
    """A connection to control.sock."""
    def __init__(self, p):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(p.socket)
        self.file = self.sock.makefile("rb")

    def line(self):
        text = self.file.readline()
        return json.loads(text) if text else None

    def say(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else json.dumps(data).encode() + b"\n")

    def ask(self, command, **args):
        self.say({"v": 1, "id": 1, "command": command, "args": args})
        return self.line()

    def close(self):
        self.file.close()
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# ---- sessions

def test_session_json(proxy, live, target):
    live()
    row = proxy.wait_sessions(1, "active")[0]
    for name, kind in FIELDS.items():
        assert isinstance(row[name], kind), (name, row[name])
    assert set(row) - set(FIELDS) <= {"warned", "pid"}
    assert (row["user"], row["account"], row["resourceName"], row["resourceType"]) == (
        "alice", target.account, "web01", "ssh")
    assert row["address"] == target.address and row["ipAddress"] == "127.0.0.1"
    assert row["location"] == "loopback" and row["channels"] == ["session"]
    assert row["node"] == "test" and row["flags"] == [] and row["recording"] == "ok"
    assert UTC.fullmatch(row["startTime"]) and UTC.fullmatch(row["lastActivity"])
    assert re.fullmatch(r"\d+s", row["duration"]) and row["id"].isdigit()
    shown = proxy.json("session", "show", row["id"])
    assert set(FIELDS) <= set(shown) and shown["id"] == row["id"]
    assert shown["recordings"][0]["session"] == row["id"]


def test_ended_session_json(proxy, client):
    client.ssh("echo 12345")
    row = proxy.wait_history(1)[0]
    assert (row["status"], row["endReason"], row["bytesOut"]) == ("disconnected", "user-exit", 6)
    assert UTC.fullmatch(row["endTime"]) and row["endTime"] >= row["startTime"]
    assert row["idleSeconds"] == 0 and set(FIELDS) <= set(row)
    assert proxy.sessions() == [] and proxy.json("session", "show", row["id"])["id"] == row["id"]


def test_ls_filters(proxy, live, client, target, keys):
    proxy.add_user("bob", key=keys.make("bob")).add_target(target, "db02").grant("bob", "db02")
    live(2)
    live(1, harness.Client(proxy, "bob", "db02", keys.make("bob")))
    client.ssh("true")
    proxy.wait_history(1)

    def ids(*args):
        return [s["id"] for s in proxy.sessions(*args)]
    assert ids() == ["1", "2", "3"] and ids("--all") == ["4", "3", "2", "1"]
    assert ids("--user", "bob") == ["3"] and ids("--target", "web01") == ["1", "2"]
    assert ids("--type", "ssh") == ["1", "2", "3"] and ids("--type", "rdp") == []
    assert ids("--status", "active") == ["1", "2", "3"] and ids("--status", "idle") == []
    assert ids("--status", "disconnected") == ["4"]
    assert ids("--search", "DB0") == ["3"] and ids("--account", "nobody") == []
    assert ids("--account", target.account) == ["1", "2", "3"]
    assert ids("--since", "1h") == ["1", "2", "3"] and ids("--until", "1h") == []
    assert ids("--sort", "-id") == ["3", "2", "1"] and ids("--limit", "2") == ["1", "2"]
    assert ids("--sort=-user", "--all", "--limit", "1") == ["3"]
    assert ids("--flagged") == []
    assert proxy.do("ls", "-q") == "1\n2\n3\n"
    assert proxy.do("session", "ls", "--user", "nobody", "-q") == ""
    # options may stand anywhere
    assert json.loads(proxy.do("session", "--user", "bob", "ls", "-o", "json"))[0]["id"] == "3"


LISTS = (("session", "ls"), ("session", "ls", "--all"), ("user", "ls"), ("role", "ls"),
         ("target", "ls"), ("grant", "ls"), ("event", "tail"), ("recording", "ls"),
         ("user", "key", "ls", "alice"))


def test_formats(proxy, live, client):
    live()
    client.ssh("true")
    proxy.wait_history(1)
    for words in LISTS:
        rows = json.loads(proxy.do("-o", "json", *words))
        assert isinstance(rows, list) and rows, words
        lines = [json.loads(x) for x in proxy.do("-o", "jsonl", *words).splitlines()]
        assert [r.get("id") for r in lines] == [r.get("id") for r in rows]
        assert [set(r) for r in lines] == [set(r) for r in rows]
        table = list(csv.reader(io.StringIO(proxy.do("-o", "csv", *words))))
        assert len(table) == len(rows) + 1 and len({len(r) for r in table}) == 1, words
        for form in ("table", "wide"):
            text = proxy.do("-o", form, *words)
            assert len(text.splitlines()) == len(rows) + 1 and "\x1b" not in text, text
    for words in (("session", "show", "1"), ("session", "stats"), ("status",),
                  ("user", "show", "alice"), ("target", "show", "web01"),
                  ("role", "show", "user")):
        assert isinstance(json.loads(proxy.do("-o", "json", *words)), dict), words
        assert proxy.do(*words).strip() and proxy.do("-o", "csv", *words).strip(), words
    assert "alice" in proxy.do("ls") and "web01" in proxy.do("ls")


def test_empty_lists(make_proxy):
    p = make_proxy()
    for words in (("session", "ls"), ("target", "ls"), ("recording", "ls")):
        assert json.loads(p.do("-o", "json", *words)) == []
        assert p.do("-o", "jsonl", *words) == ""
        p.do(*words)


def test_stats(proxy, live, client):
    assert proxy.json("session", "stats")["active"] == 0
    live(2)
    client.ssh("true")
    proxy.wait_history(1)
    stats = proxy.json("session", "stats")
    assert (stats["active"], stats["idle"], stats["users"]) == (2, 0, 1)
    assert stats["byType"]["ssh"] == 2 and stats["byType"]["rdp"] == 0
    assert stats["disconnectedToday"] in (0, 1)  # 0 only when midnight has just passed
    assert re.fullmatch(r"\d+s|\d+m", stats["totalDuration"])


def test_watch(proxy, live, client):
    live()
    watch = subprocess.Popen([os.path.join(harness.bin_dir(), "sallyctl"), "--socket",
                              proxy.socket, "-o", "jsonl", "session", "ls", "-w"],
                             stdout=subprocess.PIPE, text=True)
    try:
        def until(kind, number):
            while True:
                e = json.loads(watch.stdout.readline())
                if (e["type"], e["session"]["id"]) == (kind, number):
                    return e["session"]
        assert until("change", "1")["status"] == "active"
        client.ssh("true")
        until("change", "2")
        assert until("gone", "2")["status"] == "disconnected"
    finally:
        watch.kill()
        watch.communicate()
    t = on_terminal(proxy, "ls", "-w")
    t.expect("alice.*web01")
    live()
    t.expect("(?s)alice.*web01.*alice.*web01")
    t.sendcontrol("c")
    t.close(force=True)


def test_top(proxy, live):
    live()
    t = on_terminal(proxy, "top")
    t.expect("alice")
    t.send("q")
    t.expect(pexpect.EOF)
    t.close()
    assert t.exitstatus == 0
    r = proxy.ctl("top")
    assert r.returncode == 2 and "terminal" in r.stderr


# ---- ending

def test_end_asks(proxy, live):
    live(2)
    r = proxy.ctl("session", "end", "1")  # no terminal to ask on
    assert r.returncode == 2 and "-y" in r.stderr and r.stdout == ""
    assert len(proxy.sessions()) == 2
    t = on_terminal(proxy, "end", "1")
    t.expect("alice.*web01")
    t.expect(r"\[y/N\]")
    t.sendline("n")
    t.expect("Nothing was ended")
    t.expect(pexpect.EOF)
    t.close()
    assert t.exitstatus == 1 and len(proxy.sessions()) == 2
    t = on_terminal(proxy, "end", "--all")  # all of them: the number is to be typed
    t.expect("number of sessions \\(2\\)")
    t.sendline("y")
    t.expect("Nothing was ended")
    t.close()
    t = on_terminal(proxy, "end", "1")
    t.expect(r"\[y/N\]")
    t.sendline("y")
    t.expect("ended")
    t.expect(pexpect.EOF)
    t.close()
    assert t.exitstatus == 0
    assert [s["id"] for s in proxy.wait_sessions(1)] == ["2"]


def test_end_tells_the_user(proxy, live, client):
    t = live()[0]
    quiet = client.popen("sleep 100")
    proxy.wait_sessions(2, "active")
    r = proxy.ctl("session", "end", "1", "2", "-y", "--reason", "maintenance")
    assert r.returncode == 0, r.stderr
    sentence = "You have been disconnected: ended by admin root (maintenance)"
    t.expect_exact(sentence)
    t.expect(pexpect.EOF)
    t.close()
    assert t.exitstatus == 255
    out, err = quiet.communicate(timeout=10)
    assert out == b"" and sentence.encode() in err and quiet.returncode == 255
    for row in proxy.wait_history(2):
        assert (row["endReason"], row["endedBy"]) == ("admin-ended", "admin root")
        assert "maintenance" in row["endText"]
    assert proxy.relays() == [] or wait_until(lambda: not proxy.relays(), "the relays are gone")


def test_end_results(proxy, live):
    live(2)
    r = proxy.ctl("-o", "json", "end", "1", "2", "--dry-run")
    assert r.returncode == 0
    assert [x["result"] for x in json.loads(r.stdout)] == ["would-end"] * 2
    assert len(proxy.sessions()) == 2
    r = proxy.ctl("-o", "json", "session", "end", "-y", "1", "99")
    assert r.returncode == 3
    assert {x["id"]: x["result"] for x in json.loads(r.stdout)} == {"1": "ended",
                                                                   "99": "not-found"}
    proxy.wait_history(1)
    r = proxy.ctl("-o", "json", "end", "-y", "1")
    assert r.returncode == 3 and json.loads(r.stdout)[0]["result"] == "already-ended"
    r = proxy.ctl("end", "-y", "--user", "nobody")
    assert r.returncode == 0 and "nothing to end" in r.stderr
    for words in (("end", "-y"), ("end", "-y", "x1"), ("end", "-y", "1", "--all"),
                  ("end", "-y", "--user", "alice", "--target", "web01"), ("end", "-y", "0"),
                  ("end", "-y", "2", "--in", "soon"), ("end", "-y", "2", "--reason")):
        assert proxy.ctl(*words).returncode == 2, words
    assert len(proxy.sessions()) == 1
    assert proxy.ctl("end", "-y", "--target", "web01").returncode == 0
    proxy.wait_sessions(0)


def test_end_later(proxy, live):
    t = live()[0]
    start = time.monotonic()
    r = proxy.ctl("-o", "json", "end", "1", "-y", "--in", "3s", "--reason", "update")
    assert r.returncode == 0 and json.loads(r.stdout)[0]["result"] == "scheduled", r.stderr
    t.expect("update")  # a warning first
    assert proxy.sessions()[0]["status"] == "active"
    t.expect("You have been disconnected: ")
    assert 2 < time.monotonic() - start < 10
    assert proxy.wait_history(1)[0]["endReason"] == "admin-ended"


def test_end_later_is_seen_taken_back_and_not_forgotten(proxy, live):
    t = live()[0]
    proxy.do("end", "1", "-y", "--in", "1h", "--reason", "update")
    t.expect("will be disconnected in 1 hour")
    row = proxy.sessions()[0]
    assert row["endsAt"] and row["endsBy"].startswith("admin ")
    assert "ENDS" in proxy.ctl("ls").stdout
    assert proxy.ctl("end", "--cancel", "1", "--in", "2h").returncode == 2
    r = proxy.ctl("-o", "json", "end", "--cancel", "1")
    assert r.returncode == 0 and json.loads(r.stdout)[0]["result"] == "cancelled", r.stderr
    t.expect("You will not be disconnected")
    assert proxy.ctl("end", "--cancel", "1").returncode == 3  # none is announced any more
    assert proxy.sessions()[0]["endsAt"] is None and "ENDS" not in proxy.ctl("ls").stdout
    proxy.do("end", "1", "-y", "--in", "8s", "--reason", "update")
    proxy.stop()
    proxy.start()
    proxy.wait_sessions(1, "active")
    assert proxy.sessions()[0]["endsAt"]
    t.expect("You have been disconnected: ")
    assert proxy.wait_history(1)[0]["endReason"] == "admin-ended"


def test_message(proxy, live, client):
    t = live()[0]
    quiet = client.popen("cat")
    proxy.wait_sessions(2, "active")
    r = proxy.ctl("session", "message", "--all", "lunch", "at", "noon")
    assert r.returncode == 0, r.stderr
    t.expect("lunch at noon")
    assert proxy.ctl("session", "message", "1", "99", "hello").returncode == 3
    t.expect("hello")
    assert proxy.ctl("session", "message", "hello").returncode == 2
    assert proxy.ctl("session", "message", "1").returncode == 2
    proxy.do("session", "message", "1", "a\x1b[2Jb")  # what an admin says drives no terminal
    t.expect("b\r\n")
    assert "\x1b[2J" not in t.before
    out, _ = quiet.communicate(b"data", timeout=10)
    assert out == b"data"  # a message never gets into a program's stream


# ---- users, targets, grants, roles

def fails(p, code, *words, says="", **kw):
    r = p.ctl(*words, **kw)
    assert (r.returncode, r.stdout) == (code, ""), (words, r)
    assert r.stderr.startswith("sallyctl: ") and says in r.stderr, r.stderr


def test_users(proxy, keys, target):
    p = proxy
    fails(p, 1, "user", "add", "alice", says="alice")
    for bad in ("../x", "a b", "a+b", "x" * 65, ""):
        fails(p, 2, "user", "add", bad)
    fails(p, 2, "user", "add", "bob", "--role", "usr", says="user")
    fails(p, 1, "user", "add", "bob", "--password-stdin", input="\n", says="empty")
    p.do("user", "add", "bob", "--role", "auditor", "--password-stdin", input="pw one\n")
    shown = p.json("user", "show", "bob")
    assert (shown["role"], shown["hasPassword"], shown["locked"]) == ("auditor", True, False)
    p.do("user", "set", "bob", "--role", "user", "--local-uid", "4000")
    assert p.json("user", "show", "bob")["localUid"] == 4000
    p.do("user", "set", "bob", "--local-uid", "none")
    assert p.json("user", "show", "bob")["localUid"] is None
    fails(p, 2, "user", "set", "bob")
    fails(p, 2, "user", "set", "bob", "--local-uid", "-1")
    fails(p, 2, "user", "passwd", "bob", says="--password-stdin")
    p.do("user", "passwd", "bob", "--remove")
    assert p.json("user", "show", "bob")["hasPassword"] is False
    p.do("user", "lock", "bob")
    assert p.json("user", "show", "bob")["locked"] is True
    p.do("user", "unlock", "bob")
    for words in (("show", "zoe"), ("lock", "zoe"), ("rm", "-y", "zoe"), ("set", "zoe", "--role",
                  "user"), ("key", "ls", "zoe"), ("key", "add", "zoe", keys.make("k1") + ".pub")):
        fails(p, 1, "user", *words, says="zoe")
    p.do("user", "rm", "-y", "bob")
    assert [u["name"] for u in p.json("user", "ls")] == ["alice"]


def test_password_on_a_terminal(proxy, keys):
    t = on_terminal(proxy, "user", "add", "bob")
    t.expect("Password for bob: ")
    t.sendline("s3cret word")
    t.expect("again: ")
    t.sendline("s3cret word")
    t.expect("added")
    t.close()
    assert "s3cret" not in t.before
    assert proxy.json("user", "show", "bob")["hasPassword"] is True
    t = on_terminal(proxy, "user", "passwd", "bob")
    t.expect("Password for bob: ")
    t.sendline("one")
    t.expect("again: ")
    t.sendline("two")
    t.expect("differ")
    t.expect(pexpect.EOF)
    t.close()
    assert t.exitstatus == 1


def test_secret_of_a_target_on_a_terminal(proxy):
    """A target with a password asks for it, or says what to give."""
    words = ("target", "add", "win01", "--type", "rdp", "--address", "127.0.0.1:1", "--account",
             "bob", "--auth", "password", "--accept-new")
    t = on_terminal(proxy, *words)
    t.expect("Password of bob at win01: ")
    t.sendline("target's own")
    t.expect("was added")
    t.expect(pexpect.EOF)
    assert "target's own" not in t.before
    assert proxy.json("target", "show", "win01")["hasSecret"] is True
    done = proxy.ctl(*["win02" if w == "win01" else w for w in words])
    assert done.returncode == 2 and "--secret-stdin" in done.stderr


def test_user_keys(proxy, keys, scratch):
    p = proxy
    public = keys.public("k1")
    fails(p, 1, "user", "key", "add", "alice", keys.make("k1"), says="private key")
    fails(p, 1, "user", "key", "add", "alice", "/nonexistent/file")
    for bad in ("ssh-ed25519 AAAA x", "nonsense here", public.replace("AAAA", "AAAB", 1),
                'from="10.0.0.1" ' + public):
        r = p.ctl("user", "key", "add", "alice", bad)
        assert r.returncode in (1, 2) and r.stderr, bad
    p.do("user", "key", "add", "alice", public)
    fails(p, 1, "user", "key", "add", "alice", public)  # there already
    p.do("user", "key", "add", "alice", "-", input=keys.public("k2") + "\n")
    rows = p.json("user", "key", "ls", "alice")
    assert len(rows) == 3 and rows[1]["comment"] == "k1"
    p.do("user", "key", "rm", "alice", rows[1]["fingerprint"])
    p.do("user", "key", "rm", "alice", rows[2]["id"])
    fails(p, 1, "user", "key", "rm", "alice", rows[2]["id"])
    assert len(p.json("user", "key", "ls", "alice")) == 1


def test_targets(proxy, keys, target):
    p = proxy
    fails(p, 1, "target", "add", "web01", "--address", "h:1", says="web01")
    fails(p, 2, "target", "add", "t", says="--address")
    for address in ("", "a b", "h:0", "h:70000", "[::1", "h:x", "h/../x"):
        fails(p, 2, "target", "add", "t", "--address", address)
    fails(p, 2, "target", "add", "t", "--address", "h", "--type", "vnc")
    fails(p, 2, "target", "add", "t", "--address", "h", "--host-key", "ssh-ed25519 xx")
    fails(p, 2, "target", "add", "t", "--address", "h", "idle_afer=5m", says="idle_after")
    fails(p, 1, "target", "add", "t", "--address", "h", "--key-file", "/nonexistent")
    p.do("target", "add", "t", "--address", "host.example", "idle_after=5m", "--record", "no")
    shown = p.json("target", "show", "t")
    assert shown["address"] == "host.example:22" and shown["acceptNew"] is False
    assert shown["policy"] == {"idle_after": "5m", "record": "no"}
    p.do("target", "set", "t", "--address", "[2001:db8::1]:2200", "idle_after=", "--accept-new")
    shown = p.json("target", "show", "t")
    assert shown["address"] == "[2001:db8::1]:2200" and shown["policy"] == {"record": "no"}
    p.do("target", "set", "t", "--secret-stdin", input="hidden-secret\n")
    assert p.json("target", "show", "t")["hasSecret"] is True
    assert "hidden-secret" not in p.do("-o", "json", "target", "show", "t") + p.log()
    p.do("target", "rm", "-y", "t")
    for words in (("show", "t"), ("rm", "-y", "t"), ("set", "t", "--address", "h")):
        fails(p, 1, "target", *words)


def test_grants_and_roles(proxy):
    p = proxy
    fails(p, 1, "grant", "add", "nobody", "web01", says="nobody")
    fails(p, 1, "grant", "add", "alice", "nothing", says="nothing")
    fails(p, 1, "grant", "add", "alice", "web01")  # there already
    fails(p, 1, "grant", "add", "@ops", "*", says="ops")
    fails(p, 1, "grant", "rm", "-y", "99")
    fails(p, 2, "grant", "rm", "-y", "x")
    p.do("role", "add", "ops", "idle_after=3m")
    p.do("grant", "add", "@ops", "*", "--account", "*", "max_duration=8h")
    row = p.json("grant", "ls", "--subject", "@ops")[0]
    assert (row["target"], row["account"], row["policy"]) == ("*", "*", {"max_duration": "8h"})
    p.do("user", "set", "alice", "--role", "ops")
    fails(p, 1, "role", "rm", "-y", "ops")  # somebody has it
    fails(p, 1, "role", "rm", "-y", "admin")
    fails(p, 1, "role", "add", "ops")
    p.do("role", "set", "ops", "idle_after=")
    assert p.json("role", "show", "ops")["policy"] == {}
    p.do("user", "set", "alice", "--role", "user")
    p.do("role", "rm", "-y", "ops")
    assert p.json("grant", "ls", "--subject", "@ops") == []


def test_withdrawn_access_ends_sessions(proxy, live, keys, target):
    t = live()[0]
    proxy.do("grant", "rm", "-y", proxy.json("grant", "ls")[0]["id"])
    t.expect("You have been disconnected: ")
    assert proxy.wait_history(1)[0]["endReason"] == "revoked"
    proxy.grant()
    t = live()[0]
    proxy.do("user", "lock", "alice")
    t.expect("You have been disconnected: ")
    assert proxy.wait_history(2)[1]["endReason"] == "revoked"


def test_remove_asks(proxy):
    t = on_terminal(proxy, "user", "rm", "alice")
    t.expect(r"\[y/N\]")
    t.sendline("")
    t.expect("Nothing")
    t.close()
    assert len(proxy.json("user", "ls")) == 1


# ---- events and recordings

def test_events(proxy, client):
    client.ssh("true")
    proxy.wait_history(1)
    kinds = [e["kind"] for e in proxy.events()]
    for kind in ("login", "session-open", "channel-open", "channel-close", "session-end"):
        assert kind in kinds, kinds
    e = proxy.events("login")[0]
    assert (e["user"], e["source"]) == ("alice", "127.0.0.1") and UTC.fullmatch(e["time"])
    assert any(x["user"] for x in proxy.events() if x["kind"].startswith("user-"))
    assert len(json.loads(proxy.do("-o", "json", "event", "tail", "--limit", "2"))) == 2
    rows = json.loads(proxy.do("-o", "json", "event", "tail", "--kind", "login"))
    assert {x["kind"] for x in rows} == {"login"}
    rows = json.loads(proxy.do("-o", "json", "event", "tail", "--session", "1"))
    assert rows and {x["session"] for x in rows} == {"1"}
    follow = subprocess.Popen([os.path.join(harness.bin_dir(), "sallyctl"), "--socket",
                               proxy.socket, "-o", "jsonl", "event", "tail", "-f"],
                              stdout=subprocess.PIPE, text=True)
    try:
        follow.stdout.readline()
        client.ssh("true")
        while json.loads(follow.stdout.readline())["kind"] != "session-end":
            pass
        while True:
            e = json.loads(follow.stdout.readline())
            if e["kind"] == "session-end" and e["session"] == "2":
                break
    finally:
        follow.kill()
        follow.communicate()


def test_recording_commands(proxy, live, tmp_path):
    t = live()[0]
    t.sendline("echo re''corded")
    t.expect("recorded")
    t.sendline("exit")
    proxy.wait_history(1)
    row = proxy.json("recording", "ls")[0]
    assert (row["id"], row["session"], row["state"], row["closed"]) == ("1", "1", "ok", True)
    out = tmp_path / "a.cast"
    proxy.do("recording", "export", "1", str(out))
    lines = out.read_text().splitlines()
    assert json.loads(lines[0])["version"] == 2
    assert "recorded" in "".join(json.loads(x)[2] for x in lines[1:])
    fails(proxy, 1, "recording", "export", "1", str(out), says="--force")
    proxy.do("recording", "export", "1", str(out), "--force")
    fails(proxy, 1, "recording", "export", "99", str(tmp_path / "b"))
    assert not (tmp_path / "b").exists()
    fails(proxy, 2, "recording", "play", "x")
    t = on_terminal(proxy, "play", "1", "--speed", "100")
    t.expect("recorded")
    t.expect(pexpect.EOF)
    t.close()
    assert t.exitstatus == 0


# ---- apply, dump, backup

def test_dump_and_apply(proxy, make_proxy, keys, tmp_path):
    p = proxy
    p.do("role", "add", "ops", "idle_after=3m")
    p.add_user("bob", password="a password of bob")
    p.grant("@ops", "*")
    path = tmp_path / "state.json"
    path.write_text(p.do("dump"))
    whole = json.loads(path.read_text())
    assert set(whole) == {"roles", "users", "targets", "grants"}
    assert "PRIVATE KEY" not in path.read_text() and "password of bob" not in path.read_text()
    r = p.ctl("apply", "-f", path)
    assert (r.returncode, r.stdout) == (0, "") and "nothing to change" in r.stderr
    other = make_proxy()  # into an empty one
    assert other.do("apply", "-f", path, "--dry-run").splitlines()
    assert other.json("user", "ls") == []
    first = other.do("apply", "-f", path)
    assert "+ users alice" in first and "+ targets web01" in first
    assert other.do("apply", "-f", path) == ""
    assert [{**u, "has_password": 0} for u in json.loads(other.do("dump"))["users"]] == [
        {**u, "has_password": 0} for u in whole["users"]]
    # a change, and things that go away only when asked
    whole["targets"][0]["address"] = "10.9.8.7:22"
    whole["users"] = [u for u in whole["users"] if u["name"] != "bob"]
    path.write_text(json.dumps(whole))
    r = p.ctl("apply", "-f", path)
    assert r.returncode == 0 and r.stdout.startswith("~ targets web01"), r
    assert p.json("target", "show", "web01")["address"] == "10.9.8.7:22"
    assert len(p.json("user", "ls")) == 2
    fails(p, 2, "apply", "-f", path, "--prune", says="-y")
    assert p.do("apply", "-f", path, "--prune", "-y").startswith("- users bob")
    assert [u["name"] for u in p.json("user", "ls")] == ["alice"]
    assert p.do("apply", "-f", "-", input=path.read_text()) == ""


def test_apply_of_a_bad_file(proxy, tmp_path):
    before = proxy.do("dump")
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({
        "users": [{"name": "zoe"}, {"name": "a b"}, {"name": "bob", "role": "opps"}],
        "targets": [{"name": "t", "type": "ssh", "address": "x y"}],
        "grants": [{"subject": "nobody", "target": "web01"}]}))
    r = proxy.ctl("apply", "-f", path)
    assert r.returncode in (1, 2) and r.stdout == ""
    for part in ("users[1]", "users[2]", "opps", "targets[0]", "grants[0]", "nobody"):
        assert part in r.stderr, r.stderr
    assert proxy.do("dump") == before
    for text, says in (("{", "bad.json:1"), ("[]", "object"), ('{"users": 5}', "users"),
                       ('{"user": []}', "user")):
        path.write_text(text)
        r = proxy.ctl("apply", "-f", path)
        assert r.returncode in (1, 2) and says in r.stderr, (text, r.stderr)
    fails(proxy, 1, "apply", "-f", tmp_path / "none")
    fails(proxy, 2, "apply")
    assert proxy.do("dump") == before


def test_backup(proxy, live, tmp_path):
    live()
    path = tmp_path / "copy.db"
    r = proxy.ctl("backup", "copy.db", cwd=str(tmp_path))
    assert r.returncode == 0, r.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    db = sqlite3.connect(str(path))
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert db.execute("SELECT count(*) FROM sessions").fetchone() == (1,)
    assert db.execute("PRAGMA application_id").fetchone() != (0,)
    db.close()
    fails(proxy, 1, "backup", path)  # never over something
    fails(proxy, 1, "backup", "/nonexistent/dir/copy")
    assert len(proxy.sessions()) == 1


# ---- the daemon

def test_status(proxy, live):
    live()
    s = proxy.json("status")
    assert s["pid"] == proxy.process.pid and s["node"] == "test" and s["draining"] is False
    assert (s["sessions"], s["parked"]) == (1, 0)
    wait_until(lambda: proxy.json("status")["unauthenticated"] == 0, "the gate's own count")
    assert s["configPath"] == proxy.conf and UTC.fullmatch(s["started"])
    assert any(str(proxy.port) in x for x in s["listeners"])
    assert s["historyLost"] == 0 and s["accepted"] >= 1


def test_reload(proxy, live):
    t = live()[0]
    proxy.set({"idle": {"idle_after": "7m"}, "limits": {"channels": "4"}})
    text = proxy.do("reload")
    assert re.search(r"idle_after.*5m.*7m", text) and re.search(r"channels.*10.*4", text), text
    wait_until(lambda: "idle_after" in proxy.log(), "the log says so")
    assert proxy.do("reload").count("->") == 0  # nothing new
    before = proxy.log()
    with open(proxy.conf) as f:
        good = f.read()
    lines = good.splitlines()
    bad = lines + ["[idle]", "idle_aftr = 5m", "warn_after = soon", "[nonsense]", "x = 1"]
    with open(proxy.conf, "w") as f:
        f.write("\n".join(bad).replace("7m", "1s") + "\n")
    r = proxy.ctl("reload")
    assert (r.returncode, r.stdout) == (1, "")
    for number, says in ((2, "idle_after"), (3, "soon"), (4, "nonsense")):
        line = "%s:%d: " % (proxy.conf, len(lines) + number)
        assert line in r.stderr and says in r.stderr, r.stderr
    proxy.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "nonsense" in proxy.log()[len(before):], "the errors are in the log")
    time.sleep(1.5)  # were 1s in effect, it would be idle now
    assert proxy.sessions()[0]["status"] == "active"
    with open(proxy.conf, "w") as f:
        f.write(good.replace("7m", "1s"))
    proxy.process.send_signal(signal.SIGHUP)
    proxy.wait_sessions(1, "idle")
    t.sendline("")
    proxy.wait_sessions(1, "active")


def test_drain(proxy, live, client):
    t = live()[0]
    proxy.do("drain")
    assert proxy.json("status")["draining"] is True
    r = client.ssh("true")
    assert r.returncode == 255 and r.stdout == ""
    t.sendline("echo still-$((5*5))")
    t.expect("still-25")
    proxy.do("undrain")
    assert client.ssh("true").returncode == 0
    assert [s["id"] for s in proxy.sessions()] == ["1"]


def test_shutdown(proxy, live):
    t = live()[0]
    r = proxy.ctl("shutdown", "-y", "--in", "1s")
    assert r.returncode == 0, r.stderr
    t.expect("You have been disconnected: ")
    assert proxy.process.wait(20) == 0
    assert proxy.ctl("status").returncode == 5
    proxy.start()
    assert proxy.wait_history(1)[0]["endReason"] == "shutdown"


# ---- usage

def test_usage(proxy):
    for words in ((), ("nonsense",), ("session",), ("session", "nonsense"), ("session", "show"),
                  ("session", "show", "x"), ("session", "show", "1", "2"), ("ls", "--nonsense"),
                  ("ls", "--sort", "nonsense"), ("ls", "--status", "nonsense"),
                  ("ls", "--since", "someday"), ("ls", "--limit", "x"), ("ls", "-o", "xml"),
                  ("ls", "--user"), ("user", "add"), ("grant", "add", "alice")):
        r = proxy.ctl(*words)
        assert (r.returncode, r.stdout) == (2, ""), (words, r)
        assert r.stderr
    assert "did you mean" in proxy.ctl("sesion", "ls").stderr
    assert "--status" in proxy.ctl("ls", "--statu", "active", "x").stderr
    fails(proxy, 1, "session", "show", "99", says="99")
    assert proxy.do("--version").startswith("sallyctl ")
    text = proxy.do("help")
    assert "session end" in text and "backup" in text
    for words in (("session", "end"), ("target", "add"), ("apply",)):
        assert " ".join(words) in proxy.do("help", *words)
        assert proxy.do(*words, "--help") == proxy.do("help", *words)


def test_output_that_cannot_be_written(proxy):
    with open("/dev/full", "w") as full:
        r = subprocess.run([os.path.join(harness.bin_dir(), "sallyctl"), "--socket", proxy.socket,
                            "status"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert r.returncode == 1 and "write" in r.stderr


def test_socket_from_the_environment(proxy):
    env = dict(proxy.env(), SALLYPORT_SOCKET=proxy.socket)
    r = harness.run(os.path.join(harness.bin_dir(), "sallyctl"), "-o", "json", "status", env=env)
    assert r.returncode == 0 and json.loads(r.stdout)["node"] == "test"


# ---- who may

def test_strangers_are_refused(proxy):
    for words in (("ls",), ("status",), ("end", "-y", "--all"), ("user", "ls"), ("dump",)):
        r = proxy.ctl(*words, **as_uid(STRANGER))
        assert (r.returncode, r.stdout) == (4, ""), (words, r)
        assert "not" in r.stderr
    wait_until(lambda: "uid=%d" % STRANGER in proxy.log(), "the log says so")


@pytest.mark.skipif(not harness.IS_ROOT, reason="needs other uids")
@pytest.mark.parametrize("name", ["sallyport", "sallyport-relay"])
def test_gates_and_relays_are_refused(proxy, name):
    r = proxy.ctl("ls", as_user=name)
    assert (r.returncode, r.stdout) == (4, "")


def test_linked_account(proxy, live, keys, target):
    proxy.add_user("bob", key=keys.make("bob")).grant("bob")
    proxy.do("user", "set", "bob", "--local-uid", LINKED)
    live(1)
    t = live(1, harness.Client(proxy, "bob", key=keys.make("bob")))[0]
    me = as_uid(LINKED)
    assert [s["user"] for s in proxy.json("ls", **me)] == ["bob"]
    assert [s["user"] for s in proxy.json("ls", "--all", **me)] == ["bob"]
    assert proxy.json("ls", "--user", "alice", **me) == []
    assert proxy.json("session", "stats", **me)["active"] == 1
    assert proxy.ctl("session", "show", "1", **me).returncode == 1  # as if there were none
    r = proxy.ctl("-o", "json", "end", "-y", "1", **me)
    assert r.returncode == 3 and json.loads(r.stdout)[0]["result"] == "not-found"
    for words in (("user", "ls"), ("dump",), ("status",), ("event", "tail"), ("drain",),
                  ("session", "message", "2", "x"), ("shutdown", "-y"), ("recording", "ls"),
                  ("user", "set", "bob", "--role", "admin"), ("backup", "/tmp/never")):
        r = proxy.ctl(*words, **me)
        assert (r.returncode, r.stdout) == (4, ""), (words, r)
    r = proxy.ctl("end", "-y", "--all", **me)  # all of mine
    assert r.returncode == 0, r.stderr
    t.expect("You have been disconnected: ")
    row = proxy.wait_history(1)[0]
    assert (row["user"], row["endReason"], row["endedBy"]) == ("bob", "self-ended", "bob")
    assert [s["user"] for s in proxy.sessions()] == ["alice"]
    # an auditor reads everything and changes nothing; a locked one is nobody
    proxy.do("user", "set", "bob", "--role", "auditor")
    assert [s["user"] for s in proxy.json("ls", **me)] == ["alice"]
    assert proxy.json("user", "ls", **me)
    r = proxy.ctl("-o", "json", "end", "-y", "1", **me)
    assert r.returncode in (3, 4) and len(proxy.sessions()) == 1
    assert proxy.ctl("user", "lock", "alice", **me).returncode == 4
    proxy.do("user", "lock", "bob")
    assert proxy.ctl("ls", **me).returncode == 4
    proxy.do("user", "unlock", "bob")
    proxy.do("user", "set", "bob", "--role", "admin")
    assert proxy.ctl("user", "ls", **me).returncode == 0


def test_daemon_not_there(proxy, scratch):
    proxy.stop()
    for socket_path in (proxy.socket, os.path.join(scratch, "no", "such.sock")):
        r = harness.run(os.path.join(harness.bin_dir(), "sallyctl"), "--socket", socket_path, "ls")
        assert (r.returncode, r.stdout) == (5, "")
        assert socket_path in r.stderr and "sallyportd" in r.stderr


# ---- careless and hostile peers (A12)

def assert_fine(p, start=None):
    start = time.monotonic()
    p.do("status")
    assert time.monotonic() - start < 3


@pytest.mark.parametrize("text", [
    b"nonsense\n", b"{}\n", b"[]\n", b"null\n", b'"x"\n', b"{\n", b"\n", b"\0\n", b"\xff\xfe\n",
    b'{"v":2,"id":1,"command":"ping"}\n', b'{"v":1,"command":"ping"}\n',
    b'{"v":1,"id":{},"command":"ping"}\n', b'{"v":1,"id":1}\n', b'{"v":1,"id":1,"command":5}\n',
    b'{"v":1,"id":1,"command":"ping","args":[]}\n', b'{"v":1,"id":1,"command":"no such"}\n',
    b'{"v":1,"id":1,"command":"ping","args":{"x":1}}\n',
    b'{"v":1,"id":1,"command":"session show","args":{}}\n',
    b'{"v":1,"id":1,"command":"session show","args":{"id":-1}}\n',
    b'{"v":1,"id":1,"command":"session show","args":{"id":"1 OR 1=1"}}\n',
    b'{"v":"1","id":1}\n',
    b'{"v":1,"id":1,"command":"ping","id":2}\n', b"[" * 5000 + b"\n",
    b'{"v":1,"id":1,"command":"user add","args":{"name":"a\\u0000b"}}\n',
    b'{"v":1,"id":1,"command":"user add","args":{"name":"\\ud800"}}\n'])
def test_bad_lines(proxy, text):
    with Raw(proxy) as c:
        assert c.line()["hello"] == "sallyport"
        c.say(text)
        c.sock.shutdown(socket.SHUT_WR)
        got = c.line()
        assert got["ok"] is False and got["error"]["code"] and got["error"]["message"]
        assert got["error"]["code"] in ("protocol", "usage", "invalid", "not_found")
    assert_fine(proxy)
    assert len(proxy.json("user", "ls")) == 1


def rss_kb(p):
    with open("/proc/%d/status" % p.process.pid) as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))


def cpu_seconds(p):
    with open("/proc/%d/stat" % p.process.pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_10_mb_line(proxy):
    before = rss_kb(proxy)
    with Raw(proxy) as c:
        c.line()
        start = time.monotonic()
        with contextlib.suppress(OSError):
            for _ in range(160):
                c.say(b"x" * 65536)
        got = c.line()
        assert got["error"]["code"] == "protocol" and "1 MiB" in got["error"]["message"]
        assert time.monotonic() - start < 5
        with contextlib.suppress(OSError):
            assert c.file.read() == b""
    assert_fine(proxy)
    assert harness.SANITIZED or rss_kb(proxy) - before < 8 * 1024
    # as the value of an argument
    r = proxy.ctl("session", "message", "--all", "y" * 100000)
    assert r.returncode == 2


def test_half_a_line(proxy):
    with Raw(proxy) as c:
        c.line()
        c.say(b'{"v":1,"id":1,')
        start = time.monotonic()
        assert_fine(proxy)
        got = c.line()
        assert got["ok"] is False and 5 < time.monotonic() - start < 20
        assert c.line() is None
    with Raw(proxy) as c:  # a silent one may stay
        c.line()
        assert c.ask("ping")["ok"] is True


def test_many_clients(proxy):
    """64, no more; those who are in are served, and others again when they leave."""
    clients, refused = [], None
    try:
        while not refused and len(clients) < 70:
            clients.append(Raw(proxy))
            got = clients[-1].line()
            refused = None if "hello" in got else got
        assert refused["ok"] is False and refused["error"]["code"] == "full"
        clients.pop().close()
        assert 62 <= len(clients) <= 64  # sallyctl's last connection may just be going
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            assert all(r["ok"] for r in pool.map(lambda c: c.ask("session ls"), clients))
    finally:
        for c in clients:
            c.close()
    wait_until(lambda: proxy.ctl("status").returncode == 0, "room again")


def test_reader_that_does_not_read(proxy):
    """It asks for much and reads nothing: it costs neither memory nor time, and nobody waits."""
    before = rss_kb(proxy)
    with Raw(proxy) as c:
        c.line()
        c.sock.settimeout(1)
        with contextlib.suppress(OSError):
            for _ in range(100000):
                c.say({"v": 1, "id": 1, "command": "help"})
        assert_fine(proxy)
        used = cpu_seconds(proxy)
        time.sleep(2)
        assert cpu_seconds(proxy) - used < 0.4
        assert harness.SANITIZED or rss_kb(proxy) - before < 16 * 1024
        c.sock.settimeout(20)  # it may still change its mind
        assert len([c.line() for _ in range(500)]) == 500
    assert_fine(proxy)


def test_pipelined_requests(proxy):
    with Raw(proxy) as c:
        c.line()
        c.say(b"".join(json.dumps({"v": 1, "id": n, "command": "ping"}).encode() + b"\n"
                       for n in range(200)))
        c.sock.shutdown(socket.SHUT_WR)
        assert [c.line()["id"] for _ in range(200)] == list(range(200))
        assert c.line() is None


@pytest.mark.parametrize("kind", ["symlink", "dangling", "file", "directory"])
def test_something_else_at_the_path_of_the_socket(make_proxy, kind):
    p = make_proxy(start=False)
    os.makedirs(p.run_dir, mode=0o755)
    victim = os.path.join(p.dir, "victim")
    if kind in ("symlink", "dangling"):
        if kind == "symlink":
            with open(victim, "w") as f:
                f.write("precious")
        os.symlink(victim, p.socket)
    elif kind == "file":
        with open(p.socket, "w") as f:
            f.write("precious")
    else:
        os.mkdir(p.socket)
    p.spawn()
    assert p.process.wait(20) != 0
    assert p.socket in p.log() and "remove it" in p.log()
    if kind in ("symlink", "file"):
        with open(p.socket) as f:
            assert f.read() == "precious"
    assert not (kind == "dangling" and os.path.exists(victim))


def test_dead_socket_is_replaced(proxy):
    proxy.kill()
    assert os.path.exists(proxy.socket)
    assert proxy.ctl("ls").returncode == 5
    proxy.start()
    assert stat.S_ISSOCK(os.lstat(proxy.socket).st_mode)
    assert_fine(proxy)
