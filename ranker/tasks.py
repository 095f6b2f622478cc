"""Tasks made of a site's own log, on which exported models are judged."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse

from encoders import RankingTask, RetrievalTask
from encoders.errors import InputError
from ranker.pair.reranker import PairReranker
from retrieval.candidates import Requests
from retrieval.catalogue import Catalogue
from retrieval.fusion import FusedRetriever
from retrieval.histories import Histories

MAX_DOCUMENTS = 20_000  # item texts that the gate searches
MAX_QUERIES = 1_000
MAX_LISTS = 100


def retrieval_task(histories: Histories, catalogue: Catalogue, rng: np.random.Generator) -> RetrievalTask:
    """Real queries for the text encoder: items that users took, each with what its users took next.

    Raises:
        InputError: No user has two events.
    """
    followed = np.flatnonzero(np.diff(histories.rows) == 0)  # events with a later one in the same row
    if not len(followed):
        raise InputError("No user has two positive events, so no export of the text encoder can be judged. Add events.")
    items = np.arange(len(catalogue))
    if len(items) > MAX_DOCUMENTS:
        items = np.sort(rng.permutation(items)[:MAX_DOCUMENTS])
    position = np.full(len(catalogue), -1)
    position[items] = np.arange(len(items))
    query, answer = position[histories.items[followed]], position[histories.items[followed + 1]]
    same_text = pd.factorize(np.array(catalogue.texts, dtype=object))[0]
    other = same_text[histories.items[followed]] != same_text[histories.items[followed + 1]]
    kept = (query >= 0) & (answer >= 0) & other
    matrix = sparse.csr_array(
        (np.ones(kept.sum(), np.bool_), (query[kept], answer[kept])), shape=(len(items), len(items))
    )
    matrix.sum_duplicates()
    asked = rng.permutation(np.flatnonzero(np.diff(matrix.indptr)))[:MAX_QUERIES]
    if not len(asked):
        raise InputError("No two items follow each other in the log, so no export of the text encoder can be judged.")
    texts = catalogue.texts
    return RetrievalTask(
        queries=tuple(texts[items[row]] for row in asked),
        documents=tuple(texts[item] for item in items),
        relevant=matrix[asked],
    )


def ranking_task(
    histories: Histories, retriever: FusedRetriever, reranker: PairReranker, rng: np.random.Generator
) -> RankingTask:
    """Real rankings for the cross-encoder: users' candidates before their newest event, which is the relevant item."""
    rows = np.sort(rng.permutation(np.flatnonzero(histories.lengths > 1))[:MAX_LISTS])
    newest = histories.indptr[rows + 1] - 1
    chosen = histories.items[newest]
    requests = Requests(histories.before(newest), np.ones(retriever.n_items, np.bool_))
    items = retriever.retrieve(requests, max(2, reranker.depth)).items
    missed = ~(items == chosen[:, None]).any(axis=1)
    items[missed, -1] = chosen[missed]  # the last place goes to the chosen item where the sources missed it
    lists, relevant = [], []
    for context, row, item in zip(reranker.texts.contexts(requests), items, chosen, strict=True):
        known = row[row >= 0]
        lists.append(tuple(reranker.texts.pairs(context, known)))
        relevant.append(known == item)
    return RankingTask(tuple(lists), tuple(relevant))
