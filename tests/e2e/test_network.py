"""Pulled cables: packets between client, proxy and target are dropped, and nobody says so."""
import contextlib
import os
import random
import signal
import subprocess
import time

import pytest

import harness
from harness import wait_until

BOUND = 4  # seconds of keep-alives until a silent peer is given up
SSH = {"keepalive_interval": "1s", "keepalive_count": "3"}


class Island:
    """A network of its own behind a cable to this machine."""
    def __init__(self):
        self.name = "sp" + harness.random_name()
        network = "198.%d.%d." % (random.choice((18, 19)), random.randrange(256))
        host = 4 * random.randrange(1, 63)
        self.ours, self.theirs = network + str(host + 1), network + str(host + 2)
        cable = "v" + self.name[-8:]
        self("ip", "netns", "add", self.name)
        try:
            self("ip", "link", "add", cable + "a", "type", "veth", "peer", "name", cable + "b",
                 "netns", self.name)
            self("ip", "addr", "add", self.ours + "/30", "dev", cable + "a")
            self("ip", "link", "set", cable + "a", "up")
            self("ip", "-n", self.name, "addr", "add", self.theirs + "/30", "dev", cable + "b")
            self("ip", "-n", self.name, "link", "set", cable + "b", "up")
            self("ip", "-n", self.name, "link", "set", "lo", "up")
            self(*self.inside("nft", "add", "table", "inet", "cut"))
        except OSError:
            self.close()
            raise

    def __call__(self, *argv):
        r = harness.run(*argv)
        if r.returncode != 0:
            raise OSError("%s: %s" % (" ".join(argv), r.stderr.strip()))

    def inside(self, *argv):
        return ["ip", "netns", "exec", self.name, *argv]

    def cut(self):
        """Drop every packet, both ways."""
        for hook in ("input", "output"):
            self(*self.inside("nft", "add", "chain", "inet", "cut", hook,
                              "{ type filter hook %s priority 0; policy drop; }" % hook))

    def mend(self):
        self(*self.inside("nft", "flush", "table", "inet", "cut"))
        for hook in ("input", "output"):
            self(*self.inside("nft", "delete", "chain", "inet", "cut", hook))

    def close(self):
        harness.run("ip", "netns", "del", self.name)


@pytest.fixture(scope="module")
def island():
    if not harness.IS_ROOT:
        pytest.skip("needs root to make a network")
    try:
        it = Island()
    except OSError as e:
        pytest.skip("no network of our own here: %s" % e)
    yield it
    it.close()


@pytest.fixture
def cable(island):
    yield island
    with contextlib.suppress(OSError):
        island.mend()


@pytest.fixture
def far_proxy(make_proxy, target, keys, island):
    """A proxy that listens where the island can reach it."""
    p = make_proxy({"ssh": SSH}, start=False)
    p.set({"ssh": {"listen": ["127.0.0.1:%d" % p.port, "%s:%d" % (island.ours, p.port)]}})
    p.start().add_user("alice", key=keys.make("alice")).add_target(target).grant()
    return p


class FarClient(harness.Client):
    """A client on the island."""
    def __init__(self, proxy, island, key):
        super().__init__(proxy, key=key)
        self.island = island

    def ssh_argv(self, *command, flags=()):
        argv = super().ssh_argv(*command, flags=flags)
        return self.island.inside(*(a.replace("@127.0.0.1", "@" + self.island.ours) for a in argv))


def ended(p, within):
    start = time.monotonic()
    wait_until(lambda: p.sessions() == [] and p.relays() == [], "list and relays are empty")
    assert time.monotonic() - start < within
    return p.wait_history(1)[-1]


@pytest.mark.parametrize("what", ["idle", "flood"])
def test_client_is_cut_off(far_proxy, cable, keys, what):
    client = FarClient(far_proxy, cable, keys.make("alice"))
    p = client.popen("cat /dev/zero" if what == "flood" else "echo; sleep 1000")
    try:
        assert p.stdout.read(1)
        if what == "flood":
            p.stdout.read(1 << 20)
        far_proxy.wait_sessions(1, "active")
        cable.cut()
        row = ended(far_proxy, 3 * BOUND)
        assert (row["endReason"], row["endedBy"]) == ("network-lost", "client")
    finally:
        p.kill()
        p.communicate()


def test_target_is_cut_off(far_proxy, cable, keys, tmp_path):
    class FarSshd(harness.Sshd):
        address = property(lambda self: "%s:%d" % (cable.theirs, self.port))

        def start(self):
            with open(self.config) as f:
                text = f.read().replace("ListenAddress 127.0.0.1", "ListenAddress " + cable.theirs)
            with open(self.config, "w") as f:
                f.write(text)
            self.process = subprocess.Popen(
                cable.inside("/usr/sbin/sshd", "-D", "-f", self.config, "-E", self.log),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_until(lambda: harness.listens(self.port, cable.theirs), "the far sshd listens")
            return self

    sshd = FarSshd(str(tmp_path), keys, name="far").start()
    try:
        far_proxy.add_target(sshd, "far").grant("alice", "far")
        client = harness.Client(far_proxy, target="far", key=keys.make("alice"))
        shell = client.shell()
        shell.sendline("echo up-$((1+1))")
        shell.expect("up-2")
        cable.cut()
        shell.expect("You have been disconnected: the target stopped answering",
                     timeout=3 * BOUND)
        row = ended(far_proxy, BOUND)
        assert (row["endReason"], row["endedBy"]) == ("target-closed", "target")
        # one that nobody answers when somebody wants to log in
        r = client.ssh("true")
        assert r.returncode == 255 and "far cannot be reached" in r.stderr, r.stderr
    finally:
        cable.mend()
        sshd.stop()


def test_a_short_cut_is_survived(far_proxy, cable, keys):
    """Less than the bound: the session goes on, and what was typed meanwhile arrives."""
    client = FarClient(far_proxy, cable, keys.make("alice"))
    shell = client.shell()
    shell.sendline("echo up-$((1+1))")
    shell.expect("up-2")
    cable.cut()
    shell.send("echo kept-$((2+2))\r")
    time.sleep(1.5)  # the cut itself: shorter than BOUND
    cable.mend()
    shell.expect("kept-4")
    assert far_proxy.history() == []
    os.kill(shell.pid, signal.SIGKILL)
    assert ended(far_proxy, 3 * BOUND)["endReason"] == "network-lost"
