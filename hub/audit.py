"""One record for every decision and call, written in batches off the path of the call."""

from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple, Protocol

from interhub.agent_cards import JsonObject


class AuditRecord(NamedTuple):
    """Who did what to whom, how it was decided, and how it ended. Arguments and answers are not recorded.

    A tuple, because one is made for every call: it costs a third of a frozen dataclass.
    """

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
    detail: JsonObject = MappingProxyType({})


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
