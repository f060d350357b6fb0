"""The real ansible over ten hosts through the proxy: pipelining on and off, and ControlPersist."""
import contextlib
import os

import pytest

import compat
import harness
from compat import needs, row

HOSTS = 10
FORKS = 4


@pytest.fixture
def hosts(proxy, target):
    """Ten targets that alice may reach, by names of their own."""
    names = ["host%02d" % n for n in range(HOSTS)]
    for name in names:
        proxy.add_target(target, name).grant("alice", name)
    return names


@pytest.fixture
def playground(client, hosts, tmp_path):
    """A folder with an inventory, and a way to run ansible in it."""
    stack = contextlib.ExitStack()
    common = " ".join(client.common() + ["-p", str(client.proxy.port)])
    (tmp_path / "inventory").write_text("[all]\n" + "".join(
        "%s ansible_host=127.0.0.1 ansible_user=alice+%s\n" % (name, name) for name in hosts))

    sockets = stack.enter_context(compat.short_dir())

    def run(program, *args, pipelining=False, persist=True):
        control = "auto -o ControlPersist=60s" if persist else "no"
        (tmp_path / "ansible.cfg").write_text("""[defaults]
inventory = %s/inventory
forks = %d
host_key_checking = False
interpreter_python = /usr/bin/python3
local_tmp = %s/local
remote_tmp = %s/remote
gathering = explicit
retry_files_enabled = False
nocows = 1
[ssh_connection]
pipelining = %s
ssh_args = -o ControlMaster=%s %s
control_path_dir = %s
control_path = %%(directory)s/%%%%C
""" % (tmp_path, FORKS, tmp_path, tmp_path, pipelining, control, common, sockets))
        env = dict(os.environ, ANSIBLE_CONFIG=str(tmp_path / "ansible.cfg"), HOME=str(tmp_path),
                   LC_ALL="C.UTF-8", ANSIBLE_HOME=str(tmp_path / "home"))
        r = harness.run(program, *args, env=env, cwd=str(tmp_path), timeout=300)
        assert r.returncode == 0, r.stdout[-3000:] + r.stderr[-3000:]
        return r.stdout

    yield run
    for name in os.listdir(sockets):
        client.ssh(flags=("-S", os.path.join(sockets, name), "-O", "exit"))
    stack.close()


@row("ansible-core 2")
@needs("ansible")
@pytest.mark.parametrize("pipelining", [False, True], ids=["off", "on"])
def test_ansible_ping(playground, proxy, pipelining):
    """`ansible -m ping` on ten hosts, pipelining off and on, with ControlPersist."""
    out = playground("ansible", "all", "-m", "ping", pipelining=pipelining)
    assert out.count("SUCCESS") == out.count('"pong"') == HOSTS, out
    sessions = proxy.sessions()  # kept by ControlPersist: one a host, however many tasks
    assert len(sessions) == HOSTS and {s["status"] for s in sessions} <= {"active", "idle"}


@row("ansible-core 2")
@needs("ansible")
@pytest.mark.parametrize("pipelining", [False, True], ids=["off", "on"])
def test_ansible_copy(playground, proxy, tmp_path, pipelining):
    """A playbook that copies a file to ten hosts and reads it back, pipelining off and on."""
    data = "content\n" * 10000
    (tmp_path / "file").write_text(data)
    (tmp_path / "play.yml").write_text("""
- hosts: all
  tasks:
    - copy: {src: "%(dir)s/file", dest: "%(dir)s/copy-{{inventory_hostname}}", mode: "0640"}
    - command: cat "%(dir)s/copy-{{inventory_hostname}}"
      register: read
    - assert: {that: "read.stdout | length == 79999"}
""" % {"dir": tmp_path})
    out = playground("ansible-playbook", "play.yml", pipelining=pipelining)
    assert out.count("failed=0") == HOSTS == out.count("unreachable=0"), out
    for n in range(HOSTS):
        copy = tmp_path / ("copy-host%02d" % n)
        assert copy.read_text() == data and copy.stat().st_mode & 0o777 == 0o640
    assert len(proxy.sessions()) == HOSTS and proxy.history() == []


@row("ansible-core 2")
@needs("ansible")
def test_ansible_without_multiplexing(playground, proxy):
    """`ansible -m ping` on ten hosts, a connection for every step: none is lost."""
    out = playground("ansible", "all", "-m", "ping", persist=False)
    assert out.count("SUCCESS") == HOSTS, out
    proxy.wait_sessions(0)
    rows = proxy.history()
    assert len(rows) > HOSTS and {s["endReason"] for s in rows} == {"user-exit"}
