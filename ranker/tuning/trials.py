"""What the trials of a study came to, as a table and as the settings that were best."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from ranker.config import EngineConfig
from ranker.tuning.space import SearchSpace

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

ERROR = "error"  # the attribute of a trial that failed by its own settings
LEAST_FOR_IMPORTANCE = 20  # trials; a forest over fewer tells little more than noise


@dataclass(frozen=True, eq=False)
class Tuning:
    """What came of a study.

    Attributes:
        config: The settings of the best trial, whole.
        chosen: What was searched: dotted path → value in the best trial.
        best: The number of that trial; the first of equally good ones.
        value: Its metric on the validation part. It is the best of many looks at the same events, so it flatters.
        metric: Its name.
        trials: One row per trial: ``trial`` (its number), ``state`` (complete, pruned, failed, or interrupted: not
            ended, and not counted), the metric (complete ones), ``<metric> at 25%`` for each rung but the last, as
            far as the trial came, ``seconds``, ``error``, and every searched setting. Lists, mappings and nothing are
            JSON.
        importance: Dotted path → share of the variance of the metric on the first rung, by fANOVA (Hutter, Hoos &
            Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance", ICML 2014), greatest first,
            adding up to 1. Empty below 20 trials that were measured, or where all are equally good.
    """

    config: EngineConfig
    chosen: dict[str, Any]
    best: int
    value: float
    metric: str
    trials: pd.DataFrame
    importance: dict[str, float]

    @property
    def settings(self) -> pd.DataFrame:
        """A row for each searched setting: ``setting``, ``chosen`` and, where it is known, its ``importance``."""
        table = pd.DataFrame({"setting": [*self.chosen]})
        table["chosen"] = pd.Series([*self.chosen.values()], dtype=object)  # as they are: numbers, lists, nothing
        return table.assign(importance=table["setting"].map(self.importance)) if self.importance else table


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial came to its end; one that was interrupted or killed did not, and is made again."""
    return trial.state.name in ("COMPLETE", "PRUNED") or (ERROR in trial.user_attrs and trial.state.is_finished())


def complete_trials(study: Study) -> list[FrozenTrial]:
    """Those that have a value."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]


def best_of(study: Study) -> FrozenTrial | None:
    """The first of the best complete trials, if there is one."""
    return max(complete_trials(study), key=lambda trial: (trial.value, -trial.number), default=None)


def outcome(study: Study, best: FrozenTrial, space: SearchSpace, metric: str, rungs: Sequence[float]) -> Tuning:
    """The table, the best settings and what mattered.

    Args:
        study: With at least one complete trial.
        best: The best one.
        space: What was searched.
        metric: What the trials' values are.
        rungs: Shares of the users.
    """
    assert best.value is not None
    chosen = space.decoded(best.params)
    return Tuning(
        config=space.config(chosen),
        chosen=chosen,
        best=best.number,
        value=best.value,
        metric=metric,
        trials=pd.DataFrame([_row(trial, space, metric, rungs) for trial in study.get_trials(deepcopy=False)]),
        importance=_importance(study, space.base.seed),
    )


def _row(trial: FrozenTrial, space: SearchSpace, metric: str, rungs: Sequence[float]) -> dict[str, Any]:
    complete = trial.state.name == "COMPLETE"
    ended = {"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed")
    lower = {f"{metric} at {share:.4g}%": trial.intermediate_values.get(step) for step, share in _percent(rungs)}
    return {
        "trial": trial.number,
        "state": ended if counts(trial) else "interrupted",
        metric: trial.value if complete else None,
        **lower,
        "seconds": None if trial.duration is None else round(trial.duration.total_seconds(), 2),
        "error": trial.user_attrs.get(ERROR),
        **{path: _shown(value) for path, value in space.decoded(trial.params).items()},
    }


def _percent(rungs: Sequence[float]) -> list[tuple[int, float]]:
    return [(step, 100 * share) for step, share in enumerate(rungs[:-1])]


def _shown(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else json.dumps(value)


def _importance(study: Study, seed: int) -> dict[str, float]:
    from optuna import create_study
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import create_trial

    # on the first rung, which pruned trials reached, too: those alone that went on would hide what made others bad
    first = [
        create_trial(params=trial.params, distributions=trial.distributions, value=trial.intermediate_values[0])
        for trial in study.get_trials(deepcopy=False)
        if 0 in trial.intermediate_values
    ]
    if len(first) < LEAST_FOR_IMPORTANCE or len({trial.value for trial in first}) == 1:
        return {}
    measured = create_study(direction="maximize")
    measured.add_trials(first)
    found = get_param_importances(measured, evaluator=FanovaImportanceEvaluator(seed=seed))
    return {path: float(share) for path, share in found.items()}
