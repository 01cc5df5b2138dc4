"""REST: agents, runs, direct calls; bodies that are refused; and the document that describes it all."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import anyio
import httpx
import jsonschema
import orjson
import pytest
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.routing import Route

from interhub.adapters import Completed, InputRequired, RemoteTimeout, RemoteUnavailable, TextPart
from interhub.agent_cards import Binding, Endpoint, Json
from interhub.hub.discovery import FromCommand, FromDocument, FromEndpoint, FromUrl, FromWorker
from interhub.hub.faces.rest import rest_routes
from interhub.hub.faces.rest.bodies import AddAgent, read_body
from interhub.hub.faces.rest.schemas import SCHEMAS
from interhub.hub.faces.shapes import HIDDEN, endpoint_shape
from tests.support.face_site import ALICE, Site, face_site

pytestmark = pytest.mark.anyio

SCRIPTED: dict[str, Any] = {
    "kind": "endpoint",
    "adapter": "scripted",
    "endpoint": {"binding": "LOCAL", "url": "scripted:clerk"},
}


@pytest.fixture
async def site() -> AsyncGenerator[Site]:
    async with face_site() as opened:
        yield opened


def holds(name: str, value: Any) -> Any:
    """Check an answer against the document's schema of that name, and return it."""
    schema: dict[str, Any] = {"components": {"schemas": SCHEMAS}, "$ref": f"#/components/schemas/{name}"}
    jsonschema.validate(value, schema, Draft202012Validator)
    return value


async def submit(site: Site, goal: str, **more: Any) -> dict[str, Any]:
    answer = await site.client.post("/api/runs", json={"goal": goal, "wait_s": 5, **more})
    assert answer.status_code in (200, 202), answer.text
    run: dict[str, Any] = holds("Run", answer.json())
    return run


# Agents


async def test_agents_are_listed_shown_refreshed_and_removed(site: Site) -> None:
    listed = holds("Agents", (await site.client.get("/api/agents")).json())
    assert [agent["id"] for agent in listed["agents"]] == ["clerk", "tools"]
    assert listed["agents"][1]["capability_count"] == 2
    assert "capabilities" not in listed["agents"][1]
    full = holds("Agents", (await site.client.get("/api/agents?capabilities=true")).json())
    assert [each["name"] for each in full["agents"][1]["capabilities"]] == ["add", "divide"]
    shown = holds("Agent", (await site.client.get("/api/agents/clerk")).json())
    assert shown["capabilities"][0]["kind"] == "skill"
    assert shown["created_at"].endswith("Z")
    assert holds("Agent", (await site.client.post("/api/agents/clerk/refresh")).json())["id"] == "clerk"
    gone = await site.client.delete("/api/agents/clerk")
    assert gone.status_code == 200
    missing = await site.client.get("/api/agents/clerk")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"
    assert holds("Problem", missing.json())["code"] == "AGENT_NOT_FOUND"


async def test_an_agent_is_added_once(site: Site) -> None:
    added = await site.client.post("/api/agents", json={**SCRIPTED, "id": "second"})
    assert added.status_code == 201
    assert added.headers["location"] == "/api/agents/second"
    assert holds("Agent", added.json())["id"] == "second"
    again = await site.client.post("/api/agents", json={**SCRIPTED, "id": "second"})
    assert (again.status_code, again.json()["code"]) == (409, "AGENT_EXISTS")
    odd = await site.client.post("/api/agents", json={**SCRIPTED, "id": "No Good"})
    assert (odd.status_code, odd.json()["code"]) == (400, "INVALID_AGENT_ID")


async def test_an_agent_that_is_down_is_not_added(site: Site) -> None:
    site.clerk.down = True
    answer = await site.client.post("/api/agents", json={**SCRIPTED, "id": "second"})
    assert (answer.status_code, answer.json()["code"]) == (502, "AGENT_UNAVAILABLE")


def test_every_kind_of_source_is_read_from_a_body() -> None:
    def source(**body: Any) -> object:
        adapter: TypeAdapter[AddAgent] = TypeAdapter(AddAgent)
        return read_body(adapter, orjson.dumps(body)).source()

    url = source(kind="url", url="http://x/mcp", headers={"a": "b"}, protocol="mcp")
    assert url == FromUrl(url="http://x/mcp", headers={"a": "b"}, protocol="mcp")
    assert source(kind="command", command=["a", "b"], env={"X": "1"}) == FromCommand(command=("a", "b"), env={"X": "1"})
    worker = source(kind="worker", target="/a.py:graph", framework="langgraph", requirements="/r.txt")
    assert worker == FromWorker(target="/a.py:graph", framework="langgraph", requirements="/r.txt")
    document = source(kind="document", document={"kind": "team"}, source_name="team.yaml")
    assert document == FromDocument(document={"kind": "team"}, source="team.yaml")
    endpoint = source(kind="endpoint", adapter="mcp", endpoint={"binding": "MCP-STDIO", "command": ["x"], "cwd": "/"})
    assert endpoint == FromEndpoint(
        adapter="mcp", endpoint=Endpoint(binding=Binding.MCP_STDIO, command=("x",), cwd="/")
    )


async def test_secrets_of_an_endpoint_are_not_told(site: Site) -> None:
    endpoint = {
        **SCRIPTED["endpoint"],
        "headers": {"Authorization": "Bearer ${TOKEN}", "X-Key": "literal"},
        "env": {"A": "${B}", "C": "plain-secret", "D": "sk-${B}"},
    }
    added = await site.client.post("/api/agents", json={**SCRIPTED, "endpoint": endpoint, "id": "second"})
    shown = added.json()["endpoint"]
    assert shown["headers"] == {"Authorization": "Bearer ${TOKEN}", "X-Key": HIDDEN}
    assert shown["env"] == {"A": "${B}", "C": HIDDEN, "D": HIDDEN}


async def test_secrets_in_an_address_or_a_command_are_not_told(site: Site) -> None:
    command = [
        "npx",
        "-y",
        "thing",
        "--api-key",
        "k-1",
        "--token=k-2",
        "--header",
        "Authorization: Bearer k-3",
        "--port",
    ]
    endpoint = {
        **SCRIPTED["endpoint"],
        "options": {"target": "x"},
        "command": [*command, "80", "API_KEY=${KEY}", "--author", "ann", "--secret", "${SECRET}"],
    }
    added = await site.client.post("/api/agents", json={**SCRIPTED, "endpoint": endpoint, "id": "second"})
    assert added.json()["endpoint"]["command"] == [
        *["npx", "-y", "thing", "--api-key", HIDDEN, f"--token={HIDDEN}", "--header", f"Authorization: {HIDDEN}"],
        *["--port", "80", "API_KEY=${KEY}", "--author", "ann", "--secret", "${SECRET}"],
    ]
    shown = endpoint_shape(Endpoint(binding=Binding.MCP_HTTP, url="https://me:pw@x.example/mcp?token=k-4&page=2"))
    assert shown["url"] == f"https://{HIDDEN}@x.example/mcp?token={HIDDEN}&page=2"


async def test_tenants_do_not_see_each_other_s_agents(site: Site) -> None:
    eve = {"Authorization": "Bearer eve-key"}
    assert (await site.client.get("/api/agents", headers=eve)).json() == {"agents": []}
    assert (await site.client.get("/api/agents/clerk", headers=eve)).status_code == 404


async def test_capabilities_are_found_with_reasons(site: Site) -> None:
    found = holds("Matches", (await site.client.get("/api/find", params={"need": "add two numbers"})).json())
    best = found["matches"][0]
    assert (best["agent_id"], best["capability"], best["is_match"]) == ("tools", "add", True)
    assert "add" in best["terms"]
    assert best["why"]
    only = (await site.client.get("/api/find", params={"need": "add two numbers", "agent": ["clerk"]})).json()
    assert all(match["agent_id"] == "clerk" for match in only["matches"])


# Direct calls


async def test_a_call_goes_straight_to_the_agent(site: Site) -> None:
    body = {"capability": "add", "arguments": {"a": 1, "b": 3}, "idempotency_key": "k1", "timeout_s": 5}
    answer = await site.client.post("/api/agents/tools/call", json=body)
    assert holds("Outcome", answer.json())["structured"] == {"result": 4}
    call = site.tools.calls[0]
    assert (call.arguments, call.idempotency_key, call.principal) == ({"a": 1, "b": 3}, "default/alice/k1", ALICE)


async def test_a_question_of_a_call_is_answered_with_its_state(site: Site) -> None:
    asks = InputRequired(question=(TextPart(text="Which?"),), state={"at": 1})
    site.clerk.on("stamp", asks, Completed(parts=(TextPart(text="stamped"),)))
    await site.client.post("/api/agents/clerk/refresh")
    first = await site.client.post("/api/agents/clerk/call", json={"capability": "stamp"})
    asked = holds("Outcome", first.json())
    assert (asked["outcome"], asked["question"]) == ("input_required", [{"text": "Which?"}])
    resume = {"text": "the red one", "state": asked["state"]}
    second = await site.client.post("/api/agents/clerk/call", json={"capability": "stamp", "resume": resume})
    assert second.json()["parts"] == [{"text": "stamped"}]
    taken = site.clerk.calls[-1].resume
    assert taken is not None
    assert (taken.answer, taken.state) == ((TextPart(text="the red one"),), {"at": 1})


async def test_the_state_of_a_question_is_taken_back_from_its_owner_only(site: Site) -> None:
    asks = InputRequired(question=(TextPart(text="Which?"),), state={"taskId": "1"})
    site.clerk.on("stamp", *[asks] * 8)
    await site.client.post("/api/agents/clerk/refresh")
    first = await site.client.post("/api/agents/clerk/call", json={"capability": "stamp"})
    given = first.json()["state"]
    before = len(site.clerk.calls)
    made_up: list[Json] = [{"taskId": "1"}, given[:-4] + "AAAA", "", "?", given + "é"]
    for key, state in [("bob-key", given), *(("alice-key", each) for each in made_up)]:
        body = {"capability": "stamp", "resume": {"text": "x", "state": state}}
        headers = {"Authorization": f"Bearer {key}"}
        answer = await site.client.post("/api/agents/clerk/call", json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_PARAMS")
    body = {"capability": "add", "resume": {"text": "x", "state": given}}
    assert (await site.client.post("/api/agents/tools/call", json=body)).status_code == 400  # another agent's
    assert len(site.clerk.calls) == before
    assert not site.tools.calls


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (RemoteTimeout("clerk", 3), 504, "AGENT_TIMEOUT"),
        (RemoteUnavailable("clerk", "it is down"), 502, "AGENT_UNAVAILABLE"),
    ],
)
async def test_a_failing_agent_is_a_problem_of_the_gateway(
    site: Site, failure: RemoteUnavailable, status: int, code: str
) -> None:
    site.clerk.on("file", failure)
    answer = await site.client.post("/api/agents/clerk/call", json={})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_a_wrong_capability_is_told_with_near_ones(site: Site) -> None:
    answer = await site.client.post("/api/agents/tools/call", json={"capability": "ad"})
    assert (answer.status_code, answer.json()["code"]) == (404, "CAPABILITY_NOT_FOUND")
    assert "did you mean add" in answer.json()["detail"]


# Runs


async def test_a_goal_becomes_a_run_that_can_be_waited_for(site: Site) -> None:
    run = await submit(site, "echo hello")
    assert (run["state"], run["parts"]) == ("completed", [{"text": "hello"}])
    assert run["steps"][0]["agent_id"] == "twin"
    shown = holds("Run", (await site.client.get(f"/api/runs/{run['id']}")).json())
    assert shown == run


async def test_a_run_that_goes_on_is_202_and_is_canceled_once(site: Site) -> None:
    answer = await site.client.post("/api/runs", json={"goal": "hold"})
    assert answer.status_code == 202
    path = answer.headers["location"]
    assert holds("Run", (await site.client.post(f"{path}/cancel")).json())["state"] == "canceled"
    again = await site.client.post(f"{path}/cancel")
    assert again.status_code == 409
    waited = await site.client.get(path, params={"wait_s": 5})
    assert waited.json()["state"] == "canceled"


async def test_the_whole_assignment_can_be_said(site: Site) -> None:
    message = {"parts": [{"text": "echo x"}, {"data": {"a": 1}}]}
    body = {
        "message": message,
        "agent_id": "tools",
        "capability": "add",
        "arguments": {"a": 1},
        "context_id": "c1",
        "budget": {"depth": 2, "calls": 5},
    }
    headers = {"Idempotency-Key": "k1"}
    first = (await site.client.post("/api/runs", json=body, headers=headers)).json()
    again = (await site.client.post("/api/runs", json=body, headers=headers)).json()
    assert first["id"] == again["id"]
    (assignment,) = site.supervisor.assignments
    assert (assignment.agent_id, assignment.capability, assignment.arguments) == ("tools", "add", {"a": 1})
    assert (assignment.context_id, assignment.budget.depth, assignment.budget.calls) == ("c1", 2, 5)
    assert first["goal"]["parts"] == message["parts"]


async def test_questions_are_shown_and_answered(site: Site) -> None:
    run = await submit(site, "ask")
    assert run["state"] == "input_required"
    (question,) = run["questions"]
    assert question["parts"] == [{"text": "Which colour?"}]
    body = {"text": "blue", "question_id": question["id"], "wait_s": 5}
    done = holds("Run", (await site.client.post(f"/api/runs/{run['id']}/answer", json=body)).json())
    assert (done["state"], done["parts"]) == ("completed", [{"text": "blue"}])
    late = await site.client.post(f"/api/runs/{run['id']}/answer", json=body)
    assert (late.status_code, late.json()["code"]) == (409, "QUESTION_NOT_FOUND")


async def test_a_question_may_be_declined(site: Site) -> None:
    run = await submit(site, "ask")
    done = await site.client.post(f"/api/runs/{run['id']}/answer", json={"accepted": False, "wait_s": 5})
    assert done.json()["parts"] == [{"text": "no colour then"}]


async def test_a_failed_run_says_why(site: Site) -> None:
    run = await submit(site, "fail drawer is full")
    assert run["error"] == {"reason": "AGENT_REFUSED", "message": "drawer is full", "step": "work"}


async def test_runs_are_listed_a_page_at_a_time_and_filtered(site: Site) -> None:
    made = [(await submit(site, f"echo {n}", context_id="c" if n else ""))["id"] for n in range(3)]
    page = holds("Runs", (await site.client.get("/api/runs", params={"limit": 2})).json())
    assert [run["id"] for run in page["runs"]] == made[:0:-1]
    assert "steps" not in page["runs"][0]
    rest = (await site.client.get("/api/runs", params={"limit": 2, "before": page["next_before"]})).json()
    assert [run["id"] for run in rest["runs"]] == made[:1]
    assert rest["next_before"] is None
    of_context = (await site.client.get("/api/runs", params={"context_id": "c", "state": "completed"})).json()
    assert len(of_context["runs"]) == 2
    assert (await site.client.get("/api/runs", headers={"Authorization": "Bearer bob-key"})).json()["runs"] == []


@pytest.mark.parametrize("key", ["bob-key", "eve-key"])
async def test_another_s_run_is_not_found_by_any_way(site: Site, key: str) -> None:
    run = await submit(site, "ask")
    headers = {"Authorization": f"Bearer {key}"}
    for method, path in (("GET", ""), ("POST", "/cancel"), ("POST", "/answer"), ("GET", "/events")):
        answer = await site.client.request(method, f"/api/runs/{run['id']}{path}", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "RUN_NOT_FOUND") or (
            answer.json()["code"] == "TASK_NOT_FOUND"
        )


# Events


async def test_events_are_told_from_a_number_on(site: Site) -> None:
    run = await submit(site, "count 2")
    path = f"/api/runs/{run['id']}/events"
    page = holds("Events", (await site.client.get(path, params={"limit": 3})).json())
    assert [event["seq"] for event in page["events"]] == [1, 2, 3]
    rest = (await site.client.get(path, params={"after": page["next_after"]})).json()
    assert [event["seq"] for event in rest["events"]] == list(range(4, run["generation"] + 1))
    assert rest["events"][-1]["kind"] == "run_completed"


async def test_events_stream_as_they_happen_and_begin_again_where_they_broke_off(site: Site) -> None:
    run = (await site.client.post("/api/runs", json={"goal": "hold"})).json()
    path = f"/api/runs/{run['id']}/events"
    told: list[httpx.Response] = []

    async def follow(**headers: str) -> None:
        given = {"Accept": "text/event-stream", **headers}
        with anyio.fail_after(5):
            told.append(await site.client.get(path, headers=given))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        site.supervisor.release(run["id"])
    first = server_sent(told[0].text)
    assert [event["seq"] for event in first] == list(range(1, len(first) + 1))
    assert first[-1]["kind"] == "run_completed"
    for event in first:
        holds("Event", event)
    await follow(**{"Last-Event-ID": "3"})
    assert [event["seq"] for event in server_sent(told[1].text)] == list(range(4, len(first) + 1))
    wrong = await site.client.get(path, headers={"Accept": "text/event-stream", "Last-Event-ID": "x"})
    assert wrong.status_code == 400


def server_sent(text: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    for block in text.split("\r\n\r\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            event = orjson.loads(fields["data"])
            assert fields["id"] == str(event["seq"])
            assert fields["event"] == event["kind"]
            events.append(event)
    return events


# Workflows


async def test_a_workflow_is_checked_without_being_registered(site: Site) -> None:
    good = await site.client.post("/api/workflows/check", json={"document": {"kind": "workflow", "name": "w"}})
    assert holds("Checked", good.json())["agent"]["id"] == "w"
    assert [agent["id"] for agent in (await site.client.get("/api/agents")).json()["agents"]] == ["clerk", "tools"]
    bad = await site.client.post("/api/workflows/check", json={"document": {"kind": "workflow"}})
    assert (bad.status_code, bad.json()["code"]) == (422, "PLAN_INVALID")
    assert bad.json()["mistakes"] == [{"where": "name", "what": "is missing"}]


# Bad input


WRONG_BODIES: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    ("/api/agents", {"kind": "url", "urll": "x"}, {"url": "is missing", "urll": "did you mean 'url'?"}),
    ("/api/agents", {"url": "http://x"}, {"kind": "is missing"}),
    ("/api/agents", {"kind": "ulr"}, {"kind": "'ulr' is not one of"}),
    ("/api/agents", {"kind": "command", "command": []}, {"command": "at least 1 item"}),
    ("/api/agents", {**SCRIPTED, "endpoint": {"binding": "X"}}, {"endpoint.binding": "should be"}),
    ("/api/agents", {**SCRIPTED, "endpoint": {"bind": "MCP-HTTP"}}, {"endpoint.bind": "did you mean 'binding'?"}),
    ("/api/runs", {"gaol": "x"}, {"gaol": "did you mean 'goal'?"}),
    ("/api/runs", {"goal": "x", "budget": {"dept": 1}}, {"budget.dept": "did you mean 'depth'?"}),
    ("/api/runs", {"goal": 5}, {"goal": "valid string"}),
    ("/api/runs", {}, {"goal": "is missing"}),
    ("/api/runs", {"goal": "a", "message": {"parts": []}}, {"message": "beside goal"}),
    ("/api/runs", {"message": {"parts": [{"txt": "x"}]}}, {"message": "a part needs one of"}),
    ("/api/runs/x/answer", {"parts": [{}]}, {"parts[0]": "a part needs one of"}),
    ("/api/agents/clerk/call", {"resume": {"txt": "x"}}, {"resume.txt": "did you mean 'text'?"}),
    ("/api/agents/clerk/call", {"timeout_s": -1}, {"timeout_s": "greater than 0"}),
]


@pytest.mark.parametrize(("path", "body", "mistakes"), WRONG_BODIES)
async def test_a_wrong_body_is_refused_with_every_place_and_the_nearest_name(
    site: Site, path: str, body: dict[str, Any], mistakes: dict[str, str]
) -> None:
    answer = await site.client.post(path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_PARAMS")
    told = {mistake["where"]: mistake["what"] for mistake in answer.json()["mistakes"]}
    for where, what in mistakes.items():
        assert what in told[where], told


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"[" * 100_000, b'"text"'])
async def test_a_body_that_is_no_json_object_is_refused(site: Site, body: bytes) -> None:
    answer = await site.client.post("/api/runs", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_PARAMS")
    assert len(answer.content) < 2000


@pytest.mark.parametrize(
    ("query", "where", "what"),
    [
        ("limit=0", "limit", "greater than or equal"),
        ("limit=x", "limit", "valid integer"),
        ("stat=completed", "stat", "did you mean 'state'?"),
        ("state=done", "state", "should be"),
    ],
)
async def test_a_wrong_query_is_refused(site: Site, query: str, where: str, what: str) -> None:
    answer = await site.client.get(f"/api/runs?{query}")
    assert answer.status_code == 400
    (mistake,) = answer.json()["mistakes"]
    assert mistake["where"] == where
    assert what in mistake["what"]


# Probes and the document


async def test_probes_need_no_key_and_say_what_is_missing(site: Site) -> None:
    transport = httpx.ASGITransport(site.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://hub.test") as client:
        assert holds("Liveness", (await client.get("/healthz")).json())["status"] == "ok"
        assert holds("Readiness", (await client.get("/readyz")).json()) == {"ready": True, "not_ready": {}}
        site.missing["engine"] = "has not started"
        answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert holds("Readiness", answer.json()) == {"ready": False, "not_ready": {"engine": "has not started"}}


async def test_the_document_lists_every_route_and_every_route_is_in_it(site: Site) -> None:
    document = (await site.client.get("/api/openapi.json")).json()
    assert document["openapi"].startswith("3.1")

    async def readiness() -> dict[str, str]:
        return {}

    routes = list(Starlette(routes=rest_routes(site.hub, readiness=readiness)).routes)
    served = {
        (method, route.path)
        for route in routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert served == described
    names = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    assert len(names) == len(set(names))


async def test_every_reference_of_the_document_leads_somewhere_and_every_schema_is_one(site: Site) -> None:
    document = (await site.client.get("/api/openapi.json")).json()
    schemas = document["components"]["schemas"]

    def references(node: Json) -> set[str]:
        match node:
            case Mapping():
                reference = node.get("$ref")
                inner = {name for value in node.values() for name in references(value)}
                return inner | ({reference} if isinstance(reference, str) else set())
            case list():
                return {name for value in node for name in references(value)}
            case _:
                return set()

    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    body = document["paths"]["/api/agents"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert len(body["oneOf"]) == 5
    assert schemas["AddUrl"]["additionalProperties"] is False
