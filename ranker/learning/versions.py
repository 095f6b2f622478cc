"""What was learned, on disk: in the folder ``learned`` of a saved engine, each version whole (``ranker.artifact``).

learned.json       what is known of it
joint.safetensors  the joint layers' weights, where the engine has such
sources/           sources that were fitted again; missing where those of the saved engine serve
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from encoders.errors import ArtifactError, InputError
from ranker.artifact import checked_version, kept_versions, open_version, serve_version, serving, write_version
from ranker.reranker import Gain
from ranker.sources import SOURCES as ALL_SOURCES
from ranker.sources import load_sources, save_sources
from ranker.split.reranker import SplitReranker
from retrieval.candidates import Source
from retrieval.storage import load_settings, save_settings

if TYPE_CHECKING:
    from ranker.engine import Engine

SAVED = "saved"  # names the saved engine's own weights and sources
FOLDER = "learned"
WEIGHTS, FACTS, SOURCES = "joint.safetensors", "learned.json", "sources"
NONE: Mapping[str, Source] = MappingProxyType({})


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Learned:
    """What is known of a version.

    Attributes:
        base: The saved engine's version that it belongs to.
        offset: Of the newest event that the weights have seen.
        until: Of the newest event that the sources were fitted on.
        lists: Lists on which what is new in it was compared with what served before.
        gain: What it gained there in NDCG@10.
        error: Its standard error.
        why: What is new in it: weights that were "promoted", sources that were "refitted", or nothing, where it was
            "rolled back" to the saved engine's.
        reranker: What the weights gained when they were promoted; None of the saved ones.
    """

    base: str
    offset: int
    until: int
    lists: int
    gain: float
    error: float
    why: Literal["promoted", "refitted", "rolled back"]
    reranker: Gain | None


class Kept(NamedTuple):
    """A version as it was read."""

    name: str
    facts: Learned
    weights: dict[str, torch.Tensor]  # empty where the engine has no joint layers
    sources: Mapping[str, Source]  # empty where the saved engine's serve


class LearnedVersions:
    """The versions that were learned for one version of a saved engine.

    Args:
        root: The saved engine's folder.
        base: Its version.
        kept: How many stay.
        n_items: Size of the catalogue.
    """

    def __init__(self, root: Path, base: str, kept: int, n_items: int) -> None:
        self.folder = root / FOLDER
        self.base = base
        self._kept = kept
        self._n_items = n_items

    def write(
        self,
        weights: dict[str, torch.Tensor],
        facts: Learned,
        sources: Mapping[str, Source] = NONE,
        like: str | None = None,
    ) -> str:
        """Keep weights and sources as the version that serves; its name.

        Args:
            weights: Of the joint layers.
            facts: What is known of it.
            sources: Name → source, those that were fitted again; none lets the saved engine's serve.
            like: Name of a version with the same sources, whose files then serve this one, too, if it is still kept.

        Raises:
            ArtifactError: The disk refused; what served before does still.
        """

        def fill(folder: Path) -> None:
            if weights:
                save_file(weights, folder / WEIGHTS)
            save_settings(facts, folder / FACTS)
            written = None if like is None else self.folder / like / SOURCES
            if written is not None and written.is_dir():
                shutil.copytree(written, folder / SOURCES, copy_function=_linked)
            else:
                save_sources(sources, folder / SOURCES)

        return write_version(self.folder, fill, self._kept).name

    def current(self) -> Kept | None:
        """The version that serves; None where none was learned for this base.

        Raises:
            ArtifactError: It is damaged.
        """
        if not serving(self.folder):
            return None
        folder = open_version(self.folder)
        facts = load_settings(Learned, folder / FACTS)
        return self._read(folder, facts) if facts.base == self.base else None

    def all(self) -> dict[str, Learned]:
        """Facts of every kept version of this base by its name, the oldest first."""
        return {name: facts for name, facts in self._kept_facts().items() if facts.base == self.base}

    def newest_offset(self) -> int:
        """Of the newest event that any kept version has seen, of an older base, too: a save takes over its weights."""
        return max((facts.offset for facts in self._kept_facts().values()), default=0)

    def _kept_facts(self) -> dict[str, Learned]:
        found = {}
        for name in kept_versions(self.folder):
            try:
                found[name] = load_settings(Learned, self.folder / name / FACTS)
            except ArtifactError:
                if (self.folder / name).exists():  # or another process has let it go meanwhile
                    raise
        return found

    def serve(self, name: str) -> Kept:
        """Let a kept version serve, and read it.

        Raises:
            ArtifactError: It is not there, belongs to another base, or is damaged.
        """
        known = self.all()
        if name not in known:
            raise ArtifactError(
                f"{self.folder}: no version {name!r} of {self.base} is kept, only {', '.join(known) or 'none'}."
            )
        kept = self._read(checked_version(self.folder / name), known[name])
        serve_version(self.folder, name)
        return kept

    def _read(self, folder: Path, facts: Learned) -> Kept:
        names = [name for name in ALL_SOURCES if (folder / SOURCES / name).is_dir()]
        sources = load_sources(names, folder / SOURCES, self._n_items)
        try:
            weights = load_file(folder / WEIGHTS) if (folder / WEIGHTS).exists() else {}
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"{folder / WEIGHTS}: cannot be read ({error}). Remove {folder.parent}.") from error
        return Kept(folder.name, facts, weights, sources)


def _linked(source: str, target: str) -> None:
    """The same file under a second name where the disk can do so, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def learned_versions(engine: Engine) -> dict[str, Learned]:
    """Facts of the kept versions that an engine can return to, the oldest first."""
    return {} if engine.folder is None else versions_of(engine, engine.folder).all()


def versions_of(engine: Engine, folder: Path) -> LearnedVersions:
    """Where an engine that is saved in this folder keeps what it learns."""
    return LearnedVersions(folder, base_of(engine), engine.config.learning.kept_versions, len(engine.catalogue))


def base_of(engine: Engine) -> str:
    """The saved version that an engine was loaded from, whatever it has learned since."""
    return engine.version.split("+")[0]


def learned_of(engine: Engine) -> str | None:
    """The version of what was learned that an engine serves; None where it serves as it was saved."""
    return engine.version.partition("+")[2] or None


def serve_weights(engine: Engine, weights: dict[str, torch.Tensor], name: str, facts: Learned) -> None:
    """Let learned weights serve in an engine with a split cross-encoder, and its lists be told to come from them.

    What was promoted gained over what served, be that the fused order: so it is what orders requests from then on. With
    the saved engine's weights what orders them is what did when it was saved.
    """
    reranker = engine.reranker
    if isinstance(reranker, SplitReranker):
        reranker.joint.replace(weights)
        reranker.gain = reranker.saved_gain if facts.reranker is None else facts.reranker
    _tell(engine, name, facts)


def serve_sources(engine: Engine, sources: Mapping[str, Source], name: str, facts: Learned) -> None:
    """Let sources that were fitted again serve; none lets the saved engine's do."""
    saved = engine.saved_views
    engine.views = saved.over(sources, facts.until) if sources else saved
    _tell(engine, name, facts)


def _tell(engine: Engine, name: str, facts: Learned) -> None:
    engine.version = f"{base_of(engine)}+{name}"
    engine.learned = facts


def refresh(engine: Engine) -> bool:
    """See ``Engine.refresh``."""
    if engine.folder is None:
        return False
    versions = versions_of(engine, engine.folder)
    if engine.version == f"{versions.base}+{serving(versions.folder)}":
        return False
    kept = versions.current()
    if kept is None:
        return False
    try:
        _serve(engine, kept)
    except InputError as error:
        raise ArtifactError(f"{versions.folder / kept.name}: {error}") from error
    return True


def roll_back(engine: Engine, version: str) -> None:
    """See ``Engine.rollback``."""
    if engine.folder is None or not learned_versions(engine):
        raise InputError("rollback: this engine has no learned versions. Save it, and let a learner run.")
    versions = versions_of(engine, engine.folder)
    if version == SAVED:
        reranker = engine.reranker
        weights = reranker.joint.saved if isinstance(reranker, SplitReranker) else {}
        offset, until = engine.log.last_offset(), engine.saved_views.until
        facts = Learned(versions.base, offset, until, 0, 0.0, 0.0, "rolled back", None)
        kept = Kept(versions.write(weights, facts), facts, weights, NONE)
    else:
        kept = versions.serve(version)
    _serve(engine, kept)


def _serve(engine: Engine, kept: Kept) -> None:
    serve_weights(engine, kept.weights, kept.name, kept.facts)
    serve_sources(engine, kept.sources, kept.name, kept.facts)
