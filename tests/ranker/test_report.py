"""A report says what the evaluation says, in a page that fetches nothing, runs nothing and is the same each time."""

import re
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from report_page import Page
from scipy import sparse

from encoders.errors import ExtraError, InputError
from ranker.evaluation import (
    bootstrap_mean,
    compare_systems,
    history_groups,
    per_user_metrics,
    write_comparison,
    write_report,
)
from ranker.evaluation.evaluate import CANDIDATES, ENGINE, Evaluation

N_USERS, N_ITEMS = 40, 60
EVIL = "<script>alert('x')</script> & $\\frac{1}{$"
GROUPS = history_groups(np.arange(N_USERS) % 4 * 8, bounds=[10])
# XML knows these names, and nobody fetches them
NAMESPACES = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def evaluation(systems=("als", CANDIDATES, ENGINE), cutoffs=(5, 10), users=range(N_USERS), seed=3):
    """Systems of random lists, the later ones with more of what is relevant in front."""
    rng = np.random.default_rng(0)
    liked = rng.random((N_USERS, N_ITEMS)) < 0.08
    liked[np.arange(N_USERS), rng.integers(0, N_ITEMS, N_USERS)] = True
    lists, coverage = {}, {}
    for number, name in enumerate(systems):
        ranked = np.argsort(-(rng.random(liked.shape) + 0.3 * number * liked), axis=1)[:, : max(cutoffs)]
        lists[name] = per_user_metrics(ranked, sparse.csr_array(liked), cutoffs).assign(user_id=[*users])
        coverage[name] = 0.25 + 0.01 * number
    return Evaluation(lists, coverage, 2, seed)


def report(folder, *args, name="report.html", **kwargs):
    path = folder / name
    write_report(path, *args, **{"title": "A title", "described": "leave-one-out, holdout 1", **kwargs})
    return path


@pytest.fixture(scope="module")
def found():
    return evaluation()


@pytest.fixture(scope="module")
def path(found, tmp_path_factory):
    beyond = pd.DataFrame({"novelty@10": [3.5, 2.25, np.nan]}, index=list(found.lists))
    return report(
        tmp_path_factory.mktemp("report"), found, slices={"length of the history": GROUPS}, beyond=beyond,
        details={"Items": "60"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(path):
    return Page(path)


def test_means_at_every_cut_off_are_the_evaluations_and_the_best_stand_out(found, page) -> None:
    for k in (5, 10):
        names = [name for name in found.summary if name.endswith(f"@{k}") and name != "coverage@10"]
        expected = found.summary[names]
        pd.testing.assert_frame_equal(page.table(f"At cut-off {k}"), expected.map("{:.4f}".format), check_dtype=False)
        best = [tuple(cell) for cell in np.argwhere((expected == expected.max()).to_numpy())]
        assert page.best(f"At cut-off {k}") == best


def test_intervals_are_the_evaluations(found, page) -> None:
    table = page.table("Mean and 95 % interval")
    for name in found.lists:
        interval = found.interval(name)
        assert [*table.loc[name]] == [f"{value:.4f}" for value in (interval.mean, interval.low, interval.high)]


def test_differences_from_the_baseline_are_the_evaluations(found, page) -> None:
    assert f"ndcg@10 against {CANDIDATES}" in page.headings
    table = page.table(f"Each system (after) against {CANDIDATES} (before)")
    expected = found.comparisons(CANDIDATES).set_index("system")
    assert [*table.index] == [*expected.index] == ["als", ENGINE]
    for name, row in expected.iterrows():
        assert [*table.loc[name]] == [
            f"{row['mean_before']:.4f}", f"{row['mean_after']:.4f}", f"{row['difference']:+.4f}", f"{row['low']:+.4f}",
            f"{row['high']:+.4f}", f"{row['relative']:+.1%}", f"{row['p_value']:.4f}", f"{row['p_holm']:.4f}",
            str(N_USERS),
        ]  # fmt: skip


def test_another_baseline_can_be_chosen(found, tmp_path) -> None:
    page = Page(report(tmp_path, found, baseline="als"))
    assert [*page.table("Each system (after) against als (before)").index] == [CANDIDATES, ENGINE]


def test_users_slices_and_measures_beside_accuracy_are_those_given(found, page) -> None:
    users = page.table("Users by system")
    values = found.per_user[ENGINE]["ndcg@10"]
    assert [*users.loc[ENGINE]] == [
        f"{(values == 0).mean():.1%}",
        *(f"{q:.4f}" for q in values.quantile([0.5, 0.75, 0.9])),
    ]
    sliced = page.table("Mean (95 % interval)")
    assert [*sliced.columns] == ["new (10 users)", "1 to 9 events (10 users)", "10 events and more (20 users)"]
    for name, lists in found.lists.items():
        expected = [bootstrap_mean(lists["ndcg@10"][group == GROUPS].to_numpy(), seed=3) for group in GROUPS.categories]
        assert [*sliced.loc[name]] == [f"{one.mean:.4f} ({one.low:.4f} to {one.high:.4f})" for one in expected]
    beyond = page.table("Of each system's lists")
    assert [*beyond["coverage@10"]] == [f"{value:.4f}" for value in found.coverage.values()]
    assert [*beyond["novelty@10"]] == ["3.5000", "2.2500", "–"]


def test_the_head_says_what_was_measured(page) -> None:
    told = dict(zip(page.texts, page.texts[1:], strict=False))
    assert {"A title", "leave-one-out, holdout 1"} <= {*page.texts}
    facts = {"Lists": "40", "Users": "40", "Users left out": "2", "Seed of the bootstrap": "3", "Items": "60"}
    assert {name: told[name] for name in facts} == facts
    assert f"numpy {np.__version__}" in told["Libraries"]


def test_nothing_is_fetched_and_nothing_runs(path, page) -> None:
    text = path.read_text(encoding="utf-8")
    assert page.fetched() == []
    assert {*re.findall(r"https?:[^\"'\s<>)]*", text)} == NAMESPACES
    assert {*re.findall(r"url\((.)", text)} == {"#"}
    assert "@import" not in text
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "foreignobject"} & {
        t for t, _ in page.tags
    }
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_plots_stand_within_the_page(path, page) -> None:
    svgs = re.findall(r"<svg.*?</svg>", path.read_text(encoding="utf-8"), re.DOTALL)
    described = [of for _, of in page.tags if of.get("role") == "img"]
    assert len(svgs) == len(described) == 5
    assert all(len(of["aria-label"]) > 40 for of in described)
    assert len({of["aria-label"] for of in described}) == 5
    ids = [of["id"] for _, of in page.tags if "id" in of]
    assert len(ids) == len({*ids}) > 0  # a page has one space of ids for all plots
    for svg in svgs:
        root = ElementTree.fromstring(svg)
        own = {node.get("id") for node in root.iter()}
        assert {*re.findall(r'(?:url\(|href=")#(\w+)', svg)} <= own
        assert not list(root.iter("{http://www.w3.org/2000/svg}style"))  # it would rule the whole page
        colours = {*re.findall(r"(?:fill|stroke): ?([^;\"]+)", svg)}
        assert all(colour in ("none", "currentColor") or colour.startswith("var(--") for colour in colours), colours
        texts = "".join(root.itertext())
        assert "0 to 1" in texts or "difference in" in texts or "ranks" in texts


def test_the_colours_that_plots_take_are_set_for_light_and_dark(path) -> None:
    text = path.read_text(encoding="utf-8")
    light, dark = text.split("prefers-color-scheme: dark", 1)
    for name in {*re.findall(r"var\((--[\w-]+)", text)}:
        assert f"{name}:" in light
        assert f"{name}:" in dark


def test_the_same_evaluation_gives_the_same_bytes(found, path, tmp_path) -> None:
    before = dict(mpl.rcParams)
    kwargs = {"slices": {"length of the history": GROUPS}}
    pages = [report(tmp_path, found, name=f"{number}.html", **kwargs).read_bytes() for number in range(2)]
    assert pages[0] == pages[1] != path.read_bytes()
    assert dict(mpl.rcParams) == before


def test_names_are_text_wherever_they_stand(tmp_path) -> None:
    found = evaluation((EVIL, "日本語 " * 20, ENGINE))
    groups = ["</text></svg><script>1</script>"] * 20 + ["b"] * 20
    page = Page(
        report(tmp_path, found, title=f"</title>{EVIL}", described=EVIL, baseline=EVIL, slices={EVIL: groups},
               details={EVIL: '"><script>'})
    )  # fmt: skip
    assert "script" not in {tag for tag, _ in page.tags}
    assert EVIL in page.table("At cut-off 10").index
    assert f"</title>{EVIL}" in page.texts
    assert {EVIL, '"><script>', f"ndcg@10 by {EVIL}"} <= {*page.texts}
    assert f"{groups[0]} (20 users)" in page.table("Mean (95 % interval)").columns
    assert any(text.startswith("<script>alert('x')</script>") and text.endswith("…") for text in page.texts)


def test_one_system_is_compared_with_none(tmp_path) -> None:
    found = evaluation(("peer",), cutoffs=(10,))
    page = Page(report(tmp_path, found))
    assert page.headings == ["All metrics", "ndcg@10 and how sure it is", "ndcg@10 of single users", "Beyond accuracy"]
    assert page.table("Mean and 95 % interval").loc["peer", "mean"] == f"{found.lists['peer']['ndcg@10'].mean():.4f}"


def test_many_systems_are_drawn_apart(tmp_path) -> None:
    path = report(tmp_path, evaluation([f"system {number}" for number in range(9)], cutoffs=(10, 20)))
    assert len(Page(path).table("At cut-off 20")) == 9
    assert len({*re.findall(r"stroke-dasharray: [^;]+", path.read_text(encoding="utf-8"))}) == 1  # colours are seven


def test_a_group_of_nobody_is_left_out_and_one_of_a_single_user_has_no_interval(found, tmp_path) -> None:
    groups = pd.Categorical(["a"] + ["b"] * 30 + [None] * 9, ["nobody", "a", "b"])
    path = report(tmp_path, found, slices={"odd": groups})
    table = Page(path).table("Mean (95 % interval)")
    assert [*table.columns] == ["a (1 user)", "b (30 users)"]
    assert table.loc[ENGINE, "a (1 user)"] == f"{found.lists[ENGINE]['ndcg@10'].iloc[0]:.4f} (– to –)"
    assert "nan" not in re.findall(r"\w+", path.read_text(encoding="utf-8").lower())


def test_users_with_several_lists_are_resampled_with_all_of_theirs(tmp_path) -> None:
    users = np.repeat(range(8), 5)
    found = evaluation(users=users)
    groups = np.array(["a", "b"] * 20)
    page = Page(report(tmp_path, found, slices={"half": [*groups]}))
    for group in ("a", "b"):
        within = groups == group
        one = bootstrap_mean(found.lists["als"]["ndcg@10"][within].to_numpy(), seed=3, users=users[within])
        expected = f"{one.mean:.4f} ({one.low:.4f} to {one.high:.4f})"
        assert page.table("Mean (95 % interval)").loc["als", f"{group} (8 users)"] == expected
    told = dict(zip(page.texts, page.texts[1:], strict=False))
    assert (told["Lists"], told["Users"]) == ("40", "8")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"baseline": "text"}, "No system 'text' was measured, only als"),
        ({"slices": {"a": ["x"]}}, "1 groups for 40 users"),
        ({"slices": {"a": [None] * N_USERS}}, "No user is in a group"),
    ],
)
def test_what_cannot_be_reported_is_one_line_and_no_file(found, tmp_path, kwargs, message) -> None:
    with pytest.raises(InputError, match=message):
        report(tmp_path, found, **kwargs)
    assert [*tmp_path.iterdir()] == []


def test_metrics_at_ten_are_needed(tmp_path) -> None:
    with pytest.raises(InputError, match="no ndcg@10"):
        report(tmp_path, evaluation(cutoffs=(5, 20)))


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_names_its_extra(found, tmp_path, package, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(ExtraError, match=rf'{package}, which is not installed.*pip install "hybrid-ranker\[report\]"'):
        report(tmp_path, found)


def test_a_comparison_is_reported_by_metric(tmp_path) -> None:
    values = {name: table["ndcg@10"].to_numpy() for name, table in evaluation().per_user.items()}
    compared = [compare_systems(values, "als", seed=0).assign(metric=metric) for metric in ("ndcg@10", "hr@10")]
    path = tmp_path / "compared.html"
    write_comparison(path, pd.concat(compared), title="b against a", described="x", details={"Before": "a"})
    page = Page(path)
    assert page.headings == ["ndcg@10", "hr@10"]
    for nth, part in enumerate(compared):
        table = page.table("Each system before and after", nth)
        assert [*table["difference"]] == [f"{value:+.4f}" for value in part["difference"]]
        assert [*table["p, Holm"]] == [f"{value:.4f}" for value in part["p_holm"]]
    assert page.fetched() == []
