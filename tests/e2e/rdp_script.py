"""
RDP by hand: a client and a target made of Python, good enough to walk to any step of a connection
and then to do what no real program does. Every PDU is a function that gives bytes; RawClient talks
to the proxy, RawTarget is a server that the proxy connects to and that follows a script, one thread
a connection. Nothing is drawn.
"""
import base64
import contextlib
import os
import socket
import ssl
import struct
import subprocess
import threading

from harness import free_port, wait_until

PATIENCE = 20
TLS, HYBRID = 1, 2
IO, FIRST_CHANNEL = 1003, 1004
CHUNK_FIRST, CHUNK_LAST, CHUNK_PACKED = 1, 2, 0x200000

# ---- framing


def tpkt(body):
    return struct.pack(">BBH", 3, 0, len(body) + 4) + body


def x224(body):
    return tpkt(b"\x02\xf0\x80" + body)


def x224_request(protocols=TLS, token=b""):
    body = b"\xe0\0\0\0\0\0" + token + struct.pack("<BBHI", 1, 0, 8, protocols)
    return tpkt(bytes([len(body)]) + body)


def x224_confirm(protocol=TLS, kind=2, flags=1):
    body = b"\xd0\0\0\x12\x34\0" + struct.pack("<BBHI", kind, flags, 8, protocol)
    return tpkt(bytes([len(body)]) + body)


def ber_len(n):
    return bytes([n]) if n < 0x80 else struct.pack(">BH", 0x82, n)


def ber(tag, content):
    return tag + ber_len(len(content)) + content


def per_len(n):
    return bytes([n]) if n < 0x80 else struct.pack(">H", 0x8000 | n)


# ---- MCS and GCC

PARAMETERS = b"".join(ber(b"\x02", bytes([v])) for v in (34, 2, 0, 1, 0, 1)) + \
    ber(b"\x02", b"\xff\xf8") + ber(b"\x02", b"\x02")
T124 = b"\0\5\0\x14\x7c\0\1"


def block(kind, body, length=None):
    return struct.pack("<HH", kind, len(body) + 4 if length is None else length) + body


def cs_core(name="script", width=800, height=600):
    return block(0xc001, struct.pack("<IHHHHII", 0x80004, width, height, 0xca01, 0xaa03, 0x409, 2600) +
                 name.encode("utf-16-le")[:30].ljust(32, b"\0") + struct.pack("<III", 4, 0, 12) +
                 b"\0" * 64 + struct.pack("<HHIHHH", 0xca01, 1, 0, 24, 7, 1) + b"\0" * 64 +
                 struct.pack("<BBI", 0, 0, TLS))


def cs_net(names, count=None):
    """names: bytes of 8, or texts."""
    names = [n if isinstance(n, bytes) else n.encode().ljust(8, b"\0") for n in names]
    return block(0xc003, struct.pack("<I", len(names) if count is None else count) +
                 b"".join(n + struct.pack("<I", 0x80800000) for n in names))


def cs_blocks(names=("rdpdr", "drdynvc"), core=None):
    return (core or cs_core()) + block(0xc004, struct.pack("<II", 0x0d, 0)) + \
        block(0xc002, struct.pack("<II", 0, 0)) + cs_net(names)


def connect_initial(blocks):
    gcc = T124 + per_len(len(blocks) + 14) + b"\0\x08\0\x10\0\1\xc0\0Duca" + per_len(len(blocks)) + blocks
    body = ber(b"\x04", b"\1") + ber(b"\x04", b"\1") + ber(b"\x01", b"\xff") + \
        ber(b"\x30", PARAMETERS) * 3 + ber(b"\x04", gcc)
    return x224(ber(b"\x7f\x65", body))


def connect_response(channels, io=IO, requested=TLS, method=0, result=0):
    ids = [io, len(channels), *channels] + [0] * (len(channels) % 2)
    blocks = block(0x0c01, struct.pack("<III", 0x80004, requested, 0)) + \
        block(0x0c02, struct.pack("<II", method, method)) + \
        block(0x0c03, struct.pack("<%dH" % len(ids), *ids))
    gcc = T124 + per_len(len(blocks) + 12) + b"\x14\x76\x0a\1\1\0\1\xc0\0McDn" + per_len(len(blocks)) + \
        blocks
    body = ber(b"\x0a", bytes([result])) + ber(b"\x02", b"\0") + ber(b"\x30", PARAMETERS) + \
        ber(b"\x04", gcc)
    return x224(ber(b"\x7f\x66", body))


ERECT = x224(b"\x04\1\0\1\0")
ATTACH = x224(b"\x28")
ULTIMATUM = x224(b"\x21\x80")


def attach_confirm(user, result=0):
    return x224(struct.pack(">BBH", 0x2e, result, user - 1001))


def join_request(user, channel):
    return x224(struct.pack(">BHH", 0x38, user - 1001, channel))


def join_confirm(user, channel, result=0):
    return x224(struct.pack(">BBHHH", 0x3e, result, user - 1001, channel, channel))


def data(kind, user, channel, body):
    """kind: 0x64 a request (from the client), 0x68 an indication."""
    return x224(struct.pack(">BHHB", kind, user - 1001, channel, 0x70) +
                struct.pack(">H", 0x8000 | len(body)) + body)


def chunk(body, flags=CHUNK_FIRST | CHUNK_LAST, total=None):
    return struct.pack("<II", len(body) if total is None else total, flags) + body


# ---- Client Info

def text(value):
    raw = value.encode("utf-16-le")
    return len(raw), raw + b"\0\0"


def arc_client(logon_id, verifier):
    return struct.pack("<III", 28, 1, logon_id) + verifier


def client_info(user, password, domain="", cookie=b"", lengths=None):
    parts = [text(v) for v in (domain, user, password, "", "")]
    numbers = lengths or [n for n, _ in parts]
    address, directory = text("127.0.0.1")[1], text("C:\\")[1]
    extended = struct.pack("<HH", 2, len(address)) + address + struct.pack("<H", len(directory)) + \
        directory + b"\0" * 172 + struct.pack("<II", 0, 7) + struct.pack("<H", len(cookie)) + cookie
    return struct.pack("<HHII", 0x40, 0, 0, 0x1b3) + struct.pack("<5H", *numbers) + \
        b"".join(raw for _, raw in parts) + extended


# ---- licensing, sharing

LICENCE_VALID = struct.pack("<HHBBHIIHH", 0x80, 0, 0xff, 3, 16, 7, 2, 4, 0)


def share_control(kind, body, source=1002):
    return struct.pack("<HHH", len(body) + 6, 0x10 | kind, source) + body


def capability(kind, *words):
    return struct.pack("<HH", kind, 4 + 2 * len(words)) + struct.pack("<%dH" % len(words), *words)


def demand_active(share=0x103ea, width=800, height=600):
    sets = [capability(1, 1, 3, 0x200, 0, 0, 0x0415, 0, 0, 0, 0x0101),
            capability(2, 24, 1, 1, 1, width, height, 0, 1, 1, 0x0800, 1, 0),
            capability(8, 1, 20, 20), capability(20, 3, 0, 1600, 0)]
    body = struct.pack("<HH", len(sets), 0) + b"".join(sets)
    return share_control(1, struct.pack("<IHH", share, 4, len(body)) + b"RDP\0" + body +
                         struct.pack("<I", 0))


def confirm_active(share, source, width=800, height=600):
    sets = [capability(1, 1, 3, 0x200, 0, 0, 0x0415, 0, 0, 0, 0x0101),
            capability(2, 24, 1, 1, 1, width, height, 0, 1, 1, 0x0800, 1, 0),
            capability(8, 1, 20, 20), capability(20, 3, 0)]
    body = struct.pack("<HH", len(sets), 0) + b"".join(sets)
    return share_control(3, struct.pack("<IHHH", share, 1002, 4, len(body)) + b"RDP\0" + body, source)


def share_data(kind, body, share=0x103ea, source=1002):
    return share_control(7, struct.pack("<IBBHBBH", share, 0, 1, len(body) + 4, kind, 0, 0) + body,
                         source)


FONT_MAP = share_data(0x28, struct.pack("<HHHH", 0, 0, 3, 4))


def save_session_cookie(logon_id, random, share=0x103ea):
    """The reconnect cookie: Save Session Info, extended."""
    arc = struct.pack("<III", 28, 1, logon_id) + random
    fields = struct.pack("<I", len(arc)) + arc
    return share_data(0x26, struct.pack("<IHI", 3, 6 + len(fields), 1) + fields + b"\0" * 570, share)


def redirection(fields, session=0, more=0, is_plain=False):
    """
    Server Redirection with fields [(flag, bytes)] in the specification's order: share type 0xA, or
    behind a security header.
    """
    flags = more
    body = b""
    for flag, value in fields:
        flags |= flag
        body += struct.pack("<I", len(value)) + value
    packet = struct.pack("<HHII", 0x400, 12 + len(body), session, flags) + body
    return struct.pack("<HH", 0x400, 0) + packet if is_plain else share_control(10, b"\0\0" + packet)


NET_ADDRESS, LOAD_BALANCE, USERNAME, DOMAIN, PASSWORD, FQDN = 1, 2, 4, 8, 0x10, 0x100
CERTIFICATE = 0x10000


def wide(value):
    return value.encode("utf-16-le") + b"\0\0"


def certificate_of(path):
    """A certificate as a redirection carries it."""
    der = subprocess.run(["openssl", "x509", "-in", path, "-outform", "der"], check=True,
                         capture_output=True).stdout
    return wide(base64.b64encode(struct.pack("<III", 32, 1, len(der)) + der).decode())


# ---- one end of a connection

class End:
    """Whole PDUs in and out of a socket, over TLS once that began."""
    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(PATIENCE)
        self.rest = b""

    def send(self, pdu):
        self.sock.sendall(pdu)

    def exactly(self, n):
        while len(self.rest) < n:
            more = self.sock.recv(65536)
            if not more:
                raise EOFError
            self.rest += more
        out, self.rest = self.rest[:n], self.rest[n:]
        return out

    def pdu(self):
        head = self.exactly(4)
        if head[0] == 3:
            return head + self.exactly(struct.unpack(">H", head[2:])[0] - 4)
        n, used = (head[1], 2) if head[1] < 0x80 else ((head[1] & 0x7f) << 8 | head[2], 3)
        self.rest = head[used:] + self.rest
        return head[:used] + self.exactly(n - used)

    def data(self):
        """The next MCS data: (channel, body); skips all else, fast-path too."""
        while True:
            p = self.pdu()
            if p[0] == 3 and p[7] in (0x64, 0x68):
                at = 15 if p[13] & 0x80 else 14
                return struct.unpack(">H", p[10:12])[0], p[at:]
            if p[0] == 3 and p[7] == 0x21:
                raise EOFError

    def ends(self, timeout=PATIENCE):
        """Wait for the other side's end; what it said before."""
        said = self.rest
        self.sock.settimeout(timeout)
        try:
            while True:
                more = self.sock.recv(65536)
                if not more:
                    return said
                said += more
        except ssl.SSLError:
            return said
        except ConnectionError:
            return said

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.close()

    def bye(self):
        """Leave as a client does."""
        self.send(ULTIMATUM)
        self.ends()
        self.close()


def client_context(version=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version:
        context.minimum_version = context.maximum_version = version
    return context


class RawClient(End):
    """A client of the proxy. Each method is a step; go() does them up to a step's name."""
    STEPS = ("x224", "tls", "connect", "join", "info", "active")

    def __init__(self, port, names=("rdpdr", "drdynvc"), source="127.0.0.1"):
        super().__init__(socket.create_connection(("127.0.0.1", port), PATIENCE,
                                                  source_address=(source, 0)))
        self.names = list(names)
        self.user = self.share = None
        self.channels = {}

    def go(self, upto, *login, **kw):
        for step in self.STEPS[:self.STEPS.index(upto) + 1]:
            getattr(self, step)(*(login if step == "info" else ()), **(kw if step == "info" else {}))
        return self

    def x224(self, protocols=TLS, token=b""):
        self.send(x224_request(protocols, token))
        self.confirm = self.pdu()

    def tls(self, version=None):
        self.sock = client_context(version).wrap_socket(self.sock)

    def connect(self, blocks=None):
        self.send(connect_initial(blocks or cs_blocks(self.names)))
        response = self.pdu()
        at = response.index(struct.pack("<H", 0x0c03)) + 4
        io, count = struct.unpack("<HH", response[at:at + 4])
        ids = struct.unpack("<%dH" % count, response[at + 4:at + 4 + 2 * count])
        self.channels = dict(zip(self.names, ids))

    def join(self):
        self.send(ERECT + ATTACH)
        self.user = 1001 + struct.unpack(">H", self.pdu()[9:11])[0]
        for channel in (self.user, IO, *self.channels.values()):
            self.send(join_request(self.user, channel))
            self.pdu()

    def say(self, body, channel=IO):
        self.send(data(0x64, self.user, channel, body))

    def info(self, user, password, **kw):
        self.say(client_info(user, password, **kw))

    def active(self):
        """Licensing, capabilities: the desktop is there. Remembers what came before."""
        self.before = []
        while True:
            channel, body = self.data()
            if channel == IO and body[2:4] == b"\x11\0":
                break
            self.before.append((channel, body))
        self.demand = body
        self.share = struct.unpack("<I", body[6:10])[0]
        self.say(confirm_active(self.share, self.user))

    def error_info(self):
        """The code of Set Error Info, up to the end of the connection."""
        code = None
        with contextlib.suppress(EOFError, OSError):
            while True:
                channel, body = self.data()
                if channel == IO and body[2:4] == b"\x11\0":  # a desktop of the proxy's, to draw in
                    self.share = struct.unpack("<I", body[6:10])[0]
                    self.say(confirm_active(self.share, self.user))
                    self.say(share_data(0x27, struct.pack("<HHHH", 0, 0, 3, 50), self.share, self.user))
                elif channel == IO and body[2:4] == b"\x17\0" and body[14] == 0x2f:
                    code = struct.unpack("<I", body[18:22])[0]
        return code


# ---- the target

class Done(Exception):
    """The script is over: the connection is closed."""


class Served(End):
    """One connection to a RawTarget, and what was seen of it."""
    def __init__(self, target, sock):
        super().__init__(sock)
        self.target = target
        self.user = 1007
        self.token = self.info = self.blocks = None
        self.names = {}
        self.share = 0x103ea

    # each step of a server that behaves
    def x224(self, answer=None):
        request = self.pdu()
        at = request.find(b"\r\n")
        self.token = request[11:at] if at > 0 else b""
        self.send(answer or x224_confirm())

    def tls(self):
        self.sock = self.target.context.wrap_socket(self.sock, server_side=True)

    def connect(self, answer=None):
        self.blocks = self.pdu()
        at = self.blocks.index(struct.pack("<H", 0xc003)) + 4
        count, = struct.unpack("<I", self.blocks[at:at + 4])
        names = [self.blocks[at + 4 + 12 * i:at + 12 + 12 * i].rstrip(b"\0").decode()
                 for i in range(count)]
        self.names = {n: self.target.first_channel + i for i, n in enumerate(names)}
        self.send(answer or connect_response(list(self.names.values())))

    def attach(self, answer=None):
        assert self.pdu()[7] == 0x04
        assert self.pdu()[7] == 0x28
        self.send(answer or attach_confirm(self.user))

    def join(self, answer=None):
        for _ in range(2 + len(self.names)):
            channel, = struct.unpack(">H", self.pdu()[10:12])
            self.send(answer or join_confirm(self.user, channel))

    def login(self):
        self.info = self.data()[1]

    def say(self, body, channel=IO):
        self.send(data(0x68, 1002, channel, body))

    def licence(self, answer=None):
        self.say(answer or LICENCE_VALID)

    def active(self, answer=None):
        self.say(answer or demand_active(self.share))
        while self.data()[1][2:4] != b"\x13\0":
            pass
        self.say(share_data(0x28, struct.pack("<HHHH", 0, 0, 3, 4), self.share))

    STEPS = ("x224", "tls", "connect", "attach", "join", "login", "licence", "active")

    def go(self, upto="active", after=None):
        """The steps behind `after` up to and with `upto`."""
        first = self.STEPS.index(after) + 1 if after else 0
        for step in self.STEPS[first:self.STEPS.index(upto) + 1]:
            getattr(self, step)()
        return self

    def stay(self):
        """Until the client says good-bye or is gone."""
        with contextlib.suppress(EOFError):
            while True:
                self.data()

    def texts(self):
        """Domain, user and password of Client Info, and its bytes behind the five texts."""
        lengths = struct.unpack("<5H", self.info[12:22])
        at, out = 22, []
        for n in lengths:
            out.append(self.info[at:at + n].decode("utf-16-le"))
            at += n + 2
        return out[:3] + [self.info[at:]]

    def cookie(self):
        """The reconnect cookie of Client Info; b"" when there is none."""
        rest = self.texts()[3]
        at = 2
        for _ in range(2):
            at += 2 + struct.unpack("<H", rest[at:at + 2])[0]
        at += 172 + 8
        n, = struct.unpack("<H", rest[at:at + 2])
        return rest[at + 2:at + 2 + n]


class RawTarget:
    """
    A server on loopback. script(served) runs for each connection, in a thread, and may raise
    anything; after it the connection is closed. Without one, it serves a desktop and waits.
    """
    def __init__(self, directory, name="raw", script=None, version=None, certificate=None,
                 host="127.0.0.1", port=None, first_channel=1010):
        self.host = host
        self.port = port or free_port()
        self.script = script or (lambda s: s.go().stay())
        self.first_channel = first_channel
        self.served, self.errors = [], []
        self.is_over = False
        self.certificate, self.key = certificate or make_certificate(directory, name)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.certificate, self.key)
        if version:
            self.context.minimum_version = self.context.maximum_version = version
        self.listener = socket.create_server((host, self.port))
        threading.Thread(target=self.accept, daemon=True).start()

    @property
    def address(self):
        return "%s:%d" % (self.host, self.port)

    def accept(self):
        while not self.is_over:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        served = Served(self, sock)
        self.served.append(served)
        try:
            self.script(served)
        except (OSError, EOFError, Done) as e:
            self.errors.append(e)
        except Exception as e:  # a test that looks for it finds it here
            self.errors.append(e)
            raise
        finally:
            served.close()

    def last(self, count=1):
        return wait_until(lambda: len(self.served) >= count and self.served[-1], "a connection")

    def stop(self):
        self.is_over = True
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes the thread, which holds it
        self.listener.close()
        for s in self.served:
            s.close()


def make_certificate(directory, name, *extra):
    cert, key = os.path.join(directory, name + ".crt"), os.path.join(directory, name + ".key")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj",
                    "/CN=" + name, "-keyout", key, "-out", cert, *extra], check=True,
                   capture_output=True)
    return cert, key
