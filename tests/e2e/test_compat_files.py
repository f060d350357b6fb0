"""Many files and those that change: sftp, rsync, git and sshfs through the proxy."""
import contextlib
import os
import subprocess

import pytest

import compat
import harness
from compat import MB, needs, needs_root, row, same_trees

COUNT = 1000 if harness.SANITIZED else 10000


@pytest.fixture(scope="module")
def tree():
    """A folder of COUNT small files, with room for a copy each way."""
    with compat.roomy_dir(256 * MB) as path:
        source = os.path.join(path, "tree")
        compat.many_files(source, COUNT)
        yield source


@pytest.fixture
def room(tree):
    """An empty folder beside the tree, gone afterwards."""
    path = os.path.join(os.path.dirname(tree), harness.random_name())
    os.mkdir(path)
    yield path
    harness.run("rm", "-rf", path)


# ---- sftp

@row("OpenSSH 9 sftp")
def test_sftp_batch(client, tmp_path):
    """A batch of commands: put, get, rename, ls, chmod, ln, mkdir, rm, df; errors come back."""
    data = os.urandom(3 * MB + 1)
    (tmp_path / "a").write_bytes(data)
    r = client.sftp("""mkdir %(d)s/sub
put %(d)s/a %(d)s/sub/b
rename %(d)s/sub/b %(d)s/sub/c
chmod 600 %(d)s/sub/c
ln -s c %(d)s/sub/link
ls -l %(d)s/sub
df %(d)s
get %(d)s/sub/c %(d)s/d
rm %(d)s/sub/link
rm %(d)s/sub/c
rmdir %(d)s/sub
""" % {"d": tmp_path})
    assert r.returncode == 0, r.stderr
    assert (tmp_path / "d").read_bytes() == data and not (tmp_path / "sub").exists()
    assert "-rw-------" in r.stdout and "link" in r.stdout
    r = client.sftp("get %s/none\nput %s/a %s/b\n" % ((tmp_path,) * 3))
    assert r.returncode == 1 and "not found" in r.stderr and not (tmp_path / "b").exists()
    r = client.sftp("-get %s/none\nput %s/a %s/b\n" % ((tmp_path,) * 3))
    assert r.returncode == 0 and (tmp_path / "b").read_bytes() == data


@row("OpenSSH 9 sftp")
def test_sftp_resume(client, room, proxy):
    """A transfer that was cut goes on where it was (`reget`, `reput`)."""
    source, copy = os.path.join(room, "source"), os.path.join(room, "copy")
    digest = compat.write_noise(source, 64 * MB)
    for number, command in enumerate(("reget", "reput")):
        p = client.popen("cat %s" % source)  # something that is cut in the middle
        with open(copy, "wb") as f:
            f.write(p.stdout.read(20 * MB))
        p.kill()
        p.communicate()
        r = client.sftp("%s %s %s\n" % (command, source, copy))
        assert r.returncode == 0, r.stderr
        assert compat.sha256(copy) == digest
        row = proxy.wait_history(2 * number + 2)[-1]
        moved = row["bytesOut" if command == "reget" else "bytesIn"]
        assert 43 * MB < moved < 46 * MB  # the rest only
        os.unlink(copy)


@row("OpenSSH 9 sftp")
def test_sftp_many_files(client, tree, room):
    """10 000 small files each way, recursively."""
    r = client.sftp("put -r %s %s/there\n" % (tree, room), timeout=300)
    assert r.returncode == 0, r.stderr
    r = client.sftp("get -r %s/there %s/back\n" % (room, room), timeout=300)
    assert r.returncode == 0, r.stderr
    assert same_trees(tree, room + "/there") and same_trees(tree, room + "/back")


# ---- rsync

def rsync(client, *args):
    r = harness.run("rsync", "-e", compat.ssh_command(client), *args, timeout=300)
    assert r.returncode == 0, r.stderr
    return r.stdout


@row("rsync 3")
@needs("rsync")
def test_rsync(client, tree, room):
    """Many small files both ways; `--delete`; `-z`; a second run moves nothing."""
    there, back = room + "/there", room + "/back"
    rsync(client, "-a", tree + "/", client.remote(there))
    assert same_trees(tree, there)
    assert rsync(client, "-ai", tree + "/", client.remote(there)) == ""
    rsync(client, "-az", client.remote(there + "/"), back)
    assert same_trees(tree, back)
    for name in ("d000", "d001"):
        harness.run("rm", "-r", os.path.join(there, name))
    with open(there + "/new", "w") as f:
        f.write("new")
    out = rsync(client, "-ai", "--delete", client.remote(there + "/"), back)
    assert same_trees(there, back) and out.count("*deleting") == 202
    out = rsync(client, "-aiz", "--delete", back + "/", client.remote(there))
    assert out == ""


@row("rsync 3")
@needs("rsync")
def test_rsync_of_a_changed_file(client, room, proxy):
    """A large file of which a little changed: only the difference travels."""
    one, two = os.path.join(room, "one"), os.path.join(room, "two")
    compat.write_noise(one, 64 * MB)
    rsync(client, one, client.remote(two))
    with open(one, "r+b") as f:
        f.seek(30 * MB)
        f.write(b"changed")
    rsync(client, "-I", "--no-whole-file", one, client.remote(two))
    assert compat.sha256(one) == compat.sha256(two)
    assert proxy.wait_history(2)[-1]["bytesIn"] < MB


# ---- git

@row("git 2")
@needs("git")
def test_git(client, tmp_path):
    """Clone, push, fetch and a shallow clone over `ssh://`."""
    env = dict(os.environ, GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1",
               GIT_AUTHOR_NAME="a", GIT_AUTHOR_EMAIL="a@b", GIT_COMMITTER_NAME="a",
               GIT_COMMITTER_EMAIL="a@b", HOME=str(tmp_path),
               GIT_SSH_COMMAND=" ".join(["ssh"] + client.common()))

    def git(*args):
        r = harness.run("git", *args, env=env)
        assert r.returncode == 0, r.stderr
        return r.stdout

    bare, copy, again = tmp_path / "bare.git", tmp_path / "copy", tmp_path / "again"
    git("init", "-q", "--bare", "-b", "main", bare)
    url = "ssh://%s@127.0.0.1:%d%s" % (client.login, client.proxy.port, bare)
    git("clone", "-q", url, copy)
    for n in range(3):
        (copy / "f").write_bytes(os.urandom(2 * MB))
        git("-C", copy, "add", "f")
        git("-C", copy, "commit", "-q", "-m", "commit %d" % n)
    git("-C", copy, "push", "-q", "origin", "HEAD:refs/heads/main")
    git("clone", "-q", url, again)
    assert (again / "f").read_bytes() == (copy / "f").read_bytes()
    assert len(git("-C", again, "log", "--oneline").splitlines()) == 3
    (copy / "g").write_text("g")
    git("-C", copy, "add", "g")
    git("-C", copy, "commit", "-q", "-m", "g")
    git("-C", copy, "push", "-q", "origin", "HEAD:refs/heads/main")
    git("-C", again, "pull", "-q", "--ff-only")
    assert (again / "g").read_text() == "g"
    shallow = tmp_path / "shallow"
    git("clone", "-q", "--depth", "1", url, shallow)
    assert len(git("-C", shallow, "log", "--oneline").splitlines()) == 1
    assert {s["endReason"] for s in client.proxy.wait_history(6)} == {"user-exit"}


# ---- sshfs

@contextlib.contextmanager
def mounted(client, what, where):
    where.mkdir()
    argv = ["sshfs"]
    common = client.common()
    for flag, value in zip(common[::2], common[1::2]):
        if flag == "-o":
            argv += ["-o", value]
        elif flag == "-i":
            argv += ["-o", "IdentityFile=" + value]
    argv += ["-o", "ssh_command=ssh -F none", "-p", str(client.proxy.port), "-f",
             client.remote(str(what)), str(where)]
    p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT)
    try:
        harness.wait_until(lambda: os.path.ismount(where) or p.poll() is not None, "the mount")
        assert p.poll() is None, p.stdout.read()
        yield
    finally:
        harness.run("fusermount3", "-u", where)
        with contextlib.suppress(subprocess.TimeoutExpired):
            p.wait(20)
        p.kill()
        p.communicate()
        harness.run("umount", "-l", where)


@row("sshfs 3")
@needs("sshfs")
@needs_root
@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="no /dev/fuse here")
def test_sshfs(client, proxy, tmp_path):
    """Mount, list, read, write, append, rename, remove, unmount."""
    there = tmp_path / "there"
    there.mkdir()
    data = os.urandom(8 * MB + 3)
    (there / "old").write_bytes(data)
    here = tmp_path / "here"
    with mounted(client, there, here):
        assert os.listdir(here) == ["old"]
        assert (here / "old").read_bytes() == data
        (here / "new").write_bytes(data[::-1])
        with open(here / "new", "ab") as f:
            f.write(b"more")
        (here / "sub").mkdir()
        os.rename(here / "new", here / "sub" / "moved")
        with open(here / "old", "rb") as f:
            f.seek(4 * MB)
            assert f.read(1000) == data[4 * MB:4 * MB + 1000]
        os.unlink(here / "old")
        assert proxy.wait_sessions(1)[0]["channels"]
    assert (there / "sub" / "moved").read_bytes() == data[::-1] + b"more"
    assert not (there / "old").exists()
    assert proxy.wait_history(1)[0]["endReason"] in ("user-exit", "network-lost")
