"""An agent in the hub's own process whose functions take long, ask and fail: the fixtures of the tasks scenarios."""

import anyio
from mcp_types import INTERNAL_ERROR

from interhub.adapters import Completed, InputRequest, InputRequired, Outcome, RemoteRefused, Resume, TextPart
from interhub.adapters.local import as_task
from interhub.agent_cards import JsonObject, TaskSupport

CONFIRM: JsonObject = {"type": "object", "properties": {"confirm": {"type": "boolean"}}, "required": ["confirm"]}
NAME: JsonObject = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


async def greet(name: str = "World") -> str:
    """Greets at once."""
    return f"Hello, {name}!"


@as_task()
async def slow_compute(seconds: float, label: str = "") -> str:
    """Sleeps, and says so."""
    await anyio.sleep(seconds)
    return f"computed {label} in {seconds:g} s"


@as_task(TaskSupport.REQUIRED)
async def failing_job() -> str:
    """Fails as a tool does."""
    raise ValueError("it never works")


@as_task()
async def protocol_error_job() -> str:
    """Fails as a protocol does."""
    raise RemoteRefused("jobs", "the job broke", (), INTERNAL_ERROR)


@as_task()
async def confirm_delete(filename: str, resume: Resume | None) -> Outcome:
    """Asks before it deletes nothing."""
    if resume is None:
        return InputRequired(question=(TextPart(text=f"Delete {filename}?"),), schema=CONFIRM)
    return Completed(parts=(TextPart(text=f"deleted {filename}" if resume.accepted else "kept"),))


@as_task()
async def multi_input(resume: Resume | None) -> Outcome:
    """Asks two things at once."""
    if resume is None:
        wanted = (("first", "Who?", NAME), ("second", "Sure?", CONFIRM))
        return InputRequired.several(
            [InputRequest(key=key, question=(TextPart(text=text),), schema=schema) for key, text, schema in wanted]
        )
    return Completed(parts=resume.answer)


@as_task(TaskSupport.REQUIRED, asks_first=True)
async def test_tool_with_task(resume: Resume | None) -> Outcome:
    """Asks for a name, and greets it as a task."""
    if resume is None:
        return InputRequired(question=(TextPart(text="What is your name?"),), schema=NAME)
    return Completed(parts=(TextPart(text=f"Hello, {resume.answer}"),))


jobs = {
    each.__name__: each
    for each in (
        greet,
        slow_compute,
        failing_job,
        protocol_error_job,
        confirm_delete,
        multi_input,
        test_tool_with_task,
    )
}
