"""Questions as forms, and answers read out of them."""

import mcp_types as types
import pytest

from interhub.adapters import DataPart, Part, TextPart, UrlPart
from interhub.agent_cards import JsonObject
from interhub.hub.faces.mcp.questions import AnswerUnreadable, Asking, Client, Form, client_of, form_of

ABLE = Client(asking=Asking.RETRY, urls=True)
FORMS = types.ClientCapabilities(elicitation=types.ElicitationCapability())


def form(schema: JsonObject | None, *parts: Part, auth: bool = False, client: Client = ABLE) -> Form:
    return form_of(parts or (TextPart(text="Well?"),), schema, asker="clerk", auth=auth, client=client)


def test_a_question_without_a_schema_is_one_field_of_text_and_says_who_asks() -> None:
    asked = form(None)
    assert asked.message == "clerk asks: Well?"
    assert asked.read({"answer": "yes"}) == (TextPart(text="yes"),)


def test_a_flat_schema_is_the_form_and_its_fields_are_the_answer() -> None:
    schema: JsonObject = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "pattern": "^R", "format": "hostname", "title": "City"},
            "nights": {"type": "integer", "minimum": 1, "exclusiveMaximum": 9},
            "board": {"enum": ["half", "full"]},
        },
        "required": ["city", "none"],
        "additionalProperties": False,
    }
    asked = form(schema)
    assert asked.schema == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "title": "City"},
            "nights": {"type": "integer", "minimum": 1},
            "board": {"type": "string", "enum": ["half", "full"]},
        },
        "required": ["city"],
    }
    assert asked.read({"city": "Rome"}) == (DataPart(data={"city": "Rome"}),)


def test_a_schema_of_one_value_is_one_field_and_its_value_is_the_answer() -> None:
    asked = form({"type": "boolean"})
    assert asked.schema["properties"] == {"answer": {"type": "boolean"}}
    assert asked.read({"answer": True}) == (DataPart(data=True),)


def test_a_nested_schema_is_asked_for_as_json() -> None:
    asked = form({"type": "object", "properties": {"where": {"type": "object"}}})
    assert asked.read({"answer": '{"where": {}}'}) == (DataPart(data={"where": {}}),)
    with pytest.raises(AnswerUnreadable, match="must be JSON"):
        asked.read({"answer": "Rome"})


def test_signing_in_sends_the_person_to_the_page_where_the_client_can() -> None:
    link = UrlPart(url="https://login.example.com")
    asked = form(None, TextPart(text="Sign in"), link, auth=True)
    assert isinstance(asked.params(), types.ElicitRequestURLParams)
    assert asked.read(None) == ()
    shown = form(None, TextPart(text="Sign in"), link, auth=True, client=Client(asking=Asking.RETRY))
    assert "https://login.example.com" in shown.message
    assert shown.schema == {"type": "object", "properties": {}}


def test_a_page_that_is_none_of_the_webs_is_never_opened() -> None:
    asked = form(None, UrlPart(url="file:///etc/passwd"), auth=True)
    assert isinstance(asked.params(), types.ElicitRequestFormParams)


@pytest.mark.parametrize(
    ("capabilities", "version", "back_channel", "asking"),
    [
        (FORMS, "2026-07-28", False, Asking.RETRY),
        (FORMS, "2025-11-25", True, Asking.REQUEST),
        (FORMS, "2025-11-25", False, Asking.NEVER),
        (types.ClientCapabilities(), "2026-07-28", False, Asking.NEVER),
        (None, "2025-03-26", True, Asking.NEVER),
    ],
)
def test_a_client_is_asked_as_its_era_and_its_word_allow(
    capabilities: types.ClientCapabilities | None, version: str, back_channel: bool, asking: Asking
) -> None:
    assert client_of(capabilities, version, back_channel=back_channel).asking is asking
