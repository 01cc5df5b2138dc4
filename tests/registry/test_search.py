"""Who can do it."""

import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from interhub.agent_cards import AgentCard, Binding, Capability, Endpoint, Kind
from interhub.registry import Agent
from interhub.registry.embedding import Matrix, WordLlama
from interhub.registry.search import FLOOR, Index
from interhub.registry.words import spaced, term_counts, terms

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def agent(agent_id: str, *capabilities: Capability, tenant: str = "default", description: str = "") -> Agent:
    return Agent(
        id=agent_id,
        tenant=tenant,
        adapter="mcp",
        card=AgentCard(name=agent_id, description=description, capabilities=capabilities),
        endpoint=Endpoint(binding=Binding.LOCAL),
        digest="",
        created_at=NOW,
        updated_at=NOW,
    )


def tool(name: str, description: str = "", kind: Kind = Kind.TOOL) -> Capability:
    return Capability(name=name, kind=kind, description=description)


TIME = agent(
    "time",
    tool("get_current_time", "Get current time in a specific timezone"),
    tool("convert_time", "Convert time between timezones"),
)
GIT = agent(
    "git",
    tool("git_status", "Shows the working tree status"),
    tool("git_commit", "Records changes to the repository"),
    tool("git_log", "Shows the commit logs"),
)
COOK = agent("cook", tool("cook", "Writes recipes for dinner from the ingredients at hand", Kind.SKILL))
POET = agent("poet", tool("ask", "", Kind.SKILL), description="Writes poems about nature and love")


@pytest.fixture(scope="module")
def embedder() -> WordLlama:
    return WordLlama()


@pytest.fixture
def index(embedder: WordLlama) -> Index:
    index = Index(embedder)
    for each in (TIME, GIT, COOK, POET):
        index.put(each)
    return index


def best(index: Index, query: str) -> str:
    matches = index.search(query, tenant="default")
    return f"{matches[0].agent_id}/{matches[0].capability.name}" if matches else ""


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("What is the current time in Tokyo?", "time/get_current_time"),
        ("convert 3pm Berlin time to the timezone of New York", "time/convert_time"),
        ("show me the logs of the last commits", "git/git_log"),
        ("what can I make for dinner with leeks and potatoes", "cook/cook"),
        ("compose a love poem about the sea", "poet/ask"),
        ("gitStatus", "git/git_status"),
    ],
)
def test_the_right_one_is_found(index: Index, query: str, wanted: str) -> None:
    assert best(index, query) == wanted


@pytest.mark.parametrize(
    "query",
    ["asdf qwer zxcv", "xyzzy plugh", "", "   ", "?!", "12345 67890", "solder the broken wire on my amplifier"],
)
def test_what_nobody_can_do_finds_nobody(index: Index, query: str) -> None:
    assert index.search(query, tenant="default") == ()
    shown = index.search(query, tenant="default", floor=0)
    assert all(not match.is_match and match.score < FLOOR for match in shown)


def test_a_match_explains_itself(index: Index) -> None:
    first, *others = index.search("current time in Tokyo", tenant="default")
    assert first.terms == ("current", "time")
    assert 0 < first.lexical <= 1
    assert 0 < first.embedding <= 1
    assert first.is_match
    assert first.why.startswith("shares 'current', 'time' (")
    assert [match.score for match in (first, *others)] == sorted((m.score for m in (first, *others)), reverse=True)
    assert all(0 <= match.score <= 1 for match in (first, *others))


def test_who_is_considered_can_be_restricted(index: Index) -> None:
    found = index.search("time", tenant="default", agents=["git", "nobody"], floor=0)
    assert {match.agent_id for match in found} == {"git"}
    skills = index.search("time", tenant="default", kinds=[Kind.SKILL], floor=0)
    assert {match.agent_id for match in skills} == {"cook", "poet"}
    assert index.search("time", tenant="default", agents=[], floor=0) == ()
    assert len(index.search("time", tenant="default", limit=2, floor=0)) == 2
    assert index.search("time", tenant="default", limit=0) == ()
    assert len(index.search("time", tenant="default", limit=100, floor=0)) == len(index) == 7


def test_tenants_do_not_see_or_sway_one_another(index: Index, embedder: WordLlama) -> None:
    before = index.search("current time", tenant="default")
    for number in range(50):
        index.put(replace(agent(f"a-{number}", tool("current_time", "current time")), tenant="other"))
    assert index.search("current time", tenant="default") == before
    assert index.search("current time", tenant="nobody") == ()
    assert {match.agent_id[:2] for match in index.search("current time", tenant="other")} == {"a-"}


def test_an_agent_that_changes_is_found_by_what_it_says_now(index: Index) -> None:
    index.put(agent("cook", tool("sing", "Sings opera arias")))
    assert best(index, "sing an opera aria for me") == "cook/sing"
    assert all(match.capability.name != "cook" for match in index.search("dinner recipes", tenant="default", floor=0))


def test_an_agent_that_is_removed_is_not_found(index: Index) -> None:
    index.remove("default", "time")
    index.remove("default", "time")
    index.remove("nobody", "time")
    assert all(match.agent_id != "time" for match in index.search("time zone", tenant="default", limit=10, floor=0))
    for agent_id in ("git", "cook", "poet"):
        index.remove("default", agent_id)
    assert len(index) == 0
    assert index.search("time", tenant="default", floor=0) == ()


def test_an_index_that_saw_many_changes_answers_as_a_new_one(index: Index, embedder: WordLlama) -> None:
    for round_ in range(40):
        index.put(agent("busy", *(tool(f"tool_{round_}_{number}", f"does {number} things") for number in range(20))))
        if round_ % 7 == 0:
            index.search("things", tenant="default")
    index.remove("default", "busy")
    new = Index(embedder)
    for each in (TIME, GIT, COOK, POET):
        new.put(each)
    assert len(index) == len(new)
    for query in ("current time in Tokyo", "commit logs", "dinner"):
        ours = index.search(query, tenant="default", floor=0)
        theirs = new.search(query, tenant="default", floor=0)
        assert [(m.agent_id, m.capability.name) for m in ours] == [(m.agent_id, m.capability.name) for m in theirs]
        assert [m.score for m in ours] == pytest.approx([m.score for m in theirs], abs=1e-6)


def test_an_agent_without_capabilities_is_no_trouble(index: Index) -> None:
    index.put(agent("empty"))
    index.put(replace(agent("empty"), tenant="only-empty"))
    assert index.search("time", tenant="only-empty", floor=0) == ()


def test_threads_may_search_while_agents_change(index: Index) -> None:
    failures: list[BaseException] = []

    def search() -> None:
        try:
            for _ in range(50):
                assert index.search("current time in Tokyo", tenant="default")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(100):
        index.put(agent(f"more-{number % 10}", tool("x", f"more of {number}")))
    for thread in threads:
        thread.join(timeout=30)
    assert failures == []


class Counting:
    """An embedder that remembers what it was asked."""

    dimensions = 4

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> Matrix:
        self.texts.extend(texts)
        return np.full((len(texts), 4), 0.5, dtype=np.float32)

    def familiarity(self, text: str) -> float:
        return 1.0


def test_capabilities_are_embedded_once_and_not_before_they_are_needed() -> None:
    embedder = Counting()
    index = Index(embedder)
    index.put(TIME)
    index.put(TIME)
    index.put(COOK)
    assert embedder.texts == []
    index.search("dinner", tenant="default")
    index.search("dinner", tenant="default")
    assert len(embedder.texts) == 3 + 2
    index.put(POET)
    index.warm()
    assert embedder.texts[-1] == "ask: Writes poems about nature and love"


def test_the_model_needs_no_network_and_leaves_logging_alone() -> None:
    program = """
import logging, socket, sys
def refuse(*a, **k): raise AssertionError("the network was used")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
from interhub.registry.search import Index
assert "tokenizers" in sys.modules and "wordllama" not in sys.modules
index = Index(); index.warm()
assert not logging.getLogger().handlers
assert "requests" not in sys.modules
print(index._embedder.embed(["hello"]).shape)
"""
    environment = {"HOME": "/nonexistent", "PATH": "", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "(1, 256)", "")


def test_vectors_are_unit_or_nothing(embedder: WordLlama) -> None:
    vectors = embedder.embed(["Get the time", "", "時間", "🕰️", "x" * 100_000])
    lengths = np.linalg.norm(vectors, axis=1)
    assert lengths == pytest.approx([1, 0, 1, 1, 1], abs=1e-5)
    assert vectors.dtype == np.float32
    assert embedder.embed([]).shape == (0, 256)
    assert (
        embedder.embed(["a cat"])[0] @ embedder.embed(["a kitten"])[0]
        > embedder.embed(["a cat"])[0] @ embedder.embed(["a database"])[0]
    )


def test_gibberish_is_unfamiliar_and_words_are_not(embedder: WordLlama) -> None:
    assert embedder.familiarity("what is the weather tomorrow") == 1.0
    assert embedder.familiarity("東京の天気") == 1.0
    assert embedder.familiarity("qwrt zxcv bnmp") < 0.7
    assert embedder.familiarity("") == 0.0


def test_words_are_taken_apart() -> None:
    assert spaced("getCurrentTime") == "get Current Time"
    assert spaced("get_current-time") == "get current time"
    assert spaced("HTTPServer/v2.1") == "HTTP Server v2 1"
    assert terms("Cities and Timezones of classes") == {"city": "cities", "timezone": "timezones", "classe": "classes"}
    assert term_counts("time Times timeZone") == {"time": 3, "zone": 1}
    assert set(terms("東京の天気")) == {"東京", "京の", "の天", "天気"}
    assert terms("the of and") == {}
