"""Fixtures: one target a module, one proxy a test unless a test makes its own."""
import os
import shutil
import socket
import tempfile

import pytest

import harness


@pytest.fixture(scope="session")
def scratch():
    path = tempfile.mkdtemp(prefix="sallyport-e2e-")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)
    harness.remove_bin_dir()


@pytest.fixture(scope="session")
def keys(scratch):
    path = os.path.join(scratch, "keys")
    os.makedirs(path, mode=0o700, exist_ok=True)
    return harness.Keys(path)


@pytest.fixture(scope="module")
def target(scratch, keys):
    sshd = harness.Sshd(tempfile.mkdtemp(prefix="t-", dir=scratch), keys).start()
    yield sshd
    sshd.stop()


@pytest.fixture
def make_proxy(scratch, keys):
    """
    make_proxy(options) gives a started proxy; all are ended, and their logs checked, after.
    One host key serves all of them (making an RSA key takes a second), unless a test names its own.
    """
    made = []

    def make(options=None, start=True, **kw):
        p = harness.Proxy(scratch, options, **kw)
        if not p.as_user and "host_key" not in p.options["ssh"]:
            path = os.path.join(p.dir, "host_key")
            shutil.copy(keys.make("proxy_host"), path)
            if p.is_root:  # the daemon is not root for long
                shutil.chown(path, "sallyport")
            p.set({"ssh": {"host_key": path}})
        made.append(p)
        return p.start() if start else p

    yield make
    for p in made:
        p.clean_up()
    for p in made:
        if os.path.exists(p.log_path):
            p.assert_clean_log()
            shutil.rmtree(p.dir, ignore_errors=True)


@pytest.fixture
def proxy(make_proxy, target, keys):
    """A proxy with alice (key), the target web01 and a grant."""
    p = make_proxy()
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    return p


@pytest.fixture
def client(proxy, keys):
    return harness.Client(proxy, key=keys.make("alice"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed and call.when == "call":
        for name in ("proxy", "make_proxy"):
            fixture = item.funcargs.get(name)
            if isinstance(fixture, harness.Proxy) and os.path.exists(fixture.log_path):
                report.sections.append(("log of the proxy", fixture.log()[-6000:]))


@pytest.fixture
def dead():
    """An address that drops every new connection: a queue that is full and nobody accepts."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    held = []
    for _ in range(4):
        held.append(socket.socket())
        held[-1].setblocking(False)
        held[-1].connect_ex(listener.getsockname())
    yield "127.0.0.1:%d" % listener.getsockname()[1]
    for s in held + [listener]:
        s.close()
