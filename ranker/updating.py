"""A newer catalogue under a fitted engine: items that came, and items whose text or attributes changed."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ranker.engine import Engine
from ranker.pair.reranker import PairReranker
from ranker.reranker import Reranker
from ranker.sources import fit_sources, text_vectors
from ranker.split.reranker import SplitReranker
from ranker.successors import successor
from ranker.temporary import remove_with, temporary_folder
from ranker.users import LoggedActs, UserHistories
from ranker.views import Views
from retrieval.candidates import Source
from retrieval.catalogue import Catalogue
from retrieval.cold_start import factors_from_texts
from retrieval.ease import check_size
from retrieval.sequence import SequenceRetriever

logger = logging.getLogger(__name__)


def update_items(engine: Engine, items: pd.DataFrame, *, progress: bool = True) -> Engine:
    """The engine over its catalogue as it is now, in a fraction of the time of a fit.

    Texts that are new are read, and nothing else is. The sources are fitted again on everything that was logged up to
    now, but for the sequence source, which goes on knowing what it learned: a new item is to it what its text says. The
    fusion's weights, the encoder and the cross-encoder stay. Where attributes changed alone, so does everything else.

    Args:
        engine: It goes on serving as it is; both share its log.
        items: ``item_id, title, text`` and the attributes that the catalogue has: new items, and items that changed.
            What it leaves out stays as it is. An item that is gone is one to ``deny``, or to mark by an attribute.
        progress: Show progress bars where the output is a terminal.

    Returns:
        Another engine; save it, for other processes to load.

    Raises:
        InputError: The table cannot be used, or its columns are not those of the catalogue.
        ConfigError: The catalogue has grown beyond what the EASE source is fitted on.
        ArtifactError: The log could not be read.
    """
    catalogue, changed = engine.catalogue.updated(items)
    if "ease" in engine.config.sources:
        check_size(len(catalogue), engine.config.ease)
    views, reranker = engine.views, engine.reranker
    if len(changed):
        logger.info("Reading %d texts, and fitting the sources on %d items.", len(changed), len(catalogue))
        read = engine.encoder.encode([catalogue.texts[row] for row in changed.tolist()], progress=progress)
        before = text_vectors(views.next.sources, engine.encoder, engine.catalogue.texts)
        vectors = np.concatenate([before, np.empty((len(catalogue) - len(before), before.shape[1]), np.float32)])
        vectors[changed] = read
        views = _fitted_again(engine, catalogue, vectors, progress)
        reranker = _over(engine, catalogue, vectors)
    elif isinstance(reranker, PairReranker):
        reranker = reranker.over(catalogue.titles, catalogue.texts)
    return successor(engine, catalogue, engine.encoder, views, reranker)


def _fitted_again(engine: Engine, catalogue: Catalogue, vectors: NDArray[np.float32], progress: bool) -> Views:
    until = engine.log.last_offset()
    acts = LoggedActs(engine.log, engine.config.feedback, catalogue.ids, until=until)
    known = UserHistories(engine.users.base, acts).merged()
    sequence = engine.retriever.sources.get("sequence")
    standing: dict[str, Source] = (
        {"sequence": sequence.over(vectors)} if isinstance(sequence, SequenceRetriever) else {}
    )
    sources = fit_sources(known.histories, vectors, engine.config, progress, standing=standing)
    return engine.views.over(sources, until)


def _over(engine: Engine, catalogue: Catalogue, vectors: NDArray[np.float32]) -> Reranker:
    """The engine's re-ranker over this catalogue, of whose items these are the text vectors (I, dim)."""
    reranker = engine.reranker
    if isinstance(reranker, PairReranker):
        return reranker.over(catalogue.titles, catalogue.texts)
    if not isinstance(reranker, SplitReranker):
        return reranker
    with temporary_folder("states-") as folder:
        over = reranker.over(catalogue.texts, _factors(engine, reranker.inputs.factors, vectors), folder)
        remove_with(over, folder)
    return over


def _factors(engine: Engine, factors: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vectors that the joint layers were trained with, and after them what texts let expect of new items."""
    new = np.zeros((len(vectors) - len(factors), factors.shape[1]), np.float32)
    every = np.concatenate([factors, new])
    penalty = engine.config.als.text_penalty
    if penalty is None:
        return every
    counts = np.bincount(engine.users.base.histories.liked().items, minlength=len(vectors))
    every[len(factors) :] = factors_from_texts(every, vectors, counts, penalty)[len(factors) :]
    return every
