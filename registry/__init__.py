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
from .memory import MemoryRegistry
from .names import check_id, near_ids, slug
from .sql import SqlRegistry
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
    "MemoryRegistry",
    "Registry",
    "RegistryError",
    "SqlRegistry",
    "check_id",
    "near_ids",
    "slug",
]
