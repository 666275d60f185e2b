"""What a pod has of its service account: a token, the cluster's authority, and the API server behind TLS.

The official client, like all others, speaks with its own cluster by HTTPS only. The authority is made by the program
`openssl` when the first pod asks for it.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from launcher.emulators.kubernetes.network import carry
from launcher.platforms.local.ports import HOST

FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a container finds it."""
_REQUEST = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30")
_AUTHORITY = f"""\
[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = emulated
[extensions]
basicConstraints = critical, CA:TRUE
keyUsage = critical, digitalSignature, keyCertSign
subjectKeyIdentifier = hash
subjectAltName = IP:{HOST}
"""
"""What the authority is, which serves by its own certificate."""


class Accounts:
    """Gives pods what they have of their service accounts.

    `api`: port of the API server; `token_of` makes a token of an account, by namespace and name.
    """

    def __init__(
        self,
        root: Path,
        spawn: Callable[[Callable[[], Any]], None],
        token_of: Callable[[str, str], str],
        api: Callable[[], int],
    ) -> None:
        self._root = root
        self._spawn = spawn
        self._token_of = token_of
        self._api = api
        self._tokens: dict[tuple[str, str], str] = {}
        self._port: int | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[Any]] = set()

    def give(self, pod: dict[str, Any], folder: Path) -> dict[str, str]:
        """Write what a pod has into a folder; returns its variables. Raises OSError without openssl."""
        namespace, name = pod["metadata"]["namespace"], pod["spec"].get("serviceAccountName") or "default"
        port = self.secured()
        if (namespace, name) not in self._tokens:
            self._tokens[namespace, name] = self._token_of(name, namespace)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "token").write_text(self._tokens[namespace, name])
        (folder / "namespace").write_text(namespace)
        shutil.copyfile(self.authority, folder / "ca.crt")
        return {"KUBERNETES_SERVICE_HOST": HOST, "KUBERNETES_SERVICE_PORT": str(port)}

    @property
    def authority(self) -> Path:
        """The file of the cluster's authority, once `secured` was asked."""
        return self._root / "ca.crt"

    def secured(self) -> int:
        """The port behind which the API server speaks TLS. Raises OSError without openssl."""
        return self._port or self._listen()

    def _listen(self) -> int:
        key, certificate = self._root / "ca.key", self.authority
        wish = self._root / "ca.cnf"
        wish.write_text(_AUTHORITY)
        words = ["openssl", *_REQUEST, "-config", str(wish), "-keyout", str(key), "-out", str(certificate)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode:
            raise OSError(f"openssl: {' '.join(done.stderr.split())[-200:]}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        listener = socket.create_server((HOST, 0))
        self._port = int(listener.getsockname()[1])
        self._spawn(partial(self._serve, listener, context))
        return self._port

    async def _serve(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._connections.add(task)
            try:
                await carry(reader, writer, HOST, self._api())
            except asyncio.CancelledError:
                return  # the emulator ends
            finally:
                self._connections.discard(task)

        self._server = await asyncio.start_server(answered, sock=listener, ssl=context)

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
        ending = [*self._connections]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
