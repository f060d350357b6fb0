"""
The RDP figures of the benchmark: real desktops (xterm scrolling in xrdp on Xorg, in freerdp-shadow)
for what a relay costs, the scripts of tests/e2e/rdp_script.py where X servers would only be noise.
The anchors are a plain TLS relay written for this (tls_relay.c), freerdp3-proxy where its package
can be had, and a direct connection; ways alternate, and a ratio is the median of those of each
round.
"""
import contextlib
import ctypes
import multiprocessing
import os
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import tempfile
import threading
import time

import pytest

import harness
import rdp_peers as peers
import rdp_script
import rdp_servers
from figures import cpu_with_reaped, private_memory, report, run_time, skipped
from harness import wait_until

FIGURES = ("rdp", "rdp-first-pixel", "rdp-memory", "rdp-input", "rdp-logins")
HERE = os.path.dirname(os.path.abspath(__file__))
PASSWORD = "benchmark"
BURST = 1 << 20
GREEN = (0x22, 0x88, 0x44)

SCROLL = """
import hashlib, os, sys, time
lines = [hashlib.sha512(b"%d" % n).hexdigest() + hashlib.md5(b"%d" % n).hexdigest()[:20]
         for n in range(1000)]
with open(sys.argv[1] + ".new", "w") as f:
    f.write(str(os.getpid()))
os.rename(sys.argv[1] + ".new", sys.argv[1])
n = 0
while True:
    sys.stdout.write("".join(lines[(n + i) % 1000] + "\\n" for i in range(10)))
    sys.stdout.flush()
    n += 10
    time.sleep(0.1)
"""


class Scroll:
    """An xterm of 150x50 that scrolls ten times a second, when it is let."""
    def __init__(self, directory, display, name):
        pid_path = os.path.join(directory, name + ".pid")
        script = os.path.join(directory, "scroll.py")
        with open(script, "w") as f:
            f.write(SCROLL)
        self.xterm = peers.Process(["xterm", "-geometry", "150x50+20+20", "-e", "python3", script,
                                    pid_path], os.path.join(directory, name + ".xterm"),
                                   display.env())
        self.pid = int(wait_until(lambda: os.path.exists(pid_path) and open(pid_path).read(),
                                  "the scrolling program"))

    def run(self):
        os.kill(self.pid, signal.SIGCONT)

    def pause(self):
        os.kill(self.pid, signal.SIGSTOP)

    def finish(self):
        with contextlib.suppress(OSError):
            self.run()
        self.xterm.stop()


def bytes_of(port):
    """What the server at this port has sent on the connections that it has now."""
    text = subprocess.run(["ss", "-tinH", "sport = :%d" % port], capture_output=True, text=True,
                          check=True).stdout
    return sum(int(n) for n in re.findall(r"bytes_acked:(\d+)", text))


class TlsRelay:
    def __init__(self, bench, target_port):
        self.port = harness.free_port()
        self.process = peers.Process([bench.tls_relay, self.port, target_port, bench.certificate,
                                      bench.key], bench.dir + "/tls_relay.log")
        self.pid = self.process.pid
        wait_until(lambda: harness.listens(self.port), "the plain TLS relay listens")

    def finish(self):
        self.process.stop()


class FreerdpProxy:
    def __init__(self, bench, target_port):
        self.port = harness.free_port()
        config = os.path.join(bench.dir, "freerdp-proxy-%d.ini" % self.port)
        with open(config, "w") as f:
            f.write("""[Server]
Host=127.0.0.1
Port=%d
[Target]
Host=127.0.0.1
Port=%d
FixedTarget=true
TlsSecLevel=1
[Channels]
GFX=true
DisplayControl=true
PassthroughIsBlacklist=true
[Input]
Keyboard=true
Mouse=true
[Security]
ServerTlsSecurity=true
ServerNlaSecurity=false
ServerRdpSecurity=false
ClientTlsSecurity=true
ClientNlaSecurity=false
ClientRdpSecurity=false
[Certificates]
CertificateFile=%s
PrivateKeyFile=%s
""" % (self.port, target_port, bench.certificate, bench.key))
        self.process = peers.Process([*bench.freerdp3["freerdp-proxy3"], config],
                                     bench.dir + "/freerdp-proxy-%d.log" % self.port)
        self.pid = self.process.pid
        wait_until(lambda: harness.listens(self.port), "freerdp3-proxy listens")

    def finish(self):
        self.process.stop()


class Lane:
    """One desktop, one way to it, one client; scrolls only while it is measured."""
    def __init__(self, bench, way, make, arguments):
        self.bench, self.pid = bench, None
        with contextlib.ExitStack() as stack:  # which ends what there is when a part fails
            self.server = make()
            stack.callback(self.server.finish)
            screen = peers.Display(bench.dir)
            stack.callback(screen.stop)
            self.scroll = Scroll(bench.dir, self.server.display, "scroll-%d" % self.server.port)
            stack.callback(self.scroll.finish)
            port, user = self.server.port, "alice"
            before = bench.proxy.relays()
            if way in ("relay", "freerdp"):
                peer = (TlsRelay if way == "relay" else FreerdpProxy)(bench, port)
                stack.callback(peer.finish)
                port, self.pid = peer.port, peer.pid
            else:
                port, user = bench.proxy.rdp_port, "alice+" + bench.target(port, way)
            self.connect(stack, bench.client(screen, port, user, *arguments))
            if self.pid is None:
                self.pid = (set(bench.proxy.relays()) - set(before)).pop()
            self.scroll.pause()
            self.finish = stack.pop_all().close

    def connect(self, stack, client):
        stack.callback(client.stop)
        wait_until(lambda: bytes_of(self.server.port) > 200000 or not client.is_running(),
                   "a desktop")
        assert client.is_running(), "%s\n%s" % (
            client.log()[-2000:], [r["endText"] for r in self.bench.proxy.history()])

    def measure(self, seconds):
        """CPU seconds a GiB, MiB a second."""
        spent, sent = run_time(self.pid), bytes_of(self.server.port)
        self.scroll.run()
        time.sleep(seconds)
        self.scroll.pause()
        time.sleep(0.3)
        spent, sent = run_time(self.pid) - spent, bytes_of(self.server.port) - sent
        return spent / max(sent, 1) * 2**30, sent / seconds / 2**20


def fastpath(first, body):
    return struct.pack(">BH", first, 0x8000 | 3 + len(body)) + body


def picture(content):
    """A fast-path output PDU with one update of the bitmap kind, of which only the size is right."""
    return fastpath(0, struct.pack("<BH", 1, len(content)) + content)


def key(code, is_release):
    return fastpath(1 << 2, bytes([is_release, code]))


def next_fastpath(end):
    while True:
        pdu = end.pdu()
        if pdu[0] & 3 == 0:
            return pdu


def prompt(end):
    """What an end writes goes out at once, as with any program that cares for its users."""
    end.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return end


def answer(served):
    """Says when Client Info came, and then of each input event when it came."""
    prompt(served).go("login")
    came = time.monotonic_ns()
    served.go("active", after="login")
    while True:
        served.send(picture(came.to_bytes(8, "little")))
        next_fastpath(served)
        came = time.monotonic_ns()


def draw(served):
    """A MiB that cannot be made smaller, and then silence."""
    noise = os.urandom(8000)
    prompt(served).go()
    for _ in range(BURST // len(noise)):
        served.send(picture(noise))
    served.send(picture(b"END"))
    served.ends(3600)


def serve(port, certificate, directory, script):
    rdp_script.RawTarget(directory, script=script, certificate=certificate, port=port)
    threading.Event().wait()


def came_at(client):
    return int.from_bytes(next_fastpath(client)[-8:], "little")


class Bench:
    def __init__(self, quick):
        if peers.missing():
            raise SystemExit("missing for the RDP figures: " + " ".join(peers.missing()))
        self.quick = quick
        self.dir = tempfile.mkdtemp(prefix="sallyport-bench-rdp-")
        os.chmod(self.dir, 0o755)
        self.certificate, self.key = peers.make_certificate(self.dir, "bench")
        self.tls_relay = self.compile()
        self.freerdp3 = self.find_freerdp3()
        rdp_port = harness.free_port()
        self.proxy = harness.Proxy(self.dir, {
            "proxy": {"log_level": "warn"},
            "rdp": {"enabled": "yes", "listen": "127.0.0.1:%d" % rdp_port},
            "limits": {"sessions_per_user": 1000, "max_unauthenticated": 100,
                       "max_unauthenticated_per_source": 64}}).start()
        self.proxy.rdp_port = rdp_port
        self.proxy.add_user("alice", password=PASSWORD)
        self.helpers = []

    def close(self):
        for helper in self.helpers:
            helper.kill()
        self.proxy.clean_up()
        shutil.rmtree(self.dir, ignore_errors=True)

    def compile(self):
        program = os.path.join(self.dir, "tls_relay")
        flags = subprocess.run(["pkg-config", "--cflags", "--libs", "libevent_core", "libssl",
                                "libcrypto"], capture_output=True, text=True, check=True)
        subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", "-O2", os.path.join(HERE, "tls_relay.c"),
                        "-o", program, *flags.stdout.split()], check=True)
        return program

    @staticmethod
    def find_freerdp3():
        """Its command lines by name; none when they cannot be had. Its client serves for every way,
        since freerdp3-proxy does not get on with older ones."""
        try:
            return {n: rdp_servers.freerdp3(n) for n in ("xfreerdp3", "freerdp-proxy3")}
        except pytest.skip.Exception:
            return {}

    def gate(self):
        for pid in harness.children(self.proxy.process.pid):
            with open("/proc/%d/comm" % pid) as f:
                if f.read().strip() == "sallyport-rdp":
                    return pid
        raise SystemExit("there is no RDP gate")

    # -- targets and clients

    def target(self, port, kind, *more):
        """The name of the target at this port, recorded or not; made when it is new."""
        name = "%s%d" % (kind, port)
        self.proxy.do("target", "add", name, "--type", "rdp", "--address", "127.0.0.1:%d" % port,
                      "--account", "bob", "--auth", "password", "--secret-stdin", "--accept-new",
                      "record=" + ("no" if kind == "plain" else "yes"), *more, input="secret\n")
        self.proxy.grant("alice", name)
        return name

    def client(self, screen, port, user, *arguments):
        argv = [*self.freerdp3.get("xfreerdp3", [peers.XFREERDP]), "/v:127.0.0.1:%d" % port,
                "/u:" + user, "/p:" + PASSWORD, "/cert:ignore", "/sec:tls", "/size:1024x768",
                "-decorations", "/log-level:WARN", *arguments]
        return peers.Client(argv, self.dir, screen)

    def script(self, script):
        """The port of a scripted target, in a process of its own."""
        port = harness.free_port()
        helper = multiprocessing.Process(target=serve, daemon=True, args=(
            port, (self.certificate, self.key), self.dir, script))
        helper.start()
        self.helpers.append(helper)
        wait_until(lambda: harness.listens(port), "the scripted target listens")
        return port

    @staticmethod
    def connect(port, user):
        return prompt(rdp_script.RawClient(port, names=())).go("active", user, PASSWORD)

    def is_recorded(self):
        """Whether sessions of this build can be: of the live ones, one is."""
        return any(s["recording"] != "off" for s in self.proxy.sessions())

    # -- the figures

    def rdp(self):
        def xorg(name):
            return rdp_servers.XrdpXorg(self.dir, name).start()

        def shadow(name):
            return peers.Shadow(self.dir, name, "1024x768").start()

        self.desktop("xrdp scrolling", xorg, [], 1.3, 1.6, 0.25)
        self.desktop("shadow GFX AVC444", shadow, ["/gfx:AVC444"])
        self.desktop("shadow RemoteFX", shadow, ["/rfx", "-gfx"])

    def desktop(self, title, make, arguments, limit=None, recorded_limit=None, freerdp_limit=None):
        ways = ["relay", "plain", "recorded"] + (["freerdp"] if self.freerdp3 else [])
        lanes, got = {}, {w: [] for w in ways}
        try:
            for way in ways:
                name = "%s-%s" % (re.sub("[^a-z]", "", title.lower()), way)
                lanes[way] = Lane(self, way, lambda name=name: make(name), arguments)
            if not self.is_recorded():
                lanes.pop("recorded").finish()
            for lane in lanes.values():
                lane.measure(1)
            for _ in range(3 if self.quick else 9):
                for way, lane in lanes.items():
                    got[way].append(lane.measure(2 if self.quick else 4))
        finally:
            for lane in lanes.values():
                lane.finish()

        def ratio(way, to):
            value = statistics.median(a[0] / max(b[0], 0.01) for a, b in zip(got[way], got[to]))
            cost = [statistics.median(c for c, _ in got[w]) for w in (way, to)]
            return value, "%.1f and %.1f s/GiB, %.2f MiB/s" % (
                *cost, statistics.median(r for _, r in got[way]))

        value, note = ratio("plain", "relay")
        report("relay CPU, %s: x TLS relay" % title, value, "x", limit, note=note)
        if got["recorded"]:
            value, note = ratio("recorded", "relay")
            report("the same, recorded: x TLS relay", value, "x", recorded_limit, note=note)
        else:
            skipped("the same, recorded: x TLS relay", "this build records no RDP")
        if self.freerdp3:
            value, note = ratio("plain", "freerdp")
            report("the same: x freerdp3-proxy", value, "x", freerdp_limit, note=note)
        else:
            skipped("the same: x freerdp3-proxy", "its package cannot be had")

    def rdp_first_pixel(self):
        server = peers.Xrdp(self.dir, "pixel").start()
        screen = peers.Display(self.dir)
        pixel = Pixel(screen.name)
        try:
            server.display.paint("#%02x%02x%02x" % GREEN)
            recorded = self.target(server.port, "recorded")
            ways = {"direct": (server.port, "alice"),
                    "sallyport": (self.proxy.rdp_port, "alice+" + recorded)}
            got = {way: [] for way in ways}
            for _ in range(4 if self.quick else 16):
                for way, (port, user) in ways.items():
                    got[way].append(self.first_pixel(screen, pixel, port, user))
        finally:
            pixel.close()
            screen.stop()
            server.finish()
        p50 = {way: statistics.median(v[1:]) for way, v in got.items()}
        report("client start to the first pixel: x direct", p50["sallyport"] / p50["direct"], "x",
               1.1, note="%.0f ms, direct %.0f" % (p50["sallyport"] * 1e3, p50["direct"] * 1e3))

    def first_pixel(self, screen, pixel, port, user):
        screen.paint("black")
        began = time.monotonic()
        client = self.client(screen, port, user)
        while pixel.at(500, 400) != GREEN:
            if time.monotonic() > began + 30:
                raise SystemExit("no picture by %s: %s" % (user, client.log()[-2000:]))
            time.sleep(0.002)
        seconds = time.monotonic() - began
        client.stop()
        wait_until(lambda: not self.proxy.relays(), "relays end")
        return seconds

    def rdp_memory(self):
        name = self.target(self.script(draw), "recorded")
        clients = [self.connect(self.proxy.rdp_port, "alice+" + name)
                   for _ in range(10 if self.quick else 50)]
        for client in clients:
            while not next_fastpath(client).endswith(b"END"):
                pass
        recorded = self.is_recorded()
        time.sleep(33)  # a relay gives the memory of a burst back when it has been quiet for 15 s
        relays = self.proxy.relays()
        private = [private_memory(pid) for pid in relays]
        report("private memory of an idle RDP relay, of %d" % len(relays),
               statistics.median(private), "MiB", 1.5, note="maximum %.2f%s" % (
                   max(private), ", recorded" if recorded else ""))
        pids = relays + [self.proxy.process.pid, self.gate()]
        before, began = sum(run_time(p) for p in pids), time.monotonic()
        time.sleep(10 if self.quick else 30)
        used = (sum(run_time(p) for p in pids) - before) / (time.monotonic() - began)
        report("CPU of %d idle RDP sessions" % len(relays), used * 100, "% core", 1.0)
        for client in clients:
            client.close()
        wait_until(lambda: not self.proxy.relays(), "relays end")

    def ways(self):
        port = self.script(answer)
        relay = TlsRelay(self, port)
        self.helpers.append(relay.process.process)
        return {"direct": (port, "alice"), "relay": (relay.port, "alice"),
                "sallyport": (self.proxy.rdp_port, "alice+" + self.target(port, "recorded"))}

    def rdp_input(self):
        """One way, from the client's write to the target's read: the clock is the same machine's."""
        ways = self.ways()
        got = {way: [] for way in ways}
        for _ in range(3 if self.quick else 6):
            for way, (port, user) in ways.items():
                client = self.connect(port, user)
                came_at(client)
                for i in range(350):
                    sent = time.monotonic_ns()
                    client.send(key(30, i % 2))
                    came = came_at(client)
                    if i >= 50:
                        got[way].append(came - sent)
                    time.sleep(0.002)
                client.close()
        p50 = {way: statistics.median(v) / 1e3 for way, v in got.items()}
        report("RDP input to the target, p50 added", p50["sallyport"] - p50["direct"], "us", 200,
               note="direct %.0f, through %.0f, TLS relay %.0f us" % (
                   p50["direct"], p50["sallyport"], p50["relay"]))

    def rdp_logins(self):
        ways = self.ways()
        got = {way: [] for way in ways}
        broker, gate = self.proxy.process.pid, self.gate()
        count = 10 if self.quick else 40
        wait_until(lambda: not self.proxy.relays(), "relays end")
        before = run_time(broker), cpu_with_reaped(gate)
        for _ in range(count):
            for way, (port, user) in ways.items():
                began = time.monotonic_ns()
                client = self.connect(port, user)
                got[way].append((came_at(client) - began) / 1e6)
                client.close()
        wait_until(lambda: not self.proxy.relays(), "relays end")
        p50 = {way: statistics.median(v) for way, v in got.items()}
        report("RDP connect to Client Info at the target", p50["sallyport"], "ms",
               note="direct %.1f, TLS relay %.1f; the password's hash is in ours" % (
                   p50["direct"], p50["relay"]))
        report("CPU a login by RDP: broker", (run_time(broker) - before[0]) / count * 1e3, "ms")
        report("CPU a login by RDP: gate and relay",
               (cpu_with_reaped(gate) - before[1]) / count * 1e3, "ms")


class Pixel:
    """Reads one pixel of a display, without a process for each look."""
    def __init__(self, name):
        self.x = ctypes.CDLL("libX11.so.6")
        for function in ("XOpenDisplay", "XGetImage"):
            getattr(self.x, function).restype = ctypes.c_void_p
        self.x.XDefaultRootWindow.restype = self.x.XGetPixel.restype = ctypes.c_ulong
        self.display = ctypes.c_void_p(self.x.XOpenDisplay(name.encode()))
        assert self.display.value
        self.root = ctypes.c_ulong(self.x.XDefaultRootWindow(self.display))

    def at(self, x, y):
        image = ctypes.c_void_p(self.x.XGetImage(self.display, self.root, x, y, 1, 1,
                                                 ctypes.c_ulong(2**32 - 1), 2))
        value = self.x.XGetPixel(image, 0, 0)
        self.x.XDestroyImage(image)
        return value >> 16 & 255, value >> 8 & 255, value & 255

    def close(self):
        self.x.XCloseDisplay(self.display)
