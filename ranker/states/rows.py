"""Formats of rows: how the numbers of a row lie on disk, as they are or in a byte each.

    float16    width float16 numbers
    int8       blocks of 32 numbers: (blocks, 32) int8, then (blocks,) float16 scales by which they are multiplied
               the last ``exact`` numbers: float16

The last block is filled up with zeros. Numbers are little-endian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from encoders.errors import InputError

RowKind = Literal["float16", "int8"]

NUMBER = np.dtype("<f2")
BLOCK = 32  # numbers that share a scale
LARGEST_CODE = 127
LARGEST_SCALE = np.float32(515.5)  # the largest float16 that times LARGEST_CODE is one


@dataclass(frozen=True, slots=True)
class RowFormat:
    """How rows of ``width`` float16 numbers are kept.

    Attributes:
        width: Numbers in a row.
        kind: "float16" keeps them; "int8" rounds each to a 127th of the largest of its block.
        exact: Numbers at the end of an int8 row that stay float16.

    Raises:
        InputError: The sizes are out of range.
    """

    width: int
    kind: RowKind = "float16"
    exact: int = 0

    def __post_init__(self) -> None:
        if self.width < 1 or not 0 <= self.exact <= (self.width if self.kind == "int8" else 0):
            raise InputError(
                f"width is {self.width} and exact is {self.exact} in {self.kind}: the width must be 1 or more; exact "
                "must be 0 to the width in int8, and 0 in float16."
            )

    def __str__(self) -> str:
        return f"width {self.width} in {self.kind}" + (f" (the last {self.exact} in float16)" if self.exact else "")

    @property
    def bytes(self) -> int:
        """Size of a row."""
        if self.kind == "float16":
            return self.width * NUMBER.itemsize
        return self._blocks * (BLOCK + NUMBER.itemsize) + self.exact * NUMBER.itemsize

    def encode(self, rows: NDArray[np.float16]) -> NDArray[np.uint8]:
        """Finite rows (R, width) as bytes, (R, bytes)."""
        if self.kind == "float16":
            return np.ascontiguousarray(rows, NUMBER).view(np.uint8)
        filled = np.zeros((len(rows), self._blocks * BLOCK), np.float32)
        filled[:, : self._coded] = rows[:, : self._coded]
        blocks = filled.reshape(len(rows), self._blocks, BLOCK)
        scales = _scales(np.abs(blocks).max(axis=2, initial=0))
        codes = np.rint(blocks / np.where(scales == 0, 1, scales)[:, :, None]).astype(np.int8)
        parts = (codes.reshape(filled.shape), scales, np.ascontiguousarray(rows[:, self._coded :], NUMBER))
        return np.concatenate([part.view(np.uint8) for part in parts], axis=1)

    def decode(self, stored: NDArray[np.uint8]) -> NDArray[np.float16]:
        """Bytes (…, bytes) as rows (…, width): within half a block's scale of what was encoded, and rounded."""
        if self.kind == "float16":
            return stored.view(NUMBER)
        codes, rest = stored[..., : self._blocks * BLOCK].view(np.int8), stored[..., self._blocks * BLOCK :]
        scales, exact = np.split(rest.view(NUMBER), [self._blocks], axis=-1)
        # in float32, since numpy computes float16 number by number
        blocks = codes.reshape(*scales.shape, BLOCK) * scales.astype(np.float32)[..., None]
        rows = np.empty((*stored.shape[:-1], self.width), NUMBER)
        rows[..., : self._coded] = blocks.reshape(codes.shape)[..., : self._coded]
        rows[..., self._coded :] = exact
        return rows

    @property
    def _coded(self) -> int:
        """Numbers of an int8 row that are kept in blocks."""
        return self.width - self.exact

    @property
    def _blocks(self) -> int:
        return -(-self._coded // BLOCK)


def _scales(largest: NDArray[np.float32]) -> NDArray[np.float16]:
    """The scale of blocks with these largest magnitudes."""
    wanted = np.minimum(largest / np.float32(LARGEST_CODE), LARGEST_SCALE)
    scales: NDArray[np.float16] = wanted.astype(NUMBER)
    # rounded up, so that no code is beyond the largest, be the scale the smallest that float16 knows
    low = scales < wanted
    scales[low] = np.nextafter(scales[low], NUMBER.type(np.inf))
    return scales
