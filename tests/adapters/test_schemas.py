"""Schemas that strangers wrote cost no more than they are worth, and break nothing."""

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

import pytest

from interhub.adapters.schemas import MAX_SCHEMA_BYTES, ArgumentCheck, problems_of, schema_problem
from interhub.agent_cards import JsonObject

BOMB = "^(a+)+$"
LONG = "a" * 64 + "!"


def doubling(levels: int) -> JsonObject:
    inner: dict[str, JsonObject] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": {**inner, f"d{levels}": {"type": "object"}}, "$ref": "#/$defs/d0"}


def nested(levels: int) -> JsonObject:
    schema: JsonObject = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


@contextmanager
def within(seconds: int) -> Generator[None]:
    """Fail, rather than hang, where a check runs away."""

    def late(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"not done within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"properties": {"x": {"pattern": BOMB}}}, {"x": LONG}),
        ({"patternProperties": {BOMB: {}}}, {LONG: 1}),
        ({"patternProperties": {BOMB: {}}, "additionalProperties": False}, {LONG: 1}),
        ({"patternProperties": {BOMB: {}}, "unevaluatedProperties": False}, {LONG: 1}),
        (doubling(40), {}),
        ({"properties": {"x": {"uniqueItems": True}}}, {"x": [{"n": n} for n in range(30_000)]}),
        ({"$ref": "#"}, {}),
        (nested(3000), {}),
        ({"properties": 3}, {}),
        ({"properties": {"x": {"multipleOf": 0}}}, {"x": 5}),
        ({"type": "strange"}, {}),
        ({"$id": "http://[", "$ref": "x"}, {}),
        ({"$schema": 5}, {}),
        ({"patternProperties": {"(": {}}}, {"a": 1}),
        ({"$ref": "http://127.0.0.1:9/x"}, {}),
        ({"enum": [{"n": n} for n in range(15_000)], "$schema": "http://json-schema.org/draft-07/schema#"}, {}),
    ],
)
def test_no_schema_stops_or_breaks_the_hub(schema: JsonObject, value: JsonObject) -> None:
    with within(20):
        ArgumentCheck(schema, label="t").problem(value)
        problems_of(value, schema)
        schema_problem(schema)


def test_a_schema_that_is_far_too_large_is_not_used() -> None:
    schema: JsonObject = {"required": ["x"], "description": "d" * MAX_SCHEMA_BYTES}
    assert ArgumentCheck(schema, label="t").problem({}) == ""
    assert "256 KiB" in schema_problem(schema)


def test_patterns_are_still_checked() -> None:
    schema: JsonObject = {
        "properties": {"day": {"type": "string", "pattern": r"^\d{4}-\d\d$"}},
        "patternProperties": {"^x-": {"type": "integer"}},
        "additionalProperties": False,
    }
    check = ArgumentCheck(schema, label="t")
    assert check.problem({"day": "2026-11", "x-a": 1}) == ""
    assert "does not match" in check.problem({"day": "today"})
    assert check.problem({"x-a": "no"}).startswith("x-a: ")
    assert "'other' was unexpected" in check.problem({"other": 1})
    assert problems_of({"day": "today"}, schema) == (r"day: 'today' does not match '^\\d{4}-\\d\\d$'",)


def test_a_pattern_that_cannot_be_run_safely_is_left_to_the_agent() -> None:
    schema: JsonObject = {"patternProperties": {"^(?=x)": {}}, "additionalProperties": False}
    assert ArgumentCheck(schema, label="t").problem({"x": 1}) == ""
    assert ArgumentCheck({"properties": {"x": {"pattern": "(?!a)b"}}}, label="t").problem({"x": "c"}) == ""


def test_equal_items_are_found() -> None:
    schema: JsonObject = {"properties": {"x": {"uniqueItems": True}}}
    check = ArgumentCheck(schema, label="t")
    assert "twice" in check.problem({"x": [{"a": 1, "b": 2}, {"b": 2, "a": 1}]})
    assert check.problem({"x": [1, True, "1"]}) == ""
