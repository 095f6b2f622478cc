"""Free-text queries: what the encoder that read the items makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class Queries:
    """The queries of a batch of requests; row ``u`` of every array belongs to one of them.

    Retrieval reads the vectors alone. The token states are for a re-ranker that reads them; T is 0 where none does.
    """

    vectors: NDArray[np.float32]  # (U, dim) of length 1
    states: NDArray[np.float16]  # (U, T, dim) after the encoder's lower layers
    lengths: NDArray[np.int64]  # (U,) tokens of each query; states beyond are padding

    def __post_init__(self) -> None:
        if not len(self.vectors) == len(self.states) == len(self.lengths):
            raise InputError(
                f"Queries: {len(self.vectors)} vectors, {len(self.states)} rows of states and {len(self.lengths)} "
                "lengths do not line up; give each query one of each."
            )

    @classmethod
    def without_states(cls, vectors: NDArray[np.float32]) -> Queries:
        """Queries whose tokens nobody reads."""
        count, dim = vectors.shape
        return cls(vectors, np.zeros((count, 0, dim), np.float16), np.zeros(count, np.int64))

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: NDArray[np.int64]) -> Queries:
        """These rows, in this order."""
        return Queries(self.vectors[rows], self.states[rows], self.lengths[rows])
