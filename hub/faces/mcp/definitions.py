"""The hub's own tools as an MCP client lists them. The descriptions are written for the model that reads them."""

import mcp_types as types

from interhub.agent_cards import Json

DELEGATE = "delegate"
RUN_STATUS = "run_status"
RUN_RESULT = "run_result"
RUN_CANCEL = "run_cancel"
ANSWER = "answer"
FIND = "find"
CALL = "call"

MAX_WAIT_S = 3600

_RUN_ID: Json = {"type": "string"}
_WAIT_S: Json = {"type": "number", "minimum": 0, "maximum": MAX_WAIT_S}

_DELEGATE_IN: dict[str, Json] = {
    "type": "object",
    "properties": {
        "goal": {
            "type": "string",
            "minLength": 1,
            "description": "With all that the agents need to know: they do not see this chat.",
        },
        "agent": {"type": "string", "description": "Id of an agent, team or workflow; without it the hub chooses."},
        "capability": {"type": "string", "description": "With agent: the one to use, by `arguments`."},
        "arguments": {"type": "object"},
        "workflow": {
            "description": "A registered one's id, or one written out (object, YAML).",
            "anyOf": [{"type": "string"}, {"type": "object"}],
        },
        "inputs": {"type": "object"},
        "context_id": {"type": "string", "description": "Of an earlier run, to go on with it."},
        "wait_s": _WAIT_S,
        "idempotency_key": {"type": "string", "maxLength": 200, "description": "Same key, same run."},
    },
    "required": ["goal"],
    "additionalProperties": False,
}

# What the hub's own tools give is described in short: a client reads these definitions before it can do anything.
# The structured content says more than they promise (`runs.run_view`, `content.skill_view`).
_RUN_OUT: dict[str, Json] = {
    "type": "object",
    "properties": {"run_id": {"type": "string"}},
    "required": ["run_id", "state"],
}
_FIND_OUT: dict[str, Json] = {
    "type": "object",
    "properties": {"matches": {"type": "array"}},
    "required": ["matches"],
}
_CALL_OUT: dict[str, Json] = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
}


_DATA: Json = [
    {"type": ["object", "string", "number", "boolean"]},
    {"type": "array", "items": {"type": ["object", "string", "number", "boolean"]}},
]


def _hints(
    *, read_only: bool = False, destructive: bool = False, idempotent: bool = False, open_world: bool = False
) -> types.ToolAnnotations:
    """Return what differs from what MCP takes for granted (2026-07-28, schema, ToolAnnotations), and the first two."""
    return types.ToolAnnotations(
        read_only_hint=True if read_only else None,
        destructive_hint=None if read_only else destructive,
        idempotent_hint=True if idempotent else None,
        open_world_hint=None if open_world else False,
    )


def own_tools(*, wait_s: float) -> tuple[types.Tool, ...]:
    """Return the definitions; `wait_s` is how long delegate and run_result wait when the caller does not say."""
    waits = f"Waits {wait_s:g} s, or wait_s; then returns the run_id, and the run goes on."
    return (
        types.Tool(
            name=DELEGATE,
            title="Delegate a goal",
            description=(
                "Give a goal to an agent, team or workflow of this hub, or to whoever it finds fit. The work survives "
                f"disconnects and restarts. {waits} Get it with run_result. Questions in the result: ask the user, "
                "then call `answer`. Ending this call does not stop the run: run_cancel does."
            ),
            input_schema=_DELEGATE_IN,
            output_schema=_RUN_OUT,
            annotations=_hints(destructive=True, open_world=True),
        ),
        types.Tool(
            name=RUN_STATUS,
            title="Run status",
            description="Say how far a run is: its state, its steps, what it asks. Does not wait.",
            input_schema=_object({"run_id": _RUN_ID}),
            output_schema=_RUN_OUT,
            annotations=_hints(read_only=True),
        ),
        types.Tool(
            name=RUN_RESULT,
            title="Get a run's result",
            description=f"Get a run's result, its artifacts and who did what. {waits}",
            input_schema=_object(
                {
                    "run_id": _RUN_ID,
                    "wait_s": _WAIT_S,
                    "artifact": {
                        "type": "string",
                        "description": "Only the artifact of this artifact_id, whole.",
                    },
                },
                "run_id",
            ),
            output_schema=_RUN_OUT,
            annotations=_hints(read_only=True),
        ),
        types.Tool(
            name=RUN_CANCEL,
            title="Stop a run",
            description="Stop a run and all that its agents still do for it.",
            input_schema=_object({"run_id": _RUN_ID}),
            output_schema=_RUN_OUT,
            annotations=_hints(destructive=True, idempotent=True),
        ),
        types.Tool(
            name=ANSWER,
            title="Answer a run",
            description=(
                "Pass on the user's answer to what a run asks: ask the user first. Give `answer`, or `data` where the "
                "question has a schema. Then call run_result."
            ),
            input_schema=_object(
                {
                    "run_id": _RUN_ID,
                    "question_id": {
                        "type": "string",
                        "description": "Needed when several are open.",
                    },
                    "answer": {"type": "string"},
                    "data": {"anyOf": _DATA},
                    "accept": {
                        "type": "boolean",
                        "default": True,
                        "description": "False when the user declines.",
                    },
                },
                "run_id",
            ),
            output_schema=_RUN_OUT,
            annotations=_hints(),
        ),
        types.Tool(
            name=FIND,
            title="Find who can",
            description=(
                "Find the agents' capabilities that best meet a need, with their arguments' schemas, for `call` or "
                "`delegate`."
            ),
            input_schema=_object(
                {
                    "need": {"type": "string", "minLength": 1, "description": "In plain words."},
                    "limit": {"type": "integer", "minimum": 1, "maximum": 50, "default": 5},
                    "explain": {
                        "type": "boolean",
                        "default": False,
                        "description": "Say why, and show near ones.",
                    },
                },
                "need",
            ),
            output_schema=_FIND_OUT,
            annotations=_hints(read_only=True),
        ),
        types.Tool(
            name=CALL,
            title="Use a capability",
            description=(
                "Use one capability now. Arguments are by the input schema that `find` shows; a skill's are "
                '{"message": "..."}. For work that takes long, or may ask the user, use `delegate`.'
            ),
            input_schema=_object(
                {
                    "agent": {"type": "string", "minLength": 1},
                    "capability": {
                        "type": "string",
                        "description": "May be left out when the agent has one.",
                    },
                    "arguments": {"type": "object"},
                },
                "agent",
            ),
            output_schema=_CALL_OUT,
            annotations=_hints(destructive=True, open_world=True),
        ),
    )


def _object(properties: dict[str, Json], *required: str) -> dict[str, Json]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required or properties),
        "additionalProperties": False,
    }
