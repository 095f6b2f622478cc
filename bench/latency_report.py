"""The latency benchmark's report: protocol, tables, figures, and a plot of speed against quality."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bench.demo import console
from bench.judging import FUSED
from bench.latency_cells import WHOLE_CALL
from bench.tables import facts, markdown, show, tabulated, write_json

PROTOCOL = """\
The engines of `python -m bench dial`: MovieLens-1M without each user's last rating, which is used by nothing.

**Systems.** All transformers are MiniLM-L6. *sentence-transformers CrossEncoder* is `CrossEncoder.predict` in torch,
batches of 32, at most 512 tokens. *sentence-transformers int8 (ONNX Runtime)* stands for its ONNX backend with a model
of `export_dynamic_quantized_onnx_model`: both need optimum, whose ONNX part does not install beside transformers 5. So
the same `CrossEncoder.predict` is run with an ONNX Runtime session in the transformer's place, over a graph that ONNX
Runtime's dynamic quantization made with the settings that optimum passes to it (8-bit unsigned activations; a scale for
each channel of a weight, signed with AVX-512 VNNI, else unsigned; all operators with an integer form). *pair* is
`PairCrossEncoder`, batches of 32, in torch and exported. What is timed has an untrained head, which does not change its
time; its NDCG is what `python -m bench pairs` measured of the same model fine-tuned on the dial's lists, where that has
run. These five share their weights, and those in float32 their logits, and so one NDCG. Their pairs are a user's newest
titles and the item's text, made before the clock starts. *split n* is the dial's engine with n joint layers and every
token, *split n, v vectors* that with at most v vectors of an item. *Engine.rank* is the whole call, from ids to a
table: sources, gathering, joint layers, pandas. *score* is the re-ranking alone: gathering and joint layers. Both
always ask the joint layers, whatever these gain.

**Requests.** The same ones for every system: random users, their histories cut to the newest events, and random items
of the catalogue. One factor at a time is varied. With 0 events `score` still runs the joint layers, though the answer
is the fused order. Several callers are threads that call without a pause, four calls in a row each.

**Timing.** Every system is warmed up under every condition. The runs of all systems and all one-caller conditions are
then mixed evenly in one random order, with a pause of 5 ms before each, so that drift and noise meet all alike; those
with several callers follow in the same way. A cell is run as often as its time budget allows, from 3 to 500 times. p95
is left out below 20 requests, p99 below 100. Ratios are of medians, with the 95 % percentile bootstrap interval of two
independent samples (9,999 resamples); of three runs it says little. *× ST torch* is how many times longer the median of
sentence-transformers' torch model is under the same condition, *× ST int8* that of its int8 model, *× pair int8* that
of our int8 pair model. torch and ONNX Runtime both run a thread on each physical core.

**Quality.** NDCG@10 is what the dial's own command measured (its quality.md holds the protocol), with as many
candidates and events as it trained with, whatever the row's own. That of pair cross-encoders is from fewer lists, and
their difference to the dial's full model from the same ones (pairs.md holds the protocol). Which encoder made the
states does not bear on the time, so the dial's rows with other states than usual are not timed.

**Parts.** All with one joint layer. *stores*: `score` over made-up stores on disk whose pages are in memory; rss counts
mapped pages, private does not. *swap*: `OnnxJoint.prepare` makes new weights ready, `OnnxJoint.serve` is the swap
itself, without freeing what served before; what requests notice is the difference of `score` alone and beside a thread
that does both without a pause. *store build* against `SentenceTransformer.encode` of the same texts. *training*: one
epoch of joint layers from an engine's store, made-up lists of 32 candidates for users with their newest events; the
items' reading is not part of it. *cache*: `score` against reading the texts at request time by the same encoder, in
float32, joint layers in torch. *roofline*: operations and least traffic from the shapes (`bench.latency_parts.flops`
and `traffic`), against torch's rate for a 2,048 × 2,048 product and the rate of a 256 MiB copy; a share is the longer
of the two times over the measured median.
"""

SECTIONS = {
    "latency": "Latency of a request",
    "quality": "Quality, from the dial: NDCG@10 on the test users (0 joint layers: the fused order)",
    "pairs": "Quality of pair cross-encoders: NDCG@10 on one list of each test user",
    "growth": "Growth with candidates: ratio of medians",
    "stores": "Catalogue size: score over made-up stores",
    "batching": "Batches of the engine with one joint layer, over all of the above",
    "swap": "New weights",
    "store_build": "Building the store",
    "training": "Training from cached states, one joint layer",
    "cache": "Cached against uncached",
    "roofline": "Roofline, one joint layer",
    "pair_agreement": "Pair cross-encoders in float32: largest difference of a logit to our torch model's",
}


def report(figures: Mapping[str, Any], raw: Mapping[str, pd.DataFrame], out: Path) -> None:
    """Show every table and write Markdown, JSON, the plot, and what the figures were made of.

    Args:
        figures: By section: a list of rows, or one row, or a row of rows.
        raw: Tables that are kept as Parquet, by name.
        out: The folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name, table in raw.items():
        table.to_parquet(out / f"{name}.parquet")
    told = facts(figures["machine"], figures["settings"])
    pages = [f"# Re-ranking latency\n\n{PROTOCOL}\n## Machine and settings\n\n{told}\n"]
    for section, title in SECTIONS.items():
        if not figures[section]:
            continue
        table = tabulated(figures[section])
        show(title, table)
        pages.append(f"## {title}\n\n{markdown(table)}")
    (out / "latency.md").write_text("\n".join(pages), encoding="utf-8")
    write_json({"protocol": PROTOCOL, **figures}, out / "latency.json")
    plot(figures, out)
    console.print(f"Written to {out}", highlight=False)


def plot(figures: Mapping[str, Any], out: Path) -> None:
    """NDCG@10 of each system over the median time of its whole call, one caller; a line where it is unknown."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    latency = pd.DataFrame(figures["latency"])
    first = latency.iloc[0][["candidates", "events", "callers"]]
    centre = latency[(latency[first.index] == first).all(axis=1)].set_index("system")["p50_ms"]
    quality = pd.DataFrame(figures["quality"]).set_index("variant")
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    colours = iter(mpl.colormaps["tab20"].colors)
    times = {name: centre[f"{name}{WHOLE_CALL}"] for name in quality.index if f"{name}{WHOLE_CALL}" in centre}
    pairs = {name: centre[name] for name in centre.index[~centre.index.str.startswith(tuple(times))]}
    judged = pd.concat(
        [quality, pd.DataFrame(figures["pairs"], columns=["system", "ndcg", "low", "high"]).set_index("system")]
    )
    for name, time in (times | pairs).items():
        if name not in judged.index:
            axes.axvline(time, linestyle="--", color=next(colours), label=f"{name} (not judged)")
            continue
        row = judged.loc[name]
        errors = [[row["ndcg"] - row["low"]], [row["high"] - row["ndcg"]]]
        marker = "s" if name in pairs else "o"
        axes.errorbar(time, row["ndcg"], errors, fmt=marker, capsize=3, color=next(colours), label=name)
    axes.axhline(quality.loc[FUSED, "ndcg"], color="gray", label=FUSED)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel("median of the whole call, ms")
    axes.set_ylabel("NDCG@10, 95 % interval over users")
    axes.set_title(f"{first['candidates']} candidates, {first['events']} events, one caller")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    for suffix in ("png", "svg"):
        figure.savefig(out / f"latency.{suffix}", dpi=150)
    plt.close(figure)
