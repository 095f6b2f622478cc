"""What is searched: settings by their dotted paths, each with a range or with choices."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from decimal import Decimal
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encoders.errors import ConfigError
from ranker.config import EngineConfig
from ranker.yaml_files import read_yaml

if TYPE_CHECKING:
    from optuna import Trial

RANGE_KEYS = ("low", "high", "log", "step")
CHOICES = "choices"


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; whole ones where both bounds are.

    Attributes:
        low: The least.
        high: The greatest.
        log: Search evenly in the logarithm: 1 to 10 as much as 10 to 100.
        step: Distance of the numbers from each other, from ``low`` on. None: every number.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def probes(self) -> tuple[float, ...]:
        """Values that the setting has to take if it is to take all: both ends and one between."""
        between = self.low + (self.step or (1 if isinstance(self.low, int) else (self.high - self.low) / math.pi))
        return self.low, self.high, between

    def draw(self, trial: Trial, name: str) -> float:
        """A value for a trial."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, step=int(self.step or 1), log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def decoded(self, stored: float) -> float:
        """The value that Optuna keeps as ``stored``."""
        return stored


@dataclass(frozen=True)
class Choices:
    """One of several values, each whatever YAML can say: a word, a number, a list, a mapping, nothing."""

    choices: tuple[Any, ...]

    @property
    def probes(self) -> tuple[Any, ...]:
        """Values that the setting has to take."""
        return self.choices

    def draw(self, trial: Trial, name: str) -> Any:
        """A value for a trial."""
        # as JSON, since Optuna keeps no lists or mappings
        return self.decoded(trial.suggest_categorical(name, [json.dumps(choice) for choice in self.choices]))

    def decoded(self, stored: str) -> Any:
        """The value that Optuna keeps as ``stored``."""
        return json.loads(stored)


@dataclass(frozen=True)
class SearchSpace:
    """Settings to be searched, over settings that stay.

    Attributes:
        settings: Dotted path of a setting of `EngineConfig` → what it may be.
        base: All other settings.
    """

    settings: Mapping[str, Range | Choices]
    base: EngineConfig

    @classmethod
    def from_yaml(cls, path: Path | str, base: EngineConfig = EngineConfig()) -> SearchSpace:
        """Read a space from YAML.

        Each key is the dotted path of a setting; its value is ``{low, high, log, step}``, of which the last two may be
        left out, or ``{choices: [...]}``. A choice that is a mapping takes the place of all that is below the path.

        Raises:
            ConfigError: The file cannot be read, a setting is unknown (the message names the nearest known one), or a
                range or a choice is not what the setting can be.
        """
        return cls.from_dict(read_yaml(path), base, str(path))

    @classmethod
    def from_dict(
        cls, tree: Mapping[str, Any], base: EngineConfig = EngineConfig(), origin: str = "space"
    ) -> SearchSpace:
        """Check a space; see ``from_yaml``."""
        if not tree:
            raise ConfigError(
                f"{origin}: nothing to search; name a setting, as in als.factors: {{low: 16, high: 128}}."
            )
        space = cls({str(path): _read(entry, f"{origin}: {path}") for path, entry in tree.items()}, base)
        for outer, inner in permutations(space.settings, 2):
            if inner.startswith(f"{outer}."):
                raise ConfigError(f"{origin}: {inner} is a part of {outer}, so only one of them can be searched.")
        for path, kind in space.settings.items():
            for value in kind.probes:
                space.config({path: value}, origin)
        return space

    def draw(self, trial: Trial) -> dict[str, Any]:
        """A value for each setting, which does not depend on the order of the settings."""
        drawn = {path: self.settings[path].draw(trial, path) for path in sorted(self.settings)}
        return {path: drawn[path] for path in self.settings}

    def decoded(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """The values that Optuna keeps as a trial's parameters."""
        return {path: kind.decoded(stored[path]) for path, kind in self.settings.items() if path in stored}

    def config(self, values: Mapping[str, Any], origin: str = "space") -> EngineConfig:
        """The settings with these values.

        Raises:
            ConfigError: A setting is unknown, or cannot have its value.
        """
        tree = self.base.to_dict()
        for path, value in values.items():
            *above, name = path.split(".")
            branch = tree
            for key in above:
                if not isinstance(branch.get(key), dict):
                    branch[key] = {}
                branch = branch[key]
            branch[name] = value
        return EngineConfig.from_dict(tree, origin)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The ranges and choices as plain values."""
        return {path: asdict(kind) for path, kind in self.settings.items()}


def _read(entry: Any, where: str) -> Range | Choices:
    if not isinstance(entry, dict) or not (CHOICES in entry or "low" in entry or "high" in entry):
        raise ConfigError(f"{where}: found {entry!r}; give {{low: …, high: …}} or {{choices: […]}}.")
    known = (CHOICES,) if CHOICES in entry else RANGE_KEYS
    for key in entry:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"here may stand {', '.join(known)}."
            raise ConfigError(f"{where}: unknown key {key!r}; {hint}")
    return _choices(entry[CHOICES], where) if CHOICES in entry else _range(entry, where)


def _choices(values: Any, where: str) -> Choices:
    if not isinstance(values, list) or len(values) < 2:
        raise ConfigError(f"{where}: choices = {values!r}; list two values at least, or set one in the settings.")
    try:
        told = [json.dumps(value, allow_nan=False) for value in values]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: choices hold what no setting can be ({error}); put a text in quotes.") from error
    twice = next((text for text in told if told.count(text) > 1), None)
    if twice is not None:
        raise ConfigError(f"{where}: choices have {twice} twice; list each value once.")
    return Choices(tuple(values))


def _range(entry: dict[str, Any], where: str) -> Range:
    given = {name: _number(entry[name], f"{where}: {name}") for name in ("low", "high", "step") if name in entry}
    missing = [name for name in ("low", "high") if name not in given]
    if missing:
        raise ConfigError(f"{where}: a range has both low and high, and here is no {missing[0]}.")
    whole = all(isinstance(number, int) for number in given.values())
    low, high = (given[name] if whole else float(given[name]) for name in ("low", "high"))
    log, step = entry.get("log", False), given.get("step")
    if not isinstance(log, bool):
        raise ConfigError(f"{where}: log = {log!r}; it is true or false.")
    if low >= high:
        raise ConfigError(f"{where}: low = {low} is not below high = {high}; a setting that stays belongs to --config.")
    if log and low <= 0:
        raise ConfigError(f"{where}: low = {low} has no logarithm; raise it above 0, or leave log out.")
    if log and step is not None:
        raise ConfigError(f"{where}: log and step exclude each other; leave one of them out.")
    if step is not None and (step <= 0 or (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step))):
        raise ConfigError(f"{where}: steps of {step} do not lead from {low} to {high}; change one of the three.")
    return Range(low, high, log, step)


def _number(value: Any, where: str) -> float:
    number = value
    if isinstance(value, str):
        with suppress(ValueError):
            number = float(value)  # YAML reads 1e-3 as a text: its numbers have a dot
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise ConfigError(f"{where} = {value!r}; it has to be a number.")
    return number
