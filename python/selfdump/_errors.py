"""The errors of the package."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Sequence


class Error(Exception):
    """What went wrong, and what to do about it. A program whose checkpoint fails is as it was, and goes on.

    :ivar kind: what kind of thing went wrong, in a word to compare with: ``"no-criu"``, ``"descriptor"``,
        ``"already-installed"``. All of them are listed in docs/python.md.
    :ivar hint: what to do about it, where that is known.
    :ivar criu: the lines of CRIU's log that matter, the cause first; empty where it wasn't CRIU that failed.
    :ivar log: CRIU's log, where it was kept.
    """

    def __init__(
        self,
        message: str,
        kind: str = "io",
        hint: Optional[str] = None,
        criu: Sequence[str] = (),
        log: Optional[Path] = None,
    ) -> None:
        super().__init__(message, kind, hint, criu, log)
        self.message = message
        self.kind = kind
        self.hint = hint
        self.criu = tuple(criu)
        self.log = log

    def __str__(self) -> str:
        lines = [self.message, *(f"  criu: {line}" for line in self.criu)]
        if self.log is not None:
            lines.append(f"  log: {self.log}")
        if self.hint is not None:
            lines.append(f"  help: {self.hint}")
        return "\n".join(lines)


class NoServiceError(Error):
    """There is no CRIU to ask: none was found (``no-criu``), nothing answers at the socket (``no-service``)."""


class PermissionDeniedError(Error):
    """This user may not do it (``permission``), or CRIU lacks a capability for it (``capability-missing``)."""


class NoSpaceError(Error):
    """The disk is full, or too small for the checkpoint (``no-space``)."""


_CLASSES: dict[str, type[Error]] = {
    "no-criu": NoServiceError,
    "no-service": NoServiceError,
    "permission": PermissionDeniedError,
    "capability-missing": PermissionDeniedError,
    "no-space": NoSpaceError,
}


def from_native(
    kind: str, message: str, hint: Optional[str], criu: Sequence[str], log: Optional[Path]
) -> Error:
    return _CLASSES.get(kind, Error)(message, kind, hint, criu, log)


def not_installed() -> Error:
    return Error(
        "selfdump is not installed in this program",
        "not-installed",
        "call selfdump.install() first",
    )
