"""The settings, and installing with them."""

from __future__ import annotations

import atexit
import os
import signal as signals
import sys
from datetime import timedelta
from typing import Iterable, Optional, Union

from . import _exceptions, _hooks, _native

Duration = Union[float, timedelta, str]
"""A time: seconds as a number, a :class:`datetime.timedelta`, or text such as ``"30s"``, ``"10m"``, ``"1h 30m"``."""

_Path = Union[str, "os.PathLike[str]"]
_Signal = Union[int, signals.Signals, str]
_Value = Union[None, bool, float, str, timedelta, "os.PathLike[str]", Iterable[str]]


def install(
    *,
    dir: Optional[_Path] = None,
    name: Optional[str] = None,
    every: Optional[Duration] = None,
    keep: Optional[int] = None,
    signal: Optional[_Signal] = None,
    on_exception: bool = False,
    keep_forensic: Optional[int] = None,
    exit_signal: Optional[_Signal] = None,
    exit_status: Optional[int] = None,
    jitter: Optional[Duration] = None,
    overhead: Optional[Union[float, str]] = None,
    mtbf: Optional[Duration] = None,
    first_after: Optional[Duration] = None,
    min_interval: Optional[Duration] = None,
    hold_timeout: Optional[Duration] = None,
    files: Optional[Iterable[str]] = None,
    copy_files: Optional[Iterable[str]] = None,
    copy_limit: Optional[Union[int, str]] = None,
    copy_open: Optional[Union[int, str]] = None,
    keep_tcp: Optional[bool] = None,
    encrypt_to: Optional[Iterable[str]] = None,
    staging: Optional[_Path] = None,
    snapshot: Optional[str] = None,
    incremental: Optional[bool] = None,
    compress: Optional[str] = None,
    max_pause: Optional[Duration] = None,
    huge_pages: Optional[bool] = None,
    metrics_textfile: Optional[_Path] = None,
    on_panic: Optional[bool] = None,
    on_fatal_signal: Optional[bool] = None,
    timeout: Optional[Duration] = None,
    criu: Optional[_Path] = None,
    service: Optional[_Path] = None,
) -> None:
    """Has this process checkpointed, from here on: by the signal, by the schedule, and by :func:`checkpoint`.

    What is left out is as the variable ``SELFDUMP_NAME_OF_THE_SETTING`` says, else as the default is. A
    :data:`Duration` is a number of seconds, a timedelta, or text such as ``"10m"``.

    :param dir: the store (``/var/lib/selfdump`` as root, else ``~/.local/state/selfdump``).
    :param name: what the checkpoints are found under (the script's file name): letters, digits, ``.``, ``_``, ``-``.
    :param every: a checkpoint in each period (none).
    :param keep: how many checkpoints stay, from 1 (3).
    :param signal: asks for a checkpoint, by number or name (``"USR2"``). It is handled by native code, also while
        Python is busy in an extension; a handler that Python had for it before still runs.
    :param on_exception: a forensic checkpoint at each exception that nobody catches, in any thread.
    :param keep_forensic: how many forensic checkpoints stay (3).
    :param exit_signal: asks for a checkpoint, and ends the program when it is on disk (none).
    :param exit_status: the exit status it then ends with, 0 to 255 (0); at once, without ``atexit``.
    :param jitter: how much longer, at random, each period of ``every`` may be (0).
    :param overhead: instead of ``every``: as often as keeps pauses under this share of the time, ``0.01`` or ``"1%"``.
    :param mtbf: instead of ``every``: what loses least to failures that come once in this time.
    :param first_after: when the schedule's first checkpoint comes, from now.
    :param min_interval: the least time between checkpoints by signal or schedule (0).
    :param hold_timeout: how long a checkpoint waits for :func:`hold` (60 s).
    :param files: rules ``POLICY:PATTERN`` for files that have changed at a restore: ``["rewind:*.csv"]``.
    :param copy_files: files that are copied into each checkpoint, and put back before a restore: ``["/data/app.db*"]``.
    :param copy_limit: the most bytes that the copies may take together, ``2 << 30`` or ``"2 GiB"`` (1 GiB).
    :param copy_open: how many bytes spare copies may take, of other files that are open to be written in (0; 32 MiB
        under ``python -m selfdump run``).
    :param keep_tcp: whether TCP connections are dumped so that ``restore --tcp keep`` can keep them (no).
    :param encrypt_to: who can read the checkpoints, recipients of age (``age1…``) and files of them, with a slash in their
        paths. Without the identity of one of them nobody can, ever (none: not encrypted).
    :param staging: ``"auto"``, or a folder in memory: where CRIU writes while the program stands still, from where it is
        moved to the store afterwards (``"off"``: to the store).
    :param snapshot: ``"auto"`` or ``"cow"``: the program stands still only until there is a copy-on-write copy of it, which
        CRIU dumps while it runs on; where none can be made, it stands still as ever, or (``"cow"``) isn't checkpointed
        (``"freeze"``).
    :param incremental: whether memory that is as it was at the checkpoint before is stored with that one alone (yes).
    :param compress: ``"zstd"`` or ``"zstd:LEVEL"``: pages of memory are compressed when the script runs again (``"off"``).
    :param max_pause: how long the program may stand still for a checkpoint, ``"50ms"`` or seconds: memory is written ahead
        while it runs, where the kernel can tell which pages change (none).
    :param huge_pages: ``False`` has the kernel give this process, and those that it starts, no transparent huge pages,
        which stand in the way of ``max_pause`` (yes).
    :param metrics_textfile: a file that is written for node_exporter's textfile collector, ``/…/app.prom`` (none).
    :param on_panic: a forensic checkpoint at each panic of selfdump's own Rust code. ``on_exception`` is Python's.
    :param on_fatal_signal: a forensic checkpoint at SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, of extensions mostly.
    :param timeout: how long CRIU may take to answer (10 min).
    :param criu: the CRIU program to start (``criu`` on PATH, else the copy of ``python -m selfdump setup``).
    :param service: the socket of a ``criu service`` to ask instead.
    :raises Error: of the kind ``"config"`` for a value that a setting can't have, ``"already-installed"`` for a second
        call in one process. CRIU isn't looked for before it is needed.
    """
    settings: dict[str, _Value] = {
        "dir": dir,
        "name": name,
        "every": every,
        "keep": keep,
        "signal": signal,
        "keep_forensic": keep_forensic,
        "exit_signal": exit_signal,
        "exit_status": exit_status,
        "jitter": jitter,
        "overhead": None if overhead is None else str(overhead),
        "mtbf": mtbf,
        "first_after": first_after,
        "min_interval": min_interval,
        "hold_timeout": hold_timeout,
        "files": files,
        "copy_files": copy_files,
        "copy_limit": copy_limit,
        "copy_open": copy_open,
        "keep_tcp": keep_tcp,
        "encrypt_to": encrypt_to,
        "staging": staging,
        "snapshot": snapshot,
        "incremental": incremental,
        "compress": compress,
        "max_pause": max_pause,
        "huge_pages": huge_pages,
        "metrics_textfile": metrics_textfile,
        "on_panic": on_panic,
        "on_fatal_signal": on_fatal_signal,
        "timeout": timeout,
        "criu": criu,
        "service": service,
    }
    texts = [(key, _text(value)) for key, value in settings.items() if value is not None]
    if ("encrypt_to", "") in texts:
        raise ValueError("encrypt_to names nobody: name a recipient, or None for checkpoints that are not encrypted")
    _native.install(texts, _script(), _hooks)
    # A program may install once more: what has to be closed is then the latest.
    atexit.unregister(_native.close)
    atexit.register(_native.close)
    if on_exception:
        _exceptions.arm()


def _text(value: _Value) -> str:
    """A value as the setting's variable takes it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return f"{round(value * 1e9)}ns"
    if isinstance(value, timedelta):
        return f"{value // timedelta(microseconds=1)}us"
    if isinstance(value, str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return " ".join(_word(word) for word in value or ())


def _word(pattern: str) -> str:
    if not pattern or any(letter.isspace() for letter in pattern):
        raise ValueError(f"a pattern can't hold blanks, put a '?' in the place of each: {pattern!r}")
    return pattern


def _script() -> Optional[str]:
    """What the program is called after: its script or module. Where there is neither, the interpreter stands for it."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        name: str = spec.name
        return name[: -len(".__main__")] if name.endswith(".__main__") else name
    file: Optional[str] = getattr(main, "__file__", None)
    return file
