"""scripts/run.sh: what it prints works when it is typed, as root and as an ordinary user."""
import os
import pwd
import random
import re
import shutil
import subprocess
import tempfile

import pexpect
import pytest

import harness
from harness import IS_ROOT, PATIENCE, SOURCE, alive, listens, plain, wait_until

TESTER = "sp-" + harness.random_name()


@pytest.fixture(scope="module")
def tester(scratch):
    """An ordinary user with a shell; oneself unless one is root."""
    if not IS_ROOT:
        yield pwd.getpwuid(os.geteuid())
        return
    home = os.path.join(scratch, "home")
    yield harness.add_system_user(TESTER, "--create-home", "--home-dir", home, "--shell",
                                  "/bin/bash")
    # what runs as the tester was ended by the tests; userdel looks at the process list itself
    harness.remove_system_user(TESTER)


class Run:
    """One run.sh in a terminal of its own."""
    def __init__(self, directory, user=None, args=(), env=None):
        self.user, self.dir = user, directory
        scripts = os.path.join(harness.bin_dir(), "scripts")
        if not os.path.exists(scripts):  # a checkout may be where other users cannot go
            shutil.copytree(os.path.join(SOURCE, "scripts"), scripts)
        argv = [os.path.join(scripts, "run.sh"), "--no-install", "--dir", directory, *args]
        self.env = dict(os.environ, SALLYPORT_BUILD=harness.bin_dir(), TERM="dumb",
                        ASAN_OPTIONS="detect_leaks=0", **(env or {}))
        if user:
            self.env.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)
            argv = self.as_user(argv)
        self.terminal = pexpect.spawn(argv[0], argv[1:], env=self.env, encoding="utf-8",
                                      timeout=PATIENCE * 2, dimensions=(50, 250), cwd="/")
        self.text = ""

    def as_user(self, argv):
        if not self.user or not IS_ROOT:
            return argv
        return ["setpriv", "--reuid=%d" % self.user.pw_uid, "--regid=%d" % self.user.pw_gid,
                "--clear-groups", *argv]

    def wait_up(self):
        up = self.terminal.expect(["Ctrl-C ends the proxy[^\n]*\n", pexpect.EOF])
        assert up == 0, self.terminal.before
        self.text = plain(self.terminal.before).replace("\r", "")
        return self

    def wait_end(self):
        self.terminal.expect(pexpect.EOF)
        self.text = plain(self.terminal.before).replace("\r", "")
        self.terminal.wait()
        return self.terminal.exitstatus

    def printed(self, pattern):
        found = re.search(pattern, self.text)
        assert found, "%s is not in:\n%s" % (pattern, self.text)
        return found.group(1)

    @property
    def ssh_line(self):
        return self.printed(r"(ssh -p \d+ \S+\+demo@127\.0\.0\.1)")

    @property
    def port(self):
        return int(self.ssh_line.split()[2])

    @property
    def password(self):
        return self.printed(r"password (\S+) \(shown this once\)")

    def typed(self, line, *more):
        """A printed ssh line, as a person would paste it; options only keep it off other files."""
        argv = line.split()
        argv[1:1] = ["-F", "none", "-o", "UserKnownHostsFile=%s/kh" % self.dir,
                     "-o", "PubkeyAuthentication=no", "-o", "IdentityAgent=none"]
        return pexpect.spawn(argv[0], argv[1:] + list(more), encoding="utf-8", timeout=PATIENCE,
                             env=dict(os.environ, TERM="xterm"))

    def log_in(self, password, *more):
        t = self.typed(self.ssh_line, *more)
        if t.expect(["continue connecting", "assword:"]) == 0:
            t.sendline("yes")
            t.expect("assword:")
        t.sendline(password)
        return t

    def ctl(self, *args):
        line = self.printed(r"(\S+/sallyctl --socket \S+) session ls").split()
        return harness.run(*self.as_user([*line, *args]), env=self.env)

    def pids(self):
        """Processes of this state folder, by their command lines."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/cmdline" % pid, "rb") as f:
                    words = f.read().split(b"\0")
            except OSError:
                continue
            if any(w.startswith(self.dir.encode() + b"/") for w in words) and alive(int(pid)):
                found.append(int(pid))
        return found

    def clean_up(self):
        if self.terminal.isalive():
            self.terminal.sendintr()
            self.terminal.expect(pexpect.EOF)
        self.terminal.close(force=True)


def port_base():
    """Below the ports that the system gives to connections: those come and go while others test."""
    return next(p for p in iter(lambda: random.randrange(12000, 30000), None)
                if not listens(p) and not listens(p + 1))


@pytest.fixture
def start(scratch):
    """start(user) runs run.sh in a new folder, start(user, dir=...) in one that is there."""
    made = []

    def begin(user=None, dir=None, args=(), **kw):
        if dir is None:
            parent = tempfile.mkdtemp(prefix="r-", dir=scratch)
            os.chmod(parent, 0o755)
            if user and IS_ROOT:
                os.chown(parent, user.pw_uid, user.pw_gid)
            dir = os.path.join(parent, "var")
        run = Run(dir, user, args or ("--port-base", str(port_base())), **kw)
        made.append(run)
        return run

    yield begin
    for run in made:
        run.clean_up()


@pytest.fixture(params=["root", "ordinary"])
def who(request, tester):
    if request.param == "root" and not IS_ROOT:
        pytest.skip("not root")
    return None if request.param == "root" else tester


def test_first_run_and_what_it_prints(start, who):
    run = start(who).wait_up()
    name = "admin" if who is None else who.pw_name
    assert run.ssh_line == "ssh -p %d %s+demo@127.0.0.1" % (run.port, name)

    t = run.log_in(run.password, "echo $((40+2)) $(id -un); exit 3")
    t.expect("42 " + (who.pw_name if who else "root"))
    t.expect(pexpect.EOF)
    t.wait()
    assert t.exitstatus == 3

    t = run.log_in(run.password)  # a terminal, with a shell and Ctrl-C in it
    t.sendline("tty; sleep 1000")
    t.expect("/dev/pts/")
    wait_until(lambda: "demo" in run.ctl("session", "ls").stdout, "the session is listed")
    t.sendintr()
    t.sendline("echo rc-$?")
    t.expect("rc-130")

    run.terminal.sendintr()
    t.expect("You have been disconnected")
    t.expect(pexpect.EOF)
    assert run.wait_end() == 0
    wait_until(lambda: run.pids() == [], "nothing is left running")


def test_second_run_starts_what_is_there(start, who):
    first = start(who).wait_up()
    password, line, port = first.password, first.ssh_line, first.port
    key = first.printed(r"Host key: (\S+)")
    other = start(who, dir=first.dir, args=("--port-base", str(port)))
    assert other.wait_end() == 0
    assert "is running already" in other.text and line in other.text
    first.terminal.sendintr()
    assert first.wait_end() == 0

    second = start(who, dir=first.dir, args=("--port-base", str(port))).wait_up()
    assert second.ssh_line == line and second.printed(r"Host key: (\S+)") == key
    assert "shown this once" not in second.text
    t = second.log_in(password, "echo again")
    t.expect("again")
    t.expect(pexpect.EOF)
    assert second.ctl("session", "ls", "--all").stdout.count("demo") == 1


def test_ports_that_are_taken_are_left_alone(start, target, who):
    run = start(who, args=("--port-base", str(target.port))).wait_up()
    assert run.port > target.port
    t = run.log_in(run.password, "echo here")
    t.expect("here")
    t.expect(pexpect.EOF)
    assert listens(target.port)


def test_known_keys_of_the_user_are_let_in(start, tester, keys):
    ssh = os.path.join(tester.pw_dir, ".ssh")
    if not IS_ROOT:
        pytest.skip("leaves the keys of the person alone")
    os.makedirs(ssh, exist_ok=True)
    shutil.copy(keys.make("runner") + ".pub", os.path.join(ssh, "id_ed25519.pub"))
    run = start(tester).wait_up()
    assert "Your public keys in ~/.ssh work too." in run.text
    r = harness.run("ssh", "-F", "none", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes",
                    "-o", "StrictHostKeyChecking=no", "-o", "IdentityAgent=none", "-i",
                    keys.make("runner"), *run.ssh_line.split()[1:], "echo by-key")
    assert r.stdout == "by-key\n", r.stderr
    os.unlink(os.path.join(ssh, "id_ed25519.pub"))


def test_without_the_right_to_install(start, tester, scratch):
    """No package is there and sudo says no: one line to run, and nothing else happened."""
    fake = os.path.join(scratch, "fake")
    os.makedirs(fake, exist_ok=True)
    for name, status in (("dpkg-query", 1), ("sudo", 1)):
        path = os.path.join(fake, name)
        with open(path, "w") as f:
            f.write("#!/bin/sh\nexit %d\n" % status)
        os.chmod(path, 0o755)
    run = start(tester, env={"PATH": fake + ":" + os.environ["PATH"]})
    assert run.wait_end() == 1
    lines = [line for line in run.text.splitlines() if "apt-get" in line]
    assert len(lines) == 1
    # before that, "sudo apt-get update &&" where the package lists are missing or old
    assert "sudo apt-get install -y --no-install-recommends gcc cmake" in lines[0]
    assert not os.path.exists(run.dir)


@pytest.mark.skipif(not IS_ROOT, reason="root only")
def test_a_folder_that_system_users_cannot_enter(start, scratch):
    closed = tempfile.mkdtemp(prefix="closed-", dir=scratch)
    run = start(dir=os.path.join(closed, "var"))
    assert run.wait_end() == 1
    assert "cannot be entered by the system user sallyport" in run.text
    assert "--dir" in run.text


def test_wrong_options(start):
    for args, said in ((("--port-base", "x"), "--port-base takes a number"), (("--what",), "usage:")):
        run = start(args=args)
        assert run.wait_end() != 0
        assert said in run.text
