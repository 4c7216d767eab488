"""`harness show`: everything about one name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.common import emit, json_option, ledger_option
from harness.errors import BadInput, nearest

if TYPE_CHECKING:
    from harness.registry import Claim, Entry

Fields = dict[str, Any]
HASH_LENGTH = 64


@click.command(short_help="Show all about a name.")
@click.argument("name")
@ledger_option
@json_option
def show(name: str, ledger: str | None, as_json: bool) -> None:
    """Show a method, metric, suite, model or dataset by NAME, or a trial by its hash.

    Of a method: its paper, its parameters with types, ranges and defaults, its claims, and where it is implemented.
    """
    found = [_trial(name, ledger)] if _is_hash(name) else _named(name)
    for number, fields in enumerate(found):
        if as_json:
            emit(fields)
        else:
            click.echo("\n" * (number > 0) + "\n".join(_lines(fields)))


def _is_hash(name: str) -> bool:
    return len(name) == HASH_LENGTH and set(name) <= set("0123456789abcdef")


def _named(name: str) -> list[Fields]:
    """Whatever bears the name: a dataset and a metric may share one."""
    from harness import data, models, registry
    from harness.engine import suite

    entries = [*registry.entries("method"), *registry.entries("metric")]
    found = [_entry(entry) for entry in entries if entry.name == name.replace("-", "_")]
    found += [_suite(name)] if name in suite.names() else []
    found += [_model(name)] if name in models.names() else []
    found += [{"kind": "dataset", **data.describe(name)}] if name in data.names() else []
    if found:
        return found
    known = [*(entry.name for entry in entries), *suite.names(), *models.names(), *data.names()]
    close = nearest(name, known)
    hint = close if close.startswith("did you") else "see `harness list methods` (or suites, models, datasets, metrics)"
    raise BadInput(f"nothing is named {name!r}; {hint}")


def _entry(entry: Entry) -> Fields:
    from harness.tables.bibliography import bibtex

    return {
        "kind": entry.kind,
        "name": entry.name,
        "track": entry.track or None,
        "parameters": {
            param.name: {
                "default": None if param.required else param.default,
                "required": param.required,
                "accepts": param.accepted,
            }
            for param in entry.params.values()
        },
        "claims": [_claim(entry.name, claim) for claim in entry.claims],
        "kernels": _kernels(entry),
        "implemented": f"{_relative(entry.file)}:{entry.function.__code__.co_firstlineno}",
        "paper": entry.paper,
        "bibtex": bibtex(entry),
        "description": entry.documentation,
    }


def _kernels(entry: Entry) -> list[str]:
    """What would run, on this machine, each format that a method stores with its defaults: seen on a small problem."""
    from contextlib import suppress

    from harness.errors import TrialFailed
    from harness.packed import kernels

    if entry.kind != "method" or entry.track not in ("compress", "latency"):
        return []
    params = {name: param.default for name, param in entry.params.items() if not param.required}
    with suppress(BadInput, TrialFailed):
        if entry.track == "latency":
            layer = _sample_layer(entry, params)
            return [f"{layer.weight.packed.kind}: {layer.runs_on}"]
        stored = _sample_weights(entry, params)
        return list(dict.fromkeys(f"{weight.kind}: {kernels.name(weight)}" for weight in stored))
    return []


def _sample_layer(entry: Entry, params: Fields) -> Any:
    import torch

    from harness.tracks.latency import maker

    return maker(entry, params, torch.Generator().manual_seed(0))(64, 640)


def _sample_weights(entry: Entry, params: Fields) -> list[Any]:
    from harness.compress.samples import layer_problem, llama_problem

    if entry.input_type == "LayerProblem":
        return [entry(layer_problem(), **params)]
    return list(entry(llama_problem(), **params).packed.values())


def _claim(name: str, claim: Claim) -> str:
    from harness.params import format_call

    margin = f" by at least {claim.margin:g}" if claim.margin else ""
    text = f"{claim.metric}: better than {claim.than}{margin} in {claim.suite}, {format_call(name, claim.params)}"
    return f"{text} ({claim.paper})" if claim.paper else text


def _relative(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _model(name: str) -> Fields:
    from harness.models import describe

    described = describe(name)
    return {"kind": "model", "name": name, "type": described.pop("kind"), **described}


def _suite(name: str) -> Fields:
    from harness.engine.suite import load_suite

    suite = load_suite(name)
    problems = suite.problems()
    return {
        "kind": "suite",
        "name": suite.name,
        "title": suite.title,
        "track": suite.track,
        "scale": suite.fields.scale,
        "problems": [json.dumps(problem.spec) for problem in problems],
        "methods": [str(call) for call in suite.fields.methods],
        "metrics": list(dict.fromkeys(str(call) for problem in problems for call in problem.metrics)),
        "seeds": list(suite.seeds),
        "baseline": str(suite.baseline) if suite.baseline else None,
        "margins": suite.margins,
        "limits": suite.limits.model_dump(exclude_none=True),
        "file": _relative(suite.path),
    }


def _trial(trial: str, ledger: str | None) -> Fields:
    from contextlib import closing
    from dataclasses import asdict

    from harness.engine.ledger import open_ledger

    with closing(open_ledger(ledger, write=False)) as store:
        record = store.get(trial)
        if record is None:
            raise BadInput(f"ledger {store.name}: has no trial {trial}")
        return {"kind": "trial", **asdict(record), "environment": store.environment(record.environment)}


def _lines(fields: Fields) -> list[str]:
    """`key: value` lines; lists and mappings a line an element, long texts below their key."""
    name = fields.get("name", fields.get("hash"))
    lines = [click.style(f"{fields['kind']} {name}", bold=True)]
    for key, value in fields.items():
        if key in ("kind", "name") or value in (None, "", [], {}):
            continue
        if key == "parameters":
            lines += ["parameters:", *(f"  {_parameter(name, one)}" for name, one in value.items())]
        elif isinstance(value, dict):
            lines += [f"{key}:", *(f"  {inner}: {_plain(one)}" for inner, one in value.items())]
        elif isinstance(value, list) and key in ("problems", "methods", "metrics", "claims", "kernels"):
            lines += [f"{key}:", *(f"  {one}" for one in value)]
        elif isinstance(value, str) and "\n" in value:
            lines += [f"{key}:", *(f"  {line}".rstrip() for line in value.splitlines())]
        else:
            lines.append(f"{key}: {_plain(value)}")
    return lines


def _parameter(name: str, one: Fields) -> str:
    default = "required" if one["required"] else f"default {one['default']!r}"
    return f"{name}: {one['accepts']} ({default})"


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
