"""Learning while serving, from the shell: from what the log holds, and from events as they come."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ranker.cli.arguments import Model, RefusedFile, loaded, refusals
from ranker.cli.output import Output


def learn(
    ctx: typer.Context,
    model: Model,
    follow: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|-",
            help="Record events of JSON lines as they come, too: of the *.jsonl files in a folder, or - for standard "
            "input.",
            show_default=False,
        ),
    ] = None,
    refused: RefusedFile = None,
    once: Annotated[bool, typer.Option("--once", help="With a folder: end once all of it is recorded.")] = False,
) -> None:
    """Let the cross-encoder learn from the feedback log while it serves, and fit the sources again as the log grows.

    It goes on where it was, learns all that the log holds, and lets serve what gained (config.learning). With --follow
    it also records events until the input ends, or until Ctrl-C. A line has the fields of ranker feedback.

    Examples:
        ranker learn model
        tail -F events.jsonl | ranker learn model --follow -
    """
    from ranker.learning.background import BackgroundLearner
    from ranker.learning.learner import Learner, resumed
    from ranker.learning.refit import Refitter

    output: Output = ctx.obj
    with loaded(model) as engine:
        learner = Learner(engine, engine.config.learning, engine.config.seed, resumed(engine))
        refitter = Refitter(engine, engine.config.learning)
        counts: dict[str, Any] = {}
        if follow is not None:
            with BackgroundLearner(learner, refitter):
                counts["recorded"] = _followed(engine, follow, refused, once)
        refitter.step()
        while learner.step().events:
            pass
        output.show(
            **counts,
            learned={**learner.counts, "offset": learner.offset},
            refitted=dict(refitter.counts),
            serving={"version": engine.version, "ndcg@10": learner.watch.serving, "saved": learner.watch.frozen},
        )


def _followed(engine: Any, source: str, refused: Path | None, once: bool) -> dict[str, int]:
    from ranker.following import STATE, FollowedFolder, Recorder, follow_folder, follow_stream

    with refusals(refused) as refuse:
        recorder = Recorder(engine, refuse)
        try:
            if source == "-":
                follow_stream(sys.stdin, recorder)
            else:
                follow_folder(FollowedFolder(Path(source), engine.folder / STATE), recorder, 0.2, lambda: once)
        except KeyboardInterrupt:
            pass  # what was recorded is on disk, and the state says how far
    return vars(recorder.counts)


def status(ctx: typer.Context, model: Model) -> None:
    """Say what serves, what was learned, and what is in the feedback log.

    Example:
        ranker status model
    """
    output: Output = ctx.obj
    with loaded(model) as engine:
        found = engine.status()
        del found["observed"], found["users"]["in_memory"]  # of a process that serves, and this one does not
        output.show(serving={"version": found["version"]}, **{name: found[name] for name in found if name != "version"})


def rollback(
    ctx: typer.Context,
    model: Model,
    version: Annotated[str, typer.Argument(help="A learned version, or saved: the engine's own weights.")],
) -> None:
    """Let a kept version of learned weights serve again.

    Example:
        ranker rollback model saved
    """
    output: Output = ctx.obj
    with loaded(model) as engine:
        engine.rollback(version)
        output.show(serving={"version": engine.version})
