"""A benchmark with a judge: one model answers, another says whether the answer is right.

nv-eval runs it with both endpoints in environment variables: NV_EVAL_* are of the evaluated model, NV_EVAL_AUX_JUDGE_*
of the one that is called `judge` in the config. Standard library only, so that any Python can run it.
"""

import json
import os
import urllib.request
from pathlib import Path

QUESTIONS = [
    ("What is the capital of France?", "Paris"),
    ("Which planet is known as the red planet?", "Mars"),
    ("How many legs does a spider have?", "8"),
    ("What is frozen water called?", "ice"),
    ("Which animal barks?", "dog"),
    ("What colour is a ripe banana?", "yellow"),
    ("How many days are in a week?", "7"),
    ("What do bees make?", "honey"),
]


def ask(base_url: str, model: str, key: str, question: str) -> str:
    """A model's answer to one question."""
    body = {"model": model, "max_tokens": 24, "temperature": 0, "messages": [{"role": "user", "content": question}]}
    request = urllib.request.Request(  # noqa: S310 - the URL is nv-eval's
        f"{base_url}/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
    )
    with urllib.request.urlopen(request, timeout=300) as response:  # noqa: S310
        return str(json.load(response)["choices"][0]["message"]["content"])


def evaluated(question: str) -> str:
    """What the evaluated model answers."""
    env = os.environ
    return ask(env["NV_EVAL_BASE_URL"], env["NV_EVAL_MODEL"], env["OPENAI_API_KEY"], question)


def judged(question: str) -> str:
    """What the judge answers."""
    prefix = "NV_EVAL_AUX_JUDGE"
    base_url, model, key = (os.environ[f"{prefix}_{name}"] for name in ("BASE_URL", "MODEL", "API_KEY"))
    return ask(base_url, model, key, question)


def main() -> None:
    """Ask, have it judged, tell the progress, write the scores and what was said."""
    questions = QUESTIONS[: int(os.environ.get("NV_EVAL_LIMIT", len(QUESTIONS)))]
    output, said = Path(os.environ["NV_EVAL_OUTPUT_DIR"]), []
    for done, (question, right) in enumerate(questions, start=1):
        answer = evaluated(question)
        verdict = judged(f"Question: {question} Right answer: {right}. Given answer: {answer} Correct? Say yes or no.")
        said.append({"question": question, "answer": answer, "verdict": verdict, "yes": "yes" in verdict.lower()})
        print(f"@progress {done}/{len(questions)}", flush=True)  # noqa: T201 - how a program tells its progress
    (output / "said.json").write_text(json.dumps(said, indent=1))
    share = sum(one["yes"] for one in said) / len(said)
    score = {"metric": "judged_correct", "value": share, "n": len(said), "higher_is_better": True}
    (output / "results.json").write_text(json.dumps({"schema": "nv-eval.scores/1", "scores": [score]}))


if __name__ == "__main__":
    main()
