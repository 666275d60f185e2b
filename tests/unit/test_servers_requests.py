"""What the embedded server accepts, refuses and writes, without a model."""

import json
import math

import pytest

pytest.importorskip("cyllama", reason="cyllama is not installed: pip install 'nv-eval-launcher[smollm]'")

import numpy as np
from jinja2 import TemplateError

from launcher.servers.smollm import protocol, replies
from launcher.servers.smollm.chat import ChatTemplate
from launcher.servers.smollm.job import Completion
from launcher.servers.smollm.prompts import Prefix, PrefixCache
from launcher.servers.smollm.runtime import _gpt2_bytes
from launcher.servers.smollm.scores import TokenScore, score


def refusal(fields: dict, kind=protocol.CompletionBody) -> dict:
    with pytest.raises(protocol.ApiError) as caught:
        protocol.parse(json.dumps(fields).encode(), kind).stops  # noqa: B018
    return caught.value.body["error"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "missing required field `prompt`"),
        ({"prompt": 3}, "$.prompt"),
        ({"prompt": "a", "temperature": -1}, "$.temperature"),
        ({"prompt": "a", "top_p": 0}, "$.top_p"),
        ({"prompt": "a", "max_tokens": -1}, "$.max_tokens"),
        ({"prompt": "a", "logprobs": 21}, "$.logprobs"),
        ({"prompt": "a", "stream": True}, "stream=True is not supported"),
        ({"prompt": "a", "n": 2}, "n=2 is not supported"),
        ({"prompt": "a", "presence_penalty": 0.5}, "presence_penalty=0.5 is not supported"),
        ({"prompt": "a", "stop": ["x", ""]}, "must not be empty"),
    ],
)
def test_a_wrong_completion_is_refused_naming_the_field(fields, says):
    error = refusal(fields)
    assert error["code"] == 400
    assert says in error["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []},
        {"messages": [{"content": "no role"}]},
        {"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function"}]},
    ],
)
def test_a_wrong_chat_is_refused(fields):
    assert refusal(fields, protocol.ChatBody)["code"] == 400


def test_fields_that_ask_for_nothing_are_accepted():
    neutral = {"stream": False, "n": 1, "stop": None, "frequency_penalty": 0.0, "tools": None, "unknown": 7}
    body = protocol.parse(json.dumps({"prompt": "a", **neutral}).encode(), protocol.CompletionBody)
    assert body.stops == ()


def test_a_picture_in_a_message_is_refused():
    message = protocol.Message(role="user", content=[protocol.TextPart(type="image_url")])
    with pytest.raises(protocol.ApiError, match="only text"):
        message.plain()


def test_what_does_not_fit_the_context_is_refused_and_the_rest_is_the_default():
    assert protocol.fit((1, 2, 3), None, 10) == 7
    assert protocol.fit((1, 2, 3), 7, 10) == 7
    with pytest.raises(protocol.ApiError, match="maximum context length is 10"):
        protocol.fit((1, 2, 3), 8, 10)
    with pytest.raises(protocol.ApiError, match="empty"):
        protocol.fit((), 1, 10)


def test_log_probabilities_are_a_log_softmax_over_the_vocabulary():
    logits = np.array([1000.0, 1001.0, 998.0, 1001.5])
    total = sum(math.exp(value - 1001.5) for value in logits)
    result = score(logits, 2, 2)
    assert result.logprob == pytest.approx(-3.5 - math.log(total), abs=1e-12)
    assert [token for token, _ in result.top] == [3, 1]
    assert score(logits, 3, 1).top == ((3, score(logits, 3, 0).logprob),)


def test_a_character_spread_over_tokens_has_one_offset_and_of_equal_texts_the_likelier_stays():
    pieces = {0: b"a", 1: "é".encode()[:1], 2: "é".encode()[1:], 3: b"b"}
    done = Completion(
        text="b",
        generated=(3,),
        prompt_scores=(TokenScore(1, -2.0, ((2, -1.0),)), TokenScore(2, -3.0, ((2, -3.0),))),
        scores=(TokenScore(3, -0.5, ((3, -0.5),)),),
        finish_reason="length",
    )
    prompt = protocol.Prompt("aé", (0, 1, 2))
    choice = replies.text_choice(0, prompt, done, echo=True, logprobs=True, piece=pieces.__getitem__)
    assert choice["text"] == "aéb"
    assert choice["logprobs"]["text_offset"] == [0, 1, 1, 2]
    assert choice["logprobs"]["tokens"] == ["a", "\ufffd", "\ufffd", "b"]
    assert choice["logprobs"]["token_logprobs"] == [None, -2.0, -3.0, -0.5]
    assert choice["logprobs"]["top_logprobs"] == [None, {"\ufffd": -1.0}, {"\ufffd": -3.0}, {"b": -0.5}]


def prefix(*tokens: int, size: int = 10, top: int | None = None) -> Prefix:
    return Prefix(np.array(tokens, dtype=np.int32), bytes(size), (), top)


def test_the_prefix_that_shares_most_is_found():
    cache = PrefixCache(100)
    short, long = prefix(1, 2, 9), prefix(1, 2, 3, 9)
    cache.add(long)
    cache.add(short)
    assert cache.find([1, 2, 3, 4], None) == (long, 3)
    assert cache.find([1, 2], None) in [(long, 2), (short, 2)]
    assert cache.find([7, 1, 2], None) is None


def test_a_prefix_without_the_scores_asked_for_is_passed_over():
    cache = PrefixCache(100)
    plain, scored = prefix(1, 2, 3), prefix(1, 2, 8, top=1)
    cache.add(plain)
    cache.add(scored)
    assert cache.find([1, 2, 3], None) == (plain, 3)
    assert cache.find([1, 2, 3], 1) == (scored, 2)
    assert cache.find([1, 2, 3], 2) is None


def test_the_least_recently_used_prefix_makes_room():
    cache = PrefixCache(25)
    first, second, third = prefix(1), prefix(2), prefix(3)
    cache.add(first)
    cache.add(second)
    assert cache.find([1], None) == (first, 1)
    cache.add(third)
    assert cache.find([2], None) is None
    assert cache.find([1], None) == (first, 1)


def test_a_template_that_reaches_for_the_interpreter_is_stopped():
    template = ChatTemplate("{{ messages.__class__.__mro__[1].__subclasses__() }}", {})
    with pytest.raises(TemplateError):
        template.render([{"role": "user", "content": "x"}])


def test_a_template_may_refuse_messages_in_its_own_words():
    template = ChatTemplate("{{ raise_exception('no system role') }}", {})
    with pytest.raises(TemplateError, match="no system role"):
        template.render([{"role": "system", "content": "x"}])


def test_every_byte_has_its_character_in_a_byte_level_vocabulary():
    table = _gpt2_bytes()
    assert sorted(table.values()) == list(range(256))
    assert (table["Ġ"], table["Ċ"], table["Ã"], table["!"]) == (0x20, 0x0A, 0xC3, 0x21)
