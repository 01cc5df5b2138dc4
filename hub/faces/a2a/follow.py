"""What happens in a run, as the updates of a stream, until it has ended or asks; from any event on.

Nothing is held between two updates: a reader that is slow makes the stream wait for it, and is never cut off.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from a2a import types as a2a
from a2a.server.events import Event as StreamEvent
from a2a.utils.errors import InvalidParamsError

from interhub.adapters import Principal
from interhub.hub.service import Hub
from interhub.hub.supervisor.run import Event, EventKind, Run, RunState

from .asked import OpenQuestions, asked_by
from .task import agent_of, artifact_update, artifacts_of, final_update, question_update, update_of

RESUME_HEADER = "last-event-id"
"""HTTP header or gRPC metadata of SubscribeToTask: the sequence number of the last update that the caller has.

A2A 1.0 has no field for it; this is how event streams on the web are resumed (HTML, section 9.2.4).
"""

_EVENTS = 1000
_ENDS = frozenset({EventKind.RUN_COMPLETED, EventKind.RUN_FAILED, EventKind.RUN_CANCELED})


def resume_after(given: str, run: Run) -> int | None:
    """Return after which event a stream goes on; None where the caller does not resume one.

    Raises:
        InvalidParamsError: the run has no such event.
    """
    if not given:
        return None
    if not given.isascii() or not given.isdigit() or len(given) > 18 or int(given) > run.generation:
        raise InvalidParamsError(
            f"Last-Event-ID {given[:40]!r} is no sequence number of task {run.id}, whose last is {run.generation}"
        )
    return int(given)


def beginning_of(run: Run) -> Run:
    """Return a run as it was when it had just been submitted, which is its first event."""
    return replace(
        run,
        state=RunState.SUBMITTED,
        parts=(),
        structured=None,
        artifacts=(),
        error=None,
        steps=(),
        questions=(),
        updated_at=run.created_at,
        ended_at=None,
        generation=1,
    )


async def follow(hub: Hub, principal: Principal, run: Run, *, after: int | None = None) -> AsyncGenerator[StreamEvent]:
    """Yield what happens after a run was as given, or after an event of it, until it has ended or asks."""
    began = run.generation if after is None else after
    if after is None:
        shown = {artifact.artifact_id for artifact in artifacts_of(run)}
    else:
        shown = await _made_by(hub, principal, run, after)
    asked = await asked_by(hub, principal, run, began)
    agents = {step.path: step.agent_id for step in run.steps}
    async with aclosing(_generator(hub.watch(principal, run.id, after=began))) as events:
        async for event in events:
            if event.kind in _ENDS:
                break
            question = await asked.take(event, lambda: hub.run(principal, run.id))
            if question is not None:
                yield question_update(run, event, question, asked.state)
                return
            agents[event.step] = agent_of(event) or agents.get(event.step, "")
            update = update_of(run, event, agents[event.step], asked)
            if isinstance(update, a2a.TaskArtifactUpdateEvent):
                shown.add(update.artifact.artifact_id)
            if update is not None:
                yield update
    now = await hub.wait(principal, run.id)  # it has ended: what is known of that here is not read again
    for artifact in artifacts_of(now):
        if artifact.artifact_id not in shown:
            yield artifact_update(now, artifact)
    yield final_update(now)


async def _made_by(hub: Hub, principal: Principal, run: Run, after: int) -> set[str]:
    """Return the ids of the artifacts that a run had begun by an event: whoever resumes after it has those."""
    made: set[str] = set()
    seen = 0
    while seen < after:
        events = await hub.events(principal, run.id, after=seen, limit=min(after - seen, _EVENTS))
        for event in events:
            update = update_of(run, event, "", OpenQuestions())
            if isinstance(update, a2a.TaskArtifactUpdateEvent):
                made.add(update.artifact.artifact_id)
        if not events:
            break
        seen = events[-1].seq
    return made


async def _generator(events: AsyncIterator[Event]) -> AsyncGenerator[Event]:
    """Make an iterator closable: what reads a stream to its middle must end it."""
    try:
        async for event in events:
            yield event
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()
