"""Quantization curve: speed against fidelity of int8 recipes for the text encoder, on one core.

Every recipe is built from the same fused graph, calibrated (where it calibrates) on one half of the catalogue
and judged on the other. Timed rounds visit all recipes in turn, so that a busy machine slows them alike.
"""

import json
import logging
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import torch
import typer
from numpy.typing import NDArray
from scipy import sparse

from bench.int8_recipes import CHOSEN, FP32, recipes
from encoders import OnnxSession, RetrievalTask, TextEncoder, open_session
from encoders.gate import RetrievalGate
from encoders.graph import PooledText, fuse, trace

TIMED = 512  # texts per timed run
NEIGHBOURS = 10  # relevant items per item
PEER = "sentence-transformers fp32"


class SessionEncoder:
    """Any ONNX file with our inputs as an encoder."""

    def __init__(self, session: OnnxSession, encoder: TextEncoder):
        self.session, self.tokens, self.dim = session, encoder.tokens, encoder.dim

    def encode(self, texts: list[str], *, progress: bool = False) -> NDArray[np.float32]:
        """Encode texts in batches."""
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        for batch in self.tokens.text_batches(texts):
            vectors[batch.rows] = self.session.run(batch.named(self.session.inputs))[0]
        return vectors


def main(
    items: Annotated[Path | None, typer.Argument(help="Items: .parquet, or tab-separated.")] = None,
    columns: Annotated[str, typer.Option(help="Columns joined to an item's text.")] = "title",
    interactions: Annotated[Path | None, typer.Option(help="Log with user_id and item_id.")] = None,
    out: Annotated[Path, typer.Option(help="Where results and plots go.")] = Path("runs/quantization"),
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds.")] = 15,
    tiny: Annotated[bool, typer.Option("--tiny", help="A made-up catalogue and one round, for CI.")] = False,
) -> None:
    """Measure speed, fidelity and size of int8 recipes for the default text encoder."""
    torch.set_num_threads(1)
    logging.getLogger().setLevel(logging.ERROR)  # ONNX Runtime's quantizers advise through the root logger
    if tiny:
        texts, rounds = made_up_titles(), 1
        features = word_incidence(texts)
    elif items is None:
        raise typer.BadParameter("name the items table, or pass --tiny")
    else:
        table = read(items)
        texts = table[columns.split(",")].fillna("").astype(str).agg(" ".join, axis=1).tolist()
        features = word_incidence(texts) if interactions is None else readers(table, read(interactions))
    rows = measure(texts[0::2][:512], texts[1::2], nearest(features[1::2]), rounds)
    out.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows)
    (out / "results.json").write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")
    (out / "results.md").write_text(markdown(table))
    plot(table, out)
    typer.echo(table.to_string(index=False))


def measure(
    calibration: list[str], texts: list[str], relevant: sparse.csr_array, rounds: int
) -> list[dict[str, object]]:
    """One row of results per recipe, the peer first."""
    from sentence_transformers import SentenceTransformer

    encoder = TextEncoder.load()
    kept = np.flatnonzero(np.diff(relevant.indptr))
    task = RetrievalTask(tuple(texts[i] for i in kept), tuple(texts), relevant[kept])
    gate = RetrievalGate(encoder, task, k=10, tolerance=1.0, seed=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trace(
            PooledText(encoder.model, encoder.pooling),
            ("input_ids", "attention_mask"),
            {"vector": 1},
            folder / "traced",
        )
        onnx.save(fuse(folder / "traced", encoder.model.config), str(folder / "fused.onnx"))
        models, sizes = {}, {}
        for recipe, write in recipes(folder / "fused.onnx", encoder, calibration).items():
            write(folder / "model.onnx")
            sizes[recipe] = (folder / "model.onnx").stat().st_size
            models[recipe] = SessionEncoder(open_session(folder / "model.onnx", threads=1), encoder)
    peer = SentenceTransformer(encoder.model.config._name_or_path, device="cpu")
    runs = {PEER: lambda: peer.encode(texts[:TIMED], batch_size=encoder.tokens.batch_size)}
    for recipe, model in models.items():
        runs[recipe] = lambda model=model: model.encode(texts[:TIMED])
    seconds = time_in_turn(runs, rounds)
    rows: list[dict[str, object]] = []
    for recipe in runs:
        row: dict[str, object] = {
            "recipe": recipe,
            "texts_per_s": len(texts[:TIMED]) / float(np.median(seconds[recipe])),
            "speed_vs_onnx_fp32": float(np.median(seconds[FP32] / seconds[recipe])),
            "speed_vs_sentence_transformers": float(np.median(seconds[PEER] / seconds[recipe])),
        }
        if recipe != PEER:
            verdict = gate.judge(models[recipe])
            alone = np.concatenate([models[recipe].encode([text]) for text in texts[:TIMED]])
            apart = np.einsum("td,td->t", alone, models[recipe].encode(texts)[:TIMED])
            row |= verdict.agreement | {f"{change.name}_loss": change.loss for change in verdict.changes}
            row |= {"min_cosine_batch_vs_alone": float(apart.min()), "size": sizes[recipe] / sizes[FP32]}
        rows.append(row)
    return rows


def time_in_turn(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, NDArray[np.float64]]:
    """Seconds of each run in each round, after one round to warm up; the order is turned every round."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values[1:]) for name, values in seconds.items()}


def readers(table: pd.DataFrame, log: pd.DataFrame) -> sparse.csr_array:
    """(items, users), 1 where a user took the item; items are alike when the same users take them."""
    places = {item: place for place, item in enumerate(table["item_id"].astype(str))}
    rows = log["item_id"].astype(str).map(places)
    users, names = pd.factorize(log["user_id"])
    known = rows.notna().to_numpy()
    entries = (np.ones(known.sum(), dtype=np.float32), (rows[known].astype(int), users[known]))
    return sparse.csr_array(entries, shape=(len(table), len(names)))


def read(path: Path) -> pd.DataFrame:
    """A Parquet or tab-separated table; RecBole's types after the column names are dropped."""
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, sep="\t")
    return table.rename(columns=lambda name: name.split(":")[0])


def word_incidence(texts: list[str]) -> sparse.csr_array:
    """(texts, words), each word weighted by its rarity; a stand-in where there is no log."""
    words = pd.Series(texts).str.lower().str.findall(r"\w+").explode()
    codes, names = pd.factorize(words)
    rarity = np.log(len(texts) / np.bincount(codes)).astype(np.float32)
    return sparse.csr_array((rarity[codes], (words.index.to_numpy(), codes)), shape=(len(texts), len(names)))


def nearest(features: sparse.csr_array) -> sparse.csr_array:
    """Each row's nearest other rows by cosine, as a boolean matrix."""
    norms = np.sqrt(np.maximum(features.multiply(features).sum(1), 1e-12))
    unit = sparse.diags_array(1 / norms) @ features
    similarity = (unit @ unit.T).toarray()
    np.fill_diagonal(similarity, 0)
    top = np.argsort(-similarity, axis=1, kind="stable")[:, :NEIGHBOURS]
    rows = np.repeat(np.arange(len(top)), top.shape[1])
    real = similarity[rows, top.ravel()] > 0
    return sparse.csr_array((np.ones(real.sum(), dtype=bool), (rows[real], top.ravel()[real])), similarity.shape)


def made_up_titles() -> list[str]:
    """A hundred titles of common words, in an order that mixes them."""
    words = ["red", "river", "night", "city", "robot", "love", "winter", "story", "war", "garden"]
    titles = [f"The {first} {second}" for first in words for second in words]
    return [titles[place * 37 % 100] for place in range(100)]


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table, numbers with three decimals."""
    cells = table.map(lambda value: f"{value:.3f}" if isinstance(value, float) else str(value))
    cells = cells.replace("nan", "")
    lines = [list(table.columns), ["---"] * len(table.columns), *cells.to_numpy().tolist()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    kernels = [flag for flag in ("avx2", "avx_vnni", "avx512_vnni", "amx_int8") if f" {flag}" in flags]
    versions = {module.__name__: module.__version__ for module in (onnxruntime, torch, onnx)}
    processor = names[0] if names else platform.machine()
    return {"processor": processor, "kernels": " ".join(kernels), "threads": "1", **versions}


def plot(table: pd.DataFrame, out: Path) -> None:
    """Speed against overlap, area by file size."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = table.dropna(subset="size")
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    for row, colour in zip(shown.to_dict("records"), mpl.colormaps["tab20"].colors, strict=False):
        edge = {"edgecolors": "black", "linewidths": 1.5} if row["recipe"] == CHOSEN else {}
        at = (row["speed_vs_onnx_fp32"], row["overlap@10"])
        axes.scatter(*at, s=900 * row["size"], color=colour, alpha=0.8, label=row["recipe"], **edge)
    legend = figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    for handle in legend.legend_handles:
        handle.set_sizes([80])
    axes.set_xlabel("texts per second, ratio to ONNX fp32 (one core)")
    axes.set_ylabel("overlap@10 with the torch original")
    axes.set_title("int8 recipes for all-MiniLM-L6-v2; area is file size")
    axes.grid(alpha=0.3)
    for suffix in ("png", "svg"):
        figure.savefig(out / f"curve.{suffix}", dpi=150)
    plt.close(figure)
