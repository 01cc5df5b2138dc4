"""The cards that the hub publishes: its own, and one for every agent that it fronts."""

from collections.abc import Mapping
from dataclasses import replace

from .capability import Capability, Kind
from .card import AgentCard
from .endpoint import Binding, Endpoint
from .json_value import Json, JsonObject

MAX_LISTED_AGENTS = 200
"""So many agents are listed as skills of the hub; a card may not grow without bound. `delegate` reaches them all."""

AGENT_TENANT = "agents/"
"""What the tenant of an interface begins with that serves one agent of several."""

_DESCRIPTION = (
    "Carries out goals by delegating to the agents, tools, workflows and teams registered here, durably, and asks back "
    "where a person must answer or approve."
)


def hub_card(
    base_url: str,
    agents: Mapping[str, AgentCard],
    version: str,
    *,
    name: str = "interhub",
    description: str = _DESCRIPTION,
    provider: str = "",
    documentation_url: str = "",
    rest: bool = True,
    grpc: str = "",
    push_notifications: bool = False,
    extended_card: bool = False,
) -> AgentCard:
    """Build the hub's own card.

    `agents` maps the ids of the agents, teams and workflows that the caller may use to their cards. The hub's skills
    are `delegate`, which takes any goal, and one for each agent, whose id is the agent's: a message to that skill is
    a message to that agent. `version` is the hub's own, `grpc` the address of its gRPC port, where it has one.
    """
    base_url = base_url.rstrip("/")
    skills = [
        _delegate(agents),
        *(_front(agent_id, agents[agent_id]) for agent_id in sorted(agents)[:MAX_LISTED_AGENTS]),
    ]
    return AgentCard(
        name=name,
        description=description,
        version=version,
        provider=provider,
        documentation_url=documentation_url,
        capabilities=tuple(skills),
        interfaces=_interfaces(f"{base_url}/a2a", rest=rest, grpc=grpc),
        streaming=True,
        push_notifications=push_notifications,
        extended_card=extended_card,
        input_modes=("text/plain", "application/json"),
        output_modes=("text/plain", "application/json"),
    )


def agent_card_for(
    card: AgentCard,
    base_url: str,
    *,
    agent_id: str,
    rest: bool = True,
    grpc: str = "",
    push_notifications: bool = False,
) -> AgentCard:
    """Build the card under which the hub publishes an agent at `/agents/{agent_id}`.

    It is the agent's own, with our interfaces in the place of its own. Tools, prompts and resources of an MCP server
    become skills of the same name, which take a data part with the arguments; what these are is said in the
    description, for readers that do not know the extension which carries the schema. Of several of one name the first
    is meant by it, and the only one; of resources so many are listed as agents are.
    """
    # There is one gRPC port, without paths: what says which agent is meant there is the interface's tenant, which
    # clients pass on (A2A 1.0, section 4.4.6). Version 0.3 has none.
    url = f"{base_url.rstrip('/')}/agents/{agent_id}/a2a"
    return replace(
        card,
        name=card.name or agent_id,
        capabilities=tuple(_as_skill(each) for each in _called_by_name(card)),
        interfaces=_interfaces(url, rest=rest, grpc=grpc, tenant=f"{AGENT_TENANT}{agent_id}"),
        streaming=True,
        push_notifications=push_notifications,
        extended_card=False,
        input_modes=_with_json(card, card.input_modes),
        output_modes=_with_json(card, card.output_modes),
        raw={},
    )


def _interfaces(url: str, *, rest: bool, grpc: str = "", tenant: str = "") -> tuple[Endpoint, ...]:
    found: list[Endpoint] = []
    for version in ("1.0", "0.3"):
        found.append(Endpoint(binding=Binding.A2A_JSONRPC, url=url, version=version))
        if rest:
            found.append(Endpoint(binding=Binding.A2A_REST, url=f"{url}/rest", version=version))
        if grpc and (version == "1.0" or not tenant):
            found.append(Endpoint(binding=Binding.A2A_GRPC, url=grpc, version=version, tenant=tenant))
    return tuple(found)


def _delegate(agents: Mapping[str, AgentCard]) -> Capability:
    names = ", ".join(agents[agent_id].name for agent_id in sorted(agents)[:20])
    described = f" Registered: {names}{' and others' if len(agents) > 20 else ''}." if names else ""
    return Capability(
        name="delegate",
        kind=Kind.SKILL,
        title="Delegate a goal",
        description=f"Give a goal in plain words; it is planned, carried out by whoever can, and answered.{described}",
        tags=("delegation", "orchestration", "multi-agent"),
        examples=("Find out what time it is in Tokyo and write a greeting that fits the hour.",),
    )


def _front(agent_id: str, card: AgentCard) -> Capability:
    """Return an agent as one skill of the hub."""
    can = [each for each in card.capabilities if each.kind in (Kind.SKILL, Kind.TOOL)]
    named = ", ".join(each.title or each.name for each in can[:10])
    listed = f" Can: {named}{' and more' if len(can) > 10 else ''}." if named and named != card.name else ""
    tags = tuple(dict.fromkeys(tag for each in can for tag in each.tags))[:12]
    examples = tuple(dict.fromkeys(example for each in can for example in each.examples))[:5]
    return Capability(
        name=agent_id,
        kind=Kind.SKILL,
        title=card.name,
        description=f"{card.description or card.name}{listed}".strip(),
        tags=tags or ("agent",),
        examples=examples,
        input_modes=card.input_modes,
        output_modes=card.output_modes,
    )


def _called_by_name(card: AgentCard) -> list[Capability]:
    resources = (Kind.RESOURCE, Kind.RESOURCE_TEMPLATE)
    # Of 5,000 capabilities `card.capability` would look through half for each.
    first: dict[str, Capability] = {}
    for each in card.capabilities:
        first.setdefault(each.name, each)
    listed = [each for each in first.values() if each.kind in resources][:MAX_LISTED_AGENTS]
    names = {each.name for each in listed}
    return [each for each in first.values() if each.kind not in resources or each.name in names]


def _as_skill(capability: Capability) -> Capability:
    if capability.kind is Kind.SKILL:
        return replace(capability, raw={})
    arguments = _arguments(capability.input_schema)
    said = capability.description or capability.title or capability.name
    return replace(
        capability,
        kind=Kind.SKILL,
        description=f"{said}\n\nSend one data part with the arguments{': ' + arguments if arguments else ' (none)'}.",
        tags=capability.tags or (capability.kind.value,),
        input_modes=capability.input_modes or ("application/json",),
        output_modes=capability.output_modes or ("application/json", "text/plain"),
        raw={},
    )


def _arguments(schema: JsonObject) -> str:
    """Say in words what a tool takes: `path (string, required), limit (integer)`."""
    properties = schema.get("properties")
    required = schema.get("required")
    if not isinstance(properties, Mapping):
        return ""
    needed = set(required) if isinstance(required, (list, tuple)) else set[Json]()
    said: list[str] = []
    for name, described in properties.items():
        kind = described.get("type") if isinstance(described, Mapping) else None
        notes = [kind] if isinstance(kind, str) else []
        if name in needed:
            notes.append("required")
        said.append(f"{name} ({', '.join(notes)})" if notes else name)
    return ", ".join(said)


def _with_json(card: AgentCard, modes: tuple[str, ...]) -> tuple[str, ...]:
    takes_data = any(each.kind is not Kind.SKILL for each in card.capabilities)
    return tuple(dict.fromkeys((*modes, "application/json"))) if takes_data else modes
