"""Looking again at agents that say they changed: at once, and not again and again however often one says so."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio
import anyio.abc
import structlog

log = structlog.get_logger()

Look = Callable[[str], Awaitable[None]]
"""Looks at an agent, by id, and keeps what it finds."""


@dataclass
class _Turn:
    pause_s: float
    next_at: float = 0.0
    wanted: bool = False
    running: bool = False


class Relook:
    """Looks at each agent that says it changed, one look at a time. What it starts runs in `tasks`.

    After a look the agent is left alone for `pause_s`; one that keeps saying that it changed for twice as long each
    time, up to `longest_s`. Nothing is missed: what it says meanwhile is seen by the next look.
    """

    def __init__(
        self,
        look: Look,
        tasks: anyio.abc.TaskGroup,
        *,
        pause_s: float = 0.5,
        longest_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._look = look
        self._tasks = tasks
        self._pause_s = pause_s
        self._longest_s = longest_s
        self._clock = clock
        self._sleep = sleep
        self._turns: dict[str, _Turn] = {}
        self._ended = False

    def changed(self, agent_id: str) -> None:
        """Note that an agent says it changed. Returns at once; nothing happens after `end`."""
        if self._ended:
            return
        turn = self._turns.setdefault(agent_id, _Turn(self._pause_s))
        turn.wanted = True  # one look sees what several notifications say
        if not turn.running:
            turn.running = True
            self._tasks.start_soon(self._run, agent_id, turn)

    def end(self) -> None:
        """Take no more notes: the task group is about to close."""
        self._ended = True

    async def _run(self, agent_id: str, turn: _Turn) -> None:
        try:
            while turn.wanted:
                left_s = turn.next_at - self._clock()
                if left_s > 0:
                    turn.pause_s = min(turn.pause_s * 2, self._longest_s)
                    await self._sleep(left_s)
                else:
                    turn.pause_s = self._pause_s
                turn.wanted = False
                try:
                    await self._look(agent_id)
                except Exception:  # one agent's trouble takes nothing else with it
                    log.exception("agent_look_failed", agent=agent_id)
                turn.next_at = self._clock() + turn.pause_s
        finally:
            turn.running = False
