"""The engine's transformers as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ranker.cli.arguments import Model, loaded
from ranker.cli.output import Output


def export(
    ctx: typer.Context,
    model: Model,
    out: Annotated[
        Path | None, typer.Option(metavar="OTHER", help="Another folder; else a new version of the same.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(metavar="P,…", help="What to try, in this order: int8, fp16, fp32. Else the settings decide."),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Largest accepted loss of a metric, as a share: 0.01 is 1 %.")
    ] = None,
) -> None:
    """Write the transformers as ONNX, in the first precision that keeps the quality.

    Each is tried on the engine's own texts and rankings, and refused if it loses more than the tolerance.
    What is ONNX already, as in an engine with a split cross-encoder, is kept.

    Example:
        ranker export model --precision int8,fp32 --tolerance 0.02
    """
    import ranker
    from encoders import TextEncoder
    from encoders.errors import InputError
    from ranker import EngineConfig
    from ranker.artifact import check_target

    output: Output = ctx.obj
    target = model if out is None else out
    check_target(target)
    with loaded(model) as engine:
        tree = engine.config.to_dict()
        if precision:
            tree["export"]["precisions"] = [part.strip() for part in precision.split(",")]
        if tolerance is not None:
            tree["export"]["tolerance"] = tolerance
        if (precision or tolerance is not None) and not isinstance(engine.encoder, TextEncoder):
            raise InputError(
                f"{model}: serves from ONNX already, at the precision that was chosen when it was made. Fit it again "
                "with export.precisions and export.tolerance in the settings, or export the engine that is in torch."
            )
        engine.config = EngineConfig.from_dict(tree)
        exported = ranker.export(engine, target)
        exported.engine.log.close()
    chosen = {part: report.chosen for part, report in exported.reports.items()}
    output.show(gates=exported.gates, chosen=chosen, saved=target)
