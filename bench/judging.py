"""Judgement of variants: NDCG@10 of the same users' lists, differences to the full model, and these in words."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.variants import QUANTIZED_LAYERS, Variant
from ranker.evaluation import PairedDifference, bootstrap_mean, paired_bootstrap
from ranker.lists import LabelledLists, list_ndcg
from ranker.reranker import CrossEncoderReranker
from retrieval.candidates import NO_ITEM

FUSED = "fused order"
TOLERATED = 0.01  # loss against the full model, as a share of its NDCG@10
SCORED_AT_ONCE = 32  # lists

UserNdcg = Mapping[str, NDArray[np.float64]]  # name → (T,) of each test user


def reranked(reranker: CrossEncoderReranker, lists: LabelledLists) -> NDArray[np.float32]:
    """Scores (L, K) of lists."""
    blocks = np.array_split(np.arange(len(lists)), -(-len(lists) // SCORED_AT_ONCE))
    return np.concatenate([reranker.score(part.requests, part.candidates) for part in map(lists.take, blocks)])


def user_ndcg(scores: NDArray[np.float32], lists: LabelledLists) -> NDArray[np.float64]:
    """NDCG@10 of each user (T,) by row in the log, the mean over their lists, since users are what is independent."""
    items = lists.candidates.items
    gains = list_ndcg(np.where(items == NO_ITEM, -np.inf, scores), items == lists.chosen[:, None])
    return pd.Series(gains).groupby(lists.users).mean().to_numpy()


def full_model(variants: Sequence[Variant]) -> Variant:
    """The variant with the most joint layers and every token, trained and served as usual."""
    return max((variant for variant in variants if variant.usual), key=lambda variant: variant.size)


def quality(facts: Sequence[Mapping[str, Any]], ndcg: UserNdcg, full: str) -> list[dict[str, Any]]:
    """One row for the fused order and one for each variant.

    Args:
        facts: What else is known of each variant, its name as ``variant``.
        ndcg: Of the fused order and of each variant.
        full: Name of the variant that the others are compared with, beside the fused order.

    Returns:
        The facts with ``users``; ``ndcg`` and its interval ``low`` to ``high``; and the differences ``vs_full`` and
        ``vs_fused`` as shares of the mean that is compared with, each with ``…_low`` and ``…_high``.
    """
    rows = []
    for known in [{"variant": FUSED, "joint_layers": 0}, *facts]:
        own = ndcg[known["variant"]]
        mean = bootstrap_mean(own, seed=0)
        row = {**known, "users": len(own), "ndcg": mean.mean, "low": mean.low, "high": mean.high}
        for name, reference in (("full", full), ("fused", FUSED)):
            value, low, high = shares(paired_bootstrap(ndcg[reference], own, seed=0))
            row |= {f"vs_{name}": value, f"vs_{name}_low": low, f"vs_{name}_high": high}
        rows.append(row)
    return rows


def shares(difference: PairedDifference) -> tuple[float, float, float]:
    """A difference and its interval as shares of the mean before; NaN where that is 0."""
    scale = difference.mean_before or float("nan")
    return difference.difference / scale, difference.low / scale, difference.high / scale


def percent(value: float, low: float, high: float) -> str:
    """Shares in per cent."""
    return f"{value:+.2%} ({low:+.2%} to {high:+.2%})"


def smallest_sufficient(variants: Sequence[Variant], ndcg: UserNdcg) -> str:
    """Which of the smaller variants loses no more than is tolerated, and how sure that is, in words."""
    full = full_model(variants)
    smaller = sorted(
        (variant for variant in variants if variant.usual and variant is not full), key=lambda variant: variant.size
    )
    if not smaller:
        return f"There is no smaller variant to compare with the full model, {full.name}."
    for variant in smaller:
        value, low, high = shares(paired_bootstrap(ndcg[full.name], ndcg[variant.name], seed=0))
        if value >= -TOLERATED:
            excluded = "excludes" if low >= -TOLERATED else "does not exclude"
            return (
                f"The smallest dial that loses no more than {TOLERATED:.0%} of the NDCG@10 of the full model, "
                f"{full.name}, is {variant.name}: {percent(value, low, high)}. Its interval {excluded} a loss of more "
                f"than {TOLERATED:.0%}."
            )
    return f"Every smaller dial loses more than {TOLERATED:.0%} of the NDCG@10 of the full model, {full.name}."


def quantization_losses(variants: Sequence[Variant], ndcg: UserNdcg) -> list[str]:
    """What int8 states cost without training on them and with it, and what that training wins back, in words."""
    of = {
        (variant.trained_on, variant.served_on): ndcg[variant.name]
        for variant in variants
        if variant.joint_layers == QUANTIZED_LAYERS and variant.item_vectors is None and variant.rows == "float16"
    }
    exact, after, learned = (of.get(key) for key in (("float32", "float32"), ("float32", "int8"), ("int8", "int8")))
    compared = (
        ("int8 states, where float32 ones were trained on, against float32 states", exact, after),
        ("int8 states, trained on, against float32 states", exact, learned),
        ("training on int8 states against training on float32 ones, both served on int8", after, learned),
    )
    return [
        f"{words}: {percent(*shares(paired_bootstrap(first, second, seed=0)))}"
        for words, first, second in compared
        if first is not None and second is not None
    ]


def row_losses(variants: Sequence[Variant], ndcg: UserNdcg) -> list[str]:
    """What keeping states in 8 bits costs, in words."""
    usual = {(variant.joint_layers, variant.item_vectors): variant.name for variant in variants if variant.usual}
    losses = []
    for variant in variants:
        other = usual.get((variant.joint_layers, variant.item_vectors))
        if variant.rows == "int8" and other is not None:
            loss = percent(*shares(paired_bootstrap(ndcg[other], ndcg[variant.name], seed=0)))
            losses.append(f"{variant.name}, against float16 rows: {loss}")
    return losses
