"""Questions to PostgreSQL with many millions of attempts: invoices and dashboards. Prints a table.

`make bench ARGS=billing`; TOKENWORKS_BENCH_ROWS=10000000 for what the targets speak of (a million without it).
"""

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.postgres import running_postgres

from tokenworks.control.storage import invoices, migrate, partitions, reports, usage
from tokenworks.control.storage.database import Database
from tokenworks.control.storage.rollup import COUNTS, DAY, DIMENSIONS, HOUR

ROWS = int(os.environ.get("TOKENWORKS_BENCH_ROWS", "1000000"))
ROUNDS = 7
DAYS = 90
ORGANIZATIONS = 200
INVOICE_MS, DASHBOARD_MS = 2_000, 200
PIECE = 500_000

# A tenth of all requests is one organization's, the rest are spread over the others.
_ROWS = """
INSERT INTO usage (request_id, attempt, opened_ns, key_id, project_id, organization_id, protocol, model, upstream,
    provider, upstream_model, stream, settled_ns, outcome, input, cached_input, output, charge, cost, price, status,
    error, finish_reason, first_token_ns, duration_ns, estimated, rolled)
SELECT lpad(to_hex(second), 8, '0') || lpad(to_hex(number), 16, '0'), 1, second * 1000000000,
    'key_' || organization || '_' || number % 5, 'proj_' || organization || '_' || number % 5 % 3,
    'org_' || organization, 'openai_chat', 'model-' || (number % 5 + number / 5 % 2) % 4, 'replica-' || number % 8,
    'local/llama_server', 'model-m',
    number % 2 = 0, second * 1000000000 + 2000000000, CASE WHEN number % 50 = 0 THEN 'failed' ELSE 'completed' END,
    200 + number % 1000, number % 300, 50 + number % 500, 15000 + number % 90000, 5000, 'p1', 200, '', 'stop',
    100000000, 2000000000, false, true
FROM (
    SELECT number, CAST({begin} + (number - 1) * {span} / {rows} AS bigint) AS second,
        CASE WHEN number % 10 = 0 THEN 0 ELSE hashint8(number) & 2147483647 END % {organizations} AS organization
    FROM generate_series(CAST({first} AS bigint), {last}) AS number
) AS made
"""


def _sums(table: str, period: str, width: int) -> str:
    kept = ", ".join(name for name in DIMENSIONS if name != "hour")
    moment = f"opened_ns / {width}000000000 * {width}"
    sums = ", ".join(f"sum({name})" for name in COUNTS[1:])
    return (
        f"INSERT INTO {table} ({kept}, {period}, {', '.join(COUNTS)}) "
        f"SELECT {kept}, {moment}, count(*), {sums} FROM usage GROUP BY {kept}, {moment}"
    )


async def _fill(database: Database, begin: int) -> float:
    begun = time.perf_counter()
    await migrate.upgrade(database)
    async with database.write() as connection:
        for day in range(0, DAYS, 28):
            await connection.run_sync(partitions.make, begin + day * DAY)
    for first in range(1, ROWS + 1, PIECE):
        values = {"begin": begin, "span": DAYS * DAY, "rows": ROWS, "organizations": ORGANIZATIONS}
        piece = _ROWS.format(**values, first=first, last=min(first + PIECE - 1, ROWS))
        async with database.write() as connection:
            await connection.exec_driver_sql(piece)
    async with database.write() as connection:
        await connection.exec_driver_sql(_sums("usage_hourly", "hour", HOUR))
        await connection.exec_driver_sql(_sums("usage_daily", "day", DAY))
    connection = await database.dedicated()
    for table in ("usage", "usage_hourly", "usage_daily"):
        await connection.exec_driver_sql(f"VACUUM (ANALYZE) {table}")
    await connection.close()
    return time.perf_counter() - begun


def _questions(begin: int) -> list[tuple[str, int, Callable[[AsyncConnection], Awaitable[Any]]]]:
    end, month = begin + DAYS * DAY, begin + 30 * DAY
    largest, part = "org_0", end - 45 * DAY + 7

    def buckets(start: int, width: int, *groups: str) -> Callable[[AsyncConnection], Awaitable[Any]]:
        return lambda connection: reports.buckets(connection, reports.Question(largest, start, end, width, groups))

    def invoice(connection: AsyncConnection) -> Awaitable[Any]:
        return connection.run_sync(invoices.groups, largest, "month", month, month + 30 * DAY)

    def totals(**chosen: Any) -> Callable[[AsyncConnection], Awaitable[Any]]:
        return lambda connection: usage.totals(connection, usage.Filter(**chosen))

    def page(**chosen: Any) -> Callable[[AsyncConnection], Awaitable[Any]]:
        return lambda connection: usage.page(connection, usage.Filter(**chosen), 100, None)

    return [
        ("invoice of a month, the largest organization", INVOICE_MS, invoice),
        ("31 days by model", DASHBOARD_MS, buckets(end - 31 * DAY, DAY, "model")),
        ("7 days in hours by project", DASHBOARD_MS, buckets(end - 7 * DAY, HOUR, "project_id")),
        ("an hour in minutes", DASHBOARD_MS, buckets(end - HOUR, 60)),
        ("newest 100 attempts of the organization", DASHBOARD_MS, page(organization_id=largest)),
        ("newest 100 attempts of all", DASHBOARD_MS, page()),
        ("totals of 45 days, the organization", DASHBOARD_MS, totals(start=part, organization_id=largest)),
        ("totals of 45 days, all", DASHBOARD_MS, totals(start=part)),
    ]


async def _measure(url: str) -> None:
    begin = int(datetime(2026, 9, 1, tzinfo=UTC).timestamp())
    database = Database(url)
    try:
        seconds = await _fill(database, begin)
        async with database.read() as connection:
            sizes = await connection.execute(
                text(
                    "SELECT (SELECT count(*) FROM usage_hourly), (SELECT count(*) FROM usage_daily), "
                    "pg_database_size(current_database()) / 1000000"
                )
            )
            hours, days, size = sizes.one()
        print(
            f"PostgreSQL, {ROWS:,} attempts of {ORGANIZATIONS} organizations in {DAYS} days, {hours:,} sums by hour, "
            f"{days:,} by day, {size:,} MB, made in {seconds:.0f} s"
        )
        print(f"{'':50}{'median ms':>12}{'worst ms':>12}{'target ms':>12}")
        for name, target, question in _questions(begin):
            times = []
            for _ in range(ROUNDS):
                async with database.read() as connection:
                    begun = time.perf_counter()
                    await question(connection)
                    times.append(1e3 * (time.perf_counter() - begun))
            print(f"{name:50}{statistics.median(times):12.1f}{max(times):12.1f}{target:12,}")
    finally:
        await database.close()


def main() -> None:
    with running_postgres() as server:
        asyncio.run(_measure(server.database()))


if __name__ == "__main__":
    main()
