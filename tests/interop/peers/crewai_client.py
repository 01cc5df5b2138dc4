"""CrewAI's A2A client (A2A 0.3) asks an agent of the hub: `crewai_client.py URL KEY`, URL being the agent's."""

# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
# It runs in an environment of its own.

import asyncio
import json
import os
import sys
import tempfile

os.environ.update(CREWAI_DISABLE_TELEMETRY="true", OTEL_SDK_DISABLED="true", CREWAI_STORAGE_DIR=tempfile.mkdtemp())
REAL = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # it paints panels on its output

from crewai.a2a.auth.client_schemes import BearerTokenAuth  # noqa: E402
from crewai.a2a.config import A2AClientConfig  # noqa: E402
from crewai.a2a.utils.delegation import aexecute_a2a_delegation  # noqa: E402


async def main() -> None:
    config = A2AClientConfig(endpoint=f"{sys.argv[1]}/.well-known/agent-card.json")

    async def say(text: str, **more: object) -> dict:
        return await aexecute_a2a_delegation(
            endpoint=config.endpoint,
            transport=config.transport,
            auth=BearerTokenAuth(token=sys.argv[2]),
            timeout=30,
            task_description=text,
            agent_id="researcher",
            **more,
        )

    echoed = await say("echo hello")
    asked = await say("ask")
    said = {"echo": [str(echoed["status"]), echoed.get("result")], "ask": [str(asked["status"]), asked.get("error")]}
    print(json.dumps(said), file=REAL, flush=True)


asyncio.run(main())
