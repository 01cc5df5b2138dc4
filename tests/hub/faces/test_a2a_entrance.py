"""What the entrance answers by itself is what the SDK's way answers, and whatever is special goes that way."""

import tracemalloc
from typing import Any

import httpx
import orjson
import pytest

from interhub.hub.faces.a2a.numbers import whole
from tests.support.face_site import Site, face_site

pytestmark = pytest.mark.anyio

VERSION = {"A2A-Version": "1.0"}
LONG_WAY = {"A2A-Version": "1.0.0"}
"""The same version; the entrance takes the usual spelling only."""


def said(message_id: str, **more: Any) -> dict[str, Any]:
    message = {"messageId": message_id, "role": "ROLE_USER", "parts": [{"text": "5.0"}, {"data": {"n": 5}}]}
    return {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": {"message": message, **more}}


async def ask(site: Site, body: object, headers: dict[str, str] | None = None, path: str = "/agents/clerk/a2a") -> Any:
    answer = await site.client.post(path, json=body, headers=headers or VERSION)
    return answer.json()


def told(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what is another of each task: ids and times."""
    text = orjson.dumps(answer).decode()
    task = answer["result"].get("task") or answer["result"]
    shaped: dict[str, Any] = orjson.loads(text.replace(task["id"], "ID").replace(task["contextId"], "CONTEXT"))
    task = shaped["result"].get("task") or shaped["result"]
    task["status"].pop("timestamp")
    task["history"][0].pop("messageId")
    for step in task["metadata"].get("interhub/steps", []):
        for name in ("startedAt", "endedAt"):
            step.pop(name)
    return shaped


async def test_a_message_gets_the_same_answer_on_either_way() -> None:
    async with face_site() as site:
        short = await ask(site, said("one"))
        long = await ask(site, said("two"), LONG_WAY)
    assert told(short) == told(long)


async def test_a_task_is_told_alike_on_either_way() -> None:
    async with face_site() as site:
        task = (await ask(site, said("one")))["result"]["task"]
        asked = {"jsonrpc": "2.0", "id": "x", "method": "GetTask", "params": {"id": task["id"]}}
        short, long = await ask(site, asked), await ask(site, asked, LONG_WAY)
    assert short == long
    assert short["result"]["id"] == task["id"]


async def test_a_message_that_comes_again_on_the_other_way_is_the_same_task() -> None:
    async with face_site() as site:
        short = await ask(site, said("one"))
        long = await ask(site, said("one"), LONG_WAY)
    assert short["result"]["task"]["id"] == long["result"]["task"]["id"]


@pytest.mark.parametrize(
    "body",
    [
        said("one", configuration={"returnImmediately": True}),
        said("one", configuration={"historyLength": 0}),
        said("one", tenant="agents/clerk"),
        said("one", metadata={"interhub/capability": "file"}),
        said("", metadata={}),
        {**said("one"), "params": {"message": {"messageId": "m", "role": "ROLE_USER", "parts": []}}},
        {**said("one"), "params": {"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "x"}]}}},
        {**said("one"), "params": {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"words": "x"}]}}},
        {**said("one"), "params": {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"raw": "aGk="}]}}},
        {**said("one"), "params": {"message": 5}},
        {**said("one"), "params": []},
        {**said("one"), "id": None},
        {**said("one"), "jsonrpc": "1.0"},
        {**said("one"), "method": "SendNothing"},
        {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "nobody-has-it"}},
        {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {}},
        [],
    ],
    ids=range(17),
)
async def test_what_is_special_or_wrong_is_answered_alike_on_either_way(body: Any) -> None:
    async with face_site() as first, face_site() as second:
        short = await ask(first, body)
        long = await ask(second, body, LONG_WAY)
    assert short.get("error") == long.get("error")
    assert ("result" in short) == ("result" in long)


@pytest.mark.parametrize("key", ["bob-key", "eve-key"])
async def test_somebody_elses_task_is_not_found_on_either_way(key: str) -> None:
    async with face_site() as site:
        task = (await ask(site, said("one")))["result"]["task"]
        asked = {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": task["id"]}}
        nobodys = {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": task["id"][:-1] + "x"}}
        answers = [
            await ask(site, body, {**way, "Authorization": f"Bearer {key}"}, path="/a2a")
            for body in (asked, nobodys)
            for way in (VERSION, LONG_WAY)
        ]
    assert {answer["error"]["code"] for answer in answers} == {-32001}


async def test_whole_numbers_come_as_they_went_on_every_way() -> None:
    async with face_site() as site:
        bodies: list[httpx.Response] = [
            await site.client.post("/agents/clerk/a2a", json=said(f"m{place}"), headers=way)
            for place, way in enumerate((VERSION, LONG_WAY))
        ]
        rest = {"message": said("m3")["params"]["message"]}
        bodies.append(await site.client.post("/agents/clerk/a2a/rest/message:send", json=rest, headers=VERSION))
        stream = {**said("m4"), "method": "SendStreamingMessage"}
        bodies.append(await site.client.post("/agents/clerk/a2a", json=stream, headers=VERSION))
    for body in bodies:
        assert '"n":5}' in body.text.replace(" ", "")
        assert '"5.0"' in body.text


def test_only_numbers_are_mended() -> None:
    text = b'{"a": 5.0, "b": "5.0, 6.0", "c": [-1.0,2.50,1e5], "d\\"": "\\"3.0,", "e": 10.05, "f": 7.0}'
    assert whole(text) == b'{"a": 5, "b": "5.0, 6.0", "c": [-1,2.50,1e5], "d\\"": "\\"3.0,", "e": 10.05, "f": 7}'


@pytest.mark.parametrize("text", ["x" * 500_000, "ab\n" * 100_000, "\n" * 200_000], ids=["plain", "lines", "escapes"])
def test_a_long_text_is_passed_over_in_little_memory(text: str) -> None:
    body = orjson.dumps({"n": 5.0, "text": text})
    tracemalloc.start()
    try:
        mended = whole(body)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert mended == orjson.dumps({"n": 5, "text": text})
    assert most < 4 * len(body)
