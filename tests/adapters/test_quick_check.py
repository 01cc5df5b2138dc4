"""The quick check never says yes to what the full validator refuses."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from interhub.adapters.quick_check import quick_check

VALUES: list[Any] = [
    None, True, 0, 1, 1.0, 1.5, "", "a", "b", [], [1], ["a", 1], {}, {"a": "a"}, {"a": 1}, {"b": 2},
    {"a": "a", "b": 2}, {"a": "a", "c": None}, {"a": ["a"]}, {"a": {"a": "a"}}, {"a": True},
]  # fmt: skip
SCHEMAS: list[dict[str, Any]] = [
    *({"type": kind} for kind in ("null", "boolean", "integer", "number", "string", "array", "object")),
    {"type": "string", "enum": ["a"], "description": "one of one"},
    {"type": "array", "items": {"type": "string"}},
    {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False},
    {"type": "object", "properties": {"a": {"type": "object", "required": ["a"]}}},
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "number"}}, "title": "two"},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_what_is_passed_quickly_is_valid(schema: dict[str, Any]) -> None:
    fits = quick_check(schema)
    assert fits is not None
    validator: Any = Draft202012Validator(schema)
    valid = [value for value in VALUES if validator.is_valid(value)]
    passed = [value for value in VALUES if fits(value)]
    assert all(any(value is each for each in valid) for value in passed)
    assert passed, "it is of use"


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": ["string", "null"]},
        {"type": "string", "pattern": "a"},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "integer", "minimum": 1},
        {"type": "object", "$schema": "http://json-schema.org/draft-04/schema#"},
    ],
    ids=str,
)
def test_what_is_not_known_is_left_to_the_full_validator(schema: dict[str, Any]) -> None:
    assert quick_check(schema) is None
