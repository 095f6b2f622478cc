"""Collaborative candidates by a linear model of items on items, solved in closed form; for catalogues of thousands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from scipy import linalg, sparse

from encoders.errors import ArtifactError, ConfigError
from retrieval.histories import Histories
from retrieval.item_item import BLOCK_ITEMS, ItemItemConfig, ItemItemRetriever, binary
from retrieval.storage import load_array, load_settings, save_settings

BYTES_PER_WEIGHT = 12  # while fitting: the inverse in float64 and the weights in float32


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class EaseConfig(ItemItemConfig):
    """Settings of the EASE source; see ``ItemItemConfig`` for how a history is read.

    Attributes:
        regularization: L2 penalty on the weights.
        max_items: Largest catalogue that is fitted. Memory grows with its square and time with its cube: 20,000 items
            take 4.5 GiB while fitting, 1.5 GiB on disk, and minutes.
    """

    half_life: Annotated[float | None, Field(gt=0)] = 3.0
    regularization: Annotated[float, Field(gt=0)] = 1000.0
    max_items: Annotated[int, Field(ge=1)] = 20_000


class EaseRetriever(ItemItemRetriever):
    """Each item as a weighted sum of the others (EASE: Steck, "Embarrassingly shallow autoencoders", WWW 2019).

    The weights B minimise ``‖X - XB‖² + λ‖B‖²`` with a zero diagonal, where X is users × items, 1 where a user liked an
    item. With ``P = (XᵀX + λI)⁻¹``, ``B_ij = -P_ij / P_jj``.

    Args:
        weights: (I, I), from an item of the history → to a candidate.
        config: The settings that they were made with.
    """

    name: ClassVar[str] = "ease"
    weights: NDArray[np.float32]

    def __init__(self, weights: NDArray[np.float32], config: EaseConfig) -> None:
        super().__init__(weights, config)
        self.config = config

    @classmethod
    def fit(cls, histories: Histories, n_items: int, config: EaseConfig) -> EaseRetriever:
        """Solve for the weights from users' positive events, each item once. Memory: 12 I² bytes.

        Raises:
            ConfigError: The catalogue is larger than ``config.max_items``, or ``config.regularization`` is too small.
        """
        check_size(n_items, config)
        inverse = _inverse(_gram(binary(histories, n_items), config.regularization))
        if inverse is None:
            raise ConfigError(
                f"ease.regularization = {config.regularization} is too small to solve for the weights in float64: "
                "items that the same users liked cannot be told apart. Raise it."
            )
        scale = -1 / inverse.diagonal()
        weights = np.empty((n_items, n_items), np.float32)
        np.multiply(inverse, scale, out=weights, casting="same_kind")
        np.fill_diagonal(weights, 0)
        return cls(weights, config)

    def lasting(self) -> EaseRetriever:
        """The same weights, every event of a history counting the same."""
        return EaseRetriever(self.weights, replace(self.config, half_life=None))

    def save(self, folder: Path) -> None:
        """Write the weights and the settings into this empty folder."""
        np.save(folder / "weights.npy", self.weights)
        save_settings(self.config, folder / "config.json")

    @classmethod
    def load(cls, folder: Path) -> EaseRetriever:
        """Read what ``save`` wrote; the weights stay memory-mapped.

        Raises:
            ArtifactError: A file is missing or damaged, or the weights are not square or not finite.
        """
        config = load_settings(EaseConfig, folder / "config.json")
        path = folder / "weights.npy"
        weights = load_array(path, np.float32, ndim=2)
        if weights.shape[0] != weights.shape[1]:
            raise ArtifactError(
                f"{path}: {weights.shape[0]} × {weights.shape[1]} weights are not those of every item on every item. "
                "Save the engine again."
            )
        # the extremes are NaN where any weight is, and need no second array of this size
        if weights.size and not np.isfinite([weights.min(), weights.max()]).all():
            raise ArtifactError(f"{path}: holds weights that are not finite. Save the engine again.")
        return cls(weights, config)


def check_size(n_items: int, config: EaseConfig) -> None:
    """Refuse a catalogue that is too large, before anything is made for it.

    Raises:
        ConfigError: It has more items than ``config.max_items``.
    """
    if n_items > config.max_items:
        need = BYTES_PER_WEIGHT * n_items**2 / 2**30
        raise ConfigError(
            f"ease.max_items = {config.max_items}, but the catalogue has {n_items} items, whose weights take "
            f"{need:,.1f} GiB while fitting. Use the source 'neighbours' in place of 'ease', or raise ease.max_items."
        )


def _gram(users: sparse.csr_array, regularization: float) -> NDArray[np.float64]:
    """``XᵀX + λI`` of users × items X, (I, I)."""
    n_items = users.shape[1]
    gram = np.empty((n_items, n_items))
    items = users.T.tocsr()
    for start in range(0, n_items, BLOCK_ITEMS):
        rows = slice(start, start + BLOCK_ITEMS)
        gram[rows] = (items[rows] @ users).toarray()
    gram[np.diag_indices(n_items)] += regularization
    return gram


def _inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The inverse of a symmetric matrix (I, I), in its place; None where it is not positive definite."""
    if not len(matrix):
        return matrix
    # LAPACK reads columns first, so the transpose, which is the same matrix, is what it can overwrite
    factor, failed = linalg.lapack.dpotrf(matrix.T, lower=1, clean=0, overwrite_a=1)
    if failed:
        return None
    inverse: NDArray[np.float64] = linalg.lapack.dpotri(factor, lower=1, overwrite_c=1)[0]
    # it filled one triangle only
    for start in range(0, len(inverse), BLOCK_ITEMS):
        stop = start + BLOCK_ITEMS
        inverse[start:stop, stop:] = inverse[stop:, start:stop].T
        square = inverse[start:stop, start:stop]
        square[:] = np.tril(square) + np.tril(square, -1).T
    return inverse
