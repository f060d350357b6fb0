"""Notices: on a terminal, to programs, over full-screen programs, at the end."""
import os
import re
import shlex
import subprocess
import sys
import time

import pytest

import harness
from harness import ADMIN, wait_until


def end(proxy, *more):
    row = proxy.sessions()[0]
    return proxy.do("session", "end", row["id"], "-y", *more)


def test_end_on_a_terminal(proxy, client):
    shell = client.shell()
    shell.send("half a line")
    shell.expect("half a line")
    end(proxy, "--reason", "maintenance")
    shell.expect(harness.pexpect.EOF)
    text = "You have been disconnected: ended by " + ADMIN + " (maintenance)"
    lines = [line.strip() for line in shell.before.replace("\r", "\n").split("\n")]
    assert text in lines, lines  # a line of its own
    assert any(line.endswith(": " + text) and line.startswith("Received disconnect")
               for line in lines), lines
    shell.close()
    assert shell.exitstatus == 255
    row = proxy.wait_history(1)[0]
    assert (row["endReason"], row["endedBy"], row["endText"]) == ("admin-ended", ADMIN, text)


def test_end_is_quick(proxy, client):
    client.shell()
    began = time.monotonic()
    end(proxy)
    wait_until(lambda: not proxy.relays(), "the relay is gone")
    assert time.monotonic() - began < 10  # within the deadline of a second, on a calm machine
    again = proxy.ctl("session", "end", "1", "-y")
    assert again.returncode == 3 or again.returncode == 1
    assert "1" in again.stdout + again.stderr


@pytest.mark.parametrize("command", ["cat", "cat /dev/zero"])
def test_end_of_a_command_never_touches_its_output(proxy, client, scratch, command):
    path = os.path.join(scratch, harness.random_name())
    with open(path, "wb") as f:  # a file reads at once whatever comes
        p = client.popen(command, stdout=f)
    proxy.wait_sessions(1, "active")
    if command == "cat":
        p.stdin.write(b"data")
        p.stdin.flush()
    wait_until(lambda: os.path.getsize(path) >= (4 if command == "cat" else 1000000), "output")
    end(proxy)
    _, err = p.communicate(timeout=30)
    with open(path, "rb") as f:
        out = f.read()
    os.unlink(path)
    assert out == b"data" if command == "cat" else not out.strip(b"\0")
    assert ("You have been disconnected: ended by " + ADMIN).encode() in err
    assert p.returncode == 255


def test_end_of_sftp(proxy, client):
    sftp = subprocess.Popen(["sftp", *client.common(), "-P", str(proxy.port),
                             client.login + "@127.0.0.1"], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    sftp.stdin.write("pwd\n")
    sftp.stdin.flush()
    while "Remote working directory" not in sftp.stdout.readline():
        pass
    end(proxy)
    out, err = sftp.communicate(timeout=30)
    assert "You have been disconnected: ended by " + ADMIN in err
    assert "disconnected" not in out


def test_a_client_that_does_not_read_is_cut(proxy, client):
    p = client.popen("cat /dev/zero")
    proxy.wait_sessions(1, "active")
    os.kill(p.pid, 19)
    try:
        end(proxy)
        wait_until(lambda: not proxy.relays(), "the relay is gone")
        assert proxy.wait_history(1)[0]["endReason"] == "admin-ended"
    finally:
        os.kill(p.pid, 18)
        p.kill()
        p.communicate()


def test_message(proxy, client):
    shell = client.shell()
    command = client.popen("cat")
    proxy.wait_sessions(2, "active")
    proxy.do("session", "message", "--all", "reboot at \x1b[31m18:00\n")
    shell.expect("Message from " + ADMIN + ": reboot at ")
    shell.expect("18:00")
    assert "\x1b[31m" not in shell.before
    out, err = command.communicate(b"x", timeout=30)
    assert (out, err) == (b"x", b"")
    assert len(proxy.events("message")) == 2
    none = proxy.ctl("session", "message", "4711", "x")
    assert none.returncode in (1, 3)


def test_message_to_sftp_writes_nothing(proxy, client):
    sftp = subprocess.Popen(["sftp", *client.common(), "-P", str(proxy.port),
                             client.login + "@127.0.0.1"], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    proxy.wait_sessions(1, "active")
    proxy.do("session", "message", "--all", "reboot at 18:00")
    out, err = sftp.communicate("pwd\n", timeout=30)
    assert sftp.returncode == 0 and "Remote working directory" in out
    assert "reboot" not in out + err


def test_message_to_a_shell_without_terminal_writes_nothing(proxy, client):
    p = client.popen(flags=("-T",))
    proxy.wait_sessions(1, "active")
    proxy.do("session", "message", "--all", "reboot at 18:00")
    out, err = p.communicate(b"echo shell-$((1+1))\n", timeout=30)
    assert p.returncode == 0 and b"shell-2\n" in out
    assert b"reboot" not in out + err


def test_every_terminal_of_a_connection_is_told(proxy, keys, scratch):
    c = harness.Client(proxy, key=keys.make("alice"), options=[
        "-o", "ControlMaster=auto", "-o", "ControlPath=%s/%s" % (scratch, harness.random_name())])
    first = c.shell()
    second = c.shell()
    for text in ("one", "two", "three"):
        proxy.do("session", "message", "--all", text)
    for text in ("one", "two", "three"):
        first.expect_exact("Message from " + ADMIN + ": " + text + "\r\n")
        second.expect_exact("Message from " + ADMIN + ": " + text + "\r\n")
    end(proxy)
    first.expect_exact("You have been disconnected: ended by " + ADMIN)
    second.expect_exact("You have been disconnected: ended by " + ADMIN)


def test_notices_stand_between_sequences_and_characters(proxy, client, scratch):
    """Coloured output in pieces of odd sizes: without the notices it is what the target sent."""
    path = os.path.join(scratch, harness.random_name())
    piece = "".join("\x1b[38;5;%dm%d ä€\U0001f642\x1b[0m\x1b]0;title %d\x07\r\n" % (i % 256, i, i)
                    for i in range(3000)).encode()
    with open(path, "wb") as f:
        f.write(piece)
    slowly = os.path.join(scratch, harness.random_name())
    with open(slowly, "w") as f:
        f.write("import os, time\ndata = open('%s', 'rb').read()\n"
                "for i in range(0, len(data), 997):\n"
                "    os.write(1, data[i:i + 997])\n    time.sleep(0.015)\n" % path)
    shown = os.path.join(scratch, harness.random_name())
    with open(shown, "wb") as f:
        p = client.popen("stty raw -echo; exec %s %s" % (sys.executable, slowly), flags=("-tt",),
                         stdout=f)
    wait_until(lambda: os.path.getsize(shown), "it runs")
    for i in range(20):
        proxy.do("session", "message", "--all", "number-%d" % i)
    p.communicate(timeout=60)
    with open(shown, "rb") as f:
        out = f.read()
    notice = re.compile(rb"(\x1b\[0m)?\r\n?Message from %b: number-(\d+)\r\n" % ADMIN.encode())
    assert [int(n) for _, n in notice.findall(out)] == list(range(20))
    assert notice.sub(b"", out) == piece


def test_notice_waits_for_the_end_of_a_sequence(proxy, client):
    shell = client.terminal(r"printf 'begin\033[3'; read x; printf '1mred\n'; read x")
    shell.expect_exact("begin\x1b[3")
    proxy.do("session", "message", "--all", "hello")
    wait_until(lambda: proxy.events("message"), "it was sent")
    shell.send("\n")
    shell.expect_exact("1m")
    assert "Message" not in shell.before
    shell.expect_exact("Message from " + ADMIN + ": hello")


@pytest.mark.parametrize("begun", [r"\033]0;half a title", r"\033[31", r"\303"])
def test_notice_after_a_sequence_that_never_ends(proxy, client, begun):
    """A program stopped within a sequence: the notice comes all the same, on a sane terminal."""
    shell = client.terminal(r"printf 'shown%s'; read x" % begun)
    shell.expect("shown")
    proxy.do("session", "message", proxy.sessions()[0]["id"], "hello there")
    shell.expect("hello there", timeout=30)
    if begun != r"\303":
        assert "\x18" in shell.before
    end(proxy)
    shell.expect(harness.pexpect.EOF)


def test_end_within_a_sequence(proxy, client):
    """The last words are no part of a title or a colour that was begun."""
    shell = client.terminal(r"printf 'begin\033]0;a title without an e'; read x")
    shell.expect_exact("title without an e")
    end(proxy)
    shell.expect(harness.pexpect.EOF)
    shown = harness.screen("\x1b]0;a title without an e" + shell.before)
    assert "You have been disconnected: ended by " + ADMIN in shown


def test_end_with_a_delay_announces(proxy, client):
    shell = client.shell()
    row = proxy.sessions()[0]
    proxy.do("session", "end", row["id"], "-y", "--in", "2s", "--reason", "maintenance")
    cause = "ended by %s (maintenance)" % ADMIN
    shell.expect_exact("You will be disconnected in 2 seconds: " + cause)
    shell.expect_exact("You have been disconnected: " + cause)


class Tmux:
    """A client inside tmux: what a person sees."""
    def __init__(self, directory, argv):
        self.socket = os.path.join(directory, harness.random_name() + ".tmux")
        self.do("new-session", "-d", "-x", "80", "-y", "24",
                shlex.join(argv) + "; echo STATUS $?; exec cat")

    def do(self, *args):
        return subprocess.run(["tmux", "-f", "/dev/null", "-S", self.socket, *args],
                              capture_output=True, text=True, check=True,
                              env=dict(os.environ, LANG="C.UTF-8", TERM="xterm-256color")).stdout

    def keys(self, *keys):
        self.do("send-keys", *keys)

    def screen(self):
        return self.do("capture-pane", "-p")

    def wait(self, text):
        return wait_until(lambda: text in self.screen() and self.screen(), text)

    def close(self):
        self.do("kill-server")


@pytest.fixture
def tmux(scratch, request):
    made = []

    def make(argv):
        made.append(Tmux(scratch, argv))
        return made[-1]

    yield make
    for t in made:
        t.close()


def rest(screen):
    return screen.split("\n")[:-2]


def test_vim_is_not_wrecked(proxy, client, tmux, scratch):
    path = os.path.join(scratch, "text-for-vim")
    with open(path, "w") as f:
        f.writelines("line %d of the text\n" % n for n in range(1, 100))
    # the ruler stands on the last line, where the notice goes, and no message of vim's own
    t = tmux(client.ssh_argv("vim -u NONE -i NONE -N --noplugin "
                             "--cmd 'set shortmess+=F ruler laststatus=1' " + path,
                             flags=("-tt",)))
    t.wait("line 20 of the text")
    t.keys("3", "j")
    wait_until(lambda: "4,1" in t.screen(), "the cursor moved")
    before = t.screen()
    proxy.do("session", "message", "--all", "reboot at 18:00")
    with_notice = t.wait("reboot at 18:00")
    assert rest(with_notice) == rest(before)  # only the last line changed
    t.keys("l")
    wait_until(lambda: "reboot" not in t.screen(), "the notice is gone after a key")
    t.keys("h")
    wait_until(lambda: t.screen() == before, "the screen is as before:\n" + before)


def test_top_is_not_wrecked(proxy, client, tmux):
    t = tmux(client.ssh_argv("top -d 600", flags=("-tt",)))
    t.wait("PID USER")
    lines = t.screen().split("\n")
    head = [i for i, line in enumerate(lines) if "PID USER" in line]
    proxy.do("session", "message", "--all", "reboot at 18:00")
    t.wait("reboot at 18:00")
    t.keys(" ")
    wait_until(lambda: "reboot" not in t.screen(), "the notice is gone after a key")
    after = t.screen().split("\n")
    assert [i for i, line in enumerate(after) if "PID USER" in line] == head


def test_several_notices_over_vim(proxy, client, tmux, scratch):
    """The newest stands there, and one key brings everything back."""
    path = os.path.join(scratch, "more-text-for-vim")
    with open(path, "w") as f:
        f.writelines("line %d of the text\n" % n for n in range(1, 100))
    t = tmux(client.ssh_argv("vim -u NONE -i NONE -N --noplugin "
                             "--cmd 'set shortmess+=F ruler laststatus=1' " + path,
                             flags=("-tt",)))
    t.wait("line 20 of the text")
    wait_until(lambda: "1,1" in t.screen(), "the ruler")
    before = t.screen()
    for text in ("first", "second", "third"):
        proxy.do("session", "message", "--all", text + " message " + "long " * 40)
        with_notice = t.wait(text + " message")
        assert rest(with_notice) == rest(before)
    t.keys("l")
    wait_until(lambda: "message" not in t.screen(), "the notice is gone after a key")
    t.keys("h")
    wait_until(lambda: t.screen() == before, "the screen is as before:\n" + before)
    # and vim still knows its size: nothing of the nudge stays
    t.keys(":", "set lines?", "Enter")
    t.wait("lines=24")


def test_notice_after_a_resize(proxy, client, tmux):
    """The last line is that of the window as it is now."""
    t = tmux(client.ssh_argv("less /usr/share/common-licenses/GPL-3", flags=("-tt",)))
    t.wait("/usr/share/common-licenses/GPL-3")
    t.do("resize-window", "-x", "60", "-y", "30")
    wait_until(lambda: len(t.screen().split("\n")) == 31 and t.screen().split("\n")[29].strip(),
               "less drew its prompt on the new last line")
    proxy.do("session", "message", "--all", "hello you")
    screen = t.wait("hello you").split("\n")
    assert "hello you" in screen[29]


def test_terminal_is_left_sane(proxy, client, tmux):
    t = tmux(client.ssh_argv("vim -u NONE -i NONE -N -c 'set mouse=a'", flags=("-tt",)))
    t.wait("VIM - Vi IMproved")
    end(proxy, "--reason", "enough")
    screen = t.wait("STATUS 255")
    assert "You have been disconnected: ended by " + ADMIN + " (enough)" in screen
    assert "VIM - Vi IMproved" not in screen  # the alternate screen was left
    flags = t.do("display-message", "-p", "#{alternate_on} #{mouse_any_flag} #{cursor_flag} "
                 "#{keypad_cursor_flag}")
    assert flags.split() == ["0", "0", "1", "0"]


def test_shell_on_the_alternate_screen_keeps_working(proxy, client, tmux):
    t = tmux(client.ssh_argv("less /usr/share/common-licenses/GPL-3", flags=("-tt",)))
    t.wait("/usr/share/common-licenses/GPL-3")
    proxy.do("session", "message", "--all", "hello you")
    t.wait("hello you")
    t.keys("q")
    t.wait("STATUS 0")
