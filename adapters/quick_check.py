"""A quick yes for values that certainly fit a schema of the plain kind, as most tools' arguments do.

Knows the few keywords that nearly all tools use, and says nothing about the rest: what it does not say yes to is for
the full validator, so that a mistake here could only be a wrong yes. `tests/adapters/test_quick_check.py` holds it
against the validator.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, cast

Fits: TypeAlias = Callable[[object], bool]
"""True: the value fits. False: ask the full validator."""

_SILENT = frozenset(
    {"$comment", "$schema", "default", "deprecated", "description", "examples", "readOnly", "title", "writeOnly"}
)
"""Keywords that refuse nothing."""
_DIALECTS = frozenset(
    {
        "http://json-schema.org/draft-07/schema#",
        "https://json-schema.org/draft/2019-09/schema",
        "https://json-schema.org/draft/2020-12/schema",
    }
)
_KNOWN: Mapping[str, frozenset[str]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items"}),
    "string": frozenset({"enum"}),
    "integer": frozenset(),
    "number": frozenset(),
    "boolean": frozenset(),
    "null": frozenset(),
}
_DEEPEST = 16


def quick_check(schema: object, depth: int = 0) -> Fits | None:
    """Return the check for a schema; None where there is more in it than is known here."""
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return None
    fields = cast("Mapping[str, object]", schema)
    kind = fields.get("type")
    if not isinstance(kind, str) or kind not in _KNOWN or fields.get("$schema", "") not in {"", *_DIALECTS}:
        return None
    if not fields.keys() - {"type"} - _SILENT <= _KNOWN[kind]:
        return None
    match kind:
        case "object":
            return _object(fields, depth)
        case "array":
            return _array(fields, depth)
        case "string":
            return _string(fields)
        case "integer":
            return lambda value: type(value) is int
        case "number":
            return lambda value: type(value) in (int, float)
        case "boolean":
            return lambda value: type(value) is bool
        case _:
            return lambda value: value is None


def _object(schema: Mapping[str, object], depth: int) -> Fits | None:
    properties, required = schema.get("properties", {}), schema.get("required", [])
    open_ended = schema.get("additionalProperties", True)
    if not isinstance(properties, Mapping) or not isinstance(required, list) or not isinstance(open_ended, bool):
        return None
    checks: dict[str, Fits] = {}
    for name, inner in cast("Mapping[str, object]", properties).items():
        check = quick_check(inner, depth + 1)
        if check is None:
            return None
        checks[name] = check
    needed = frozenset(cast("Sequence[str]", required))

    def fits(value: object) -> bool:
        if not isinstance(value, dict):
            return False
        given = cast("dict[str, object]", value)
        if not needed <= given.keys():
            return False
        for name, each in given.items():
            check = checks.get(name)
            if check is None:
                if not open_ended:
                    return False
            elif not check(each):
                return False
        return True

    return fits


def _array(schema: Mapping[str, object], depth: int) -> Fits | None:
    if "items" not in schema:
        return lambda value: isinstance(value, list)
    check = quick_check(schema["items"], depth + 1)
    if check is None:
        return None
    return lambda value: isinstance(value, list) and all(map(check, cast("list[object]", value)))


def _string(schema: Mapping[str, object]) -> Fits | None:
    choices = schema.get("enum")
    if choices is None:
        return lambda value: isinstance(value, str)
    if not isinstance(choices, list):
        return None
    allowed = frozenset(each for each in cast("list[object]", choices) if isinstance(each, str))
    return lambda value: isinstance(value, str) and value in allowed
