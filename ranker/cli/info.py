"""What a saved engine is made of."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ranker.cli.arguments import Model, loaded
from ranker.cli.output import Output

if TYPE_CHECKING:
    from ranker import Engine
    from ranker.reranker import CrossEncoderReranker, Gain


def info(ctx: typer.Context, model: Model) -> None:
    """Describe a saved engine: its data, its parts, its training, its size on disk, and how this machine can run it.

    Example:
        ranker info model
    """
    from encoders.execution import EXECUTIONS
    from ranker.artifact import CURRENT, read_manifest

    output: Output = ctx.obj
    with loaded(model) as engine:
        version = (model / CURRENT).read_text(encoding="utf-8").strip()
        manifest = read_manifest(model / version)
        output.show(
            version={
                "serving": version,
                "kept": sorted(path.name for path in model.glob("v[0-9]*")),
                **{name: manifest[name] for name in ("format", "created", "python", "libraries") if name in manifest},
            },
            engine=engine_facts(engine),
            executions={execution.name: execution.obstacle() or "can be used" for execution in EXECUTIONS},
            megabytes=_sizes(model, manifest["files"]),
        )


def engine_facts(engine: Engine) -> dict[str, Any]:
    """What an engine knows and how it ranks."""
    from ranker.reranker import CrossEncoderReranker

    facts: dict[str, Any] = {
        "users": len(engine.users.ids),
        "items": len(engine.catalogue),
        "events": len(engine.users.base.histories.items),
        "feedback_events": len(engine.log),
        "sources": engine.retriever.weights,
        "sources_of_short_histories": engine.retriever.short,
        "encoder": _transformer(engine.encoder),
    }
    if isinstance(engine.reranker, CrossEncoderReranker):
        facts["cross_encoder"] = {
            **_cross_encoder(engine.reranker),
            "depth": engine.reranker.depth,
            "gain": _gain(engine.reranker.gain),
        }
    if engine.calibration is not None:
        facts["calibration"] = asdict(engine.calibration)
    if engine.training is not None:
        ndcg = dict(engine.training.validation_ndcg)
        facts["training"] = {
            "examples": engine.training.examples,
            "of_feedback": engine.training.feedback,
            "steps": engine.training.steps,
            "best_step": engine.training.best_step,
            "validation_ndcg@10": ndcg[engine.training.best_step],
        }
    return facts


def _gain(gain: Gain) -> dict[str, Any]:
    return {"ndcg@10": gain.mean, "standard_error": gain.error, "serves": gain.serves}


def _cross_encoder(reranker: CrossEncoderReranker) -> dict[str, Any]:
    from ranker.pair.reranker import PairReranker
    from ranker.split.reranker import SplitReranker

    if isinstance(reranker, PairReranker):
        return {**_transformer(reranker.cross_encoder), "blend": asdict(reranker.blend)}
    if isinstance(reranker, SplitReranker):
        shape, store = reranker.joint.shape, reranker.inputs.store
        return {
            "kind": "split",
            "lower_layers": shape.lower_layers,
            "joint_layers": shape.joint_layers,
            "states": store.row_format.kind,
            "bytes_of_states_per_item": store.bytes_per_item,
            "gain_with_a_query": _gain(reranker.query_gain),
        }
    return {"kind": type(reranker).__name__}


def _transformer(model: Any) -> dict[str, Any]:
    from encoders import OnnxPairCrossEncoder, OnnxTextEncoder

    if isinstance(model, (OnnxTextEncoder, OnnxPairCrossEncoder)):
        return {"kind": "onnx", "precision": model.manifest.report.chosen, "provider": model.provider}
    return {
        "kind": "torch",
        "precision": str(model.model.dtype).removeprefix("torch."),
        "device": str(model.model.device),
    }


def _sizes(model: Path, files: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Megabytes of each part of the version (its top-level files and folders), and of the feedback log."""
    sizes: dict[str, float] = {}
    for path, entry in files.items():
        part = Path(path).parts[0]
        sizes[part] = sizes.get(part, 0.0) + entry["bytes"] / 1e6
    log = sum(path.stat().st_size for path in model.glob("feedback.sqlite*"))
    return {**sizes, "all of this version": sum(sizes.values()), "feedback log": log / 1e6}
