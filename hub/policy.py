"""Who may do what: asked before every call, with the exact arguments."""

from dataclasses import dataclass
from typing import Protocol, TypeAlias

from interhub.adapters import Call
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
    """Ask a person first; in a run it becomes a question, on the direct path it is refused with this reason."""

    why: str


Decision: TypeAlias = Allow | Deny | Ask


class Policy(Protocol):
    """Decides on one use of one capability. Must not block: it stands on the path of every call."""

    def decide(self, agent: Agent, call: Call) -> Decision:
        """Return the decision for this principal, capability and arguments."""
        ...


class TenantPolicy:
    """Everything within one's own tenant, nothing outside it."""

    def decide(self, agent: Agent, call: Call) -> Decision:
        """Allow what stays within the caller's tenant."""
        if agent.tenant != call.principal.tenant:
            return Deny(f"agent {agent.id} belongs to another tenant")
        return Allow("same tenant")
