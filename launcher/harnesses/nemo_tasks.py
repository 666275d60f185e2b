"""Tasks of NVIDIA's eval-factory harnesses: image, route, log-likelihoods, size.

Source for lm-evaluation-harness: framework.yml of nvidia-lm-eval 26.3 and the output types of its tasks. The other
harnesses list only what is certain; further tasks of theirs run with `endpoint_type` set.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from launcher.config.evaluation import EndpointType

TAG = "26.03"
_REGISTRY = "nvcr.io/nvidia/eval-factory"

LM_EVAL = "lm-evaluation-harness"

IMAGE_NAMES = {
    LM_EVAL: "lm-evaluation-harness",
    "simple_evals": "simple-evals",
    "bigcode-evaluation-harness": "bigcode-evaluation-harness",
    "livecodebench": "livecodebench",
    "mtbench": "mtbench",
    "ifbench": "ifbench",
    "scicode": "scicode",
    "hle": "hle",
    "bfcl": "bfcl",
    "profbench": "profbench",
    "garak": "garak",
    "helm": "helm",
    "tooltalk": "tooltalk",
    "mmath": "mmath",
    "vlmevalkit": "vlmevalkit",
    "nemo_skills": "nemo-skills",
    "safety_eval": "safety-harness",
    "genai_perf_eval": "genai-perf",
    "tau2_bench": "tau2-bench",
    "ruler": "long-context-eval",
    "codec": "contamination-detection",
    "mteb": "mteb",
    "AA-LCR": "aa-lcr",
}
"""Harness to the name of its image."""


@dataclass(frozen=True)
class KnownTask:
    """One task of one harness. `endpoint_type` is None where it is not certain."""

    harness: str
    name: str
    endpoint_type: EndpointType | None
    needs_loglikelihood: bool = False


def _words(names: str) -> list[str]:
    return names.split()


_MMLU_PROX_LANGUAGES = ("fr", "de", "it", "ja", "es")
_GLOBAL_MMLU_LANGUAGES = _words("ar bn de en es fr hi id it ja ko pt sw yo zh")
_GLOBAL_MMLU_FULL_LANGUAGES = _words(
    "am ar bn cs de el en es fa fil fr ha he hi id ig it ja ko ky lt mg ms ne nl ny pl pt ro ru si sn so sr sv sw te "
    "tr uk vi yo zh"
)

_LM_EVAL_CHAT = [
    *_words("mmlu_instruct mmlu_cot_0_shot_chat ifeval mmlu_pro_instruct mmlu_redux_instruct m_mmlu_id_str_chat"),
    *_words("gsm8k_cot_instruct gsm8k_cot_zeroshot gsm8k_cot_llama gsm8k_cot_zeroshot_llama humaneval_instruct"),
    *_words("mbpp_plus_chat mgsm_cot_chat wikilingua arc_challenge_chat bbh_instruct gpqa_diamond_cot bbq_chat"),
    "mmlu_prox_chat",
    *(f"mmlu_prox_{language}_chat" for language in _MMLU_PROX_LANGUAGES),
]
_LM_EVAL_COMPLETIONS = [
    *_words("mmlu mmlu_instruct_completions mmlu_pro mmlu_redux m_mmlu_id_str_completions gsm8k mgsm"),
    *_words("mgsm_cot_completions mbpp_plus_completions bbq_completions adlr_agieval_en_cot adlr_mmlu"),
    *_words("adlr_math_500_4_shot_sampled adlr_gpqa_diamond_cot_5_shot adlr_mmlu_pro_5_shot_base"),
    *_words("adlr_minerva_math_nemo_4_shot adlr_gsm8k_cot_8_shot adlr_humaneval_greedy adlr_humaneval_sampled"),
    *_words("adlr_mbpp_sanitized_3_shot_greedy adlr_mbpp_sanitized_3_shot_sampled adlr_mgsm_native_cot_8_shot"),
    "mmlu_prox_completions",
    *(f"mmlu_prox_{language}_completions" for language in _MMLU_PROX_LANGUAGES),
]
_LM_EVAL_LOGLIKELIHOOD = [
    *_words("winogrande arc_challenge hellaswag truthfulqa bbh musr gpqa commonsense_qa openbookqa mmlu_logits piqa"),
    *_words("social_iqa agieval wikitext arc_multilingual hellaswag_multilingual adlr_race adlr_truthfulqa_mc2"),
    *_words("adlr_arc_challenge_llama_25_shot adlr_commonsense_qa_7_shot adlr_winogrande_5_shot"),
    *_words("adlr_global_mmlu_lite_5_shot global_mmlu global_mmlu_full"),
    *(f"global_mmlu_{language}" for language in _GLOBAL_MMLU_LANGUAGES),
    *(f"global_mmlu_full_{language}" for language in _GLOBAL_MMLU_FULL_LANGUAGES),
]
_SIMPLE_EVALS_CHAT = _words(
    "gpqa_diamond mmlu mmlu_pro humaneval mgsm math_test_500 AIME_2024 AIME_2025 simpleqa healthbench browsecomp"
)

_SAMPLES = {
    "ifeval": 541,
    "gpqa_diamond": 198,
    "math_test_500": 500,
    "AIME_2024": 30,
    "AIME_2025": 30,
    "humaneval": 164,
    "humaneval_instruct": 164,
    "mmlu": 14042,
    "mmlu_instruct": 14042,
    "mmlu_logits": 14042,
    "mmlu_pro": 12032,
    "mmlu_pro_instruct": 12032,
    "mbpp-chat": 500,
    "mbpp-completions": 500,
    "hle": 2684,
}
"""Samples of whole tasks, where they are known."""


def samples(task: str) -> int | None:
    """Samples of the whole task, where known."""
    return _SAMPLES.get(task)


def image(harness: str) -> str:
    """Container image of a harness of IMAGE_NAMES."""
    return f"{_REGISTRY}/{IMAGE_NAMES[harness]}:{TAG}"


def harness_name(prefix: str) -> str | None:
    """The harness a prefix means, whatever its dashes, underscores and case; None if there is none."""
    names = {_normal(name): name for name in IMAGE_NAMES}
    return names.get(_normal(prefix))


def _normal(name: str) -> str:
    return name.replace("_", "-").lower()


@cache
def known_tasks() -> dict[str, tuple[KnownTask, ...]]:
    """All known tasks by bare name; more than one entry where harnesses share a name."""
    tasks = [
        *(KnownTask(LM_EVAL, name, "chat") for name in _LM_EVAL_CHAT),
        *(KnownTask(LM_EVAL, name, "completions") for name in _LM_EVAL_COMPLETIONS),
        *(KnownTask(LM_EVAL, name, "completions", True) for name in _LM_EVAL_LOGLIKELIHOOD),
        *(KnownTask("simple_evals", name, "chat") for name in _SIMPLE_EVALS_CHAT),
        KnownTask("bigcode-evaluation-harness", "humaneval", "completions"),
        KnownTask("bigcode-evaluation-harness", "humaneval_instruct", "chat"),
        KnownTask("bigcode-evaluation-harness", "mbpp-chat", "chat"),
        KnownTask("bigcode-evaluation-harness", "mbpp-completions", "completions"),
        KnownTask("hle", "hle", "chat"),
        KnownTask("codec", "gpqa_diamond", None),
    ]
    by_name: dict[str, tuple[KnownTask, ...]] = {}
    for task in tasks:
        by_name[task.name] = (*by_name.get(task.name, ()), task)
    return by_name
