"""The sources of candidates by name: how each is fitted, and what loads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders import Encoder
from encoders.errors import ArtifactError
from ranker.config import EngineConfig, SourceName
from retrieval.als import AlsRetriever
from retrieval.candidates import Source
from retrieval.ease import EaseRetriever
from retrieval.histories import Histories
from retrieval.neighbours import NeighbourRetriever
from retrieval.popularity import PopularityRetriever
from retrieval.sequence import SequenceRetriever
from retrieval.text import TextRetriever
from retrieval.transitions import TransitionRetriever
from retrieval.trend import TrendRetriever

SOURCES: Mapping[SourceName, Any] = {
    "als": AlsRetriever,
    "ease": EaseRetriever,
    "neighbours": NeighbourRetriever,
    "transitions": TransitionRetriever,
    "sequence": SequenceRetriever,
    "text": TextRetriever,
    "popularity": PopularityRetriever,
    "trend": TrendRetriever,
}

# those that take long to train, or read no events: they stay as they are between two fits
STANDING: tuple[SourceName, ...] = ("text", "sequence")

# those that can tell what users come back for, and are quickly fitted once more to be weighed for that
LASTING = tuple(name for name, source in SOURCES.items() if hasattr(source, "lasting"))


def fit_sources(
    histories: Histories,
    vectors: NDArray[np.float32],
    config: EngineConfig,
    progress: bool = False,
    earlier: Mapping[str, Source] = MappingProxyType({}),
    standing: Mapping[str, Source] = MappingProxyType({}),
) -> dict[str, Source]:
    """The sources of ``config.sources``.

    Args:
        histories: Every user's; nothing else of them is seen.
        vectors: (I, dim) the items' text vectors.
        config: All settings.
        progress: Show bars.
        earlier: Sources that were fitted on part of the same log: one that takes long to train goes on from there.
        standing: Sources that stay as they are.
    """
    n_items = len(vectors)

    def sequence() -> SequenceRetriever:
        before = earlier.get("sequence")
        if isinstance(before, SequenceRetriever):
            return before.refit(histories, config.seed, progress)
        # No ALS factors: they are fitted on the very events that are to be predicted, and give them away in training.
        return SequenceRetriever.fit(histories, vectors, config.sequence, config.seed, progress)

    build: dict[SourceName, Callable[[], Source]] = {
        "als": lambda: AlsRetriever.fit(histories, n_items, config.als, config.seed, vectors),
        "ease": lambda: EaseRetriever.fit(histories, n_items, config.ease),
        "neighbours": lambda: NeighbourRetriever.fit(histories, n_items, config.neighbours),
        "transitions": lambda: TransitionRetriever.fit(histories, n_items, config.transitions, config.seed, vectors),
        "sequence": sequence,
        "text": lambda: TextRetriever.fit(vectors, config.text, config.seed),
        "popularity": lambda: PopularityRetriever.fit(histories, n_items, config.popularity, vectors),
        "trend": lambda: TrendRetriever.fit(histories, n_items, config.trend, vectors),
    }
    return {name: standing[name] if name in standing else build[name]() for name in config.sources}


def text_vectors(sources: Mapping[str, Source], encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """(I, dim) the items' text vectors: those that the text source searches, or else read anew."""
    text = sources.get("text")
    return text.vectors if isinstance(text, TextRetriever) else encoder.encode(texts)


def save_sources(sources: Mapping[str, Source], folder: Path) -> None:
    """Write each source into a folder of its name below this one."""
    for name, source in sources.items():
        own = folder / name
        own.mkdir(parents=True)
        source.save(own)


def load_sources(names: Sequence[SourceName], folder: Path, n_items: int) -> dict[str, Source]:
    """Read what ``save_sources`` wrote; arrays stay memory-mapped.

    Raises:
        ArtifactError: A file is missing or damaged, or a source covers another number of items.
    """
    sources: dict[str, Source] = {name: SOURCES[name].load(folder / name) for name in names}
    for name, source in sources.items():
        if source.n_items != n_items:
            raise ArtifactError(
                f"{folder / name}: covers {source.n_items} items, but the catalogue has {n_items}. Restore the folder "
                "from a backup, or fit the engine again."
            )
    return sources
