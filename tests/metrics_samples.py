"""Small language models, a tokenizer and data sets, for the tests of metrics."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import pyarrow as pa
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from harness.data import Dataset, Source
from harness.metrics.subject import Subject

WORDS = "the cat sat on the mat and the dog who saw it said that nobody sits there but cats Question: Answer:"


@functools.cache
def tokenizer(bos: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level BPE of 300 tokens; with `bos`, a text gets `<s>` before it when special tokens are asked for."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet, special = sorted(pre_tokenizers.ByteLevel.alphabet()), ["<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    inner.train_from_iterator([WORDS], trainer)
    if bos:
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>" if bos else None, eos_token="</s>")


@functools.cache
def llama(**config) -> LlamaForCausalLM:
    """A random Llama, with weights large enough that its predictions depend on the whole context."""
    settings = {
        "vocab_size": len(tokenizer()),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(**{**settings, **config})).eval()


class Unigram(nn.Module):
    """A model whose prediction is the same whatever the context."""

    def __init__(self, logits: Tensor):
        super().__init__()
        self.logits = nn.Parameter(logits, requires_grad=False)
        self.config = SimpleNamespace(vocab_size=len(logits))

    def forward(self, input_ids: Tensor, **_) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits.expand(*input_ids.shape, -1))


def subject(model: nn.Module | None = None, *, kind: str = "causal-lm", bos: bool = True, **fields) -> Subject:
    source = SimpleNamespace(tokenizer=tokenizer(bos), tokenizer_hash="7" * 64)
    return Subject(llama() if model is None else model, kind, source, "sample", **fields)


def with_data(subject: Subject, columns: dict, *, id: str = "sample/data", split: str = "test", **source) -> Subject:
    """The subject, for which every data set is this one."""
    data = Dataset(Source("sample", id, "default", split, **source), pa.table(columns), "d" * 64)
    subject.data = lambda name, split=None: data
    return subject
