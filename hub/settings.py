"""Every setting of the hub, and where each may be given: an argument wins over the environment, that over the file.

The file is `interhub.toml`; a variable is `INTERHUB_` and the setting's name with `__` for each dot
(`INTERHUB_SERVER__PORT`). They are read once, when the command starts, and passed on as values.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, cast, get_origin

from platformdirs import user_data_dir
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from .errors import SettingsInvalid

FILE_NAME = "interhub.toml"
PREFIX = "INTERHUB_"
CONFIG_VARIABLE = "INTERHUB_CONFIG"
"""Names the settings file, as `--config` does; it is no setting itself."""


class Section(BaseModel):
    """Settings that belong together."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Server(Section):
    """Where the hub listens."""

    host: str = Field(
        default="127.0.0.1",
        description="Address to listen on. Any but a loopback address needs `auth` and `server.allowed_hosts` set.",
    )
    port: int = Field(default=7337, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    public_url: str = Field(
        default="",
        description="URL under which others reach the hub, where it stands behind a proxy; written into agent cards.",
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Host names that requests may name besides the address listened on; `*.example.com` is understood.",
    )
    allowed_origins: tuple[str, ...] = Field(
        default=(),
        description="Origins of web pages, such as https://console.example.com, that may use the hub from a browser.",
    )
    public_agents: bool = Field(
        default=True, description="Whether callers without a key may read the agents' cards; their use needs a key."
    )
    max_body_bytes: int = Field(
        default=16 * 1024 * 1024, ge=1024, description="Largest request body that is taken, in bytes."
    )
    stop_timeout_s: float = Field(
        default=10.0, ge=0, description="Seconds that requests in flight get to end when the hub is stopped."
    )

    @field_validator("public_url")
    @classmethod
    def _is_a_base_url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("give an http(s) URL, for example https://hub.example.com")
        return value.rstrip("/")


class Auth(Section):
    """Whom the hub lets in, besides the holder of the key in the data directory."""

    key: SecretStr | None = Field(
        default=None, min_length=20, description="API key that is accepted instead of the one in the data directory."
    )
    key_hashes: tuple[str, ...] = Field(
        default=(),
        description="SHA-256 digests (64 hex digits each) of further API keys that are accepted, each as a "
        "subject of its own: it shares the agents, and has its own runs.",
    )

    @field_validator("key_hashes")
    @classmethod
    def _are_sha256(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for digest in value:
            if len(digest) != 64 or set(digest.lower()) - set("0123456789abcdef"):
                raise ValueError("give the SHA-256 of a key as 64 hex digits: `printf %s KEY | sha256sum`")
        return tuple(digest.lower() for digest in value)

    @property
    def is_set(self) -> bool:
        """True when somebody chose how callers prove themselves."""
        return self.key is not None or bool(self.key_hashes)


class Limits(Section):
    """What a call, and an agent, may take."""

    call_timeout_s: float = Field(
        default=600.0, gt=0, description="Seconds one direct call over MCP may last; runs have limits of their own."
    )
    connection_idle_s: float = Field(
        default=300.0, gt=0, description="Seconds after which an unused connection to an agent is closed."
    )
    connect_timeout_s: float = Field(
        default=30.0, gt=0, description="Seconds an MCP server has to say who it is when it is connected."
    )


class Catalogue(Section):
    """What MCP clients are shown of the registered agents."""

    mode: Literal["auto", "all", "search"] = Field(
        default="auto",
        description='"all" lists every tool, "search" only `find` and `call`; "auto" is "all" up to `search_above`.',
    )
    search_above: int = Field(default=40, ge=0, description="Number of tools above which `auto` means `search`.")


class Mcp(Section):
    """The hub as an MCP server."""

    delegate_wait_s: float = Field(
        default=50.0,
        ge=0,
        description="Seconds that `delegate` waits for the result before it answers with the run's id.",
    )
    question_wait_s: float = Field(
        default=600.0, gt=0, description="Seconds that a person has to answer what an agent asks in a direct call."
    )
    session_idle_s: float = Field(
        default=1800.0, gt=0, description="Seconds after which an unused session of an older client is forgotten."
    )


class Workers(Section):
    """Agents of the frameworks."""

    environments: Path | None = Field(
        default=None,
        description="Directory of the frameworks' environments, for several hubs to share; without it, `workers` in "
        "the data directory.",
    )

    @field_validator("environments")
    @classmethod
    def _is_absolute(cls, value: Path | None) -> Path | None:
        return _absolute(value) if value is not None else None


class Logging(Section):
    """What the hub writes to its log, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level written.")
    format: Literal["auto", "text", "json"] = Field(
        default="auto", description='"auto" writes text to a terminal and JSON lines elsewhere.'
    )


class Settings(BaseSettings):
    """All settings. Built by `load`; built directly (as tests do) it reads nothing but its arguments."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=True
    )

    data_dir: Path = Field(
        default_factory=lambda: Path(user_data_dir("interhub", appauthor=False)),
        description="Directory that holds all the hub keeps; made when missing. Not in a file that lies in it.",
    )
    database_url: SecretStr | None = Field(
        default=None, description="SQLAlchemy URL of the database; without it, `interhub.db` in the data directory."
    )
    server: Server = Server()
    auth: Auth = Auth()
    limits: Limits = Limits()
    catalogue: Catalogue = Catalogue()
    mcp: Mcp = Mcp()
    workers: Workers = Workers()
    logging: Logging = Logging()

    @field_validator("data_dir")
    @classmethod
    def _is_absolute(cls, value: Path) -> Path:
        return _absolute(value)

    @property
    def worker_environments(self) -> Path:
        """Where the frameworks' environments are."""
        return self.workers.environments or self.data_dir / "workers"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the arguments only: `load` merges the sources itself, so that it knows which one to blame."""
        return (init_settings,)


def _absolute(value: Path) -> Path:
    return Path(os.path.abspath(value.expanduser()))  # not resolve(): a linked directory keeps its name


class _Environment(EnvSettingsSource):
    """The variables. A list is JSON, or simply names between commas."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: object) -> object:
        """Return the value of a list or section."""
        if isinstance(value, str) and not value.lstrip().startswith(("[", "{")):
            return [part.strip() for part in value.split(",") if part.strip()]
        return super().decode_complex_value(field_name, field, value)


Values = dict[str, object]
"""Settings as a source gives them: nested by section."""


def load(
    *, arguments: Mapping[str, object] | None = None, config: Path | None = None, cwd: Path | None = None
) -> Settings:
    """Read the settings of this process.

    `arguments` are by dotted name (`server.port`); those that are None were not given. The file is `config`, or the one
    that INTERHUB_CONFIG names, or `interhub.toml` in `cwd`, or in the data directory: the first there is.

    Raises:
        SettingsInvalid: a setting is unknown or impossible; every problem says in which variable, file or argument.
    """
    given = _nest({name: value for name, value in (arguments or {}).items() if value is not None})
    problems = list(_unknown_variables())
    try:
        environment = cast("Values", _Environment(Settings)())
    except SettingsError as error:
        raise SettingsInvalid([*problems, f"environment: {error}: {error.__cause__}"]) from error
    file = _file(config, cwd or Path.cwd(), given, environment)
    from_file = _read(file) if file is not None else {}
    problems += _unknown_keys(from_file, str(file))
    if problems:
        raise SettingsInvalid(problems)
    sources = {"argument": given, "environment": environment, str(file): from_file}
    merged: Values = {}
    for source in reversed(sources.values()):
        merged = _merge(merged, source)
    try:
        return Settings(**merged)  # type: ignore[arg-type]  # pydantic checks them; that is what is asked of it
    except ValidationError as error:
        raise SettingsInvalid([_blame(dict(problem), sources) for problem in error.errors()]) from None


def names() -> dict[str, str]:
    """Return every setting's dotted name and its description."""
    return dict(_describe(Settings, ""))


def variable(name: str) -> str:
    """Return the environment variable of a dotted name: `server.port` is INTERHUB_SERVER__PORT."""
    return PREFIX + name.replace(".", "__").upper()


def _describe(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and get_origin(kind) is None and issubclass(kind, Section):
            yield from _describe(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, field.description or ""


def _unknown_variables() -> Iterator[str]:
    known = {variable(name) for name in names()} | {CONFIG_VARIABLE} | {variable(name) for name in _sections()}
    for name in sorted(os.environ):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            yield f"environment variable {name} is no setting{_hint(name.upper(), known)}"


def _sections() -> list[str]:
    return sorted({name.split(".")[0] for name in names() if "." in name})


def _unknown_keys(values: Values, file: str) -> Iterator[str]:
    known = names()
    sections = set(_sections())
    for name in _flatten(values):
        section = name.split(".")[0]
        if name in known or (name in sections and name == section):
            continue
        yield f"{file}: {name} is no setting{_hint(name, known)}"


def _hint(name: str, known: Mapping[str, str] | set[str]) -> str:
    near = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; {FILE_NAME} and docs/settings.md list them"


def _file(config: Path | None, cwd: Path, given: Values, environment: Values) -> Path | None:
    named = config or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        if not named.is_file():
            raise SettingsInvalid([f"the settings file {named} does not exist"])
        return named
    data_dir = given.get("data_dir") or environment.get("data_dir") or user_data_dir("interhub", appauthor=False)
    for candidate in (cwd / FILE_NAME, Path(str(data_dir)).expanduser() / FILE_NAME):
        if candidate.is_file():
            return candidate
    return None


def _read(file: Path) -> Values:
    try:
        return cast("Values", tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise SettingsInvalid([f"{file} cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise SettingsInvalid([f"{file} is not UTF-8 text"]) from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsInvalid([f"{file} is not TOML: {error}"]) from error


def _blame(problem: Mapping[str, object], sources: Mapping[str, Values]) -> str:
    path = [str(part) for part in cast("tuple[object, ...]", problem["loc"])]
    known = names()
    name = next((".".join(path[:n]) for n in range(len(path), 0, -1) if ".".join(path[:n]) in known), ".".join(path))
    where = name
    for source, values in sources.items():
        if name in set(_flatten(values)) or (path[0] in values and not isinstance(values[path[0]], dict)):
            match source:
                case "argument":
                    where = name
                case "environment":
                    where = f"environment variable {variable(name)}"
                case file:
                    where = f"{file}: {name}"
            break
    return f"{where}: {str(problem['msg']).removeprefix('Value error, ')}"


def _nest(flat: Mapping[str, object]) -> Values:
    nested: Values = {}
    for name, value in flat.items():
        *sections, last = name.split(".")
        inner = nested
        for section in sections:
            inner = cast("Values", inner.setdefault(section, {}))
        inner[last] = value
    return nested


def _flatten(values: Values, prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flatten(cast("Values", value), f"{prefix}{name}.")
        else:
            yield prefix + name


def _merge(under: Values, over: Values) -> Values:
    merged = dict(under)
    for name, value in over.items():
        below = merged.get(name)
        both = isinstance(value, dict) and isinstance(below, dict)
        merged[name] = _merge(cast("Values", below), cast("Values", value)) if both else value
    return merged
