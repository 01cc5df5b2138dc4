"""What comes over the wire is read the same however it is cut, and whichever version wrote it."""

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interhub.adapters import DataPart, Message, Part, ProtocolViolation, RawPart, Role, TextPart, UrlPart
from interhub.adapters.a2a.events import ArtifactUpdate, MessageAnswer, StatusUpdate, TaskSnapshot, TaskState
from interhub.adapters.a2a.sse import EventTooLarge, SseDecoder
from interhub.adapters.a2a.task import TaskView
from interhub.adapters.a2a.tolerance import Leniency, TolerantReader
from interhub.adapters.a2a.wire import Ask, Dialect, Fault, HttpJson, JsonRpc, Operation, WireVersion, wire_version

STREAM = (
    b': hello\r\nevent: message\r\nid: 1\r\ndata: {"a":\ndata: 1}\n\ndata:two\n\n\n\r'
    b"data: three\r\rretry: 5\n\ndata: \xc3\xbc\n\n"
)
EVENTS = [b'{"a":\n1}', b"two", b"three", "ü".encode()]


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_a_stream_is_read_the_same_however_it_is_cut(cuts: list[int]) -> None:
    decoder = SseDecoder(max_event_bytes=100)
    found: list[bytes] = []
    edges = [0, *sorted(cuts), len(STREAM)]
    for start, end in pairwise(edges):
        found += decoder.feed(STREAM[start:end])
    assert found == EVENTS
    assert decoder.finish() is None


def test_an_event_without_end_is_refused_and_a_last_one_without_blank_line_is_not_lost() -> None:
    with pytest.raises(EventTooLarge):
        SseDecoder(max_event_bytes=10).feed(b"data: 12345678901")
    with pytest.raises(EventTooLarge):
        SseDecoder(max_event_bytes=10).feed(b"data: 123456\ndata: 789012\n\n")
    decoder = SseDecoder(max_event_bytes=10)
    assert decoder.feed(b"data: last") == []
    assert decoder.finish() == b"last"


METADATA = st.dictionaries(st.sampled_from(["a", "b"]), st.integers() | st.text(max_size=5), max_size=2)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NAMED = {"media_type": st.sampled_from(["", "image/png"]), "filename": st.sampled_from(["", "f.png"])}
PARTS: st.SearchStrategy[Part] = (
    st.builds(TextPart, text=st.text(max_size=20), metadata=METADATA)
    | st.builds(DataPart, data=JSON, metadata=METADATA)
    | st.builds(RawPart, raw=st.binary(max_size=20), metadata=METADATA, **NAMED)
    | st.builds(UrlPart, url=st.sampled_from(["https://example.com/x"]), metadata=METADATA, **NAMED)
)


@given(parts=st.lists(PARTS, min_size=1, max_size=4), version=st.sampled_from(WireVersion))
def test_a_message_written_over_json_rpc_is_read_back_the_same(parts: list[Part], version: WireVersion) -> None:
    written = Message(
        role=Role.USER, parts=tuple(parts), message_id="m", context_id="c", task_id="t", metadata={"k": 1}
    )
    body = JsonRpc(version).write("http://x/", Ask(operation=Operation.SEND, message=written)).body
    sent: Any = json.loads(json.dumps(body))
    reader = TolerantReader("x", version)
    read = reader.answer({"message": sent["params"]["message"]})
    assert read == MessageAnswer(message=written)
    assert not reader.noted


@pytest.mark.parametrize("part", [TextPart(text="t"), DataPart(data=[1]), DataPart(data={"data": 1, "n": 2})])
def test_a_message_written_for_0_3_over_http_is_read_back_the_same(part: Part) -> None:
    written = Message(role=Role.USER, parts=(part, RawPart(raw=b"\x00\xff", media_type="a/b")), message_id="m")
    body: Any = HttpJson(WireVersion.V03).write("http://x", Ask(operation=Operation.SEND, message=written)).body
    assert TolerantReader("x", WireVersion.V03).answer({"message": body["message"]}) == MessageAnswer(message=written)


def test_requests_name_task_and_tenant_as_each_binding_has_them() -> None:
    ask = Ask(operation=Operation.CANCEL, task_id="a/b:c")
    rpc = JsonRpc(WireVersion.V1, tenant="acme").write("http://x/rpc", ask)
    rest = HttpJson(WireVersion.V1, tenant="acme").write("http://x/rest/", ask)
    old = HttpJson(WireVersion.V03).write("http://x/rest", ask)
    params: Any = rpc.body
    assert params["params"] == {"tenant": "acme", "id": "a/b:c"}
    assert (rpc.method, rpc.url) == ("POST", "http://x/rpc")
    assert (rest.method, rest.url) == ("POST", "http://x/rest/acme/tasks/a%2Fb%3Ac:cancel")
    assert (old.method, old.url) == ("POST", "http://x/rest/v1/tasks/a%2Fb%3Ac:cancel")


@pytest.mark.parametrize(
    ("dialect", "document", "reason", "code"),
    [
        (JsonRpc(WireVersion.V1), {"error": {"code": -32001, "message": "no"}}, "TASK_NOT_FOUND", -32001),
        (JsonRpc(WireVersion.V1), {"error": "broken"}, "", None),
        (
            HttpJson(WireVersion.V1),
            {"error": {"code": 404, "message": "no", "details": [{"reason": "TASK_NOT_FOUND"}]}},
            "TASK_NOT_FOUND",
            -32001,
        ),
        (HttpJson(WireVersion.V1), {"type": "TaskNotFoundError", "message": "no"}, "TASK_NOT_FOUND", -32001),
        (
            HttpJson(WireVersion.V1),
            {"type": "https://a2a-protocol.org/errors/task-not-found", "title": "no", "status": 404},
            "TASK_NOT_FOUND",
            -32001,
        ),
    ],
)
def test_errors_are_known_in_every_form_they_come_in(
    dialect: Dialect, document: Any, reason: str, code: int | None
) -> None:
    with pytest.raises(Fault) as caught:
        dialect.unwrap(document)
    assert (caught.value.reason, caught.value.code) == (reason, code)


@pytest.mark.parametrize(
    ("written", "read", "rules"),
    [
        ("TASK_STATE_WORKING", TaskState.WORKING, set[Leniency]()),
        ("input-required", TaskState.INPUT_REQUIRED, {Leniency.LEGACY_ENUM}),
        ("TASK_STATE_CANCELLED", TaskState.CANCELED, {Leniency.LEGACY_ENUM}),
        ("pondering", TaskState.UNSPECIFIED, {Leniency.UNKNOWN_STATE}),
        (None, TaskState.UNSPECIFIED, {Leniency.UNKNOWN_STATE}),
    ],
)
def test_states_are_read_as_they_are_meant(written: Any, read: TaskState, rules: set[Leniency]) -> None:
    reader = TolerantReader("x", WireVersion.V1)
    event = reader.event({"statusUpdate": {"taskId": "t", "status": {"state": written}}})
    assert isinstance(event, StatusUpdate)
    assert event.status.state is read
    assert reader.noted == rules


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05Z"),
        ("2026-01-02T03:04:05.5", "2026-01-02T03:04:05.500000Z"),
        ("soon", ""),
        (17, ""),
    ],
)
def test_times_come_out_in_utc(written: Any, read: str) -> None:
    shaped: Any = {"id": "t", "status": {"state": "TASK_STATE_WORKING", "timestamp": written}}
    assert TolerantReader("x", WireVersion.V1).task(shaped).status.timestamp == read


@pytest.mark.parametrize(
    "payload",
    [
        {"task": {"status": {}}},
        {"task": {"id": 7, "status": {}}},
        {"task": {"id": "t", "artifacts": {}}},
        {"artifactUpdate": {"taskId": "t"}},
        {"message": {"parts": [{"raw": "%%%"}]}},
        {"message": {"parts": 5}},
    ],
)
def test_what_cannot_be_meant_is_a_violation(payload: Any) -> None:
    with pytest.raises(ProtocolViolation):
        TolerantReader("x", WireVersion.V1).answer(payload)


@given(payload=JSON)
def test_no_json_whatsoever_breaks_the_reader(payload: Any) -> None:
    reader = TolerantReader("x", WireVersion.V1)
    with suppress(ProtocolViolation):
        reader.event(payload)


def test_an_event_that_says_nothing_is_passed_over_once_noted() -> None:
    reader = TolerantReader("x", WireVersion.V1)
    assert reader.event({"surprise": 1}) is None
    assert reader.event([]) is None
    assert reader.noted == {Leniency.EMPTY_EVENT}


def test_chunks_are_merged_by_the_rules_and_a_gap_is_known() -> None:
    view = TaskView("x", max_bytes=1000)
    reader = TolerantReader("x", WireVersion.V1)

    def update(words: str, *, append: bool, artifact_id: str = "a") -> ArtifactUpdate:
        made: Any = {"artifactId": artifact_id, "parts": [{"text": words}]}
        event = reader.event({"artifactUpdate": {"taskId": "t", "artifact": made, "append": append}})
        assert isinstance(event, ArtifactUpdate)
        return event

    for words, append in (("draft", False), ("one", False), ("two", True)):
        view.take(update(words, append=append))
    assert [part.text for part in view.artifacts[0].parts if isinstance(part, TextPart)] == ["one", "two"]
    assert view.whole
    view.take(update("?", append=True, artifact_id="never begun"))
    assert not view.whole
    whole: Any = {"id": "t", "status": {"state": "TASK_STATE_WORKING"}, "artifacts": []}
    view.take(TolerantReader("x", WireVersion.V1).task(whole))
    assert view.whole


ADK: dict[str, Any] = {
    "adk_usage_metadata": {"promptTokenCount": 7.0, "candidatesTokenCount": 3.0, "thoughtsTokenCount": 1.0}
}


USED: list[tuple[Any, tuple[int, int] | None]] = [
    ([{"message": {"role": "ROLE_AGENT", "parts": [], "metadata": {"usage": {"input_tokens": 2}}}}], (2, 0)),
    ([{"statusUpdate": {"metadata": {**ADK, "adk_event_id": event}}} for event in ("a", "b", "b")], (14, 8)),
    ([{"artifactUpdate": {"artifact": {"artifactId": "x", "parts": [], "metadata": ADK}}}] * 2, (7, 4)),
    ([{"task": {"id": "t", "metadata": {"usage": {"promptTokens": 5, "completionTokens": 6}}}}], (5, 6)),
    (
        [
            {"statusUpdate": {"metadata": ADK}},
            {"task": {"id": "t", "metadata": {"usage": {"inputTokens": 1, "outputTokens": 1}}}},
        ],
        (1, 1),
    ),
    (
        [
            {
                "task": {
                    "id": "t",
                    "metadata": {
                        "interhub/steps": [
                            {"path": "team", "usage": {"input_tokens": 9, "output_tokens": 9}},
                            {"path": "team.first", "usage": {"input_tokens": 4, "output_tokens": 4}},
                            {"path": "teams", "usage": {"input_tokens": 1, "output_tokens": 2}},
                            {"path": "other", "usage": None},
                        ]
                    },
                }
            }
        ],
        (10, 11),
    ),
    ([{"task": {"id": "t", "metadata": {"usage": {"input_tokens": -1, "output_tokens": "many"}}}}], None),
    ([{"task": {"id": "t", "metadata": {"usage": [1], "interhub/steps": "none"}}}], None),
]


@pytest.mark.parametrize(("events", "used"), USED)
def test_what_was_used_is_read_from_the_metadata_each_said_once(events: Any, used: tuple[int, int] | None) -> None:
    view, reader = TaskView("x", max_bytes=1000), TolerantReader("x", WireVersion.V1)
    for shaped in events:
        event = reader.event(shaped)
        assert event is not None
        view.take(event)
    total = view.usage.total()
    assert (None if total is None else (total.input_tokens, total.output_tokens)) == used


def test_a_task_that_still_shows_the_answered_question_is_not_taken_to_ask_again() -> None:
    shaped: Any = {
        "status": {"state": "TASK_STATE_INPUT_REQUIRED", "message": {"messageId": "q1", "parts": []}},
        "id": "t",
    }
    reader = TolerantReader("x", WireVersion.V1)
    snapshot = reader.task(shaped)
    assert isinstance(snapshot, TaskSnapshot)
    asked, answered = TaskView("x", max_bytes=9), TaskView("x", max_bytes=9, answered="q1")
    asked.take(snapshot)
    answered.take(snapshot)
    assert asked.settled
    assert not answered.settled


@pytest.mark.parametrize(
    ("version", "family"),
    [
        ("1.0", WireVersion.V1),
        ("1.4", WireVersion.V1),
        ("0.3.0", WireVersion.V03),
        ("0.2.6", WireVersion.V03),
        ("2.0", None),
        ("0.1", None),
        ("", None),
        ("one", None),
    ],
)
def test_versions_fall_into_two_families(version: str, family: WireVersion | None) -> None:
    assert wire_version(version) is family
