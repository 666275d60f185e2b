"""References become values at the last moment, and values leave every text again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.config.fields import Reference
from launcher.errors import PlatformError
from launcher.platforms.secrets import Secrets, unresolvable

CANARY = 'canary-"8f3a/1b"'


def test_a_reference_becomes_the_variables_value() -> None:
    secrets = Secrets({"MY_KEY": CANARY})
    env = {"HF_TOKEN": Reference(env="MY_KEY"), "MODE": "plain"}
    assert secrets.resolve_env(env) == {"HF_TOKEN": CANARY, "MODE": "plain"}


def test_an_unset_variable_is_named_with_what_to_do() -> None:
    with pytest.raises(PlatformError, match=r"variable MY_KEY is not set; export MY_KEY=\.\.\. before the run"):
        Secrets({}).resolve(Reference(env="MY_KEY"))


def test_a_secret_store_does_not_exist_here() -> None:
    problem = unresolvable(Reference(secret="hf"), {"hf": "x"})
    assert problem is not None
    assert problem.startswith("secret hf: this platform has no secret store")


@pytest.mark.parametrize("text", [CANARY, json.dumps({"key": CANARY}), "https://x/?key=canary-%228f3a%2F1b%22"])
def test_a_value_is_found_in_every_form_it_takes(text: str) -> None:
    secrets = Secrets({"MY_KEY": CANARY})
    secrets.resolve(Reference(env="MY_KEY"))
    assert "8f3a" not in secrets.redact(text)


def test_the_password_of_a_url_is_a_secret_too() -> None:
    secrets = Secrets({"HTTPS_PROXY": "http://me:hunter22@proxy:3128"})
    secrets.resolve(Reference(env="HTTPS_PROXY"))
    assert secrets.redact("407 for hunter22") == "407 for ***"


def test_a_value_too_short_to_be_a_secret_does_not_tear_text_apart() -> None:
    secrets = Secrets({"FLAG": "true"})
    secrets.resolve(Reference(env="FLAG"))
    assert secrets.redact('{"ok": true}') == '{"ok": true}'


def test_text_that_is_not_utf8_survives_redaction() -> None:
    assert Secrets({}).redact("caf\udce9") == "caf\udce9"


def test_scrubbing_changes_only_files_that_hold_a_value(tmp_path: Path) -> None:
    secrets = Secrets({"MY_KEY": "canary-1234"})
    secrets.resolve(Reference(env="MY_KEY"))
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "results.json").write_text('{"header": "Bearer canary-1234"}')
    (folder / "cache.db").write_bytes(b"\0\1canary-1234\2")
    (folder / "clean.txt").write_text("nothing here")
    assert [path.name for path in secrets.scrub(tmp_path)] == ["cache.db", "results.json"]
    assert (folder / "results.json").read_text() == '{"header": "Bearer ***"}'
    assert (folder / "cache.db").read_bytes() == b"\0\1***********\2"
    assert sorted(path.name for path in folder.iterdir()) == ["cache.db", "clean.txt", "results.json"]


def test_each_line_of_a_value_of_several_lines_is_a_secret() -> None:
    secrets = Secrets({"SSH_KEY": "-----BEGIN KEY-----\r\nMIIcanary1\n  MIIcanary2\n}\n"})
    secrets.resolve(Reference(env="SSH_KEY"))
    assert secrets.redact("read MIIcanary2 {}") == "read *** {}"
    assert "canary" not in secrets.redact(json.dumps({"key": "x\nMIIcanary1\nMIIcanary2"}))


@pytest.mark.parametrize("value", ["123456", "0.5123456", "-1234567"])
def test_a_value_that_is_a_short_number_does_not_change_numbers(value: str, tmp_path: Path) -> None:
    secrets = Secrets({"ID": value})
    secrets.resolve(Reference(env="ID"))
    (tmp_path / "results.json").write_text('{"acc,none": 0.5123456789}')
    assert secrets.scrub(tmp_path) == []
    assert secrets.redact("took 0.5123456789 s") == "took 0.5123456789 s"


def test_scrubbing_json_leaves_numbers_and_layout_alone(tmp_path: Path) -> None:
    secrets = Secrets({"ID": "512345678901"})
    secrets.resolve(Reference(env="ID"))
    text = '{"acc": 0.5123456789012,\n  "id": 512345678901, "\\"k": "of 512345678901 \\\\"}'
    clean = '{"acc": 0.5123456789012,\n  "id": "***", "\\"k": "of *** \\\\"}'
    (tmp_path / "results.json").write_text(text)
    (tmp_path / "samples.jsonl").write_text(text.replace("\n", "") + "\n{broken 512345678901\n")
    assert len(secrets.scrub(tmp_path)) == 2
    assert (tmp_path / "results.json").read_text() == clean
    assert (tmp_path / "samples.jsonl").read_text() == clean.replace("\n", "") + "\n{broken ***\n"
    assert json.loads(clean)["acc"] == 0.5123456789012
