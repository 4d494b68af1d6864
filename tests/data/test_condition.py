"""What a sample is told: what its user fixed, and the rest by address."""

import numpy as np
import pytest
import torch

from medaug.core.errors import ConfigError
from medaug.data.feed.condition import Condition, heights

CLOTHES = Condition(("shirt", "coat", "bag"))
ORGANS = Condition((), ("liver", "height"), ((0.0, -0.5), (1.0, 0.2), (1.0, 0.25), (0.0, 0.9)))


def test_classes_take_turns_unless_one_is_fixed() -> None:
    at = CLOTHES.at(0, range(6))
    assert at is not None
    assert torch.equal(at, torch.eye(3).repeat(2, 1))
    fixed = CLOTHES.at(0, range(6), CLOTHES.fix({"class": "coat"}))
    assert fixed is not None
    assert torch.equal(fixed, torch.eye(3)[1].expand(6, 3))


def test_attributes_and_height_come_together_from_one_row() -> None:
    told = [tuple(ORGANS.of(0, i, {}).values()) for i in range(64)]
    assert set(told) == set(ORGANS.rows)
    assert told == [tuple(ORGANS.of(0, i, {}).values()) for i in range(64)]
    assert told != [tuple(ORGANS.of(1, i, {}).values()) for i in range(64)]


def test_what_is_not_fixed_fits_what_is() -> None:
    fixed = ORGANS.fix({"liver": "1"})
    assert {ORGANS.of(0, i, fixed)["height"] for i in range(32)} == {0.2, 0.25}
    fixed = ORGANS.fix({"height": "-0.45"})
    assert {tuple(ORGANS.of(0, i, fixed).values()) for i in range(32)} == {(0.0, -0.45)}


def test_class_comes_before_the_rest() -> None:
    both = Condition(("a", "b"), ORGANS.names, ORGANS.rows)
    row = both.at(0, [1], both.fix({"height": 0.5, "liver": 0, "class": 0}))
    assert row is not None
    assert row.tolist() == [[1.0, 0.0, 0.0, 0.5]]
    assert list(both.fix({"height": 0.5, "class": "b"}).items()) == [("class", 1), ("height", 0.5)]
    assert both.dim == 4
    assert Condition().at(0, range(3)) is None


@pytest.mark.parametrize(
    ("condition", "asked", "message"),
    [
        (
            ORGANS,
            {"spleen": 1},
            "condition 'spleen' is not known; this model was conditioned on liver, height",
        ),
        (
            CLOTHES,
            {"height": 1},
            "condition 'height' is not known; this model was conditioned on class",
        ),
        (
            Condition(),
            {"class": 1},
            "condition 'class' is not known; this model was not conditioned",
        ),
        (
            CLOTHES,
            {"class": "spoon"},
            "class 'spoon' is not known (known: shirt, coat, bag, or 0 to 2)",
        ),
        (CLOTHES, {"class": 3}, "class '3' is not known (known: shirt, coat, bag, or 0 to 2)"),
        (CLOTHES, {"class": -1}, "class '-1' is not known (known: shirt, coat, bag, or 0 to 2)"),
        (Condition(("0", "1")), {"class": "7"}, "class '7' is not known (known: 0, 1)"),
        (ORGANS, {"liver": "0.5"}, "condition liver must be 0 or 1, got 0.5"),
        (ORGANS, {"height": "high"}, "condition height must be a number from -1 to 1, got high"),
        (ORGANS, {"height": 1.5}, "condition height must be a number from -1 to 1, got 1.5"),
    ],
)
def test_what_is_not_a_condition_is_refused(
    condition: Condition, asked: dict[str, str | float], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        condition.fix(asked)
    assert str(caught.value) == message


def test_height_runs_over_the_usable_slices_and_stays_beyond() -> None:
    usable = np.array([False, True, False, True, True, True, False])
    assert heights(usable) == pytest.approx([-1, -1, -0.5, 0, 0.5, 1, 1])
    assert heights(np.ones(3, bool)) == pytest.approx([-1, 0, 1])
    assert heights(np.zeros(3, bool)) == pytest.approx([-1, 0, 1])
    assert heights(np.array([False, True])) == pytest.approx([-1, 0])
    assert heights(np.ones(1, bool)) == pytest.approx([0])
