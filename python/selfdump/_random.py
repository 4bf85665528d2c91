"""Random numbers after a restore."""

from __future__ import annotations

import os
import random
import sys
import tempfile


def reseed() -> None:
    """Seeds the generators anew that Python programs share, with numbers from the operating system.

    Two processes that come back from one checkpoint would otherwise draw the same numbers. Meant for
    :func:`selfdump.on_restore`, by those whose numbers have to differ; a simulation that is to end as if it had never
    been interrupted leaves it out.

    Seeded are ``random``'s own functions (and with them ``uuid.uuid1`` and ``tempfile``'s names), the functions of
    ``numpy.random`` and the generator of ``ssl``, where those are imported. ``os.urandom``, ``secrets`` and ``uuid.uuid4`` ask
    the operating system each time. Generators of the program's own (``random.Random()``,
    ``numpy.random.default_rng()``) are its own to seed.
    """
    random.seed()
    # Its generator would be seeded anew only in another process.
    tempfile._name_sequence = None  # type: ignore[attr-defined]
    # What isn't imported has drawn nothing yet.
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed()
    if ssl := sys.modules.get("ssl"):
        ssl.RAND_add(os.urandom(64), 64.0)
