"""Places to export to, as processes and threads on loopback."""

from __future__ import annotations

import gzip
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[str]:
    """A real `mlflow server` on SQLite."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts")),
    ]
    env = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with served(command, f"http://127.0.0.1:{port}/health", folder / "log", env) as url:
        yield url.removesuffix("/health")


@contextmanager
def served(command: list[str], health: str, log: Path, env: dict[str, str]) -> Iterator[str]:
    """A server in a process of its own, from when it answers; its whole process group is ended at the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=env, start_new_session=True)
    try:
        deadline = time.monotonic() + 90
        while not _answers(health):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.2)
        yield health
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class Collector:
    """An OTLP receiver over HTTP that decodes with OpenTelemetry's own messages, and keeps all that it is sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.points: list[tuple[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.scopes: list[Any] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, path: str, body: bytes) -> bytes:
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace

        if path == "/v1/traces":
            spans = trace.ExportTraceServiceRequest.FromString(body)
            self.spans += [s for r in spans.resource_spans for scope in r.scope_spans for s in scope.spans]
            self.scopes += [resource.resource for resource in spans.resource_spans]
            return bytes(trace.ExportTraceServiceResponse().SerializeToString())
        assert path == "/v1/metrics"
        request = metrics.ExportMetricsServiceRequest.FromString(body)
        for metric in (m for r in request.resource_metrics for scope in r.scope_metrics for m in scope.metrics):
            data = metric.gauge if metric.HasField("gauge") else metric.sum
            self.points += [(metric.name, point) for point in data.data_points]
        return bytes(metrics.ExportMetricsServiceResponse().SerializeToString())

    def _handler(collector) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.headers.append(dict(self.headers))
                answer = collector.take(self.path, body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
