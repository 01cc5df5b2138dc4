"""Finds the user's agent in the user's file."""

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


class Unusable(Exception):
    """The target is not an agent of this framework; says why, and what would be."""


def split_target(target: str) -> tuple[str, str]:
    """Return the file or module, and the name in it, which may be missing."""
    place, colon, attr = target.rpartition(":")
    return (place, attr) if colon and not attr.endswith(".py") else (target, "")


def import_target(target: str) -> tuple[ModuleType, str]:
    """Import `/path/file.py:attr` or `module:attr`; return the module and the attribute's name, empty when not given.

    The file's folder is put on the path first, so that what lies beside it can be imported.
    """
    place, attr = split_target(target)
    if not place.endswith(".py"):
        sys.path.insert(0, os.getcwd())
        return importlib.import_module(place), attr
    path = Path(place).resolve()
    sys.path.insert(0, str(path.parent))
    # The file's own name, so that what it pickles or checkpoints is found again by the next process.
    name = path.stem if path.stem.isidentifier() and path.stem not in sys.modules else f"agent_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise Unusable(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module, attr


def find_target(module: ModuleType, attr: str, is_agent: Callable[[Any], bool], noun: str) -> Any:
    """Return the attribute, or without a name the only agent that the module holds."""
    place = getattr(module, "__file__", None) or module.__name__
    if attr:
        found: Any = module
        for name in attr.split("."):
            if not hasattr(found, name):
                near = ", ".join(name for name in vars(module) if is_agent(vars(module)[name])) or "none"
                raise Unusable(f"{place} has no {attr!r}; of {noun} it has: {near}")
            found = getattr(found, name)
        return found
    names = [name for name, value in vars(module).items() if is_agent(value)]
    if len({id(vars(module)[name]) for name in names}) == 1:
        return vars(module)[names[0]]
    raise Unusable(f"{place} has {', '.join(names) or 'nothing'} of {noun}; name one: {place}:NAME")


def summary(doc: str | None) -> str:
    """Return a docstring's first paragraph as one line."""
    return " ".join((doc or "").strip().split("\n\n")[0].split())


def place_of(error: BaseException, target: str) -> str:
    """Say where in the user's own file an import failed, as the traceback's last line there."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}, line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    folder = str(Path(split_target(target)[0]).parent)
    own = [frame for frame in frames if frame.filename.startswith(folder) and "site-packages" not in frame.filename]
    return f" ({own[-1].filename}, line {own[-1].lineno}: {own[-1].line})" if own else ""
