"""How capabilities are named under one roof: unique, stable, at most 64 characters, and leading back to their agent.

A name begins with its agent's id and `__`. An id holds no `_`, so what stands before the first `__` is an agent's id:
no agent can claim another's prefix, and the hub's own tools have none.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from interhub.adapters.schemas import ArgumentCheck
from interhub.agent_cards import Capability, Kind
from interhub.registry import Agent

MAX_NAME = 64
"""Longest tool name that every client takes; the models behind them take no more."""
SCHEME = "interhub://"

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_ODD = re.compile(r"[^A-Za-z0-9_-]+")


def plain_name(agent_id: str, name: str) -> str | None:
    """Return `{agent_id}__{name}`, or None when that is too long or holds what a name may not."""
    whole = f"{agent_id}__{name}"
    return whole if len(whole) <= MAX_NAME and _PLAIN.fullmatch(name) else None


def shortened_name(agent_id: str, kind: Kind, name: str, *, turn: int = 0) -> str:
    """Return a name of the allowed form that stays the same for the same capability: a readable start and a digest."""
    identity = f"{kind}\0{name}" + (f"\0{turn}" if turn else "")
    suffix = sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    room = MAX_NAME - len(agent_id) - len("__") - len("_") - len(suffix)
    readable = _ODD.sub("_", name)[:room].strip("_-")
    return f"{agent_id}__{readable}_{suffix}" if readable else f"{agent_id}__{suffix}"


def resource_uri(agent_id: str, uri: str) -> str:
    """Return the URI (or URI template) under which the hub offers an agent's: `interhub://{agent_id}/{uri}`.

    The original follows as it stands, so that a template still expands to what its server expects, and the way back
    is to take the prefix off.
    """
    return f"{SCHEME}{agent_id}/{uri}"


def split_uri(uri: str) -> tuple[str, str] | None:
    """Return agent id and original URI of one of the hub's; None when it is none."""
    if not uri.startswith(SCHEME):
        return None
    agent_id, slash, original = uri[len(SCHEME) :].partition("/")
    return (agent_id, original) if agent_id and slash and original else None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One capability of one agent, under its name in the catalogue."""

    name: str
    agent: Agent
    capability: Capability

    @cached_property
    def arguments(self) -> ArgumentCheck:
        """Checks a call's arguments."""
        return ArgumentCheck(self.capability.input_schema, label=self.name)


def at_uri(agent: Agent, capability: Capability) -> Entry:
    """Return a resource, or a template, under its URI at the hub."""
    return Entry(name=resource_uri(agent.id, capability.name), agent=agent, capability=capability)


def named(agent: Agent, capabilities: Sequence[Capability]) -> dict[str, Entry]:
    """Return an agent's tools, or prompts, by their names at the hub, in the order given."""
    # Plain names are given first, so that no shortened name can take one from its owner.
    taken: dict[str, Capability] = {}
    odd: list[Capability] = []
    for capability in capabilities:
        plain = plain_name(agent.id, capability.name)
        if plain is None or plain in taken:
            odd.append(capability)
        else:
            taken[plain] = capability
    for capability in odd:
        turn = 0
        while (name := shortened_name(agent.id, capability.kind, capability.name, turn=turn)) in taken:
            turn += 1
        taken[name] = capability
    by_identity = {id(capability): name for name, capability in taken.items()}
    return {
        by_identity[id(capability)]: Entry(name=by_identity[id(capability)], agent=agent, capability=capability)
        for capability in capabilities
    }
