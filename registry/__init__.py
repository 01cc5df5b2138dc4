"""Who exists: agents, where they are kept, and how one is found for a need."""

from .agent import Agent, Health, HealthState
from .errors import (
    AgentExists,
    AgentNotFound,
    DatabaseError,
    DatabaseTooNew,
    DatabaseUnusable,
    InvalidAgentId,
    RegistryError,
)
from .store import Registry

__all__ = [
    "Agent",
    "AgentExists",
    "AgentNotFound",
    "DatabaseError",
    "DatabaseTooNew",
    "DatabaseUnusable",
    "Health",
    "HealthState",
    "InvalidAgentId",
    "Registry",
    "RegistryError",
]
