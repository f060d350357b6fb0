"""
The peers of the RDP tests: displays, RDP servers and RDP clients, all real programs on loopback,
each started here with a process group of its own and ended by it.

A display is an Xvfb. Servers: Xrdp (xrdp in front of Xvnc, no login) and Shadow (freerdp-shadow on
an Xvfb). Clients draw on a display of their own, of which pictures are taken and compared by region.
"""
import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

from harness import IS_ROOT, alive, free_port, listens, run, wait_until

XFREERDP = shutil.which("xfreerdp") or shutil.which("xfreerdp3") or "xfreerdp"
SHADOW = shutil.which("freerdp-shadow-cli") or shutil.which("freerdp-shadow-cli3") or ""
WINPR_HASH = shutil.which("winpr-hash") or "winpr-hash3"
NOTICE_BORDER = (232, 176, 74)  # of draw.c
NOTICE_GROUND = (32, 48, 63)


def missing():
    """What is not installed, or an empty list."""
    names = ["Xvfb", "Xvnc", "xrdp", "rdesktop", "xdotool", "xwd", "xsetroot", "openssl",
             "xclip"]
    return [n for n in names if not shutil.which(n)] + (
        [] if shutil.which(XFREERDP) and SHADOW else ["freerdp"])


class Process:
    """A program with a log, ended by its own process group."""
    def __init__(self, argv, log, env=None, stdin=subprocess.DEVNULL):
        self.log_path = log
        with open(log, "ab") as f:
            self.process = subprocess.Popen([str(a) for a in argv], stdin=stdin, stdout=f, stderr=f,
                                            env=dict(os.environ, **(env or {})),
                                            start_new_session=True)

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def is_running(self):
        return self.process.poll() is None

    def wait(self, timeout=30):
        return self.process.wait(timeout)

    def stop(self):
        for sig in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, sig)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
                break
        with contextlib.suppress(OSError):  # what the leader left behind
            os.killpg(self.process.pid, signal.SIGKILL)


def free_display():
    for number in range(120, 400):
        if not os.path.exists("/tmp/.X11-unix/X%d" % number) and \
                not os.path.exists("/tmp/.X%d-lock" % number):
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as s:
                s.bind("\0/tmp/.X11-unix/X%d" % number)
                return number
    raise AssertionError("no free display")


class Display:
    """An X server without a screen. With vnc_port it is an Xvnc."""
    def __init__(self, directory, size="1024x768", vnc_port=None):
        self.size = tuple(int(n) for n in size.split("x"))
        self.directory = directory
        with Display.lock:  # of several threads each has a number of its own
            self.start(size, vnc_port)

    lock = threading.Lock()

    def start(self, size, vnc_port):
        for _ in range(5):
            self.number = free_display()
            self.name = ":%d" % self.number
            log = os.path.join(self.directory, "display-%d.log" % self.number)
            if vnc_port:
                argv = ["Xvnc", self.name, "-geometry", size, "-depth", "24", "-SecurityTypes", "None",
                        "-localhost", "-rfbport", vnc_port, "-AcceptSetDesktopSize", "-noreset"]
            else:
                argv = ["Xvfb", self.name, "-screen", "0", size + "x24", "-nolisten", "tcp",
                        "-noreset"]
            self.server = Process(argv, log)
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not self.server.is_running() or self.answers(), "a display", 20)
                if self.server.is_running():
                    return
            self.server.stop()
        raise AssertionError("no display: " + self.server.log())

    def env(self):
        return {"DISPLAY": self.name}

    def answers(self):
        """This one, and not another that was faster to take the number."""
        with contextlib.suppress(OSError, ValueError), open("/tmp/.X%d-lock" % self.number) as f:
            return int(f.read()) == self.server.pid and \
                run("xdpyinfo", "-display", self.name).returncode == 0
        return False

    def run(self, *argv, **kw):
        return run(*argv, env=dict(os.environ, **self.env()), **kw)

    def paint(self, color):
        assert self.run("xsetroot", "-solid", color).returncode == 0

    def picture(self):
        """The screen as it is. Fast: some things stand there for three seconds only."""
        done = subprocess.run(["xwd", "-root", "-silent", "-display", self.name], capture_output=True,
                              check=True)
        return Picture(done.stdout)

    def pointer(self):
        """The pointer that is shown: width, height and pixels, (red, green, blue, alpha) each."""
        return shown_pointer(self.name)

    def stop(self):
        self.server.stop()


class PointerImage(ctypes.Structure):
    _fields_ = [("x", ctypes.c_short), ("y", ctypes.c_short), ("width", ctypes.c_ushort),
                ("height", ctypes.c_ushort), ("xhot", ctypes.c_ushort), ("yhot", ctypes.c_ushort),
                ("serial", ctypes.c_ulong), ("pixels", ctypes.POINTER(ctypes.c_ulong))]


def shown_pointer(display):
    """XFixes: a picture of the screen has no pointer in it."""
    x, fixes = ctypes.CDLL("libX11.so.6"), ctypes.CDLL("libXfixes.so.3")
    x.XOpenDisplay.restype = ctypes.c_void_p
    fixes.XFixesGetCursorImage.restype = ctypes.POINTER(PointerImage)
    d = ctypes.c_void_p(x.XOpenDisplay(display.encode()))
    assert d.value
    try:
        major, minor = ctypes.c_int(5), ctypes.c_int(0)
        fixes.XFixesQueryVersion(d, ctypes.byref(major), ctypes.byref(minor))
        image = fixes.XFixesGetCursorImage(d)
        got = image.contents
        width, height = got.width, got.height
        pixels = [got.pixels[i] & 0xffffffff for i in range(width * height)]
        x.XFree(image)
    finally:
        x.XCloseDisplay(d)
    return width, height, [(p >> 16 & 255, p >> 8 & 255, p & 255, p >> 24) for p in pixels]


class Picture:
    """A picture of xwd: a head, colors, then four bytes a pixel, blue first."""
    def __init__(self, xwd):
        head = struct.unpack(">25I", xwd[:100])
        assert head[1] == 7 and head[7] == 0 and head[11] in (24, 32), "xwd of another kind"
        self.width, self.height, self.stride = head[4], head[5], head[12]
        self.raw = xwd[head[0] + 12 * head[19]:]
        if head[11] == 24:  # there are windows of several visuals: three bytes a pixel
            self.widen()

    def widen(self):
        rows = []
        for y in range(self.height):
            row, at = bytearray(4 * self.width), y * self.stride
            for i in range(3):
                row[i::4] = self.raw[at + i:at + 3 * self.width:3]
            rows.append(row)
        self.raw, self.stride = b"".join(rows), 4 * self.width

    def at(self, x, y):
        i = y * self.stride + x * 4
        return self.raw[i + 2], self.raw[i + 1], self.raw[i]

    def share(self, color, box=None, tolerance=12):
        """How much of a box (left, top, right, bottom) is of this color: 0 to 1."""
        left, top, right, bottom = box or (0, 0, self.width, self.height)
        hits = total = 0
        for y in range(top, bottom, 7):
            for x in range(left, right, 7):
                total += 1
                hits += all(abs(a - b) <= tolerance for a, b in zip(self.at(x, y), color))
        return hits / total

    def has_notice(self):
        """A box of ours with text in it, somewhere. It is drawn without loss."""
        least = self.width * self.height
        return all(self.raw.count(bytes(reversed(color))) > least / part
                   for color, part in ((NOTICE_GROUND, 100), (NOTICE_BORDER, 2000),
                                       ((255, 255, 255), 10000)))


def make_certificate(directory, name):
    cert, key = os.path.join(directory, name + ".crt"), os.path.join(directory, name + ".key")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj",
                    "/CN=" + name, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


def is_loopback_listening(port):
    return listens(port)


class Xrdp:
    """xrdp in front of an Xvnc: any user and password get in, at once."""
    def __init__(self, directory, name="xrdp", size="1024x768"):
        self.dir = os.path.join(directory, name)
        os.makedirs(self.dir, exist_ok=True)
        self.vnc_port, self.port = free_port(), free_port()
        self.display = Display(self.dir, size, self.vnc_port)
        self.certificate, self.key = make_certificate(self.dir, name)
        self.process = None
        self.log_path = os.path.join(self.dir, "xrdp.log")

    @property
    def address(self):
        return "127.0.0.1:%d" % self.port

    def start(self):
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
autorun=vnc
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
[vnc]
name=vnc
lib=libvnc.so
username=na
password=
ip=127.0.0.1
port=%d
""" % (self.port, self.certificate, self.key, self.log_path, self.vnc_port))
        self.process = Process(["xrdp", "--nodaemon", "--config", config],
                               os.path.join(self.dir, "xrdp.out"))
        wait_until(lambda: listens(self.port), "xrdp listens")
        return self

    def stop(self):
        if self.process:
            self.process.stop()
            self.process = None

    def finish(self):
        self.stop()
        self.display.stop()


class Shadow:
    """freerdp-shadow on an Xvfb. security: tls or nla, then with these users and passwords."""
    program = [SHADOW]

    def __init__(self, directory, name="shadow", size="800x600", security="tls", extra=(), users=None):
        self.dir = os.path.join(directory, name)
        os.makedirs(self.dir, exist_ok=True)
        self.port = free_port()
        self.display = Display(self.dir, size)
        self.security, self.extra, self.users = security, extra, users or {}
        self.process = None

    @property
    def address(self):
        return "127.0.0.1:%d" % self.port

    def start(self):
        argv = [*self.program, "/port:%d" % self.port, "/bind-address:127.0.0.1",
                "/sec:" + self.security]
        if self.security == "tls":
            argv.append("-auth")
        else:
            sam = os.path.join(self.dir, "sam.txt")
            with open(sam, "w") as f:
                f.write("nobody:::00000000000000000000000000000000:::\n")
                for user, password in self.users.items():
                    f.write(run(WINPR_HASH, "-u", user, "-p", password, "-f", "sam").stdout)
            argv.append("/sam-file:" + sam)
        env = dict(self.display.env(), HOME=self.dir, XDG_CONFIG_HOME=os.path.join(self.dir, "config"))
        self.process = Process([*argv, *self.extra], os.path.join(self.dir, "shadow.log"), env)
        wait_until(lambda: listens(self.port) or not self.process.is_running(),
                   "freerdp-shadow listens")
        assert self.process.is_running(), self.process.log()
        return self

    def stop(self):
        if self.process:
            self.process.stop()
            self.process = None

    def finish(self):
        self.stop()
        self.display.stop()


class ClientMessage(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("serial", ctypes.c_ulong), ("send_event", ctypes.c_int),
                ("display", ctypes.c_void_p), ("window", ctypes.c_ulong),
                ("message_type", ctypes.c_ulong), ("format", ctypes.c_int),
                ("data", ctypes.c_long * 5), ("pad", ctypes.c_long * 24)]


def ask_to_close(display, window):
    """WM_DELETE_WINDOW, as a window manager sends it; there is none here."""
    x = ctypes.CDLL("libX11.so.6")
    x.XOpenDisplay.restype = ctypes.c_void_p
    x.XInternAtom.restype = ctypes.c_ulong
    for function in (x.XInternAtom, x.XSendEvent, x.XCloseDisplay):
        function.argtypes = None
    d = ctypes.c_void_p(x.XOpenDisplay(display.encode()))
    assert d.value
    event = ClientMessage(type=33, window=window, format=32)
    event.message_type = x.XInternAtom(d, b"WM_PROTOCOLS", 0)
    event.data[0] = x.XInternAtom(d, b"WM_DELETE_WINDOW", 0)
    assert x.XSendEvent(d, ctypes.c_ulong(window), 0, ctypes.c_long(0), ctypes.byref(event))
    x.XCloseDisplay(d)


class Client(Process):
    """An RDP client on a display."""
    def __init__(self, argv, directory, display, stdin=subprocess.DEVNULL):
        self.display = display
        log = os.path.join(directory, "client-%d.log" % time.monotonic_ns())
        super().__init__(argv, log, dict(display.env(), HOME=directory, LC_ALL="C.UTF-8"),
                         stdin)

    def error_info(self):
        """The name of the reason that the client was given, or None."""
        found = re.findall(r"ERRINFO_(\w+)", self.log())
        return found[-1] if found else None

    def close_window(self):
        """As a click on its cross does."""
        for window in wait_until(lambda: self.display.run("xdotool", "search", "--name", ".").stdout,
                                 "a window").split():
            ask_to_close(self.display.name, int(window))

    def key(self, *keys):
        assert self.display.run("xdotool", "key", *keys).returncode == 0

    def move(self, x, y, *more):
        assert self.display.run("xdotool", "mousemove", x, y, *more).returncode == 0


def xfreerdp(directory, display, port, user, password, *extra, size=None):
    width, height = size or display.size
    return Client([XFREERDP, "/v:127.0.0.1:%d" % port, "/u:" + user, "/p:" + password, "/cert:ignore",
                   "/size:%dx%d" % (width, height), "-decorations", "/log-level:INFO", *extra],
                  directory, display)


def rdesktop(directory, display, port, user, password, *extra):
    """It asks about the certificate on its standard input, and dies when that is closed."""
    read, write = os.pipe()
    os.write(write, b"yes\n")
    width, height = display.size
    try:
        client = Client(["rdesktop", "-u", user, "-p", password, "-g", "%dx%d" % (width, height), *extra,
                         "127.0.0.1:%d" % port], directory, display, read)
    finally:
        os.close(read)
    client.keep = write  # its end stays open as long as the client lives
    return client
