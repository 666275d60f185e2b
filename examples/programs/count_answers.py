"""A benchmark in fifty lines: small sums, scored by whether the answer contains the right number.

nv-eval runs it with the endpoint in environment variables and reads the results.json that it writes. Standard library
only, so that any Python can run it.
"""

import json
import math
import os
import urllib.request
from pathlib import Path

QUESTIONS = [(a, b) for a in range(2, 12) for b in range(1, 11)]


def ask(question: str) -> str:
    """The model's answer to one question."""
    body = {"model": os.environ["NV_EVAL_MODEL"], "max_tokens": 16, "temperature": 0}
    body["messages"] = [{"role": "user", "content": question}]
    request = urllib.request.Request(  # noqa: S310 - the URL is nv-eval's
        f"{os.environ['NV_EVAL_BASE_URL']}/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"},
    )
    with urllib.request.urlopen(request, timeout=300) as response:  # noqa: S310
        return str(json.load(response)["choices"][0]["message"]["content"])


def main() -> None:
    """Ask, tell the progress, write the score."""
    questions = QUESTIONS[: int(os.environ.get("NV_EVAL_LIMIT", len(QUESTIONS)))]
    right = 0
    for done, (a, b) in enumerate(questions, start=1):
        right += str(a + b) in ask(f"What is {a} + {b}? Answer with the number alone.")
        print(f"@progress {done}/{len(questions)}", flush=True)  # noqa: T201 - how a program tells its progress
    share, count = right / len(questions), len(questions)
    score = {"metric": "accuracy", "value": share, "n": count, "higher_is_better": True}
    if count > 1:
        score["stderr"] = math.sqrt(share * (1 - share) / (count - 1))
    results = {"schema": "nv-eval.scores/1", "scores": [score]}
    Path(os.environ["NV_EVAL_OUTPUT_DIR"], "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
