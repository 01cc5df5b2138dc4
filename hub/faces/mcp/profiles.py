"""Named profiles: which part of the catalogue a client is shown, and how a request says which.

A profile is a view, not a permission: the policy says who may use what. Its clients list and call by name only what is
in it, and `find` and `call` know nothing else; `delegate` may still hand a goal to whoever can.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias
from urllib.parse import parse_qs

from interhub.adapters import Principal
from interhub.agent_cards import Capability
from interhub.hub.errors import BadRequest, shown
from interhub.registry import Agent

HEADER = b"interhub-profile"
"""Header by which a client chooses a profile; `?profile=` of the URL comes before it."""
QUERY = "profile"

CatalogueMode: TypeAlias = Literal["auto", "all", "search"]
"""What is listed of the agents' tools: all, none (they are reached by `find` and `call`), or by their number."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A selection of what the agents offer. What is not named by `agents` and by `capabilities` is not in it."""

    name: str = ""
    """Empty for everything that there is."""
    mode: CatalogueMode = "auto"
    agents: tuple[str, ...] = ("*",)
    """Patterns of agent ids, with `*`, `?` and `[...]`."""
    capabilities: tuple[str, ...] = ("*",)
    """Patterns of capability names; one that holds a `/` is held against `agent/name` too."""

    @property
    def is_whole(self) -> bool:
        """True when nothing is left out."""
        return "*" in self.agents and "*" in self.capabilities

    def has_agent(self, agent_id: str) -> bool:
        """Tell whether an agent may have anything in it."""
        return any(fnmatchcase(agent_id, pattern) for pattern in self.agents)

    def has(self, agent_id: str, capability: Capability) -> bool:
        """Tell whether a capability is in it."""
        if self.is_whole:
            return True
        name = capability.name
        whole = f"{agent_id}/{name}"
        return self.has_agent(agent_id) and any(
            fnmatchcase(name, pattern) or ("/" in pattern and fnmatchcase(whole, pattern))
            for pattern in self.capabilities
        )

    def of(self, agent: Agent) -> tuple[Capability, ...]:
        """Return what an agent has in it."""
        if self.is_whole:
            return agent.card.capabilities
        if not self.has_agent(agent.id):
            return ()
        return tuple(each for each in agent.card.capabilities if self.has(agent.id, each))


@dataclass(frozen=True, kw_only=True)
class Profiles:
    """The profiles there are, and whose clients get which without asking."""

    whole: Profile = field(default_factory=Profile)
    """What clients get for whom nothing is set."""
    named: Mapping[str, Profile] = field(default_factory=dict[str, Profile])
    default: str = ""
    by_subject: Mapping[str, str] = field(default_factory=dict[str, str])
    """Names of profiles by `Principal.subject`."""

    def chosen(self, query: bytes, header: bytes | None, principal: Principal) -> Profile:
        """Return the profile of an HTTP request: of its URL, else of its header (`HEADER`), else of its caller's key.

        Raises:
            BadRequest: it chooses one that there is not.
        """
        if query:
            given = parse_qs(query.decode("latin-1"), keep_blank_values=True).get(QUERY)
            if given is not None:
                return self._named(given[-1])
        if header is not None:
            return self._named(header.decode("latin-1").strip())
        return self._of(principal)

    def _of(self, principal: Principal) -> Profile:
        name = self.by_subject.get(principal.subject, self.default)
        return self.named[name] if name else self.whole

    def _named(self, name: str) -> Profile:
        try:
            return self.named[name]
        except KeyError:
            near = get_close_matches(name, self.named, n=1)
            if near:
                remedy = f"did you mean {near[0]}?"
            elif self.named:
                remedy = f"there are: {', '.join(sorted(self.named))}"
            else:
                remedy = "none is set; the hub's settings name them under catalogue.profiles"
            raise BadRequest(f"no profile is called {shown(name)}", remedy) from None
