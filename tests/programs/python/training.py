"""A training loop in numpy, with a fixed seed and threads of its BLAS: linear regression by gradient descent."""

import sys
import time

import numpy as np

import selfdump

STEPS = int(sys.argv[1])

selfdump.install()
generator = np.random.default_rng(7)
np.random.seed(7)
truth = generator.normal(size=(100, 100))
weights = np.zeros_like(truth)
for step in range(STEPS):
    inputs = generator.normal(size=(200, 100))
    noise = np.random.normal(scale=0.01, size=(200, 100))
    error = inputs @ weights - (inputs @ truth + noise)
    weights -= 0.1 * inputs.T @ error / len(inputs)
    print("step", step, flush=True)
    time.sleep(0.01)
print("result", weights.tobytes().hex()[:64], float(abs(weights - truth).max()), flush=True)
