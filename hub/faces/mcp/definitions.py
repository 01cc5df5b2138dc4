"""The hub's own tools as an MCP client lists them. The descriptions are written for the model that reads them."""

import mcp_types as types

from interhub.agent_cards import Json

from .content import ANY_KINDS, SKILL_OUTPUT_SCHEMA
from .runs import RUN_SCHEMA

DELEGATE = "delegate"
RUN_STATUS = "run_status"
RUN_RESULT = "run_result"
RUN_CANCEL = "run_cancel"
ANSWER = "answer"
FIND = "find"
CALL = "call"

MAX_WAIT_S = 3600

_RUN_ID: Json = {"type": "string", "minLength": 1, "description": "The run_id that delegate returned."}
_WAIT_S: Json = {
    "type": "number",
    "minimum": 0,
    "maximum": MAX_WAIT_S,
    "description": "Seconds to wait for the result before answering with the run's state; 0 answers at once.",
}

_DELEGATE_IN: dict[str, Json] = {
    "type": "object",
    "properties": {
        "goal": {
            "type": "string",
            "minLength": 1,
            "description": "What is to be achieved, in plain words, with everything the agents need to know: they do "
            "not see this conversation.",
        },
        "agent": {
            "type": "string",
            "description": "Id of the agent, team or workflow that is to do it. Leave out to let the hub choose.",
        },
        "capability": {
            "type": "string",
            "description": "With agent: the one capability of it to use, as `find` names it.",
        },
        "arguments": {
            "type": "object",
            "description": "With capability: its arguments, by its input schema, where the goal alone is not enough.",
        },
        "workflow": {
            "description": "A workflow to run: the id of a registered one, or a definition (object, or YAML text).",
            "anyOf": [{"type": "string"}, {"type": "object"}],
        },
        "inputs": {"type": "object", "description": "The workflow's inputs by name."},
        "context_id": {
            "type": "string",
            "description": "The context_id of an earlier run, to continue that conversation.",
        },
        "wait_s": _WAIT_S,
        "idempotency_key": {
            "type": "string",
            "maxLength": 200,
            "description": "Two calls with the same key are one run: give one when a call may have to be repeated.",
        },
    },
    "required": ["goal"],
    "additionalProperties": False,
}

_FIND_OUT: dict[str, Json] = {
    "type": "object",
    "properties": {
        "matches": {
            "type": "array",
            "description": "What can meet the need, best first; empty when nothing can.",
            "items": {
                "type": "object",
                "properties": {
                    "agent": {"type": "string"},
                    "capability": {"type": "string"},
                    "kind": {
                        "type": "string",
                        "enum": ["skill", "tool", "resource", "resource_template", "prompt"],
                    },
                    "title": {"type": "string"},
                    "description": {"type": "string"},
                    "input_schema": {"type": "object", "description": "JSON Schema of the arguments of `call`."},
                    "score": {"type": "number"},
                    "why": {"type": "string"},
                },
                "required": ["agent", "capability", "kind", "input_schema", "score"],
            },
        }
    },
    "required": ["matches"],
}


def _hints(
    *, read_only: bool = False, destructive: bool = False, idempotent: bool = False, open_world: bool = False
) -> types.ToolAnnotations:
    return types.ToolAnnotations(
        read_only_hint=read_only,
        destructive_hint=None if read_only else destructive,
        idempotent_hint=None if read_only else idempotent,
        open_world_hint=open_world,
    )


def own_tools(*, wait_s: float) -> tuple[types.Tool, ...]:
    """Return the definitions; `wait_s` is how long delegate and run_result wait when the caller does not say."""
    waits = f"It waits {wait_s:g} s, or wait_s, for the result; after that it returns the run_id and the run goes on."
    return (
        types.Tool(
            name=DELEGATE,
            title="Delegate a goal to agents",
            description=(
                "Give a goal to the agents registered with this hub: to one agent, a team, a workflow, or to whoever "
                f"the hub finds fit. The work is durable: it survives disconnects and restarts. {waits} Then call "
                "run_result with that run_id. If an agent asks the user something and the client cannot show it, the "
                "question is in the result: ask the user and call `answer`. Ending or cancelling this call does not "
                "stop the run: use run_cancel for that."
            ),
            input_schema=_DELEGATE_IN,
            output_schema=dict(RUN_SCHEMA),
            annotations=_hints(destructive=True, open_world=True),
        ),
        types.Tool(
            name=RUN_STATUS,
            title="See how a run stands",
            description="Say how far a delegated run is: its state, its steps, and what it asks. Does not wait.",
            input_schema=_object({"run_id": _RUN_ID}),
            output_schema=dict(RUN_SCHEMA),
            annotations=_hints(read_only=True),
        ),
        types.Tool(
            name=RUN_RESULT,
            title="Get a run's result",
            description=f"Get the result of a delegated run, with its artifacts and who did what. {waits}",
            input_schema=_object(
                {
                    "run_id": _RUN_ID,
                    "wait_s": _WAIT_S,
                    "artifact": {
                        "type": "string",
                        "description": "Only this artifact, by its artifact_id, and whole.",
                    },
                },
                "run_id",
            ),
            output_schema=dict(RUN_SCHEMA),
            annotations=_hints(read_only=True),
        ),
        types.Tool(
            name=RUN_CANCEL,
            title="Stop a run",
            description="Stop a delegated run and everything that its agents still do for it.",
            input_schema=_object({"run_id": _RUN_ID}),
            output_schema=dict(RUN_SCHEMA),
            annotations=_hints(destructive=True, idempotent=True),
        ),
        types.Tool(
            name=ANSWER,
            title="Answer a run's question",
            description=(
                "Answer what a run asks, on behalf of the user: ask the user first. Give `answer` (text), or `data` "
                "where the question has a schema. The run then goes on; call run_result to wait for it."
            ),
            input_schema=_object(
                {
                    "run_id": _RUN_ID,
                    "question_id": {
                        "type": "string",
                        "description": "Which question; may be left out when one is open.",
                    },
                    "answer": {"type": "string", "description": "The user's answer in words."},
                    "data": {
                        "description": "The user's answer as data, by the question's schema.",
                        "anyOf": ANY_KINDS,
                    },
                    "accept": {
                        "type": "boolean",
                        "default": True,
                        "description": "False when the user declines to answer, or does not approve.",
                    },
                },
                "run_id",
            ),
            output_schema=dict(RUN_SCHEMA),
            annotations=_hints(),
        ),
        types.Tool(
            name=FIND,
            title="Find who can do something",
            description=(
                "Find the registered agents' capabilities that best meet a need, with the schema of their arguments. "
                "Use what is found with `call`, or with `delegate`."
            ),
            input_schema=_object(
                {
                    "need": {"type": "string", "minLength": 1, "description": "What is needed, in plain words."},
                    "limit": {"type": "integer", "minimum": 1, "maximum": 50, "default": 5},
                    "explain": {
                        "type": "boolean",
                        "default": False,
                        "description": "Say why each was found, and show those that came near.",
                    },
                },
                "need",
            ),
            output_schema=_FIND_OUT,
            annotations=_hints(read_only=True),
        ),
        types.Tool(
            name=CALL,
            title="Use one capability of an agent",
            description=(
                "Use one capability of one agent now and return its answer. For a skill the arguments are "
                '{"message": "..."}; for a tool, those of its schema, which `find` shows. For work that takes long, '
                "or may ask the user something, use `delegate`."
            ),
            input_schema=_object(
                {
                    "agent": {"type": "string", "minLength": 1, "description": "The agent's id."},
                    "capability": {
                        "type": "string",
                        "description": "The capability's name; may be left out when the agent has one.",
                    },
                    "arguments": {"type": "object", "description": "By the capability's input schema."},
                },
                "agent",
            ),
            output_schema=dict(SKILL_OUTPUT_SCHEMA),
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
