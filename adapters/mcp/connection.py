"""A connection to one MCP server: calls, and the raw relay, over one shared session that is re-made when it is lost."""

import math
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Generic, TypeVar, cast

import anyio
import anyio.abc
import structlog
from mcp import MCPError
from mcp.shared.inbound import mcp_param_headers, x_mcp_header_map
from mcp.shared.uri_template import InvalidUriTemplate, UriTemplate
from mcp_types import INVALID_PARAMS, LOG_LEVEL_META_KEY, METHOD_NOT_FOUND, URL_ELICITATION_REQUIRED

from interhub.adapters.backoff import Backoff
from interhub.adapters.base import DELEGATION_KEY, Call, Completed, Outcome, Report, Resume, ignore
from interhub.adapters.condition import Condition
from interhub.adapters.errors import (
    AdapterError,
    ProtocolViolation,
    RemoteRefused,
    RemoteTimeout,
    RemoteUnavailable,
)
from interhub.adapters.schemas import ArgumentCheck, ResultCheck
from interhub.agent_cards import AgentCard, Capability, Json, JsonObject, Kind

from .changes import LIST_CHANGED, Changes
from .content import ELICIT, completed, elicit_results, question, update_of, url_elicitations
from .direct import DirectExchange
from .http import Sink
from .open import Ended, OpenRequest, Question, Said
from .relay import Answered, Ask, Asked, Notify, RelaySession, Reply, ServerFacts, SessionGone
from .session import Client, McpSession, SessionEvents
from .target import LENDABLE, OUR_CAPABILITIES, Target
from .tasks import RemoteTask
from .upstream import OwnSessions, Upstream

IDEMPOTENCY_META_KEY = "interhub/idempotencyKey"
"""Where a tool that can tell repeated calls apart finds `Call.idempotency_key`, in the request's `_meta`."""
_METHODS = {
    Kind.TOOL: "tools/call",
    Kind.PROMPT: "prompts/get",
    Kind.RESOURCE: "resources/read",
    Kind.RESOURCE_TEMPLATE: "resources/read",
}
_MOST_ROUNDS = 16
"""Times that a server may answer "ask me again" without asking anything."""
_CANCEL_S = 2.0
_ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
RELISTEN = Backoff(first_s=0.5, cap_s=10.0)
_STEADY_S = 10.0
"""A subscription that lasted this long was well; one that ended sooner slows the next one."""

_MOST_ASKING = 256
"""Requests of one caller that may wait for its answers; when there is one more, the oldest is given up."""

_Made = TypeVar("_Made")

log = structlog.get_logger()


class McpConnection:
    """An open conversation with one MCP server, shared by many calls. Also an McpRelay."""

    def __init__(
        self,
        target: Target,
        card: AgentCard,
        tasks: anyio.abc.TaskGroup,
        changes: Changes | None,
    ) -> None:
        self._target = target
        self._label = target.label
        self._card = card
        self._tasks = tasks
        self._changes = changes
        self._watchers: list[tuple[Callable[[str, JsonObject], None], Callable[[], None]]] = []
        self._waiting: dict[str, OpenRequest] = {}
        label = target.label
        self._checks = {
            kind: _MadeOfSchemas(lambda schema, name: ArgumentCheck(schema, label=f"{label}: {name}")) for kind in Kind
        }
        self._header_maps = _MadeOfSchemas(lambda schema, name: x_mcp_header_map(schema))
        self._result_checks = _MadeOfSchemas(
            lambda schema, name: ResultCheck(schema, label=f"{label}: result of {name}")
        )
        self._upstream = self._owned(frozenset())
        self._lending: dict[frozenset[str], Upstream] = {}
        self._own = OwnSessions(label=self._label)

    # Connection

    async def call(self, call: Call, report: Report) -> Outcome:
        """Use a tool, a prompt or a resource."""
        try:
            with anyio.fail_after(call.timeout_s):
                return await self._call(call, report)
        except TimeoutError:
            raise RemoteTimeout(self._label, call.timeout_s or 0.0) from None

    async def cancel(self, remote_task: str) -> None:
        """Ask the server to stop a task. A request that did not become one ended with the session it was sent on."""
        await self._task(remote_task, ignore).cancel()

    def renew(self, card: AgentCard) -> bool:
        """Go by this card from now on (`interhub.adapters.pool.Renewable`)."""
        self._card = card
        return True

    async def _call(self, call: Call, report: Report) -> Outcome:
        capability = self._card.capability(call.capability, call.kind)
        self._check(call, capability)
        params, headers = self._params(call, capability)
        notify = partial(_report, report)
        method = _METHODS[call.kind]
        owner = call.principal.key
        recorded: list[tuple[JsonObject, JsonObject]] = []
        reply: Reply | None = None
        if (taken_up := await self._take_up(call, capability, report)) is not None:
            return taken_up
        if call.resume is not None:
            reply, recorded = await self._resume(call.resume, params, owner, notify)
        for round_ in range(_MOST_ROUNDS):
            try:
                if reply is None:
                    sent = await self._with_log_level(params)
                    reply = await self._send(
                        method, sent, owner=owner, notify=notify, answers=(ELICIT,), headers=headers, recorded=recorded
                    )
                match reply:
                    case Asked():
                        request: JsonObject = {"method": reply.method, "params": reply.params}
                        state: JsonObject = {
                            "open": reply.question_id,
                            "request": request,
                            "answered": [[asked, given] for asked, given in recorded],
                        }
                        return question({"answer": request}, state=state, raw=request, label=self._label)
                    case Answered():
                        pass
            except MCPError as error:
                if (wanted := _browsing(error)) is not None:
                    return question(wanted, state={}, raw={"elicitations": list(wanted.values())}, label=self._label)
                raise RemoteRefused(self._label, error.message, (), error.code) from error
            result = reply.result
            kind = result.get("resultType", "complete")
            if kind == "complete":
                done = completed(result, self._label)
                self._check_result(done, capability)
                return done
            if kind == "task" and call.kind is Kind.TOOL:
                task_id = result.get("taskId")
                if not isinstance(task_id, str) or not task_id:
                    raise ProtocolViolation(self._label, "it answered with a task that has no id")
                return await self._followed(self._task(task_id, report), {**result, "status": "working"}, capability)
            if kind != "input_required":
                raise ProtocolViolation(
                    self._label, f"it answered with a result of type {kind!r}, which nobody asked for"
                )
            requests = result.get("inputRequests")
            state = {"requestState": result.get("requestState"), "inputRequests": requests}
            if isinstance(requests, Mapping) and requests:
                asked = cast(Mapping[str, JsonObject], requests)
                return question(asked, state=state, raw=result, label=self._label)
            params = {**params, "requestState": result.get("requestState")}
            reply = None
            await anyio.sleep(min(0.05 * 2**round_, 2.0))
        raise ProtocolViolation(self._label, f"it asked {_MOST_ROUNDS} times to be asked again")

    def _task(self, task_id: str, report: Report) -> RemoteTask:
        return RemoteTask(task_id, self._upstream.session, report, label=self._label)

    async def _take_up(self, call: Call, capability: Capability | None, report: Report) -> Outcome | None:
        """Go on with the task that an earlier attempt became, or that asked; None where there is none any more."""
        state = call.resume.state if call.resume is not None else None
        asking = state.get("task") if isinstance(state, Mapping) else None
        if call.resume is not None and isinstance(asking, str):
            task = self._task(asking, report)
            return await self._followed(task, await task.answer(call.resume), capability)
        if not call.remote_task:
            return None
        task = self._task(call.remote_task, report)
        told = await task.find()
        if told is None:
            log.warning("mcp_task_forgotten", agent=self._label, task=call.remote_task)
            return None
        return await self._followed(task, told, capability)

    async def _followed(self, task: RemoteTask, told: JsonObject, capability: Capability | None) -> Outcome:
        """Follow a task to its end or its question; it is cancelled when nobody wants it any more."""
        try:
            outcome = await task.follow(told)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), anyio.move_on_after(_CANCEL_S):
                try:
                    await task.cancel()
                except AdapterError as error:
                    log.warning("mcp_task_not_canceled", agent=self._label, task=task.id, why=str(error))
            raise
        if isinstance(outcome, Completed):
            self._check_result(outcome, capability)
        return outcome

    async def _resume(
        self, resume: Resume, params: dict[str, Json], owner: str, notify: Notify
    ) -> tuple[Reply | None, list[tuple[JsonObject, JsonObject]]]:
        """Give the answer to the request that waits for it; where none does any more, prepare to send it anew."""
        state: JsonObject = resume.state if isinstance(resume.state, Mapping) else {}
        if "inputRequests" in state:
            requests = cast(Mapping[str, JsonObject], state["inputRequests"])
            params["inputResponses"] = elicit_results(requests, resume)
            if state.get("requestState") is not None:
                params["requestState"] = state["requestState"]
            return None, []
        if "open" not in state:
            return None, []
        request = cast(JsonObject, state["request"])
        result = cast(JsonObject, elicit_results({"answer": request}, resume)["answer"])
        before = cast(Sequence[Sequence[JsonObject]], state.get("answered") or ())
        recorded = [(pair[0], pair[1]) for pair in before] + [(request, result)]
        try:
            return await self.answer(str(state["open"]), result, owner=owner, notify=notify), recorded
        except KeyError:
            log.info("mcp_question_reopened", agent=self._label)
            return None, recorded
        except MCPError as error:
            raise RemoteRefused(self._label, error.message, (), error.code) from error

    def _params(self, call: Call, capability: Capability | None) -> tuple[dict[str, Json], dict[str, str]]:
        meta = {key: value for key, value in call.meta.items() if not key.startswith("io.modelcontextprotocol/")}
        meta |= {"progressToken": "ours", IDEMPOTENCY_META_KEY: call.idempotency_key, **call.trace}
        meta.pop(DELEGATION_KEY, None)
        if call.mark:
            meta[DELEGATION_KEY] = call.mark
        headers: dict[str, str] = {}
        match call.kind:
            case Kind.TOOL:
                if capability is not None and (named := self._header_maps.of(capability.name, capability.input_schema)):
                    headers = mcp_param_headers(named, call.arguments)
                return {"name": call.capability, "arguments": call.arguments, "_meta": meta}, headers
            case Kind.PROMPT:
                arguments = {
                    key: value if isinstance(value, str) else str(value) for key, value in call.arguments.items()
                }
                return {"name": call.capability, "arguments": arguments, "_meta": meta}, headers
            case Kind.RESOURCE:
                return {"uri": call.capability, "_meta": meta}, headers
            case Kind.RESOURCE_TEMPLATE:
                return {"uri": self._expanded(call), "_meta": meta}, headers
            case Kind.SKILL:
                raise RemoteRefused(
                    self._label,
                    "an MCP server has no skills; call one of its tools, prompts or resources",
                    (),
                    METHOD_NOT_FOUND,
                )

    def _expanded(self, call: Call) -> str:
        try:
            return UriTemplate.parse(call.capability).expand({key: str(value) for key, value in call.arguments.items()})
        except (InvalidUriTemplate, ValueError, TypeError) as error:
            raise RemoteRefused(self._label, f"{call.capability}: {error}", (), INVALID_PARAMS) from error

    def _check(self, call: Call, capability: Capability | None) -> None:
        if capability is None:
            return
        check = self._checks[capability.kind].of(capability.name, capability.input_schema)
        if wrong := check.problem(call.arguments):
            raise RemoteRefused(
                self._label, f"{capability.name} does not take these arguments: {wrong}", (), INVALID_PARAMS
            )

    def _check_result(self, done: Completed, capability: Capability | None) -> None:
        """Hold a tool's structured result against what it promised (MCP 2026-07-28, server/tools, output schema).

        Raises:
            ProtocolViolation: it does not fit, or there is none.
        """
        if capability is None or capability.kind is not Kind.TOOL or capability.output_schema is None:
            return
        if wrong := self._broken_promise(done.raw or {}, capability, capability.output_schema):
            what = f"the result of {capability.name} does not fit the output schema that it promises: {wrong}"
            raise ProtocolViolation(self._label, what)

    def _broken_promise(self, result: JsonObject, capability: Capability, schema: JsonObject) -> str:
        if "structuredContent" not in result:
            return "it has no structured content"
        return self._result_checks.of(capability.name, schema).problem(result["structuredContent"])

    async def _with_log_level(self, params: Mapping[str, Json]) -> dict[str, Json]:
        """Ask for the server's log, which 2026-07-28 sends only to those who ask."""
        session = await self._upstream.session()
        if not session.modern or "logging" not in session.capabilities:
            return dict(params)
        meta = cast(JsonObject, params["_meta"])
        return {**params, "_meta": {LOG_LEVEL_META_KEY: "info", **meta}}

    def condition(self) -> Condition:
        """Return how the shared session is (`interhub.adapters.condition.Conditioned`)."""
        return self._upstream.condition()

    def current(self, answers: Collection[str] = ()) -> McpSession | None:
        """Return the shared session, if one is open now: for requests that go directly (`McpSession.begin`)."""
        session = self._upstream.current
        lent = LENDABLE.keys() & set(answers)
        if session is None or session.modern or not lent:
            return session
        lending = self._lending.get(frozenset(lent))
        return lending.current if lending is not None else None

    # The direct way

    def begin(
        self, call: Call, capability: Capability, mark: str, *, trace: Mapping[str, str], with_progress: bool
    ) -> DirectExchange | None:
        """Begin the call of a tool directly, as `call` would, under a mark; None where that cannot be done now.

        The arguments have been checked. What it has not come to by itself is handed over to `call`. Without
        `with_progress` nobody is told how far it is, and the server is not asked to say.
        """
        session = self._upstream.current
        if session is None:
            return None
        params, headers = self._params(call, capability)
        meta = cast("dict[str, Any]", params["_meta"])
        meta[DELEGATION_KEY] = mark
        if not with_progress:
            del meta["progressToken"]
        elif session.modern and "logging" in session.capabilities:
            meta[LOG_LEVEL_META_KEY] = "info"
        repeatable, owner = is_repeatable(capability), call.principal.key
        return session.begin("tools/call", params, headers=headers, trace=trace, repeatable=repeatable, owner=owner)

    def keeps_promise(self, result: JsonObject, capability: Capability) -> bool:
        """Whether a tool's result is of the schema that it promised, where it promised one."""
        schema = capability.output_schema
        return schema is None or not self._broken_promise(result, capability, schema)

    # McpRelay

    async def facts(self) -> ServerFacts:
        """Return what the server said when it was connected to."""
        return _facts(await self._upstream.session())

    async def send(
        self,
        method: str,
        params: JsonObject,
        *,
        owner: str,
        notify: Notify,
        answers: Collection[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request on over the shared session."""
        return await self._send(method, params, owner=owner, notify=notify, answers=answers, headers=headers)

    async def answer(self, question_id: str, answer: JsonObject, *, owner: str, notify: Notify) -> Reply:
        """Answer what the server asked, and wait for what follows."""
        request = self._waiting.get(question_id)
        asked = request.questions.get(question_id) if request is not None else None
        if request is None or asked is None or request.owner != owner:
            raise KeyError(question_id)
        del self._waiting[question_id]
        asked.give(answer)
        return await self._follow(request, notify)

    @asynccontextmanager
    async def session(
        self, *, version: str, client_info: JsonObject, capabilities: JsonObject, notify: Notify, ask: Ask
    ) -> AsyncGenerator[RelaySession]:
        """Open a session of the older era for one client alone."""
        client = Client(info=client_info, capabilities=capabilities)
        opening = self._target.session(_Standalone(notify, ask), version=version, client=client)
        async with self._own.open(opening) as session:
            yield _OwnSession(session)

    def watch(self, listener: Callable[[str, JsonObject], None], lost: Callable[[], None]) -> Callable[[], None]:
        """Have a listener called with what the server says on shared sessions about no request, until one is lost."""
        watcher = (listener, lost)
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    # The shared sessions

    def _owned(self, lent: frozenset[str]) -> Upstream:
        """Return a shared session that is opened on demand, and begin to own it."""
        upstream = Upstream(partial(self._open, lent), label=self._label)
        self._tasks.start_soon(upstream.run, name=f"owner of the session to {self._label}")
        return upstream

    async def _upstream_for(self, answers: Collection[str]) -> Upstream:
        """Return the shared session of callers that answer these methods.

        A server of the older era is told once, in the handshake, what can be asked. So callers that lend it a model or
        folders have a session, and over stdio a process, apart from those that do not: see `LENDABLE`.
        """
        lent = frozenset(LENDABLE.keys() & set(answers))
        if not lent or (await self._upstream.session()).modern:
            return self._upstream
        if lent not in self._lending:
            self._lending[lent] = self._owned(lent)
        return self._lending[lent]

    @asynccontextmanager
    async def _open(self, lent: frozenset[str]) -> AsyncGenerator[McpSession]:
        events = _Shared(self._heard)
        offered = Client(
            info=self._target.client_info,
            capabilities={**OUR_CAPABILITIES, **{LENDABLE[method]: {} for method in lent}},
        )
        async with self._target.session(events, client=offered) as session:
            log.info("mcp_connected", agent=self._label, version=session.version)
            try:
                async with anyio.create_task_group() as tasks:
                    if not lent and self._changes is not None:
                        tasks.start_soon(self._listen, session, self._changes)
                    yield session
                    tasks.cancel_scope.cancel()
            finally:
                for _, lost in list(self._watchers):
                    lost()

    async def _listen(self, session: McpSession, changes: Changes) -> None:
        """Hear of the server's changes while the session lasts: in the newer era on a subscription, again and again."""
        offered = session.capabilities
        wanted = {flag: True for key, (flag, _) in LIST_CHANGED.items() if _says_changes(offered.get(key))}
        if not wanted:
            return
        if not session.modern:
            changes.listening(self._label)
            return
        refusable, since, failures = True, math.inf, 0

        def heard(method: str, params: JsonObject) -> None:
            nonlocal refusable, since
            if method == _ACKNOWLEDGED:
                refusable, since = False, anyio.current_time()
                changes.listening(self._label)
            self._heard(method, params)

        while not session.lost.is_set():
            since = math.inf
            try:
                await session.request("subscriptions/listen", {"notifications": wanted}, sink=_Shared(heard))
            except MCPError as error:
                log.info("mcp_listen_refused", agent=self._label, why=error.message)
                if refusable:
                    return
            except AdapterError as error:
                log.debug("mcp_listen_lost", agent=self._label, why=str(error))
            failures = 1 if anyio.current_time() - since >= _STEADY_S else failures + 1
            await anyio.sleep(RELISTEN.wait_s(failures))

    def _heard(self, method: str, params: JsonObject) -> None:
        for listener, _ in list(self._watchers):
            listener(method, params)
        if self._changes is not None:
            self._changes.said(self._label, method)

    async def _send(
        self,
        method: str,
        params: JsonObject,
        *,
        owner: str,
        notify: Notify,
        answers: Collection[str],
        headers: Mapping[str, str] | None,
        recorded: Sequence[tuple[JsonObject, JsonObject]] = (),
    ) -> Reply:
        askable = method in _METHODS.values()
        request = OpenRequest(owner=owner, answers=answers, askable=askable, recorded=recorded)
        self._tasks.start_soon(self._carry, request, method, params, headers, name=f"{method} to {self._label}")
        return await self._follow(request, notify)

    async def _carry(
        self, request: OpenRequest, method: str, params: JsonObject, headers: Mapping[str, str] | None
    ) -> None:
        """Send a request and wait for its result, in a task that outlives the caller's while a person is asked."""
        ended = Ended(error=RemoteUnavailable(self._label, "the connection was closed during the call"))
        try:
            with request.scope:
                ended = Ended(result=await self._request(request, method, params, headers))
        except (MCPError, AdapterError) as error:
            ended = Ended(error=error)
        except Exception as error:  # a fault of ours ends this call, not the connection with every other call
            log.exception("mcp_call_crashed", agent=self._label, method=method)
            ended = Ended(error=RemoteUnavailable(self._label, f"{type(error).__name__}: {error}"))
        finally:
            request.end(ended)
            request.done.set()

    async def _request(
        self, request: OpenRequest, method: str, params: JsonObject, headers: Mapping[str, str] | None
    ) -> dict[str, Any]:
        """Send a request over a shared session, once more on a new one where the server had forgotten the old one."""
        sink: Sink = request
        upstream = await self._upstream_for(request.answers)
        session = await upstream.session()
        try:
            return await session.request(method, params, sink=sink, headers=headers)
        except SessionGone:
            upstream.drop(session)
        session = await upstream.session()
        return await session.request(method, params, sink=sink, headers=headers)

    async def _follow(self, request: OpenRequest, notify: Notify) -> Reply:
        """Pass on what is said about a request until it ends, or asks."""
        settled = False
        try:
            while True:
                match await request.next():
                    case Said() as said:
                        await notify(said.method, said.params)
                    case Question() as asked:
                        self._waiting = {key: each for key, each in self._waiting.items() if key in each.questions}
                        self._waiting[asked.id] = request
                        self._make_room(request.owner)
                        settled = True
                        return Asked(question_id=asked.id, method=asked.method, params=asked.params)
                    case Ended() as ended:
                        settled = True
                        if ended.error is not None:
                            raise ended.error
                        return Answered(result=ended.result or {})
        finally:
            if not settled:
                request.scope.cancel()
                with anyio.move_on_after(_CANCEL_S, shield=True):
                    await request.done.wait()

    def _make_room(self, owner: str) -> None:
        asking = [key for key, request in self._waiting.items() if request.owner == owner]
        if len(asking) > _MOST_ASKING:
            log.warning("mcp_question_given_up", agent=self._label, owner=owner, open=_MOST_ASKING)
            self._waiting.pop(asking[0]).give_up()


class _MadeOfSchemas(Generic[_Made]):
    """What was made of capabilities' schemas, by name; made anew where a capability has another schema now."""

    def __init__(self, make: Callable[[JsonObject, str], _Made]) -> None:
        self._make = make
        self._made: dict[str, tuple[JsonObject, _Made]] = {}

    def of(self, name: str, schema: JsonObject) -> _Made:
        """Return what is made of the schema of the capability of that name."""
        known = self._made.get(name)
        if known is not None and known[0] is schema:
            return known[1]
        # The registry gives new objects whenever it is read. Not by `==`, to which 1 and True are the same.
        made = known[1] if known is not None and repr(known[0]) == repr(schema) else self._make(schema, name)
        self._made[name] = (schema, made)
        return made


class _OwnSession:
    """A RelaySession."""

    def __init__(self, session: McpSession) -> None:
        self._session = session

    @property
    def direct(self) -> McpSession:
        return self._session

    @property
    def lost(self) -> anyio.Event:
        return self._session.lost

    @property
    def facts(self) -> ServerFacts:
        return _facts(self._session)

    async def idle(self) -> None:
        await self._session.idle()

    async def request(self, method: str, params: JsonObject, *, notify: Notify, ask: Ask) -> JsonObject:
        return await self._session.request(method, params, sink=_Standalone(notify, ask))

    async def notify(self, method: str, params: JsonObject) -> None:
        await self._session.notify(method, params)


class _Standalone(SessionEvents):
    """Passes on what belongs to a client's own session; also the Sink of its requests."""

    owner = ""
    waiting = False
    askable = True

    def __init__(self, notify: Notify, ask: Ask) -> None:
        self._notify = notify
        self._ask = ask

    async def notify(self, method: str, params: JsonObject) -> None:
        await self._notify(method, params)

    async def ask(self, method: str, params: JsonObject) -> JsonObject:
        return await self._ask(method, params)

    async def notified(self, method: str, params: JsonObject) -> None:
        await self._notify(method, params)

    async def asked(self, method: str, params: JsonObject) -> JsonObject:
        return await self._ask(method, params)


class _Shared(SessionEvents):
    """Hands what belongs to no request to those who watch; also the Sink of our own subscription."""

    owner = ""
    waiting = False
    askable = True

    def __init__(self, heard: Callable[[str, JsonObject], None]) -> None:
        self._heard = heard

    async def notified(self, method: str, params: JsonObject) -> None:
        self._heard(method, params)

    async def notify(self, method: str, params: JsonObject) -> None:
        self._heard(method, params)

    async def ask(self, method: str, params: JsonObject) -> JsonObject:
        return await self.asked(method, params)


async def _report(report: Report, method: str, params: JsonObject) -> None:
    update = update_of(method, params)
    if update is not None:
        await report(update)


def _facts(session: McpSession) -> ServerFacts:
    return ServerFacts(version=session.version, modern=session.modern, answer=session.server)


def _says_changes(offered: object) -> bool:
    return isinstance(offered, Mapping) and cast("Mapping[str, object]", offered).get("listChanged") is True


def _browsing(error: MCPError) -> dict[str, JsonObject] | None:
    """What a server of 2025-11-25 wants opened in a browser before it takes the call (client/elicitation, URL mode)."""
    return url_elicitations(cast("Json", error.data)) if error.code == URL_ELICITATION_REQUIRED else None


def is_repeatable(tool: Capability) -> bool:
    """Whether a server says of its tool that it reads only, or that twice is as good as once."""
    hints = tool.raw.get("annotations")
    return isinstance(hints, Mapping) and (hints.get("readOnlyHint") is True or hints.get("idempotentHint") is True)
