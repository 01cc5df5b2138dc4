"""What a step gave, held to the schema that the plan wants of it."""

from dataclasses import replace

import orjson

from interhub.adapters.schemas import problems_of
from interhub.agent_cards import Json, JsonObject

from .envelope import StepValue

_FENCE = "```"


def fitted(value: StepValue, schema: JsonObject) -> tuple[StepValue, str]:
    """Return a value with its data, and what is wrong with it; empty when it fits. A text that is JSON counts as data.

    Agents with a model like to put JSON between code fences; these are left out.
    """
    data = value.data
    if data is None:
        data = read_json(value.text)
        if data is None:
            return value, "its answer is no data, as `output_schema` wants it, but text"
    if problems := problems_of(data, schema):
        return value, f"its answer does not fit `output_schema`: {'; '.join(problems[:3])}"
    return (value if value.structured is not None else replace(value, structured=data)), ""


def read_json(text: str) -> Json:
    """Return the JSON that a text is, alone or between code fences; None when it is none."""
    inner = text.strip()
    if inner.startswith(_FENCE) and inner.endswith(_FENCE) and "\n" in inner:
        inner = inner.partition("\n")[2].removesuffix(_FENCE)
    try:
        data: Json = orjson.loads(inner)
    except orjson.JSONDecodeError:
        return None
    return data
