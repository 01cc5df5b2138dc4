"""Values against JSON Schema 2020-12, without ever leaving the process for a `$ref`."""

from collections.abc import Iterable
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry as References
from referencing.exceptions import Unresolvable

from interhub.agent_cards import Json, JsonObject


def problems_of(value: Json, schema: JsonObject) -> tuple[str, ...]:
    """Return what is wrong with a value by a schema, each with its place; nothing when it fits."""
    # A registry with nothing in it: what the schema refers to outside itself is not fetched, but a problem.
    validator = Draft202012Validator(cast("dict[str, Any]", schema), registry=References())
    try:
        found = cast("Iterable[ValidationError]", validator.iter_errors(cast("Any", value)))  # pyright: ignore[reportUnknownMemberType] -- jsonschema's stub leaves a parameter open
        return tuple(_say(error) for error in found)
    except Unresolvable as error:
        return (f"the schema refers to {error.ref!r}, which is outside it",)


def schema_problem(schema: JsonObject) -> str:
    """Return what is wrong with a schema itself; empty when it is one."""
    try:
        Draft202012Validator.check_schema(cast("dict[str, Any]", schema))
    except SchemaError as error:
        where = ".".join(str(part) for part in error.absolute_path)
        return f"not a JSON Schema{f' at {where}' if where else ''}: {error.message}"
    return ""


def _say(error: ValidationError) -> str:
    where = ".".join(str(part) for part in error.absolute_path)
    return f"{where}: {error.message}" if where else error.message
