"""What lies in the folder of a scan: the names by which its processes find what another one of them wrote.

docs/design/acquisition.md tells who owns what.
"""

SCAN_FILE, END_FILE = "scan.json", "end.json"
PROXY_FILE, WRITER_FILE = "proxy.json", "writer.json"
"""What these processes say of themselves."""

PROXY_LOCK, WRITER_LOCK = "proxy.lock", "writer.lock"
PROXY_LOG, WRITER_LOG = "proxy.log", "writer.log"

SPOOL_FOLDER, RELEASED_FILE = "spool", "released.index"
DAMAGED_FOLDER = "damaged"
"""Beside the spool: segments with a plane that cannot be written, under a second name, however far the spool is released."""
