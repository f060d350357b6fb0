"""Looking on in a live session, and joining it: what is seen is what the user sees."""
import json
import os
import re
import shlex
import signal
import subprocess

import pexpect
import pytest

import harness

COLS, ROWS = 80, 24


class Terminal:
    """A program in a tmux of its own: a terminal that knows two screens and answers questions."""
    def __init__(self, server, argv, cols, rows):
        self.server = server
        self.tmux("new-session", "-d", "-x", cols, "-y", rows, "TERM=xterm-256color exec " +
                  " ".join(shlex.quote(str(a)) for a in argv), ";",
                  "set-option", "remain-on-exit", "on", ";", "set-option", "-g", "status", "off")
        self.resize(cols, rows)

    def tmux(self, *args):
        r = harness.run("tmux", "-L", self.server, "-f", "/dev/null", *args)
        assert r.returncode == 0, r.stderr
        return r.stdout

    def type(self, text):
        self.tmux("send-keys", "-H", *["%02x" % b for b in text.encode()])

    def lines(self):
        return [line.rstrip() for line in self.tmux("capture-pane", "-p").split("\n")[:-1]]

    def cursor(self):
        return self.tmux("display-message", "-p",
                         "#{?cursor_flag,#{cursor_y} #{cursor_x},hidden}").strip()

    def is_over(self):
        return self.tmux("display-message", "-p", "#{pane_dead}").strip() == "1"

    def wait_over(self):
        harness.wait_until(self.is_over, "the program's end")

    def wait(self, text):
        try:
            harness.wait_until(lambda: any(text in line for line in self.lines()), repr(text))
        except AssertionError as e:
            raise AssertionError("%s; the screen is\n%s" % (e, "\n".join(self.lines()))) from None

    def wait_gone(self, text):
        harness.wait_until(lambda: not any(text in line for line in self.lines()),
                           "no %r on the screen" % text)

    def resize(self, cols, rows):
        self.tmux("resize-window", "-x", cols, "-y", rows)

    def end(self):
        harness.run("tmux", "-L", self.server, "kill-server")


@pytest.fixture
def on_terminal(proxy):
    made = []

    def spawn(argv, cols, rows):
        made.append(Terminal("watch-" + harness.random_name(), argv, cols, rows))
        return made[-1]

    yield spawn
    for t in made:
        t.end()


@pytest.fixture
def user(on_terminal, client):
    """alice at a prompt."""
    client.options += ["-o", "LogLevel=ERROR"]  # its own words are not the session's
    t = on_terminal(client.ssh_argv("env PS1='READY> ' HISTFILE= TERM=xterm-256color "
                                    "bash --norc --noprofile -i", flags=("-tt",)), COLS, ROWS)
    t.wait("READY>")
    return t


@pytest.fixture
def watch(on_terminal, proxy):
    def start(*more, word="watch", cols=COLS, rows=ROWS + 1, wait=True):
        session = proxy.sessions()[0]["id"]
        argv = [os.path.join(harness.bin_dir(), "sallyctl"), "--socket", proxy.socket, "session",
                word, session] + list(more)
        t = on_terminal(argv, cols, rows)
        if wait:
            t.wait(" leaves  ")
        return t
    return start


def sees_the_same(user, watcher):
    """The user's screen, line by line and with the cursor, and one line more for the status."""
    def same():
        return watcher.lines()[:ROWS] == user.lines() and watcher.cursor() == user.cursor()
    try:
        harness.wait_until(same, "the same screen")
    except AssertionError as e:
        raise AssertionError("%s: %s\n%s\n--- %s\n%s" % (
            e, user.cursor(), "\n".join(user.lines()), watcher.cursor(),
            "\n".join(watcher.lines()))) from None


def lines_of(proxy, session, count=1, word="watch", stdin=subprocess.DEVNULL):
    argv = [os.path.join(harness.bin_dir(), "sallyctl"), "--socket", proxy.socket, "-o", "jsonl",
            "session", word, session]
    return subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)


# ---- watching

def test_the_screen_as_it_is_and_then_live(proxy, user, watch):
    user.type("for i in 1 2 3 4 5; do echo line-$i; done; printf 'a\\tb\\033[31mred\\033[0m\\n'\r")
    user.wait("line-5")
    w = watch()
    user.wait("is watching this session")
    w.wait("line-3")
    sees_the_same(user, w)
    user.type("seq 1 100\r")
    user.wait("100")
    sees_the_same(user, w)
    user.type("printf '\\xc3\\xa9\\xe6\\x97\\xa5\\xe6\\x9c\\xac \\xff ok\\n'\r")
    user.wait("ok")
    w.wait("é")
    assert any("watching alice at web01" in line for line in w.lines())
    w.type("q")
    w.wait_over()
    user.type("echo still-there\r")
    user.wait("still-there")
    kinds = harness.wait_until(
        lambda: len([e for e in proxy.events() if e["kind"].startswith("watch-")]) == 2
        and [e for e in proxy.events() if e["kind"].startswith("watch-")], "two events")
    assert [e["kind"] for e in kinds] == ["watch-open", "watch-close"]
    assert all(harness.ADMIN in e["text"] and e["user"] == "alice" for e in kinds)


def test_full_screen_programs(user, watch, tmp_path):
    path = tmp_path / "text"
    path.write_text("".join("line %d of the file\n" % i for i in range(200)))
    os.chmod(tmp_path, 0o755)
    user.type("vim -u NONE -N +'set ruler' %s\r" % path)
    user.wait("line 20 of the file")
    w = watch()
    user.type("50Gzt")
    user.wait("50,1")
    user.wait_gone("is watching")  # vim is made to draw again, by two changes of its size
    sees_the_same(user, w)
    w.wait("line 55 of the file")
    user.type("ihello world")
    user.wait("hello worldline 49")
    user.type("\x1b")
    user.wait_gone("-- INSERT --")
    sees_the_same(user, w)
    user.type(":q!\r")
    user.wait("READY>")
    sees_the_same(user, w)
    user.type("less %s\r" % path)
    user.wait("line 10 of the file")
    user.type("G")
    user.wait("line 199")
    sees_the_same(user, w)
    user.type("q")
    user.wait_gone("line 199")
    sees_the_same(user, w)
    user.type("top -d 60\r")
    user.wait("Tasks:")
    user.wait("COMMAND")
    sees_the_same(user, w)
    late = watch(wait=False)  # in the middle of it
    late.wait("COMMAND")
    user.type("q")
    user.wait("READY>")
    sees_the_same(user, w)
    sees_the_same(user, late)


def test_sizes(proxy, user, watch):
    small = watch(cols=40, rows=10)
    small.wait("does not fit")
    user.type("for i in $(seq 1 50); do echo row-$i; done\r")
    user.wait("row-50")
    small.wait("row-50")
    assert any("READY>" in line for line in small.lines())
    big = watch(cols=120, rows=40)
    user.resize(100, 30)
    user.type("stty size\r")
    user.wait("30 100")
    big.wait("100x30")
    big.wait("30 100")
    big.resize(110, 35)
    user.type("echo after-resize\r")
    big.wait("after-resize")
    big.type("\x03")
    big.wait_over()


def test_two_watchers_and_no_ninth(proxy, user, watch):
    session = proxy.sessions()[0]["id"]
    w = [watch(), watch()]
    user.type("echo to-both\r")
    for t in w:
        t.wait("to-both")
    more = [lines_of(proxy, session) for _ in range(6)]
    for p in more:
        assert json.loads(p.stdout.readline())["session"] == session
    ninth = lines_of(proxy, session)
    out, _ = ninth.communicate(timeout=harness.PATIENCE)
    assert "eight are watching" in out and ninth.returncode == 1
    for p in more:
        p.kill()
        p.communicate()
    user.type("echo on-and-on\r")
    for t in w:
        t.wait("on-and-on")


def test_for_scripts(proxy, user):
    session = proxy.sessions()[0]["id"]
    p = lines_of(proxy, session)
    head = json.loads(p.stdout.readline())
    assert head["watch"] == 1 and head["cols"] == COLS and head["rows"] == ROWS
    assert head["recorded"] is True and head["mayType"] is False
    user.type("echo some-$((1+1))-thing; exit\r")
    out, _ = p.communicate(timeout=harness.PATIENCE)
    lines = [json.loads(line) for line in out.splitlines()]
    assert "some-2-thing" in "".join(e[2] for e in lines if isinstance(e, list) and e[1] == "o")
    assert lines[-1]["end"] == "over" and p.returncode == 0


def test_nothing_drives_the_terminal_of_the_admin(user, watch, proxy, on_terminal):
    """Titles, clipboards, questions and mouse modes stay in the session."""
    argv = [os.path.join(harness.bin_dir(), "sallyctl"), "--socket", proxy.socket, "session",
            "watch", proxy.sessions()[0]["id"]]
    raw = pexpect.spawn(argv[0], argv[1:], dimensions=(ROWS + 1, COLS))
    raw.expect(b"watching alice")
    user.type(r"printf '\033]0;evil\007\033]52;c;ZXZpbA==\007\033[c\033[6n\033[?1000h\033P+q\033\\"
              r"\xc2\x9b6n\033[20t'; echo do''ne" + "\r")
    user.wait("done")
    raw.expect(b"done")
    seen = raw.before + raw.after
    for bad in (b"\x1b]", b"\x1bP", b"\x1b[c", b"\x1b[6n", b"\x1b[?1000h", b"\x1b[20t",
                b"\xc2\x9b"):
        assert bad not in seen, bad
    raw.close(force=True)


def test_a_slow_watcher_is_dropped(proxy, user, watch):
    session = proxy.sessions()[0]["id"]
    slow = lines_of(proxy, session)
    slow.stdout.readline()
    os.kill(slow.pid, signal.SIGSTOP)
    user.type("head -c 2000000 /dev/zero | tr '\\0' x | fold -w 79; echo FLOOD-IS-OVER\r")
    user.wait("FLOOD-IS-OVER")
    harness.wait_until(lambda: [e for e in proxy.events("watch-close")
                                if "did not read fast enough" in e["text"]], "the drop")
    os.kill(slow.pid, signal.SIGCONT)
    out, _ = slow.communicate(timeout=harness.PATIENCE)
    assert json.loads(out.splitlines()[-1])["end"] == "slow" and slow.returncode == 1
    for line in out.splitlines():
        json.loads(line)
    user.type("echo still-there\r")
    user.wait("still-there")


def test_one_who_reads_keeps_up(proxy, user, watch):
    w = watch()
    user.type("seq 1 30000; echo FLOOD-IS-OVER\r")
    user.wait("FLOOD-IS-OVER")
    sees_the_same(user, w)


def test_a_restart_ends_watches_with_a_word(proxy, user, watch):
    w = lines_of(proxy, proxy.sessions()[0]["id"])
    w.stdout.readline()
    proxy.stop()
    out, err = w.communicate(timeout=harness.PATIENCE)
    end = json.loads(out.splitlines()[-1])
    assert end["end"] == "broker" and "watch it again" in end["text"]
    user.type("echo still-there\r")
    user.wait("still-there")
    proxy.start()
    harness.wait_until(lambda: proxy.sessions(), "the session again")
    again = watch()
    again.wait("still-there")
    user.type("echo and-live\r")
    again.wait("and-live")
    sees_the_same(user, again)
    harness.wait_until(lambda: [e for e in proxy.events("watch-close") if "restarted" in e["text"]],
                       "the end of the first one")


def test_the_user_need_not_be_told(make_proxy, keys, target, on_terminal):
    p = make_proxy({"recording": {"watch_notice": "no"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    c = harness.Client(p, key=keys.make("alice"), options=["-o", "LogLevel=ERROR"])
    t = on_terminal(c.ssh_argv("env PS1='READY> ' bash --norc -i", flags=("-tt",)), COLS, ROWS)
    t.wait("READY>")
    w = lines_of(p, p.sessions()[0]["id"])
    w.stdout.readline()
    t.type("echo one\r")
    t.wait("one")
    w.kill()
    w.communicate()
    t.type("echo two\r")
    t.wait("two")
    assert not any("watching" in line for line in t.lines())
    assert p.events("watch-open")


def test_unrecorded_sessions(make_proxy, keys, target, on_terminal):
    p = make_proxy({"recording": {"ssh": "no"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    c = harness.Client(p, key=keys.make("alice"), options=["-o", "LogLevel=ERROR"])
    t = on_terminal(c.ssh_argv("env PS1='READY> ' bash --norc -i", flags=("-tt",)), COLS, ROWS)
    t.wait("READY>")
    argv = [os.path.join(harness.bin_dir(), "sallyctl"), "--socket", p.socket, "session"]
    w = pexpect.spawn(argv[0], argv[1:] + ["watch", p.sessions()[0]["id"]],
                      dimensions=(ROWS + 1, COLS), timeout=harness.PATIENCE)
    w.expect("not recorded")
    t.type("echo from-now\r")
    w.expect("from-now")
    w.close(force=True)
    r = harness.run(*argv[:-1], "-o", "jsonl", "session", "join", p.sessions()[0]["id"])
    assert r.returncode == 1 and "not recorded" in r.stdout


def test_commands_and_what_cannot_be_watched(proxy, client):
    c = client.popen("for i in 1 2 3 4 5 6 7 8 9; do echo tick-$i; read x; done")
    harness.wait_until(lambda: proxy.events("channel-open"), "a channel")
    session = proxy.sessions()[0]["id"]
    p = lines_of(proxy, session)
    assert json.loads(p.stdout.readline())["pty"] is False
    c.stdin.write(b"\n")
    c.stdin.flush()
    assert "tick-" in p.stdout.readline()
    c.kill()
    c.wait()
    p.communicate(timeout=harness.PATIENCE)
    idle = client.popen(flags=("-N",))
    proxy.wait_sessions(1)
    session = proxy.sessions()[0]["id"]
    r = proxy.ctl("-o", "jsonl", "session", "watch", session)
    assert r.returncode == 1 and "neither a terminal nor a command" in r.stdout
    r = proxy.ctl("-o", "jsonl", "session", "watch", session + ".7")
    assert r.returncode == 1 and "no terminal" in r.stdout
    idle.kill()
    idle.wait()
    proxy.wait_sessions(0)
    assert proxy.ctl("-o", "jsonl", "session", "watch", session).returncode == 1
    assert proxy.ctl("-o", "jsonl", "session", "watch", "x").returncode == 2
    assert proxy.ctl("session", "watch", session).returncode == 2  # no terminal to draw on


# ---- joining

def test_who_joins_types_and_is_recorded(proxy, user, watch):
    w = watch(word="join")
    user.wait("joined this session and may type")
    w.type("echo typed-by-$((40+2))\r")
    user.wait("typed-by-42")
    user.type("vim -u NONE -N +'set showmode'\r")
    user.wait("~")
    w.wait("~")
    w.type("ia\rb\rc")
    w.wait("c")
    w.type("\x1b")
    user.wait_gone("-- INSERT --")
    w.type("\x1b[A\x1b[Ax")  # arrows, as a terminal sends them that knows nothing of vim's wish
    harness.wait_until(lambda: [l for l in user.lines()[:3]] == ["", "b", "c"], "the a deleted")
    w.type(":q!\r")
    user.wait_gone("~")
    w.type("\x1d")
    w.wait_over()
    user.type("echo mine\r")
    user.wait("mine")
    session = proxy.sessions()[0]["id"]
    user.type("exit\r")
    proxy.wait_history(1)
    text = proxy.do("recording", "export", session, "-")
    typed = "".join(e[2] for e in map(json.loads, text.splitlines()[1:]) if e[1] == "i")
    assert typed.startswith("echo typed-by-$((40+2))\r") and typed.endswith(":q!\r")
    assert "mine" not in typed
    path = [r["path"] for r in proxy.json("recording", "ls") if r["session"] == session][0]
    with open(path, "rb") as f:
        assert f.read().count(harness.ADMIN.encode()) >= 2  # beside each piece
    events = [e for e in proxy.events() if e["kind"].startswith("join-")]
    assert [e["kind"] for e in events] == ["join-open", "join-close"]
    assert "typed=%d" % len(typed) in events[1]["text"]


def test_a_script_may_type(proxy, user):
    p = lines_of(proxy, proxy.sessions()[0]["id"], word="join", stdin=subprocess.PIPE)
    p.stdout.readline()
    p.stdin.write("echo by-a-$((1+1))-script\n")
    p.stdin.flush()
    user.wait("by-a-2-script")
    p.stdin.close()
    user.type("exit\r")
    p.stdout.read()
    assert p.wait(harness.PATIENCE) == 0


# ---- who may

@pytest.mark.skipif(not harness.IS_ROOT, reason="other accounts are needed")
def test_rights(proxy, user, keys):
    """A plain user watches nobody, an auditor watches and does not type."""
    with harness.user_database():
        pass
    nobody, games = 65534, 5
    proxy.do("user", "add", "bob", "--role", "user", "--no-password", "--local-uid", nobody)
    proxy.do("user", "add", "eve", "--role", "auditor", "--no-password", "--local-uid", games)
    session = proxy.sessions()[0]["id"]
    for word in ("watch", "join"):
        r = proxy.ctl("-o", "jsonl", "session", word, session, as_user="nobody")
        assert r.returncode == 4, r.stdout + r.stderr
    r = proxy.ctl("-o", "jsonl", "session", "join", session, as_user="games")
    assert r.returncode == 4 and "admin" in r.stderr
    argv = [os.path.join(harness.bin_dir(), "sallyctl"), "--socket", proxy.socket, "-o", "jsonl",
            "session", "watch", session]
    p = subprocess.Popen(argv, user=games, group=60, extra_groups=[], stdout=subprocess.PIPE,
                         text=True)
    assert json.loads(p.stdout.readline())["mayType"] is False
    p.kill()
    p.communicate()
    assert re.search("auditor|eve", proxy.events("watch-open")[0]["text"])


@pytest.mark.skipif(not harness.IS_ROOT, reason="other accounts are needed")
def test_permission_is_withdrawn(proxy, user):
    """Who is locked out sees no more; who leaves control.sock neither."""
    proxy.do("user", "add", "eve", "--role", "auditor", "--no-password", "--local-uid", 5)
    argv = [os.path.join(harness.bin_dir(), "sallyctl"), "--socket", proxy.socket, "-o", "jsonl",
            "session", "watch", proxy.sessions()[0]["id"]]
    p = subprocess.Popen(argv, user=5, group=60, extra_groups=[], stdout=subprocess.PIPE, text=True)
    p.stdout.readline()
    proxy.do("user", "lock", "eve")
    out, _ = p.communicate(timeout=harness.PATIENCE)
    assert json.loads(out.splitlines()[-1])["end"] == "withdrawn" and p.returncode == 1
    user.type("echo still-there\r")
    user.wait("still-there")


def test_a_client_that_takes_no_descriptor_is_told(proxy, user):
    import socket
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(proxy.socket)
        f = s.makefile("rw")
        f.readline()
        f.write(json.dumps({"v": 1, "id": 1, "command": "session watch",
                            "args": {"id": proxy.sessions()[0]["id"]}}) + "\n")
        f.flush()
        answer = json.loads(f.readline())
    assert answer["ok"] is False and "descriptor" in answer["error"]["message"]
    assert not proxy.events("watch-open")
