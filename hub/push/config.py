"""A webhook that a caller named for a run, and how far it has been told."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

MAX_PER_RUN = 10
"""Webhooks of one run."""
MAX_ID = 200
MAX_URL = 2048
MAX_SECRET = 4096
"""Most characters of a token or credential."""


class PushState(StrEnum):
    """Whether there is anything left to tell a webhook."""

    ACTIVE = "active"
    DONE = "done"
    """The run has ended, and it was told so."""
    GIVEN_UP = "given_up"
    """It failed too often, and is told nothing any more."""


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where pushes go, and how we prove ourselves there. Nothing of it but the address is ever shown again."""

    url: str
    token: str = field(default="", repr=False)
    """Sent as `X-A2A-Notification-Token`."""
    scheme: str = ""
    """Scheme of `Authorization`: `Bearer`, `Basic`, ..."""
    credentials: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class PushConfig:
    """A webhook of a run (A2A 1.0, section 4.3.1)."""

    run_id: str
    id: str
    """Unique in its run."""
    tenant: str
    subject: str
    destination: Destination
    version: str
    """Of A2A, in which it was registered and is told: `1.0` or `0.3`."""
    sent: int | None = None
    """Number of the last event that it has been told; None when it has been told nothing."""
    state: PushState = PushState.ACTIVE
    tries: int = 0
    """Attempts that failed since the last one that did not."""
    next_try_at: datetime | None = None
    last_error: str = ""
    created_at: datetime

    @property
    def key(self) -> tuple[str, str]:
        """What it is known by."""
        return (self.run_id, self.id)
