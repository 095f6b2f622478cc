"""Products of vectors with tables, and the threads that compute them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

FEW_VECTORS = 4  # that one core multiplies with a table in the time in which the BLAS does with two

_thread = threading.local()  # scores: what every_product fills


def every_product(vectors: NDArray[np.float32], table: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of vectors (U, d) times all rows of a table (I, d), in an array that this thread's next call changes.

    The system takes as long to map memory for so many scores as they take to compute, so they get the same once more.
    The few rows of a request take no threads of the BLAS, which would wait actively for more work afterwards, on the
    cores that the request goes on with.
    """
    size = len(vectors) * len(table)
    kept: NDArray[np.float32] | None = getattr(_thread, "scores", None)
    if kept is None or len(kept) < size:
        kept = _thread.scores = np.empty(size, np.float32)
    scores = kept[:size].reshape(len(vectors), len(table))
    if len(vectors) <= FEW_VECTORS:
        return np.vecdot(vectors[:, None], table, out=scores)
    return np.matmul(vectors, table.T, out=scores)


def inner_products(
    vectors: NDArray[np.float32], table: NDArray[np.float32], items: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Each row's vector (U, d) times the rows of a table (I, d) at its own items (U, K): (U, K).

    A row at a time, since the vectors of all rows' items at once would be gigabytes; and each product by itself, since
    a product of matrices rounds by the place of a row in it: equal items have equal products, wherever they stand.
    """
    products = np.empty(items.shape, np.float32)
    for row, at in enumerate(items):
        np.vecdot(table[at], vectors[row], out=products[row])
    return products


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """The BLAS keeps to one thread until the last who asked for that has left; in whatever thread each of them is."""
    with _of_process, threadpool_limits(1, "blas"):  # of builds that use OpenMP the limit is each thread's own
        yield


class _ProcessLimit:
    """The limit of builds with one pool for the whole process.

    Where two set it by themselves, the second finds the first one's, and would leave that behind.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limits: threadpool_limits

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                _in_a_thread(self._limit)
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                _in_a_thread(self._limits.restore_original_limits)

    def _limit(self) -> None:
        self._limits = threadpool_limits(1, "blas")


_of_process = _ProcessLimit()


def _in_a_thread(work: Callable[[], None]) -> None:
    """Work in a thread that ends with it: while one that set OpenBLAS's limit lives, threadpoolctl lets no other."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
