"""The scanner's side: what a program that drives a microscope calls. Nothing here knows the hardware."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Literal

import numpy as np

from rawmosaic.net.acquisition.asking import MANAGER
from rawmosaic.net.acquisition.messages import ABORT, BLOSC, FIND, FINISH, RAW, START, PlaneHeader, encoded, plane_request
from rawmosaic.net.acquisition.plan import ScanPlan, plan_to_body
from rawmosaic.net.acquisition.scan_line import DISCARDED, FINAL, PROGRAM, Letter, ScanLine
from rawmosaic.net.addresses import is_local, server_address
from rawmosaic.net.connection import Connection
from rawmosaic.net.keys import curve_for
from rawmosaic.net.protocol import EndedError
from rawmosaic.storage.checksum import crc32
from rawmosaic.storage.errors import AcquisitionError, OutOfRangeError, SlideError, UnreachableError
from rawmosaic.storage.slide import Channel, Header

WINDOW_NBYTES = 256 << 20
"""Planes that wait for their acknowledgement, in memory; a server may ask for less."""

HEADER_COST = 24
"""A server counts a plane's header so many times, for what it takes in memory."""

TIMEOUT_S = 120.0
"""A server may be away for so long, restarting for instance, before whoever waits is told."""

ABORT_S = 15.0
"""An exception is not held up for longer in order to tell the server of it."""

LOOK_S = 0.2
"""A wait is made of such pieces, so that an interrupt at the keyboard ends it on any system."""

LONGEST_REASON = 1000
"""Characters of what is told about an early end."""

FIRST_PAUSE_S, LAST_PAUSE_S = 0.02, 0.5


class Scanner:
    """Sends the planes of a scan to an acquisition server, which makes a slide of them. Used by one thread at a time.

    In a with-statement: left in order, a scan that was started is finished; left by an exception, it is ended early, and its
    slide holds what was acquired.

    Parameters
    ----------
    address
        Of the server, ``tcp://host:port``.
    keys
        Folder of the keys; else the user's. A server on another machine is spoken to with the key that is kept for it.
    encoding
        ``raw`` or ``blosc``; ``auto`` compresses what goes to other machines.
    window_nbytes
        Planes that may wait for their acknowledgement, in memory. `send` waits where they are more.
    timeout_s
        How long the server may be away before whoever waits gets UnreachableError. Nothing is lost then: the planes are kept, and
        the next call goes on waiting.

    What the server refuses is raised by the next call, as a SlideError.
    """

    def __init__(
        self,
        address: str = MANAGER,
        keys: str | None = None,
        *,
        encoding: Literal["auto", "raw", "blosc"] = "auto",
        window_nbytes: int = WINDOW_NBYTES,
        timeout_s: float = TIMEOUT_S,
    ):
        self.address = server_address(address)
        self._curve = curve_for(self.address, keys)
        if encoding not in ("auto", RAW, BLOSC):
            raise OutOfRangeError("encoding", encoding, "choose auto, raw or blosc")
        self._encoding = encoding if encoding != "auto" else RAW if is_local(self.address) else BLOSC
        self._most_nbytes, self._timeout_s = window_nbytes, timeout_s
        self._window_nbytes = window_nbytes
        self._plan: ScanPlan | None = None
        self._line: ScanLine | None = None
        self._location = ""
        self._acknowledged = 0

    # facts

    @property
    def uid(self) -> str:
        """The scan's own name for itself: with it, another program may go on with the scan. Empty before the first."""
        return self._plan.uid if self._plan is not None else ""

    @property
    def acknowledged(self) -> int:
        """Planes of the scan that are safe."""
        return self._line.acknowledged if self._line is not None else self._acknowledged

    @property
    def held(self) -> str:
        """Why the server takes nothing in just now, or does not get on with the slide; empty where it does."""
        line = self._line
        return "" if line is None else line.held or (str(line.found.get("error") or "") if line.watches else "")

    @property
    def location(self) -> str:
        """Where on the server the slide lies, or will."""
        return self._location

    # a scan

    def start(
        self,
        name: str,
        *,
        field_shape: tuple[int, int],
        channels: Sequence[str | Channel],
        pixel_size_um: float | None = None,
        header: Header | None = None,
        fields: np.ndarray | None = None,
        size_z: int = 1,
        size_t: int = 1,
        scenes: Sequence[str] = (),
        codec: str = "lz4",
        orientation: np.ndarray | Sequence[Sequence[float]] | None = None,
        uid: str | None = None,
        extra: Mapping | None = None,
    ) -> None:
        """Begin a scan, or go on with the one of that `uid`; returns when the server takes planes in.

        `field_shape`: (height, width) of the largest field, pixels. `fields`: (n,) FIELD_DTYPE where they are known beforehand;
        planes are then sent by field number. `orientation`: (2, 2), image axes → mosaic axes without the pixel size, where the
        camera is turned or mirrored against the stage. A scan that was gone on with keeps the planes that it has. Raises
        AcquisitionError where that name is taken, or the uid's scan was planned otherwise; WriteError where the server's disk is
        full; AccessError; UnreachableError.
        """
        if self._line is not None:
            raise AcquisitionError(f"the scan {self._plan.name} runs; finish or abort it before the next is started")
        if header is None:
            header = Header(name, acquired_at=datetime.now().astimezone().isoformat(timespec="seconds"))
        if pixel_size_um is not None and pixel_size_um != header.pixel_size_um:
            header = Header(**{**vars(header), "pixel_size_um": float(pixel_size_um)})
        plan = ScanPlan(
            name=name,
            uid=uid or uuid.uuid4().hex,
            field_shape=tuple(int(side) for side in field_shape),
            channels=tuple(c if isinstance(c, Channel) else Channel(str(c)) for c in channels),
            header=header,
            size_z=size_z,
            size_t=size_t,
            scenes=tuple(scenes),
            fields=fields,
            codec=codec,
            orientation=None if orientation is None else tuple(tuple(float(n) for n in row) for row in orientation),
            extra=extra or {},
        )
        manager = Connection(self.address, self._curve, program=PROGRAM)
        try:
            found = self._begun(manager, plan, is_new=uid is None)
            self._plan, self._location = plan, str(found.get("location", ""))
            self._window_nbytes = min(self._most_nbytes, int(found.get("window_nbytes") or self._most_nbytes))
            self._acknowledged = 0
            self._line = ScanLine(manager, plan.uid, self._curve, found)
        except BaseException:
            manager.close()
            raise

    def _begun(self, manager: Connection, plan: ScanPlan, is_new: bool) -> Mapping:
        """What the manager says once the scan's proxy is there. A new scan that does not come about leaves nothing behind."""
        body, buffers = plan_to_body(plan)
        try:
            found = manager.request(START, body=body, buffers=buffers, timeout_s=self._timeout_s).body
            return self._with_proxy(manager, plan, found)
        except BaseException:
            if is_new:
                with suppress(SlideError):
                    manager.request(ABORT, body={"uid": plan.uid, "discard": True}, timeout_s=min(self._timeout_s, ABORT_S))
            raise

    def _with_proxy(self, manager: Connection, plan: ScanPlan, found: Mapping) -> Mapping:
        ends, pause_s = time.monotonic() + self._timeout_s, FIRST_PAUSE_S
        while not found.get("address") and found.get("state") in ("waiting", "acquiring", "failed"):
            if time.monotonic() > ends or found.get("state") == "failed":
                reason = found.get("error") or "its process does not come up; look at the server's log"
                raise UnreachableError(f"the server has begun the scan, but takes no planes: {reason}", location=self.address)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_PAUSE_S)
            found = manager.request(FIND, body={"uid": plan.uid}, timeout_s=self._timeout_s).body
        if found.get("state") not in ("waiting", "acquiring", "failed"):
            raise AcquisitionError(f"the scan with this uid is {found.get('state')}; begin another with a uid of its own")
        return found

    def send(
        self,
        image: np.ndarray,
        channel: int | str,
        *,
        field: int | None = None,
        row: int | None = None,
        column: int | None = None,
        x_um: float | None = None,
        y_um: float | None = None,
        z_um: float = 0.0,
        scene: int | None = None,
        z: int = 0,
        t: int = 0,
        metadata: Mapping | None = None,
    ) -> None:
        """Hand in one (height, width) plane of uint16 or uint8; the caller may reuse `image` at once.

        The field is named by its number where fields were planned, else by (row, column, scene), else by its position alone;
        `x_um`, `y_um`: the centre of the image in the mosaic frame. `metadata`: whatever is to be kept with the plane, at most
        16 KiB as JSON. Waits while as much as may be is not acknowledged yet.

        Raises AcquisitionError and OutOfRangeError for a plane that does not fit the scan, what the server refused before, and
        UnreachableError.
        """
        line = self._running()
        self._raise_refusals()
        header, payload = self._checked(image, channel, field, row, column, x_um, y_um, z_um, scene, z, t, metadata)
        request = plane_request(0, header, payload)
        nbytes = len(payload) + HEADER_COST * len(json.dumps(request.body))
        self._wait(lambda: not line.unanswered_nbytes or line.unanswered_nbytes + nbytes <= self._window_nbytes)
        line.hand_in(Letter(request.op, request.body, request.buffers, nbytes))

    def flush(self) -> None:
        """Return when every plane that was handed in is acknowledged. Raises what the server refused, and UnreachableError."""
        line = self._running()
        self._wait(lambda: line.unanswered == 0)
        self._raise_refusals()

    def finish(self, wait: bool = True) -> str:
        """End the scan: all planes are acknowledged, and the slide is completed. Returns where the slide lies on the server.

        With `wait` it is complete, verified and under its final name when this returns; without, the next may begin meanwhile.
        Raises what the server refused before: then the scan goes on, and may be finished by another call; and EndedError where
        somebody had it discarded. A scan that somebody else ended is finished, if all planes were acknowledged before.
        """
        line = self._running()
        self.flush()
        self._tell(FINISH, {})
        if wait:
            self._wait_until_complete(line)
        self._end()
        return self._location

    def abort(self, discard: bool = False, reason: str = "") -> None:
        """End the scan early: its slide holds what was acknowledged, says so, and the `reason`. With `discard` all is deleted.

        Raises EndedError where somebody ended the scan meanwhile so that the slide is not what this would make of it: it was
        discarded and should not have been, or the other way round.
        """
        line = self._running()
        line.give_up()
        self._tell(ABORT, {"discard": discard, "reason": reason[:LONGEST_REASON]})
        self._end()

    def close(self) -> None:
        """Leave without a word: a scan that was not finished waits on the server for its uid to come back. Twice is harmless."""
        self._end()

    def __enter__(self) -> Scanner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if self._line is not None and error is None:
                self._finish_or_abort()
            elif self._line is not None:
                self._abort_for(error)
        finally:
            self.close()

    def _finish_or_abort(self) -> None:
        try:
            self.flush()
        except UnreachableError:
            raise
        except SlideError as refusal:  # nobody comes who could finish it by another call
            self._abort_for(refusal)
            raise
        self.finish()

    def _abort_for(self, error: BaseException) -> None:
        self._timeout_s = min(self._timeout_s, ABORT_S)
        try:
            self.abort(reason=f"{type(error).__name__}: {error}".removesuffix(": "))
        except EndedError as trouble:
            error.add_note(str(trouble))
        except SlideError as trouble:
            error.add_note(
                f"The scan {self._plan.name} could not be ended ({trouble}); what was acknowledged is safe, and the server ends "
                f"it when it has heard nothing for long. Its uid is {self.uid}."
            )

    # inside

    def _running(self) -> ScanLine:
        if self._line is None:
            raise AcquisitionError("no scan runs; start() one first", location=self.address)
        return self._line

    def _checked(
        self, image, channel, field, row, column, x_um, y_um, z_um, scene, z, t, metadata
    ) -> tuple[PlaneHeader, bytes | memoryview]:
        """(header, payload) of a plane that fits the plan; the payload is a copy."""
        plan = self._plan
        image = np.asarray(image)
        if image.ndim != 2 or image.dtype.kind != "u" or image.dtype.itemsize > 2:
            raise AcquisitionError(f"a plane is a (height, width) array of uint16 or uint8, not {image.dtype} {image.shape}")
        if not (0 < image.shape[0] <= plan.field_shape[0] and 0 < image.shape[1] <= plan.field_shape[1]):
            raise AcquisitionError(f"a plane of {image.shape} pixels does not fit the scan's field_shape {plan.field_shape}")
        channel = self._channel_number(channel)
        for what, value, size in (("z", z, plan.size_z), ("t", t, plan.size_t)):
            if not 0 <= value < size:
                raise OutOfRangeError(what, value, f"the scan has {what} 0 to {size - 1}", location=plan.name)
        if plan.fields is not None:
            if field is None:
                raise AcquisitionError("the fields of the scan are planned: planes are sent by field=number", location=plan.name)
            if not 0 <= field < len(plan.fields):
                raise OutOfRangeError("field", field, f"the scan has fields 0 to {len(plan.fields) - 1}", location=plan.name)
        elif field is not None:
            told = "the fields of the scan are not planned; name row and column, or x_um and y_um"
            raise AcquisitionError(told, location=plan.name)
        pixels = image.astype(np.dtype("<u2"), order="C")  # a copy: the camera's buffer is the caller's
        payload = encoded(pixels, self._encoding)
        if self._encoding == BLOSC and len(payload) > pixels.nbytes:
            encoding, payload = RAW, encoded(pixels, RAW)
        else:
            encoding = self._encoding
        header = PlaneHeader(
            uid=plan.uid,
            channel=channel,
            shape=(int(image.shape[0]), int(image.shape[1])),
            crc=crc32(payload),
            encoding=encoding,
            field=_whole(field),
            row=_whole(row),
            column=_whole(column),
            scene=_whole(scene),
            x_um=_real(x_um),
            y_um=_real(y_um),
            z_um=_real(z_um),
            z=int(z),
            t=int(t),
            metadata=metadata or {},
        )
        if plan.fields is None and header.place is None:
            raise AcquisitionError("a plane needs row= and column=, or x_um= and y_um=", location=plan.name)
        return header, payload

    def _channel_number(self, channel: int | str) -> int:
        channels = self._plan.channels
        names = [known.name for known in channels]
        if isinstance(channel, str):
            if channel not in names:
                raise OutOfRangeError("channel", channel, f"the scan has {', '.join(names)}", location=self._plan.name)
            return names.index(channel)
        if not 0 <= channel < len(channels):
            raise OutOfRangeError("channel", channel, f"the scan has channels 0 to {len(channels) - 1}", location=self._plan.name)
        return int(channel)

    def _tell(self, op: str, body: Mapping) -> None:
        """Say something to the proxy that has an answer, and wait for it."""
        letter = Letter(op, {"scan": self.uid, **body})
        self._line.hand_in(letter)
        self._wait(lambda: letter.done)
        if letter.error is not None:
            if self._line.over:  # there is nothing left to do for this scanner
                self._end()
            raise letter.error

    def _wait_until_complete(self, line: ScanLine) -> None:
        line.watches = True
        line.wake()
        self._wait(lambda: line.found.get("state") in FINAL or bool(_failure(line.found)))
        if failure := _failure(line.found):
            line.watches = False
            raise SlideError(
                f"the slide is not complete yet: {failure}; its planes are safe on the server, which tries on",
                location=self._location,
            )
        if line.found.get("state") == DISCARDED:
            self._end()
            raise EndedError("somebody had the scan discarded while it was finished", location=self._location)

    def _wait(self, ready: Callable[[], bool]) -> None:
        """Wait until something is so. Raises UnreachableError where nobody is heard for as long as the time-out, and what keeps
        the server from answering at all, such as a refused key."""
        line, began = self._line, time.monotonic()
        with line.changed:
            while not ready():
                trouble = line.trouble
                if trouble is not None:
                    waited_s = time.monotonic() - max(began, line.trouble_since)
                    if waited_s > self._timeout_s:
                        happens = "was not reached" if isinstance(trouble, UnreachableError) else "did not go on with the scan"
                        raise UnreachableError(
                            f"the server {happens} for {waited_s:.0f} s ({trouble}); the planes that it did not "
                            "acknowledge are kept here, and go out when it does",
                            location=self.address,
                        ) from trouble
                line.changed.wait(LOOK_S)

    def _raise_refusals(self) -> None:
        line = self._line
        with line.changed:
            refusals = list(line.refusals)
            line.refusals.clear()
        if refusals:
            if len(refusals) > 1:
                refusals[0].add_note(f"{len(refusals) - 1} more planes were refused.")
            raise refusals[0]

    def _end(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            self._acknowledged = line.acknowledged
            line.close()


def _failure(found: Mapping) -> str:
    """Why a scan does not get on; empty where it does."""
    return str(found.get("error") or "a process fails") if found.get("state") == "failed" else ""


def _whole(value: int | None) -> int | None:
    return None if value is None else int(value)


def _real(value: float | None) -> float | None:
    return None if value is None else float(value)
