"""
The benchmark: real ssh, sftp and sshd (here) and desktops (rdp.py), one run, ratios. Prints a table
of figures with the limit each is held to and the ciphers and limits it ran under; exit 1 when one
misses its limit. The anchors (haproxy in TCP mode, `ssh -J` through an OpenSSH jump host, a direct
connection) run beside the product, alternating, because machines differ and neighbours are noisy.

    scripts/bench.sh [--quick] [NAME ...]
"""
import argparse
import concurrent.futures
import os
import pty
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import harness  # noqa: E402
import export  # noqa: E402
import rdp  # noqa: E402
from figures import (cpu, cpu_with_reaped, highest, private_memory, report, rows,  # noqa: E402
                     run_time)

CIPHER = "aes128-gcm@openssh.com"
def aes_time():
    """CPU seconds a GiB for opening and sealing each packet once, by the fastest way there is."""
    spent = 0.0
    for way in ([], ["-decrypt"]):
        r = subprocess.run(["openssl", "speed", "-mr", "-seconds", "1", "-bytes", "32768", *way,
                            "-evp", "aes-128-gcm"], capture_output=True, text=True, check=True)
        spent += 2**30 / float(r.stdout.strip().rsplit(":", 1)[1])
    return spent


class Haproxy:
    def __init__(self, directory, port):
        self.port = harness.free_port()
        conf = os.path.join(directory, "haproxy.cfg")
        with open(conf, "w") as f:
            f.write("""global
  maxconn 1000
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen ssh
  bind 127.0.0.1:%d
  server s 127.0.0.1:%d
""" % (self.port, port))
        self.process = subprocess.Popen(["/usr/sbin/haproxy", "-db", "-f", conf],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        harness.wait_until(lambda: harness.listens(self.port), "haproxy listens")

    def stop(self):
        self.process.kill()
        self.process.wait()


class Path:
    """One way to the target: argv of ssh, and whose CPU it costs."""
    def __init__(self, bench, name, argv, cpu_of):
        self.bench, self.name, self.argv, self.cpu_of = bench, name, argv, cpu_of

    def ssh(self, *command):
        return ["ssh", *self.argv, self.login, *command]


class Bench:
    def __init__(self, quick):
        self.quick = quick
        self.dir = tempfile.mkdtemp(prefix="sallyport-bench-")
        os.chmod(self.dir, 0o755)
        os.makedirs(self.dir + "/keys", mode=0o700)
        self.keys = harness.Keys(self.dir + "/keys")
        self.size = (256 if quick else 1024) * 1024 * 1024
        self.target = harness.Sshd(self.dir, self.keys).start()
        self.jump = harness.Sshd(self.dir, self.keys, name="jump").start()
        self.haproxy = Haproxy(self.dir, self.target.port)
        self.proxy = harness.Proxy(self.dir, {
            "proxy": {"log_level": "warn"},
            "limits": {"sessions_per_user": 1000, "max_unauthenticated": 100,
                       "max_unauthenticated_per_source": 64}}).start()
        self.key = self.keys.make("alice")
        self.proxy.add_user("alice", key=self.key).add_target(self.target).grant()
        self.proxy.add_target(self.target, "plain", "record=no").grant("alice", "plain")
        self.client = harness.Client(self.proxy, key=self.key, options=["-c", CIPHER])
        self.plain = harness.Client(self.proxy, key=self.key, target="plain",
                                    options=["-c", CIPHER])
        self.block = os.path.join(self.dir, "block")
        with open(self.block, "wb") as f:
            chunk = os.urandom(1024 * 1024)
            for _ in range(self.size // len(chunk)):
                f.write(chunk)

    def close(self):
        self.proxy.clean_up()
        self.haproxy.stop()
        self.target.stop()
        self.jump.stop()
        subprocess.run(["rm", "-rf", self.dir], check=False)

    # -- ways to the target

    def base(self, key, options=()):
        return ["-F", "none", "-o", "StrictHostKeyChecking=no", "-o",
                "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes",
                "-o", "IdentityAgent=none", "-o", "IdentitiesOnly=yes", "-i", key, "-c", CIPHER,
                *options]

    def way(self, name):
        """(options, login, function that gives the CPU seconds spent on the way so far)"""
        t = self.target
        if name in ("sallyport", "plain"):
            who = "alice+" + ("web01" if name == "sallyport" else "plain")
            return (self.base(self.key) + ["-o", "Port=%d" % self.proxy.port], who + "@127.0.0.1",
                    lambda: sum(cpu(p) for p in self.proxy.relays()))
        if name == "jumped":  # ssh -J through us: the relay that carries it, and the session's own
            proxy = "ssh %s -p %d -W %%h:%%p alice@127.0.0.1" % (
                " ".join(self.base(self.key)), self.proxy.port)
            return (self.base(self.key) + ["-o", "ProxyCommand=" + proxy], t.account + "@web01",
                    lambda: 0.0)
        if name == "haproxy":
            return (self.base(t.key) + ["-o", "Port=%d" % self.haproxy.port],
                    t.account + "@127.0.0.1", lambda: cpu(self.haproxy.process.pid))
        if name == "jump":
            proxy = "ssh %s -p %d -W %%h:%%p %s@127.0.0.1" % (
                " ".join(self.base(self.jump.key)), self.jump.port, self.jump.account)
            return (self.base(t.key) + ["-o", "Port=%d" % t.port, "-o", "ProxyCommand=" + proxy],
                    t.account + "@127.0.0.1", lambda: 0.0)
        return (self.base(t.key) + ["-o", "Port=%d" % t.port], t.account + "@127.0.0.1",
                lambda: 0.0)

    def settle(self):
        """A relay that is still ending would be counted for the next measurement."""
        harness.wait_until(lambda: not self.proxy.relays(), "relays end")

    def transfer(self, name, kind, spent=None):
        """One transfer of self.size bytes; (seconds, CPU seconds of the way, or what spent says)."""
        options, login, of_way = self.way(name)
        spent = spent or of_way
        size = str(self.size)
        argv, stdin, batch = ["ssh", *options, login], subprocess.DEVNULL, None
        if kind == "down":
            argv += ["head -c %s /dev/zero" % size]
        elif kind == "up":
            argv += ["cat >/dev/null"]
            stdin = open(self.block, "rb")
        else:
            argv = ["sftp", "-q", *options, "-b", "-", login]
            batch = ("get %s /dev/null\n" if kind == "sftp get" else "put %s /dev/null\n"
                     ) % self.block
            stdin = subprocess.PIPE
        self.settle()
        before, began = spent(), time.monotonic()
        with highest(spent) as peak:
            p = subprocess.Popen(argv, stdin=stdin, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE)
            _, err = p.communicate(batch.encode() if batch else None, timeout=600)
            seconds = time.monotonic() - began
        if p.returncode:
            raise SystemExit("%s by %s failed: %s" % (kind, name, err.decode()))
        return seconds, peak[0] - before

    def repeat(self, names, kind, times):
        """Alternating runs; {name: (median MiB/s, median CPU s/GiB)}."""
        got = {n: [] for n in names}
        for _ in range(times):
            for n in names:
                got[n].append(self.transfer(n, kind))
        gib = self.size / 2**30
        return {n: (statistics.median(self.size / 2**20 / s for s, _ in v),
                    statistics.median(c / gib for _, c in v)) for n, v in got.items()}

    # -- the figures

    def bulk(self):
        times = 1 if self.quick else 3
        aes = aes_time()
        for kind in ("down", "up", "sftp get", "sftp put"):
            r = self.repeat(["sallyport", "haproxy", "jump", "direct"], kind, times)
            ratio = r["sallyport"][1] / max(r["haproxy"][1], 0.01)
            report("relay CPU, %s: x haproxy" % kind, ratio, "x", 2.0,
                   note="%.2f and %.2f s/GiB, %s; haproxy and the cipher alone would be %.2f x" % (
                       r["sallyport"][1], r["haproxy"][1], CIPHER,
                       1 + aes / max(r["haproxy"][1], 0.01)))
            limit = {"down": 1.1, "up": 1.6}.get(kind)
            report("throughput, %s: x ssh -J" % kind, r["sallyport"][0] / r["jump"][0], "x",
                   limit, at_most=False,
                   note="%.0f MiB/s; -J %.0f, haproxy %.0f, direct %.0f" % (
                       r["sallyport"][0], r["jump"][0], r["haproxy"][0], r["direct"][0]))

    def relay_time(self):
        return sum(run_time(p) for p in self.proxy.relays())

    def jumps(self):
        """ssh -J, ended here: its two relays against the one of the plain path, in pairs."""
        for kind in ("down", "up"):
            pairs = []
            for _ in range(1 if self.quick else 5):
                plain, jumped = (self.transfer(name, kind, self.relay_time)
                                 for name in ("sallyport", "jumped"))
                pairs.append((jumped[1] / max(plain[1], 0.01), plain[0] / jumped[0]))
            report("jump path CPU, %s: x plain path" % kind,
                   statistics.median(cpu for cpu, _ in pairs), "x", 1.6,
                   note="throughput %.2f x the plain path's, %s" % (
                       statistics.median(speed for _, speed in pairs), CIPHER))

    def terminal(self, name, command):
        """What a command shows on a terminal; CPU seconds of the relay."""
        options, login, _ = self.way(name)
        self.settle()
        with highest(lambda: sum(run_time(p) for p in self.proxy.relays())) as spent:
            p = subprocess.Popen(["ssh", "-tt", *options, login, command + "; sleep 0.1"],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            while p.stdout.read(1 << 20):
                pass
        if p.wait():
            raise SystemExit("%s on a terminal by %s failed" % (command, name))
        return spent[0]

    def recorded_terminal(self, title, command, times):
        """The median ratio of pairs, since the load of the machine changes slowly."""
        off, on = [], []
        for _ in range(times):
            off.append(self.terminal("plain", command))
            on.append(self.terminal("sallyport", command))
        ratio = statistics.median(x / max(y, 0.001) for x, y in zip(on, off))
        report("relay CPU, recorded %s: x not" % title, ratio, "x", 1.1,
               note="%.2f and %.2f s" % (statistics.median(on), statistics.median(off)))

    def recorded(self):
        """A terminal as people use it, and one that shows text as fast as it comes."""
        line = "%08d drwxr-xr-x 2 root root 4096 Nov 22 05:31 \x1b[01;34mdir%d\x1b[0m\n"
        lines = os.path.join(self.dir, "lines.py")
        with open(lines, "w") as f:
            f.write("import sys, time\n"
                    "began = time.monotonic()\n"
                    "for n in range(int(sys.argv[1])):\n"
                    "    sys.stdout.write(%r %% (n, n))\n"
                    "    sys.stdout.flush()\n"
                    "    time.sleep(max(0, began + (n + 1) / 1000 - time.monotonic()))\n" % line)
        text = os.path.join(self.dir, "text")
        size = (64 if self.quick else 384) * 2**20
        with open(text, "w") as f:
            n = 0
            while f.tell() < size:
                f.write("".join(line % (i, i) for i in range(n, n + 10000)))
                n += 10000
        self.recorded_terminal("1000 lines a second", "python3 %s %d" %
                               (lines, 3000 if self.quick else 5000), 3 if self.quick else 9)
        self.recorded_terminal("flood of text", "cat " + text, 3 if self.quick else 7)

    def echo_path(self, name, count):
        options, login, _ = self.way(name)
        p = subprocess.Popen(["ssh", *options, login, "stdbuf -o0 cat"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, bufsize=0)
        times = []
        for i in range(count + 50):
            began = time.perf_counter()
            p.stdin.write(b"x")
            p.stdout.read(1)
            if i >= 50:
                times.append(time.perf_counter() - began)
            time.sleep(0.001)
        p.stdin.close()
        p.wait()
        return times

    def echo(self):
        count = 300 if self.quick else 1000
        got = {n: [] for n in ("direct", "sallyport", "jump")}
        for _ in range(3):
            for n in got:
                got[n] += self.echo_path(n, count)
        p50 = {n: statistics.median(v) * 1e6 for n, v in got.items()}
        report("keystroke echo, p50 added", p50["sallyport"] - p50["direct"], "us",
               p50["jump"] - p50["direct"],
               note="direct %.0f, through %.0f, -J %.0f us" % (p50["direct"], p50["sallyport"],
                                                               p50["jump"]))

    def logins(self):
        times = {n: [] for n in ("direct", "sallyport", "jump")}
        broker, gate = self.proxy.process.pid, self.proxy.gate()
        before = cpu(broker), cpu_with_reaped(gate)
        count = 10 if self.quick else 30
        for _ in range(count):
            for n in times:
                options, login, _ = self.way(n)
                began = time.monotonic()
                subprocess.run(["ssh", *options, login, "true"], check=True,
                               stdin=subprocess.DEVNULL, capture_output=True)
                times[n].append(time.monotonic() - began)
        p50 = {n: statistics.median(v) for n, v in times.items()}
        report("connect + log in + true: x ssh -J", p50["sallyport"] / p50["jump"], "x", 1.0,
               note="%.0f ms; -J %.0f, direct %.0f" % (p50["sallyport"] * 1e3, p50["jump"] * 1e3,
                                                       p50["direct"] * 1e3))
        harness.wait_until(lambda: not self.proxy.relays(), "relays end")
        report("CPU a login: broker", (cpu(broker) - before[0]) / count * 1e3, "ms")
        report("CPU a login: gate and relay", (cpu_with_reaped(gate) - before[1]) / count * 1e3,
               "ms")

    def storm(self, count, wide, sighup=False):
        argv = ["ssh", *self.way("sallyport")[0], "alice+web01@127.0.0.1", "true"]
        stop = threading.Event()

        def hup():
            while not stop.wait(0.4):
                self.proxy.process.send_signal(signal.SIGHUP)

        hupper = threading.Thread(target=hup)
        if sighup:
            hupper.start()

        def one(_):
            return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True,
                                  check=False).returncode

        with concurrent.futures.ThreadPoolExecutor(wide) as pool:
            lost = sum(1 for code in pool.map(one, range(count)) if code)
        stop.set()
        if sighup:
            hupper.join()
        return lost

    def storms(self):
        n = 60 if self.quick else 200
        began = time.monotonic()
        lost = self.storm(n, 32)
        report("%d logins, 32 at a time: lost" % n, lost, "", 0,
               note="%.1f a second" % (n / (time.monotonic() - began)))
        n = 80 if self.quick else 400
        report("%d logins under SIGHUP each 0.4 s: lost" % n, self.storm(n, 8, sighup=True), "", 0)

    def silent(self):
        """200 connections that say nothing, from one source."""
        held = []
        for _ in range(200):
            s = socket.socket()
            s.bind(("127.0.0.3", 0))
            s.connect(("127.0.0.1", self.proxy.port))
            held.append(s)

        def login(source):
            options, who, _ = self.way("sallyport")
            began = time.monotonic()
            code = subprocess.run(["ssh", "-b", source, *options, "-o", "ConnectTimeout=30", who,
                                   "true"], stdin=subprocess.DEVNULL, capture_output=True,
                                  check=False).returncode
            return code, time.monotonic() - began

        calm = [login("127.0.0.2")[1] for _ in range(5)]
        other = [login("127.0.0.2") for _ in range(10)]
        same = [login("127.0.0.3") for _ in range(10)]
        for s in held:
            s.close()
        report("200 silent: others let in", sum(c == 0 for c, _ in other), "of 10", 10,
               at_most=False)
        report("200 silent: delay of others", max(t for _, t in other) - min(calm), "s", 1.0)
        report("200 silent: let in from the same source", sum(c == 0 for c, _ in same), "of 10", 8,
               at_most=False)

    def idle(self):
        count = 50 if self.quick else 200
        held = []
        options, who, _ = self.way("sallyport")

        def open_one(_):
            pid, fd = pty.fork()
            if pid == 0:
                os.execvp("ssh", ["ssh", "-tt", *options, who,
                                  "head -c 40000 /dev/urandom | base64; echo HELD; exec cat"])
            text = b""
            while b"HELD" not in text:
                text = text[-100:] + os.read(fd, 65536)
            return pid, fd

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            held = list(pool.map(open_one, range(count)))
        time.sleep(3)  # recordings close their frames
        relays = self.proxy.relays()
        private = [private_memory(pid) for pid in relays]
        report("private memory of an idle relay, of %d" % len(relays),
               statistics.median(private), "MiB", 0.8, note="maximum %.2f" % max(private))
        pids = relays + [self.proxy.process.pid, self.proxy.gate()]
        before, began = sum(cpu(p) for p in pids), time.monotonic()
        time.sleep(10 if self.quick else 30)
        used = (sum(cpu(p) for p in pids) - before) / (time.monotonic() - began)
        report("CPU of %d idle sessions" % len(relays), used * 100, "% core", 1.0)
        for pid, fd in held:
            os.close(fd)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


SSH_FIGURES = ("bulk", "jumps", "recorded", "echo", "logins", "storms", "silent", "idle")
FIGURES = SSH_FIGURES + rdp.FIGURES + export.FIGURES


def measure(make, names, quick):
    if not names:
        return
    bench = make(quick)
    try:
        for name in names:
            getattr(bench, name.replace("-", "_"))()
    finally:
        bench.close()


def main():
    parser = argparse.ArgumentParser(description="Benchmark of Sallyport")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer, to look around")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of: " + " ".join(FIGURES))
    args = parser.parse_args()
    for name in args.names:
        if name not in FIGURES:
            parser.error("unknown figure %s (one of: %s)" % (name, " ".join(FIGURES)))
    print("%s\n%-46s %9s %-8s %-9s" % (
        subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr.strip(),
        "figure", "value", "unit", "limit"))
    names = args.names or FIGURES
    try:
        measure(Bench, [n for n in names if n in SSH_FIGURES], args.quick)
        measure(rdp.Bench, [n for n in names if n in rdp.FIGURES], args.quick)
        measure(export.Bench, [n for n in names if n in export.FIGURES], args.quick)
    finally:
        harness.remove_bin_dir()
    return 0 if all(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
