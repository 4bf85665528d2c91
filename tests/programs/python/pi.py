"""A Monte Carlo job in pure Python: an estimate of pi, from a fixed seed."""

import random
import sys
import time

import selfdump

ROUNDS = int(sys.argv[1])

selfdump.install()
random.seed(20)
inside = 0
for step in range(ROUNDS):
    for _ in range(5_000):
        inside += random.random() ** 2 + random.random() ** 2 < 1
    print("step", step, inside, flush=True)
    time.sleep(0.01)
print("result", inside, flush=True)
