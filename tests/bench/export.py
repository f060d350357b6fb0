"""
How fast a recorded desktop becomes a video: seconds of the recording for each second of the export,
of a busy desktop of 1024x768 (rdp.Scroll), in the cheapest and the dearest way to draw it.
"""
import os
import resource
import shutil
import tempfile
import time

import harness
import rdp
import rdp_peers as peers
from figures import report, skipped
from harness import wait_until

FIGURES = ("rdp-export",)
FACTOR = 5  # times as fast as the session was, at least


class Bench:
    def __init__(self, quick):
        self.quick = quick
        self.dir = tempfile.mkdtemp(prefix="sallyport-bench-export-")
        os.chmod(self.dir, 0o755)
        port = harness.free_port()
        self.proxy = harness.Proxy(self.dir, {
            "proxy": {"log_level": "warn"},
            "rdp": {"enabled": "yes", "listen": "127.0.0.1:%d" % port}}).start()
        self.proxy.rdp_port = port
        self.proxy.add_user("alice", password=rdp.PASSWORD)
        self.screen = peers.Display(self.dir, "1024x768")

    def close(self):
        self.screen.stop()
        self.proxy.clean_up()
        shutil.rmtree(self.dir, ignore_errors=True)

    def record(self, server, name, options):
        """The id of a recording in which the desktop scrolls all the time."""
        self.proxy.do("target", "add", name, "--type", "rdp", "--address", server.address,
                      "--account", "bob", "--auth", "passthrough", "--accept-new")
        self.proxy.grant("alice", name)
        scroll = rdp.Scroll(self.dir, server.display, name)
        client = peers.xfreerdp(self.dir, self.screen, self.proxy.rdp_port, "alice+" + name,
                                rdp.PASSWORD, *options, size=(1024, 768))
        try:
            self.proxy.wait_sessions(1, "active")
            time.sleep(6 if self.quick else 20)
        finally:
            client.stop()
            scroll.finish()
        wait_until(lambda: self.proxy.sessions() == [], "the session is over")
        return self.proxy.json("recording", "ls")[0]["id"]

    def export(self, recording, name):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        out = self.proxy.json("recording", "export", recording, self.dir + "/%s.mp4" % name)
        took, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        assert out["pictures"] > 5 * out["seconds"], "the desktop was not busy: %s" % out
        report("export of a busy desktop, " + name, out["seconds"] / took, "x", FACTOR,
               at_most=False, note="%.1f x of one core; %d pictures in %.0f s, %.1f MB" % (
                   out["seconds"] / spent, out["pictures"], out["seconds"],
                   os.path.getsize(out["file"]) / 1e6))

    def rdp_export(self):
        if not os.path.exists(os.path.join(harness.BUILD, "sallyport-export")):
            skipped("export of a busy desktop", "sallyport-export was not built")
            return
        for make, name, options in ((peers.Xrdp, "bitmaps", ["-gfx"]),
                                    (peers.Shadow, "avc444", ["/gfx:AVC444"])):
            server = make(self.dir, name, "1024x768")
            try:
                server.start()
                self.export(self.record(server, name, options), name)
            finally:
                server.finish()
