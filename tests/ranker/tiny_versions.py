"""Versions of a few small files that all say the same number."""


def writer(number, size=20_000):
    """A version of several files that all say the same number."""

    def write(folder):
        (folder / "part").mkdir()
        for name in ("a.bin", "part/b.bin", "part/c.bin"):
            (folder / name).write_bytes(bytes([number]) * size)

    return write


def content(folder):
    found = {path.read_bytes()[0] for path in folder.rglob("*.bin")}
    assert len(found) == 1, "a mixture of versions"
    return found.pop()
