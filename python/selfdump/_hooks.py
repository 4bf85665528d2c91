"""Functions of the program that are called around its checkpoints.

They run in a thread of selfdump's own, which takes the interpreter's lock for that. They may be added at any time, before
:func:`selfdump.install` too.
"""

from __future__ import annotations

import logging
from typing import Callable, TypeVar, Union

from . import _native
from ._errors import Error
from ._outcome import Outcome

_log = logging.getLogger("selfdump")

_Before = TypeVar("_Before", bound=Callable[[str], object])
_After = TypeVar("_After", bound=Callable[[Union[Outcome, Error]], object])
_Restored = TypeVar("_Restored", bound=Callable[[Outcome], object])

_before: list[Callable[[str], object]] = []
_after: list[Callable[[Union[Outcome, Error]], object]] = []
_restored: list[Callable[[Outcome], object]] = []


def before_checkpoint(hook: _Before) -> _Before:
    """Has a function called before each checkpoint, while the program still runs; a decorator.

    It is given the cause as text: ``"call"``, ``"timer"``, or the name of a signal. An exception of it is a veto: no
    checkpoint is made, and who asked gets an :class:`Error` of the kind ``"vetoed"`` with the exception's text.
    Forensic checkpoints don't ask.
    """
    _before.append(hook)
    _native.want("before")
    return hook


def after_checkpoint(hook: _After) -> _After:
    """Has a function called after each attempt at a checkpoint, in the process that goes on; a decorator.

    It is given the :class:`Outcome`, or the :class:`Error` of an attempt that failed, before anybody who waits for it.
    An exception of it is logged.
    """
    _after.append(hook)
    _native.want("after")
    return hook


def on_restore(hook: _Restored) -> _Restored:
    """Has a function called in each process that comes back from a checkpoint; a decorator.

    It is given the :class:`Outcome`, before anybody who waits for that checkpoint goes on. Other threads run on
    from where they were meanwhile. An exception of it is logged. This is the place for :func:`selfdump.reseed`.
    """
    _restored.append(hook)
    _native.want("restored")
    return hook


def before(cause: str) -> None:
    """Called by the native side; its exception is the veto."""
    for hook in list(_before):
        hook(cause)


def after(cause: str, what: Union[Outcome, Error]) -> None:
    """Called by the native side."""
    if isinstance(what, Error):
        _log.error("no checkpoint (%s): %s", cause, what)
    for hook in list(_after):
        try:
            hook(what)
        except Exception:
            _log.exception("a hook for the time after a checkpoint failed")


def restored(outcome: Outcome) -> None:
    """Called by the native side."""
    for hook in list(_restored):
        try:
            hook(outcome)
        except Exception:
            _log.exception("a hook for restores failed")
