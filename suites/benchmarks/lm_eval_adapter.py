"""The whole of BLiMP through our lm-eval adapter, against the bare forward passes of its batches and against HFLM.

    python -m suites.benchmarks.lm_eval_adapter [--model tiny-llama] [--pairs 1000] [--hflm 2048] [--hflm-batch 1]

Ours is everything from reading the data to a score for each pair. Bare is the model run on the same packed batches,
with the output layer on the positions that are scored, and nothing else. HFLM scores requests spread over the whole
set, cut from the order of length that it sorts them into, so that it pads as little as in a whole run. The three take
turns, a batch at a time, so that a slow minute of the machine falls on all of them; the processor's time is shown
beside the time that passed, since it is the steadier of the two on a machine that others use.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from harness.metrics import likelihood
from harness.metrics.lm_eval_adapter import tokenize
from harness.metrics.subject import Subject
from harness.models import open_model


@dataclass
class Clock:
    """Seconds passed and seconds of processor time."""

    wall: float = 0.0
    cpu: float = 0.0

    def time(self, function: Callable[..., Any], *args: Any) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = function(*args)
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="tiny-llama")
    parser.add_argument("--pairs", type=int, default=1000, help="of each paradigm")
    parser.add_argument("--hflm", type=int, default=2048, help="requests for HFLM")
    parser.add_argument("--hflm-batch", type=int, default=1, help="HFLM's batch size (its own default is 1)")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    handle = open_model(args.model)
    subject = Subject.of(handle, handle.load())
    theirs = HFLM(subject, args.hflm, args.hflm_batch)
    requests = sentences(subject, 20)
    score(subject, requests, theirs, *(Clock() for _ in range(4)))  # warm up

    read, ours, bare, hflm = (Clock() for _ in range(4))
    requests = read.time(sentences, subject, args.pairs)
    values = score(subject, requests, theirs, read, ours, bare, hflm)
    count = len(requests)
    report(count, theirs.done, read, ours, bare, hflm)
    difference = max(abs(values[index] - value) for index, value in theirs.values.items())
    print(f"largest difference from HFLM in {len(theirs.values)} log-likelihoods: {difference:.1e}")


def sentences(subject: Subject, pairs: int) -> list[tuple[str, str]]:
    """The requests that the metric `blimp` makes."""
    data = subject.data("blimp", "train")
    rows = np.flatnonzero(np.array(data.column("pair_id")) < pairs)
    columns = [data.column(name) for name in ("sentence_good", "sentence_bad")]
    return [("", f" {column[row]}") for column in columns for row in rows]


class HFLM:
    """lm-eval's own model, scoring slices of the requests in order of length, one a turn."""

    def __init__(self, subject: Subject, requests: int, batch: int):
        from lm_eval.models import huggingface

        model, tokenizer = subject.model, subject.tokenizer
        self.model = huggingface.HFLM(pretrained=model, tokenizer=tokenizer, device="cpu", batch_size=batch)
        self.requests, self.batch = requests, batch

    def start(self, requests: list[tuple[str, str]], turns: int) -> None:
        from lm_eval.api.instance import Instance

        order = sorted(range(len(requests)), key=lambda i: len(requests[i][1]))
        size = min(len(order), max(self.batch, self.requests // turns))
        self.every = max(1, turns * size // self.requests)
        starts = np.linspace(0, len(order) - size, -(-turns // self.every)).astype(int)
        instances = [Instance("loglikelihood", {}, requests[i], i, ("blimp", i, 1)) for i in order]
        self.slices = [instances[start : start + size] for start in starts]
        self.values: dict[int, float] = {}
        self.done = 0

    def turn(self, number: int, clock: Clock) -> None:
        if number % self.every == 0:
            requests = self.slices.pop()
            answers = clock.time(self.model.loglikelihood, requests, True)
            self.values |= {request.idx: value for request, (value, _) in zip(requests, answers, strict=True)}
            self.done += len(requests)


def score(
    subject: Subject, requests: list[tuple[str, str]], theirs: HFLM, read: Clock, ours: Clock, bare: Clock, hflm: Clock
) -> np.ndarray:
    """Log-likelihoods of all requests, with the three ways taking turns on every batch."""
    sequences, scored = read.time(tokenize, subject.tokenizer, requests, subject.max_length or 2048)
    batches = read.time(likelihood.batches, subject, sequences, scored)
    theirs.start(requests, len(batches))
    total = np.zeros(len(requests))
    for number, batch in enumerate(batches):
        inputs, keep = likelihood.inputs(batch, torch.float32), torch.from_numpy(batch.keep)
        if number % 2:
            bare.time(subject.logits, inputs, keep)
        values, _ = ours.time(likelihood.predictions, subject, batch)
        if not number % 2:
            bare.time(subject.logits, inputs, keep)
        theirs.turn(number, hflm)
        np.add.at(total, batch.owner, values)
    return total


def report(count: int, hflm_count: int, read: Clock, ours: Clock, bare: Clock, hflm: Clock) -> None:
    print(f"{count} requests; {torch.get_num_threads()} threads; seconds passed (of processor time)")
    for name, clock in (("read, tokenize, pack", read), ("score the batches", ours), ("bare forward", bare)):
        print(f"  {name:22} {clock.wall:8.2f} ({clock.cpu:.2f})")
    print(f"  {'HFLM':22} {hflm.wall:8.2f} ({hflm.cpu:.2f}) for {hflm_count} requests")
    for name in ("wall", "cpu"):
        whole = getattr(read, name) + getattr(ours, name)
        rate, their_rate = count / whole, hflm_count / getattr(hflm, name)
        print(f"{name:4}: ours takes {whole / getattr(bare, name):.3f} x the bare forward passes; it scores {rate:.0f}")
        print(f"      requests a second, {rate / their_rate:.1f} x the {their_rate:.0f} of HFLM")


if __name__ == "__main__":
    main()
