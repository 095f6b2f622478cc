"""One ONNX Runtime is installed: two distributions of it overwrite each other's files."""

import configparser
import importlib.metadata
import itertools
from pathlib import Path

import pytest
from packaging.requirements import Requirement

SETUP = Path(__file__).parent.parent.parent / "setup.cfg"
RUNTIMES = {"onnxruntime", "onnxruntime-gpu"}
PLATFORMS = list(itertools.product(("linux", "darwin", "win32"), ("x86_64", "aarch64", "arm64", "AMD64")))


def requirements():
    settings = configparser.ConfigParser()
    settings.read(SETUP, encoding="utf-8")
    lines = settings["options"]["install_requires"].splitlines()
    extras = settings["options.extras_require"]
    lines += [line for extra in extras for line in extras[extra].splitlines()]
    return [Requirement(line) for line in lines if line.strip() and not line.strip().startswith("#")]


@pytest.mark.parametrize(("system", "machine"), PLATFORMS)
def test_every_platform_asks_for_exactly_one_runtime(system, machine):
    where = {"sys_platform": system, "platform_machine": machine}
    asked = [one.name for one in requirements() if one.name in RUNTIMES and one.marker.evaluate(where)]
    on_gpu = system == "win32" or (system, machine) == ("linux", "x86_64")
    assert asked == ["onnxruntime-gpu" if on_gpu else "onnxruntime"]


def test_one_distribution_of_the_runtime_is_installed():
    installed = importlib.metadata.packages_distributions()["onnxruntime"]
    assert set(installed) <= RUNTIMES
    assert len(set(installed)) == 1


def test_nothing_that_is_asked_for_brings_the_other_runtime_along():
    (runtime,) = set(importlib.metadata.packages_distributions()["onnxruntime"])
    seen, waiting = set(), [one.name for one in requirements() if one.marker is None or one.marker.evaluate()]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # an extra that is not installed
            continue
        found = map(Requirement, needs)
        waiting += [one.name for one in found if one.marker is None or one.marker.evaluate({"extra": ""})]
    assert seen & RUNTIMES == {runtime}
