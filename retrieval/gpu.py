"""Exact search on a GPU, where FAISS was built for one and there is one."""

from __future__ import annotations

import logging
import threading

import faiss
import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

MOST = 2048  # items that FAISS finds for a query on a GPU, at most
SCRATCH = 256 * 2**20  # bytes of the device's memory to work in; FAISS would take 1.5 GB for each process


class GpuSearch:
    """The nearest of all items of an exact index, of which the first GPU holds a copy.

    FAISS reads no selector there, without saying so, and two threads must not search at once: calls wait in turn.

    Args:
        index: The exact index.
    """

    def __init__(self, index: faiss.Index) -> None:
        self._searching = threading.Lock()
        self._resources = faiss.StandardGpuResources()  # it must live as long as the index
        self._resources.setTempMemory(SCRATCH)
        self._index = faiss.index_cpu_to_gpu(self._resources, 0, index)

    def search(self, queries: NDArray[np.float32], depth: int) -> NDArray[np.int64]:
        """The ``depth`` nearest items, MOST at most, (U, depth), as FAISS gives them."""
        with self._searching:
            items: NDArray[np.int64] = self._index.search(queries, depth)[1]
        return items


def on_gpu(index: faiss.Index) -> GpuSearch | None:
    """An exact index copied to the first GPU.

    Returns:
        None where FAISS is built for CPUs alone or there is no GPU; where it has too little memory, with a warning.
    """
    if faiss.get_num_gpus() == 0:
        return None
    try:
        return GpuSearch(index)
    except RuntimeError as error:
        logger.warning("The vectors are searched on the CPU: FAISS could not copy them to the GPU (%s).", error)
        return None
