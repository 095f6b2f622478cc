"""Versions on disk: the newest serves, the one before is kept, and nothing else is written over."""

import numpy as np
import pytest
from tiny_versions import content, writer

from encoders.errors import ArtifactError
from ranker.artifact import CURRENT, KEPT_VERSIONS, kept_versions, open_version, read_manifest, write_version


def test_the_newest_version_serves_and_the_one_before_is_kept(root):
    for number in range(3, 6):
        folder = write_version(root, writer(number))
        assert open_version(root) == folder
        assert content(folder) == number
    assert sorted(path.name for path in root.iterdir()) == [CURRENT, "v0004", "v0005"]
    assert content(root / "v0004") == 4
    assert KEPT_VERSIONS == 2


def test_the_one_before_serves_again_once_current_names_it(root):
    (root / CURRENT).write_text("v0001\n")
    assert content(open_version(root)) == 1


def test_versions_are_in_the_order_of_their_numbers(root):
    for name in ("v10000", "v9999"):
        (root / name).mkdir()
    assert kept_versions(root) == ["v0001", "v0002", "v9999", "v10000"]


def test_a_name_that_no_folder_can_have_is_told(tmp_path):
    with pytest.raises(ArtifactError, match="no folder can be called so"):
        write_version(tmp_path / ("x" * 300), writer(1))


def test_the_manifest_names_every_file_and_the_libraries(root):
    manifest = read_manifest(root / "v0002")
    assert set(manifest["files"]) == {"a.bin", "part/b.bin", "part/c.bin"}
    assert manifest["libraries"]["numpy"] == np.__version__


def test_two_saves_at_once_get_a_version_each(root):
    from threading import Thread

    threads = [Thread(target=write_version, args=(root, writer(number))) for number in (3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {content(root / "v0003"), content(root / "v0004")} == {3, 4}
    assert content(open_version(root)) in (3, 4)


@pytest.mark.parametrize("kind", ["file", "folder", "folder with CURRENT's neighbours"])
def test_what_holds_something_else_is_refused_and_kept(tmp_path, kind):
    target = tmp_path / "target"
    if kind == "file":
        target.write_text("a letter")
    else:
        (target / "v0001").mkdir(parents=True)
        (target / "letter.txt").write_text("a letter")
    with pytest.raises(ArtifactError, match="exists and holds no saved engine"):
        write_version(target, writer(1))
    assert (target if kind == "file" else target / "letter.txt").read_text() == "a letter"
