"""Cards as they are found: every version, bent ones, and things that are no card."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interhub.agent_cards import (
    MAX_CARD_BYTES,
    SKILL_INPUT_SCHEMA,
    Binding,
    CardError,
    CardInvalid,
    CardTooLarge,
    CardVersionUnsupported,
    Endpoint,
    Json,
    Kind,
    NotACard,
    read_card,
)

SOURCE = "https://agents.example.com/.well-known/agent-card.json"

CARD_1_0: dict[str, Json] = {
    "name": "Recipe Agent",
    "description": "Helps with recipes.",
    "version": "2.1.0",
    "provider": {"organization": "ACME", "url": "https://acme.example.com"},
    "documentationUrl": "https://acme.example.com/docs",
    "iconUrl": "https://acme.example.com/icon.png",
    "supportedInterfaces": [
        {"url": "https://acme.example.com/rest", "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"},
        {
            "url": "https://acme.example.com/rpc",
            "protocolBinding": "JSONRPC",
            "protocolVersion": "1.0",
            "tenant": "kitchen",
        },
        {"url": "grpc.acme.example.com:443", "protocolBinding": "GRPC", "protocolVersion": "1.0"},
        {"url": "https://acme.example.com/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "0.3"},
    ],
    "capabilities": {"streaming": True, "pushNotifications": True, "extendedAgentCard": True},
    "defaultInputModes": ["text/plain", "image/png"],
    "defaultOutputModes": ["text/markdown"],
    "skills": [
        {
            "id": "cook",
            "name": "Cook",
            "description": "Finds a recipe.",
            "tags": ["food"],
            "examples": ["What can I cook with leeks?"],
            "inputModes": ["text/plain"],
            "outputModes": ["application/json"],
        }
    ],
}

CARD_0_3: dict[str, Json] = {
    "protocolVersion": "0.3.0",
    "name": "Old Agent",
    "description": "Speaks 0.3.",
    "url": "http://old.example.com/a2a",
    "preferredTransport": "JSONRPC",
    "additionalInterfaces": [
        {"url": "http://old.example.com/a2a", "transport": "JSONRPC"},
        {"url": "http://old.example.com/v1", "transport": "HTTP+JSON"},
    ],
    "version": "1",
    "capabilities": {"streaming": False},
    "supportsAuthenticatedExtendedCard": True,
    "defaultInputModes": ["text"],
    "defaultOutputModes": ["text"],
    "skills": [{"id": "talk", "name": "Talk", "description": "Talks.", "tags": []}],
}


def test_a_card_of_1_0_is_read_in_full() -> None:
    card = read_card(json.dumps(CARD_1_0).encode(), source=SOURCE)
    assert (card.name, card.version, card.provider) == ("Recipe Agent", "2.1.0", "ACME")
    assert card.interfaces == (
        Endpoint(binding=Binding.A2A_REST, url="https://acme.example.com/rest", version="1.0"),
        Endpoint(binding=Binding.A2A_JSONRPC, url="https://acme.example.com/rpc", version="1.0", tenant="kitchen"),
        Endpoint(binding=Binding.A2A_GRPC, url="grpc.acme.example.com:443", version="1.0"),
        Endpoint(binding=Binding.A2A_JSONRPC, url="https://acme.example.com/rpc", version="0.3"),
    )
    assert (card.streaming, card.push_notifications, card.extended_card) == (True, True, True)
    assert card.input_modes == ("text/plain", "image/png")
    assert card.documentation_url == "https://acme.example.com/docs"
    assert card.icon_url == "https://acme.example.com/icon.png"
    assert card.raw == CARD_1_0
    (cook,) = card.capabilities
    assert (cook.name, cook.kind, cook.title, cook.description) == ("cook", Kind.SKILL, "Cook", "Finds a recipe.")
    assert (cook.tags, cook.examples) == (("food",), ("What can I cook with leeks?",))
    assert (cook.input_modes, cook.output_modes) == (("text/plain",), ("application/json",))
    assert cook.input_schema == SKILL_INPUT_SCHEMA


def test_a_card_of_0_3_is_read_with_its_preferred_interface_first() -> None:
    card = read_card(json.dumps(CARD_0_3).encode(), source=SOURCE)
    assert card.interfaces == (
        Endpoint(binding=Binding.A2A_JSONRPC, url="http://old.example.com/a2a", version="0.3"),
        Endpoint(binding=Binding.A2A_REST, url="http://old.example.com/v1", version="0.3"),
    )
    assert card.extended_card
    assert not card.streaming


def test_the_interfaces_of_a_dual_card_are_those_that_a_signature_covers() -> None:
    forged = {**CARD_1_0, "url": "https://evil.example.com", "protocolVersion": "0.3.0"}
    card = read_card(json.dumps(forged).encode(), source=SOURCE)
    assert all("evil" not in endpoint.url for endpoint in card.interfaces)


def test_legacy_fields_help_when_no_interface_of_1_0_can_be_used() -> None:
    document: dict[str, Json] = {
        **CARD_0_3,
        "supportedInterfaces": [
            {"url": "https://x.example.com", "protocolBinding": "JSONRPC", "protocolVersion": "2.0"}
        ],
    }
    assert read_card(document, source=SOURCE).interfaces[0].url == "http://old.example.com/a2a"


def test_only_a_name_and_an_interface_are_needed() -> None:
    card = read_card({"name": "Bare", "url": "http://bare.example.com/"}, source=SOURCE)
    assert card.interfaces == (Endpoint(binding=Binding.A2A_JSONRPC, url="http://bare.example.com/", version="0.3"),)
    (only,) = card.capabilities
    assert (only.name, only.title, only.raw) == ("message", "Bare", {})


@pytest.mark.parametrize(
    ("bent", "url", "version"),
    [
        ({"protocolBinding": "jsonrpc", "protocolVersion": "1.0.1"}, "https://a.example.com/x", "1.0"),
        ({"protocolBinding": "JSON-RPC", "protocolVersion": "v1"}, "https://a.example.com/x", "1.0"),
        ({"protocolBinding": "http_json", "protocolVersion": 1.0}, "https://a.example.com/x", "1.0"),
        ({"transport": "JSONRPC"}, "https://a.example.com/x", "1.0"),
        ({"protocol_binding": "JSONRPC", "protocol_version": "0.3.0"}, "https://a.example.com/x", "0.3"),
        ({"protocolBinding": "JSONRPC", "protocolVersion": "0.2.6"}, "https://a.example.com/x", "0.3"),
        ({"protocolBinding": "JSONRPC", "protocolVersion": "1.7", "tenant": None}, " https://a.example.com/x ", "1.0"),
    ],
)
def test_bent_interfaces_are_understood(bent: dict[str, Json], url: str, version: str) -> None:
    card = read_card({"name": "Bent", "supportedInterfaces": [{"url": url, **bent}]}, source=SOURCE)
    assert (card.interfaces[0].url, card.interfaces[0].version) == ("https://a.example.com/x", version)


def test_relative_urls_are_resolved_against_the_source() -> None:
    card = read_card({"name": "Relative", "url": "/a2a"}, source=SOURCE)
    assert card.interfaces[0].url == "https://agents.example.com/a2a"


def test_wrong_types_where_nothing_hangs_on_them_are_taken_as_not_said() -> None:
    document: dict[str, Json] = {
        "name": "Odd",
        "url": "http://odd.example.com",
        "description": None,
        "version": 3,
        "provider": "ACME",
        "capabilities": [],
        "defaultInputModes": None,
        "skills": [
            None,
            "cook",
            {"name": "No id"},
            {"id": "tags", "tags": "one", "examples": [1, "two", None]},
            {"id": "tags", "name": "a second of the same id"},
            {},
        ],
    }
    card = read_card(document, source=SOURCE)
    assert [skill.name for skill in card.capabilities] == ["No id", "tags"]
    assert (card.capabilities[1].tags, card.capabilities[1].examples) == (("one",), ("two",))
    assert (card.provider, card.version, card.input_modes) == ("ACME", "", ("text/plain",))


@pytest.mark.parametrize(
    ("document", "found"),
    [
        (b"<!DOCTYPE html><html><body>Not found</body></html>", "an HTML page"),
        (b"\n  <HTML>\n", "an HTML page"),
        (b'<?xml version="1.0"?><card/>', "an XML document"),
        (b"", "nothing: the answer is empty"),
        (b"[1, 2]", "a JSON list"),
        (b'"card"', "a JSON string"),
        (b"null", "the JSON value null"),
        (b'{"name": "x",', "broken JSON (line 1, column"),
        (b"404 page not found", "the text '404 page not found'"),
        (b"\x89PNG\r\n\x1a\n\xff", "bytes that are not UTF-8 text"),
        (b'{"detail": "Not Found"}', "a JSON object with the fields detail"),
        (b"{}", "an empty JSON object"),
        (b'{"jsonrpc": "2.0", "error": {}}', "a JSON-RPC message"),
        (b'{"mcpServers": {}}', "a list of MCP servers"),
        (b'{"name": NaN}', "broken JSON"),
    ],
)
def test_what_is_no_card_is_named(document: bytes, found: str) -> None:
    with pytest.raises(NotACard) as caught:
        read_card(document, source=SOURCE)
    assert caught.value.found.startswith(found)
    assert SOURCE in str(caught.value)


def test_a_card_of_20_mb_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(CardTooLarge, match="1048576"):
        read_card(b"{" + b" " * (20 * 1024 * 1024), source=SOURCE)


def test_the_limit_is_inclusive() -> None:
    document = json.dumps({"name": "Big", "url": "http://big.example.com"}).encode()
    read_card(document.ljust(MAX_CARD_BYTES), source=SOURCE)
    with pytest.raises(CardTooLarge):
        read_card(document.ljust(MAX_CARD_BYTES + 1), source=SOURCE)


@pytest.mark.parametrize(
    ("document", "paths"),
    [
        ({"skills": []}, ("name", "supportedInterfaces")),
        ({"name": "  ", "url": "http://x.example.com"}, ("name",)),
        ({"name": "X"}, ("supportedInterfaces",)),
        ({"name": "X", "url": ""}, ("url",)),
        ({"name": "X", "url": "ftp://x.example.com"}, ("url",)),
        ({"name": "X", "url": "http://[::1"}, ("url",)),
        ({"name": "X", "url": "http://x.example.com:99999"}, ("url",)),
        ({"name": "X", "supportedInterfaces": [{"protocolBinding": "JSONRPC"}]}, ("supportedInterfaces[0].url",)),
        (
            {
                "name": "X",
                "supportedInterfaces": [{"url": "http://x.example.com", "protocolBinding": "CARRIER-PIGEON"}],
            },
            ("supportedInterfaces[0].protocolBinding",),
        ),
    ],
)
def test_what_is_missing_is_named_by_its_path(document: dict[str, Json], paths: tuple[str, ...]) -> None:
    with pytest.raises(CardInvalid) as caught:
        read_card(document, source=SOURCE)
    assert caught.value.paths == paths
    assert all(path in str(caught.value) for path in paths)


def test_a_card_of_an_unknown_major_version_says_so() -> None:
    document: dict[str, Json] = {
        "name": "Future",
        "supportedInterfaces": [
            {"url": "http://f.example.com", "protocolBinding": "JSONRPC", "protocolVersion": "2.0"}
        ],
    }
    with pytest.raises(CardVersionUnsupported, match=r"is for A2A 2\.0, and interhub speaks 1\.x and 0\.3"):
        read_card(document, source=SOURCE)
    with pytest.raises(CardVersionUnsupported):
        read_card({"name": "Past", "url": "http://p.example.com", "protocolVersion": "0.1.0"}, source=SOURCE)


def test_deep_nesting_is_refused() -> None:
    deep = b'{"name": "X", "url": "http://x.example.com", "x": ' + b"[" * 500 + b"]" * 500 + b"}"
    with pytest.raises(CardInvalid, match="nested"):
        read_card(deep, source=SOURCE)


def test_the_card_does_not_change_with_the_document_it_was_read_from() -> None:
    document: dict[str, Json] = {"name": "Mine", "url": "http://m.example.com"}
    card = read_card(document, source=SOURCE)
    document["name"] = "Yours"
    assert card.raw["name"] == "Mine"


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_fields = st.sampled_from(
    [*CARD_1_0, *CARD_0_3, "security", "securitySchemes", "supported_interfaces", "default_input_modes"]
)


@given(st.dictionaries(_fields, _json, max_size=6), st.booleans())
def test_whatever_a_card_holds_it_is_read_or_refused(changed: dict[str, Json], old: bool) -> None:
    with suppress(CardError):
        card = read_card({**(CARD_0_3 if old else CARD_1_0), **changed}, source=SOURCE)
        assert card.name
        assert card.interfaces
        assert card.capabilities


@given(st.binary(max_size=64))
def test_whatever_bytes_come_they_are_read_or_refused(document: bytes) -> None:
    with pytest.raises(CardError):
        read_card(document, source=SOURCE)
