"""Every kind of bad input, and what the command line says to it: `python tests/bad_input_table.py` prints the table.

A case is a function that prepares a folder and gives the command line to run in it; `tests/test_bad_input.py` runs them
all.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy
from click.testing import CliRunner, Result

from harness.cli import main

WEIGHTS = Path(__file__).parents[1] / "suites" / "reference" / "digits-vit"
WIKITEXT = "Salesforce/wikitext/wikitext-2-v1/test.parquet"
LEDGER = "results/local/ledger.db"
TABLES = ("records", "scores", "members", "leases")
SUITE = {
    "suite": "bad",
    "title": "Bad input",
    "track": "compress",
    "models": "[digits-vit]",
    "problem": "{calibration: {dataset: digits, split: train, samples: 8}}",
    "methods": "[rtn]",
    "metrics": '["top1(dataset=digits)"]',
}


@dataclass
class Place:
    """The folder a case is prepared in, and the environment it runs in."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    pages: int | None = None
    """Size at which the disk is full for SQLite, in pages."""

    def suite(self, **fields: str) -> str:
        """A suite file: good but for the fields given."""
        text = "".join(f"{key}: {value}\n" for key, value in {**SUITE, **fields}.items())
        return self.file("bad.yaml", text)

    def run(self, **fields: str) -> list[str]:
        return ["run", self.suite(**fields)]

    def file(self, name: str, content: str | bytes) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return name

    def model(self, change: Callable[[bytes], bytes] = lambda weights: weights) -> dict[str, str]:
        """digits-vit in a folder of its own, with its weights' file changed; as the field of a suite."""
        self.file("model/config.json", (WEIGHTS / "config.json").read_bytes())
        self.file("model/model.safetensors", change((WEIGHTS / "model.safetensors").read_bytes()))
        return {"models": "[./model]"}

    def mirror(self, rows: dict[str, list], sums: str | None = None) -> None:
        """A data mirror that holds the test split of wikitext2."""
        import pyarrow as pa
        from pyarrow import parquet

        path = self.folder / "mirror" / WIKITEXT
        path.parent.mkdir(parents=True)
        parquet.write_table(pa.table(rows), path)
        if sums is not None:
            self.file("mirror/SHA256SUMS", f"{sums}  ./{WIKITEXT}\n")
        self.environment["HARNESS_DATA"] = str(self.folder / "mirror")


@dataclass(frozen=True)
class Case:
    """A kind of bad input; `says` are words that the line must hold."""

    title: str
    says: tuple[str, ...]
    prepare: Callable[[Place], list[str]]


CASES: list[Case] = []


def case(title: str, *says: str) -> Callable[[Callable[[Place], list[str]]], Callable[[Place], list[str]]]:
    def add(prepare: Callable[[Place], list[str]]) -> Callable[[Place], list[str]]:
        CASES.append(Case(title, says, prepare))
        return prepare

    return add


def simple(title: str, *says: str, **fields: str) -> None:
    """A suite with one bad field."""
    CASES.append(Case(title, says, lambda place: place.run(**fields)))


CASES.append(Case("unknown suite", ("quickstar", "did you mean quickstart"), lambda place: ["run", "quickstar"]))
simple("unknown method", "bad.yaml:6", "gtpq", "did you mean gptq", methods="[gtpq]")
simple("unknown model", "bad.yaml:4", "digits-vitt", "did you mean digits-vit", models="[digits-vitt]")
simple(
    "unknown dataset", "bad.yaml:", "digitz", "did you mean digits",
    problem="{calibration: {dataset: digitz, samples: 8}}",
)  # fmt: skip
simple("unknown dataset of a metric", "bad.yaml:7", "digitz", metrics='["top1(dataset=digitz)"]')
simple("unknown metric", "bad.yaml:7", "top2", "did you mean top1", metrics='["top2(dataset=digits)"]')
simple("unknown parameter", "bad.yaml:6", "bitz", "did you mean bits", methods='["rtn(bitz=3)"]')
simple("unknown field of a suite", "bad.yaml:8", "metodhs", "did you mean methods", metodhs="[rtn]")
simple("bits=0", "bad.yaml:6", "rtn: bits=0", "one of 1, 2, 3", methods='["rtn(bits=0)"]')
simple("bits=17", "bad.yaml:6", "rtn: bits=17", "one of 1, 2, 3", methods='["rtn(bits=17)"]')
simple('bits="four"', "bad.yaml:6", "rtn: bits='four'", methods='["rtn(bits=four)"]')
simple("a group size that does not divide", "layer ", "group_size=7", "64 inputs", methods='["rtn(group_size=7)"]')
simple("an empty grid", "bad.yaml:6", "bits=[]", "empty grid", methods='["rtn(bits=[])"]')
simple("no methods", "bad.yaml:6", "methods", methods="[]")
simple("a YAML with a tab", "bad.yaml:1", "tab", suite="\tbad")
simple("a duplicate key", "bad.yaml:8", "title", "twice", metrics='["top1(dataset=digits)"]\ntitle: again')


@case("an anchor bomb", "bomb.yaml:1", "anchors")
def anchor_bomb(place: Place) -> list[str]:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return ["run", place.file("bomb.yaml", "\n".join(lines))]


@case("a suite path that is missing", "absent/suite.yaml", "no such file")
def missing_suite(place: Place) -> list[str]:
    return ["run", "absent/suite.yaml"]


@case("a YAML that is no suite", "other.yaml", "not a suite")
def no_suite(place: Place) -> list[str]:
    return ["run", place.file("other.yaml", "name: something else\n")]


@case("a file that is no YAML", "picture.yaml", "UTF-8")
def no_yaml(place: Place) -> list[str]:
    return ["run", place.file("picture.yaml", bytes(range(256)))]


@case("a folder for a suite", "folder.yaml", "is a folder")
def folder(place: Place) -> list[str]:
    place.file("folder.yaml/x", "")
    return ["run", "folder.yaml"]


@case("a truncated safetensors file", "model.safetensors", "truncated")
def truncated(place: Place) -> list[str]:
    return place.run(**place.model(lambda weights: weights[: len(weights) // 2]))


@case("a corrupt safetensors file", "model.safetensors", "corrupt")
def corrupt(place: Place) -> list[str]:
    return place.run(**place.model(lambda weights: b"\xff" * 64 + weights[64:]))


@case("a pickle that would execute code", "pytorch_model.bin", "refused", "system")
def hostile(place: Place) -> list[str]:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {place.folder / 'executed'}",)

    fields = place.model()
    (place.folder / "model/model.safetensors").unlink()
    place.file("model/pytorch_model.bin", pickle.dumps({"head.weight": Hostile()}, protocol=2))
    return place.run(**fields)


@case("a ledger that is not a ledger", "text.db", "not a ledger")
def no_ledger(place: Place) -> list[str]:
    return [*place.run(), "--ledger", place.file("text.db", "not a database " * 100)]


@case("a database of something else", "people.db", "not a ledger")
def other_database(place: Place) -> list[str]:
    with closing(sqlite3.connect(place.folder / "people.db")) as database:
        database.execute("CREATE TABLE people (name TEXT)")
    return [*place.run(), "--ledger", "people.db"]


def _ledger(place: Place) -> Path:
    from harness.engine.ledger import open_ledger

    path = place.folder / "ledger.db"
    open_ledger(str(path)).close()
    return path


@case("a read-only ledger", "ledger.db", "read-only")
def read_only(place: Place) -> list[str]:
    # As SQLite's own mode, because an administrator may write whatever the file's permissions say.
    return [*place.run(), "--ledger", f"sqlite:///file:{_ledger(place)}?mode=ro&uri=true"]


@case("a ledger of a newer version", "ledger.db", "newer version", "update the harness")
def newer(place: Place) -> list[str]:
    with closing(sqlite3.connect(_ledger(place))) as database, database:
        database.execute("UPDATE meta SET value = '99' WHERE key = 'version'")
    return [*place.run(), "--ledger", "ledger.db"]


@case("a full disk", "ledger.db", "disk is full")
def full_disk(place: Place) -> list[str]:
    """The table that is written first is filled, down to rows of a few bytes, in a file that may not grow."""
    with closing(sqlite3.connect(_ledger(place), isolation_level=None)) as database:
        (place.pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {place.pages}")
        for size in (900, 90, 9):
            with suppress(sqlite3.OperationalError):
                for row in range(1000):
                    database.execute("INSERT INTO environments VALUES (?, ?)", (f"{size}-{row}", "0" * size))
    return [*place.run(), "--ledger", "ledger.db"]


def _with_value(value: float) -> Callable[[bytes], bytes]:
    """The weights with one number replaced."""

    def change(weights: bytes) -> bytes:
        from safetensors.torch import load, save

        tensors = load(weights)
        tensors["blocks.1.mlp.fc1.weight"][3, 5] = value
        return save(tensors)

    return change


@case("NaN in a weight", "blocks.1.mlp.fc1.weight", "not finite")
def nan(place: Place) -> list[str]:
    return place.run(**place.model(_with_value(float("nan"))))


@case("Inf in a weight", "blocks.1.mlp.fc1.weight", "not finite")
def infinite(place: Place) -> list[str]:
    return place.run(**place.model(_with_value(float("inf"))))


@case("a dataset whose hash changed", "test.parquet", "has changed", "sha256")
def changed_data(place: Place) -> list[str]:
    place.mirror({"text": ["Some words."]}, sums=hashlib.sha256(b"other").hexdigest())
    return place.run(problem="{calibration: {dataset: wikitext2, split: test, samples: 1}}")


@case("a dataset that is not at hand", "wikitext2", "looked in", "hf download")
def missing_data(place: Place) -> list[str]:
    place.mirror({"text": ["Some words."]})
    return place.run(problem="{calibration: {dataset: wikitext2, split: validation, samples: 1}}")


simple(
    "zero calibration rows asked for", "samples=0", "at least 1",
    problem="{calibration: {dataset: digits, samples: 0}}",
)  # fmt: skip


@case("zero calibration rows in the dataset", "wikitext2", "no rows")
def no_rows(place: Place) -> list[str]:
    place.mirror({"text": []})
    return place.run(
        models=f"[{_language_model(place)}]",
        problem="{calibration: {dataset: wikitext2, split: test, samples: 1, length: 8}}",
        metrics='["perplexity(dataset=wikitext2, context=8)"]',
    )


@case("a text shorter than the context", "wikitext2", "shorter than the context", "context=64")
def short_text(place: Place) -> list[str]:
    place.mirror({"text": ["Some words.", "Others."]})
    return place.run(
        models=f"[{_language_model(place)}]",
        problem="{}",
        methods="[dense]",
        metrics='["perplexity(dataset=wikitext2, context=64)"]',
    )


def _language_model(place: Place) -> str:
    """A random Llama of a few kilobytes whose tokens are bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = {letter: at for at, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()), 2)}
    tokens = Tokenizer(models.BPE(vocab={"<s>": 0, "</s>": 1, **letters}, merges=[]))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    config = LlamaConfig(
        vocab_size=258, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=128, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(place.folder / "llama")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokens, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(place.folder / "llama")
    return "./llama"


CASES += [
    Case("an unknown command", ("frobnicate",), lambda place: ["frobnicate"]),
    Case("an unknown option", ("--sedes", "--seeds"), lambda place: [*place.run(), "--sedes", "3"]),
    Case("a number that is none", ("--seeds", "many"), lambda place: [*place.run(), "--seeds", "many"]),
    Case("no seeds", ("--seeds", "0", "at least 1"), lambda place: [*place.run(), "--seeds", "0"]),
    Case("no jobs", ("--jobs", "0", "at least 1"), lambda place: [*place.run(), "--jobs", "0"]),
    Case("--only without a match", ("--only", "gptq", "rtn"), lambda place: [*place.run(), "--only", "gptq"]),
    Case("--only that cannot be read", ("--only", "rtn(bits="), lambda place: [*place.run(), "--only", "rtn(bits="]),
    Case("an unknown name to show", ("gtpq", "did you mean gptq"), lambda place: ["show", "gtpq"]),
    Case("a method to check that is not there", ("absent.py", "no such file"), lambda place: ["check", "absent.py"]),
    Case("a table before any run", ("ledger.db", "harness run"), lambda place: ["table", place.suite()]),
    Case("an unknown format", ("--format", "did you mean csv"), lambda p: ["table", p.suite(), "--format", "cvs"]),
    Case("a report of an unknown suite", ("did you mean quickstart",), lambda place: ["report", "quickstar"]),
    Case("a report before any run", ("ledger.db", "harness run"), lambda place: ["report", place.suite()]),
    Case("an unknown reference model", ("digit-vit", "digits-vit"), lambda place: ["train-reference", "digit-vit"]),
]


@dataclass(frozen=True)
class Outcome:
    """What the command line did: its result, and the files that are there now and were not before, or differ."""

    result: Result
    written: list[str]


def run_case(one: Case, folder: Path) -> Outcome:
    """Prepare the case in the folder and run its command line there."""
    place = Place(folder)
    arguments = one.prepare(place)
    before = _contents(folder)
    with _inside(place):
        result = CliRunner().invoke(main, arguments, prog_name="harness")
    after = _contents(folder)
    return Outcome(result, sorted(name for name in after if after[name] != before.get(name)))


def _contents(folder: Path) -> dict[str, bytes]:
    """What is in a folder. A ledger without a record is no result: a run needs one to share its work by, before it
    can know that every trial's input will be refused. SQLite's files beside an open database hold nothing of ours."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".db-shm", ".db-wal")]
    found = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: path.read_bytes() for name, path in found.items() if name != LEDGER or _holds_something(path)}


def _holds_something(ledger: Path) -> bool:
    with closing(sqlite3.connect(ledger)) as database:
        return any(database.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in TABLES)


@contextmanager
def _inside(place: Place) -> Iterator[None]:
    """The folder as the current one, its environment set, and its disk as full as it says."""

    def limit(connection: Any, _: Any) -> None:
        connection.execute(f"PRAGMA max_page_count = {place.pages}")

    kept, here = dict(os.environ), Path.cwd()
    os.environ.pop("HARNESS_LEDGER", None)
    os.environ.pop("HARNESS_DATA", None)
    os.environ.update(place.environment)
    os.chdir(place.folder)
    if place.pages:
        sqlalchemy.event.listen(sqlalchemy.Engine, "connect", limit)
    try:
        yield
    finally:
        if place.pages:
            sqlalchemy.event.remove(sqlalchemy.Engine, "connect", limit)
        os.chdir(here)
        os.environ.clear()
        os.environ.update(kept)


def print_table() -> None:
    """One row a case: what was bad, the exit status, what was written, the line that was printed."""
    print("| bad input | exit | written | printed |\n| :-- | --: | :-- | :-- |")
    for one in CASES:
        with tempfile.TemporaryDirectory() as folder:
            outcome = run_case(one, Path(folder))
        line = outcome.result.stderr.strip().replace(folder, "...").replace("|", "\\|").replace("\n", " // ")
        print(f"| {one.title} | {outcome.result.exit_code} | {', '.join(outcome.written) or 'nothing'} | {line} |")
        sys.stdout.flush()


if __name__ == "__main__":
    import bad_input_results  # noqa: F401  (its cases join the table's)
    import bad_input_table
    import bad_input_tracks  # noqa: F401

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    bad_input_table.print_table()
