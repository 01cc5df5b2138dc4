"""Environments for workers, built once and kept between test runs, and a harness around one worker agent."""

import json
import os
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from interhub.adapters import Adapter, Call, Connection
from interhub.adapters.conformance import Feature, Seen
from interhub.adapters.worker import Environments, WorkerAdapter
from interhub.agent_cards import AgentCard, Binding, Endpoint, JsonObject

ROOT = Path(__file__).parents[2]
AGENTS = ROOT / "tests" / "adapters" / "agents"
EXAMPLES = ROOT / "examples" / "workers"


WORKER_ENVIRONMENTS = Path(os.environ.get("INTERHUB_TEST_WORKERS") or ROOT / ".interhub" / "test-workers")
"""Where the environments are that all test runs share; the first run builds them."""


def environments() -> Environments:
    """The environments that all test runs share."""
    return Environments(WORKER_ENVIRONMENTS)


def worker_adapter(home: Path, **environ: str) -> WorkerAdapter:
    """An adapter with its own state and logs, and the shared environments."""
    return WorkerAdapter(
        home / "workers", logs=home / "logs", environ={**os.environ, **environ}, environments=environments()
    )


def worker_endpoint(
    framework: str, target: str | Path, env: dict[str, str] | None = None, **options: object
) -> Endpoint:
    """An endpoint of a worker agent."""
    said: JsonObject = {"target": str(target), "framework": framework, **options}  # type: ignore[dict-item]
    return Endpoint(binding=Binding.WORKER, options=said, env=env or {})


def runs(pid: int) -> bool:
    """Whether a process still runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class DescribedOnce:
    """A worker adapter that starts an agent only once to describe it: the checks ask for the card each time."""

    def __init__(self, inner: WorkerAdapter) -> None:
        self._inner = inner
        self._cards: dict[str, AgentCard] = {}

    @property
    def name(self) -> str:
        return self._inner.name

    async def describe(self, endpoint: Endpoint) -> AgentCard:
        key = repr(endpoint)
        if key not in self._cards:
            self._cards[key] = await self._inner.describe(endpoint)
        return self._cards[key]

    def connect(self, endpoint: Endpoint, *, card: AgentCard, label: str) -> AbstractAsyncContextManager[Connection]:
        return self._inner.connect(endpoint, card=card, label=label)


def dead_environment(folder: Path) -> Path:
    """An environment whose interpreter ends at once."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to("/bin/false")
    return folder


class FourHarness:
    """The four conformance capabilities as one worker agent, which writes down what it saw."""

    def __init__(self, framework: str, home: Path) -> None:
        self._log = home / "four.jsonl"
        self._log.touch()
        self.adapter: Adapter = DescribedOnce(worker_adapter(home))
        self.features = frozenset({Feature.UPDATES, Feature.ASKS, Feature.RESUMES_ANYWHERE, Feature.KEYS})
        env = {"FOUR_LOG": str(self._log)}
        four = AGENTS / f"{framework}_four.py"
        self.endpoint = worker_endpoint(framework, four, env)
        self.dead_endpoint: Endpoint | None = worker_endpoint(
            framework, four, env, environment=str(dead_environment(home / "dead"))
        )

    def request(self, capability: str, text: str, call: Call) -> Call:
        return replace(call, capability="", arguments={"message": text, "data": {"mode": capability}})

    async def seen(self) -> Sequence[Seen]:
        lines = [json.loads(line) for line in self._log.read_text().splitlines()]
        canceled = {line["text"] for line in lines if line["event"] == "canceled"}
        return [
            Seen(text=one["text"], key=one.get("key", ""), canceled=one["text"] in canceled or not runs(one["pid"]))
            for one in lines
            if one["event"] == "began"
        ]
