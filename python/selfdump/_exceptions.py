"""Forensic checkpoints at exceptions: to look at with a debugger, and never chosen to go on from."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from types import TracebackType
from typing import Optional

from . import _native
from ._errors import Error

_log = logging.getLogger("selfdump")

_armed = False


class checkpoint_on_exception:
    """Makes a forensic checkpoint when an exception leaves the block, and lets it go on; for ``with``.

    The frames that it came through are still there, with their variables. Only an :class:`Exception` counts:
    ``SystemExit``, ``KeyboardInterrupt`` and ``GeneratorExit`` are no failures. One exception makes one checkpoint, even
    if it passes several such blocks. That the checkpoint failed is logged, and never hides the exception.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        exception: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        _checkpoint(exception)


def arm() -> None:
    """Has each exception that nobody catches make one, in the main thread and in others, before it is reported."""
    global _armed
    if _armed:
        return
    _armed = True
    before, before_in_threads = sys.excepthook, threading.excepthook

    def excepthook(
        kind: type[BaseException], exception: BaseException, trace: Optional[TracebackType]
    ) -> None:
        _checkpoint(exception)
        before(kind, exception, trace)

    def excepthook_in_threads(arguments: threading.ExceptHookArgs) -> None:
        _checkpoint(arguments.exc_value)
        before_in_threads(arguments)

    sys.excepthook = excepthook
    threading.excepthook = excepthook_in_threads


def _checkpoint(exception: Optional[BaseException]) -> None:
    if not isinstance(exception, Exception) or getattr(exception, "_selfdump", False):
        return
    try:
        exception._selfdump = True  # type: ignore[attr-defined]
    except AttributeError:
        # One with __slots__ can't be marked; it may make two.
        pass
    message = "".join(traceback.format_exception_only(type(exception), exception)).strip()
    try:
        _native.checkpoint_exception(message, _location(exception.__traceback__))
    except Error as error:
        # A forked child has none of its own, and never asked for them.
        level = logging.DEBUG if error.kind == "not-installed" else logging.WARNING
        _log.log(level, "no forensic checkpoint: %s", error)


def _location(trace: Optional[TracebackType]) -> Optional[str]:
    """FILE:LINE of the innermost frame."""
    frames = list(traceback.walk_tb(trace))
    if not frames:
        return None
    frame, line = frames[-1]
    return f"{frame.f_code.co_filename}:{line}"
