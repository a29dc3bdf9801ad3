"""Which planes of a scan are there, and which field a plane belongs to. No file, no socket, no thread."""

from __future__ import annotations

import numpy as np

from rawmosaic.net.acquisition.messages import PlaneHeader
from rawmosaic.net.acquisition.plan import MOST_FIELDS, ScanPlan
from rawmosaic.net.acquisition.spool import PlaneFacts, released_facts
from rawmosaic.net.protocol import ConflictError
from rawmosaic.storage.errors import AcquisitionError, OutOfRangeError


def check_against_plan(header: PlaneHeader, plan: ScanPlan) -> None:
    """Raise OutOfRangeError or AcquisitionError, with the limits, for a plane that the plan has no room for. Any thread."""
    for what, value, size in (
        ("channel", header.channel, len(plan.channels)),
        ("z", header.z, plan.size_z),
        ("t", header.t, plan.size_t),
    ):
        if value >= size:
            raise OutOfRangeError(what, value, f"the scan was planned with {what} 0 to {size - 1}")
    if header.scene is not None and header.scene >= len(plan.scenes):
        limits = f"the scan was planned with scene 0 to {len(plan.scenes) - 1}" if plan.scenes else "the scan has no scenes"
        raise OutOfRangeError("scene", header.scene, limits)
    if plan.fields is not None:
        if header.field is None:
            raise AcquisitionError("the fields of this scan were planned, so a plane names its field by `field`, its number")
        if header.field >= len(plan.fields):
            raise OutOfRangeError("field", header.field, f"the scan was planned with fields 0 to {len(plan.fields) - 1}")
    elif header.field is not None:
        raise AcquisitionError("the fields of this scan were not planned; name them by row and column, or x_um and y_um")
    elif header.place is None:
        raise AcquisitionError("a plane needs row and column, or x_um and y_um: nothing says which field it belongs to")
    if any(side > largest for side, largest in zip(header.shape, plan.field_shape, strict=True)):
        raise AcquisitionError(
            f"a plane of {header.shape[0]} × {header.shape[1]} pixels came; the scan was planned with at most "
            f"{plan.field_shape[0]} × {plan.field_shape[1]}"
        )


class Ledger:
    """Field numbers by place, in the order in which places come, and the checksum of every plane's pixels."""

    def __init__(self, plan: ScanPlan):
        self._plan = plan
        self._checksums: dict[int, int] = {}
        self._damaged: dict[int, int] = {}
        self._taken_back: dict[int, int] = {}
        self._shapes: dict[int, tuple[int, int]] = {}
        self._field_of_place: dict[tuple, int] = {}
        self._next_field = 0

    def __len__(self) -> int:
        """How many planes are there."""
        return len(self._checksums)

    @property
    def n_damaged(self) -> int:
        """How many planes were there, and are damaged."""
        return len(self._damaged)

    @property
    def n_fields(self) -> int:
        """How many fields have a plane."""
        return len(self._shapes)

    def placed(self, header: PlaneHeader, pixels_crc: int) -> tuple[PlaneFacts, bool]:
        """(what the plane is called from now on, whether it is there already). Nothing is changed: see `note`.

        Raises ConflictError where another plane is in its place, AcquisitionError where a field or the scan has no room for it.
        """
        number = self._field(header)
        facts = PlaneFacts(
            field=number,
            channel=header.channel,
            z=header.z,
            t=header.t,
            row=header.row,
            column=header.column,
            scene=header.scene,
            x_um=header.x_um,
            y_um=header.y_um,
            z_um=header.z_um,
            shape=header.shape,
            encoding=header.encoding,
            crc=header.crc,
            metadata=header.metadata,
            pixels_crc=pixels_crc,
        )
        shape = self._shape(number)
        if shape is not None and shape != header.shape:
            raise ConflictError(
                f"field {number} is {shape[0]} × {shape[1]} pixels, but channel {header.channel} came with "
                f"{header.shape[0]} × {header.shape[1]}"
            )
        plane = self._number(*facts.key)
        known = self._checksums.get(plane)
        first = next((crcs[plane] for crcs in (self._checksums, self._damaged, self._taken_back) if plane in crcs), None)
        if first is not None and first != pixels_crc:
            raise ConflictError(
                f"field {number}, channel {header.channel}, z {header.z}, t {header.t} is there with other pixels; "
                "each plane is acquired once"
            )
        return facts, known is not None

    def has(self, facts: PlaneFacts) -> bool:
        """Whether a plane is there."""
        return self._number(*facts.key) in self._checksums

    def note(self, facts: PlaneFacts) -> None:
        """A plane is there, and whole."""
        self._damaged.pop(self._number(*facts.key), None)
        self._taken_back.pop(self._number(*facts.key), None)
        self._checksums[self._number(*facts.key)] = facts.pixels_crc
        self._shapes.setdefault(facts.field, tuple(facts.shape))
        if self._plan.fields is None:
            self._note_place(facts)

    def take_back(self, facts: PlaneFacts) -> None:
        """A plane may not be there after all; its field keeps its number. Where it is there, it is what the slide gets: so it is
        taken in once more if it comes with the same pixels."""
        if (crc := self._checksums.pop(self._number(*facts.key), None)) is not None:
            self._taken_back[self._number(*facts.key)] = crc

    def note_damaged(self, facts: PlaneFacts) -> None:
        """A plane was there, and is damaged on the disk: it is taken in once more, if it comes with the same pixels."""
        self.note(facts)
        del self._checksums[self._number(*facts.key)]
        self._damaged[self._number(*facts.key)] = facts.pixels_crc

    def keep_numbers(self, n_planes: int) -> None:
        """So many planes were there of which nothing is known: each may have had a field of its own, whose number is not given
        to another."""
        self._next_field += n_planes

    def note_released(self, rows: np.ndarray) -> None:
        """The planes of RELEASED_DTYPE rows are there."""
        for row in rows:
            self.note(released_facts(row))

    def _note_place(self, facts: PlaneFacts) -> None:
        place = _place(facts)
        if place is not None:
            self._field_of_place.setdefault(place, facts.field)
        self._next_field = max(self._next_field, facts.field + 1)

    def _field(self, header: PlaneHeader) -> int:
        if self._plan.fields is not None:
            return header.field
        number = self._field_of_place.get(header.place, self._next_field)
        if number >= MOST_FIELDS:
            raise AcquisitionError(f"the scan has {MOST_FIELDS} fields, and takes no more; begin another")
        return number

    def _shape(self, number: int) -> tuple[int, int] | None:
        shape = self._shapes.get(number)
        if shape is None and self._plan.fields is not None and self._plan.fields["height"][number]:
            entry = self._plan.fields[number]
            shape = (int(entry["height"]), int(entry["width"]))
        return shape

    def _number(self, field: int, channel: int, z: int, t: int) -> int:
        return ((field * len(self._plan.channels) + channel) * self._plan.size_z + z) * self._plan.size_t + t


def _place(facts: PlaneFacts) -> tuple | None:
    """As `PlaneHeader.place` has it."""
    if facts.row is not None and facts.column is not None:
        return ("index", facts.scene, facts.row, facts.column)
    if facts.x_um is not None and facts.y_um is not None:
        return ("position", facts.scene, facts.x_um, facts.y_um)
    return None
