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
from .errors import (
    BadKey,
    CardError,
    CardInvalid,
    CardTooLarge,
    CardVersionUnsupported,
    NotACard,
    NotCanonical,
    Problem,
)
from .invisible import Finding, findings, hidden_in, invisible, may_hide, visible, visible_json
from .json_value import Json, JsonObject, empty_object
from .reader import MAX_CARD_BYTES, read_card
from .signature import Signature, SignatureState
from .writer import CardVersion, Security, write_card

__all__ = [
    "MAX_CARD_BYTES",
    "SKILL_INPUT_SCHEMA",
    "AgentCard",
    "BadKey",
    "Binding",
    "Capability",
    "CardError",
    "CardInvalid",
    "CardTooLarge",
    "CardVersion",
    "CardVersionUnsupported",
    "Endpoint",
    "Finding",
    "Json",
    "JsonObject",
    "Kind",
    "NotACard",
    "NotCanonical",
    "Problem",
    "Security",
    "Signature",
    "SignatureState",
    "TaskSupport",
    "agent_card_for",
    "capability_from_json",
    "capability_to_json",
    "card_from_json",
    "card_to_json",
    "digest",
    "empty_object",
    "endpoint_from_json",
    "endpoint_to_json",
    "findings",
    "hidden_in",
    "hub_card",
    "invisible",
    "may_hide",
    "read_card",
    "visible",
    "visible_json",
    "write_card",
]
