"""Checks a call's arguments against a capability's JSON Schema before they are sent."""

from collections.abc import Callable, Iterator, Mapping
from typing import cast

import structlog
from jsonschema import Draft202012Validator, SchemaError, ValidationError
from jsonschema.exceptions import UnknownType, best_match  # pyright: ignore[reportUnknownVariableType]  # see below
from jsonschema.protocols import Validator
from jsonschema.validators import extend, validator_for  # pyright: ignore[reportUnknownVariableType]  # see below
from referencing import Registry
from referencing.exceptions import Unresolvable

from interhub.agent_cards import JsonObject

log = structlog.get_logger()

# The stubs of jsonschema leave these two untyped.
_best_match = cast("Callable[[Iterator[ValidationError]], ValidationError | None]", best_match)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
_extend = cast("Callable[[type[Validator], Mapping[str, object]], type[Validator]]", extend)  # pyright: ignore[reportUnknownVariableType]


def _left_to_the_server(
    validator: object, pattern: object, instance: object, schema: object
) -> Iterator[ValidationError]:
    return iter(())


class ArgumentCheck:
    """A schema, compiled once. Nothing it refers to is fetched, and its regular expressions are not run.

    A server's expressions could stop the hub; the server runs its own. A schema that cannot be used lets all pass.
    """

    def __init__(self, schema: JsonObject) -> None:
        self._validator: Validator | None = None
        kind = validator_for(dict(schema), default=Draft202012Validator)
        try:
            kind.check_schema(dict(schema))
        except SchemaError as error:
            log.warning("mcp_schema_invalid", why=error.message)
            return
        safe = _extend(kind, {"pattern": _left_to_the_server})
        self._validator = safe(dict(schema), registry=Registry())  # pyright: ignore[reportUnknownArgumentType]  # its own

    def wrong(self, arguments: JsonObject) -> str | None:
        """Say what is wrong with the arguments, and where; None when nothing is."""
        if self._validator is None:
            return None
        try:
            error = _best_match(self._validator.iter_errors(arguments))
        except (Unresolvable, UnknownType, RecursionError) as unusable:
            log.warning("mcp_schema_unusable", why=f"{type(unusable).__name__}: {unusable}"[:300])
            return None
        if error is None:
            return None
        steps = tuple(error.absolute_path)
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
        return f"{path or 'arguments'}: {_words(error)}"


def _words(error: ValidationError) -> str:
    """Shorten jsonschema's message, which repeats the whole value."""
    if len(error.message) <= 300:
        return error.message
    value = cast("object", error.instance)
    return f"{repr(value)[:80]} does not satisfy {error.validator!r}: {error.message[-160:]}"
