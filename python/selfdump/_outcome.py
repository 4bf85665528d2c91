"""What comes of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Mapping, Optional


@dataclass(frozen=True)
class Outcome:
    """Which of its two returns a checkpoint made, and what is known there."""

    restored: bool
    """Whether this is the process that came back; else it is the one that goes on, and the checkpoint is on disk."""
    id: str
    """NAME/INSTANCE/NUMBER: the checkpoint's path in the store, as ``selfdump restore`` takes it."""
    path: Path
    """Its folder, where it was put when it was made."""
    taken: datetime
    """When it was taken, in UTC."""
    generation: int
    """How many times the process has come back: 1 after the first restore."""
    age: float = 0.0
    """How long ago the checkpoint was taken, in seconds by the clock of this machine; 0 where it was saved just now."""
    size: Optional[int] = None
    """The bytes of everything in it; None in the process that came back."""
    frozen: Optional[float] = None
    """How long the program stood still for it, in seconds; None in the process that came back."""
    same_host: bool = True
    """Whether it is the same machine as at the checkpoint."""
    same_boot: bool = True
    """Whether the machine has not been started anew since."""
    same_pid_namespace: bool = True
    """Whether process ids are counted as they were."""
    settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """What whoever restored it passes in: ``selfdump restore --set KEY=VALUE``."""


def from_native(
    *,
    restored: bool,
    id: str,
    path: Path,
    taken: float,
    generation: int,
    age: float = 0.0,
    size: Optional[int] = None,
    frozen: Optional[float] = None,
    same_host: bool = True,
    same_boot: bool = True,
    same_pid_namespace: bool = True,
    settings: Optional[dict[str, str]] = None,
) -> Outcome:
    return Outcome(
        restored=restored,
        id=id,
        path=Path(path),
        taken=datetime.fromtimestamp(taken, timezone.utc),
        generation=generation,
        age=age,
        size=size,
        frozen=frozen,
        same_host=same_host,
        same_boot=same_boot,
        same_pid_namespace=same_pid_namespace,
        settings=MappingProxyType(settings or {}),
    )
