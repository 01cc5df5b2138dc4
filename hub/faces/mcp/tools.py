"""The hub's own tools, carried out: delegate and what goes with its runs, find, call."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeAlias, cast

import anyio
import mcp_types as types

from interhub.adapters import Artifact, Completed, DataPart, Message, Part, Role, TextPart
from interhub.adapters.schemas import ArgumentCheck
from interhub.agent_cards import Json, JsonObject, hidden_in, visible_json
from interhub.hub.errors import BadRequest, PlanInvalid, RunEnded
from interhub.hub.service import Hub, capability_of
from interhub.hub.supervisor.document import Document, read_document
from interhub.hub.supervisor.run import Answer, Assignment, Event, EventKind, Run, RunState
from interhub.registry import AgentNotFound

from .asking import Asked, asked_by, give, keys_of
from .content import artifact_view, content_of, error_result, json_text, skill_result
from .definitions import ANSWER, CALL, DELEGATE, FIND, RUN_CANCEL, RUN_RESULT, RUN_STATUS, own_tools
from .long_calls import SKILL, LongCalls
from .questions import Asking
from .runs import Teller, run_content, run_view
from .tasks import RunTasks, declares_tasks
from .turn import Context, Turn

Result: TypeAlias = types.CallToolResult | types.InputRequiredResult | dict[str, Any]
"""A dictionary is the result that tells of a task."""
Handler: TypeAlias = Callable[[Context, Turn, JsonObject], Awaitable[Result]]

BRIEF_CHARS = 20_000
"""Most characters of one text that delegate returns."""
FULL_CHARS = 200_000
"""Most characters of one text that run_result returns."""
MAX_ROUNDS = 50

_ID = re.compile(r"[\w.-]*")
"""What may be meant as an id; a workflow written out has at least a colon in it."""


class OwnTools:
    """Carries out the hub's own tools."""

    def __init__(self, hub: Hub, calls: LongCalls, tasks: RunTasks, *, wait_s: float) -> None:
        self._hub = hub
        self._calls = calls
        self._tasks = tasks
        self._wait_s = wait_s
        self.definitions = own_tools(wait_s=wait_s)
        self._checks = {
            tool.name: ArgumentCheck(tool.input_schema, label=tool.name, trusted=True) for tool in self.definitions
        }
        self._handlers: Mapping[str, Handler] = {
            DELEGATE: self._delegate,
            RUN_STATUS: self._status,
            RUN_RESULT: self._result,
            RUN_CANCEL: self._cancel,
            ANSWER: self._answer,
            FIND: self._find,
            CALL: self._call,
        }

    def __contains__(self, name: object) -> bool:
        return name in self._handlers

    async def call(self, ctx: Context, turn: Turn, name: str, arguments: JsonObject) -> Result:
        """Carry out one of the tools.

        Raises:
            HubError, AdapterError, RegistryError: what the hub's verbs raise.
        """
        wrong = self._checks[name].problems(arguments)
        if wrong:
            return error_result(f"{name} cannot be called like this:\n{wrong}")
        return await self._handlers[name](ctx, turn, arguments)

    async def _delegate(self, ctx: Context, turn: Turn, arguments: JsonObject) -> Result:
        run_id = str(turn.state.get("run_id") or "")
        if not run_id:
            document = await _document(arguments.get("workflow"))
            assignment = _assignment(turn, arguments, document)
            try:
                # Who does not want to wait is not told to wait for a task.
                if declares_tasks(ctx) and arguments.get("wait_s") != 0:
                    return await self._tasks.create(assignment)
                # A client that hangs up now must not leave a run half begun.
                with anyio.CancelScope(shield=True):
                    run_id = (await self._hub.submit(assignment)).id
            except PlanInvalid as invalid:
                raise (document.locate(invalid) if document is not None else invalid) from None
        return await self._follow(turn, run_id, self._patience(arguments), limit=BRIEF_CHARS)

    async def _status(self, ctx: Context, turn: Turn, arguments: JsonObject) -> Result:
        run = await self._hub.run(turn.principal, str(arguments["run_id"]))
        return _brief(run)

    async def _result(self, ctx: Context, turn: Turn, arguments: JsonObject) -> Result:
        run_id = str(arguments["run_id"])
        if artifact_id := str(arguments.get("artifact") or ""):
            return _artifact_result(await self._hub.run(turn.principal, run_id), artifact_id)
        return await self._follow(turn, run_id, self._patience(arguments), limit=FULL_CHARS)

    async def _cancel(self, ctx: Context, turn: Turn, arguments: JsonObject) -> Result:
        run_id = str(arguments["run_id"])
        try:
            run = await self._hub.cancel(turn.principal, run_id)
        except RunEnded:
            run = await self._hub.run(turn.principal, run_id)
            if run.state is not RunState.CANCELED:
                raise
        return _brief(run)

    async def _answer(self, ctx: Context, turn: Turn, arguments: JsonObject) -> Result:
        accepted = arguments.get("accept") is not False
        parts: list[Part] = []
        if "answer" in arguments:
            parts.append(TextPart(text=str(arguments["answer"])))
        if "data" in arguments:
            parts.append(DataPart(data=arguments["data"]))
        if accepted and not parts:
            raise BadRequest("nothing is answered", "give `answer` or `data`, or `accept`: false to decline")
        answer = Answer(parts=tuple(parts), accepted=accepted, by=turn.principal)
        question_id = str(arguments.get("question_id") or "")
        return _brief(await self._hub.answer(str(arguments["run_id"]), answer, question_id=question_id))

    async def _find(self, ctx: Context, turn: Turn, arguments: JsonObject) -> Result:
        explain = arguments.get("explain") is True
        limit = int(cast("float", arguments.get("limit", 5)))
        among = None if turn.profile.is_whole else turn.profile.has
        found = await self._hub.find(turn.principal, str(arguments["need"]), limit=limit, among=among)
        matches: list[Json] = []
        for match in found:
            if not (match.is_match or explain):
                continue
            capability = match.capability
            view: dict[str, Json] = {
                "agent": match.agent_id,
                "capability": capability.name,
                "kind": capability.kind.value,
                "input_schema": capability.input_schema,
                "score": round(match.score, 4),
            }
            if capability.title:
                view["title"] = capability.title
            if capability.description:
                view["description"] = capability.description
            if hidden := hidden_in(capability):
                shown = cast("dict[str, Json]", visible_json(view))
                # By its name, as it is, it can be called; whoever reads the list sees what is wrong with it.
                view = {**shown, "capability": capability.name, "warnings": [str(finding) for finding in hidden]}
            if explain:
                view["why"] = match.why
            matches.append(view)
        text = json_text(matches) if matches else "No registered agent can do this."
        return types.CallToolResult(content=[types.TextContent(text=text)], structured_content={"matches": matches})

    async def _call(self, ctx: Context, turn: Turn, arguments: JsonObject) -> Result:
        agent_id, name = str(arguments["agent"]), str(arguments.get("capability") or "")
        if not turn.profile.is_whole:
            name = await self._in_profile(turn, agent_id, name)
        agent = await self._hub.agent(turn.principal, agent_id)
        given = cast("JsonObject", arguments.get("arguments") or {})
        outcome = await self._calls.call(ctx, turn, agent, capability_of(agent, name), given, view=SKILL)
        return skill_result(outcome) if isinstance(outcome, Completed) else outcome

    async def _in_profile(self, turn: Turn, agent_id: str, name: str) -> str:
        """Return which capability is meant, of those that the profile has.

        Raises:
            AgentNotFound, CapabilityNotFound: there is no such thing in the profile.
        """
        agent = await self._hub.agent(turn.principal, agent_id)
        shown = turn.profile.of(agent)
        if not shown:
            raise AgentNotFound(agent_id)
        return capability_of(replace(agent, card=replace(agent.card, capabilities=shown)), name).name

    # Following a run

    def _patience(self, arguments: JsonObject) -> float:
        wait_s = arguments.get("wait_s")
        return self._wait_s if wait_s is None else float(cast("float", wait_s))

    async def _follow(self, turn: Turn, run_id: str, wait_s: float, *, limit: int) -> Result:
        """Wait for a run, telling the client what happens, and asking its person what the run asks."""
        after = int(cast("float", turn.state.get("seq", 0)))
        settled, notes, dismissed = await self._take_answers(turn, run_id)
        for _ in range(MAX_ROUNDS):
            run, after = await self._watch(turn, run_id, after, wait_s, settled)
            asked = asked_by(run.questions, of=turn.principal, client=turn.client, notes=notes)
            asked = {key: each for key, each in asked.items() if key not in settled}
            if dismissed or not asked or turn.client.asking is Asking.NEVER:
                return whole(run, limit)
            if turn.client.asking is Asking.RETRY:
                forms = {key: each.form for key, each in asked.items()}
                return turn.ask_by_retry(forms, {"run_id": run_id, "seq": after})
            for key, each in asked.items():
                answered, note = await self._ask(turn, each, after)
                if answered:
                    settled.add(key)
                elif note:
                    notes[key] = note
                else:
                    dismissed = True
        return whole(await self._hub.run(turn.principal, run_id), limit)

    async def _watch(self, turn: Turn, run_id: str, after: int, wait_s: float, settled: set[str]) -> tuple[Run, int]:
        """Return the run when it has ended, asks something new, or the time is up; and the last event seen."""
        run = await self._hub.run(turn.principal, run_id)
        if _waits(run, settled) and run.generation <= after:
            return run, after
        teller = Teller(run)
        with anyio.move_on_after(wait_s):
            async for event in _closing(self._hub.watch(turn.principal, run_id, after=after)):
                after = event.seq
                if text := teller.line(event):
                    await turn.tell(text)
                if event.kind is EventKind.QUESTION_ASKED:
                    run = await self._hub.run(turn.principal, run_id)
                if _waits(run, settled) and after >= run.generation:
                    return run, after
        return await self._hub.run(turn.principal, run_id), after

    async def _take_answers(self, turn: Turn, run_id: str) -> tuple[set[str], dict[str, str], bool]:
        """Pass on what a retried call answers: the questions settled, what was wrong with others, any dismissed."""
        settled: set[str] = set()
        notes: dict[str, str] = {}
        dismissed = False
        if not turn.state or not turn.answers:
            return settled, notes, dismissed
        run = await self._hub.run(turn.principal, run_id)
        asked = asked_by(run.questions, of=turn.principal, client=turn.client, notes={})
        for key, result in turn.answers.items():
            each = asked.get(key)
            if each is None:  # somebody else was first, or the run has ended
                settled.add(key)
                continue
            answered, note = await give(self._hub, each, result, by=turn.principal)
            if answered:
                settled.add(key)
            elif note:
                notes[key] = note
            else:
                dismissed = True
        return settled, notes, dismissed

    async def _ask(self, turn: Turn, asked: Asked, after: int) -> tuple[bool, str]:
        """Ask while the request is served, until it is answered here or the question is closed elsewhere."""
        outcome: tuple[bool, str] = (True, "")
        question = asked.question

        async def ask() -> None:
            nonlocal outcome
            result = await turn.ask(asked.form, elicitation_id=question.id)
            # This answer closes the question too: `notice` must not take that for somebody else's.
            with anyio.CancelScope(shield=True):
                outcome = (False, "") if result is None else await give(self._hub, asked, result, by=turn.principal)
            group.cancel_scope.cancel()

        async def notice() -> None:
            async for _ in _closing(self._hub.watch(turn.principal, question.run_id, after=after)):
                run = await self._hub.run(turn.principal, question.run_id)
                if all(each.id != question.id for each in run.questions):
                    break
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(notice)
            group.start_soon(ask)
        return outcome


async def _closing(events: AsyncIterator[Event]) -> AsyncGenerator[Event]:
    """Iterate, and close what is iterated at once when the reader leaves."""
    try:
        async for event in events:
            yield event
    finally:
        if isinstance(events, AsyncGenerator):
            await cast("AsyncGenerator[Event]", events).aclose()


def _waits(run: Run, settled: set[str]) -> bool:
    return any(key not in settled for question in run.questions for key in keys_of(question))


def _assignment(turn: Turn, arguments: JsonObject, document: Document | None) -> Assignment:
    key = str(arguments.get("idempotency_key") or turn.idempotency_key)
    agent_id = str(arguments.get("agent") or "")
    given = arguments.get("workflow")
    workflow = document.value if document is not None else given if isinstance(given, Mapping) else None
    if workflow is not None and agent_id:
        raise BadRequest("a workflow given in `workflow` is not for an agent", "leave `agent` out")
    if workflow is None and given:
        if agent_id and given != agent_id:
            raise BadRequest(f"both agent {agent_id!r} and workflow {given!r} are named", "name one of them")
        agent_id = str(given)
    goal = Message(role=Role.USER, parts=(TextPart(text=str(arguments["goal"])),), message_id=key)
    return Assignment(
        principal=turn.principal,
        goal=goal,
        agent_id=agent_id,
        capability=str(arguments.get("capability") or ""),
        arguments=cast("JsonObject", arguments.get("arguments") or {}),
        workflow=workflow,
        inputs=cast("JsonObject", arguments.get("inputs") or {}),
        context_id=str(arguments.get("context_id") or ""),
        idempotency_key=key,
        mark=turn.mark,
    )


async def _document(given: Json) -> Document | None:
    """Read a workflow that is given as YAML text; None where it is an object, or the id of a registered one.

    Raises:
        PlanInvalid: it is not YAML, or no workflow; says the line.
    """
    if not isinstance(given, str) or _ID.fullmatch(given):
        return None
    # In a thread: the YAML reader takes a second for a quarter of a megabyte.
    return await anyio.to_thread.run_sync(read_document, given)


def whole(run: Run, limit: int = BRIEF_CHARS) -> types.CallToolResult:
    """Show a run as the result of `delegate`."""
    view = run_view(run, now=datetime.now(UTC), limit=limit)
    failed = run.state.ended and run.state is not RunState.COMPLETED
    return types.CallToolResult(content=run_content(run, view), structured_content=view, is_error=failed)


def _brief(run: Run) -> types.CallToolResult:
    view = run_view(run, now=datetime.now(UTC), limit=0, results=False)
    return types.CallToolResult(content=run_content(run, view, files=False), structured_content=view)


def _artifact_result(run: Run, artifact_id: str) -> types.CallToolResult:
    made = next((artifact for artifact in run.artifacts if artifact.artifact_id == artifact_id), None)
    if made is None and artifact_id == "answer":
        made = Artifact(artifact_id="answer", parts=run.parts)
    if made is None:
        known = ", ".join(artifact.artifact_id for artifact in run.artifacts) or "none"
        raise BadRequest(f"run {run.id} has no artifact {artifact_id!r}", f"it has: {known}")
    view = run_view(run, now=datetime.now(UTC), limit=0, results=False)
    view["artifacts"] = [artifact_view(made)]
    return types.CallToolResult(content=content_of(made.parts), structured_content=view)
