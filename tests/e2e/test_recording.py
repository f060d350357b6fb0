"""Recordings: what is kept, that it plays, that it cannot be altered or avoided, full disks."""
import datetime
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time

import paramiko
import pexpect
import pytest

import harness
from harness import ADMIN, wait_until


def export(proxy, recording, scratch):
    path = os.path.join(scratch, harness.random_name() + ".cast")
    proxy.do("recording", "export", recording, path)
    with open(path) as f:
        lines = f.read().split("\n")
    return path, json.loads(lines[0]), [json.loads(line) for line in lines[1:] if line]


def output(events):
    return "".join(e[2] for e in events if e[1] == "o")


def seconds(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def ended(proxy, n=1):
    rows = proxy.wait_history(n)
    wait_until(lambda: not proxy.relays(), "the relay is gone")
    return rows[-1]


def test_terminal_is_recorded_and_plays(proxy, client, scratch):
    shell = client.shell()
    shell.setwinsize(30, 100)
    shell.sendline("echo recorded-$((4+4)); printf '\\303\\244\\342\\202\\254\\n'")
    shell.expect("recorded-8")
    shell.sendline("exit")
    shell.expect(harness.pexpect.EOF)
    row = ended(proxy)
    assert row["recording"] == "ok"
    path, head, events = export(proxy, row["id"], scratch)
    assert head["version"] == 2 and (head["width"], head["height"]) == (80, 24)
    assert "recorded-8" in output(events) and "ä€" in output(events)
    assert any(e[1] == "r" and e[2] == "100x30" for e in events)
    assert [e[0] for e in events] == sorted(e[0] for e in events)
    shown, code = pexpect.run("asciinema cat " + path, withexitstatus=True, encoding="utf-8",
                              env=dict(os.environ, LC_ALL="C.UTF-8"))
    assert code == 0 and "recorded-8" in shown and "ä€" in shown
    shown, code = pexpect.run("asciinema play -s 1000 " + path, withexitstatus=True,
                              encoding="utf-8", env=dict(os.environ, LC_ALL="C.UTF-8"))
    assert code == 0 and "recorded-8" in shown
    # the stored file itself is asciicast inside zstd
    stored, = [os.path.join(d, f) for d, _, fs in os.walk(proxy.recordings) for f in fs]
    plain = subprocess.run(["zstd", "-dcq", stored], capture_output=True, check=True).stdout
    assert json.loads(plain.split(b"\n")[0])["version"] == 2
    assert b"recorded-8" in plain
    assert os.stat(stored).st_mode & 0o077 == 0
    played = proxy.ctl("recording", "play", row["id"])
    assert played.returncode != 0 or "recorded-8" in played.stdout  # not on a terminal


def test_exact_bytes(proxy, client, scratch):
    """What the target sent, invalid UTF-8 and all, has the recording's own SHA-256."""
    data = os.urandom(300000) + b"\xc3" + b"\xff\xfe" * 100 + "€".encode()
    source = os.path.join(scratch, "bytes")
    with open(source, "wb") as f:
        f.write(data)
    p = client.popen("stty raw -echo; cat " + source, flags=("-tt",))
    out, _ = p.communicate(timeout=60)
    assert data in out
    row = ended(proxy)
    r = subprocess.run([os.path.join(harness.bin_dir(), "sallyctl"), "--socket", proxy.socket,
                        "recording", "play", row["id"], "--raw"], capture_output=True, check=True,
                       env=proxy.env(), stdin=subprocess.DEVNULL)
    assert hashlib.sha256(r.stdout).digest() == hashlib.sha256(out).digest()


def test_command_without_terminal(proxy, client, scratch):
    assert client.ssh("echo to-out; echo to-err >&2").returncode == 0
    row = ended(proxy)
    _, _, events = export(proxy, row["id"], scratch)
    assert "to-out" in output(events) and "to-err" in output(events)


def test_command_over_the_cap(proxy, client, scratch):
    """4 MiB of a command's output are kept, the rest is counted, and all of it arrives."""
    r = client.ssh("yes 0123456789abcde | head -c 20000000; echo to-err >&2")
    assert r.returncode == 0 and len(r.stdout) == 20000000 and "to-err" in r.stderr
    row = ended(proxy)
    assert row["recording"] == "ok" and row["bytesOut"] >= 20000000
    _, _, events = export(proxy, row["id"], scratch)
    assert 3 << 20 < len(output(events)) <= 4 << 20
    assert any(e[1] == "m" and "over the cap" in e[2] for e in events)


def test_shell_without_terminal(proxy, client, scratch):
    r = client.ssh(flags=("-T",), input="echo shell-$((3+3))\n")
    assert "shell-6\n" in r.stdout
    assert "shell-6" in output(export(proxy, ended(proxy)["id"], scratch)[2])


@pytest.mark.parametrize("where", ["target", "role", "grant"])
def test_policies_of_recording(make_proxy, target, keys, scratch, where):
    """Configuration: recorded, without input. The narrower one says otherwise."""
    p = make_proxy()
    p.add_user("alice", key=keys.make("alice")).add_target(target)
    keys_ = ["input=all"]
    p.do("grant", "add", "alice", "web01", *(keys_ if where == "grant" else []))
    if where != "grant":
        p.do(where, "set", "web01" if where == "target" else "user", *keys_)
    c = harness.Client(p, key=keys.make("alice"))
    shell = c.shell()
    shell.sendline("exit")
    shell.expect(pexpect.EOF)
    _, _, events = export(p, ended(p)["id"], scratch)
    assert "exit" in "".join(e[2] for e in events if e[1] == "i")
    if where == "grant":
        return
    p.do(where, "set", "web01" if where == "target" else "user", "record=no")
    shell = c.shell()
    assert p.sessions()[0]["recording"] == "off"
    shell.sendline("exit")
    shell.expect(pexpect.EOF)
    ended(p, 2)
    assert len(p.json("recording", "ls")) == 1


@pytest.mark.parametrize("how", ["sftp", "scp", "scp -O", "rsync", "git"])
def test_transfers_are_events_not_recordings(proxy, client, scratch, how):
    path = os.path.join(scratch, harness.random_name())
    with open(path, "wb") as f:
        f.write(os.urandom(100000))
    there = path + ".there"
    if how == "sftp":
        r = client.sftp("put %s %s\n" % (path, there))
    elif how.startswith("scp"):
        r = client.scp(*(["-O"] if "-O" in how else []), path, client.remote(there))
    elif how == "rsync":
        r = harness.run("rsync", "-e", "ssh " + " ".join(client.common()) + " -p %d"
                        % proxy.port, path, client.remote(there))
    else:
        subprocess.run(["git", "init", "-q", "--bare", path + ".git"], check=True)
        r = harness.run("git", "ls-remote", "ssh://%s@127.0.0.1:%d%s.git" % (
            client.login, proxy.port, path), env=dict(
                os.environ, GIT_SSH_COMMAND="ssh " + " ".join(client.common())))
    assert r.returncode == 0, r.stderr
    row = ended(proxy)
    assert row["recording"] == "off"
    assert proxy.json("recording", "ls") == []
    closing = proxy.events("channel-close")
    assert len(closing) == 1
    if how != "git":
        assert int(re.search(r"in=(\d+)", closing[0]["text"]).group(1)) > 100000
        assert row["bytesIn"] > 100000


def test_terminal_is_recorded_whatever_its_command(proxy, client, scratch):
    shell = client.terminal("scp -t /tmp; echo hidden-$((5+5))")
    shell.expect_exact("\0")  # scp is ready for the first file
    shell.sendeof()
    shell.expect("hidden-10")
    shell.expect(harness.pexpect.EOF)
    row = ended(proxy)
    assert "hidden-10" in output(export(proxy, row["id"], scratch)[2])


def test_what_follows_a_refused_start_is_recorded(proxy, keys, scratch):
    """A subsystem is never recorded, but when the target has none of that name a terminal may
    follow on the same channel."""
    transport = paramiko.Transport(("127.0.0.1", proxy.port))
    transport.start_client(timeout=20)
    transport.auth_publickey("alice+web01", paramiko.Ed25519Key.from_private_key_file(
        keys.make("alice")))
    channel = transport.open_session(timeout=20)
    ask = paramiko.Message()
    ask.add_byte(bytes([98]))  # SSH_MSG_CHANNEL_REQUEST, without an answer
    ask.add_int(channel.remote_chanid)
    ask.add_string("subsystem")
    ask.add_boolean(False)
    ask.add_string("nosuch")
    transport._send_user_message(ask)
    channel.get_pty()
    channel.invoke_shell()
    channel.sendall(b"echo se''cret; exit\n")
    said = b""
    channel.settimeout(20)
    while data := channel.recv(65536):
        said += data
    transport.close()
    assert b"secret" in said
    row = ended(proxy)
    assert row["recording"] == "ok"
    _, _, events = export(proxy, row["id"], scratch)
    assert "secret" in output(events)


def test_several_terminals_on_one_connection(proxy, client, scratch, keys):
    master = os.path.join(scratch, harness.random_name())
    c = harness.Client(proxy, key=keys.make("alice"),
                       options=["-o", "ControlMaster=auto", "-o", "ControlPath=" + master])
    first = c.shell()
    second = c.terminal("echo second-$((1+1))")
    second.expect("second-2")
    second.expect(harness.pexpect.EOF)
    first.sendline("exit")
    first.expect(harness.pexpect.EOF)
    row = ended(proxy)
    names = {r["id"] for r in proxy.json("recording", "ls")}
    assert names == {row["id"], row["id"] + ".2"}
    assert "second-2" in output(export(proxy, row["id"] + ".2", scratch)[2])


def test_notices_are_recorded(proxy, client, scratch):
    client.shell()
    row = proxy.sessions()[0]
    proxy.do("session", "end", row["id"], "-y", "--reason", "seen")
    ended(proxy)
    _, _, events = export(proxy, row["id"], scratch)
    assert any("ended by %s (seen)" % ADMIN in str(e[2]) for e in events)


def test_recording_off(make_proxy, target, keys):
    p = make_proxy({"recording": {"ssh": "no"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    shell = harness.Client(p, key=keys.make("alice")).shell()
    assert p.sessions()[0]["recording"] == "off"
    shell.sendline("exit")
    shell.expect(harness.pexpect.EOF)
    ended(p)
    assert p.json("recording", "ls") == []


@pytest.mark.parametrize("victim", ["relay", "broker"])
def test_kill_loses_at_most_two_seconds(proxy, client, scratch, victim):
    shell = client.terminal("i=0; while :; do i=$((i+1)); echo tick-$i-; sleep 0.05; done")
    shell.expect("tick-60-")
    row = proxy.sessions()[0]
    if victim == "broker":
        proxy.kill()
        shell.expect("tick-90-")
    seen = int(re.findall(r"tick-(\d+)-", shell.before + shell.after)[-1])
    os.kill(proxy.relays()[0], signal.SIGKILL)
    if victim == "broker":
        proxy.start()
    proxy.wait_history(1)
    stored, = [os.path.join(d, f) for d, _, fs in os.walk(proxy.recordings) for f in fs]
    r = proxy.ctl("recording", "play", row["id"], "--raw")
    kept = int(re.findall(r"tick-(\d+)-", r.stdout)[-1])
    assert kept >= seen - 45  # two seconds at twenty a second, and some grace for a slow machine
    assert "cut" in r.stderr
    path, _, events = export(proxy, row["id"], scratch)
    assert "tick-%d-" % (kept - 1) in output(events)


def test_damage_is_told(proxy, client, scratch):
    shell = client.terminal("for i in 1 2 3; do head -c 300000 /dev/urandom | base64; done")
    shell.expect(harness.pexpect.EOF, timeout=60)
    row = ended(proxy)
    stored, = [os.path.join(d, f) for d, _, fs in os.walk(proxy.recordings) for f in fs]
    size = os.stat(stored).st_size
    with open(stored, "r+b") as f:
        f.seek(size // 2)
        byte = f.read(1)
        f.seek(size // 2)
        f.write(bytes([byte[0] ^ 1]))
    r = proxy.ctl("recording", "play", row["id"], "--raw")
    assert r.returncode == 1 and "damaged" in r.stderr
    with open(stored, "r+b") as f:
        f.seek(size // 2)
        f.write(byte)
    r = proxy.ctl("recording", "play", row["id"], "--raw")
    assert r.returncode == 0 and ": complete, " in r.stderr and "damaged" not in r.stderr
    os.truncate(stored, size - 50)
    r = proxy.ctl("recording", "play", row["id"], "--raw")
    assert "cut" in r.stderr and len(r.stdout) > 600000


@pytest.mark.parametrize("planted", ["symlink", "fifo", "directory", "hardlink"])
def test_planted_names_are_refused(proxy, client, scratch, planted):
    assert client.ssh("true").returncode == 0
    ended(proxy)
    day, = os.listdir(proxy.recordings)
    name = os.path.join(proxy.recordings, day, "2.cast.zst")
    victim = os.path.join(scratch, harness.random_name())
    with open(victim, "w") as f:
        f.write("precious")
    if planted == "symlink":
        os.symlink(victim, name)
    elif planted == "fifo":
        os.mkfifo(name)
    elif planted == "directory":
        os.mkdir(name)
    else:
        os.link(victim, name)
    r = client.ssh("echo should not run")
    assert r.returncode == 255 and r.stdout == ""
    assert "record" in r.stderr
    with open(victim) as f:
        assert f.read() == "precious"
    assert ended(proxy, 2)["endReason"] == "recording-failed"
    assert client.ssh("echo next").stdout == "next\n"  # the next id is free


def test_planted_folder_of_the_day_is_refused(proxy, client, scratch):
    elsewhere = os.path.join(scratch, harness.random_name())
    os.mkdir(elsewhere, 0o777)
    os.chmod(elsewhere, 0o777)
    os.makedirs(proxy.recordings, exist_ok=True)
    for day in (time.time() - 60, time.time() + 60):
        name = time.strftime("%Y-%m-%d", time.gmtime(day))
        if not os.path.lexists(os.path.join(proxy.recordings, name)):
            os.symlink(elsewhere, os.path.join(proxy.recordings, name))
    r = client.ssh("echo should not run")
    assert r.returncode == 255 and r.stdout == ""
    assert "its recording cannot be opened" in r.stderr
    assert os.listdir(elsewhere) == []
    assert ended(proxy)["endReason"] == "recording-failed"


@pytest.mark.parametrize("policy", ["terminate", "refuse", "continue"])
def test_recording_that_cannot_begin(make_proxy, target, keys, policy):
    p = make_proxy({"recording": {"on_failure": policy}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    for day in (time.time() - 60, time.time() + 60):
        with open(p.recordings + time.strftime("/%Y-%m-%d", time.gmtime(day)), "w") as f:
            f.write("no folder")
    t = harness.Client(p, key=keys.make("alice")).terminal("echo it-$((1+1))")
    t.expect(pexpect.EOF)
    row = ended(p)
    if policy == "continue":
        assert "it-2" in t.before
        assert (row["endReason"], row["recording"]) == ("user-exit", "degraded")
    else:
        assert "it-2" not in t.before and "recording cannot be opened" in t.before
        assert (row["endReason"], row["recording"]) == ("recording-failed", "failed")
    assert p.events("recording-failed")


@pytest.fixture
def small_disk(scratch):
    if not harness.IS_ROOT:
        pytest.skip("mounting needs root")
    path = os.path.join(scratch, harness.random_name())
    os.mkdir(path, 0o777)
    r = harness.run("mount", "-t", "tmpfs", "-o", "size=8m,mode=0777", "tmpfs", path)
    if r.returncode:
        pytest.skip("no mount here: " + r.stderr)
    yield path
    subprocess.run(["umount", "-l", path], check=False)


def fill(path, leave):
    free = os.statvfs(path)
    with open(os.path.join(path, "filler"), "wb") as f:
        f.write(b"\0" * max(0, free.f_bavail * free.f_frsize - leave))


@pytest.mark.parametrize("policy", ["terminate", "continue"])
def test_full_disk(make_proxy, target, keys, small_disk, policy):
    p = make_proxy({"recording": {"dir": small_disk + "/rec", "min_free": "0",
                                  "on_failure": policy}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    c = harness.Client(p, key=keys.make("alice"))
    shell = c.shell()
    fill(small_disk, 0)
    shell.sendline("head -c 400000 /dev/urandom | base64; echo after-$((2+3))")
    if policy == "terminate":
        shell.expect("You have been disconnected: ")
        shell.expect(harness.pexpect.EOF)
        row = ended(p)
        assert row["endReason"] == "recording-failed" and row["recording"] == "failed"
        failed = p.events("recording-failed")
        assert failed and seconds(row["endTime"]) - seconds(failed[0]["time"]) < 1
    else:
        shell.expect("after-5")
        wait_until(lambda: p.sessions()[0]["recording"] == "degraded", "it is listed as degraded")
        shell.sendline("exit")
        shell.expect(harness.pexpect.EOF)
        assert ended(p)["endReason"] == "user-exit"
    os.unlink(os.path.join(small_disk, "filler"))
    assert c.ssh("echo works").stdout == "works\n"  # without a restart


def test_min_free(make_proxy, target, keys, small_disk):
    p = make_proxy({"recording": {"dir": small_disk + "/rec", "min_free": "2M"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    c = harness.Client(p, key=keys.make("alice"))
    shell = c.shell()
    fill(small_disk, 1 << 20)
    began = time.monotonic()
    shell.expect("You have been disconnected: there is no room left to record")
    assert time.monotonic() - began < 10
    assert ended(p)["endReason"] == "recording-failed"
    r = c.ssh("true")
    assert r.returncode == 255 and "no room" in r.stderr
    os.unlink(os.path.join(small_disk, "filler"))
    assert c.ssh("echo works").stdout == "works\n"


def test_min_free_refuse_lets_live_ones_go_on(make_proxy, target, keys, small_disk):
    p = make_proxy({"recording": {"dir": small_disk + "/rec", "min_free": "2M",
                                  "on_failure": "refuse"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    c = harness.Client(p, key=keys.make("alice"))
    shell = c.shell()
    fill(small_disk, 1 << 20)
    wait_until(lambda: p.events("recording-short"), "the shortage is an event")
    shell.sendline("echo on-$((1+1))")
    shell.expect("on-2")
    assert c.ssh("true").returncode == 255


@pytest.mark.parametrize("mode", ["no", "echoed", "all"])
def test_input(make_proxy, target, keys, scratch, mode):
    p = make_proxy({"recording": {"input": mode}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    shell = harness.Client(p, key=keys.make("alice")).shell()
    shell.sendline("echo visible-$((1+2))")
    shell.expect("visible-3")
    shell.expect(r"READY[$#] ")
    shell.sendline("read -s -p 'Secret: ' x; echo got-${#x}")
    shell.expect("Secret: ")
    shell.sendline("hunter2hunter2")
    shell.expect("got-14")
    shell.expect(r"READY[$#] ")
    shell.sendline("exit")
    shell.expect(harness.pexpect.EOF)
    row = ended(p)
    _, _, events = export(p, row["id"], scratch)
    typed = "".join(e[2] for e in events if e[1] == "i")
    assert ("visible" in typed) == (mode != "no")
    assert ("hunter2" in typed) == (mode == "all")
    stored, = [os.path.join(d, f) for d, _, fs in os.walk(p.recordings) for f in fs]
    plain = subprocess.run(["zstd", "-dcq", stored], capture_output=True, check=True).stdout
    assert (b"hunter2" in plain) == (mode == "all")
    with open(p.log_path, "rb") as f:
        assert b"hunter2" not in f.read()


def played(proxy, recording, *more):
    """Everything that `play` writes onto a terminal, to its end."""
    out, code = pexpect.run(
        shlex.join([os.path.join(harness.bin_dir(), "sallyctl"), "--socket", proxy.socket,
                    "recording", "play", recording, "--speed", "100", *more]),
        withexitstatus=True, env=dict(proxy.env(), TERM="xterm-256color", LC_ALL="C.UTF-8"),
        timeout=30)
    assert code == 0, out
    return out


HOSTILE = {
    "clipboard": b"\x1b]52;c;aGFoYQ==\x07",
    "clipboard, ended by ST": b"\x1b]52;c;aGFoYQ==\x1b\\",
    "clipboard, 8 bit": b"\xc2\x9d52;c;aGFoYQ==\xc2\x9c",
    "clipboard, bare C1": b"\x9d52;c;aGFoYQ==\x9c",
    "title": b"\x1b]0;owned\x07\x1b]2;owned\x07",
    "report of the title": b"\x1b[21t\x1b[20t",
    "device attributes": b"\x1b[c\x1b[>c\x1b[=c\x1b[0c\x1bZ",
    "device attributes, 8 bit": b"\xc2\x9bc\x9bc",
    "position and status": b"\x1b[6n\x1b[5n\x1b[?6n\x1b[?15n",
    "terminfo and settings": b"\x1bP+q544e\x1b\\\x1bP$qm\x1b\\",
    "answerback": b"\x05",
    "sixel": b"\x1bPq#0;2;0;0;0" + b"~" * 5000 + b"\x1b\\",
    "pictures": b"\x1b_Ga=q,i=1;AAAA\x1b\\\x1b]1337;File=inline=1:AAAA\x07",
    "privacy message and start of string": b"\x1b^hidden\x1b\\\x1bXhidden\x1b\\",
    "colours": b"\x1b]4;1;?\x07\x1b]10;?\x07\x1b]11;?\x07\x1b]104\x07",
    "hyperlink": b"\x1b]8;;file:///etc/passwd\x1b\\link\x1b]8;;\x1b\\",
    "size of the window": b"\x1b[8;9999;9999t\x1b[4;9999;9999t\x1b[3;0;0t\x1b[2t",
    "mouse, paste and focus": b"\x1b[?1000h\x1b[?1003h\x1b[?1006h\x1b[?2004h\x1b[?1004h",
    "keys": b"\x1b[>4;2m\x1b[>1u\x1b[=5u\x1b[?1h\x1b=",
    "macros, printer and loops": b"\x1bP1;1;1!zaaaa\x1b\\\x1b[1*z\x1b[5i\x1b[?5i\x1b[4i",
    "a string that never ends": b"\x1b]0;never",
    "repeat": b"a\x1b[999999999b",
    "reset": b"\x1bc",
    "line attributes and test pattern": b"\x1b#8\x1b#3",
    "sequence within a sequence": b"\x1b[3\x1b]52;c;aGFoYQ==\x07\x1b[1\x18\x1b[\x1a6n",
    "paragraphs of parameters": b"\x1b[" + b"1;" * 5000 + b"n",
}


def typed_lines(proxy, scratch):
    """What the newest recording keeps of the user's keys."""
    row = ended(proxy)
    _, _, events = export(proxy, row["id"], scratch)
    stored, = [os.path.join(d, f) for d, _, fs in os.walk(proxy.recordings) for f in fs]
    everything = subprocess.run(["zstd", "-dcq", stored], capture_output=True, check=True).stdout
    with open(stored, "rb") as f:
        everything += f.read()  # the frames between hold exact bytes
    return [e[2].rstrip("\r") for e in events if e[1] == "i"], everything


@pytest.fixture
def echoed(make_proxy, target, keys):
    p = make_proxy({"recording": {"input": "echoed"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    shell = harness.Client(p, key=keys.make("alice")).shell()

    def leave():
        shell.sendline("exit")
        shell.expect(pexpect.EOF)

    shell.leave = leave
    return p, shell


def test_echoed_input_keeps_edited_lines(echoed, scratch):
    """Readline: corrections are applied, and what ran is what is kept."""
    p, shell = echoed
    for keys, says in (
            ("echo plain-$((1+1))", "plain-2"),
            ("echo corrextx\b\b\bcted-$((1+2))", "corrected-3"),  # Backspace as ^H
            ("echo rubbx\x7fed-$((1+3))", "rubbed-4"),
            ("echo gone gone\x17there-$((1+4))", "gone there-5"),  # ^W
            ("nonsense\x15echo anew-$((1+5))", "anew-6"),  # ^U
            ("echo ä€\U0001f642-$((1+6))", "ä€\U0001f642-7")):
        shell.sendline(keys)
        shell.expect("[\r\n]" + re.escape(says))
        shell.expect("READY[$#] ")
    shell.leave()
    lines, _ = typed_lines(p, scratch)
    assert lines == ["echo plain-$((1+1))", "echo corrected-$((1+2))", "echo rubbed-$((1+3))",
                     "echo gone there-$((1+4))", "echo anew-$((1+5))",
                     "echo ä€\U0001f642-$((1+6))", "exit"]


def test_echoed_input_keeps_no_password_of_sudo(echoed, scratch):
    if not shutil.which("sudo") or not harness.IS_ROOT:
        pytest.skip("needs sudo, and root to become somebody who must type a password")
    p, shell = echoed
    shell.sendline("setpriv --reuid nobody --regid nogroup --clear-groups "
                   "sudo -k -p 'Your word: ' id")
    if shell.expect(["Your word: ", "READY[$#] "]) == 1:
        pytest.skip("sudo does not ask here: " + shell.before)
    shell.sendline("swordfish-1")
    shell.expect("Your word: ")
    shell.sendline("swordfish-2")
    shell.expect("Your word: ")
    shell.sendintr()
    shell.expect("READY[$#] ")
    shell.sendline("echo after-$((1+1))")
    shell.expect("after-2")
    shell.leave()
    lines, everything = typed_lines(p, scratch)
    assert "echo after-$((1+1))" in lines
    assert not any("swordfish" in line for line in lines)
    assert b"swordfish" not in everything


def test_echoed_input_keeps_nothing_unseen(echoed, scratch):
    """Prompts that show nothing, or stars; pasted with the Enter; typed ahead."""
    p, shell = echoed
    for ask in ("read -s -p 'W''ord: ' x; echo",
                "stty -echo; printf 'W''ord: '; read x; stty echo; echo",
                "stty -echo -icanon; printf 'W''ord: '; x=; while read -r -n1 c; do [ -z \"$c\" ] "
                "&& break; x=$x$c; printf '*'; done; stty echo icanon; echo"):
        shell.sendline(ask)
        shell.expect("Word: ")  # not in the line that asks for it: it comes when echo is off
        shell.sendline("secret-abc-123")
        shell.expect("READY[$#] ")
        shell.sendline("echo got-${#x}")
        shell.expect("got-14")
        shell.expect("READY[$#] ")
    shell.leave()
    lines, everything = typed_lines(p, scratch)
    assert lines.count("echo got-${#x}") == 3
    assert not any("secret-abc" in line for line in lines)
    assert b"secret-abc" not in everything


def test_echoed_input_keeps_nothing_of_vim(echoed, scratch):
    p, shell = echoed
    path = os.path.join(scratch, harness.random_name())
    shell.sendline("vim -u NONE -i NONE -N --noplugin " + path)
    shell.expect("New")
    shell.send("iwritten in vim\rsecond line\x1b:wq\r")
    shell.expect("READY[$#] ")
    with open(path) as f:
        assert f.read() == "written in vim\nsecond line\n"
    shell.sendline("echo back-$((1+1))")
    shell.expect("back-2")
    shell.leave()
    lines, _ = typed_lines(p, scratch)
    assert lines == ["vim -u NONE -i NONE -N --noplugin " + path, "echo back-$((1+1))", "exit"]


MOVES_AND_COLOURS = re.compile(
    r"\x1b\[[0-9;:]*m|\x1b\[\??(6|7|12|25|47|1047|1048|1049)[hl]|\x1b\[!p|\x1b\[[0-9]* q"
    r"|\x1b\[[0-9;]*[@A-HJKLMPSTX`abdefgr]|\x1b[78MDEH]|\x1b\([0B]|\x1b#[3-68]")


def test_hostile_recording_drives_no_terminal(proxy, client, scratch):
    """Playing what an attacker printed: nothing that answers, stores, or outlives the playback."""
    own = []
    for number, items in enumerate(({}, HOSTILE), 1):
        path = os.path.join(scratch, harness.random_name())
        with open(path, "wb") as f:
            f.write(b"the begin\r\n")
            for what, data in items.items():
                f.write(b"<" + data + b"\x18\x1b\\ and \x1b[31mred\x1b[0m: " + what.encode() +
                        b">\r\n")
            f.write(b"the end\r\n")
        client.popen("stty raw -echo; cat " + path, flags=("-tt",)).communicate(timeout=30)
        out = played(proxy, ended(proxy, number)["id"])
        before, inside, after = re.fullmatch(rb"(.*the begin\r\n)(.*)(the end\r\n.*)", out,
                                             re.S).groups()
        own.append((before, re.sub(rb"recording \d+: complete, [0-9.]+ s", b"", after)))
    assert own[0] == own[1]  # the player's own words stay the same
    text = inside.decode()  # and what it plays is valid UTF-8, whatever was sent
    shown = dict((what, part) for part, what in re.findall(r"<(.*?): ([^>]*)>\r\n", text, re.S))
    assert set(shown) == set(HOSTILE)
    for what, part in shown.items():
        assert part.endswith(" and \x1b[31mred\x1b[0m"), what  # what is harmless is shown
        assert len(part) < 10000, what
        for c in MOVES_AND_COLOURS.sub("", part):
            assert (ord(c) >= 32 or c in "\r\n\t\b\x0e\x0f") and not 0x7f <= ord(c) < 0xa0, (
                what, ascii(part))
    for word in ("owned", "hidden", "~~"):
        assert word not in text
    for count in re.findall(r"\x1b\[([0-9]+)b", text):
        assert int(count) <= 1000


def test_absurd_sizes(proxy, client, keys, scratch):
    """A client that claims a window of a million columns makes nobody draw one."""
    paramiko = pytest.importorskip("paramiko")
    harness.need_terminals()
    ssh = paramiko.SSHClient()
    ssh.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    ssh.connect("127.0.0.1", proxy.port, client.login, key_filename=client.key,
                allow_agent=False, look_for_keys=False)
    channel = ssh.get_transport().open_session()
    channel.get_pty("xterm", 1000000, 1000000)
    channel.exec_command("echo ready; read x; stty size; read x; stty size")
    channel.settimeout(30)
    seen = b""
    while b"ready" not in seen:
        seen += channel.recv(1000)
    channel.resize_pty(4000000000, 4000000000, 4000000000, 4000000000)
    channel.send(b"\n")
    channel.resize_pty(0, 0)
    channel.send(b"\n")
    while not channel.exit_status_ready() or channel.recv_ready():
        seen += channel.recv(1000)
    ssh.close()
    row = ended(proxy)
    assert row["endReason"] == "user-exit"
    _, head, events = export(proxy, row["id"], scratch)
    assert 1 <= head["width"] <= 1000 and 1 <= head["height"] <= 1000
    for event in events:
        if event[1] == "r":
            cols, rows = (int(n) for n in event[2].split("x"))
            assert 1 <= cols <= 1000 and 1 <= rows <= 1000
    assert b"ready" in played(proxy, row["id"])
