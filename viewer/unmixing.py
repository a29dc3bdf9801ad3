"""Linear unmixing from reference regions: what each dye gives in every channel → the matrix that takes them apart.

A region where one dye is alone tells its spectrum, the mean counts of all channels there. Spectra, each divided by its count in
the dye's own channel, are the columns of the mixing matrix A; U holds the rows of A's pseudo-inverse, each at its dye's channel.
So counts' = U · counts tells how much each dye alone would give in its own channel, and contrast limits keep their meaning.
Channels that are no dye's own stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rawmosaic.storage.errors import OutOfRangeError, SlideError
from rawmosaic.storage.slide import Slide
from rawmosaic.viewer.plan import Geometry
from rawmosaic.viewer.region import Bounds, fitting_level, region_counts

MOST_ALIKE = 1e-3
"""Spectra of which the smallest singular value is below this share of the largest are not told apart: noise would decide."""


def reference_spectrum(
    slide: Slide,
    geometry: Geometry,
    bounds_um: Bounds,
    z: int = 0,
    t: int = 0,
    wanted: Callable[[], bool] = lambda: True,
) -> np.ndarray:
    """(n_channels,) float64 mean counts of each channel in a region, mosaic µm. Reads; not in the GL thread.

    Raises SlideError where a channel has no pixel there or cannot be read, NoLongerWantedError once `wanted` says no.
    """
    level = fitting_level(slide, bounds_um, 1.0)
    return np.array([_mean(slide, geometry, bounds_um, channel, z, t, level, wanted) for channel in range(len(slide.channels))])


def mixing_matrix(
    references: Mapping[int, Sequence[float]], names: Sequence[str], background: Sequence[float] | None = None
) -> np.ndarray:
    """A, (n_channels, dyes) float64: one column for each dye, in the order given, 1 in the dye's own channel.

    `references`: by the number of the dye's own channel, the (n_channels,) spectrum where it is alone; `background`: counts where
    there is no dye, which are taken off first (a camera's offset is no colour). `names`: of the channels, for messages.
    """
    zero = np.zeros(len(names)) if background is None else _spectrum(background, names, "the background")
    columns = []
    for channel, counts in references.items():
        if not 0 <= channel < len(names):
            raise OutOfRangeError("channel", channel, f"the slide has channels 0 to {len(names) - 1}")
        spectrum = _spectrum(counts, names, f"the reference of {names[channel]}") - zero
        if spectrum[channel] <= 0:
            raise SlideError(
                f"the reference of {names[channel]} has no light in its own channel ({spectrum[channel]:g} counts above the "
                "background); choose a region where the dye is bright"
            )
        columns.append(spectrum / spectrum[channel])
    return np.stack(columns, axis=1) if columns else np.empty((len(names), 0))


def unmixing_matrix(
    references: Mapping[int, Sequence[float]], names: Sequence[str], background: Sequence[float] | None = None
) -> np.ndarray:
    """U, (n_channels, n_channels) float64, from the references that `mixing_matrix` describes; the identity for none.

    Raises SlideError where two references are so alike, or a third so near their mixture, that they cannot be told apart.
    """
    unmixing = np.eye(len(names))
    if not references:
        return unmixing
    mixing = mixing_matrix(references, names, background)
    if mixing.shape[1] > mixing.shape[0]:
        raise SlideError(f"{mixing.shape[1]} dyes cannot be told apart by {mixing.shape[0]} channels")
    sizes = np.linalg.svd(mixing / np.linalg.norm(mixing, axis=0), compute_uv=False)
    if sizes[-1] < MOST_ALIKE * sizes[0]:
        raise SlideError(
            f"the references of {_most_alike(mixing, references, names)} are too alike to be told apart; choose others"
        )
    unmixing[list(references)] = np.linalg.pinv(mixing)
    return unmixing


def _most_alike(mixing: np.ndarray, references: Mapping[int, Sequence[float]], names: Sequence[str]) -> str:
    """Names of the two dyes whose spectra make the smallest angle."""
    directions = mixing / np.linalg.norm(mixing, axis=0)
    cosines = directions.T @ directions - 2 * np.eye(mixing.shape[1])
    dyes = [names[channel] for channel in references]
    return " and ".join(dyes[place] for place in sorted(np.unravel_index(np.argmax(cosines), cosines.shape)))


def _spectrum(counts: Sequence[float], names: Sequence[str], what: str) -> np.ndarray:
    spectrum = np.asarray(counts, np.float64)
    if spectrum.shape != (len(names),) or not np.isfinite(spectrum).all():
        raise SlideError(f"{what} must have one finite number for each of {len(names)} channels")
    return spectrum


def _mean(
    slide: Slide, geometry: Geometry, bounds_um: Bounds, channel: int, z: int, t: int, level: int, wanted: Callable[[], bool]
) -> float:
    total, count, problems = 0, 0, []
    for block in region_counts(slide, geometry, bounds_um, (channel,), z, t, level, wanted=wanted, problems=problems):
        total += int(block.sum(dtype=np.uint64))
        count += block.size
    if problems:
        raise SlideError(problems[0])
    if not count:
        raise SlideError(f"the reference region holds no pixel of {slide.channels[channel].name}", location=slide.location)
    return total / count
