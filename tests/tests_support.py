"""What several suites share."""

import ctypes
import os
import resource
import shutil
import socket
from contextlib import contextmanager

import numpy as np
import pytest

CAPABILITIES_VERSION = 0x20080522  # linux/capability.h: two words of 32 bits each
READS_AND_WRITES_ANYTHING = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH


@contextmanager
def bound_by_permissions():
    """This thread obeys the permissions of files, even if it is root's, in any user namespace."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0)
    held = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, twice
    assert libc.capget(header, held) == 0, os.strerror(ctypes.get_errno())
    fewer = (ctypes.c_uint32 * 6)(*held)
    fewer[0] &= ~READS_AND_WRITES_ANYTHING
    assert libc.capset(header, fewer) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        assert libc.capset(header, held) == 0, os.strerror(ctypes.get_errno())


def needs_spark():
    """Skip a test where Spark cannot run."""
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("Spark runs on Java 17, and there is no Java here")
    with socket.create_server(("127.0.0.1", 0)) as server:
        try:
            socket.create_connection(server.getsockname(), timeout=5).close()
        except OSError as error:
            pytest.skip(f"the parts of Spark talk over the machine's own network, and it is down: {error}")


@contextmanager
def file_limit(size):
    """No file grows beyond this size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:  # before pytest writes to a log that may be longer
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def same_ranking(items_a, scores_a, items_b, scores_b, tolerance: float = 2e-5) -> None:
    """Equal scores; equal items too, but for the order of those whose scores are one within rounding."""
    np.testing.assert_allclose(scores_a, scores_b, atol=tolerance, rtol=tolerance)
    for at in np.flatnonzero(np.asarray(items_a) != np.asarray(items_b)):
        near = np.isclose(scores_b, scores_a[at], atol=tolerance, rtol=tolerance)
        last = np.isclose(scores_a[at], scores_a[-1], atol=tolerance, rtol=tolerance)
        assert items_a[at] in np.asarray(items_b)[near] or last, f"position {at}: {items_a[at]} against {items_b[at]}"


def watched(function, note):
    """The same function, whose arguments and result are noted at each call."""

    def called(*given, **named):
        result = function(*given, **named)
        note(given, result)
        return result

    return called


def is_mapped(array):
    """Whether an array's memory is a file's."""
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None
