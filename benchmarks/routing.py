"""How often the search finds the right tool, and how fast.

    python benchmarks/routing.py [--tools tools.json --queries queries.jsonl] [--seed 1]

`tools.json` is a list of `{name, description}`, `queries.jsonl` has one `{query, tool}` a line. Every query is asked of
an index of all tools, as the router asks it, with no history; an answer that the floor holds back counts as wrong.
Speed is measured over 10,000 capabilities, made of the tools by mixing the words of two descriptions. The last line is
JSON: `{"top1", "recall5", "query_ms_p50"}`.
"""

import argparse
import json
import random
import resource
import string
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

from interhub.agent_cards import AgentCard, Binding, Capability, Endpoint, Kind
from interhub.registry import Agent
from interhub.registry.search import Index

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "routing"
CAPABILITIES = 10_000
TIMED_QUERIES = 400


@dataclass(frozen=True)
class Tool:
    name: str
    description: str


@dataclass(frozen=True)
class Query:
    text: str
    tool: str


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    missing = [str(path) for path in (options.tools, options.queries) if not path.is_file()]
    if missing:
        print(f"no such file: {', '.join(missing)}; give --tools and --queries", file=sys.stderr)
        return 2
    try:
        tools = [Tool(each["name"], each["description"]) for each in json.loads(options.tools.read_text())]
        lines = [json.loads(line) for line in options.queries.read_text().splitlines() if line.strip()]
        queries = [Query(each["query"], each["tool"]) for each in lines]
    except (ValueError, KeyError, TypeError) as error:
        print(f"cannot read the data: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if not tools or not queries:
        print("the data has no tools, or no queries", file=sys.stderr)
        return 2
    chance = random.Random(options.seed)
    print(f"{len(tools)} tools, {len(queries)} queries")
    top1, recall5 = _accuracy(tools, queries)
    _floor(tools, queries, chance)
    query_ms = _speed(tools, queries, max(1, options.capabilities), chance)
    print(f"peak resident memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    print(json.dumps({"top1": round(top1, 4), "recall5": round(recall5, 4), "query_ms_p50": round(query_ms, 3)}))
    return 0


def _accuracy(tools: Sequence[Tool], queries: Sequence[Query]) -> tuple[float, float]:
    index = _index(tools)
    started = perf_counter()
    index.warm()
    print(f"model loaded and {len(tools)} capabilities embedded in {(perf_counter() - started) * 1000:.0f} ms")
    first = among = unanswered = 0
    for query in queries:
        found = [match.capability.name for match in index.search(query.text, tenant="default", limit=5)]
        unanswered += not found
        first += found[:1] == [query.tool]
        among += query.tool in found
    count = len(queries)
    print(
        f"top-1 {first / count:.4f}, recall at 5 {among / count:.4f}, held back by the floor {unanswered / count:.4f}"
    )
    return first / count, among / count


def _floor(tools: Sequence[Tool], queries: Sequence[Query], chance: random.Random) -> None:
    """Print how often the floor says "nobody" when it should, and when it should not."""
    for size in (5, 20):
        refused_right = right = refused_wrong = wrong = 0
        for _ in range(10):
            some = chance.sample(tools, min(size, len(tools)))
            names = {tool.name for tool in some}
            index = _index(some)
            for query in chance.sample(queries, min(400, len(queries))):
                answered = bool(index.search(query.text, tenant="default", limit=1))
                if query.tool in names:
                    right += 1
                    refused_right += not answered
                else:
                    wrong += 1
                    refused_wrong += not answered
        print(
            f"among {size} tools: refused {refused_wrong / max(wrong, 1):.2f} of the queries whose tool is not there, "
            f"and {refused_right / max(right, 1):.2f} of those whose tool is"
        )
    index = _index(tools)
    gibberish = [" ".join(_babble(chance) for _ in range(chance.randint(1, 8))) for _ in range(300)]
    passed = sum(bool(index.search(text, tenant="default", limit=1)) for text in gibberish)
    print(f"gibberish that finds a tool among {len(tools)}: {passed / len(gibberish):.3f}")


def _speed(tools: Sequence[Tool], queries: Sequence[Query], count: int, chance: random.Random) -> float:
    index = _index([_mixed(number, tools, chance) for number in range(count)])
    started = perf_counter()
    index.warm()
    print(f"{len(index)} capabilities embedded in {perf_counter() - started:.2f} s")
    times: list[float] = []
    for query in chance.sample(queries, min(TIMED_QUERIES, len(queries))):
        started = perf_counter()
        index.search(query.text, tenant="default", limit=5)
        times.append((perf_counter() - started) * 1000)
    p95 = quantiles(times, n=20)[-1] if len(times) > 1 else times[0]
    print(f"a query over {len(index)} capabilities: p50 {median(times):.2f} ms, p95 {p95:.2f} ms")
    return median(times)


def _mixed(number: int, tools: Sequence[Tool], chance: random.Random) -> Tool:
    one, other = chance.choice(tools), chance.choice(tools)
    words = one.description.split() + other.description.split()
    kept = chance.sample(words, max(1, len(words) // 2))
    return Tool(f"{one.name}_{number}", " ".join(kept))


def _babble(chance: random.Random) -> str:
    return "".join(chance.choice(string.ascii_lowercase) for _ in range(chance.randint(3, 9)))


def _index(tools: Sequence[Tool]) -> Index:
    now = datetime.now(UTC)
    capabilities = tuple(Capability(name=tool.name, kind=Kind.TOOL, description=tool.description) for tool in tools)
    index = Index()
    index.put(
        Agent(
            id="toolbox",
            adapter="local",
            card=AgentCard(name="toolbox", capabilities=capabilities),
            endpoint=Endpoint(binding=Binding.LOCAL),
            digest="",
            created_at=now,
            updated_at=now,
        )
    )
    return index


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure the search over capabilities.")
    parser.add_argument("--tools", type=Path, default=DATA / "tools.json", help="list of {name, description}")
    parser.add_argument("--queries", type=Path, default=DATA / "queries.jsonl", help="lines of {query, tool}")
    parser.add_argument(
        "--capabilities", type=int, default=CAPABILITIES, help="over how many speed is measured (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="for the sampled parts")
    return parser


if __name__ == "__main__":
    sys.exit(main())
