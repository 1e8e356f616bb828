"""One clock for all processes: the database's."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, Integer, literal, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC; SQLite keeps it without a zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive values; drop the zone where the database has none."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"expected an aware datetime, got {value!r}; use clock.now()")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class utc_now(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function it is
    """The database's time of day when the statement began; an index can be searched by it."""

    type = UtcDateTime()
    inherit_cache = True


@compiles(utc_now)
def _standard(element: utc_now, compiler: SQLCompiler, **_: Any) -> str:
    return "statement_timestamp()"


@compiles(utc_now, "sqlite")
def _sqlite(element: utc_now, compiler: SQLCompiler, **_: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


class utc_in(FunctionElement[datetime]):  # noqa: N801 - as above
    """The database's time of day so many seconds from now."""

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
    """The database's clock, in UTC."""
    return session.scalars(select(utc_now())).one()
