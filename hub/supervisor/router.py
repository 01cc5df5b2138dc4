"""Who should do it: search over the caller's agents, what the policy lets them use, their health, and no circles."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import anyio.to_thread

from interhub.adapters import Call, Principal
from interhub.agent_cards import Binding, Capability, Json, JsonObject, Kind
from interhub.hub.dispatch import Dispatcher
from interhub.hub.errors import NoCapableAgent
from interhub.hub.policy import Deny
from interhub.registry import Agent, HealthState, Registry
from interhub.registry.search import FLOOR, Index, Match

from .arguments import fits
from .envelope import mapping, sequence

CANDIDATES = 20
"""How many of the best matches are looked at."""
_CALLED = (Kind.SKILL, Kind.TOOL)
"""What runs call."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """What is needed, and among whom."""

    principal: Principal
    text: str
    data: Json = None
    members: tuple[str, ...] = ()
    """Only these agents; empty means all the caller may use."""
    trail: tuple[str, ...] = ()
    """The teams and workflows around the need: they, and whoever contains them, are not asked."""
    need: str = ""
    """What to search by, where that is not the text itself."""
    without: tuple[str, ...] = ()
    """These have failed at it."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Whom the router chose, and why."""

    agent: Agent
    capability: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An agent that a planner may plan over, and what of it fits."""

    agent: Agent
    capabilities: tuple[Capability, ...]


class Router:
    """Finds the best capability for a need."""

    def __init__(self, *, registry: Registry, index: Index, dispatcher: Dispatcher, writes: bool = False) -> None:
        """`writes` says that arguments can be made out of words, by a language model."""
        self._registry = registry
        self._index = index
        self._dispatcher = dispatcher
        self._writes = writes

    async def choose(self, need: Need) -> Choice:
        """Return the best that may be used, preferring agents that can be reached.

        Raises:
            NoCapableAgent: nobody can do it, or nobody whom words alone are enough for.
        """
        wanted = need.need or need.text
        agents = {agent.id: agent for agent in await self._registry.list(need.principal.tenant)}
        usable = [agent_id for agent_id in agents if self._in_scope(agent_id, need, agents)]
        matches = await anyio.to_thread.run_sync(lambda: self._search(wanted, need, usable))
        failing: Choice | None = None
        passed: list[str] = []
        for match in matches:
            agent = agents[match.agent_id]
            if why_not := self._why_not(agent, match, need):
                passed.append(f"{agent.id}/{match.capability.name} {why_not}")
                continue
            choice = Choice(agent=agent, capability=match.capability.name, why=_why(match, passed, need))
            if agent.health.state is not HealthState.FAILING:
                return choice
            failing = failing or choice
            passed.append(f"{agent.id}/{match.capability.name} cannot be reached now")
        if failing is not None:
            return failing
        raise NoCapableAgent(wanted)

    async def candidates(self, need: Need, limit: int) -> tuple[Candidate, ...]:
        """Return whom a planner may plan over: all members that may be used, or those that fit a goal best."""
        agents = {agent.id: agent for agent in await self._registry.list(need.principal.tenant)}
        usable = [agent_id for agent_id in agents if self._in_scope(agent_id, need, agents)]
        found: dict[str, list[Capability]] = {}
        for match in await anyio.to_thread.run_sync(lambda: self._nearest(need, usable, limit)):
            found.setdefault(match.agent_id, []).append(match.capability)
        if need.members:
            for agent_id in sorted(usable, key=need.members.index):
                known = found.setdefault(agent_id, [])
                known += [one for one in agents[agent_id].card.capabilities if one.kind in _CALLED and one not in known]
        return tuple(
            Candidate(agent=agents[agent_id], capabilities=allowed)
            for agent_id, capabilities in found.items()
            if (allowed := tuple(one for one in capabilities if not self.denied(agents[agent_id], one, need)))
        )

    def denied(self, agent: Agent, capability: Capability, need: Need) -> str:
        """Return why the policy does not allow it; empty when it does, or wants a person asked."""
        call = Call(capability=capability.name, kind=capability.kind, principal=need.principal, idempotency_key="")
        decision = self._dispatcher.decide(agent, call)
        return decision.why if isinstance(decision, Deny) else ""

    def _nearest(self, need: Need, usable: Collection[str], limit: int) -> tuple[Match, ...]:
        wanted = need.need or need.text
        return self._index.search(
            wanted, tenant=need.principal.tenant, limit=limit, agents=usable, kinds=_CALLED, floor=0.0
        )

    def _search(self, wanted: str, need: Need, usable: Collection[str]) -> tuple[Match, ...]:
        if not usable:
            return ()
        # Whoever names the members has said that one of them is to do it: the floor is for the open field.
        floor = 0.0 if need.members else FLOOR
        found = self._index.search(
            wanted,
            tenant=need.principal.tenant,
            limit=CANDIDATES,
            agents=usable,
            kinds=_CALLED,
            floor=floor,
        )
        return tuple(match for match in found if match.score >= floor)

    def _in_scope(self, agent_id: str, need: Need, agents: Mapping[str, Agent]) -> bool:
        if (need.members and agent_id not in need.members) or agent_id in need.without:
            return False
        return not need.trail or not set(need.trail).intersection(reach(agent_id, agents))

    def _why_not(self, agent: Agent, match: Match, need: Need) -> str:
        if not self._writes and not fits(match.capability, text=need.text, data=need.data):
            return "needs arguments that words do not give"
        return "is not allowed" if self.denied(agent, match.capability, need) else ""


def contained(agent: Agent) -> tuple[str, ...]:
    """Return the ids of the agents that a team or workflow names; none for any other agent."""
    if agent.endpoint.binding not in (Binding.TEAM, Binding.WORKFLOW):
        return ()
    options = agent.endpoint.options
    named = [str(member) for member in sequence(options.get("members"))]
    return tuple(dict.fromkeys([*named, *agents_in_plan(mapping(options.get("workflow")))]))


def agents_in_plan(plan: JsonObject) -> Iterator[str]:
    """Yield the agents that a plan, as JSON, calls by id; those of plans within it too."""
    waiting: list[Json] = [*sequence(plan.get("steps")), *sequence(plan.get("on_failure"))]
    while waiting:
        step = mapping(waiting.pop())
        call, sub, team = (mapping(step.get(kind)) for kind in ("call", "plan", "team"))
        others = [mapping(one).get("agent") for one in sequence(call.get("fallback"))]
        for agent in (call.get("agent"), *others, sub.get("name"), team.get("name"), *sequence(team.get("members"))):
            if isinstance(agent, str) and agent:
                yield agent
        for kind in ("sequence", "parallel", "else", "undo"):
            waiting += sequence(step.get(kind))
        for kind in ("map", "loop"):
            waiting += sequence(mapping(step.get(kind)).get("steps"))
        for branch in sequence(step.get("choose")):
            waiting += sequence(mapping(branch).get("steps"))
        for within in (mapping(sub.get("workflow")), mapping(team.get("workflow"))):
            waiting += [*sequence(within.get("steps")), *sequence(within.get("on_failure"))]


def reach(agent_id: str, agents: Mapping[str, Agent]) -> frozenset[str]:
    """Return an agent and all that its teams and workflows contain, however deep."""
    found: set[str] = set()
    waiting = [agent_id]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            if name in agents:
                waiting.extend(contained(agents[name]))
    return frozenset(found)


def _why(match: Match, passed: Sequence[str], need: Need) -> str:
    if len(need.members) == 1:
        why = "it is the only member"
    elif need.members:
        why = f"it is the nearest of the members: {match.why}"
    else:
        why = match.why
    return why + (f"; passed over: {'; '.join(passed[:3])}" if passed else "")
