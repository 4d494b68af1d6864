"""Shapes in millimetres and the slice they are painted on.

A shape is a signed distance in mm, negative inside, of shape (nx, ny) on one axial slice.  Painting
has a soft edge that stands for partial volume, so any matrix and spacing shows the same shape.
"""

import math
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.floating[Any]]
Knot = tuple[float, float, float, float]


class Organ(IntEnum):
    """What a voxel of the organ map shows; FAT is any fat and skin, VEIN the portal system."""

    AIR = 0
    FAT = 1
    MUSCLE = 2
    BONE = 3
    LUNG = 4
    LIVER = 5
    SPLEEN = 6
    RIGHT_KIDNEY = 7
    LEFT_KIDNEY = 8
    STOMACH = 9
    BOWEL = 10
    DUODENUM = 11
    AORTA = 12
    CAVA = 13
    VEIN = 14
    ARTERY = 15
    GALLBLADDER = 16
    ADRENAL = 17
    PANCREAS = 18
    COUCH = 19


class Canvas:
    """A slice, or a window of one, while it is painted; every array is (nx, ny).

    ``x``, ``y``, ``z`` are warped body coordinates in mm, ``hu`` and ``organs`` the picture,
    ``coarse``, ``fine`` and ``grain`` textures of unit variance.  ``gx`` and ``gy`` are the regular
    axes before warping.  A window shares memory with its slice.
    """

    def __init__(
        self,
        gx: Field,
        gy: Field,
        layers: Sequence[npt.NDArray[Any]],
        edge_mm: float,
        reach_mm: float,
        part: tuple[slice, slice] = (slice(None), slice(None)),
    ):
        self.gx, self.gy, self.layers, self.part = gx, gy, layers, part
        self.edge_mm, self.reach_mm = edge_mm, reach_mm
        self.x, self.y, self.z, self.hu, self.organs, self.coarse, self.fine, self.grain = layers

    def span(self, low: Sequence[float], high: Sequence[float]) -> tuple[slice, slice]:
        """Indices around the box from ``low`` to ``high`` (x, y in mm), halo and warp included."""
        return (
            _span(self.gx, low[0] - self.reach_mm, high[0] + self.reach_mm),
            _span(self.gy, low[1] - self.reach_mm, high[1] + self.reach_mm),
        )

    def near(self, low: Sequence[float], high: Sequence[float]) -> "Canvas":
        """The window around the box from ``low`` to ``high`` (x, y in mm); it may be empty."""
        part = self.span(low, high)
        layers = [layer[part] for layer in self.layers]
        return Canvas(self.gx[part[0]], self.gy[part[1]], layers, self.edge_mm, self.reach_mm, part)

    def paint(
        self, distance: Field, hu: Field | float, organ: Organ, within: Organ | None = None
    ) -> None:
        """Cover what lies inside ``distance`` < 0 with ``hu``, only over ``within`` if given."""
        alpha = np.clip(0.5 - distance / self.edge_mm, 0.0, 1.0)
        if within is not None:
            alpha *= self.organs == within
        self.hu += alpha * (hu - self.hu)
        self.organs[alpha > 0.5] = organ


class Ripples:
    """A smooth random field of unit variance: plane waves in random directions, lengths in mm."""

    def __init__(
        self, rng: np.random.Generator, shortest_mm: float, longest_mm: float, n: int = 14
    ):
        direction = rng.normal(size=(n, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        wavelength = np.exp(rng.uniform(np.log(shortest_mm), np.log(longest_mm), size=(n, 1)))
        self.k = 2 * np.pi * direction / wavelength
        self.phase = rng.uniform(0, 2 * np.pi, size=n)

    def __call__(self, gx: Field, gy: Field, z: float) -> Field:
        """The field on the grid of axes ``gx`` and ``gy`` at height ``z``, shape (nx, ny)."""
        rows = np.exp(1j * (gx[:, None] * self.k[:, 0])).astype(np.complex64)
        turn = self.k[:, 1, None] * gy + (self.k[:, 2] * z + self.phase)[:, None]
        waves: Field = (rows @ np.exp(1j * turn).astype(np.complex64)).real
        return waves * float(np.sqrt(2 / len(self.phase)))


class Tube:
    """A smooth curve with a radius: knots (x, y, z, radius) in mm, joined by a spline.

    Attributes:
        points: the curve, shape (n, 4).
        segments: straight pieces from end to end, shape (m, 2, 4), branches included.
    """

    def __init__(self, knots: Sequence[Knot], step_mm: float = 7.0):
        fixed = np.asarray(knots, dtype=np.float64)
        along = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(fixed[:, :3], axis=0), axis=1))]
        count = max(2, round(along[-1] / step_mm) + 1)
        self.points = _hermite(along, fixed, np.linspace(0, along[-1], count))
        self._measure(np.stack([self.points[:-1], self.points[1:]], axis=1))

    def _measure(self, segments: npt.NDArray[np.float64]) -> None:
        self.segments = segments
        self._radius = segments[:, :, 3].max(axis=1)
        self._low = segments.min(axis=1) - self._radius[:, None]
        self._high = segments.max(axis=1) + self._radius[:, None]
        self._bottom, self._top = float(self._low[:, 2].min()), float(self._high[:, 2].max())

    def branch(self, other: "Tube") -> None:
        """Let ``other`` grow from this tube."""
        self._measure(np.concatenate([self.segments, other.segments]))

    def pouch(self, depth: float) -> None:
        """Let the radius swing by the fraction ``depth``, as that of the colon does."""
        swing = 1 + depth * np.sin(np.arange(len(self.points)) * 1.9)
        self.segments[:, 0, 3] *= swing[:-1]
        self.segments[:, 1, 3] *= swing[1:]
        self._measure(self.segments)

    def window(self, canvas: Canvas, z: float) -> tuple[Canvas, Field] | None:
        """The part of the slice it passes and the signed distance there; None where it is not."""
        reach = canvas.reach_mm
        if not self._bottom - reach < z < self._top + reach:
            return None
        hit = (self._low[:, 2] - reach < z) & (z < self._high[:, 2] + reach)
        if not hit.any():
            return None
        low, high = self._low[hit], self._high[hit]
        part = canvas.near(low.min(axis=0).tolist(), high.max(axis=0).tolist())
        if part.hu.size == 0:
            return None
        distance = np.full(part.hu.shape, 99.0, np.float32)
        for ends, lo, hi in zip(
            self.segments[hit].tolist(), low.tolist(), high.tolist(), strict=True
        ):
            _capsule(part, part.span(lo, hi), ends, distance)
        return part, distance


def _capsule(
    canvas: Canvas, near: tuple[slice, slice], ends: Sequence[Sequence[float]], distance: Field
) -> None:
    """Lower ``distance`` in the window ``near`` to that of one segment of changing radius."""
    (ax, ay, az, ar), (bx, by, bz, br) = ends
    dx, dy, dz = bx - ax, by - ay, bz - az
    px, py, pz = canvas.x[near] - ax, canvas.y[near] - ay, canvas.z[near] - az
    scale = 1 / (dx * dx + dy * dy + dz * dz)
    t = px * (dx * scale) + py * (dy * scale) + pz * (dz * scale)
    np.maximum(t, 0.0, out=t)
    np.minimum(t, 1.0, out=t)
    px -= t * dx
    py -= t * dy
    pz -= t * dz
    px *= px
    px += py * py
    px += pz * pz
    np.sqrt(px, out=px)
    px -= ar + (br - ar) * t
    target = distance[near]
    np.minimum(target, px, out=target)


def _hermite(
    along: npt.NDArray[np.float64], fixed: npt.NDArray[np.float64], at: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The smooth curve through ``fixed`` (n, d) at positions ``along`` (n,), read at ``at``."""
    slope = np.gradient(fixed, along, axis=0)
    i = np.clip(np.searchsorted(along, at, side="right") - 1, 0, len(along) - 2)
    gap = (along[i + 1] - along[i])[:, None]
    t = (at - along[i])[:, None] / gap
    start, end = fixed[i], fixed[i + 1]
    bend_in, bend_out = slope[i] * gap - (end - start), (end - start) - slope[i + 1] * gap
    curve: npt.NDArray[np.float64] = (
        start + t * (end - start) + t * (1 - t) * ((1 - t) * bend_in + t * bend_out)
    )
    return curve


def _span(axis: Field, low: float, high: float) -> slice:
    """Indices of a regular ``axis`` between ``low`` and ``high``."""
    if len(axis) < 2:
        return slice(0, len(axis))
    first, gap = float(axis[0]), float(axis[1] - axis[0])
    start = min(max(math.ceil((low - first) / gap), 0), len(axis))
    stop = min(max(math.floor((high - first) / gap) + 1, start), len(axis))
    return slice(start, stop)


def oval(x: Field, y: Field, z: Field | float, semi: tuple[Any, Any, Any]) -> Field:
    """Signed distance to an ellipsoid at the origin, first-order exact at its surface."""
    a, b, c = semi
    ux, uy, uz = x / a, y / b, z / c
    k0 = np.sqrt(ux * ux + uy * uy + uz * uz) + 1e-4
    ux, uy, uz = ux / a, uy / b, uz / c
    k1 = np.sqrt(ux * ux + uy * uy + uz * uz) + 1e-6
    distance: Field = k0 * (k0 - 1.0) / k1
    return distance


def join(a: Field, b: Field, round_mm: float) -> Field:
    """Union of two shapes with a fillet of about ``round_mm``."""
    blend = np.maximum(round_mm - np.abs(a - b), 0.0)
    return np.minimum(a, b) - blend * blend / (4 * round_mm)


def meet(a: Field, b: Field, round_mm: float) -> Field:
    """Intersection of two shapes with its edge rounded; ``meet(a, -b)`` carves b out of a."""
    return -join(-a, -b, round_mm)


def step(value: Field, width: float) -> Field:
    """0 below, 1 above zero, over about ``width``."""
    return np.clip(0.5 + value / width, 0.0, 1.0)
