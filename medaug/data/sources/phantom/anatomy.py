"""A procedural abdomen: every seed is another person, drawn one axial slice at a time.

Body coordinates are RAS+ mm: x grows to the patient's right, y to anterior, z to superior; the
origin is the centre of the abdominal cavity at the height of the pancreas.
"""

import numpy as np

from medaug.data.sources.phantom.shapes import Field, Knot, Ripples, Tube, join, meet, oval, step

# fmt: off
# HU at late arterial, portal venous and late phase
_PHASES = {
    "aorta":    (285, 165, 130), "cava":    (95, 135, 125), "portal":  (125, 175, 135),
    "liver":    ( 72, 110,  98), "hepatic": (70, 160, 128), "spleen":  (135, 125, 108),
    "pancreas": (132, 118, 106), "cortex": (200, 195, 168), "medulla": ( 80, 150, 168),
    "muscle":   ( 58,  62,  64), "wall":    (88,  98,  85), "adrenal": ( 90,  80,  65),
}
# fmt: on


class Abdomen:
    """One person: habitus, organ shapes and contrast phase, all continuous in the draws of ``rng``.

    Attributes:
        middle_y: where the centre of the picture lies, mm from the cavity's centre.
    """

    def __init__(self, rng: np.random.Generator):
        u = self._u = rng.uniform
        self._rng = rng
        self.fatness = f = float(rng.beta(1.6, 1.9))
        self.half_width = 116 + 17 * f + u(-5, 7)
        self.half_depth = 77 + 25 * f + u(-4, 6)
        self.q = self.half_depth / 90
        self.fat_side = 5 + 26 * f * u(0.7, 1.2)
        self.fat_front = 5 + 24 * f * u(0.6, 1.3)
        self.fat_back = 6 + 20 * f * u(0.7, 1.2)
        self.middle_y = (self.fat_front - self.fat_back - 26) / 2 - 9
        self.taper = u(-0.03, 0.05)
        self.squareness = u(0.0, 0.035)
        self.harmonics = [(k, u(-0.012, 0.012), u(0, 6.3)) for k in (2, 3, 5)]

        phase = float(np.clip(rng.normal(0.5, 0.2), 0.0, 1.0))
        self.hu = {
            name: float(np.interp(phase, (0.0, 0.5, 1.0), row)) * u(0.92, 1.08)
            for name, row in _PHASES.items()
        }
        steatosis = max(0.0, u(-30, 45) * (0.4 + f))
        self.hu["liver"] -= steatosis
        self.marrow = u(150, 235)
        self.noise_hu = u(10, 16) + 5 * f
        self.arterial = max(0.0, 1 - 2 * phase)
        self.drink = u(170, 330) if u() < 0.35 else u(5, 32)

        self.warps = [Ripples(rng, 70, 190) for _ in range(3)]
        self.coarse, self.fine = Ripples(rng, 22, 60), Ripples(rng, 7, 16)
        self.grain = Ripples(rng, 9, 15, n=24)

        self.spine_y = -self.half_depth + 28
        self.front_y = self.spine_y + 17
        self.aorta_y = self.front_y + 11
        self.disc_offset, self.rib_offset = u(0, 35), u(-8, 8)
        self._organs()
        self._muscles()
        self._pancreas()
        self._vessels()
        self._gut()

    def _tube(self, *knots: Knot, sway: float = 2.0, size: float = 1.0) -> Tube:
        """A tube whose knots are moved by up to ``sway`` mm each way."""
        u = self._u
        return Tube(
            [
                (x + u(-sway, sway), y + u(-sway, sway), z + u(-sway, sway), r * size)
                for x, y, z, r in knots
            ]
        )

    def _organs(self) -> None:
        u = self._u
        self.dome_z = u(150, 175)
        self.liver_size, self.liver_reach = u(0.92, 1.08), u(-22, 20)
        self.left_lobe = u(52, 92)
        self.spleen_size, self.spleen_z = u(0.82, 1.12), u(36, 52)
        self.kidneys = [
            (side, u(58, 66) + 3 * self.fatness, z + u(-9, 9), u(0.9, 1.1), u(0.35, 0.75))
            for side, z in ((1.0, -30.0), (-1.0, -14.0))
        ]
        self.gallbladder = (
            (u(40, 54), u(0.36, 0.52) * self.half_depth, u(-16, 0), u(0.7, 1.2))
            if u() < 0.88
            else None
        )

    def _muscles(self) -> None:
        back, front = self.spine_y, self.front_y + 3
        self.deep_muscles = []
        for side in (1.0, -1.0):
            psoas = [(25, back - 6, 30, 3), (36, back - 4, -40, 14), (46, back + 4, -130, 22)]
            self.deep_muscles += [
                Tube([(side * x, y, z, r) for x, y, z, r in psoas]),
                Tube([(side * 15 - 9, front, 130, 6), (side * 13 - 5, front, -30, 4)]),
            ]

    def kidney_centre(self, side: float) -> tuple[float, float, float]:
        """Centre (x, y, z) of the kidney on ``side``: 1 right, -1 left."""
        _, x, z, _, _ = self.kidneys[0 if side > 0 else 1]
        return side * x, -self.half_depth + 45, z

    def _pancreas(self) -> None:
        u, q, ya = self._u, self.q, self.aorta_y
        size = u(1.0, 1.25)
        rise = u(-8, 8)
        bend = u(-5, 5)
        arch = 37 * q + u(-2, 3)
        knots: list[Knot] = [
            (26 + u(-3, 3), ya + 15 * q, -29 + u(-4, 3), 9.0),
            (31 + u(-3, 3), ya + 23 * q, -17 + u(-3, 3), 13.5),
            (26 + u(-3, 3), ya + 31 * q, -4 + u(-3, 3), 12.5),
            (8, ya + arch, 4 + 0.1 * rise, 8.5),
            (-16, ya + arch + u(-1, 2), 10 + 0.3 * rise + bend, 9.2),
            (-42, ya + 25 * q + u(-2, 3), 16 + 0.7 * rise + bend, 10.0 * u(0.9, 1.1)),
            (-66, ya + 8 * q, 21 + rise, 9.8 * u(0.85, 1.1)),
            (-84 - u(0, 5), ya - 4 * q, 24 + 1.2 * rise, 6.5),
        ]
        _, _, kz = self.kidney_centre(-1)
        front = self.kidney_centre(-1)[1]
        for i in (5, 6, 7):
            x, y, z, r = knots[i]
            clear = 30 * np.sqrt(max(0.0, 1 - ((z - kz) / 56) ** 2)) if x < -40 else 0.0
            knots[i] = (x, max(y, front + float(clear) + r * size + 3), z, r)
        self.pancreas_knots = [(x, y, z, r * size) for x, y, z, r in knots]
        self.pancreas = Tube(self.pancreas_knots, step_mm=5)
        uncinate = self._tube(
            (28, ya + 16 * q, -22, 9), (10, ya + 15 * q, -27, 6.5), sway=1, size=size
        )
        self.pancreas.branch(uncinate)
        self.duct = Tube([(x, y, z, 1.1) for x, y, z, _ in self.pancreas_knots[2:]], step_mm=5)
        self.bile_duct = self._tube(
            (34, ya + 17 * q, -26, 2.5),
            (31, ya + 19 * q, 2, 2.8),
            (34, ya + 24 * q, 34, 2.8),
            sway=1,
        )
        self.lobes_mm = u(0.7, 1.3) + 0.7 * self.fatness
        self.pancreas_fat = u(0, 18) * (0.3 + self.fatness)

    def _vessels(self) -> None:
        u, q, ya, t = self._u, self.q, self.aorta_y, self._tube
        girth = u(0.85, 1.12)
        self.aorta = t((-9, ya - 1, 130, 12), (-11, ya, 0, 11), (-6, ya + 2, -130, 9), size=girth)
        self.cava = t(
            (25, ya + 12 * q, 130, 11),
            (24, ya + 7 * q, 60, 11),
            (21, ya - 1, 10, 11),
            (19, ya - 3, -50, 10.5),
            (15, ya - 2, -130, 10),
            size=u(0.85, 1.15),
        )
        meeting = (8.0, ya + 27 * q, 4.0)
        tail = [(x + 2, y - 0.95 * r, z + 1.5, 3.7) for x, y, z, r in self.pancreas_knots[4:]]
        hilum = (-self.half_width + 40, ya - 10 * q, self.spleen_z - 8, 3.6)
        self.portal = [
            t((*meeting, 6.0), (10, ya + 26 * q, -30, 5.8), (9, ya + 30 * q, -120, 4.5), sway=1),
            t(
                (*meeting, 6.5),
                (20, ya + 25 * q, 20, 6.8),
                (36, ya + 26 * q, 40, 6.5),
                (58, ya + 24 * q, 50, 5),
                sway=1,
            ),
            Tube([(*meeting, 4.6), *tail, hilum]),
        ]
        self.arteries = [
            t((-10, ya + 7, 8, 3.8), (-8, ya + 17 * q, -2, 3.8), (-7, ya + 21 * q, -32, 3.6),
              (-4, ya + 27 * q, -120, 3.0), sway=1),
            t((-10, ya + 7, 24, 3.6), (-6, ya + 17 * q, 27, 3.4), (16, ya + 24 * q, 30, 2.6),
              (38, ya + 28 * q, 40, 2.2), sway=1),
        ]  # fmt: skip
        porta = (52.0, ya + 24 * q, 48.0)
        trees = [
            (75, -25, 75),
            (95, 10, 70),
            (92, 15, 25),
            (80, -15, 15),
            (60, 40, 70),
            (14, 48, 62),
        ]
        self.liver_portal = [
            t((*porta, 4.5), (0.5 * (52 + x), 0.5 * (porta[1] + y * q), 0.5 * (50 + z), 3.8),
              (x, y * q, z, 1.8), sway=7)
            for x, y, z in trees
        ]  # fmt: skip
        self.hepatic = [
            t((25, ya + 12 * q, 88, 5), (0.5 * (x + 25), 0.5 * (y * q + ya + 12), 80, 4),
              (x, y * q, z, 2), sway=6)
            for x, y, z in [(100, -15, 55), (62, 40, 58), (0, 50, 66), (105, -30, 80), (85, 30, 45)]
        ]  # fmt: skip
        self.renal: list[tuple[Tube, str]] = []
        for side in (1.0, -1.0):
            kx, ky, kz = self.kidney_centre(side)
            hilum_x, hilum_y = kx - side * 16, ky + 9
            start = (21, ya - 2) if side > 0 else (8, ya + 14)
            lead: list[Knot] = [] if side > 0 else [(18.0, ya + 3, kz + 8, 4.5)]
            end = (hilum_x, hilum_y, kz, 4.0)
            vein: list[Knot] = [*lead, (*start, kz + 6, 4.5), (side * 32, ya - 4 * q, kz + 3, 4.5)]
            artery: list[Knot] = [
                (-10 + side * 6, ya, kz + 9, 2.6),
                (side * 34, self.front_y - 6, kz + 6, 2.6),
                (hilum_x, hilum_y - 5, kz + 3, 2.2),
            ]
            self.renal += [(Tube([*vein, end]), "cava"), (Tube(artery), "aorta")]
        self.adrenals = [
            t((side * 30 - 2, ya + 4, z, 2.2), (side * 36 - 2, ya - 12 * q, z - 4, 2.4))
            for side in (1.0, -1.0)
            for z in (22.0, 28.0, 34.0)
        ]

    def _gut(self) -> None:
        u, q, ya, t = self._u, self.q, self.aorta_y, self._tube
        w, d = self.half_width, self.half_depth
        full = u(0.75, 1.15)
        self.stomach = t(
            (-46, -0.12 * d, 104, 22),
            (-64, -0.10 * d, 82, 34),
            (-72, 0.18 * d, 54, 33),
            (-66, 0.50 * d, 26, 28),
            (-40, 0.66 * d, 4, 22),
            (-8, 0.64 * d, -8, 18),
            (20, 0.54 * d, -6, 14),
            (38, 0.46 * d, -6, 10),
            sway=4,
            size=full,
        )
        self.gullet = t((-14, ya + 18, 140, 8), (-18, ya + 24, 100, 8), (-40, 0.0, 86, 9), sway=1)
        self.duodenum_kind = u(0, 0.79)
        self.gas_y = u(0.45, 0.75) * d
        self.duodenum = t(
            (42, 0.44 * d, -6, 11),
            (56, ya + 34 * q, -8, 11.5),
            (58, ya + 24 * q, -26, 12),
            (52, ya + 18 * q, -48, 12),
            (30, ya + 13 * q, -60, 11),
            (0, ya + 14 * q, -62, 10),
            (-26, ya + 18 * q, -48, 11),
            (-36, ya + 32 * q, -34, 11),
            sway=2,
        )
        sag, wide = u(-16, 22), u(0.8, 1.2)
        self.colon = t(
            (0.70 * w, -0.20 * d, -130, 22),
            (0.72 * w, -0.10 * d, -90, 21),
            (0.66 * w, 0.16 * d, -64, 19),
            (0.40 * w, 0.58 * d, -66 + 0.5 * sag, 18),
            (0.00, 0.72 * d, -76 + sag, 17),
            (-0.42 * w, 0.66 * d, -58 + sag, 17),
            (-0.72 * w, 0.46 * d, -14, 16),
            (-0.78 * w, 0.40 * d, 8, 15),
            (-0.84 * w, 0.14 * d, -20, 13),
            (-0.82 * w, -0.14 * d, -46, 13),
            (-0.80 * w, -0.24 * d, -75, 13),
            (-0.78 * w, -0.24 * d, -130, 14),
            sway=4,
            size=wide,
        )
        self.colon.pouch(0.16)
        self._small_bowel()

    def _small_bowel(self) -> None:
        """Short loops thrown where there is room for them, large ones first, none over another."""
        u, rng, w, d = self._u, self._rng, self.half_width, self.half_depth
        taken = [self.colon, self.duodenum, self.stomach, self.pancreas, *self.portal]
        obstacles = np.concatenate([tube.points for tube in taken])
        centres = rng.uniform((-0.85 * w, -0.45 * d, -125), (0.8 * w, 0.8 * d, 5), size=(5000, 3))
        x, y, z = (np.ascontiguousarray(c, np.float32) for c in centres.T)
        peritoneum = oval(x, y, 0.0, (w, d, 1.0))
        free = (peritoneum < -17) & ((y > self.aorta_y + 22 * self.q) | (np.abs(x) > 88))
        free &= z < 5 - 35 * step(x + 30, 60)
        free &= self.liver(x, y, z, peritoneum) > 15
        free &= self.spleen(x, y, z, peritoneum) > 17
        for side in (1.0, -1.0):
            free &= self.kidney(x, y, z, side)[0] > 16
        centres = centres[free]
        room = np.full(len(centres), np.inf)
        for x0, y0, z0, radius in obstacles:
            room = np.minimum(room, np.linalg.norm(centres - (x0, y0, z0), axis=1) - radius)
        self.loops: list[tuple[Tube, float]] = []
        largest = u(11.0, 14.0)
        for i, centre in enumerate(centres):
            size = largest - 4.5 * i / len(centres)
            if room[i] < size + 2:
                continue
            way = rng.normal(size=3) * (1, 1, 0.5)
            way *= u(7, 15) / np.linalg.norm(way)
            bend = np.cross(way, rng.normal(size=3)) * 0.03
            places = [(centre + way * s + bend * abs(s)).tolist() for s in (-1, 0, 1)]
            loop = Tube([(*place, size * u(0.8, 1.15)) for place in places], step_mm=6)
            for x0, y0, z0, radius in loop.points:
                room = np.minimum(room, np.linalg.norm(centres - (x0, y0, z0), axis=1) - radius)
            self.loops.append((loop, u()))
        root = (0.0, self.aorta_y + 26 * self.q, -30.0)
        self.mesentery = []
        for centre in centres[:30].tolist():
            half = [0.5 * (a + b) + u(-9, 9) for a, b in zip(root, centre, strict=True)]
            knots = [(*root, 2.2), (*half, 1.7), (*centre, 1.2)]
            self.mesentery.append(Tube(knots, step_mm=14))

    def liver(self, x: Field, y: Field, z: Field, inner: Field) -> Field:
        """Distance to the liver, which fills the peritoneum (``inner`` < 0) on the right."""
        q, s, low = self.q, self.liver_size, self.liver_reach
        medial = 70 + 0.26 * (45 - z) + 0.3 * (self.half_width - 125)
        right = oval(x - medial, y - 4, z - 42, (74 * s, 96 * q, 104 * s + 0.5 * low))
        left = oval(x - 12, y - 40 * q, z - 62, (self.left_lobe, 40 * q, 44.0))
        hollow = oval(x + 4, y + 6, z + 26, (50.0, 66 * q, 64.0))
        return meet(meet(join(right, left, 24), -hollow, 16), inner + 2.5, 8)

    def spleen(self, x: Field, y: Field, z: Field, inner: Field) -> Field:
        """Distance to the spleen, a shell under the left ribs."""
        s, q = self.spleen_size, self.q
        cx, cy = -self.half_width + 29, -0.34 * self.half_depth
        body = oval(x - cx, y - cy, z - self.spleen_z, (35 * s, 47 * s * q, 52 * s))
        dx, dy, dz = x - cx - 40 * s, y - cy - 16, z - self.spleen_z + 8
        hilum = oval(dx, dy, dz, (28 * s, 36 * s * q, 48 * s))
        return meet(meet(body, -hilum, 7), inner + 2.5, 6)

    def kidney(self, x: Field, y: Field, z: Field, side: float) -> tuple[Field, Field, Field]:
        """Distances to a kidney and to its sinus, and the angle of the pyramids."""
        _, _, _, size, turn = self.kidneys[0 if side > 0 else 1]
        kx, ky, kz = self.kidney_centre(side)
        dz = z - kz
        dx, dy = (kx + side * -0.16 * dz) - x, y - ky - 0.1 * dz
        dx = dx * side
        cos, sin = float(np.cos(turn)), float(np.sin(turn))
        inward, across = cos * dx + sin * dy, cos * dy - sin * dx
        body = oval(inward, across, dz, (24 * size, 28 * size, 53 * size))
        sinus = oval(inward - 17, across, dz, (17 * size, 9 * size, 25 * size))
        return body, sinus, np.arctan2(across, -inward + 8) * 5 + dz / 5
