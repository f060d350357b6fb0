"""A login name without a target: the menu on a terminal, one line of help without one."""
import os
import re

import pexpect
import pytest

import harness
import peers
from harness import screen


@pytest.fixture
def menu(proxy, target, keys):
    """Opens the menu: alice may reach web01, web02 and dead; secret is not hers."""
    proxy.add_target(target, "web02").grant("alice", "web02")
    proxy.add_target(target, "secret")
    proxy.do("target", "add", "dead", "--type", "ssh", "--address",
             "127.0.0.1:%d" % harness.free_port(), "--auth", "none", "--accept-new")
    proxy.grant("alice", "dead")
    made = []

    def open_menu(**kw):
        t = harness.Client(proxy, target=None, key=keys.make("alice")).terminal(**kw)
        t.expect("of 3\\] > $")
        made.append(t)
        return t

    open_menu.key = keys.make("alice")
    yield open_menu
    for t in made:
        t.close(force=True)


def answer(t, n):
    """The shell at the target answers."""
    t.sendline("echo at-$((%d*2))" % n)
    t.expect("at-%d\r\n" % (n * 2))


def test_what_it_shows(menu, proxy, target):
    t = menu(rows=24, cols=80)
    lines = screen(t.before + t.after)
    assert "Targets of alice" in lines[0]
    text = "\n".join(lines)
    assert re.search(r"> +1\) dead .*\n +2\) web01 .*\n +3\) web02 ", text), text
    assert "secret" not in text and target.account in text and " never " in text and "TYPE" in lines[1]
    assert proxy.sessions() == []  # looking is no session


def test_filter_and_enter(menu, proxy):
    t = menu()
    t.send("WEB02")
    t.expect("> WEB02$")
    lines = "\n".join(screen(t.before + t.after))
    assert "web02" in lines and "web01" not in lines
    t.send("\r")
    answer(t, 21)
    assert [s["resourceName"] for s in proxy.wait_sessions(1, "active")] == ["web02"]
    t.sendline("exit 9")
    t.expect("closed")
    t.close()
    assert t.exitstatus == 9
    row = proxy.wait_history(1)[0]
    assert (row["resourceName"], row["endReason"], row["recording"]) == ("web02", "user-exit", "ok")


def test_arrow_and_number(menu, proxy):
    t = menu()
    t.send("\x1b[B")
    t.expect(r"> +2\) web01")
    t.send("\x1b[B\x1b[A\r")
    answer(t, 4)
    assert proxy.wait_sessions(1, "active")[0]["resourceName"] == "web01"
    t = menu()
    t.send("3\r")
    answer(t, 5)
    assert {s["resourceName"] for s in proxy.wait_sessions(2, "active")} == {"web01", "web02"}


@pytest.mark.parametrize("key", ["q", "\x03", "\x04"])
def test_quit(menu, proxy, key):
    t = menu()
    t.send(key)
    t.expect("closed")
    t.close()
    assert t.exitstatus == 0
    harness.wait_until(lambda: not proxy.relays(), "the relay is gone")
    assert proxy.sessions("--all") == []


def test_hang_up(menu, proxy):
    t = menu()
    t.close(force=True)
    harness.wait_until(lambda: not proxy.relays(), "the relay is gone")
    assert proxy.sessions("--all") == []


def test_target_down_then_another(menu, proxy):
    t = menu()
    t.send("dead\r")
    t.expect("dead cannot be reached")
    t.expect("> dead$")
    t.send("\x15web01\r")
    answer(t, 6)
    t.sendline("exit")
    t.expect("closed")
    t.close()
    rows = proxy.wait_history(2)
    assert [(s["resourceName"], s["endReason"]) for s in rows] == [
        ("dead", "target-unreachable"), ("web01", "user-exit")]


def test_login_refused_then_another(menu, proxy, target):
    """The target refuses the login: the sentence, and the menu again, on the same connection."""
    proxy.do("target", "add", "refuser", "--type", "ssh", "--address", target.address, "--account",
             target.account, "--auth", "password", "--secret-stdin", "--host-key",
             target.host_key_line, input="wrong\n")
    proxy.do("target", "add", "changed", "--type", "ssh", "--address", target.address, "--auth",
             "none", "--host-key", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOf1Ua97u02zWZDMXrm9VZ52"
             "JMFpBkkyzzmK++tOQqZd")
    proxy.grant("alice", "refuser").grant("alice", "changed")
    t = harness.Client(proxy, target=None, key=menu.key).terminal()
    t.expect("of 5\\] > $")
    relay = proxy.relays()
    for name, words in (("refuser", "refused the login"), ("changed", "has changed: expected"),
                        ("refuser", "refused the login")):
        t.send("\x15%s\r" % name)
        t.expect(words)
        t.expect("> %s$" % name)
        assert proxy.wait_sessions(0) and proxy.relays() == relay
    t.send("\x15web01\r")
    answer(t, 12)
    assert proxy.relays() == relay
    row = proxy.wait_sessions(1, "active")[0]
    assert (row["resourceName"], row["recording"]) == ("web01", "ok")
    t.sendline("exit 3")
    t.expect("closed")
    t.close()
    assert t.exitstatus == 3
    rows = proxy.wait_history(4)
    assert [(s["resourceName"], s["endReason"]) for s in rows] == [
        ("refuser", "target-unreachable"), ("changed", "target-unreachable"),
        ("refuser", "target-unreachable"), ("web01", "user-exit")]
    assert "refused the login" in rows[0]["endText"]


def test_back_at_the_menu_the_daemon_restarts(menu, proxy, target):
    """The connection of a user who is back at the menu is adopted as one without a session."""
    proxy.do("target", "add", "refuser", "--type", "ssh", "--address", target.address, "--account",
             target.account, "--auth", "password", "--secret-stdin", "--host-key",
             target.host_key_line, input="wrong\n")
    proxy.grant("alice", "refuser")
    t = harness.Client(proxy, target=None, key=menu.key).terminal()
    t.expect("of 4\\] > $")
    t.send("refuser\r")
    t.expect("refused the login.*> refuser$")
    proxy.kill()
    proxy.start()
    harness.wait_until(lambda: proxy.json("status")["adopted"] == 1, "it is adopted")
    t.send("\x15web01\r")
    answer(t, 13)
    t.close(force=True)


def test_last_used_first(menu, proxy, keys):
    assert harness.Client(proxy, target="web02", key=keys.make("alice")).ssh("true").returncode == 0
    t = menu()
    text = "\n".join(screen(t.before + t.after))
    assert re.search(r"> +1\) web02 .*just now +ssh\n +2\) dead .* never ", text), text
    t.send("\r")
    answer(t, 14)


@pytest.mark.parametrize("cols,rows", [(80, 24), (40, 10), (20, 6)])
def test_screens(menu, cols, rows):
    """Nothing wraps or scrolls; the keys stand on the last line, the cursor behind the prompt."""
    import pyte
    t = menu(cols=cols, rows=rows)
    s = pyte.Screen(cols, rows)
    pyte.Stream(s).feed(t.before + t.after)
    assert s.display[0].startswith("Targets of alice"[:cols - 1])
    assert "^C" in s.display[-1] and s.display[-2].startswith("[3 of 3] >")
    assert s.cursor.y == rows - 2
    t.setwinsize(rows + 4, cols + 11)
    t.expect("of 3\\] > $")
    s.resize(rows + 4, cols + 11)
    pyte.Stream(s).feed(t.before + t.after)
    assert "^C" in s.display[-1] and s.display[-2].startswith("[3 of 3] >")


def test_names_with_a_q_and_keys(menu, proxy, target):
    proxy.add_target(target, "quebec").grant("alice", "quebec")
    t = harness.Client(proxy, target=None, key=menu.key).terminal()
    t.expect("of 4\\] > $")
    t.send("q")
    t.expect("1 of 4\\] > q$")
    t.send("\x15\x1b[F")
    t.expect(r">   4\) web02")
    t.send("\x1b[H")
    t.expect(r">   1\) dead")
    t.send("w\x1b[B\r")  # the second that begins with it
    answer(t, 15)
    assert proxy.wait_sessions(1, "active")[0]["resourceName"] == "web02"


def test_a_terminal_without_a_cursor(menu, proxy, keys, monkeypatch):
    me = harness.Client(proxy, target=None, key=keys.make("alice"))
    argv = me.ssh_argv(flags=("-tt",))
    t = pexpect.spawn(argv[0], argv[1:], env=dict(os.environ, TERM="dumb"), encoding="utf-8",
                      timeout=30)
    t.expect(r"1\) dead.*2\) web01.*3\) web02.*A number or a part.*\[3 of 3\] > $")
    assert "\x1b" not in t.before + t.after
    t.send("web\r")
    t.expect(r"2\) web01.*3\) web02.*\[2 of 3\] > web$")
    t.send("\x15")
    t.send("2\r")
    t.expect("Connecting to web01")
    answer(t, 16)
    assert proxy.wait_sessions(1, "active")[0]["resourceName"] == "web01"
    t.close(force=True)


def test_nothing_matches(menu, proxy):
    t = menu()
    t.send("zzz")
    t.expect("No target matches")
    t.send("\r\r")
    t.send("\x7f\x7f\x7f")
    t.expect(r"\[3 of 3\] > $")
    assert proxy.sessions("--all") == []


def test_nothing_to_reach(make_proxy, target, keys):
    p = make_proxy().add_target(target)
    p.add_user("alice", key=keys.make("alice"))
    t = harness.Client(p, target=None, key=keys.make("alice")).terminal()
    t.expect("There is no target that you may reach")
    t.send("\r")
    t.send("q")
    t.expect("closed")
    t.close()
    assert t.exitstatus == 0 and p.sessions("--all") == []


def test_typed_ahead(menu):
    """What is typed after Enter waits for the target."""
    t = menu()
    t.send("web01\recho ahead-$((3*3))\r")
    t.expect("ahead-9")


def test_size_is_the_newest(menu):
    t = menu(rows=24, cols=80)
    t.setwinsize(44, 101)
    t.expect("of 3\\] > $")
    t.send("web01\r")
    t.sendline("stty size; echo [$TERM]")
    t.expect("44 101\r\n\\[xterm-256color\\]")


def test_many_targets_on_a_small_screen(proxy, target, keys):
    for n in range(60):
        proxy.add_target(target, "host%03d" % n)
    proxy.grant("alice", "*")
    t = harness.Client(proxy, target=None, key=keys.make("alice")).terminal(rows=10, cols=40)
    t.expect(r"page 1/11.*> $")
    lines = screen(t.before + t.after, 40, 10)
    assert lines[2].startswith("> ") and "host000" in "\n".join(lines), lines
    t.send("\x1b[6~")
    t.expect("page 2/11")
    t.send("host059\r")
    answer(t, 8)
    t.close(force=True)


def test_another_window_of_the_same_connection(menu, proxy, keys, tmp_path):
    """A second channel waits until the target is chosen in the first; afterwards they just work."""
    me = harness.Client(proxy, target=None, key=keys.make("alice"))
    control = str(tmp_path / "mux")
    t = me.terminal(flags=("-tt", "-M", "-S", control))
    t.expect("of 3\\] > $")
    mux = ("-S", control, "-o", "ControlMaster=no")
    waiting = me.popen("echo waited", flags=mux)
    t.send("web0")
    t.expect("> web0$")
    assert waiting.poll() is None
    t.send("1\r")
    answer(t, 7)
    out, _ = waiting.communicate(timeout=20)
    assert (waiting.returncode, out) == (0, b"waited\n")
    r = me.ssh("echo in", flags=mux)
    assert (r.returncode, r.stdout) == (0, "in\n")
    assert len(proxy.sessions()) == 1
    t.close(force=True)


# ---- without a terminal

@pytest.mark.parametrize("command,flags", [((), ("-T",)), (("ls",), ()), (("ls",), ("-tt",)),
                                           (("sftp",), ("-s",))])
def test_help_without_a_terminal(proxy, keys, command, flags):
    r = harness.Client(proxy, target=None, key=keys.make("alice")).ssh(*command, flags=flags)
    text = peers.told(r) if "-tt" not in flags else r.stdout + peers.told(r)
    assert r.returncode == (2 if command == ("ls",) else 1)  # no word of the user's own door
    assert "ssh USER+TARGET@HOST" in text
    if "-tt" not in flags:
        assert r.stdout == "" and len(text.splitlines()) == 1
    harness.wait_until(lambda: not proxy.relays(), "the relay is gone")
    assert proxy.sessions("--all") == []


def test_copying_without_a_target(proxy, keys, tmp_path):
    me = harness.Client(proxy, target=None, key=keys.make("alice"))
    (tmp_path / "f").write_text("x")
    for flag in ("-q", "-O"):
        r = me.scp(flag, tmp_path / "f", me.remote(str(tmp_path / "g")))
        assert r.returncode != 0 and "USER+TARGET@HOST" in r.stderr, r.stderr
    r = me.sftp("ls\n")
    assert r.returncode != 0 and r.stdout.replace("sftp> ls\n", "") == ""
    assert not os.path.exists(tmp_path / "g")
    harness.wait_until(lambda: not proxy.relays(), "the relays are gone")
    assert proxy.sessions("--all") == []
