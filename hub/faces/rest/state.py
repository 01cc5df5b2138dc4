"""What a caller keeps for us between an agent's question and the answer to it, sealed against other hands.

An adapter trusts its state: an A2A task is gone on with by its id. So a state is taken back from the principal that it
was given to, for the agent that asked, and only as it was.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256

import orjson

from interhub.adapters import Principal
from interhub.agent_cards import Json
from interhub.hub.errors import BadRequest

_USE = b"interhub rest state"
_MARK = 32
_BROKEN = "resume.state is not one that you were given with a question of this agent"


class StateSeal:
    """Seals states with a key of 32 bytes; with the same key, a restarted hub takes them back."""

    def __init__(self, key: bytes) -> None:
        self._key = hmac.digest(key, _USE, sha256)

    def seal(self, state: Json, *, principal: Principal, agent_id: str) -> Json:
        """Return a state as the caller may have it; none stays none."""
        if state is None:
            return None
        written = orjson.dumps(state, default=dict)
        return urlsafe_b64encode(self._mark(written, principal, agent_id) + written).decode("ascii")

    def open(self, sealed: Json, *, principal: Principal, agent_id: str) -> Json:
        """Return the state that was sealed.

        Raises:
            BadRequest: it is somebody else's, of another agent, or was changed.
        """
        if sealed is None:
            return None
        try:
            held = urlsafe_b64decode(sealed) if isinstance(sealed, str) else b""
        except ValueError:
            held = b""
        mark, written = held[:_MARK], held[_MARK:]
        if not hmac.compare_digest(mark, self._mark(written, principal, agent_id)):
            raise BadRequest(_BROKEN, "send it as it came, or call without `resume`")
        state: Json = orjson.loads(written)
        return state

    def _mark(self, written: bytes, principal: Principal, agent_id: str) -> bytes:
        bound = orjson.dumps([principal.tenant, principal.subject, agent_id])
        return hmac.digest(self._key, bound + b"\0" + written, sha256)
