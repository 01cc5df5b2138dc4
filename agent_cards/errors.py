"""What can be wrong with a card.

CardError
├── CardTooLarge             more bytes than a card may have
├── NotACard                 something else was found there: an HTML page, a list, text
├── CardInvalid              a card, but it lacks what is needed; each problem names its field
│   └── CardVersionUnsupported   every interface wants a protocol version that we do not speak
├── NotCanonical             a value has no canonical JSON (RFC 8785): NaN, a lone surrogate, too deep
└── BadKey                   a key, or a set of keys, cannot be used
"""

from collections.abc import Sequence
from dataclasses import dataclass


class CardError(Exception):
    """A card cannot be used."""


class CardTooLarge(CardError):
    """The document has more bytes than a card may have."""

    def __init__(self, source: str, size: int, limit: int) -> None:
        super().__init__(source, size, limit)
        self.source = source
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"{self.source} is {self.size} bytes long, and an agent card may have {self.limit}; "
            "is this the address of a card (usually /.well-known/agent-card.json)?"
        )


class NotACard(CardError):
    """Something else than an agent card was found."""

    def __init__(self, source: str, found: str) -> None:
        super().__init__(source, found)
        self.source = source
        self.found = found
        """What was found instead, in words: "an HTML page"."""

    def __str__(self) -> str:
        return (
            f"{self.source} is not an agent card but {self.found}; "
            "give the card's own address (usually /.well-known/agent-card.json)"
        )


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a card."""

    path: str
    """Place of the field: `supportedInterfaces[0].url`."""
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


class CardInvalid(CardError):
    """The document is a card, but lacks what is needed to call the agent, or to be published."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        super().__init__(source, tuple(problems))
        self.source = source
        self.problems = tuple(problems)

    @property
    def paths(self) -> tuple[str, ...]:
        """The fields that are wrong."""
        return tuple(problem.path for problem in self.problems)

    def __str__(self) -> str:
        return f"the agent card {self.source} cannot be used: {'; '.join(str(problem) for problem in self.problems)}"


class CardVersionUnsupported(CardInvalid):
    """Every interface of the card wants a version of A2A that we do not speak."""

    def __init__(self, source: str, problems: Sequence[Problem], versions: Sequence[str]) -> None:
        super().__init__(source, problems)
        self.args = (source, tuple(problems), tuple(versions))
        self.versions = tuple(versions)

    def __str__(self) -> str:
        wanted = ", ".join(self.versions)
        return (
            f"the agent card {self.source} is for A2A {wanted}, and interhub speaks 1.x and 0.3; "
            "upgrade interhub, or ask the agent's owner for an interface of one of these versions"
        )


class NotCanonical(CardError, ValueError):
    """A value has no canonical JSON."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"the value has no canonical JSON: {self.why}"


class BadKey(CardError):
    """A key, or a set of keys, cannot be used."""

    def __init__(self, source: str, found: str) -> None:
        super().__init__(source, found)
        self.source = source
        self.found = found

    def __str__(self) -> str:
        return f"{self.source} holds {self.found}"
