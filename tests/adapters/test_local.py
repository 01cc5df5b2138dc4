"""Python callables as agents."""

import threading
from pathlib import Path
from typing import Literal

import anyio
import pytest
from pydantic import BaseModel

from interhub.adapters import (
    BadEndpoint,
    Call,
    Completed,
    InputRequired,
    Message,
    Outcome,
    Principal,
    Progress,
    RemoteRefused,
    Report,
    Resume,
    Role,
    TextPart,
    Update,
    ignore,
)
from interhub.adapters.local import LocalAdapter
from interhub.adapters.testing import said
from interhub.agent_cards import Binding, Endpoint, JsonObject

pytestmark = pytest.mark.anyio


def call(capability: str = "", arguments: JsonObject | None = None, **more: object) -> Call:
    return Call(
        capability=capability,
        arguments=arguments or {},
        principal=Principal(subject="ann"),
        idempotency_key="run/1",
        **more,  # type: ignore[arg-type] # a test's short form
    )


async def use(target: object, wanted: Call, report: Report = ignore) -> Outcome:
    adapter = LocalAdapter({"it": target})
    endpoint = Endpoint(binding=Binding.LOCAL, options={"target": "it"})
    card = await adapter.describe(endpoint)
    async with adapter.connect(endpoint, card=card, label="it") as connection:
        return await connection.call(wanted, report)


class Weather(BaseModel):
    city: str
    degrees: float


async def weather(city: str, unit: Literal["C", "F"] = "C") -> Weather:
    """Say how warm it is."""
    return Weather(city=city, degrees=20.5)


async def test_the_schema_comes_from_the_signature() -> None:
    adapter = LocalAdapter({"weather": weather})
    card = await adapter.describe(Endpoint(binding=Binding.LOCAL, options={"target": "weather"}))
    (skill,) = card.capabilities
    assert (skill.name, skill.description) == ("weather", "Say how warm it is.")
    assert skill.input_schema["required"] == ["city"]
    assert skill.output_schema is not None
    assert skill.output_schema["required"] == ["city", "degrees"]


async def test_a_result_that_is_not_text_is_structured() -> None:
    outcome = await use(weather, call(arguments={"city": "Oslo"}))
    assert isinstance(outcome, Completed)
    assert outcome.structured == {"city": "Oslo", "degrees": 20.5}


async def test_wrong_arguments_are_refused_with_their_place() -> None:
    with pytest.raises(RemoteRefused, match="city: Field required; unit: Input should be 'C' or 'F'; town: Extra"):
        await use(weather, call(arguments={"unit": "K", "town": "Oslo"}))


async def test_a_number_does_for_text_and_a_text_that_is_one_for_a_number() -> None:
    def repeat(text: str, times: int) -> str:
        return text * times

    assert said(await use(repeat, call(arguments={"text": 7, "times": "3"}))) == "777"
    with pytest.raises(RemoteRefused, match="text: Input should be a valid string"):
        await use(repeat, call(arguments={"text": [7], "times": 1}))


async def test_a_message_goes_to_the_only_text_parameter() -> None:
    def shout(words: str, times: int = 1) -> str:
        return words.upper() * times

    message = Message(role=Role.USER, parts=(TextPart(text="hey"),))
    assert said(await use(shout, call(message=message))) == "HEY"
    assert said(await use(shout, call(arguments={"message": "ho", "data": {"times": 2}}))) == "HOHO"


async def test_a_plain_function_runs_in_a_thread_and_reports_from_there() -> None:
    updates: list[Update] = []

    async def report(update: Update) -> None:
        updates.append(update)

    def dig(report: object) -> str:
        assert callable(report)
        report(Progress(text="digging"))
        return threading.current_thread().name

    outcome = await use(dig, call(), report)
    assert said(outcome) != threading.current_thread().name
    assert updates == [Progress(text="digging")]


async def test_a_cancelled_plain_function_is_left_behind() -> None:
    begun, release = threading.Event(), threading.Event()

    def stubborn() -> None:
        begun.set()
        release.wait(30)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(use, stubborn, call())
            await anyio.to_thread.run_sync(begun.wait)
            tasks.cancel_scope.cancel()
    release.set()


async def test_plain_functions_at_work_leave_the_hub_its_own_threads() -> None:
    release = threading.Event()
    adapter = LocalAdapter({"wait": lambda: release.wait(30)})
    endpoint = Endpoint(binding=Binding.LOCAL, options={"target": "wait"})
    hubs_own = anyio.to_thread.current_default_thread_limiter()
    at_work = int(hubs_own.total_tokens) + 1
    async with adapter.connect(endpoint, card=await adapter.describe(endpoint), label="wait") as connection:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for _ in range(at_work):
                    tasks.start_soon(connection.call, call(), ignore)
                await anyio.wait_all_tasks_blocked()
                await anyio.to_thread.run_sync(release.set)


async def test_a_question_is_returned_and_its_answer_given() -> None:
    async def ask(resume: Resume | None) -> str | InputRequired:
        if resume is None:
            return InputRequired(question=(TextPart(text="blue?"),), state={"n": 1})
        return f"{resume.state} {resume.answer[0]}"

    asked = await use(ask, call())
    assert isinstance(asked, InputRequired)
    resume = Resume(answer=(TextPart(text="green"),), state=asked.state)
    assert "green" in said(await use(ask, call(resume=resume)))


async def test_an_exception_is_a_refusal() -> None:
    def fail() -> None:
        raise ValueError("out of paper")

    with pytest.raises(RemoteRefused, match="ValueError: out of paper"):
        await use(fail, call())


async def test_an_objects_public_methods_are_its_skills() -> None:
    class Desk:
        def open(self) -> str:
            return "opened"

        def close(self) -> str:
            return "closed"

        def _secret(self) -> str:
            return "no"

    assert said(await use(Desk(), call("close"))) == "closed"
    with pytest.raises(RemoteRefused, match="no '_secret', only close, open"):
        await use(Desk(), call("_secret"))


async def test_a_file_is_imported_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def hello(name: str) -> str:\n    return 'hello ' + name\n")
    adapter = LocalAdapter()
    endpoint = Endpoint(binding=Binding.LOCAL, options={"target": f"{tmp_path}/mine.py:hello"})
    card = await adapter.describe(endpoint)
    async with adapter.connect(endpoint, card=card, label="mine") as connection:
        assert said(await connection.call(call(arguments={"name": "Ann"}), ignore)) == "hello Ann"


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("", "no target is named"),
        ("nothing", "no local agent has that name"),
        ("no.such.module:f", "does not import: ModuleNotFoundError"),
        ("json:nothing", "json has no 'nothing'"),
        ("/no/such/file.py:f", "there is no file"),
        ("sys:version", "nothing in it that can be called"),
    ],
)
async def test_a_target_that_cannot_be_used_is_said_so(target: str, why: str) -> None:
    with pytest.raises(BadEndpoint, match=why):
        await LocalAdapter().describe(Endpoint(binding=Binding.LOCAL, options={"target": target}))
