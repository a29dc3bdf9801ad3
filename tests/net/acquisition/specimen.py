"""A scan whose every property follows from a seed: what is on the stage, in which order it comes, and how it is told."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rawmosaic.storage.slide import FIELD_DTYPE, new_fields

CHANNELS = ("DAPI", "GFP")
STEP_UM = 10.0
PLANNED, INDEXED, POSITIONED = "planned", "indexed", "positioned"
"""How a plane says where it belongs: by its field's number, by row and column, or by its position alone."""

Key = tuple[int, int]
"""(place, channel): the place is the field's number in the plan, or its column, or its x in steps."""


@dataclass(frozen=True)
class Specimen:
    """What a scan is to acquire. `keys` are its planes in the order in which they are sent."""

    seed: int
    n_places: int = 120
    shape: tuple[int, int] = (24, 32)
    naming: str = INDEXED
    sorted: bool = True

    @classmethod
    def of(cls, seed: int, n_places: int | None = None) -> Specimen:
        """The specimen of a seed."""
        chosen = random.Random(seed)
        places, shape = chosen.randrange(80, 160), (chosen.choice((24, 32, 50, 64)), chosen.choice((32, 33, 64)))
        naming, in_order = chosen.choice((PLANNED, INDEXED, POSITIONED)), chosen.random() < 0.7
        return cls(seed, n_places or places, shape, naming, in_order)

    @cached_property
    def keys(self) -> list[Key]:
        keys = [(place, channel) for place in range(self.n_places) for channel in range(len(CHANNELS))]
        if not self.sorted:
            random.Random(self.seed).shuffle(keys)
        return keys

    def plane(self, key: Key) -> np.ndarray:
        """(height, width) uint16 pixels that say where they belong."""
        return np.random.default_rng([self.seed, *key]).integers(0, 4096, self.shape, dtype=np.uint16)

    def where(self, key: Key) -> dict[str, float | int]:
        """How a scanner names the field of a plane."""
        place = key[0]
        if self.naming == PLANNED:
            return {"field": place}
        if self.naming == INDEXED:
            return {"row": 0, "column": place, "x_um": STEP_UM * place, "y_um": 5.0}
        return {"x_um": STEP_UM * place, "y_um": 5.0}

    @property
    def fields(self) -> np.ndarray | None:
        """(n,) FIELD_DTYPE of the plan; None where fields come as they come."""
        if self.naming != PLANNED:
            return None
        fields = new_fields(self.n_places, self.shape)
        fields["x_um"], fields["y_um"] = STEP_UM * np.arange(self.n_places), 5.0
        return fields.astype(FIELD_DTYPE)

    @staticmethod
    def place(entry: np.void) -> int:
        """The place of a field, by its row in a slide's table."""
        return round(float(entry["x_um"]) / STEP_UM)
