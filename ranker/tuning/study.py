"""The study: settings are drawn, an engine is fitted with them and measured, and Optuna learns which to draw next."""

from __future__ import annotations

import difflib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from encoders.errors import ConfigError, ExportError, ExtraError, InputError
from ranker.config import EngineConfig
from ranker.evaluation.backtest import Backtest
from ranker.evaluation.evaluate import ENGINE, METRIC
from ranker.evaluation.metrics import METRICS
from ranker.evaluation.splits import Split
from ranker.fitting import fit
from ranker.tuning.space import SearchSpace
from ranker.tuning.storage import check_storage, fingerprint, opened
from ranker.tuning.trials import ERROR, Tuning, best_of, complete_trials, counts, outcome

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import TPESampler
    from optuna.trial import FrozenTrial

logger = logging.getLogger(__name__)

EXTRA = ("optuna", "sklearn", "matplotlib")
RUNGS = (0.25, 1.0)
UNPRUNED = 5  # complete trials before any is pruned: a median of fewer says little


def tune(
    interactions: pd.DataFrame,
    items: pd.DataFrame,
    space: SearchSpace,
    *,
    backtest: Backtest = Backtest(),
    metric: str = METRIC,
    rungs: Sequence[float] = RUNGS,
    trials: int = 50,
    timeout: float | None = None,
    storage: Path | str | None = None,
    study: str = "tune",
    progress: bool = True,
) -> Tuning:
    """Search settings that rank best on a validation part of the log.

    Give training data alone: all events are fitted on or measured on again and again, so a test part among them is a
    test no longer. The settings of each trial are drawn by the tree-structured Parzen estimator (Bergstra et al.,
    "Algorithms for Hyper-Parameter Optimization", NIPS 2011). A trial fits and measures an engine on a few of the
    users first, whole users, and is pruned where that is worse than the median of the complete trials was on the same
    users. What is random follows from ``space.base.seed``: a study that was interrupted and goes on draws what it
    would have drawn.

    Args:
        interactions: ``user_id, item_id, weight, datetime``, as for ``ranker.fit``. Unchanged.
        items: ``item_id, title, text``, as for ``ranker.fit``. Unchanged.
        space: The settings to search, over those that stay.
        backtest: How the validation part is cut off, and what is to be found in it.
        metric: What to maximise, of the order that the engine serves: "ndcg@10", or "hr", "recall", "precision",
            "mrr" or "map" at any rank, or "coverage@10".
        rungs: Shares of the users on which a trial is measured one after the other, growing to 1; ``(1,)`` never
            prunes.
        trials: Ended trials of the whole study, those that a storage holds already included; interrupted ones are
            made again.
        timeout: Seconds after which no further trial is begun. None: no limit.
        storage: SQLite file that keeps the study, so that it can go on. It is made where there is none. None keeps
            nothing.
        study: Name of the study in the storage.
        progress: Show progress bars where the output is a terminal.

    Raises:
        InputError: The tables cannot be used or split as they are, there is no such metric, the rungs do not grow to
            1, or the storage's study was another search (other data, settings, split, …).
        ConfigError: No trial was completed; the message holds why the first one failed.
        ArtifactError: The storage, or a checkpoint, cannot be read or written.
        ExtraError: Optuna, scikit-learn or matplotlib is not installed.
    """
    _check_extra()
    cutoffs = _cutoffs(metric)
    _check_rungs(rungs)
    if trials < 1:
        raise InputError(f"trials is {trials}: at least one has to be made.")
    check_storage(storage)
    steps = _steps(backtest.cut(interactions), rungs, space.base.seed)
    search = {
        "space": space.to_dict(),
        "settings": space.base.to_dict(),
        "backtest": asdict(backtest),
        "metric": metric,
        "rungs": list(rungs),
        "data": fingerprint(interactions, items),
    }

    def measured(config: EngineConfig, part: Split) -> float:
        engine = fit(part.train, items, config, progress=progress)
        try:
            found = backtest.measure(engine, part.test, cutoffs=cutoffs, seed=config.seed)
        finally:
            engine.log.close()
        return float(found.summary[metric].loc[ENGINE])

    with _quiet(), opened(storage, study, search) as made:
        begun = time.monotonic()
        while (ended := _ended(made)) < trials and (timeout is None or time.monotonic() - begun < timeout):
            made.sampler = _sampler(space.base.seed, ended)
            last = _attempt(made, made.ask(), space, steps, measured)
            note = logger.warning if ERROR in last.user_attrs else logger.info
            note("Trial %d (%d of %d): %s", last.number, ended + 1, trials, _told(last, best_of(made), metric, rungs))
        best = best_of(made)
        if best is None:
            raise ConfigError(_why_none(made))
        return outcome(made, best, space, metric, rungs)


def _attempt(
    study: Study,
    trial: Trial,
    space: SearchSpace,
    steps: Sequence[Split],
    measured: Callable[[EngineConfig, Split], float],
) -> FrozenTrial:
    """Make one trial, and leave it in the study as what it came to."""
    from optuna.trial import TrialState

    try:
        config = space.config(space.draw(trial), f"trial {trial.number}")
        for step, part in enumerate(steps):
            value = measured(config, part)
            trial.report(value, step)
            if step < len(steps) - 1 and _is_behind(study, step, value):
                return study.tell(trial, state=TrialState.PRUNED)
        return study.tell(trial, value)
    except (ConfigError, InputError, ExportError) as error:  # these settings do not go together, or not with the data
        trial.set_user_attr(ERROR, str(error))
        return study.tell(trial, state=TrialState.FAIL)
    except BaseException:
        study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        raise


def _is_behind(study: Study, step: int, value: float) -> bool:
    """Whether complete trials were better on the same users, by their median.

    Optuna's own median pruner compares a trial's best over all rungs so far, but a metric on fewer users is another
    quantity than on more.
    """
    before = [trial.intermediate_values[step] for trial in complete_trials(study)]
    return len(before) >= UNPRUNED and value < median(before)


def _steps(parts: Split, rungs: Sequence[float], seed: int) -> list[Split]:
    """The parts of growing shares of the users, each share holding the one before."""
    users = pd.concat([parts.train["user_id"], parts.test["user_id"]]).drop_duplicates().to_numpy()
    users = users[np.random.default_rng(seed).permutation(len(users))]
    shares = [users[: math.ceil(share * len(users))] for share in rungs]
    return [Split(*(part[part["user_id"].isin(some)] for part in (parts.train, parts.test))) for some in shares]


def _sampler(seed: int, ended: int) -> TPESampler:
    """A sampler for the trial after so many ended ones.

    Each has a state of its own. One sampler's state would be lost with an interrupt, and the study that goes on would
    begin by drawing the same settings again.
    """
    from optuna.samplers import TPESampler

    return TPESampler(seed=int(np.random.SeedSequence([seed, ended]).generate_state(1)[0]))


def _ended(study: Study) -> int:
    return sum(counts(trial) for trial in study.get_trials(deepcopy=False))


def _told(trial: FrozenTrial, best: FrozenTrial | None, metric: str, rungs: Sequence[float]) -> str:
    if ERROR in trial.user_attrs:
        return f"failed: {trial.user_attrs[ERROR]}"
    if trial.state.name == "PRUNED":
        step, value = max(trial.intermediate_values.items())
        told = f"pruned on {rungs[step]:.3g} of the users, where {metric} is {value:.4f}."
    else:
        told = f"{metric} is {trial.value:.4f}."
    return told if best is None else f"{told} The best is {best.value:.4f}, of trial {best.number}."


def _why_none(study: Study) -> str:
    failed = [trial for trial in study.get_trials(deepcopy=False) if ERROR in trial.user_attrs]
    if failed:
        reason = failed[0].user_attrs[ERROR]
        return f"All {len(failed)} trials failed; the first with: {reason} Change the space or the settings."
    return "No trial came to its end before the time was over: allow more."


def _cutoffs(metric: str) -> tuple[int, ...]:
    """The ranks at which metrics have to be taken for this one to be among them."""
    name, _, rank = metric.partition("@")
    known = name in METRICS and rank.isdecimal() and rank == str(int(rank)) and rank != "0"
    if not known and metric != "coverage@10":
        near = difflib.get_close_matches(name, METRICS, n=1)
        hint = f"did you mean {near[0]}@10? " if near else ""
        raise InputError(
            f"No metric {metric!r}; {hint}Known are {', '.join(METRICS)}, each at any rank, and coverage@10."
        )
    return tuple(sorted({10, int(rank)}))


def _check_rungs(rungs: Sequence[float]) -> None:
    growing = all(low < high for low, high in zip([0, *rungs], rungs, strict=False))
    if not rungs or not growing or rungs[-1] != 1:
        shown = ", ".join(f"{share:g}" for share in rungs) or "none"
        raise InputError(f"rungs are {shown}: give growing shares of the users that end with 1, as in 0.25, 1.")


def _check_extra() -> None:
    for package in EXTRA:
        if find_spec(package) is None:
            raise ExtraError(
                f'Tuning needs {package}, which is not installed. Install it with: pip install "hybrid-ranker[tune]"'
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna's own notes to itself: what a trial came to is told here."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
