"""
System calls in the place of another process: stops it, lets it make calls of ours with its own
rights (its uid, its root, its filters), and lets it go on as if nothing had been. So a test tries
what code that took over a relay could try. x86-64 and arm64, root or the process's own user.
"""
import ctypes
import os
import platform
import signal
import struct

PEEKTEXT, POKEDATA, SINGLESTEP, ATTACH, DETACH = 1, 5, 9, 16, 17
GETREGSET, SETREGSET, NT_PRSTATUS = 0x4204, 0x4205, 1

# Where a machine keeps things in its general registers, in words, and its system call instruction.
MACHINES = {
    "x86_64": dict(count=27, pc=16, sp=19, number=10, result=10, args=(14, 13, 12, 7, 9, 8),
                   restart=15, insn=b"\x0f\x05",
                   calls=dict(open=2, socket=41, connect=42, fork=57, execve=59, kill=62,
                              ftruncate=77, ptrace=101, openat=257, unlinkat=263, pwrite64=18,
                              lseek=8, fcntl=72, bpf=321, process_vm_readv=310, setuid=105,
                              getpid=39, mount=165, chroot=161)),
    "aarch64": dict(count=34, pc=32, sp=31, number=8, result=0, args=(0, 1, 2, 3, 4, 5),
                    restart=None, insn=b"\x01\x00\x00\xd4",
                    calls=dict(socket=198, connect=203, execve=221, kill=129, ftruncate=46,
                               ptrace=117, openat=56, unlinkat=35, pwrite64=68, lseek=62, fcntl=25,
                               bpf=280, process_vm_readv=270, setuid=146, getpid=172, mount=40,
                               chroot=51)),
}
MACHINE = MACHINES.get(platform.machine())

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, pid, addr=0, data=0):
    ctypes.set_errno(0)
    r = libc.ptrace(request, pid, addr, data)
    if r == -1 and ctypes.get_errno():
        raise OSError(ctypes.get_errno(), "ptrace %d: %s" % (request,
                                                             os.strerror(ctypes.get_errno())))
    return r & 0xffffffffffffffff


class Injector:
    """with Injector(pid) as run: run("open", b"/etc/passwd", 0) gives what the kernel returned."""
    def __init__(self, pid):
        self.pid = pid

    def __enter__(self):
        ptrace(ATTACH, self.pid)
        self.wait(signal.SIGSTOP)
        self.saved = self.registers()
        self.at = self.find_instruction()
        return self.call

    def __exit__(self, *_):
        self.set_registers(self.saved)
        ptrace(DETACH, self.pid)

    def wait(self, sig):
        _, status = os.waitpid(self.pid, 0)
        if not os.WIFSTOPPED(status) or os.WSTOPSIG(status) != sig:
            raise AssertionError("process %d: status %#x" % (self.pid, status))

    def regset(self, request, raw):
        iov = struct.pack("PN", ctypes.addressof(raw), len(raw))
        place = ctypes.create_string_buffer(iov, len(iov))
        ptrace(request, self.pid, NT_PRSTATUS, ctypes.addressof(place))

    def registers(self):
        raw = ctypes.create_string_buffer(MACHINE["count"] * 8)
        self.regset(GETREGSET, raw)
        return list(struct.unpack("%dQ" % MACHINE["count"], raw.raw))

    def set_registers(self, words):
        packed = struct.pack("%dQ" % MACHINE["count"], *words)
        self.regset(SETREGSET, ctypes.create_string_buffer(packed, len(packed)))

    def find_instruction(self):
        """The C library's own: what is mapped with the right to run, searched for it."""
        with open("/proc/%d/maps" % self.pid) as maps, open("/proc/%d/mem" % self.pid, "rb") as mem:
            for line in maps:
                span, rights, _, _, _, *path = line.split()
                if "x" not in rights or not path or "libc" not in path[0]:
                    continue
                begin, end = (int(x, 16) for x in span.split("-"))
                mem.seek(begin)
                at = mem.read(end - begin).find(MACHINE["insn"])
                if at >= 0:
                    return begin + at
        raise AssertionError("no system call instruction found")

    def put(self, data, addr):
        data += b"\0" * (8 - len(data) % 8)
        for i in range(0, len(data), 8):
            ptrace(POKEDATA, self.pid, addr + i, struct.unpack_from("Q", data, i)[0])

    def call(self, name, *args):
        """The result as the kernel gives it: an errno is negative. Bytes go onto the stack."""
        words = list(self.saved)
        room = (self.saved[MACHINE["sp"]] - 4096) & ~15
        given = []
        for arg in args:
            if isinstance(arg, bytes):
                room -= (len(arg) + 16) & ~15
                self.put(arg, room)
                arg = room
            given.append(arg & 0xffffffffffffffff)
        words[MACHINE["pc"]] = self.at
        words[MACHINE["number"]] = MACHINE["calls"][name]
        if MACHINE["restart"] is not None:
            words[MACHINE["restart"]] = 0xffffffffffffffff
        for register, arg in zip(MACHINE["args"], given):
            words[register] = arg
        self.set_registers(words)
        ptrace(SINGLESTEP, self.pid)
        self.wait(signal.SIGTRAP)
        result = self.registers()[MACHINE["result"]]
        return result - (1 << 64) if result >> 63 else result
