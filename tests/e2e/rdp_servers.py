"""
RDP servers that the compatibility tests reach through the proxy, beside Xrdp and Shadow of
rdp_peers.py: xrdp on Xorg, xrdp with its real login, weston. Of each one the tests want the same:
show a pattern, say what its own display shows, and log which keys and clicks arrive there.
"""
import contextlib
import fcntl
import glob
import os
import pwd
import random
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import zlib

import pytest

import harness
import rdp_peers as peers
from harness import free_port, listens, run, wait_until

SESMAN_PORT = 3350  # xrdp takes it from /etc/xrdp/sesman.ini and nowhere else
XORG = "/usr/lib/xorg/Xorg"


def freerdp3(program):
    """The command line of a program of FreeRDP 3: the system's, or Debian's backport of it unpacked
    into the build tree. Skips the test when neither can be had."""
    if shutil.which(program):
        return [program]
    done = run(os.path.join(harness.SOURCE, "scripts", "freerdp3.sh"),
               os.path.join(harness.BUILD, "freerdp3"), timeout=300)
    if done.returncode != 0:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    root = done.stdout.strip()
    libraries = glob.glob(root + "/usr/lib/*/libfreerdp3.so.3")
    return ["env", "LD_LIBRARY_PATH=" + os.path.dirname(libraries[0]),
            os.path.join(root, "usr", "bin", program)]


class Pattern:
    """Blocks of two colors in an order that no two places share; each server is given it."""
    COLORS = ((0x33, 0x66, 0x99), (0xe0, 0xc0, 0x40))
    BLOCK = 32

    def __init__(self, size, seed=1):
        self.width, self.height = size
        bits = random.Random(seed)
        self.cells = [[bits.random() < 0.5 for _ in range(-(-self.width // self.BLOCK))]
                      for _ in range(-(-self.height // self.BLOCK))]

    def at(self, x, y):
        return self.COLORS[self.cells[y // self.BLOCK][x // self.BLOCK]]

    def centers(self):
        """Where the middles of blocks are: codecs with loss are wrong at edges."""
        half = self.BLOCK // 2
        for y in range(half, self.height - half, self.BLOCK):
            for x in range(half, self.width - half, self.BLOCK):
                yield x, y

    def write_xbm(self, path):
        rows = []
        for y in range(self.height):
            cells = self.cells[y // self.BLOCK]
            rows.append(",".join("0xff" if cells[x // self.BLOCK] else "0x00"
                                 for x in range(0, self.width, 8)))
        with open(path, "w") as f:
            f.write("#define p_width %d\n#define p_height %d\nstatic char p_bits[] = {\n%s};\n" %
                    (self.width, self.height, ",\n".join(rows)))
        os.chmod(path, 0o644)

    def write_png(self, path):
        rows = b"".join(b"\0" + b"".join(bytes(self.at(x, y)) for x in range(self.width))
                        for y in range(self.height))

        def chunk(kind, data):
            return struct.pack(">I", len(data)) + kind + data + \
                struct.pack(">I", zlib.crc32(kind + data))

        head = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        with open(path, "wb") as f:
            f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) +
                    chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))

    def xsetroot(self, path):
        return ["xsetroot", "-bitmap", path, "-fg", "#%02x%02x%02x" % self.COLORS[1],
                "-bg", "#%02x%02x%02x" % self.COLORS[0]]

    def likeness(self, picture, truth):
        """How many of the blocks look in `picture` as they do in `truth`: 0 to 1."""
        total = same = 0
        for x, y in self.centers():
            if x >= min(picture.width, truth.width) or y >= min(picture.height, truth.height):
                return 0  # one of them is about to change its size
            total += 1
            same += all(abs(a - b) < 40 for a, b in zip(picture.at(x, y), truth.at(x, y)))
        return same / total


Pattern.COLORS = (Pattern.COLORS[1], Pattern.COLORS[0])  # False, True: as xsetroot has them


class XEvents:
    """What arrives at the root window of an X display, by xev."""
    def __init__(self, directory, env):
        self.process = peers.Process(
            ["stdbuf", "-oL", "xev", "-root", "-event", "keyboard", "-event", "button", "-event",
             "mouse"], os.path.join(directory, "events-%d.log" % time.monotonic_ns()), env)

    def log(self):
        return self.process.log()

    def has_key(self, letter):
        return re.search(r"KeyPress event.*?keysym 0x[0-9a-f]+, %s\)" % letter, self.log(), re.S)

    def has_click(self, x, y):
        return re.search(r"ButtonPress event.*?root:\(%d,%d\)" % (x, y), self.log(), re.S)

    def stop(self):
        self.process.stop()


class OnX:
    """A server whose desktop is an X display: self.display."""
    def paint(self, seed=1):
        self.pattern = Pattern(self.display.size, seed)
        path = os.path.join(self.dir, "pattern.xbm")
        self.pattern.write_xbm(path)
        assert self.display.run(*self.pattern.xsetroot(path)).returncode == 0
        return self

    def truth(self):
        return self.display.picture()

    def events(self):
        return XEvents(self.dir, self.display.env())


class Xvnc(OnX, peers.Xrdp):
    """xrdp in front of an Xvnc."""


class Shadow(OnX, peers.Shadow):
    """freerdp-shadow on an Xvfb."""


class Shadow3(Shadow):
    """FreeRDP 3's freerdp-shadow: it has the progressive codec, which that of FreeRDP 2 has not."""
    def __init__(self, directory, name="shadow3", **kw):
        super().__init__(directory, name, **kw)
        self.program = freerdp3("freerdp-shadow-cli3")


class XrdpBase(OnX):
    """An xrdp with a configuration of its own; `section` says what is behind it."""
    def __init__(self, directory, name):
        self.dir = os.path.join(directory, name)
        os.makedirs(self.dir, exist_ok=True)
        self.port = free_port()
        self.certificate, self.key = peers.make_certificate(self.dir, name)
        self.log_path = os.path.join(self.dir, "xrdp.log")
        self.process = None

    @property
    def address(self):
        return "127.0.0.1:%d" % self.port

    def start_xrdp(self, autorun, section, env=None):
        config = os.path.join(self.dir, "xrdp.ini")
        with open(config, "w") as f:
            f.write("""[Globals]
ini_version=1
fork=true
port=tcp://127.0.0.1:%d
security_layer=negotiate
crypt_level=high
certificate=%s
key_file=%s
ssl_protocols=TLSv1.2, TLSv1.3
autorun=%s
allow_channels=true
max_bpp=32
new_cursors=true
use_fastpath=both
bitmap_cache=true
bitmap_compression=true
bulk_compression=true
[Logging]
LogFile=%s
LogLevel=INFO
EnableSyslog=false
[Channels]
rdpdr=true
rdpsnd=true
drdynvc=true
cliprdr=true
%s""" % (self.port, self.certificate, self.key, autorun, self.log_path, section))
        self.process = peers.Process(["xrdp", "--nodaemon", "--config", config],
                                     os.path.join(self.dir, "xrdp.out"), env)
        wait_until(lambda: listens(self.port), "xrdp listens")

    def stop(self):
        if self.process:
            self.process.stop()
            self.process = None


class XorgDisplay(peers.Display):
    """The Xorg that xorgxrdp drives: its screen is what xrdp asks for."""
    def __init__(self, directory, size="1024x768"):  # pylint: disable=super-init-not-called
        self.size = tuple(int(n) for n in size.split("x"))
        self.directory = directory
        self.sockets = os.path.join(directory, "sock")
        os.makedirs(self.sockets, exist_ok=True)
        self.number = peers.free_display()
        self.name = ":%d" % self.number
        self.socket_env = {"XRDP_SOCKET_PATH": self.sockets,
                           "XRDP_START_WIDTH": str(self.size[0]),
                           "XRDP_START_HEIGHT": str(self.size[1])}
        self.server = peers.Process(
            [XORG, self.name, "-config", "/etc/X11/xrdp/xorg.conf", "-configdir", "/nonexistent",
             "-noreset", "-nolisten", "tcp", "-logfile", os.path.join(directory, "xorg.log")],
            os.path.join(directory, "xorg.out"), self.socket_env)
        wait_until(lambda: not self.server.is_running() or self.answers(), "an Xorg", 20)
        assert self.server.is_running(), self.server.log()


class XrdpXorg(XrdpBase):
    """xrdp in front of an Xorg (xorgxrdp), without a login."""
    def __init__(self, directory, name="xrdp-xorg"):
        super().__init__(directory, name)
        self.display = XorgDisplay(self.dir)

    @staticmethod
    def missing():
        return "" if os.path.exists(XORG) and os.path.exists("/etc/X11/xrdp/xorg.conf") \
            and harness.IS_ROOT else "needs root, Xorg and xorgxrdp"

    def start(self):
        self.start_xrdp("xorg", "[xorg]\nname=xorg\nlib=libxup.so\nusername=na\npassword=na\n"
                        "ip=127.0.0.1\nport=%s/xrdp_display_%d\ncode=20\n" %
                        (self.display.sockets, self.display.number), self.display.socket_env)
        return self

    def finish(self):
        self.stop()
        self.display.stop()


def sesman_listens():
    """It says 127.0.0.1 in its configuration and takes ::1 where that is first in /etc/hosts."""
    return listens(SESMAN_PORT) or listens(SESMAN_PORT, "::1")


class LoginDisplay(peers.Display):
    """The display of somebody's session, with that one's cookie."""
    def __init__(self, name, authority, size):  # pylint: disable=super-init-not-called
        self.name, self.authority, self.size = name, authority, size

    def env(self):
        return {"DISPLAY": self.name, "XAUTHORITY": self.authority}

    def answers(self):
        return self.run("xdpyinfo").returncode == 0

    def picture(self):
        done = subprocess.run(["xwd", "-root", "-silent", "-display", self.name],
                              capture_output=True, check=True, env=dict(os.environ, **self.env()))
        return peers.Picture(done.stdout)


class XrdpLogin(XrdpBase):
    """
    xrdp as it is installed: PAM, sesman, Xorg, chansrv (sound, clipboard, drives), and an account
    of the system that is made here and removed at the end. One at a time on a machine.
    """
    PASSWORD = "Xr.dp 7 geheim"

    def __init__(self, directory, name="xrdp-login"):
        self.lock = open(os.path.join(tempfile.gettempdir(), "sallyport-sesman.lock"), "w")
        try:
            wait_until(self.take_lock, "another test's xrdp-sesman", 300, 1)
            if sesman_listens():
                pytest.skip("an xrdp-sesman is running on this machine")
            super().__init__(directory, name)
            os.chmod(directory, 0o755)
            self.account = "sp" + harness.random_name()
            self.home = os.path.join(self.dir, "home")
        except BaseException:
            self.lock.close()
            raise
        self.sesman = None
        self.fuse_name = "thinclient_drives"

    def take_lock(self):
        with contextlib.suppress(OSError):
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    @staticmethod
    def missing():
        return "" if not XrdpXorg.missing() and shutil.which("xrdp-sesman") else \
            "needs root, Xorg, xorgxrdp and xrdp-sesman"

    def start(self):
        with harness.user_database():
            subprocess.run(["useradd", "-m", "-d", self.home, "-s", "/bin/sh", self.account],
                           check=True, capture_output=True)
            subprocess.run(["chpasswd"], check=True, text=True,
                           input="%s:%s\n" % (self.account, self.PASSWORD))
        self.pattern = Pattern((1024, 768))
        xbm = os.path.join(self.dir, "pattern.xbm")
        self.pattern.write_xbm(xbm)
        session = os.path.join(self.home, ".xsession")
        with open(session, "w") as f:
            f.write("#!/bin/sh\n%s\necho $DISPLAY > ~/display\nexec sleep 1000000\n" %
                    " ".join("'%s'" % word for word in self.pattern.xsetroot(xbm)))
        os.chmod(session, 0o755)
        shutil.chown(session, self.account)
        config = os.path.join(self.dir, "sesman.ini")
        with open("/etc/xrdp/sesman.ini") as f:
            text = f.read()
        text = text.replace("LogFile=xrdp-sesman.log",
                            "LogFile=" + os.path.join(self.dir, "sesman.log"))
        text = text.replace("EnableSyslog=true", "EnableSyslog=false")
        with open(config, "w") as f:
            f.write(text)
        self.sesman = peers.Process(["xrdp-sesman", "--nodaemon", "--config", config],
                                    os.path.join(self.dir, "sesman.out"))
        wait_until(sesman_listens, "xrdp-sesman listens")
        self.start_xrdp("", "[Xorg]\nname=Xorg\nlib=libxup.so\nusername=ask\npassword=ask\n"
                        "ip=127.0.0.1\nport=-1\ncode=20\n")
        return self

    @property
    def display(self):
        path = os.path.join(self.home, "display")
        wait_until(lambda: os.path.exists(path) and open(path).read().strip(), "a desktop session")
        with open(path) as f:
            return LoginDisplay(f.read().strip(), os.path.join(self.home, ".Xauthority"),
                                (1024, 768))

    def paint(self):
        return self  # the session does it

    def as_account(self, *argv, **kw):
        return run("setpriv", "--reuid", self.account, "--regid", self.account, "--clear-groups",
                   *argv, **kw)

    def processes(self):
        uid = pwd.getpwnam(self.account).pw_uid
        found = []
        for path in glob.glob("/proc/[0-9]*"):
            with contextlib.suppress(OSError):
                if os.stat(path).st_uid == uid:
                    found.append(int(os.path.basename(path)))
        return found

    def end_session(self):
        """Everything of the account, at once."""
        for _ in range(50):
            mine = self.processes()
            if not mine:
                break
            for pid in mine:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        run("umount", "-l", os.path.join(self.home, self.fuse_name))
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.home, "display"))

    def finish(self):
        try:
            self.stop()
            if self.sesman:
                self.end_session()
                self.sesman.stop()
            with harness.user_database():
                subprocess.run(["userdel", "-r", self.account], check=False, capture_output=True)
        finally:
            self.lock.close()


class WestonEvents:
    """What weston-image was sent, by the trace of its protocol."""
    CODES = {"h": 35, "j": 36}

    def __init__(self, directory, env, picture):
        self.process = peers.Process(
            ["weston-image", picture], os.path.join(directory, "image-%d.log" % time.monotonic_ns()),
            dict(env, WAYLAND_DEBUG="1"))

    def log(self):
        return self.process.log()

    def has_key(self, letter):
        return re.search(r"wl_keyboard@\d+\.key\(\d+, \d+, %d, 1\)" % self.CODES[letter], self.log())

    def has_click(self, x, y):
        return re.search(r"wl_pointer@\d+\.(motion\(\d+|enter\(\d+, wl_surface@\d+), %d\.0+, %d\.0+\)"
                         r".*wl_pointer@\d+\.button\(\d+, \d+, 272, 1\)" % (x, y), self.log(), re.S)

    def stop(self):
        self.process.stop()


class Weston:
    """weston's RDP backend. Its shell shows a program only when somebody is connected, so the
    pattern comes with events()."""
    def __init__(self, directory, name="weston"):
        self.dir = tempfile.mkdtemp(prefix="w-", dir=directory)
        os.makedirs(self.dir, exist_ok=True)
        self.port = free_port()
        self.process = None
        self.pattern = Pattern((1024, 768))
        self.env = {"XDG_RUNTIME_DIR": self.dir, "WAYLAND_DISPLAY": "wl-" + name}

    @property
    def address(self):
        return "127.0.0.1:%d" % self.port

    @staticmethod
    def missing():
        return "" if shutil.which("weston") and shutil.which("weston-image") else "needs weston"

    def start(self):
        self.pattern.write_png(os.path.join(self.dir, "pattern.png"))
        cert, key = os.path.join(self.dir, "w.crt"), os.path.join(self.dir, "w.key")
        for argv in (["genrsa", "-traditional", "-out", key, "2048"],
                     ["req", "-new", "-x509", "-key", key, "-out", cert, "-days", "30", "-subj",
                      "/CN=weston"]):
            subprocess.run(["openssl", *argv], check=True, capture_output=True)
        config = os.path.join(self.dir, "weston.ini")
        with open(config, "w") as f:
            f.write("[core]\nshell=kiosk-shell.so\n")
        self.process = peers.Process(
            ["weston", "--backend=rdp-backend.so", "--address=127.0.0.1", "--port=%d" % self.port,
             "--width=1024", "--height=768", "--rdp-tls-cert=" + cert, "--rdp-tls-key=" + key,
             "--no-clients-resize", "--idle-time=0", "--socket=" + self.env["WAYLAND_DISPLAY"],
             "--config=" + config], os.path.join(self.dir, "weston.log"),
            {"XDG_RUNTIME_DIR": self.dir})
        wait_until(lambda: listens(self.port) or not self.process.is_running(), "weston listens")
        assert self.process.is_running(), self.process.log()
        return self

    def paint(self):
        return self

    def truth(self):
        return self.pattern

    def events(self):
        return WestonEvents(self.dir, self.env, os.path.join(self.dir, "pattern.png"))

    def stop(self):
        if self.process:
            self.process.stop()
            self.process = None

    def finish(self):
        self.stop()
