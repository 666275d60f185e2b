"""The shell script that a job's container runs: it unpacks the runner, sees to the harness, and runs it.

Everything the job needs is in the script itself, as the service has no way to bring files. No secret is in it. Paths
on the mounted storage stand in it as they are, nowhere in what is packed.
"""

from __future__ import annotations

import base64
import io
import json
import shlex
import zipfile
from functools import cache

from launcher.errors import PlatformError
from launcher.harnesses.spec import CACHE
from launcher.plan.document import job_document, runner_source
from launcher.plan.model import TaskPlan

ARCHIVE = "results.zip"
"""All results of a job, in its folder on the storage: one file, so that they come home in one request."""
MOST_BYTES = 120_000
"""Linux takes no argument of 128 KiB or more."""

_SCRIPT = """\
set -eu
python=$(command -v python3 || command -v python) || {{ echo "the job's image has no Python" >&2; exit 127; }}
folder={folder}
work=$(mktemp -d)
mkdir -p "$folder/output"
cd "$work"
ln -s "$folder/output" output
"$python" - <<'NV_EVAL_END'
import base64, io, zipfile
for packed in ('''
{runner}
''', '''
{document}
'''):
    zipfile.ZipFile(io.BytesIO(base64.b64decode(packed))).extractall()
NV_EVAL_END
{install}"$python" runner.py job.json &
runner=$!
trap 'kill -TERM "$runner" 2>/dev/null || true' TERM INT
wait "$runner" || true
while kill -0 "$runner" 2>/dev/null; do wait "$runner" || true; done  # a signal ends a wait early
code=0
wait "$runner" || code=$?
{keep}exit "$code"
"""
_INSTALL = """\
if ! "$python" -c 'import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))' {modules}
then "$python" -m pip install --quiet --disable-pip-version-check {packages}
fi
"""
_KEEP = """\
cd "$folder/output"
"$python" -I - <<'NV_EVAL_END' && mv ../part.zip ../{archive} || true
import pathlib, zipfile
with zipfile.ZipFile("../part.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    for path in sorted(pathlib.Path().rglob("*")):
        if path.parts[0] != "{cache}":
            archive.write(path)
NV_EVAL_END
"""


def script(invocation: str, task: TaskPlan, *, url: str, folder: str | None) -> str:
    """The script of one job. `folder` is the task's folder on the storage, None without storage.

    Raises PlatformError if the job's files are too large to be sent.
    """
    document = job_document(invocation, task, url=url, output_dir="output", work_dir="work")
    text = _SCRIPT.format(
        folder=shlex.quote(folder) if folder else '"$(mktemp -d)"',
        runner=_packed_runner(),
        document=_packed("job.json", json.dumps(document)),
        install=_install(task),
        keep=_KEEP.format(archive=ARCHIVE, cache=CACHE) if folder else "",
    )
    if len(text.encode()) > MOST_BYTES:
        raise PlatformError(
            f"{task.key}: the job's files take {len(text) // 1024} KiB packed, and a command takes "
            f"{MOST_BYTES // 1024}; put them into an image and set the task's image"
        )
    return text


@cache
def _packed_runner() -> str:
    return _packed("runner.py", runner_source(short=True))


def _packed(name: str, content: str) -> str:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr(name, content)
    text = base64.b64encode(buffer.getvalue()).decode()
    return "\n".join(text[start : start + 120] for start in range(0, len(text), 120))


def _install(task: TaskPlan) -> str:
    if not task.job.packages:
        return ""
    return _INSTALL.format(modules=shlex.join(task.job.run.requires), packages=shlex.join(task.job.packages))
