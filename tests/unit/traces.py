"""Spans kept in memory, where a test can look at them."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.process import tracing


class Traces:
    """Everything that was traced since it was made."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        tracing.begin("test", SimpleSpanProcessor(self._exporter))

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """Spans that have ended, in that order."""
        return self._exporter.get_finished_spans()

    def one(self, name: str) -> ReadableSpan:
        """The only span of this name."""
        (found,) = (span for span in self.spans if span.name == name)
        return found


@contextmanager
def kept() -> Iterator[Traces]:
    """This process is traced meanwhile."""
    try:
        yield Traces()
    finally:
        tracing.end()


def parent_of(span: ReadableSpan) -> str | None:
    """16 hexadecimal digits."""
    return None if span.parent is None else f"{span.parent.span_id:016x}"


def traceparent_of(span: ReadableSpan) -> str:
    """As it stands in a header or a row."""
    context = span.get_span_context()
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
