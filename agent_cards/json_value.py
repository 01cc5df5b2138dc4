"""What JSON can say, as Python types."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
"""A JSON value. Read-only on purpose: what comes off the wire is passed on, not edited."""

JsonObject: TypeAlias = Mapping[str, Json]
"""A JSON object."""


def empty_object() -> JsonObject:
    """Return an empty JSON object; a typed default for dataclass fields."""
    return {}
