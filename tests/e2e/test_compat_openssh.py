"""OpenSSH's own ways of being used: flags, exit codes, signals, multiplexing."""
import concurrent.futures
import os
import signal
import subprocess

import compat
import harness
import peers
from compat import needs, row
from peers import (CHANNEL_CLOSE, CHANNEL_REQUEST, CHANNEL_SUCCESS, USERAUTH_SUCCESS, RawClient,
                   told)


# ---- flags

@row("OpenSSH 9 ssh -n")
def test_no_input(client):
    """Standard input is not read and the command sees its end."""
    r = client.ssh("cat; echo end", flags=("-n",), stdin=subprocess.PIPE)
    assert (r.returncode, r.stdout, told(r)) == (0, "end\n", "")


@row("OpenSSH 9 ssh -f")
def test_to_the_background(client, proxy, tmp_path):
    """Returns once logged in; the command goes on, and its session with it."""
    go, done = tmp_path / "go", tmp_path / "done"
    # nothing of the background process may hold our pipes
    code = subprocess.call(client.ssh_argv(
        "while [ ! -e %s ]; do sleep 0.1; done; touch %s" % (go, done), flags=("-f",)),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30)
    assert code == 0 and not done.exists()
    proxy.wait_sessions(1, "active")
    go.touch()
    harness.wait_until(done.exists, "the command ends")
    assert proxy.wait_history(1)[0]["endReason"] == "user-exit"


@row("OpenSSH 9 ssh -N")
def test_no_command(client, proxy):
    """A connection without a channel is a session, stays, and ends in order."""
    p = client.popen(flags=("-N",))
    proxy.wait_sessions(1, "active")
    assert proxy.sessions()[0]["channels"] == []
    p.send_signal(signal.SIGTERM)
    p.communicate(timeout=20)
    assert proxy.wait_history(1)[0]["endReason"] == "user-exit"


@row("OpenSSH 9 ssh -tt")
def test_forced_terminal(client):
    """A command on a terminal, without one at the client."""
    harness.need_terminals()
    r = client.ssh("tty; exit 3", flags=("-tt",), input="")
    assert r.returncode == 3 and r.stdout.startswith("/dev/pts/")


@row("OpenSSH 9 ssh -T")
def test_shell_without_terminal(client):
    """A shell that reads its commands from a pipe."""
    r = client.ssh(flags=("-T",), input="echo hi\ntty\nexit 5\n")
    assert r.returncode == 5 and r.stdout == "hi\nnot a tty\n"


@row("OpenSSH 9 ssh -tt")
def test_transfer_on_a_terminal_is_recorded(client, proxy, scratch):
    """`-tt host 'scp -t x; bash'`: what looks like a transfer hides no terminal, it is recorded."""
    t = client.terminal("scp -t /nonexistent-file; env PS1='READY\\$ ' bash --norc --noprofile -i")
    t.expect("\0")  # scp is ready
    t.send("\x04")
    t.expect(r"READY[$#] ")
    t.sendline("echo hidden-$((6+4))")
    t.expect("hidden-10")
    t.sendline("exit")
    t.expect(harness.pexpect.EOF)
    row = proxy.wait_history(1)[0]
    assert row["recording"] == "ok"
    path = os.path.join(scratch, harness.random_name())
    proxy.do("recording", "export", row["id"], path)
    with open(path) as f:
        assert "hidden-10" in f.read()


# ---- how commands end

@row("OpenSSH 9 ssh, sshd")
def test_exit_codes(client, proxy):
    """All exit codes from 0 to 255, 256 channels of one connection."""
    with compat.short_dir() as where, compat.master(client, where) as mux:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            got = list(pool.map(lambda n: client.ssh("exit %d" % n, flags=mux).returncode,
                                range(256)))
    assert got == list(range(256))
    assert len(proxy.wait_history(1)) == 1
    opened = len(proxy.events("channel-open"))
    assert opened == len(proxy.events("channel-close"))


@row("any client (raw protocol)")
def test_signals(proxy, keys):
    """A command that a signal ends is told as `exit-signal`, with the signal's name."""
    names = ["ABRT", "ALRM", "HUP", "INT", "KILL", "PIPE", "SEGV", "TERM", "USR1"]
    with RawClient(proxy.port) as c:
        assert c.begin().sign("alice+web01", peers.load_key(keys.make("alice"))) == USERAUTH_SUCCESS
        for n, name in enumerate(names):
            c.open_session(n)
            assert c.execute("ulimit -c 0; kill -%s $$" % name, n) == CHANNEL_SUCCESS
            heard = []
            while True:
                number, m = c.hear(CHANNEL_REQUEST, CHANNEL_CLOSE)
                if number != CHANNEL_REQUEST:
                    break
                m.get_int()
                heard.append((m.get_text(), m.get_boolean(), m.get_text()))
            assert heard == [("exit-signal", False, name)]
            c.say(CHANNEL_CLOSE, c.theirs[n])


@row("OpenSSH 9 ssh")
def test_killed_command(client):
    """`ssh` says 255 when a signal ended the command."""
    assert client.ssh("kill -KILL $$").returncode == 255


# ---- multiplexing

@row("OpenSSH 9 ControlMaster")
def test_parallel_channels(client, proxy):
    """One connection, many commands side by side: exit codes, streams and ends stay apart."""
    def run(n):
        return client.ssh("cat; echo err%d >&2; sleep 0.2; exit %d" % (n, n), flags=mux,
                          input="in%d\n" % n * 1000)

    with compat.short_dir() as where, compat.master(client, where) as mux:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for n, r in enumerate(pool.map(run, range(24))):
                assert (r.returncode, r.stdout) == (n, "in%d\n" % n * 1000), r.stderr
                assert "err%d\n" % n in r.stderr
        assert len(proxy.sessions()) == 1
    assert proxy.wait_history(1)[0]["endReason"] == "user-exit"


# ---- what cannot work

@row("mosh 1.4", result="refused", note="mosh needs UDP, which goes past the proxy")
@needs("mosh")
def test_mosh(client, proxy):
    """The user is told in one sentence why, at once, and nothing is left behind."""
    shell = " ".join(["ssh"] + client.common() + ["-p", str(client.proxy.port)])
    t = harness.pexpect.spawn("mosh", ["--ssh=" + shell, client.login + "@127.0.0.1"],
                              env=dict(os.environ, TERM="xterm", LC_ALL="C.UTF-8"),
                              encoding="utf-8", timeout=30)
    t.expect("mosh needs UDP, which does not pass this proxy: use ssh")
    t.expect(harness.pexpect.EOF)
    t.close()
    assert t.exitstatus != 0
    row = proxy.wait_history(1)[0]
    assert row["endReason"] == "user-exit"
    assert "mosh" in proxy.events("channel-refused")[0]["text"]
