"""An OpenAI-compatible server for one small GGUF model on CPU, with exact prompt log-probabilities.

`python -m launcher.servers.smollm` serves SmolLM2-135M-Instruct; `--fetch` only gets its weights.
"""
