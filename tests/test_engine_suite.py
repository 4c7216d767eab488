"""Suite files: what is read, and the one line each bad file gets."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_toy import SUITE, Toy, toy_fixture  # noqa: F401

from harness import BadInput
from harness.engine import suite as suite_module
from harness.engine.suite import load_suite, names
from harness.engine.yamlfile import MAX_BYTES, MAX_DEPTH, read_yaml

EXPRESSION = "cannot be read; write name or name(parameter=value, ...)"
SEEDS = "it takes a number of seeds from 1 to 10000, or a list of different integers of at least 0"


def test_a_suite_is_read_with_its_defaults(toy: Toy) -> None:
    suite = load_suite(toy.write(baseline="shift(by=1)", margins="{error: 0.5}", limits="{seconds: 5}"))
    assert (suite.name, suite.title, suite.track, suite.seeds) == ("toys", "Toys", "toy", (0, 1))
    assert str(suite.baseline) == "shift(by=1)"
    assert suite.margins == {"error": 0.5}
    assert (suite.limits.seconds, suite.limits.memory_gb) == (5, None)
    assert [problem.spec for problem in suite.problems()] == [{"model": "one", "size": 4}]


def test_seeds_are_a_number_or_a_list(toy: Toy) -> None:
    assert load_suite(toy.write(seeds="3")).seeds == (0, 1, 2)
    assert load_suite(toy.write(seeds="[7, 5]")).seeds == (7, 5)


def test_problems_may_have_their_own_metrics(toy: Toy) -> None:
    text = SUITE.replace("models: [one]\nproblem: {size: 4}\n", "")
    path = toy.write(text, problems='[{model: one, size: 2, metrics: ["error(power=2)"]}, {model: two}]')
    first, second = load_suite(path).problems()
    assert (first.spec, [str(call) for call in first.metrics]) == ({"model": "one", "size": 2}, ["error(power=2)"])
    assert (second.spec, [str(call) for call in second.metrics]) == ({"model": "two"}, ["error"])


def test_another_model_takes_the_place_of_all(toy: Toy) -> None:
    suite = load_suite(toy.write(models="[one, two]"))
    assert [problem.spec for problem in suite.problems("three")] == [{"model": "three", "size": 4}]


def test_a_suite_without_a_model_has_none_to_replace(toy: Toy) -> None:
    text = SUITE.replace("models: [one]\n", "")
    with pytest.raises(BadInput, match=r"^suite toys names no model; --model has nothing to replace in it$"):
        load_suite(toy.write(text)).problems("two")


FIELDS = {
    "title is no text": ({"title": "3"}, "toys.yaml:8: title: 3 is not accepted; it should be a valid string"),
    "unknown field": ({"titel": "x"}, "toys.yaml:9: unknown field titel; did you mean title or suite?"),
    "unknown track": ({"track": "toi"}, "toys.yaml:8: track: 'toi' is not accepted; unknown track; did you mean toy?"),
    "unknown scale": ({"scale": "big"}, "toys.yaml:9: scale: 'big' is not accepted; it should be 'small' or 'full'"),
    "a path as name": (
        {"suite": "../up"},
        "toys.yaml:8: suite: '../up' is not accepted; it should match pattern '^[a-z0-9][a-z0-9-]*$'",
    ),
    "no seeds": ({"seeds": "0"}, f"toys.yaml:8: seeds: 0 is not accepted; {SEEDS}"),
    "a seed twice": ({"seeds": "[1, 1]"}, f"toys.yaml:8: seeds: [1, 1] is not accepted; {SEEDS}"),
    "a negative seed": ({"seeds": "[-1]"}, f"toys.yaml:8: seeds: [-1] is not accepted; {SEEDS}"),
    "true as seeds": ({"seeds": "yes"}, f"toys.yaml:8: seeds: True is not accepted; {SEEDS}"),
    "no models": ({"models": "[]"}, "toys.yaml:8: models: [] is not accepted; it should have at least 1 item"),
    "a number as model": ({"models": "[3]"}, "toys.yaml:8: models[0]: 3 is not accepted; it should be a valid string"),
    "models no list": ({"models": "one"}, "toys.yaml:8: models: 'one' is not accepted; it should be a valid list"),
    "no methods": ({"methods": "[]"}, "toys.yaml:8: methods: [] is not accepted; it should have at least 1 item"),
    "half an expression": ({"methods": '["noise("]'}, f"toys.yaml:8: methods[0]: expression 'noise(' {EXPRESSION}"),
    "expression no text": (
        {"methods": "[noise, 3]"},
        "toys.yaml:8: methods[1]: 3 is not accepted; it takes an expression, as name or name(parameter=value)",
    ),
    "a parameter twice": (
        {"baseline": "shift(by=1, by=2)"},
        "toys.yaml:9: baseline: expression 'shift(by=1, by=2)' gives a parameter twice",
    ),
    "no metrics": ({"metrics": "[]"}, "toys.yaml:4: problem 1 has no metrics; add a list `metrics`"),
    "margin of no metric": (
        {"margins": "{eror: 1}"},
        "toys.yaml:9: margins.eror: the suite has no such metric; did you mean error?",
    ),
    "margin of nothing": (
        {"margins": "{error: 0}"},
        "toys.yaml:9: margins.error: 0 is not accepted; it should be greater than 0",
    ),
    "limit in words": (
        {"limits": "{seconds: long}"},
        "toys.yaml:9: limits.seconds: 'long' is not accepted; it should be a valid number",
    ),
    "unknown limit": (
        {"limits": "{second: 1}"},
        "toys.yaml:9: unknown field limits.second; did you mean seconds?",
    ),
    "limit without end": (
        {"limits": "{memory_gb: .inf}"},
        "toys.yaml:9: limits.memory_gb: inf is not accepted; it should be a finite number",
    ),
    "problem no mapping": (
        {"problem": "[1]"},
        "toys.yaml:8: problem: [1] is not accepted; it should be a mapping of fields",
    ),
    "both forms": (
        {"problems": "[{model: one}]"},
        "toys.yaml:9: problems: takes the place of models and problem; give one form",
    ),
    "model no text": (
        {"problems": "[{model: 3}]"},
        "toys.yaml:9: problems[0].model: 3 is not accepted; it should be a valid string",
    ),
}


@pytest.mark.parametrize(("changes", "message"), FIELDS.values(), ids=FIELDS)
def test_a_bad_field_is_one_line(toy: Toy, changes: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_suite(toy.write(**changes))
    assert str(caught.value) == message


def test_a_missing_field_is_named(toy: Toy) -> None:
    with pytest.raises(BadInput, match=r"^toys\.yaml:1: field title is missing$"):
        load_suite(toy.write(SUITE.replace("title: Toys\n", "")))


TEXTS = {
    "a tab": ("suite: a\n\ttitle: b\n", "bad.yaml:2: a tab character; indent with spaces"),
    "duplicate key": ("suite: a\nseeds: 1\nseeds: 2\n", "bad.yaml:3: seeds is given twice"),
    "nested duplicate": ("suite: a\nlimits: {seconds: 1, seconds: 2}\n", "bad.yaml:2: seconds is given twice"),
    "an anchor": ("suite: &name a\n", "bad.yaml:1: anchors and aliases are not accepted; write the value out"),
    "an alias bomb": (
        "suite: x\na: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        "bad.yaml:2: anchors and aliases are not accepted; write the value out",
    ),
    "deep nesting": ("suite: " + "[" * 10_000, f"bad.yaml:1: nested more than {MAX_DEPTH} levels deep"),
    "too large": (
        "#" * (MAX_BYTES + 1),
        f"bad.yaml: is larger than {MAX_BYTES} bytes, too large for a YAML file of this kind",
    ),
    "a Python object": (
        "suite: !!python/object/apply:os.system [ls]\n",
        "bad.yaml:1: the tag tag:yaml.org,2002:python/object/apply:os.system is not accepted; write the plain value",
    ),
    "two documents": ("suite: a\n---\nsuite: b\n", None),
    "not YAML": ("suite: a: b\n", "bad.yaml:1: is not valid YAML: mapping values are not allowed here"),
    "no suite": ("dataset: digits\n", "bad.yaml: is not a suite file; a suite starts with `suite: NAME`"),
    "a list": ("- suite\n", "bad.yaml: is not a suite file; a suite starts with `suite: NAME`"),
    "nothing": ("", "bad.yaml: is not a suite file; a suite starts with `suite: NAME`"),
    "a huge integer": (f"suite: a\nseeds: {'9' * 5000}\n", None),
    "a list as key": ("suite: a\n? [b]\n: c\n", "bad.yaml:2: a field's name is a word"),
    "a control character": ("suite: a\x07\n", None),
}


@pytest.mark.parametrize(("text", "message"), TEXTS.values(), ids=TEXTS)
def test_a_bad_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text(text)
    with pytest.raises(BadInput) as caught:
        load_suite("bad.yaml")
    assert str(caught.value).startswith("bad.yaml:")
    assert "\n" not in str(caught.value)
    if message:
        assert str(caught.value) == message


def test_paths_that_are_no_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.yaml").mkdir()
    Path("binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name, message in {
        "none.yaml": "none.yaml: no such file",
        "folder.yaml": "folder.yaml: is a folder; give a YAML file",
        "binary.yaml": "binary.yaml: is not UTF-8 text; give a YAML file",
    }.items():
        with pytest.raises(BadInput) as caught:
            load_suite(name)
        assert str(caught.value) == message


def test_an_unknown_name_suggests_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ptq-lm.yaml").write_text("suite: ptq-lm\n")
    (tmp_path / "datasets.yaml").write_text("digits: {}\n")
    monkeypatch.setattr(suite_module, "SUITES", tmp_path)
    assert names() == ["ptq-lm"]
    with pytest.raises(BadInput) as caught:
        load_suite("ptqlm")
    message = "unknown suite 'ptqlm'; did you mean ptq-lm? (or give the path of a suite file)"
    assert str(caught.value) == message


def test_every_value_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a:\n  b:\n    - 1\n    - 2\nc: 3\n")
    document = read_yaml(path)
    lines = [document.where(*keys).rpartition(":")[2] for keys in [("a",), ("a", "b"), ("a", "b", 1), ("c",), ("d",)]]
    assert lines == ["1", "2", "4", "5", "1"]
