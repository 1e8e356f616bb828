"""Traces by OpenTelemetry: all work for one request, in all processes, as one tree of spans.

Tracing is off unless the standard variables name a collector. Only then the packages of the extra `otel` are imported.
Rows store the `traceparent` (W3C Trace Context), by which another process continues a trace; messages could be lost.
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pnc_core.errors import Cancelled

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

log = logging.getLogger(__name__)
PARENT = "TRACEPARENT"
"""Variable that passes a trace to a child process."""
END_SECONDS = 2.0
"""Time limit for sending the last spans. Then spans are dropped: an absent collector must not delay a job's end."""
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_providers: "list[TracerProvider]" = []
"""Holds one provider while this process is traced."""


def is_wanted() -> bool:
    """Whether the environment names a collector and does not turn tracing off."""
    refused = (
        os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    )
    return not refused and _first(_ENDPOINTS) is not None


def load() -> None:
    """Import the packages of `begin` if tracing is wanted, so that forked children need not import them."""
    if is_wanted():
        _obstacle()


def begin(process: str, processor: "SpanProcessor | None" = None) -> "TracerProvider | None":
    """Trace this process from now on, if the environment names a collector. Idempotent.

    Call after forking: the span exporter is a thread, and threads do not survive a fork. An unusable collector only
    causes a warning, because the standard variables may be meant for other programs.

    Args:
        process: Role of the process: `api`, `worker` or `runner`.
        processor: Receives the spans in place of the collector.

    Returns:
        The provider of spans; None: the process is not traced.
    """
    if is_on():
        return _providers[0]
    if processor is None and not is_wanted():
        return None
    reason = _obstacle(given=processor is not None)
    if reason is not None:
        log.warning("no traces are sent: %s", reason)
        return None
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider

    named = OTELResourceDetector().detect().attributes.get("service.name", f"pnc-{process}")
    resource = Resource.create({"service.name": named, "pnc.process": process})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(processor or _to_collector())
    _providers.append(provider)
    return provider


def end() -> None:
    """Send the last spans, for at most `END_SECONDS`, and stop tracing."""
    while _providers:
        sending = threading.Thread(target=_providers.pop().shutdown, name="last spans", daemon=True)
        sending.start()
        sending.join(END_SECONDS)


def is_on() -> bool:
    """Whether this process is traced."""
    return bool(_providers)


@contextmanager
def span(name: str, *, parent: str | None = None, **about: object) -> Iterator[None]:
    """Record a block as one span.

    Args:
        name: Name of the span.
        parent: `traceparent` of the parent span; None: the enclosing span.
        **about: Attributes of the span: `job_id` becomes `pnc.job_id`.
    """
    if not is_on():
        yield
        return
    from opentelemetry.trace import StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    tracer = _providers[0].get_tracer("pnc")
    context = TraceContextTextMapPropagator().extract({"traceparent": parent}) if parent else None
    made = tracer.start_as_current_span(
        name, context, attributes=_attributes(about), record_exception=False, set_status_on_exception=False
    )
    with made as current:
        try:
            yield
        except Cancelled:  # no failure: a user cancelled the job
            raise
        except Exception as error:
            current.record_exception(error)
            current.set_status(StatusCode.ERROR, type(error).__name__)
            raise


def note(**about: object) -> None:
    """Add attributes to the current span."""
    if is_on():
        from opentelemetry.trace import get_current_span

        get_current_span().set_attributes(_attributes(about))


def traceparent() -> str | None:
    """`traceparent` of the current span, for a process that continues the trace; None: not traced."""
    if not is_on():
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def trace_id() -> str | None:
    """Id of the current trace, 32 hexadecimal digits; None: not traced."""
    found = traceparent()
    return found.split("-")[1] if found else None


def _to_collector() -> "SpanProcessor":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(OTLPSpanExporter())


def _obstacle(*, given: bool = False) -> str | None:
    """Reason why this process cannot be traced; None: it can."""
    if not given:
        name, endpoint = _first(_ENDPOINTS) or ("", "")
        if not endpoint.startswith(("http://", "https://")):
            return f"{name}: expected a URL such as http://collector.example:4318, got {endpoint!r:.80}"
        name, protocol = _first(_PROTOCOLS) or ("", _PROTOCOL)
        if protocol != _PROTOCOL:
            return (
                f"{name}: expected {_PROTOCOL}, got {protocol!r:.80}; name the collector's port for HTTP, mostly 4318"
            )
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace.export  # noqa: F401
    except ImportError as error:
        return f"expected the packages of the extra `otel`, got none ({error}); pip install 'pnc-zoo[otel]'"
    return None


def _attributes(about: dict[str, object]) -> dict[str, str | int | float | bool]:
    return {
        f"pnc.{name}": value if isinstance(value, str | int | float | bool) else str(value)
        for name, value in about.items()
        if value is not None
    }


def _first(names: tuple[str, ...]) -> tuple[str, str] | None:
    return next(((name, os.environ[name]) for name in names if os.environ.get(name)), None)
