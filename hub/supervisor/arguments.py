"""A capability's arguments out of what there is: a goal in words, data that goes with it, arguments given outright."""

from collections.abc import Mapping, Sequence

from interhub.adapters.schemas import problems_of
from interhub.agent_cards import Capability, Json, JsonObject, Kind
from interhub.hub.errors import BadRequest


def arguments_for(capability: Capability, *, text: str, data: Json, given: JsonObject | None) -> dict[str, Json]:
    """Return the arguments of a call.

    Arguments given outright are taken as they are. Else a skill that takes a message gets the text and the data;
    another capability gets the data's fields, and the text for its one required text input.

    Raises:
        BadRequest: that is not enough for it; says which arguments it needs.
    """
    if given is not None:
        return dict(given)
    fields = dict(data) if isinstance(data, Mapping) else {}
    properties = _properties(capability)
    if capability.kind is Kind.SKILL and (not properties or "message" in properties):
        return {"message": text, **({"data": data} if data is not None else {})}
    arguments = fields if fields.keys() <= properties.keys() or not properties else {}
    if text and (slot := text_slot(capability.input_schema, arguments)):
        arguments[slot] = text
    if problems := problems_of(arguments, capability.input_schema):
        raise BadRequest(
            f"{capability.name} cannot be called with words alone: {problems[0]}",
            f"give its arguments: {', '.join(properties) or 'none'}",
        )
    return arguments


def fits(capability: Capability, *, text: str, data: Json) -> bool:
    """Return whether words and data are enough to call a capability."""
    try:
        arguments_for(capability, text=text, data=data, given=None)
    except BadRequest:
        return False
    return True


def text_slot(schema: JsonObject, filled: Mapping[str, Json]) -> str:
    """Return the name of the one input that takes the words: the only required text left, or the only text at all."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return ""
    texts = [
        name
        for name, one in properties.items()
        if name not in filled
        and isinstance(one, Mapping)
        and one.get("type", "string") == "string"
        and "enum" not in one
        and "const" not in one
        and "format" not in one
    ]
    required = schema.get("required")
    wanted = [str(name) for name in required] if isinstance(required, Sequence) else []
    missing = [name for name in wanted if name not in filled]
    if missing:
        return missing[0] if len(missing) == 1 and missing[0] in texts else ""
    return texts[0] if len(texts) == 1 else ""


def _properties(capability: Capability) -> JsonObject:
    properties = capability.input_schema.get("properties")
    return properties if isinstance(properties, Mapping) else {}
