"""An extension of the agent card that carries what an A2A skill has no field for: JSON schemas of tools.

A hub that fronts an MCP server over A2A publishes each tool as a skill. The schemas of its arguments and results go
into `capabilities.extensions` under `SCHEMAS_URI`, where another hub, or a client that knows it, finds them again; to
others it is an extension that is not required (A2A 1.0, section 4.6).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .capability import SKILL_INPUT_SCHEMA, Capability
from .json_value import Json, JsonObject

SCHEMAS_URI = "urn:interhub:a2a:skill-schemas:1"


@dataclass(frozen=True, kw_only=True)
class SkillSchemas:
    """The JSON schemas of one skill."""

    input: JsonObject
    output: JsonObject | None = None


def published_schemas(raw: JsonObject) -> dict[str, SkillSchemas]:
    """Return the schemas that a card of either version publishes, by skill id."""
    declared = raw.get("capabilities")
    extensions = declared.get("extensions") if isinstance(declared, Mapping) else None
    if isinstance(extensions, str) or not isinstance(extensions, Sequence):
        return {}
    found: dict[str, SkillSchemas] = {}
    for extension in extensions:
        if not isinstance(extension, Mapping) or extension.get("uri") != SCHEMAS_URI:
            continue
        params = extension.get("params")
        skills = params.get("skills") if isinstance(params, Mapping) else None
        if not isinstance(skills, Mapping):
            continue
        for name, schemas in skills.items():
            if not isinstance(schemas, Mapping):
                continue
            given = schemas.get("input")
            result = schemas.get("output")
            found[name] = SkillSchemas(
                input=given if isinstance(given, Mapping) else SKILL_INPUT_SCHEMA,
                output=result if isinstance(result, Mapping) else None,
            )
    return found


def schemas_extension(capabilities: Sequence[Capability]) -> dict[str, Json] | None:
    """Return the extension for a card's capabilities; None when they all take plain messages and promise nothing."""
    skills: dict[str, Json] = {}
    for capability in capabilities:
        schemas: dict[str, Json] = {}
        if capability.input_schema != SKILL_INPUT_SCHEMA:
            schemas["input"] = capability.input_schema
        if capability.output_schema is not None:
            schemas["output"] = capability.output_schema
        if schemas:
            skills[capability.name] = schemas
    if not skills:
        return None
    return {
        "uri": SCHEMAS_URI,
        "description": "JSON schemas of the data parts that skills take and give.",
        "required": False,
        "params": {"skills": skills},
    }
