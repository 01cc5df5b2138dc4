"""Answers to what runs ask: each question is answered once, by somebody who may, and the run is told exactly once."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import anyio.to_thread
import sqlalchemy as sa
from sqlalchemy import Connection

from interhub.adapters import DataPart, Principal, text_of
from interhub.adapters.content import part_to_json
from interhub.adapters.schemas import problems_of
from interhub.agent_cards import Json
from interhub.hub.audit import AuditLog, AuditRecord
from interhub.hub.errors import BadRequest, NotAllowed, QuestionNotFound
from interhub.registry.database import reading

from . import records
from .arguments import text_slot
from .durable import Engine
from .envelope import mapping, sequence, text
from .journal import Fact, Journal
from .records import QuestionRecord
from .run import Answer, Approval, EventKind


class Approvals:
    """Takes answers to open questions."""

    def __init__(self, *, journal: Journal, engine: Engine, database: sa.Engine, audit: AuditLog) -> None:
        self._journal = journal
        self._engine = engine
        self._database = database
        self._audit = audit

    async def listed(
        self, principal: Principal, *, state: str | None = "open", question_id: str = "", limit: int = 100
    ) -> tuple[Approval, ...]:
        """Return the questions that a principal may answer, and those of its own runs, newest first."""

        def read() -> list[tuple[QuestionRecord, str]]:
            with reading(self._database) as connection:
                return records.questions_in(
                    connection, principal.tenant, state=state, question_id=question_id, limit=_LOOKED_AT
                )

        found = [
            Approval(
                question=record.question,
                state=record.state,
                answered_by=record.answered_by,
                accepted=(record.answer or {}).get("accepted") is True if record.state == "answered" else None,
                for_me=record.question.is_for(principal),
            )
            for record, subject in await anyio.to_thread.run_sync(read)
            if subject == principal.subject or record.question.is_for(principal)
        ]
        return tuple(found[:limit])

    def of_run(self, run_id: str) -> list[QuestionRecord]:
        """Return what a run has asked, answered or not. Blocks shortly."""
        with reading(self._database) as connection:
            return records.questions_of(connection, [run_id])

    async def answer(self, run_id: str, answer: Answer, *, question_id: str, asked: Sequence[QuestionRecord]) -> None:
        """Answer a question; the first answer counts.

        Raises:
            QuestionNotFound: nothing is asked, several things are and none was named, somebody was first, it has
                expired, or it is not what the person saw.
            NotAllowed: it is for others to answer.
            BadRequest: the answer does not fit the question's schema.
        """
        record = _pick(run_id, question_id, asked)
        if not record.question.is_for(answer.by):
            self._note(record, answer.by, decision="deny", outcome="PERMISSION_DENIED")
            raise NotAllowed("answering this question", f"it is for {', '.join(record.question.answer_by)} to answer")
        if answer.digest and answer.digest != record.digest:
            self._note(record, answer.by, decision="deny", outcome="QUESTION_NOT_FOUND")
            why = "what is asked is not what was seen: look again, and answer that"
            raise QuestionNotFound(run_id, record.question.id, why)
        if answer.request:
            together = await self._answer_request(record, answer)
            if together is None:
                return
            answer = together
        answer = _fitted(answer, record)
        by = answer.by.key
        shaped: dict[str, Json] = {
            "parts": [part_to_json(part) for part in answer.parts],
            "accepted": answer.accepted,
            "by": by,
            "question": record.question.id,
            "message_id": answer.message_id,
        }

        def take(connection: Connection) -> bool:
            return records.answer_question(connection, record.question.id, shaped, by, before=datetime.now(UTC))

        # Who answered may turn away meanwhile. From here on that must not keep the answer from the run, which is told
        # once more only at start-up. Two writes, one transaction apart at most: the fact is idempotent.
        with anyio.CancelScope(shield=True):
            if not await self._journal.write(take):
                raise await anyio.to_thread.run_sync(self._too_late, record)
            self._note(record, answer.by, outcome="accepted" if answer.accepted else "declined")
            await self._journal.append(_answered(record, shaped))
            await self._send(record, shaped)

    async def _answer_request(self, record: QuestionRecord, answer: Answer) -> Answer | None:
        """Keep the answer to one of several requests. Returns the answer to all once there are all.

        Raises:
            QuestionNotFound: this is not asked, or somebody was first.
            BadRequest: the answer does not fit.
        """
        question = record.question
        request = next((one for one in question.requests if one.key == answer.request), None)
        if request is None:
            raise QuestionNotFound(question.run_id, question.id, f"it does not ask {answer.request!r}, or not any more")
        value: Json = None
        if answer.accepted:
            data = next((part.data for part in answer.parts if isinstance(part, DataPart)), None)
            value = data if data is not None else {} if request.auth else text_of(answer.parts)
            if request.schema is not None and (problems := problems_of(value, request.schema)):
                raise BadRequest(f"the answer does not fit the question: {'; '.join(problems[:3])}")

        def take(connection: Connection) -> dict[str, Json] | None:
            return records.answer_request(connection, question.id, answer.request, value)

        given = await self._journal.write(take)
        if given is None:
            raise await anyio.to_thread.run_sync(self._too_late, record)
        if len(given) < len(sequence(record.asked.get("requests"))):
            return None
        accepted = any(one is not None for one in given.values())
        return replace(answer, parts=(DataPart(data=given),) if accepted else (), accepted=accepted, request="")

    async def deliver(self, run_ids: Sequence[str]) -> None:
        """Tell runs again what they were answered: at start-up, for answers whose delivery a crash cut off."""
        with reading(self._database) as connection:
            found = records.questions_of(connection, run_ids, state="answered")
        for record in found:
            if record.answer is not None:
                await self._journal.append(_answered(record, dict(record.answer)))
                await self._send(record, dict(record.answer))

    def _too_late(self, record: QuestionRecord) -> QuestionNotFound:
        """Return why an answer was not taken: who was first, or that the question has expired."""
        question = record.question
        with reading(self._database) as connection:
            now = records.find_question(connection, question.id)
        if now is not None and now.state == "open" and not question.requests:
            return QuestionNotFound(question.run_id, question.id, _expired(question.expires_at))
        why = _closed(now) if now is not None and now.state != "open" else "somebody else has answered this already"
        return QuestionNotFound(question.run_id, question.id, why)

    def _note(self, record: QuestionRecord, by: Principal, *, decision: str = "allow", outcome: str) -> None:
        question = record.question
        self._audit.append(
            AuditRecord(
                at=datetime.now(UTC),
                tenant=by.tenant,
                subject=by.subject,
                action="answer",
                target=question.run_id,
                decision=decision,
                outcome=outcome,
                detail={"question": question.id, "digest": record.digest, "agent": question.agent_id},
            )
        )

    async def _send(self, record: QuestionRecord, answer: dict[str, Json]) -> None:
        question = record.question
        await self._engine.send(text(record.asked, "workflow"), question.id, answer, key=question.id)


def _answered(record: QuestionRecord, answer: dict[str, Json]) -> Fact:
    question = record.question
    payload: dict[str, Json] = {
        "question": question.id,
        "by": answer.get("by"),
        "accepted": answer.get("accepted"),
        "message_id": answer.get("message_id") or "",
    }
    if not question.auth:  # what was said to a login stays with the question
        payload["parts"] = answer.get("parts") or []
    return Fact(
        run_id=question.run_id,
        kind=EventKind.QUESTION_ANSWERED,
        step=question.step,
        attempt=record.attempt,
        payload=payload,
    )


def _pick(run_id: str, question_id: str, asked: Sequence[QuestionRecord]) -> QuestionRecord:
    if question_id:
        found = next((one for one in asked if one.question.id == question_id), None)
        if found is None:
            raise QuestionNotFound(run_id, question_id)
        if found.state != "open":
            raise QuestionNotFound(run_id, question_id, _closed(found))
        return found
    waiting = [one for one in asked if one.state == "open"]
    if len(waiting) == 1:
        return waiting[0]
    if not waiting:
        raise QuestionNotFound(run_id)
    ids = ", ".join(f"{one.question.id} (step {one.question.step})" for one in waiting)
    raise QuestionNotFound(run_id, "", f"run {run_id} asks {len(waiting)} things; say which you answer: {ids}")


def _closed(record: QuestionRecord) -> str:
    """Say why a question takes no answer any more."""
    match record.state:
        case "answered":
            return f"this question was answered already, by {record.answered_by}"
        case "expired":
            return _expired(record.question.expires_at)
        case _:
            return "this question is closed: the run goes on, or ended, without it"


def _expired(at: datetime | None) -> str:
    return "this question has expired" + (f" ({at.isoformat(timespec='seconds')})" if at is not None else "")


_LOOKED_AT = 1000
"""Most questions of a tenant that are looked at for those of one principal."""
_YES = frozenset({"yes", "y", "ok", "okay", "approve", "approved", "accept", "accepted", "allow", "allowed", "true"})
_NO = frozenset({"no", "n", "decline", "declined", "deny", "denied", "reject", "rejected", "refuse", "false"})


def _consent(answer: Answer) -> Answer:
    """Return the answer to what only yes or no is wanted for: words must begin with one of them.

    Raises:
        BadRequest: it is neither.
    """
    data = next((part.data for part in answer.parts if isinstance(part, DataPart)), None)
    given = (
        data if isinstance(data, bool) else next((mapping(data)[key] for key in _KEYS if key in mapping(data)), None)
    )
    if isinstance(given, bool):
        return replace(answer, accepted=given)
    said = text_of(answer.parts)
    first = re.match(r"\W*(\w+)", said.lower())
    word = first[1] if first is not None else ""
    if word in _YES or not answer.parts:
        return answer
    if word in _NO:
        return replace(answer, accepted=False)
    raise BadRequest("this question wants a yes or a no", "begin the answer with one of them, or decline")


_KEYS = ("approve", "approved", "accept", "accepted", "answer")


def _fitted(answer: Answer, record: QuestionRecord) -> Answer:
    """Return the answer as the question's schema wants it; words become the one text that a form asks for.

    Raises:
        BadRequest: it does not fit.
    """
    schema = record.question.schema
    if not answer.accepted:
        return answer
    if record.question.approval and schema is None:
        return _consent(answer)
    if schema is None:
        return answer
    data = next((part.data for part in answer.parts if isinstance(part, DataPart)), None)
    said = text_of(answer.parts)
    if data is None and said and (slot := text_slot(schema, {})):
        data = {slot: said}
        answer = replace(answer, parts=(DataPart(data=data),))
    if data is None:
        names = ", ".join(mapping(schema.get("properties")))
        raise BadRequest("this question wants a form filled in, not words", f"answer with data: {names or schema}")
    if problems := problems_of(data, schema):
        raise BadRequest(f"the answer does not fit the question: {'; '.join(problems[:3])}")
    return answer
