"""A collector of traces for tests."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """Receives traces as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        self._requests: list[ExportTraceServiceRequest] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                collector._requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def paths(self) -> set[str]:
        """Each span as `service: parent > child`, with all its parents."""
        found = {}
        for resource in (r for request in self._requests for r in request.resource_spans):
            (service,) = (a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            for span in (s for scope in resource.scope_spans for s in scope.spans):
                found[span.span_id.hex()] = (span.name, span.parent_span_id.hex(), service)

        def path(span_id: str) -> str:
            name, parent, _ = found[span_id]
            return f"{path(parent)} > {name}" if parent in found else name

        return {f"{service}: {path(span_id)}" for span_id, (_, _, service) in found.items()}


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector within a block."""
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        collector.server.shutdown()
        collector.server.server_close()
        thread.join()
