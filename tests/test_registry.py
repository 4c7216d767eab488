"""The registry: what may be registered, how it is found, and what makes a new version of it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import BadInput, Bits, Claim, catalogue, method, registry
from harness.cache import folder
from harness.params import Expression

METHOD = '''\
"""A module."""

from harness import method{imports}


@method(track="compress", paper="someone2020")
def {name}(problem: object, *, bits: int = 4):
    """{summary}

    More on it.
    """
    # a comment
    return {body}
'''


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A registry of its own for every test."""
    monkeypatch.setattr(registry, "_entries", {})
    monkeypatch.setattr(registry, "_discovered", True)
    caches = (registry._packages, registry._modules, registry._definitions, registry._catalogue)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Makes `outsiders` the one package of the entry point group, with a cache of its own."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    points = {"harness.methods": [SimpleNamespace(value="outsiders")]}
    monkeypatch.setattr(registry, "HOME_PACKAGES", ())
    monkeypatch.setattr(registry, "entry_points", lambda group: points[group])


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Writes modules of the package `outsiders`, which any test may import."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(**modules: str) -> Path:
        for name, text in {"__init__": "", **modules}.items():
            path = tmp_path / "outsiders" / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        for name in [name for name in sys.modules if name.startswith("outsiders")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        return tmp_path / "outsiders"

    yield write
    for name in [name for name in sys.modules if name.startswith("outsiders")]:
        del sys.modules[name]


def source(name: str = "mine", summary: str = "One line.", body: str = "None", imports: str = "") -> str:
    return METHOD.format(name=name, summary=summary, body=body, imports=imports)


def version_of(write: Callable[..., Path], **modules: str) -> str:
    write(**modules)
    registry._entries.clear()
    importlib.import_module("outsiders.mine")
    return registry.get("mine").version


def test_an_entry_says_what_the_function_says() -> None:
    claim = Claim("perplexity", "rtn", "ptq-lm", params={"bits": 3})

    @method(track="compress", paper="someone2020", claims=[claim])
    def wonderful(problem: SimpleNamespace, *, bits: Bits = 3) -> str:
        """Do wonders.

        And more.
        """
        return f"{problem.name} {bits}"

    entry = registry.get("wonderful")
    assert (entry.track, entry.paper, entry.claims, entry.summary) == (
        "compress", "someone2020", (claim,), "Do wonders.",
    )  # fmt: skip
    assert list(entry.params) == ["bits"]
    assert entry.input_type == "SimpleNamespace"
    assert entry.file == Path(__file__)
    assert entry(SimpleNamespace(name="x"), bits=2) == wonderful(SimpleNamespace(name="x"), bits=2) == "x 2"


def test_hyphens_and_underscores_are_one() -> None:
    @method(track="compress")
    def two_words(problem: object) -> None:
        """Do it."""

    assert registry.get("two-words") is registry.get("two_words") is registry.resolve(Expression("two-words"))


def test_an_unknown_name_suggests_the_nearest() -> None:
    @method(track="compress")
    def gptq(problem: object) -> None:
        """Do it."""

    with pytest.raises(BadInput, match="unknown method 'gtpq'; did you mean gptq"):
        registry.get("gtpq")
    with pytest.raises(BadInput, match="unknown metric 'gptq'; none is registered"):
        registry.get("gptq", "metric")


def test_what_cannot_be_registered() -> None:
    def no_docstring(problem: object) -> None: ...

    def two_problems(problem: object, other: object) -> None:
        """Do it."""

    def untyped(problem: object, *, bits=3) -> None:
        """Do it."""

    for function, message in ((no_docstring, "docstring"), (two_problems, "one positional"), (untyped, "annotation")):
        with pytest.raises(TypeError, match=message):
            method(track="compress")(function)
    with pytest.raises(TypeError, match="unknown track 'compres'; did you mean compress"):
        method(track="compres")
    assert registry.entries() == []


def test_a_name_belongs_to_one_module(package: Callable[..., Path]) -> None:
    package(mine=source(), other=source())
    importlib.import_module("outsiders.mine")
    with pytest.raises(TypeError, match=r"registered twice: in outsiders.mine and in outsiders.other"):
        importlib.import_module("outsiders.other")


@pytest.mark.usefixtures("announced")
def test_entry_points_announce_packages(package: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    below = package(mine=source()) / "below"
    below.mkdir()
    (below / "__init__.py").touch()
    (below / "deeper.py").write_text(source("deeper"))
    monkeypatch.setattr(registry, "_discovered", False)
    assert [entry.name for entry in registry.entries("method", "compress")] == ["deeper", "mine"]


@pytest.mark.usefixtures("announced")
def test_a_name_is_looked_up_without_importing_the_rest(
    package: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    package(mine=source(), broken=source("other") + "\nraise RuntimeError\n")
    monkeypatch.setattr(registry, "_discovered", False)
    assert registry.get("mine").name == "mine"
    assert registry.get("compress.mine").name == "mine"
    with pytest.raises(RuntimeError):
        registry.get("other")


@pytest.mark.usefixtures("announced")
def test_a_name_that_no_text_defines_is_looked_for_everywhere(
    package: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = source("template").replace(
        "@method", "def renamed(function):\n    function.__name__ = 'made'\n    return function\n\n\n@method", 1
    )
    package(mine=source(), made=renamed.replace("def template", "@renamed\ndef template"))
    monkeypatch.setattr(registry, "_discovered", False)
    assert registry.get("made").name == "made"
    with pytest.raises(BadInput, match="unknown method 'nothing'"):
        registry.get("nothing")


def test_methods_of_this_repository_are_found() -> None:
    """By discovery alone: every file of `methods` that has the decorator gives at least one entry."""
    code = "from harness import registry\nfor entry in registry.entries(): print(entry.file)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    files = {Path(line) for line in done.stdout.splitlines()}
    folder = Path(registry.__file__).parents[1] / "methods"
    assert {path for path in folder.rglob("*.py") if "\n@method(" in path.read_text()} <= files


def test_a_file_outside_any_package(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(source("own"))
    (entry,) = registry.load_file(path)
    assert (entry.name, entry.file) == ("own", path)
    assert len(entry.version) == 16


@pytest.mark.parametrize(
    ("text", "message"), [("import nothing_of_that_name", "ModuleNotFoundError"), ("def (", "SyntaxError")]
)
def test_a_file_that_cannot_be_imported_is_bad_input(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        registry.load_file(path)
    with pytest.raises(BadInput, match="no such file"):
        registry.load_file(tmp_path / "absent.py")


@pytest.mark.usefixtures("announced")
def test_the_version_is_that_of_the_code_it_runs(package: Callable[..., Path]) -> None:
    helper = "def help():\n    return 1\n"
    first = {"mine": source(imports="\nfrom outsiders.helper import help"), "helper": helper, "other": "x = 1\n"}
    original = version_of(package, **first)
    assert version_of(package, **first) == original

    def changed(**modules: str) -> bool:
        return version_of(package, **{**first, **modules}) != original

    imports = "\nfrom outsiders.helper import help"
    assert changed(mine=source(body="problem", imports=imports))
    assert changed(mine=source(imports=imports).replace("bits: int = 4", "bits: int = 3"))
    assert changed(helper=helper.replace("1", "2"))
    assert not changed(other="x = 2\n")
    assert not changed(mine=source(summary="Other words.", imports=imports).replace("# a comment", "# another"))
    assert not changed(helper=f'"""Now documented."""\n\n{helper}')


@pytest.mark.usefixtures("announced")
def test_a_helper_of_a_helper_counts(package: Callable[..., Path]) -> None:
    modules = {
        "mine": source(imports="\nimport outsiders.helper"),
        "helper": "from outsiders import deep\n",
        "deep": "x = 1\n",
    }
    assert version_of(package, **modules) != version_of(package, **{**modules, "deep": "x = 2\n"})


def test_outside_announced_packages_only_the_module_itself_counts(package: Callable[..., Path]) -> None:
    modules = {"mine": source(imports="\nimport outsiders.helper"), "helper": "x = 1\n"}
    first = version_of(package, **modules)
    assert version_of(package, **{**modules, "helper": "x = 2\n"}) == first
    assert version_of(package, **{**modules, "mine": modules["mine"].replace("None", "1")}) != first


def test_methods_of_two_tracks_may_share_a_name() -> None:
    for track in ("merge", "predict"):
        namespace = {"__name__": f"{track}_methods"}
        exec('def shared(problem):\n    """Shared."""', namespace)
        registry.method(track=track)(namespace["shared"])
    assert registry.get("merge.shared").track == "merge"
    assert registry.get("shared", track="predict").track == "predict"
    with pytest.raises(BadInput, match=r"method 'shared' is of several tracks; write merge\.shared or predict\.shared"):
        registry.get("shared")


def test_what_was_registered_is_known_without_importing_it_again(announced: None, package: Callable[..., Path]) -> None:
    package(mine=source("mine", "One line."), other=source("other"))
    read_anew()
    before = registry.get("mine")
    read_anew()
    after = registry.get("mine")
    assert "outsiders.mine" not in sys.modules
    assert (after, after.known, after.summary, after.version) == (before, None, "One line.", before.version)
    assert after(None) is None
    assert "outsiders.mine" in sys.modules
    assert registry.get("mine").known is not None, "imported, it has its function"


def test_an_edit_makes_the_catalogue_another_one(announced: None, package: Callable[..., Path]) -> None:
    package(mine=source("mine", "One line."))
    read_anew()
    registry.get("mine")
    package(mine=source("mine", "Another line."))
    read_anew()
    assert registry.get("mine").summary == "Another line."


def test_a_damaged_or_foreign_catalogue_is_made_anew(announced: None, package: Callable[..., Path]) -> None:
    package(mine=source("mine", "One line."))
    read_anew()
    registry.get("mine")
    (file,) = folder().glob(f"*{catalogue.SUFFIX}")
    whole = file.read_bytes()
    file.write_bytes(whole[:50])
    read_anew()
    assert registry.get("mine").known is not None
    assert file.read_bytes() == whole
    file.chmod(0o666)
    read_anew()
    assert registry.get("mine").known is not None, "anyone could have written what is in it"


def test_a_function_that_its_module_has_under_no_name_is_not_catalogued(
    announced: None, package: Callable[..., Path]
) -> None:
    package(mine=source("mine", "One line.") + "\n\nmine = None\n")
    read_anew()
    registry.get("mine")
    read_anew()
    assert registry.get("mine")(None) is None


def test_a_cache_folder_that_cannot_be_written_costs_nothing_but_time(
    announced: None, package: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file"))
    package(mine=source("mine", "One line."))
    read_anew()
    assert registry.get("mine").summary == "One line."


def test_a_process_that_only_looks_methods_up_does_not_import_torch() -> None:
    code = "import sys; from harness import registry; print(len(registry.entries()), 'torch' in sys.modules)"
    said = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)]
    count = said[0].split()[0]
    assert int(count) > 50
    assert said[1].split() == [count, "False"]


def read_anew() -> None:
    """Know nothing of the outsiders, as a new process does."""
    registry.forget()
    for name in [name for name in sys.modules if name.startswith("outsiders.")]:
        del sys.modules[name]
