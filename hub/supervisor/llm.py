"""Language models as the supervisor asks them: one prompt, one answer that is an object of a JSON Schema.

The port that `llm_pydantic_ai` fills. A call is made once: who asks decides whether another follows, and records each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from interhub.adapters import Usage
from interhub.agent_cards import JsonObject
from interhub.hub.errors import BadRequest


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One thing that was said before."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a model is asked."""

    purpose: str
    """What the answer is, as a word: `plan`, `arguments`, `answer`."""
    instructions: str
    turns: tuple[Turn, ...]
    """In order; the last is the user's."""
    schema: JsonObject
    """JSON Schema of the answer, of type object."""
    key: str = ""
    """Idempotency key, for providers that know such a thing: the same when a call is made again after a crash."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a model answered."""

    value: JsonObject | None
    """The object; None when it gave none."""
    said: str
    """The answer as it came."""
    problem: str = ""
    """Why there is no object."""
    model: str = ""
    """As the provider names it."""
    usage: Usage = field(default_factory=Usage)


class LanguageModel(Protocol):
    """One configured model."""

    @property
    def name(self) -> str:
        """As the settings name it."""
        ...

    async def ask(self, prompt: Prompt) -> Reply:
        """Make one call.

        Raises:
            ModelUnavailable: no answer came: a time limit, a connection, HTTP 429 or 5xx, a wrong key.
            ModelRefused: the model, or a filter of its provider, declines.
        """
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...


@dataclass(frozen=True, kw_only=True)
class PlanningRules:
    """How goals that name nobody are planned by a model."""

    attempts: int = 3
    """How often a plan may be sent back and forth."""
    replans: int = 2
    """How many plans may follow when one has failed."""
    candidates: int = 20
    """How many capabilities are looked for, for the model to plan over."""
    otherwise: str = ""
    """`route`: the router plans when the model makes no plan."""


class Models:
    """The configured models by name, and which of them plans and writes where nobody names one."""

    def __init__(
        self,
        models: Mapping[str, LanguageModel] | None = None,
        *,
        planner: str = "",
        writer: str = "",
        rules: PlanningRules | None = None,
    ) -> None:
        """`planner` makes the plans of goals that name nobody; `writer` writes the arguments of tools.

        Raises:
            BadRequest: none is set under that name.
        """
        self._models = dict(models or {})
        self.planner = planner
        self.rules = rules or PlanningRules()
        self.writer = writer
        for name in (planner, writer):
            if name:
                self.get(name)

    def get(self, name: str) -> LanguageModel:
        """Return a model.

        Raises:
            BadRequest: none is set under that name.
        """
        model = self._models.get(name)
        if model is None:
            known = ", ".join(self._models) or "none is set"
            raise BadRequest(f"no model is set as {name!r}", f"set it as [models.{name}]; there are: {known}")
        return model

    def names(self) -> tuple[str, ...]:
        """Return the names of all models."""
        return tuple(self._models)

    async def close(self) -> None:
        """Close every model's connections."""
        for model in self._models.values():
            await model.close()
