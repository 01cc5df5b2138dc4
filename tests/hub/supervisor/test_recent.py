"""What was written last is answered from memory only where it is the whole truth."""

from datetime import UTC, datetime

from interhub.hub.supervisor.recent import Recent, Written
from interhub.hub.supervisor.run import Event, EventKind, RunState

AT = datetime(2026, 1, 1, tzinfo=UTC)


def written(*numbers: int, run: str = "r", size: int = 10, state: RunState = RunState.WORKING) -> Written:
    events = tuple(
        Event(run_id=run, seq=number, step="", attempt=0, kind=EventKind.STEP_LOG, n=number, at=AT, payload={})
        for number in numbers
    )
    return Written(state, events, size)


def numbers(recent: Recent, after: int, limit: int = 100, run: str = "r") -> list[int]:
    return [event.seq for event in recent.events(run, after, limit)]


def test_events_are_given_from_a_number_on_and_none_where_an_earlier_one_is_missing() -> None:
    recent = Recent()
    recent.take("r", written(3, 4))
    recent.take("r", written(5))
    assert numbers(recent, 2) == [3, 4, 5]
    assert numbers(recent, 3, limit=1) == [4]
    assert numbers(recent, 1) == []
    assert numbers(recent, 5) == []


def test_a_gap_that_another_replica_made_is_never_skipped() -> None:
    recent = Recent()
    recent.take("r", written(1, 2))
    recent.take("r", written(4))
    assert numbers(recent, 2) == []
    assert numbers(recent, 3) == [4]


def test_a_state_is_in_doubt_once_another_replica_has_written() -> None:
    recent = Recent()
    recent.take("r", written(1))
    assert recent.state("r") is RunState.WORKING
    recent.doubt("r")
    assert recent.state("r") is None
    recent.take("r", None)
    assert numbers(recent, 0) == []


def test_memory_is_bounded_by_runs_and_by_bytes() -> None:
    recent = Recent(max_runs=2, max_bytes=5000)
    for run in ("a", "b", "c"):
        recent.take(run, written(1, run=run))
    assert [recent.state(run) is None for run in ("a", "b", "c")] == [True, False, False]
    recent.take("d", written(1, run="d", size=10_000))
    assert recent.state("d") is None


def test_nothing_follows_on_the_last_event_until_somebody_else_has_written() -> None:
    recent = Recent()
    assert not recent.ends_at("r", 0)
    recent.take("r", written(1, 2))
    assert [recent.ends_at("r", after) for after in (0, 1, 2, 3)] == [False, False, True, True]
    recent.doubt("r")
    assert not recent.ends_at("r", 2)
    recent.take("r", written(4))
    assert not recent.ends_at("r", 3)
