"""Has one thing that CRIU has to carry, and looks at it all the time: `rootless.py SITUATION`.

It prints `ready PID` when it has it, and then `tick N` as long as it is as it was.
"""

import ctypes
import fcntl
import mmap
import os
import select
import socket
import sys
import tempfile
import threading
import time
from typing import Callable

# Whether the thing is as it was.
Look = Callable[[int], bool]


def plain() -> Look:
    state = {"sum": 0}

    def look(tick: int) -> bool:
        state["sum"] += 1
        return state["sum"] == tick + 1

    return look


def threads() -> Look:
    counts = [0] * 8

    def count(number: int) -> None:
        while True:
            counts[number] += 1
            time.sleep(0.005)

    for number in range(8):
        threading.Thread(target=count, args=[number], daemon=True).start()
    last = [0] * 8

    def look(tick: int) -> bool:
        time.sleep(0.05)
        moved = all(now > before for now, before in zip(counts, last))
        last[:] = counts
        return moved

    return look


def children() -> Look:
    reader, writer = os.pipe()
    if os.fork() == 0:
        while True:
            os.write(writer, b"x")
            time.sleep(0.01)
    return lambda tick: os.read(reader, 1) == b"x"


def files() -> Look:
    kept = open("data", "w+")
    kept.write("as it was")
    kept.flush()

    def look(tick: int) -> bool:
        kept.seek(0)
        return kept.read() == "as it was"

    return look


def unlinked_file() -> Look:
    kept = tempfile.TemporaryFile(dir=".")
    kept.write(b"x" * (2 << 20))
    kept.flush()

    def look(tick: int) -> bool:
        kept.seek(0)
        return kept.read(3) == b"xxx"

    return look


def locked_file() -> Look:
    kept = open("locked", "w")
    fcntl.flock(kept, fcntl.LOCK_EX)

    def look(tick: int) -> bool:
        other = open("locked", "r")
        assert not kept.closed
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False

    return look


def mapped_file() -> Look:
    kept = open("mapped", "w+b")
    kept.truncate(4096)
    memory = mmap.mmap(kept.fileno(), 4096)
    memory[0:4] = b"here"
    return lambda tick: memory[0:4] == b"here"


def shared_memory() -> Look:
    memory = mmap.mmap(-1, 1 << 20)
    if os.fork() == 0:
        while True:
            memory[0] = (memory[0] + 1) % 256
            time.sleep(0.01)
    last = [-1]

    def look(tick: int) -> bool:
        time.sleep(0.05)
        moved = memory[0] != last[0]
        last[0] = memory[0]
        return moved

    return look


def unix_sockets() -> Look:
    one, other = socket.socketpair()

    def look(tick: int) -> bool:
        one.send(b"x")
        return other.recv(1) == b"x"

    return look


def tcp_listener() -> Look:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def look(tick: int) -> bool:
        client = socket.create_connection(("127.0.0.1", port), 5)
        server, _ = listener.accept()
        client.sendall(b"x")
        said = server.recv(1)
        # Nobody has a connection when a checkpoint comes: whoever closes first leaves a TIME_WAIT, which is the kernel's.
        server.close()
        client.close()
        time.sleep(0.05)
        return said == b"x"

    return look


def tcp_connection() -> Look:
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname(), 5)
    server, _ = listener.accept()
    client.settimeout(5)

    def look(tick: int) -> bool:
        try:
            server.sendall(b"x")
            return client.recv(1) in (b"x", b"")
        except OSError:
            # After a restore it is closed, as after a crash.
            return True

    return look


def udp_socket() -> Look:
    ours = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ours.bind(("127.0.0.1", 0))

    def look(tick: int) -> bool:
        ours.sendto(b"x", ours.getsockname())
        return ours.recv(1) == b"x"

    return look


def timers_and_events() -> Look:
    libc = ctypes.CDLL(None, use_errno=True)
    epoll = select.epoll()
    event = libc.eventfd(1, 0)
    timer = libc.timerfd_create(1, 0)
    spec = (ctypes.c_long * 4)(0, 10_000_000, 0, 10_000_000)
    libc.timerfd_settime(timer, 0, spec, None)
    epoll.register(event, select.EPOLLIN)
    epoll.register(timer, select.EPOLLIN)

    def look(tick: int) -> bool:
        time.sleep(0.05)
        ready = {fd for fd, _ in epoll.poll(5)}
        os.read(timer, 8)
        return event in ready and timer in ready

    return look


def watched_folder() -> Look:
    os.makedirs("watched", exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init()
    libc.inotify_add_watch(watch, b"watched", 0x100)

    def look(tick: int) -> bool:
        open("watched/file", "w").close()
        os.remove("watched/file")
        return len(os.read(watch, 4096)) > 0

    return look


def named_pipe() -> Look:
    if not os.path.exists("fifo"):
        os.mkfifo("fifo")
    pipe = os.open("fifo", os.O_RDWR)

    def look(tick: int) -> bool:
        os.write(pipe, b"x")
        return os.read(pipe, 1) == b"x"

    return look


def own_terminal() -> Look:
    master, slave = os.openpty()

    def look(tick: int) -> bool:
        os.write(slave, b"x\n")
        return os.read(master, 3) == b"x\r\n"

    return look


def lowered_limits() -> Look:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))
    return lambda tick: resource.getrlimit(resource.RLIMIT_NOFILE) == (200, 300)


look: Look = globals()[sys.argv[1]]()
print("ready", os.getpid(), flush=True)
tick = 0
while True:
    if not look(tick):
        print("wrong at", tick, flush=True)
        sys.exit(1)
    print("tick", tick, flush=True)
    tick += 1
    time.sleep(0.01)
