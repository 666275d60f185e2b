"""wait_ready against the fault-injecting server, over real sockets; long waits on a virtual clock."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from launcher.runner.client import Answer, Client
from launcher.runner.endpoint import last_sign_of_life
from launcher.runner.loglikelihood import read_echo
from launcher.runner.runner import EndpointProblem, Target, wait_ready
from tests.servers.openai_server import Fault, OpenAIServer, Options
from tests.servers.process import free_port


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture(autouse=True)
def no_proxy_reaches_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment must not come between the runner and its own machine."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def target(server: OpenAIServer, **changes: object) -> Target:
    return Target.from_document({"url": server.url, "model": "fake", "needs_loglikelihood": True, **changes})


def problem_with(fault: Fault, clock: Clock, **changes: object) -> EndpointProblem:
    with OpenAIServer(Options(fault=fault)) as server, pytest.raises(EndpointProblem) as caught:
        wait_ready(target(server, **changes), now=clock.now, sleep=clock.sleep)
    return caught.value


@pytest.mark.parametrize("fault", [Fault.NONE, Fault.NO_MODELS_ROUTE, Fault.NO_TOKENIZE])
def test_an_honest_server_is_never_accused(fault: Fault, clock: Clock) -> None:
    with OpenAIServer(Options(fault=fault)) as server:
        wait_ready(target(server), now=clock.now, sleep=clock.sleep)
        assert server.state.completions > 2


def test_a_chat_only_server_serves_chat(clock: Clock) -> None:
    with OpenAIServer(Options(fault=Fault.CHAT_ONLY)) as server:
        chat = target(server, endpoint_type="chat", needs_loglikelihood=False)
        wait_ready(chat, now=clock.now, sleep=clock.sleep)
        assert server.state.completions == 1


@pytest.mark.parametrize(
    ("fault", "reason", "seen"),
    [
        (Fault.HEALTHY_TOO_EARLY, "endpoint_not_serving", "HTTP 503: Loading model"),
        (Fault.CHAT_ONLY, "endpoint_not_serving", "POST /v1/completions: HTTP 404"),
        (Fault.WRONG_MODEL, "model_not_found", "lists another-model"),
        (Fault.UNAUTHORIZED, "endpoint_refused", "HTTP 401: Unauthorized (asked without a key)"),
        (Fault.NO_ECHO, "loglikelihood_unsupported", "echo is ignored"),
        (Fault.ECHO_ERROR, "loglikelihood_unsupported", "Only no echo is supported"),
        (Fault.ECHO_TEXT_ONLY, "loglikelihood_unsupported", "only the answer's token"),
        (Fault.NULL_LOGPROBS, "loglikelihood_unsupported", "no token_logprobs"),
        (Fault.OFF_BY_ONE, "loglikelihood_wrong", "when generated but"),
        (Fault.OFF_BY_ONE_AHEAD, "loglikelihood_wrong", "when generated but"),
        (Fault.POSITIVE, "loglikelihood_wrong", "for a log-probability"),
        (Fault.TOKEN_IDS_DIFFER, "loglikelihood_wrong", "as token ids"),
    ],
)
def test_each_fault_has_its_reason_and_says_what_was_seen(fault: Fault, reason: str, seen: str, clock: Clock) -> None:
    problem = problem_with(fault, clock)
    assert (problem.reason, seen in problem.detail) == (reason, True), problem.detail


def test_a_server_that_never_listens_is_given_its_start_timeout(clock: Clock) -> None:
    nobody = Target(url=f"http://127.0.0.1:{free_port()}", model="fake", start_timeout=900, health_interval=5)
    with pytest.raises(EndpointProblem, match="GET /health: connection refused") as caught:
        wait_ready(nobody, now=clock.now, sleep=clock.sleep)
    assert caught.value.reason == "endpoint_start_timeout"
    assert clock.time == 900


def test_a_refused_key_is_not_asked_again(clock: Clock) -> None:
    problem_with(Fault.UNAUTHORIZED, clock)
    assert clock.time == 0


@pytest.mark.parametrize("fault", [Fault.WRONG_MODEL, Fault.CHAT_ONLY])
def test_what_waiting_does_not_change_is_not_waited_for_to_the_end(fault: Fault, clock: Clock) -> None:
    problem_with(fault, clock, health_timeout=300)
    assert 10 <= clock.time <= 20


def test_a_server_that_still_loads_is_given_its_whole_health_timeout(clock: Clock) -> None:
    problem_with(Fault.HEALTHY_TOO_EARLY, clock, health_timeout=100)
    assert clock.time == pytest.approx(100, abs=1)


def test_the_key_may_be_handed_in_or_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenAIServer(Options(api_key="sk-right")) as server:
        wait_ready(target(server, api_key_env="UNSET_KEY"), key="sk-right")
        monkeypatch.setenv("SOME_KEY", "sk-right")
        wait_ready(target(server, api_key_env="SOME_KEY"))
        monkeypatch.setenv("SOME_KEY", "sk-wrong")
        with pytest.raises(EndpointProblem, match="asked with a key"):
            wait_ready(target(server, api_key_env="SOME_KEY"))


def test_stop_ends_the_wait() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(EndpointProblem) as caught:
        wait_ready(Target(url=f"http://127.0.0.1:{free_port()}", model="fake"), stop=stop)
    assert caught.value.reason == "stopped"


def test_every_change_while_waiting_is_told_once(clock: Clock) -> None:
    told: list[tuple[str, str]] = []
    nobody = Target(url=f"http://127.0.0.1:{free_port()}", model="fake", start_timeout=60)
    with pytest.raises(EndpointProblem):
        wait_ready(nobody, lambda phase, detail: told.append((phase, detail)), now=clock.now, sleep=clock.sleep)
    assert told == [
        ("waiting", "for GET /health to answer 200"),
        ("waiting", "GET /health: connection refused"),
    ]


def answers() -> Iterator[tuple[str, str, dict[str, object]]]:
    tops: list[object] = [None, {"a": -1.0}, {"b": -1.0}]
    yield "first_scored", "loglikelihood_wrong", {"token_logprobs": [-1.0, -1.0, -1.0], "top_logprobs": tops}
    yield "infinite", "loglikelihood_wrong", {"token_logprobs": [None, -1e999, -1.0], "top_logprobs": tops}
    yield "a_hole", "loglikelihood_wrong", {"token_logprobs": [None, None, -1.0], "top_logprobs": tops}
    yield "one_too_few", "loglikelihood_wrong", {"token_logprobs": [None, -1.0], "top_logprobs": tops[:2]}
    yield "no_top", "loglikelihood_unsupported", {"token_logprobs": [None, -1.0, -1.0], "top_logprobs": None}
    yield "llamacpp_shape", "loglikelihood_unsupported", {"content": [{"logprob": -1.0}]}


@pytest.mark.parametrize(("reason", "logprobs"), [pytest.param(r, p, id=name) for name, r, p in answers()])
def test_what_lm_eval_could_not_use_is_refused(reason: str, logprobs: dict[str, object]) -> None:
    body = {"choices": [{"text": "ab c", "logprobs": logprobs}], "usage": {"prompt_tokens": 2}}
    with pytest.raises(EndpointProblem) as caught:
        read_echo(Answer(200, json.dumps(body)), "ab")
    assert caught.value.reason == reason


def test_a_model_that_a_service_need_not_list_only_has_to_answer(clock: Clock) -> None:
    said: list[str] = []
    with OpenAIServer(Options(fault=Fault.WRONG_MODEL)) as server:
        of_model = {"model": "another-model", "lists_model": False, "health_path": None}
        unlisted = target(server, **of_model, needs_loglikelihood=False)
        wait_ready(unlisted, lambda _, detail: said.append(detail), now=clock.now, sleep=clock.sleep)

    assert said == ["does another-model complete a token"]


def test_a_service_that_answers_says_nothing_of_a_model_that_is_gone() -> None:
    with OpenAIServer(Options()) as server:
        lives, gone = (target(server, model=model, lists_model=False) for model in ("fake", "deploy_id:gone"))

        assert last_sign_of_life(lives, Client(lives)) == ""
        assert "POST /v1/completions: HTTP 404" in last_sign_of_life(gone, Client(gone))
    assert last_sign_of_life(lives, Client(lives)) != ""
