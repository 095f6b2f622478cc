"""The workload of the joint layers: what requests are padded to where shapes are fixed, and requests to measure on."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from encoders.binding import Buckets
from ranker.split.inputs import InputReader, JointInputs
from ranker.split.model import MASKED, JointShape
from retrieval.candidates import Candidates, Requests
from retrieval.histories import Histories

SAMPLED_USERS = (1, 1, 1, 8)  # of each sample: most requests come alone


def buckets(shape: JointShape) -> Buckets:
    """What requests are padded to where shapes have to be fixed; padding is what ``stacked`` pads with."""
    sizes = {
        "users": (1, 4, 16, 32),
        "items": (32, 128, 512, 1024),
        "rows": (256, 1024, 4096, 16384),
        "events": (shape.max_events,),  # there is no embedding of any later place
        "tokens": (1, 8, 32, 128, 512),
        "words": (1, 8, 32, 128, 512),
    }
    masks = [field.name for field in fields(JointInputs) if field.name.endswith("_bias")]
    return Buckets(sizes, dict.fromkeys(masks, MASKED))


def sample_inputs(reader: InputReader, depth: int, seed: int = 0) -> list[JointInputs]:
    """Requests of the sizes to come, over random items: ``depth`` candidates, and as many events as are read."""
    rng = np.random.default_rng(seed)
    items, events = min(depth, reader.store.n_items), reader.shape.max_events
    samples = []
    for users in SAMPLED_USERS:
        rows = np.repeat(np.arange(users), events)
        liked, ones = rng.integers(0, reader.store.n_items, len(rows)), np.ones(len(rows), np.float32)
        histories = Histories.from_rows(rows, liked, ones, np.arange(len(rows)), users)
        candidates = Candidates(
            items=np.stack([rng.permutation(reader.store.n_items)[:items] for _ in range(users)]),
            scores=-np.sort(-rng.normal(size=(users, items)).astype(np.float32)),
            by_source=rng.normal(size=(users, items, reader.shape.sources)).astype(np.float32),
            sources=tuple(str(source) for source in range(reader.shape.sources)),
        )
        samples.append(reader.read(Requests(histories, np.ones(reader.store.n_items, np.bool_)), candidates))
    return samples
