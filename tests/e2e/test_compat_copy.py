"""Large files, each way, as OpenSSH's programs copy them. SALLYPORT_TEST_BIG: their size in MiB."""
import os
import re
import subprocess

import pytest

import compat
import harness
from compat import BIG, MB, row


@pytest.fixture(scope="module")
def big():
    """(directory, path, size, SHA-256) of a file of BIG bytes, with room for a copy."""
    size = compat.affordable(BIG, 2)
    with compat.roomy_dir(2 * size) as path:
        source = os.path.join(path, "source")
        yield path, source, size, compat.write_noise(source, size)


def copy_both_ways(client, big, flag):
    directory, source, size, digest = big
    copy = os.path.join(directory, "copy")
    for argv in ((source, client.remote(copy)), (client.remote(source), copy)):
        r = client.scp(flag, *argv, timeout=600)
        assert r.returncode == 0, r.stderr
        assert compat.sha256(copy) == digest
        os.unlink(copy)
    up, down = client.proxy.wait_history(2)
    assert size <= up["bytesIn"] < 1.1 * size > up["bytesOut"]
    assert size <= down["bytesOut"] < 1.1 * size > down["bytesIn"]
    assert {s["endReason"] for s in (up, down)} == {"user-exit"}


@row("OpenSSH 9 scp")
def test_scp_2_gib(client, big):
    """`scp` of 2 GiB each way, with checksum (the SFTP protocol)."""
    copy_both_ways(client, big, "-q")


@row("OpenSSH 9 scp")
def test_scp_old_protocol_2_gib(client, big):
    """`scp -O` of 2 GiB each way, with checksum (the old protocol)."""
    copy_both_ways(client, big, "-O")


@row("OpenSSH 9 ssh, sshd")
def test_new_keys_on_both_legs(proxy, client, keys, tmp_path, big):
    """1 GiB with `RekeyLimit 16M` at the client and at the target."""
    directory, source, whole, _ = big
    size = min(1024 * MB, whole)
    sshd = harness.Sshd(str(tmp_path), keys, name="rekey",
                        extra="RekeyLimit 16M\nLogLevel DEBUG1").start()
    try:
        proxy.add_target(sshd, "rekey").grant("alice", "rekey")
        client.target = "rekey"
        copy = os.path.join(directory, "copy")
        command = "head -c %d %s" % (size, source)
        with open(copy, "wb") as out:
            r = subprocess.run(client.ssh_argv(command, flags=("-v", "-o", "RekeyLimit=16M")),
                               stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE,
                               text=True, timeout=600, check=False)
        assert r.returncode == 0, r.stderr[-2000:]
        assert harness.run("cmp", "-n", size, source, copy).returncode == 0
        assert os.path.getsize(copy) == size
        os.unlink(copy)
        with open(sshd.log) as f:
            kex = len(re.findall("SSH2_MSG_KEXINIT sent", f.read()))
        least = size // MB // 16 - 2
        assert kex >= least and r.stderr.count("SSH2_MSG_KEXINIT sent") >= least
        row = proxy.wait_history(1)[0]
        assert (row["bytesOut"], row["endReason"]) == (size, "user-exit")
    finally:
        sshd.stop()
