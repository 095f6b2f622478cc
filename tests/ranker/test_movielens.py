"""MovieLens: fetched once, converted whole, and read as one would say it. No row here is MovieLens's."""

import hashlib
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from encoders.errors import ArtifactError, InputError
from ranker.data import check_items_known, load_movielens, movielens, read_interactions, read_items

KEPT = Path(__file__).parents[2] / "data"

RATINGS = (
    "user_id:token\titem_id:token\trating:float\ttimestamp:float\r\n"
    '1m_2\tDog "King", The (1901)\t5\t978300760\r\n'
    "1m_1\tCat, Une (L'Chat (1902)\t3\t978300760\r\n"
    '1m_1\tDog "King", The (1901)\t4\t978300759\r\n'
)
FILMS = (
    "item_id:token\tmovie_title:token\trelease_year:float\tgenre:token\r\n"
    'Dog "King", The (1901)\tDog "King", The\t1901\tSci-Fi Children\'s\r\n'
    "Cat, Une (L'Chat (1902)\tCat, Une (L'Chat\t1902\tDrama\r\n"
)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a made-up wheel, which pip takes for a package's."""
    folder = tmp_path_factory.mktemp("shelf")
    with zipfile.ZipFile(folder / "made_up_films-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("made_up_films/films.inter", RATINGS)
        wheel.writestr("made_up_films/films.item", FILMS)
        about = "made_up_films-1.0.dist-info"
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: made-up-films\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    return folder


@pytest.fixture
def package(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> movielens._Package:
    """Return the made-up package, in a world where pip has the shelf and no index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    wheel = shelf / "made_up_films-1.0-py3-none-any.whl"
    return movielens._Package(
        requirement="made-up-films==1.0",
        wheel=wheel.name,
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member="made_up_films/films",
        item_id_type="str",
        n_interactions=3,
        n_items=2,
    )


@pytest.fixture
def lonely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave pip with neither an index nor a shelf."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")


def test_a_package_becomes_two_clean_tables(package: movielens._Package, tmp_path: Path) -> None:
    found = movielens._load(package, tmp_path)
    interactions, report = read_interactions(found.interactions)
    assert report.findings == ()
    assert interactions["user_id"].tolist() == [1, 2, 1]  # by time, the order of the file inside ties
    assert interactions["weight"].tolist() == [4, 5, 3]
    assert interactions["datetime"].iloc[0] == pd.Timestamp(978300759, unit="s")
    pd.testing.assert_frame_equal(pd.read_parquet(found.interactions), interactions)
    items, _ = read_items(found.items)
    check_items_known(interactions, items)
    assert items["title"].tolist() == ['The Dog "King"', "Cat, Une (L'Chat)"]
    assert items["text"].tolist() == [
        'The Dog "King" (1901). Sci-Fi, Children\'s',
        "Cat, Une (L'Chat) (1902). Drama",
    ]
    assert items["genres"].tolist() == ["Sci-Fi, Children's", "Drama"]
    assert items["year"].tolist() == [1901, 1902]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "interactions.parquet",
        "items.parquet",
        package.wheel,
    ]


def test_what_is_there_needs_no_network_and_is_not_made_again(
    package: movielens._Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = movielens._load(package, tmp_path)
    made = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert movielens._load(package, tmp_path) == found
    found.items.write_bytes(found.items.read_bytes()[:-20])  # a damaged table is made again from the wheel
    movielens._load(package, tmp_path)
    again = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert {name for name in made if again[name] != made[name]} == {"items.parquet"}
    assert len(read_items(found.items)[0]) == 2


def test_a_killed_run_goes_on_where_it_stopped(
    package: movielens._Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    movielens._fetch(package, tmp_path)  # killed after the download,
    (tmp_path / ".part-killed").mkdir()  # with a table half written
    (tmp_path / ".part-killed" / "items.parquet").write_bytes(b"PAR1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert len(pd.read_parquet(movielens._load(package, tmp_path).interactions)) == 3


def test_a_wheel_put_there_by_hand_is_enough(
    package: movielens._Package, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    (tmp_path / package.wheel).write_bytes((shelf / package.wheel).read_bytes())
    assert len(pd.read_parquet(movielens._load(package, tmp_path).items)) == 2


def test_another_file_under_the_same_name_is_refused(package: movielens._Package, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=f"sha256 {package.sha256}, but {'0' * 64} was published"):
        movielens._load(replace(package, sha256="0" * 64), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_table_of_another_length_is_refused(package: movielens._Package, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="would have 2 rows, but MovieLens has 9"):
        movielens._load(replace(package, n_items=9), tmp_path)


@pytest.mark.usefixtures("lonely")
def test_without_a_network_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"could not download recbole==1\.2\.1.*put recbole-1\.2\.1-py3") as caught:
        load_movielens("ml-100k", tmp_path)
    assert str(tmp_path / "ml-100k") in str(caught.value)
    assert list((tmp_path / "ml-100k").iterdir()) == []


def test_an_unknown_data_set_is_refused() -> None:
    with pytest.raises(InputError, match="'ml-20m': choose ml-100k or ml-1m"):
        load_movielens("ml-20m")


@pytest.mark.parametrize(
    ("title", "year", "genres", "expected"),
    [
        ("Dog, The", "1901", "Drama War", ("The Dog", "The Dog (1901). Drama, War", 1901, "Drama, War")),
        ("Dog, The", "1901", "unknown", ("The Dog", "The Dog (1901)", 1901, "")),
        ("unkonwn", "unkonwn", "unknown", ("unknown", "unknown", None, "")),
        ("Dog III (1901)", "V", "Drama", ("Dog III", "Dog III (1901). Drama", 1901, "Drama")),
    ],
)
def test_a_film_is_described_by_what_is_known(
    title: str, year: str, genres: str, expected: tuple[str, str, int | None, str]
) -> None:
    assert movielens._describe(title, year, genres) == expected


@pytest.mark.parametrize(
    ("filed", "natural"),
    [
        ("Dog, The", "The Dog"),
        ("Dog and a Cat, A", "A Dog and a Cat"),
        ("Dog, The (Chien, Le)", "The Dog (Le Chien)"),
        ("Bird, The (Oiseau, L' )", "The Bird (L'Oiseau)"),
        ("Dog, The (a.k.a. Dogs, a.k.a. Cats)", "The Dog (a.k.a. Dogs, a.k.a. Cats)"),
        ("Dogs, Cats", "Dogs, Cats"),
        ("Dogs, Cats, and Birds, The", "The Dogs, Cats, and Birds"),
        ("Dog (Chien", "Dog (Chien)"),
        ("Dog (Chien) Returns, The", "Dog (Chien) Returns, The"),
        ("Dog&#8230; (Hund&amp;Katz, Der)", "Dog… (Der Hund&Katz)"),
    ],
)
def test_articles_return_to_the_front(filed: str, natural: str) -> None:
    assert movielens._natural(filed) == natural


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n_users", "n_interactions", "n_items"),
    [("ml-100k", 943, 100_000, 1_682), ("ml-1m", 6_040, 1_000_209, 3_883)],
)
def test_the_real_data_sets_arrive_whole_and_clean(
    name: movielens.MovieLensName, n_users: int, n_interactions: int, n_items: int, tmp_path: Path
) -> None:
    # Fetched once and kept beside the project, so that the test runs again without a network; converted every time.
    kept = load_movielens(name, KEPT).items.parent
    shutil.copytree(kept, tmp_path / name, ignore=shutil.ignore_patterns("*.parquet"))
    found = load_movielens(name, tmp_path)
    interactions, report = read_interactions(found.interactions)
    items, item_report = read_items(found.items)
    _, known_report = check_items_known(interactions, items)
    assert (*report.findings, *item_report.findings, *known_report.findings) == ()
    assert (interactions["user_id"].nunique(), len(interactions), len(items)) == (
        n_users,
        n_interactions,
        n_items,
    )
    assert not items["title"].str.contains(r", (?:The|An?)$|&#|\(\d{4}\)").any()
