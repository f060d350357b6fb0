"""
Recordings of desktops as videos and pictures: each codec recorded through the proxy, exported, and
compared with what was on the client's screen.
"""
import datetime
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import time

import pytest

import harness
import rdp_peers as peers
from harness import wait_until
from rdp_fixtures import *

EXPORT = os.path.join(harness.BUILD, "sallyport-export")
pytestmark = pytest.mark.skipif(
    bool(peers.missing()) or not shutil.which("ffmpeg") or not os.path.exists(EXPORT),
    reason="missing: %s ffmpeg or sallyport-export" % peers.missing())

GFX = {"rfx": ["/rfx", "-gfx"], "progressive": ["-gfx-h264", "/gfx", "+gfx-progressive"],
       "avc420": ["/gfx:AVC420"], "avc444": ["/gfx:AVC444"]}
TEXT_BOX = (20, 20, 620, 420)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where indexes are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sallyport"


@pytest.fixture
def proxy(make_rdp, xrdp, shadow):
    p = make_rdp()
    add_target(p, "win01", xrdp)
    return add_target(p, "win02", shadow)


@pytest.fixture
def write_text():
    """Something with detail on a display; the one before goes."""
    shown = []

    def write(server, text="seq"):
        server.display.run("xsetroot", "-cursor_name", "left_ptr")  # Xvnc's own is empty
        for x in shown:
            x.stop()
        script = "for i in $(seq 1 24); do echo \"$i %s $((i * 7919)) the quick brown fox\"; done; " \
                 "sleep 600" % text
        shown.append(peers.Process(["xterm", "-geometry", "90x28+30+30", "-e", "sh", "-c", script],
                                   os.path.join(server.dir, "xterm.log"), server.display.env()))
        wait_until(lambda: server.display.picture().share((255, 255, 255), TEXT_BOX) > 0.7,
                   "an xterm")
    yield write
    for x in shown:
        x.stop()


class Shot(peers.Picture):
    """A PNG, or what a video shows at a time: like a picture of a display."""
    def __init__(self, path, at=None):  # pylint: disable=super-init-not-called
        turn = "scale=in_color_matrix=bt709"
        frame = ["-frames:v", "1", "-vf", turn]
        if at is not None:  # a frame stands until the next one comes
            frame = ["-ss", "%.2f" % at, "-frames:v", "1", "-vf", "fps=25," + turn]
        probe = subprocess.run(["ffprobe", "-v", "error", "-of", "json", "-show_streams",
                                "-show_format", path], capture_output=True, check=True)
        self.probe = json.loads(probe.stdout)
        self.width, self.height = (self.probe["streams"][0][k] for k in ("width", "height"))
        self.raw = subprocess.run(["ffmpeg", "-v", "error", "-i", path, *frame, "-f",
                                   "rawvideo", "-pix_fmt", "bgr0", "-"], capture_output=True,
                                  check=True).stdout
        self.stride = self.width * 4

    @property
    def seconds(self):
        return float(self.probe["format"]["duration"])


def last_frame(path):
    """Of a video whose frames stand for any time: the last one there is."""
    raw = subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-vf", "scale=in_color_matrix=bt709",
                          "-f", "rawvideo", "-pix_fmt", "bgr0", "-vsync", "passthrough", "-"],
                         capture_output=True, check=True).stdout
    shot = Shot(path)
    shot.raw = raw[-shot.stride * shot.height:]
    return shot


def different(a, b, box, tolerance):
    """How much of a box differs."""
    left, top, right, bottom = box
    hits = total = 0
    for y in range(top, bottom, 3):
        for x in range(left, right, 3):
            total += 1
            hits += any(abs(p - q) > tolerance for p, q in zip(a.at(x, y), b.at(x, y)))
    return hits / total


def quiet(screen, box):
    """What is on the screen once it does not change any more."""
    seen = [screen.picture()]

    def check():
        seen.append(screen.picture())
        return different(seen[-2], seen[-1], box, 0) == 0 and seen[-1]
    return wait_until(check, "a quiet screen", every=0.5)


def export(p, name, tmp_path, *options, recording=None):
    path = str(tmp_path / name)
    out = p.json("recording", "export", recording or p.json("recording", "ls")[0]["id"], path,
                 "--force", *options)
    assert out["file"] == path and os.stat(path).st_mode & 0o077 == 0
    return path, out


def fails(p, code, *args, says):
    r = p.ctl("recording", "export", *args)
    assert r.returncode == code and re.search(says, r.stderr), (r.returncode, r.stderr)


def nothing_left(tmp_path, *files):
    assert sorted(f for f in os.listdir(tmp_path) if f != "cache") == sorted(files)


# ---- each codec ----

def record(p, clients, place, screen, write_text, server, login, size, *options, program="xfreerdp"):
    """A session with text on the desktop; what was on the client's screen at its end."""
    if program == "xfreerdp":
        c = connect(clients, place, screen, p, *options, login=login, size=size)
    else:
        c = peers.rdesktop(place, screen, p.rdp_port, login, PASSWORD)
        clients.append(c)
    p.wait_sessions(1, "active")
    shows(screen, BLUE, (20, 440, size[0] - 40, size[1] - 20), 0.95)
    write_text(server)
    wait_until(lambda: screen.picture().share((255, 255, 255), TEXT_BOX) > 0.7, "text at the client")
    before = p.sessions()[0]["bytesIn"]
    wait_until(lambda: c.move(size[0] - 35, size[1] - 35) or c.move(size[0] - 30, size[1] - 30) or
               p.sessions()[0]["bytesIn"] > before + 10, "the pointer moves", every=0.3)
    live = quiet(screen, (0, 0, size[0] - 60, size[1] - 60))
    time.sleep(1)  # a part of the session in which nothing is drawn
    c.stop()
    row = ended(p)
    assert row["recording"] == "ok"
    return row, live


def check_export(p, row, live, tmp_path, size):
    box = (0, 0, size[0] - 60, size[1] - 60)  # without the pointer
    path, out = export(p, "end.png", tmp_path)
    assert (out["kind"], out["width"], out["height"], out["exact"]) == ("picture", *size, True)
    assert different(Shot(path), live, box, 8) < 0.002
    pointer = (size[0] - 40, size[1] - 40, size[0] - 10, size[1] - 10)
    assert different(Shot(path), live, pointer, 8) > 0, "there is a pointer"
    path, out = export(p, "all.mp4", tmp_path)
    video = Shot(path)
    assert video.probe["streams"][0]["codec_name"] == "h264"
    assert (video.width, video.height) == size and out["pictures"] >= 2
    assert abs(video.seconds - row["durationSeconds"]) < 4, (video.seconds, row)
    assert abs(video.seconds - out["seconds"]) < 0.1
    assert different(last_frame(path), live, box, 60) < 0.05  # colours have half the resolution
    nothing_left(tmp_path, "all.mp4", "end.png")


@pytest.mark.parametrize("mode", GFX)
def test_shadow(proxy, clients, place, screen, shadow, write_text, tmp_path, mode):
    row, live = record(proxy, clients, place, screen, write_text, shadow, "alice+win02", (800, 600),
                       *GFX[mode])
    check_export(proxy, row, live, tmp_path, (800, 600))


@pytest.mark.parametrize("program", ["xfreerdp", "rdesktop"])
def test_xrdp(proxy, clients, place, screen, xrdp, write_text, tmp_path, program):
    row, live = record(proxy, clients, place, screen, write_text, xrdp, "alice+win01", (1024, 768),
                       program=program)
    check_export(proxy, row, live, tmp_path, (1024, 768))


# ---- parts ----

@pytest.fixture
def two_colours(proxy, clients, place, screen, xrdp):
    """A session that is blue, and then red: (proxy, seconds when it surely was blue)"""
    xrdp.display.paint("#336699")
    c = connect(clients, place, screen, proxy)
    proxy.wait_sessions(1, "active")
    shows(screen, BLUE, (20, 60, 1000, 700))
    blue = time.time()
    c.move(500, 400)
    time.sleep(3)
    xrdp.display.paint("#aa2222")
    shows(screen, RED, (20, 60, 1000, 700))
    c.stop()
    xrdp.display.paint("#336699")
    ended(proxy)
    row, = proxy.json("recording", "ls")
    started = datetime.datetime.fromisoformat(row["started"].replace("Z", "+00:00"))
    return proxy, blue - started.timestamp()


def test_a_moment_and_the_index(two_colours, tmp_path, cache):
    p, blue = two_colours
    at = "%.1f" % (blue + 1)
    path, out = export(p, "blue.png", tmp_path, "--at", at)
    assert Shot(path).share(BLUE) > 0.99 and abs(out["at"] - blue - 1) < 0.2
    assert Shot(export(p, "end.png", tmp_path)[0]).share(RED) > 0.99
    kept, = os.listdir(cache)
    assert kept.endswith(".index") and os.stat(cache / kept).st_mode & 0o077 == 0
    # now it is answered without the recording's help
    before = os.stat(cache / kept).st_ino
    path, out = export(p, "again.png", tmp_path, "--at", at)
    assert Shot(path).raw == Shot(str(tmp_path / "blue.png")).raw and out["exact"]
    assert os.listdir(cache) == [kept] and os.stat(cache / kept).st_ino == before
    path, _ = export(p, "exact.png", tmp_path, "--at", at, "--exact")
    assert Shot(path).raw == Shot(str(tmp_path / "blue.png")).raw
    assert os.stat(cache / kept).st_ino == before
    # a damaged or a strange one is as good as none
    (cache / kept).write_bytes((cache / kept).read_bytes()[:-9] + b"x" * 9)
    assert Shot(export(p, "more.png", tmp_path, "--at", at)[0]).share(BLUE) > 0.99
    (cache / kept).write_bytes(os.urandom(5000))
    assert Shot(export(p, "more.png", tmp_path, "--at", at)[0]).share(BLUE) > 0.99


def test_a_thumbnail(two_colours, tmp_path):
    p, _ = two_colours
    path, out = export(p, "small.png", tmp_path, "--thumbnail")
    shot = Shot(path)
    assert (shot.width, shot.height) == (320, 240) and out["kind"] == "thumbnail"
    assert shot.share(BLUE) > 0.95  # it stood longest
    first = shot.raw
    assert Shot(export(p, "again.png", tmp_path, "--thumbnail")[0]).raw == first


def test_parts_and_pauses_of_a_video(two_colours, tmp_path):
    p, blue = two_colours
    whole, _ = export(p, "whole.mp4", tmp_path)
    # times of the video are times of the recording
    assert Shot(whole, blue + 1).share(BLUE, tolerance=16) > 0.98
    assert last_frame(whole).share(RED, tolerance=16) > 0.98
    part, _ = export(p, "part.mp4", tmp_path, "--from", "%.1f" % (blue + 0.5), "--until",
                     "%.1f" % (blue + 2))
    assert abs(Shot(part).seconds - 1.5) < 0.2
    assert last_frame(part).share(BLUE, tolerance=16) > 0.98
    short, _ = export(p, "short.mp4", tmp_path, "--idle-limit", "0.2")
    assert Shot(short).seconds < Shot(whole).seconds - 1.5
    assert last_frame(short).share(RED, tolerance=16) > 0.98


def test_a_new_size(proxy, xrdp, clients, place, screen, tmp_path):
    c = connect(clients, place, screen, proxy, "/dynamic-resolution", size=(640, 480))
    proxy.wait_sessions(1, "active")
    shows(screen, BLUE, (10, 10, 600, 450))
    window = screen.run("xdotool", "search", "--name", "FreeRDP").stdout.split()[-1]
    try:
        assert screen.run("xdotool", "windowsize", window, "900", "700").returncode == 0
        wait_until(lambda: "900x700" in xrdp.display.run("xdpyinfo").stdout, "the desktop follows")
        xrdp.display.paint("#336699")
        shows(screen, BLUE, (10, 10, 880, 680))
        c.move(880, 680)
        c.stop()
        ended(proxy)
        path, out = export(proxy, "end.png", tmp_path)
        assert (out["width"], out["height"]) == (900, 700) and Shot(path).share(BLUE) > 0.98
        path, out = export(proxy, "all.mp4", tmp_path)
        assert (Shot(path).width, Shot(path).height) == (900, 700)
        assert last_frame(path).share(BLUE, tolerance=16) > 0.98
    finally:
        xrdp.display.run("xrandr", "-s", "1024x768")


# ---- what is not whole ----

def test_a_cut_recording(proxy, clients, place, screen, tmp_path):
    c = connect(clients, place, screen, proxy)
    proxy.wait_sessions(1, "active")
    shows(screen, BLUE, (20, 60, 1000, 700))
    path, = recording_files(proxy)
    wait_until(lambda: os.path.getsize(path) > 2000, "it is written")
    live = proxy.ctl("recording", "export", proxy.json("recording", "ls")[0]["id"],
                     str(tmp_path / "live.png"))
    assert live.returncode == 0 and "is live" in live.stderr, live.stderr
    size = os.path.getsize(path)
    c.move(300, 300)
    wait_until(lambda: os.path.getsize(path) > size, "another frame is written")
    os.kill(proxy.relays()[0], signal.SIGKILL)
    assert ended(proxy)["endReason"] == "relay-crashed"
    assert os.path.getsize(path) >= size
    r = proxy.ctl("recording", "export", proxy.json("recording", "ls")[0]["id"],
                  str(tmp_path / "end.png"))
    assert r.returncode == 0 and "not complete" in r.stderr, r.stderr
    assert Shot(str(tmp_path / "end.png")).share(BLUE) > 0.99
    data = open(path, "rb").read()  # torn in the middle of a segment
    with open(path, "wb") as f:
        f.write(data[:-10])
    assert Shot(export(proxy, "torn.mp4", tmp_path)[0]).probe["streams"][0]["codec_name"] == "h264"


def recording_files(p):
    return [os.path.join(d, f) for d, _, fs in os.walk(p.recordings) for f in fs]


def test_a_damaged_recording(two_colours, tmp_path):
    p, _ = two_colours
    path, = recording_files(p)
    number = p.json("recording", "ls")[0]["id"]
    data = bytearray(open(path, "rb").read())
    second = data.find(b"SPRT") + 116  # a segment behind that of the first picture
    for i in range(second + 10, second + 20):
        data[i] ^= 0x5a
    with open(path, "wb") as f:
        f.write(data)
    fails(p, 1, number, str(tmp_path / "a.png"), says="damaged, pictures may be wrong or missing")
    fails(p, 1, number, str(tmp_path / "a.mp4"), says="damaged")
    nothing_left(tmp_path, "a.mp4", "a.png")
    assert Shot(str(tmp_path / "a.mp4")).width == 1024
    head = data.find(b"SPRC") + 40
    for garbage in (os.urandom(50000), bytes(data[:head]) + os.urandom(50000), bytes(data[:20]), b""):
        with open(path, "wb") as f:
            f.write(garbage)
        r = p.ctl("recording", "export", number, str(tmp_path / "b.mp4"))
        assert r.returncode in (1, 2) and r.stderr.startswith("sallyctl: "), (r.returncode, r.stderr)
    nothing_left(tmp_path, "a.mp4", "a.png")


# ---- the program ----

@pytest.fixture
def other_program():
    """Another program in the place of sallyport-export; None takes it away."""
    place = os.path.join(harness.bin_dir(), "sallyport-export")

    def put(script):
        if os.path.exists(place):
            os.unlink(place)
        if script:
            with open(place, "w") as f:
                f.write("#!/bin/sh\n" + script)
            os.chmod(place, 0o755)
    yield put
    if os.path.exists(place):
        os.unlink(place)
    shutil.copy(EXPORT, place)


def test_what_goes_wrong(two_colours, tmp_path, other_program, cache):
    p, _ = two_colours
    number, out = p.json("recording", "ls")[0]["id"], str(tmp_path / "a.mp4")
    for name in ("a.avi", "a.cast", "a", "-"):
        fails(p, 2, number, str(tmp_path / name) if name != "-" else name, says=r"\.mp4 .*\.png")
    fails(p, 2, number, str(tmp_path / "a.mp4"), "--thumbnail", says=r"name the file \.png")
    fails(p, 2, number, str(tmp_path / "a.png"), "--until", "5", says="--until is for videos")
    fails(p, 2, number, out, "--from", "x", says="SS, MM:SS")
    fails(p, 2, number, out, "--from", "5", "--until", "3", says="later than --from")
    fails(p, 1, number, out, "--from", "2:00:00", says=r"is 00:00:\d\d long")
    fails(p, 1, number, "/nonexistent/a.mp4", says="cannot write")
    open(tmp_path / "there.png", "w").close()
    fails(p, 1, number, str(tmp_path / "there.png"), says="--force")
    other_program("kill -SEGV $$\n")
    fails(p, 1, number, out, says="decoder died of it")
    other_program("exit 3\n")
    fails(p, 1, number, out, says="ended with status 3")
    other_program(None)
    fails(p, 1, number, out, says="sallyport-export is not there: ")
    other_program("exec sleep 60\n")
    for sig in (signal.SIGINT, signal.SIGTERM):
        c = subprocess.Popen([os.path.join(harness.bin_dir(), "sallyctl"), "--socket", p.socket,
                              "recording", "export", number, out], stderr=subprocess.PIPE)
        wait_until(lambda: any(".part-" in f for f in os.listdir(tmp_path)), "it is at work")
        os.kill(c.pid, sig)
        assert c.wait(20) == -sig
    nothing_left(tmp_path, "there.png")
    assert not cache.exists() or os.listdir(cache) == []

