"""Text for the language models: documents, a byte-level BPE tokenizer, and streams of tokens kept on disk."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

BOS, EOS = "<s>", "</s>"


def articles(lines: Iterable[str]) -> list[str]:
    """WikiText's rows, joined and cut into articles at their titles (` = Title = `)."""
    whole = "".join(lines)
    starts = [match.start() for match in re.finditer(r"^ = [^=\n]+ = \n", whole, flags=re.MULTILINE)]
    cuts = sorted({0, *starts, len(whole)})
    return [whole[a:b] for a, b in itertools.pairwise(cuts) if whole[a:b].strip()]


def train_tokenizer(documents: Iterable[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE (any text round-trips), with `<s>` put before a text when special tokens are asked for."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def stream(tokenizer: PreTrainedTokenizerFast, documents: Sequence[str], file: Path | None = None) -> np.ndarray:
    """All documents as one uint16 array, each between `<s>` and `</s>`; kept in `file` and read from there if it is."""
    if file and file.exists():
        return np.load(file, mmap_mode="r")
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    encoded = tokenizer(list(documents), add_special_tokens=False, verbose=False)["input_ids"]
    tokens = np.concatenate([np.array([bos, *ids, eos], dtype=np.uint16) for ids in encoded])
    if file:
        partial = file.with_suffix(".partial.npy")
        np.save(partial, tokens)
        partial.replace(file)
    return tokens


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """tokenizer.json and its configuration, under the class name that every version of transformers knows."""
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    file.write_text(json.dumps(config, indent=2) + "\n")


def windows(tokens: np.ndarray, batch: int, length: int, seed: int) -> Callable[[int], Tensor]:
    """`batches(i)` -> (batch, length + 1) int64: each epoch reads every window once, in its own order and offset."""
    usable = (len(tokens) - length - 1) // length  # an offset below `length` always fits
    per_epoch = usable // batch

    def batches(index: int) -> Tensor:
        epoch, place = divmod(index, per_epoch)
        rng = np.random.default_rng([seed, epoch])
        offset, order = int(rng.integers(length)), rng.permutation(usable)
        starts = offset + order[place * batch : (place + 1) * batch] * length
        return torch.from_numpy(np.stack([tokens[s : s + length + 1] for s in starts]).astype(np.int64))

    return batches
