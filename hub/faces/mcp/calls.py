"""The direct path from MCP: one capability used now, its progress relayed, its questions put to the caller."""

from collections.abc import Mapping, Sequence
from typing import cast
from uuid import uuid4

import mcp_types as types

from interhub.adapters import (
    Completed,
    DataPart,
    InputRequired,
    Message,
    Part,
    RemoteRefused,
    Resume,
    Role,
    TextPart,
)
from interhub.adapters.content import part_to_json, parts_from_json
from interhub.agent_cards import Json, JsonObject, Kind
from interhub.hub.errors import RunNotFound
from interhub.hub.service import Hub
from interhub.hub.supervisor.run import Assignment

from .large import contents_of, is_large, linked, run_named
from .questions import AnswerUnreadable, Asking, Form, Shape, form_of, question_text
from .turn import Context, Turn, principal_of

MAX_ROUNDS = 20
"""Most questions that one call may ask one after the other."""
_KEY = "question"
"""Of the form of an agent that asks one thing; several have keys of their own."""


class Unanswerable(RemoteRefused):
    """The agent asks something and this client cannot be asked."""

    run_id = ""
    """The run that asks, where it is one."""

    def __str__(self) -> str:
        asks = f"{self.where} asks: {self.why}\nThis client cannot be asked (it has no elicitation). "
        if self.run_id:
            return asks + f"Have the user answer, call `answer` with run_id {self.run_id}, then `run_result`."
        return asks + "Use `delegate` with this agent and capability: its question stays open until `answer` is called."


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
        resume, again = resume_of(turn)
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
                mark=turn.mark,
            )
            if isinstance(outcome, Completed):
                return outcome
            forms = _forms(turn, agent_id, outcome)
            match turn.client.asking:
                case Asking.NEVER:
                    refused = Unanswerable(agent_id, question_text(outcome.question))
                    if isinstance(outcome.state, Mapping):
                        refused.run_id = str(outcome.state.get("run") or "")
                    raise refused
                case Asking.RETRY:
                    kept = {name: _form_to_json(form) for name, form in forms.items()}
                    return turn.ask_by_retry(forms, {"key": key, "state": outcome.state, "forms": kept, "given": {}})
                case Asking.REQUEST:
                    given = {name: await _ask(turn, form) for name, form in forms.items()}
                    resume = _resume(given, outcome.state)
        raise RemoteRefused(agent_id, f"it asked more than {MAX_ROUNDS} questions in one call")

    async def fitting(
        self, turn: Turn, agent_id: str, capability: str, arguments: JsonObject, done: Completed
    ) -> Completed:
        """Return an answer as one result can hold it; a larger one is kept, and linked to (see `large`)."""
        if not is_large(done):
            return done
        run_id = await self._hub.keep(
            Assignment(
                principal=turn.principal,
                goal=Message(role=Role.USER, parts=()),
                agent_id=agent_id,
                capability=capability,
                arguments=arguments,
            ),
            done,
        )
        return linked(done, run_id, [artifact.artifact_id for artifact in done.artifacts])

    async def read_kept(self, ctx: Context, uri: str) -> types.ReadResourceResult | None:
        """Read what a link of ours leads to; None for any other URI, and for what the caller has not."""
        if not (run_id := run_named(uri)):
            return None
        try:
            return contents_of(await self._hub.run(principal_of(ctx), run_id), uri)
        except RunNotFound:
            return None


def resume_of(turn: Turn) -> tuple[Resume | None, types.InputRequiredResult | None]:
    """Read the answers of a retried call. What cannot be read, or was not given, is asked again; neither at first."""
    kept, given = turn.state.get("forms"), turn.state.get("given")
    if not isinstance(kept, Mapping) or not isinstance(given, Mapping):
        return None, None
    answers: dict[str, Sequence[Json] | None] = dict(cast("Mapping[str, Sequence[Json] | None]", given))
    missing: dict[str, Form] = {}
    for key, shaped in kept.items():
        if key in answers:
            continue
        form = _form_from_json(cast("JsonObject", shaped))
        result = turn.answers.get(key)
        if result is None:
            missing[key] = form
            continue
        try:
            accepted = result.action == "accept"
            answers[key] = [part_to_json(part) for part in form.read(result.content)] if accepted else None
        except AnswerUnreadable as error:
            missing[key] = form.noted(str(error))
    if missing:
        return None, turn.ask_by_retry(missing, {**turn.state, "given": answers})
    read = {key: None if parts is None else parts_from_json(parts) for key, parts in answers.items()}
    return _resume(read, turn.state.get("state")), None


def _resume(given: Mapping[str, tuple[Part, ...] | None], state: Json) -> Resume:
    """Put answers together as the agent is given them: None is a declined one."""
    if set(given) == {_KEY}:
        return Resume(answer=given[_KEY] or (), state=state, accepted=given[_KEY] is not None)
    if all(parts is None for parts in given.values()):
        return Resume(answer=(), state=state, accepted=False)
    fields: dict[str, Json] = {key: None if parts is None else _value(parts) for key, parts in given.items()}
    return Resume(answer=(DataPart(data=fields),), state=state)


def _value(parts: Sequence[Part]) -> Json:
    for part in parts:
        if isinstance(part, DataPart):
            return part.data
        if isinstance(part, TextPart):
            return part.text
    return {}


def _forms(turn: Turn, agent_id: str, outcome: InputRequired) -> dict[str, Form]:
    if not outcome.requests:
        form = form_of(
            outcome.question,
            outcome.schema,
            asker=agent_id,
            auth=outcome.auth,
            client=turn.client,
            approval=outcome.approval,
        )
        return {_KEY: form}
    return {
        request.key: form_of(request.question, request.schema, asker=agent_id, auth=request.auth, client=turn.client)
        for request in outcome.requests
    }


async def _ask(turn: Turn, form: Form) -> tuple[Part, ...] | None:
    note = ""
    for _ in range(MAX_ROUNDS):
        result = await turn.ask(form.noted(note), elicitation_id=str(uuid4()))
        if result is None or result.action != "accept":
            break
        try:
            return form.read(result.content)
        except AnswerUnreadable as error:
            note = str(error)
    return None


def _form_to_json(form: Form) -> JsonObject:
    return {"message": form.message, "shape": form.shape.value, "schema": form.schema, "url": form.url}


def _form_from_json(shaped: JsonObject) -> Form:
    return Form(
        message=str(shaped["message"]),
        shape=Shape(str(shaped["shape"])),
        schema=dict(cast("JsonObject", shaped["schema"])),
        url=str(shaped["url"]),
    )
