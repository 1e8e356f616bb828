"""The database's clock, which all processes use."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, Integer, literal, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC. SQLite stores it without a time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive values, and drop the time zone for SQLite."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"expected an aware datetime, got {value!r}; use clock.now()")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Add the time zone UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class utc_now(FunctionElement[datetime]):  # noqa: N801 - named like an SQL function
    """The database's time at the start of the statement. Conditions on it can use an index."""

    type = UtcDateTime()
    inherit_cache = True


@compiles(utc_now)
def _standard(element: utc_now, compiler: SQLCompiler, **_: Any) -> str:
    return "statement_timestamp()"


@compiles(utc_now, "sqlite")
def _sqlite(element: utc_now, compiler: SQLCompiler, **_: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


class utc_in(FunctionElement[datetime]):  # noqa: N801 - as above
    """The database's time plus a number of seconds."""

    type = UtcDateTime()
    inherit_cache = True

    def __init__(self, seconds: int) -> None:
        super().__init__(literal(seconds, Integer))


@compiles(utc_in)
def _standard_in(element: utc_in, compiler: SQLCompiler, **given: Any) -> str:
    return f"statement_timestamp() + make_interval(secs => {compiler.process(element.clauses, **given)})"


@compiles(utc_in, "sqlite")
def _sqlite_in(element: utc_in, compiler: SQLCompiler, **given: Any) -> str:
    seconds = compiler.process(element.clauses, **given)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', {seconds} || ' seconds')"


def now(session: Session) -> datetime:
    """The database's time in UTC."""
    return session.scalars(select(utc_now())).one()
