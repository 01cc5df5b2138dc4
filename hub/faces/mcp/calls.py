"""The direct path from MCP: one capability used now, its progress relayed, its questions put to the caller."""

from collections.abc import Mapping
from typing import cast
from uuid import uuid4

import mcp_types as types

from interhub.adapters import Completed, InputRequired, RemoteRefused, Resume
from interhub.agent_cards import Json, JsonObject, Kind
from interhub.hub.service import Hub

from .questions import AnswerUnreadable, Asking, Form, Shape, form_of, question_text
from .turn import Turn

MAX_ROUNDS = 20
"""Most questions that one call may ask one after the other."""
_KEY = "question"


class Unanswerable(RemoteRefused):
    """The agent asks something and this client cannot be asked."""

    def __str__(self) -> str:
        return (
            f"{self.where} asks: {self.why}\nThis client cannot be asked (it has no elicitation). "
            "Use `delegate` with this agent and capability: its question stays open until `answer` is called."
        )


class DirectCalls:
    """Uses capabilities on the direct path."""

    def __init__(self, hub: Hub, *, timeout_s: float | None = None) -> None:
        self._hub = hub
        self._timeout_s = timeout_s

    async def call(
        self, turn: Turn, agent_id: str, capability: str, arguments: JsonObject, *, kind: Kind | None = None
    ) -> Completed | types.InputRequiredResult:
        """Use a capability and return how it ended, or what the client must ask its person first.

        Raises:
            AgentNotFound, CapabilityNotFound: there is no such thing.
            NotAllowed: the policy says no.
            Unanswerable: the agent asks something and the client cannot be asked.
            AdapterError: the agent failed.
        """
        resume, again = _resume(turn)
        if again is not None:
            return again
        key = str(turn.state.get("key") or uuid4())
        for _ in range(MAX_ROUNDS):
            outcome = await self._hub.call(
                turn.principal,
                agent_id,
                capability,
                kind=kind,
                arguments=arguments,
                report=turn.report,
                resume=resume,
                idempotency_key=key,
                timeout_s=self._timeout_s,
                meta=turn.meta,
            )
            if isinstance(outcome, Completed):
                return outcome
            form = _form(turn, agent_id, outcome)
            match turn.client.asking:
                case Asking.NEVER:
                    raise Unanswerable(agent_id, question_text(outcome.question))
                case Asking.RETRY:
                    return turn.ask_by_retry({_KEY: form}, _keep(key, outcome.state, form))
                case Asking.REQUEST:
                    resume = await _ask(turn, form, outcome)
        raise RemoteRefused(agent_id, f"it asked more than {MAX_ROUNDS} questions in one call")


def _form(turn: Turn, agent_id: str, outcome: InputRequired) -> Form:
    return form_of(outcome.question, outcome.schema, asker=agent_id, auth=outcome.auth, client=turn.client)


async def _ask(turn: Turn, form: Form, outcome: InputRequired) -> Resume:
    note = ""
    for _ in range(MAX_ROUNDS):
        result = await turn.ask(form.noted(note), elicitation_id=str(uuid4()))
        if result is None or result.action != "accept":
            break
        try:
            return Resume(answer=form.read(result.content), state=outcome.state)
        except AnswerUnreadable as error:
            note = str(error)
    return Resume(answer=(), state=outcome.state, accepted=False)


def _keep(key: str, state: Json, form: Form) -> JsonObject:
    kept: JsonObject = {"message": form.message, "shape": form.shape.value, "schema": form.schema, "url": form.url}
    return {"key": key, "state": state, "form": kept}


def _resume(turn: Turn) -> tuple[Resume | None, types.InputRequiredResult | None]:
    """Read the answer of a retried call; what cannot be read, or was not given, is asked again."""
    kept = turn.state.get("form")
    if not isinstance(kept, Mapping):
        return None, None
    form = Form(
        message=str(kept["message"]),
        shape=Shape(str(kept["shape"])),
        schema=dict(cast("JsonObject", kept["schema"])),
        url=str(kept["url"]),
    )
    state = turn.state.get("state")
    result = turn.answers.get(_KEY)
    if result is None:
        return None, turn.ask_by_retry({_KEY: form}, turn.state)
    if result.action != "accept":
        return Resume(answer=(), state=state, accepted=False), None
    try:
        return Resume(answer=form.read(result.content), state=state), None
    except AnswerUnreadable as error:
        return None, turn.ask_by_retry({_KEY: form.noted(str(error))}, turn.state)
