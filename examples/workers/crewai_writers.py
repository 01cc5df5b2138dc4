"""Turns notes into a short brief: a writer drafts it and an editor tightens it.

A CrewAI crew of two agents and two tasks. The model is scripted, so it runs offline and costs nothing: it composes what
it says from the prompt it is given. Put a real LLM in its place to have a real brief.

    interhub agents add examples/workers/crewai_writers.py:crew --framework crewai
"""

import json
import os
import re
from typing import Any

from crewai import Agent, BaseLLM, Crew, Process, Task


class ScriptedModel(BaseLLM):
    """Answers from the prompt alone: as the writer from the notes in it, as the editor from the writer's draft."""

    def call(self, messages: Any, *args: Any, **kwargs: Any) -> str:
        prompt = messages if isinstance(messages, str) else "\n".join(str(one["content"]) for one in messages)
        text = self._edit(prompt) if "Tighten the draft" in prompt else self._write(prompt)
        self._track_token_usage_internal({"prompt_tokens": len(prompt.split()), "completion_tokens": len(text.split())})
        return f"Thought: I can answer.\nFinal Answer: {text}"

    async def acall(self, *args: Any, **kwargs: Any) -> str:
        return self.call(*args, **kwargs)

    def supports_function_calling(self) -> bool:
        return False

    def _write(self, prompt: str) -> str:
        found = re.search(r"<notes>\s*(.*?)\s*</notes>", prompt, flags=re.DOTALL)
        lines = [line.strip(" -*") for line in (found[1] if found else "").splitlines() if line.strip(" -*")]
        points = [line.partition(": ")[2] or line for line in lines]
        return "DRAFT\n" + "\n".join(f"{number}. {point}" for number, point in enumerate(points, 1))

    def _edit(self, prompt: str) -> str:
        draft = prompt.rpartition("DRAFT")[2]
        points = [found[1].strip() for found in re.finditer(r"^\s*\d+\. (.+)$", draft, flags=re.MULTILINE)]
        if not points:
            return "Brief: there was nothing in the notes."
        title, *body = points
        return f"Brief: {title}\n" + " ".join(point if point.endswith(".") else f"{point}." for point in body)


model = ScriptedModel(model="scripted")

writer = Agent(
    role="Writer",
    goal="Turn notes into a draft that leaves nothing out",
    backstory="You write plainly and in order.",
    llm=model,
    allow_delegation=False,
)
editor = Agent(
    role="Editor",
    goal="Make every draft short and clear",
    backstory="You cut what does not help the reader.",
    llm=model,
    allow_delegation=False,
)
draft = Task(
    name="draft",
    description="Draft a brief from these notes.\n<notes>\n{notes}\n</notes>",
    expected_output="A numbered draft",
    agent=writer,
)
edit = Task(
    name="edit",
    description="Tighten the draft that you are given as context into a short brief.",
    expected_output="A brief with a title line",
    agent=editor,
    context=[draft],
)


def log_execution(inputs: dict[str, Any] | None) -> dict[str, Any]:
    """Write down that the crew was kicked off, so that it can be proved what ran how often."""
    inputs = inputs or {}
    path = os.environ.get("INTERHUB_EXAMPLE_LOG")
    if path:
        line = {"agent": "writers", "key": inputs.get("idempotency_key", ""), "pid": os.getpid()}
        with open(path, "a") as log:
            log.write(json.dumps(line) + "\n")
    return inputs


crew = Crew(
    name="writers",
    agents=[writer, editor],
    tasks=[draft, edit],
    process=Process.sequential,
    before_kickoff_callbacks=[log_execution],
)
