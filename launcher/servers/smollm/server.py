"""One server process: binds, answers 503 while the model loads, serves until it is told to stop."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn

from launcher.errors import LauncherError, PreflightError
from launcher.servers.smollm import weights
from launcher.servers.smollm.app import LoadedModel, Service, create_app, load_chat
from launcher.servers.smollm.engine import Engine
from launcher.servers.smollm.runtime import Runtime

EMBEDDED_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
_SLOTS = 4
_SLOT_TOKENS = 8192
"""Tokens of keys and values over all slots: long contexts get fewer slots, so that memory stays below 0.7 GiB."""
_KEEP_ALIVE = 600
"""Seconds an idle connection stays open: longer than a harness thinks between two requests."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says. `context` in tokens; port 0 takes a free one."""

    host: str
    port: int
    served_name: str | None
    context: int
    threads: int
    gguf: Path | None
    model_id: str | None


def serve(options: Options) -> None:
    """Serve until SIGTERM or SIGINT, which end the process with exit code 0.

    Raises LauncherError where the port is taken or the model cannot be had.
    """
    listener = _bind(options.host, options.port)
    model_id = options.model_id or (options.gguf.stem if options.gguf else EMBEDDED_MODEL)
    service = Service(served_name=options.served_name or model_id, model_id=model_id, context=options.context)
    server = uvicorn.Server(_uvicorn_config(service))
    host, port = listener.getsockname()[:2]
    _say(f"start: {service.served_name} on {host}:{port}, context {options.context}, threads {options.threads}")
    loading = _Loading(service, options, server)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)  # uvicorn raises the signal again once it has closed its connections
    loading.start()
    server.run(sockets=[listener])
    raise loading.error or LauncherError("the server ended by itself")


class _Loading(threading.Thread):
    """Loads the model beside the running server; a failure is kept in `error` and ends the server."""

    def __init__(self, service: Service, options: Options, server: uvicorn.Server) -> None:
        super().__init__(name="loading", daemon=True)
        self.error: LauncherError | None = None
        self._service = service
        self._options = options
        self._server = server

    def run(self) -> None:
        begin = time.monotonic()
        try:
            self._service.model = _load(self._options)
        except LauncherError as error:
            self.error = error
        except Exception as error:  # what native code may raise is not known; the process must not linger half alive
            self.error = LauncherError(f"cannot load the model: {type(error).__name__}: {error}")
        else:
            _say(f"ready: {self._service.model.revision} after {time.monotonic() - begin:.1f} s")
        self._server.should_exit = self.error is not None


def _load(options: Options) -> LoadedModel:
    found = weights.find(options.gguf)
    slots = max(1, min(_SLOTS, _SLOT_TOKENS // options.context))
    runtime = Runtime(found.path, context=options.context, slots=slots, threads=options.threads)
    engine = Engine(runtime, slots=slots)
    return LoadedModel(runtime=runtime, engine=engine, chat=load_chat(runtime), revision=found.revision)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error  # `strerror` of the error repeats the address
        raise PreflightError(f"cannot listen on {host}:{port}: {reason}") from None


def _uvicorn_config(service: Service) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(service),
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        ws="none",
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=0,
    )


def _leave(number: int, _: FrameType | None) -> None:
    """End at once: nothing is worth saving, and a computation in native code could take a second more."""
    _say(f"stopped by {signal.Signals(number).name}")
    os._exit(0)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
