"""Asking an acquisition server about its scans, and telling it to end one: for who does not scan himself."""

from __future__ import annotations

from collections.abc import Mapping

from rawmosaic.net.acquisition.messages import ABORT, FIND, FINISH, STATUS
from rawmosaic.net.acquisition.scan_line import PROGRAM
from rawmosaic.net.addresses import server_address
from rawmosaic.net.connection import PATIENCE_S, Connection
from rawmosaic.net.keys import curve_for

MANAGER = "tcp://127.0.0.1:5556"


class Server:
    """A conversation with the manager at `address`; a context manager, used by one thread at a time.

    `keys`: folder of the keys; else the user's. Everything raises SlideError.
    """

    def __init__(self, address: str = MANAGER, keys: str | None = None):
        self.address = server_address(address)
        self._curve = curve_for(self.address, keys)
        self._manager = Connection(self.address, self._curve, program=PROGRAM)

    def scans(self, timeout_s: float | None = None) -> list[dict]:
        """What the manager says of each scan, the unfinished ones first: `SupervisedScan.report` tells the keys."""
        found: list[dict] = []
        rest, after = True, ""
        while rest:
            reply = self._manager.request(STATUS, body={"after": after}, timeout_s=timeout_s or PATIENCE_S)
            page = [scan for scan in reply.body.get("scans", ()) if isinstance(scan, dict)]
            found += page
            after = str(page[-1].get("uid", "")) if page else ""
            rest = bool(reply.body.get("rest")) and bool(page)
        return found

    def find(self, name: str) -> Mapping:
        """Where the scan of that name is taken in, and how far it is; NotASlideError where there is none."""
        return self._manager.request(FIND, body={"name": name}).body

    def finish(self, name: str) -> str:
        """End a scan as it is, in its scanner's place; returns where its slide will lie.

        Returns when the end is on the server's disk; so does `abort`. ConflictError where the scan was ended otherwise before,
        BusyError, with the reason, where the disk has not taken the end for a minute: it will, or may be asked for again.
        """
        return self._end(FINISH, name, {})

    def abort(self, name: str, discard: bool = False) -> str:
        """End a scan early: its slide says so; or delete all that it acquired. Returns where its slide will lie."""
        return self._end(ABORT, name, {"discard": discard})

    def _end(self, op: str, name: str, body: Mapping) -> str:
        """By its uid: asked once more, it is the same scan that is ended, even if another has the name by then."""
        uid = self.find(name)["uid"]
        return str(self._manager.request(op, body={"uid": uid, **body}).body.get("location", ""))

    def close(self) -> None:
        """Close the connection; closing twice is harmless."""
        self._manager.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
