"""What an agent says about itself: cards, capabilities, endpoints, and the documents they are read from."""

from .build import agent_card_for, hub_card
from .canonical import digest
from .capability import SKILL_INPUT_SCHEMA, Capability, Kind, TaskSupport
from .card import AgentCard
from .codec import (
    capability_from_json,
    capability_to_json,
    card_from_json,
    card_to_json,
    endpoint_from_json,
    endpoint_to_json,
)
from .endpoint import Binding, Endpoint
from .errors import CardError, CardInvalid, CardTooLarge, CardVersionUnsupported, NotACard, NotCanonical, Problem
from .json_value import Json, JsonObject, empty_object
from .reader import MAX_CARD_BYTES, read_card
from .writer import CardVersion, Security, write_card

__all__ = [
    "MAX_CARD_BYTES",
    "SKILL_INPUT_SCHEMA",
    "AgentCard",
    "Binding",
    "Capability",
    "CardError",
    "CardInvalid",
    "CardTooLarge",
    "CardVersion",
    "CardVersionUnsupported",
    "Endpoint",
    "Json",
    "JsonObject",
    "Kind",
    "NotACard",
    "NotCanonical",
    "Problem",
    "Security",
    "agent_card_for",
    "capability_from_json",
    "capability_to_json",
    "card_from_json",
    "card_to_json",
    "digest",
    "empty_object",
    "endpoint_from_json",
    "endpoint_to_json",
    "hub_card",
    "read_card",
    "write_card",
]
    "Signature",
    "SignatureState",
    "TaskSupport",
