"""Crews, agents and flows of every make."""

# It runs in a worker's environment; what it imports is not in ours.
# mypy: ignore-errors
# pyright: basic, reportMissingImports=false

import os

from crewai import Agent, BaseLLM, Crew, Task
from crewai.flow import Flow, start
from pydantic import BaseModel


class Model(BaseLLM):
    """Says what the last message was about."""

    def call(self, messages, *args, **more):
        with open(os.environ["CALLS"], "a") as log:
            log.write("called\n")
        last = messages if isinstance(messages, str) else str(messages[-1]["content"])
        self._track_token_usage_internal({"prompt_tokens": 10, "completion_tokens": 5})
        if "die now" in last:
            os._exit(9)
        wanted = last.partition("Say ")[2].partition("\n")[0] if "Say " in last else last
        return f"Thought: easy\nFinal Answer: said {wanted}"


def speaker():
    model = Model(model="scripted")
    return Agent(role="Speaker {tone}", goal="Speak", backstory="Speaks.", llm=model, allow_delegation=False)


def make(human):
    agent = speaker()
    task = Task(description="Say {topic}", expected_output="words", agent=agent, human_input=human)
    return Crew(name="speakers", agents=[agent], tasks=[task])


crew = make(human=False)
reviewed = make(human=True)
agent = Agent(role="Speaker", goal="Speak", backstory="Speaks.", llm=Model(model="scripted"))


class Wanted(BaseModel):
    topic: str = ""


class Asking(Flow[Wanted]):
    @start()
    def begin(self):
        first = self.ask(f"What of {self.state.topic}?")
        second = self.ask("And then?")
        return {"first": first, "second": second}
