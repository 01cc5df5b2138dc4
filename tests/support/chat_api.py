"""A scripted model behind an OpenAI-compatible endpoint on loopback: it answers what a test has put in its queue."""

import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Request = dict[str, Any]
INPUT_TOKENS, OUTPUT_TOKENS = 100, 20


@dataclass
class Said:
    """One answer: an object (by tool call or as JSON, as the client asks), a text, a refusal, or an HTTP error."""

    value: dict[str, Any] | None = None
    text: str | None = None
    refusal: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    hold: threading.Event | None = None
    """It is not said before this is set."""
    finish: str = ""


@dataclass
class ChatModel:
    """What it will say, in order; then `otherwise`, if there is something. Whatever it was asked is kept."""

    answers: list[Said] = field(default_factory=list[Said])
    otherwise: Callable[[Request], Said] | None = None
    url: str = ""
    requests: list[Request] = field(default_factory=list[Request])
    keys: list[str] = field(default_factory=list[str])
    """The idempotency keys of the requests."""
    tokens: list[str] = field(default_factory=list[str])
    """What they gave for authorization."""
    came: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, number: int) -> bool:
        """Return once so many requests have come; False when they do not come for a minute."""
        with self.came:
            return self.came.wait_for(lambda: len(self.requests) >= number, 60)

    def say(self, *answers: dict[str, Any] | Said) -> "ChatModel":
        """Queue answers."""
        self.answers += [answer if isinstance(answer, Said) else Said(value=answer) for answer in answers]
        return self

    def prompt(self, number: int = -1) -> str:
        """Return all that a request says, as one text."""
        return "\n".join(str(message.get("content")) for message in self.requests[number]["messages"])


def plan(*steps: dict[str, Any], why: str = "it follows", **more: Any) -> dict[str, Any]:
    """A planner's answer."""
    return {"why": why, "plan": {"steps": list(steps), **more}}


def call(step_id: str, agent: str, message: str = "{{ goal }}", **more: Any) -> dict[str, Any]:
    """A step that calls an agent."""
    arguments = more.pop("arguments", None)
    capability = more.pop("capability", None)
    said: dict[str, Any] = {"agent": agent}
    if capability:
        said["capability"] = capability
    said |= {"arguments": arguments} if arguments is not None else {"message": message}
    return {"id": step_id, "call": said, **more}


@contextmanager
def chat_api(model: ChatModel) -> Generator[ChatModel]:
    """Serve a model on a free port of loopback, at `/v1`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request: Request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with model.came:
                model.came.notify_all()
                model.requests.append(request)
                model.keys.append(self.headers.get("idempotency-key", ""))
                model.tokens.append(self.headers.get("authorization", ""))
                if model.answers:
                    said = model.answers.pop(0)
                elif model.otherwise is not None:
                    said = model.otherwise(request)
                else:
                    said = Said(status=500, text="the test has no more answers")
            if said.hold is not None:
                said.hold.wait(30)
            self._send(said, _completion(request, said))

        def _send(self, said: Said, body: dict[str, Any]) -> None:
            written = json.dumps(body).encode()
            try:
                self.send_response(said.status)
                for name, value in {"content-type": "application/json", **said.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(written)))
                self.end_headers()
                self.wfile.write(written)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client had no more patience

        def log_message(self, format: str, *args: Any) -> None:  # the base class's name for it
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    model.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield model
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _completion(request: Request, said: Said) -> dict[str, Any]:
    if said.status != 200:
        return {"error": {"message": said.text or "no", "type": "error"}}
    message: dict[str, Any] = {"role": "assistant", "content": said.text}
    finish = "stop"
    if said.refusal:
        message["refusal"] = said.refusal
    elif said.value is not None:
        written = json.dumps(said.value)
        if request.get("tools"):
            name = request["tools"][0]["function"]["name"]
            message["tool_calls"] = [
                {"id": "call_1", "type": "function", "function": {"name": name, "arguments": written}}
            ]
            finish = "tool_calls"
        else:
            message["content"] = written
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": request["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": said.finish or finish}],
        "usage": {
            "prompt_tokens": INPUT_TOKENS,
            "completion_tokens": OUTPUT_TOKENS,
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        },
    }
