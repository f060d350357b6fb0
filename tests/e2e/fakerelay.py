"""
A relay that was taken over: a process of the broker's user that speaks the link (docs/link.md) and
says what no honest relay would. Only what the tests need is encoded; the rest of a message is read
as bytes.
"""
import contextlib
import os
import pwd
import signal
import socket
import struct

from harness import wait_until

VERSION = 2
(HELLO, AUTH_PASSWORD, AUTH_KEY, ROUTE, TARGETS, HOST_KEY, READY, RECORD_OPEN, CHANNEL, FRAME,
 RECORDING_STATE, RESUMED, EVENT, CLOSED) = range(1, 15)
(WELCOME, AUTH_RESULT, ROUTE_RESULT, TARGET_LIST, TARGET_ROW, HOST_KEY_RESULT, RECORDING, NOTICE,
 POLICY, END, CLOSED_ACK) = range(32, 43)
DOOR, BACK = 27, 28
DOOR_RESULT, DOOR_EXIT, BACK_RESULT = 57, 58, 59
LOGIN, CHOOSING, SESSION, ENDED = range(4)
AUTH_OK, AUTH_DISCONNECT = 2, 3


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack(">H", len(data)) + data


def door_body(channel, command, change=0, has_pty=0, cols=80, rows=24):
    return (struct.pack(">IBBHH", channel, change, has_pty, cols, rows) + text("xterm") +
            text("192.0.2.1:22") + text(command))


class Process:
    """A child that makes the sockets, so that the kernel says its number and its user, and sleeps;
    the test holds the sockets."""
    def __init__(self, proxy):
        self.proxy = proxy
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        uid = None
        if os.geteuid() == 0:
            uid = pwd.getpwnam(proxy.as_user or "sallyport").pw_uid
        self.pid = os.fork()
        if self.pid == 0:
            with contextlib.suppress(BaseException):
                ours.close()
                self.child(theirs, uid)
            os._exit(1)
        theirs.close()
        self.control = ours
        self.control.settimeout(30)

    def child(self, control, uid):
        if uid is not None:
            os.setgroups([])
            os.setresuid(uid, uid, uid)
        os.chdir(self.proxy.run_dir)
        while True:
            what = control.recv(16)
            if not what:
                os._exit(0)
            s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            if what == b"listen":
                path = "relay/%d.sock" % os.getpid()
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                s.bind(path)
                s.listen(4)
            else:
                s.connect("relay.sock")
            socket.send_fds(control, [b"."], [s.fileno()])
            s.close()

    def ask(self, what):
        self.control.send(what)
        _, fds, _, _ = socket.recv_fds(self.control, 16, 1)
        s = socket.socket(fileno=fds[0])
        s.settimeout(30)
        return s

    def is_there(self):
        pid, _ = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self.pid = None
        return self.pid is not None

    def finish(self):
        if self.pid and self.is_there():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.control.close()


class Relay:
    """One link of a process."""
    def __init__(self, process, link=None, address="192.0.2.7"):
        self.process = process
        self.link = link or process.ask(b"connect")
        self.address = address
        self.ticket = b""
        self.session = 0
        self.fds = []

    def say(self, kind, body=b"", fds=()):
        data = struct.pack(">BB", VERSION, kind) + body
        if fds:
            socket.send_fds(self.link, [data], list(fds))
        else:
            self.link.send(data)

    def hear(self, *kinds):
        """The next message of one of these kinds; what is between is thrown away."""
        while True:
            data, fds, _, _ = socket.recv_fds(self.link, 65536, 8)
            self.fds += fds
            if not data:
                raise EOFError
            if data[1] in kinds:
                return data[2:]

    def is_dropped(self):
        try:
            while self.link.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True

    def hello(self, phase=LOGIN, user="", session=0, ticket=b"", fds=()):
        self.say(HELLO, struct.pack(">BBI", 0, phase, 1) + text(self.address) +
                 struct.pack(">H", 7) + text("fake") + text(user) +
                 struct.pack(">IQ", 0, session) + text(ticket), fds)
        return self

    def welcomed(self):
        self.hear(WELCOME)
        return self

    def login(self, user, blob, is_signed=1):
        self.say(AUTH_KEY, text(user) + text("fake") + bytes([is_signed]) + text("ssh-ed25519") +
                 text(blob))
        body = self.hear(AUTH_RESULT)
        at = 1
        for _ in range(2):  # user, text
            at += 2 + struct.unpack_from(">H", body, at)[0]
        self.ticket = body[at + 2:]
        return body[0]

    def route(self, target, account=""):
        """True when it was given; the socket and the page are in fds."""
        self.say(ROUTE, text(account) + text(target))
        body = self.hear(ROUTE_RESULT)
        if not body[0]:
            return False
        at = 2 + 2 + struct.unpack_from(">H", body, 2)[0]
        self.session = struct.unpack_from(">Q", body, at)[0]
        at += 16
        for _ in range(3):  # account, target, address
            at += 2 + struct.unpack_from(">H", body, at)[0]
        at += 2
        for _ in range(3):  # host key type, host key, secret
            at += 2 + struct.unpack_from(">H", body, at)[0]
        n = struct.unpack_from(">H", body, at)[0]
        self.ticket = body[at + 2:at + 2 + n]
        return True

    def door(self, channel, command, **kw):
        """Ask for a command of the user's own: (was it started, exit status if not, the text)."""
        self.say(DOOR, door_body(channel, command, **kw))
        body = self.hear(DOOR_RESULT)
        _, is_ok, code, n = struct.unpack_from(">IBBH", body)
        return bool(is_ok), code, body[8:8 + n].decode()

    def door_output(self):
        """What the command that was started last wrote to its standard output."""
        out = b""
        while True:
            with contextlib.suppress(BlockingIOError):
                more = os.read(self.fds[-2], 65536)
                if not more:
                    return out
                out += more

    def door_status(self, channel):
        body = self.hear(DOOR_EXIT)
        assert struct.unpack_from(">I", body)[0] == channel
        return body[4]

    def record_open(self, channel):
        self.say(RECORD_OPEN, struct.pack(">IBBHH", channel, 0, 1, 80, 24) + text("") + text(""))

    def channel(self, channel, change):
        self.say(CHANNEL, struct.pack(">IBBB", channel, change, 0, 1) + text("") +
                 struct.pack(">QQI", 0, 0, 0) + text(""))

    def event(self, kind, words):
        self.say(EVENT, text(kind) + text(words))

    def closed(self, reason, author, words=""):
        self.say(CLOSED, bytes([reason]) + text(author) + text(words) + struct.pack(">QQ", 0, 0))

    def close(self):
        self.link.close()
        for fd in self.fds:
            os.close(fd)
        self.fds = []


def gone(process):
    wait_until(lambda: not process.is_there(), "the broker has ended the process")
