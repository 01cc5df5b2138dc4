"""Agents' ids: their form, and how one is made of a name."""

import re
import unicodedata
from collections.abc import Collection
from difflib import get_close_matches
from hashlib import sha256

from .errors import InvalidAgentId

MAX_ID_LENGTH = 32

_FORM = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_OTHER = re.compile(r"[^a-z0-9]+")


def check_id(agent_id: str) -> str:
    """Return the id when it is of the allowed form.

    Raises:
        InvalidAgentId: it is not.
    """
    if _FORM.fullmatch(agent_id) is None:
        raise InvalidAgentId(agent_id)
    return agent_id


def slug(name: str) -> str:
    """Make an agent's id of a name: "Weather Agent" is `weather-agent`, "GeoRoutePlanner" `geo-route-planner`.

    Always of the allowed form, and the same for the same name. A name without a Latin letter or digit gets a short
    hash; so does what is cut off, so that long names which begin alike stay apart.
    """
    latin = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = _OTHER.sub("-", _CAMEL.sub("-", latin).lower()).strip("-")
    if words and len(words) <= MAX_ID_LENGTH:
        return words
    mark = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    if not words:
        return f"agent-{mark}"
    return f"{words[: MAX_ID_LENGTH - len(mark) - 1].rstrip('-')}-{mark}"


def near_ids(agent_id: str, known: Collection[str]) -> tuple[str, ...]:
    """Return up to three known ids that look like the one asked for, the nearest first."""
    return tuple(get_close_matches(agent_id.lower(), known, n=3, cutoff=0.6))
