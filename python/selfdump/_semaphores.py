"""The semaphores of multiprocessing, where its processes are started by ``spawn`` or ``forkserver``."""

from __future__ import annotations

import secrets
from typing import Any, Optional

_pattern: Optional[str] = None


def semaphores() -> str:
    """The pattern for ``copy_files`` that has multiprocessing's semaphores come back, for ``spawn`` and ``forkserver``::

        selfdump.install(copy_files=[selfdump.semaphores()])

    Their processes share semaphores through files in ``/dev/shm``, which a checkpoint has to hold: when the program is
    killed, multiprocessing's own tracker removes them. Call it before anything of multiprocessing is made. What is
    made by ``fork`` needs none of this, nor do ``threading``'s locks.

    From here on semaphores are made with names of this process's own, so that the pattern matches no other program's,
    and opened by those names: otherwise the one who makes a semaphore would have it by a name that is gone by then,
    and which CRIU can't find.
    """
    global _pattern
    if _pattern is None:
        _pattern = _name_them()
    return _pattern


def _name_them() -> str:
    # Imported for those alone who ask for it.
    from multiprocessing import process, synchronize

    prefix = f"mp-{secrets.token_hex(4)}"
    config: dict[str, Any] = process.current_process()._config  # type: ignore[attr-defined]
    config["semprefix"] = f"/{prefix}"
    make = synchronize.SemLock.__init__

    def make_and_open(self: Any, *arguments: Any, **named: Any) -> None:
        make(self, *arguments, **named)
        if self._semlock.name is not None:
            _open_by_name(self)

    synchronize.SemLock.__init__ = make_and_open  # type: ignore[method-assign]
    return f"/dev/shm/sem.{prefix}-*"


def _open_by_name(lock: Any) -> None:
    made = lock._semlock
    state = (made.handle, made.kind, made.maxvalue, made.name)
    rebuild = type(made)._rebuild
    # It is closed with the last reference; before that, the C library would give back what is open.
    del made, lock.acquire, lock.release
    lock._semlock = None
    lock._semlock = rebuild(*state)
    lock._make_methods()
