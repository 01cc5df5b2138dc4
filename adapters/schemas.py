"""Values against JSON Schema, which strangers wrote: no `$ref` leaves the process, and no answer is long.

A schema is of the dialect that its `$schema` names, else of 2020-12.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any, cast

import structlog
from jsonschema import Draft202012Validator, SchemaError, ValidationError
from jsonschema.exceptions import UnknownType, best_match  # pyright: ignore[reportUnknownVariableType]  # see below
from jsonschema.protocols import Validator
from jsonschema.validators import extend, validator_for  # pyright: ignore[reportUnknownVariableType]  # see below
from referencing import Registry
from referencing.exceptions import Unresolvable

from interhub.agent_cards import Json, JsonObject

MAX_SHOWN = 5
"""Problems that are told of one call's arguments."""
MAX_WORDS = 300
"""Characters of one problem."""

log = structlog.get_logger()

# The stubs of jsonschema leave these two untyped.
_best_match = cast("Callable[[Iterator[ValidationError]], ValidationError | None]", best_match)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
_extend = cast("Callable[[type[Validator], Mapping[str, object]], type[Validator]]", extend)  # pyright: ignore[reportUnknownVariableType]


class ArgumentCheck:
    """Checks arguments against one schema, compiled once; a schema that cannot be used lets all pass.

    An agent's regular expressions are not run here, where they could stop the hub: the agent runs its own. `trusted`
    says that the schema is our own. `label` names the tool in the log.
    """

    def __init__(self, schema: JsonObject, *, label: str, trusted: bool = False) -> None:
        self._label = label
        self._validator: Validator | None = None
        kind = _kind(schema)
        try:
            kind.check_schema(dict(schema))
        except SchemaError as error:
            log.warning("tool_schema_invalid", tool=label, why=error.message)
            return
        self._validator = _compiled(kind if trusted else _without_patterns(kind), schema)

    def problem(self, arguments: JsonObject) -> str:
        """Return what is most wrong with the arguments, after its place; empty when nothing is."""
        error = _best_match(iter(self._errors(arguments, limit=None)))
        return "" if error is None else f"{_place(error) or 'arguments'}: {_words(error)}"

    def problems(self, arguments: JsonObject) -> str:
        """Return what is wrong, each after its place, one to a line; empty when nothing is."""
        found = self._errors(arguments, limit=MAX_SHOWN)
        return "\n".join(f"{_place(error, root='arguments')}: {_words(error)}" for error in found)

    def _errors(self, arguments: JsonObject, *, limit: int | None) -> list[ValidationError]:
        if self._validator is None:
            return []
        try:
            return list(islice(self._validator.iter_errors(arguments), limit))
        except (Unresolvable, UnknownType, RecursionError) as error:
            log.warning("tool_schema_unusable", tool=self._label, why=f"{type(error).__name__}: {error}"[:MAX_WORDS])
            return []


def problems_of(value: Json, schema: JsonObject) -> tuple[str, ...]:
    """Return what is wrong with a value by a schema, each after its place; nothing when it fits."""
    try:
        found = list(_compiled(_kind(schema), schema).iter_errors(value))
    except Unresolvable as error:
        return (f"the schema refers to {error.ref!r}, which is outside it",)
    return tuple(f"{place}: {_words(error)}" if (place := _place(error)) else _words(error) for error in found)


def schema_problem(schema: JsonObject) -> str:
    """Return what is wrong with a schema itself; empty when it is one."""
    try:
        _kind(schema).check_schema(dict(schema))
    except SchemaError as error:
        where = ".".join(str(part) for part in error.absolute_path)
        return f"not a JSON Schema{f' at {where}' if where else ''}: {error.message}"
    return ""


def _kind(schema: JsonObject) -> type[Validator]:
    return validator_for(dict(schema), default=Draft202012Validator)


def _compiled(kind: type[Validator], schema: JsonObject) -> Validator:
    # A registry with nothing in it: what the schema refers to outside itself is not fetched.
    return kind(dict(schema), registry=Registry[Any]())


@cache
def _without_patterns(kind: type[Validator]) -> type[Validator]:
    return _extend(kind, {"pattern": _left_to_the_agent})


def _left_to_the_agent(
    validator: object, pattern: object, instance: object, schema: object
) -> Iterator[ValidationError]:
    return iter(())


def _place(error: ValidationError, *, root: str = "") -> str:
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
    return f"{root}{steps}" if root else steps.removeprefix(".")


def _words(error: ValidationError) -> str:
    """Shorten jsonschema's message, which repeats the whole value."""
    if len(error.message) <= MAX_WORDS:
        return error.message
    value = cast("object", error.instance)
    return f"{repr(value)[:80]} does not satisfy {error.validator!r}: {error.message[-160:]}"
