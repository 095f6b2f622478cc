"""Free-text queries for the joint layers: how they are read, and those that training makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from encoders import StateEncoder
from ranker.config import SplitConfig
from ranker.lists import LabelledLists
from retrieval.candidates import Requests
from retrieval.catalogue import Catalogue
from retrieval.fusion import SEARCH, FusedRetriever
from retrieval.queries import Queries


def read_queries(encoder: StateEncoder, texts: Sequence[str], lower_layers: int, max_tokens: int) -> Queries:
    """The vector and the first token states of each text, from one pass of the encoder.

    Args:
        encoder: The one that read the items.
        texts: U texts.
        lower_layers: Layers after which the states are taken.
        max_tokens: States that are kept of a text; what comes after them is in its vector alone.

    Raises:
        ConfigError: The encoder cannot give the states after so many layers.
        InputError: An entry is not a string.
    """
    batches = [
        replace(batch, states=batch.states[:, :max_tokens].astype(np.float16))
        for batch in encoder.read(texts, lower_layers)
    ]
    width = max((batch.states.shape[1] for batch in batches), default=0)
    vectors = np.zeros((len(texts), encoder.dim), np.float32)
    states = np.zeros((len(texts), width, encoder.dim), np.float16)
    lengths = np.zeros(len(texts), np.int64)
    for batch in batches:
        vectors[batch.rows] = batch.vectors
        states[batch.rows, : batch.states.shape[1]] = batch.states
        lengths[batch.rows] = np.minimum(batch.lengths, max_tokens)
    return Queries(vectors, states, lengths)


def known_item_lists(
    lists: LabelledLists,
    retriever: FusedRetriever,
    encoder: StateEncoder,
    lower_layers: int,
    catalogue: Catalogue,
    config: SplitConfig,
    seed: int,
) -> LabelledLists:
    """Some of the lists as searches for the item that was chosen; a log of choices holds no queries of its own.

    The query is the chosen item's title (known-item search with made-up queries: Azzopardi, de Rijke and Balog,
    "Building simulated queries for known-item topics", SIGIR 2007), and the candidates are those that the user would
    have been shown for it.

    Args:
        lists: Lists without queries.
        retriever: What proposed them.
        encoder: The one that serves.
        lower_layers: Layers after which it gives the queries' token states.
        catalogue: The items; one without a title makes no query.
        config: ``training.queries`` says which share of the lists.
        seed: Chooses them.

    Returns:
        The lists whose first ``config.depth`` candidates hold the chosen item, cut to that depth; none where queries
        cannot be asked.
    """
    # not the draw that parts the users: it would put the same rows on one side
    drawn = np.random.default_rng([seed, 1]).permutation(len(lists))
    count = round(config.training.queries * len(lists)) if SEARCH in retriever.sources else 0
    titled = np.array([bool(catalogue.titles[item].strip()) for item in lists.chosen], np.bool_)
    rows = np.sort(drawn[:count])
    lists = lists.take(rows[titled[rows]])
    if not len(lists):
        return lists
    titles, places = np.unique([catalogue.titles[item] for item in lists.chosen], return_inverse=True)
    queries = read_queries(encoder, titles.tolist(), lower_layers, config.max_tokens).take(places)
    asked = lists.requests
    requests = Requests(asked.histories, asked.allowed, asked.exclude_seen, queries)
    candidates = retriever.union(requests, retriever.config.depth)
    return LabelledLists(lists.users, requests, candidates, lists.chosen).containing_choice(config.depth)
