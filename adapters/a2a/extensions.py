"""Which of an agent's extensions we use, and which a call must bring itself (A2A 1.0, section 4.6)."""

from dataclasses import dataclass

from interhub.adapters.base import Call
from interhub.adapters.errors import RemoteRefused
from interhub.agent_cards import AgentCard

from .pauses import HITL_URI

KNOWN = frozenset({HITL_URI})
"""The extensions that this adapter understands: named in every request to an agent that declares them."""

_NOT_SUPPORTED = -32008


@dataclass(frozen=True, kw_only=True)
class Extensions:
    """What one agent declares."""

    activated: tuple[str, ...] = ()
    """Those that we know."""
    required: tuple[str, ...] = ()
    """Those that we do not know, and that it requires."""

    @classmethod
    def of(cls, card: AgentCard) -> "Extensions":
        """Return what a card declares."""
        return cls(
            activated=tuple(each.uri for each in card.extensions if each.uri in KNOWN),
            required=tuple(each.uri for each in card.extensions if each.required and each.uri not in KNOWN),
        )

    def check(self, call: Call, where: str) -> None:
        """Refuse a call to an agent that requires what neither we nor the caller know.

        Raises:
            RemoteRefused: names the extensions.
        """
        declared = call.message.extensions if call.message is not None else ()
        missing = [uri for uri in self.required if uri not in declared]
        if missing:
            raise RemoteRefused(
                where,
                f"its card requires the extension {', '.join(missing)}, which the hub does not know and the caller "
                "does not declare; a caller that knows it can name it in A2A-Extensions",
                code=_NOT_SUPPORTED,
            )
