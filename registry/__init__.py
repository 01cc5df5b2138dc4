"""Who exists: agents, where they are kept, and how one is found for a need.

`SqlRegistry` is in `interhub.registry.sql` and not here: SQLAlchemy takes half a second, and every command imports us.
"""

from .agent import Agent, Health, HealthState
from .errors import (
    AgentExists,
    AgentNotFound,
    DatabaseAway,
    DatabaseError,
    DatabaseTooNew,
    DatabaseUnusable,
    ImportUnreadable,
    InvalidAgentId,
    RegistryError,
)
from .memory import MemoryRegistry
from .names import check_id, near_ids, slug
from .store import Registry

__all__ = [
    "Agent",
    "AgentExists",
    "AgentNotFound",
    "DatabaseAway",
    "DatabaseError",
    "DatabaseTooNew",
    "DatabaseUnusable",
    "Health",
    "HealthState",
    "ImportUnreadable",
    "InvalidAgentId",
    "MemoryRegistry",
    "Registry",
    "RegistryError",
    "check_id",
    "near_ids",
    "slug",
]
