"""The environment of servers and jobs: what they need of the launcher's own, and none of its secrets.

A variable is passed on if a pattern below names it and its name does not look like a secret's. A secret reaches a
server or a job only by a reference in `envs`.

NETRC points nowhere, because `requests` would otherwise send a password of ~/.netrc to the evaluated endpoint. Set
NETRC in `envs` for a job that needs the file. Loopback never goes through a proxy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase

from launcher.config.secret_names import is_secret_name

PASSED_ON = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "TERM", "XDG_*",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "PYTHONNOUSERSITE", "PYTHONDONTWRITEBYTECODE", "PYTHONWARNINGS",
    "VIRTUAL_ENV", "CONDA_*", "CUDA*", "NCCL*", "NVIDIA*", "NIXL_*", "UCX_*", "GLOO_*", "OMP_*", "MKL_*", "OPENBLAS_*",
    "KMP_*", "HF_HOME", "HF_HUB_*", "HF_ENDPOINT", "HF_DATASETS_*", "HF_XET_*", "TRANSFORMERS_*", "TORCH*",
    "PYTORCH_*", "TRITON_*", "VLLM_*", "SGLANG_*", "TRTLLM_*", "LLAMA_ARG_*", "LLAMA_CACHE", "TIKTOKEN_*",
    "TOKENIZERS_PARALLELISM", "SSL_CERT_*", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY",
    "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy", "PIP_*", "UV_*", "NV_EVAL_HOME",
    "NEMO_EVALUATOR_*",
)  # fmt: skip


def inherited(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a server or a job gets of the launcher's environment."""
    source = os.environ if environment is None else environment
    passed = {name: value for name, value in source.items() if _is_passed_on(name)}
    passed["NETRC"] = os.devnull
    passed["PYTHONUNBUFFERED"] = "1"
    for name in ("NO_PROXY", "no_proxy"):
        passed[name] = ",".join(filter(None, [source.get(name), "127.0.0.1", "localhost"]))
    return passed


def _is_passed_on(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in PASSED_ON) and not is_secret_name(name)
