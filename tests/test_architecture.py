"""The rules of the layout: who may import whom, one door per dependency, small files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "quotaguard"

# Lowest first. A module imports from its own layer and from those before it. `x.*` is a package
# with all that is in it, where no line names a module of it more exactly; "" is quotaguard itself.
LAYERS = (
    ("errors", "models", "windows", "clock", "errands", "linefile", "wording", "display"),
    ("usage", "weights", "metrics", "grammar", "limits", "pricing"),
    ("tiers", "policies", "patience", "identity", "events", "core", "core.ops", "core.summary"),
    ("core.bucket", "core.ledger"),
    ("core.plan", "core.ask", "core.lease", "display.*"),
    ("core.drive", "hold", "receipts", "rules", "resolver", "entries", "sinks", "journal"),
    ("report", "savings", "progress"),
    ("backends.*", "providers.*", "counting.*"),
    ("estimator", "sharing", "upstream"),
    ("engine", "simulation.*", "admin", "accounts", "jobs", "jobs.*", "guard", "config"),
    ("testing.*",),
    ("decorator", "clients.*"),
    ("clients.openai", "clients.anthropic", "clients.patch", "clients", "contrib.*", "stress", ""),
    ("cli.*",),
)

# The only way up, taken when it is called: `Guard.wrap` makes the twin of a client.
LATE = {("guard", "clients")}

# What we did not write, and the only modules that may import it.
DOORS = {
    "tiktoken": ("counting.encodings",),
    "splintr": ("counting.encodings",),
    "tenacity": ("policies", "jobs.attempts"),
    "tqdm": ("progress",),
    "wrapt": ("decorator", "clients.streams"),
    "IPython": ("contrib.notebook.*",),
    "click": ("cli.*", "contrib.dashboard.command"),
    "rich": ("cli.output",),
    "genai_prices": ("pricing",),
    "opentelemetry": ("contrib.opentelemetry.*",),
    "redis": ("backends.redis*",),
    "fastapi": ("contrib.fastapi",),
    "starlette": ("contrib.fastapi", "contrib.dashboard.*"),
    "jinja2": ("contrib.dashboard.pages",),
    "uvicorn": ("contrib.dashboard.command",),
    "tomli": ("config",),
    "tomllib": ("config",),  # not yet in the standard library of Python 3.10
    "openai": ("clients.openai",),
    "anthropic": ("clients.anthropic",),
    "httpx": ("clients.*",),  # what the SDKs speak through;
    "httpx2": ("clients.*",),  # openai moved to it in 3.0
}

MOST_LINES = 400


class Import(NamedTuple):
    """One import, wherever in the file it stands."""

    module: str  # who imports
    line: int
    target: str  # the dotted name imported, made absolute

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below this one, save what stands under ``if TYPE_CHECKING:``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield other
                yield from running(other)
        else:
            yield child
            yield from running(child)


def targets(node: ast.AST, package: str) -> list[str]:
    """The dotted names that a statement, or a call of ``import_module``, imports."""
    match node:
        case ast.Import(names=names):
            return [name.name for name in names]
        case ast.ImportFrom(module=module, names=names, level=level):
            base = resolve_name("." * level + (module or ""), package)
            return [f"{base}.{name.name}" for name in names]
        case ast.Call(func=func, args=[ast.Constant(value=str(name)), *_]):
            if ast.unparse(func).endswith(("import_module", "__import__")):
                return [resolve_name(name, package)]
    return []


def modules(package: Path) -> dict[str, Path]:
    """Every module of a package, by its dotted name."""
    return {
        ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(
            ".__init__"
        ): path
        for path in sorted(package.rglob("*.py"))
    }


def imports(package: Path) -> Iterator[Import]:
    """Every import that runs, at the top of a file or inside a function."""
    for module, path in modules(package).items():
        home = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for node in running(ast.parse(path.read_text(encoding="utf-8"))):
            for target in targets(node, home):
                yield Import(module, node.lineno, target)  # type: ignore[attr-defined]


def own_imports(package: Path) -> Iterator[tuple[Import, str]]:
    """The imports within the package, each with the module that it reaches."""
    known = modules(package)
    for found in imports(package):
        reached = found.target
        while reached and reached not in known:
            reached = reached.rpartition(".")[0]
        if reached:
            yield found, reached


def inside(module: str) -> str:
    """``quotaguard.core.ops`` as LAYERS and DOORS name it: ``core.ops``."""
    return module.partition(".")[2]


def layer(module: str) -> int | None:
    """The layer of a module: by its own name, else by its package's ``.*``."""
    name = inside(module)
    wanted = [name, f"{name}.*"]
    while "." in name:
        name = name.rpartition(".")[0]
        wanted.append(f"{name}.*")
    return next((i for want in wanted for i, names in enumerate(LAYERS) if want in names), None)


def homeless(package: Path) -> list[str]:
    """Modules that no layer names."""
    return [f"{module} has no layer" for module in modules(package) if layer(module) is None]


def upward(package: Path) -> list[str]:
    """Imports that point up the layers."""
    return [
        f"{found}, a layer above it"
        for found, reached in own_imports(package)
        if (inside(found.module), inside(reached)) not in LATE
        and (own := layer(found.module)) is not None
        and own < (layer(reached) or 0)
    ]


def strangers(package: Path) -> list[str]:
    """Imports of other people's code that do not go through its door."""
    ours = sys.stdlib_module_names | {package.name}
    return [
        str(found)
        for found in imports(package)
        if (top := found.target.partition(".")[0]) not in ours
        and not any(fnmatchcase(inside(found.module), door) for door in DOORS.get(top, ()))
    ]


def cycles(package: Path) -> list[str]:
    """The first ring of modules that import one another, if there is one."""
    graph: dict[str, set[str]] = {}
    for found, reached in own_imports(package):
        if (inside(found.module), inside(reached)) not in LATE:
            graph.setdefault(found.module, set()).add(reached)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


@pytest.mark.parametrize("rule", [homeless, upward, strangers, cycles])
def test_the_layout_is_kept(rule: Callable[[Path], list[str]]) -> None:
    """Every module has a layer, imports point down it, and each dependency has one door."""
    assert rule(PACKAGE) == []


@pytest.mark.parametrize(
    ("rule", "where", "source", "seen"),
    [
        (homeless, "helpers.py", "", "quotaguard.helpers has no layer"),
        (homeless, "core/extra.py", "", "quotaguard.core.extra has no layer"),
        (upward, "usage.py", "from .guard import Guard", "usage:1 imports quotaguard.guard.Guard"),
        (upward, "core/ops.py", "from . import plan", "core.ops:1 imports quotaguard.core.plan"),
        (upward, "core/ops.py", "def f():\n    import quotaguard.cli", "core.ops:2 imports"),
        (upward, "guard.py", "from . import token_limited", "guard:1 imports quotaguard.token"),
        (upward, "guard.py", "import_module('.clients.openai', 'quotaguard')", "clients.openai"),
        (strangers, "guard.py", "import openai.types as t", "guard:1 imports openai.types"),
        (strangers, "guard.py", "try:\n    import requests\nfinally: pass", "imports requests"),
        (strangers, "clients/openai.py", "from anthropic import Anthropic", "anthropic.Anthropic"),
        (cycles, "limits.py", "def f(): from .usage import g", "quotaguard.usage"),
    ],
)
def test_a_planted_violation_is_seen(
    tmp_path: Path, rule: Callable[[Path], list[str]], where: str, source: str, seen: str
) -> None:
    """Each rule finds what breaks it, in every spelling of an import."""
    tree = {"__init__.py": "", "guard.py": "", "cli.py": "", "usage.py": "from . import limits"}
    tree |= {"core/plan.py": "", "clients/openai.py": "", "limits.py": "", where: source}
    for name, text in tree.items():
        path = tmp_path / "quotaguard" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (violation,) = rule(tmp_path / "quotaguard")
    assert seen in violation


def test_each_way_up_is_still_taken() -> None:
    """An exception that nothing needs any more is taken off the list."""
    taken = {(inside(found.module), inside(reached)) for found, reached in own_imports(PACKAGE)}
    assert taken >= LATE


def test_imports_for_types_alone_are_free(tmp_path: Path) -> None:
    """What stands under TYPE_CHECKING never runs and may point anywhere; its else does run."""
    path = tmp_path / "quotaguard" / "usage.py"
    path.parent.mkdir()
    path.write_text("if TYPE_CHECKING:\n    import openai\nelse:\n    import anthropic")
    assert strangers(path.parent) == ["quotaguard.usage:4 imports anthropic"]


def test_files_stay_small() -> None:
    """No Python file of the project is longer than one can hold in mind."""
    folders = ("quotaguard", "tests", "examples", "benchmarks", "tools", "docs")
    sizes = {
        str(path.relative_to(ROOT)): path.read_bytes().count(b"\n")
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {name: lines for name, lines in sizes.items() if lines > MOST_LINES} == {}


def test_file_names_say_what_is_inside() -> None:
    """At most one file is called utils, and none is the second version of another."""
    stems = [path.stem for path in PACKAGE.rglob("*.py")]
    assert sum("utils" in stem for stem in stems) <= 1
    assert [stem for stem in stems if re.search(r"_v\d+$", stem)] == []


def test_importing_quotaguard_loads_nothing_heavy() -> None:
    """``import quotaguard`` loads no SDK (a second or two each), Redis client or tokenizer, nor
    what of the standard library takes long and few need.
    """
    heavy = {"openai", "anthropic", "httpx", "httpx2", "pydantic", "redis", "tiktoken", "splintr"}
    heavy |= {"opentelemetry", "IPython", "hashlib", "urllib", "zoneinfo"}
    code = "import sys, quotaguard; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "quotaguard" in loaded
    assert loaded & heavy == set()
