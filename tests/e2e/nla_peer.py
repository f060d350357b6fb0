"""
A CredSSP client of any version, as polite or as rude as a test wants. fail() gets as far as a wrong
password does, for which no cryptography is needed; login() knows the password, with the NTLMv2 of
MS-NLMP and the messages of MS-CSSP.
"""
import hashlib
import hmac
import os
import socket
import ssl
import struct
import subprocess

PROTOCOL_SSL, PROTOCOL_HYBRID, PROTOCOL_HYBRID_EX = 1, 2, 8
SSL_REQUIRED, HYBRID_REQUIRED = 1, 5
STATUS_LOGON_FAILURE = 0xc000006d
NTLM_FLAGS = 0xe2088237
AV_FLAGS, AV_HAS_MIC = 6, 2


def x224_request(protocols, cookie="", flags=0):
    line = ("Cookie: mstshash=%s\r\n" % cookie).encode() if cookie else b""
    negotiation = struct.pack("<BBHI", 1, flags, 8, protocols)
    body = struct.pack(">BHHB", 0xe0, 0, 0, 0) + line + negotiation
    return struct.pack(">BBHB", 3, 0, 5 + len(body), len(body)) + body


def negotiate(port, protocols, cookie="", flags=0):
    """(socket, "ok" or "failure", the protocol or the code)"""
    s = socket.create_connection(("127.0.0.1", port), 10)
    s.settimeout(20)
    s.sendall(x224_request(protocols, cookie, flags))
    answer = s.recv(100)
    kind, _, _, value = struct.unpack("<BBHI", answer[11:19])
    return s, "failure" if kind == 3 else "ok", value


def der(tag, body):
    n = len(body)
    size = bytes([n]) if n < 128 else (bytes([0x81, n]) if n < 256 else
                                       b"\x82" + struct.pack(">H", n))
    return bytes([tag]) + size + body


def ts_request(version=6, token=None, proof=None, nonce=None, info=None):
    parts = der(0xa0, der(2, bytes([version])))
    if token is not None:
        parts += der(0xa1, der(0x30, der(0x30, der(0xa0, der(4, token)))))
    if info is not None:
        parts += der(0xa2, der(4, info))
    if proof is not None:
        parts += der(0xa3, der(4, proof))
    if nonce is not None:
        parts += der(0xa5, der(4, nonce))
    return der(0x30, parts)


def der_next(data, at=0):
    """(tag, body, where it ends)"""
    tag, n, at = data[at], data[at + 1], at + 2
    if n & 0x80:
        size = n & 0x7f
        n, at = int.from_bytes(data[at:at + size], "big"), at + size
    return tag, data[at:at + n], at + n


def ts_parts(data):
    _, body, _ = der_next(data)
    parts, at = {}, 0
    while at < len(body):
        tag, part, at = der_next(body, at)
        parts[tag] = part
    return parts


def error_of(data):
    """The NTSTATUS of a TSRequest, or None."""
    part = ts_parts(data).get(0xa4)
    return int.from_bytes(der_next(part)[1], "big") & 0xffffffff if part else None


def ntlm_negotiate():
    return b"NTLMSSP\0" + struct.pack("<II", 1, NTLM_FLAGS) + bytes(16) + b"\x0a\0\x63\x45\0\0\0\x0f"


def ntlm_authenticate(user, domain="", has_mic=True):
    pairs = struct.pack("<HHI", AV_FLAGS, 4, AV_HAS_MIC) if has_mic else b""
    blob = (b"\x01\x01" + bytes(6) + bytes(8) + os.urandom(8) + bytes(4) + pairs + bytes(4) + bytes(4))
    fields = [bytes(24), os.urandom(16) + blob, domain.encode("utf-16-le"), user.encode("utf-16-le"),
              "PC".encode("utf-16-le"), os.urandom(16)]
    at, heads = 88, b""
    for field in fields:
        heads += struct.pack("<HHI", len(field), len(field), at)
        at += len(field)
    return (b"NTLMSSP\0" + struct.pack("<I", 3) + heads + struct.pack("<I", NTLM_FLAGS) +
            b"\x0a\0\x63\x45\0\0\0\x0f" + os.urandom(16) + b"".join(fields))


def spnego(token):
    """NegTokenInit with NTLM only, RFC 4178."""
    oid = der(6, bytes.fromhex("2b06010401823702020a"))
    inner = der(0xa0, der(0x30, oid)) + der(0xa2, der(4, token))
    return der(0x60, der(6, bytes.fromhex("2b0601050502")) + der(0xa0, der(0x30, inner)))


# ---- NTLMv2, for who knows the password ----

def md4(data):
    """RFC 1320: what hashlib has depends on the machine."""
    def turn(value, bits):
        value &= 0xffffffff
        return (value << bits | value >> 32 - bits) & 0xffffffff
    rounds = ((lambda x, y, z: (x & y) | (~x & z), 0, range(16), (3, 7, 11, 19)),
              (lambda x, y, z: (x & y) | (x & z) | (y & z), 0x5a827999,
               (0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), (3, 5, 9, 13)),
              (lambda x, y, z: x ^ y ^ z, 0x6ed9eba1,
               (0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15), (3, 9, 11, 15)))
    size = struct.pack("<Q", 8 * len(data))
    data += b"\x80" + bytes((55 - len(data)) % 64) + size
    state = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476]
    for at in range(0, len(data), 64):
        words, v = struct.unpack("<16I", data[at:at + 64]), list(state)
        for mix, add, order, shifts in rounds:
            for n, k in enumerate(order):
                i = -n % 4
                v[i] = turn(v[i] + mix(v[(i + 1) % 4], v[(i + 2) % 4], v[(i + 3) % 4]) + words[k] +
                            add, shifts[n % 4])
        state = [(a + b) & 0xffffffff for a, b in zip(state, v)]
    return struct.pack("<4I", *state)


class Rc4:
    def __init__(self, key):
        self.s, j = list(range(256)), 0
        for i in range(256):
            j = (j + self.s[i] + key[i % len(key)]) % 256
            self.s[i], self.s[j] = self.s[j], self.s[i]
        self.i = self.j = 0

    def run(self, data):
        out, s = bytearray(), self.s
        for byte in data:
            self.i = (self.i + 1) % 256
            self.j = (self.j + s[self.i]) % 256
            s[self.i], s[self.j] = s[self.j], s[self.i]
            out.append(byte ^ s[(s[self.i] + s[self.j]) % 256])
        return bytes(out)


def hmac_md5(key, *parts):
    return hmac.new(key, b"".join(parts), "md5").digest()


class Way:
    """One direction's keys."""
    def __init__(self, key, name):
        self.sign = hashlib.md5(key + b"session key to %s signing key magic constant\0" % name).digest()
        self.rc4 = Rc4(hashlib.md5(key + b"session key to %s sealing key magic constant\0" %
                                   name).digest())
        self.number = 0

    def seal(self, data):
        number = struct.pack("<I", self.number)
        self.number += 1
        sealed = self.rc4.run(data)
        mac = self.rc4.run(hmac_md5(self.sign, number, data)[:8])
        return struct.pack("<I", 1) + mac + number + sealed

    def unseal(self, data):
        return self.rc4.run(data[16:])


class Ntlm:
    """The connecting side."""
    def __init__(self, user, domain, password):
        self.user, self.domain = user, domain
        self.key = hmac_md5(md4(password.encode("utf-16-le")),
                            (user.upper() + domain).encode("utf-16-le"))
        self.first = ntlm_negotiate()

    def answer(self, challenge):
        length, _, at = struct.unpack("<HHI", challenge[40:48])
        info = challenge[at:at + length][:-4] + struct.pack("<HHI", AV_FLAGS, 4, AV_HAS_MIC) + bytes(4)
        when = b""
        pos = 0
        while pos + 4 <= len(info):
            kind, n = struct.unpack("<HH", info[pos:pos + 4])
            if kind == 7:
                when = info[pos + 4:pos + 4 + n]
            pos += 4 + n
        blob = b"\x01\x01" + bytes(6) + (when or bytes(8)) + os.urandom(8) + bytes(4) + info + bytes(4)
        proof = hmac_md5(self.key, challenge[24:32], blob)
        exported = os.urandom(16)
        fields = [bytes(24), proof + blob, self.domain.encode("utf-16-le"),
                  self.user.encode("utf-16-le"), "PC".encode("utf-16-le"),
                  Rc4(hmac_md5(self.key, proof)).run(exported)]
        at, heads = 88, b""
        for field in fields:
            heads += struct.pack("<HHI", len(field), len(field), at)
            at += len(field)
        start = (b"NTLMSSP\0" + struct.pack("<I", 3) + heads + struct.pack("<I", NTLM_FLAGS) +
                 b"\x0a\0\x63\x45\0\0\0\x0f")
        end = b"".join(fields)
        mic = hmac_md5(exported, self.first, challenge, start + bytes(16) + end)
        self.out, self.back = Way(exported, b"client-to-server"), Way(exported, b"server-to-client")
        return start + mic + end


def binding(name, nonce, key):
    return hashlib.sha256(b"CredSSP %s Binding Hash\0" % name + nonce + key).digest()


def ts_credentials(domain, user, password):
    texts = (domain, user, password)
    inner = der(0x30, b"".join(der(0xa0 + n, der(4, t.encode("utf-16-le")))
                               for n, t in enumerate(texts)))
    return der(0x30, der(0xa0, der(2, b"\1")) + der(0xa1, der(4, inner)))


def public_key(certificate):
    """The SubjectPublicKey of a certificate with an RSA key, in DER."""
    spki = subprocess.run(["openssl", "x509", "-inform", "DER", "-noout", "-pubkey"],
                          input=certificate, capture_output=True, check=True).stdout
    return subprocess.run(["openssl", "rsa", "-pubin", "-RSAPublicKey_out", "-outform", "DER"],
                          input=spki, capture_output=True, check=True).stdout


class NlaClient:
    def __init__(self, port, protocols=PROTOCOL_HYBRID, cookie=""):
        s, self.verdict, self.value = negotiate(port, protocols, cookie)
        if self.verdict != "ok":
            s.close()
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.tls = context.wrap_socket(s)
        self.buffer = b""

    def say(self, data):
        self.tls.sendall(data)

    def hear(self):
        """One TSRequest; b"" at the end."""
        while True:
            if len(self.buffer) > 4:
                end = der_next(self.buffer)[2]
                if len(self.buffer) >= end:
                    out, self.buffer = self.buffer[:end], self.buffer[end:]
                    return out
            try:
                more = self.tls.recv(65536)
            except (ssl.SSLError, ConnectionError):
                return b""
            if not more:
                return b""
            self.buffer += more

    def is_closed(self):
        return self.hear() == b""

    def fail(self, user, version=6, wrap=False, has_mic=True, domain=""):
        """A whole login with a wrong password; the last answer, b"" for none."""
        token = ntlm_negotiate()
        self.say(ts_request(version, spnego(token) if wrap else token))
        challenge = self.hear()
        assert b"NTLMSSP\0\x02" in challenge, challenge
        if wrap:
            assert der_next(ts_parts(challenge)[0xa1])[1][8:] != b"", challenge
        nonce = os.urandom(32) if version >= 5 else None
        self.say(ts_request(version, ntlm_authenticate(user, domain, has_mic), os.urandom(48), nonce))
        return self.hear()

    def prove(self, user, password, version=6, wrap=False, domain="", key=None):
        """Up to the server's proof, which is checked: the answer, b"" or an error."""
        self.key = key or public_key(self.tls.getpeercert(True))
        self.ntlm, self.version, nonce = Ntlm(user, domain, password), version, os.urandom(32)
        self.say(ts_request(version, spnego(self.ntlm.first) if wrap else self.ntlm.first))
        challenge = self.hear()
        token = self.ntlm.answer(challenge[challenge.index(b"NTLMSSP\0"):])
        mine = binding(b"Client-To-Server", nonce, self.key) if version >= 5 else self.key
        self.say(ts_request(version, token, self.ntlm.out.seal(mine), nonce if version >= 5 else None))
        answer = self.hear()
        if answer and not error_of(answer):
            got = self.ntlm.back.unseal(der_next(ts_parts(answer)[0xa3])[1])
            assert got == (binding(b"Server-To-Client", nonce, self.key) if version >= 5
                           else bytes([self.key[0] + 1]) + self.key[1:])
        return answer

    def login(self, user, password, version=6, wrap=False, domain="", told=None):
        """All of it; told: another (domain, user, password) to delegate."""
        answer = self.prove(user, password, version, wrap, domain)
        assert answer and not error_of(answer), answer
        self.say(ts_request(version, info=self.ntlm.out.seal(
            ts_credentials(*(told or (domain, user, password))))))

    def early_result(self):
        """What a client of HYBRID_EX is told after it."""
        while len(self.buffer) < 4:
            self.buffer += self.tls.recv(4) or b"\xff" * 4
        return struct.unpack("<I", self.buffer[:4])[0]

    def close(self):
        self.tls.close()
