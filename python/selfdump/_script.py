"""``python -m selfdump._script FILE ARGUMENT…`` or ``… -m MODULE ARGUMENT…``: what ``python -m selfdump run`` starts.

The script runs as it would without us, as ``__main__``. A call of :func:`selfdump.install` in it takes over from what is
installed here.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from types import CodeType, ModuleType
from typing import NoReturn, Optional

from . import _native


def main() -> None:
    words = sys.argv[1:]
    if words[:1] == ["-m"] and len(words) > 1:
        code, module = _module(words[1])
        sys.argv = [str(module.__file__), *words[2:]]
    elif words and words[0] != "-m":
        code, module = _file(words[0])
        sys.argv = words
    else:
        _refuse("there is no script to run: python -m selfdump run [OPTIONS] (SCRIPT.py | -m MODULE) [ARGUMENT]...")
    sys.modules["__main__"] = module
    _native.install_beforehand()
    exec(code, module.__dict__)


def _file(path: str) -> tuple[CodeType, ModuleType]:
    # As `python FILE` has it, in the place of the current folder that `python -m` has put there.
    sys.path[0] = os.path.dirname(os.path.realpath(path))
    path = os.path.abspath(path)
    loader = importlib.machinery.SourceFileLoader("__main__", path)
    try:
        source = loader.get_data(path)
    except OSError as error:
        _refuse(f"can't open {path!r}: {error.strerror}")
    module = _main(path, loader, None)
    return compile(source, path, "exec"), module


def _module(name: str) -> tuple[CodeType, ModuleType]:
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{name}.__main__")
    code: Optional[CodeType] = None
    if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
        code = spec.loader.get_code(spec.name)
    if spec is None or code is None or spec.origin is None:
        _refuse(f"there is no module {name!r} that can be run")
    return code, _main(spec.origin, spec.loader, spec)


def _main(
    file: str, loader: Optional[object], spec: Optional[importlib.machinery.ModuleSpec]
) -> ModuleType:
    module = ModuleType("__main__")
    module.__dict__.update(
        __file__=file,
        __loader__=loader,
        __spec__=spec,
        __package__=None if spec is None else spec.parent,
        __builtins__=__builtins__,
    )
    return module


def _refuse(why: str) -> NoReturn:
    print(f"selfdump: {why}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
