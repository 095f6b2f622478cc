"""Products of vectors with tables, and how many threads compute them."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
from threadpoolctl import threadpool_info

from retrieval.products import every_product, one_blas_thread


def blas_threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_products_are_those_of_the_vectors_whatever_was_multiplied_before():
    rng = np.random.default_rng(0)
    table = rng.standard_normal((50, 8)).astype(np.float32)
    for rows in (3, 7, 1):
        vectors = rng.standard_normal((rows, 8)).astype(np.float32)
        np.testing.assert_allclose(every_product(vectors, table), vectors @ table.T, rtol=1e-5, atol=1e-6)

    def products(seed):
        vectors = np.random.default_rng(seed).standard_normal((20, 8)).astype(np.float32)
        return [np.array_equal(every_product(vectors, table), vectors @ table.T) for _ in range(200)]

    with ThreadPoolExecutor(4) as pool:  # no thread sees another's
        assert all(all(each) for each in pool.map(products, range(8)))


def test_the_products_of_one_request_are_the_work_of_one_thread():
    rng = np.random.default_rng(0)
    vector, table = rng.standard_normal((1, 64), np.float32), rng.standard_normal((20_000, 64), np.float32)
    time.sleep(0.1)  # until threads that other tests woke have gone to sleep
    of_thread, of_process = time.thread_time(), time.process_time()
    for _ in range(500):
        every_product(vector, table)
    of_thread, of_process = time.thread_time() - of_thread, time.process_time() - of_process
    assert of_process < 1.2 * of_thread


def test_the_blas_has_one_thread_until_the_last_who_asked_for_that_has_left():
    before, first_left = blas_threads(), Barrier(2)

    def first():
        with one_blas_thread():
            first_left.wait()  # until the second is inside
            inside = blas_threads()
        first_left.wait()
        return inside

    def second():
        with one_blas_thread():
            first_left.wait()
            first_left.wait()  # until the first has left
            return blas_threads()

    with ThreadPoolExecutor(2) as pool:
        seen = [pool.submit(first), pool.submit(second)]
        assert [each.result() for each in seen] == [{1}, {1}]
    assert blas_threads() == before
