"""Runs as a model reads them: structured content with all it needs, and the same in words."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import mcp_types as types

from interhub.adapters import Artifact, RawPart, UrlPart, text_of
from interhub.agent_cards import Json, JsonObject
from interhub.hub.supervisor.run import Event, EventKind, Question, Run, RunState, StepView

from .content import ANY_KINDS, artifact_view, content_of, data_of, json_text
from .large import MAX_EMBEDDED_BYTES, file_link
from .questions import question_text

_STATES: list[Json] = [state.value for state in RunState]

RUN_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "run_id": {"type": "string", "description": "Name of the run for run_status, run_result, run_cancel, answer."},
        "state": {"type": "string", "enum": _STATES},
        "context_id": {"type": "string", "description": "Pass it to the next delegate to continue the conversation."},
        "answer": {"type": "string", "description": "The result in words, once completed."},
        "data": {"description": "The result's structured data, where there is any.", "anyOf": ANY_KINDS},
        "artifacts": {
            "type": "array",
            "description": "What was made. Binary files are in the result's content where they are small.",
            "items": {"type": "object", "properties": {"artifact_id": {"type": "string"}}, "required": ["artifact_id"]},
        },
        "steps": {
            "type": "array",
            "description": "Who did what, in the order of the plan.",
            "items": {
                "type": "object",
                "properties": {
                    "step": {"type": "string"},
                    "title": {"type": "string"},
                    "agent": {"type": "string"},
                    "capability": {"type": "string"},
                    "state": {"type": "string", "enum": _STATES},
                    "seconds": {"type": "number"},
                    "attempts": {"type": "integer"},
                    "tokens": {"type": "integer"},
                    "cost_usd": {"type": "number"},
                    "decided_by": {"type": "string"},
                    "why": {"type": "string", "description": "Why this agent."},
                    "error": {"type": "string"},
                },
                "required": ["step", "state"],
            },
        },
        "questions": {
            "type": "array",
            "description": "What the run waits for: have the user answer, then call `answer`.",
            "items": {
                "type": "object",
                "properties": {
                    "question_id": {"type": "string"},
                    "agent": {"type": "string"},
                    "text": {"type": "string"},
                    "approval": {"type": "boolean", "description": "Only yes or no is wanted."},
                    "answer_by": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": "Who else than the user must answer; the run waits for them.",
                    },
                    "schema": {"type": "object", "description": "JSON Schema of the answer; without it, text."},
                    "url": {"type": "string", "description": "Where the user must go first."},
                },
                "required": ["question_id", "agent", "text"],
            },
        },
        "error": {
            "type": "object",
            "properties": {
                "reason": {"type": "string"},
                "message": {"type": "string"},
                "step": {"type": "string"},
            },
            "required": ["reason", "message"],
        },
        "paused": {"type": "boolean"},
        "seconds": {"type": "number", "description": "How long the run took, or has taken so far."},
        "truncated": {"type": "string", "description": "Says what was left out, and how to get it."},
        "next": {"type": "string", "description": "What to do now, where anything is left to do."},
    },
    "required": ["run_id", "state"],
}


def run_view(run: Run, *, now: datetime, limit: int, results: bool = True) -> dict[str, Json]:
    """Describe a run by RUN_SCHEMA. Texts and data over `limit` characters are cut, and the view says so."""
    remedy = f"run_result with run_id {run.id} gives more"
    view: dict[str, Json] = {"run_id": run.id, "state": run.state.value}
    if run.context_id:
        view["context_id"] = run.context_id
    if results:
        notes: list[str] = []
        if run.state is RunState.COMPLETED:
            answer = text_of(run.parts)
            view["answer"] = answer[:limit]
            if len(answer) > limit:
                notes.append(f"{len(answer) - limit} of {len(answer)} characters of the answer")
        data = run.structured if run.structured is not None else data_of(run.parts)
        if data is not None:
            size = len(json_text(data))
            if size > limit:
                notes.append(f"{size} characters of data")
            else:
                view["data"] = data
        artifacts = [artifact_view(made, limit=limit, remedy=remedy) for made in _artifacts(run)]
        if artifacts:
            view["artifacts"] = artifacts
        if notes:
            view["truncated"] = f"Left out: {', '.join(notes)}; {remedy}."
    if run.steps:
        view["steps"] = [_step_view(step, now) for step in run.steps]
    if run.questions:
        view["questions"] = [question_view(question) for question in run.questions]
    if run.error is not None:
        error: dict[str, Json] = {"reason": run.error.reason, "message": run.error.message}
        if run.error.step:
            error["step"] = run.error.step
        view["error"] = error
    if run.paused:
        view["paused"] = True
    view["seconds"] = _seconds(run.created_at, run.ended_at or now)
    if following := _next(run):
        view["next"] = following
    return view


def _artifacts(run: Run) -> list[Artifact]:
    loose = tuple(part for part in run.parts if isinstance(part, RawPart | UrlPart))
    return [*run.artifacts, *([Artifact(artifact_id="answer", name="answer", parts=loose)] if loose else [])]


def _next(run: Run) -> str:
    if run.questions:
        return "Ask the user, then call `answer` with run_id and question_id; then `run_result`."
    if run.paused:
        return "The run is paused: somebody must resume it before it goes on."
    if not run.state.ended:
        return "The run goes on by itself. Call `run_result` with its run_id to wait for the result."
    return ""


def _step_view(step: StepView, now: datetime) -> dict[str, Json]:
    view: dict[str, Json] = {"step": step.path, "state": step.state.value}
    texts = {
        "title": step.title,
        "agent": step.agent_id,
        "capability": step.capability,
        "why": step.why,
        "error": step.error,
        "decided_by": step.decided_by,
    }
    view.update({key: text for key, text in texts.items() if text})
    if step.started_at is not None:
        view["seconds"] = _seconds(step.started_at, step.ended_at or now)
    if step.attempts > 1:
        view["attempts"] = step.attempts
    if step.usage is not None:
        view["tokens"] = step.usage.input_tokens + step.usage.output_tokens
        view["cost_usd"] = step.usage.cost_usd
    return view


def question_view(question: Question) -> dict[str, Json]:
    """Describe an open question."""
    view: dict[str, Json] = {
        "question_id": question.id,
        "agent": question.agent_id,
        "text": question_text(question.parts),
    }
    if question.approval:
        view["approval"] = True
    if question.answer_by:
        view["answer_by"] = list(question.answer_by)
    if question.schema is not None:
        view["schema"] = question.schema
    url = next((part.url for part in question.parts if isinstance(part, UrlPart)), "")
    if url:
        view["url"] = url
    return view


def run_text(view: JsonObject) -> str:
    """Say a run's view in words, for clients and people that read no structured content."""
    lines: list[str] = []
    if view.get("answer"):
        lines += [str(view["answer"]), ""]
    if view.get("data") is not None:
        lines += [json_text(view["data"]), ""]
    for artifact in _objects(view.get("artifacts")):
        lines.append(f"Artifact {artifact.get('name') or artifact['artifact_id']}:")
        for key in ("description", "text"):
            if artifact.get(key):
                lines.append(str(artifact[key]))
        if artifact.get("data") is not None:
            lines.append(json_text(artifact["data"]))
        for file in _objects(artifact.get("files")):
            where = file.get("url") or f"{file.get('bytes')} bytes"
            lines.append(f"{file.get('name') or 'file'} ({file.get('media_type') or 'unknown type'}, {where})")
        if artifact.get("truncated"):
            lines.append(f"({artifact['truncated']})")
        lines.append("")
    error = view.get("error")
    if isinstance(error, Mapping):
        where = f" in step {error['step']}" if error.get("step") else ""
        lines += [f"Failed{where}: {error['message']} ({error['reason']})", ""]
    for question in _objects(view.get("questions")):
        lines.append(f"{question['agent']} asks (question_id {question['question_id']}): {question['text']}")
        if question.get("schema") is not None:
            lines.append(f"The answer's schema: {json_text(question['schema'])}")
        if question.get("url"):
            lines.append(f"To be opened first: {question['url']}")
        lines.append("")
    lines.append(f"Run {view['run_id']}: {view['state']}, {view.get('seconds', 0)} s")
    for step in _objects(view.get("steps")):
        who = "/".join(str(step[key]) for key in ("agent", "capability") if step.get(key))
        took = f", {step['seconds']} s" if "seconds" in step else ""
        failed = f": {step['error']}" if step.get("error") else ""
        lines.append(f"- {step['step']}{f' by {who}' if who else ''}: {step['state']}{took}{failed}")
    lines += [str(view[key]) for key in ("truncated", "next") if view.get(key)]
    return "\n".join(lines)


def run_content(run: Run, view: JsonObject, *, files: bool = True) -> list[types.ContentBlock]:
    """Return a result's content: the view in words, then the run's files, links to those that do not fit."""
    left = MAX_EMBEDDED_BYTES
    content: list[types.ContentBlock] = [types.TextContent(text=run_text(view))]
    if not files:
        return content
    for artifact_id, parts in [*((made.artifact_id, made.parts) for made in run.artifacts), ("", run.parts)]:
        for place, part in enumerate(parts):
            if isinstance(part, UrlPart):
                content += content_of([part])
            elif isinstance(part, RawPart) and len(part.raw) <= left:
                left -= len(part.raw)
                content += content_of([part])
            elif isinstance(part, RawPart):
                content += content_of([file_link(run.id, artifact_id, place, part)])
    return content


class Teller:
    """Says in a line what happened, for progress notifications. It remembers who does which step."""

    def __init__(self, run: Run) -> None:
        self._doers = {step.path: _doer(step.agent_id, step.capability) for step in run.steps}

    def line(self, event: Event) -> str:
        """Return the line; empty for what is not worth one."""
        payload = event.payload
        agent = str(payload.get("agent") or payload.get("agent_id") or "")
        capability = str(payload.get("capability") or "")
        known = self._doers.get(event.step, "")
        if agent and (capability or known.partition("/")[0] != agent):
            self._doers[event.step] = _doer(agent, capability)
        doer = self._doers.get(event.step, "")
        by = f"{event.step} ({doer})" if doer else event.step
        text = str(payload.get("text") or "")
        match event.kind:
            case EventKind.RUN_SUBMITTED:
                return f"run {event.run_id} submitted"
            case EventKind.RUN_PLANNED:
                steps = _objects(payload.get("steps"))
                planned = f"planned {len(steps)} step{'' if len(steps) == 1 else 's'}"
                return f"{event.step}: {planned}" if event.step else planned
            case EventKind.MODEL_ASKED:
                outcome = str(payload.get("outcome") or "").replace("_", " ")
                return f"model {payload.get('model')} asked for {payload.get('purpose')}: {outcome}"
            case EventKind.RUN_STARTED:
                return "started"
            case EventKind.STEP_ROUTED:
                return f"{by}: chosen" + (f" because {payload['why']}" if payload.get("why") else "")
            case EventKind.STEP_STARTED:
                return f"{by}: started"
            case EventKind.STEP_PROGRESS | EventKind.STEP_LOG:
                return f"{by}: {text}" if text else ""
            case EventKind.STEP_ARTIFACT:
                return f"{by}: made {_artifact_name(payload)}" if payload.get("last") is not False else ""
            case EventKind.STEP_COMPLETED:
                return f"{by}: completed"
            case EventKind.STEP_FAILED:
                again = f", trying again in {payload['retry_in_s']} s" if "retry_in_s" in payload else ""
                return f"{by}: failed{_reason(payload)}{again}"
            case EventKind.STEP_CANCELED:
                return f"{by}: canceled"
            case EventKind.QUESTION_ASKED:
                return f"{by}: asks a question"
            case EventKind.QUESTION_ANSWERED:
                return f"{by}: answered"
            case EventKind.RUN_PAUSED:
                return f"paused by {payload.get('by')}"
            case EventKind.RUN_RESUMED:
                return "goes on"
            case EventKind.RUN_COMPLETED:
                return "completed"
            case EventKind.RUN_FAILED:
                return f"failed{_reason(payload)}"
            case EventKind.RUN_CANCELED:
                return "canceled"
            case EventKind.STEP_DECIDED:
                return f"{by}: {payload.get('why') or 'decided'}"
            case EventKind.STEP_WAITING:
                awaited = payload.get("event")
                return f"{by}: waits for " + (f"the event {awaited}" if awaited else f"{payload.get('until')}")
            case EventKind.MEMORY_WRITTEN:
                return ""
            case EventKind.STEP_BOUND | EventKind.QUESTION_CLOSED:
                return ""


def _doer(agent: str, capability: str) -> str:
    return "/".join(part for part in (agent, capability) if part)


def _reason(payload: JsonObject) -> str:
    error = payload.get("error")
    message = error.get("message") if isinstance(error, Mapping) else payload.get("message")
    return f": {message}" if message else ""


def _artifact_name(payload: JsonObject) -> str:
    artifact = payload.get("artifact")
    named = artifact if isinstance(artifact, Mapping) else payload
    return str(named.get("name") or named.get("artifactId") or "an artifact")


def _seconds(start: datetime, end: datetime) -> float:
    return round(max(0.0, (end - start).total_seconds()), 3)


def _objects(value: Json) -> list[JsonObject]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return []
    return [item for item in value if isinstance(item, Mapping)]
