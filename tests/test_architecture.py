"""The rules of the house that no linter knows, each shown to catch what breaks it."""

import ast
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LONGEST = 300  # lines

# Imports run one way: ranker → retrieval → encoders. Nothing that is installed imports what is not.
FORBIDDEN = {
    "encoders": {"retrieval", "ranker", "bench", "tests"},
    "retrieval": {"ranker", "bench", "tests"},
    "ranker": {"bench", "tests"},
}
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"}


def modules(folder: str) -> list[Path]:
    return [path.relative_to(ROOT) for path in sorted((ROOT / folder).rglob("*.py"))]


SOURCES = [path for package in FORBIDDEN for path in modules(package)]
TESTS = modules("tests")


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, node.module or ""
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level


def too_long(source: str) -> list[str]:
    n_lines = len(source.splitlines())
    return [f"{n_lines} lines are more than {LONGEST}"] if n_lines > LONGEST else []


def offences(package: str, source: str) -> list[str]:
    """Return what in one file of `package` breaks a rule, a line each."""
    tree = ast.parse(source)
    found = too_long(source)
    for line, name in imports(tree):
        top = name.split(".")[0]
        if top in FORBIDDEN[package]:
            found.append(f"line {line}: {package} imports {name}")
        if top in PICKLES:
            found.append(f"line {line}: {name} unpickles")
        if not top:
            found.append(f"line {line}: relative import")
    found += [
        f"line {node.lineno}: print"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_every_module_keeps_the_rules(path: Path) -> None:
    assert offences(path.parts[0], (ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", TESTS, ids=str)
def test_every_module_of_tests_is_as_short(path: Path) -> None:
    assert too_long((ROOT / path).read_text(encoding="utf-8")) == []


def test_the_rules_are_tried_on_every_package() -> None:
    assert {path.parts[0] for path in SOURCES} == set(FORBIDDEN)
    assert Path("encoders/errors.py") in SOURCES
    assert {Path("tests/test_architecture.py"), Path("tests/ranker/conftest.py")} <= set(TESTS)


@pytest.mark.parametrize(
    ("package", "source", "offence"),
    [
        ("encoders", "import retrieval", "line 1: encoders imports retrieval"),
        (
            "encoders",
            "def f():\n    from ranker.data import read_items",
            "line 2: encoders imports ranker.data",
        ),
        ("retrieval", "import numpy, ranker.engine as e", "line 1: retrieval imports ranker.engine"),
        ("ranker", "from tests.ranker import x", "line 1: ranker imports tests.ranker"),
        ("ranker", "from bench import latency", "line 1: ranker imports bench"),
        ("ranker", "from .. import encoders", "line 1: relative import"),
        ("ranker", "import pickle", "line 1: pickle unpickles"),
        ("encoders", "from joblib import load", "line 1: joblib unpickles"),
        ("ranker", "\nprint('x')", "line 2: print"),
        ("ranker", "\n" * (LONGEST + 1), f"{LONGEST + 1} lines are more than {LONGEST}"),
    ],
)
def test_each_rule_catches_what_breaks_it(package: str, source: str, offence: str) -> None:
    assert offences(package, source) == [offence]


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("ranker", "import retrieval\nfrom encoders.errors import InputError"),
        ("retrieval", "import encoders, rankers"),
        ("encoders", '"""Say print(x) or import pickle."""\nlogger.print("x")'),
        ("ranker", "\n" * LONGEST),
    ],
)
def test_what_keeps_the_rules_passes(package: str, source: str) -> None:
    assert offences(package, source) == []


def test_every_package_is_installed() -> None:
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = set(settings["options"]["packages"].split())
    there = {".".join(path.parent.parts) for path in SOURCES if path.name == "__init__.py"}
    assert listed == there


def test_every_file_that_packages_need_is_installed() -> None:
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    installed = {
        path.relative_to(ROOT)
        for package, patterns in settings["options.package_data"].items()
        for pattern in patterns.split()
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    there = {path.relative_to(ROOT) for package in FORBIDDEN for path in (ROOT / package).rglob("*") if path.is_file()}
    assert installed == {path for path in there if path.suffix not in (".py", ".pyc")}
