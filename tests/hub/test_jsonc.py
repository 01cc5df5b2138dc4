import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interhub.hub.jsonc import NotJson, parse, with_member, without_member

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=5)
INDENTS = st.sampled_from([None, 0, 2, 4, "\t"])


@given(VALUES, INDENTS)
def test_it_reads_what_json_reads(value: object, indent: int | None) -> None:
    assert parse(json.dumps(value, indent=indent)).value == value


@given(st.text(alphabet='{}[]",:/*\\ \n012.eE-+truefalsn"', max_size=30))
def test_it_refuses_what_json_refuses(text: str) -> None:
    try:
        expected = json.loads(text, parse_constant=_refuse)
    except ValueError:
        with pytest.raises(NotJson):
            parse(text)
    else:
        assert parse(text).value == expected


def _refuse(name: str) -> object:
    raise ValueError(name)


@given(OBJECTS, INDENTS, st.text(), VALUES)
def test_a_member_that_is_set_is_there_and_nothing_else_changes(
    before: dict[str, object], indent: int | None, name: str, value: None
) -> None:
    after = with_member(json.dumps(before, indent=indent), (name,), value)
    assert json.loads(after) == {**before, name: value}
    left = without_member(after, (name,))
    assert json.loads(left) == {key: kept for key, kept in before.items() if key != name}


@given(st.dictionaries(st.text(min_size=1), VALUES, min_size=1, max_size=4), INDENTS)
def test_taking_out_what_was_added_gives_the_same_bytes(before: dict[str, object], indent: int | None) -> None:
    text = json.dumps(before, indent=indent)
    assert without_member(with_member(text, ("",), {"a": [1]}), ("",)) == text


COMMENTED = """{
  // my servers
  "servers": {
    "git": {"command": "uvx"}, // the first
    /* and */ "time": {
      "command": "uvx", // by wheel
    } // the last
  },
  "inputs": [],
}
"""


def test_comments_and_trailing_commas_stay_where_they_are() -> None:
    after = with_member(COMMENTED, ("servers", "hub"), {"command": "interhub"}, comments=True)
    added = """    }, // the last
    "hub": {
      "command": "interhub"
    }
  },"""
    assert added in after
    assert without_member(after, ("servers", "hub"), comments=True) == COMMENTED


def test_a_section_is_made_where_there_is_none_and_keeps_up_the_comma_at_the_end() -> None:
    after = with_member('{\n    "inputs": [],\n}\n', ("servers", "hub"), {"a": 1}, comments=True)
    assert (
        after == '{\n    "inputs": [],\n    "servers": {\n        "hub": {\n            "a": 1\n        }\n    },\n}\n'
    )


def test_line_ends_and_indentation_are_those_of_the_file() -> None:
    text = '{\r\n\t"mcpServers": {\r\n\t\t"a": {}\r\n\t}\r\n}'
    after = with_member(text, ("mcpServers", "b"), {"c": 1})
    assert after == '{\r\n\t"mcpServers": {\r\n\t\t"a": {},\r\n\t\t"b": {\r\n\t\t\t"c": 1\r\n\t\t}\r\n\t}\r\n}'
    assert without_member(after, ("mcpServers", "b")) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1, column 1: the document ends too early"),
        ("{\n  'a': 1}", "line 2, column 3: a name in double quotes was expected"),
        ('{"a": 1,}', "line 1, column 9: a name in double quotes"),
        ('{"a": 1 // no\n}', "line 1, column 9: comments are not allowed here"),
        ('{"a": 1} x', "line 1, column 10: nothing may follow the document"),
        ('{"a": {"b": [}', "line 1, column 14: a value was expected"),
        ('{"a": "\n"}', "line 1, column 7: this string does not end"),
        ("[" * 500, "nested too deeply"),
    ],
)
def test_what_is_no_json_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(NotJson) as refused:
        parse(text)
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ['{"servers": 1}', '{"servers": []}', "[]"])
def test_what_is_not_an_object_is_not_written_into(text: str) -> None:
    with pytest.raises(NotJson, match="is not an object"):
        with_member(text, ("servers", "hub"), {})


def test_of_two_members_of_one_name_the_one_that_counts_is_changed() -> None:
    assert with_member('{"a": 1, "a": 2}', ("a",), 3) == '{"a": 1, "a": 3}'
