"""Looks whether this is the main interpreter, before the native part is loaded.

selfdump's thread enters the main interpreter, so the hooks of another would run in the wrong one.
"""

from __future__ import annotations

import importlib


def _is_main() -> bool:
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            interpreters = importlib.import_module(name)
        except ImportError:
            continue
        return bool(interpreters.get_current() == interpreters.get_main())
    return True


if not _is_main():
    raise ImportError("selfdump can't be imported in a subinterpreter: import it in the main one")
