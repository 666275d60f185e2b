"""OpenAI's own Python client talks to the emulated inference routes, with a server of its own process behind them."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import openai
import pytest

from launcher.emulators.deepinfra import Server
from tests.contract.deepinfra.plane import Plane, plane
from tests.e2e.cli import ROOT

CANNED = Server(
    argv=(sys.executable, "-m", "uvicorn", "--port", "{port}", "launcher.emulators.common.canned:model"),
    env={"PYTHONPATH": str(ROOT)},
)


@pytest.fixture(scope="module")
def desk() -> Iterator[Plane]:
    with plane(CANNED) as found:
        yield found


@pytest.fixture(scope="module")
def model(desk: Plane) -> str:
    return f"deploy_id:{desk.create_running()}"


@pytest.fixture(scope="module")
def client(desk: Plane) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=desk.emulator.openai_url, api_key=desk.emulator.key, max_retries=0) as found:
        yield found


def test_models_are_listed(client: openai.OpenAI, model: str) -> None:
    assert model
    assert "nv-eval-tester/tiny" in [found.id for found in client.models.list()]


def test_a_prompt_is_completed(client: openai.OpenAI, model: str) -> None:
    found = client.completions.create(model=model, prompt="Hello there", max_tokens=3)

    assert (found.model, found.choices[0].text) == (model, " ok ok ok")
    assert found.usage is not None and (found.usage.prompt_tokens, found.usage.completion_tokens) == (2, 3)


def test_a_prompt_is_completed_in_a_stream(client: openai.OpenAI, model: str) -> None:
    chunks = list(client.completions.create(model=model, prompt="Hello", max_tokens=3, stream=True))

    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == " ok ok ok"
    assert {chunk.model for chunk in chunks} == {model}


def test_a_conversation_goes_on(client: openai.OpenAI, model: str) -> None:
    found = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}], max_tokens=2)

    assert (found.model, found.choices[0].message.content) == (model, " ok ok")


def test_a_conversation_goes_on_in_a_stream(client: openai.OpenAI, model: str) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    chunks = list(client.chat.completions.create(model=model, messages=messages, max_tokens=2, stream=True))

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == " ok ok"


def test_errors_are_those_that_the_client_knows(client: openai.OpenAI, model: str, desk: Plane) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.completions.create(model="nobody/nothing", prompt="Hello")
    with pytest.raises(openai.UnprocessableEntityError):
        client.completions.create(model=model, prompt=["one", "two"])
    stranger = client.with_options(api_key="wrong")
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_what_went_through_is_counted(client: openai.OpenAI, model: str, desk: Plane) -> None:
    path = f"/deploy/{model.removeprefix('deploy_id:')}/stats2"

    def counted() -> tuple[int, int]:
        found = desk.ok("GET", path, params={"from": "now-1h"})["llm"]
        return found["requests"], found["output_tokens"]

    requests, tokens = counted()
    list(client.completions.create(model=model, prompt="Hello", max_tokens=5, stream=True))
    client.completions.create(model=model, prompt="Hello", max_tokens=4)

    assert counted() == (requests + 2, tokens + 9)
