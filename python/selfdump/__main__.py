"""``python -m selfdump``: the command."""

from __future__ import annotations

import signal
import subprocess
import sys

from . import _native


def main() -> int:
    # What Python does with these is not for the command, nor for what it starts.
    for number in (signal.SIGINT, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    python = [sys.executable, *subprocess._args_from_interpreter_flags()]  # type: ignore[attr-defined]
    return _native.main(sys.argv[1:], [*python, "-m", "selfdump"], [*python, "-m", "selfdump._script"])


if __name__ == "__main__":
    sys.exit(main())
