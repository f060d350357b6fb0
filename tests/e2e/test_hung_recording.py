"""A recording directory that hangs, as NFS does when its server is away: an sshfs that is stopped."""
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile

import pytest

import harness
from harness import wait_until

pytestmark = pytest.mark.skipif(
    not harness.IS_ROOT or not shutil.which("sshfs") or not os.path.exists("/dev/fuse"),
    reason="needs root, sshfs and /dev/fuse")


@pytest.fixture
def disk(scratch, target):
    """(directory, function that stops the file system, function that lets it go on)"""
    below = tempfile.mkdtemp(prefix="below-", dir=scratch)
    where = tempfile.mkdtemp(prefix="hung-", dir=scratch)
    os.chmod(below, 0o777)
    p = subprocess.Popen(
        ["sshfs", "-f", "-o", "allow_other,StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null,"
         "IdentitiesOnly=yes,IdentityFile=" + target.key, "-o", "ssh_command=ssh -F none", "-p",
         str(target.port), "%s@127.0.0.1:%s" % (target.account, below), where],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: os.path.ismount(where) or p.poll() is not None, "the mount")
        if p.poll() is not None:
            pytest.skip("no mount here: %s" % p.stdout.read())
        yield (where, lambda: p.send_signal(signal.SIGSTOP), lambda: p.send_signal(signal.SIGCONT))
    finally:
        p.send_signal(signal.SIGCONT)
        harness.run("fusermount3", "-u", "-z", where)
        with contextlib.suppress(subprocess.TimeoutExpired):
            p.wait(20)
        p.kill()
        p.communicate()
        harness.run("umount", "-l", where)


def test_a_hung_disk_stalls_nobody_else(make_proxy, target, keys, disk):
    where, stop, go_on = disk
    p = make_proxy({"recording": {"dir": where + "/rec", "min_free": "0"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    p.add_target(target, "plain", "record=no").grant("alice", "plain")
    recorded = harness.Client(p, key=keys.make("alice"))
    plain = harness.Client(p, key=keys.make("alice"), target="plain")
    assert recorded.ssh("echo recorded").stdout == "recorded\n"
    shell = plain.shell()
    p.wait_sessions(1, "active")
    stop()
    waits = recorded.popen("echo recorded", stderr=subprocess.PIPE)
    assert plain.ssh("echo unrecorded").stdout == "unrecorded\n"  # logs in, and reaches its target
    shell.sendline("echo typed-$((2+3))")
    shell.expect("typed-5")
    assert p.json("status")  # the daemon answers
    _, err = waits.communicate(timeout=60)
    assert waits.returncode == 255 and b"the disk does not answer" in err
    live = p.sessions()[0]
    assert live["resourceName"] == "plain"
    p.do("session", "end", live["id"], "-y")
    shell.expect(harness.pexpect.EOF)
    go_on()
    wait_until(lambda: recorded.ssh("echo again").stdout == "again\n", "it records again", every=0.5)
