"""What is known afterwards: which files were got, put and changed, and which commands ran."""
import contextlib
import os
import random
import shutil
import subprocess
import threading

import paramiko
import pytest

import harness
import peers


@pytest.fixture
def room(tmp_path):
    """A directory at the target (the same machine), and one at the client."""
    os.chmod(tmp_path, 0o755)
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    return str(tmp_path / "there"), str(tmp_path / "here")


def write(path, size):
    with open(path, "wb") as f:
        f.write(random.Random(size).randbytes(size))
    return path


def ended(proxy):
    """The id of the one session, when it is over."""
    return proxy.wait_history(1)[0]["id"]


def files(proxy, session=None):
    """(operation, result, path, path2 or what was set, in, out) of every row, oldest first."""
    rows = proxy.json("event", "tail", "--since", "1d", "--kind", "file",
                      *(["--session", session] if session else []))
    details = [e["detail"] for e in rows]
    return [(d["operation"], d["result"], d["path"], d.get("path2", d.get("set")),
             d.get("bytesIn"), d.get("bytesOut")) for d in details]


def has_row(rows, *want):
    return any(all(w is None or w == r for w, r in zip(want, row)) for row in rows)


# ---- sftp

def test_sftp_batch(proxy, client, room):
    there, here = room
    write(here + "/a", 100000)
    r = client.sftp("""mkdir {t}/d
put {h}/a {t}/d/a
put {h}/a {t}/d/b
get {t}/d/a {h}/back
rename {t}/d/b {t}/d/c
chmod 640 {t}/d/c
ln -s c {t}/d/soft
ln {t}/d/c {t}/d/hard
-get {t}/none {h}/none
-rmdir {t}/d
rm {t}/d/a
mkdir {t}/e
rmdir {t}/e
""".format(t=there, h=here))
    assert r.returncode == 0, r.stderr
    session = ended(proxy)
    rows = files(proxy, session)
    assert has_row(rows, "mkdir", "ok", there + "/d")
    assert has_row(rows, "put", "ok", there + "/d/a", None, 100000, 0)
    assert has_row(rows, "put", "ok", there + "/d/b", None, 100000, 0)
    assert has_row(rows, "get", "ok", there + "/d/a", None, 0, 100000)
    assert has_row(rows, "rename", "ok", there + "/d/b", there + "/d/c")
    assert has_row(rows, "setstat", "ok", there + "/d/c", "mode=0640")
    assert has_row(rows, "symlink", "ok", there + "/d/soft", "c")
    assert has_row(rows, "hardlink", "ok", there + "/d/hard", there + "/d/c")
    assert has_row(rows, "remove", "ok", there + "/d/a")
    assert has_row(rows, "rmdir", "failure", there + "/d")
    assert has_row(rows, "rmdir", "ok", there + "/e")
    assert len([r for r in rows if r[0] in ("get", "put")]) == 3
    # the same, as a person sees it
    text = proxy.do("session", "show", session)
    assert "Files:" in text and there + "/d/hard" in text and "rename" in text
    shown = proxy.json("session", "show", session)
    assert shown["filesTotal"] == len(rows) == len(shown["files"])
    assert not proxy.events("audit-stopped")


def test_resume(proxy, client, room):
    there, here = room
    write(here + "/a", 300000)
    shutil.copy(here + "/a", there + "/b")
    os.truncate(there + "/b", 100000)
    shutil.copy(here + "/a", here + "/c")
    os.truncate(here + "/c", 250000)
    r = client.sftp("reput %s/a %s/b\nreget %s/b %s/c\n" % (here, there, there, here))
    assert r.returncode == 0, r.stderr
    rows = files(proxy, ended(proxy))
    assert has_row(rows, "put", "ok", there + "/b", None, 200000, 0)
    assert has_row(rows, "get", "ok", there + "/b", None, 0, 50000)
    assert open(there + "/b", "rb").read() == open(here + "/c", "rb").read()


def test_names_are_escaped(proxy, client, room):
    """A name that would drive a terminal, and one that is no text at all."""
    there, here = room
    write(here + "/a", 10)
    evil = there.encode() + b"/\x1b]0;owned\x07\xff"
    r = subprocess.run(["sftp"] + client.common() + ["-P", str(proxy.port), "-b", "-",
                       client.login + "@127.0.0.1"], capture_output=True, timeout=60,
                       input=b"put %s/a \"%s\"\n" % (here.encode(), evil))
    assert r.returncode == 0 and os.path.exists(evil)
    session = ended(proxy)
    assert files(proxy, session)[0][2] == there + "/\\x1b]0;owned\\x07\\xff"
    for text in (proxy.do("session", "show", session), proxy.do("event", "tail")):
        assert "\x1b" not in text and "owned" in text


def test_an_sftp_server_by_its_path(proxy, client, room):
    """As a command, without the subsystem: read all the same."""
    there, here = room
    write(here + "/a", 4000)
    server = next(p for p in ("/usr/lib/openssh/sftp-server", "/usr/libexec/sftp-server")
                  if os.path.exists(p))
    r = client.sftp("put %s/a %s/b\n" % (here, there), "-s", server)
    assert r.returncode == 0, r.stderr
    assert has_row(files(proxy, ended(proxy)), "put", "ok", there + "/b", None, 4000, 0)


def test_two_channels_at_once(proxy, client, room):
    there, here = room
    write(here + "/a", 5000)
    control = here + "/mux"
    client.options += ["-o", "ControlMaster=auto", "-o", "ControlPath=" + control]
    master = client.popen("cat", flags=())
    harness.wait_until(lambda: os.path.exists(control), "a master")
    runs = [threading.Thread(target=client.sftp, args=("put %s/a %s/%d\n" % (here, there, i),))
            for i in range(4)]
    for t in runs:
        t.start()
    for t in runs:
        t.join()
    master.stdin.close()
    master.wait(30)
    ended(proxy)
    rows = proxy.events("file")
    assert len({e["detail"]["channel"] for e in rows}) == 4
    assert sorted(e["detail"]["path"][-1] for e in rows) == list("0123")


def test_curl(proxy, keys, room):
    there, here = room
    write(here + "/a", 70000)
    key = keys.make("alice")
    for args in (["-T", here + "/a"], ["-o", here + "/back", "-Q",
                                       "-rename %s/f %s/g" % (there, there)]):
        r = harness.run("curl", "-sS", "--insecure", "--key", key, "--pubkey", key + ".pub",
                        "-u", "alice+web01:", *args,
                        "sftp://127.0.0.1:%d%s/f" % (proxy.port, there))
        assert r.returncode == 0, r.stderr
    proxy.wait_history(2)
    rows = files(proxy)
    assert has_row(rows, "put", "ok", there + "/f", None, 70000, 0)
    assert has_row(rows, "get", "ok", there + "/f", None, 0, 70000)
    assert has_row(rows, "rename", "ok", there + "/f", there + "/g")
    assert not proxy.events("audit-stopped")


def test_paramiko(proxy, keys, room):
    """It asks for a whole file at once, and does things in its own order."""
    there, here = room
    write(here + "/a", 3000000)
    c = paramiko.SSHClient()
    c.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    c.connect("127.0.0.1", proxy.port, "alice+web01", key_filename=keys.make("alice"),
              allow_agent=False, look_for_keys=False)
    sftp = c.open_sftp()
    sftp.put(here + "/a", there + "/a")
    sftp.get(there + "/a", here + "/b")
    sftp.posix_rename(there + "/a", there + "/c")
    with sftp.open(there + "/c", "r+") as f:
        f.write("new")
        f.seek(0)
        assert f.read(5)[:3] == b"new"
    sftp.symlink("c", there + "/link")
    with sftp.open(there + "/left-open", "w") as f:
        f.write("x" * 10)
        f.flush()
        f.stat()
        c.close()
    rows = files(proxy, ended(proxy))
    assert has_row(rows, "put", "ok", there + "/a", None, 3000000, 0)
    assert has_row(rows, "get", "ok", there + "/a", None, 0, 3000000)
    assert has_row(rows, "rename", "ok", there + "/a", there + "/c")
    assert has_row(rows, "get+put", "ok", there + "/c", None, 3)
    assert has_row(rows, "symlink", "ok", there + "/link", "c")
    assert has_row(rows, "put", None, there + "/left-open", None, 10, 0)
    assert not proxy.events("audit-stopped")


def test_ten_thousand_small_files(proxy, client, room):
    there, here = room
    os.mkdir(here + "/many")
    for i in range(10000):
        with open(here + "/many/f%d" % i, "w") as f:
            f.write("%d" % i)
    r = client.sftp("put -r %s/many %s\n" % (here, there), timeout=600)
    assert r.returncode == 0, r.stderr
    assert len(os.listdir(there + "/many")) == 10000
    session = ended(proxy)
    puts = {r[2] for r in files(proxy, session) if r[0] == "put"}
    missing = sum(e["detail"]["unlisted"] for e in proxy.events("audit-incomplete"))
    # event tail gives 10000 rows at most, and there is a mkdir among them
    shown = proxy.json("session", "show", session)
    assert shown["filesTotal"] + missing >= 10001
    assert missing == 0 and len(puts) >= 9999
    assert len(shown["files"]) == 500
    assert not proxy.events("events-lost")


# ---- commands that copy

def test_scp_both_protocols(proxy, client, room):
    there, here = room
    write(here + "/a", 60000)
    assert client.scp(here + "/a", client.remote(there + "/new")).returncode == 0
    proxy.wait_history(1)
    assert has_row(files(proxy), "put", "ok", there + "/new", None, 60000, 0)
    assert client.scp("-O", here + "/a", client.remote(there + "/old")).returncode == 0
    assert client.scp("-O", client.remote(there + "/old"), here + "/b").returncode == 0
    assert client.scp("-O", client.remote(there + "/none"), here + "/c").returncode == 1
    proxy.wait_history(4)
    rows = [r for r in files(proxy) if r[0] == "scp"]
    assert len(rows) == 3
    assert rows[0][1] == "ok" and rows[0][2] == "scp -t %s/old" % there and rows[0][4] > 60000
    assert rows[1][1] == "ok" and rows[1][5] > 60000
    assert rows[2][1] == "exit-1"


def test_rsync(proxy, client, room):
    there, here = room
    write(here + "/a", 60000)
    remote = " ".join(["ssh"] + client.common() + ["-p", str(proxy.port)])
    r = harness.run("rsync", "-a", "-e", remote, here + "/", client.remote(there + "/"))
    assert r.returncode == 0, r.stderr
    ended(proxy)
    rows = files(proxy)
    assert len(rows) == 1 and rows[0][:2] == ("rsync", "ok") and rows[0][4] > 60000
    assert rows[0][2].startswith("rsync --server")


def test_git(proxy, client, room):
    there, here = room
    env = dict(os.environ, GIT_SSH_COMMAND=" ".join(["ssh"] + client.common() +
                                                    ["-p", str(proxy.port)]),
               GIT_CONFIG_GLOBAL="/dev/null", GIT_AUTHOR_NAME="a", GIT_AUTHOR_EMAIL="a@b",
               GIT_COMMITTER_NAME="a", GIT_COMMITTER_EMAIL="a@b")
    url = "ssh://%s@127.0.0.1:%d%s/r.git" % (client.login, proxy.port, there)

    def git(*args):
        r = harness.run("git", "-c", "safe.directory=*", *args, env=env)
        assert r.returncode == 0, r.stderr

    git("init", "-q", "--bare", there + "/r.git")
    git("clone", "-q", url, here + "/w")
    git("-C", here + "/w", "commit", "-q", "--allow-empty", "-m", "one")
    git("-C", here + "/w", "push", "-q", "origin", "HEAD:refs/heads/main")
    proxy.wait_history(2)
    rows = [r for r in files(proxy) if r[0] == "git"]
    assert [r[2].split()[0] for r in rows] == ["git-upload-pack", "git-receive-pack"]
    assert all(r[1] == "ok" and r[4] > 0 and r[5] > 0 for r in rows)


# ---- a stream that lies

class LyingTarget(peers.FakeTarget):
    """An SFTP server whose first packet's length is nonsense, and that then echoes."""
    first = b"\xff\xff\xff\xff\x02\x00\x00\x00\x03"

    def serve(self, sock):
        lying = self

        class Server(peers._FakeServer):
            def check_channel_subsystem_request(self, channel, name):
                threading.Thread(target=lying.echo, args=(channel,), daemon=True).start()
                return True

        transport = paramiko.Transport(sock)
        transport.add_server_key(peers.load_key(self.key_path))
        transport.start_server(event=threading.Event(), server=Server(self))
        kept = []
        while transport.is_active() and not self.is_over:
            kept.append(transport.accept(0.2))
        transport.close()

    def echo(self, channel):
        channel.sendall(self.first)
        while data := channel.recv(65536):
            channel.sendall(data)
        channel.close()


def test_a_lying_stream_passes_untouched(make_proxy, keys, tmp_path):
    p = make_proxy()
    p.add_user("alice", key=keys.make("alice"))
    t = LyingTarget(keys.make("fake"), password="secret")
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(t.stop)
        p.do("target", "add", "web01", "--type", "ssh", "--address", "127.0.0.1:%d" % t.port,
             "--account", "root", "--auth", "password", "--host-key", t.host_key_line,
             "--secret-stdin", input="secret\n")
        p.grant()
        c = paramiko.SSHClient()
        c.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        c.connect("127.0.0.1", p.port, "alice+web01", key_filename=keys.make("alice"),
                  allow_agent=False, look_for_keys=False)
        channel = c.get_transport().open_session()
        channel.invoke_subsystem("sftp")
        sent = os.urandom(300000)
        threading.Thread(target=channel.sendall, args=(sent,), daemon=True).start()
        got = b""
        while len(got) < len(t.first) + len(sent):
            data = channel.recv(65536)
            assert data, "the transfer was cut after %d bytes" % len(got)
            got += data
        assert got == t.first + sent
        harness.wait_until(lambda: p.events("audit-stopped"), "the audit's end")
        c.close()
        p.wait_history(1)
    stopped = p.events("audit-stopped")
    assert len(stopped) == 1 and "impossible length" in stopped[0]["text"]
    assert not p.events("file")


# ---- commands

def test_commands_are_listed(proxy, client):
    assert client.ssh("exit 3").returncode == 3
    assert client.ssh("kill -TERM $$").returncode != 0
    assert client.ssh("sleep 0.3; printf hello").stdout == "hello"
    proxy.wait_history(3)
    rows = [e["detail"] for e in proxy.events("channel-close")]
    by_command = {d["command"]: d for d in rows}
    assert by_command["exit 3"]["exitStatus"] == 3
    assert by_command["exit 3"]["exitSignal"] is None
    assert by_command["kill -TERM $$"]["exitSignal"] == "TERM"
    assert by_command["sleep 0.3; printf hello"]["bytesOut"] == 5
    assert 300 <= by_command["sleep 0.3; printf hello"]["durationMs"] < 30000
    for s in proxy.history():
        shown = proxy.json("session", "show", s["id"])["commands"]
        assert len(shown) == 1 and shown[0]["ended"] and shown[0]["started"]
    text = proxy.do("session", "show", proxy.history()[1]["id"])
    assert "Commands:" in text and "SIGTERM" in text and "kill -TERM $$" in text


def test_a_running_command_is_listed(proxy, client):
    c = client.popen("cat")
    harness.wait_until(lambda: proxy.events("channel-open"), "a channel")
    shown = proxy.json("session", "show", proxy.sessions()[0]["id"])["commands"]
    assert shown[0]["command"] == "cat" and shown[0]["ended"] is None
    assert "runs" in proxy.do("session", "show", proxy.sessions()[0]["id"])
    c.stdin.close()
    c.wait(30)


def test_of_a_terminal_nothing_is_guessed(proxy, client):
    t = client.shell()
    t.sendline("echo some-$((1+1))-thing")
    t.expect("some-2-thing")
    t.sendline("exit")
    t.expect(harness.pexpect.EOF)
    shown = proxy.json("session", "show", ended(proxy))
    assert len(shown["commands"]) == 1 and shown["commands"][0]["pty"]
    assert "some-" not in shown["commands"][0]["command"]
    assert shown["filesTotal"] == 0
