"""The benchmark rows that train and draw, and that the bare loops play the same games as medaug."""

import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from medaug.data.cache.prepare import SliceCache
from medaug.synthesis.synthesize import synthesize
from tests.support.toy import Toy

SMALL: dict[str, dict[str, Any]] = {
    "spatial_vaegan": {"width": 8, "prior": {"width": 16}},
    "vaegan author": {"latent_dim": 8},
    "wgan_gp modern": {"width": 8, "critic_turns": 2},
    "wgan_gp author": {"width": 8, "critic_turns": 2},
}


def test_wait_reports_shares_of_a_real_run(row: Any, phantom_cache: Path, tmp_path: Path) -> None:
    wait = row("training")
    model = {"width": 8, "prior": {"width": 16, "steps": 2}}
    told = wait.waited(SliceCache.open(phantom_cache), model, 64, tmp_path / "run")
    (claim,) = wait.wait_claims({"tiny": told})
    assert told["images"] == 64
    assert claim.value == pytest.approx(100 * told["waited_seconds"] / told["seconds"])
    assert 0 < claim.value < 100


def test_train_takes_the_median_of_paired_ratios(row: Any) -> None:
    told = {"medaug_images_per_s": [90, 50, 99], "bare_images_per_s": [100, 100, 100]}
    (claim,) = row("training").train_claims({"game": told})
    assert claim.value == pytest.approx(0.9)


def test_train_measures_both_sides(row: Any, phantom_cache: Path, tmp_path: Path) -> None:
    train = row("training")
    assert len(train.GAMES) == 6
    trainer = train.set_up(
        SliceCache.open(phantom_cache), SMALL["spatial_vaegan"], tmp_path / "run", batch=4
    )
    told = train.compared(trainer, 2, 0.01)
    assert len(told["medaug_images_per_s"]) == len(told["bare_images_per_s"]) == 2
    assert min(told["medaug_images_per_s"] + told["bare_images_per_s"]) > 0


@pytest.mark.parametrize(
    "name",
    [
        "spatial_vaegan, autoencode",
        "spatial_vaegan, sharpen",
        "spatial_vaegan, prior",
        "vaegan author",
        "wgan_gp modern",
        "wgan_gp author",
    ],
)
def test_bare_loops_play_the_same_game(
    name: str, row: Any, phantom_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same start, same batch, same draws: two rounds must end at the same weights."""
    train, loops = row("training"), row("loops")
    wishes = {**train.GAMES[name], **SMALL[name.partition(",")[0]]}
    if name == "vaegan author":
        wishes["margin"] = 10.0  # a gate that never closes: the bare loop has none
    trainer = train.set_up(
        SliceCache.open(phantom_cache), wishes, tmp_path / "run", batch=4, precision="float32"
    )
    model, turns = trainer.model, trainer.model.turns(0.0)
    batch = trainer.feed.batch(0, 4 * turns[0].batches)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    twin = train.build(
        trainer.config.model.name, trainer.config.model.arguments, trainer.feed.shape
    )
    twin.load_state_dict(before)
    loop = loops.bare(twin.train(), batch.x, "float32")
    assert loop.images == sum(len(batch.x) for _ in turns)

    totals: dict[str, float] = {}

    def noted(moves: Any) -> Any:
        totals.update({player: move.total().item() for player, move in moves.items()})
        return gradients(moves)

    torch.manual_seed(0)
    for _ in range(2):
        losses = loop.step()
    torch.manual_seed(0)
    gradients = trainer.players.gradients
    with monkeypatch.context() as patch:
        patch.setattr(trainer.players, "gradients", noted)
        patch.setattr("medaug.training.step.torch.manual_seed", lambda seed: None)
        for _ in range(2):
            for turn in turns:
                trainer.players.turn(turn, batch, 0, model.optim(0.0))

    for player, loss in losses.items():
        assert float(loss) == pytest.approx(totals[player], rel=1e-4)
    moved = 0
    for key, ours in model.state_dict().items():
        apart, way = ours - twin.state_dict()[key], (ours - before[key]).float().abs().mean()
        # a slope that is all but zero may round to either sign, and both optimisers step by signs
        assert apart.float().abs().mean() <= 0.01 * way, key
        moved += bool(way)
    assert moved


def test_synthesize_holds_both_accounts_of_writing_against_the_bound(row: Any) -> None:
    synthesize = row("drawing")
    figures = {
        "generate_alone": {"seconds": 10.0, "cpu_seconds": 18.0},
        "synthesize": {
            "seconds": 13.0,
            "generate_seconds": 12.5,
            "write_seconds": 0.5,
            "cpu_seconds": 20.0,
        },
        "peak_bytes": {"64": 500, "256": 505, "1024": 510},
    }
    told = synthesize.costs_of_writing(figures)
    assert told["cpu_seconds_of_writing"] == 2
    by_report, whole, spread = synthesize.synthesize_claims(told)
    assert (by_report.value, by_report.reached) == (pytest.approx(4), True)
    assert (whole.value, whole.reached) == (pytest.approx(30), False)
    assert (spread.value, spread.reached) == (pytest.approx(2), True)


def test_compiling_is_claimed_by_what_it_saves(row: Any) -> None:
    compiled = row("drawing")
    told = {
        "first_block_seconds": 60.0,
        "block_seconds": {"plain": [4.0, 4.4, 4.2], "compiled": [3.0, 2.9, 2.8]},
        "mean_error_hu": {"plain": 1.0, "compiled": 1.1},
        "block_size": 16,
    }
    assert compiled.gain(told) == pytest.approx(1.5)
    assert compiled.pays_back_after(told) == pytest.approx(60 / (1.3 / 16))
    warm = told | {"first_block_seconds": 6.0}
    assert [c.reached for c in compiled.compiled_claims(told, warm)] == [True, True, True, True]
    slower = told | {"block_seconds": {"plain": [1.0], "compiled": [1.1]}}
    assert compiled.pays_back_after(slower) == math.inf
    assert [c.reached for c in compiled.compiled_claims(slower, slower)] == [
        False,
        False,
        False,
        True,
    ]
    apart = told | {"mean_error_hu": {"plain": 1.0, "compiled": 1.3}}
    assert not compiled.compiled_claims(apart, warm)[-1].reached


def test_threads_are_claimed_against_the_best_other_number(row: Any) -> None:
    threads = row("training")
    assert list(threads.numbers(2).values()) == [0, 1, 4]
    told = {
        threads.OWN: [{"drawing": 10.0, "threads": 2}, {"drawing": 8.0, "threads": 2}],
        "1": [{"drawing": 6.0, "threads": 1}, {"drawing": 6.0, "threads": 1}],
        "4": [{"drawing": 9.0, "threads": 4}, {"drawing": 12.0, "threads": 4}],
    }
    (claim,) = threads.threads_claims(told)
    assert claim.value == pytest.approx(9 / 10.5)
    assert not claim.reached


def test_synthesize_times_a_real_generator(row: Any, tiny_run: Path, tmp_path: Path) -> None:
    synthesize = row("drawing")
    few = synthesize.with_few_steps(tiny_run / "model.safetensors", tmp_path / "few.safetensors")
    generator = synthesize.Generator.from_pretrained(few)
    assert generator.model.code.steps == synthesize.FEW_STEPS
    told = synthesize.write_too(generator, 3, tmp_path / "out")
    assert told["seconds"] == pytest.approx(told["generate_seconds"] + told["write_seconds"])
    assert synthesize.generate_alone(generator, 3)["cpu_seconds"] > 0


def test_writing_holds_the_whole_against_the_slower_part(row: Any) -> None:
    writing = row("drawing")
    figures = {
        "generate_alone": {"seconds": 10.0, "cpu_seconds": 18.0},
        "write_alone": {"seconds": 4.0, "cpu_seconds": 6.0},
        "both": {"seconds": 11.0, "cpu_seconds": 25.0},
    }
    told = writing.overlap(figures)
    assert told["total_over_sum"] == pytest.approx(11 / 14)
    assert told["cores_that_writing_alone_uses"] == 1.5
    (claim,) = writing.writing_claims(told)
    assert (claim.value, claim.reached) == (pytest.approx(1.1), True)
    figures["write_alone"]["seconds"], figures["both"]["seconds"] = 12.0, 15.0
    assert not writing.writing_claims(writing.overlap(figures))[0].reached


def test_writing_replays_what_a_generator_drew(row: Any, tiny_run: Path, tmp_path: Path) -> None:
    writing = row("drawing")
    generator = writing.Generator.from_pretrained(tiny_run)
    told = writing.overlapping(generator, 20, tmp_path)
    assert all(time > 0 for part in told.values() for time in part.values())
    first, again = (
        nibabel.load(tmp_path / "alone" / f"imagesTr/syn_{i:06d}_0000.nii.gz").get_fdata()
        for i in (3, 3 + 16)
    )
    assert not np.array_equal(first, again)
    both = nibabel.load(tmp_path / "both" / "imagesTr/syn_000003_0000.nii.gz").get_fdata()
    assert np.array_equal(first, both)
    replay = writing.Replay(generator, [generator.block(0, uncertainty=1)])
    assert [sample.index for sample in replay.block(2)] == list(range(32, 48))


def test_pipeline_takes_the_median_of_paired_ratios(row: Any) -> None:
    told = {"without": [100.0, 50.0, 200.0], "p = 1": [90.0, 20.0, 170.0]}
    (claim,) = row("drawing").pipeline_claims(told)
    assert (claim.value, claim.reached) == (pytest.approx(0.85), True)


def test_pipeline_runs_both_ways_from_real_files(
    row: Any, phantom_cache: Path, tmp_path: Path
) -> None:
    pipeline = row("drawing")
    files = pipeline.write_slices(SliceCache.open(phantom_cache), tmp_path / "slices")
    assert len(files) > 20
    assert all(image.exists() and label.exists() for image, label in files)
    bank = tmp_path / "bank"
    synthesize(Toy(size=32), 16, bank, uncertainty=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "PROBABILITIES", (0.0,))
        told = pipeline.pipelines(files, bank, 48, 1)
    assert set(told) == {"without", "p = 0"}
    assert all(len(speeds) == 1 and speeds[0] > 0 for speeds in told.values())
