"""
The ways round the proxy: targets that send their sessions on, reconnect cookies, and dynamic
channels in disguise. Scripted clients and targets (rdp_script.py), and real ones behind them.
"""
# pylint: disable=redefined-outer-name
import contextlib
import hashlib
import hmac
import struct

import pytest

import rdp_peers as peers
import rdp_script as rdp
from harness import wait_until
from rdp_fixtures import *  # noqa: F403 pylint: disable=wildcard-import,unused-wildcard-import

TOKEN = b"Cookie: msts=3640205228.15629.0000"


@pytest.fixture
def raw(place):
    """raw(script, ...) gives a scripted target."""
    made = []

    def make(script=None, **kw):
        made.append(rdp.RawTarget(place, "raw%d" % len(made), script, **kw))
        return made[-1]

    yield make
    for t in made:
        t.stop()


@pytest.fixture
def users():
    made = []

    def make(p, **kw):
        made.append(rdp.RawClient(p.rdp_port, **kw))
        return made[-1]

    yield make
    for c in made:
        c.close()


def once(first, second=None):
    """A script whose first connection is another one than the rest."""
    def script(s):
        if len(s.target.served) == 1:
            first(s)
        elif second:
            second(s)
        else:
            s.go().stay()
    return script


def sends_on(*fields, upto="licence", **kw):
    def first(s):
        s.go(upto).say(rdp.redirection(list(fields), **kw))
        s.stay()
    return first


HANDOVER = [(rdp.LOAD_BALANCE, TOKEN + b"\r\n"), (rdp.USERNAME, rdp.wide("carol")),
            (rdp.DOMAIN, rdp.wide("CORP")), (rdp.PASSWORD, rdp.wide("one-time"))]

# ---- sent on


@pytest.mark.parametrize("upto", ["login", "licence", "active"])
@pytest.mark.parametrize("is_plain", [False, True])
def test_to_another_session_of_the_target(make_rdp, raw, users, upto, is_plain):
    """With a token and credentials, as gnome-remote-desktop hands over; never seen by the client."""
    if is_plain and upto == "active":
        pytest.skip("a security header is for before")

    def other(s):
        s.share = 0x203ea
        s.go().stay()

    target = raw(once(sends_on(*HANDOVER, upto=upto, is_plain=is_plain), other))
    p = add_target(make_rdp(), "win01", target)
    c = users(p).go("info", "alice+win01", PASSWORD)
    c.active()
    if upto == "active":
        assert c.share == 0x103ea
        c.active()
        assert any(body[2:4] == b"\x16\0" for _, body in c.before), "Deactivate All came"
    assert c.share == 0x203ea
    assert not any(body[2:4] in (b"\x1a\0", b"\0\4") or body[:2] == b"\0\4" for _, body in c.before)
    licences = [body for _, body in c.before if body[0] & 0x80 and body[2:4] == b"\0\0"]
    assert len(licences) == (0 if upto == "active" else 1), c.before
    first, second = target.served
    assert first.token == b"" and second.token == TOKEN
    assert first.texts()[:3] == ["", "bob", "target-secret"]
    assert second.texts()[:3] == ["CORP", "carol", "one-time"]
    row = p.wait_sessions(1, "active")[0]
    assert row["account"] == "bob"
    assert [e["text"] for e in p.events("redirected")] == ["to " + target.address]
    c.say(rdp.share_data(0x1c, struct.pack("<HHIHHHH", 1, 0, 0, 4, 0, 0x1e, 0), c.share, c.user))
    c.bye()
    assert ended(p)["endReason"] == "user-exit"
    assert "one-time" not in p.log()


@pytest.mark.parametrize("upto", ["licence", "active"])
def test_without_credentials_those_of_the_session(make_rdp, raw, users, upto):
    target = raw(once(sends_on((rdp.LOAD_BALANCE, TOKEN), upto=upto, session=7)))
    p = add_target(make_rdp(), "win01", target)
    users(p).go("info", "alice+win01", PASSWORD).active()
    second = target.last(2)
    wait_until(lambda: second.info, "the login")
    assert second.texts()[:3] == ["", "bob", "target-secret"]
    at = second.blocks.index(struct.pack("<HH", 0xc004, 12))
    flags, session = struct.unpack("<II", second.blocks[at + 4:at + 12])
    assert flags & 3 == 3 and session == 7
    assert p.wait_sessions(1, "active")


def test_without_credentials_and_the_users_own_are_gone(make_rdp, raw, users):
    target = raw(once(sends_on((rdp.LOAD_BALANCE, TOKEN), upto="active")))
    p = add_target(make_rdp(), "win01", target, auth=("--auth", "passthrough"))
    c = users(p).go("info", "alice+win01", PASSWORD)
    c.active()
    assert c.error_info() is not None
    row = ended(p)
    assert row["endReason"] == "target-closed" and "without a password" in row["endText"]


def elsewhere(raw, *fields):
    """A target that sends on to another address with the same port, which is served too."""
    other = raw(host="127.0.0.2")
    fields = [(rdp.NET_ADDRESS, rdp.wide("127.0.0.2")), *fields]
    return raw(sends_on(*fields), port=other.port), other


def test_another_server_only_where_it_is_allowed(make_rdp, raw, users):
    first, other = elsewhere(raw)
    p = add_target(make_rdp(), "win01", first)
    users(p).go("info", "alice+win01", PASSWORD).error_info()
    row = ended(p)
    assert row["endText"] == ("win01 sends the session on to 127.0.0.2, which is not allowed here "
                              "(redirect_to)")
    assert other.served == [] and len(p.events("redirect-refused")) == 1


def test_another_server_must_be_known(make_rdp, raw, users):
    first, other = elsewhere(raw)
    p = add_target(make_rdp(), "win01", first, "redirect_to=127.0.0.2:*")
    users(p).go("info", "alice+win01", PASSWORD).error_info()
    row = ended(p)
    assert "to which win01 sends the session on, is not known" in row["endText"]
    assert wait_until(lambda: other.errors, "the end there") and other.served[0].info is None
    # as a target of its own, whose key is pinned
    add_target(p, "win02", other)
    p.do("target", "set", "win02", "--host-key", "tls-spki " + spki(other.certificate))
    users(p).go("active", "alice+win01", PASSWORD)
    assert p.wait_sessions(1, "active")[0]["resourceName"] == "win01"


def spki(certificate):
    import subprocess
    return subprocess.run("openssl x509 -in %s -noout -pubkey | openssl pkey -pubin -outform der |"
                          "base64 -w0" % certificate, shell=True, capture_output=True, check=True,
                          text=True).stdout


def test_another_server_named_by_its_certificate(make_rdp, raw, users, place):
    pair = rdp.make_certificate(place, "named")
    other = raw(host="127.0.0.2", certificate=pair)
    first = raw(sends_on((rdp.NET_ADDRESS, rdp.wide("127.0.0.2")),
                         (rdp.CERTIFICATE, rdp.certificate_of(pair[0]))), port=other.port)
    p = add_target(make_rdp(), "win01", first, "redirect_to=127.0.0.2:*")
    users(p).go("active", "alice+win01", PASSWORD)
    assert p.wait_sessions(1, "active") and other.served[0].info
    assert p.events("redirected")[0]["text"] == "to " + other.address


def test_on_and_on(make_rdp, raw, users):
    target = raw(sends_on((rdp.LOAD_BALANCE, TOKEN)))
    p = add_target(make_rdp(), "win01", target)
    users(p).go("info", "alice+win01", PASSWORD).error_info()
    assert "again and again" in ended(p)["endText"]
    assert len(target.served) == 4 and len(p.events("redirected")) == 3


@pytest.mark.parametrize("packet, sentence", [
    (rdp.redirection([(rdp.PASSWORD, b"\1\2")], more=0x4000), "RDSTLS"),
    (rdp.redirection([], more=0x40), "smart card"),
    (rdp.share_control(10, b"\0\0\0\4\14\0"), "cannot be understood"),
    (rdp.share_control(10, b"\0\0" + struct.pack("<HHIII", 0x400, 16, 0, 2, 0xffff) + b"x"),
     "cannot be understood"),
    (rdp.redirection([(rdp.LOAD_BALANCE, b"a\r\nb")]), "cannot be understood"),
    (rdp.redirection([(rdp.LOAD_BALANCE, b"x" * 300)]), "cannot be understood"),
    (rdp.redirection([(rdp.NET_ADDRESS, b"\0\xd8\0\0")]), "cannot be understood"),
    (rdp.redirection([(rdp.NET_ADDRESS, rdp.wide("a b"))]), "no server's name"),
], ids=["rdstls", "smartcard", "short", "lying", "two lines", "long", "surrogate", "name"])
def test_refused(make_rdp, raw, users, packet, sentence):
    def first(s):
        s.go("licence").say(packet)
        s.stay()

    p = add_target(make_rdp(), "win01", raw(first))
    users(p).go("info", "alice+win01", PASSWORD).error_info()
    row = ended(p)
    assert row["endReason"] == "target-closed" and sentence in row["endText"], row


def test_not_meant(make_rdp, raw, users):
    """LB_NOREDIRECT: for the client's information, which it does not need."""
    def script(s):
        s.go("licence").say(rdp.redirection([(rdp.LOAD_BALANCE, TOKEN)], more=0x80))
        s.active()
        s.stay()

    target = raw(script)
    p = add_target(make_rdp(), "win01", target)
    c = users(p).go("active", "alice+win01", PASSWORD)
    assert [body[:2] for _, body in c.before] == [b"\x80\0"] and len(target.served) == 1


@pytest.mark.parametrize("upto", ["licence", "active"])
@pytest.mark.parametrize("server", ["xrdp", "shadow"])
def test_a_real_client_is_sent_on(make_rdp, raw, clients, place, screen, request, server, upto):
    real = request.getfixturevalue(server)
    if server == "shadow":
        certificate = next(iter(shadow_certificates(real)))
    else:
        certificate = real.certificate
    first = raw(sends_on((rdp.NET_ADDRESS, rdp.wide("127.0.0.1")),
                         (rdp.CERTIFICATE, rdp.certificate_of(certificate)), upto=upto),
                host="127.0.0.3", port=real.port)
    p = add_target(make_rdp(), "win01", first, "redirect_to=127.0.0.1:*")
    c = connect(clients, place, screen, p, *(["/gfx:AVC420"] if server == "shadow" else []),
                size=(800, 600))
    shows(screen, BLUE, (40, 60, 700, 500), 0.95)
    wait_until(lambda: p.sessions()[0]["bytesOut"] > 1000, "bytes are counted")
    p.do("session", "end", "--all", "-y")
    shows_notice(screen)
    c.wait()
    assert c.error_info() == "RPC_INITIATED_DISCONNECT", c.log()
    assert ended(p)["endReason"] == "admin-ended"


def shadow_certificates(server):
    import glob
    import os
    return glob.glob(os.path.join(server.dir, "**", "*.crt"), recursive=True)


def test_dynamic_channels_of_the_first_are_closed(make_rdp, raw, users):
    """The next server numbers its own anew, and hears nothing of the old ones."""
    heard = []

    def first(s):
        s.go()
        for number, name in ((7, b"ECHO\0"), (8, b"other\0")):
            s.say(rdp.chunk(dvc(1, number, name)), s.names["drdynvc"])
        s.say(rdp.chunk(b"\x11\7\1third\0"), s.names["drdynvc"])
        s.say(rdp.chunk(dvc(4, 8, b"")), s.names["drdynvc"])
        s.say(rdp.redirection([(rdp.LOAD_BALANCE, TOKEN)]))
        s.stay()

    def second(s):
        s.go()
        while True:
            heard.append(s.data())

    p = add_target(make_rdp(), "win01", raw(once(first, second)))
    c = users(p).go("active", "alice+win01", PASSWORD)
    c.active()
    closed = [body[8:] for channel, body in c.before if channel == c.channels["drdynvc"] and
              body[8] >> 4 == 4]
    assert closed == [dvc(4, 8, b""), dvc(4, 7, b""), b"\x41\7\1"]
    for body in (dvc(4, 7, b""), b"\x41\7\1", dvc(4, 9, b"")):
        c.say(rdp.chunk(body), c.channels["drdynvc"])
    wait_until(lambda: heard, "the last")
    assert [body[8:] for _, body in heard if body[8] >> 4 == 4] == [dvc(4, 9, b"")]


# ---- reconnect cookies

RANDOM = bytes(range(16))
SHOWN = rdp.arc_client(5, hmac.new(RANDOM, b"\0" * 32, hashlib.md5).digest())


def gives_cookie(s):
    """The first connection gets a cookie; all of them serve."""
    s.go()
    if len(s.target.served) == 1:
        s.say(rdp.save_session_cookie(5, RANDOM))
    s.stay()


@pytest.fixture
def cookies(make_rdp, raw):
    """A proxy, its target, and a second user and target."""
    target = raw(gives_cookie)
    p = add_target(make_rdp(), "win01", target)
    p.add_user("bob", password=PASSWORD)
    p.grant("bob", "win01")
    return p, target


def has_cookie(c):
    with contextlib.suppress(EOFError):
        while True:
            _, body = c.data()
            if body[2:4] == b"\x17\0" and body[14] == 0x26:
                assert RANDOM in body, "the client gets its cookie"
                return


def comes_back(users, cookies, number, login="alice+win01"):
    p, target = cookies
    c = users(p)
    c.go("join")
    c.info(login, PASSWORD, cookie=SHOWN)
    c.active()
    return target.last(number).cookie(), c


def first_session(users, cookies):
    p, _ = cookies
    c = users(p).go("active", "alice+win01", PASSWORD)
    p.wait_sessions(1, "active")
    has_cookie(c)
    return c


def test_a_lost_client_comes_back(users, cookies):
    p, _ = cookies
    c = first_session(users, cookies)
    lose(c)
    assert ended(p)["endReason"] == "network-lost"
    assert comes_back(users, cookies, 2, "bob+win01")[0] == b"", "for another user it is none"
    got, back = comes_back(users, cookies, 3)
    assert got == SHOWN
    # without another one it is this session's too: its end by an admin is the cookie's
    wait_until(lambda: len(p.sessions()) == 2, "both")
    p.do("session", "end", "--all", "-y")
    back.error_info()
    ended(p, 3)
    assert comes_back(users, cookies, 4)[0] == b""


def lose(c):
    """As a network does: no TLS end, no FIN."""
    import socket
    c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    c.close()


def test_a_target_that_is_down_for_a_while(make_rdp, raw, users):
    """A client that tries to come back meanwhile may try again."""
    def script(s):
        if len(s.target.served) == 2:
            s.go("x224")  # hangs up where TLS begins
        else:
            gives_cookie(s)

    target = raw(script)
    p = add_target(make_rdp(), "win01", target)
    lose(first_session(users, (p, target)))
    ended(p)
    c = users(p).go("join")
    c.info("alice+win01", PASSWORD, cookie=SHOWN)
    c.error_info()
    ended(p, 2)
    assert "target-unreachable" in {r["endReason"] for r in p.history()}
    assert comes_back(users, (p, target), 3)[0] == SHOWN


def test_a_client_whose_loss_nobody_noticed(users, cookies):
    first_session(users, cookies)
    assert comes_back(users, cookies, 2)[0] == SHOWN


@pytest.mark.parametrize("how", ["admin", "exit", "unknown", "restart"])
def test_the_cookie_of_an_ended_session_leads_nowhere(users, cookies, how):
    p, _ = cookies
    if how != "unknown":
        c = first_session(users, cookies)
        if how == "admin":
            p.do("session", "end", "--all", "-y")
            c.error_info()
        elif how == "exit":
            c.bye()
        else:
            lose(c)
        ended(p)
    if how == "restart":
        p.stop()
        p.start()
    assert comes_back(users, cookies, 1 if how == "unknown" else 2)[0] == b""
    p.wait_sessions(1, "active")


# ---- dynamic channels in disguise

def dvc(command, channel, body, sp=0):
    return bytes([command << 4 | sp << 2, channel]) + body


CREATE = dvc(1, 9, b"AUDIO_INPUT\0")
ALLOWED = dvc(1, 8, b"Microsoft::Windows::RDS::DisplayControl\0")
CAPS3 = b"\x50\0" + struct.pack("<HHHHH", 3, 0, 0, 0, 0)


def channel_talk(make_rdp, raw, users, pieces, *policy):
    """What of the target's `pieces` on drdynvc a client hears, and what the target is answered."""
    answers = []

    def script(s):
        s.go()
        for piece in pieces:
            s.say(piece, s.names["drdynvc"])
        s.say(rdp.chunk(dvc(4, 99, b"")), s.names["drdynvc"])  # the end mark
        while True:
            answers.append(s.data())

    target = raw(script)
    p = add_target(make_rdp({"recording": {"rdp": "no"}}), "win01", target, *policy)
    c = users(p).go("active", "alice+win01", PASSWORD)
    heard = []
    while True:
        channel, body = c.data()
        if channel == c.channels["drdynvc"]:
            if body == rdp.chunk(dvc(4, 99, b"")):
                return heard, answers, c
            heard.append(body)


def halves(body, at, flags=0):
    return [rdp.chunk(body[:at], rdp.CHUNK_FIRST | flags, len(body)),
            rdp.chunk(body[at:], rdp.CHUNK_LAST | flags, len(body))]


LESS = "rdp_channels=clipboard,printers"


def test_a_request_in_pieces_is_judged(make_rdp, raw, users):
    pieces = [rdp.chunk(CREATE), *halves(CREATE, 1), *halves(CREATE, 5),
              rdp.chunk(dvc(1, 7, b"custom\0")), rdp.chunk(ALLOWED), *halves(ALLOWED, 7)]
    heard, answers, _ = channel_talk(make_rdp, raw, users, pieces, LESS)
    assert heard[0] == rdp.chunk(ALLOWED) and heard[1][8:] == ALLOWED and len(heard) == 2
    refusal = b"\x10\x09\x01\0\0\xc0"
    wait_until(lambda: sum(body[8:] == refusal for _, body in answers) == 3, "three refusals")
    assert any(body[8:] == b"\x10\x07\x01\0\0\xc0" for _, body in answers)


def test_what_may_hide_something_is_dropped(make_rdp, raw, users):
    pieces = [rdp.chunk(CREATE, 3 | rdp.CHUNK_PACKED), *halves(CREATE, 5, rdp.CHUNK_PACKED),
              rdp.chunk(dvc(6, 9, b"....")), rdp.chunk(dvc(7, 9, b"....")),
              rdp.chunk(b"\x80\0" + struct.pack("<IHH", 8, 1, 0)),
              rdp.chunk(b"", rdp.CHUNK_FIRST, 14), rdp.chunk(CREATE, rdp.CHUNK_LAST),
              rdp.chunk(CREATE, 0), rdp.chunk(CREATE[:-1]), rdp.chunk(CAPS3)]
    heard, _, _ = channel_talk(make_rdp, raw, users, pieces, LESS)
    assert heard == [rdp.chunk(b"\x50\0\2" + CAPS3[3:])], "version 2, and nothing else"


def test_with_everything_allowed_nothing_is_touched(make_rdp, raw, users):
    pieces = [*halves(CREATE, 5), rdp.chunk(CAPS3), rdp.chunk(dvc(7, 9, b"...."))]
    assert channel_talk(make_rdp, raw, users, pieces)[0] == pieces


def device(kind, name, extra=b""):
    return struct.pack("<II8sI", kind, 1, name, len(extra)) + extra


@pytest.mark.parametrize("size", [0, 5000])
def test_devices_in_pieces(make_rdp, raw, users, size):
    """A drive is left out of an announcement in pieces; a printer with a large driver stays."""
    announce = b"rDAD" + struct.pack("<I", 2) + device(8, b"SHARE") + device(4, b"PRN1", b"d" * size)
    _, answers, c = channel_talk(make_rdp, raw, users, [], LESS)
    pieces = [announce[i:i + 1600] for i in range(0, len(announce), 1600)] if size else \
        [announce[:6], announce[6:]]
    for i, piece in enumerate(pieces):
        flags = (i == 0) * rdp.CHUNK_FIRST | (i == len(pieces) - 1) * rdp.CHUNK_LAST
        c.say(rdp.chunk(piece, flags, len(announce)), c.channels["rdpdr"])
    c.say(rdp.chunk(b"rDCI"), c.channels["rdpdr"])
    wait_until(lambda: answers and answers[-1][1][8:] == b"rDCI", "the message behind it")
    told = b"".join(body[8:] for _, body in answers[:-1])
    assert told == b"rDAD" + struct.pack("<I", 1) + device(4, b"PRN1", b"d" * size)
    flags = [struct.unpack("<I", body[4:8])[0] & 3 for _, body in answers[:-1]]
    assert flags[0] & 1 and flags[-1] & 2 and all(not f & 2 for f in flags[:-1])


def test_unknown_static_channels_are_not_shared(make_rdp, raw, users):
    names = ("rdpdr", "drdynvc", "custom", "rail")
    target = raw()
    p = add_target(make_rdp(), "win01", target, LESS)
    users(p, names=names).go("active", "alice+win01", PASSWORD)
    assert list(target.last().names) == ["rdpdr", "drdynvc", "rail"]
    assert peers.missing() == []
