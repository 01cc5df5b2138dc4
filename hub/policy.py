"""Who may do what: asked before every call, with the exact arguments."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Protocol, TypeAlias

from interhub.adapters import Call, Principal
from interhub.registry import Agent


@dataclass(frozen=True)
class Allow:
    """Go on."""

    why: str = ""


@dataclass(frozen=True)
class Deny:
    """Refuse."""

    why: str


@dataclass(frozen=True)
class Ask:
    """Ask a person first."""

    why: str
    answer_by: tuple[str, ...] = ()
    """Who may answer, as `matches` takes it; nobody named: whoever asked for what is to be done."""
    within_s: float | None = None
    """Seconds that the question waits for its answer; None for as long as questions do."""


Decision: TypeAlias = Allow | Deny | Ask


class Policy(Protocol):
    """Decides on one use of one capability. Must not block: it stands on the path of every call."""

    def decide(self, agent: Agent, call: Call) -> Decision:
        """Return the decision for this principal, capability and arguments."""
        ...

    def shuts_out(self, agent: Agent, principal: Principal) -> Deny | None:
        """Return why a principal may use nothing of an agent; None where there may be something."""
        ...


class TenantPolicy:
    """Everything within one's own tenant, nothing outside it."""

    def decide(self, agent: Agent, call: Call) -> Decision:
        """Allow what stays within the caller's tenant."""
        if agent.tenant != call.principal.tenant:
            return Deny(f"agent {agent.id} belongs to another tenant")
        return _SAME_TENANT

    def shuts_out(self, agent: Agent, principal: Principal) -> Deny | None:
        """Shut out who belongs to another tenant."""
        if agent.tenant != principal.tenant:
            return Deny(f"agent {agent.id} belongs to another tenant")
        return None


_SAME_TENANT = Allow("same tenant")


class Effect(StrEnum):
    """What a rule does."""

    ALLOW = "allow"
    DENY = "deny"
    ASK = "ask"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What holds for some callers, agents and capabilities. `*` stands for anything, `?` for one character."""

    effect: Effect
    principals: tuple[str, ...] = ("*",)
    """Subjects, or `tenant/subject`."""
    agents: tuple[str, ...] = ("*",)
    capabilities: tuple[str, ...] = ("*",)
    why: str = ""
    answer_by: tuple[str, ...] = ()
    """With `ask`: who may answer."""
    expires_s: float | None = None
    """With `ask`: seconds that the question waits."""

    def covers(self, principal: Principal, agent_id: str, capability: str) -> bool:
        """Whether the rule is about this."""
        return self.concerns(principal, agent_id) and any(fnmatchcase(capability, glob) for glob in self.capabilities)

    def concerns(self, principal: Principal, agent_id: str) -> bool:
        """Whether the rule is about anything between these two."""
        return matches(principal, self.principals) and any(fnmatchcase(agent_id, glob) for glob in self.agents)

    def decision(self) -> Decision:
        """Return what it decides."""
        match self.effect:
            case Effect.ALLOW:
                return Allow(self.why)
            case Effect.DENY:
                return Deny(self.why or "a rule of the hub's policy forbids it")
            case Effect.ASK:
                why = self.why or "a rule of the hub's policy wants a person asked"
                return Ask(why, self.answer_by, self.expires_s)


class RulePolicy:
    """The operator's rules, of which the first that is about a call decides; what none is about, `otherwise` decides.

    What `otherwise` denies, no rule allows.
    """

    def __init__(self, rules: Sequence[Rule], otherwise: Policy) -> None:
        self._rules = tuple((rule, rule.decision()) for rule in rules)
        self._otherwise = otherwise
        self._known: dict[tuple[str, str, str, str], Decision | None] = {}
        self._shut_out: dict[tuple[str, str, str], Deny | None] = {}

    def decide(self, agent: Agent, call: Call) -> Decision:
        """Return what the first rule says."""
        decided = self._otherwise.decide(agent, call)
        if isinstance(decided, Deny) or not self._rules:
            return decided
        who = call.principal
        key = (who.tenant, who.subject, agent.id, call.capability)
        try:
            ruled = self._known[key]
        except KeyError:
            if len(self._known) >= _KEPT:
                self._known.clear()
            ruled = self._known[key] = next(
                (decision for rule, decision in self._rules if rule.covers(who, agent.id, call.capability)), None
            )
        return decided if ruled is None else ruled

    def shuts_out(self, agent: Agent, principal: Principal) -> Deny | None:
        """Shut out who is denied every capability, none of which an earlier rule allows or wants asked about."""
        denied = self._otherwise.shuts_out(agent, principal)
        if denied is not None or not self._rules:
            return denied
        key = (principal.tenant, principal.subject, agent.id)
        if key not in self._shut_out:
            if len(self._shut_out) >= _KEPT:
                self._shut_out.clear()
            self._shut_out[key] = self._shut_out_by_rules(agent, principal)
        return self._shut_out[key]

    def _shut_out_by_rules(self, agent: Agent, principal: Principal) -> Deny | None:
        for rule, decision in self._rules:
            if not rule.concerns(principal, agent.id):
                continue
            if not isinstance(decision, Deny):
                return None
            if "*" in rule.capabilities:
                return decision
        return None


_KEPT = 10_000
"""Decisions that are remembered."""


def matches(principal: Principal, globs: Sequence[str]) -> bool:
    """Whether a principal is one of those named: by its subject, or as `tenant/subject`."""
    return any(fnmatchcase(principal.key if "/" in glob else principal.subject, glob) for glob in globs)
