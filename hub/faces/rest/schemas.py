"""The JSON schemas of what REST answers (`shapes` writes it; a test holds the two together)."""

from interhub.adapters import Role
from interhub.adapters.condition import State
from interhub.agent_cards import Json, Kind
from interhub.agent_cards.signature import SignatureState
from interhub.hub.push.config import PushState
from interhub.hub.supervisor.run import EventKind, RunState
from interhub.registry import HealthState

Schema = dict[str, Json]

_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_INTEGER: Schema = {"type": "integer"}
_FLAG: Schema = {"type": "boolean"}
_ANY: Schema = {}
_MAP: Schema = {"type": "object"}
_DATE: Schema = {"type": "string", "format": "date-time"}
_DATE_OR_NULL: Schema = {"type": ["string", "null"], "format": "date-time"}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_INTEGER_OR_NULL: Schema = {"type": ["integer", "null"]}
_MAP_OR_NULL: Schema = {"type": ["object", "null"]}
_TEXTS: Schema = {"type": "array", "items": _TEXT}


def ref(name: str) -> Schema:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(*, optional: tuple[str, ...] = (), **fields: Json) -> Schema:
    return {
        "type": "object",
        "properties": fields,
        "required": [name for name in fields if name not in optional],
        "additionalProperties": False,
    }


def _list(name: str) -> Schema:
    return {"type": "array", "items": ref(name)}


def _or_null(name: str) -> Schema:
    return {"anyOf": [ref(name), {"type": "null"}]}


def _one_of(values: list[str]) -> Schema:
    return {"type": "string", "enum": list(values)}


_STATE = _one_of([state.value for state in RunState])

SCHEMAS: dict[str, Schema] = {
    "Part": _object(
        optional=("text", "data", "raw", "url", "mediaType", "filename", "metadata"),
        text=_TEXT,
        data=_ANY,
        raw={"type": "string", "contentEncoding": "base64"},
        url=_TEXT,
        mediaType=_TEXT,
        filename=_TEXT,
        metadata=_MAP,
    ),
    "Message": _object(
        optional=("contextId", "taskId", "metadata", "extensions", "referenceTaskIds"),
        messageId=_TEXT,
        role=_one_of([role.value for role in Role]),
        parts=_list("Part"),
        contextId=_TEXT,
        taskId=_TEXT,
        metadata=_MAP,
        extensions=_TEXTS,
        referenceTaskIds=_TEXTS,
    ),
    "Signature": _object(
        state=_one_of([state.value for state in SignatureState]),
        key_id=_TEXT,
        key_source=_TEXT,
        whole=_FLAG,
        why=_TEXT,
    ),
    "Push": _object(
        id=_TEXT,
        url=_TEXT,
        version=_TEXT,
        state=_one_of([state.value for state in PushState]),
        sent=_INTEGER_OR_NULL,
        tries=_INTEGER,
        next_try_at=_DATE_OR_NULL,
        last_error=_TEXT,
        created_at=_DATE,
    ),
    "Pushes": _object(pushes=_list("Push")),
    "Artifact": _object(
        optional=("name", "description", "metadata", "extensions"),
        artifactId=_TEXT,
        parts=_list("Part"),
        name=_TEXT,
        description=_TEXT,
        metadata=_MAP,
        extensions=_TEXTS,
    ),
    "Usage": _object(input_tokens=_INTEGER, output_tokens=_INTEGER, cost_usd=_NUMBER),
    "Health": _object(
        state=_one_of([state.value for state in HealthState]),
        last_error=_TEXT,
        checked_at=_DATE_OR_NULL,
        next_try_at=_DATE_OR_NULL,
    ),
    "Endpoint": _object(
        binding=_TEXT,
        url=_TEXT,
        version=_TEXT,
        command=_TEXTS,
        cwd=_TEXT,
        headers=_MAP,
        env=_MAP,
        options=_MAP,
    ),
    "Capability": _object(
        name=_TEXT,
        kind=_one_of([kind.value for kind in Kind]),
        title=_TEXT,
        description=_TEXT,
        tags=_TEXTS,
        examples=_TEXTS,
        input_schema=_MAP,
        output_schema=_MAP_OR_NULL,
    ),
    "Card": _object(
        documentation_url=_TEXT,
        icon_url=_TEXT,
        streaming=_FLAG,
        input_modes=_TEXTS,
        output_modes=_TEXTS,
        instructions=_TEXT,
    ),
    "Agent": _object(
        optional=("capabilities", "card", "warnings", "connections"),
        id=_TEXT,
        tenant=_TEXT,
        adapter=_TEXT,
        name=_TEXT,
        description=_TEXT,
        version=_TEXT,
        provider=_TEXT,
        endpoint=ref("Endpoint"),
        health=ref("Health"),
        digest=_TEXT,
        signature=ref("Signature"),
        capability_count=_INTEGER,
        created_at=_DATE,
        updated_at=_DATE,
        capabilities=_list("Capability"),
        card=ref("Card"),
        warnings=_TEXTS,
        connections=_list("Connection"),
    ),
    "Connection": _object(
        state=_one_of([state.value for state in State]),
        calls=_INTEGER,
        failures=_INTEGER,
        last_error=_TEXT,
        next_try_at=_DATE_OR_NULL,
    ),
    "Agents": _object(agents=_list("Agent")),
    "Match": _object(
        agent_id=_TEXT,
        capability=_TEXT,
        kind=_one_of([kind.value for kind in Kind]),
        title=_TEXT,
        description=_TEXT,
        score={"type": "number", "minimum": 0, "maximum": 1},
        is_match=_FLAG,
        lexical=_NUMBER,
        embedding=_NUMBER,
        terms=_TEXTS,
        why=_TEXT,
        warnings=_TEXTS,
    ),
    "Matches": _object(need=_TEXT, matches=_list("Match")),
    "Question": _object(
        id=_TEXT,
        run_id=_TEXT,
        step=_TEXT,
        agent_id=_TEXT,
        parts=_list("Part"),
        schema=_MAP_OR_NULL,
        auth=_FLAG,
        capability=_TEXT,
        approval=_FLAG,
        asked_by=_TEXT,
        answer_by={"type": "array", "items": _TEXT},
        digest=_TEXT,
        asked_at=_DATE,
        expires_at=_DATE_OR_NULL,
    ),
    "Approval": {
        "description": "A question, with its state, and whether it is for the caller to answer.",
        "allOf": [
            ref("Question"),
            _object(
                state={"enum": ["open", "answered", "closed", "expired"]},
                answered_by=_TEXT,
                accepted={"type": ["boolean", "null"]},
                for_me=_FLAG,
            ),
        ],
    },
    "Approvals": _object(approvals=_list("Approval")),
    "StepView": _object(
        path=_TEXT,
        title=_TEXT,
        agent_id=_TEXT,
        capability=_TEXT,
        state=_STATE,
        attempts=_INTEGER,
        started_at=_DATE_OR_NULL,
        ended_at=_DATE_OR_NULL,
        why=_TEXT,
        error=_TEXT,
        usage=_or_null("Usage"),
        decided_by=_TEXT,
    ),
    "PlanView": _object(path=_TEXT, round=_INTEGER, planner=_TEXT, why=_TEXT),
    "ModelCall": _object(path=_TEXT, purpose=_TEXT, model=_TEXT, outcome=_TEXT, why=_TEXT, usage=_or_null("Usage")),
    "RunError": _object(reason=_TEXT, message=_TEXT, step=_TEXT),
    "Run": _object(
        optional=("parts", "structured", "artifacts", "steps", "plans", "model_calls"),
        id=_TEXT,
        context_id=_TEXT,
        subject=_TEXT,
        agent_id=_TEXT,
        state=_STATE,
        goal=ref("Message"),
        error=_or_null("RunError"),
        questions=_list("Question"),
        created_at=_DATE,
        updated_at=_DATE,
        ended_at=_DATE_OR_NULL,
        generation=_INTEGER,
        paused=_FLAG,
        rerun_of=_TEXT_OR_NULL,
        rerun_from=_TEXT_OR_NULL,
        parts=_list("Part"),
        structured=_ANY,
        artifacts=_list("Artifact"),
        steps=_list("StepView"),
        plans=_list("PlanView"),
        model_calls=_list("ModelCall"),
    ),
    "Runs": _object(runs=_list("Run"), next_before={"type": ["string", "null"]}),
    "Event": _object(
        run_id=_TEXT,
        seq={"type": "integer", "minimum": 1},
        kind=_one_of([kind.value for kind in EventKind]),
        step=_TEXT,
        attempt=_INTEGER,
        at=_DATE,
        payload=_MAP,
    ),
    "Events": _object(events=_list("Event"), next_after=_INTEGER),
    "Delivery": _object(
        trigger=_TEXT_OR_NULL,
        event=_TEXT,
        name=_TEXT,
        at=_DATE,
        state=_one_of(["open", "done", "failed", "skipped"]),
        runs=_TEXTS,
        error=_TEXT,
    ),
    "Taken": _object(event=_TEXT, new=_FLAG, runs=_TEXTS, deliveries=_list("Delivery")),
    "Trigger": _object(
        optional=("secret",),
        name=_TEXT,
        description=_TEXT,
        source=_TEXT,
        document=_MAP,
        url=_TEXT_OR_NULL,
        subject=_TEXT,
        created_at=_DATE,
        last=_or_null("Delivery"),
        secret=_TEXT_OR_NULL,
    ),
    "Triggers": _object(triggers=_list("Trigger")),
    "Outcome": {
        "oneOf": [
            _object(
                outcome={"const": "completed"},
                parts=_list("Part"),
                structured=_ANY,
                artifacts=_list("Artifact"),
                usage=_or_null("Usage"),
            ),
            _object(
                outcome={"const": "input_required"},
                question=_list("Part"),
                schema=_MAP_OR_NULL,
                auth=_FLAG,
                state=_ANY,
            ),
        ]
    },
    "Checked": _object(ok={"const": True}, agent=ref("Agent")),
    "JsonSchema": {"type": "object", "description": "JSON Schema 2020-12."},
    "Document": {"type": "object", "description": "OpenAPI 3.1."},
    "Liveness": _object(status={"const": "ok"}, version=_TEXT),
    "Readiness": _object(
        ready=_FLAG,
        not_ready={"type": "object", "additionalProperties": _TEXT},
        replicas=_list("Replica"),
        optional=("replicas",),
    ),
    "Removed": _object(
        dry_run=_FLAG,
        rules={"type": "object"},
        runs=_INTEGER,
        events=_INTEGER,
        blobs=_INTEGER,
        blob_bytes=_INTEGER,
        audit=_INTEGER,
        oldest_ended_at={"type": ["string", "null"]},
    ),
    "Replica": _object(replica=_TEXT, version=_TEXT, joined_at=_TEXT, seen_s_ago={"type": "number"}, self=_FLAG),
    "Problem": {
        "type": "object",
        "description": "RFC 9457. `code` is the machine's name of the error; `mistakes` are the places of an input.",
        "properties": {
            "type": _TEXT,
            "title": _TEXT,
            "status": _INTEGER,
            "detail": _TEXT,
            "code": _TEXT,
            "instance": _TEXT,
            "request_id": _TEXT,
            "mistakes": {"type": "array", "items": _object(where=_TEXT, what=_TEXT)},
        },
        "required": ["type", "title", "status", "detail", "code", "instance"],
    },
}
"""Schemas by name. `StepView` and `Run` and so on are described in docs/rest.md."""
