"""Twenty-four threads that stand still in one of four ways, each as deep as its number says: asleep, at a lock, at a
pipe, at an event. The argument is a library that has selfdump in it."""

import ctypes
import os
import select
import sys
import threading
import time
from typing import Callable

ctypes.CDLL(sys.argv[1]).plugged()

lock = threading.Lock()
lock.acquire()
event = threading.Event()
reader, writer = os.pipe()
ways: list[Callable[[], object]] = [
    lambda: time.sleep(600),
    lock.acquire,
    lambda: select.select([reader], [], []),
    event.wait,
]


def deeper(depth: int, way: Callable[[], object]) -> object:
    return deeper(depth - 1, way) if depth else way()


for number in range(24):
    threading.Thread(target=deeper, args=(number % 5, ways[number % 4]), daemon=True).start()
# Each may still be on its way to where it stands.
time.sleep(0.5)
print("ready", flush=True)
time.sleep(600)
