"""
Other people's clients. Each logs in by key and by password, is refused with a wrong one, runs a
command whose output, errors and exit status arrive, and moves a file each way.
"""
import asyncio
import os

import paramiko
import pytest

import harness
import peers
from compat import MB, needs, row

PASSWORD = "open sesame, 5 times"
COMMAND = "cat; echo err >&2; exit 5"


@pytest.fixture
def proxy(make_proxy, target, keys):
    p = make_proxy()
    p.add_user("alice", password=PASSWORD, key=keys.make("alice")).add_target(target).grant()
    return p


@pytest.fixture
def files(tmp_path):
    """(source, there, back): a file, and the names of its copies."""
    (tmp_path / "source").write_bytes(os.urandom(5 * MB + 17))
    return tmp_path / "source", tmp_path / "there", tmp_path / "back"


def moved(files):
    source, there, back = files
    same = there.read_bytes() == back.read_bytes() == source.read_bytes()
    there.unlink()
    back.unlink()
    return same


def ran(result):
    assert (result.returncode, result.stdout) == (5, "in\n"), result.stderr
    assert "err\n" in result.stderr
    return True


def devices(proxy, name):
    """All sessions were of this client, and none was lost."""
    rows = proxy.wait_history(1)
    harness.wait_until(lambda: not proxy.sessions(), "all are ended")
    rows = proxy.history()
    assert all(name in s["device"] for s in rows), [s["device"] for s in rows]
    assert {s["endReason"] for s in rows} == {"user-exit"}, rows
    return len(rows)


def home(tmp_path):
    return dict(os.environ, HOME=str(tmp_path))


@row("OpenSSH 9 ssh, scp")
def test_openssh(proxy, keys, files):
    """Key and password; command; file each way."""
    source, there, back = files
    by_key = harness.Client(proxy, key=keys.make("alice"))
    by_password = peers.PasswordClient(proxy, PASSWORD)
    for client, env in ((by_key, None), (by_password, by_password.env())):
        assert ran(client.ssh(COMMAND, input="in\n"))
        assert client.scp(source, client.remote(str(there)), env=env).returncode == 0
        assert client.scp(client.remote(str(there)), back, env=env).returncode == 0
        assert moved(files)
    assert devices(proxy, "OpenSSH_") == 6
    assert peers.PasswordClient(proxy, "wrong").ssh("true").returncode == 255


@row("Dropbear 2022 dbclient")
@needs("dbclient", "dropbear-bin")
def test_dropbear(proxy, keys, files, tmp_path):
    """Key and password; command; file each way (`scp -S dbclient` and a pipe)."""
    source, there, back = files
    key = tmp_path / "key"
    r = harness.run("dropbearconvert", "openssh", "dropbear", keys.make("alice"), key)
    assert r.returncode == 0, r.stderr
    base = ["dbclient", "-y", "-y", "-p", proxy.port]
    ways = ((base + ["-i", key], home(tmp_path)),
            (base, dict(home(tmp_path), DROPBEAR_PASSWORD=PASSWORD)))
    for argv, env in ways:
        argv = [*argv, "alice+web01@127.0.0.1"]
        assert ran(harness.run(*argv, COMMAND, input="in\n", env=env))
        r = harness.run(*argv, "cat >%s" % there, input=source.read_bytes(), text=False, env=env)
        assert r.returncode == 0, r.stderr
        r = harness.run(*argv, "cat %s" % there, text=False, env=env)
        assert r.returncode == 0
        back.write_bytes(r.stdout)
        assert moved(files)
    program = tmp_path / "dbclient"
    program.write_text("#!/bin/sh\nexec dbclient -y -y -i %s \"$@\"\n" % key)
    program.chmod(0o755)
    scp = ["scp", "-O", "-q", "-S", program, "-P", proxy.port]
    remote = "alice+web01@127.0.0.1:%s" % there
    for pair in ((source, remote), (remote, back)):
        r = harness.run(*scp, *pair, env=home(tmp_path))
        assert r.returncode == 0, r.stderr
    assert moved(files) and devices(proxy, "dropbear_") == 8
    r = harness.run(*base, "alice+web01@127.0.0.1", "echo in",
                    env=dict(home(tmp_path), DROPBEAR_PASSWORD="wrong"))
    assert r.stdout == "" and len(proxy.history()) == 8


@pytest.fixture
def putty(proxy, keys, tmp_path):
    """(common arguments, with a key, with a password, environment) of PuTTY's programs."""
    key = tmp_path / "key.ppk"
    r = harness.run("puttygen", keys.make("alice"), "-O", "private", "-o", key)
    assert r.returncode == 0, r.stderr
    with open(keys.make("proxy_host") + ".pub") as f:
        (tmp_path / "host.pub").write_text(f.read())
    print_ = harness.run("ssh-keygen", "-l", "-f", tmp_path / "host.pub").stdout.split()[1]
    common = ["-batch", "-P", proxy.port, "-hostkey", print_, "-l", "alice+web01"]
    return common, ["-i", key], ["-pw", PASSWORD], home(tmp_path)


@row("PuTTY 0.78 plink")
@needs("plink", "putty-tools")
def test_plink(proxy, putty):
    """Key and password; command."""
    common, by_key, by_password, env = putty
    for way in (by_key, by_password):
        assert ran(harness.run("plink", "-ssh", *common, *way, "127.0.0.1", COMMAND, input="in\n",
                               env=env))
    r = harness.run("plink", "-ssh", *common, "-pw", "wrong", "127.0.0.1", "true", env=env)
    assert r.returncode != 0 and devices(proxy, "PuTTY") == 2


@row("PuTTY 0.78 pscp")
@needs("pscp", "putty-tools")
def test_pscp(proxy, putty, files):
    """Key and password; file each way, by SFTP and by the old protocol."""
    source, there, back = files
    common, by_key, by_password, env = putty
    for way in (by_key, by_password):
        for protocol in ("-sftp", "-scp"):
            for pair in ((source, "127.0.0.1:%s" % there), ("127.0.0.1:%s" % there, back)):
                r = harness.run("pscp", "-q", protocol, *common, *way, *pair, env=env)
                assert r.returncode == 0, r.stdout + r.stderr
            assert moved(files)
    assert devices(proxy, "PuTTY") == 8


@row("PuTTY 0.78 psftp")
@needs("psftp", "putty-tools")
def test_psftp(proxy, putty, files, tmp_path):
    """Key and password; a batch that puts, gets and lists."""
    source, there, back = files
    common, by_key, by_password, env = putty
    batch = tmp_path / "batch"
    batch.write_text("put %s %s\nls %s\nget %s %s\nquit\n" %
                     (source, there, tmp_path, there, back))
    for way in (by_key, by_password):
        r = harness.run("psftp", *common, *way, "-b", batch, "127.0.0.1", env=env)
        assert r.returncode == 0, r.stdout + r.stderr
        assert "there" in r.stdout and moved(files)
    assert devices(proxy, "PuTTY") == 2


@row("paramiko 2")
def test_paramiko(proxy, keys, files):
    """Key and password; command; file each way."""
    source, there, back = files
    for way in ({"key_filename": keys.make("alice")}, {"password": PASSWORD}):
        c = paramiko.SSHClient()
        c.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        c.connect("127.0.0.1", proxy.port, "alice+web01", look_for_keys=False, allow_agent=False,
                  **way)
        stdin, stdout, stderr = c.exec_command(COMMAND)
        stdin.write("in\n")
        stdin.channel.shutdown_write()
        assert (stdout.read(), stderr.read()) == (b"in\n", b"err\n")
        assert stdout.channel.recv_exit_status() == 5
        sftp = c.open_sftp()
        sftp.put(str(source), str(there))
        sftp.get(str(there), str(back))
        assert moved(files)
        sftp.close()
        harness.wait_until(lambda: proxy.sessions()[0]["channels"] == [], "the channels are over")
        c.close()  # drops the connection without a word: with a channel open, that is a crash
    assert devices(proxy, "paramiko_") == 2
    with pytest.raises(paramiko.AuthenticationException):
        paramiko.SSHClient.connect(c, "127.0.0.1", proxy.port, "alice+web01", password="wrong",
                                   look_for_keys=False, allow_agent=False)


@row("asyncssh 2")
def test_asyncssh(proxy, keys, files):
    """Key and password; command; file each way by SFTP and scp; eight commands side by side."""
    asyncssh = pytest.importorskip("asyncssh")
    source, there, back = files

    async def use(way):
        async with asyncssh.connect("127.0.0.1", proxy.port, username="alice+web01",
                                    known_hosts=None, agent_path=None, config=None, **way) as c:
            r = await c.run(COMMAND, input="in\n")
            assert (r.exit_status, r.stdout, r.stderr) == (5, "in\n", "err\n")
            async with c.start_sftp_client() as sftp:
                await sftp.put(str(source), str(there))
                await sftp.get(str(there), str(back))
            assert moved(files)
            await asyncssh.scp(str(source), (c, str(there)))
            await asyncssh.scp((c, str(there)), str(back))
            assert moved(files)
            many = await asyncio.gather(*(c.run("echo %d; exit %d" % (n, n)) for n in range(8)))
            assert [(r.exit_status, r.stdout) for r in many] == [(n, "%d\n" % n)
                                                                for n in range(8)]

    for way in ({"client_keys": [keys.make("alice")]},
                {"password": PASSWORD, "client_keys": None}):
        asyncio.run(use(way))
    assert devices(proxy, "AsyncSSH_") == 2
    with pytest.raises(asyncssh.PermissionDenied):
        asyncio.run(use({"password": "wrong", "client_keys": None}))


@row("libssh2 1 (curl 7 sftp:// and scp://)")
@needs("curl")
def test_libssh2(proxy, keys, files, tmp_path):
    """Key and password; file each way by SFTP and by scp, part of a file, a listing."""
    source, there, back = files
    if "sftp" not in harness.run("curl", "--version").stdout:
        pytest.skip("this curl has no libssh2")
    key = keys.make("alice")
    base = ["curl", "-sS", "--insecure"]
    for way in (["--key", key, "--pubkey", key + ".pub", "-u", "alice+web01:"],
                ["-u", "alice+web01:" + PASSWORD]):
        for scheme in ("sftp", "scp"):
            url = "%s://127.0.0.1:%d%s" % (scheme, proxy.port, there)
            for argv in (["-T", source, url], ["-o", back, url]):
                r = harness.run(*base, *way, *argv, env=home(tmp_path))
                assert r.returncode == 0, r.stderr
            if scheme == "sftp":
                r = harness.run(*base, *way, "-r", "100-199", url, text=False, env=home(tmp_path))
                assert r.stdout == source.read_bytes()[100:200]
                folder = "sftp://127.0.0.1:%d%s/" % (proxy.port, tmp_path)
                assert "there" in harness.run(*base, *way, folder, env=home(tmp_path)).stdout
            assert moved(files)
    r = harness.run(*base, "-u", "alice+web01:wrong", url, env=home(tmp_path))
    assert r.returncode == 67, r.stderr  # "login denied"
    assert devices(proxy, "libssh2_") == 12


@row("libssh 0.10")
def test_libssh(proxy, keys, files, tmp_path):
    """Key and password; command; file each way by SFTP (a small client in C)."""
    source, there, back = files
    program = os.path.join(harness.BUILD, "libssh-client")
    for way in (("key", keys.make("alice")), ("password", PASSWORD)):
        argv = [program, proxy.port, "alice+web01", *way]
        r = harness.run(*argv, "exec", "echo in; echo err >&2; exit 5", env=home(tmp_path))
        assert ran(r)
        for action in (("put", source, there), ("get", there, back)):
            r = harness.run(*argv, *action, env=home(tmp_path))
            assert r.returncode == 0, r.stderr
        assert moved(files)
    r = harness.run(program, proxy.port, "alice+web01", "password", "wrong", "exec", "true",
                    env=home(tmp_path))
    assert r.returncode == 255 and "login" in r.stderr
    assert devices(proxy, "libssh") == 6
