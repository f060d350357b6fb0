"""
Peers that stock programs are not: a client that says what it is told, message by message, targets
that write down what they are asked, and OpenSSH with a password typed for it.
"""
import contextlib
import logging
import os
import queue
import select
import socket
import subprocess
import threading
import time

import paramiko

import harness

logging.getLogger("paramiko").setLevel(logging.CRITICAL)

DISCONNECT, UNIMPLEMENTED, SERVICE_REQUEST, SERVICE_ACCEPT = 1, 3, 5, 6
USERAUTH_REQUEST, USERAUTH_FAILURE, USERAUTH_SUCCESS, USERAUTH_BANNER = 50, 51, 52, 53
USERAUTH_PK_OK = 60
GLOBAL_REQUEST, REQUEST_SUCCESS, REQUEST_FAILURE = 80, 81, 82
CHANNEL_OPEN, CHANNEL_OPEN_CONFIRMATION, CHANNEL_OPEN_FAILURE = 90, 91, 92
CHANNEL_DATA, CHANNEL_EXTENDED_DATA, CHANNEL_EOF, CHANNEL_CLOSE = 94, 95, 96, 97
CHANNEL_REQUEST = 98
CHANNEL_SUCCESS, CHANNEL_FAILURE = 99, 100
CLOSED = -1  # no message: the connection is over

HEARD = (UNIMPLEMENTED, SERVICE_ACCEPT, USERAUTH_FAILURE, USERAUTH_SUCCESS, USERAUTH_BANNER,
         USERAUTH_PK_OK, 61, REQUEST_SUCCESS, REQUEST_FAILURE, *range(CHANNEL_OPEN, 101))


def load_key(path):
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        with contextlib.suppress(paramiko.SSHException, ValueError):
            return kind.from_private_key_file(path)
    raise AssertionError("no key that paramiko reads: " + path)


class RawTransport(paramiko.Transport):
    """Keys are exchanged as usual; everything after that is put into a queue."""
    def __init__(self, sock):
        super().__init__(sock)
        self.heard = queue.Queue()
        self.sentence = None
        self._handler_table = dict(self._handler_table)
        for number in HEARD:
            # older versions say whose message it is, newer ones only what it says
            self._handler_table[number] = lambda *of, n=number: self.heard.put((n, of[-1]))

    def _parse_disconnect(self, m):
        m.get_int()
        self.sentence = m.get_text()

    def run(self):
        super().run()
        self.heard.put((CLOSED, None))


class RawClient:
    """A client after its key exchange, about to say whatever a test wants it to."""
    def __init__(self, port, source="127.0.0.1"):
        self.sock = socket.create_connection(("127.0.0.1", port), 30, (source, 0))
        self.transport = RawTransport(self.sock)
        self.transport.banner_timeout = self.transport.handshake_timeout = 60
        self.theirs = {}  # our number of a channel: the proxy's
        try:
            self.transport.start_client(timeout=60)
        except Exception:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.transport.close()
        self.sock.close()

    @property
    def sentence(self):
        """The text of SSH_MSG_DISCONNECT, or None."""
        return self.transport.sentence

    def say(self, number, *fields):
        m = paramiko.Message()
        m.add_byte(bytes([number]))
        for f in fields:
            if isinstance(f, bool):
                m.add_boolean(f)
            elif isinstance(f, int):
                m.add_int(f)
            else:
                m.add_string(f)
        with contextlib.suppress(EOFError, OSError):
            self.transport._send_message(m)

    def hear(self, *numbers, timeout=20):
        """The next message of these numbers (any when none are given); CLOSED at the end."""
        end = time.monotonic() + timeout
        while True:
            try:
                number, m = self.transport.heard.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError("nothing of %s within %g s" % (numbers, timeout)) from None
            if number == CLOSED:
                self.transport.heard.put((CLOSED, None))
                return CLOSED, None
            if not numbers or number in numbers:
                return number, m

    def begin(self):
        """Ask for the authentication service."""
        self.say(SERVICE_REQUEST, "ssh-userauth")
        assert self.hear(SERVICE_ACCEPT)[0] == SERVICE_ACCEPT
        return self

    def answer(self):
        return self.hear(USERAUTH_FAILURE, USERAUTH_SUCCESS, USERAUTH_PK_OK)[0]

    def password(self, user, password):
        self.say(USERAUTH_REQUEST, user, "ssh-connection", "password", False, password)
        return self.answer()

    def offer(self, user, key, algorithm=None):
        self.say(USERAUTH_REQUEST, user, "ssh-connection", "publickey", False,
                 algorithm or key.get_name(), key.asbytes())
        return self.answer()

    def sign(self, user, key, algorithm=None, claimed=None, wait=True):
        """Log in with a key, without asking first. claimed: sign with `key`, say it was this."""
        name, blob = algorithm or key.get_name(), (claimed or key).asbytes()
        m = paramiko.Message()
        m.add_string(self.transport.session_id)
        m.add_byte(bytes([USERAUTH_REQUEST]))
        for field in (user, "ssh-connection", "publickey"):
            m.add_string(field)
        m.add_boolean(True)
        m.add_string(name)
        m.add_string(blob)
        signature = key.sign_ssh_data(m.asbytes(), algorithm)
        self.say(USERAUTH_REQUEST, user, "ssh-connection", "publickey", True, name, blob,
                 signature.asbytes())
        return self.answer() if wait else None

    def open_session(self, number=0):
        self.say(CHANNEL_OPEN, "session", number, 1 << 21, 1 << 15)
        kind, m = self.hear(CHANNEL_OPEN_CONFIRMATION, CHANNEL_OPEN_FAILURE)
        if kind == CHANNEL_OPEN_CONFIRMATION:
            m.get_int()
            self.theirs[number] = m.get_int()
        return kind

    def request(self, name, wants_reply, *fields, number=0):
        self.say(CHANNEL_REQUEST, self.theirs[number], name, wants_reply, *fields)

    def execute(self, command, number=0):
        """Run a command; CHANNEL_SUCCESS or CHANNEL_FAILURE."""
        self.request("exec", True, command, number=number)
        return self.hear(CHANNEL_SUCCESS, CHANNEL_FAILURE)[0]


class Listener:
    """Something on a TCP port of loopback; each connection goes to serve() in a thread."""
    account = "someone"

    def __init__(self, port=0):
        self.connections = 0
        self.socket = socket.create_server(("127.0.0.1", port), backlog=64)
        self.port = self.socket.getsockname()[1]
        self.is_over = False
        self.thread = threading.Thread(target=self._loop, daemon=True)
        self.thread.start()

    @property
    def address(self):
        return "127.0.0.1:%d" % self.port

    def _loop(self):
        while not self.is_over:
            if not select.select([self.socket], [], [], 0.1)[0]:
                continue
            try:
                sock, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self.serve(sock)

    def serve(self, sock):
        """Until told otherwise: say nothing, read until the end."""
        with sock:
            while sock.recv(4096):
                pass

    def stop(self):
        self.is_over = True
        self.thread.join()
        self.socket.close()


class Talker(Listener):
    """Says one thing to everybody, then listens."""
    def __init__(self, text):
        self.text = text
        super().__init__()

    def serve(self, sock):
        sock.sendall(self.text)
        super().serve(sock)


class FakeTarget(Listener):
    """An SSH server that writes down who tried to log in how, and says who it thinks it has."""
    def __init__(self, key_path, password=None, is_interactive=False, port=0):
        self.key_path = key_path
        self.password = password
        self.is_interactive = is_interactive
        self.attempts = []  # (method, user, password or key type)
        super().__init__(port)

    @property
    def host_key_line(self):
        with open(self.key_path + ".pub") as f:
            return " ".join(f.read().split()[:2])

    def serve(self, sock):
        transport = paramiko.Transport(sock)
        transport.add_server_key(load_key(self.key_path))
        server = _FakeServer(self)
        transport.start_server(event=threading.Event(), server=server)
        while transport.is_active() and not self.is_over:
            channel = transport.accept(0.2)
            if channel:
                server.wanted.wait(10)
                channel.sendall(("user=%s\n" % transport.get_username()).encode())
                channel.send_exit_status(0)
                channel.close()
        transport.close()


class HastyTarget(FakeTarget):
    """A command's yes, its exit status (3) and its end go out in one piece."""
    def serve(self, sock):
        answered = threading.Event()

        class Transport(paramiko.Transport):
            def _send_user_message(self, m):
                is_answer = m.asbytes()[0] == CHANNEL_SUCCESS
                if is_answer:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
                super()._send_user_message(m)
                if is_answer:
                    answered.set()

        transport = Transport(sock)
        transport.add_server_key(load_key(self.key_path))
        transport.start_server(event=threading.Event(), server=_FakeServer(self))
        while transport.is_active() and not self.is_over:
            channel = transport.accept(0.2)
            if channel and answered.wait(10):
                channel.send_exit_status(3)
                channel.close()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        transport.close()


class _FakeServer(paramiko.ServerInterface):
    def __init__(self, target):
        self.target = target
        self.wanted = threading.Event()

    def get_allowed_auths(self, username):
        return "keyboard-interactive" if self.target.is_interactive else "password,publickey"

    def check_auth_interactive(self, username, submethods):
        self.user = username
        return paramiko.InteractiveQuery("", "", ("Password: ", False))

    def check_auth_interactive_response(self, responses):
        return self.check_auth_password(self.user, responses[0])

    def check_auth_none(self, username):
        return paramiko.AUTH_FAILED  # asks what is offered; holds no credential

    def check_auth_password(self, username, password):
        self.target.attempts.append(("password", username, password))
        is_right = self.target.password is not None and password == self.target.password
        return paramiko.AUTH_SUCCESSFUL if is_right else paramiko.AUTH_FAILED

    def check_auth_publickey(self, username, key):
        self.target.attempts.append(("publickey", username, key.get_name()))
        return paramiko.AUTH_FAILED

    def check_channel_request(self, kind, chanid):
        if kind == "session":
            return paramiko.OPEN_SUCCEEDED
        return paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_exec_request(self, channel, command):
        self.wanted.set()
        return True

    check_channel_shell_request = lambda self, channel: True


ASKPASS = """#!/bin/sh
printf '%s\\n' "$SP_TEST_PASSWORD"
"""


class PasswordClient(harness.Client):
    """OpenSSH with a password typed for it, once."""
    def __init__(self, proxy, password, user="alice", target="web01", options=()):
        super().__init__(proxy, user, target, None, options)
        self.password = password
        self.askpass = os.path.join(proxy.dir, "askpass")
        if not os.path.exists(self.askpass):
            with open(self.askpass, "w") as f:
                f.write(ASKPASS)
            os.chmod(self.askpass, 0o755)

    def common(self):
        return super().common() + ["-o", "PreferredAuthentications=password",
                                   "-o", "NumberOfPasswordPrompts=1",
                                   "-o", "PubkeyAuthentication=no"]

    def env(self):
        return dict(os.environ, SSH_ASKPASS=self.askpass, SSH_ASKPASS_REQUIRE="force",
                    SP_TEST_PASSWORD=self.password)

    def ssh(self, *command, **kw):
        kw.setdefault("env", self.env())
        return super().ssh(*command, **kw)

    def popen(self, *command, **kw):
        kw.setdefault("env", self.env())
        return super().popen(*command, **kw)


class Agent:
    """An ssh-agent with keys in it, in the order given."""
    def __init__(self, directory, paths):
        self.path = os.path.join(directory, harness.random_name())
        self.process = subprocess.Popen(["ssh-agent", "-D", "-a", self.path],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        env = dict(os.environ, SSH_AUTH_SOCK=self.path)  # its socket is there before it listens
        harness.wait_until(lambda: harness.run("ssh-add", "-l", env=env).returncode == 1,
                           "the agent answers")
        for p in paths:
            r = harness.run("ssh-add", p, env=env)
            assert r.returncode == 0, r.stderr

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


class AgentClient(harness.Client):
    """OpenSSH with its keys in an agent."""
    def __init__(self, proxy, agent, key=None):
        super().__init__(proxy, key=key)
        self.agent = agent

    def common(self):
        mine = ["-o", "IdentityAgent=" + self.agent.path]
        if not self.key:
            mine += ["-o", "IdentityFile=/nonexistent", "-o", "BatchMode=yes",
                     "-o", "PreferredAuthentications=publickey"]
        return mine + super().common()


def told(result):
    """What a run of ssh printed for its user, without its own remarks about host keys."""
    return "\n".join(line for line in result.stderr.splitlines()
                     if line.strip() and "Permanently added" not in line)
