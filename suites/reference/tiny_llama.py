"""tiny-llama: a Llama of four layers trained on open English text, for experiments that must run on a laptop."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from harness import data
from harness.train.loop import Phase, run_phases
from harness.train.reference import Report, Run
from harness.train.schedules import warmup_stable_decay
from suites.reference import llama, text
from suites.reference.ngram import KneserNey

RECIPE = {
    "vocabulary": 4096,
    "hidden_size": 256,
    "intermediate_size": 640,
    "layers": 4,
    "heads": 4,
    "key_value_heads": 2,
    "context": 512,
    "steps": 2200,
    "sequences_per_batch": 16,
    "muon_lr": 4e-3,
    "adamw_lr": 3e-3,
    "weight_decay": 0.1,
    "warmup": 60,
    "decay": 0.7,
    "seed": 0,
}
PARTS = 4  # of a batch, each small enough for the processor's cache: twice as fast as the whole
NGRAM = 5

ABOUT = """A Llama (grouped-query attention, RMSNorm, rotary positions, SwiGLU, tied embeddings) of {parameters:,}
parameters with its own byte-level BPE tokenizer, trained from scratch on public-domain books and openly licensed
English, and on the validation part of WikiText-2. It is large enough that compression methods differ on it as they do
on larger models, and small enough to be evaluated in seconds. It is not of use as a language model."""


def train(run: Run) -> Report:
    english, wiki = data.load("open-english-text", split="train"), data.load("wikitext2", split="validation")
    heldout, test = data.load("open-english-text", split="heldout"), data.load("wikitext2", split="test")
    hashes = [("open-english-text (train)", english.hash), ("wikitext2 (validation)", wiki.hash)]
    documents = english.column("text") + text.articles(wiki.column("text"))
    tag = run.tag(RECIPE, hashes)
    kept = run.cache / tag[:16]
    kept.mkdir(exist_ok=True)

    context = RECIPE["context"]
    tokenizer = text.train_tokenizer(documents, RECIPE["vocabulary"], 2 * context)
    tokens = text.stream(tokenizer, documents, kept / "train.npy")
    unseen = text.stream(tokenizer, heldout.column("text"), kept / "heldout.npy")
    sample = np.stack(np.array_split(unseen[: len(unseen) // 64 * 64], 64))[:, : context + 1]

    generator = torch.Generator().manual_seed(RECIPE["seed"])
    model = llama.build(RECIPE, generator, bos=tokenizer.bos_token_id, eos=tokenizer.eos_token_id)
    phase = Phase(
        steps=RECIPE["steps"],
        batches=text.windows(tokens, RECIPE["sequences_per_batch"] // PARTS, context, RECIPE["seed"]),
        loss=llama.next_token_loss,
        optimizer=llama.optimizers(RECIPE),
        schedule=warmup_stable_decay(warmup=RECIPE["warmup"], decay=RECIPE["decay"]),
        accumulate=PARTS,
    )
    fitted = run_phases(
        model,
        [phase],
        generator=generator,
        evaluate=lambda model: {"heldout": llama.token_losses(model, sample).mean()},
        evaluate_every=100,
        autocast=torch.bfloat16,
        checkpoint=run.checkpoint,
        checkpoint_every=100,
        tag=tag,
        title=run.name,
    )
    model.to(torch.bfloat16).save_pretrained(run.folder)
    text.save_tokenizer(tokenizer, run.folder)

    scored = {
        "held-out open-english-text": heldout.column("text"),
        "WikiText-2 test": text.articles(test.column("text")),
    }
    curve = ", ".join(f"{loss:.3f} ({step:,})" for step, loss in fitted.evaluations("heldout")[-5:])
    return Report(
        title="tiny-llama",
        about=ABOUT.format(parameters=sum(p.numel() for p in model.parameters())),
        data=[*hashes, ("open-english-text (heldout)", heldout.hash), ("wikitext2 (test)", test.hash)],
        recipe={**RECIPE, "tokens seen": f"{fitted.passes.forward * context:,} (of {len(tokens):,} in the data)"},
        measured=compare(model, tokenizer, tokens, scored),
        fitted=fitted,
        license="cc-by-sa-4.0",
        notes=[
            "Perplexity is per token of this tokenizer: only bits per byte can be compared with other models. "
            f"Texts lie between `<s>` and `</s>`, windows of {context} tokens follow each other without overlap, and "
            f"every token but the first {NGRAM - 1} of all is scored.",
            f"The {NGRAM}-gram model (interpolated modified Kneser-Ney, `suites/reference/ngram.py`) was counted on "
            "the same training tokens and scores the same tokens.",
            f"Held-out loss at the last evaluations (step), in nats, on a sample of 64 windows: {curve}.",
            "Trained under bfloat16 autocast with float32 weights; stored, and scored, as bfloat16.",
            "Where others compete for the processor, OMP_WAIT_POLICY=passive in the environment makes the training "
            "several times faster and does not change its result.",
            "Held-out documents are passages of the same books that others of the training documents come from.",
        ],
    )


def compare(
    model: nn.Module, tokenizer: PreTrainedTokenizerFast, tokens: np.ndarray, scored: dict[str, list[str]]
) -> list[tuple[str, str]]:
    """Rows for the card: the stored weights and an n-gram model of the same training tokens, on the same tokens."""
    stored = copy.deepcopy(model).float().eval()
    ngram = KneserNey(tokens, RECIPE["vocabulary"], NGRAM)
    rows = []
    for name, documents in scored.items():
        unseen = text.stream(tokenizer, documents)
        size = sum(len(document.encode()) for document in documents)
        both = {
            "tiny-llama": llama.stream_losses(stored, unseen, RECIPE["context"])[NGRAM - 2 :],
            f"{NGRAM}-gram Kneser-Ney": -ngram.log_probabilities(unseen),
        }
        for title, losses in both.items():
            bits = losses.sum() / math.log(2) / size
            value = f"**{math.exp(losses.mean()):.2f}** ({losses.mean():.4f} nats per token, {bits:.3f} bits per byte)"
            rows.append((f"perplexity, {name} ({len(losses):,} tokens): {title}", value))
    return rows
