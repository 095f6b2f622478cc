"""Sites: all that re-rankers which are compared have in common, and a made-up one to try the measurements on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertModel

from encoders import DEFAULT_CHECKPOINT, StateEncoder, TextEncoder
from encoders.checkpoint import load_tokenizer, resolve_checkpoint, save_checkpoint
from ranker.config import EngineConfig
from ranker.fitting import collaborative_factors, serving_encoder
from ranker.held_out import held_out_lists
from ranker.lists import LabelledLists
from ranker.sources import fit_sources
from retrieval.catalogue import Catalogue
from retrieval.fusion import FusedRetriever
from retrieval.interactions import Interactions


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """A catalogue, its log, and what was learned from them once for every re-ranker."""

    catalogue: Catalogue
    log: Interactions
    config: EngineConfig
    original: TextEncoder
    encoder: StateEncoder  # the export for the joint layers of ``config``; its vectors are the text source's
    retriever: FusedRetriever  # trained on the whole log
    factors: NDArray[np.float32]  # (I, d) of a source that did not see what the lists' users chose
    learn: LabelledLists
    test: LabelledLists  # of users who are neither trained on nor stopped by


def prepare(interactions: pd.DataFrame, items: pd.DataFrame, config: EngineConfig, test_share: float) -> Site:
    """Candidate lists, fusion weights and sources, as ``ranker.fit`` makes them.

    Args:
        interactions: As ``ranker.fit`` takes them.
        items: The same.
        config: All settings; the split re-ranker's say how long lists are and how many there are at most.
        test_share: Of the users with lists, in (0, 1).
    """
    catalogue = Catalogue(items)
    log = Interactions.from_frame(interactions, catalogue)
    original = TextEncoder.load(config.checkpoint, config.encoder)
    encoder = serving_encoder(original, log.histories, catalogue, config)
    vectors = encoder.encode(catalogue.texts, progress=True)
    lists, proposer = held_out_lists(log.histories, vectors, None, config)
    factors = collaborative_factors(proposer, len(catalogue))
    retriever = proposer.over(fit_sources(log.histories, vectors, config))
    rng = np.random.default_rng(config.seed)
    learn, test = lists.containing_choice(config.rerank.split.depth).split_by_user(test_share, rng)
    return Site(catalogue, log, config, original, encoder, retriever, factors, learn, test)


def made_up_tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Eighty items of four tastes, and forty users of ten or more events each who mostly keep to one."""
    rng = np.random.default_rng(0)
    words = ("robot war city", "cat love summer", "river old story", "dog winter night")
    titles = [" ".join(rng.choice(words[n % 4].split(), 3)) + f" {n}" for n in range(80)]
    items = pd.DataFrame({"item_id": [f"i{n}" for n in range(80)], "title": titles, "text": titles})
    rows = []
    for user in range(40):
        own = rng.permutation(np.arange(user % 4, 80, 4))[:10]
        taken = rng.permutation(np.unique([*own, *rng.integers(0, 80, 3)]))
        rows += [(user, f"i{item}", 1.0, pd.Timestamp(2024, 1, 1 + place)) for place, item in enumerate(taken)]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "weight", "datetime"]), items


def few_users(interactions: pd.DataFrame) -> pd.DataFrame:
    """The log of three hundred users, for the tiny forms."""
    return interactions[interactions["user_id"].isin(interactions["user_id"].unique()[:300])]


def small_checkpoint(folder: Path) -> str:
    """The folder of a random transformer with the default encoder's six layers and tokenizer, but of small width."""
    tokenizer = load_tokenizer(resolve_checkpoint(DEFAULT_CHECKPOINT))
    torch.manual_seed(0)
    settings = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=6, num_attention_heads=4, intermediate_size=64
    )
    save_checkpoint(BertModel(settings), tokenizer, folder)
    return str(folder)
