"""What a peer gives."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """Lists, and how long they took.

    Attributes:
        items: (L, k) positions in the catalogue, best first, NO_ITEM at the end.
        fit_s: Seconds of fitting.
        rank_s: Seconds of ranking all lists on one core.
    """

    items: NDArray[np.int64]
    fit_s: float
    rank_s: float
