"""What runs ask, as the forms that a client's person is shown: one for each thing, by the key it is answered under.

A key is used for one form in a run's whole life (SEP-2663, task update requests): it is made of the question's id,
which no other round has.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import mcp_types as types

from interhub.adapters import Principal
from interhub.hub.errors import BadRequest, QuestionNotFound, RunEnded
from interhub.hub.supervisor.run import Answer, Question, Run

from .questions import AnswerUnreadable, Client, Form, form_of


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One thing that a run asks."""

    question: Question
    request: str
    """Key of the one of several things that the question asks; empty where it asks one."""
    form: Form


class Answerable(Protocol):
    """Takes answers (`interhub.hub.service.Hub`)."""

    async def answer(self, run_id: str, answer: Answer, *, question_id: str = "") -> Run:
        """Answer what a run asks.

        Raises:
            QuestionNotFound: it is not asked, or somebody was first.
            RunEnded: nothing is asked any more.
            BadRequest: the answer does not fit.
        """
        ...


def asked_by(
    questions: Iterable[Question], *, of: Principal, client: Client, notes: Mapping[str, str]
) -> dict[str, Asked]:
    """Return what a principal is asked, by its key. `notes` say what was wrong with the last answer under a key."""
    found: dict[str, Asked] = {}
    for question in questions:
        if not question.is_for(of):
            continue
        asker = question.agent_id or "The run"
        if not question.requests:
            form = form_of(
                question.parts,
                question.schema,
                asker=asker,
                auth=question.auth,
                client=client,
                approval=question.approval,
            )
            found[question.id] = Asked(question=question, request="", form=form.noted(notes.get(question.id, "")))
        for key, request in zip(keys_of(question), question.requests, strict=False):
            form = form_of(request.question, request.schema, asker=asker, auth=request.auth, client=client)
            found[key] = Asked(question=question, request=request.key, form=form.noted(notes.get(key, "")))
    return found


def keys_of(question: Question) -> tuple[str, ...]:
    """Return the keys of what a question asks."""
    return tuple(f"{question.id}.{request.key}" for request in question.requests) or (question.id,)


async def give(hub: Answerable, asked: Asked, result: types.ElicitResult, *, by: Principal) -> tuple[bool, str]:
    """Give a person's answer to the run: whether the thing is settled, and what was wrong with the answer.

    A person who turned away has settled nothing, and nothing was wrong.
    """
    if result.action == "cancel":
        return False, ""
    try:
        accepted = result.action == "accept"
        parts = asked.form.read(result.content) if accepted else ()
        answer = Answer(parts=parts, accepted=accepted, request=asked.request, by=by)
        await hub.answer(asked.question.run_id, answer, question_id=asked.question.id)
    except (AnswerUnreadable, BadRequest) as error:
        return False, str(error)
    except (QuestionNotFound, RunEnded):
        return True, ""
    return True, ""
