"""How an open conversation with an agent is, to be shown: connected, at rest, or failing and when it is tried again."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable


class State(StrEnum):
    """Where a connection is in its life."""

    OPENING = "opening"
    OPEN = "open"
    IDLE = "idle"
    """It is not connected at the moment, and is when somebody calls."""
    FAILED = "failed"
    """It could not be opened, or did not last, and is not tried again before its time."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """How a connection is."""

    state: State
    failures: int = 0
    """Openings that failed in a row."""
    next_try_s: float = 0.0
    """Seconds until it may be opened again; 0 when at once."""
    error: str = ""
    """Why the last opening failed."""


@runtime_checkable
class Conditioned(Protocol):
    """A `Connection` whose session comes and goes, and that can say how it is."""

    def condition(self) -> Condition:
        """Return how it is now."""
        ...
