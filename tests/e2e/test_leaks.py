"""The unsandboxed job that looks for leaks: only in the sanitized build, where LeakSanitizer is."""
import os
import signal

import pytest

import harness
from harness import wait_until

pytestmark = pytest.mark.skipif(not harness.SANITIZED, reason="needs the sanitized build")


@pytest.fixture
def watched(make_proxy, target, keys, monkeypatch):
    """Everything of one ordinary user, no root and no namespace, leak checks on."""
    monkeypatch.setenv("SALLYPORT_LEAK_CHECK", "1")
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=1")
    p = make_proxy({"proxy": {"sandbox": "reduced"}},
                   as_user="nobody" if harness.IS_ROOT else None)
    p.add_user("alice", password="correct horse", key=keys.make("alice"))
    return p.add_target(target).grant()


def test_no_leaks(watched, keys, scratch):
    c = harness.Client(watched, key=keys.make("alice"))
    assert c.ssh("echo one; echo two >&2").returncode == 0
    assert c.ssh("exit 3").returncode == 3
    assert c.sftp("ls /\n").returncode == 0
    shell = c.shell()
    watched.do("session", "message", "--all", "hello")
    shell.expect("hello")
    shell.sendline("exit")
    shell.expect(harness.pexpect.EOF)
    wrong = harness.Client(watched, options=["-o", "NumberOfPasswordPrompts=1", "-o",
                                            "PreferredAuthentications=password"]).terminal("true")
    wrong.expect("assword:")
    wrong.sendline("wrong")
    wrong.expect(harness.pexpect.EOF)
    nobody = harness.Client(watched, target="nothing", key=keys.make("alice"))
    assert nobody.ssh("true").returncode == 255
    ended = c.shell()
    watched.do("session", "end", "--all", "-y")
    ended.expect("You have been disconnected")
    watched.do("reload")
    watched.do("dump")
    wait_until(lambda: not watched.relays(), "relays end")
    assert watched.stop(signal.SIGTERM) == 0, watched.log()[-3000:]
    assert "LeakSanitizer" not in watched.log(), watched.log()[-5000:]
    assert "detected memory leaks" not in watched.log()
    assert os.path.exists(watched.data)
