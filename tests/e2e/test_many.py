"""Many sessions at once: listing, ending one, ending all. SALLYPORT_TEST_MANY says how many."""
import concurrent.futures
import contextlib
import os
import time

import pytest

import compat
import harness
from harness import wait_until

COUNT = int(os.environ.get("SALLYPORT_TEST_MANY", "50" if harness.SANITIZED else "200"))
WIDTH = 16


@pytest.fixture
def many(make_proxy, keys, tmp_path):
    """(proxy, clients): COUNT idle terminals of ten users, less a terminal."""
    sshd = harness.Sshd(str(tmp_path), keys, name="many", extra="LoginGraceTime 0").start()
    p = make_proxy({"limits": {"sessions_per_user": str(COUNT), "max_sessions": str(2 * COUNT),
                               "max_unauthenticated": "1000",
                               "max_unauthenticated_per_source": "1000"}})
    p.add_target(sshd)
    for n in range(10):
        p.add_user("user%d" % n, key=keys.make("alice")).grant("user%d" % n)
    clients = []

    def begin(n):
        c = harness.Client(p, "user%d" % (n % 10), key=keys.make("alice"))
        child = c.popen("echo begun; exec sleep 100000")
        clients.append(child)
        assert child.stdout.readline() == b"begun\n", child.stderr.read()

    try:
        with concurrent.futures.ThreadPoolExecutor(WIDTH) as pool:
            list(pool.map(begin, range(COUNT)))
        yield p, clients
    finally:
        for child in clients:
            child.kill()
        for child in clients:
            with contextlib.suppress(Exception):
                child.communicate(timeout=20)
        sshd.stop()


def took(what, *args, **kw):
    start = time.monotonic()
    result = what(*args, **kw)
    return time.monotonic() - start, result


def test_end_all(many):
    p, clients = many
    relays = p.relays()
    assert len(relays) == COUNT
    listing, rows = took(p.sessions)
    assert len(rows) == COUNT and {s["status"] for s in rows} == {"active"}
    assert {s["user"] for s in rows} == {"user%d" % n for n in range(10)}
    memory = [compat.private_kb(pid) for pid in relays]
    # one, while the others go on
    first = rows[0]["id"]
    one, _ = took(lambda: (p.do("session", "end", first, "--yes"), p.wait_sessions(COUNT - 1)))
    r = p.ctl("session", "end", first, "--yes")
    assert r.returncode == 3 and "already-ended" in r.stdout, r.stdout + r.stderr
    # all of them
    command, _ = took(p.do, "session", "end", "--all", "--yes", "--reason", "power cut")
    both, _ = took(lambda: (p.wait_sessions(0), wait_until(lambda: not p.relays(), "no relays")))
    for child in clients:
        _, err = child.communicate(timeout=30)
        assert child.returncode == 255 and b"You have been disconnected" in err, err
    ended = p.history("--limit", "100000")
    assert len(ended) == COUNT
    assert {(s["endReason"], s["endedBy"]) for s in ended} == {("admin-ended", harness.ADMIN)}
    assert sum("power cut" in s["endText"] for s in ended) == COUNT - 1
    print("%d sessions: list %.0f ms, end one %.0f ms, end --all %.0f ms, all gone %.0f ms later, "
          "relay %d KiB private on average, broker %d KiB" %
          (COUNT, 1000 * listing, 1000 * one, 1000 * command, 1000 * both,
           sum(memory) / len(memory), compat.private_kb(p.process.pid)))
    if not harness.SANITIZED:
        assert listing < 1 and both < 10
        assert sum(memory) / len(memory) < 1024
