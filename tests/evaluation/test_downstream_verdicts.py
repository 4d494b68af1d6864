"""Who is helped: intervals over subsets and cases, rivals, and the noise of patients."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from medaug.evaluation.downstream.scores import METRICS
from medaug.evaluation.downstream.statistics import Interval, hurt, interval, resampled, verdict
from medaug.evaluation.downstream.table import table


def test_one_subset_gives_the_percentile_bootstrap_of_scipy() -> None:
    values = np.random.default_rng(0).gamma(2, 0.05, (1, 30))
    mine = interval(values, 1, 40_000)
    theirs = stats.bootstrap(
        (values[0],), np.mean, method="percentile", n_resamples=40_000, rng=np.random.default_rng(2)
    ).confidence_interval
    error = values.std() / np.sqrt(30)
    assert mine.mean == pytest.approx(values.mean(), abs=1e-12)
    assert (mine.low, mine.high) == pytest.approx(tuple(theirs), abs=0.05 * error)


def test_subsets_and_cases_are_both_drawn_anew() -> None:
    """The bootstrap's variance has a closed form: moments of two multinomials."""
    values = np.random.default_rng(3).normal(size=(3, 8)) + np.array([[0.0], [1.0], [3.0]])
    r, c = values.shape
    rows = 1 + np.eye(r) - 1 / r
    columns = 1 + np.eye(c) - 1 / c
    second = np.einsum("ij,ik,jl,kl->", values, rows, columns, values) / (r * c) ** 2
    expected = second - values.mean() ** 2
    drawn = resampled(values, 0, 200_000)
    assert drawn.var() == pytest.approx(expected, rel=0.02)
    assert drawn.mean() == pytest.approx(values.mean(), abs=0.01)
    cases_alone = values.mean(0).var() / c
    assert expected > 2 * cases_alone


def test_hurt_counts_cases_by_their_mean_over_subsets() -> None:
    difference = np.array([[-0.05, -0.03, 0.1, -0.02], [0.02, -0.03, -0.3, -0.02]])
    assert hurt(difference, 0.02) == 2
    assert hurt(difference, 0.05) == 1


@pytest.mark.parametrize(
    ("standard", "rival", "says"),
    [
        ((0.01, 0.05), (0.001, 0.02), "helps"),
        ((0.01, 0.05), (-0.001, 0.02), "not shown"),
        ((0.0, 0.05), (0.01, 0.02), "not shown"),
        ((-0.05, -0.01), (0.01, 0.02), "hurts"),
        ((0.01, 0.05), None, "not judged"),
        (None, (0.01, 0.05), "not judged"),
    ],
)
def test_help_is_said_only_where_both_intervals_exclude_zero(
    standard: Any, rival: Any, says: str
) -> None:
    of = [None if ends is None else Interval(sum(ends) / 2, *ends) for ends in (standard, rival)]
    assert verdict(*of) == says


def rows(levels: dict[str, float], noise: float = 0.01, n: int = 2) -> dict[str, Any]:
    """A study's content with a mean Dice for each arm, on ten cases and three subsets."""
    rng = np.random.default_rng(0)
    found = []
    for arm, level in levels.items():
        for subset in range(3):
            cases = {
                f"p{k}": {m: {"organ": level + 0.01 * k + noise * rng.normal()} for m in METRICS}
                for k in range(10)
            }
            found.append({"arm": arm, "n": n, "subset": subset, "patients": [], "cases": cases,
                          "skipped": None, "used": [arm], "images": {"student": 8}})  # fmt: skip
    settings = {"seed": 0, "resamples": 500, "hurt": 0.02, "steps": 1, "batch": 8}
    took = dict.fromkeys(levels, 2.0)
    return {"settings": {"downstream": settings}, "rows": found, "seconds": took}


def test_an_arm_is_held_against_the_best_of_its_rivals() -> None:
    levels = {"standard": 0.7, "cutmix": 0.71, "carvemix": 0.76, "synthetic-joint": 0.75}
    found = {row.arm: row for row in table(rows(levels)).rows}
    mine = found["synthetic-joint"]
    assert mine.versus_rival is not None
    assert mine.versus_standard is not None
    assert mine.versus_rival.against == "carvemix"
    assert mine.versus_standard.differences["dice"].above
    assert mine.verdict == "not shown"
    assert found["carvemix"].verdict == found["standard"].verdict == ""
    better = {row.arm: row for row in table(rows({**levels, "synthetic-joint": 0.8})).rows}
    assert better["synthetic-joint"].verdict == "helps"
    assert better["synthetic-joint"].versus_rival.differences["dice"].mean == pytest.approx(
        0.04, abs=0.01
    )


def test_pseudo_labels_are_a_rival_of_the_arm_that_sees_the_same_scans() -> None:
    levels = {"standard": 0.7, "cutmix": 0.71, "pseudo-labels": 0.8, "synthetic-unlabeled": 0.76}
    levels["synthetic-joint"] = 0.76
    found = {row.arm: row for row in table(rows(levels)).rows}
    assert found["synthetic-unlabeled"].verdict == "not shown"
    assert found["synthetic-joint"].verdict == "helps"


def test_an_arm_without_rivals_is_not_judged_and_a_skipped_one_says_why() -> None:
    content = rows({"standard": 0.7, "synthetic-joint": 0.9})
    for row in content["rows"]:
        if row["arm"] == "standard" and row["subset"] == 2:
            row |= {"skipped": "there was no reason", "cases": {}}
    made = table(content)
    standard, mine = made.rows
    assert (standard.subsets, mine.subsets, mine.verdict) == (2, 3, "not judged")
    assert mine.versus_standard is not None
    assert mine.versus_standard.subsets == 2
    text = made.markdown()
    assert "2, standard: there was no reason." in text
    assert "| synthetic-joint |" in text


def test_pairs_take_the_noise_of_patients_out() -> None:
    """Patients differ by far more than the arms do, and yet the difference is seen."""
    content = rows({"standard": 0.5, "cutmix": 0.5, "synthetic-joint": 0.53}, noise=0.001)
    for row in content["rows"]:
        for name, scores in row["cases"].items():
            scores["dice"]["organ"] -= 0.04 * int(name[1:])
    mine = table(content).rows[-1]
    assert mine.scores["dice"].high - mine.scores["dice"].low > 0.1
    assert mine.verdict == "helps"
