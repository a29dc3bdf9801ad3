"""Asking an acquisition server about its scans, and telling it to end one: for who does not scan himself."""

from __future__ import annotations

from collections.abc import Mapping

from rawmosaic.net.acquisition.scan_line import ENDED, PROGRAM, seen_from
from rawmosaic.net.addresses import server_address
from rawmosaic.net.connection import PATIENCE_S, Connection
from rawmosaic.net.keys import curve_for
from rawmosaic.storage.errors import UnreachableError

MANAGER = "tcp://127.0.0.1:5556"
ENDING_S = 30.0


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
            reply = self._manager.request("status", body={"after": after}, timeout_s=timeout_s or PATIENCE_S)
            page = [scan for scan in reply.body.get("scans", ()) if isinstance(scan, dict)]
            found += page
            after = str(page[-1].get("uid", "")) if page else ""
            rest = bool(reply.body.get("rest")) and bool(page)
        return found

    def find(self, name: str) -> Mapping:
        """Where the scan of that name is taken in, and how far it is; NotASlideError where there is none."""
        return self._manager.request("find", body={"name": name}).body

    def finish(self, name: str) -> str:
        """End a scan as it is, as its scanner would have done; returns where its slide will lie."""
        return self._end(name, "finish", {})

    def abort(self, name: str, discard: bool = False) -> str:
        """End a scan early: its slide is marked so; or delete all that it acquired. Returns where its slide will lie."""
        return self._end(name, "abort", {"discard": discard})

    def _end(self, name: str, op: str, body: Mapping) -> str:
        found = self.find(name)
        if found.get("state") in ENDED:
            return str(found.get("location", ""))
        address = str(found.get("address") or "")
        if not address:
            raise UnreachableError(
                f"the scan {name} is not taken in just now ({found.get('error') or found.get('state')}); try again, or look at "
                "`rawmosaic acquire status`",
                location=self.address,
            )
        with Connection(seen_from(self.address, address), self._curve, program=PROGRAM) as proxy:
            proxy.request(op, body={"scan": found.get("uid"), **body}, timeout_s=ENDING_S)
        return str(found.get("location", ""))

    def close(self) -> None:
        """Close the connection; closing twice is harmless."""
        self._manager.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
