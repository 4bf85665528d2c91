"""A script that installs selfdump itself, also where it is run by `python -m selfdump run`."""

import sys

import selfdump

selfdump.install(keep=1)
outcome = selfdump.checkpoint()
if not outcome.restored:
    # Once it is told to.
    sys.stdin.read()
print("outcome", outcome.restored, outcome.generation, flush=True)
