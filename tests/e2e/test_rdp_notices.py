"""
Notices in RDP sessions, in each way of drawing that clients and servers have: what the user sees,
which pointer, what the client says of the end, and the history row.

Each way is a session of its own; the sessions of a scenario run at the same time, since most of
what they do is wait. Words are compared with pictures of their region in reference/, which
SALLYPORT_REFERENCE=write makes anew (look at them).
"""
import concurrent.futures
import os
import struct
import tempfile
import time
import zlib

import pytest

import harness
import rdp_peers as peers
from harness import wait_until

pytestmark = pytest.mark.skipif(bool(peers.missing()), reason="missing: %s" % peers.missing())

PASSWORD = "S3cret paß"
SIZE = (640, 480)
BLUE = (0x33, 0x66, 0x99)
AMBER = peers.NOTICE_BORDER
REFERENCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "reference")
WRITES = os.environ.get("SALLYPORT_REFERENCE") == "write"
PICTURES = os.environ.get("SALLYPORT_PICTURES")  # a directory: what was compared, to look at

# server, program, its options, whether frames are drawn (GFX), whether there is a badge, tolerance
# of a color. xrdp compresses its pointers for xfreerdp: what cannot be given back is not replaced.
MODES = {
    "bitmaps": ("xrdp", "xfreerdp", ["-gfx"], False, False, 4),
    "uncompressed": ("xrdp", "xfreerdp", ["-gfx", "-compression"], False, True, 4),
    "remotefx": ("shadow", "xfreerdp", ["/rfx", "-gfx"], False, True, 4),
    "progressive": ("shadow", "xfreerdp", ["-gfx-h264", "/gfx", "+gfx-progressive"], True,
                    True, 4),
    "avc420": ("shadow", "xfreerdp", ["/gfx:AVC420"], True, True, 4),
    "avc444": ("shadow", "xfreerdp", ["/gfx:AVC444"], True, True, 4),
    "rdesktop24": ("xrdp", "rdesktop", ["-a", "24"], False, True, 4),
    "rdesktop16": ("xrdp", "rdesktop", ["-a", "16"], False, True, 12),
    "rdesktop15": ("xrdp", "rdesktop", ["-a", "15"], False, True, 12),
    "rdesktop8": ("xrdp", "rdesktop", ["-a", "8"], False, True, 60),
}
PURPLE = (0x99, 0x33, 0x66)
NAMED = ("message-box", "message-banner", "kicked")  # the words have an admin's name in them


# ---- references ----

def write_png(path, width, height, rows):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + \
            struct.pack(">I", zlib.crc32(kind + data))
    raw = b"".join(b"\0" + row for row in rows)
    with open(path, "wb") as f:
        head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) +
                chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b""))


def read_png(path):
    """One of write_png's: width, height, rows of red, green, blue."""
    with open(path, "rb") as f:
        data = f.read()
    width, height = struct.unpack(">II", data[16:24])
    at, packed = 8, b""
    while at < len(data):
        n, kind = struct.unpack(">I4s", data[at:at + 8])
        if kind == b"IDAT":
            packed += data[at + 8:at + 8 + n]
        at += 12 + n
    raw = zlib.decompress(packed)
    return width, height, [raw[y * (3 * width + 1) + 1:(y + 1) * (3 * width + 1)]
                           for y in range(height)]


def rows_of(picture, box):
    left, top, right, bottom = box
    rows = []
    for y in range(top, bottom):
        line = picture.raw[y * picture.stride + 4 * left:y * picture.stride + 4 * right]
        row = bytearray(3 * (right - left))
        row[0::3], row[1::3], row[2::3] = line[2::4], line[1::4], line[0::4]
        rows.append(bytes(row))
    return rows


def place_of(width, height, is_banner):
    left = (SIZE[0] - width) // 2
    top = 0 if is_banner else (SIZE[1] - height) // 2
    return left, top, left + width, top + height


def find_box(picture):
    """Where the one box of ours is, by its border."""
    border = bytes(reversed(AMBER))
    hits = [(x, y) for y in range(picture.height)
            for x in range(picture.width)
            if picture.raw[y * picture.stride + 4 * x:y * picture.stride + 4 * x + 3] == border]
    xs, ys = [x for x, _ in hits], [y for _, y in hits]
    return min(xs), min(ys), max(xs) + 1, max(ys) + 1


def looks_like(picture, name, is_banner, tolerance, least=0.97):
    """Whether the region in which it must be looks as the reference does."""
    path = os.path.join(REFERENCE, name + ".png")
    if name in NAMED and harness.ADMIN != "admin root":
        return picture.has_notice()  # another name in it
    if WRITES and not os.path.exists(path):
        if not picture.has_notice():
            return False
        box = find_box(picture)
        if place_of(box[2] - box[0], box[3] - box[1], is_banner) != box:
            return False  # half of it
        rows = rows_of(picture, box)
        os.makedirs(REFERENCE, exist_ok=True)
        if any(read_png(os.path.join(REFERENCE, n))[2] == rows for n in os.listdir(REFERENCE)):
            return False  # the words that were there before
        write_png(path, box[2] - box[0], box[3] - box[1], rows)
    width, height, wanted = read_png(path)
    got = rows_of(picture, place_of(width, height, is_banner))
    same = sum(len(g) if g == w else sum(abs(a - b) <= tolerance for a, b in zip(g, w))
               for g, w in zip(got, wanted))
    return same >= least * 3 * width * height


def keep(picture, name):
    if PICTURES:
        write_png(os.path.join(PICTURES, name + ".png"), picture.width, picture.height,
                  rows_of(picture, (0, 0, picture.width, picture.height)))


def has_badge(pointer):
    """The disc of the badge: amber, and as much of it as there must be."""
    return sum(p[3] == 255 and all(abs(a - b) < 3 for a, b in zip(p, AMBER))
               for p in pointer[2]) > 100


# ---- sessions ----

class Session:
    """A client of one mode, on a display of its own."""
    def __init__(self, mode, where, proxy, target):
        self.mode, self.proxy, self.where = mode, proxy, where
        self.server, self.program, self.extra = MODES[mode][:3]
        self.is_gfx, self.has_badge, self.tolerance = MODES[mode][3:]
        self.target = target[self.server]
        self.screen = peers.Display(where, "%dx%d" % SIZE)
        self.client = None

    def start(self):
        """
        The desktop is there, in the way of drawing that is meant: this freerdp-shadow at times
        begins with bitmaps and stays with them, without a proxy too.
        """
        for _ in range(6):
            before = self.frames()
            self.client = getattr(peers, self.program)(
                self.where, self.screen, self.proxy.rdp_port, "%s+%s" % (self.mode, self.server),
                PASSWORD, *self.extra)
            wait_until(self.row, "the session of " + self.mode)
            wait_until(self.has_desktop, "the desktop of " + self.mode, every=0.2)
            if not self.is_gfx:
                return
            try:
                wait_until(lambda: self.frames() > before, "frames", 4)
                return
            except AssertionError:
                self.client.stop()
                wait_until(lambda: not self.row(), "the session is gone")
        raise AssertionError("%s: no frames" % self.mode)

    def frames(self):
        return self.proxy.log().count("%s>%s: graphics: frames" % (self.mode, self.server))

    def row(self):
        rows = [r for r in self.proxy.sessions() if r["user"] == self.mode]
        return rows[0] if rows and rows[0]["status"] in ("active", "idle") else None

    def has_desktop(self):
        picture = self.screen.picture()
        return max(picture.share(c, (8, 8, 632, 472), 24) for c in (BLUE, PURPLE)) > 0.8

    def is_blue(self):
        return self.screen.picture().share(BLUE, (8, 8, 632, 472), 24) > 0.97

    def shows(self, name, is_banner, what):
        """The picture of the screen when it shows the words."""
        found = []

        def look():
            found[:] = [self.screen.picture()]
            return looks_like(found[0], name, is_banner, self.tolerance)
        try:
            wait_until(look, "%s: %s" % (self.mode, what), every=0.15)
        finally:
            keep(found[0], "%s-%s" % (name, self.mode))

    def pointer_changes(self, to_badge):
        wait_until(lambda: has_badge(self.screen.pointer()) == to_badge,
                   "%s: a pointer %s a badge" % (self.mode, "with" if to_badge else "without"))
        if to_badge and PICTURES:
            width, height, pixels = self.screen.pointer()
            rows = [b"".join(bytes(p[:3] if p[3] else BLUE) * 8 for p in pixels[y:y + width])
                    for y in range(0, width * height, width) for _ in range(8)]
            write_png(os.path.join(PICTURES, "badge-%s.png" % self.mode), 8 * width, 8 * height,
                      rows)

    def pointer_at_rest(self):
        """The target may still be about to set one for the place it was moved to."""
        while True:
            seen = self.screen.pointer()
            time.sleep(1)
            if self.screen.pointer() == seen:
                return seen

    def ended(self):
        got = {"exit": self.client.wait(), "info": self.client.error_info(),
               "log": self.client.log()}
        got["is_surface"] = "%s>%s: the last words are a surface" % (self.mode, self.server) in \
            self.proxy.log()
        rows = wait_until(lambda: [r for r in self.proxy.history() if r["user"] == self.mode],
                          "the row of " + self.mode)
        got["row"] = rows[-1]
        return got

    def stop(self):
        if self.client:
            self.client.stop()
        self.screen.stop()


class Target:
    """The servers of a kind; their desktops are of one color, or change all the time."""
    def __init__(self, where, kind):
        self.servers = {"xrdp": peers.Xrdp(where, "xrdp-" + kind, "%dx%d" % SIZE),
                        "shadow": peers.Shadow(where, "shadow-" + kind, "%dx%d" % SIZE)}
        self.movers = []
        for s in self.servers.values():
            s.start()
            s.display.paint("#336699")
        if kind == "moving":
            for name, s in self.servers.items():
                self.movers.append(peers.Process(
                    ["sh", "-c", "while :; do xsetroot -solid '#993366'; sleep 0.15;"
                     " xsetroot -solid '#336699'; sleep 0.15; done"],
                    os.path.join(where, "mover-%s.log" % name), s.display.env()))

    def __getitem__(self, name):
        return self.servers[name]

    def finish(self):
        for m in self.movers:
            m.stop()
        for s in self.servers.values():
            s.finish()


@pytest.fixture(scope="module")
def where(scratch):
    path = tempfile.mkdtemp(prefix="notices-", dir=scratch)
    os.chmod(path, 0o755)
    return path


@pytest.fixture(scope="module")
def still(where):
    target = Target(where, "still")
    yield target
    target.finish()


@pytest.fixture(scope="module")
def moving(where):
    target = Target(where, "moving")
    yield target
    target.finish()


def make_proxy(where, target, options):
    port = harness.free_port()
    rdp = {"enabled": "yes", "listen": "127.0.0.1:%d" % port}
    p = harness.Proxy(where, dict(options, rdp=rdp))
    p.rdp_port = port
    p.start()
    for name, server in target.servers.items():
        p.do("target", "add", name, "--type", "rdp", "--address", server.address,
             "--account", "bob", "--auth", "password", "--secret-stdin", "--accept-new",
             input="secret\n")
    for mode in MODES:
        p.add_user(mode, password=PASSWORD)
        p.grant(mode, MODES[mode][0])
    return p


def run(where, target, options, script, modes=tuple(MODES)):
    """The script for each mode: what it gave, or what it raised."""
    proxy = make_proxy(where, target, options)
    only = os.environ.get("SALLYPORT_MODES")  # a few of them, for whoever looks for a fault

    def one(mode):
        session = None
        try:
            session = Session(mode, where, proxy, target)
            session.start()
            return script(session)
        except Exception as e:  # the test of this mode raises it
            return e
        finally:
            if session:
                session.stop()

    modes = [m for m in modes if not only or m in only.split(",")]
    if not modes:
        return {}
    try:
        with concurrent.futures.ThreadPoolExecutor(len(modes)) as pool:
            return dict(zip(modes, pool.map(one, modes)))
    finally:
        proxy.clean_up()
        proxy.assert_clean_log()


def of(results, mode):
    if isinstance(results.get(mode), Exception):
        raise results[mode]
    if mode not in results:
        pytest.skip("not asked for")
    return results[mode]


each_mode = pytest.mark.parametrize("mode", list(MODES))
MOVING = ["bitmaps", "remotefx", "progressive", "avc420", "avc444", "rdesktop24"]


def check_end(got, mode, reason, info, codes):
    """codes: exit of xfreerdp, of rdesktop."""
    assert got["row"]["endReason"] == reason, got["row"]
    if mode.startswith("rdesktop"):
        assert got["exit"] == codes[1], got["log"]
    else:
        assert (got["info"], got["exit"]) == (info, codes[0]), got["log"]
    assert got["is_surface"] == MODES[mode][3]


# ---- a message on a desktop that stands still, and the end by an admin ----

def read_and_kicked(s):
    s.client.move(320, 400)
    before = s.pointer_at_rest()
    s.proxy.do("session", "message", s.row()["id"], "the host restarts at 18:00")
    name = "message-banner" if s.is_gfx else "message-box"
    s.shows(name, s.is_gfx, "the message")
    s.pointer_changes(s.has_badge)
    time.sleep(3)  # a message stays for that long, whatever is typed
    stayed = looks_like(s.screen.picture(), name, s.is_gfx, s.tolerance)
    s.client.key("a")
    wait_until(s.is_blue, s.mode + ": the desktop as it was", every=0.2)
    s.pointer_changes(False)
    pointer = s.screen.pointer()
    s.proxy.do("session", "end", s.row()["id"], "-y", "--reason", "off duty")
    s.shows("kicked", False, "the last words")
    return dict(s.ended(), stayed=stayed, pointer=pointer == before)


@pytest.fixture(scope="module")
def kicked(where, still):
    return run(where, still, {}, read_and_kicked)


@each_mode
def test_a_message_and_the_end(kicked, mode):
    got = of(kicked, mode)
    assert got["stayed"]
    assert got["pointer"], "another pointer than before"
    check_end(got, mode, "admin-ended", "RPC_INITIATED_DISCONNECT", (2, 1))
    assert got["row"]["endedBy"] == harness.ADMIN


# ---- an idle warning that goes away, and the idle end ----

def warned_and_ended(s):
    name = "idle-banner" if s.is_gfx else "idle-box"
    s.shows(name, s.is_gfx, "the warning")
    s.pointer_changes(s.has_badge)
    s.client.key("a")
    wait_until(s.is_blue, s.mode + ": the desktop as it was", every=0.2)
    s.pointer_changes(False)
    s.shows(name, s.is_gfx, "the warning again")
    s.shows("idle-ended", False, "the last words")
    return s.ended()


@pytest.fixture(scope="module")
def idled(where, still):
    return run(where, still, {"idle": {"idle_after": "1s", "warn_after": "3s",
                                       "disconnect_after": "9s"}}, warned_and_ended)


@each_mode
def test_an_idle_warning_and_the_idle_end(idled, mode):
    got = of(idled, mode)
    check_end(got, mode, "idle-timeout", "IDLE_TIMEOUT", (3, 3))


# ---- the maximum length ----

def outlived(s):
    s.shows("too-long", False, "the last words")
    return s.ended()


@pytest.fixture(scope="module")
def too_long(where, still):
    return run(where, still, {"limits": {"max_duration": "15s"}}, outlived)


@each_mode
def test_the_maximum_length(too_long, mode):
    check_end(of(too_long, mode), mode, "max-duration", "LOGON_TIMEOUT", (4, 4))


# ---- a desktop that changes all the time ----

def background(picture):
    at = picture.at(20, 470)
    return min((BLUE, PURPLE), key=lambda c: sum(abs(a - b) for a, b in zip(at, c)))


def read_while_it_moves(s):
    name = "message-banner" if s.is_gfx else "message-box"
    s.proxy.do("session", "message", s.row()["id"], "the host restarts at 18:00")
    s.shows(name, s.is_gfx, "the message")
    seen, grounds, total, end = 0, set(), 0, time.monotonic() + 3
    while time.monotonic() < end:
        picture = s.screen.picture()
        total += 1
        if looks_like(picture, name, s.is_gfx, s.tolerance):
            seen += 1
            grounds.add(background(picture))
    s.client.key("a")
    s.pointer_changes(False)
    gone = wait_until(lambda: s.has_desktop() and not s.screen.picture().has_notice(),
                      s.mode + ": no message")
    for _ in range(10):  # nor does it come back
        gone &= not s.screen.picture().has_notice()
        time.sleep(0.05)
    s.proxy.do("session", "end", s.row()["id"], "-y", "--reason", "off duty")
    s.shows("kicked", False, "the last words")
    time.sleep(1)
    frozen = looks_like(s.screen.picture(), "kicked", False, s.tolerance)
    return dict(s.ended(), seen=seen / total, grounds=len(grounds), gone=gone, frozen=frozen)


@pytest.fixture(scope="module")
def moved(where, moving):
    return run(where, moving, {}, read_while_it_moves, MOVING)


@pytest.mark.parametrize("mode", MOVING)
def test_a_desktop_that_moves(moved, mode):
    got = of(moved, mode)
    assert got["seen"] > 0.15, "it was to be read in %.0f %%" % (100 * got["seen"])
    assert got["grounds"] == 2, "no frame of the target's came"
    assert got["gone"] and got["frozen"]
    check_end(got, mode, "admin-ended", "RPC_INITIATED_DISCONNECT", (2, 1))
