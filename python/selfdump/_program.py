"""What a program does with its checkpoints, once it has installed them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator

from . import _native
from ._outcome import Outcome


def checkpoint() -> Outcome:
    """Makes a checkpoint and waits for it. It returns twice.

    In the process that goes on it returns once the checkpoint is on disk (``restored`` is False), and in each process
    that comes back from it, perhaps much later (``restored`` is True). Other threads run meanwhile, but for the time in
    which the program stands still. Calls that come together share one checkpoint.

    A signal that Python handles is handled: KeyboardInterrupt ends the wait. The checkpoint that was asked for is made
    all the same.

    :raises Error: whatever kept the checkpoint from being made; its ``kind`` and ``hint`` say what. ``"not-installed"``
        without :func:`install`, and in a forked child; ``"inside-hook"`` in a hook; ``"held"`` in a thread that is in
        :func:`hold`.
    """
    return _native.checkpoint()


@contextmanager
def hold() -> Iterator[None]:
    """Keeps checkpoints from beginning: around what must not be cut in two, for ``with``.

    Those that are asked for meanwhile wait, for ``hold_timeout`` at most. Waits itself while the program is about to be
    dumped. It belongs to the thread that it is entered in.

    :raises Error: of the kind ``"held"`` where a checkpoint is under way for longer than ``hold_timeout``,
        ``"inside-hook"`` in a hook, ``"not-installed"`` as :func:`checkpoint`.
    """
    _native.hold()
    try:
        yield
    finally:
        _native.release()


def uninstall() -> None:
    """Takes selfdump out of this process again: the signals do what they did before, and its thread has ended.

    A checkpoint that is under way is finished first. :func:`install` can be called again.

    :raises Error: of the kind ``"inside-hook"`` in a hook, ``"not-installed"`` as :func:`checkpoint`.
    """
    _native.uninstall()
