"""The cards that the hub publishes."""

import json

from interhub.agent_cards import (
    AgentCard,
    Binding,
    Capability,
    Endpoint,
    Kind,
    agent_card_for,
    hub_card,
    read_card,
    write_card,
)
from interhub.agent_cards.build import MAX_LISTED_AGENTS

TIME = AgentCard(
    name="mcp-time",
    description="Knows the time.",
    capabilities=(
        Capability(
            name="get_current_time",
            kind=Kind.TOOL,
            description="Get the current time.",
            input_schema={
                "type": "object",
                "properties": {"timezone": {"type": "string"}, "precise": {"type": ["boolean", "null"]}},
                "required": ["timezone"],
            },
        ),
        Capability(name="file:///etc/localtime", kind=Kind.RESOURCE),
        Capability(name="ask", kind=Kind.PROMPT),
    ),
    interfaces=(Endpoint(binding=Binding.MCP_STDIO, command=("uvx", "mcp-server-time"), env={"SECRET": "${SECRET}"}),),
)


def test_the_hub_offers_delegation_and_every_agent_as_a_skill() -> None:
    card = hub_card("http://127.0.0.1:8000/", {"time": TIME, "a-team": AgentCard(name="A-Team")}, "0.1.0")
    assert [skill.name for skill in card.capabilities] == ["delegate", "a-team", "time"]
    time = card.capabilities[2]
    assert (time.title, time.description) == ("mcp-time", "Knows the time. Can: get_current_time.")
    assert [(each.binding, each.url, each.version) for each in card.interfaces] == [
        (Binding.A2A_JSONRPC, "http://127.0.0.1:8000/a2a", "1.0"),
        (Binding.A2A_REST, "http://127.0.0.1:8000/a2a/rest", "1.0"),
        (Binding.A2A_JSONRPC, "http://127.0.0.1:8000/a2a", "0.3"),
        (Binding.A2A_REST, "http://127.0.0.1:8000/a2a/rest", "0.3"),
    ]


def test_the_hubs_card_is_whole_with_no_agent_and_bounded_with_many() -> None:
    for count in (0, 5000):
        agents = {
            f"agent-{number}": AgentCard(name=f"Agent {number}", description="x" * 500) for number in range(count)
        }
        card = hub_card("http://127.0.0.1:8000", agents, "0.1.0")
        assert len(card.capabilities) == min(count, MAX_LISTED_AGENTS) + 1
        written = json.dumps(write_card(card, version="dual")).encode()
        assert read_card(written, source="test").name == "interhub"


def test_an_mcp_server_is_published_with_each_tool_resource_and_prompt_as_a_skill() -> None:
    card = agent_card_for(TIME, "http://127.0.0.1:8000", agent_id="time")
    skill, resource, prompt = card.capabilities
    assert [each.name for each in (resource, prompt)] == ["file:///etc/localtime", "ask"]
    assert {each.kind for each in (resource, prompt)} == {Kind.SKILL}
    assert [each.tags for each in (resource, prompt)] == [("resource",), ("prompt",)]
    assert (skill.name, skill.kind) == ("get_current_time", Kind.SKILL)
    assert skill.description.endswith("Send one data part with the arguments: timezone (string, required), precise.")
    assert card.interfaces[0].url == "http://127.0.0.1:8000/agents/time/a2a"
    assert "application/json" in card.input_modes
    written = write_card(card, version="1.0")
    assert "SECRET" not in json.dumps(written)
    assert read_card(json.dumps(written).encode(), source="test").capabilities[0].input_schema == skill.input_schema


def test_each_name_is_published_once_and_resources_within_bounds() -> None:
    kinds = (Kind.TOOL, Kind.PROMPT)
    capabilities = [Capability(name="ask", kind=kind, description=f"a {kind.value}") for kind in kinds]
    capabilities += [Capability(name=f"file:///{number}", kind=Kind.RESOURCE) for number in range(5000)]
    server = AgentCard(name="many", capabilities=tuple(capabilities))
    skills = agent_card_for(server, "http://127.0.0.1:8000", agent_id="many").capabilities
    assert [each.description.partition("\n")[0] for each in skills if each.name == "ask"] == ["a tool"]
    assert len(skills) == MAX_LISTED_AGENTS + 1


def test_an_a2a_agent_is_published_as_it_is_but_for_its_address() -> None:
    theirs = AgentCard(
        name="Cook",
        description="Cooks.",
        version="3",
        capabilities=(Capability(name="cook", kind=Kind.SKILL, description="Cooks it.", raw={"id": "cook"}),),
        interfaces=(Endpoint(binding=Binding.A2A_JSONRPC, url="http://internal.example.com", version="0.3"),),
        raw={"url": "http://internal.example.com"},
    )
    written = write_card(agent_card_for(theirs, "https://hub.example.com", agent_id="cook"), version="dual")
    assert "internal.example.com" not in json.dumps(written)
    assert (written["name"], written["version"]) == ("Cook", "3")
    assert written["url"] == "https://hub.example.com/agents/cook/a2a"
