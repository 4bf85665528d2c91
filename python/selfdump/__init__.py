"""Checkpoint a running Python program by a signal, a timer or a call, and bring it back.

A program that has called :func:`install` is dumped while it runs and goes on running. After a crash, a reboot or a
preemption it comes back from its newest good checkpoint, with its process id, its threads, its children, its memory
and its open files, and goes on where it was::

    import selfdump

    selfdump.install(every="10m")          # kill -USR2 PID asks for one as well
    ...
    if selfdump.checkpoint().restored:     # returns twice: here, and in the process that comes back
        ...

At a shell, ``python -m selfdump`` is the whole command: ``list``, ``restore``, ``run``, ``status``, ``setup``. And
``python -m selfdump run --every 10m script.py`` runs a script with nothing changed in it.

The dump is CRIU's (``python -m selfdump setup`` gets one); Linux only. Importing this package installs nothing.
"""

from . import _interpreter as _interpreter
from ._async import checkpoint_async
from ._errors import Error, NoServiceError, NoSpaceError, PermissionDeniedError
from ._exceptions import checkpoint_on_exception
from ._hooks import after_checkpoint, before_checkpoint, on_restore
from ._native import generation
from ._outcome import Outcome
from ._program import checkpoint, hold, uninstall
from ._random import reseed
from ._semaphores import semaphores
from ._settings import Duration, install

__all__ = [
    "Duration",
    "Error",
    "NoServiceError",
    "NoSpaceError",
    "Outcome",
    "PermissionDeniedError",
    "after_checkpoint",
    "before_checkpoint",
    "checkpoint",
    "checkpoint_async",
    "checkpoint_on_exception",
    "generation",
    "hold",
    "install",
    "on_restore",
    "reseed",
    "semaphores",
    "uninstall",
]
