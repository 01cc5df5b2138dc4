"""The protocol extensions that an agent declares (A2A 1.0, section 4.6)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .json_value import Json, JsonObject, empty_object


@dataclass(frozen=True, kw_only=True)
class Extension:
    """One extension, as a card declares it."""

    uri: str
    description: str = ""
    required: bool = False
    """A caller must declare that it knows the extension, or is refused."""
    params: JsonObject = field(default_factory=empty_object)


def read_extensions(declared: Json) -> tuple[Extension, ...]:
    """Read the `extensions` of a card's capabilities; what names no URI is passed over."""
    if isinstance(declared, str) or not isinstance(declared, Sequence):
        return ()
    found: list[Extension] = []
    for each in declared:
        uri = each.get("uri") if isinstance(each, Mapping) else None
        if not isinstance(each, Mapping) or not isinstance(uri, str) or not uri:
            continue
        description, params = each.get("description"), each.get("params")
        found.append(
            Extension(
                uri=uri,
                description=description if isinstance(description, str) else "",
                required=each.get("required") is True,
                params=params if isinstance(params, Mapping) else {},
            )
        )
    return tuple(found)


def write_extension(extension: Extension) -> dict[str, Json]:
    """Write an extension as a card declares it."""
    written: dict[str, Json] = {"uri": extension.uri}
    if extension.description:
        written["description"] = extension.description
    if extension.required:
        written["required"] = True
    if extension.params:
        written["params"] = extension.params
    return written
