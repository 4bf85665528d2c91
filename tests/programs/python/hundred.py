"""A hundred checkpoints, and what they have left of memory and descriptors."""

import os

import selfdump


def memory() -> int:
    """The resident KiB that are no file's."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))


def look() -> tuple[int, list[str], int]:
    return memory(), sorted(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


@selfdump.before_checkpoint
def before(cause: str) -> None:
    assert cause == "call"


selfdump.install(keep=1)
for _ in range(10):
    selfdump.checkpoint()
first = look()
for _ in range(100):
    assert not selfdump.checkpoint().restored
last = look()
print("grown", last[0] - first[0], last[1:] == first[1:], flush=True)
