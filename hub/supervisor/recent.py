"""What was written last, in memory: so that whoever follows a run does not ask the database for what was just said."""

from collections import OrderedDict
from dataclasses import dataclass

from .run import Event, RunState

MAX_BYTES = 16 * 1024 * 1024
"""Of the payloads that are kept."""
MAX_RUNS = 1024
_EVENT_BYTES = 600
"""What an event takes beside its payload."""


@dataclass(frozen=True)
class Written:
    """What one transaction wrote of a run."""

    state: RunState
    events: tuple[Event, ...]
    size: int
    """Bytes of their payloads, as JSON."""


@dataclass
class _Tail:
    state: RunState | None
    events: list[Event]
    size: int


class Recent:
    """The last events of the runs that had news last. All of it was committed; none of it ever changes."""

    def __init__(self, *, max_bytes: int = MAX_BYTES, max_runs: int = MAX_RUNS) -> None:
        self._tails: OrderedDict[str, _Tail] = OrderedDict()
        self._size = 0
        self._max_bytes = max_bytes
        self._max_runs = max_runs

    def take(self, run_id: str, written: Written | None) -> None:
        """Keep what was written of a run; None when something was, but not what."""
        if written is None:
            self._drop(run_id)
            return
        tail = self._tails.get(run_id)
        if tail is not None and tail.events and written.events and tail.events[-1].seq + 1 != written.events[0].seq:
            self._drop(run_id)  # another replica has written in between
            tail = None
        if tail is None:
            tail = self._tails[run_id] = _Tail(None, [], 0)
        size = written.size + _EVENT_BYTES * len(written.events)
        tail.state = written.state
        tail.events.extend(written.events)
        tail.size += size
        self._size += size
        self._tails.move_to_end(run_id)
        while self._tails and (self._size > self._max_bytes or len(self._tails) > self._max_runs):
            self._drop(next(iter(self._tails)))

    def events(self, run_id: str, after: int, limit: int) -> tuple[Event, ...]:
        """Return the events after a number; none where the database must be asked."""
        tail = self._tails.get(run_id)
        if tail is None or not tail.events or not tail.events[0].seq <= after + 1 <= tail.events[-1].seq:
            return ()
        begin = after + 1 - tail.events[0].seq
        return tuple(tail.events[begin : begin + limit])

    def ends_at(self, run_id: str, after: int) -> bool:
        """Return whether, as far as is known here, nothing follows on an event."""
        tail = self._tails.get(run_id)
        return tail is not None and tail.state is not None and bool(tail.events) and tail.events[-1].seq <= after

    def state(self, run_id: str) -> RunState | None:
        """Return where a run stands; None where the database must be asked."""
        tail = self._tails.get(run_id)
        return tail.state if tail is not None else None

    def last(self, run_id: str) -> Event | None:
        """Return a run's last event; None where the database must be asked."""
        tail = self._tails.get(run_id)
        return tail.events[-1] if tail is not None and tail.state is not None and tail.events else None

    def doubt(self, run_id: str) -> None:
        """Take note that somebody else has written of a run."""
        tail = self._tails.get(run_id)
        if tail is not None:
            tail.state = None

    def clear(self) -> None:
        """Forget everything."""
        self._tails.clear()
        self._size = 0

    def _drop(self, run_id: str) -> None:
        tail = self._tails.pop(run_id, None)
        if tail is not None:
            self._size -= tail.size
