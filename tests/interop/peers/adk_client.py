"""Google's ADK asks an agent of the hub by its `RemoteA2aAgent`: `adk_client.py URL`, URL being the agent's address."""

# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
# It runs in an environment of its own.

import asyncio
import json
import sys
import warnings

warnings.simplefilter("ignore")

from google.adk.agents.remote_a2a_agent import RemoteA2aAgent  # noqa: E402
from google.adk.runners import Runner  # noqa: E402
from google.adk.sessions import InMemorySessionService  # noqa: E402
from google.genai import types  # noqa: E402


async def main() -> None:
    agent = RemoteA2aAgent(name="clerk", agent_card=f"{sys.argv[1]}/.well-known/agent-card.json")
    sessions = InMemorySessionService()
    runner = Runner(app_name="interop", agent=agent, session_service=sessions, auto_create_session=True)

    async def say(text: str, session: str = "one") -> list[str]:
        message = types.Content(role="user", parts=[types.Part(text=text)])
        words = []
        async for event in runner.run_async(user_id="ann", session_id=session, new_message=message):
            if event.error_message:
                words.append(f"error: {event.error_message}")
            parts = event.content.parts if event.content else []
            words += [part.text for part in parts if part.text and not event.partial]
        return words

    print(
        json.dumps(
            {"echo": await say("echo hello"), "ask": await say("ask", "two"), "answer": await say("blue", "two")}
        )
    )


asyncio.run(main())
