"""
The harness of the end-to-end tests: a proxy, a target and clients, all real programs, in a
directory of their own, on loopback, on ports found free. Tests wait for conditions, never for
times, and look at what the user sees, the history row and the exit code.

SALLYPORT_BUILD names the build tree. Run as root, the proxy runs as an installation would (two
system users, its own root); run as anybody else, or with Proxy(as_user=...), in a user namespace.
"""
import contextlib
import fcntl
import glob
import grp
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pexpect

BUILD = os.path.abspath(os.environ.get("SALLYPORT_BUILD", "build"))
SOURCE = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
IS_ROOT = os.geteuid() == 0
ADMIN = "admin " + pwd.getpwuid(os.geteuid()).pw_name  # who ends and sends, in these tests
PROGRAMS = ("sallyportd", "sallyctl", "sallyport-ssh", "sallyport-nla", "sallyport-pam",
            "sallyport-rdp", "sallyport-export", "sallyport-play")
PATIENCE = float(os.environ.get("SALLYPORT_TEST_PATIENCE", "30"))
SANITIZED = "sanitize" in os.environ.get("SALLYPORT_TEST_KIND", "")


def wait_until(condition, what, timeout=PATIENCE, every=0.05):
    """The first true value of condition(), or a failure that names what was waited for."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError("not within %g s: %s" % (timeout, what))
        time.sleep(every)


_ports_given = set()


def free_port():
    while True:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        if port not in _ports_given:
            _ports_given.add(port)
            return port


def listens(port, host="127.0.0.1"):
    try:
        with socket.create_connection((host, port), 1):
            return True
    except OSError:
        return False


def alive(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def children(pid):
    found = []
    for path in glob.glob("/proc/%d/task/*/children" % pid):
        with contextlib.suppress(OSError), open(path) as f:
            found += [int(x) for x in f.read().split()]
    return found


def run(*argv, **kw):
    kw.setdefault("timeout", 120)
    kw.setdefault("stdin", subprocess.DEVNULL)
    if kw.get("input") is not None:
        kw.pop("stdin")
    kw.setdefault("text", True)
    return subprocess.run([str(a) for a in argv], capture_output=True, check=False, **kw)


def need_terminals():
    """sshd gives a new terminal to the group tty, which only root may do if the kernel did not."""
    if IS_ROOT:
        return
    with open("/proc/mounts") as f:
        pts = [line.split()[3] for line in f if line.split()[1] == "/dev/pts"]
    if not any("gid=%d" % grp.getgrnam("tty").gr_gid in options.split(",") for options in pts):
        import pytest
        pytest.skip("an sshd of an ordinary user cannot give a terminal here: /dev/pts is mounted "
                    "without gid=tty")


_bin = None


def bin_dir():
    """Copies of the programs where every system user can run them: a build tree may be anywhere."""
    global _bin
    if _bin is None:
        _bin = tempfile.mkdtemp(prefix="sallyport-bin-")
        os.chmod(_bin, 0o755)
        for name in PROGRAMS:
            if os.path.exists(os.path.join(BUILD, name)):
                shutil.copy(os.path.join(BUILD, name), _bin)
        if os.path.isdir(os.path.join(BUILD, "v1")):  # the benchmark's tree has none
            shutil.copytree(os.path.join(BUILD, "v1"), os.path.join(_bin, "v1"))
            os.chmod(os.path.join(_bin, "v1"), 0o755)
    return _bin


def remove_bin_dir():
    if _bin:
        shutil.rmtree(_bin, ignore_errors=True)


@contextlib.contextmanager
def user_database():
    """Test files run side by side, and useradd gives up when another one is at work."""
    with open(os.path.join(tempfile.gettempdir(), "sallyport-useradd.lock"), "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def add_system_user(name, *options):
    with user_database():
        try:
            pwd.getpwnam(name)
        except KeyError:
            subprocess.run(["useradd", "--system", *options, name], check=True,
                           capture_output=True)
    return pwd.getpwnam(name)


def remove_system_user(name):
    with user_database():
        subprocess.run(["userdel", name], check=False, capture_output=True)


def ensure_system_users():
    for name in ("sallyport", "sallyport-relay"):
        add_system_user(name, "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin")


class Keys:
    """One directory of throw-away keys, made once a run."""
    def __init__(self, directory):
        self.dir = directory

    def make(self, name, kind="ed25519", bits=None):
        path = os.path.join(self.dir, name)
        if not os.path.exists(path):
            argv = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", path]
            if bits:
                argv += ["-b", str(bits)]
            subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True)
        return path

    def public(self, name):
        with open(self.make(name) + ".pub") as f:
            return f.read().strip()


class Sshd:
    """A private sshd on loopback that lets `account` in with the key in `authorized`."""
    def __init__(self, directory, keys, account=None, extra="", name="target"):
        self.dir = os.path.join(directory, "sshd-" + name)
        os.makedirs(self.dir, mode=0o755, exist_ok=True)
        self.port = free_port()
        self.account = account or pwd.getpwuid(os.geteuid()).pw_name
        self.host_key = keys.make("host_" + name)
        self.key = keys.make("key_" + name)
        self.authorized = os.path.join(self.dir, "authorized_keys")
        shutil.copy(self.key + ".pub", self.authorized)
        os.chmod(self.authorized, 0o644)
        self.log = os.path.join(self.dir, "log")
        self.process = None
        self.config = os.path.join(self.dir, "sshd_config")
        self.extra = extra
        self.write_config()

    def write_config(self):
        with open(self.config, "w") as f:
            f.write("""
Port %d
ListenAddress 127.0.0.1
HostKey %s
PidFile none
AuthorizedKeysFile %s
StrictModes no
UsePAM no
PasswordAuthentication yes
KbdInteractiveAuthentication no
PermitRootLogin yes
MaxStartups 500
MaxSessions 50
PrintMotd no
PrintLastLog no
AcceptEnv LANG LC_* SP_*
Subsystem sftp internal-sftp
# bash believes that it is not the first shell and leaves the account's .bashrc alone: what that
# writes to stderr would be counted, and the time that it takes with it. The account's ~/.Xauthority
# has other users: xauth replaces it, and for a moment there is none.
SetEnv SHLVL=1 XAUTHORITY=/tmp/sallyport-xauthority-%d
%s
""" % (self.port, self.host_key, self.authorized, self.port, self.extra))

    @property
    def address(self):
        return "127.0.0.1:%d" % self.port

    @property
    def host_key_line(self):
        with open(self.host_key + ".pub") as f:
            return " ".join(f.read().split()[:2])

    def start(self):
        if IS_ROOT:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        self.process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", self.config, "-E", self.log],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        wait_until(lambda: listens(self.port), "sshd listens")
        return self

    def sessions(self):
        """The processes that serve connections: children of the listener."""
        return children(self.process.pid)

    def stop(self):
        with contextlib.suppress(OSError):
            os.unlink("/tmp/sallyport-xauthority-%d" % self.port)
        if self.process:
            for pid in self.sessions():
                for grandchild in children(pid):
                    with contextlib.suppress(OSError):
                        os.kill(grandchild, signal.SIGKILL)
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait()
            self.process = None


class Proxy:
    """A sallyportd with everything it needs. options: {"section": {"key": value or [values]}}."""
    def __init__(self, directory, options=None, as_user=None, data_dir=None):
        self.as_user = as_user
        self.release = ""  # "v1": programs that speak the previous version of the link
        self.is_root = IS_ROOT and not as_user
        if self.is_root:
            ensure_system_users()
        self.dir = tempfile.mkdtemp(prefix="p-", dir=directory)
        os.chmod(self.dir, 0o755)
        if as_user:
            os.chown(self.dir, pwd.getpwnam(as_user).pw_uid, -1)
        self.port = free_port()
        self.data = data_dir or os.path.join(self.dir, "data")
        self.run_dir = os.path.join(self.dir, "run")
        self.socket = os.path.join(self.run_dir, "control.sock")
        self.conf = os.path.join(self.dir, "proxy.conf")
        self.log_path = os.path.join(self.dir, "log")
        self.recordings = os.path.join(self.data, "recordings")
        self.process = None
        self.known_hosts = os.path.join(self.dir, "known_hosts")
        self.options = {
            "proxy": {"data_dir": self.data, "run_dir": self.run_dir,
                      "store_key": os.path.join(self.dir, "keys", "store.key"),
                      "log_level": "debug", "node": "test"},
            "ssh": {"listen": "127.0.0.1:%d" % self.port},
            "rdp": {"enabled": "no"},
            "recording": {"min_free": "1M"},
        }
        self.set(options or {})

    def set(self, options):
        """Merge options into the configuration and write the file."""
        for section, rows in options.items():
            self.options.setdefault(section, {}).update(rows)
        with open(self.conf, "w") as f:
            for section, rows in self.options.items():
                f.write("[%s]\n" % section)
                for key, value in rows.items():
                    for one in value if isinstance(value, list) else [value]:
                        f.write("%s = %s\n" % (key, one))

    def env(self):
        env = dict(os.environ)
        env.setdefault("ASAN_OPTIONS", "detect_leaks=0:abort_on_error=0")
        env.setdefault("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1")
        return env

    def argv(self, *more):
        return [os.path.join(bin_dir(), self.release, "sallyportd"), "-c", self.conf, *more]

    def popen_args(self):
        args = {"env": self.env(), "start_new_session": True}
        if self.as_user:
            user = pwd.getpwnam(self.as_user)
            args.update(user=user.pw_uid, group=user.pw_gid, extra_groups=[])
        return args

    def spawn(self):
        """Start without waiting."""
        log = open(self.log_path, "ab")
        self.process = subprocess.Popen(self.argv(), stdin=subprocess.DEVNULL, stdout=log,
                                        stderr=log, **self.popen_args())
        log.close()
        return self

    def start(self):
        self.spawn()
        wait_until(self.is_up, "the proxy serves\n")
        return self

    def is_up(self):
        if self.process.poll() is not None:
            raise AssertionError("sallyportd left with %d:\n%s" % (self.process.returncode,
                                                                  self.log()[-3000:]))
        return listens(self.port) and self.ctl("status").returncode == 0

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def stop(self, sig=signal.SIGTERM, timeout=20):
        if self.process and self.process.poll() is None:
            self.process.send_signal(sig)
            self.process.wait(timeout)
        return self.process.returncode if self.process else None

    def kill(self):
        self.process.kill()
        self.process.wait()

    def relays(self):
        """The processes of relays that live: by their sockets' names, which are their pids."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(int(n.split(".")[0])
                          for n in os.listdir(os.path.join(self.run_dir, "relay"))
                          if alive(int(n.split(".")[0])))
        return []

    def gate(self):
        return children(self.process.pid)[0]

    # -- control

    def ctl(self, *args, as_user=None, **kw):
        kw.setdefault("env", dict(self.env(), TZ="UTC"))
        if as_user or self.as_user:
            user = pwd.getpwnam(as_user or self.as_user)
            kw.update(user=user.pw_uid, group=user.pw_gid, extra_groups=[])
        return run(os.path.join(bin_dir(), "sallyctl"), "--socket", self.socket, *args, **kw)

    def do(self, *args, **kw):
        """A command that must work; its standard output."""
        r = self.ctl(*args, **kw)
        assert r.returncode == 0, "sallyctl %s: %d\n%s%s" % (" ".join(map(str, args)),
                                                            r.returncode, r.stdout, r.stderr)
        return r.stdout

    def json(self, *args, **kw):
        return json.loads(self.do("-o", "json", *args, **kw))

    def sessions(self, *args):
        return self.json("session", "ls", *args)

    def history(self, *args):
        """Ended sessions, oldest first."""
        rows = [s for s in self.json("session", "ls", "--all", *args)
                if s["status"] == "disconnected"]
        return sorted(rows, key=lambda s: int(s["id"]))

    def events(self, kind=None):
        rows = json.loads(self.do("-o", "json", "event", "tail", "--since", "1d"))
        return [e for e in rows if kind in (None, e["kind"])]

    def wait_sessions(self, count, status=None):
        def check():
            rows = [s for s in self.sessions() if status in (None, s["status"])]
            return rows if len(rows) == count else False
        if count == 0:
            return wait_until(lambda: check() == [], "no %s sessions" % (status or ""))
        return wait_until(check, "%d %s sessions" % (count, status or ""))

    def wait_history(self, count):
        return wait_until(lambda: len(self.history()) >= count and self.history(),
                          "%d ended sessions" % count)

    def mine(self, path):
        """The file, or a copy of it that the user of an unprivileged proxy can read."""
        if not self.as_user:
            return path
        copy = shutil.copy(path, self.dir)
        os.chown(copy, pwd.getpwnam(self.as_user).pw_uid, -1)
        return copy

    def add_user(self, name="alice", password=None, key=None, role="user"):
        if password:
            self.do("user", "add", name, "--role", role, "--password-stdin", input=password + "\n")
        else:
            self.do("user", "add", name, "--role", role, "--no-password")
        if key:
            self.do("user", "key", "add", name, self.mine(key + ".pub"))
        return self

    def add_target(self, sshd, name="web01", *more):
        self.do("target", "add", name, "--type", "ssh", "--address", sshd.address, "--account",
                sshd.account, "--auth", "key", "--key-file", self.mine(sshd.key), "--host-key",
                sshd.host_key_line, *more)
        return self

    def grant(self, user="alice", target="web01", *more):
        self.do("grant", "add", user, target, *more)
        return self

    def clean_up(self):
        for pid in self.relays():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def assert_clean_log(self):
        """Nothing of the sanitizers, no crash, in whatever this proxy's processes wrote."""
        text = self.log()
        for bad in ("AddressSanitizer", "runtime error:", "LeakSanitizer", "ended by signal 11",
                    "ended by signal 6", "Assertion"):
            assert bad not in text, text[max(0, text.index(bad) - 500):text.index(bad) + 3000]


class Client:
    """OpenSSH's programs, logging in to one proxy as one user with one key."""
    def __init__(self, proxy, user="alice", target="web01", key=None, options=()):
        self.proxy, self.user, self.target, self.key = proxy, user, target, key
        self.options = list(options)
        self.terminals = []

    @property
    def login(self):
        return self.user + ("+" + self.target if self.target else "")

    def common(self):
        argv = ["-F", "none", "-o", "StrictHostKeyChecking=no",
                "-o", "UserKnownHostsFile=" + self.proxy.known_hosts,
                "-o", "ConnectTimeout=30", "-o", "IdentityAgent=none"]
        if self.key:
            argv += ["-i", self.key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
                     "-o", "PreferredAuthentications=publickey"]
        return argv + self.options

    def ssh_argv(self, *command, flags=()):
        if "-tt" in flags:
            need_terminals()
        return (["ssh"] + self.common() + ["-p", str(self.proxy.port)] + list(flags) +
                [self.login + "@127.0.0.1"] + list(command))

    def ssh(self, *command, flags=(), **kw):
        return run(*self.ssh_argv(*command, flags=flags), **kw)

    def popen(self, *command, flags=(), **kw):
        kw.setdefault("stdin", subprocess.PIPE)
        kw.setdefault("stdout", subprocess.PIPE)
        kw.setdefault("stderr", subprocess.PIPE)
        return subprocess.Popen(self.ssh_argv(*command, flags=flags), **kw)

    def terminal(self, *command, flags=("-tt",), rows=24, cols=80, timeout=PATIENCE):
        """An interactive session on a pty of its own."""
        argv = self.ssh_argv(*command, flags=flags)
        env = dict(os.environ, TERM="xterm-256color")
        child = pexpect.spawn(argv[0], argv[1:], dimensions=(rows, cols), timeout=timeout, env=env,
                              encoding="utf-8", codec_errors="replace")
        self.terminals.append(child)  # one that nobody keeps would be closed at once
        return child

    def shell(self, **kw):
        """A terminal with a shell at a prompt that only these tests use."""
        t = self.terminal(*("env PS1='READY\\$ ' HISTFILE= bash --norc --noprofile -i",), **kw)
        t.expect(r"READY[$#] ")
        return t

    def scp(self, *args, **kw):
        return run("scp", *self.common(), "-P", str(self.proxy.port), *args, **kw)

    def sftp(self, batch, *flags, **kw):
        return run("sftp", *self.common(), "-P", str(self.proxy.port), "-b", "-", *flags,
                   self.login + "@127.0.0.1", input=batch, **kw)

    def remote(self, path):
        return "%s@127.0.0.1:%s" % (self.login, path)


def random_name():
    return "t" + secrets.token_hex(4)


def screen(text, cols=80, rows=24):
    """What a terminal shows after `text`, as lines."""
    import pyte
    s = pyte.Screen(cols, rows)
    pyte.Stream(s).feed(text)
    return [line.rstrip() for line in s.display]


def plain(text):
    """Text without escape sequences."""
    return re.sub(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[()][0-9A-Z]|[=>78])",
                  "", text)


if sys.version_info < (3, 9):
    raise SystemExit("Python 3.9 or newer is needed")
