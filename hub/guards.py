"""Limits of a whole tree of delegations, held when an agent that is called calls the hub back.

    Mark     what a call carries to its agent (`interhub.dev/delegation`): where in the tree it stands, what is left,
             and the hub's MAC over it. The agent passes it on in what it asks of the hub; it cannot be made up
    Ticket   a mark as it came back: what is called with it is below the call that carried it
    Account  what was used below one call, for the call itself and for the run that made it

A mark of another hub is left alone, and goes on beside ours: each hub holds its own limits.
"""

import hmac
import time
from base64 import urlsafe_b64decode
from binascii import b2a_base64
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b, sha256
from secrets import token_bytes
from typing import Protocol

import anyio.to_thread
import orjson
import sqlalchemy as sa
from sqlalchemy import select, update

from interhub.adapters import Budget, Call, Lineage, Principal, Usage
from interhub.agent_cards import Json
from interhub.registry.database import insert_new, reading, tree_accounts, writing

from .errors import BudgetExceeded, DelegationLoop, NotAllowed
from .policy import matches

_VERSION = "ih2"
_USE = b"interhub delegation"
_MAC = 18
"""Bytes of the MAC: 144 bits."""
_MOST_FOREIGN = 3
_MOST_CHARS = 4096
_MOST_TOUCHED = 100_000
"""Accounts that are kept in mind so as not to ask the database for those that are not among them."""


@dataclass(frozen=True, kw_only=True)
class GuardLimits:
    """What a tree may use where nobody asks for less (`guards` in the settings)."""

    depth: int = 8
    calls: int | None = 10_000
    fan_out: int | None = 1_000
    wall_s: float | None = None
    tokens: int | None = None
    cost_usd: float | None = None
    cycles: bool = False
    """Whether an agent may be called below itself."""
    marked: tuple[str, ...] = ()
    """Principals who must bring a mark."""


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """A mark that came back."""

    tree: str
    branch: str
    """The tree's own call that this is below: on its account all is booked."""
    call: str
    """Idempotency key of the call that carried the mark."""
    trail: tuple[str, ...]
    """The agents from the tree's root down to the one that was called."""
    budget: Budget
    """What was left for the branch when it was begun."""
    foreign: str = ""
    """Marks of other hubs."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What was used below a call."""

    calls: int = 0
    tokens: int = 0
    cost_usd: float = 0.0

    @property
    def any(self) -> bool:
        """Whether it is anything."""
        return bool(self.calls or self.tokens or self.cost_usd)

    def to_json(self) -> dict[str, Json]:
        """Write it as runs add it up."""
        return {"calls": self.calls, "tokens": self.tokens, "cost_usd": self.cost_usd}


class Accounts(Protocol):
    """Counts what is used below calls, for every hub of the database. Its methods block shortly."""

    def take(self, key: str, calls: int, limits: Budget, once: str = "") -> tuple[str, float] | None:
        """Count calls; where a limit would be passed, count nothing and return which one it is.

        With `once`, the key of an account that notes it, they are counted the first time only, and pass thereafter.
        """
        ...

    def add(self, key: str, usage: Usage) -> None:
        """Count what a call used."""
        ...

    def spent(self, key: str) -> Spent:
        """Return what was counted."""
        ...

    def untouched(self, key: str) -> bool:
        """Whether it is known, without looking, that nothing was counted since this process began."""
        ...


class MemoryAccounts:
    """Counts in memory: the twin for tests, and for a hub without a database."""

    def __init__(self) -> None:
        self._spent: dict[str, Spent] = {}

    def take(self, key: str, calls: int, limits: Budget, once: str = "") -> tuple[str, float] | None:
        """Count calls, within limits."""
        if once in self._spent:
            return None
        spent = self.spent(key)
        if (over := _over(spent, calls, limits)) is not None:
            return over
        self._spent[key] = replace(spent, calls=spent.calls + calls)
        if once:
            self._spent[once] = Spent(calls=calls)
        return None

    def add(self, key: str, usage: Usage) -> None:
        """Count what a call used."""
        spent = self.spent(key)
        tokens = spent.tokens + usage.input_tokens + usage.output_tokens
        self._spent[key] = replace(spent, tokens=tokens, cost_usd=spent.cost_usd + usage.cost_usd)

    def spent(self, key: str) -> Spent:
        """Return what was counted."""
        return self._spent.get(key, _NOTHING)

    def untouched(self, key: str) -> bool:
        """Whether nothing was counted."""
        return key not in self._spent


class SqlAccounts:
    """Counts in the database."""

    def __init__(self, database: sa.Engine, *, alone: bool = False) -> None:
        """`alone` says that no other process counts in this database while this one does."""
        self._database = database
        self._touched: set[str] | None = set() if alone else None
        """The keys that this process counted on; None where that would not tell, or where they are too many."""

    def take(self, key: str, calls: int, limits: Budget, once: str = "") -> tuple[str, float] | None:
        """Count calls, within limits: the comparison and the change are one."""
        self._touch(key)
        with writing(self._database) as connection:
            self._open(connection, key)
            query = select(tree_accounts).where(tree_accounts.c.key == key).with_for_update()
            spent = _spent(connection.execute(query).one())
            if (over := _over(spent, calls, limits)) is not None:
                noted = select(tree_accounts.c.key).where(tree_accounts.c.key == once)
                return None if once and connection.execute(noted).first() is not None else over
            if once and not self._open(connection, once, calls):
                return None
            change = update(tree_accounts).where(tree_accounts.c.key == key)
            connection.execute(change.values(calls=spent.calls + calls, updated_at=datetime.now(UTC)))
            return None

    def add(self, key: str, usage: Usage) -> None:
        """Count what a call used."""
        self._touch(key)
        with writing(self._database) as connection:
            self._open(connection, key)
            connection.execute(
                update(tree_accounts)
                .where(tree_accounts.c.key == key)
                .values(
                    tokens=tree_accounts.c.tokens + usage.input_tokens + usage.output_tokens,
                    cost_usd=tree_accounts.c.cost_usd + usage.cost_usd,
                    updated_at=datetime.now(UTC),
                )
            )

    def spent(self, key: str) -> Spent:
        """Return what was counted."""
        with reading(self._database) as connection:
            row = connection.execute(select(tree_accounts).where(tree_accounts.c.key == key)).one_or_none()
        return _NOTHING if row is None else _spent(row)

    def untouched(self, key: str) -> bool:
        """Whether it is known, without looking, that nothing was counted since this process began."""
        return (touched := self._touched) is not None and key not in touched

    def _touch(self, key: str) -> None:
        if (touched := self._touched) is not None:
            touched.add(key)
            if len(touched) > _MOST_TOUCHED:
                self._touched = None

    def _open(self, connection: sa.Connection, key: str, calls: int = 0) -> bool:
        """Write an account; False when it is there."""
        row = {"key": key, "calls": calls, "tokens": 0, "cost_usd": 0.0, "updated_at": datetime.now(UTC)}
        return insert_new(connection, tree_accounts, row)


class Guards:
    """Marks calls, and holds what comes back with a mark to it."""

    def __init__(
        self,
        limits: GuardLimits | None = None,
        *,
        key: bytes = b"",
        accounts: Accounts | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`key` (32 bytes) is the same in every hub of a database; without one, marks last as long as the process."""
        self.limits = own = limits or GuardLimits()
        self._whole = Budget(
            depth=own.depth, calls=own.calls, tokens=own.tokens, cost_usd=own.cost_usd, fan_out=own.fan_out
        )
        self._accounts = accounts or MemoryAccounts()
        self._clock = clock
        secret = hmac.digest(key or token_bytes(32), _USE, sha256)
        self._id = sha256(secret).hexdigest()[:8]
        # Keyed BLAKE2 (RFC 7693), not OpenSSL's HMAC, which lets go of the interpreter's lock in every call: another
        # thread then takes it, and the loop waits up to 25 µs for it to come back.
        self._keyed = blake2b(key=secret, digest_size=_MAC)

    # On the way out

    def mark(self, agent_id: str, call: Call, budget: Budget | None = None) -> str:
        """Return the mark that a call carries to its agent; with another budget than its own, where one is given."""
        own, left = call.lineage, budget or call.budget
        allowed = left if own.limits is None else own.limits
        calls = allowed.calls
        if own.limits is None and calls is not None:  # the call that carries it is counted by who makes it
            calls = max(0, calls - 1)
        said: list[object] = [
            call.principal.tenant,
            own.tree or call.idempotency_key,
            own.branch or call.idempotency_key,
            call.idempotency_key,
            [*own.trail, agent_id],
            [left.depth, calls, left.fan_out, allowed.tokens, allowed.cost_usd, left.until],
        ]
        written = orjson.dumps(said)
        mark = f"{_VERSION}.{self._id}.{_b64(self._mac(written) + written)}"
        return f"{mark} {own.foreign}" if own.foreign else mark

    def budget(self, asked: Budget | None = None, ticket: Ticket | None = None) -> Budget:
        """Return what a call or run may use: the least of the hub's limits, what is asked for, and what is left."""
        budget = self._whole
        if self.limits.wall_s is not None:
            budget = replace(budget, until=self._clock() + self.limits.wall_s)
        for other in (asked, ticket.budget if ticket is not None else None):
            if other is not None:
                budget = budget.least(other)
        return budget

    # On the way back

    def ticket(self, mark: str, principal: Principal) -> Ticket | None:
        """Read a mark; None where there is none of ours.

        Raises:
            NotAllowed: it was changed, it is another tenant's, or this principal must bring one.
        """
        found: Ticket | None = None
        foreign: list[str] = []
        for one in mark[:_MOST_CHARS].split():
            version, _, rest = one.partition(".")
            name, _, sealed = rest.partition(".")
            if (version, name) == (_VERSION, self._id):
                found = self._opened(sealed, principal)
            elif len(foreign) < _MOST_FOREIGN:
                foreign.append(one)
        if found is None:
            if self.limits.marked and matches(principal, self.limits.marked):
                why = "this key is an agent's: pass on `interhub.dev/delegation` of the call that you serve"
                raise NotAllowed("a call without its delegation", why)
            return None
        return replace(found, foreign=" ".join(foreign))

    async def enter(self, ticket: Ticket, agent_id: str) -> Budget:
        """Let what is below another call in, and count it among the calls of that agent; returns what it may use.

        Raises:
            DelegationLoop: the agent is called below itself.
            BudgetExceeded: the tree has used what it was given.
        """
        self.check_loop(agent_id, ticket.trail)
        if ticket.budget.depth < 1:
            raise BudgetExceeded("levels of delegation", len(ticket.trail))
        await self.take(ticket.branch, ticket.budget, calls=0)
        most = ticket.budget.fan_out
        if most is not None:
            limits = Budget(depth=0, calls=most)
            over = await anyio.to_thread.run_sync(self._accounts.take, f"{ticket.call}<", 1, limits)
            if over is not None:
                raise BudgetExceeded("calls by one agent in one call", most)
        return self.budget(None, ticket)

    async def take(self, branch: str, limits: Budget, *, calls: int = 1, call: str = "") -> None:
        """Count a call on the account of a branch; one whose idempotency key is given as `call`, once.

        That one passes when it comes again after a crash, whatever is left: it is under way.

        Raises:
            BudgetExceeded: nothing is left of calls, tokens, cost or time.
        """
        once = f"{call}!" if call else ""
        if limits.until is not None and self._clock() >= limits.until:
            if once and (await anyio.to_thread.run_sync(self._accounts.spent, once)).any:
                return
            raise BudgetExceeded("seconds on the clock", self.limits.wall_s or 0)
        over = await anyio.to_thread.run_sync(self._accounts.take, branch, calls, limits, once)
        if over is not None:
            raise BudgetExceeded(*over)

    async def add(self, branch: str, usage: Usage | None) -> None:
        """Count what a call below another used."""
        if usage is not None:
            await anyio.to_thread.run_sync(self._accounts.add, branch, usage)

    async def below(self, branch: str, *, begun_here: bool = False) -> Spent:
        """Return what was used below a call, by what its agent asked of the hub.

        `begun_here` says that no earlier process made the call.
        """
        if begun_here and self._accounts.untouched(branch):
            return _NOTHING
        return await anyio.to_thread.run_sync(self._accounts.spent, branch)

    def check_loop(self, agent_id: str, trail: tuple[str, ...]) -> None:
        """Refuse an agent that would be called below itself.

        Raises:
            DelegationLoop: it would.
        """
        if agent_id and agent_id in trail and not self.limits.cycles:
            raise DelegationLoop((*trail, agent_id))

    def _opened(self, sealed: str, principal: Principal) -> Ticket:
        try:
            opened = _bytes(sealed)
        except ValueError:
            opened = b""
        given, written = opened[:_MAC], opened[_MAC:]
        if not hmac.compare_digest(given, self._mac(written)):
            raise NotAllowed("this delegation", "its mark was changed on the way: pass it on as it came")
        tenant, tree, branch, call, trail, left = orjson.loads(written)
        if tenant != principal.tenant:
            raise NotAllowed("this delegation", "it is another tenant's")
        depth, calls, fan_out, tokens, cost_usd, until = left
        return Ticket(
            tree=tree,
            branch=branch,
            call=call,
            trail=tuple(trail),
            budget=Budget(depth=depth, calls=calls, fan_out=fan_out, tokens=tokens, cost_usd=cost_usd, until=until),
        )

    def _mac(self, written: bytes) -> bytes:
        mac = self._keyed.copy()
        mac.update(written)
        return mac.digest()


def lineage_of(ticket: Ticket) -> Lineage:
    """Return where a call that came with a ticket stands."""
    return Lineage(
        tree=ticket.tree, branch=ticket.branch, trail=ticket.trail, limits=ticket.budget, foreign=ticket.foreign
    )


_NOTHING = Spent()


def _spent(row: sa.Row[tuple[object, ...]]) -> Spent:
    return Spent(calls=row.calls, tokens=row.tokens, cost_usd=row.cost_usd)


def _over(spent: Spent, calls: int, limits: Budget) -> tuple[str, float] | None:
    if limits.calls is not None and spent.calls + calls > limits.calls:
        return "calls", limits.calls
    if limits.tokens is not None and spent.tokens >= limits.tokens:
        return "tokens", limits.tokens
    if limits.cost_usd is not None and spent.cost_usd >= limits.cost_usd:
        return "US dollars", limits.cost_usd
    return None


def _b64(data: bytes) -> str:
    return b2a_base64(data, newline=False).translate(_URL_SAFE, b"=").decode("ascii")


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
