"""The course of a study as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ranker.tuning.trials import Tuning

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(tuning: Tuning) -> Figure:
    """Every trial's value with the best so far and, where it is known, what each setting mattered.

    A pruned trial stands at the value of the last rung that it reached, which is one of fewer users; those that failed
    have no value and are marked at the foot.

    Args:
        tuning: What to draw.

    Returns:
        A figure that belongs to no window; ``savefig`` writes it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11 if tuning.importance else 7, 4.5), layout="constrained")
    course, *importance = figure.subplots(1, 2 if tuning.importance else 1, squeeze=False)[0]
    trials, metric = tuning.trials, tuning.metric
    complete = trials[trials["state"] == "complete"]
    pruned = trials[trials["state"] == "pruned"]
    failed = trials[trials["state"] == "failed"]
    rungs = [name for name in trials.columns if name.startswith(f"{metric} at ")]
    course.step(complete["trial"], complete[metric].cummax(), where="post", color="C1", label="best so far")
    course.scatter(complete["trial"], complete[metric], color="C0", label="complete")
    if len(pruned):
        reached = pruned[rungs].astype(float).ffill(axis=1).iloc[:, -1]
        course.scatter(pruned["trial"], reached, color="gray", marker="x", label="pruned, on fewer users")
    if len(failed):
        at_the_foot = course.get_xaxis_transform()
        course.scatter(
            failed["trial"], [0.02] * len(failed), color="C3", marker="|", transform=at_the_foot, label="failed"
        )
    course.set_xlabel("trial")
    course.set_ylabel(f"{metric} on the validation part")
    course.xaxis.get_major_locator().set_params(integer=True)
    course.grid(alpha=0.3)
    course.legend(frameon=False)
    for axes in importance:
        names = [*tuning.importance][::-1]
        axes.barh(names, [tuning.importance[name] for name in names])
        axes.set_xlabel(f"share of the variance of {metric} on the first rung (fANOVA)")
    return figure
