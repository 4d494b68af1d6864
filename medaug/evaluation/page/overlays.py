"""Draw slices as 8-bit pictures, with masks outlined or maps of values laid over them.

Arrays are (y, x) as in slices; pictures show anterior up and the patient's right on the left.
"""

import base64

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medaug.core.types import HU
from medaug.runtime.pictures import grey, upright

RGB = npt.NDArray[np.uint8]

_INFERNO = (
    b"0009300aO41_1yE0RagC0Sf{F4gvxY0|F8R0~7=U76k+t1_T=i1sw<m9|;B_3I`(#2PO>&C=LiJ4+$+02`>@~G7}0k6b"
    b"m*M3pp1HI~fZ;8Vf)i3_~3ZMIQ`DAPh<(3rr*nP9_UbCks+33sfr#RxJuxE(%&O3S2S?T{H<_H3?uh31K-2Vmk?BJPBn"
    b"!31&bEW<d#OLkeg`3TZ|PX-ErdN(*XB3~NmcYflYqPz`KS4s25nZB-9#R}XDi5N%o!ZCep;T@r3z5^i7<ZekQ}V-#*>6"
    b">eq~ZfF*6Y8P&67jA7BZf+QEa2alL8EtbKZFL)Mb{lPY9Bq0WZF?PTeI0Cm9&CUgYk?nYgCJ{#AZmsoYKS3fi6Uu>B59"
    b"2yX^tdlkR)i4C1;Z*XO$*qmL_JHCuNx^WSb~toGD|TDPy22VxcQxqbp&gEMTTAU#Bf!sV-itE?ulIT&^%%uQ6M(F<P=R"
    b"S+p})wKG?@G*-AZR=PG-yEjz5H&ebiQolJ-!8%aFJ5R(sPQ^V<$39HRK1<0zO3Oe=%t1)aLPyU;M$kn>(MChkM?%y{LD"
    b"fk>)=EFuOFr36J=#t?+fO>&P&wUFINnn?-&8i>Ry5*QGvin?<XSQ1TQKHaF6Le>=U*)7VJqokD(Yk?>t!eGXD01vCGBb"
    b">?rb9OZ6WY)AMkJ<@p2vVbR6<^8uND<^LZHbdKUG374?1;_J9)hff4tE5ch=+_=gSnhz$6O3;B!*`Hl$rkO=yb2l|r+`"
    b"jrOymj?Tp2K$=^`<({+o(KD&2m7K3`=ko{rVIP14g0DN`>YWAt`hsO6#KCj`?DDPwHo`k9Q(N*`nw_ey(9X+CHlcA`NJ"
    b"yt#Vq;9FZjtZ_{%i-%{TYYI``2$_R~N1)k5{xMfKT8^xI4H+)wk~QuE+e^Ws_Z<X!USVDac=@#$#s>umAuaPjVR@$h-^"
    b"@_q92f%5c)^Y)4K_l@=Vk@otP_xqXo{GIy!p#1)%"
)
INFERNO = np.frombuffer(base64.b85decode(_INFERNO), np.uint8).reshape(256, 3)
"""matplotlib's colour map of that name, from black to pale yellow."""


def plain(image: HU, window_hu: tuple[float, float]) -> RGB:
    """Values (y, x) through a window as grey levels (y, x, 3)."""
    return np.repeat(upright(grey(image, window_hu))[..., None], 3, -1)


def outlined(
    image: HU,
    window_hu: tuple[float, float],
    mask: npt.NDArray[np.bool_],
    colour: tuple[int, int, int],
) -> RGB:
    """A slice with the inner outline of a mask (y, x)."""
    picture = plain(image, window_hu)
    picture[upright(mask & ~ndimage.binary_erosion(mask))] = colour
    return picture


def heated(
    image: HU, window_hu: tuple[float, float], values: npt.NDArray[np.float64], most: float
) -> RGB:
    """A slice under a colour map of values (y, x) from 0, dark, to ``most``, light."""
    share = upright(np.clip(values / most, 0, 1) if most > 0 else np.zeros(values.shape))
    colours = INFERNO[np.minimum(share * 256, 255).astype(np.uint8)]
    weight = (0.25 + 0.75 * share)[..., None]
    mixed = (1 - weight) * plain(image, window_hu) + weight * colours
    return np.asarray(mixed.round(), np.uint8)
