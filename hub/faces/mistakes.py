"""What pydantic found wrong, in our words: the place, what is wanted there, for an unknown field the nearest name."""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from interhub.hub.errors import Mistake

MAX_TOLD = 20
"""More mistakes than this are not told: a wrong body can have thousands."""


def mistakes_of(error: ValidationError, adapter: TypeAdapter[Any]) -> tuple[Mistake, ...]:
    """Return the mistakes of one validation."""
    found = error.errors(include_url=False, include_context=True, include_input=False)
    return tuple(_mistakes(found[:MAX_TOLD], adapter))


def _mistakes(found: list[ErrorDetails], adapter: TypeAdapter[Any]) -> Iterator[Mistake]:
    schema = adapter.json_schema()
    for one in found:
        place = one["loc"]
        holder, path = _resolve(schema, place)
        where = path or "(whole)"
        context = one.get("ctx", {})
        match one["type"]:
            case "extra_forbidden":
                near = get_close_matches(str(place[-1]), list(holder), n=1, cutoff=0.5)
                known = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(holder)}"
                yield Mistake(where, f"is not known; {known}")
            case "missing":
                yield Mistake(where, "is missing")
            case "union_tag_not_found":
                yield Mistake(_join(path, "kind"), f"is missing; one of {_tags(schema)}")
            case "union_tag_invalid":
                yield Mistake(_join(path, "kind"), f"{context['tag']!r} is not one of {_tags(schema)}")
            case "json_invalid":
                yield Mistake("(whole)", f"is not JSON: {context['error']}")
            case _:
                said = one["msg"]
                yield Mistake(where, said[:1].lower() + said[1:])


def _resolve(schema: dict[str, Any], place: tuple[int | str, ...]) -> tuple[list[str], str]:
    """Follow a place down the JSON schema; return the fields known at its last holder, and the place in words.

    pydantic puts the tag of a union into the place, which a caller did not write: where the schema has a union by
    `kind`, that element chooses the branch and is left out.
    """
    node, path = _deref(schema, schema), ""
    known: list[str] = list(node.get("properties", {}))
    for element in place:
        mapping = node.get("discriminator", {}).get("mapping", {})
        if element in mapping:
            node = _deref(schema, {"$ref": mapping[element]})
            known = list(node.get("properties", {}))
            continue
        if isinstance(element, int):
            path += f"[{element}]"
            node = _deref(schema, node.get("items", {}))
            continue
        known = list(node.get("properties", {}))
        path = _join(path, element)
        node = _deref(schema, node.get("properties", {}).get(element, {}))
        if "anyOf" in node:
            branches = [_deref(schema, branch) for branch in node["anyOf"]]
            node = next((branch for branch in branches if "properties" in branch), branches[0])
    return known, path


def _tags(schema: dict[str, Any]) -> str:
    return ", ".join(schema.get("discriminator", {}).get("mapping", {}))


def _deref(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref")
    if reference is None:
        return node
    found: dict[str, Any] = schema["$defs"][reference.rpartition("/")[2]]
    return found


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
