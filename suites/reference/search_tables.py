"""The tabular benchmarks of architecture search: every architecture of a small space, trained alone on two seeds.

    python -m suites.reference.search_tables cells-digits

writes `tables/NAME.csv` and its card. Each architecture is trained from fresh weights on the seed's own draw of the
training data by AdamW with a cosine schedule, all alike, and scored on the test data.
"""

from __future__ import annotations

import csv
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from harness.search.space import Arch

FOLDER = Path(__file__).parent / "tables"
SEEDS = (0, 1)
WEIGHT_DECAY = 0.01
LR = {"cells-digits": 3e-3, "llamas-synthetic": 1e-2}
TABLES: dict[str, dict[str, Any]] = {
    "cells-digits": {
        "model": "cells(channels=8)",
        "task": {"dataset": "digits", "train": 600, "dev": 200},
        "budget": {"steps": 150, "batch": 32},
    },
    "llamas-synthetic": {
        "model": "llamas(width=48, mlp_dim=144, layers=2)",
        "task": {"dataset": "synthetic-lm", "tokenizer": "synthetic-lm", "length": 32, "train": 4000, "dev": 100,
                 "test": 200},
        "budget": {"steps": 300, "batch": 16},
    },
}  # fmt: skip
FIELDS = ("arch", "seed", "numbers", "dev_loss", "loss", "accuracy")


def train_one(job: tuple[str, Arch, int]) -> dict[str, Any]:
    """One row: an architecture trained on one seed."""
    import torch

    from harness.tasks import evaluate
    from harness.tracks import search
    from methods.search.ranking import trained

    torch.set_num_threads(1)
    name, arch, seed = job
    problem = search.build(TABLES[name], seed=seed)
    steps = problem.budget.granted.steps
    model = trained(problem, arch, steps, lr=LR[name], weight_decay=WEIGHT_DECAY).model_for()
    with problem.budget.free():
        dev, test = (evaluate(problem.task, model, split) for split in (problem.task.dev, problem.task.test))
    return {
        "arch": problem.space.name(arch),
        "seed": seed,
        "numbers": problem.space.numbers(arch),
        "dev_loss": f"{dev['loss'].mean():.5f}",
        "loss": f"{test['loss'].mean():.5f}",
        "accuracy": f"{test['accuracy'].mean():.5f}",
    }


def make(name: str, processes: int = 2) -> Path:
    """Train what a table does not have yet, row by row, so that a run that was stopped goes on; then write its card."""
    from harness.search.table import read_table
    from harness.tracks import search

    file = FOLDER / f"{name}.csv"
    space = search.build(TABLES[name], seed=0).space
    FOLDER.mkdir(exist_ok=True)
    if not file.exists():
        file.write_text(",".join(FIELDS) + "\n")
    with file.open(newline="") as lines:
        have = {(row["arch"], int(row["seed"])) for row in csv.DictReader(lines)}
    wanted = [(name, arch, seed) for arch in space for seed in SEEDS]
    jobs = [job for job in wanted if (space.name(job[1]), job[2]) not in have]
    with get_context("spawn").Pool(processes) as pool, file.open("a", newline="") as lines:
        writer = csv.DictWriter(lines, FIELDS, lineterminator="\n")
        for row in pool.imap(train_one, jobs):
            writer.writerow(row)
            lines.flush()
    read_table.cache_clear()
    (FOLDER / f"{name}.md").write_text(_card(name))
    return file


def _card(name: str) -> str:
    """What is in the table, and the agreement between its seeds, which no search can exceed."""
    import torch
    from scipy import stats

    from harness.search.table import read_table

    table = read_table(name)
    seeds = ", ".join(map(str, SEEDS))
    again = f"    python -m suites.reference.search_tables {name}"
    lines = [f"# {name}", "", f"{len(table.archs)} architectures, seeds {seeds}; made again by", "", again, ""]
    lines += [f"- {key}: `{value}`" for key, value in TABLES[name].items()]
    lines += [f"- AdamW, lr {LR[name]}, weight decay {WEIGHT_DECAY}, cosine to zero after 5% warm-up", ""]
    for of, values in (("loss", table.loss), ("accuracy", table.accuracy)):
        tau = stats.kendalltau(values[:, 0], values[:, 1]).statistic
        lines.append(
            f"- test {of}: {values.min():.4f} to {values.max():.4f}; Kendall's tau between the seeds {tau:.3f}"
        )
    version = torch.__version__.partition("+")[0]
    lines += ["", f"Trained with torch {version}, one thread each."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for wanted in sys.argv[1:] or TABLES:
        print(make(wanted))
