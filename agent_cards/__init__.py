"""What an agent says about itself: cards, capabilities, endpoints, and the documents they are read from."""

from .capability import SKILL_INPUT_SCHEMA, Capability, Kind
from .card import AgentCard
from .endpoint import Binding, Endpoint
from .json_value import Json, JsonObject, empty_object

__all__ = [
    "SKILL_INPUT_SCHEMA",
    "AgentCard",
    "Binding",
    "Capability",
    "Endpoint",
    "Json",
    "JsonObject",
    "Kind",
    "empty_object",
]
