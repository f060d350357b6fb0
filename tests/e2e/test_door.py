"""The user's own door: ssh USER@BASTION WORD..., without a target."""
import json
import os
import re
import subprocess
import time

import pexpect
import pytest

import fakerelay
import harness
import peers
from harness import wait_until
from test_userlogin import CODE, Person, enrol

PASSWORD = "correct horse 1"


@pytest.fixture
def door(proxy, keys):
    """alice, without a target in her login name."""
    return harness.Client(proxy, target=None, key=keys.make("alice"))


@pytest.fixture
def admin(make_proxy, target, keys):
    """A proxy on which `admin` needs no second factor, and root-like ann; alice is a user."""
    p = make_proxy({"control": {"admin_over_ssh": "yes"}})
    p.add_user("ann", key=keys.make("ann"), role="admin")
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    return harness.Client(p, user="ann", target=None, key=keys.make("ann"))


def commands_of(proxy):
    """Processes of the door: sallyctls below the daemon."""
    found = []
    for pid in harness.children(proxy.process.pid):
        try:
            with open("/proc/%d/cmdline" % pid, "rb") as f:
                if f.read().startswith(b"sallyctl\0"):
                    found.append(pid)
        except OSError:
            pass
    return found


def no_commands(proxy):
    wait_until(lambda: not commands_of(proxy), "no command runs")


# ---- the words

def test_sessions_are_ones_own(proxy, door, client, keys):
    proxy.add_user("bob", key=keys.make("bob")).grant("bob")
    mine = client.popen("sleep 60")
    his = harness.Client(proxy, user="bob", key=keys.make("bob")).popen("sleep 60")
    proxy.wait_sessions(2, "active")
    r = door.ssh("sessions", "-o", "json")
    assert r.returncode == 0, r.stderr
    assert [s["user"] for s in json.loads(r.stdout)] == ["alice"]
    r = door.ssh("sessions")
    assert "alice" in r.stdout and "bob" not in r.stdout and "web01" in r.stdout
    r = door.ssh("sessions", "--user", "bob", "-o", "json")
    assert (r.returncode, json.loads(r.stdout)) == (0, [])
    for p in (mine, his):
        p.kill()
        p.wait()
    proxy.wait_history(2)
    r = door.ssh("sessions", "--all", "-o", "jsonl")
    assert [json.loads(line)["user"] for line in r.stdout.splitlines()] == ["alice"]
    no_commands(proxy)


def test_end_ones_own(proxy, door, client, keys):
    proxy.add_user("bob", key=keys.make("bob")).grant("bob")
    mine = client.terminal("sleep 60")
    proxy.wait_sessions(1, "active")
    his = harness.Client(proxy, user="bob", key=keys.make("bob")).popen("sleep 60")
    proxy.wait_sessions(2, "active")
    ids = {s["user"]: s["id"] for s in proxy.sessions()}
    r = door.ssh("end", ids["bob"])
    assert r.returncode == 3 and "not-found" in r.stdout, (r.stdout, r.stderr)
    assert his.poll() is None
    r = door.ssh("end", ids["alice"], ids["bob"])
    assert r.returncode == 3, (r.stdout, r.stderr)
    mine.expect("You have been disconnected")
    row = wait_until(lambda: proxy.history(), "it has ended")[0]
    assert (row["user"], row["endReason"], row["endedBy"]) == ("alice", "self-ended", "alice")
    assert len(proxy.sessions()) == 1
    his.kill()
    his.wait()
    r = door.ssh("end")
    assert r.returncode == 2 and "which sessions?" in r.stderr


def test_targets(proxy, door, client, target):
    proxy.add_target(target, "other").add_target(target, "secret").grant("alice", "other")
    assert client.ssh("true").returncode == 0
    rows = json.loads(door.ssh("targets", "-o", "json").stdout)
    assert [r["name"] for r in rows] == ["web01", "other"]  # last used first
    assert rows[0]["account"] == target.account and rows[0]["type"] == "ssh"
    assert rows[0]["lastUsed"] and rows[1]["lastUsed"] is None
    text = door.ssh("targets").stdout
    assert "LASTUSED" in text and "secret" not in text


def test_help_and_unknown_words(proxy, door):
    r = door.ssh("help")
    assert r.returncode == 0
    for word in ("sessions", "end", "targets", "config", "passwd", "keys add", "totp enable"):
        assert re.search(r"^  %s " % word, r.stdout, re.M), r.stdout
    assert "--all" in door.ssh("help", "sessions").stdout
    assert door.ssh("help", "nonsense").returncode == 2
    r = door.ssh("nonsense")
    assert r.returncode == 2 and r.stdout == ""
    assert "sessions, end, targets" in peers.told(r) and len(peers.told(r).splitlines()) == 1
    assert "admin" not in peers.told(r)
    for command, words in (("sessions | head", "no shell"), ("'sessions", "quote"),
                           ("sessions; id", "no shell"), ("  ", "no command"),
                           ("session ls", "no command"), ("__complete x", "no command")):
        r = door.ssh(command)
        assert r.returncode == 2 and words in peers.told(r), (command, r.stderr)
    r = door.ssh("sessions --limit '5' \"-o\" j\\son")
    assert r.returncode == 0 and json.loads(r.stdout) == []
    assert proxy.sessions("--all") == []


def test_on_a_terminal(proxy, door):
    t = door.terminal("targets")
    t.expect("NAME .*web01")
    t.expect(pexpect.EOF)
    t.close()
    assert t.exitstatus == 0
    t = door.terminal("nonsense")
    t.expect('no command "nonsense".*\r\n')
    t.expect(pexpect.EOF)
    t.close()
    assert t.exitstatus == 2


def test_nobody_reaches_another_socket_or_a_file(proxy, door, tmp_path):
    key = tmp_path / "k.pub"
    key.write_text("ssh-ed25519 AAAA\n")
    r = door.ssh("sessions", "--socket", proxy.socket)
    assert r.returncode == 2 and "--socket" in r.stderr
    r = door.ssh("keys", "add", str(key))
    assert r.returncode == 1 and "no files of yours" in r.stderr
    r = door.ssh("keys", "add", "/etc/passwd")
    assert r.returncode == 1 and "no files of yours" in r.stderr


# ---- config

def test_config(proxy, door, target, keys, tmp_path):
    proxy.add_target(target, "db-2").grant("alice", "db-2")
    r = door.ssh("config")
    assert r.returncode == 0, r.stderr
    assert "HostName 127.0.0.1\n    Port %d" % proxy.port in r.stdout
    path = tmp_path / "config"
    path.write_text(r.stdout + "\nHost *\n    IdentityFile %s\n    IdentitiesOnly yes\n"
                    "    BatchMode yes\n    UserKnownHostsFile %s\n"
                    "    StrictHostKeyChecking accept-new\n"
                    % (keys.make("alice"), tmp_path / "known"))
    for name in ("web01", "db-2"):
        r = harness.run("ssh", "-F", path, "%s.bastion" % name, "echo direct")
        assert (r.returncode, r.stdout) == (0, "direct\n"), r.stderr
    r = harness.run("ssh", "-F", path, "bastion", "targets", "-q")
    assert r.stdout.split() == ["db-2", "web01"] or r.stdout.split() == ["web01", "db-2"]
    assert len((tmp_path / "known").read_text().splitlines()) == 1  # one key for all
    assert {s["resourceName"] for s in proxy.wait_history(2)} == {"web01", "db-2"}


def test_config_through_a_jump(proxy, door, keys, tmp_path):
    path = tmp_path / "config"
    path.write_text(door.ssh("config").stdout + "\nHost *\n    IdentityFile %s\n"
                    "    IdentitiesOnly yes\n    BatchMode yes\n    UserKnownHostsFile %s\n"
                    "    StrictHostKeyChecking accept-new\n"
                    % (keys.make("alice"), tmp_path / "known"))
    r = harness.run("ssh", "-F", path, "web01.bastion-jump", "echo jumped")
    assert (r.returncode, r.stdout) == (0, "jumped\n"), r.stderr
    assert len((tmp_path / "known").read_text().splitlines()) == 1


def test_config_says_what_is_configured(make_proxy, target, keys):
    p = make_proxy({"ssh": {"public_address": "gate.example.net:22"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    me = harness.Client(p, target=None, key=keys.make("alice"))
    r = me.ssh("config", "--name", "gate")
    assert "Host gate *.gate\n    HostName gate.example.net\n    Port 22\n" in r.stdout
    assert "Host web01.gate\n    User alice+web01\n" in r.stdout
    r = me.ssh("config", "--name", "'a b'")
    assert r.returncode == 2 and r.stdout == ""


def test_public_address_is_checked(make_proxy):
    p = make_proxy(start=False)
    for good in ("host", "host:22", "10.0.0.1:2222", "[fd00::1]:22", "fd00::1"):
        p.set({"ssh": {"public_address": good}})
        assert harness.run(*p.argv("-t")).returncode == 0, good
    for bad in ("a b", "host:0", "host:99999", "-x", "[fd00::1", "h\\u00e9", "a:b:c"):
        p.set({"ssh": {"public_address": bad}})
        r = harness.run(*p.argv("-t"))
        assert r.returncode == 1 and "public_address" in r.stdout + r.stderr, bad


# ---- passwd and keys

@pytest.fixture
def with_password(proxy):
    proxy.do("user", "passwd", "alice", "--password-stdin", input=PASSWORD + "\n")


def password_works(proxy, password):
    t = pexpect.spawn("ssh", ["-F", "none", "-o", "StrictHostKeyChecking=no", "-o",
                              "UserKnownHostsFile=" + proxy.known_hosts, "-o",
                              "PreferredAuthentications=password", "-o", "NumberOfPasswordPrompts=1",
                              "-p", str(proxy.port), "alice+web01@127.0.0.1", "echo in-$((2*3))"],
                      encoding="utf-8", timeout=30)
    t.expect("assword:")
    t.sendline(password)
    seen = t.expect(["in-6", "denied", pexpect.EOF])
    t.close()
    return seen == 0


def test_passwd_by_lines(proxy, door, with_password):
    fresh = "battery staple 2"
    r = door.ssh("passwd", input="wrong\n%s\n%s\n" % (fresh, fresh))
    assert r.returncode == 4 and "old password is wrong" in r.stderr, r.stderr
    r = door.ssh("passwd", input="%s\n%s\n%s\n" % (PASSWORD, fresh, fresh + "x"))
    assert r.returncode == 1 and "differ" in r.stderr
    r = door.ssh("passwd", input="%s\nshort\nshort\n" % PASSWORD)
    assert r.returncode == 2 and "8 characters" in r.stderr
    r = door.ssh("passwd", input="%s\n%s\n%s\n" % (PASSWORD, PASSWORD, PASSWORD))
    assert r.returncode == 2 and "is the old one" in r.stderr
    assert door.ssh("passwd", stdin=subprocess.DEVNULL).returncode == 1
    r = door.ssh("passwd", input="%s\n%s\n%s\n" % (PASSWORD, fresh, fresh))
    assert r.returncode == 0 and "was changed" in r.stderr, r.stderr
    assert password_works(proxy, fresh) and not password_works(proxy, PASSWORD)
    assert fresh not in proxy.log() and fresh not in json.dumps(proxy.events())
    assert [e["kind"] for e in proxy.events("user-passwd-refused")] == ["user-passwd-refused"]


def test_passwd_on_a_terminal(proxy, door, with_password):
    t = door.terminal("passwd")
    for question, answer in (("Old password: ", PASSWORD), ("Password for the new login: ", "new secret 3"),
                             ("again: ", "new secret 3")):
        t.expect(question)
        t.sendline(answer)
    t.expect("was changed")
    t.expect(pexpect.EOF)
    t.close()
    assert t.exitstatus == 0
    assert "secret" not in t.before and password_works(proxy, "new secret 3")


def test_passwd_without_one(proxy, door):
    r = door.ssh("passwd", input="x\nlonger than 8\nlonger than 8\n")
    assert r.returncode == 1 and "no password to change" in r.stderr


def test_guessing_the_old_password_blocks_the_source(make_proxy, target, keys):
    p = make_proxy({"limits": {"source_failures": "3"}})
    p.add_user("alice", key=keys.make("alice"))
    p.do("user", "passwd", "alice", "--password-stdin", input=PASSWORD + "\n")
    me = harness.Client(p, target=None, key=keys.make("alice"))
    codes = [me.ssh("passwd", input="guess%d\nlonger than 8\nlonger than 8\n" % n).returncode
             for n in range(6)]
    assert codes[0] == 4 and codes[-1] == 255, codes
    assert "blocked" in " ".join(e["kind"] for e in p.events())


def test_keys(proxy, door, keys):
    fresh = keys.make("alice2")
    with open(fresh + ".pub") as f:
        r = door.ssh("keys", "add", stdin=f)
    assert r.returncode == 0 and "SHA256:" in r.stderr, r.stderr
    other = harness.Client(proxy, target=None, key=fresh)
    rows = json.loads(other.ssh("keys", "-o", "json").stdout)
    assert len(rows) == 2 and rows == json.loads(other.ssh("keys", "ls", "-o", "json").stdout)
    mine = [k for k in rows if k["comment"] == "alice2"][0]
    r = door.ssh("keys", "rm", mine["id"])
    assert r.returncode == 0, r.stderr
    assert other.ssh("keys").returncode == 255
    assert door.ssh("keys", "rm", "999").returncode == 1
    r = door.ssh("keys", "add", input="nonsense\n")
    assert r.returncode == 2 and "key" in r.stderr
    with open(fresh) as f:
        r = door.ssh("keys", "add", stdin=f)
    assert r.returncode == 1 and "private key" in r.stderr
    event = proxy.events("user-key-rm")[0]
    assert event["source"] == "127.0.0.1" and event["user"] == "alice"


def test_others_keys_are_not_there(proxy, door, keys):
    proxy.add_user("bob", key=keys.make("bob"))
    bobs = proxy.json("user", "key", "ls", "bob")[0]
    for which in (bobs["id"], bobs["fingerprint"]):
        assert door.ssh("keys", "rm", which).returncode == 1
    assert len(proxy.json("user", "key", "ls", "bob")) == 1


# ---- admin

def test_admin_words_of_a_user(door, proxy):
    r = door.ssh("admin", "session", "ls")
    assert r.returncode == 4 and "neither an admin" in peers.told(r)
    assert [e["kind"] for e in proxy.events("door-refused")] == ["door-refused"]


def test_admin_needs_a_second_factor(make_proxy, keys):
    p = make_proxy()
    p.add_user("ann", key=keys.make("ann"), role="admin")
    ann = harness.Client(p, user="ann", target=None, key=keys.make("ann"))
    r = ann.ssh("admin", "status")
    assert r.returncode == 4 and "second factor" in peers.told(r)
    app, _ = enrol(p, "ann")
    person = Person(p, user="ann", target=None, key=keys.make("ann"))
    shown, code = person.log_in((CODE, app.code()), command="admin status")
    assert code == 0 and "Version" in shown, shown
    p.set({"control": {"admin_over_ssh": "no"}})
    p.do("reload")
    shown, code = person.log_in((CODE, app.code()), command="admin status")
    assert code == 4 and "switched off" in shown


def test_admin_words_end_when_the_right_does(admin):
    p = admin.proxy
    follow = admin.popen("admin", "event", "tail", "--follow")
    assert follow.stdout.readline()
    p.set({"control": {"admin_over_ssh": "no"}})
    p.do("reload")
    _, told = follow.communicate(timeout=harness.PATIENCE)
    assert follow.returncode != 0 and b"not for this login any more" in told


def test_admin_does_what_sallyctl_does(admin):
    p = admin.proxy
    r = admin.ssh("admin", "user", "add", "carl", "--no-password")
    assert r.returncode == 0, r.stderr
    assert "carl" in admin.ssh("admin", "user", "ls").stdout
    event = p.events("user-add")[-1]
    assert event["source"] == "127.0.0.1" and event["text"].startswith("admin ann")
    mine = harness.Client(p, key=admin.key.replace("ann", "alice")).popen("sleep 60")
    number = p.wait_sessions(1, "active")[0]["id"]
    assert admin.ssh("sessions", "-o", "json").stdout.strip() == "[]"  # her own only
    r = admin.ssh("end", number)
    assert r.returncode == 3  # nor may she end them without the word
    r = admin.ssh("admin", "end", number, "-y", "--reason", "'lunch time'")
    assert r.returncode == 0, r.stderr
    row = p.wait_history(1)[0]
    assert (row["endReason"], row["endedBy"]) == ("admin-ended", "admin ann")
    assert mine.wait() != 0
    assert admin.ssh("admin").returncode == 2
    assert admin.ssh("admin", "nonsense").returncode == 2


def test_admin_apply_from_stdin_and_backup(admin):
    document = {"users": [{"name": "u%03d" % n} for n in range(300)]}
    r = admin.ssh("admin", "apply", "-f", "-", "-y", input=json.dumps(document))
    assert r.returncode == 0, r.stderr
    assert len(admin.proxy.json("user", "ls")) == 302
    r = admin.ssh("admin", "apply", "-f", "/etc/passwd")
    assert r.returncode == 1 and "no files of yours" in r.stderr
    r = admin.ssh("admin", "backup", "/tmp/x.db")
    assert r.returncode == 1 and not os.path.exists("/tmp/x.db")


def test_recordings_come_over_the_connection(admin, keys):
    """The process may not open the daemon's files: the daemon sends them, and says to whom."""
    p = admin.proxy
    t = harness.Client(p, key=keys.make("alice")).shell()
    t.sendline("echo seen-$((40+2))")
    t.expect("seen-42\r\n")
    t.sendline("exit")
    t.expect(pexpect.EOF)
    number = p.wait_history(1)[0]["id"]
    wait_until(lambda: p.json("recording", "ls")[0]["closed"], "the recording is closed")
    r = admin.ssh("admin", "recording", "export", number, "-")
    assert r.returncode == 0 and json.loads(r.stdout.splitlines()[0])["version"] == 2, r.stderr
    assert "seen-42" in r.stdout and r.stdout == p.do("recording", "export", number, "-")
    t = admin.terminal("admin play --speed 100 " + number)
    t.expect("seen-42")
    t.expect("End of recording")
    t.expect(pexpect.EOF)
    t.close()
    assert t.exitstatus == 0
    assert p.events("recording-read")[0]["text"].startswith("admin ann")
    r = admin.ssh("admin", "recording", "export", number, "/tmp/x.cast")
    assert r.returncode == 1 and "no files of yours" in r.stderr
    r = admin.ssh("admin", "recording", "export", "99", "-")
    assert r.returncode == 1 and "no recording" in r.stderr
    p.add_user("otto", key=keys.make("otto"), role="auditor")
    otto = harness.Client(p, user="otto", target=None, key=keys.make("otto"))
    assert otto.ssh("admin", "recording", "export", number, "-").returncode == 4


def test_watching_over_the_connection(admin, keys):
    """What a watch needs comes as a descriptor on the command's own connection."""
    p = admin.proxy
    t = harness.Client(p, key=keys.make("alice")).shell()
    number = p.wait_sessions(1, "active")[0]["id"]
    t.sendline("echo before-$((1+1))")
    t.expect("before-2\r\n")
    w = admin.terminal("admin session watch " + number)
    w.expect("before-2")
    t.sendline("echo live-$((2+2))")
    w.expect("live-4")
    t.sendline("exit")
    w.expect(pexpect.EOF)
    no_commands(p)


def test_an_auditor_reads(admin, keys):
    p = admin.proxy
    p.add_user("otto", key=keys.make("otto"), role="auditor")
    otto = harness.Client(p, user="otto", target=None, key=keys.make("otto"))
    assert otto.ssh("admin", "user", "ls").returncode == 0
    r = otto.ssh("admin", "user", "add", "eve")
    assert r.returncode == 4, r.stderr


def test_a_role_that_was_taken_away_acts_at_once(admin):
    p = admin.proxy
    t = admin.popen("admin event tail -f -o jsonl")
    assert json.loads(t.stdout.readline())
    p.do("user", "set", "ann", "--role", "user")
    assert t.wait(20) != 0
    r = admin.ssh("admin", "status")
    assert r.returncode == 4


def test_top_on_a_terminal(admin):
    """Full screen: drawn, follows the size, leaves by Ctrl-C and by q."""
    t = admin.terminal("admin session top", rows=20, cols=90)
    t.expect("ID")
    t.setwinsize(30, 70)
    pid = wait_until(lambda: commands_of(admin.proxy), "top runs")[0]
    fd = os.open("/proc/%d/fd/0" % pid, os.O_RDONLY | os.O_NOCTTY) if harness.IS_ROOT else None
    if fd is not None:
        wait_until(lambda: os.get_terminal_size(fd) == (70, 30), "the size has come through")
        os.close(fd)
    t.send("q")
    t.expect(pexpect.EOF)
    t.close()
    assert t.exitstatus == 0
    t = admin.terminal("admin session top", rows=20, cols=90)
    t.expect("ID")
    t.send("\x03")
    t.expect(pexpect.EOF)
    t.close()
    assert t.exitstatus in (0, 130), t.exitstatus
    no_commands(admin.proxy)


# ---- processes

def test_what_the_process_may_do(admin):
    """No rights, no descriptors, no environment, gone with the daemon."""
    p = admin.proxy
    t = admin.popen("admin event tail -f")
    pid = wait_until(lambda: commands_of(p), "it runs")[0]
    with open("/proc/%d/status" % pid) as f:
        status = dict(line.split(":\t", 1) for line in f.read().splitlines())
    assert status["NoNewPrivs"].strip() == "1" and int(status["CapEff"], 16) == 0
    assert status["Seccomp"].strip() == "2"
    if harness.IS_ROOT:
        import pwd
        uid = str(pwd.getpwnam("sallyport-relay").pw_uid)
        assert status["Uid"].split() == [uid] * 4 and status["Groups"].strip() == ""
        fds = {int(n) for n in os.listdir("/proc/%d/fd" % pid)}
        assert fds <= {0, 1, 2, 3, 4, 5, 6}, fds
        env = open("/proc/%d/environ" % pid).read().split("\0")
        names = {e.split("=")[0] for e in env if e}
        assert names <= {"SALLYPORT_SOCKET", "LANG", "TZ", "ASAN_OPTIONS", "UBSAN_OPTIONS"}, names
        assert os.readlink("/proc/%d/cwd" % pid) == "/"
        limits = open("/proc/%d/limits" % pid).read()
        assert re.search(r"Max processes +0 +0", limits) and "Max file size             268435456" in limits
    t.kill()
    t.wait()
    no_commands(p)


def test_a_hung_command_goes_with_its_channel(admin):
    p = admin.proxy
    t = admin.popen("admin event tail -f")
    pid = wait_until(lambda: commands_of(p), "it runs")[0]
    os.kill(pid, 19)  # SIGSTOP: it never reads or writes again
    t.kill()
    t.wait()
    no_commands(p)
    wait_until(lambda: not harness.alive(pid), "the process is gone")


def test_the_time_of_a_command_is_limited(make_proxy, keys):
    p = make_proxy({"ssh": {"door_timeout": "1s"}, "control": {"admin_over_ssh": "yes"}})
    p.add_user("ann", key=keys.make("ann"), role="admin")
    ann = harness.Client(p, user="ann", target=None, key=keys.make("ann"))
    r = ann.ssh("admin", "event", "tail", "-f")
    assert r.returncode == 137 and "took longer than 1 second" in peers.told(r), r
    no_commands(p)


def test_many_at_once_are_bounded(proxy, door, keys):
    """Eight for one user; the rest is told so at once, and nothing is left behind."""
    running = [door.popen("passwd") for _ in range(20)]  # each waits for three lines
    wait_until(lambda: sum(p.poll() is not None for p in running) == 12, "twelve were refused")
    assert len(commands_of(proxy)) == 8
    for p in running:
        if p.poll() is not None:
            assert p.returncode == 1 and b"8 commands of yours" in p.stderr.read()
    r = door.ssh("targets")
    assert r.returncode == 1 and "8 commands of yours" in r.stderr
    for p in running:
        if p.poll() is None:
            p.stdin.close()
            assert p.wait(30) == 1
    no_commands(proxy)
    assert door.ssh("targets").returncode == 0


def test_fifty_at_once_of_many(admin, keys):
    """All users together: 32 at most, some of them kept for admins."""
    p = admin.proxy
    users = [harness.Client(p, user="u%d" % n, target=None, key=keys.make("alice"))
             for n in range(7)]
    for n in range(7):
        p.add_user("u%d" % n, key=keys.make("alice"))
    running = [u.popen("passwd") for u in users for _ in range(7)]
    wait_until(lambda: sum(q.poll() is None for q in running) == 28, "21 were refused")
    assert len(commands_of(p)) == 28
    assert admin.ssh("admin", "status").returncode == 0
    for q in running:
        q.kill()
        q.wait()
    no_commands(p)


def test_several_on_one_connection(proxy, door, tmp_path):
    control = str(tmp_path / "mux")
    master = door.popen(flags=("-N", "-M", "-S", control))
    wait_until(lambda: os.path.exists(control), "the connection is up")
    mux = ("-S", control, "-o", "ControlMaster=no")
    for _ in range(3):
        assert door.ssh("targets", "-q", flags=mux).stdout == "web01\n"
    both = [door.popen("passwd", flags=mux) for _ in range(2)]
    wait_until(lambda: len(commands_of(proxy)) == 2, "two run")
    assert door.ssh("targets", "-q", flags=mux).stdout == "web01\n"
    master.kill()
    master.wait()
    for p in both:
        assert p.wait(20) != 0
    no_commands(proxy)


def test_much_output_to_a_slow_reader(admin):
    """10 000 rows, nobody reads for a while: nothing grows, nothing is lost."""
    p = admin.proxy
    document = {"targets": [{"name": "t%05d" % n, "type": "ssh", "address": "192.0.2.1:22",
                             "auth": "none", "accept_new": True} for n in range(10000)]}
    p.do("apply", "-f", "-", "-y", input=json.dumps(document))
    p.do("grant", "add", "ann", "*")
    t = admin.popen("admin target ls -o jsonl")
    pid = wait_until(lambda: commands_of(p), "it runs")[0]
    time.sleep(1)
    relay = p.relays()[0]
    with open("/proc/%d/statm" % relay) as f:
        pages = int(f.read().split()[1])
    assert pages * 4096 < 64 << 20 and harness.alive(pid)  # it waits for the reader
    out, _ = t.communicate(timeout=60)
    names = [json.loads(line)["name"] for line in out.splitlines()]
    assert t.returncode == 0 and len(names) == 10001 and len(set(names)) == 10001
    r = admin.ssh("targets", "-q")
    assert r.returncode == 0 and len(r.stdout.splitlines()) == 10001
    no_commands(p)


def test_keys_change_while_much_is_said(admin):
    """While keys are changed nothing can be written: what a command said meanwhile is kept."""
    p = admin.proxy
    document = {"targets": [{"name": "t%05d" % n, "type": "ssh", "address": "192.0.2.1:22",
                             "auth": "none", "accept_new": True} for n in range(2000)]}
    p.do("apply", "-f", "-", "-y", input=json.dumps(document))
    r = admin.ssh("admin", "target", "ls", "-o", "jsonl", flags=("-o", "RekeyLimit=16K"))
    assert r.returncode == 0, r.stderr
    assert len({json.loads(line)["name"] for line in r.stdout.splitlines()}) == 2001
    no_commands(p)


def test_the_reader_leaves(admin):
    """`| head` on the client's side: the command ends."""
    r = harness.run("bash", "-c", "%s | head -n 1" % " ".join(
        "'%s'" % a for a in admin.ssh_argv("admin", "user", "ls")))
    assert "NAME" in r.stdout
    no_commands(admin.proxy)


def test_the_daemon_restarts_meanwhile(admin):
    p = admin.proxy
    t = admin.popen("admin event tail -f")
    pid = wait_until(lambda: commands_of(p), "it runs")[0]
    p.kill()
    out, err = t.communicate(timeout=20)
    assert t.returncode == 5 and b"the proxy was restarted" in err, (t.returncode, err)
    wait_until(lambda: not harness.alive(pid), "the command went with its daemon")
    p.start()
    assert admin.ssh("admin", "status").returncode == 0


def test_on_a_connection_that_outlived_the_daemon(proxy, door, tmp_path):
    control = str(tmp_path / "mux")
    master = door.popen(flags=("-N", "-M", "-S", control))
    wait_until(lambda: os.path.exists(control), "the connection is up")
    proxy.kill()
    proxy.start()
    wait_until(lambda: proxy.json("status")["adopted"] == 1, "it is adopted")
    r = door.ssh("targets", "-q", flags=("-S", control, "-o", "ControlMaster=no"))
    assert (r.returncode, r.stdout) == (0, "web01\n"), r.stderr
    master.kill()
    master.wait()


def test_of_an_unprivileged_daemon(make_proxy, target, keys):
    """Its owner's control socket is the owner's: the words reach it by their own connection only."""
    p = make_proxy({"control": {"admin_over_ssh": "yes"}},
                   as_user="nobody" if harness.IS_ROOT else None)
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    p.add_user("ann", key=keys.make("ann"), role="admin")
    p.do("user", "passwd", "alice", "--password-stdin", input=PASSWORD + "\n")
    me = harness.Client(p, target=None, key=keys.make("alice"))
    assert me.ssh("targets", "-q").stdout == "web01\n"
    r = me.ssh("sessions", "--socket", p.socket)
    assert r.returncode == 2 and r.stdout == ""
    assert me.ssh("admin", "status").returncode == 4
    t = me.terminal("passwd")
    t.expect("Old password: ")
    t.send("\x03")  # Ctrl-C at the question
    t.expect(pexpect.EOF)
    t.close()
    assert t.exitstatus == 130 and password_works(p, PASSWORD)
    ann = harness.Client(p, user="ann", target=None, key=keys.make("ann"))
    t = ann.terminal("admin session top", rows=20, cols=90)
    t.expect("ID")
    t.send("q")
    t.expect(pexpect.EOF)
    no_commands(p)


# ---- a relay that was taken over

@pytest.fixture
def stolen(proxy, keys):
    import base64
    process = fakerelay.Process(proxy)
    r = fakerelay.Relay(process).hello().welcomed()
    assert r.login("alice", base64.b64decode(keys.public("alice").split()[1])) == fakerelay.AUTH_OK
    yield r
    r.close()
    process.finish()


def test_a_relay_asks_for_no_more_than_its_user_may(proxy, stolen):
    for command, status in (("admin user ls", 4), ("self targets", 2), ("user ls", 2),
                            ("sessions; user ls", 2), ("__complete", 2), ("", 2)):
        ok, code, _ = stolen.door(1, command)
        assert (ok, code) == (False, status), command
    ok, code, _ = stolen.door(2, "sessions --user bob -o json")
    assert ok
    assert stolen.door_output() == b"[]\n"
    assert stolen.door_status(2) == 0


def test_a_relay_has_no_door_before_login_or_in_a_session(proxy, stolen):
    assert stolen.route("web01")
    ok, code, text = stolen.door(1, "targets")
    assert not ok and code == 1 and "target already" in text
    process = fakerelay.Process(proxy)
    r = fakerelay.Relay(process).hello().welcomed()
    r.say(fakerelay.DOOR, fakerelay.door_body(1, "targets"))
    fakerelay.gone(process)
    r.close()
    process.finish()


def test_a_session_that_has_begun_is_not_given_back(proxy, stolen):
    assert stolen.route("web01")
    stolen.say(fakerelay.READY, fakerelay.text("x"))
    proxy.wait_sessions(1, "active")
    stolen.say(fakerelay.BACK, bytes([8]) + fakerelay.text("sorry"))
    fakerelay.gone(stolen.process)
    assert proxy.wait_history(1)[0]["endReason"] == "relay-crashed"


def test_its_commands_go_with_a_relay(proxy, stolen):
    ok, _, _ = stolen.door(1, "passwd")
    assert ok
    wait_until(lambda: len(commands_of(proxy)) == 1, "it runs")
    stolen.link.close()
    no_commands(proxy)
