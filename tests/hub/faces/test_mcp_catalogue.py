"""How the agents' capabilities are named, and found again."""

import re
from datetime import UTC, datetime

import orjson
from hypothesis import given
from hypothesis import strategies as st

from interhub.adapters.schemas import ArgumentCheck
from interhub.agent_cards import AgentCard, Binding, Capability, Endpoint, JsonObject, Kind
from interhub.hub.faces.mcp.catalogue import Catalogue, build
from interhub.hub.faces.mcp.listed import tool_of, without_headers
from interhub.hub.faces.mcp.names import MAX_NAME, resource_uri, split_uri
from interhub.registry import Agent

FORM = re.compile(r"[A-Za-z0-9_-]{1,64}")
IDS = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True)
CAPABILITIES = st.lists(
    st.tuples(st.sampled_from([Kind.SKILL, Kind.TOOL]), st.text(min_size=1, max_size=80)), unique=True, max_size=8
)


def agent(agent_id: str, *capabilities: Capability) -> Agent:
    now = datetime.now(UTC)
    return Agent(
        id=agent_id,
        adapter="scripted",
        card=AgentCard(name=agent_id, capabilities=capabilities),
        endpoint=Endpoint(binding=Binding.LOCAL),
        digest="sha256:0",
        created_at=now,
        updated_at=now,
    )


def named(catalogue: Catalogue) -> dict[str, str]:
    return {entry.capability.name: name for name, entry in catalogue.tools.items()}


def test_a_plain_name_stays_as_it_is() -> None:
    assert named(build([agent("git", Capability(name="_log-2", kind=Kind.TOOL))])) == {"_log-2": "git___log-2"}


def test_odd_and_long_names_are_shortened_readably() -> None:
    catalogue = build(
        [agent("a", Capability(name="read file", kind=Kind.TOOL), Capability(name="x" * 80, kind=Kind.TOOL))]
    )
    odd, long = catalogue.tools
    assert re.fullmatch(r"a__read_file_[0-9a-f]{8}", odd)
    assert re.fullmatch(r"a__x{52}_[0-9a-f]{8}", long)
    assert len(long) == MAX_NAME


def test_a_skill_and_a_tool_of_one_name_are_two_tools() -> None:
    both = [Capability(name="do", kind=kind) for kind in (Kind.SKILL, Kind.TOOL)]
    assert [entry.capability.kind for entry in build([agent("a", *both)]).tools.values()] == [Kind.SKILL, Kind.TOOL]


@given(st.dictionaries(IDS, CAPABILITIES, max_size=4))
def test_names_are_of_the_allowed_form_unique_stable_and_lead_back(offers: dict[str, list[tuple[Kind, str]]]) -> None:
    agents = [
        agent(agent_id, *(Capability(name=name, kind=kind) for kind, name in capabilities))
        for agent_id, capabilities in offers.items()
    ]
    catalogue = build(agents)
    assert len(catalogue.tools) == sum(len(capabilities) for capabilities in offers.values())
    assert all(FORM.fullmatch(name) for name in catalogue.tools)
    assert all(name.startswith(f"{entry.agent.id}__") for name, entry in catalogue.tools.items())
    assert list(build(reversed(agents)).tools) == list(catalogue.tools)


def test_another_agents_arrival_renames_nothing() -> None:
    first = agent("a", Capability(name="read file", kind=Kind.TOOL))
    second = agent("b", Capability(name="read file", kind=Kind.TOOL))
    assert next(iter(build([first]).tools)) in build([second, first]).tools


@given(IDS, st.text(min_size=1))
def test_a_resources_uri_leads_back_to_its_agent(agent_id: str, uri: str) -> None:
    assert split_uri(resource_uri(agent_id, uri)) == (agent_id, uri)


def test_a_bare_uri_is_found_only_where_one_agent_offers_it() -> None:
    page = Capability(name="ui://page", kind=Kind.RESOURCE)
    found = build([agent("a", page)]).find_resource("ui://page")
    assert found is not None
    assert found[0].agent.id == "a"
    assert build([agent("a", page), agent("b", page)]).find_resource("ui://page") is None


def test_header_promises_are_not_passed_on() -> None:
    schema: JsonObject = {
        "properties": {"a": {"type": "string", "x-mcp-header": "A"}},
        "anyOf": [{"x-mcp-header": "B"}],
    }
    assert without_headers(schema) == {"properties": {"a": {"type": "string"}}, "anyOf": [{}]}


def test_hints_that_cannot_be_read_do_not_hide_the_tool() -> None:
    raw: JsonObject = {"annotations": {"readOnlyHint": "perhaps"}}
    (tool,) = map(tool_of, build([agent("a", Capability(name="t", kind=Kind.TOOL, raw=raw))]).tools.values())
    assert (tool.name, tool.annotations) == ("a__t", None)


def test_the_legacy_era_is_not_told_an_output_schema_it_cannot_hold() -> None:
    listed = Capability(name="t", kind=Kind.TOOL, input_schema={"type": "object"}, output_schema={"type": "array"})
    (modern,) = build([agent("a", listed)]).definitions("tools/list", "2026-07-28")
    (legacy,) = build([agent("a", listed)]).definitions("tools/list", "2025-11-25")
    assert orjson.loads(modern.wire)["outputSchema"] == {"type": "array"}
    assert "outputSchema" not in orjson.loads(legacy.wire)


def test_what_is_wrong_with_arguments_names_the_place() -> None:
    check = ArgumentCheck(
        {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}}}}, label="t"
    )
    assert check.problems({"a": [1, "x"]}) == "arguments.a[1]: 'x' is not of type 'integer'"
    assert check.problems({"a": [1]}) == ""


def test_an_agents_schema_cannot_harm_the_hub() -> None:
    remote: JsonObject = {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/schema"}}}
    endless: JsonObject = {"$ref": "#"}
    slow: JsonObject = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}
    invalid: JsonObject = {"type": 5}
    given: JsonObject = {"a": "a" * 40 + "!"}
    for schema in (remote, endless, invalid):
        assert ArgumentCheck(schema, label="t").problems(given) == ""
    assert "does not match" in ArgumentCheck(slow, label="t").problems(given)
