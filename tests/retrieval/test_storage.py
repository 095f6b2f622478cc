"""Arrays on disk are untrusted input."""

import io
import zipfile

import numpy as np
import pytest

from encoders.errors import ArtifactError
from retrieval.storage import load_array


def header(text: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("a.npy", "no array")
    return content.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"PK\x03\x04 and no archive", archive(), header(b"(((((\n"), header(b"{[]: 1}\n"),
        header(b"-" * 9000 + b"\n"),
        header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999999999999,)}\n"),
        header(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n") + b"pickle",
    ],
)  # fmt: skip
def test_a_file_that_holds_no_array_is_named(content, tmp_path):
    path = tmp_path / "factors.npy"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"factors.npy: not a readable array"):
        load_array(path, np.float32, ndim=1)


def test_an_array_of_another_kind_is_named(tmp_path):
    np.save(tmp_path / "factors.npy", np.ones((2, 3), np.float64))
    with pytest.raises(ArtifactError, match=r"expected 1 dimensions of float32, found 2 of float64"):
        load_array(tmp_path / "factors.npy", np.float32, ndim=1)
