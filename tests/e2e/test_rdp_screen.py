"""
The login screen that the proxy draws in an RDP session of its own, and the hand-over to the target:
xfreerdp and rdesktop without a password, to xrdp and freerdp-shadow.
"""
import os
import struct
import time

import pytest

import harness
import rdp_peers as peers
from harness import wait_until
from rdp_fixtures import *  # pylint: disable=wildcard-import,unused-wildcard-import
from rdp_script import (LICENCE_VALID, RawClient, RawTarget, confirm_active, demand_active,
                        share_data)
from test_userlogin import App

pytestmark = pytest.mark.skipif(bool(peers.missing()), reason="missing: %s" % peers.missing())

TYPED = "Geheim42"  # what a keyboard of any layout types
GROUND, PANEL, EDGE = (0x18, 0x24, 0x2f), (0xf3, 0xf5, 0xf7), (0xe8, 0xb0, 0x4a)
ACCENT, ERROR = (0x2a, 0x6d, 0xb0), (0xb3, 0x26, 0x1e)


@pytest.fixture
def make_screen(make_rdp, xrdp, shadow):
    """A proxy with alice, whose password can be typed, win01 (xrdp) and win02 (freerdp-shadow)."""
    def make(options=None, **kw):
        p = make_rdp(options, **kw)
        p.add_user("carol", password=TYPED)
        for name, server in (("win01", xrdp), ("win02", shadow)):
            add_target(p, name, server)
            p.grant("carol", name)
        return p
    return make


@pytest.fixture
def proxy(make_screen):
    return make_screen()


def come(clients, place, screen, p, *extra, login="carol", size=None, program="xfreerdp"):
    """A client that sends no password."""
    if program == "rdesktop":
        c = peers.rdesktop(place, screen, p.rdp_port, login, "", *extra)
    else:
        c = peers.xfreerdp(place, screen, p.rdp_port, login, "", *extra, size=size)
    clients.append(c)
    return c


def count(picture, color):
    return picture.raw.count(bytes(reversed(color)))


def shows_form(screen, **kw):
    wait_until(lambda: count(screen.picture(), PANEL) > 20000 and count(screen.picture(), EDGE) > 500,
               "the login screen", every=0.2, **kw)
    return screen.picture()


def shows_error(screen):
    wait_until(lambda: count(screen.picture(), ERROR) > 50, "an error on the login screen", every=0.2)


def is_list(picture):
    """The selected row is a wide band of the accent's color."""
    return rows_of(picture) is not None


def rows_of(picture):
    """(x, y of its middle, height) of the selected row; None when there is no list."""
    columns = [int(picture.width * part) for part in (0.36, 0.56)]  # where no text is, nor a button
    run = 0
    for y in range(picture.height):
        if all(picture.at(x, y) == ACCENT for x in columns):
            run += 1
        elif run:
            if run > 8:
                return columns[0], y - run // 2, run
            run = 0
    return None


def fields_of(picture):
    """The fields' rows: where white is wide, left of the middle."""
    found, run = [], 0
    for y in range(picture.height):
        if all(picture.at(x, y) == (255, 255, 255) for x in range(400, 440, 4)):
            run += 1
        else:
            found += [y] if run > 15 else []
            run = 0
    return found


def shows_list(screen):
    def settled():  # not in the middle of being drawn
        first = rows_of(screen.picture())
        time.sleep(0.2)
        return first and first == rows_of(screen.picture())

    wait_until(settled, "the list of targets", every=0.2)
    return rows_of(screen.picture())


def type_in(screen, text, *keys):
    assert screen.run("xdotool", "type", "--delay", "30", text).returncode == 0
    for key in keys:
        assert screen.run("xdotool", "key", key).returncode == 0


def log_in(screen, password=TYPED):
    shows_form(screen)
    type_in(screen, password, "Return")


def is_in(p, target, user="carol"):
    """A session with this target; its row."""
    row = p.wait_sessions(1, "active")[0]
    assert (row["user"], row["resourceName"]) == (user, target), row
    return row


# ---- logins and the hand-over

@pytest.mark.parametrize("program,target,extra", [
    ("xfreerdp", "win01", []), ("xfreerdp", "win02", ["-gfx"]), ("xfreerdp", "win02", ["/gfx:AVC444"]),
    ("rdesktop", "win01", [])])
def test_a_client_without_a_password(proxy, clients, place, screen, program, target, extra):
    """User and target came with the client, the password is typed; then it is a desktop like any."""
    c = come(clients, place, screen, proxy, *extra, login="carol+" + target, program=program,
             size=(1024, 768) if target == "win01" else (800, 600))
    log_in(screen)
    assert is_in(proxy, target)["account"] == "bob"
    shows(screen, BLUE, (40, 60, 700, 500), 0.95)
    assert [e["text"] for e in proxy.events("login")] == ["password"]
    proxy.do("session", "end", "--all", "-y")
    shows_notice(screen)
    c.wait()
    if program == "xfreerdp":
        assert c.error_info() == "RPC_INITIATED_DISCONNECT", c.log()
    assert ended(proxy)["endReason"] == "admin-ended"
    assert TYPED not in proxy.log() and "target-secret" not in proxy.log()


def test_wrong_twice_then_right(proxy, clients, place, screen):
    come(clients, place, screen, proxy, login="alice+win01")
    log_in(screen, "wrong")
    shows_error(screen)
    type_in(screen, "again", "Return")
    wait_until(lambda: len(proxy.events("login-failed")) == 2, "two failures")
    shows_error(screen)
    type_in(screen, "", "shift+Tab", "Home", *["Delete"] * 5)  # the name was wrong
    type_in(screen, "carol", "Tab")
    type_in(screen, TYPED, "Return")
    is_in(proxy, "win01")
    shows(screen, BLUE, (40, 60, 700, 500))
    assert len(proxy.events("login-failed")) == 2 and proxy.history() == []


def test_a_password_of_blanks_is_none(proxy, clients, place, screen):
    """A client that says AUTOLOGON with an empty password is asked as any other."""
    with_autologon = RawClient(proxy.rdp_port).go("info", "carol+win01", "")
    with_autologon.active()
    assert proxy.events("login-failed") == [] and proxy.sessions() == []
    with_autologon.close()


def test_choosing_a_target(proxy, clients, place, screen):
    """A password came, a target did not: a list, for which keyboard and mouse are good."""
    for ways, how in enumerate(("keys", "filter", "double click", "button")):
        c = connect(clients, place, screen, proxy, login="alice", size=(800, 600))
        x, y, height = shows_list(screen)
        assert proxy.sessions() == [] and len(proxy.history()) == ways
        wanted = "win01" if ways else "win02"  # what was used last comes first
        if how == "keys":
            type_in(screen, "", "Down", "Return")
        elif how == "filter":
            type_in(screen, "N01", "Return")
        elif how == "double click":
            wanted = "win02"
            c.move(x, y + height, "click", "--repeat", "2", "--delay", "100", "1")
        else:
            c.move(x, y + height, "click", "1")
            wait_until(lambda top=y: (rows_of(screen.picture()) or (0, 0))[1] > top,
                       "the second row is selected")
            click_ok(c, screen)
        is_in(proxy, wanted, "alice")
        shows(screen, BLUE, (40, 60, 700, 500), 0.95)
        c.stop()
        ended(proxy, ways + 1)


def click_ok(c, screen):
    """The button is the accent's color, below everything, right of the middle."""
    picture = screen.picture()
    for y in range(picture.height - 1, 0, -1):
        for x in range(picture.width // 2, picture.width, 4):
            if picture.at(x, y) == ACCENT:
                c.move(x + 4, y - 6, "click", "1")
                return
    raise AssertionError("no button")


def test_a_forbidden_target_and_one_that_is_not(proxy, xrdp, clients, place, screen):
    """Both look the same, only after the login; then the list, where neither is."""
    proxy.do("target", "add", "win03", "--type", "rdp", "--address", xrdp.address, "--auth",
             "passthrough", "--accept-new")
    for name in ("win03", "nowhere"):
        come(clients, place, screen, proxy, login="carol+" + name)
        log_in(screen)
        shows_list(screen)
        shows_error(screen)
        type_in(screen, name)
        wait_until(lambda: not is_list(screen.picture()), "nothing matches")
        assert 'there is no target "%s" for you' % name in \
            [e["text"] for e in proxy.events("route-refused")]
        clients.pop().stop()
    assert proxy.history() == []


def test_a_target_that_fails_leads_back(make_screen, clients, place, screen):
    """Down, or with another certificate: said above the list, where another one is chosen."""
    p = make_screen()
    p.do("target", "add", "dead", "--type", "rdp", "--address",
         "127.0.0.1:%d" % harness.free_port(), "--account", "bob", "--auth", "passthrough",
         "--accept-new")
    p.grant("carol", "dead")
    other = RawTarget(place, "odd", lambda s: s.go("x224"))  # hangs up where TLS begins
    p.do("target", "add", "odd", "--type", "rdp", "--address", other.address, "--account", "bob",
         "--auth", "passthrough", "--accept-new")
    p.grant("carol", "odd")
    try:
        come(clients, place, screen, p, login="carol+dead")
        log_in(screen)
        shows_list(screen)
        shows_error(screen)
        assert "cannot be reached" in p.wait_history(1)[-1]["endText"]
        type_in(screen, "odd", "Return")
        wait_until(lambda: len(p.history()) == 2, "its failure")
        assert {r["resourceName"] for r in p.wait_history(2)} == {"dead", "odd"}
        shows_list(screen)
        shows_error(screen)
        p.kill()  # what was said of the session that failed is nothing to a later broker
        p.start()
        wait_until(lambda: p.json("status")["adopted"] == 1, "the connection is adopted")
        type_in(screen, "win01", "Return")
        is_in(p, "win01")
        shows(screen, BLUE, (40, 60, 700, 500))
        clients.pop().stop()
        row, = [r for r in p.wait_history(3) if r["resourceName"] == "win01"]
        assert row["recording"] == "ok"  # its own
        assert "%s.rdp.zst" % row["id"] in [os.path.basename(r["path"]) for r in p.json("recording", "ls")]
        p.do("recording", "verify", str(row["id"]))
    finally:
        other.stop()


def test_the_password_of_the_account_is_asked(make_screen, place, clients, screen):
    """Nobody stored it: what is typed goes to the target's NLA; a wrong one leads to the list."""
    server = peers.Shadow(place, harness.random_name(), security="nla", users={"bob": "Hidden7"})
    try:
        p = make_screen()
        server.start()
        server.display.paint("#336699")
        p.do("target", "add", "win04", "--type", "rdp", "--address", server.address, "--account",
             "bob", "--auth", "prompt", "--accept-new")
        p.grant("carol", "win04").grant("alice", "win04")
        come(clients, place, screen, p, "-gfx", login="carol+win04", size=(800, 600))
        log_in(screen)
        wait_until(lambda: len(p.sessions()) == 1, "a session that waits")
        type_in(screen, "wrong", "Return")
        p.wait_history(1)
        shows_list(screen)
        shows_error(screen)
        type_in(screen, "win04", "Return")
        wait_until(lambda: len(p.sessions()) == 1, "a session that waits")
        wait_until(lambda: not is_list(screen.picture()), "the question")
        type_in(screen, "Hidden7", "Return")
        is_in(p, "win04")
        shows(screen, BLUE, (250, 250, 500, 500))
        assert "Hidden7" not in p.log()
        clients.pop().stop()
        ended(p)
        connect(clients, place, screen, p, "-gfx", login="alice+win04", size=(800, 600))
        shows_form(screen)  # its own password came with the client
        type_in(screen, "Hidden7", "Return")
        is_in(p, "win04", "alice")
    finally:
        server.finish()


# ---- the second factor

def enrolled(p, user):
    app = App(p.json("user", "totp", "enable", user)["secret"])
    p.do("user", "totp", "confirm", user, app.code())
    return app


def test_a_second_factor(proxy, clients, place, screen):
    """Asked of a client that sent a right password, and of one that typed it."""
    app = enrolled(proxy, "alice")
    connect(clients, place, screen, proxy)
    shows_form(screen)
    type_in(screen, app.wrong_code(), "Return")
    shows_error(screen)
    type_in(screen, app.code(), "Return")
    is_in(proxy, "win01", "alice")
    shows(screen, BLUE, (40, 60, 700, 500))
    clients.pop().stop()
    ended(proxy)
    proxy.do("user", "totp", "disable", "alice")
    app = enrolled(proxy, "carol")
    come(clients, place, screen, proxy, login="carol+win01")
    log_in(screen)
    wait_until(lambda: len(fields_of(screen.picture())) == 1, "one field: the question", every=0.2)
    type_in(screen, app.code(), "Return")
    is_in(proxy, "win01")


def test_enrolment(make_screen, clients, place, screen):
    """One who must have a second factor sees its picture, and the recovery codes."""
    p = make_screen()
    p.do("role", "add", "ops", "--second-factor", "totp")
    p.do("user", "set", "carol", "--role", "ops")
    come(clients, place, screen, p, login="carol+win01", size=(1024, 768))
    log_in(screen)
    black = wait_until(lambda: count(screen.picture(), (0, 0, 0)) > 5000 and
                       count(screen.picture(), (255, 255, 255)) > 20000, "a QR code")
    assert black
    save(screen, "enrolment")


# ---- keyboards

def press(screen, *actions):
    assert screen.run("xdotool", *actions).returncode == 0


def test_a_german_keyboard(make_screen, clients, place, screen):
    """The client's keys stand where those of its layout do: y and z change places, AltGr Q is @."""
    p = make_screen()
    p.do("user", "passwd", "carol", "--password-stdin", input="yZ@{ä\n")
    come(clients, place, screen, p, "/kbd:0x407", login="carol+win01")
    shows_form(screen)
    press(screen, "key", "z", "keydown", "shift", "key", "y", "keyup", "shift")
    press(screen, "keydown", "108", "key", "q", "key", "7", "keyup", "108", "key", "apostrophe")
    press(screen, "key", "Return")
    is_in(p, "win01")


# ---- sizes

# the height of the font, at least
SIZES = {"640x480": 12, "800x600": 14, "1920x1080": 26, "3840x2160": 52}


def test_sizes(proxy, clients, place):
    """Readable everywhere: the panel has its share of the screen, and the list too."""
    for size, font in SIZES.items():
        width, height = (int(n) for n in size.split("x"))
        display = peers.Display(place, size)
        try:
            c = come(clients, place, display, proxy)
            shows_form(display)
            for box in ((0, 0, 40, height), (width - 16, height - 16, width, height)):
                shows(display, GROUND, box, 0.9)  # all of the screen is drawn
            save(display, "login-" + size)
            type_in(display, TYPED, "Return")
            _, _, row = shows_list(display)
            assert row > font * 1.5, (size, row)
            save(display, "list-" + size)
            type_in(display, "win01", "Return")
            is_in(proxy, "win01")
            c.stop()
            wait_until(lambda: proxy.sessions() == [], "it is over")
        finally:
            display.stop()


def save(display, name):
    """For eyes: pictures are kept where the environment says."""
    directory = os.environ.get("SALLYPORT_PICTURES")
    if directory:
        display.run("import", "-window", "root", os.path.join(directory, name + ".png"))


# ---- ends

def test_too_many_attempts(make_screen, clients, place, screen):
    p = make_screen({"limits": {"auth_attempts": "2"}})
    c = come(clients, place, screen, p, login="carol+win01")
    log_in(screen, "wrong")
    shows_error(screen)
    type_in(screen, "wrong", "Return")
    shows_notice(screen)
    c.wait()
    assert c.error_info() == "SERVER_DENIED_CONNECTION", c.log()
    assert p.history() == [] and len(p.events("login-failed")) == 2


def test_silence(make_screen, clients, place, screen):
    p = make_screen({"limits": {"login_grace": "4s"}})
    c = come(clients, place, screen, p)
    shows_form(screen)
    shows_notice(screen)
    c.wait()
    assert c.error_info() == "SERVER_DENIED_CONNECTION", c.log()
    wait_until(lambda: p.relays() == [], "the relay is gone")
    come(clients, place, screen, p)
    shows_form(screen)


def test_leaving(proxy, clients, place, screen):
    """Escape ends it, as does the client; a program that sends a wrong password fails at once."""
    c = come(clients, place, screen, proxy)
    shows_form(screen)
    c.key("Escape")
    c.wait()
    assert c.error_info() == "LOGOFF_BY_USER", c.log()
    wait_until(lambda: proxy.relays() == [], "the relay is gone")
    c = come(clients, place, screen, proxy)
    shows_form(screen)
    c.close_window()
    wait_until(lambda: proxy.relays() == [], "the relay is gone")
    c = connect(clients, place, screen, proxy, password="wrong")
    c.wait()
    assert c.error_info() == "SERVER_DENIED_CONNECTION", c.log()


def test_a_user_who_is_locked_at_the_list(proxy, clients, place, screen):
    """No session to end, but a connection; an event says so, the history nothing."""
    c = connect(clients, place, screen, proxy, login="alice")
    shows_list(screen)
    proxy.do("user", "lock", "alice")
    shows_notice(screen)
    c.wait()
    assert proxy.sessions() == [] and proxy.history() == []
    wait_until(lambda: proxy.relays() == [], "the relay is gone")
    assert proxy.events("connection-closed"), proxy.events()


def test_the_broker_goes_away_and_comes_back(proxy, clients, place, screen):
    """The screen stays; what is asked of the broker meanwhile is asked again."""
    come(clients, place, screen, proxy, login="carol+win01")
    shows_form(screen)
    proxy.kill()
    type_in(screen, TYPED)
    proxy.start()
    type_in(screen, "", "Return")
    is_in(proxy, "win01")


# ---- what no client does

def on_screen(p, login="carol"):
    """A client on the login screen."""
    c = RawClient(p.rdp_port).go("info", login, "")
    c.active()
    c.say(share_data(0x27, struct.pack("<HHHH", 0, 0, 3, 50), c.share, c.user))
    return c


NONSENSE = {
    "fast cut": lambda c: c.send(b"\x04\x05\x20\0\x08"),
    "fast unknown": lambda c: c.send(b"\x04\x03\xe0"),
    "fast many": lambda c: c.send(b"\x00\x03\xff"),
    "slow cut": lambda c: c.say(share_data(0x1c, b"\1\0\0\0\0\0", c.share, c.user)),
    "slow lies": lambda c: c.say(share_data(0x1c, b"\xff\xff\0\0" + b"\0" * 12, c.share, c.user)),
    "slow unknown": lambda c: c.say(share_data(0x1c, b"\1\0\0\0" + b"\x55" * 12, c.share, c.user)),
    "not MCS": lambda c: c.send(b"\x03\0\0\x0a\x02\xf0\x80\xff\xff\xff"),
}


def test_nonsense_on_the_screen(proxy):
    for what, say in NONSENSE.items():
        c = on_screen(proxy)
        say(c)
        c.ends()
        wait_until(lambda: proxy.relays() == [], "the relay is gone after " + what)
    assert proxy.history() == []
    on_screen(proxy).close()  # the gate lives


def test_a_flood_of_input(proxy):
    """Keys and clicks by the thousand, everywhere: bounded memory, and the form goes on."""
    c = on_screen(proxy)
    pid = proxy.relays()[0]
    noise = os.urandom(4096)
    for i in range(0, 4000, 4):
        x, y = struct.unpack("<HH", noise[i:i + 4])
        c.send(b"\x08\x10" + b"\x20" + struct.pack("<HHH", 0x9000, x % 1200, y % 900) +
               b"\x20" + struct.pack("<HHH", 0x1000, x % 1200, y % 900))
        if x % 1200 in range(350, 800) and y % 900 > 380:
            continue  # a button there would end it
        c.send(b"\x08\x06" + bytes([0, 0x10 + x % 40, 1, 0x10 + x % 40]))
    wait_until(lambda: pid in proxy.relays(), "it lives")
    assert private_kib(pid) < 6000
    c.close()
    wait_until(lambda: proxy.relays() == [], "the relay is gone")


def private_kib(pid):
    with open("/proc/%d/smaps_rollup" % pid) as f:
        return sum(int(line.split()[1]) for line in f if line.startswith("Private_"))


def typed(text):
    """Characters as such, each pressed and released."""
    return b"".join(struct.pack(">BB", 0x08, 8) + b"\x80" + struct.pack("<H", ord(t)) +
                    b"\x81" + struct.pack("<H", ord(t)) for t in text)


def test_the_order_of_the_hand_over(make_screen, place):
    """
    Deactivate All, then the target's Demand Active; nothing that the client says for the login
    screen reaches the target, and nothing of what it keeps.
    """
    seen = []

    def script(s):
        s.go("login")
        s.say(LICENCE_VALID)
        s.say(demand_active(0x50001, 800, 600))
        first = s.data()[1]
        seen.append(first[2:4])
        s.say(share_data(0x28, struct.pack("<HHHH", 0, 0, 3, 4), 0x50001))
        seen.append(s.data()[1])
        s.ends()

    target = RawTarget(place, "orderly", script)
    try:
        p = make_screen()
        add_target(p, "raw", target)
        p.grant("carol", "raw")
        c = on_screen(p, "carol+raw")
        c.send(typed(TYPED) + typed("\r"))
        while True:  # all that is drawn is skipped
            channel, body = c.data()
            if body[2:4] == b"\x16\0":
                break
        assert struct.unpack("<I", body[6:10])[0] == c.share
        channel, body = c.data()
        assert body[2:4] == b"\x11\0" and struct.unpack("<I", body[6:10])[0] == 0x50001
        c.send(typed("late"))  # still for the screen
        c.say(share_data(0x23, b"\0\0\0\0", c.share, c.user))
        c.say(confirm_active(0x50001, c.user))
        c.say(share_data(0x1f, struct.pack("<HH", 1, 1002), 0x50001, c.user))
        wait_until(lambda: len(seen) == 2, "what reached the target")
        assert seen[0] == b"\x13\0" and seen[1][14] == 0x1f, seen
        domain, user, password, _ = target.last().texts()
        assert (user, password) == ("bob", "target-secret")
        pid = p.sessions()[0]["pid"]
        if not harness.SANITIZED:
            wait_until(lambda: private_kib(pid) < 2500, "the memory of the screen is given back")
        c.close()
    finally:
        target.stop()


LICENCES = {
    "a request": b"\x80\0\0\0\x01\x03\x20\0" + b"\0" * 28,
    "a challenge": b"\x80\0\0\0\x02\x03\x20\0" + b"\0" * 28,
    "an error": b"\x80\0\0\0\xff\x03\x10\0" + struct.pack("<IIHH", 2, 1, 4, 0),
}


def test_licences(make_screen, place):
    """A target that goes through the motions is answered; one that means it is given up."""
    p = make_screen()
    for what, pdu in LICENCES.items():
        answers = []

        def script(s, pdu=pdu, answers=answers):
            s.go("login")
            s.say(pdu)
            if pdu[4] == 1:
                answers.append(s.data()[1])
                s.say(LICENCE_VALID)
                s.go("active", "licence")
            s.ends()

        name = what.split()[-1]
        target = RawTarget(place, name, script)
        try:
            add_target(p, name, target)
            p.grant("carol", name)
            c = on_screen(p, "carol+" + name)
            c.send(typed(TYPED) + typed("\r"))
            if what == "a request":
                while c.data()[1][2:4] != b"\x11\0":
                    pass
                assert answers[0][:6] == b"\x80\0\0\0\x13\x03" and len(answers[0]) == 260
            else:
                row = wait_until(lambda n=name: [r for r in p.history() if r["resourceName"] == n],
                                 "the end of it")[0]
                assert "wants to see a licence" in row["endText"], row
                assert p.relays() != []  # the list is there
            c.close()
            wait_until(lambda: p.relays() == [], "the relay is gone")
        finally:
            target.stop()
