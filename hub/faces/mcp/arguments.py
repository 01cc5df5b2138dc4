"""A tool's arguments, checked against its JSON Schema before anything is done with them."""

from collections.abc import Iterable, Iterator
from typing import Any, cast

import structlog
from jsonschema import Draft202012Validator, SchemaError, ValidationError, validators
from jsonschema.exceptions import UnknownType
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.exceptions import Unresolvable

from interhub.agent_cards import JsonObject

MAX_SHOWN = 5

log = structlog.get_logger()


def _leave_to_the_agent(
    validator: Validator, pattern: object, instance: object, schema: object
) -> Iterator[ValidationError]:
    return iter(())


class ArgumentCheck:
    """Checks arguments against one schema. No `$ref` leaves the process; a schema that is none checks nothing.

    An agent's regular expressions are not run here, where they could stop the hub: the agent runs its own.
    """

    def __init__(self, schema: JsonObject, *, label: str, trusted: bool = False) -> None:
        self._label = label
        self._validator: Validator | None = None
        kind = validators.validator_for(dict(schema), default=Draft202012Validator)
        try:
            kind.check_schema(dict(schema))
        except SchemaError as error:
            log.warning("tool_schema_invalid", tool=label, why=error.message)
            return
        if not trusted:
            kind = cast(Any, validators).extend(kind, {"pattern": _leave_to_the_agent})  # the stubs do not type it
        self._validator = kind(dict(schema), registry=Registry[Any]())

    def problems(self, arguments: JsonObject) -> str:
        """Return what is wrong, each with its path, one to a line; empty when nothing is."""
        if self._validator is None:
            return ""
        try:
            found = list(_first(self._validator.iter_errors(arguments)))
        except (Unresolvable, UnknownType, RecursionError) as error:
            log.warning("tool_schema_unusable", tool=self._label, why=f"{type(error).__name__}: {error}"[:500])
            return ""
        return "\n".join(f"{_path(error)}: {_message(error)}" for error in found)


def _first(errors: Iterable[ValidationError]) -> Iterator[ValidationError]:
    for number, error in enumerate(errors):
        if number == MAX_SHOWN:
            return
        yield error


def _path(error: ValidationError) -> str:
    path = "arguments"
    for key in error.absolute_path:
        path += f"[{key}]" if isinstance(key, int) else f".{key}"
    return path


def _message(error: ValidationError) -> str:
    return error.message if len(error.message) <= 300 else f"{error.message[:300]}..."
