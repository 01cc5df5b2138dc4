"""What the hub's A2A server promises beyond the operations: versions, tenants, extensions, lists, streams."""

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any
from uuid import uuid4

import anyio
import httpx
import orjson
import pytest

from interhub.adapters import Completed, TextPart
from interhub.adapters.testing import ScriptedAgent
from interhub.agent_cards.extension import Extension
from tests.support.face_site import Site, face_site, free_socket, serving

pytestmark = pytest.mark.anyio

V1 = {"A2A-Version": "1.0"}
EXTENSION = "https://example.com/extensions/careful/v1"


@pytest.fixture
async def site() -> AsyncGenerator[Site]:
    async with face_site() as opened:
        yield opened


def message(text: str, **more: Any) -> dict[str, Any]:
    return {"messageId": str(uuid4()), "role": "ROLE_USER", "parts": [{"text": text}], **more}


async def rpc(
    site: Site, method: str, params: Any, *, path: str = "/a2a", headers: dict[str, str] | None = None
) -> dict[str, Any]:
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    with anyio.fail_after(5):
        answer = await site.client.post(path, json=body, headers={**V1, **(headers or {})})
    said: dict[str, Any] = answer.json()
    return said


async def send(site: Site, text: str, *, now: bool = False, **more: Any) -> dict[str, Any]:
    params = {"message": message(text, **more), "configuration": {"returnImmediately": now}}
    task: dict[str, Any] = (await rpc(site, "SendMessage", params))["result"]["task"]
    return task


async def events(site: Site, method: str, params: Any, **headers: str) -> list[dict[str, Any]]:
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    with anyio.fail_after(10):
        answer = await site.client.post("/a2a", json=body, headers={**V1, **headers})
    assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return [orjson.loads(line)["result"] for line in lines]


def code(said: dict[str, Any]) -> int:
    number: int = said["error"]["code"]
    return number


def sequence(event: dict[str, Any]) -> int:
    update: dict[str, Any] = event.get("statusUpdate") or event.get("artifactUpdate") or {}
    return int(update.get("metadata", {}).get("interhub/sequence", 0))


# Versions and media types


@pytest.mark.parametrize("where", ["header", "query"])
async def test_methods_of_0_3_are_not_found_under_1_0(site: Site, where: str) -> None:
    body = {"jsonrpc": "2.0", "id": 7, "method": "tasks/get", "params": {"id": "x"}}
    path, headers = ("/a2a", V1) if where == "header" else ("/a2a?A2A-Version=1.0", {})
    answer = await site.client.post(path, json=body, headers=headers)
    assert (answer.json()["id"], code(answer.json())) == (7, -32601)


async def test_paths_of_0_3_are_refused_under_1_0(site: Site) -> None:
    body = {"message": {"messageId": "1", "role": "ROLE_USER", "content": [{"text": "echo x"}]}}
    refused = await site.client.post("/a2a/rest/v1/message:send", json=body, headers=V1)
    assert refused.json()["error"]["details"][0]["reason"] == "VERSION_NOT_SUPPORTED"
    assert (await site.client.post("/a2a/rest/v1/message:send", json=body)).status_code == 200


@pytest.mark.parametrize("params", ["text", {"message": {"parts": 1}}, None])
async def test_params_of_0_3_that_do_not_fit_are_invalid_params(site: Site, params: Any) -> None:
    body = {"jsonrpc": "2.0", "id": 7, "method": "message/send", "params": params}
    answer = await site.client.post("/a2a", json=body)
    assert code(answer.json()) == -32602
    assert "pydantic" not in answer.text


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml"])
async def test_a_body_of_another_media_type_is_refused_as_such(site: Site, kind: str) -> None:
    body = orjson.dumps({"jsonrpc": "2.0", "id": 7, "method": "GetTask", "params": {"id": "x"}})
    over_rpc = await site.client.post("/a2a", content=body, headers={**V1, "Content-Type": kind})
    assert (over_rpc.status_code, code(over_rpc.json())) == (415, -32005)
    over_rest = await site.client.post("/a2a/rest/message:send", content=body, headers={**V1, "Content-Type": kind})
    assert over_rest.status_code == 415
    assert over_rest.json()["error"]["details"][0]["reason"] == "CONTENT_TYPE_NOT_SUPPORTED"


async def test_a2a_s_own_media_type_is_taken(site: Site) -> None:
    headers = {**V1, "Content-Type": "application/a2a+json; charset=utf-8"}
    body = orjson.dumps({"message": message("echo x")})
    assert (await site.client.post("/a2a/rest/message:send", content=body, headers=headers)).status_code == 200


# Tenants


async def test_a_caller_may_name_its_own_tenant_in_the_field_and_in_the_path(site: Site) -> None:
    task = await send(site, "echo x")
    assert "result" in await rpc(site, "GetTask", {"id": task["id"], "tenant": "default"})
    assert (await site.client.get(f"/a2a/rest/default/tasks/{task['id']}", headers=V1)).status_code == 200
    posted = await site.client.post("/a2a/rest/default/message:send", json={"message": message("echo y")}, headers=V1)
    assert posted.status_code == 200


async def test_the_tenant_of_an_agent_s_interface_may_be_in_the_path_too(site: Site) -> None:
    headers = {"A2A-Version": "1.0"}
    for number, segment in enumerate(("agents%2Fclerk", "agents/clerk")):
        body = {"message": message(f"echo {number}")}
        sent = await site.client.post(f"/a2a/rest/{segment}/message:send", json=body, headers=headers)
        assert sent.status_code == 200, sent.text
        task = sent.json()["task"]
        assert task["metadata"]["interhub/agent"] == "clerk"
        found = await site.client.get(f"/a2a/rest/{segment}/tasks/{task['id']}", headers=headers)
        assert found.json()["id"] == task["id"]
        other = await site.client.get(f"/a2a/rest/agents%2Ftools/tasks/{task['id']}", headers=headers)
        assert other.status_code == 404


async def test_the_tasks_of_a_foreign_tenant_are_not_found_whether_there_are_any_or_not(site: Site) -> None:
    task = await send(site, "ask")
    for task_id in (task["id"], str(uuid4())):
        for method in ("GetTask", "CancelTask", "SubscribeToTask"):
            assert code(await rpc(site, method, {"id": task_id, "tenant": "elsewhere"})) == -32001
        answer = {"message": message("blue", taskId=task_id), "tenant": "elsewhere"}
        assert code(await rpc(site, "SendMessage", answer)) == -32001
        shown = await site.client.get(f"/a2a/rest/elsewhere/tasks/{task_id}", headers=V1)
        assert shown.status_code == 404
    assert code(await rpc(site, "SendMessage", {"message": message("echo x"), "tenant": "elsewhere"})) == -32602
    assert code(await rpc(site, "ListTasks", {"tenant": "elsewhere"})) == -32602


async def test_the_tenant_of_an_agent_s_interface_leads_to_the_agent(site: Site) -> None:
    task = (await rpc(site, "SendMessage", {"message": message("echo x"), "tenant": "agents/clerk"}))["result"]["task"]
    assert site.supervisor.assignments[-1].agent_id == "clerk"
    assert "result" in await rpc(site, "GetTask", {"id": task["id"], "tenant": "agents/clerk"})
    assert code(await rpc(site, "GetTask", {"id": task["id"], "tenant": "agents/tools"})) == -32001
    other = {"id": task["id"], "tenant": "agents/tools"}
    assert code(await rpc(site, "GetTask", other, path="/agents/clerk/a2a")) == -32001


# Extensions


async def test_an_extension_that_an_agent_requires_must_be_declared_and_is_passed_on() -> None:
    careful = ScriptedAgent("careful").on("do", Completed(parts=(TextPart(text="done"),)))
    careful.extensions = (Extension(uri=EXTENSION, required=True),)
    async with face_site(more=(careful,)) as site:
        params, path = {"message": message("echo x")}, "/agents/careful/a2a"
        refused = await rpc(site, "SendMessage", params, path=path)
        assert code(refused) == -32008
        assert EXTENSION in refused["error"]["message"]
        headers = {"A2A-Extensions": f"https://example.com/unknown, {EXTENSION}"}
        assert "result" in await rpc(site, "SendMessage", params, path=path, headers=headers)
        assert site.supervisor.assignments[-1].goal.extensions == (EXTENSION,)
        declared = {"message": message("echo x", extensions=[EXTENSION])}
        assert "result" in await rpc(site, "SendMessage", declared, path=path)
        card = (await site.client.get("/agents/careful/.well-known/agent-card.json", headers=V1)).json()
        assert {"uri": EXTENSION, "required": True} in card["capabilities"]["extensions"]


async def test_an_extension_that_nobody_knows_is_left_aside(site: Site) -> None:
    headers = {"A2A-Extensions": "https://example.com/unknown"}
    said = await rpc(site, "SendMessage", {"message": message("echo x")}, headers=headers)
    assert said["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"


# Lists


async def test_lists_count_all_and_begin_with_what_changed_last(site: Site) -> None:
    asks = await send(site, "ask")
    made = [(await send(site, f"echo {number}"))["id"] for number in range(120)]
    await send(site, "blue", taskId=asks["id"])
    seen: list[dict[str, Any]] = []
    token = ""
    while not seen or token:
        page = (await rpc(site, "ListTasks", {"pageSize": 50, "pageToken": token}))["result"]
        assert page["totalSize"] == 121
        seen += page["tasks"]
        token = page["nextPageToken"]
    assert [task["id"] for task in seen] == [asks["id"], *reversed(made)]
    stamps = [datetime.fromisoformat(task["status"]["timestamp"]) for task in seen]
    assert stamps == sorted(stamps, reverse=True)


@pytest.mark.parametrize("status", ["TASK_STATE_DREAMING", "completed", 99, ["x"], {"a": 1}])
async def test_a_state_that_is_none_is_refused(site: Site, status: Any) -> None:
    assert code(await rpc(site, "ListTasks", {"status": status})) == -32602
    if isinstance(status, str):
        assert (await site.client.get(f"/a2a/rest/tasks?status={status}", headers=V1)).status_code == 400


# Streams


async def test_a_stream_that_is_resumed_has_neither_gap_nor_repeat(site: Site) -> None:
    whole = await events(site, "SendStreamingMessage", {"message": message("count 5")})
    task_id = whole[0]["task"]["id"]
    assert whole[0]["task"]["status"]["state"] == "TASK_STATE_SUBMITTED"
    for cut in range(1, len(whole)):
        last = sequence(whole[cut])
        if not last:
            continue  # the answer, which is no event of its own
        rest = await events(site, "SubscribeToTask", {"id": task_id}, **{"Last-Event-ID": str(last)})
        assert next(iter(rest[0])) == "task"
        told = [sequence(event) for event in rest[1:]]
        if cut < len(whole) - 1:
            assert [each for each in told if each] == [sequence(event) for event in whole if sequence(event) > last]
        assert rest[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


@pytest.mark.parametrize("given", ["-1", "x", "999", "1.5"])
async def test_a_stream_cannot_be_resumed_after_what_never_was(site: Site, given: str) -> None:
    task = await send(site, "hold", now=True)
    said = await rpc(site, "SubscribeToTask", {"id": task["id"]}, headers={"Last-Event-ID": given})
    assert code(said) == -32602


async def test_a_message_that_is_streamed_again_tells_the_whole_again_and_runs_once(site: Site) -> None:
    said = {"message": message("count 2")}
    first = await events(site, "SendStreamingMessage", said)
    again = await events(site, "SendStreamingMessage", said)
    assert again == first
    assert len(site.supervisor.assignments) == 1


async def test_a_slow_reader_is_told_everything(site: Site) -> None:
    chunks = 3000
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "SendStreamingMessage",
        "params": {"message": message(f"count {chunks}")},
    }
    seen = bytearray()
    async with serving(site.app, free_socket()) as url, httpx.AsyncClient(timeout=30) as client:
        headers = {**V1, "Authorization": "Bearer alice-key"}
        async with client.stream("POST", f"{url}/a2a", json=body, headers=headers) as answer:
            # The run is long over, and the buffers between us full, before the reader goes on.
            with anyio.fail_after(30):
                while not any(run.state.ended for run in site.supervisor.runs()):
                    await anyio.wait_all_tasks_blocked()
                async for piece in answer.aiter_bytes():
                    seen += piece
    lines = [orjson.loads(line[6:])["result"] for line in seen.splitlines() if line.startswith(b"data: ")]
    told = [event["artifactUpdate"]["artifact"] for event in lines if "artifactUpdate" in event]
    numbers = [made["parts"][0]["text"] for made in told if made["artifactId"] == "numbers"]
    assert numbers == [f"{number} " for number in range(chunks)]
    assert lines[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


# Whom it is for


async def test_messages_that_name_nobody_go_to_the_front_agent() -> None:
    async with face_site(front_agent="clerk") as site:
        await send(site, "echo x")
        await send(site, "echo y", metadata={"interhub/agent": "tools"})
        assert [each.agent_id for each in site.supervisor.assignments] == ["clerk", "tools"]


async def test_a_direct_answer_is_a_message_that_names_its_task(site: Site) -> None:
    said = (await rpc(site, "SendMessage", {"message": message("reply hello")}))["result"]["message"]
    assert (said["role"], said["parts"]) == ("ROLE_AGENT", [{"text": "hello"}])
    shown = await rpc(site, "GetTask", {"id": said["metadata"]["interhub/task"]})
    assert shown["result"]["status"]["state"] == "TASK_STATE_COMPLETED"
