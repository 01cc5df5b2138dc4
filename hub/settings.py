"""Every setting of the hub, and where each may be given: an argument wins over the environment, that over the file.

The file is `interhub.toml`; a variable is `INTERHUB_` and the setting's name with `__` for each dot
(`INTERHUB_SERVER__PORT`). They are read once, when the command starts, and passed on as values.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import Literal, Self, cast, get_origin

from platformdirs import user_data_dir
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
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

_PROFILE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


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
        default=600.0,
        gt=0,
        description="Seconds one direct call over MCP may last, and at `/agents/{id}/mcp` that an MCP server may say "
        "nothing of one; runs have limits of their own.",
    )
    calls_per_agent: int = Field(
        default=256, ge=1, description="Direct calls of one agent under way at once; runs are limited by `queues`."
    )
    calls_per_principal: int = Field(default=256, ge=1, description="Direct calls of one caller under way at once.")
    call_queue_s: float = Field(
        default=30.0, ge=0, description="Seconds a direct call beyond these waits its turn before it is refused."
    )
    connection_idle_s: float = Field(
        default=300.0, gt=0, description="Seconds after which an unused connection to an agent is closed."
    )
    connect_timeout_s: float = Field(
        default=30.0, gt=0, description="Seconds an MCP server has to say who it is when it is connected."
    )


class Profile(Section):
    """A named selection of what the agents offer, as an MCP client may choose it."""

    mode: Literal["auto", "all", "search"] = Field(default="auto", description="How its tools are listed.")
    agents: tuple[str, ...] = Field(default=("*",), description="The agents in it, by id; `*` stands for anything.")
    capabilities: tuple[str, ...] = Field(
        default=("*",), description="The capabilities in it, as `name` or `agent/name`; `*` stands for anything."
    )


class Rule(Section):
    """One rule of the policy: what holds for some callers, agents and capabilities."""

    effect: Literal["allow", "deny", "ask"] = Field(description="What it does; `ask` has a person asked before.")
    principals: tuple[str, ...] = Field(
        default=("*",), description="The callers, by subject or as `tenant/subject`; `*` stands for anything."
    )
    agents: tuple[str, ...] = Field(default=("*",), description="The agents, by id; `*` stands for anything.")
    capabilities: tuple[str, ...] = Field(
        default=("*",), description="Their skills, tools, prompts and resources, by name; `*` stands for anything."
    )
    why: str = Field(default="", description="The reason, for whoever is refused or asked.")
    answer_by: tuple[str, ...] = Field(
        default=(), description="With `ask`: who may answer, like `principals`; none means whoever wants it done."
    )
    expires_s: float | None = Field(
        default=None, gt=0, le=365 * 24 * 3600, description="With `ask`: seconds that the question waits."
    )

    @model_validator(mode="after")
    def _only_asks_are_answered(self) -> Self:
        if self.effect != "ask" and (self.answer_by or self.expires_s is not None):
            raise ValueError(f"answer_by and expires_s are for `ask`, not for `{self.effect}`")
        return self


class Policy(Section):
    """Who may use what, and what a person is asked before. The first rule that is about a call decides on it."""

    rules: tuple[Rule, ...] = Field(default=(), description="In order; what none is about is allowed in the tenant.")
    question_expires_s: float = Field(
        default=30 * 24 * 3600.0,
        gt=0,
        le=365 * 24 * 3600,
        description="Seconds that a question of a run waits, where neither its step nor its rule says how long.",
    )


class Guards(Section):
    """What the whole tree of one delegation may use, over every hop. Plans and callers may only ask for less."""

    depth: int = Field(default=8, ge=0, le=64, description="Levels of delegation, one below the other.")
    calls: int = Field(default=10_000, ge=1, description="Calls of agents in all.")
    fan_out: int = Field(default=1_000, ge=1, description="Calls that one agent may make in one call of it.")
    wall_s: float | None = Field(
        default=None, gt=0, le=10 * 365 * 24 * 3600, description="Seconds on the clock, waiting for people included."
    )
    tokens: int | None = Field(default=None, ge=1, description="Tokens, in and out, as far as agents say.")
    cost_usd: float | None = Field(default=None, gt=0, description="US dollars, as far as agents say.")
    cycles: bool = Field(
        default=False, description="Whether an agent may be called again below itself (A calls B, B calls A)."
    )
    marked: tuple[str, ...] = Field(
        default=(),
        description="Subjects whose every call must say which delegation it belongs to: the keys that agents use.",
    )


class Replicas(Section):
    """Several hubs on one PostgreSQL database."""

    lease_s: float = Field(
        default=5.0,
        ge=1.0,
        le=60.0,
        description="Seconds after which a hub that says nothing is taken for dead, and its runs go on in another.",
    )
    heartbeat_s: float = Field(
        default=1.0, ge=0.1, le=20.0, description="Seconds between two signs of life; a third of `lease_s` at most."
    )

    @model_validator(mode="after")
    def _beats_often_enough(self) -> Self:
        if self.heartbeat_s > self.lease_s / 3:
            raise ValueError(
                f"heartbeat_s {self.heartbeat_s:g} is too slow for lease_s {self.lease_s:g}: "
                "give at most a third of it, so that one that is late costs no lease"
            )
        return self


class Queues(Section):
    """How much one tenant may do at once; what is beyond waits its turn, and no tenant waits for another's."""

    tenant_runs: int | None = Field(
        default=None,
        ge=1,
        description="Runs of one tenant under way at once, over all replicas; one that waits for a person counts.",
    )
    tenant_starts_per_minute: int | None = Field(
        default=None, ge=1, description="Runs of one tenant begun in a minute, over all replicas."
    )
    calls: int = Field(default=256, ge=1, description="Calls of agents that this hub's runs make at once.")
    tenant_calls: int = Field(default=128, ge=1, description="The same, of one tenant's runs.")


class Retention(Section):
    """What is kept of runs that have ended, and of the audit log. Runs that have not ended are always kept."""

    runs_days: float | None = Field(
        default=None, gt=0, description="Days after its end at which a run is removed, with all that is its own."
    )
    runs_per_tenant: int | None = Field(
        default=None, ge=0, description="Runs that have ended that are kept of each tenant, the newest."
    )
    audit_days: float | None = Field(default=None, gt=0, description="Days after which an audit record is removed.")
    every_h: float = Field(
        default=6.0, gt=0, description="Hours between two removals; `interhub gc` removes at once, or only shows."
    )


class Catalogue(Section):
    """What MCP clients are shown of the registered agents."""

    mode: Literal["auto", "all", "search"] = Field(
        default="auto",
        description='"all" lists every tool, "search" only `find` and `call`; "auto" is "all" up to `search_above`.',
    )
    search_above: int = Field(default=40, ge=0, description="Number of tools above which `auto` means `search`.")
    profiles: dict[str, Profile] = Field(
        default={},
        description="Profiles by name, each with `mode`, `agents` and `capabilities` (`[catalogue.profiles.NAME]`); a "
        "client chooses one by `/mcp?profile=NAME`.",
    )
    default_profile: str = Field(default="", description="Profile of clients that choose none; empty is everything.")
    key_profiles: dict[str, str] = Field(
        default={},
        description='Profiles of keys whose clients choose none, by subject as the log names it: "local", "key-...".',
    )
    page_size: int = Field(default=1000, ge=1, le=10_000, description="Most definitions in one page of a list.")

    @field_validator("profiles")
    @classmethod
    def _are_names(cls, value: dict[str, Profile]) -> dict[str, Profile]:
        for name in value:
            if not _PROFILE_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a profile: use letters, digits, `-`, `_` and `.`")
        return value

    @model_validator(mode="after")
    def _profiles_are_known(self) -> Self:
        for name in (self.default_profile, *self.key_profiles.values()):
            if name and name not in self.profiles:
                known = ", ".join(self.profiles) or "none is set"
                raise ValueError(f"no profile is called {name!r} (catalogue.profiles: {known})")
        return self


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


class A2a(Section):
    """The hub as an A2A agent."""

    agent: str = Field(
        default="",
        description="Agent, team or workflow that takes messages to `/a2a` that name none; without it, the hub plans.",
    )
    grpc_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port for A2A over gRPC, on `server.host`; 0 takes a free one. Without it, no gRPC. It needs "
        "the extra `interhub[grpc]`.",
    )
    grpc_address: str = Field(
        default="",
        description="`host:port` under which others reach the gRPC port, where it stands behind a proxy; written into "
        "agent cards.",
    )
    grpc_certificate: Path | None = Field(
        default=None, description="PEM file with the certificate chain of the gRPC port; without it, it speaks no TLS."
    )
    grpc_private_key: Path | None = Field(
        default=None, description="PEM file with the private key of `a2a.grpc_certificate`."
    )

    @field_validator("grpc_certificate", "grpc_private_key")
    @classmethod
    def _are_absolute(cls, value: Path | None) -> Path | None:
        return _absolute(value) if value is not None else None

    @model_validator(mode="after")
    def _are_a_pair(self) -> Self:
        if (self.grpc_certificate is None) is not (self.grpc_private_key is None):
            raise ValueError("give grpc_certificate and grpc_private_key together")
        return self


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


class Egress(Section):
    """Where the hub connects to on the word of others: webhooks, agents by their cards."""

    allowed_networks: tuple[str, ...] = Field(
        default=(),
        description="Networks, such as 10.1.0.0/16, that may be connected to besides public addresses; an agent that "
        "was added by an IP address or as localhost is reached anyway.",
    )

    @field_validator("allowed_networks")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ip_network(network.strip(), strict=False)  # its message names the network
        return value


class Push(Section):
    """Push notifications: what happens in a task, sent to the webhooks that its caller names."""

    enabled: bool = Field(default=True, description="Whether the hub pushes at all; its cards say so.")
    timeout_s: float = Field(default=15.0, gt=0, le=120, description="Seconds one attempt may take.")
    attempts: int = Field(
        default=10,
        ge=1,
        le=100,
        description="Failures in a row after which a webhook is given up; the pauses between them grow from 1 s to "
        "15 minutes.",
    )


class Cards(Section):
    """Signatures of agent cards, the hub's own and those of agents."""

    sign: bool = Field(default=True, description="Whether the hub signs the cards that it serves.")
    signing_key: Path | None = Field(
        default=None,
        description="PEM file with the private key (P-256, Ed25519 or RSA) that signs cards and pushes; without it, "
        "one that is kept in the data directory. Several hubs behind one address need the same.",
    )
    signatures: Literal["ignore", "check", "require"] = Field(
        default="check",
        description='What is asked of an agent\'s card: "check" refuses a bad signature, "require" all but a good one.',
    )
    trusted_keys: Path | None = Field(
        default=None, description="JSON Web Key Set with the public keys that are trusted wherever a card is found."
    )
    key_urls: tuple[str, ...] = Field(
        default=(),
        description="Key sets, by URL or by origin, that a card may name besides those of its own origin; with https.",
    )

    @field_validator("signing_key", "trusted_keys")
    @classmethod
    def _is_absolute(cls, value: Path | None) -> Path | None:
        return _absolute(value) if value is not None else None


class Secrets(Section):
    """How credentials in the database are sealed."""

    key: SecretStr | None = Field(
        default=None,
        description="Key that they are sealed with, as 64 hex digits (`openssl rand -hex 32`); without it, one that "
        "is kept in the data directory, or on PostgreSQL in the database.",
    )

    @field_validator("key")
    @classmethod
    def _is_a_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            digits = value.get_secret_value()
            if len(digits) != 64 or set(digits.lower()) - set("0123456789abcdef"):
                raise ValueError("give 32 bytes as 64 hex digits: `openssl rand -hex 32`")
        return value


class Model(Section):
    """A language model: of any endpoint that speaks OpenAI's chat completions, or of another provider."""

    model: str = Field(min_length=1, description="As its provider names it.")
    provider: str = Field(
        default="openai",
        description="Whose it is, as pydantic-ai names providers; `openai` for every OpenAI-compatible endpoint.",
    )
    base_url: str = Field(default="", description="URL of the endpoint, such as http://127.0.0.1:11434/v1.")
    api_key: SecretStr | None = Field(default=None, description="Key; `${NAME}` is taken from the environment.")
    output: Literal["tool", "json", "prompt"] = Field(
        default="tool",
        description="How it is made to answer with an object: by a tool call, by its JSON mode, or by being told.",
    )
    timeout_s: float = Field(default=120.0, gt=0, le=3600, description="Seconds one answer may take.")
    max_tokens: int | None = Field(default=None, ge=1, description="Most tokens of one answer.")
    temperature: float | None = Field(default=None, ge=0, le=2, description="How freely it answers.")
    input_usd_per_million: float = Field(default=0.0, ge=0, description="Price of a million tokens that it is given.")
    output_usd_per_million: float = Field(default=0.0, ge=0, description="Price of a million tokens that it gives.")

    @field_validator("base_url")
    @classmethod
    def _is_a_url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("give an http(s) URL, for example http://127.0.0.1:11434/v1")
        return value


class Planner(Section):
    """How goals that name no agent are planned. Teams name their own planners."""

    model: str = Field(
        default="", description="Model of `models` that plans; without one, the agent that fits best gets the goal."
    )
    arguments_model: str = Field(
        default="", description="Model that writes the arguments of tools out of words; without it, `planner.model`."
    )
    attempts: int = Field(default=3, ge=1, le=10, description="How often a plan with mistakes may be given anew.")
    replans: int = Field(default=2, ge=0, le=10, description="How many plans may follow one that has failed.")
    candidates: int = Field(
        default=20, ge=1, le=200, description="How many capabilities that fit the goal the model plans over."
    )
    otherwise: Literal["fail", "route"] = Field(
        default="fail", description='What is done when the model makes no plan: "route" asks the agent that fits best.'
    )


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
    a2a: A2a = A2a()
    workers: Workers = Workers()
    policy: Policy = Policy()
    guards: Guards = Guards()
    replicas: Replicas = Replicas()
    queues: Queues = Queues()
    retention: Retention = Retention()
    egress: Egress = Egress()
    push: Push = Push()
    cards: Cards = Cards()
    secrets: Secrets = Secrets()
    planner: Planner = Planner()
    models: dict[str, Model] = Field(
        default={}, description="Language models by name (`[models.NAME]`), for planners, arguments and answers."
    )
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
        if any(name.startswith(f"{table}.") for table in _tables()):
            continue  # its keys are the user's own; the model checks what stands under them
        yield f"{file}: {name} is no setting{_hint(name, known)}"


def _tables() -> list[str]:
    """Return the settings that are tables of names of the user's own."""
    alone = [name for name, field in Settings.model_fields.items() if get_origin(field.annotation) is dict]
    return alone + [
        f"{section}.{name}"
        for section, field in Settings.model_fields.items()
        if isinstance(field.annotation, type)
        and get_origin(field.annotation) is None
        and issubclass(field.annotation, Section)
        for name, inner in field.annotation.model_fields.items()
        if get_origin(inner.annotation) is dict
    ]


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
    if name in _tables():
        where = name = ".".join(path)
    for source, values in sources.items():
        if any(f"{given}.".startswith(f"{name}.") for given in _flatten(values)) or (
            path[0] in values and not isinstance(values[path[0]], dict)
        ):
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
