"""The rows a run has beside its events: the run itself, its questions, its delegations, its large values.

Plain functions over a connection: writes go through the journal's thread, reads through any.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import cast

import sqlalchemy as sa
from sqlalchemy import Connection, Row, and_, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from interhub.adapters.content import parts_from_json
from interhub.agent_cards import Json, JsonObject
from interhub.registry.database import (
    blob_uses,
    blobs,
    delegations,
    events,
    insert_new,
    insert_or_replace,
    questions,
    runs,
)

from .envelope import mapping, requests_from_json, sequence, text
from .run import EventKind, Question, RunFilter, RunState


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run's row."""

    id: str
    tenant: str
    subject: str
    context_id: str
    agent_id: str
    goal: str
    """The goal's words, for lists."""
    spec: JsonObject
    """What the engine was given (`interpreter`)."""
    state: RunState
    outcome: JsonObject | None
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    generation: int


@dataclass(frozen=True, kw_only=True)
class Delegation:
    """Which agent a call went to, and which task of it that became."""

    key: str
    """The call's idempotency key."""
    run_id: str
    step: str
    agent_id: str
    capability: str
    remote_task: str = ""
    remote_context: str = ""
    state: str = "routed"
    """`routed`, `bound`; `released:N` when it was given up N times, so that it must be sent under another key."""


def add_run(connection: Connection, record: RunRecord) -> bool:
    """Add a run; False when one of that id is there."""
    values = {
        "id": record.id,
        "tenant": record.tenant,
        "subject": record.subject,
        "context_id": record.context_id,
        "parent_id": None,
        "root_id": record.id,
        "agent_id": record.agent_id,
        "goal": record.goal,
        "spec": dict(record.spec),
        "state": record.state.value,
        "outcome": record.outcome,
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "ended_at": record.ended_at,
        "generation": record.generation,
    }
    return insert_new(connection, runs, values)


def find_run(connection: Connection, run_id: str) -> RunRecord | None:
    """Return a run's row."""
    row = connection.execute(select(runs).where(runs.c.id == run_id)).one_or_none()
    return None if row is None else _run(row)


def list_runs(
    connection: Connection,
    *,
    tenant: str,
    subject: str,
    state: RunState | None,
    context_id: str | None,
    limit: int,
    before: RunRecord | None,
) -> list[RunRecord]:
    """Return a principal's runs, newest first, those older than `before`."""
    query = select(runs).where(runs.c.tenant == tenant, runs.c.subject == subject)
    if state is not None:
        query = query.where(runs.c.state == state.value)
    if context_id is not None:
        query = query.where(runs.c.context_id == context_id)
    if before is not None:
        same = and_(runs.c.created_at == before.created_at, runs.c.id < before.id)
        query = query.where(or_(runs.c.created_at < before.created_at, same))
    query = query.order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit)
    return [_run(row) for row in connection.execute(query)]


def page_runs(
    connection: Connection,
    *,
    tenant: str,
    subject: str,
    wanted: RunFilter,
    after: tuple[datetime, str] | None,
    limit: int,
) -> tuple[list[RunRecord], int]:
    """Return a principal's runs, those that changed last first, and how many there are on all pages.

    `after` is when the last run of the page before changed, and its id.
    """
    conditions = [runs.c.tenant == tenant, runs.c.subject == subject]
    if wanted.state is not None:
        conditions.append(runs.c.state == wanted.state.value)
    if wanted.context_id:
        conditions.append(runs.c.context_id == wanted.context_id)
    if wanted.agent_id:
        conditions.append(runs.c.agent_id == wanted.agent_id)
    if wanted.changed_since is not None:
        conditions.append(runs.c.updated_at >= wanted.changed_since)
    total = connection.execute(select(sa.func.count()).select_from(runs).where(*conditions)).scalar_one()
    if after is not None:
        at, run_id = after
        conditions.append(or_(runs.c.updated_at < at, and_(runs.c.updated_at == at, runs.c.id < run_id)))
    query = select(runs).where(*conditions).order_by(runs.c.updated_at.desc(), runs.c.id.desc()).limit(limit)
    return [_run(row) for row in connection.execute(query)], total


def unfinished_runs(connection: Connection) -> list[RunRecord]:
    """Return the runs that have not ended, oldest first: for start-up."""
    ended = [state.value for state in RunState if state.ended]
    query = select(runs).where(runs.c.state.not_in(ended)).order_by(runs.c.created_at)
    return [_run(row) for row in connection.execute(query)]


# Delegations


def put_delegation(connection: Connection, one: Delegation, at: datetime) -> None:
    """Remember a delegation, in the place of what was known under its key."""
    values = {
        "key": one.key,
        "run_id": one.run_id,
        "step": one.step,
        "agent_id": one.agent_id,
        "capability": one.capability,
        "remote_task": one.remote_task,
        "remote_context": one.remote_context,
        "state": one.state,
        "updated_at": at,
    }
    insert_or_replace(connection, delegations, values, key="key")


def find_delegation(connection: Connection, key: str) -> Delegation | None:
    """Return what is known under a key."""
    row = connection.execute(select(delegations).where(delegations.c.key == key)).one_or_none()
    return None if row is None else _delegation(row)


def remote_context(
    connection: Connection, *, tenant: str, subject: str, context_id: str, agent_id: str, since: datetime
) -> str:
    """Return an agent's own id of a principal's context, as it gave it last after `since`; empty for none."""
    query = (
        select(delegations.c.remote_context)
        .join(runs, runs.c.id == delegations.c.run_id)
        .where(runs.c.tenant == tenant, runs.c.context_id == context_id, runs.c.subject == subject)
        .where(delegations.c.agent_id == agent_id, delegations.c.remote_context != "")
        .where(delegations.c.updated_at >= since)
        .order_by(delegations.c.updated_at.desc())
        .limit(1)
    )
    return connection.execute(query).scalar() or ""


def delegations_of(connection: Connection, run_ids: Collection[str]) -> list[Delegation]:
    """Return the delegations of runs."""
    query = select(delegations).where(delegations.c.run_id.in_(list(run_ids)))
    return [_delegation(row) for row in connection.execute(query)]


# Questions


def ask(connection: Connection, question: Question, asked: JsonObject, *, attempt: int, digest: str) -> bool:
    """Add an open question; False when it was asked before."""
    values = {
        "id": question.id,
        "run_id": question.run_id,
        "step": question.step,
        "attempt": attempt,
        "asked": dict(asked),
        "state": "open",
        "answer": None,
        "answered_by": None,
        "digest": digest,
        "asked_at": question.asked_at,
        "expires_at": question.expires_at,
    }
    return insert_new(connection, questions, values)


def close_question(connection: Connection, question_id: str, *, state: str) -> bool:
    """Close an open question; False when it was not open."""
    query = update(questions).where(questions.c.id == question_id, questions.c.state == "open").values(state=state)
    return connection.execute(query).rowcount == 1


def answer_question(
    connection: Connection, question_id: str, answer: JsonObject, by: str, *, before: datetime | None = None
) -> bool:
    """Take the answer to an open question; False when somebody was first. The comparison and the change are one.

    `before`: the time, where an answer that comes after the question has expired is none.
    """
    query = (
        update(questions)
        .where(questions.c.id == question_id, questions.c.state == "open")
        .values(state="answered", answer=dict(answer), answered_by=by)
    )
    if before is not None:
        query = query.where(or_(questions.c.expires_at.is_(None), questions.c.expires_at > before))
    return connection.execute(query).rowcount == 1


def answer_request(connection: Connection, question_id: str, key: str, value: Json) -> dict[str, Json] | None:
    """Take the answer to one of the several requests of an open question, and return all that are given.

    None when the question is not open, has no such request, or somebody was first.
    """
    query = select(questions.c.asked).where(questions.c.id == question_id, questions.c.state == "open")
    asked = connection.execute(query.with_for_update()).scalar()
    if asked is None:
        return None
    given = dict(mapping(asked.get("given")))
    if key in given or all(request.key != key for request in requests_from_json(asked.get("requests"))):
        return None
    given[key] = value
    connection.execute(update(questions).where(questions.c.id == question_id).values(asked={**asked, "given": given}))
    return given


@dataclass(frozen=True, kw_only=True)
class QuestionRecord:
    """A question's row."""

    question: Question
    asked: JsonObject
    """What was asked as JSON, `workflow`: the run or child run that waits for the answer, and `given`: the answers to
    some of several requests."""
    attempt: int
    state: str
    """`open`, `answered`, `closed` or `expired`."""
    answer: JsonObject | None
    answered_by: str
    digest: str


def questions_of(connection: Connection, run_ids: Collection[str], *, state: str | None = None) -> list[QuestionRecord]:
    """Return the questions of runs in the order they were asked."""
    query = select(questions).where(questions.c.run_id.in_(list(run_ids)))
    if state is not None:
        query = query.where(questions.c.state == state)
    return [_question(row) for row in connection.execute(query.order_by(questions.c.asked_at, questions.c.id))]


def find_question(connection: Connection, question_id: str) -> QuestionRecord | None:
    """Return a question."""
    row = connection.execute(select(questions).where(questions.c.id == question_id)).one_or_none()
    return None if row is None else _question(row)


def questions_in(
    connection: Connection, tenant: str, *, state: str | None, question_id: str = "", limit: int
) -> list[tuple[QuestionRecord, str]]:
    """Return a tenant's questions with the subjects whose runs ask them, newest first; or the one of that id."""
    query = select(questions, runs.c.subject).join(runs, runs.c.id == questions.c.run_id)
    query = query.where(runs.c.tenant == tenant)
    if state is not None:
        query = query.where(questions.c.state == state)
    if question_id:
        query = query.where(questions.c.id == question_id)
    query = query.order_by(questions.c.asked_at.desc(), questions.c.id).limit(limit)
    return [(_question(row), row.subject) for row in connection.execute(query)]


def last_attempt(connection: Connection, run_id: str, step: str) -> tuple[int, dict[EventKind, int]]:
    """Return the last attempt that the journal knows of a step, 0 for none, and the `n` that is next for each kind."""
    query = (
        select(events.c.attempt, events.c.kind, sa.func.max(events.c.n))
        .where(events.c.run_id == run_id, events.c.step == step)
        .group_by(events.c.attempt, events.c.kind)
    )
    told = connection.execute(query).all()
    last = max((attempt for attempt, _, _ in told), default=0)
    return last, {EventKind(kind): n + 1 for attempt, kind, n in told if attempt == last}


# Large values


def blob_id(data: bytes) -> str:
    """Return the id of a value: its content's digest, so that a step that runs twice stores it once."""
    return f"sha256:{sha256(data).hexdigest()}"


def put_blob(connection: Connection, data: bytes, at: datetime, *, run_id: str) -> str:
    """Keep a value for a run, and return its id.

    Its time is that of the last putting, so that `retention` does not remove what is just being put again.
    """
    name = blob_id(data)
    values = {"id": name, "media_type": "application/json", "size": len(data), "bytes": data, "created_at": at}
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    put = dialect.insert(blobs).values(values)
    connection.execute(put.on_conflict_do_update(index_elements=["id"], set_={"created_at": at}))
    insert_new(connection, blob_uses, {"run_id": run_id, "blob_id": name})
    return name


def find_blob(connection: Connection, name: str) -> bytes | None:
    """Return a value."""
    found = connection.execute(select(blobs.c.bytes).where(blobs.c.id == name)).scalar()
    return cast("bytes | None", found)


def _run(row: Row[tuple[object, ...]]) -> RunRecord:
    return RunRecord(
        id=row.id,
        tenant=row.tenant,
        subject=row.subject,
        context_id=row.context_id,
        agent_id=row.agent_id,
        goal=row.goal,
        spec=row.spec,
        state=RunState(row.state),
        outcome=row.outcome,
        created_at=row.created_at,
        updated_at=row.updated_at,
        ended_at=row.ended_at,
        generation=row.generation,
    )


def _delegation(row: Row[tuple[object, ...]]) -> Delegation:
    return Delegation(
        key=row.key,
        run_id=row.run_id,
        step=row.step,
        agent_id=row.agent_id,
        capability=row.capability,
        remote_task=row.remote_task,
        remote_context=row.remote_context,
        state=row.state,
    )


def _question(row: Row[tuple[object, ...]]) -> QuestionRecord:
    asked = cast("JsonObject", row.asked)
    schema: Json = asked.get("schema")
    question = Question(
        id=row.id,
        run_id=row.run_id,
        step=row.step,
        agent_id=str(asked.get("agent", "")),
        parts=parts_from_json(asked.get("parts")),
        schema=mapping(schema) if schema is not None else None,
        auth=bool(asked.get("auth")),
        requests=tuple(
            request
            for request in requests_from_json(asked.get("requests"))
            if request.key not in mapping(asked.get("given"))
        ),
        asked_at=row.asked_at,
        expires_at=row.expires_at,
        capability=text(asked, "capability"),
        approval=asked.get("approval") is True,
        asked_by=text(asked, "asked_by"),
        answer_by=tuple(str(one) for one in sequence(asked.get("answer_by"))),
        digest=row.digest,
    )
    return QuestionRecord(
        question=question,
        asked=asked,
        attempt=row.attempt,
        state=row.state,
        answer=row.answer,
        answered_by=row.answered_by or "",
        digest=row.digest,
    )


def open_questions(records: Sequence[QuestionRecord]) -> tuple[Question, ...]:
    """Return the questions that still want an answer."""
    return tuple(record.question for record in records if record.state == "open")
