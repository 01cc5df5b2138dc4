"""Checks a call's arguments against a capability's JSON Schema before they are sent."""

from collections.abc import Mapping
from typing import Any, cast

import structlog
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from interhub.agent_cards import JsonObject

log = structlog.get_logger()


class ArgumentCheck:
    """A schema, compiled once. Nothing it refers to is fetched; one that cannot be used lets everything pass."""

    def __init__(self, schema: JsonObject) -> None:
        self._validator: Any = None
        kind = validator_for(cast(Any, schema), default=Draft202012Validator)
        try:
            kind.check_schema(cast(Any, schema))
            self._validator = kind(cast(Any, schema), registry=Registry[Any]())
        except (SchemaError, Unresolvable) as error:
            log.warning("schema_unusable", why=str(error).splitlines()[0])

    def wrong(self, arguments: JsonObject) -> str | None:
        """Say what is wrong with the arguments, and where; None when nothing is."""
        if self._validator is None:
            return None
        try:
            error: ValidationError | None = best_match(self._validator.iter_errors(arguments))
        except Unresolvable as unresolvable:
            log.warning("schema_unresolvable", why=str(unresolvable))
            return None
        if error is None:
            return None
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path).lstrip(".")
        return f"{path or 'arguments'}: {_words(error)}"


def _words(error: ValidationError) -> str:
    """Shorten jsonschema's message, which repeats the whole value."""
    message = error.message
    if len(message) <= 300:
        return message
    value = type(error.instance).__name__ if isinstance(error.instance, Mapping | list) else repr(error.instance)[:80]
    return f"{value} does not satisfy {error.validator!r}: {message[-160:]}"
