"""Finds the adapters: our own, and those that other packages announce under the entry point `interhub.adapters`.

An entry point is named as the adapter is, and leads to an adapter, or to a class or function that makes one without
arguments.
"""

import inspect
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import cast

import structlog

from .base import Adapter

GROUP = "interhub.adapters"
"""The entry point group under which packages announce adapters."""

_log = structlog.get_logger(__name__)


def load_adapters(
    built_in: Mapping[str, Adapter], *, plug_ins: Iterable[EntryPoint] | None = None
) -> Mapping[str, Adapter]:
    """Return the built-in adapters and those of installed packages, by name.

    A package cannot replace a built-in adapter, and one whose adapter does not load is logged and left out: a plug-in
    never stops the hub. `plug_ins` stands in for what is installed.
    """
    found: dict[str, Adapter] = dict(built_in)
    for point in entry_points(group=GROUP) if plug_ins is None else plug_ins:
        if point.name in found:
            _log.warning("adapter_plug_in_ignored", adapter=point.name, module=point.value, why="the name is taken")
            continue
        try:
            found[point.name] = _make(point)
        except Exception as error:  # a plug-in's import may raise anything; the hub starts without it
            _log.exception("adapter_plug_in_broken", adapter=point.name, module=point.value, why=str(error))
    return found


def _make(point: EntryPoint) -> Adapter:
    target: object = point.load()
    made: object = target() if inspect.isclass(target) or inspect.isfunction(target) else target
    missing = [verb for verb in ("describe", "connect") if not callable(getattr(made, verb, None))]
    if missing or not isinstance(getattr(made, "name", None), str):
        lacks = ", ".join([*missing, *([] if isinstance(getattr(made, "name", None), str) else ["name"])])
        raise TypeError(f"{point.value} is not an adapter: it lacks {lacks}")
    return cast("Adapter", made)
