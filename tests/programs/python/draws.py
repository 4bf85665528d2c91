"""What random numbers come next, before and after they are seeded anew."""

import random
import ssl
import sys
import tempfile

import numpy as np

import selfdump

if sys.argv[1] == "reseed":

    @selfdump.on_restore
    def back(_: selfdump.Outcome) -> None:
        selfdump.reseed()


selfdump.install()
random.seed(1)
np.random.seed(1)
ssl.RAND_bytes(1)
tempfile.mktemp()
outcome = selfdump.checkpoint()
if outcome.restored:
    print(
        "drawn",
        random.getrandbits(64),
        int(np.random.randint(2**62)),
        ssl.RAND_bytes(8).hex(),
        tempfile.mktemp(dir=""),
        flush=True,
    )
