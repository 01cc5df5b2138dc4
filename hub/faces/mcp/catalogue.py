"""Every registered agent's capabilities under one roof: collected, found again by name, and put in order for lists."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from mcp.shared.uri_template import InvalidUriTemplate, UriTemplate

from interhub.adapters import Principal
from interhub.agent_cards import JsonObject
from interhub.hub.service import Hub
from interhub.registry import Agent

from .listed import AgentEntries, Definition, entries_of
from .names import Entry, split_uri
from .profiles import Profile

WHOLE = Profile()


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """What one tenant's agents offer to the clients of a profile, as it was when it was built."""

    agents: tuple[Agent, ...]
    """Those that the profile names."""
    profile: Profile = WHOLE
    groups: tuple[AgentEntries, ...] = ()
    """The agents' entries, each agent's whole: the profile is applied when they are read."""

    @cached_property
    def tools(self) -> Mapping[str, Entry]:
        """Tools and skills by name, in the order they are listed."""
        return {entry.name: entry for entry in self._entries("tools/list")}

    @cached_property
    def prompts(self) -> Mapping[str, Entry]:
        """Prompts by name, in the order they are listed."""
        return {entry.name: entry for entry in self._entries("prompts/list")}

    @cached_property
    def resources(self) -> Mapping[str, Entry]:
        """Resources by their URI at the hub."""
        return {entry.name: entry for entry in self._entries("resources/list")}

    def definitions(self, method: str, version: str) -> list[Definition]:
        """Return a list's items as a version of the protocol has them, in the order of their keys."""
        found = [
            definition
            for group in self.groups
            for definition in group.definitions(method, version)
            if self._has(definition.entry)
        ]
        found.sort(key=lambda definition: definition.key)
        return found

    def find_resource(self, uri: str) -> tuple[Entry, JsonObject] | None:
        """Return who offers a URI, and the template's variables where a template does.

        A URI without our prefix (a tool's `_meta` may name one) is found when exactly one agent offers it.
        """
        ours = split_uri(uri)
        if ours is None:
            found = [entry for entry in self.resources.values() if entry.capability.name == uri]
            return (found[0], {}) if len(found) == 1 else None
        if uri in self.resources:
            return self.resources[uri], {}
        agent_id, original = ours
        for entry in self._entries("resources/templates/list", agent_id):
            try:
                variables = UriTemplate.parse(entry.capability.name).match(original)
            except InvalidUriTemplate:
                continue
            if variables is not None:
                return entry, variables
        return None

    def _entries(self, method: str, agent_id: str = "") -> Iterable[Entry]:
        for group in self.groups:
            if not agent_id or group.agent.id == agent_id:
                yield from (entry for entry in group.of(method) if self._has(entry))

    def _has(self, entry: Entry) -> bool:
        return self.profile.is_whole or self.profile.has(entry.agent.id, entry.capability)


def build(
    agents: Iterable[Agent], *, profile: Profile = WHOLE, known: Mapping[str, AgentEntries] | None = None
) -> Catalogue:
    """Collect what the agents offer. The same agents give the same names, in the same order.

    `known` are the entries of an earlier time by agent id: of an agent that has not changed they are taken as they are.
    """
    # In the order of their tools' names: "a-b__" comes before "a__".
    wanted = [each for each in agents if profile.has_agent(each.id)]
    ordered = tuple(sorted(wanted, key=lambda agent: f"{agent.id}__"))
    earlier = known or {}
    groups: list[AgentEntries] = []
    for agent in ordered:
        before = earlier.get(agent.id)
        groups.append(before if before is not None and _same(before.agent, agent) else entries_of(agent))
    return Catalogue(agents=ordered, profile=profile, groups=tuple(groups))


def _same(one: Agent, other: Agent) -> bool:
    # The digest does not cover all of a definition (icons, `_meta`): one registered anew is another one.
    return (one.digest, one.adapter, one.updated_at) == (other.digest, other.adapter, other.updated_at)


@dataclass
class _Tenant:
    """What is kept of one tenant."""

    entries: dict[str, AgentEntries] = field(default_factory=dict[str, AgentEntries])
    """By agent id, of whichever time: an agent that has not changed is not named and written again."""
    catalogues: dict[str, Catalogue] = field(default_factory=dict[str, Catalogue])
    """By profile, as of now."""


class Catalogues:
    """The catalogues of each tenant, built anew only after a change, and then only of the agents that changed."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._tenants: dict[str, _Tenant] = {}
        self.generation = 0
        """Another number after every change of anybody's agents."""

    def known(self, tenant: str, profile: Profile = WHOLE) -> Catalogue | None:
        """Return a tenant's catalogue as of now; None where it is to be built first."""
        kept = self._tenants.get(tenant)
        return kept.catalogues.get(profile.name) if kept is not None else None

    async def of(self, principal: Principal, profile: Profile = WHOLE) -> Catalogue:
        """Return what the caller's agents offer in a profile."""
        known = self.known(principal.tenant, profile)
        if known is not None:
            return known
        tenant = self._tenants.setdefault(principal.tenant, _Tenant())
        generation = self.generation
        agents = await self._hub.agents(principal)
        catalogue = build(agents, profile=profile, known=tenant.entries)
        if generation == self.generation:  # else something changed while the agents were read
            tenant.catalogues[profile.name] = catalogue
            ids = {agent.id for agent in agents}
            tenant.entries = {agent_id: each for agent_id, each in tenant.entries.items() if agent_id in ids}
            tenant.entries.update({group.agent.id: group for group in catalogue.groups})
        return catalogue

    def forget(self, tenant: str) -> None:
        """Take note that a tenant's agents changed."""
        self.generation += 1
        if tenant in self._tenants:
            self._tenants[tenant].catalogues.clear()
