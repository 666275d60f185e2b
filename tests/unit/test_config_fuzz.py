"""Whatever is written, it is a Config or a ConfigError in single lines."""

from __future__ import annotations

import string
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.config import Config, Request, load, located
from launcher.config.problems import Invalid
from launcher.config.schema import DEPLOYMENTS
from launcher.config.validate import hints, validate
from launcher.errors import ConfigError
from launcher.plan.build import build
from launcher.plan.model import Plan
from launcher.results import write

CANARY = "canary-7f3a"
QUICK = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
MANY = settings(QUICK, max_examples=120)

SECTIONS = {name: set(hints(cls)) for name, cls in hints(Config).items() if hasattr(cls, "__dataclass_fields__")}
SECTIONS["execution"] = {"type", "runtime", "gpus", "output_dir", "docker"}
SECTIONS["deployment"] = {key for cls in DEPLOYMENTS.values() for key in hints(cls)}
KEYS = sorted({*SECTIONS, *(key for keys in SECTIONS.values() for key in keys), "name", "api_endpoint", "url"})

words = st.sampled_from([*KEYS, "vllm", "smollm", "none", "local", "lepton", "chat", "gsm8k_100", "???", "x"])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | words
keys = words | st.integers(0, 3) | st.booleans()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)
trees = st.fixed_dictionaries(
    {},
    optional={
        name: st.dictionaries(st.sampled_from(sorted(known)), values, max_size=4) | values
        for name, known in SECTIONS.items()
    },
)
REFERENCES = [f"${{oc.env:{name}}}" for name in ("CANARY_TOKEN", "CANARY", "NOT_SET")]
REFERENCES += ["${oc.decode:${oc.env:CANARY_TOKEN}}", "${oc.env:CANARY_TOKEN}/x", "${deployment.envs.A}", "${oc.env:"]
REFERENCES += ["${oc.env:CANARY_TOKEN,x}", "${oc.select:${oc.env:CANARY_TOKEN}}", "${${oc.env:CANARY_TOKEN}}"]
overrides = st.one_of(
    st.tuples(
        st.sampled_from(["", "+", "++", "~"]),
        st.sampled_from([f"{section}.{key}" for section, known in SECTIONS.items() for key in sorted(known)])
        | words
        | st.text(string.printable, max_size=8),
        st.just("=") | st.just(""),
        st.text(string.printable, max_size=10) | words | st.sampled_from(REFERENCES),
    ).map("".join),
    st.text(max_size=12),
)


def plan_or_error(request: Request) -> Plan | ConfigError:
    try:
        config = load(request)
        with located(request):
            return build(config, "abcd1234")
    except ConfigError as error:
        return error


def is_worded_well(error: ConfigError) -> bool:
    """Each problem one printable line, with nothing of Hydra's advice or OmegaConf's dumps."""
    text = str(error)
    is_single = all(problem and len(problem.splitlines()) == 1 for problem in error.problems)
    return is_single and not any(word in text for word in ("full_key", "object_type", "use +", "Traceback", "\ue000"))


@MANY
@given(trees)
def test_any_tree_is_a_config_or_a_list_of_problems(tree: dict[str, Any]) -> None:
    try:
        assert isinstance(validate(tree), Config)
    except Invalid as invalid:
        assert invalid.problems


@QUICK
@given(trees)
def test_any_file_is_a_plan_or_an_error(tree: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "c.yaml").write_text(yaml.safe_dump(tree, allow_unicode=False))
        outcome = plan_or_error(Request(name="c", config_dir=folder))
    if isinstance(outcome, ConfigError):
        assert is_worded_well(outcome), outcome
    else:
        assert msgspec.json.encode(outcome)


@QUICK
@given(st.binary(max_size=60))
def test_any_bytes_are_a_plan_or_an_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "c.yaml").write_bytes(content)
        outcome = plan_or_error(Request(name="c", config_dir=folder))
    assert isinstance(outcome, ConfigError)
    assert is_worded_well(outcome), outcome


@settings(QUICK, max_examples=60)
@given(st.lists(overrides, min_size=1, max_size=3))
def test_any_overrides_are_a_plan_or_an_error_and_never_show_a_secret(words: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANARY_TOKEN", CANARY)
        patch.delenv("NOT_SET", raising=False)
        outcome = plan_or_error(Request(overrides=tuple(words)))
    if isinstance(outcome, ConfigError):
        assert is_worded_well(outcome), outcome
        assert CANARY not in str(outcome)
    else:
        assert CANARY not in msgspec.json.encode(outcome).decode()


ENV_KEYS = ["deployment.envs.A", "evaluation.envs.HF_TOKEN", "evaluation.tasks.0.envs.B"]
WRITTEN_KEYS = ["execution.output_dir", "deployment.model_id", "deployment.context_length", "evaluation.params"]
WRITTEN_KEYS += ["evaluation.generation.x", "target.api_endpoint.url", "target.api_endpoint.api_key_name"]


DECODED = "${oc.decode:${oc.env:CANARY_TOKEN}}"
SECRETS = [(reference, CANARY) for reference in REFERENCES if "CANARY_TOKEN" in reference]
SECRETS += [(DECODED, value) for value in ("7391", "[7391,x]", "{7391", "${oc.env:HOME}")]


SPREAD = [(ENV_KEYS[0], *secret) for secret in SECRETS] + [(WRITTEN_KEYS[0], *secret) for secret in SECRETS]
SPREAD += [(key, *secret) for key in ENV_KEYS[1:] + WRITTEN_KEYS[1:] for secret in SECRETS[:2]]
"""Every reference at a key that takes references and at one that takes none, and two of them at every other key."""


@pytest.mark.parametrize(("key", "reference", "value"), SPREAD)
def test_a_secret_never_leaves_the_environment(
    key: str, reference: str, value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CANARY_TOKEN", value)
    monkeypatch.setenv("HOME", "7391")
    outcome = plan_or_error(Request(overrides=(f'{key}="{reference}"',)))
    if isinstance(outcome, ConfigError):
        text = str(outcome)
    else:
        write.begin(outcome, tmp_path)
        text = "".join(path.read_text() for path in tmp_path.iterdir())
    assert CANARY not in text
    assert "7391" not in text


def test_the_config_that_is_written_can_be_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", CANARY)
    first = build(load(Request(overrides=("deployment.envs.A=${oc.env:SOME_TOKEN}", "evaluation.limit=3"))), "abcd1234")
    write.begin(first, tmp_path)
    second = build(load(Request(name="config", config_dir=str(tmp_path))), "abcd1234")
    assert second == first
