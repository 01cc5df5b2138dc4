"""How long to wait before something that failed is tried again."""

import random
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]
"""Seconds that only ever grow, as `time.monotonic`."""


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Exponential and capped, with jitter: what failed together is not tried again together."""

    first_s: float = 0.2
    factor: float = 2.0
    cap_s: float = 10.0
    rest_after: int | None = None
    """After that many failures in a row it is given up on for `rest_s` at a time, or a little less."""
    rest_s: float = 300.0
    chance: Callable[[], float] = random.random
    """A number in [0, 1); in tests a certain one."""

    def wait_s(self, failures: int) -> float:
        """Seconds to wait after that many failures in a row (1 or more): half of the full time, or up to all of it."""
        if self.rest_after is not None and failures >= self.rest_after:
            return self.rest_s * (0.9 + self.chance() / 10)
        # The exponent is bounded too: an agent that has been down for days must not overflow a float.
        longest = min(self.cap_s, self.first_s * self.factor ** min(failures - 1, 64))
        return longest * (0.5 + self.chance() / 2)
