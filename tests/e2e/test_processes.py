"""Two uids, the sandbox of a live relay, running as an ordinary user, reduced."""
import errno
import os
import pwd
import re
import shutil
import signal
import socket
import struct
import subprocess
import time

import pytest

import harness
import inject
from harness import ADMIN, wait_until

needs_root = pytest.mark.skipif(not harness.IS_ROOT, reason="needs root")


def status(pid):
    with open("/proc/%d/status" % pid) as f:
        return dict(re.findall(r"^(\w+):[ \t]*(.*)$", f.read(), re.M))


@needs_root
def test_who_runs_as_what(proxy, client):
    client.shell()
    relay, = proxy.relays()
    broker, gate = status(proxy.process.pid), status(proxy.gate())
    r = status(relay)
    sallyport = str(pwd.getpwnam("sallyport").pw_uid)
    assert set(broker["Uid"].split()) == {sallyport}
    assert set(gate["Uid"].split()) == {sallyport}
    assert set(r["Uid"].split()) == {str(pwd.getpwnam("sallyport-relay").pw_uid)}
    assert r["Groups"].strip() == ""
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(r[name], 16) == 0, name
    assert r["NoNewPrivs"] == "1" and r["Seccomp"] == "2"
    assert int(r["Seccomp_filters"]) >= 2  # the narrower one is on
    allowed = 1 << 6 | 1 << 7 | 1 << 18 | 1 << 5 | 1 << 10
    assert int(broker["CapEff"], 16) & ~allowed == 0
    assert int(gate["CapEff"], 16) & ~(1 << 6 | 1 << 7) == 0
    root = os.readlink("/proc/%d/root" % relay)
    assert root == proxy.run_dir + "/root" and os.listdir(root) == []
    assert os.readlink("/proc/%d/cwd" % relay) == root


@needs_root
def test_relay_opens_no_file(proxy, client):
    """A whole session under strace: after the fork a relay opens, connects and kills nothing."""
    if not shutil.which("strace"):
        pytest.skip("no strace")
    trace = os.path.join(proxy.dir, "trace")
    s = subprocess.Popen(["strace", "-f", "-qq", "-o", trace, "-e",
                          "trace=open,openat,connect,socket,execve,kill,unlink,rename,ftruncate",
                          "-p", str(proxy.gate())], stderr=subprocess.PIPE)
    wait_until(lambda: "TracerPid" in status(proxy.gate())
               and status(proxy.gate())["TracerPid"].strip() != "0", "strace is there")
    assert client.ssh("echo traced").stdout == "traced\n"
    wait_until(lambda: not proxy.relays(), "the relay is gone")
    s.terminate()
    s.wait()
    with open(trace) as f:
        calls = [line for line in f if "SIG" not in line and "+++" not in line]
    # libssh looks for known hosts in /dev/null: refused, like all that is not on the filter's list
    refused = [c for c in calls if c.endswith("= -1 EPERM (Operation not permitted)\n")]
    assert all("/dev/null" in c for c in refused), refused
    opened = [c for c in calls if c not in refused and
              re.search(r"\b(open|openat|execve|kill|rename|ftruncate)\(", c)]
    assert opened == []
    # what the gate's half does before it gives everything up: its own two sockets
    rest = [c for c in calls if c not in refused]
    assert rest
    for c in rest:
        assert re.search(r"relay/\d+\.sock|relay\.sock|socket\(AF_UNIX, SOCK_SEQPACKET", c), c


def attempts(proxy, relay, other):
    """What code that took over a relay would like to do, and none of which may work."""
    log_fd, recording_fd, its_socket = 2, 201, 3
    address = struct.pack("=H", socket.AF_UNIX) + proxy.socket.encode() + b"\0"
    yield "read a file", ("openat", -100, b"/etc/passwd\0", os.O_RDONLY)
    yield "read its folder", ("openat", -100, b".\0", os.O_RDONLY)
    yield "make a file", ("openat", -100, b"x\0", os.O_CREAT | os.O_WRONLY, 0o600)
    yield "remove another's socket", ("unlinkat", -100, b"relay/%d.sock\0" % other, 0)
    yield "make a TCP socket", ("socket", socket.AF_INET, socket.SOCK_STREAM, 0)
    yield "make a UNIX socket", ("socket", socket.AF_UNIX, socket.SOCK_STREAM, 0)
    yield "connect", ("connect", its_socket, address, len(address))
    yield "signal init", ("kill", 1, 0)
    yield "signal the broker", ("kill", proxy.process.pid, 9)
    yield "signal another relay", ("kill", other, 9)
    yield "signal everything", ("kill", -1, 9)
    yield "trace another relay", ("ptrace", inject.ATTACH, other, 0, 0)
    yield "read another relay", ("process_vm_readv", other, 0, 0, 0, 0, 0)
    yield "truncate the recording", ("ftruncate", recording_fd, 0)
    yield "seek in the recording", ("lseek", recording_fd, 0, 0)
    yield "write inside the recording", ("pwrite64", recording_fd, b"x", 1, 0)
    yield "write it without O_APPEND", ("fcntl", recording_fd, 4, os.O_WRONLY)
    yield "truncate the log", ("ftruncate", log_fd, 0)
    yield "run a program", ("execve", b"/bin/sh\0", 0, 0)
    yield "become root", ("setuid", 0)
    yield "mount", ("mount", b"none\0", b"/\0", b"tmpfs\0", 0, 0)
    yield "leave its root", ("chroot", b"/\0")
    yield "load a filter of its own", ("bpf", 0, 0, 0)


@needs_root
@pytest.mark.skipif(not inject.MACHINE, reason="knows no system calls of this machine")
@pytest.mark.parametrize("user", ["root", "nobody"])
@pytest.mark.parametrize("phase", ["login", "session"])
def test_what_a_relay_can_do(make_proxy, target, keys, phase, user):
    """From inside: a live relay makes the calls itself, with all that it holds."""
    p = make_proxy(as_user="nobody" if user == "nobody" else None)
    shell, _, other = works(p, target, keys)
    if phase == "login":
        client = socket.create_connection(("127.0.0.1", p.port))
        assert client.recv(4) == b"SSH-"
    else:
        client = harness.Client(p, key=keys.make("alice")).shell()
    relay, = wait_until(lambda: [r for r in p.relays() if r != other], "another relay")
    kept = os.path.getsize(p.log_path)
    possible = []
    with inject.Injector(relay) as run:
        assert run("getpid") == relay
        for what, call in attempts(p, relay, other):
            result = run(*call)
            if result not in (-errno.EPERM, -errno.ENOSYS, -errno.EACCES):
                possible.append((what, result))
    assert possible == []
    assert os.path.getsize(p.log_path) >= kept
    shell.sendline("echo the-other-$((1+1))")
    shell.expect("the-other-2")
    if phase == "session":
        client.sendline("echo still-$((1+1))")
        client.expect("still-2")
    else:
        client.close()


@pytest.mark.skipif(not inject.MACHINE, reason="knows no system calls of this machine")
def test_the_same_calls_work_elsewhere(scratch):
    """What the test above relies on: in a process that nobody confined they do work."""
    victim = subprocess.Popen(["sleep", "600"])
    path = os.path.join(scratch, harness.random_name())
    try:
        wait_until(lambda: status(victim.pid)["State"].startswith("S") and
                   os.readlink("/proc/%d/exe" % victim.pid).endswith("sleep"), "it sleeps")
        with inject.Injector(victim.pid) as run:
            fd = run("openat", -100, path.encode() + b"\0", os.O_CREAT | os.O_WRONLY, 0o600)
            assert fd >= 0 and os.path.exists(path)
            assert run("pwrite64", fd, b"four", 4, 0) == 4 and os.path.getsize(path) == 4
            assert run("ftruncate", fd, 1) == 0 and os.path.getsize(path) == 1
            assert run("socket", socket.AF_INET, socket.SOCK_STREAM, 0) > fd
            assert run("kill", victim.pid, 0) == 0
    finally:
        victim.kill()
        victim.wait()


@needs_root
def test_without_namespaces_it_refuses(make_proxy, target, keys):
    """An ordinary user without user namespaces: a clear word, or `reduced` when told so."""
    if not shutil.which("strace"):
        pytest.skip("no strace")
    p = make_proxy(as_user="nobody", start=False)

    def start():
        log = open(p.log_path, "ab")
        p.process = subprocess.Popen(
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=unshare", "-e",
             "inject=unshare:error=EPERM", *p.argv()], stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, **p.popen_args())
        log.close()

    start()
    wait_until(lambda: "sandbox = reduced" in p.log(), "the advice")
    wait_until(lambda: p.process.poll() is not None, "it left")
    assert p.process.returncode == 1
    assert not harness.listens(p.port)
    p.set({"proxy": {"sandbox": "reduced"}})
    start()
    wait_until(lambda: p.is_up(), "it serves")
    works(p, target, keys)
    os.killpg(p.process.pid, 15)
    p.process.wait(20)


def test_relay_that_hangs_is_ended(proxy, client):
    """Past the deadline the broker ends the process itself; the row says what was asked for."""
    client.shell()
    relay, = proxy.relays()
    os.kill(relay, signal.SIGSTOP)
    began = time.monotonic()
    proxy.do("session", "end", proxy.sessions()[0]["id"], "-y", "--reason", "it hangs")
    wait_until(lambda: not proxy.relays(), "the relay is gone")
    assert time.monotonic() - began < 8  # a second is the deadline
    row = proxy.wait_history(1)[0]
    assert (row["endReason"], row["endedBy"]) == ("admin-ended", ADMIN)
    assert "it hangs" in row["endText"]
    assert proxy.sessions() == []


def test_gate_leaves_with_its_broker(proxy, client):
    """The port is free for the next broker although sessions live on."""
    client.shell()
    gate = proxy.gate()
    relay, = proxy.relays()
    proxy.kill()
    wait_until(lambda: not harness.alive(gate), "the gate is gone")
    wait_until(lambda: not harness.listens(proxy.port), "the port is free")
    assert proxy.relays() == [relay]
    for fd in os.listdir("/proc/%d/fd" % relay):
        what = os.readlink("/proc/%d/fd/%s" % (relay, fd))
        assert "sallyport.db" not in what and "store.key" not in what


@needs_root
def test_relay_is_not_readable_for_its_uid(proxy, client):
    client.shell()
    relay, = proxy.relays()
    r = harness.run("cat", "/proc/%d/environ" % relay, "/proc/%d/maps" % relay,
                    user=pwd.getpwnam("sallyport-relay").pw_uid, group=65534, extra_groups=[])
    assert r.returncode != 0 and r.stdout == ""


@needs_root
def test_relays_may_not_touch_sockets(proxy, client):
    client.shell()
    uid = pwd.getpwnam("sallyport-relay").pw_uid
    r = proxy.ctl("status", as_user="sallyport-relay")
    assert r.returncode == 4
    assert os.stat(proxy.run_dir + "/relay").st_mode & 0o077 == 0
    for name in os.listdir(proxy.run_dir + "/relay"):
        r = harness.run("rm", "-f", proxy.run_dir + "/relay/" + name, user=uid, group=65534,
                        extra_groups=[])
        assert r.returncode != 0


@needs_root
def test_missing_users_are_explained(make_proxy):
    p = make_proxy({"proxy": {"user": "sallyport-nobody-here"}}, start=False)
    r = harness.run(*p.argv(), env=p.env())
    assert r.returncode == 1
    assert 'there is no system user "sallyport-nobody-here"' in r.stderr
    assert "useradd" in r.stderr


def ordinary(make_proxy, **kw):
    return make_proxy(as_user="nobody" if harness.IS_ROOT else None, **kw)


def works(p, target, keys):
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    c = harness.Client(p, key=keys.make("alice"))
    assert c.ssh("echo fine").stdout == "fine\n"
    shell = c.shell()
    relay, = wait_until(lambda: len(p.relays()) == 1 and p.relays(), "one relay")
    return shell, status(relay), relay


def test_ordinary_user(make_proxy, target, keys):
    p = ordinary(make_proxy)
    shell, r, relay = works(p, target, keys)
    assert r["Seccomp"] == "2" and r["NoNewPrivs"] == "1"
    assert int(r["CapEff"], 16) == 0
    assert os.readlink("/proc/%d/ns/user" % relay) != os.readlink("/proc/self/ns/user")
    assert os.readlink("/proc/%d/root" % relay) == p.run_dir + "/root"
    p.kill()
    p.start()
    shell.sendline("echo adopted-$((1+1))")
    shell.expect("adopted-2")
    p.wait_sessions(1)
    p.do("session", "end", "--all", "-y")
    shell.expect("You have been disconnected")


def test_reduced(make_proxy, target, keys):
    p = ordinary(make_proxy, options={"proxy": {"sandbox": "reduced"}})
    _, r, relay = works(p, target, keys)
    assert r["Seccomp"] == "2" and r["NoNewPrivs"] == "1"


def test_secrets_are_not_in_the_log(make_proxy, target, keys):
    p = make_proxy({"proxy": {"log_level": "trace"}})
    p.add_user("alice", password="pass-in-no-log").add_target(target).grant()
    c = harness.Client(p)
    t = c.terminal("echo in")
    t.expect("assword:")
    t.sendline("wrong-in-no-log")
    t.expect("assword:")
    t.sendline("pass-in-no-log")
    t.expect("in")
    t.expect(harness.pexpect.EOF)
    p.wait_history(1)
    assert "in-no-log" not in p.log()
    assert "PRIVATE KEY" not in p.log()
    assert "in-no-log" not in str(p.events())
    with open(p.data + "/sallyport.db", "rb") as f:
        stored = f.read()
    assert b"in-no-log" not in stored and b"PRIVATE KEY" not in stored


def test_one_line_at_open_and_one_at_close(proxy, client):
    assert client.ssh("true").returncode == 0
    proxy.wait_history(1)
    lines = proxy.log().split("\n")
    assert len([x for x in lines if "session open id=1 " in x]) == 1
    closing = [x for x in lines if "session close id=1 " in x]
    assert len(closing) == 1
    for word in ("user=alice", "target=web01", "reason=user-exit", "duration=", "bytes_in="):
        assert word in closing[0]


def test_service_manager_is_told(make_proxy, scratch):
    path = os.path.join(scratch, harness.random_name())
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.bind(path)
    os.chmod(path, 0o777)
    s.settimeout(30)
    p = make_proxy(start=False)
    os.environ["NOTIFY_SOCKET"] = path
    try:
        p.start()
    finally:
        del os.environ["NOTIFY_SOCKET"]
    assert b"READY=1" in s.recv(4096)
    p.process.send_signal(1)
    seen = b""
    while b"RELOADING=1" not in seen:
        seen = s.recv(4096)
    while b"READY=1" not in seen:
        seen = s.recv(4096)
    p.stop()
    while b"STOPPING=1" not in seen:
        seen = s.recv(4096)
    s.close()
