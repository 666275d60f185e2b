"""File storage: /storage/{volume}/{path}."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath

from starlette.datastructures import UploadFile
from starlette.responses import FileResponse, Response

from launcher.emulators.lepton.api.call import Call, Routes, answer
from launcher.emulators.lepton.config import Volume
from launcher.emulators.lepton.errors import ApiError, Code, not_found
from launcher.emulators.lepton.wire import Json

DEFAULT = "default"
"""Name of the first volume, besides its own."""


def routes() -> Routes:
    """The routes of storage."""
    one = "/storage/{volume}/{path:path}"
    return [
        ("GET", "/storage", volumes),
        ("GET", "/storage/du", usage),
        ("HEAD", one, exists),
        ("GET", one, get),
        ("PUT", one, make_folder),
        ("POST", one, upload),
        ("DELETE", one, delete),
    ]


async def volumes(call: Call) -> Response:
    """All volumes with what is on them."""
    return answer([_volume(name, call) for name in _volumes(call)])


async def usage(call: Call) -> Response:
    """What is on the default volume."""
    return answer(_volume(DEFAULT, call))


async def exists(call: Call) -> Response:
    """200 or 404."""
    return Response(status_code=200 if _path(call).exists() else 404)


async def get(call: Call) -> Response:
    """Bytes of a file, or the list of a folder."""
    path = _path(call)
    if path.is_file():
        return FileResponse(path)
    if not path.is_dir():
        raise not_found("file", call.path("path"))
    base = PurePosixPath("/", call.path("path"))
    return answer(
        [
            {"type": "dir" if entry.is_dir() else "file", "name": entry.name, "path": str(base / entry.name)}
            for entry in sorted(path.iterdir())
        ]
    )


async def make_folder(call: Call) -> Response:
    """A folder and those above it."""
    _path(call).mkdir(parents=True, exist_ok=True)
    return Response(status_code=201)


async def upload(call: Call) -> Response:
    """The form's `file`, into a folder that exists."""
    path = _path(call)
    if not path.parent.is_dir():
        raise not_found("folder", str(PurePosixPath(call.path("path")).parent))
    async with call.request.form() as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise ApiError(400, Code.INVALID, "the form needs a file")
        target = path / (file.filename or "file") if path.is_dir() else path
        target.write_bytes(await file.read())
    return Response(status_code=201)


async def delete(call: Call) -> Response:
    """A file, an empty folder, or with `removeall=true` a tree."""
    path = _path(call)
    if not call.path("path").strip("/"):
        raise ApiError(400, Code.INVALID, "the root cannot be deleted")
    if not path.exists():
        raise not_found("file", call.path("path"))
    if path.is_dir() and call.query("removeall") == "true":
        shutil.rmtree(path)
    elif path.is_dir():
        _remove_empty(path)
    else:
        path.unlink()
    return Response()


def _remove_empty(path: Path) -> None:
    if any(path.iterdir()):
        raise ApiError(400, Code.INVALID, "the folder is not empty")
    path.rmdir()


def _volumes(call: Call) -> dict[str, Volume]:
    """Volumes of all node groups by name."""
    return {volume.name: volume for group in call.workspace.config.node_groups for volume in group.volumes}


def _folder(name: str, call: Call) -> Path:
    volumes = _volumes(call)
    volume = next(iter(volumes.values()), None) if name == DEFAULT else volumes.get(name)
    if volume is None:
        raise not_found("volume", name)
    folder = call.workspace.translator.volume(volume.source)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _path(call: Call) -> Path:
    """The file or folder on this machine. Raises ApiError 400 for one outside of the volume."""
    folder = _folder(call.path("volume"), call)
    path = folder / call.path("path").lstrip("/")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ApiError(400, Code.INVALID, "the path leaves the volume")
    return path


def _volume(name: str, call: Call) -> Json:
    size = sum(path.stat().st_size for path in _folder(name, call).rglob("*") if path.is_file())
    return {"metadata": {"name": name}, "status": {"total_usage_bytes": size}}
