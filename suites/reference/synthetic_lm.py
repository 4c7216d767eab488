"""synthetic-lm: a Llama of 0.2 million parameters on the generated language, whose least possible loss is known."""

from __future__ import annotations

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from harness import data, data_synthetic
from harness.train.loop import Phase, run_phases
from harness.train.reference import Report, Run
from harness.train.schedules import warmup_stable_decay
from suites.reference import llama, text

RECIPE = {
    "vocabulary": len(data_synthetic.words()),
    "hidden_size": 64,
    "intermediate_size": 128,
    "layers": 4,
    "heads": 4,
    "key_value_heads": 2,
    "context": 128,
    "steps": 3000,
    "sequences_per_batch": 32,
    "muon_lr": 6e-3,
    "adamw_lr": 5e-3,
    "weight_decay": 0.01,
    "warmup": 50,
    "decay": 0.7,
    "seed": 0,
}
FIRST_SEED = 1_000_000  # far from the seeds of the data set's own splits

ABOUT = """A Llama of {parameters:,} parameters trained on fresh text of the language in `harness/data_synthetic.py`.
That language's entropy rate is known exactly ({rate:.4f} nats per token), and so is the probability of each word of
each text: the loss of this model, or of a compressed one, can be read above the least possible, item by item. Needs
no download."""


def batches(index: int) -> Tensor:
    """Text that no other batch has: the model sees each sequence once."""
    tokens, _ = data_synthetic.generate(RECIPE["sequences_per_batch"], RECIPE["context"], FIRST_SEED + index)
    return torch.from_numpy(tokens)


def train(run: Run) -> Report:
    test = data.load("synthetic-lm", split="test")
    rows, floor = np.array(test.column("input_ids")), np.array(test.column("floor"))

    generator = torch.Generator().manual_seed(RECIPE["seed"])
    model = llama.build(RECIPE, generator)
    phase = Phase(
        steps=RECIPE["steps"],
        batches=batches,
        loss=llama.next_token_loss,
        optimizer=llama.optimizers(RECIPE),
        schedule=warmup_stable_decay(warmup=RECIPE["warmup"], decay=RECIPE["decay"]),
    )
    fitted = run_phases(
        model,
        [phase],
        generator=generator,
        evaluate=lambda model: {"excess": (llama.token_losses(model, rows, 64).mean(axis=1) - floor).mean()},
        evaluate_every=200,
        checkpoint=run.checkpoint,
        checkpoint_every=200,
        tag=run.tag(RECIPE, [("synthetic-lm", test.hash)]),
        title=run.name,
    )
    model.to(torch.bfloat16).save_pretrained(run.folder)
    text.save_tokenizer(_tokenizer(), run.folder)

    losses = llama.token_losses(model.float(), rows, 64).mean(axis=1)
    above = losses - floor
    error = above.std(ddof=1) / len(above) ** 0.5
    return Report(
        title="synthetic-lm",
        about=ABOUT.format(parameters=sum(p.numel() for p in model.parameters()), rate=data_synthetic.entropy_rate()),
        data=[("synthetic-lm (test)", test.hash)],
        recipe={**RECIPE, "tokens seen": f"{fitted.passes.forward * RECIPE['context']:,}, each once"},
        measured=[
            ("loss on the test texts, nats per token", f"{losses.mean():.4f}"),
            ("least possible on the same tokens", f"{floor.mean():.4f}"),
            ("loss above the floor, per text (mean ± standard error)", f"**{above.mean():.4f} ± {error:.4f}**"),
        ],
        fitted=fitted,
        license="apache-2.0",
        notes=["Stored, and scored, as bfloat16. Every token after the first of a text is scored."],
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    """Words are tokens: the language's text is its words with spaces between."""
    vocabulary = {word: token for token, word in enumerate(data_synthetic.words())}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="."))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=2 * RECIPE["context"])
