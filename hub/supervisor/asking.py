"""What a run asks people, as it goes on: questions of its agents and its own, and their answers."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import cast
from uuid import NAMESPACE_URL, uuid5

from sqlalchemy import Connection

from interhub.adapters import DataPart, text_of
from interhub.adapters.content import part_to_json, parts_from_json
from interhub.agent_cards import Json, JsonObject
from interhub.hub.audit import AuditLog, AuditRecord

from . import records
from .durable import Branch
from .envelope import (
    StepValue,
    attempts_of,
    failed_because,
    mapping,
    number,
    requests_from_json,
    sequence,
    succeeded,
    text,
)
from .frame import Leaf
from .model import AskStep, OnError
from .order import question_digest
from .orders import parts_of
from .recalls import Recalls
from .run import EventKind, Question
from .scene import Scene

ANSWER_WITHIN_S = 30 * 24 * 3600.0
"""How long a question waits for its answer, where neither its step, nor a rule, nor the run says."""


def question_of(scene: Scene, leaf: Leaf, step: AskStep, asker: str, values: Mapping[str, object]) -> dict[str, Json]:
    """Return the question of a step as an agent's would be.

    Raises:
        TemplateFailed: its text cannot be rendered.
    """
    parts = parts_of(step.ask.message, None, values)
    asked: dict[str, Json] = {
        "parts": [part_to_json(part) for part in parts],
        "schema": cast("Json", step.ask.answer),
        "auth": False,
        "approval": step.ask.approval,
        "digest": question_digest(scene.root, scene.path(leaf), asker, parts, scene.principal),
    }
    return {"ask": asked, "agent": asker, "attempts": 1}


def answered(step: AskStep, answer: JsonObject) -> dict[str, Json]:
    """Return the envelope of a step's question that was answered."""
    accepted = answer.get("accepted") is True
    by = text(answer, "by")
    if not accepted and step.ask.on_decline is OnError.FAIL:
        return failed_because("PERMISSION_DENIED", f"{by or 'somebody'} declined it", attempts=1)
    parts = parts_from_json(answer.get("parts"))
    data = next((part.data for part in parts if isinstance(part, DataPart)), None)
    if step.ask.approval or not accepted:
        data = {"accepted": accepted, "by": by, "text": text_of(parts)}
    return succeeded(StepValue(parts=parts, structured=data), attempts=1, by=by)


class Asking:
    """Asks, and takes note of answers."""

    def __init__(self, scene: Scene, audit: AuditLog, recalls: Recalls) -> None:
        self._scene = scene
        self._audit = audit
        self._recalls = recalls

    async def ask(self, leaf: Leaf) -> Branch:
        """Ask what the leaf has to ask, and return what the answer comes by."""
        scene = self._scene
        asked = dict(mapping(leaf.asked.get("ask")))
        attempts = attempts_of(leaf.asked)
        question_id = self._id(leaf)
        now = datetime.now(UTC)
        within_s = self._within_s(leaf, asked)
        expires = now + timedelta(seconds=within_s)
        schema = asked.get("schema")
        question = Question(
            id=question_id,
            run_id=scene.root,
            step=scene.path(leaf),
            agent_id=text(leaf.asked, "agent"),
            parts=parts_from_json(asked.get("parts")),
            schema=mapping(schema) if schema is not None else None,
            auth=asked.get("auth") is True,
            requests=requests_from_json(asked.get("requests")),
            asked_at=now,
            expires_at=expires,
            capability=text(leaf.asked, "capability"),
            approval=asked.get("approval") is True,
            asked_by=scene.principal.key,
            answer_by=tuple(str(one) for one in sequence(asked.get("answer_by"))),
            digest=text(asked, "digest"),
        )
        shown: dict[str, Json] = {name: asked.get(name) for name in ("parts", "schema", "auth", "approval")}
        shown["capability"] = question.capability
        shown["asked_by"] = question.asked_by
        if question.answer_by:
            shown["answer_by"] = list(question.answer_by)
        if question.requests:
            shown["requests"] = asked.get("requests")
        row = {**shown, "agent": question.agent_id, "workflow": scene.durable.id}
        new = await scene.journal.write(
            lambda connection: records.ask(connection, question, row, attempt=attempts, digest=question.digest)
        )
        if new:  # not what a replay asks again
            self._note(leaf, "question_ask", "input_required")
        scene.tell(
            EventKind.QUESTION_ASKED,
            question.step,
            attempts,
            **{
                **shown,
                "question": question_id,
                "agent": question.agent_id,
                "digest": question.digest,
                "expires_at": expires.isoformat(),
            },
        )
        return await scene.durable.begin_receive(question_id, within_s)

    def note(self, leaf: Leaf, answer: JsonObject) -> None:
        """Tell of the answer that the engine has. It is known already, unless a crash of the machine took it."""
        scene = self._scene
        question_id, by = self._id(leaf), text(answer, "by")
        scene.journal.post_change(lambda connection: records.answer_question(connection, question_id, answer, by))
        scene.tell(
            EventKind.QUESTION_ANSWERED,
            scene.path(leaf),
            attempts_of(leaf.asked),
            question=question_id,
            by=by,
            accepted=answer.get("accepted"),
        )

    def close(self, leaf: Leaf, why: str, *, state: str = "closed") -> None:
        """Close the leaf's question without an answer; the agent that waits for one is told to stop."""
        scene = self._scene
        question_id = self._id(leaf)

        def close(connection: Connection) -> None:
            if records.close_question(connection, question_id, state=state) and state == "expired":
                self._note(leaf, "question_expire", "expired")

        scene.journal.post_change(close)
        scene.tell(EventKind.QUESTION_CLOSED, scene.path(leaf), attempts_of(leaf.asked), question=question_id, why=why)
        if leaf.order is not None:
            self._recalls.of_call(scene.principal, leaf.order.key)

    async def close_within(self, leaf: Leaf, why: str) -> None:
        """Close what the child run that a leaf was still asks."""
        scene = self._scene
        within = f"{scene.path(leaf)}."
        asked = await scene.journal.write(lambda connection: records.questions_of(connection, [scene.root]))
        for one in asked:
            # One that is closed may not have been told of, where a crash came in between.
            if one.question.step.startswith(within) and one.state in ("open", "closed"):
                close = partial(records.close_question, question_id=one.question.id, state="closed")
                scene.journal.post_change(close)
                scene.tell(EventKind.QUESTION_CLOSED, one.question.step, one.attempt, question=one.question.id, why=why)

    def _within_s(self, leaf: Leaf, asked: JsonObject) -> float:
        """Return how long the question waits: what is recorded alone, so that a replay asks the same."""
        step = leaf.node.step
        own = step.timeout_s if isinstance(step, AskStep) else None
        return own or number(asked, "within_s") or number(self._scene.given, "answer_within_s") or ANSWER_WITHIN_S

    def _note(self, leaf: Leaf, action: str, outcome: str) -> None:
        scene, asked = self._scene, mapping(leaf.asked.get("ask"))
        agent, capability = text(leaf.asked, "agent"), text(leaf.asked, "capability")
        self._audit.append(
            AuditRecord(
                at=datetime.now(UTC),
                tenant=scene.principal.tenant,
                subject=scene.principal.subject,
                action=action,
                target=f"{agent}/{capability}" if capability else agent,
                decision="ask",
                outcome=outcome,
                detail={
                    "run": scene.root,
                    "step": scene.path(leaf),
                    "question": self._id(leaf),
                    "digest": text(asked, "digest"),
                    "approval": asked.get("approval") is True,
                },
            )
        )

    def _id(self, leaf: Leaf) -> str:
        return str(uuid5(NAMESPACE_URL, f"interhub:{self._scene.root}/{self._scene.path(leaf)}#{leaf.round}"))
