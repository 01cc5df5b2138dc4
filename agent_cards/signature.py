"""What became of checking a card's signatures."""

from dataclasses import dataclass
from enum import StrEnum


class SignatureState(StrEnum):
    """What a card's signatures are worth."""

    UNSIGNED = "unsigned"
    VERIFIED = "verified"
    """One of them is good, by a key that we trust."""
    UNVERIFIABLE = "unverifiable"
    """There are some, and none by a key that we have, or in an algorithm that we check."""
    INVALID = "invalid"
    """One is by a key that we have, or claims what none may, and none is good: the card was changed, or is forged."""


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What became of checking a card's signatures, and whose the good one is."""

    state: SignatureState = SignatureState.UNSIGNED
    key_id: str = ""
    """`kid` of the key that counts."""
    key_source: str = ""
    """Where that key was found: the URL of a key set, or the name of our own setting."""
    whole: bool = False
    """The signature covers the card as it was sent; else only its fields of A2A 1.0 (`signing.core_payload`)."""
    why: str = ""
    """Why it is unverifiable or invalid."""

    def __str__(self) -> str:
        match self.state:
            case SignatureState.UNSIGNED:
                return "unsigned"
            case SignatureState.VERIFIED:
                covers = "" if self.whole else "; its fields of A2A 0.3 are not covered, and left aside"
                return f"signed by {self.key_id} ({self.key_source}){covers}"
            case SignatureState.UNVERIFIABLE:
                return f"signed, not verified: {self.why}"
            case SignatureState.INVALID:
                return f"bad signature: {self.why}"
