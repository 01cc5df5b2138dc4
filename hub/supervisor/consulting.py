"""A language model consulted: it is asked, its answer is checked, and sent back with its mistakes a few times.

Each call of the model is one recorded step, so a crash does not pay for it again, and one event that says what became
of it. What it used counts in the budget.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import anyio
import structlog

from interhub.agent_cards import Json, JsonObject
from interhub.hub.errors import INTERNAL, BudgetExceeded, ModelRefused, ModelUnavailable, NoPlan, problem_of
from interhub.hub.guards import Guards

from .durable import Durable
from .envelope import failed, mapping, normalised, sequence, text, usage_from_json, usage_to_json
from .journal import outlasting
from .leaves import Leaves
from .ledger import Ledger
from .llm import Models, Prompt, Turn

log = structlog.get_logger()

ATTEMPTS = 3
"""How often a model may answer, where nobody says otherwise."""
TRIES = 3
"""How often it is asked until it gives any answer."""
LONGEST_PAUSE_S = 60.0
SHOWN_CHARS = 500


class Mistaken(Exception):
    """An answer cannot be used; says all that is wrong with it, for whoever gave it."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__(tuple(mistakes))
        self.mistakes = tuple(mistakes)


Check = Callable[[JsonObject], Awaitable[JsonObject]]
"""Takes an answer and returns what is made of it; raises `Mistaken`, or a `HubError` that ends the consultation."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a model is consulted about."""

    model: str
    """As the settings name it."""
    ask: Callable[[], Awaitable[Prompt]]
    """Makes the prompt, with one turn; what was said in between is added."""
    check: Check
    attempts: int = ATTEMPTS


@dataclass
class Dialogue:
    """What was said so far, out of recorded answers."""

    turns: list[Turn] = field(default_factory=list[Turn])
    answers: int = 0
    silences: int = 0
    pause_s: float = 0.0

    @property
    def number(self) -> int:
        """Which call the next one is, from 1."""
        return self.answers + self.silences + 1

    def take(self, envelope: JsonObject) -> None:
        """Take a recorded answer that could not be used."""
        if text(envelope, "outcome") == "unavailable":
            self.silences += 1
            pause = envelope.get("pause_s")
            self.pause_s = float(pause) if isinstance(pause, int | float) else 0.5 * 2 ** (self.silences - 1)
            return
        self.answers += 1
        self.pause_s = 0.0
        mistakes = "\n".join(f"- {one}" for one in sequence(envelope.get("mistakes")))
        self.turns.append(Turn(role="assistant", text=text(envelope, "said") or "(nothing)"))
        self.turns.append(
            Turn(role="user", text=f"This cannot be used:\n{mistakes}\nGive the whole answer again, put right.")
        )

    def over(self, attempts: int) -> bool:
        """Return whether the model, which may answer so often, is not asked again."""
        return self.answers >= attempts or self.silences >= TRIES


class Consulting:
    """Asks models, for the steps of runs."""

    def __init__(self, models: Models, leaves: Leaves, guards: Guards) -> None:
        self._models = models
        self._leaves = leaves
        self._guards = guards

    async def settle(
        self,
        durable: Durable,
        question: Question,
        *,
        run_id: str,
        branch: str,
        name: str,
        ledger: Ledger,
        tell: Callable[[JsonObject], None],
    ) -> JsonObject:
        """Ask until there is an answer that can be used, and return its envelope: its `value`, or the `error`."""
        dialogue = Dialogue()
        while True:
            exceeded = ledger.exceeded(by_call=False)
            if exceeded is not None:
                return normalised(failed(BudgetExceeded(*exceeded)))

            async def body() -> Json:
                key = f"{durable.id}/{name}.{dialogue.number}"
                return await self.once(question, dialogue, run_id=run_id, branch=branch, key=key)

            envelope = mapping(await durable.step(f"{name}#{dialogue.number}", body))
            ledger.take_usage(usage_from_json(mapping(envelope.get("usage"))))
            if "purpose" in envelope:  # else there was nothing to ask it
                tell(model_payload(envelope))
            if envelope.get("again") is not True:
                return envelope
            dialogue.take(envelope)
            if dialogue.over(question.attempts):
                return given_up(question.model, dialogue, envelope)

    async def once(
        self, question: Question, dialogue: Dialogue, *, run_id: str, branch: str, key: str
    ) -> dict[str, Json]:
        """Make one call and return its envelope; `again` where another may go better.

        What it used is counted on the account of the `branch`, where the run is below another's call (`guards`).
        """

        async def counted() -> dict[str, Json]:
            envelope = await self._once(question, dialogue, key)
            if branch and "usage" in envelope:
                usage = usage_from_json(mapping(envelope["usage"]))
                await outlasting(lambda: self._guards.add(branch, usage))
            return envelope

        return await self._leaves.hold(run_id, counted)

    async def _once(self, question: Question, dialogue: Dialogue, key: str) -> dict[str, Json]:
        asked: dict[str, Json] = {"model": question.model}
        try:
            model = self._models.get(question.model)
            made = await question.ask()
            asked["purpose"] = made.purpose
            if dialogue.pause_s:
                await anyio.sleep(dialogue.pause_s)
            prompt = Prompt(
                purpose=made.purpose,
                instructions=made.instructions,
                turns=(*made.turns, *dialogue.turns),
                schema=made.schema,
                key=key,
            )
            reply = await model.ask(prompt)
        except ModelUnavailable as error:
            pause = min(LONGEST_PAUSE_S, error.retry_after_s) if error.retry_after_s is not None else None
            return normalised(
                {**asked, **failed(error), "outcome": "unavailable", "again": error.passing, "pause_s": pause}
            )
        except ModelRefused as error:
            used = {"usage": usage_to_json(error.usage)} if error.usage is not None else {}
            return normalised({**asked, **used, **failed(error), "outcome": "refused"})
        except Exception as error:  # the edge of a step: whatever happens in it is its failure
            return normalised({**asked, **failed(_logged(error)), "outcome": "failed"})
        asked |= {"usage": usage_to_json(reply.usage), "made_by": reply.model}
        try:
            if reply.value is None:
                raise Mistaken([reply.problem])
            value = await question.check(reply.value)
        except Mistaken as error:
            return normalised(
                {
                    **asked,
                    "ok": False,
                    "outcome": "sent_back",
                    "again": True,
                    "mistakes": list(error.mistakes),
                    "said": reply.said[:MAX_SAID],
                }
            )
        except Exception as error:
            return normalised({**asked, **failed(_logged(error)), "outcome": "declined"})
        return normalised({**asked, "ok": True, "outcome": "accepted", "value": value})


MAX_SAID = 64 * 1024
"""Characters of an answer that are shown to the model again."""


def _logged(error: Exception) -> Exception:
    if problem_of(error).status is INTERNAL:
        log.error("consultation_broke", exc_info=error)
    return error


def given_up(model: str, dialogue: Dialogue, envelope: JsonObject) -> JsonObject:
    """Return the failure of a consultation that came to nothing."""
    if text(envelope, "outcome") == "unavailable":
        return {**envelope, "again": False}
    mistakes = "; ".join(str(one) for one in sequence(envelope.get("mistakes")))
    purpose = text(envelope, "purpose") or "answer"
    why = f"the model {model!r} gave no usable {purpose} in {dialogue.answers} attempts: {mistakes}"
    return normalised({**envelope, "again": False, **failed(NoPlan(why[:2000]))})


def model_payload(envelope: JsonObject) -> JsonObject:
    """Return the event of one call of a model out of its envelope."""
    value = mapping(envelope.get("value"))
    why = text(value, "why") or text(mapping(envelope.get("error")), "message")
    why = why or "; ".join(str(one) for one in sequence(envelope.get("mistakes")))
    payload: dict[str, Json] = {
        "purpose": text(envelope, "purpose"),
        "model": text(envelope, "model"),
        "outcome": text(envelope, "outcome"),
        "why": why[:SHOWN_CHARS],
    }
    if "usage" in envelope:
        payload["usage"] = envelope["usage"]
    return payload
