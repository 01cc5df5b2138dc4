"""An agent on fasta2a's own server: echoes, and never waits."""

# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
# It runs in an environment of its own.

import argparse
import json
import socket
import uuid
from contextlib import asynccontextmanager

import uvicorn
from fasta2a import FastA2A, Worker
from fasta2a.broker import InMemoryBroker
from fasta2a.storage import InMemoryStorage


class Echo(Worker):
    """Says what was said."""

    async def run_task(self, params):
        task = await self.storage.load_task(params["id"])
        await self.storage.update_task(task["id"], state="working")
        words = "".join(part.get("text", "") for part in task["history"][-1]["parts"])
        parts = [{"text": f"echo {words}"}]
        await self.storage.update_task(
            task["id"],
            state="completed",
            new_artifacts=[{"artifact_id": str(uuid.uuid4()), "parts": parts}],
        )

    async def cancel_task(self, params):
        await self.storage.update_task(params["id"], state="canceled")

    def build_message_history(self, history):
        return history

    def build_artifacts(self, result):
        return []


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    listening = socket.create_server(("127.0.0.1", parser.parse_args().port))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    storage, broker = InMemoryStorage(), InMemoryBroker()

    @asynccontextmanager
    async def lifespan(app):
        async with app.task_manager, Echo(broker=broker, storage=storage).run():
            yield

    app = FastA2A(storage=storage, broker=broker, name="fast clerk", url=url, lifespan=lifespan)

    class Announcing(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            print(json.dumps({"url": url}), flush=True)

    Announcing(uvicorn.Config(app, log_level="critical")).run(sockets=[listening])


if __name__ == "__main__":
    main()
