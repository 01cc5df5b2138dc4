"""What a plan, or a step of it, may use and has used: each use counts for all that is around it."""

from dataclasses import replace

from interhub.adapters import Budget, Usage
from interhub.agent_cards import Json, JsonObject

from .envelope import mapping, number
from .model import Limits


class Ledger:
    """Counts one budget. What is under way is not counted yet: steps side by side may together use a little more."""

    def __init__(self, budget: Budget, outer: "Ledger | None" = None, *, exempt: bool = False) -> None:
        """`exempt`: it only counts."""
        self._budget = budget
        self._outer = outer
        self._exempt = exempt
        self._calls = 0
        self._tokens = 0
        self._cost_usd = 0.0

    def within(self, limits: Limits | None) -> "Ledger":
        """Return a ledger for a part, with limits of its own; this one where it has none."""
        if limits is None:
            return self
        left = self._budget.depth
        depth = left if limits.depth is None else min(left, limits.depth)
        own = replace(self._budget, depth=depth, calls=limits.calls, tokens=limits.tokens, cost_usd=limits.cost_usd)
        return Ledger(own, self)

    def exempt(self) -> "Ledger":
        """Return a ledger for what must be done though nothing is left: undoing. It counts all the same."""
        return Ledger(Budget(depth=self._budget.depth), self, exempt=True)

    def exceeded(self, *, by_call: bool = True) -> tuple[str, float] | None:
        """Return which limit another call would exceed, and how much it is; None where it may be made.

        What asks a language model is no call of an agent: `by_call` False.
        """
        ledger: Ledger | None = self
        while ledger is not None and not ledger._exempt:
            budget = ledger._budget
            if by_call and budget.calls is not None and ledger._calls >= budget.calls:
                return "calls", budget.calls
            if budget.tokens is not None and ledger._tokens >= budget.tokens:
                return "tokens", budget.tokens
            if budget.cost_usd is not None and ledger._cost_usd >= budget.cost_usd:
                return "US dollars", budget.cost_usd
            ledger = ledger._outer
        return None

    def take_call(self) -> None:
        """Count a call."""
        self._add(1, 0, 0.0)

    def take_usage(self, usage: Usage | None) -> None:
        """Count what a call used."""
        if usage is not None:
            self._add(0, usage.input_tokens + usage.output_tokens, usage.cost_usd)

    def take_spent(self, spent: JsonObject) -> None:
        """Count what a child run says that it used."""
        self._add(int(number(spent, "calls")), int(number(spent, "tokens")), number(spent, "cost_usd"))

    def spent(self) -> dict[str, Json]:
        """Return what was used, for the run around this one."""
        return {"calls": self._calls, "tokens": self._tokens, "cost_usd": self._cost_usd}

    def left(self) -> Budget:
        """Return what is left: the least of this one and all around it."""
        left = Budget(depth=self._budget.depth, fan_out=self._budget.fan_out, until=self._budget.until)
        ledger: Ledger | None = self
        while ledger is not None and not ledger._exempt:
            budget = ledger._budget
            if budget.calls is not None:
                left = replace(left, calls=_least(left.calls, budget.calls - ledger._calls))
            if budget.tokens is not None:
                left = replace(left, tokens=_least(left.tokens, budget.tokens - ledger._tokens))
            if budget.cost_usd is not None:
                cost = max(0.0, budget.cost_usd - ledger._cost_usd)
                left = replace(left, cost_usd=cost if left.cost_usd is None else min(left.cost_usd, cost))
            ledger = ledger._outer
        return left

    def _add(self, calls: int, tokens: int, cost_usd: float) -> None:
        ledger: Ledger | None = self
        while ledger is not None:
            ledger._calls += calls
            ledger._tokens += tokens
            ledger._cost_usd += cost_usd
            ledger = ledger._outer


def spent_of(envelope: JsonObject) -> JsonObject:
    """Return what a child run's envelope says that it used."""
    return mapping(envelope.get("spent"))


def _least(known: int | None, other: int) -> int:
    return max(0, other) if known is None else max(0, min(known, other))
