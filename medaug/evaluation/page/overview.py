"""Show what the slices of a report look like: synthetic, training and held-out ones."""

import numpy as np
import numpy.typing as npt

from medaug.evaluation.slices.evidence import Evidence, SliceSet
from medaug.runtime.pictures import OUTLINE, Picture, grey, outline, shaded, upright

SHOWN = 8

Pixels = npt.NDArray[np.uint8]


def overview(evidence: Evidence) -> list[Picture]:
    """Make sample grids, and pictures of the spread of alternatives where there are some."""
    kinds = {
        "Synthetic": evidence.synthetic,
        "Training": evidence.train,
        "Held out": evidence.heldout,
    }
    window = f"{evidence.window_hu[0]:g} to {evidence.window_hu[1]:g} {evidence.modality.unit}"
    picked = {name: evenly(slices, SHOWN, evidence.seed) for name, slices in kinds.items()}
    masks = any(slices.labels is not None for slices in kinds.values())
    pictures = [
        Picture(
            "Synthetic and real slices",
            f"Drawn at random, not chosen; {window}, anterior up, the patient's right on the left"
            + ("; masks outlined." if masks else "."),
            [seen(slices, evidence.window_hu) for slices in picked.values()],
            [f"{name} slices" for name in picked],
        )
    ]
    return pictures + spread(picked["Synthetic"], evidence.window_hu)


def spread(slices: SliceSet, window_hu: tuple[float, float]) -> list[Picture]:
    """The slices above the spread of their alternatives and the entropy of their votes."""
    rows, names = [seen(slices, window_hu)], ["Synthetic slices"]
    scales = []
    if slices.std is not None:
        top = max(float(np.percentile(slices.std, 99.5)), 1.0)
        rows.append([tinted(values / top) for values in slices.std])
        names.append("Standard deviation")
        scales.append(
            "standard deviation of the alternatives from 0 (dark) to "
            f"{top:.0f} {slices.modality.unit} (light)"
        )
    if slices.entropy is not None:
        rows.append([tinted(values) for values in slices.entropy])
        names.append("Entropy of the mask")
        scales.append("entropy of their mask votes from 0 (dark) to 1 bit (light)")
    if not scales:
        return []
    caption = "Below each slice: " + "; ".join(scales) + "."
    return [Picture("Where the generator is unsure", caption, rows, names)]


def evenly(slices: SliceSet, n: int, seed: int) -> SliceSet:
    """At most ``n`` slices, of as many cases as possible; the same for the same seed."""
    order = np.random.default_rng(seed).permutation(len(slices))
    first: dict[str, int] = {}
    for place in order:
        first.setdefault(slices.cases[place], int(place))
    own = [*first.values()]
    taken = set(own)
    rest = [int(place) for place in order if place not in taken]
    return slices.pick(np.sort([*own, *rest][:n]))


def seen(slices: SliceSet, window_hu: tuple[float, float]) -> list[Pixels]:
    """Slices as pictures, their masks outlined."""
    cells = []
    for i, image in enumerate(slices.images):
        cell = np.repeat(upright(grey(image, window_hu))[..., None], 3, 2)
        if slices.labels is not None:
            cell[outline(upright(slices.labels[i]) > 0)] = OUTLINE
        cells.append(cell)
    return cells


def tinted(share: npt.NDArray[np.floating]) -> Pixels:
    """Values in the colours of the preview; those above 1 are as light as 1."""
    return shaded(upright(np.clip(np.rint(share * 255), 0, 255).astype(np.uint8)))
