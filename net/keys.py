"""Who may talk to whom: CURVE key pairs, the clients that a server lets in, the servers that a client trusts.

A key folder holds text files only: ``NAME.key``, a key pair, readable by its owner alone; and lists of public keys: ``clients``,
who may look at what this machine serves; ``dealers``, which servers may stand behind its broker; ``servers``, whom it trusts, by
address. Keys are written as 64 hexadecimal digits, which survive any shell; ZeroMQ's own 40 characters are understood as well.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from rawmosaic.net.addresses import server_address
from rawmosaic.storage.errors import AccessError

FOLDER_ENVIRONMENT = "RAWMOSAIC_KEYS"
DEFAULT_NAME = "default"
CLIENTS, DEALERS, SERVERS = "clients", "dealers", "servers"
"""The lists. Who may look at slides may not therefore offer any: servers behind a broker have a list of their own."""

ZAP_ADDRESS = "inproc://zeromq.zap.01"
ZAP_DOMAIN = b"rawmosaic"

_KEY_NBYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_PAIR_SUFFIX = ".key"


@dataclass(frozen=True)
class ClientCurve:
    """What a client needs to talk to one server; keys as 40 bytes of Z85."""

    server_public: bytes
    public: bytes
    secret: bytes = field(repr=False)

    def apply(self, socket: zmq.Socket) -> None:
        """Encrypt the socket's connections, and refuse any other server. Before it connects."""
        socket.curve_serverkey = self.server_public
        socket.curve_publickey = self.public
        socket.curve_secretkey = self.secret


@dataclass(frozen=True)
class ServerCurve:
    """A server's own key pair (40 bytes of Z85 each), and the file that lists the clients it lets in."""

    public: bytes
    secret: bytes = field(repr=False)
    clients: Path

    def apply(self, socket: zmq.Socket) -> None:
        """Let in listed clients only. Before the socket binds; while no `gate` is open in its context, nobody gets in."""
        socket.curve_server = True
        socket.curve_publickey = self.public
        socket.curve_secretkey = self.secret
        socket.zap_domain = ZAP_DOMAIN
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without it, a context without a gate would let everybody in

    def gate(self, context: zmq.Context) -> Gate:
        """The gate of the sockets in a context that this was applied to."""
        return Gate(context, self.clients)


class Gate:
    """The authenticator of a context's servers: asks the list of clients at every handshake, and reads it again when it changed.

    A context manager; one a context. Runs in a thread of its own.
    """

    def __init__(self, context: zmq.Context, clients: str | os.PathLike):
        self._list = _ClientList(Path(clients))
        self._socket = context.socket(zmq.REP)
        self._end = context.socket(zmq.PAIR)
        self._other_end = context.socket(zmq.PAIR)
        for socket in (self._socket, self._end, self._other_end):
            socket.linger = 0
        name = f"inproc://gate-{id(self)}"
        try:
            self._socket.bind(ZAP_ADDRESS)
            self._other_end.bind(name)
            self._end.connect(name)
        except zmq.ZMQError:
            for socket in (self._socket, self._end, self._other_end):
                socket.close()
            raise
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)
        self._thread.start()

    def admits(self, public: bytes) -> bool:
        """Whether the list names a public key (40 bytes of Z85). Any thread."""
        return bytes(public) in self._list.read()

    def close(self) -> None:
        """Close the gate: nobody new is let in. Closing twice is harmless."""
        if not self._end.closed:
            self._end.send(b"")
            self._thread.join()
            self._end.close()

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._other_end, zmq.POLLIN)
        while self._other_end not in (events := dict(poller.poll())):
            if self._socket in events:
                self._socket.send_multipart(self._answer(self._socket.recv_multipart()))
        self._socket.close()
        self._other_end.close()

    def _answer(self, frames: list[bytes]) -> list[bytes]:
        """The answer to an authentication request (ZeroMQ RFC 27): version, id, domain, address, identity, mechanism, key."""
        number = frames[1] if len(frames) > 1 else b""
        if len(frames) == 7 and frames[0] == b"1.0" and frames[5] == b"CURVE" and len(frames[6]) == _KEY_NBYTES:
            public = z85.encode(frames[6])
            if self.admits(public):
                return [b"1.0", number, b"200", b"OK", public, b""]
        return [b"1.0", number, b"400", b"this key is not listed", b"", b""]


class _ClientList:
    """The public keys in a file of clients, read again when the file is another."""

    def __init__(self, path: Path):
        self._path = path
        self._stamp: tuple | None = None
        self._keys: frozenset[bytes] = frozenset()
        self._lock = threading.Lock()

    def read(self) -> frozenset[bytes]:
        """Z85 keys; none where the file cannot be read."""
        with self._lock:
            try:
                found = self._path.stat()
                stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
                if stamp != self._stamp:
                    self._keys = frozenset(z85.encode(bytes.fromhex(key)) for key in _read_list(self._path).values())
                    self._stamp = stamp
            except (OSError, AccessError):
                self._keys, self._stamp = frozenset(), None
            return self._keys


@dataclass(frozen=True)
class KeyPair:
    """A key pair under its name; keys as 64 hexadecimal digits."""

    name: str
    public: str
    secret: str = field(repr=False)


class KeyFolder:
    """The folder of this user's keys and lists. Everything raises AccessError, which says what to do.

    `path`: the folder; else the environment variable RAWMOSAIC_KEYS, else the system's place for settings.
    """

    def __init__(self, path: str | os.PathLike | None = None):
        self.path = Path(path or os.environ.get(FOLDER_ENVIRONMENT) or _settings_folder())

    # key pairs

    def new_pair(self, name: str = DEFAULT_NAME) -> KeyPair:
        """Make a key pair; the folder holds it from now on, in a file that others cannot read."""
        path = self._pair_path(name)
        public, secret = (z85.decode(key).hex() for key in zmq.curve_keypair())
        text = (
            f"# Key pair {name!r} of rawmosaic. Whoever has this file can act in your name: do not pass it on.\n"
            f"public {public}\nsecret {secret}\n"
        )
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise AccessError(
                f"there is a key pair {name} already; choose another name, or `rawmosaic keys forget --pair {name}` first",
                location=path,
            ) from error
        except OSError as error:
            raise AccessError(f"the key pair cannot be written: {error.strerror}", location=path) from error
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        return KeyPair(name, public, secret)

    def pair(self, name: str | None = None) -> KeyPair:
        """A key pair by name; else the one called ``default``; else the only one there is."""
        if name is None:
            names = self.pair_names()
            if not names:
                raise AccessError("there is no key pair yet; make one with `rawmosaic keys new`", location=self.path)
            if DEFAULT_NAME not in names and len(names) > 1:
                raise AccessError(
                    f"which key pair? There are {', '.join(names)}, and none is called {DEFAULT_NAME}", location=self.path
                )
            name = DEFAULT_NAME if DEFAULT_NAME in names else names[0]
        path = self._pair_path(name)
        if not path.exists():
            known = ", ".join(self.pair_names()) or "none"
            raise AccessError(f"there is no key pair {name} (there are: {known}); `rawmosaic keys new {name}`", location=path)
        _check_mode(path)
        words = dict(line for _, line in _lines(path))
        if set(words) != {"public", "secret"}:
            raise AccessError(
                "the file does not hold a public and a secret key; forget the pair and make a new one", location=path
            )
        return KeyPair(name, *(_key(words[kind], path) for kind in ("public", "secret")))

    def pair_names(self) -> list[str]:
        """Names of the key pairs, sorted."""
        return sorted(path.name.removesuffix(_PAIR_SUFFIX) for path in self.path.glob(f"*{_PAIR_SUFFIX}"))

    def forget_pair(self, name: str) -> None:
        """Delete a key pair for good."""
        path = self._pair_path(name)
        try:
            path.unlink()
        except FileNotFoundError as error:
            raise AccessError(f"there is no key pair {name}", location=self.path) from error

    # lists

    def listed(self, which: str = CLIENTS) -> dict[str, str]:
        """Name or address → public key, of CLIENTS, DEALERS or SERVERS."""
        return _read_list(self.path / which)

    def allow(self, name: str, public: str, which: str = CLIENTS) -> None:
        """Let in whoever has the key that belongs to a public key; running servers see it at once."""
        self._add(which, _check_name(name), public)

    def trust(self, address: str, public: str) -> None:
        """Encrypt what is said to the server at an address, and believe it only with this public key."""
        self._add(SERVERS, server_address(address), public)

    def forget(self, name: str) -> list[str]:
        """Take a name, or the address of a server, off the lists; says which lists it was on."""
        key = server_address(name) if "://" in name else name
        entries = {which: self.listed(which) for which in (CLIENTS, DEALERS, SERVERS)}
        found = [which for which, listed in entries.items() if listed.pop(key, None) is not None]
        if not found:
            known = ", ".join(name for listed in entries.values() for name in listed) or "none"
            raise AccessError(f"{name} is on no list (on them are: {known})", location=self.path)
        for which in found:
            _write_list(self.path / which, entries[which])
        return found

    def _add(self, which: str, name: str, public: str) -> None:
        _write_list(self.path / which, {**self.listed(which), name: _key(public)})

    # for sockets

    def server_curve(self, name: str | None = None) -> ServerCurve:
        """What a server of this user's needs."""
        pair = self.pair(name)
        return ServerCurve(_z85(pair.public), _z85(pair.secret), self.path / CLIENTS)

    def client_curve(self, address: str) -> ClientCurve | None:
        """What a client of the server at an address needs; None where no key of that server is remembered."""
        public = self.listed(SERVERS).get(server_address(address))
        if public is None:
            return None
        pair = self.pair()
        return ClientCurve(_z85(public), _z85(pair.public), _z85(pair.secret))

    def _pair_path(self, name: str) -> Path:
        return self.path / f"{_check_name(name)}{_PAIR_SUFFIX}"


def curve_for(address: str, folder: str | os.PathLike | None = None) -> ClientCurve | None:
    """What a client of the server at an address needs; None where no key of that server is remembered. AccessError."""
    return KeyFolder(folder).client_curve(address)


def _settings_folder() -> Path:
    import platformdirs

    return Path(platformdirs.user_config_dir("rawmosaic", appauthor=False)) / "keys"


def _z85(digits: str) -> bytes:
    return z85.encode(bytes.fromhex(digits))


def _key(text: str, location: object = None) -> str:
    """A key as 64 small hexadecimal digits, from that or from 40 characters of Z85."""
    text = text.strip()
    with suppress(ValueError, KeyError, IndexError, TypeError, UnicodeError):
        data = bytes.fromhex(text) if len(text) == 2 * _KEY_NBYTES else z85.decode(text.encode("ascii"))
        if len(data) == _KEY_NBYTES:
            return data.hex()
    raise AccessError(f"a key is written as 64 hexadecimal digits, unlike {text[:80]!r}", location=location)


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise AccessError(f"{name[:80]!r} is no name for a key: use letters, digits and . _ @ - (at most 64)")
    return name


def _check_mode(path: Path) -> None:
    """A secret that others can read is none. Windows keeps a user's settings to the user."""
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise AccessError(
            f"others may read this secret key; `chmod 600 {path}`, or forget the pair and make a new one", location=path
        )


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """(number, the two words) of each line of a file that says something; a file that does not exist says nothing."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeError) as error:
        raise AccessError(f"the file cannot be read: {error}", location=path) from error
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = [] if line.startswith("#") else line.split()
        if words and len(words) != 2:
            raise AccessError(
                f"line {number} has {len(words)} words where a name and a key are due; mend or delete it", location=path
            )
        if words:
            lines.append((number, words))
    return lines


def _read_list(path: Path) -> dict[str, str]:
    return {name: _key(key, f"{path}, line {number}") for number, (name, key) in _lines(path)}


def _write_list(path: Path, entries: Mapping[str, str]) -> None:
    """Replace a list at once: a server that reads it meanwhile sees the old or the new one."""
    text = "# rawmosaic: a name or an address, and its public key\n" + "".join(f"{name} {key}\n" for name, key in entries.items())
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, temporary = tempfile.mkstemp(prefix=path.name, dir=path.parent)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise AccessError(f"the list cannot be written: {error.strerror}", location=path) from error
