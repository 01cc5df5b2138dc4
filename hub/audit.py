"""One record for every decision and call, written in batches off the path of the call."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from interhub.agent_cards import JsonObject, empty_object


@dataclass(frozen=True, kw_only=True)
class AuditRecord:
    """Who did what to whom, how it was decided, and how it ended. Arguments and answers are not recorded."""

    at: datetime
    tenant: str
    subject: str
    action: str
    """`call`, `agent_add`, `agent_remove`, `run_submit`, `run_cancel`, `answer`."""
    target: str
    """`agent/capability`, an agent id or a run id."""
    decision: str
    """`allow`, `deny` or `ask`."""
    outcome: str = ""
    """`completed`, `input_required`, `canceled`, or the reason of the error."""
    duration_ms: float = 0.0
    detail: JsonObject = field(default_factory=empty_object)


class AuditLog(Protocol):
    """Where records go. Never blocks and never raises: the caller's work does not wait for its record."""

    def append(self, record: AuditRecord) -> None:
        """Take one record."""
        ...


class MemoryAuditLog:
    """Keeps records in a list: the twin for tests."""

    def __init__(self) -> None:
        self.records: list[AuditRecord] = []

    def append(self, record: AuditRecord) -> None:
        """Take one record."""
        self.records.append(record)
