"""Which patients, people or pictures are held out: by name and seed, never by index."""

from collections.abc import Mapping, Sequence

from medaug.core import seeds


def split_patients(
    ids: Sequence[str],
    holdout: float,
    seed: int,
    known: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, list[str]]:
    """Hold out the patients whose names rank lowest under ``seed``; order and count play no part.

    Patients of an earlier split, ``known``, stay on their side, so that nobody who was held out
    enters training when scans are added.

    Returns:
        ``train`` and ``heldout``, the latter ``round(holdout * len(ids))`` patients, or fewer
        where the earlier split leaves no more to choose from.
    """
    known = known or {}
    there, settled = set(ids), {id for side in known.values() for id in side}
    kept = [id for id in known.get("heldout", ()) if id in there]
    free = [id for id in ids if id not in settled]
    ranked = sorted(free, key=lambda id: seeds.derive(seed, "split", id))
    out = {*kept, *ranked[: max(round(holdout * len(ids)) - len(kept), 0)]}
    return {"train": sorted(there - out), "heldout": sorted(out)}
