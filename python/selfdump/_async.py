"""Checkpoints of a program with an event loop."""

from __future__ import annotations

import asyncio

from ._outcome import Outcome
from ._program import checkpoint


async def checkpoint_async() -> Outcome:
    """As :func:`selfdump.checkpoint`, without holding up the event loop: a thread of asyncio's waits for it.

    :raises Error: as :func:`selfdump.checkpoint` does.
    """
    return await asyncio.to_thread(checkpoint)
