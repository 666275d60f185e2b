"""The command harness: what the program is told, and which results it may bring home."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.config.evaluation import Generation, Settings
from launcher.config.fields import Reference
from launcher.errors import ConfigError, ResultsError
from launcher.harnesses.command import CommandHarness
from launcher.harnesses.spec import Score, TargetInfo
from launcher.runner.client import Target
from launcher.runner.job import Job, Run

HARNESS = CommandHarness()
TARGET = TargetInfo(
    model="served", endpoint_type="chat", has_api_key=True, remote_tokenizer=False, model_id="org/model"
)
OPEN_TARGET = TargetInfo(
    model="served", endpoint_type="completions", has_api_key=False, remote_tokenizer=False, model_id="org/model"
)

PROGRAM = """
import json, os, pathlib, sys
names = [n for n in os.environ if n.startswith(("NV_EVAL_", "OPENAI_"))]
record = {"argv": sys.argv[1:], "env": {n: os.environ[n] for n in names}}
folder = pathlib.Path(os.environ["NV_EVAL_OUTPUT_DIR"])
scores = [{"metric": "accuracy", "value": 0.5, "stderr": 0.25, "n": 4, "higher_is_better": True}]
results = {"schema": "nv-eval.scores/1", "scores": scores, "provenance": record}
(folder / "results.json").write_text(json.dumps(results))
print("@progress 4/4")
"""


def run_as_job(settings: Settings, target: TargetInfo, folder: Path) -> str:
    """Run the job as the runner does, and return what it printed."""
    run = HARNESS.job("my-task", settings, target)
    env = {name: value for name, value in run.env.items() if isinstance(value, str)}
    job = Job(
        invocation="x",
        task="my-task",
        target=Target(url="http://127.0.0.1:9", model=target.model, api_key_env="ENDPOINT_KEY"),
        run=Run(argv=list(run.argv), env=env, api_key_env=run.api_key_env),
        timeout=60.0,
        output_dir=folder,
        work_dir=folder,
    )
    argv = [job.fill(word) for word in job.run.argv]
    return subprocess.run(argv, env=job.environment(), cwd=folder, capture_output=True, text=True, check=True).stdout


def test_a_program_gets_what_it_needs_and_its_scores_come_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDPOINT_KEY", "sk-key")
    folder = tmp_path / "with 'quotes' and spaces"
    folder.mkdir()
    settings = Settings(
        command=["{python}", "-c", PROGRAM, "--model={model}", "{output_dir}"],
        limit=10.0,
        seed=3,
        num_fewshot=5,
        generation=Generation(temperature=0, extra={"guided_regex": "a+"}),
        envs={"HF_TOKEN": Reference(env="HF_TOKEN")},
    )
    printed = run_as_job(settings, TARGET, folder)
    assert printed == "@progress 4/4\n"
    assert HARNESS.parse(folder, "my-task", settings) == [
        Score(task="my-task", metric="accuracy", filter="none", value=0.5, stderr=0.25, n=4, higher_is_better=True)
    ]
    assert HARNESS.provenance(folder) == {
        "argv": ["--model=served", str(folder)],
        "env": {
            "NV_EVAL_URL": "http://127.0.0.1:9",
            "NV_EVAL_BASE_URL": "http://127.0.0.1:9/v1",
            "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
            "OPENAI_API_KEY": "sk-key",
            "NV_EVAL_MODEL": "served",
            "NV_EVAL_ENDPOINT_TYPE": "chat",
            "NV_EVAL_OUTPUT_DIR": str(folder),
            "NV_EVAL_TASK": "my-task",
            "NV_EVAL_LIMIT": "10",
            "NV_EVAL_SEED": "3",
            "NV_EVAL_SETTINGS": (
                '{"generation": {"guided_regex": "a+", "temperature": 0}, "limit": 10.0, "num_fewshot": 5, "seed": 3}'
            ),
        },
    }


def test_an_endpoint_without_a_key_never_sees_the_persons_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-own")
    run_as_job(Settings(command=[sys.executable, "-c", PROGRAM]), OPEN_TARGET, tmp_path)
    assert HARNESS.provenance(tmp_path)["env"]["OPENAI_API_KEY"] == "none"


def test_the_command_may_be_one_string() -> None:
    job = HARNESS.job("t", Settings(command="python -m 'my eval' {url}"), TARGET)
    assert job.argv == ("python", "-m", "my eval", "{url}")
    assert (job.results, job.progress, job.api_key_env) == (("results.json",), "lines", "OPENAI_API_KEY")


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (Settings(), "command: the command harness needs the program to run"),
        (Settings(command=[]), "command: the command harness needs the program to run"),
        (Settings(command="a 'b"), "command: cannot be split as a shell would: no closing quotation"),
        (Settings(command="eval --api-key x"), "command: --api-key would show a secret in the process list"),
        (Settings(command="a", envs={"NV_EVAL_URL": "x"}), "envs.NV_EVAL_URL: is set by the launcher"),
        (Settings(command="a", envs={"OPENAI_API_KEY": Reference(env="K")}), "envs.OPENAI_API_KEY: is set by the"),
        (Settings(command="a", envs={"HF_TOKEN": "x"}), "envs.HF_TOKEN: give it by reference: ${oc.env:HF_TOKEN}"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: Settings, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HARNESS.job("t", settings, TARGET)
    assert line in str(caught.value)


def test_a_program_says_by_itself_that_it_needs_loglikelihoods() -> None:
    plain = HARNESS.describe("t", Settings())
    scoring = HARNESS.describe("t", Settings(params={"needs_loglikelihood": True}))
    assert (plain.needs_loglikelihood, plain.endpoint_types) == (False, ("chat", "completions"))
    assert (scoring.needs_loglikelihood, scoring.endpoint_types) == (True, ("completions",))
    with pytest.raises(ConfigError, match="expected true or false, got 'yes'"):
        HARNESS.describe("t", Settings(params={"needs_loglikelihood": "yes"}))


def write(folder: Path, *scores: object, **top: object) -> None:
    document = {"schema": "nv-eval.scores/1", "scores": list(scores), **top}
    (folder / "results.json").write_text(json.dumps(document))


def test_all_fields_of_a_score_are_kept(tmp_path: Path) -> None:
    full = {
        "task": "sub",
        "metric": "f1",
        "filter": "strict",
        "value": 1,
        "stderr": 0,
        "n": 2,
        "higher_is_better": False,
        "num_fewshot": 3,
        "version": "v2",
        "group": True,
    }
    write(tmp_path, full, {"metric": "f1", "value": 0.25})
    assert HARNESS.parse(tmp_path, "t", Settings()) == [
        Score(
            task="sub",
            metric="f1",
            filter="strict",
            value=1.0,
            stderr=0.0,
            n=2,
            higher_is_better=False,
            num_fewshot=3,
            version="v2",
            group=True,
        ),
        Score(task="t", metric="f1", filter="none", value=0.25),
    ]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "does not follow nv-eval.scores/1"),
        ("{", "does not follow"),
        ("[]", "Expected `object`"),
        ('{"scores": [{"metric": "a", "value": 1}]}', "missing required field `schema`"),
        ('{"schema": "other/1", "scores": [{"metric": "a", "value": 1}]}', "Invalid enum value 'other/1'"),
        ('{"schema": "nv-eval.scores/1", "scores": []}', "length >= 1"),
        ('{"schema": "nv-eval.scores/1", "scores": [{"metric": "a"}]}', "missing required field `value`"),
        ('{"schema": "nv-eval.scores/1", "scores": [{"value": 1}]}', "missing required field `metric`"),
        ('{"schema": "nv-eval.scores/1", "scores": [{"metric": "a", "value": NaN}]}', "does not follow"),
        ('{"schema": "nv-eval.scores/1", "scores": [{"metric": "a", "value": 1e999}]}', "out of range"),
        ('{"schema": "nv-eval.scores/1", "scores": [{"metric": "a", "value": null}]}', "got `null`"),
        ('{"schema": "nv-eval.scores/1", "scores": [{"metric": "a", "value": "0.5"}]}', "got `str`"),
        ('{"schema": "nv-eval.scores/1", "scores": [{"metric": "a", "value": 1, "stderr": -1}]}', ">= 0"),
        ('{"schema": "nv-eval.scores/1", "scores": [{"metric": "a", "value": 1, "sdterr": 1}]}', "unknown field"),
    ],
)
def test_broken_results_are_refused(tmp_path: Path, content: str, what: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ResultsError) as caught:
        HARNESS.parse(tmp_path, "t", Settings())
    assert what in str(caught.value)
    assert str(tmp_path / "results.json") in str(caught.value)


def test_missing_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="No such file"):
        HARNESS.parse(tmp_path, "t", Settings())


def test_two_scores_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {"metric": "a", "value": 1}, {"metric": "a", "value": 0})
    with pytest.raises(ResultsError, match="two scores for t/a/none"):
        HARNESS.parse(tmp_path, "t", Settings())


@pytest.mark.parametrize(
    "number", ['"n": 9223372036854775808', '"n": 9007199254740992', '"n": 0', '"n": -1', '"stderr": 1e999',
               '"num_fewshot": 9223372036854775808'],
)  # fmt: skip
def test_a_number_out_of_bounds_is_refused(number: str, tmp_path: Path) -> None:
    text = f'{{"schema": "nv-eval.scores/1", "scores": [{{"metric": "acc", "value": 1, {number}}}]}}'
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ResultsError, match="does not follow"):
        HARNESS.parse(tmp_path, "t", Settings())


def test_text_that_looks_like_a_placeholder_reaches_the_program_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ENDPOINT_KEY", raising=False)
    words = "{model} of {url} {brace}model} {{python}} {other}"
    settings = Settings(command=["{python}", "-c", PROGRAM], system_prompt=words, envs={"NV_EVAL_MINE": words})
    run_as_job(settings, TARGET, tmp_path)
    env = HARNESS.provenance(tmp_path)["env"]
    assert json.loads(env["NV_EVAL_SETTINGS"])["system_prompt"] == words
    assert env["NV_EVAL_MINE"] == words
