"""Temporary folders: files that an object serves from until it is saved somewhere."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A new folder that is left to the block, which may give it to an owner; it is removed where the block fails."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def remove_with(owner: object, folder: Path) -> None:
    """Remove a folder once its owner is gone, at the latest when the process ends."""
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
