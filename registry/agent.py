"""The registry's record of one agent."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from interhub.agent_cards import AgentCard, Endpoint


class HealthState(StrEnum):
    """Whether an agent can be reached, as last seen."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    FAILING = "failing"


@dataclass(frozen=True, kw_only=True)
class Health:
    """What was last seen of an agent."""

    state: HealthState = HealthState.UNKNOWN
    last_error: str = ""
    checked_at: datetime | None = None
    next_try_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Agent:
    """Everything the hub can delegate to is an agent: an A2A agent, an MCP server, a worker, a workflow, a team."""

    id: str
    """Unique within the tenant, and the first part of its tools' names: `^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$`."""
    tenant: str = "default"
    adapter: str
    """Name of the adapter that speaks to it: a2a, mcp, worker, local, team, workflow."""
    card: AgentCard
    endpoint: Endpoint
    """The one of its interfaces that we use, with what we add (headers, environment)."""
    digest: str
    """`sha256:...` over what it said about itself when it was registered (`interhub.agent_cards.canonical`)."""
    health: Health = field(default_factory=Health)
    created_at: datetime
    updated_at: datetime
