"""Journal records -> rows of `usage`, in any order and any number of times. The hot path of control.

Each statement is compiled once and executed with plain tuples: SQLAlchemy's own per-row work would cost more
than SQLite's.
"""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

import msgspec
from sqlalchemy import Column, bindparam, case, literal_column, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Dialect

from tokenworks.control.storage import rollup
from tokenworks.control.storage.tables import api_keys, gateway_positions, usage
from tokenworks.core.usage import KINDS
from tokenworks.journal.records import Opened, Progress, Record, Settled, UsageRecord

LARGEST = 2**63 - 1
LAST_USED_SECONDS = 60
"""`last_used_at` is this coarse, so that a busy key's row is not rewritten with every batch."""

ZERO: Any = literal_column("0")  # a bound 0 would be a parameter without an attribute
EMPTY: Any = literal_column("''")
_INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_IDENTITY = {"request_id": "request_id", "attempt": "attempt"}
_COUNTED = {**{kind: f"usage.{kind}" for kind in KINDS}, "charge": "charge", "cost": "cost"}
_PRICED = ("price", "cost_price")
_OTHER = ("reported", "counted")
_ENDED = ("outcome", "status", "error", "finish_reason", "first_token_ns", "duration_ns", "estimated", "guardrails")
_WHO_AND_WHERE = (
    "key_id", "project_id", "organization_id", "protocol", "model", "upstream", "provider", "upstream_model", "stream",
    "batch", "tier", "residency", "alias", "alias_version", "alias_seed", "shadow", "byok",
)  # fmt: skip

# Column -> attribute of the record.
OPENED = {**_IDENTITY, "opened_ns": "at", **{name: name for name in _WHO_AND_WHERE}}
PROGRESS = {**_IDENTITY, **_COUNTED, **{name: name for name in _PRICED}}
SETTLED = {**_IDENTITY, "settled_ns": "at", **_COUNTED, **{name: name for name in (*_PRICED, *_ENDED, "tier", *_OTHER)}}
WHOLE = {
    **{name: f"settled.{attribute}" for name, attribute in SETTLED.items()},
    **{name: f"opened.{attribute}" for name, attribute in OPENED.items()},
    "tier": "tier",
}


class _Row(Protocol):
    def __call__(self, record: Any, /) -> tuple[Any, ...]: ...


class AttemptWriter:
    """Bound to a database's dialect; `write` runs inside the caller's transaction."""

    def __init__(self, dialect: Dialect) -> None:
        insert = _INSERTS[dialect.name]
        self._insert = insert
        self._opened = _compile(_upsert_opened(insert), OPENED, dialect)
        self._progress = _compile(_upsert_progress(insert), PROGRESS, dialect)
        statement, plain = _compile(_upsert_settled(insert), SETTLED, dialect)
        self._settled = statement, _with_counts(plain)
        self._whole = _compile(_upsert_whole(insert), WHOLE, dialect)
        self._touch = _compile(_touch(), {name: name for name in _Used._fields}, dialect)

    def write(self, connection: Connection, records: Sequence[Record]) -> None:
        opened = [record for record in records if type(record) is Opened]
        settled = [record for record in records if type(record) is Settled]
        whole = _pairs(opened, settled)
        for (statement, row), chosen in (
            (self._whole, whole.values()),
            (self._opened, [record for record in opened if (record.request_id, record.attempt) not in whole]),
            (self._progress, [record for record in records if type(record) is Progress]),
            (self._settled, [record for record in settled if (record.request_id, record.attempt) not in whole]),
            (self._touch, _used(opened)),
        ):
            if chosen:
                connection.exec_driver_sql(statement, [row(record) for record in chosen])
        rollup.advance(connection)

    def advance(self, connection: Connection, gateway_id: str, position: int) -> None:
        statement = self._insert(gateway_positions).values(gateway_id=gateway_id, next_sequence=position)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["gateway_id"], set_={"next_sequence": statement.excluded.next_sequence}
            )
        )


def position(connection: Connection, gateway_id: str) -> int | None:
    """The record that control wants next; None for a gateway it has never heard of."""
    query = gateway_positions.select().where(gateway_positions.c.gateway_id == gateway_id)
    row = connection.execute(query).first()
    return None if row is None else row.next_sequence


def storable(record: Record) -> bool:
    """Whether its numbers fit the columns and its texts hold no NUL, which PostgreSQL refuses."""
    for attribute in {Opened: OPENED, Progress: PROGRESS, Settled: SETTLED}[type(record)].values():
        value = attrgetter(attribute)(record)
        if isinstance(value, int) and not -LARGEST <= value <= LARGEST:
            return False
        if isinstance(value, str) and "\0" in value:
            return False
    return True


def _values(columns: Iterable[str]) -> dict[str, Any]:
    return {column: bindparam(column, type_=usage.c[column].type) for column in columns}


def _upsert_opened(insert: Any) -> Any:
    statement = insert(usage).values(_values(OPENED))
    new = {name: statement.excluded[name] for name in OPENED if name not in _IDENTITY}
    told = usage.c.settled_ns.is_not(None) & (usage.c.tier != EMPTY)
    new["tier"] = case((told, usage.c.tier), else_=statement.excluded.tier)
    return statement.on_conflict_do_update(index_elements=list(_IDENTITY), set_=new)


def _upsert_progress(insert: Any) -> Any:
    """Usage of one attempt only grows, so whichever report is the larger is the later."""
    statement = insert(usage).values({**_values(PROGRESS), "opened_ns": ZERO})
    order = ("output", "charge", *(kind for kind in KINDS if kind != "output"), "cost")

    def report(table: Any) -> Any:
        return tuple_(*(table[name] for name in order))

    new = {name: statement.excluded[name] for name in PROGRESS if name not in _IDENTITY}
    later = usage.c.settled_ns.is_(None) & (report(usage.c) < report(statement.excluded))
    return statement.on_conflict_do_update(index_elements=list(_IDENTITY), set_=new, where=later)


def _upsert_settled(insert: Any) -> Any:
    """The first settlement stands. It also dates a row whose `Opened` has not arrived."""
    values = _values(SETTLED)
    began: Column[int] = values["settled_ns"] - values["duration_ns"]
    statement = insert(usage).values({**values, "opened_ns": began})
    new = {name: statement.excluded[name] for name in SETTLED if name not in _IDENTITY}
    new["opened_ns"] = case((usage.c.opened_ns == ZERO, statement.excluded.opened_ns), else_=usage.c.opened_ns)
    new["tier"] = case((statement.excluded.tier != EMPTY, statement.excluded.tier), else_=usage.c.tier)
    return statement.on_conflict_do_update(index_elements=list(_IDENTITY), set_=new, where=usage.c.settled_ns.is_(None))


def _upsert_whole(insert: Any) -> Any:
    """What `_upsert_opened` and then `_upsert_settled` do, at once: half the work for an attempt that was short."""
    statement = insert(usage).values(_values(WHOLE))
    excluded, open_ = statement.excluded, usage.c.settled_ns.is_(None)
    new = {name: excluded[name] for name in OPENED if name not in _IDENTITY}
    for name in SETTLED:
        if name not in _IDENTITY:
            new[name] = case((open_, excluded[name]), else_=usage.c[name])
    new["tier"] = case((open_ | (usage.c.tier == EMPTY), excluded.tier), else_=usage.c.tier)
    return statement.on_conflict_do_update(index_elements=list(_IDENTITY), set_=new)


def _pairs(opened: Sequence[Any], settled: Sequence[Any]) -> dict[tuple[str, int], "_Whole"]:
    """Attempts that these records are all of. One whose settlement comes twice goes the long way, where the first
    one stands; and so does the rare one with other counts."""
    ends: dict[tuple[str, int], Settled | None] = {}
    for record in settled:
        plain = record.reported is None and record.counted is None
        known = (record.request_id, record.attempt)
        ends[known] = record if plain and known not in ends else None
    found = {}
    for record in opened:
        known = (record.request_id, record.attempt)
        if (end := ends.get(known)) is not None:
            found[known] = _Whole(record, end, end.tier or record.tier)
    return found


class _Whole(NamedTuple):
    opened: Opened
    settled: Settled
    tier: str


def _compile(statement: Any, attributes: dict[str, str], dialect: Dialect) -> tuple[str, _Row]:
    """SQL text for the driver, and what makes a record into its parameters, in order."""
    compiled = statement.compile(dialect=dialect)
    row: Any = attrgetter(*(attributes[name] for name in compiled.positiontup))
    return str(compiled), row


def _with_counts(plain: _Row) -> _Row:
    """The few settlements that hold other counts hold them as JSON."""

    def row(record: Any, /) -> tuple[Any, ...]:
        values = plain(record)
        if record.reported is None and record.counted is None:
            return values
        return tuple(_JSON(value).decode() if isinstance(value, UsageRecord) else value for value in values)

    return row


_JSON = msgspec.json.Encoder().encode


class _Used(NamedTuple):
    """A key, when it was used, and what its `last_used_at` is if that is worth writing down."""

    key_id: str
    at: int
    before: int


def _used(opened: Sequence[Any]) -> list[_Used]:
    """In the order of the keys, so that two writers never wait for each other in a circle."""
    used = {record.key_id: record.at // 1_000_000_000 for record in opened}
    return [_Used(key_id, at, at - LAST_USED_SECONDS) for key_id, at in sorted(used.items())]


def _touch() -> Any:
    key_id, at, before = (
        bindparam(name, type_=column.type)
        for name, column in zip(
            _Used._fields, (api_keys.c.id, api_keys.c.last_used_at, api_keys.c.last_used_at), strict=True
        )
    )
    stale = api_keys.c.last_used_at.is_(None) | (api_keys.c.last_used_at <= before)
    return update(api_keys).where(api_keys.c.id == key_id, stale).values(last_used_at=at)
