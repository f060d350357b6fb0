"""Life without a broker: each rule of docs/link.md, with a session up."""
import glob
import hashlib
import os
import signal
import time

import pytest

import harness
from harness import wait_until


def restart(proxy, sig=signal.SIGKILL):
    if sig == signal.SIGKILL:
        proxy.kill()
    else:
        assert proxy.stop(sig) == 0
    return proxy.start()


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM])
def test_session_goes_on_and_is_listed_truly(proxy, client, sig):
    shell = client.shell()
    shell.sendline("echo one-$((1+1))")
    shell.expect("one-2")
    before = proxy.wait_sessions(1, "active")[0]
    relays = proxy.relays()
    restart(proxy, sig)
    shell.sendline("echo two-$((1+2))")
    shell.expect("two-3")
    after = proxy.wait_sessions(1)[0]
    assert (after["id"], after["startTime"]) == (before["id"], before["startTime"])
    assert after["user"] == "alice" and after["resourceName"] == "web01"
    wait_until(lambda: proxy.sessions()[0]["bytesIn"] > before["bytesIn"], "totals go on")
    assert proxy.relays() == relays
    assert proxy.json("status")["adopted"] == 1
    # and it can be ended
    proxy.do("session", "end", after["id"], "--reason", "maintenance", "-y")
    shell.expect("You have been disconnected: ended by admin root \\(maintenance\\)")
    shell.expect(harness.pexpect.EOF)
    row = proxy.wait_history(1)[0]
    assert row["endReason"] == "admin-ended"
    assert proxy.relays() == []


def test_sigterm_is_quick(proxy, client):
    client.shell()
    began = time.monotonic()
    assert proxy.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < 5  # a second, on a machine that is not busy
    assert len(proxy.relays()) == 1
    proxy.start()


def test_transfer_survives(proxy, client, scratch):
    """Bytes of a copy that runs over two restarts arrive as they were."""
    p = client.popen("for i in $(seq 1 60); do head -c 200000 /dev/zero | tr '\\0' $((i % 10));"
                     " sleep 0.1; done")
    got = hashlib.sha256()
    chunk = p.stdout.read1(65536)
    got.update(chunk)
    restart(proxy)
    got.update(p.stdout.read1(65536))
    restart(proxy, signal.SIGTERM)
    while chunk:
        chunk = p.stdout.read1(65536)
        got.update(chunk)
    assert p.wait(60) == 0
    want = hashlib.sha256(b"".join(str(i % 10).encode() * 200000 for i in range(1, 61)))
    assert got.hexdigest() == want.hexdigest()
    row = proxy.wait_history(1)[0]
    assert row["bytesOut"] == 60 * 200000
    assert row["endReason"] == "user-exit"


def test_login_in_progress_survives(make_proxy, target, keys):
    """The broker dies while a client is at its password prompt."""
    p = make_proxy()
    p.add_user("alice", password="correct horse").add_target(target).grant()
    c = harness.Client(p, options=["-o", "PreferredAuthentications=password",
                                   "-o", "NumberOfPasswordPrompts=3"])
    t = c.terminal("echo logged-$((40+2))")
    t.expect("assword:")
    t.sendline("wrong")
    t.expect("assword:")
    wait_until(lambda: p.events("login-failed"), "the attempt is in the store")
    p.kill()
    t.sendline("correct horse")  # nobody there to check it: the client waits
    time.sleep(0.5)
    assert t.isalive()
    p.start()
    t.expect("logged-42")
    t.expect(harness.pexpect.EOF)
    failed = p.events("login-failed")
    assert len(failed) == 1  # the attempt before the restart, counted once


def test_end_while_alone_is_told(proxy, client):
    """The user leaves while no broker is there: the relay waits for one and tells."""
    shell = client.shell()
    shell.sendline("echo mark-$((2+2))")
    shell.expect("mark-4")
    live = proxy.wait_sessions(1)[0]
    proxy.kill()
    shell.sendline("exit")
    shell.expect(harness.pexpect.EOF)
    proxy.start()
    row = proxy.wait_history(1)[0]
    assert row["id"] == live["id"]
    assert row["endReason"] == "user-exit"
    assert row["bytesOut"] > 0
    wait_until(lambda: not proxy.relays(), "the relay leaves")


def test_crash_while_alone_is_broker_lost(proxy, client):
    client.shell()
    live = proxy.wait_sessions(1)[0]
    relay, = proxy.relays()
    proxy.kill()
    os.kill(relay, signal.SIGKILL)
    wait_until(lambda: not harness.alive(relay), "the relay is dead")
    proxy.start()
    row = proxy.wait_history(1)[0]
    assert row["id"] == live["id"]
    assert row["endReason"] == "broker-lost"
    assert proxy.sessions() == []


def test_late_relay_reopens_its_row(proxy, client):
    """A relay that is stopped while the next broker scans is not ended for being late."""
    proxy.set({"proxy": {"adopt_grace": "1s"}})
    shell = client.shell()
    live = proxy.wait_sessions(1)[0]
    relay, = proxy.relays()
    proxy.kill()
    os.kill(relay, signal.SIGSTOP)
    proxy.spawn()
    wait_until(lambda: proxy.is_up(), "the proxy serves")
    row = proxy.wait_history(1)[0]
    assert row["endReason"] == "broker-lost"
    os.kill(relay, signal.SIGCONT)
    back = proxy.wait_sessions(1)[0]
    assert back["id"] == live["id"] and back["endReason"] is None
    shell.sendline("echo late-$((3+4))")
    shell.expect("late-7")
    shell.sendline("exit")
    shell.expect(harness.pexpect.EOF)
    row = proxy.wait_history(1)[0]
    assert row["endReason"] == "user-exit"


def test_idle_end_while_alone(make_proxy, target, keys):
    p = make_proxy({"idle": {"idle_after": "1s", "warn_after": "2s", "disconnect_after": "4s"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    shell = harness.Client(p, key=keys.make("alice")).shell()
    p.kill()
    shell.expect("You have been disconnected: idle for 4 seconds")
    shell.expect(harness.pexpect.EOF)
    p.start()
    assert p.wait_history(1)[0]["endReason"] == "idle-timeout"


def test_maximum_duration_while_alone(make_proxy, target, keys):
    p = make_proxy({"limits": {"max_duration": "3s"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    shell = harness.Client(p, key=keys.make("alice")).shell()
    p.kill()
    shell.expect("You have been disconnected: the maximum duration of 3 seconds is reached")
    p.start()
    assert p.wait_history(1)[0]["endReason"] == "max-duration"


def test_broker_lost_after(make_proxy, target, keys):
    p = make_proxy({"proxy": {"broker_lost_after": "2s"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    shell = harness.Client(p, key=keys.make("alice")).shell()
    p.kill()
    shell.expect("You have been disconnected: ")
    shell.expect(harness.pexpect.EOF)
    p.start()
    assert p.wait_history(1)[0]["endReason"] == "broker-lost"


def test_second_broker_is_refused(proxy, client):
    shell = client.shell()
    second = harness.run(*proxy.argv(), env=proxy.env())
    assert second.returncode == 1
    assert "another sallyportd" in second.stderr
    shell.sendline("echo still-$((5+5))")
    shell.expect("still-10")
    assert len(proxy.sessions()) == 1
    assert client.ssh("true").returncode == 0


def test_second_broker_with_a_store_of_its_own_is_refused(proxy, client):
    """One run_dir is one broker's: another would find relays that its store does not know."""
    shell = client.shell()
    other = os.path.join(proxy.dir, "other")
    second = os.path.join(proxy.dir, "second.conf")
    with open(proxy.conf) as f, open(second, "w") as out:
        out.write(f.read().replace("data_dir = " + proxy.data, "data_dir = " + other).replace(
            ":%d" % proxy.port, ":%d" % harness.free_port()))
    r = harness.run(proxy.argv()[0], "-c", second, env=proxy.env())
    assert r.returncode == 1 and "uses this run_dir" in r.stderr
    shell.sendline("echo still-$((5+5))")
    shell.expect("still-10")
    assert client.ssh("true").returncode == 0


@pytest.mark.parametrize("which", ["data", "run_dir"])
def test_a_folder_that_everybody_writes_is_refused(make_proxy, which):
    p = make_proxy(start=False)
    path = getattr(p, which)
    os.makedirs(path)
    os.chmod(path, 0o777)
    r = harness.run(*p.argv(), env=p.env())
    assert r.returncode == 1 and path in r.stderr and "everybody" in r.stderr
    os.chmod(path, 0o755)
    p.start()


def test_a_folder_that_is_a_link_is_refused(make_proxy):
    p = make_proxy(start=False)
    elsewhere = os.path.join(p.dir, "elsewhere")
    os.mkdir(elsewhere, 0o755)
    os.symlink(elsewhere, p.run_dir)
    r = harness.run(*p.argv(), env=p.env())
    assert r.returncode == 1 and "not a directory" in r.stderr
    assert os.stat(elsewhere).st_uid == os.geteuid() and os.listdir(elsewhere) == []


def test_upgrade_from_the_previous_link_version(proxy, client):
    """Daemon and gate of the previous release are replaced with a session up."""
    proxy.stop()
    proxy.release = "v1"
    proxy.start()
    shell = client.shell()
    before = proxy.wait_sessions(1, "active")[0]
    assert proxy.stop(signal.SIGTERM) == 0
    proxy.release = ""
    proxy.start()
    shell.sendline("echo old-$((6+6))")
    shell.expect("old-12")
    after = proxy.wait_sessions(1)[0]
    assert (after["id"], after["startTime"]) == (before["id"], before["startTime"])
    assert client.ssh("echo new").stdout == "new\n"
    proxy.do("session", "end", before["id"], "-y")
    shell.expect("You have been disconnected: ended by admin root")
    shell.expect(harness.pexpect.EOF)
    rows = {r["id"]: r["endReason"] for r in proxy.wait_history(2)}
    assert rows[before["id"]] == "admin-ended"


def test_sigint_ends_sessions_with_a_notice(make_proxy, target, keys):
    p = make_proxy({"proxy": {"shutdown_grace": "1s"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    shell = harness.Client(p, key=keys.make("alice")).shell()
    assert p.stop(signal.SIGINT) == 0
    shell.expect("You have been disconnected: Sallyport is shutting down")
    shell.expect(harness.pexpect.EOF)
    assert p.relays() == []
    p.start()
    assert p.wait_history(1)[0]["endReason"] == "shutdown"


def test_relay_sigterm_is_a_shutdown(proxy, client):
    shell = client.shell()
    os.kill(proxy.relays()[0], signal.SIGTERM)
    shell.expect("You have been disconnected: ")
    assert proxy.wait_history(1)[0]["endReason"] == "shutdown"


def test_gate_that_dies_costs_no_session(proxy, client):
    shell = client.shell()
    os.kill(proxy.gate(), signal.SIGKILL)
    shell.sendline("echo there-$((7+7))")
    shell.expect("there-14")
    wait_until(lambda: client.ssh("echo again").stdout == "again\n", "a new gate accepts")
    assert len(proxy.sessions()) == 1


def test_sockets_of_gone_relays_are_removed(proxy, client):
    assert client.ssh("true").returncode == 0
    wait_until(lambda: not glob.glob(proxy.run_dir + "/relay/*.sock"), "the folder is empty")
    shell = client.shell()
    proxy.kill()
    os.kill(proxy.relays()[0], signal.SIGKILL)
    proxy.start()
    wait_until(lambda: not glob.glob(proxy.run_dir + "/relay/*.sock"), "the folder is empty")
    assert not shell.isalive() or shell.wait() != 0


def test_reload_applies_to_live_sessions(proxy, client):
    shell = client.shell()
    proxy.set({"idle": {"idle_after": "1s", "warn_after": "2s", "disconnect_after": "4s"}})
    out = proxy.do("reload")
    assert "[idle] disconnect_after: 30m -> 4s" in out
    shell.expect("Idle for 2 seconds: you will be disconnected in 2 seconds unless you press a key")
    shell.expect("You have been disconnected: idle for 4 seconds")
    assert proxy.wait_history(1)[0]["endReason"] == "idle-timeout"
    assert "[idle] idle_after: 5m -> 1s" in proxy.log()


def test_no_login_is_lost_while_reloading(proxy, client):
    failed = []
    for i in range(20):
        p = client.popen("true")
        proxy.process.send_signal(signal.SIGHUP)
        if p.wait(60) != 0:
            failed.append((i, p.stderr.read()))
        p.stdin.close()
        p.stdout.close()
        p.stderr.close()
    assert failed == []


def test_key_rotation_does_not_orphan_relays(proxy, client):
    shell = client.shell()
    proxy.do("store", "rotate-key")
    restart(proxy)
    assert len(proxy.wait_sessions(1)) == 1
    shell.sendline("echo on-$((1+1))")
    shell.expect("on-2")
    assert client.ssh("echo fine").stdout == "fine\n"  # the target's secret opens too
