"""From a person to a scan: an abdomen painted slice by slice, with CT noise."""

import numpy as np

from medaug.core.seeds import derive
from medaug.core.types import HU, Affine, LabelMap
from medaug.data.sources.phantom.anatomy import Abdomen
from medaug.data.sources.phantom.shapes import Canvas, Field, Organ, Tube, join, meet, oval, step

_FAT_HU, _GAS_HU, _BILE_HU = -102.0, -940.0, 8.0
_FIRM = [Organ.CAVA, Organ.AORTA, Organ.LIVER, Organ.RIGHT_KIDNEY, Organ.LEFT_KIDNEY, Organ.BONE]
_RIB_GAP_MM, _VERTEBRA_MM = 27.0, 35.0


def draw(
    seed: int, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> tuple[HU, LabelMap, Affine]:
    """The scan of the person ``seed``: HU, pancreas mask (0 or 1) and affine, indexed [x, y, z].

    The pancreas lies about the middle of the volume.  As in Pancreas-CT, the origin of the affine
    is the voxel that is rightmost, most posterior and most superior.
    """
    hu, organs, affine = draw_organs(seed, shape, spacing_mm)
    return hu, (organs == Organ.PANCREAS).astype(np.uint8), affine


def draw_organs(
    seed: int, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> tuple[HU, LabelMap, Affine]:
    """As ``draw``, with the map of all organs (values of ``Organ``) in place of the mask."""
    person = Abdomen(np.random.default_rng(derive(seed, "phantom", "person")))
    nx, ny, nz = shape
    sx, sy, sz = spacing_mm
    gx = ((np.arange(nx) - (nx - 1) / 2) * sx).astype(np.float32)
    gy = ((np.arange(ny) - (ny - 1) / 2) * sy + person.middle_y).astype(np.float32)
    lift = (derive(seed, "phantom", "lift") % 1001 / 1000 - 0.5) * 12
    noise = Noise(person, shape[:2], spacing_mm[:2])
    # Planes lie behind one another in memory, so that one slice is one contiguous block.
    hu = np.empty((nz, nx, ny), np.int16)
    organs = np.empty((nz, nx, ny), np.uint8)
    for k in range(nz):
        z = (k - (nz - 1) / 2) * sz + lift
        picture, organs[k] = paint(person, gx, gy, z)
        picture += noise(np.random.default_rng(derive(seed, "phantom", "noise", k)), gx, gy)
        hu[k] = np.clip(np.rint(picture), -1024, 3071)
    affine = np.diag([sx, sy, sz, 1.0])
    affine[0, 3], affine[2, 3] = -(nx - 1) * sx, -(nz - 1) * sz
    return hu.transpose(1, 2, 0), organs.transpose(1, 2, 0), affine


class Noise:
    """CT noise: a ramp at low frequencies, rolled off at high ones, strongest in the middle."""

    def __init__(
        self, person: Abdomen, shape: tuple[int, int], spacing_mm: tuple[float, float]
    ) -> None:
        self.shape = shape
        fx = np.fft.fftfreq(shape[0], spacing_mm[0])[:, None]
        fy = np.fft.rfftfreq(shape[1], spacing_mm[1])
        frequency = np.hypot(fx, fy)
        power = (frequency + 0.01) * np.exp(-((frequency / 0.32) ** 2))
        gain = np.sqrt(power)
        self.gain = (gain / np.sqrt(np.mean(power))).astype(np.float32)
        self.person = person

    def __call__(self, rng: np.random.Generator, gx: Field, gy: Field) -> Field:
        """One slice of noise in HU, shape (nx, ny)."""
        white = rng.standard_normal(self.shape, dtype=np.float32)
        coloured = np.fft.irfft2(np.fft.rfft2(white) * self.gain, self.shape)
        p = self.person
        radius = (gx[:, None] / p.half_width) ** 2 + (gy / p.half_depth) ** 2
        local = p.noise_hu * (0.65 + 0.35 * np.exp(-radius.astype(np.float32)))
        return (coloured * local).astype(np.float32)


def paint(person: Abdomen, gx: Field, gy: Field, z: float) -> tuple[Field, LabelMap]:
    """One noiseless slice at height ``z`` mm: HU and organ map, both (nx, ny)."""
    shape = (len(gx), len(gy))
    dx, dy, dz = (ripples(gx, gy, z) for ripples in person.warps)
    x, y = gx[:, None] + 3.0 * dx, gy + 2.2 * dy
    hu = np.full(shape, -1000.0, np.float32)
    organs = np.zeros(shape, np.uint8)
    edge = max(1.3, 0.9 * float(max(gx[1] - gx[0], gy[1] - gy[0])))
    textures = [ripples(gx, gy, z) for ripples in (person.coarse, person.fine, person.grain)]
    shift = max(float(np.abs(d).max()) for d in (3.0 * dx, 2.2 * dy, 3.0 * dz))
    canvas = Canvas(gx, gy, [x, y, z + 3.0 * dz, hu, organs, *textures], edge, shift + 5 + edge)
    return _Slice(person, canvas, z).finish()


class _Slice:
    """The order of painting: from the couch and skin inwards, the pancreas and its vessels last."""

    def __init__(self, person: Abdomen, canvas: Canvas, z: float):
        self.p, self.c, self.z = person, canvas, z

    def finish(self) -> tuple[Field, LabelMap]:
        p, c = self.p, self.c
        hit = p.pancreas.window(c, self.z)
        self.gland = np.full(c.hu.shape, 99.0, np.float32)
        if hit is not None:
            self.gland[hit[0].part] = hit[1]
        self._walls()
        self._bones()
        self._solid()
        self._gut()
        for tube, name in p.renal:
            self._tube(tube, p.hu[name], Organ.CAVA if name == "cava" else Organ.AORTA)
        for tube in p.adrenals:
            self._tube(tube, p.hu["adrenal"], Organ.ADRENAL)
        self._tube(p.cava, p.hu["cava"], Organ.CAVA)
        self._tube(p.aorta, p.hu["aorta"], Organ.AORTA)
        self._pancreas()
        for tube in p.arteries:
            self._tube(tube, p.hu["aorta"], Organ.ARTERY)
        for tube in p.portal:
            self._tube(tube, p.hu["portal"], Organ.VEIN)
        return c.hu, c.organs

    def _tube(
        self, tube: Tube, hu: Field | float, organ: Organ, within: Organ | None = None
    ) -> None:
        hit = tube.window(self.c, self.z)
        if hit is not None:
            hit[0].paint(hit[1], hu, organ, within)

    def _walls(self) -> None:
        p, c = self.p, self.c
        x, y = c.x, c.y
        level = 1 + p.taper * self.z / 95
        angle = np.arctan2(x, y)
        bulge = 1 - p.squareness * np.cos(4 * angle)
        for k, size, phase in p.harmonics:
            bulge += size * np.cos(k * angle + phase)
        behind = y < 0

        def contour(side: float, front: float, back: float) -> Field:
            a = p.half_width * level + side
            b = np.where(behind, p.half_depth + back, p.half_depth + front).astype(np.float32)
            return oval(x / bulge, y / bulge, 0.0, (a, b, 1.0)) * bulge

        side, front, back = p.fat_side, p.fat_front, p.fat_back
        groove = 6 * np.exp(-((x / 16) ** 2)) * behind
        skin = contour(12 + side, 9 + front, 35 + back) + groove
        self._couch()
        c.paint(skin, 15.0, Organ.FAT)
        c.paint(skin + 2.2, _FAT_HU + 5 * c.coarse, Organ.FAT)
        muscle = p.hu["muscle"] + 4 * c.fine
        wall, cavity = contour(11, 8, 9), contour(0, 0, 0)
        erectors = oval(np.abs(x) - 35, y + p.half_depth + 13, 0.0, (33.0, 19.0, 1.0))
        wall = join(wall, erectors, 22)
        c.paint(np.maximum(wall, skin + 3), muscle, Organ.MUSCLE)
        deep = np.maximum(erectors, 0.5 - cavity)
        c.paint(np.abs(deep) - 0.5, -30.0 * p.fatness, Organ.FAT, Organ.MUSCLE)
        seam = np.abs(cavity - 4.2 - 1.5 * c.coarse) - 0.5
        lateral = np.abs(angle) - 1.0
        c.paint(np.maximum(seam, -12 * lateral), -40.0 * p.fatness, Organ.FAT, Organ.MUSCLE)
        white_line = np.maximum(np.abs(x) - 1.6, 3 - y)
        c.paint(white_line, -30.0, Organ.FAT, Organ.MUSCLE)
        c.paint(cavity, _FAT_HU + 5 + 7 * c.coarse, Organ.FAT)
        dome = oval(x, y - 10, c.z + 18, (1.17 * p.half_width, 1.2 * p.half_depth, p.dome_z))
        middle = np.maximum(np.abs(x) - 32, y - p.aorta_y - 18)
        self.cavity, self.angle = cavity, angle
        self.inner = meet(cavity, dome, 12)
        lung = meet(meet(cavity + 1.5, -dome - 2.0, 6), -middle, 10)
        c.paint(lung - 3.0, p.hu["muscle"], Organ.MUSCLE, Organ.FAT)
        c.paint(lung, -860.0 + 25 * c.fine, Organ.LUNG)

    def _couch(self) -> None:
        p, c = self.p, self.c
        top = -p.half_depth - 35 - p.fat_back - 10
        flat_x, flat_y = c.gx[:, None], c.gy
        depth = top + flat_x**2 / 1300 - flat_y
        shell = np.minimum(np.abs(depth - 1.5), np.abs(depth - 22)) - 1.2
        core = np.maximum(-depth + 1.5, depth - 22)
        beyond = np.abs(flat_x) - 205
        c.paint(np.maximum(core, beyond).astype(np.float32), -930.0, Organ.COUCH)
        c.paint(np.maximum(shell, beyond).astype(np.float32), -40.0, Organ.COUCH)

    def _bones(self) -> None:
        self._ribs()
        self._spine()
        for tube in self.p.deep_muscles:
            self._tube(tube, self.p.hu["muscle"], Organ.MUSCLE)

    def _ribs(self) -> None:
        p, c = self.p, self.c
        along = 1 - np.abs(self.angle) / np.pi
        height = c.z + 112 * along - 8 - p.rib_offset
        number = np.rint(height / _RIB_GAP_MM)
        reach = np.interp(np.arange(-1, 7), range(-1, 5), (0.0, 0.3, 0.5, 0.72, 0.86, 0.93))
        rib = np.clip(number, -1, 6).astype(np.intp)
        over = height - number * _RIB_GAP_MM
        e = np.sqrt(((self.cavity - 6) / 4.3) ** 2 + (over / 6.8) ** 2)
        distance = np.maximum((e - 1) * 4.3, (along - reach[rib + 1]).astype(np.float32) * 300)
        distance = np.maximum(distance, 30 - np.abs(c.x))
        bone = np.where(distance > -1.8, 620.0, 240.0).astype(np.float32)
        gristle = step(along - 0.74, 0.06)
        c.paint(distance, bone + gristle * (105 - bone), Organ.BONE)

    def _spine(self) -> None:
        p = self.p
        c = self.c.near((-48, -p.half_depth - 48), (48, p.front_y + 6))
        if c.hu.size == 0:
            return
        x, y = c.x, c.y - p.spine_y
        phase = (c.z + p.disc_offset) % _VERTEBRA_MM - _VERTEBRA_MM / 2
        gap = np.abs(phase) - 12.5
        waist = 1.5 * np.cos(phase / 12.5 * np.pi / 2)
        body = oval(x, y, 0.0, (23.0 - waist, 17.0 - waist, 1.0))
        canal = oval(x, y + 21, 0.0, (11.0, 8.5, 1.0))
        body = meet(body, -(canal - 1.5), 3)
        c.paint(body - 0.8, 88.0, Organ.BONE)
        vertebra = np.maximum(body, gap)
        marrow = p.marrow + 45 * c.grain
        bone = np.where(vertebra > -2.0, 430.0, marrow)
        c.paint(vertebra, bone, Organ.BONE)
        arch = np.maximum(np.abs(canal - 3) - 4, y + 6)
        spinous = np.maximum(np.maximum(np.abs(x) - 3.8, np.abs(y + 44) - 19), -phase - 15)
        transverse = np.maximum(oval(np.abs(x) - 24, y + 17, phase + 2, (18.0, 5.0, 6.0)), -canal)
        facet = oval(np.abs(x) - 15, y + 27, 0.0, (7.0, 8.0, 1.0))
        for part in (np.maximum(arch, np.abs(phase + 2) - 13), facet, spinous, transverse):
            c.paint(part, np.where(part > -2.0, 560.0, 260.0), Organ.BONE)
        joint = np.maximum(facet + 3, np.abs(np.abs(x) - 15 - 0.4 * (y + 27)) - 0.6)
        c.paint(joint, 80.0, Organ.BONE)
        c.paint(canal, 28.0, Organ.FAT)
        c.paint(oval(x, y + 21, 0.0, (6.0, 5.0, 1.0)), 48.0, Organ.FAT)

    def _solid(self) -> None:
        p, c = self.p, self.c
        q, d = p.q, p.half_depth
        part = c.near((-0.6 * p.half_width, -1.1 * d), (1.2 * p.half_width, 1.2 * d))
        liver = p.liver(part.x, part.y, part.z, self.inner[part.part])
        liver = meet(liver, 5 - self.gland[part.part], 8)
        mottled = p.hu["liver"] + 3 * part.grain
        part.paint(liver + 0.8 * part.coarse, mottled, Organ.LIVER)
        for tubes, name in ((p.hepatic, "hepatic"), (p.liver_portal, "portal")):
            for tube in tubes:
                self._tube(tube, p.hu[name], Organ.LIVER, Organ.LIVER)
        cleft = oval(c.x - 16, c.y - 0.62 * d, c.z - 34, (4.0, 22 * q, 30.0))
        c.paint(cleft, _FAT_HU + 12, Organ.FAT, Organ.LIVER)

        part = c.near((-1.2 * p.half_width, -d), (-0.3 * p.half_width, 0.6 * d))
        spleen = p.spleen(part.x, part.y, part.z, self.inner[part.part])
        stripes = p.arterial * 30 * np.sin(3.2 * part.coarse)
        spleen = meet(spleen, 4 - self.gland[part.part], 4)
        part.paint(spleen, p.hu["spleen"] + stripes, Organ.SPLEEN)

        for side, organ in ((1.0, Organ.RIGHT_KIDNEY), (-1.0, Organ.LEFT_KIDNEY)):
            self._kidney(side, organ)
        if p.gallbladder:
            gx, gy, gz, size = p.gallbladder
            part = c.near((gx - 25, gy - 30), (gx + 25, gy + 30))
            semi = (13 * size, 17 * size * q, 27 * size)
            sack = oval(part.x - gx, part.y - gy, part.z - gz, semi)
            part.paint(sack - 3, _FAT_HU + 10, Organ.FAT, Organ.FAT)
            part.paint(sack - 1.4, 60.0, Organ.GALLBLADDER)
            part.paint(sack, _BILE_HU, Organ.GALLBLADDER)

    def _kidney(self, side: float, organ: Organ) -> None:
        p = self.p
        kx, ky, kz = p.kidney_centre(side)
        c = self.c.near((kx - 42, ky - 38), (kx + 42, ky + 38))
        body, sinus, turn = p.kidney(c.x, c.y, c.z, side)
        c.paint(body - 2.5, _FAT_HU, Organ.FAT)
        pyramids = step(-body - 7, 2.0) * step(np.cos(turn) + 0.45, 0.5)
        c.paint(body, p.hu["cortex"] + pyramids * (p.hu["medulla"] - p.hu["cortex"]), organ)
        c.paint(meet(sinus, body - 2, 3), _FAT_HU + 15, Organ.FAT, organ)
        pelvis = oval(c.x - kx + side * 10, c.y - ky - 5, c.z - kz, (6.0, 4.0, 12.0))
        c.paint(pelvis, 12.0, organ)

    def _gut(self) -> None:
        p = self.p
        for tube in p.mesentery:
            self._tube(tube, p.hu["portal"] - 20, Organ.VEIN, Organ.FAT)
        for tube, kind in p.loops:
            self._hollow(tube, 2.2, Organ.BOWEL, kind)
        self._hollow(p.colon, 2.0, Organ.BOWEL, -1.0)
        self._tube(p.gullet, p.hu["wall"] - 20, Organ.STOMACH)
        self._hollow(p.stomach, 3.8, Organ.STOMACH, -2.0)
        self._hollow(p.duodenum, 2.6, Organ.DUODENUM, p.duodenum_kind)

    def _hollow(self, tube: Tube, wall_mm: float, organ: Organ, kind: float) -> None:
        """A tube with wall and contents; ``kind`` is -2 stomach, -1 colon, 0 to 1 small bowel."""
        hit = tube.window(self.c, self.z)
        if hit is None:
            return
        p, (c, distance) = self.p, hit
        coarse, fine = c.coarse, c.fine
        distance = meet(distance + 1.0 * coarse, self.inner[c.part] + 2, 6)
        distance = meet(distance, 5 - self.gland[c.part], 6)
        c.paint(distance - 1.6, _FAT_HU + 14, Organ.FAT)
        c.paint(distance, p.hu["wall"] + 6 * fine, organ)
        if kind == -2:
            fluid = p.drink + (14 * coarse if p.drink > 60 else 8 * fine)
            content = fluid + step(c.y - p.gas_y, 1.5) * (_GAS_HU - fluid)
        elif kind == -1:
            stool = 25 + 28 * fine + 0.25 * p.drink
            content = stool + step(0.6 * fine + coarse - 1.3, 0.5) * (-700 - stool)
        elif kind < 0.3:
            content = p.hu["wall"] - 35 + 25 * fine
        else:
            fluid = np.full_like(distance, p.drink if kind > 0.45 else 22.0)
            level = float(tube.points[:, 1].max()) + (3.0 if kind < 0.8 else -9.0)
            content = fluid + step(c.y - level, 1.5) * (_GAS_HU - fluid)
        c.paint(distance + wall_mm, content, organ)

    def _pancreas(self) -> None:
        p = self.p
        c, distance = self.c, self.gland
        if distance.min() > self.c.reach_mm:
            return
        fine, grain = c.fine, c.grain
        edge = distance + p.lobes_mm * np.clip(0.8 * fine + 0.5 * grain, -1.3, 1.3)
        edge = np.where(np.isin(c.organs, _FIRM), 99.0, edge)
        value = p.hu["pancreas"] - p.pancreas_fat * np.maximum(fine + 0.5, 0) + 8 * grain
        c.paint(edge - 3, _FAT_HU + 10, Organ.FAT)
        c.paint(edge, value, Organ.PANCREAS)
        self._tube(p.duct, 35.0, Organ.PANCREAS, Organ.PANCREAS)
        self._tube(p.bile_duct, _BILE_HU, Organ.PANCREAS, Organ.PANCREAS)
