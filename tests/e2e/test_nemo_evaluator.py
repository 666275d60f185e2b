"""A job of the nemo_evaluator harness, run by the real runner with the real nemo-evaluator and its lm-eval.

They need an environment of their own, as nvidia-lm-eval replaces lm_eval:
`pip install nemo-evaluator==0.2.8 nvidia-lm-eval==26.3` there, and name its Python in NV_EVAL_TEST_NEMO_PYTHON.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from launcher.config.deployment import NoDeployment
from launcher.config.evaluation import EndpointType, Evaluation, Task
from launcher.config.schema import ApiEndpoint, Config, Target
from launcher.harnesses import load_harness
from launcher.harnesses.spec import Score
from launcher.plan.build import build
from launcher.plan.document import API_KEY_ENV, job_document, runner_source

PYTHON = os.environ.get("NV_EVAL_TEST_NEMO_PYTHON", "")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not PYTHON, reason="NV_EVAL_TEST_NEMO_PYTHON names no Python with nemo-evaluator"),
]

SECRET = "canary-5d21e8"
TASK = """
task: additions
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["!"], max_gen_toks: 4}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""


@dataclass
class Endpoint:
    """Answers every question with 4, and remembers what it was asked."""

    url: str = ""
    asked: list[tuple[str, dict[str, Any], str | None]] = field(default_factory=list)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    told = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.reply({"object": "list", "data": [{"id": "served", "object": "model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.asked.append((self.path, body, self.headers["Authorization"]))
            message = {"role": "assistant", "content": "4"}
            choice = {"index": 0, "text": "4", "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            self.reply({"id": "x", "object": "completion", "model": "served", "choices": [choice], "usage": usage})

        def reply(self, document: dict[str, Any]) -> None:
            data = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        told.url = f"http://127.0.0.1:{server.server_port}"
        yield told
        server.shutdown()
        thread.join()


def task_folder(tmp_path: Path) -> Path:
    """A user's task: three questions whose answer is 4, and one where it is not."""
    folder = tmp_path / "my_tasks"
    folder.mkdir()
    data = folder / "data.jsonl"
    rows = [("2+2=", "4"), ("1+3=", "4"), ("8-4=", "4"), ("2+3=", "5")]
    data.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in rows))
    (folder / "additions.yaml").write_text(TASK.replace("DATA", str(data)))
    return folder


@pytest.mark.parametrize(
    ("name", "endpoint_type", "route"),
    [("gsm8k", "completions", "/v1/completions"), ("ifeval", "chat", "/v1/chat/completions")],
)
def test_a_real_run_brings_home_scores_with_their_errors(
    tmp_path: Path, endpoint: Endpoint, name: str, endpoint_type: EndpointType, route: str
) -> None:
    params = {"task": "additions", "extra": {"args": f"--include_path {task_folder(tmp_path)}"}}
    task = Task(name=name, harness="nemo_evaluator", endpoint_type=endpoint_type, concurrency=2, params=params)
    config = Config(
        deployment=NoDeployment(),
        target=Target(
            api_endpoint=ApiEndpoint(url=endpoint.url, model_id="served", api_key_name="ENDPOINT_KEY"),
        ),
        evaluation=Evaluation(tasks=[task]),
    )
    (plan,) = build(config).tasks
    work, output = tmp_path / "work", tmp_path / "my results"
    work.mkdir()
    output.mkdir()
    document = job_document("inv", plan, url=endpoint.url, output_dir=str(output), work_dir=str(work))
    (work / "runner.py").write_text(runner_source())
    (work / "job.json").write_text(json.dumps(document))
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        API_KEY_ENV: SECRET,
    }
    argv = [PYTHON, str(work / "runner.py"), str(work / "job.json")]
    ended = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=180, check=False)

    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-2000:]
    harness = load_harness("nemo_evaluator")
    (score,) = harness.parse(output, name, plan.settings)
    assert score == Score(task="additions", metric="exact_match", filter="none", value=0.75, stderr=pytest.approx(0.25))
    questions = [ask for ask in endpoint.asked if ask[1].get("max_tokens") != 1]  # one token: readiness, not the task
    assert {(path, body["model"], key) for path, body, key in questions} == {(route, "served", f"Bearer {SECRET}")}
    assert harness.provenance(output)["config"]["params"]["parallelism"] == 2
    texts = [ended.stdout, ended.stderr]
    texts += [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(SECRET in text for text in texts)
