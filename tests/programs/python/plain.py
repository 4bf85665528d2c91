"""A script that has never heard of selfdump: it adds up, and says what it was started as."""

import pickle
import sys
import time


class Point:
    """One that only a module which is `__main__` can pickle."""


assert pickle.loads(pickle.dumps(Point)) is Point
print("started", __name__, __file__, sys.argv, flush=True)
total = 0
for step in range(int(sys.argv[1])):
    total = total * 31 % 1_000_003 + step
    print("step", step, total, flush=True)
    time.sleep(0.02)
print("result", total, flush=True)
sys.exit(3)
