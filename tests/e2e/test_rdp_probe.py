"""`target test` and the certificate that is shown before it is trusted, for RDP targets."""
# pylint: disable=redefined-outer-name
import base64
import hashlib
import os
import subprocess

import pexpect
import pytest

import harness
import rdp_peers as peers
import rdp_script as rdp
from rdp_fixtures import *  # noqa: F403 pylint: disable=wildcard-import,unused-wildcard-import


@pytest.fixture(scope="module")
def nla(place):
    server = peers.Shadow(place, "nla", security="nla", users={"bob": "target-secret"})
    try:
        yield server.start()
    finally:
        server.finish()


@pytest.fixture
def proxy(make_rdp):
    return make_rdp()


def spki(certificate):
    der = subprocess.run("openssl x509 -in %s -noout -pubkey | openssl pkey -pubin -outform der"
                         % certificate, shell=True, capture_output=True, check=True).stdout
    return (base64.b64encode(der).decode(),
            "SHA256:" + base64.b64encode(hashlib.sha256(der).digest()).decode().rstrip("="))


def tried(p, name="win01", *args):
    r = p.ctl("-o", "json", "target", "test", name, *args)
    data = harness.json.loads(r.stdout)
    assert r.returncode == (0 if data["ok"] else 1), r
    return data, [(s["step"], s["result"], s["text"]) for s in data["steps"]]


def add(p, address, *more, auth=("--auth", "password", "--secret-stdin"), secret="target-secret"):
    p.do("target", "add", "win01", "--type", "rdp", "--address", address, "--account", "bob", *auth,
         *more, input=secret + "\n")


def test_nla_logs_in(proxy, nla):
    add(proxy, nla.address, "--accept-new")
    data, steps = tried(proxy)
    assert [s[:2] for s in steps] == [("resolve", "ok"), ("connect", "ok"), ("banner", "ok"),
                                      ("handshake", "ok"), ("host-key", "ok"), ("login", "ok")]
    assert steps[2][2] == "RDP, with NLA" and steps[3][2].startswith("TLSv1.")
    assert steps[4][2].endswith("not pinned yet; the first session pins it")
    assert steps[5][2] == "bob by NLA" and data["ok"]
    assert data["hostKeyType"] == "tls-spki" and data["hostKey"].startswith("tls-spki ")
    assert proxy.json("target", "show", "win01")["hostKey"] is None, "a test changes nothing"
    table = proxy.do("target", "test", "win01")
    assert "bob by NLA" in table and "host-key" in table
    proxy.do("target", "set", "win01", "--host-key", data["hostKey"])
    assert tried(proxy)[1][4][2].endswith(", as pinned")


def test_nla_refuses(proxy, nla):
    add(proxy, nla.address, "--accept-new", secret="wrong")
    data, steps = tried(proxy)
    assert not data["ok"] and steps[-1][:2] == ("login", "failed"), steps
    proxy.do("target", "set", "win01", "--auth", "none")
    data, steps = tried(proxy)
    assert steps[-1] == ("banner", "failed", "it insists on NLA (CredSSP), for which an account and "
                         "its password are needed")
    proxy.do("target", "set", "win01", "--auth", "passthrough")
    data, steps = tried(proxy)
    assert data["ok"] and steps[-1][:2] == ("login", "skipped")


def test_without_nla(proxy, xrdp):
    add(proxy, xrdp.address, "--accept-new")
    data, steps = tried(proxy)
    assert data["ok"] and steps[2][2] == "RDP, without NLA"
    assert steps[-1][:2] == ("login", "skipped")
    line, print_ = spki(xrdp.certificate)
    assert data["hostKey"] == "tls-spki " + line and data["hostKeyFingerprint"] == print_


def test_another_certificate(proxy, xrdp, shadow):
    add(proxy, xrdp.address, "--host-key", "fetch", "--host-key-fingerprint",
        spki(xrdp.certificate)[1])
    assert tried(proxy)[1][4][2].endswith(", as pinned")
    proxy.do("target", "set", "win01", "--address", shadow.address)
    data, steps = tried(proxy)
    assert not data["ok"] and steps[-1][:2] == ("host-key", "failed")
    assert "the certificate has changed: expected " + spki(xrdp.certificate)[1] in steps[-1][2]
    proxy.do("target", "set", "win01", "--host-key", "none")
    data, steps = tried(proxy)
    assert steps[-1][:2] == ("host-key", "failed") and steps[-1][2].endswith("not pinned")


@pytest.mark.parametrize("script, step, text", [
    (lambda s: s.send(b"SSH-2.0-x\r\n"), "banner", "it does not speak RDP"),
    (lambda s: None, "banner", ""),
    (lambda s: (s.pdu(), s.send(rdp.x224_confirm(1, kind=3))), "banner", "it insists on TLS"),
    (lambda s: (s.pdu(), s.send(rdp.x224_confirm(8))), "banner",
     "it chose a security that was not offered"),
    (lambda s: (s.pdu(), s.send(rdp.tpkt(b"\6\xd0\0\0\0\0\0"))), "banner",
     "it offers only the old RDP security, without TLS"),
    (lambda s: (s.x224(), s.send(b"no TLS at all, but some text" * 9)), "handshake", ""),
    (lambda s: s.x224(), "handshake", ""),
    (lambda s: (s.x224(rdp.x224_confirm(2)), s.tls(), s.exactly(9), s.send(b"0" * 99)), "login", ""),
    (lambda s: (s.x224(rdp.x224_confirm(2)), s.tls(), s.exactly(9),
                s.send(b"\x30\x84\x7f\xff\xff\xff")), "login", ""),
    (lambda s: (s.x224(rdp.x224_confirm(2)), s.tls(), s.exactly(9)), "login", ""),
], ids=["ssh", "silent end", "failure", "protocol", "old", "no tls", "end at tls", "nonsense",
        "huge token", "end at login"])
def test_no_such_server(proxy, place, script, step, text):
    target = rdp.RawTarget(place, "strange", script)
    try:
        add(proxy, target.address, "--accept-new")
        data, steps = tried(proxy)
        assert not data["ok"] and steps[-1][:2] == (step, "failed") and text in steps[-1][2], steps
    finally:
        target.stop()


def test_nobody_there(proxy):
    add(proxy, "127.0.0.1:%d" % harness.free_port(), "--accept-new")
    assert tried(proxy)[1][-1][:2] == ("connect", "failed")


# ---- shown before it is trusted

def ctl_terminal(p, *args):
    return pexpect.spawn(os.path.join(harness.bin_dir(), "sallyctl"),
                         ["--socket", p.socket, *args], encoding="utf-8", timeout=harness.PATIENCE,
                         env=p.env(), dimensions=(24, 160))


def test_add_shows_the_certificate(proxy, xrdp):
    command = ("target", "add", "win01", "--type", "rdp", "--address", xrdp.address, "--account",
               "bob", "--auth", "passthrough")
    line, print_ = spki(xrdp.certificate)
    t = ctl_terminal(proxy, *command)
    t.expect_exact("The certificate's key of win01:")
    t.expect_exact("tls-spki " + print_)
    t.expect_exact("Is it the right one")
    t.sendline("no")
    t.expect_exact("Nothing was changed.")
    t.expect(pexpect.EOF)
    assert proxy.json("target", "ls") == []
    t = ctl_terminal(proxy, *command)
    t.expect_exact("Is it the right one")
    t.sendline("yes")
    t.expect_exact("was added")
    t.expect(pexpect.EOF)
    assert proxy.json("target", "show", "win01")["hostKey"] == "tls-spki " + line


def test_fetch(proxy, xrdp, shadow):
    add(proxy, xrdp.address, "--accept-new")
    r = proxy.ctl("target", "set", "win01", "--host-key-fingerprint", spki(xrdp.certificate)[1][:-2])
    assert r.returncode == 1 and "another fingerprint" in r.stderr
    proxy.do("target", "set", "win01", "--host-key-fingerprint", spki(xrdp.certificate)[1])
    assert proxy.json("target", "show", "win01")["hostKeyFingerprint"] == spki(xrdp.certificate)[1]
    r = proxy.ctl("target", "add", "win02", "--type", "rdp", "--address", shadow.address, "--auth",
                  "none", "--host-key", "fetch")
    assert r.returncode == 2 and "without a terminal" in r.stderr
