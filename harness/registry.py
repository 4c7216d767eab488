"""The registry: decorators that make a function a method or a metric, and discovery of the packages that hold them.

A package announces itself through an entry point in the group `harness.methods` whose value is a package name; what
the modules below it register is known. Registration reads the function's signature, so there is nothing to list
elsewhere. What was read once is kept (`harness.catalogue`): a command that only reads results imports no method.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import inspect
import math
import pkgutil
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from harness.catalogue import Catalogue
from harness.errors import BadInput, nearest
from harness.params import Expression, Param, signature_params

TRACKS = (
    "compress", "train", "adapt", "merge", "distill", "search", "continual", "generate", "predict", "policy", "latency",
)  # fmt: skip
"""Kinds of problem; each has a module `harness.tracks.<track>` that builds, solves and checks its problems."""
INTERLEAVED = ("latency",)
"""Tracks whose trials measure the suite's baseline beside their method: it is part of each of their problems."""
HOME_PACKAGES = ("methods", "harness.metrics")
_FUNCTION = re.compile(r"^def (\w+)\(", re.MULTILINE)
ENTRY_POINT_GROUP = "harness.methods"


Role = Literal["method", "control", "reference"]
"""What a row of a table is there for: a method to be compared, a null control (as much chosen at random), or the
reference that others are measured from (the model as it was)."""
UNBOUNDED = (-math.inf, math.inf)


@dataclass(frozen=True)
class Claim:
    """A paper's statement as a testable hypothesis.

    `metric` of the method is better than that of `than` by at least `margin` (in the metric's unit) in `suite`,
    one-sided. `metric` and `than` are expressions: a metric or row fits if it has the parameters they name. `params`
    restricts the method's rows likewise; each is tested against the row of `than` with the same values of the
    parameters both have. `paper` quotes the paper's own figure and setting.
    """

    metric: str
    than: str
    suite: str
    margin: float = 0.0
    params: dict[str, Any] = field(default_factory=dict)
    paper: str = ""


@dataclass(frozen=True)
class Entry:
    """A registered function and what its signature and decorator say of it."""

    kind: str
    name: str
    module: str
    documentation: str
    track: str
    paper: str | None
    claims: tuple[Claim, ...]
    params: dict[str, Param]
    input_type: str
    role: Role = "method"
    tune: dict[str, Sequence[Any]] = field(default_factory=dict)
    bounds: tuple[float, float] = UNBOUNDED
    """Of a metric: the least and the most that its summary can be."""
    known: Callable | None = field(default=None, compare=False, repr=False)
    """The function, where its module has been imported."""

    def __getstate__(self) -> dict[str, Any]:
        return {**{name: value for name, value in vars(self).items() if name != "version"}, "known": None}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    @property
    def key(self) -> tuple[str, str]:
        """Its place in the registry. Methods of two tracks may have one name: `merge.average`, `predict.average`."""
        return self.kind, f"{self.track}.{self.name}" if self.track else self.name

    @property
    def function(self) -> Callable:
        """What was registered; its module is imported if nothing has done so yet."""
        return self.known or getattr(importlib.import_module(self.module), self.name)

    @property
    def file(self) -> Path:
        return _modules(_packages()).get(self.module) or Path(inspect.getsourcefile(self.function) or "")

    @property
    def summary(self) -> str:
        return self.documentation.partition("\n")[0]

    @functools.cached_property
    def version(self) -> str:
        """Hash of the code of its module and of the modules of its own package that it imports.

        What the harness does around it is not part of it, so a change to the engine reruns nothing.
        """
        homes = [name for name in _packages() if self.module.startswith(f"{name}.")]
        return _code_version(self.module, f"{max(homes, key=len)}." if homes else f"{self.module}.")


_entries: dict[tuple[str, str], Entry] = {}
_discovered = False


def _register(
    kind: str,
    function: Callable,
    track: str,
    paper: str | None,
    claims: Iterable[Claim],
    role: Role = "method",
    tune: Mapping[str, Sequence[Any]] | None = None,
    bounds: tuple[float, float] = UNBOUNDED,
) -> Entry:
    name = function.__name__
    hints = typing.get_type_hints(function, include_extras=True)
    positional = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    if len(positional) != 1:
        raise TypeError(f"{kind} {name} takes one positional argument (its problem), not {len(positional)}")
    if not (documentation := inspect.getdoc(function)):
        raise TypeError(f"{kind} {name} has no docstring")
    input_type = getattr(hints.get(positional[0].name), "__name__", "")
    params = signature_params(function, name)
    for parameter, values in (tune or {}).items():
        if parameter not in params:
            raise TypeError(f"{kind} {name} declares a space for {parameter!r}, which is no parameter of it")
        for value in values:
            params[parameter].check(value, name)
    entry = Entry(
        kind, name, function.__module__, documentation, track, paper, tuple(claims), params, input_type, role,
        dict(tune or {}), bounds, function,
    )  # fmt: skip
    other = _entries.get(entry.key)
    if other and other.module != entry.module:
        raise TypeError(f"{kind} {name} is registered twice: in {other.module} and in {entry.module}")
    _entries[entry.key] = entry
    return entry


def method(
    *,
    track: str,
    paper: str | None = None,
    claims: Iterable[Claim] = (),
    role: Role = "method",
    tune: Mapping[str, Sequence[Any]] | None = None,
) -> Callable[[Callable], Callable]:
    """Register a reference implementation for one track. `paper` is a key of the package's references.bib; `tune` maps
    parameters to the values that tuning tries, beside the learning rate and weight decay, which all methods share."""
    if track not in TRACKS:
        raise TypeError(f"unknown track {track!r}; {nearest(track, TRACKS)}")

    def decorate(function: Callable) -> Callable:
        _register("method", function, track, paper, claims, role, tune or {})
        return function

    return decorate


def metric(*, paper: str | None = None, bounds: tuple[float, float] = UNBOUNDED) -> Callable[[Callable], Callable]:
    """Register a function from a `Subject` to `Scores`.

    `bounds` are the least and the most that its summary can be: intervals in tables end there.
    """

    def decorate(function: Callable) -> Callable:
        _register("metric", function, "", paper, (), bounds=bounds)
        return function

    return decorate


@functools.cache
def _packages() -> tuple[str, ...]:
    """The packages that hold registered functions: our own, and those announced by an entry point."""
    announced = [point.value for point in entry_points(group=ENTRY_POINT_GROUP)]
    return tuple(dict.fromkeys((*HOME_PACKAGES, *announced)))


@functools.cache
def _modules(packages: tuple[str, ...]) -> dict[str, Path | None]:
    """The modules of these packages, with their files where they have one. They are not imported."""
    found: dict[str, Path | None] = {}
    for name in packages:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(getattr(package, "__path__", []), f"{name}."):
            if not module.ispkg:
                spec = module.module_finder.find_spec(module.name, None)
                found[module.name] = Path(spec.origin) if spec and spec.origin else None
    return found


@functools.cache
def _definitions(packages: tuple[str, ...]) -> dict[str, list[str]]:
    """Which modules define a function of which name, as their text has it."""
    found: dict[str, list[str]] = {}
    for module, file in _modules(packages).items():
        text = file.read_text(encoding="utf-8") if file and file.suffix == ".py" else ""
        for name in _FUNCTION.findall(text):
            found.setdefault(name, []).append(module)
    return found


_catalogue = functools.cache(Catalogue)


def discover() -> None:
    """Know all that the home packages and the packages announced by entry points register."""
    global _discovered
    if not _discovered:
        _know(_modules(_packages()))
        _discovered = True


def import_all() -> None:
    """Import every module of those packages, so that no trial has to."""
    for module in _modules(_packages()):
        importlib.import_module(module)


def _know(modules: Iterable[str]) -> None:
    """Enter what modules register. Those of which the catalogue has nothing are imported."""
    catalogue, present = _catalogue(_packages()), set(sys.modules)
    for module in modules:
        if module in sys.modules or module not in catalogue.known:
            importlib.import_module(module)
        else:
            for entry in catalogue.known[module]:
                _entries.setdefault(entry.key, entry)
    imported = (sys.modules.keys() & _modules(_packages()).keys()) - present - catalogue.known.keys()
    if imported:
        found: dict[str, list[Entry]] = {module: [] for module in imported}
        for entry in _entries.values():
            if entry.module in found:
                found[entry.module].append(entry)
        catalogue.add({module: entries for module, entries in found.items() if all(map(_in_its_module, entries))})


def _in_its_module(entry: Entry) -> bool:
    """Whether a process that imports the module finds the function by its name."""
    return getattr(sys.modules[entry.module], entry.name, None) is entry.known


def forget() -> None:
    """Know nothing, as a new process does: for tests that change what there is to find."""
    global _discovered
    _discovered = False
    _entries.clear()
    for known in (_modules, _definitions, _catalogue):
        known.cache_clear()


def entries(kind: str = "method", track: str | None = None) -> list[Entry]:
    """All registered functions of a kind, by name."""
    discover()
    chosen = [entry for (k, _), entry in _entries.items() if k == kind and track in (None, entry.track)]
    return sorted(chosen, key=lambda entry: entry.name)


def get(name: str, kind: str = "method", track: str | None = None) -> Entry:
    """The entry of that name (hyphens and underscores are one), which may be given with its track (`merge.average`).

    Where methods of several tracks bear it, that of `track`. Raises BadInput for a name that is unknown (suggesting the
    nearest) or that could be either of several.
    """
    wanted = name.replace("-", "_")
    if not _discovered:  # the modules that define it are enough, of hundreds
        _know(_definitions(_packages()).get(wanted.rpartition(".")[2], ()))
    found = _called(wanted, kind)
    if not found:
        discover()
        found = _called(wanted, kind)
    if len(found) > 1:
        found = [entry for entry in found if entry.track == track] or found
    if not found:
        raise BadInput(f"unknown {kind} {name!r}; {nearest(name, [entry.name for entry in entries(kind)])}")
    if len(found) > 1:
        raise BadInput(f"{kind} {name!r} is of several tracks; write {' or '.join(one.key[1] for one in found)}")
    return found[0]


def _called(name: str, kind: str) -> list[Entry]:
    return [entry for (k, _), entry in _entries.items() if k == kind and name in (entry.name, entry.key[1])]


def resolve(expression: Expression, kind: str = "method", track: str | None = None) -> Entry:
    return get(expression.name, kind, track)


def load_file(path: Path) -> list[Entry]:
    """Import a Python file outside any package and return the methods and metrics it registers."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file; give the path of a Python file or a registered name")
    before = set(_entries)
    name = f"_outside_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}_{path.stem}"
    module = types.ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
    except Exception as error:
        raise BadInput(f"{path}: importing it raised {type(error).__name__}: {error}") from error
    return [_entries[key] for key in _entries if key not in before]


def _code_version(module: str, package: str) -> str:
    digest = hashlib.sha256()
    seen: set[str] = set()
    queue = [module]
    while queue:
        name = queue.pop()
        file = getattr(sys.modules.get(name), "__file__", None) or _modules(_packages()).get(name)
        if name in seen or not file:
            continue
        seen.add(name)
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
        queue += sorted(_imports(tree, package))
        digest.update(ast.dump(without_words(tree)).encode())
    return digest.hexdigest()[:16]


def _imports(tree: ast.AST, package: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.startswith(package)}


_SAID = ("claims", "role", "bounds")
"""Arguments of `@method` and `@metric` that a result does not depend on."""
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def without_words(tree: ast.AST) -> ast.AST:
    """Docstrings, comments and what is said of a method may change without making it another one."""
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("method", "metric"):
            node.keywords = [pair for pair in node.keywords if pair.arg not in _SAID]
    return tree
