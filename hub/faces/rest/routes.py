"""The REST face: agents, runs and direct calls under `/api`, its OpenAPI document, and the probes."""

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from pydantic import TypeAdapter
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response
from starlette.routing import BaseRoute

from interhub.adapters import InputRequired, Principal
from interhub.agent_cards import Json, JsonObject
from interhub.hub.discovery import FromDocument
from interhub.hub.errors import BadRequest
from interhub.hub.faces.http import note, while_connected
from interhub.hub.faces.shapes import agent_shape, event_shape, match_shape, outcome_shape, push_shape, run_shape
from interhub.hub.push.store import PushStore
from interhub.hub.service import Hub
from interhub.hub.supervisor.model import plan_schema
from interhub.hub.supervisor.run import Answer, Assignment, Event, Run
from interhub.hub.triggers.triggers import Triggers

from .approvals import approval_operations
from .bodies import (
    AddAgent,
    AgentsQuery,
    AnswerRun,
    CallAgent,
    CheckDocument,
    EventsQuery,
    FindQuery,
    Rerun,
    RunQuery,
    RunsQuery,
    SubmitRun,
)
from .operations import Asked, Operation, json_bytes, json_response, openapi
from .state import StateSeal
from .triggers import TriggerOperations
from .upkeep import Upkeep

Readiness: TypeAlias = Callable[[], Awaitable[Mapping[str, str]]]
"""Returns what is not ready, and why; nothing when all is."""

Replicas: TypeAlias = Callable[[], Awaitable[Sequence[JsonObject]]]
"""Returns the hubs that share the database, this one among them."""

DELEGATION_HEADER = "interhub-delegation"
"""Header by which an agent says which delegation its request is part of: what it got as `interhub.dev/delegation`."""

_SSE = "text/event-stream"
_PING_S = 15
"""Seconds of silence after which a stream says that it lives: proxies close what is silent for a minute."""

_AGENT = (404,)
_REACH = (403, 404, 502, 504)


def rest_routes(
    hub: Hub,
    *,
    readiness: Readiness,
    replicas: Replicas | None = None,
    upkeep: Upkeep | None = None,
    state_key: bytes | None = None,
    pushes: PushStore | None = None,
    triggers: Triggers | None = None,
) -> list[BaseRoute]:
    """Return the routes of the REST face. `state_key` (32 bytes) seals what callers keep between question and answer.

    They need `interhub.hub.faces.http.Entrance` around the application, which names the caller.
    """
    listed = operations(
        hub,
        readiness=readiness,
        replicas=replicas,
        upkeep=upkeep,
        state_key=state_key,
        pushes=pushes,
        triggers=triggers,
    )
    return [operation.route() for operation in listed]


def operations(
    hub: Hub,
    *,
    readiness: Readiness,
    replicas: Replicas | None = None,
    upkeep: Upkeep | None = None,
    state_key: bytes | None = None,
    pushes: PushStore | None = None,
    triggers: Triggers | None = None,
) -> list[Operation[Any, Any]]:
    """Return all that can be asked."""
    agents, runs = _Agents(hub, StateSeal(state_key or secrets.token_bytes(32))), _Runs(hub, pushes)
    listed: list[Operation[Any, Any]] = [*agents.operations(), *runs.operations(), *approval_operations(hub)]
    listed += _probes(hub, readiness, replicas)
    if upkeep is not None:
        listed += upkeep.operations()
    if triggers is not None:
        listed += TriggerOperations(triggers, hub.info.base_url).operations()

    async def document(asked: Asked[None, None]) -> Response:
        return json_response(openapi(listed, version=hub.info.version, url=hub.info.base_url))

    async def workflow_schema(asked: Asked[None, None]) -> Response:
        return json_response(plan_schema())

    listed.append(
        Operation(
            name="workflow_schema",
            method="GET",
            path="/api/schemas/workflow.json",
            summary="The JSON Schema of workflow files, for editors.",
            answer=workflow_schema,
            answers={200: "JsonSchema"},
            open=True,
        )
    )
    listed.append(
        Operation(
            name="openapi",
            method="GET",
            path="/api/openapi.json",
            summary="This document.",
            answer=document,
            answers={200: "Document"},
        )
    )
    return listed


class _Agents:
    """Who exists, who can do what, and the direct path to them."""

    def __init__(self, hub: Hub, seal: StateSeal) -> None:
        self._hub = hub
        self._seal = seal

    def operations(self) -> list[Operation[Any, Any]]:
        return [
            Operation(
                name="list_agents",
                method="GET",
                path="/api/agents",
                summary="List the registered agents.",
                answer=self.list,
                answers={200: "Agents"},
                query=TypeAdapter(AgentsQuery),
            ),
            Operation(
                name="add_agent",
                method="POST",
                path="/api/agents",
                summary="Reach an agent, and register it.",
                answer=self.add,
                answers={201: "Agent"},
                refusals=(409, 422, 502, 504),
                body=TypeAdapter[AddAgent](AddAgent),
            ),
            Operation(
                name="show_agent",
                method="GET",
                path="/api/agents/{agent_id}",
                summary="Show an agent and what it can do.",
                answer=self.show,
                answers={200: "Agent"},
                refusals=_AGENT,
            ),
            Operation(
                name="remove_agent",
                method="DELETE",
                path="/api/agents/{agent_id}",
                summary="Forget an agent.",
                answer=self.remove,
                answers={200: "Agent"},
                refusals=_AGENT,
            ),
            Operation(
                name="refresh_agent",
                method="POST",
                path="/api/agents/{agent_id}/refresh",
                summary="Ask an agent again what it can do.",
                answer=self.refresh,
                answers={200: "Agent"},
                refusals=_REACH,
            ),
            Operation(
                name="call_agent",
                method="POST",
                path="/api/agents/{agent_id}/call",
                summary="Use one capability of an agent now, without a run.",
                answer=self.call,
                answers={200: "Outcome"},
                refusals=(*_REACH, 429),
                body=TypeAdapter(CallAgent),
            ),
            Operation(
                name="find",
                method="GET",
                path="/api/find",
                summary="Find the capabilities that best meet a need, and why.",
                answer=self.find,
                answers={200: "Matches"},
                query=TypeAdapter(FindQuery),
            ),
            Operation(
                name="check_workflow",
                method="POST",
                path="/api/workflows/check",
                summary="Look for mistakes in a team's or workflow's document, without registering it.",
                answer=self.check,
                answers={200: "Checked"},
                refusals=(422,),
                body=TypeAdapter(CheckDocument),
            ),
        ]

    async def list(self, asked: Asked[None, AgentsQuery]) -> Response:
        agents = await self._hub.agents(asked.principal)
        return json_response({"agents": [agent_shape(each, capabilities=asked.query.capabilities) for each in agents]})

    async def add(self, asked: Asked[AddAgent, None]) -> Response:
        agent = await self._hub.add_agent(asked.principal, asked.body.source(), agent_id=asked.body.id)
        note(asked.request.scope, agent=agent.id)
        return json_response(agent_shape(agent), status=201, headers={"Location": f"/api/agents/{agent.id}"})

    async def show(self, asked: Asked[None, None]) -> Response:
        agent = await self._hub.agent(asked.principal, asked.path("agent_id"))
        return json_response(agent_shape(agent, connections=self._hub.connections(agent)))

    async def remove(self, asked: Asked[None, None]) -> Response:
        return json_response(agent_shape(await self._hub.remove_agent(asked.principal, asked.path("agent_id"))))

    async def refresh(self, asked: Asked[None, None]) -> Response:
        return json_response(agent_shape(await self._hub.refresh_agent(asked.principal, asked.path("agent_id"))))

    async def call(self, asked: Asked[CallAgent, None]) -> Response:
        body, principal, agent_id = asked.body, asked.principal, asked.path("agent_id")
        resume = body.read_resume()
        if resume is not None:
            state = self._seal.open(resume.state, principal=principal, agent_id=agent_id)
            resume = replace(resume, state=state)
        outcome = await self._hub.call(
            principal,
            agent_id,
            body.capability,
            kind=body.kind,
            arguments=body.arguments,
            message=body.read_message(),
            resume=resume,
            context_id=body.context_id,
            idempotency_key=body.idempotency_key,
            timeout_s=body.timeout_s,
            mark=asked.request.headers.get(DELEGATION_HEADER, ""),
        )
        if isinstance(outcome, InputRequired):
            kept = self._seal.seal(outcome.state, principal=principal, agent_id=agent_id)
            outcome = replace(outcome, state=kept)
        return json_response(outcome_shape(outcome))

    async def find(self, asked: Asked[None, FindQuery]) -> Response:
        query = asked.query
        matches = await self._hub.find(
            asked.principal, query.need, limit=query.limit, agents=query.agent if query.agent else None
        )
        return json_response({"need": query.need, "matches": [match_shape(match) for match in matches]})

    async def check(self, asked: Asked[CheckDocument, None]) -> Response:
        source = FromDocument(document=asked.body.document, source=asked.body.source_name)
        agent = await self._hub.check_document(asked.principal, source)
        return json_response({"ok": True, "agent": agent_shape(agent)})


class _Runs:
    """What was asked for, and how it goes."""

    def __init__(self, hub: Hub, pushes: PushStore | None) -> None:
        self._hub = hub
        self._pushes = pushes

    def operations(self) -> list[Operation[Any, Any]]:
        return [
            Operation(
                name="list_runs",
                method="GET",
                path="/api/runs",
                summary="List your runs, newest first.",
                answer=self.list,
                answers={200: "Runs"},
                query=TypeAdapter(RunsQuery),
            ),
            Operation(
                name="submit_run",
                method="POST",
                path="/api/runs",
                summary="Give a goal, a workflow, or a task for one agent. 200 when it has ended or asks, 202 before.",
                answer=self.submit,
                answers={200: "Run", 202: "Run"},
                refusals=(404, 422),
                body=TypeAdapter(SubmitRun),
            ),
            Operation(
                name="show_run",
                method="GET",
                path="/api/runs/{run_id}",
                summary="Show a run: its steps, its answer, what it asks.",
                answer=self.show,
                answers={200: "Run"},
                refusals=_AGENT,
                query=TypeAdapter(RunQuery),
            ),
            Operation(
                name="cancel_run",
                method="POST",
                path="/api/runs/{run_id}/cancel",
                summary="Stop a run, down to its last leaf.",
                answer=self.cancel,
                answers={200: "Run"},
                refusals=(404, 409),
            ),
            Operation(
                name="pause_run",
                method="POST",
                path="/api/runs/{run_id}/pause",
                summary="Have a run begin no further step; what is under way ends.",
                answer=self.pause,
                answers={200: "Run"},
                refusals=(404, 409),
            ),
            Operation(
                name="resume_run",
                method="POST",
                path="/api/runs/{run_id}/resume",
                summary="Let a paused run go on.",
                answer=self.resume,
                answers={200: "Run"},
                refusals=(404, 409),
            ),
            Operation(
                name="rerun",
                method="POST",
                path="/api/runs/{run_id}/rerun",
                summary="Do an ended run again from a step on, in a new run that takes over what came before.",
                answer=self.rerun,
                answers={202: "Run"},
                refusals=(404, 409),
                body=TypeAdapter(Rerun),
            ),
            Operation(
                name="list_pushes",
                method="GET",
                path="/api/runs/{run_id}/pushes",
                summary="List the webhooks that a run is pushed to, and how far each was told.",
                answer=self.pushes,
                answers={200: "Pushes"},
                refusals=_AGENT,
            ),
            Operation(
                name="answer_run",
                method="POST",
                path="/api/runs/{run_id}/answer",
                summary="Answer what a run asks.",
                answer=self.answer,
                answers={200: "Run"},
                refusals=(404, 409),
                body=TypeAdapter(AnswerRun),
            ),
            Operation(
                name="run_events",
                method="GET",
                path="/api/runs/{run_id}/events",
                summary=(
                    "Tell what happened in a run; with `Accept: text/event-stream` also what happens, until it has "
                    "ended. A stream begins after `Last-Event-ID`, or `after`."
                ),
                answer=self.events,
                answers={200: "Events"},
                refusals=_AGENT,
                query=TypeAdapter(EventsQuery),
                media_types=("application/json", _SSE),
            ),
        ]

    async def list(self, asked: Asked[None, RunsQuery]) -> Response:
        query = asked.query
        runs = await self._hub.runs(
            asked.principal, state=query.state, context_id=query.context_id, limit=query.limit, before=query.before
        )
        more = runs[-1].id if len(runs) == query.limit else None
        return json_response({"runs": [run_shape(run, full=False) for run in runs], "next_before": more})

    async def submit(self, asked: Asked[SubmitRun, None]) -> Response:
        body = asked.body
        run = await self._hub.submit(
            Assignment(
                principal=asked.principal,
                goal=body.read_goal(),
                agent_id=body.agent_id,
                capability=body.capability,
                arguments=body.arguments,
                workflow=body.workflow,
                inputs=body.inputs,
                members=tuple(body.members),
                context_id=body.context_id,
                idempotency_key=body.idempotency_key or asked.request.headers.get("idempotency-key", ""),
                budget=body.budget.budget(),
                mark=asked.request.headers.get(DELEGATION_HEADER, ""),
            )
        )
        run = await self._settled(asked, run, body.wait_s)
        status = 200 if run.state.ended or run.state.interrupted else 202
        return json_response(run_shape(run), status=status, headers={"Location": f"/api/runs/{run.id}"})

    async def show(self, asked: Asked[None, RunQuery]) -> Response:
        run = await self._hub.run(asked.principal, asked.path("run_id"))
        return json_response(run_shape(await self._settled(asked, run, asked.query.wait_s)))

    async def cancel(self, asked: Asked[None, None]) -> Response:
        return json_response(run_shape(await self._hub.cancel(asked.principal, asked.path("run_id"))))

    async def pause(self, asked: Asked[None, None]) -> Response:
        return json_response(run_shape(await self._hub.pause(asked.principal, asked.path("run_id"))))

    async def resume(self, asked: Asked[None, None]) -> Response:
        return json_response(run_shape(await self._hub.resume(asked.principal, asked.path("run_id"))))

    async def rerun(self, asked: Asked[Rerun, None]) -> Response:
        run = await self._hub.rerun(asked.principal, asked.path("run_id"), from_step=asked.body.from_step)
        note(asked.request.scope, run_id=run.id)
        return json_response(run_shape(run), status=202, headers={"Location": f"/api/runs/{run.id}"})

    async def pushes(self, asked: Asked[None, None]) -> Response:
        run = await self._hub.run(asked.principal, asked.path("run_id"))
        found = await self._pushes.of_run(run.id) if self._pushes is not None else []
        return json_response({"pushes": [push_shape(config) for config in found]})

    async def answer(self, asked: Asked[AnswerRun, None]) -> Response:
        body = asked.body
        answer = Answer(parts=body.read(""), accepted=body.accepted, digest=body.digest, by=asked.principal)
        run = await self._hub.answer(asked.path("run_id"), answer, question_id=body.question_id)
        return json_response(run_shape(await self._settled(asked, run, body.wait_s)))

    async def events(self, asked: Asked[None, EventsQuery]) -> Response:
        run_id, after = asked.path("run_id"), asked.query.after
        run = await self._hub.run(asked.principal, run_id)
        headers = asked.request.headers
        if _SSE in headers.get("accept", ""):
            last = headers.get("last-event-id", "")
            if last and not last.isdigit():
                raise BadRequest(f"Last-Event-ID {last[:40]!r} is not a sequence number")
            stream = _told(self._hub, asked.principal, run.id, int(last) if last else after)
            return EventSourceResponse(stream, ping=_PING_S, headers={"X-Accel-Buffering": "no"})
        events = await self._hub.events(asked.principal, run.id, after=after, limit=asked.query.limit)
        shaped = [event_shape(event) for event in events]
        return json_response({"events": shaped, "next_after": events[-1].seq if events else after})

    async def _settled(self, asked: Asked[Any, Any], run: Run, wait_s: float) -> Run:
        note(asked.request.scope, run_id=run.id)
        if not wait_s or run.state.ended or run.state.interrupted:
            return run
        waited = await while_connected(
            asked.request.receive, lambda: self._hub.wait(asked.principal, run.id, timeout_s=wait_s)
        )
        return waited or run


async def _told(hub: Hub, principal: Principal, run_id: str, after: int) -> AsyncGenerator[ServerSentEvent]:
    """Yield a run's events as server-sent ones: `id` is the sequence number, `event` the kind."""
    events: AsyncIterator[Event] = hub.watch(principal, run_id, after=after)
    try:
        async for event in events:
            data = json_bytes(event_shape(event)).decode()
            yield ServerSentEvent(data=data, event=event.kind.value, id=str(event.seq))
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()


def _probes(hub: Hub, readiness: Readiness, replicas: Replicas | None) -> list[Operation[Any, Any]]:
    async def live(asked: Asked[None, None]) -> Response:
        return json_response({"status": "ok", "version": hub.info.version})

    async def ready(asked: Asked[None, None]) -> Response:
        missing = await readiness()
        told: dict[str, Json] = {"ready": not missing, "not_ready": dict(missing)}
        if replicas is not None and not missing:
            told["replicas"] = list(await replicas())
        return json_response(told, status=503 if missing else 200)

    return [
        Operation(
            name="healthz",
            method="GET",
            path="/healthz",
            summary="The process lives.",
            answer=live,
            answers={200: "Liveness"},
            open=True,
        ),
        Operation(
            name="readyz",
            method="GET",
            path="/readyz",
            summary="Registry, engine and faces are up; and which hubs share the database, where there may be several.",
            answer=ready,
            answers={200: "Readiness", 503: "Readiness"},
            open=True,
        ),
    ]
