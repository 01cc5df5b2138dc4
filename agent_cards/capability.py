"""One thing an agent can do, in one shape for A2A skills and MCP tools, resources and prompts."""

from dataclasses import dataclass, field
from enum import StrEnum

from .json_value import JsonObject, empty_object


class Kind(StrEnum):
    """Which of the protocols' nouns a capability is."""

    SKILL = "skill"
    """An A2A skill: takes a message, answers with a message or a task."""
    TOOL = "tool"
    """An MCP tool: takes arguments by a JSON Schema, answers with content."""
    RESOURCE = "resource"
    """An MCP resource: takes nothing; its name is its URI."""
    RESOURCE_TEMPLATE = "resource_template"
    """An MCP resource template: takes the template's variables; its name is the URI template (RFC 6570)."""
    PROMPT = "prompt"
    """An MCP prompt: takes named strings, answers with messages."""


class TaskSupport(StrEnum):
    """Whether a use of a capability can go on after its request was answered, as an MCP task (SEP-2663)."""

    UNSAID = ""
    """The agent does not say."""
    FORBIDDEN = "forbidden"
    """It is always waited for."""
    OPTIONAL = "optional"
    """It may take long: a task for clients that know tasks, waited for otherwise."""
    REQUIRED = "required"
    """It takes so long that it is a task or nothing."""


SKILL_INPUT_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "message": {"type": "string", "description": "What to ask of the agent, in plain words."},
        "data": {"type": "object", "description": "Structured input that goes with the message."},
    },
    "required": ["message"],
    "additionalProperties": False,
}
"""The arguments of a skill that publishes no schema of its own: A2A skills take a message (A2A 1.0, section 4.4.5)."""


@dataclass(frozen=True, kw_only=True)
class Capability:
    """One thing an agent can do."""

    name: str
    """Unique within the agent and kind: the A2A skill id, the MCP tool or prompt name, or the resource URI."""
    kind: Kind
    title: str = ""
    """For people; empty when the agent gave none."""
    description: str = ""
    tags: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    """Requests that it serves well, in plain words."""
    input_schema: JsonObject = field(default_factory=lambda: SKILL_INPUT_SCHEMA)
    """JSON Schema 2020-12 of the arguments; always of type object."""
    output_schema: JsonObject | None = None
    """JSON Schema of the structured result, where the agent promises one."""
    input_modes: tuple[str, ...] = ()
    """Media types it takes; empty means the card's defaults."""
    output_modes: tuple[str, ...] = ()
    """Media types it gives; empty means the card's defaults."""
    task_support: TaskSupport = TaskSupport.UNSAID
    asks_first: bool = False
    """It asks for input before any work is begun, so that a task of it is made only after the answer."""
    raw: JsonObject = field(default_factory=empty_object)
    """The definition as the agent sent it, so that a relay loses nothing. Empty for what we made ourselves."""
