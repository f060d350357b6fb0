"""Figures with limits and verdicts, and what processes have spent: shared by the benchmark's files."""
import contextlib
import os
import threading

TICK = os.sysconf("SC_CLK_TCK")
rows = []


def report(name, value, unit="", limit=None, at_most=True, note=""):
    ok = limit is None or (value <= limit if at_most else value >= limit)
    rows.append(ok)
    bound = "" if limit is None else "%s %g" % ("<=" if at_most else ">=", limit)
    print("%-46s %9.3g %-8s %-9s %-6s %s" % (name, value, unit, bound,
                                             "" if limit is None else "ok" if ok else "MISSED",
                                             note), flush=True)


def skipped(name, why):
    print("%-46s %9s %s" % (name, "skipped:", why), flush=True)


def cpu(pid):
    """User + system seconds of a process and of its reaped children."""
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def run_time(pid):
    """As cpu(), of all threads that live, in nanoseconds instead of ticks."""
    spent = 0
    with contextlib.suppress(OSError):
        for thread in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/schedstat" % (pid, thread)) as f:
                spent += int(f.read().split()[0])
    return spent / 1e9


def cpu_with_reaped(pid):
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return sum(int(x) for x in fields[11:15]) / TICK


def private_memory(pid):
    """MiB of a process that it shares with no other."""
    with open("/proc/%d/smaps_rollup" % pid) as f:
        return sum(int(line.split()[1]) for line in f
                   if line.startswith(("Private_Clean", "Private_Dirty"))) / 1024


@contextlib.contextmanager
def highest(read):
    """The highest value of read() so far, in a list: a relay is gone when its session is."""
    peak, done = [read()], threading.Event()

    def watch():
        while not done.wait(0.02):
            peak[0] = max(peak[0], read())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
