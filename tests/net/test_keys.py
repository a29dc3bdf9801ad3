"""Key folders, and who gets in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import zmq
from zmq.utils import z85

from rawmosaic.net.addresses import is_local, server_address
from rawmosaic.net.keys import CLIENTS, DEALERS, SERVERS, ClientCurve, Gate, KeyFolder, curve_for
from rawmosaic.storage.errors import AccessError


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "keys")


def test_a_new_pair_is_found_again_and_belongs_together(folder):
    made = folder.new_pair("scope")
    assert folder.pair("scope") == made
    assert folder.pair_names() == ["scope"]
    assert zmq.curve_public(z85.encode(bytes.fromhex(made.secret))) == z85.encode(bytes.fromhex(made.public))


@pytest.mark.skipif(os.name != "posix", reason="files have no modes here")
def test_a_secret_is_readable_by_its_owner_alone(folder):
    folder.new_pair()
    path = folder.path / "default.key"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(AccessError, match="chmod 600"):
        folder.pair()


def test_a_secret_is_not_shown_by_accident(folder):
    made = folder.new_pair()
    folder.trust("tcp://host:5555", made.public)
    curve, server = folder.client_curve("tcp://host:5555"), folder.server_curve()
    for shown in (repr(made), repr(curve), repr(server)):
        assert made.secret not in shown
        assert str(server.secret) not in shown


def test_a_pair_is_never_overwritten(folder):
    made = folder.new_pair()
    with pytest.raises(AccessError, match="already"):
        folder.new_pair()
    assert folder.pair() == made


def test_the_only_pair_is_the_one_meant(folder):
    with pytest.raises(AccessError, match="keys new"):
        folder.pair()
    alice = folder.new_pair("alice")
    assert folder.pair() == alice
    folder.new_pair("bob")
    with pytest.raises(AccessError, match="alice, bob"):
        folder.pair()
    own = folder.new_pair()
    assert folder.pair() == own


def test_a_forgotten_pair_is_gone(folder):
    folder.new_pair("alice")
    folder.forget_pair("alice")
    assert folder.pair_names() == []
    with pytest.raises(AccessError, match="no key pair alice"):
        folder.forget_pair("alice")


@pytest.mark.parametrize("name", ["", "../up", "a/b", "a b", ".hidden", "x" * 65, "new\nline", "ä"])
def test_a_name_cannot_leave_the_folder(folder, name):
    with pytest.raises(AccessError, match="no name"):
        folder.new_pair(name)
    with pytest.raises(AccessError, match="no name"):
        folder.allow(name, "0" * 64)


def test_keys_are_understood_in_both_spellings(folder):
    public = folder.new_pair().public
    folder.allow("hex", public.upper())
    folder.allow("z85", z85.encode(bytes.fromhex(public)).decode())
    assert folder.listed() == {"hex": public, "z85": public}


@pytest.mark.parametrize("key", ["", "12", "g" * 64, "0" * 63, "0" * 65, "~" * 40, "é" * 40, "0" * 10**6, "0 " * 32])
def test_what_is_no_key_is_refused(folder, key):
    with pytest.raises(AccessError, match="64 hexadecimal digits"):
        folder.allow("alice", key)
    assert folder.listed() == {}


def test_lists_are_kept_and_entries_forgotten(folder):
    folder.allow("alice", "1" * 64)
    folder.allow("bob", "2" * 64)
    folder.trust("tcp://Host.example:5555/slide", "3" * 64)
    assert folder.listed(SERVERS) == {"tcp://host.example:5555": "3" * 64}
    folder.allow("bob", "4" * 64, DEALERS)
    assert folder.forget("alice") == [CLIENTS]
    assert folder.forget("tcp://host.example:5555") == [SERVERS]
    assert folder.listed(DEALERS) == {"bob": "4" * 64}
    assert (folder.listed(), folder.listed(SERVERS)) == ({"bob": "2" * 64}, {})
    with pytest.raises(AccessError, match="bob"):
        folder.forget("alice")


@pytest.mark.parametrize("text", ["alice\n", "alice 12\n", "alice a b\n", b"\xff\xfe\x00"])
def test_a_damaged_list_says_which_file(folder, text):
    folder.path.mkdir()
    (folder.path / CLIENTS).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(AccessError, match="clients"):
        folder.listed()


def test_a_client_knows_the_keys_of_the_servers_that_it_trusts(folder):
    server, own = KeyFolder(folder.path / "server").new_pair(), folder.new_pair()
    folder.trust("tcp://host:5555", server.public)
    curve = curve_for("tcp://HOST:5555/some/slide", folder.path)
    assert isinstance(curve, ClientCurve)
    assert [z85.decode(key).hex() for key in (curve.server_public, curve.public, curve.secret)] == [
        server.public,
        own.public,
        own.secret,
    ]
    assert curve_for("tcp://other:5555", folder.path) is None


def test_trust_without_a_pair_says_how_to_make_one(folder):
    folder.trust("tcp://host:5555", "0" * 64)
    with pytest.raises(AccessError, match="keys new"):
        folder.client_curve("tcp://host:5555")


def test_the_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("RAWMOSAIC_KEYS", str(tmp_path / "elsewhere"))
    KeyFolder().new_pair()
    assert (tmp_path / "elsewhere" / "default.key").exists()


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("tcp://127.0.0.1:5555", True),
        ("tcp://127.3.2.1:*", True),
        ("tcp://localhost:1", True),
        ("tcp://[::1]:5555", True),
        ("ipc:///some/file", True),
        ("tcp://*:5555", False),
        ("tcp://0.0.0.0:5555", False),
        ("tcp://[::]:5555", False),
        ("tcp://192.168.0.7:5555", False),
        ("tcp://localhost.example:5555", False),
        ("tcp://127.0.0.1.example:5555", False),
        ("tcp://eth0:5555", False),
    ],
)
def test_loopback_is_told_from_the_network(address, local):
    assert is_local(address) is local


@pytest.mark.parametrize("address", ["host:5555", "tcp://", "tcp://:5555", "tcp://h:port", "tcp://h:99999", "tcp://[::1", ""])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(AccessError, match="tcp://HOST:PORT"):
        server_address(address)


def test_an_address_has_one_spelling():
    assert server_address(" TCP://Host:1/a/b ") == "tcp://host:1"
    assert server_address("tcp://host") == server_address("tcp://host:5555/x")
    assert server_address("tcp://[::1]:7/x") == "tcp://[::1]:7"


class Door:
    """A ROUTER behind a server's keys, and clients that knock."""

    def __init__(self, keys: KeyFolder):
        self.context = zmq.Context()
        self.curve = keys.server_curve()
        self.server = self.context.socket(zmq.ROUTER)
        self.server.linger = 0
        self.curve.apply(self.server)
        self.port = self.server.bind_to_random_port("tcp://127.0.0.1")
        self.clients: list[zmq.Socket] = []

    def opens_for(self, curve: ClientCurve | None, wait_ms: int = 200) -> bool:
        """Whether a client of these keys gets a message through."""
        client = self.context.socket(zmq.DEALER)
        self.clients.append(client)
        client.linger = 0
        if curve is not None:
            curve.apply(client)
        client.connect(f"tcp://127.0.0.1:{self.port}")
        client.send(b"knock")
        if not self.server.poll(wait_ms):
            return False
        self.server.recv_multipart()
        return True

    def close(self) -> None:
        for socket in (self.server, *self.clients):
            socket.close()
        self.context.term()


@pytest.fixture
def door(folder):
    folder.new_pair("server")
    door = Door(folder)
    yield door
    door.close()


def client_of(folder: KeyFolder, name: str) -> ClientCurve:
    """A client with a key pair of its own that knows the server's key."""
    own = KeyFolder(folder.path / name)
    own.new_pair()
    own.trust("tcp://127.0.0.1", folder.pair("server").public)
    return own.client_curve("tcp://127.0.0.1")


def hex_of(curve: ClientCurve) -> str:
    return z85.decode(curve.public).hex()


def test_listed_clients_get_in_and_no_other(folder, door):
    alice, mallory = client_of(folder, "alice"), client_of(folder, "mallory")
    folder.allow("alice", hex_of(alice))
    with door.curve.gate(door.context) as gate:
        assert door.opens_for(alice, 5000)
        assert not door.opens_for(mallory)
        assert not door.opens_for(None)
        assert gate.admits(alice.public)
        assert not gate.admits(mallory.public)


def test_the_list_is_read_again_when_it_changes(folder, door):
    alice = client_of(folder, "alice")
    with door.curve.gate(door.context):
        assert not door.opens_for(alice)
        folder.allow("alice", hex_of(alice))
        assert door.opens_for(alice, 5000)
        folder.forget("alice")
        assert not door.opens_for(alice)


def test_a_damaged_list_lets_nobody_in(folder, door):
    alice = client_of(folder, "alice")
    (folder.path / CLIENTS).write_text("alice\n")
    with door.curve.gate(door.context):
        assert not door.opens_for(alice)


def test_without_a_gate_nobody_gets_in(folder, door):
    alice = client_of(folder, "alice")
    folder.allow("alice", hex_of(alice))
    assert not door.opens_for(alice)


def test_a_client_believes_the_server_with_the_right_key_only(folder, door):
    alice = client_of(folder, "alice")
    folder.allow("alice", hex_of(alice))
    impostor = z85.encode(bytes.fromhex(KeyFolder(folder.path / "impostor").new_pair().public))
    with door.curve.gate(door.context):
        assert not door.opens_for(ClientCurve(impostor, alice.public, alice.secret))


def test_a_gate_closed_twice_is_harmless(folder, door):
    gate = Gate(door.context, folder.path / CLIENTS)
    gate.close()
    gate.close()
