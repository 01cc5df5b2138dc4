"""Cards as we publish them: each version is what the SDK of that version reads."""

import json
from typing import Literal

import pytest
from a2a.client.card_resolver import parse_agent_card
from a2a.compat.v0_3 import types as v0_3
from a2a.types import AgentCard as SdkCard
from a2a.utils.proto_utils import validate_proto_required_fields
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import given
from hypothesis import strategies as st

from interhub.agent_cards import (
    AgentCard,
    Binding,
    Capability,
    CardInvalid,
    Endpoint,
    Json,
    Kind,
    Security,
    hub_card,
    read_card,
    write_card,
)

ALL_INTERFACES = tuple(
    Endpoint(binding=binding, url=f"https://hub.example.com/{version}/{binding.name}", version=version)
    for version in ("1.0", "0.3")
    for binding in (Binding.A2A_JSONRPC, Binding.A2A_REST)
)
SECURITY = Security(header="X-API-Key")


def test_a_card_of_1_0_names_no_field_of_0_3() -> None:
    written = write_card(hub_card("http://h.example.com", {}, "1"), version="1.0", security=SECURITY)
    legacy = {"url", "preferredTransport", "protocolVersion", "additionalInterfaces", "security"}
    assert not legacy & written.keys()
    assert [each["protocolVersion"] for each in _objects(written["supportedInterfaces"])] == ["1.0", "1.0"]
    sdk = ParseDict(written, SdkCard())
    validate_proto_required_fields(sdk)
    assert MessageToDict(sdk)["securitySchemes"]["bearer"]["httpAuthSecurityScheme"]["scheme"] == "Bearer"


def test_a_card_of_0_3_is_read_by_the_sdk_of_0_3() -> None:
    written = write_card(hub_card("http://h.example.com", {}, "1"), version="0.3", security=SECURITY)
    assert "supportedInterfaces" not in written
    old = v0_3.AgentCard.model_validate(written)
    assert (old.url, old.preferred_transport, old.protocol_version) == ("http://h.example.com/a2a", "JSONRPC", "0.3.0")
    assert old.additional_interfaces is not None
    assert [each.transport for each in old.additional_interfaces] == ["JSONRPC", "HTTP+JSON"]
    assert old.security == [{"bearer": []}, {"apiKey": []}]
    assert old.security_schemes is not None
    assert set(old.security_schemes) == {"bearer", "apiKey"}


def test_a_dual_card_is_read_by_both() -> None:
    written = write_card(hub_card("http://h.example.com", {}, "1"), version="dual", security=SECURITY)
    v0_3.AgentCard.model_validate(written)
    new = parse_agent_card(json.loads(json.dumps(written)))
    validate_proto_required_fields(new)
    assert [(each.protocol_binding, each.protocol_version) for each in new.supported_interfaces] == [
        ("JSONRPC", "1.0"),
        ("HTTP+JSON", "1.0"),
        ("JSONRPC", "0.3"),
        ("HTTP+JSON", "0.3"),
    ]


def test_required_fields_are_never_empty() -> None:
    bare = AgentCard(
        name="Bare",
        capabilities=(Capability(name="x", kind=Kind.SKILL),),
        interfaces=ALL_INTERFACES,
        input_modes=(),
        output_modes=(),
    )
    written = write_card(bare, version="1.0")
    assert written["description"] == "Bare"
    assert written["version"] == "0.0.0"
    assert written["defaultInputModes"] == ["text/plain"]
    assert written["skills"] == [{"id": "x", "name": "x", "description": "x", "tags": ["skill"]}]


def test_a_card_without_skills_offers_to_take_messages() -> None:
    written = write_card(AgentCard(name="Bare", interfaces=ALL_INTERFACES), version="1.0")
    assert [skill["id"] for skill in _objects(written["skills"])] == ["message"]


def test_tools_keep_their_schemas_from_hub_to_hub() -> None:
    tool = Capability(
        name="add",
        kind=Kind.TOOL,
        input_schema={"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]},
        output_schema={"type": "object"},
    )
    for version in ("1.0", "0.3", "dual"):
        written = write_card(
            AgentCard(name="Math", capabilities=(tool,), interfaces=ALL_INTERFACES), version=_version(version)
        )
        (skill,) = read_card(json.dumps(written).encode(), source="test").capabilities
        assert skill.input_schema == tool.input_schema
        assert skill.output_schema == tool.output_schema


@pytest.mark.parametrize(
    ("card", "version", "path"),
    [
        (AgentCard(name=" ", interfaces=ALL_INTERFACES), "1.0", "name"),
        (AgentCard(name="X"), "1.0", "supportedInterfaces"),
        (AgentCard(name="X", interfaces=ALL_INTERFACES[:2]), "0.3", "supportedInterfaces"),
        (AgentCard(name="X", interfaces=ALL_INTERFACES[:2]), "dual", "supportedInterfaces"),
        (
            AgentCard(name="X", interfaces=(Endpoint(binding=Binding.MCP_HTTP, url="http://x.example.com"),)),
            "1.0",
            "supportedInterfaces",
        ),
    ],
)
def test_what_cannot_be_published_is_refused(card: AgentCard, version: str, path: str) -> None:
    with pytest.raises(CardInvalid) as caught:
        write_card(card, version=_version(version))
    assert caught.value.paths == (path,)


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_word = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12)
_modes = st.lists(st.sampled_from(["text/plain", "application/json", "image/png"]), unique=True, max_size=3).map(tuple)
_schema = st.none() | st.fixed_dictionaries({"type": st.just("object"), "title": _text})
_skill = st.builds(
    Capability,
    name=_word,
    kind=st.sampled_from([Kind.SKILL, Kind.TOOL]),
    title=_text,
    description=_text,
    tags=st.lists(_word, max_size=3).map(tuple),
    examples=st.lists(_word, max_size=3).map(tuple),
    input_modes=_modes,
    output_modes=_modes,
    output_schema=_schema,
)
_card = st.builds(
    AgentCard,
    name=_word,
    description=_text,
    version=_text,
    provider=_text,
    documentation_url=st.sampled_from(["", "https://docs.example.com"]),
    capabilities=st.lists(_skill, min_size=1, max_size=4, unique_by=lambda skill: skill.name).map(tuple),
    interfaces=st.just(ALL_INTERFACES),
    streaming=st.booleans(),
    push_notifications=st.booleans(),
    extended_card=st.booleans(),
    input_modes=_modes,
    output_modes=_modes,
)


@given(_card, st.sampled_from(["1.0", "0.3", "dual"]))
def test_what_is_written_is_read_back(card: AgentCard, version: str) -> None:
    read = read_card(json.dumps(write_card(card, version=_version(version))).encode(), source="test")
    assert read.name == card.name
    assert read.description == (card.description or card.name)
    assert (read.streaming, read.push_notifications) == (card.streaming, card.push_notifications)
    assert read.extended_card == card.extended_card
    assert read.provider == card.provider
    assert read.input_modes == (card.input_modes or ("text/plain",))
    wanted = {"1.0": ("1.0",), "0.3": ("0.3",), "dual": ("1.0", "0.3")}[version]
    assert read.interfaces == tuple(each for each in card.interfaces if each.version in wanted)
    assert [skill.name for skill in read.capabilities] == [skill.name for skill in card.capabilities]
    for ours, theirs in zip(card.capabilities, read.capabilities, strict=True):
        assert theirs.examples == ours.examples
        assert (theirs.input_modes, theirs.output_modes) == (ours.input_modes, ours.output_modes)
        assert (theirs.input_schema, theirs.output_schema) == (ours.input_schema, ours.output_schema)


def _version(version: str) -> Literal["1.0", "0.3", "dual"]:
    match version:
        case "1.0" | "0.3" | "dual":
            return version
        case _:
            raise AssertionError(version)


def _objects(value: Json) -> list[dict[str, Json]]:
    assert isinstance(value, list)
    return [dict(each) for each in value if isinstance(each, dict)]
