"""Learned weights on disk: in the folder ``learned`` of a saved engine, each version whole (``ranker.artifact``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from encoders.errors import ArtifactError, InputError
from ranker.artifact import checked_version, kept_versions, open_version, serve_version, serving, write_version
from ranker.reranker import Gain
from ranker.split.reranker import SplitReranker
from retrieval.storage import load_settings, save_settings

if TYPE_CHECKING:
    from ranker.engine import Engine

SAVED = "saved"  # names the saved engine's own weights
FOLDER = "learned"
WEIGHTS, FACTS = "joint.safetensors", "learned.json"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Learned:
    """What is known of learned weights.

    Attributes:
        base: The saved engine's version that they belong to.
        offset: Of the newest event that they have seen.
        lists: Lists on which they were compared with what served before.
        gain: What they gained there in NDCG@10.
        error: Its standard error.
        why: "promoted", or "rolled back", which are the saved engine's own.
    """

    base: str
    offset: int
    lists: int
    gain: float
    error: float
    why: Literal["promoted", "rolled back"]


class LearnedVersions:
    """The versions that were learned for one version of a saved engine.

    Args:
        root: The saved engine's folder.
        base: Its version.
        kept: How many stay.
    """

    def __init__(self, root: Path, base: str, kept: int) -> None:
        self.folder = root / FOLDER
        self.base = base
        self._kept = kept

    def write(self, weights: dict[str, torch.Tensor], facts: Learned) -> str:
        """Keep weights as the version that serves; its name.

        Raises:
            ArtifactError: The disk refused; what served before does still.
        """

        def fill(folder: Path) -> None:
            save_file(weights, folder / WEIGHTS)
            save_settings(facts, folder / FACTS)

        return write_version(self.folder, fill, self._kept).name

    def current(self) -> tuple[str, Learned, dict[str, torch.Tensor]] | None:
        """Name, facts and weights of the version that serves; None where none was learned for this base.

        Raises:
            ArtifactError: It is damaged.
        """
        if not serving(self.folder):
            return None
        folder = open_version(self.folder)
        facts = load_settings(Learned, folder / FACTS)
        return (folder.name, facts, _weights(folder)) if facts.base == self.base else None

    def all(self) -> dict[str, Learned]:
        """Facts of every kept version of this base by its name, the oldest first."""
        return {name: facts for name, facts in self._kept_facts().items() if facts.base == self.base}

    def newest_offset(self) -> int:
        """Of the newest event that any kept version has seen, of an older base, too: a save takes over its weights."""
        return max((facts.offset for facts in self._kept_facts().values()), default=0)

    def _kept_facts(self) -> dict[str, Learned]:
        return {name: load_settings(Learned, self.folder / name / FACTS) for name in kept_versions(self.folder)}

    def serve(self, name: str) -> tuple[Learned, dict[str, torch.Tensor]]:
        """Let a kept version serve; its facts and weights.

        Raises:
            ArtifactError: It is not there, belongs to another base, or is damaged.
        """
        known = self.all()
        if name not in known:
            raise ArtifactError(
                f"{self.folder}: no version {name!r} of {self.base} is kept, only {', '.join(known) or 'none'}."
            )
        weights = _weights(checked_version(self.folder / name))
        serve_version(self.folder, name)
        return known[name], weights


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{folder / WEIGHTS}: cannot be read ({error}). Remove {folder.parent}.") from error


def learned_versions(engine: Engine) -> dict[str, Learned]:
    """Facts of the kept versions of learned weights that an engine can return to, the oldest first."""
    return {} if engine.folder is None else versions_of(engine, engine.folder).all()


def versions_of(engine: Engine, folder: Path) -> LearnedVersions:
    """Where an engine that is saved in this folder keeps what it learns."""
    return LearnedVersions(folder, base_of(engine), engine.config.learning.kept_versions)


def base_of(engine: Engine) -> str:
    """The saved version that an engine was loaded from, whatever it has learned since."""
    return engine.version.split("+")[0]


def serve_learned(engine: Engine, weights: dict[str, torch.Tensor], name: str, facts: Learned) -> None:
    """Let learned weights serve in an engine with a split cross-encoder, and its lists be told to come from them.

    What was promoted gained over what served, be that the fused order: so it is what orders requests from then on. With
    the saved engine's weights what orders them is what did when it was saved.
    """
    reranker = engine.reranker
    if isinstance(reranker, SplitReranker):
        reranker.joint.replace(weights)
        reranker.gain = Gain(facts.gain, facts.error) if facts.why == "promoted" else reranker.saved_gain
        engine.version = f"{base_of(engine)}+{name}"


def refresh(engine: Engine) -> bool:
    """See ``Engine.refresh``."""
    if engine.folder is None:
        return False
    versions = versions_of(engine, engine.folder)
    if engine.version == f"{versions.base}+{serving(versions.folder)}":
        return False
    learned = versions.current()
    if learned is None:
        return False
    name, facts, weights = learned
    try:
        serve_learned(engine, weights, name, facts)
    except InputError as error:
        raise ArtifactError(f"{versions.folder / name}: {error}") from error
    return True


def roll_back(engine: Engine, version: str) -> None:
    """See ``Engine.rollback``."""
    if engine.folder is None or not isinstance(engine.reranker, SplitReranker):
        raise InputError("rollback: this engine has no learned versions. Save it, and let a learner run.")
    versions = versions_of(engine, engine.folder)
    if version == SAVED:
        weights = engine.reranker.joint.saved
        facts = Learned(versions.base, engine.log.last_offset(), 0, 0.0, 0.0, "rolled back")
        version = versions.write(weights, facts)
    else:
        facts, weights = versions.serve(version)
    serve_learned(engine, weights, version, facts)
