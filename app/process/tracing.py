"""Traces by OpenTelemetry: what one request led to, in whichever processes, as one tree of spans.

Off unless the standard variables name a collector; then, and only then, the packages of the extra `otel` are imported.
A trace goes on in another process by its `traceparent` (W3C Trace Context), which rows keep: messages may be lost.
A process begins it after it was forked: what sends spans is a thread.
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
"""Variable by which a child process goes on with a trace."""
END_SECONDS = 2.0
"""What was not sent by then is given up: a process must not hold up a row's end for a collector that is away."""
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_providers: "list[TracerProvider]" = []
"""One while this process is traced."""


def is_wanted() -> bool:
    """Whether the environment names a collector, and does not say that nothing is to be sent."""
    refused = (
        os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    )
    return not refused and _first(_ENDPOINTS) is not None


def load() -> None:
    """Import what `begin` needs, if it is going to: children that are forked later need not."""
    if is_wanted():
        _why_not()


def begin(process: str, processor: "SpanProcessor | None" = None) -> "TracerProvider | None":
    """Trace this process from now on, if that is wanted; again changes nothing.

    These variables are everybody's, not ours: with a collector that cannot be used the service works, and says so.

    Args:
        process: Its part in the service, `api`, `worker` or `runner`.
        processor: Where spans go instead of the collector that the environment names.

    Returns:
        What makes spans; None if nothing is traced.
    """
    if is_on():
        return _providers[0]
    if processor is None and not is_wanted():
        return None
    reason = _why_not(given=processor is not None)
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
    """Send what is left, for a moment at most, and trace no more."""
    while _providers:
        sending = threading.Thread(target=_providers.pop().shutdown, name="last spans", daemon=True)
        sending.start()
        sending.join(END_SECONDS)


def is_on() -> bool:
    """Whether this process is traced."""
    return bool(_providers)


@contextmanager
def span(name: str, *, parent: str | None = None, **about: object) -> Iterator[None]:
    """Everything done within is one span of the trace.

    Args:
        name: What is done.
        parent: A `traceparent` from elsewhere; without it the span is a child of the one around it.
        **about: What it is about, e.g. `job_id`; attributes `pnc.job_id` and so on.
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
        except Cancelled:  # somebody asked for it
            raise
        except Exception as error:
            current.record_exception(error)
            current.set_status(StatusCode.ERROR, type(error).__name__)
            raise


def note(**about: object) -> None:
    """Say more about the span that this is called in."""
    if is_on():
        from opentelemetry.trace import get_current_span

        get_current_span().set_attributes(_attributes(about))


def traceparent() -> str | None:
    """The span that this is called in, for whoever goes on with the trace; None if nothing is traced."""
    if not is_on():
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def trace_id() -> str | None:
    """32 hexadecimal digits of the trace that this is called in, if there is one."""
    found = traceparent()
    return found.split("-")[1] if found else None


def _to_collector() -> "SpanProcessor":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(OTLPSpanExporter())


def _why_not(*, given: bool = False) -> str | None:
    """What keeps this process from being traced; None: nothing does."""
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
