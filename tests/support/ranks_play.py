"""What several processes play together, and one alone.

python -m tests.support.ranks_play OUT CACHE
"""

import json
import sys
from dataclasses import fields
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from medaug.core.config import resolve
from medaug.models import build
from medaug.models.base import Batch, Model, Shape
from medaug.runtime import collectives
from medaug.runtime.distributed import Ranks, join
from medaug.training.checkpoint import pack
from medaug.training.step import Players
from tests.support.ranks_fit import run
from tests.support.script_modules import modules_of
from tests.support.small_models import LAYOUT, PROGRESS, SHAPES, SMALL, UNLABELED, batch, make

CPU = torch.device("cpu")
ROWS = 8
STEPS = 200
TURNS = {
    **{f"{name}-{preset}": (name, preset, SHAPES[number % 2])
       for number, (name, preset) in enumerate(SMALL)},
    "layout": ("spatial_vaegan", "modern", LAYOUT),
    "unlabeled": ("spatial_vaegan", "modern", UNLABELED),
}  # fmt: skip
TRACED = Shape(1, 1, 16, cond_dim=3, classes=3)
SMALLEST = {"preset": "author", "width": 4, "latent_dim": 4, "network": "dcgan"}
TRACES = {
    "vae": {"name": "vae", "likelihood": "learned", **SMALLEST},
    "vaegan": {"name": "vaegan", **SMALLEST},
}
"""Both with batch norm; the first with a running mean, the second with gates."""


def part(whole: Batch, ranks: Ranks) -> Batch:
    """This process's rows."""
    count = len(whole.x) // ranks.world
    mine = slice(ranks.rank * count, (ranks.rank + 1) * count)
    values = (getattr(whole, field.name) for field in fields(Batch))
    return Batch(*(None if value is None else value[mine] for value in values))


def begin(model: Model, ranks: Ranks) -> tuple[Model, Players]:
    """A model of these processes, and its game."""
    if ranks.world > 1:
        collectives.share_norms(model)
    return model, Players(model, 0, CPU, "float32")


def seen(shape: Shape, count: int, position: int, ranks: Ranks) -> Batch:
    """This process's rows of the batch at ``position``."""
    torch.manual_seed(position)
    return part(batch(shape, count), ranks)


def alike(game: Players, ranks: Ranks) -> bool:
    """Whether all processes hold the same bits."""
    mine = int(sha256(pack(game.tensors())).hexdigest()[:15], 16)
    return ranks.all_max(mine) == -ranks.all_max(-mine)


def turns(ranks: Ranks) -> dict[str, Any]:
    """Terms and gradients of every turn, each from the first weights; and whether ranks agree."""
    found: dict[str, Any] = {}
    for case, (name, preset, shape) in TURNS.items():
        model, game = begin(make(name, preset, shape), ranks)
        start = {key: value.clone() for key, value in model.state_dict().items()}
        gradients: dict[str, torch.Tensor] = {}
        place = [""]

        def kept(player: str, step: Any, taken: Any, *how: Any,
                 kept_in: Any = gradients, place: Any = place) -> None:  # fmt: skip
            kept_in[place[0] + player] = torch.cat([each.flatten() for each in taken])
            step(taken, *how)

        for player, stepper in game.optimizers.items():
            stepper.step = partial(kept, player, stepper.step)  # type: ignore[method-assign]
        same, position = True, 0
        for progress in PROGRESS:
            for turn in {t.play.__name__: t for t in model.turns(progress)}.values():
                count = ROWS * turn.batches
                place[0] = f"{case}/{progress}/{turn.play.__name__}/"
                game.turn(turn, seen(shape, count, position, ranks), position,
                          model.optim(progress))  # fmt: skip
                same &= alike(game, ranks)
                model.load_state_dict(start)
                position += count
        found |= {f"gradient/{key}": value for key, value in gradients.items()}
        found |= {f"term/{case}/{k}": torch.tensor(v) for k, v in game.loss_log.means().items()}
        found[f"same/{case}"] = torch.tensor(same)
    return found


def trace(ranks: Ranks) -> dict[str, Any]:
    """Every term of ``STEPS`` rounds; and after how many updates all ranks held the same bits."""
    found: dict[str, Any] = {}
    for case, asked in TRACES.items():
        torch.manual_seed(0)
        arguments = resolve({"model": asked}).model.arguments
        model, game = begin(build(asked["name"], arguments, TRACED), ranks)
        rows, same, updates, position = [], 0, 0, 0
        for step in range(STEPS):
            progress = step / STEPS
            for turn in model.turns(progress):
                count = ROWS * turn.batches
                whole = seen(TRACED, count, position, ranks)
                game.turn(turn, whole, position, model.optim(progress))
                updates += 1
                same += alike(game, ranks)
                position += count
            rows.append(game.loss_log.means())
        keys = sorted({key for row in rows for key in row})
        values = [[row.get(key, float("nan")) for key in keys] for row in rows]
        found[f"trace/{case}"] = torch.tensor(values, dtype=torch.float64)
        found[f"same/{case}"] = torch.tensor([same, updates])
    return found


def play(what: Any, out: Path) -> int:
    """Play and leave what was found by this process in a file of its own."""
    with join(CPU) as ranks:
        found = what(ranks)
    torch.save(found, out / f"{what.__name__}-{ranks.rank}-of-{ranks.world}")
    return 0


def main(out: Path, cache: Path) -> None:
    """All of it; statuses go to ``statuses.json``."""
    told = {}
    with modules_of("benchmarks") as module:
        launch = module("processes").launch
    for world in (1, 2):
        for what in (turns, trace):
            told[f"{what.__name__}-{world}"] = launch(partial(play, what, out), world)
        told[f"whole-{world}"] = launch(partial(run, cache, out / f"whole-{world}"), world)
    told["stopped"] = launch(partial(run, cache, out / "stopped", "stopped"), 2)
    told["resumed"] = launch(partial(run, cache, out / "stopped"), 2)
    (out / "statuses.json").write_text(json.dumps(told))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
