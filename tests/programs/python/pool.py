"""A pool of processes that work while they are checkpointed with their parent. Each tells whether it is inert."""

import multiprocessing
import sys
import time

import selfdump

TASKS = int(sys.argv[2])


def work(number: int) -> int:
    value = number
    for _ in range(10_000):
        value = (value * 6364136223846793005 + 1442695040888963407) % 2**64
    time.sleep(0.02)
    return value


def ask(_: int) -> str:
    try:
        selfdump.checkpoint()
    except selfdump.Error as error:
        return error.kind
    return "made one"


if __name__ == "__main__":
    if sys.argv[1] == "fork":
        selfdump.install()
    else:
        selfdump.install(copy_files=[selfdump.semaphores()])
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(2) as pool:
        print("children", sorted(set(pool.map(ask, range(8)))), flush=True)
        total = 0
        for step, value in enumerate(pool.imap(work, range(TASKS))):
            total = (total + value) % 2**64
            print("step", step, flush=True)
    print("result", total, flush=True)
