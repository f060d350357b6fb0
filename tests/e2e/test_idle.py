"""Idle: what counts as activity, the warning, the end, for each kind of channel."""
import subprocess
import time

import pytest

import harness
from harness import wait_until

QUICK = {"idle_after": "1s", "warn_after": "2s", "disconnect_after": "4s"}
WARNING = "Idle for 2 seconds: you will be disconnected in 2 seconds unless you press a key."


@pytest.fixture
def quick(make_proxy, target, keys):
    p = make_proxy({"idle": QUICK})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    return p


@pytest.fixture
def client(quick, keys):
    return harness.Client(quick, key=keys.make("alice"))


def test_warned_then_ended(quick, client):
    shell = client.shell()
    quick.wait_sessions(1, "active")
    quick.wait_sessions(1, "idle")
    shell.expect_exact(WARNING)
    shell.expect_exact("You have been disconnected: idle for 4 seconds")
    shell.expect("Received disconnect from 127.0.0.1 port [0-9]+:[0-9]+: "
                 "You have been disconnected: idle for 4 seconds")
    shell.expect(harness.pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 255
    row = quick.wait_history(1)[0]
    assert row["endReason"] == "idle-timeout" and row["endedBy"] == "policy"
    assert row["endText"] == "You have been disconnected: idle for 4 seconds"
    assert 4 <= row["durationSeconds"] <= 12
    assert len(quick.events("idle-warning")) == 1


def test_any_key_clears_the_warning(quick, client):
    shell = client.shell()
    for i in range(2):
        shell.expect_exact(WARNING)
        shell.send("\r")
        quick.wait_sessions(1, "active")
    assert len(quick.history()) == 0
    shell.sendline("echo awake-$((3+3))")
    shell.expect("awake-6")


def test_typing_keeps_it_active(quick, client):
    shell = client.shell()
    end = time.monotonic() + 6
    while time.monotonic() < end:
        shell.send("x")
        time.sleep(0.3)
    assert quick.sessions()[0]["status"] == "active"
    assert quick.events("idle-warning") == []


def test_output_alone_is_no_input(quick, client):
    """`auto` on a terminal counts what the user types, not what the target prints."""
    shell = client.terminal("while sleep 0.2; do echo tick; done")
    shell.expect("tick")
    shell.expect_exact("You have been disconnected: idle for 4 seconds")
    assert quick.wait_history(1)[0]["endReason"] == "idle-timeout"


def test_resize_is_no_activity(quick, client):
    shell = client.shell()
    quick.wait_sessions(1, "idle")
    for n in range(5):
        shell.setwinsize(30 + n, 90)
    shell.expect_exact("You have been disconnected: idle for 4 seconds")


def test_keepalives_of_the_client_are_no_activity(quick, keys):
    c = harness.Client(quick, key=keys.make("alice"),
                       options=["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=100"])
    shell = c.shell()
    shell.expect_exact("You have been disconnected: idle for 4 seconds")


def test_traffic_counts_when_told_to(quick, client):
    quick.do("target", "set", "web01", "counts=traffic")
    shell = client.terminal("for i in $(seq 13); do sleep 0.5; echo tick$i; done")
    shell.expect("tick13")
    shell.expect(harness.pexpect.EOF)
    assert quick.wait_history(1)[0]["endReason"] == "user-exit"


def test_running_command_is_never_idle(quick, client):
    began = time.monotonic()
    r = client.ssh("sleep 7; echo finished")
    assert r.stdout == "finished\n" and r.returncode == 0
    assert time.monotonic() - began >= 7
    assert quick.wait_history(1)[0]["endReason"] == "user-exit"
    assert quick.events("idle-warning") == []


def test_running_command_is_idle_when_the_policy_says_so(quick, client):
    quick.do("target", "set", "web01", "counts=input")
    r = client.ssh("sleep 60")
    assert r.returncode == 255
    assert r.stdout == ""  # never into a protocol
    assert "You have been disconnected: idle for 4 seconds" in r.stderr
    assert "Idle for 2 seconds" not in r.stderr
    assert len(quick.events("idle-warning")) == 1  # who cannot be warned is warned by an event


def test_busy_sftp_is_active(quick, client):
    sftp = subprocess.Popen(["sftp", *client.common(), "-P", str(quick.port),
                             client.login + "@127.0.0.1"], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(12):
        sftp.stdin.write("ls /etc/hostname\n")
        sftp.stdin.flush()
        time.sleep(0.5)
    assert quick.sessions()[0]["status"] == "active"
    sftp.communicate(timeout=30)
    assert sftp.returncode == 0
    assert quick.wait_history(1)[0]["endReason"] == "user-exit"


def test_silent_sftp_is_ended(quick, client):
    sftp = subprocess.Popen(["sftp", *client.common(), "-P", str(quick.port),
                             client.login + "@127.0.0.1"], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    row = quick.wait_history(1)[0]
    assert row["endReason"] == "idle-timeout"
    out, err = sftp.communicate(timeout=30)
    assert "You have been disconnected: idle for 4 seconds" in err
    assert "disconnected" not in out


def test_most_active_channel_counts(quick, keys, scratch):
    """A silent terminal beside a busy transfer on the same connection: one session, active."""
    c = harness.Client(quick, key=keys.make("alice"), options=[
        "-o", "ControlMaster=auto", "-o", "ControlPath=%s/%s" % (scratch, harness.random_name())])
    shell = c.shell()
    sftp = subprocess.Popen(["sftp", *c.common(), "-P", str(quick.port),
                             c.login + "@127.0.0.1"], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(12):
        sftp.stdin.write("ls /etc/hostname\n")
        sftp.stdin.flush()
        time.sleep(0.5)
    row, = quick.sessions()
    assert row["status"] == "active"
    sftp.communicate(timeout=30)
    shell.expect_exact(WARNING)  # now only the terminal is left
    shell.expect_exact("You have been disconnected: idle for 4 seconds")


def test_fake_keystrokes_are_no_activity(quick, keys):
    """OpenSSH from 9.5 on hides when keys are pressed by sending more that are none."""
    options = ["-o", "ObscureKeystrokeTiming=interval:20"]
    if harness.run("ssh", "-G", *options, "somewhere").returncode:
        pytest.skip("this client has no ObscureKeystrokeTiming")
    shell = harness.Client(quick, key=keys.make("alice"), options=options).shell()
    for key in "echo":
        shell.send(key)
        time.sleep(0.05)
    shell.expect_exact(WARNING)
    shell.expect_exact("You have been disconnected: idle for 4 seconds")


def test_no_warning_without_a_time_for_it(make_proxy, target, keys):
    p = make_proxy({"idle": {"idle_after": "1s", "warn_after": "0", "disconnect_after": "3s"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    shell = harness.Client(p, key=keys.make("alice")).shell()
    shell.expect_exact("You have been disconnected: idle for 3 seconds")
    assert "Idle for" not in shell.before
    assert p.events("idle-warning") == []


@pytest.mark.parametrize("where", ["target", "role", "grant"])
def test_narrower_policies(make_proxy, target, keys, where):
    """Configuration 30 minutes, one of target, role and grant 3 seconds: the narrower one holds."""
    p = make_proxy()
    p.add_user("alice", key=keys.make("alice")).add_target(target)
    keys_ = ["idle_after=1s", "warn_after=1s", "disconnect_after=3s"]
    p.do("grant", "add", "alice", "web01", *(keys_ if where == "grant" else []))
    if where == "target":
        p.do("target", "set", "web01", *keys_)
    elif where == "role":
        p.do("role", "set", "user", *keys_)
    shell = harness.Client(p, key=keys.make("alice")).shell()
    shell.expect_exact("You have been disconnected: idle for 3 seconds")
    assert p.wait_history(1)[0]["endReason"] == "idle-timeout"


def test_new_policy_holds_for_live_sessions(proxy, keys):
    """A policy that is set on the target while somebody is there: no new login is needed."""
    shell = harness.Client(proxy, key=keys.make("alice")).shell()
    proxy.wait_sessions(1, "active")
    proxy.do("target", "set", "web01", *("%s=%s" % row for row in QUICK.items()))
    shell.expect_exact(WARNING)
    proxy.do("target", "set", "web01", "warn_after=20s", "disconnect_after=30s")
    shell.send("x")
    proxy.wait_sessions(1, "active")
    proxy.wait_sessions(1, "idle")
    proxy.do("target", "set", "web01", "max_duration=3s")
    shell.expect_exact("You have been disconnected: the maximum duration of 3 seconds is reached")
    assert proxy.wait_history(1)[0]["endReason"] == "max-duration"


def test_maximum_duration(make_proxy, target, keys):
    p = make_proxy()
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant(
        "alice", "web01", "max_duration=3s")
    shell = harness.Client(p, key=keys.make("alice")).shell()
    while True:
        shell.send("x")  # activity does not help
        if shell.expect([r"You have been disconnected: the maximum duration of 3 seconds is "
                         r"reached", harness.pexpect.TIMEOUT], timeout=0.3) == 0:
            break
    assert p.wait_history(1)[0]["endReason"] == "max-duration"
