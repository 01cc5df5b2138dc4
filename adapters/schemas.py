"""Values against JSON Schema, which strangers wrote: no `$ref` leaves the process, and no answer is long.

A schema is of the dialect that its `$schema` names, else of 2020-12. What a stranger's schema may cost is bounded: its
regular expressions run on an engine that takes linear time (what that cannot read is left to the agent, which checks
its own arguments), it may not refer without end, nor be larger than any that is of use.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache, lru_cache
from itertools import islice
from typing import Any, cast

import orjson
import structlog
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import UnknownType, best_match  # pyright: ignore[reportUnknownVariableType]  # see below
from jsonschema.protocols import Validator
from jsonschema.validators import extend, validator_for  # pyright: ignore[reportUnknownVariableType]  # see below
from pydantic_core import SchemaError as PatternError
from pydantic_core import SchemaValidator, core_schema
from referencing import Registry
from referencing.exceptions import Unresolvable

from interhub.agent_cards import Json, JsonObject

from .quick_check import quick_check

MAX_SHOWN = 5
"""Problems that are told of one call's arguments."""
MAX_WORDS = 300
"""Characters of one problem."""
MAX_SCHEMA_BYTES = 256 * 1024
"""A larger schema of a stranger's is not used: checking the schema itself would take seconds."""
MAX_REFERENCES = 20_000
"""References that one check follows. A few nested ones stand for billions of steps."""
MAX_STEPS = 200_000
"""Parts of a value that one check looks at, each as often as the schema does: about a second."""
MAX_PATTERN = 2_000
"""Characters of a regular expression that is run; a longer one is left to the agent."""

log = structlog.get_logger()

# The stubs of jsonschema leave these two untyped.
_best_match = cast("Callable[[Iterator[ValidationError]], ValidationError | None]", best_match)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
_extend = cast("Callable[[type[Validator], Mapping[str, object]], type[Validator]]", extend)  # pyright: ignore[reportUnknownVariableType]


_MOST_WEIGHED = 1000
"""Problems that are compared to find the worst."""
_STEPPING = (
    *("properties", "additionalProperties", "patternProperties", "propertyNames", "required", "dependentSchemas"),
    *("items", "prefixItems", "additionalItems", "contains", "uniqueItems", "unevaluatedItems", "enum", "const"),
    *("allOf", "anyOf", "oneOf", "not", "if"),
)
"""Keywords whose cost grows with the value, or that multiply one another's."""
_UNUSABLE = (
    *(Unresolvable, UnknownType, RecursionError, ArithmeticError),
    *(AttributeError, LookupError, TypeError, ValueError, re.error),
)
"""What jsonschema raises over a schema that its metaschema should have refused, or that refers to nothing."""
_left: ContextVar[list[int]] = ContextVar("schema_check_left")
"""References, and steps, that the check may still take."""


class ArgumentCheck:
    """Checks arguments against one schema, compiled once; a schema that cannot be used lets all pass.

    `trusted` says that the schema is our own. `label` names the tool in the log.
    """

    def __init__(self, schema: JsonObject, *, label: str, trusted: bool = False) -> None:
        self._label = label
        self._validator: Validator | None = None
        self._fits = quick_check(schema)
        if why := schema_problem(schema):
            log.warning("tool_schema_invalid", tool=label, why=why)
            return
        self._validator = _compiled(_kind(schema, trusted=trusted), schema)

    def problem(self, arguments: Json, *, root: str = "arguments") -> str:
        """Return what is most wrong with the arguments, after its place; empty when nothing is."""
        error = _best_match(iter(self._errors(arguments, limit=_MOST_WEIGHED)))
        return "" if error is None else f"{_place(error) or root}: {_words(error)}"

    def problems(self, arguments: JsonObject) -> str:
        """Return what is wrong, each after its place, one to a line; empty when nothing is."""
        found = self._errors(arguments, limit=MAX_SHOWN)
        return "\n".join(f"{_place(error, root='arguments')}: {_words(error)}" for error in found)

    def _errors(self, arguments: Json, *, limit: int | None) -> list[ValidationError]:
        if self._validator is None or (self._fits is not None and self._fits(arguments)):
            return []
        try:
            return _found(self._validator, arguments, limit=limit)
        except _UNUSABLE as error:
            log.warning("tool_schema_unusable", tool=self._label, why=f"{type(error).__name__}: {error}"[:MAX_WORDS])
            return []


class ResultCheck:
    """Checks an agent's structured results against the schema that it promised; one that cannot be used lets all pass.

    What the schema is, and what checking costs, is bounded as for arguments.
    """

    def __init__(self, schema: JsonObject, *, label: str) -> None:
        self._check = ArgumentCheck(schema, label=label)

    def problem(self, result: Json) -> str:
        """Return what is most wrong with a result, after its place; empty when nothing is."""
        return self._check.problem(result, root="result")


def problems_of(value: Json, schema: JsonObject, *, trusted: bool = False) -> tuple[str, ...]:
    """Return what is wrong with a value by a schema, each after its place; nothing when it fits.

    `trusted` says that the schema is not an agent's: its regular expressions are run as they are.
    """
    try:
        found = _found(_compiled(_kind(schema, trusted=trusted), schema), value, limit=None)
    except Unresolvable as error:
        return (f"the schema refers to {error.ref!r}, which is outside it",)
    except _UNUSABLE as error:
        return (f"the schema cannot be used: {str(error)[:MAX_WORDS]}",)
    return tuple(f"{place}: {_words(error)}" if (place := _place(error)) else _words(error) for error in found)


def schema_problem(schema: JsonObject) -> str:
    """Return what is wrong with a schema itself; empty when it is one."""
    try:
        if len(orjson.dumps(schema, default=dict)) > MAX_SCHEMA_BYTES:
            return f"a schema may have {MAX_SCHEMA_BYTES // 1024} KiB"
        kind = _kind(schema, trusted=True)
        error = next(iter(_kind(kind.META_SCHEMA, trusted=False)(kind.META_SCHEMA).iter_errors(dict(schema))), None)
    except _UNUSABLE as failure:
        return f"not a JSON Schema: {type(failure).__name__}: {str(failure)[:MAX_WORDS]}"
    if error is None:
        return ""
    where = ".".join(str(part) for part in error.absolute_path)
    return f"not a JSON Schema{f' at {where}' if where else ''}: {error.message[:MAX_WORDS]}"


def _found(validator: Validator, value: Json, *, limit: int | None) -> list[ValidationError]:
    token = _left.set([MAX_REFERENCES, MAX_STEPS])
    try:
        return list(islice(validator.iter_errors(value), limit))
    finally:
        _left.reset(token)


def _kind(schema: Mapping[str, Any], *, trusted: bool) -> type[Validator]:
    kind = validator_for(dict(schema), default=Draft202012Validator)
    return kind if trusted else _bounded(kind)


def _compiled(kind: type[Validator], schema: JsonObject) -> Validator:
    # A registry with nothing in it: what the schema refers to outside itself is not fetched.
    return kind(dict(schema), registry=Registry[Any]())


@cache
def _bounded(kind: type[Validator]) -> type[Validator]:
    """Return a dialect without what makes a few lines of schema, or a long value, stop the hub."""
    known = cast("Mapping[str, Callable[..., Iterator[ValidationError]]]", kind.VALIDATORS)
    ours: dict[str, object] = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties(known["additionalProperties"]),
        "uniqueItems": _unique_items,
        "unevaluatedProperties": _left_to_the_agent,  # runs the patterns of everything below it
        **{name: _counted(known[name]) for name in ("$ref", "$dynamicRef", "$recursiveRef") if name in known},
    }
    for name in _STEPPING:
        step = ours.get(name, known.get(name))
        if step is not None:
            ours[name] = _stepping(cast("Callable[..., Iterator[ValidationError]]", step))
    return _extend(kind, ours)


def _counted(follow: Callable[..., Iterator[ValidationError]]) -> object:
    def counted(validator: Any, reference: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        left = _left.get(None)
        if left is not None:
            left[0] -= 1
            if left[0] < 0:
                raise ValueError(f"it refers to itself more than {MAX_REFERENCES} times over one value")
        yield from follow(validator, reference, instance, schema)

    return counted


def _stepping(follow: Callable[..., Iterator[ValidationError]]) -> object:
    def stepping(validator: Any, keyword: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        left = _left.get(None)
        if left is not None:
            size = len(cast("list[object]", instance)) if isinstance(instance, list | dict) else 0
            left[1] -= 1 + size + (len(cast("list[object]", keyword)) if isinstance(keyword, list | dict) else 0)
            if left[1] < 0:
                raise ValueError(f"checking one value by it takes more than {MAX_STEPS} steps")
        yield from follow(validator, keyword, instance, schema)

    return stepping


def _pattern(validator: Any, pattern: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and _matches(pattern, instance) is False:
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, Mapping):
        fields = cast("Mapping[str, Any]", instance)
        for pattern, inner in cast("Mapping[str, Any]", patterns).items():
            for name, value in fields.items():
                if _matches(pattern, name):
                    yield from validator.descend(value, inner, path=name, schema_path=pattern)


def _additional_properties(standard: Callable[..., Iterator[ValidationError]]) -> object:
    def additional(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        patterns = list(schema.get("patternProperties", ()))
        if patterns and isinstance(instance, Mapping):
            fields = cast("Mapping[str, Any]", instance)
            # A pattern that we cannot run may be the one that a name matches.
            instance = {
                name: value
                for name, value in fields.items()
                if all(_matches(pattern, name) is False for pattern in patterns)
            }
            schema = {key: value for key, value in schema.items() if key != "patternProperties"}
        yield from standard(validator, allowed, instance, schema)

    return additional


def _unique_items(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if wanted and isinstance(instance, list):
        items = cast("list[object]", instance)
        if len({orjson.dumps(item, option=orjson.OPT_SORT_KEYS) for item in items}) < len(items):
            yield ValidationError("it holds the same item twice")


def _left_to_the_agent(validator: Any, keyword: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    return iter(())


def _matches(pattern: object, text: str) -> bool | None:
    """Whether a stranger's pattern is found in a text; None where we cannot tell."""
    matcher = _matcher(pattern) if isinstance(pattern, str) else None
    return None if matcher is None else matcher.isinstance_python(text)


@lru_cache(maxsize=256)
def _matcher(pattern: str) -> SchemaValidator | None:
    if len(pattern) > MAX_PATTERN:
        return None
    # Rust's engine takes linear time. It has no lookaround and no backreferences, and refuses what compiles to much.
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except PatternError:
        return None


def _place(error: ValidationError, *, root: str = "") -> str:
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
    return f"{root}{steps}" if root else steps.removeprefix(".")


def _words(error: ValidationError) -> str:
    """Shorten jsonschema's message, which repeats the whole value."""
    if len(error.message) <= MAX_WORDS:
        return error.message
    value = cast("object", error.instance)
    return f"{repr(value)[:80]} does not satisfy {error.validator!r}: {error.message[-160:]}"
