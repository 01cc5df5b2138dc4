"""Language models through pydantic-ai: any endpoint that speaks OpenAI's chat completions, and its other providers.

It takes three seconds and 70 MB to import, so that is done with the first call. Retries of the client are off: every
call is recorded by whoever makes it, and may be made again by them.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, assert_never, cast

import anyio.to_thread
import orjson

from interhub.adapters import BadEndpoint, Usage
from interhub.adapters.expand import expand
from interhub.agent_cards import Json
from interhub.hub.errors import ModelRefused, ModelUnavailable

from .llm import Prompt, Reply
from .outputs import read_json

if TYPE_CHECKING:  # not to hide a cycle, but because the import is slow; see the module's docstring
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models import Model, ModelRequestParameters

_OPENAI = frozenset({"openai", "openai-chat"})
_MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Where a model is, and how it is asked."""

    name: str
    model: str
    """As its provider names it."""
    provider: str = "openai"
    base_url: str = ""
    api_key: str = ""
    """May have `${NAME}` in it, taken from the environment when the model is first asked."""
    output: Literal["tool", "json", "prompt"] = "tool"
    timeout_s: float = 120.0
    max_tokens: int | None = None
    temperature: float | None = None
    input_usd_per_million: float = 0.0
    output_usd_per_million: float = 0.0


class PydanticAiModel:
    """One model. Its client is made with the first call, and kept."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._client: Model[Any] | None = None

    @property
    def name(self) -> str:
        """As the settings name it."""
        return self._spec.name

    async def ask(self, prompt: Prompt) -> Reply:
        """Make one call.

        Raises:
            ModelUnavailable: no answer came.
            ModelRefused: the model, or a filter of its provider, declines.
        """
        await anyio.to_thread.run_sync(_load)
        from pydantic_ai.direct import model_request
        from pydantic_ai.exceptions import (
            ContentFilterError,
            ModelAPIError,
            ModelHTTPError,
            UnexpectedModelBehavior,
            UserError,
        )
        from pydantic_ai.settings import ModelSettings

        spec = self._spec
        settings = ModelSettings(timeout=spec.timeout_s, max_retries=0)
        if prompt.key:
            settings["extra_headers"] = {"Idempotency-Key": prompt.key}
        if spec.max_tokens is not None:
            settings["max_tokens"] = spec.max_tokens
        if spec.temperature is not None:
            settings["temperature"] = spec.temperature
        try:
            if self._client is None:
                self._client = _open(spec)
                await self._client.__aenter__()
            with anyio.fail_after(spec.timeout_s):
                response = await model_request(
                    self._client,
                    _messages(prompt, spec.output),
                    model_settings=settings,
                    model_request_parameters=_parameters(prompt, spec.output),
                )
        except ModelHTTPError as error:
            passing = error.status_code in (408, 409, 429) or error.status_code >= 500
            headers = error.headers or {}
            why = f"HTTP {error.status_code}: {_said(error.body)}"
            raise ModelUnavailable(self.name, why, passing, _seconds(headers.get("retry-after"))) from error
        except ContentFilterError as error:
            raise ModelRefused(self.name, str(error)) from error
        except TimeoutError as error:
            raise ModelUnavailable(self.name, f"it did not answer within {spec.timeout_s:g} s", True) from error
        except ModelAPIError as error:
            raise ModelUnavailable(self.name, error.message, True) from error
        except UnexpectedModelBehavior as error:
            raise ModelUnavailable(self.name, f"its answer cannot be read: {error.message}", True) from error
        except (UserError, ImportError, BadEndpoint) as error:
            raise ModelUnavailable(self.name, str(error), False) from error
        return self._reply(response)

    async def close(self) -> None:
        """Close its connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__(None, None, None)

    def _reply(self, response: "ModelResponse") -> Reply:
        from pydantic_ai.messages import TextPart, ToolCallPart

        refusal = (response.provider_details or {}).get("refusal")
        if refusal or response.finish_reason == "content_filter":
            raise ModelRefused(self.name, str(refusal or "its provider's filter stopped it"), self._usage(response))
        said, value = "", cast("Json", None)
        for part in response.parts:
            if isinstance(part, ToolCallPart):
                said = part.args if isinstance(part.args, str) else orjson.dumps(part.args or {}).decode()
                value = read_json(said)
                break
            if isinstance(part, TextPart):
                said += part.content
        else:
            value = read_json(said)
        problem = ""
        if not isinstance(value, dict):
            problem = "the answer is cut off" if response.finish_reason == "length" else "the answer is no JSON object"
        return Reply(
            value=value if isinstance(value, dict) else None,
            said=said,
            problem=problem,
            model=response.model_name or self._spec.model,
            usage=self._usage(response),
        )

    def _usage(self, response: "ModelResponse") -> Usage:
        spec, used = self._spec, response.usage
        cost = used.input_tokens * spec.input_usd_per_million + used.output_tokens * spec.output_usd_per_million
        return Usage(
            input_tokens=used.input_tokens, output_tokens=used.output_tokens, cost_usd=round(cost / _MILLION, 9)
        )


def _load() -> None:
    """Import what the first call needs, on a thread."""
    for name in ("pydantic_ai.direct", "pydantic_ai.models.openai"):
        import_module(name)


def _open(spec: ModelSpec) -> "Model[Any]":
    """Make the client.

    Raises:
        BadEndpoint: a variable of the key is not set.
        UserError, ImportError: the provider is not known, lacks a key, or its package is not installed.
    """
    from pydantic_ai.exceptions import UserError
    from pydantic_ai.models import infer_model
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers import Provider, infer_provider_class
    from pydantic_ai.providers.openai import OpenAIProvider

    key = expand(spec.api_key, os.environ) or None
    url = spec.base_url or None
    if spec.provider in _OPENAI:
        return OpenAIChatModel(spec.model, provider=OpenAIProvider(base_url=url, api_key=key))

    def provider(name: str) -> Provider[Any]:
        make = cast("Callable[..., Provider[Any]]", infer_provider_class(name))
        given = {name: value for name, value in (("base_url", url), ("api_key", key)) if value is not None}
        return make(**given)

    try:
        return infer_model(f"{spec.provider}:{spec.model}", provider)
    except (TypeError, ValueError) as error:
        raise UserError(f"provider {spec.provider!r} cannot be used: {error}") from error


def _messages(prompt: Prompt, output: str) -> "list[ModelMessage]":
    from pydantic_ai.messages import ModelRequest, ModelResponse, SystemPromptPart, TextPart, UserPromptPart

    instructions = prompt.instructions
    if output == "prompt":
        schema = orjson.dumps(prompt.schema).decode()
        instructions += f"\n\nAnswer with one JSON object, and nothing else, that fits this JSON Schema:\n{schema}"
    messages: list[ModelMessage] = []
    for number, turn in enumerate(prompt.turns):
        if turn.role == "assistant":
            messages.append(ModelResponse(parts=[TextPart(content=turn.text)]))
            continue
        asked = UserPromptPart(content=turn.text)
        messages.append(ModelRequest(parts=[asked] if number else [SystemPromptPart(content=instructions), asked]))
    return messages


def _parameters(prompt: Prompt, output: Literal["tool", "json", "prompt"]) -> "ModelRequestParameters":
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.output import OutputObjectDefinition
    from pydantic_ai.tools import ToolDefinition

    schema = dict(prompt.schema)
    match output:
        case "tool":
            tool = ToolDefinition(
                name=f"give_{prompt.purpose}",
                description=f"Give the {prompt.purpose}.",
                parameters_json_schema=cast("dict[str, Any]", schema),
                kind="output",
                strict=False,
            )
            return ModelRequestParameters(output_mode="tool", output_tools=[tool], allow_text_output=False)
        case "json":
            made = OutputObjectDefinition(json_schema=cast("dict[str, Any]", schema), name=prompt.purpose, strict=False)
            return ModelRequestParameters(output_mode="native", output_object=made, allow_text_output=True)
        case "prompt":
            return ModelRequestParameters()
        case _:
            assert_never(output)


def _said(body: object) -> str:
    """Return what an error's body says, shortened."""
    inner: object = body
    if isinstance(inner, dict):
        shaped = cast("dict[str, object]", inner)
        inner = shaped.get("error", shaped)
        if isinstance(inner, dict):
            told = cast("dict[str, object]", inner)
            inner = told.get("message", told)
    return " ".join(str(inner).split())[:300]


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None  # a date: the pause is then our own
