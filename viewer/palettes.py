"""Colours to choose from: palettes for several channels, colour maps for one, and the colour that a wavelength looks like.

Everything here is display-referred sRGB, as the picture itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from rawmosaic.storage.errors import OutOfRangeError

PALETTES: dict[str, tuple[str, ...]] = {
    "usual": ("#0000ff", "#00ff00", "#ff00ff", "#00ffff", "#ffff00", "#ff8000", "#ffffff", "#ff0000"),
    "Okabe–Ito": ("#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2", "#ffffff"),
    "magenta, green, cyan": ("#ff00ff", "#00ff00", "#00ffff", "#ffff00", "#ffffff"),
    "magenta, green": ("#ff00ff", "#00ff00"),
    "cyan, magenta, yellow": ("#00ffff", "#ff00ff", "#ffff00", "#ffffff"),
}
"""Sets of colours by name. *Okabe–Ito* (Color Universal Design, 2002) is told apart with every kind of colour blindness; its
black is left out, and white put last, since pictures are dark. Of *magenta, green*, what both have in common is white."""

COLOUR_BLIND_SAFE = ("Okabe–Ito", "magenta, green, cyan", "magenta, green", "cyan, magenta, yellow")

_BANDS_NM = (
    (480, "#0000ff"),
    (505, "#00ffff"),
    (550, "#00ff00"),
    (580, "#ffff00"),
    (605, "#ff8000"),
    (650, "#ff0000"),
    (math.inf, "#ff00ff"),
)
"""Colours by the longest emission wavelength that has them: full ones, which channels are told apart by; far red is magenta."""

_EVENLY_SPACED = {
    "viridis": (
        "44015446085c471063481769481d6f482475472a7a46307e453781433d844142873f48893d4e8a3a538b38598c355e8d33638d31688e2e6d8e"
        "2c718e2a768e297b8e27808e25848e23898e218e8d20928c1f978b1e9c891fa18821a58524aa8328ae802eb37c35b7793dbc7446c06f50c46a"
        "5ac86465cb5e70cf577cd25089d54895d840a2da37b0dd2fbddf26cae11fd8e219e5e419f1e51dfde725"
    ),
    "magma": (
        "00000402020b0504160907200e0b2b140e361a104221114e29115a311165390f6e420f754a107952137c5a167e6219806a1c81721f81792282"
        "812581892881912b81992d80a1307eaa337db2357bba3878c23b75ca3e72d2426fd9466be04c67e75263ec5860f1605df4695cf7725cf97b5d"
        "fb8560fc8e64fd9869fea16efeaa74feb47bfebd82fec68afecf92fed89afde2a3fdebacfcf4b6fcfdbf"
    ),
    "inferno": (
        "00000402020c0504170a072210092d160b391e0c45260c512f0a5b380962400a67490b6a510e6c59106e61136e69166e71196e781c6d801f6c"
        "88226a902568982766a02a63a82e5fb0315bb73557bf3952c63d4dcc4248d34743d94d3ddf5337e45a31e9612bed6925f1711ff47918f78212"
        "f98b0bfa9407fb9d07fca60cfcb014fbba1ffac42af8cd37f6d746f4e156f2ea69f2f27df5f992fcffa4"
    ),
    "cividis": (
        "00224e00255300275800295d002b62002d68002f6d0031700533710f35701637701c396f213b6e263d6e2a3f6d2e416d32436d35456c39486c"
        "3c4a6c3f4c6c424e6c45506c48526c4b546c4e566c51586d545a6d565c6d595e6e5c616e5e636f61656f646770666970696b716c6d726e6f73"
        "7172747374757676767878777b7a787e7c78807f788381798683798985788c88788f8a78928c78948e779791779a93769d9576a09875a39a74"
        "a69c74a99f73aca172afa471b3a670b6a96fb9ab6dbcae6cbfb06bc2b369c5b568c8b866ccba64cfbd62d2c060d5c25ed9c55cdcc859dfca57"
        "e2cd54e6d051e9d34eedd54af0d846f3db42f7de3efbe138fee434fee838"
    ),
    "fire": "00000012005a3c00a08200b4b9007ddc1e2dfa6400ffaa00ffdc28fff096ffffff",
    "ice": "00000000145000329b0064c81e96e150c8f096ebfad2faffffffff",
}
"""Colour maps as colours at equal distances. viridis, magma and inferno (S. van der Walt, N. Smith and E. Firing, 2015, CC0) and
cividis (J. Nuñez, C. Anderton and R. Renslow, 2018) are samples of what was published; with straight lines between the samples
they are met to within one of 255 levels, cividis to within two."""

COLOR_MAPS = ("gray", *_EVENLY_SPACED)
TABLE_COLORS = 256


def palette(name: str, count: int) -> list[str]:
    """So many colours of a palette, from the beginning again where it has fewer."""
    if name not in PALETTES:
        raise OutOfRangeError("palette", name, "choose one of " + ", ".join(PALETTES))
    colors = PALETTES[name]
    return [colors[number % len(colors)] for number in range(count)]


def wavelength_color(nm: float | None) -> str | None:
    """The full colour nearest to light of a wavelength, nm, as ``#rrggbb``; None where that is not known."""
    if nm is None or not math.isfinite(nm):
        return None
    return next(color for longest, color in _BANDS_NM if nm < longest)


def wavelength_colors(wavelengths_nm: Sequence[float | None]) -> list[str | None]:
    """A colour by wavelength for each channel, those of several in one band made different by lightening the later ones."""
    colors: list[str | None] = []
    for nm in wavelengths_nm:
        color = wavelength_color(nm)
        while color is not None and color in colors and color != "#ffffff":
            color = _lightened(color)
        colors.append(color)
    return colors


@cache
def color_table(name: str) -> np.ndarray:
    """(256, 3) uint8 sRGB of a colour map, dark end first; read-only. Raises OutOfRangeError for a name not in COLOR_MAPS."""
    if name == "gray":
        table = np.repeat(np.arange(TABLE_COLORS, dtype=np.uint8)[:, None], 3, axis=1)
    elif name in _EVENLY_SPACED:
        anchors = np.frombuffer(bytes.fromhex(_EVENLY_SPACED[name]), np.uint8).reshape(-1, 3).astype(np.float64)
        at = np.linspace(0, len(anchors) - 1, TABLE_COLORS)
        columns = [np.interp(at, np.arange(len(anchors)), anchors[:, part]) for part in range(3)]
        table = np.rint(np.stack(columns, axis=1)).astype(np.uint8)
    else:
        raise OutOfRangeError("colour map", name, "choose one of " + ", ".join(COLOR_MAPS))
    table.flags.writeable = False
    return table


def _lightened(color: str) -> str:
    """Half way to white."""
    return "#" + "".join(f"{(int(color[place : place + 2], 16) + 256) // 2:02x}" for place in (1, 3, 5))
