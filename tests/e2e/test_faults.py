"""No ghosts: whatever is killed, the list equals the live relays and the history tells the truth."""
import os
import pwd
import resource
import signal
import socket
import subprocess
import time

import pytest

import harness
from harness import wait_until


def started(client, proxy):
    shell = client.shell()
    shell.sendline("echo up-$((1+1))")
    shell.expect("up-2")
    return shell, proxy.wait_sessions(1, "active")[0]


def gone(proxy):
    wait_until(lambda: proxy.sessions() == [] and proxy.relays() == [], "list and relays are empty")
    return proxy.wait_history(1)[-1]


def test_client_killed(proxy, client):
    shell, live = started(client, proxy)
    os.kill(shell.pid, signal.SIGKILL)
    row = gone(proxy)
    assert row["id"] == live["id"] and row["endReason"] == "network-lost"


def test_client_leaves(proxy, client):
    shell, live = started(client, proxy)
    shell.sendline("exit 3")
    shell.expect(harness.pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 3
    row = gone(proxy)
    assert row["endReason"] == "user-exit" and row["endedBy"] == "alice"


def test_target_killed(proxy, client, target):
    shell, live = started(client, proxy)
    for pid in target.sessions():
        below = harness.children(pid)
        os.kill(pid, signal.SIGKILL)  # first: an sshd that sees its shell die says so in order
        for child in below:
            os.kill(child, signal.SIGKILL)
    shell.expect("You have been disconnected: the target closed the connection")
    row = gone(proxy)
    assert row["endReason"] == "target-closed" and row["endedBy"] == "target"


def test_relay_killed(proxy, client):
    shell, live = started(client, proxy)
    count = 500000
    shell.sendline("head -c %d /dev/zero | tr '\\0' x | fold -w 70 | tail -n 1; echo; "
                   "head -c %d /dev/zero | tr '\\0' x; echo done-$((2+2))" % (count, count))
    shell.expect("done-4", timeout=60)
    shell.expect(r"READY[$#] ")
    wait_until(lambda: proxy.sessions()[0]["bytesOut"] > count, "bytes are counted")
    total = proxy.sessions()[0]
    os.kill(proxy.relays()[0], signal.SIGKILL)
    row = gone(proxy)
    assert row["endReason"] == "relay-crashed"
    assert (row["bytesIn"], row["bytesOut"]) == (total["bytesIn"], total["bytesOut"])


def test_exact_totals(proxy, client):
    data = b"0123456789abcdef" * 65536
    r = subprocess.run(client.ssh_argv("cat"), input=data, capture_output=True, check=True)
    assert r.stdout == data
    row = proxy.wait_history(1)[0]
    assert (row["bytesIn"], row["bytesOut"]) == (len(data), len(data))


def test_network_of_the_client_lost(make_proxy, target, keys):
    """No FIN, no RST: a frozen client is told by the keep-alives."""
    p = make_proxy({"ssh": {"keepalive_interval": "1s", "keepalive_count": "2"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    shell = harness.Client(p, key=keys.make("alice")).shell()
    os.kill(shell.pid, signal.SIGSTOP)
    try:
        row = gone(p)
        assert row["endReason"] == "network-lost"
    finally:
        os.kill(shell.pid, signal.SIGCONT)


def test_network_of_the_target_lost(make_proxy, target, keys):
    p = make_proxy({"ssh": {"keepalive_interval": "1s", "keepalive_count": "2"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    shell = harness.Client(p, key=keys.make("alice")).shell()
    frozen = target.sessions()
    for pid in list(frozen):
        frozen += harness.children(pid)
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        shell.expect("You have been disconnected: the target stopped answering")
        assert gone(p)["endReason"] == "target-closed"
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)


def test_broker_killed_at_random(proxy, client):
    """Ten times in the middle of logins and sessions: rows and relays agree each time."""
    for i in range(10):
        running = [client.popen("sleep 0.%d" % (n * 3)) for n in range(3)]
        time.sleep(0.05 * i)
        proxy.kill()
        proxy.start()
        for p in running:
            p.communicate(timeout=60)
        wait_until(lambda: proxy.sessions() == [] and not proxy.relays(), "all are gone")
    check = subprocess.run(["sqlite3", proxy.data + "/sallyport.db", "pragma integrity_check"],
                           capture_output=True, text=True, check=False) \
        if os.path.exists("/usr/bin/sqlite3") else None
    assert check is None or check.stdout == "ok\n"
    assert all(r["endReason"] in ("user-exit", "broker-lost", "network-lost", "policy")
               for r in proxy.history())


def test_no_zombies_nor_leaks(proxy, client):
    def counts():
        return tuple(len(os.listdir("/proc/%d/fd" % p)) for p in (proxy.process.pid, proxy.gate()))

    def settled():
        return (not os.listdir(proxy.run_dir + "/relay") and not harness.children(proxy.gate()) and
                proxy.json("status")["links"] == 0)

    client.ssh("true")
    wait_until(settled, "relays end")
    time.sleep(1)  # what asked whether all is settled, and the last sync, are over by now
    before = counts()
    for _ in range(5):
        ps = [client.popen("true") for _ in range(8)]
        for p in ps:
            p.communicate(timeout=60)
            assert p.returncode == 0
    wait_until(lambda: not proxy.relays(), "relays end")
    wait_until(lambda: harness.children(proxy.gate()) == [], "no zombies")
    wait_until(lambda: all(now <= then for now, then in zip(counts(), before)),
               "descriptors are as before")


def test_out_of_descriptors(make_proxy, target, keys):
    """accept() fails, nothing spins, control answers, and it recovers."""
    p = make_proxy(start=False)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    launch = p.argv()
    p.argv = lambda *more: ["/usr/bin/prlimit", "--nofile=40:40", *launch, *more]
    p.start()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits
    p.add_user("alice", key=keys.make("alice")).add_target(
        target, "web01", "record=no").grant()  # recordings have descriptors past this limit
    held = [socket.create_connection(("127.0.0.1", p.port), 30) for _ in range(80)]
    wait_until(lambda: p.json("status")["accepted"] > 5, "connections are accepted")
    before, began = cpu(p.gate()), time.monotonic()
    time.sleep(2)
    assert (cpu(p.gate()) - before) / (time.monotonic() - began) < 0.25
    assert p.ctl("status").returncode == 0
    for s in held:
        s.close()
    client = harness.Client(p, key=keys.make("alice"))
    wait_until(lambda: client.ssh("echo back").stdout == "back\n", "it recovers", timeout=60)


def cpu(pid):
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_database_locked_for_a_while(proxy, client):
    """Live sessions and reads are not affected, new sessions fail closed, nothing is lost."""
    import sqlite3
    shell, live = started(client, proxy)
    lock = sqlite3.connect(proxy.data + "/sallyport.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    shell.sendline("echo fine-$((4+4))")
    shell.expect("fine-8")
    assert len(proxy.sessions()) == 1
    refused = client.ssh("true")
    assert refused.returncode == 255 and "store" in refused.stderr
    shell.sendline("exit")
    shell.expect(harness.pexpect.EOF)
    wait_until(lambda: proxy.sessions() == [], "it left the list")
    lock.execute("COMMIT")
    lock.close()
    row = proxy.wait_history(1)[0]
    assert row["id"] == live["id"] and row["endReason"] == "user-exit"
    assert client.ssh("true").returncode == 0


@pytest.mark.parametrize("damage,says", [
    (lambda path: open(path, "r+b").write(b"this is no database, not at all"), "not"),
    (lambda path: _sql(path, "pragma user_version = 9999"), "newer"),
    (lambda path: _sql(path, "pragma application_id = 4711"), "another program"),
])
def test_bad_database_is_refused_and_untouched(make_proxy, damage, says):
    p = make_proxy()
    p.add_user("alice", password="x" * 12)
    p.stop()
    path = p.data + "/sallyport.db"
    damage(path)
    with open(path, "rb") as f:
        before = f.read()
    second = harness.run(*p.argv(), env=p.env())
    assert second.returncode == 1
    assert says in second.stderr, second.stderr
    with open(path, "rb") as f:
        assert f.read() == before


def _sql(path, statement):
    import sqlite3
    db = sqlite3.connect(path)
    db.execute(statement)
    db.commit()
    db.close()


def test_read_only_data_dir(make_proxy):
    p = make_proxy(start=False, as_user="nobody" if harness.IS_ROOT else None)
    os.makedirs(p.data, mode=0o500)
    if harness.IS_ROOT:
        os.chown(p.data, pwd.getpwnam("nobody").pw_uid, -1)
    args = p.popen_args()
    args.pop("start_new_session")
    r = harness.run(*p.argv(), **args)
    assert r.returncode == 1
    assert p.data in r.stderr and "cannot start" in r.stderr, r.stderr
    assert os.listdir(p.data) == []


def test_sessions_limit(make_proxy, target, keys):
    p = make_proxy({"limits": {"sessions_per_user": "1"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    c = harness.Client(p, key=keys.make("alice"))
    c.shell()
    r = c.ssh("true")
    assert r.returncode == 255 and "you have 1 sessions" in r.stderr
    assert len(p.sessions()) == 1
    p.set({"limits": {"sessions_per_user": "50", "max_sessions": "1"}})
    p.do("reload")
    r = c.ssh("true")
    assert r.returncode == 255 and "in use" in r.stderr
