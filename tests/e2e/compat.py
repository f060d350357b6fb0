"""
What the compatibility tests share. Each test says with @row which program it drives; the table in
docs/compatibility.md is made from that and from the first sentence of its docstring, by
scripts/compatibility.py, which reads these files without running them.
"""
import contextlib
import hashlib
import os
import shutil
import tempfile

import pytest

import harness

MB = 1024 * 1024
BIG = int(os.environ.get("SALLYPORT_TEST_BIG", "64" if harness.SANITIZED else "2048")) * MB


def row(program, result="works", note=""):
    """A line of docs/compatibility.md: program and version family, and how it goes."""
    assert program and result in ("works", "refused"), result
    del note  # for the table only

    def keep(test):
        return test
    return keep


def needs(program, package=None):
    return pytest.mark.skipif(shutil.which(program) is None,
                              reason="needs %s" % (package or program))


needs_root = pytest.mark.skipif(not harness.IS_ROOT, reason="needs root")


def _room(path):
    s = os.statvfs(path)
    return s.f_bavail * s.f_frsize


def _available_memory():
    with open("/proc/meminfo") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("MemAvailable"))


def _is_in_memory(size):
    with contextlib.suppress(OSError):
        return _room("/dev/shm") > size + 512 * MB and _available_memory() > 2 * size + 1024 * MB
    return False


@contextlib.contextmanager
def roomy_dir(size):
    """A directory with room for `size` bytes: in memory when there is plenty, so that a slow disk
    is not what is tested."""
    where = "/dev/shm" if _is_in_memory(size) else tempfile.gettempdir()
    if _room(where) < size + 512 * MB:
        pytest.skip("no room for %d MiB in %s" % (size // MB, where))
    path = tempfile.mkdtemp(prefix="sallyport-big-", dir=where)
    os.chmod(path, 0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def affordable(size, copies):
    """`size`, or less of it: what fits `copies` times where roomy_dir() would be."""
    while size > 64 * MB and not _is_in_memory(copies * size) and \
            _room(tempfile.gettempdir()) < copies * size + 512 * MB:
        size //= 2
    return size


def write_noise(path, size):
    """A file whose every megabyte differs, which no window divides; its SHA-256."""
    block = os.urandom(MB - 8)
    digest = hashlib.sha256()
    with open(path, "wb") as f:
        left, n = size, 0
        while left > 0:
            piece = (n.to_bytes(8, "big") + block)[:left]
            f.write(piece)
            digest.update(piece)
            left -= len(piece)
            n += 1
    return digest.hexdigest()


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(4 * MB), b""):
            digest.update(block)
    return digest.hexdigest()


def private_kb(pid):
    """What this process alone holds in memory."""
    with open("/proc/%d/smaps_rollup" % pid) as f:
        return sum(int(line.split()[1]) for line in f if line.startswith("Private_"))


def many_files(path, count):
    """A tree of small files, 100 in a folder, each with a content of its own."""
    for n in range(count):
        folder = os.path.join(path, "d%03d" % (n // 100))
        if n % 100 == 0:
            os.makedirs(folder)
        with open(os.path.join(folder, "f%05d" % n), "wb") as f:
            f.write(b"%05d " % n * (n % 50 + 1))


def same_trees(a, b):
    r = harness.run("diff", "-r", "-q", a, b)
    return r.returncode == 0 and r.stdout == ""


def ssh_command(client, *more):
    """`ssh ...` as one string, for programs that start it."""
    return " ".join(["ssh"] + client.common() + ["-p", str(client.proxy.port)] + list(more))


@contextlib.contextmanager
def short_dir():
    """A private directory with a name short enough for the sockets in it."""
    with tempfile.TemporaryDirectory(prefix="sp-") as path:
        yield path


@contextlib.contextmanager
def master(client, directory, *flags, **kw):
    """A ControlMaster connection; yields the flags of those that share it."""
    path = os.path.join(str(directory), "mux")
    p = client.popen(flags=("-M", "-N", "-S", path) + flags, **kw)
    try:
        harness.wait_until(lambda: os.path.exists(path) or p.poll() is not None, "the master")
        assert p.poll() is None, p.stderr.read()
        yield ("-S", path, "-o", "ControlMaster=no")
    finally:
        client.ssh(flags=("-S", path, "-O", "exit"))
        with contextlib.suppress(Exception):
            p.wait(20)
        p.kill()
        p.communicate()
