"""Characters that nobody sees are found, and what scripts and emoji need is left alone."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interhub.agent_cards import (
    AgentCard,
    Capability,
    JsonObject,
    Kind,
    findings,
    invisible,
    may_hide,
    visible,
    visible_json,
)


@pytest.mark.parametrize(
    "character",
    list(
        "\x00\x1b\x7f\x85\xad\u200b\u200e\u202e\u2066\u2060\u3164\ufeff\ue000\u2028\ufe00\U000e0041\U000e0100\U000f1234"
    ),
    ids=ascii,
)
def test_what_is_not_seen_is_found_and_taken_out(character: str) -> None:
    assert invisible(f"pay{character}load") == (f"U+{ord(character):04X}",)
    assert visible(f"pay{character}load") == "payload"
    assert may_hide(orjson.dumps({"a": f"pay{character}load"}))


@pytest.mark.parametrize(
    "text", ["tab\tand\nlines\r\n", "Grüße, 世界", "می‌خواهم", "क्‍ष", "👩‍💻", "❤️‍🔥", "1️⃣", "🇩🇪", "a b"], ids=ascii
)
def test_what_scripts_and_emoji_need_is_left_alone(text: str) -> None:
    assert invisible(text) == ()
    assert visible(text) == text


def test_a_joiner_where_nothing_is_joined_is_hidden() -> None:
    assert invisible("pay\u200dload") == ("U+200D",)
    assert invisible("\u200d\u200d") == ("U+200D",)
    assert invisible("❤" + "\ufe0e\ufe0f" * 20) == (
        "U+FE0F",
        "U+FE0E",
    )


@given(st.text(st.sampled_from("aé❤1\u200b\u200c\u200d\ufe0e\ufe0f\ufe00")) | st.text())
def test_nothing_is_left_that_would_be_found_again(text: str) -> None:
    assert invisible(visible(text)) == ()


@given(
    st.recursive(
        st.text() | st.booleans() | st.none(), lambda inner: st.dictionaries(st.text(), inner) | st.lists(inner)
    )
)
def test_the_quick_look_misses_nothing(value: object) -> None:
    written = orjson.dumps(value)
    if not may_hide(written):
        assert visible_json(value) == value  # type: ignore[arg-type]  # what hypothesis made is JSON


def test_findings_name_the_place_and_the_characters_in_schemas_too() -> None:
    schema: JsonObject = {"type": "object", "properties": {"a\u200b": {"type": "string"}}}
    card = AgentCard(
        name="sly\u2060",
        capabilities=(
            Capability(name="do", kind=Kind.TOOL, description="x\u202e", input_schema=schema),
            Capability(name="plain", kind=Kind.TOOL, input_schema={"type": "object"}),
            Capability(name="icon", kind=Kind.TOOL, input_schema={}, raw={"_meta": {"note": "\ue000"}}),
        ),
    )
    assert [str(finding) for finding in findings(card)] == [
        "name holds invisible characters (U+2060)",
        "tool 'do': description holds invisible characters (U+202E)",
        "tool 'do': input schema holds invisible characters (U+200B)",
        "tool 'icon': definition holds invisible characters (U+E000)",
    ]
