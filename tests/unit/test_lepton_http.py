"""The one retry policy: what is repeated, what never is, and what an error says. On a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from launcher.platforms import http
from launcher.platforms.http import Api, RequestFailed, RetryPolicy, make_client, patience
from tests.fakes.clock import run_virtual

Answer = httpx.Response | Exception


class Service:
    """Answers each request with the next of its answers, the last one for ever; notes when it was asked."""

    def __init__(self, *answers: Answer, takes: float = 0.0) -> None:
        self.answers = list(answers)
        self.takes = takes
        self.times: list[float] = []
        self.at_once = self.most_at_once = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.times.append(asyncio.get_running_loop().time())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.takes)
        self.at_once -= 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def api(self, **options: Any) -> Api:
        client = make_client("http://service.test/base", {}, transport=httpx.MockTransport(self))
        return Api(client, "Service", **options)


def failure(service: Service, method: str = "GET", **options: Any) -> RequestFailed:
    with pytest.raises(RequestFailed) as caught:
        run_virtual(send(service, method, **options))
    return caught.value


async def send(service: Service, method: str = "GET", **options: Any) -> http.Answer:
    return await service.api(**options).send(method, "/thing")


PASSING = [httpx.Response(status) for status in (408, 425, 429, 500, 502, 503, 504)]


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "PATCH"])
@pytest.mark.parametrize(
    "trouble", [*PASSING, httpx.ConnectError("refused"), httpx.ReadTimeout("silence"), httpx.RemoteProtocolError("cut")]
)
def test_what_has_the_same_effect_twice_is_tried_again(method: str, trouble: Answer) -> None:
    service = Service(trouble, trouble, httpx.Response(200, text="{}"))

    assert run_virtual(send(service, method)).status_code == 200
    assert len(service.times) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 422])
def test_a_refusal_is_final(status: int) -> None:
    service = Service(httpx.Response(status, json={"code": "X", "message": "it is\nwrong"}))

    error = failure(service)

    assert len(service.times) == 1
    assert (error.status, error.maybe_done) == (status, False)
    assert str(error) == f"Service: GET /thing answered {status}: it is wrong"


@pytest.mark.parametrize(
    "trouble", [httpx.Response(500), httpx.Response(503), httpx.ReadTimeout("silence"), httpx.ReadError("cut")]
)
def test_a_creation_that_may_have_happened_is_not_repeated(trouble: Answer) -> None:
    service = Service(trouble)

    assert failure(service, "POST").maybe_done
    assert len(service.times) == 1


@pytest.mark.parametrize("trouble", [httpx.Response(429), httpx.Response(425), httpx.ConnectError("refused")])
def test_a_creation_that_certainly_did_not_happen_is_repeated(trouble: Answer) -> None:
    service = Service(trouble, httpx.Response(201, text="{}"))

    assert run_virtual(send(service, "POST")).status_code == 201
    assert len(service.times) == 2


def test_retry_after_is_honoured_but_not_for_ever() -> None:
    service = Service(
        httpx.Response(429, headers={"Retry-After": "7"}),
        httpx.Response(429, headers={"Retry-After": "3600"}),
        httpx.Response(200),
    )
    policy = RetryPolicy(longest_retry_after=20.0, first_wait=0.5)

    run_virtual(send(service, policy=policy))

    first, second, third = service.times
    assert 7 <= second - first <= 7.5
    assert 20 <= third - second <= 20.5


def test_retry_after_may_be_a_date() -> None:
    service = Service(
        httpx.Response(503, headers={"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"}), httpx.Response(200)
    )

    run_virtual(send(service, policy=RetryPolicy(longest_retry_after=9.0)))

    assert service.times[1] >= 9


def test_waits_grow_and_end_at_the_deadline() -> None:
    service = Service(httpx.Response(503))

    error = failure(service, policy=RetryPolicy(deadline=60.0, first_wait=1.0, longest_wait=8.0))

    waits = [later - earlier for earlier, later in zip(service.times, service.times[1:], strict=False)]
    assert error.status == 503
    assert service.times[-1] <= 60
    assert waits[0] <= 1 and all(4 <= wait <= 8 for wait in waits[4:])


def test_a_method_that_is_not_served_is_not_asked_for_again() -> None:
    assert failure(Service(httpx.Response(501))).status == 501
    assert not failure(Service(httpx.Response(501)), "POST").maybe_done


def test_patience_ends_a_question_early_and_leaves_slots_to_others() -> None:
    service = Service(httpx.Response(503))
    slow = Service(httpx.Response(200), takes=10.0)

    async def ask() -> None:
        with patience(3.0):
            await service.api().send("GET", "/thing")

    async def beside() -> float:
        api = slow.api(in_flight=4)
        with patience(60.0):
            asked = [asyncio.create_task(api.send("GET", "/log")) for _ in range(10)]
        await asyncio.sleep(1)
        await api.send("DELETE", "/thing")
        took = asyncio.get_running_loop().time()
        await asyncio.gather(*asked)
        return took

    with pytest.raises(RequestFailed):
        run_virtual(ask())
    assert service.times[-1] <= 3.0
    assert run_virtual(beside()) == pytest.approx(11.0)
    assert slow.most_at_once == 3


def test_no_more_requests_are_under_way_than_allowed() -> None:
    service = Service(httpx.Response(200), takes=1.0)

    async def many() -> None:
        api = service.api(in_flight=4)
        await asyncio.gather(*(api.send("GET", "/thing") for _ in range(20)))

    run_virtual(many())
    assert service.most_at_once == 4
    assert len(service.times) == 20


def test_an_answer_of_another_shape_is_an_error_that_says_so() -> None:
    service = Service(httpx.Response(200, json={"name": 5}))

    async def ask() -> object:
        return await service.api().get("/thing", list[str])

    with pytest.raises(RequestFailed, match="GET /thing failed: the answer is not understood: Expected `array`"):
        run_virtual(ask())


def test_secrets_are_taken_out_of_what_a_service_says() -> None:
    service = Service(httpx.Response(403, text="token nvapi-0123 is not yours"))

    error = failure(service, redact=lambda text: text.replace("nvapi-0123", "***"))

    assert str(error) == "Service: GET /thing answered 403: token *** is not yours"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "deep"}}', "deep"),
        (b'{"detail": [{"msg": "x"}]}', "x"),
        (b'{"detail": [1, 2]}', "[1,2]"),
        (b"<html>Bad   Gateway</html>", "<html>Bad Gateway</html>"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"", ""),
    ],
)
def test_any_body_makes_a_message(body: bytes, message: str) -> None:
    error = failure(Service(httpx.Response(400, content=body)))

    assert error.message == message


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield


def test_lines_of_a_stream_come_one_by_one() -> None:
    service = Service(httpx.Response(200, text="one\ntwo\n"))

    async def read() -> list[str]:
        return [line async for line in service.api().lines("/log")]

    assert run_virtual(read()) == ["one", "two"]


DEEP = b'{"detail":' * 100_000
UNREADABLE = [
    lambda: httpx.Response(200, stream=httpx.ByteStream(b"no gzip"), headers={"content-encoding": "gzip"}),
    lambda: httpx.Response(200, content=b"[" * 100_000),
    lambda: httpx.Response(200, content=b'[{"a": "\xff"}]'),
    lambda: httpx.Response(400, content=DEEP),
    lambda: httpx.Response(400, content=b'{"detail":' * 900 + b'"x"' + b"}" * 900),
    lambda: httpx.TooManyRedirects("round and round"),
]


@pytest.mark.parametrize("answer", UNREADABLE, ids=["gzip", "deep", "no text", "deep 400", "nested 400", "redirects"])
def test_an_answer_that_nobody_can_read_is_a_request_that_failed(answer: Callable[[], Answer]) -> None:
    service = Service(*(answer() for _ in range(30)))
    policy = RetryPolicy(deadline=1.0)

    async def ask(method: str) -> None:
        await service.api(policy=policy).call(method, "/thing", dict[str, Any])

    with pytest.raises(RequestFailed) as read:
        run_virtual(ask("GET"))
    with pytest.raises(RequestFailed) as made:
        run_virtual(ask("POST"))
    assert not read.value.maybe_done
    assert made.value.maybe_done is not (made.value.status == 400), "who answers 400 has done nothing"


class InPieces(httpx.AsyncByteStream):
    """A body that comes bit by bit, and may break off."""

    def __init__(self, *pieces: bytes, breaks: bool = False) -> None:
        self.pieces, self.breaks = pieces, breaks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
        if self.breaks:
            raise httpx.ReadError("cut off")


@pytest.mark.parametrize("pieces", [(), (b"[1, 2, 3]",), (b"[1", b", 2,", b" 3]")])
def test_an_answer_in_pieces_is_read_whole(pieces: tuple[bytes, ...]) -> None:
    service = Service(httpx.Response(200, stream=InPieces(*pieces)))

    assert bytes(run_virtual(send(service)).content) == b"".join(pieces)


def test_an_answer_that_breaks_off_is_asked_for_again() -> None:
    service = Service(httpx.Response(200, stream=InPieces(b"[1", b", 2", breaks=True)), httpx.Response(200, json=[3]))

    assert run_virtual(service.api().get("/thing", list[int])) == [3]
