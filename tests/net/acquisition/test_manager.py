"""The whole chain, with real processes over loopback: what a scanner sent is in the slide, whatever is killed in between."""

from __future__ import annotations

import errno
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from bare_client import BareClient, error_of, until
from sending import assert_same, begin, microscope, send_all
from server_process import ANY, LONG_S, ServerProcess, processes_there

from rawmosaic.net.acquisition import Scanner
from rawmosaic.net.acquisition.asking import Server
from rawmosaic.net.acquisition.finished_scans import FinishedScan, FinishedScans
from rawmosaic.net.acquisition.manager import Manager
from rawmosaic.net.acquisition.simulate import place_of, planes_in_order, simulate
from rawmosaic.net.protocol import ConflictError, ExistsError, FullError
from rawmosaic.net.remote_slide import RemoteSlide
from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import AccessError, AcquisitionError, NotASlideError, OutOfRangeError, UnreachableError
from rawmosaic.storage.hdf5.verify import verify_slide
from rawmosaic.storage.slide import Slide

Serve = Callable[..., Manager]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder of the slides."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def serve(data: Path) -> Iterator[Serve]:
    """Start a manager in this process; all are closed at the end."""
    opened: list[Manager] = []

    def start(**options) -> Manager:
        opened.append(Manager(data, ANY, **options))
        return opened[-1]

    yield start
    for manager in opened:
        manager.close()


def nothing_but_slides(data: Path) -> bool:
    """Whether no scan is unfinished, and nothing of any is left."""
    return not [path for path in data.iterdir() if path.suffix not in (".h5", ".lock", ".scans", ".log")]


# a scan


def test_what_a_scanner_sent_is_the_slide(serve, data):
    camera = microscope(sparse=0.2, size_z=2)
    with Scanner(serve().address) as scanner:
        begin(scanner, "my scan", camera)
        send_all(scanner, camera)
        location = scanner.finish()
    assert Path(location) == data / "my scan.h5"
    assert scanner.acknowledged == len(list(planes_in_order(camera)))
    assert_same(location, camera)
    until(lambda: nothing_but_slides(data), LONG_S)


def test_what_is_told_of_a_plane_is_kept_with_it(serve):
    camera = microscope(grid=(1, 1))
    with Scanner(serve().address) as scanner:
        begin(scanner, "a", camera)
        scanner.send(camera.read_plane(0, 1), "GFP", row=0, column=0, metadata={"temperature": 36.9, "lamp": "blue"})
    with open_slide(scanner.location) as slide:
        assert slide.plane_metadata(0, 1) == {"temperature": 36.9, "lamp": "blue"}
        np.testing.assert_array_equal(slide.read_plane(0, 1), camera.read_plane(0, 1))


def test_a_replayed_slide_is_the_slide(serve):
    camera = microscope(3, sparse=0.3, size_z=2, size_t=2, plane_offset_px=2.0, shapes=[(40, 60), (30, 50)], scenes=["a", "b"])
    with Scanner(serve().address) as scanner:
        location = simulate(camera, scanner, name="replayed")
    assert verify_slide(location) == []
    with open_slide(location) as slide:
        assert slide.scenes == camera.scenes
        for t in range(2):
            for z in range(2):
                np.testing.assert_array_equal(slide.acquired(z, t), camera.acquired(z, t))
        for field, channel, z, t in planes_in_order(camera):
            np.testing.assert_array_equal(slide.read_plane(field, channel, z, t), camera.read_plane(field, channel, z, t))
        stage = slide.position_set("stage")
        for field, channel, _, _ in planes_in_order(camera):
            there = stage.positions_um[field] + (0 if stage.plane_offsets_um is None else stage.plane_offsets_um[field, channel])
            np.testing.assert_allclose(there, place_of(camera, field, channel)[:2], atol=1e-6)


def test_a_replayed_slide_is_called_by_its_new_name_and_did_not_end_early(serve):
    camera = microscope(21, grid=(1, 1), name="the old name")
    camera.header.extra["ended_early"] = "the lamp broke"
    with Scanner(serve().address) as scanner:
        location = simulate(camera, scanner, name="new")
    with open_slide(location) as slide:
        assert slide.header.name == "new"
        assert slide.header.extra == {"seed": 21, "acquisition": {"uid": scanner.uid, "planned": True}}
        assert slide.header.objective == camera.header.objective


def test_ten_scans_at_once_are_ten_slides(serve, data):
    address = serve().address
    cameras = [microscope(seed, grid=(1, 2)) for seed in range(10)]

    def scan(number: int) -> str:
        with Scanner(address) as scanner:
            begin(scanner, f"scan {number}", cameras[number])
            send_all(scanner, cameras[number])
            return scanner.finish()

    with ThreadPoolExecutor(10) as pool:
        locations = list(pool.map(scan, range(10)))
    for location, camera in zip(locations, cameras, strict=True):
        assert_same(location, camera)
    until(lambda: nothing_but_slides(data), LONG_S)


def test_the_next_scan_begins_while_the_last_is_finished(serve, data):
    first, second = microscope(1), microscope(2)
    with Scanner(serve().address) as scanner:
        begin(scanner, "first", first)
        send_all(scanner, first)
        scanner.finish(wait=False)
        begin(scanner, "second", second)
        send_all(scanner, second)
        scanner.finish()
    until(lambda: nothing_but_slides(data), LONG_S)
    assert_same(data / "first.h5", first)
    assert_same(data / "second.h5", second)


def test_the_page_cache_and_a_small_window_lose_nothing(serve):
    camera = microscope(4, field_shape=(400, 500))
    with Scanner(serve(durability="page-cache", window_nbytes=1 << 20).address) as scanner:
        begin(scanner, "a", camera)
        send_all(scanner, camera)
    assert_same(scanner.location, camera)


def test_a_full_spool_holds_the_scanner_and_no_plane_is_dropped(serve):
    camera = microscope(5, field_shape=(400, 500))  # twice as much as the spool may hold
    with Scanner(serve(spool_nbytes=2_500_000).address) as scanner:
        begin(scanner, "a", camera)
        send_all(scanner, camera)
    assert_same(scanner.location, camera)


def test_a_hostile_scanner_harms_nobody_else(serve, data):
    camera, manager = microscope(6), serve()
    with Scanner(manager.address) as good, Scanner(manager.address) as bad:
        begin(good, "good", camera)
        begin(bad, "bad", camera)
        keys = list(planes_in_order(camera))
        send_all(good, camera, keys[:5])
        with Server(manager.address) as server:
            proxy = server.find("bad")["address"]
        for address in (manager.address, proxy):
            with BareClient(address) as client:
                for nonsense in (b"", b"{", b"[]", b'{"v":1,"id":1}', b"\xff" * 1000):
                    client.socket.send_multipart([nonsense, b"x" * 100])
                assert error_of(client.ask("open", "a")) == "protocol"
                assert error_of(client.ask("start", plan={"buffer": 9, "shape": [1 << 40]})) == "protocol"
                assert client.ask("ping")[0]["status"] == "ok"
        with BareClient(proxy) as client:
            plane = {"scan": bad.uid, "channel": 0, "shape": [40, 60], "encoding": "raw", "row": 0, "column": 0, "crc": 1}
            assert error_of(client.ask("plane", buffers=[bytes(2 * 40 * 60)], **plane)) == "protocol"
            assert error_of(client.ask("plane", buffers=[b""], **{**plane, "scan": good.uid})) is not None
        send_all(good, camera, keys[5:])
        assert_same(good.finish(), camera)
        bad.abort(discard=True)
    until(lambda: nothing_but_slides(data), LONG_S)
    assert [path.name for path in data.glob("*.h5")] == ["good.h5"]


def test_the_lines_of_the_page_make_a_slide(serve, data):
    specimen = microscope(22)
    at = {"field": 0}

    class Stage:
        def move(self, x_um: float, y_um: float) -> None:
            at["field"] = specimen.positions().tolist().index([x_um, y_um])

    class Camera:
        shape = specimen.field_shape

        def snap(self, channel: str) -> np.ndarray:
            return specimen.read_plane(at["field"], ["DAPI", "GFP"].index(channel))

    page = (Path(__file__).parents[3] / "docs" / "acquisition.md").read_text(encoding="utf-8")
    [lines] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    told = {"stage": Stage(), "camera": Camera(), "places": specimen.positions().tolist()}
    exec(lines.replace("tcp://127.0.0.1:5556", serve().address), told)
    assert_same(data / "kidney 7.h5", specimen)


# names, ends


@pytest.mark.parametrize("options", [{"spool_nbytes": 1000}, {"window_nbytes": 0}])
def test_a_spool_or_a_window_that_holds_nothing_is_refused(serve, options):
    with pytest.raises(OutOfRangeError, match="at least"):
        serve(**options)


def test_a_name_that_is_taken_is_refused(serve, data):
    camera = microscope()
    (data / "old.h5").write_bytes(b"somebody's")
    (data / "older.h5.kept").write_bytes(b"what somebody's scan left")
    (data / "oldest.h5.damaged-2").write_bytes(b"and what could not be read of another")
    address = serve().address
    with Scanner(address) as first, Scanner(address) as second:
        begin(first, "New", camera)
        for name in ("old", "older", "oldest", "New", "new"):
            with pytest.raises(ExistsError, match="choose another"):
                begin(second, name, camera)
        first.abort(discard=True)
    assert (data / "old.h5").read_bytes() == b"somebody's"


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "NUL", "x" * 300])
def test_a_name_that_is_no_file_name_is_refused(serve, name):
    with pytest.raises(AcquisitionError):
        begin(Scanner(serve().address), name, microscope())


def test_the_same_uid_is_the_same_scan_and_must_mean_the_same(serve):
    camera, address = microscope(7), serve().address
    first = Scanner(address)
    begin(first, "a", camera)
    keys = list(planes_in_order(camera))
    send_all(first, camera, keys[:5])
    first.flush()
    uid = first.uid
    first.close()  # the program crashed
    with Scanner(address) as second:
        with pytest.raises(ConflictError, match="planned otherwise"):
            begin(second, "a", microscope(channels=["DAPI"]), uid=uid)
        begin(second, "a", camera, uid=uid)
        send_all(second, camera, keys)  # those that are there already are acknowledged again
        assert_same(second.finish(), camera)
        with pytest.raises(AcquisitionError, match="complete"):
            begin(second, "a", camera, uid=uid)


def test_a_plane_that_contradicts_another_is_refused_and_the_first_is_kept(serve):
    camera, other = microscope(8), microscope(9)
    with Scanner(serve().address) as scanner:
        begin(scanner, "a", camera)
        send_all(scanner, camera)
        scanner.send(other.read_plane(0, 0), 0, x_um=camera.positions()[0, 0], y_um=camera.positions()[0, 1])
        with pytest.raises(ConflictError):
            scanner.flush()
        location = scanner.finish()
    assert_same(location, camera)


def test_a_disk_without_room_refuses_the_start_and_nothing_stays(serve, data):
    with pytest.raises(FullError, match="make room"):
        begin(Scanner(serve(free_nbytes=lambda _: 1000).address), "a", microscope())
    assert nothing_but_slides(data)


def test_an_aborted_scan_keeps_what_was_acknowledged(serve, data):
    camera = microscope(10)
    first_field = [key for key in planes_in_order(camera) if key[0] == 0]
    scanner = Scanner(serve().address)
    with pytest.raises(RuntimeError):
        scan_until_it_breaks(scanner, camera, first_field)
    until(lambda: nothing_but_slides(data), LONG_S)
    with open_slide(data / "a.h5") as slide:
        assert slide.acquired().sum() == len(first_field)
        assert slide.header.extra["ended_early"]
        np.testing.assert_array_equal(slide.read_plane(0, 1), camera.read_plane(0, 1))


def scan_until_it_breaks(scanner: Scanner, camera: Slide, keys) -> None:
    with scanner:
        begin(scanner, "a", camera)
        send_all(scanner, camera, keys)
        scanner.flush()
        raise RuntimeError("the stage is stuck")


def test_a_scan_that_nothing_is_heard_of_is_finished_as_it_is(serve, data):
    camera = microscope(11)
    scanner = Scanner(serve(idle_s=0.5).address)
    begin(scanner, "a", camera)
    send_all(scanner, camera)
    scanner.flush()
    scanner.close()
    until(lambda: (data / "a.h5").exists() and nothing_but_slides(data), LONG_S)
    assert_same(data / "a.h5", camera)
    with open_slide(data / "a.h5") as slide:
        assert "nothing was heard" in slide.header.extra["ended_early"]


def test_somebody_else_may_finish_or_discard_a_scan(serve, data):
    camera, manager = microscope(12), serve()
    scanners = [Scanner(manager.address) for _ in range(2)]
    for name, scanner in zip(("kept", "unwanted"), scanners, strict=True):
        begin(scanner, name, camera)
        send_all(scanner, camera)
        scanner.flush()
        scanner.close()
    with Server(manager.address) as server:
        assert {scan["name"] for scan in server.scans()} == {"kept", "unwanted"}
        assert server.finish("kept") == str(data / "kept.h5")
        server.abort("unwanted", discard=True)
        with pytest.raises(NotASlideError, match="no scan"):
            server.finish("nobody")
        until(lambda: {scan["state"] for scan in server.scans()} == {"complete", "discarded"}, LONG_S)
    assert_same(data / "kept.h5", camera)
    with open_slide(data / "kept.h5") as slide:
        assert "ended_early" not in slide.header.extra
    assert nothing_but_slides(data)
    assert not (data / "unwanted.h5").exists()


# what is killed in between


@pytest.mark.parametrize("victims", [("proxy",), ("writer",), ("proxy", "writer")])
def test_killed_processes_lose_no_plane(serve, victims):
    camera, manager = microscope(13, grid=(2, 4)), serve()
    with Scanner(manager.address) as scanner:
        begin(scanner, "a", camera)
        keys = list(planes_in_order(camera))
        for part in range(0, len(keys), 4):
            send_all(scanner, camera, keys[part : part + 4])
            [scan] = manager._scans.values()
            for victim in victims:
                getattr(scan, victim).kill()
        location = scanner.finish()
    assert_same(location, camera)


def test_a_killed_server_takes_its_scans_up_again(data):
    camera = microscope(14, grid=(2, 4))
    with ServerProcess(data) as server, Scanner(server.address) as scanner:
        begin(scanner, "a", camera)
        keys = list(planes_in_order(camera))
        for part in range(0, len(keys), 6):
            send_all(scanner, camera, keys[part : part + 6])
            server.kill()
            until(lambda: not processes_there(data), LONG_S)  # they end with it
            server.start()
        location = scanner.finish()
        assert_same(location, camera)
        until(lambda: nothing_but_slides(data), LONG_S)


def test_a_scan_that_was_finished_is_completed_by_the_next_server(data):
    camera = microscope(15)
    with ServerProcess(data) as server:
        with Scanner(server.address) as scanner:
            begin(scanner, "a", camera)
            send_all(scanner, camera)
            scanner.finish(wait=False)
        server.kill()
        server.start()
        until(lambda: nothing_but_slides(data), LONG_S)
        with Server(server.address) as asked:
            assert asked.find("a")["state"] == "complete"
        server.end()
    assert_same(data / "a.h5", camera)
    with ServerProcess(data) as server, Server(server.address) as asked:  # it is remembered
        assert asked.find("a")["planes"] == len(list(planes_in_order(camera)))


def test_a_server_that_ends_in_order_leaves_a_scan_that_goes_on(data):
    camera = microscope(16)
    keys = list(planes_in_order(camera))
    with ServerProcess(data) as server, Scanner(server.address) as scanner:
        begin(scanner, "a", camera)
        send_all(scanner, camera, keys[:7])
        assert server.end() == 0
        assert processes_there(data) == []
        server.start()
        send_all(scanner, camera, keys[7:])
        assert_same(scanner.finish(), camera)


def test_the_plan_of_a_scan_that_cannot_be_read_is_told_and_its_planes_are_kept(serve, data):
    folder = data / "broken.scan"
    (folder / "spool").mkdir(parents=True)
    (folder / "spool" / "00000001.spool").write_bytes(b"precious")
    (folder / "scan.json").write_text("{")
    manager = serve()
    with Server(manager.address) as server:
        [scan] = server.scans()
        assert (scan["name"], scan["state"]) == ("broken", "failed")
        assert "plan" in scan["error"]
    with pytest.raises(ExistsError):
        begin(Scanner(manager.address), "broken", microscope())
    assert (folder / "spool" / "00000001.spool").read_bytes() == b"precious"


def test_what_is_left_of_a_start_that_was_never_answered_goes(serve, data):
    (data / "never.scan").mkdir()
    (data / "over.scan.gone" / "spool").mkdir(parents=True)
    serve()
    assert nothing_but_slides(data)


def test_one_folder_has_one_server(serve, data):
    serve()
    with pytest.raises(AccessError, match="another"):
        Manager(data, ANY)


# viewers


def test_viewers_follow_a_running_scan_and_see_the_finished_slide(serve):
    camera = microscope(17)
    manager = serve(serve=ANY)
    keys = list(planes_in_order(camera))
    with Scanner(manager.address) as scanner:
        begin(scanner, "a", camera)
        send_all(scanner, camera, keys[:6])
        scanner.flush()
        with looked_at(f"{manager.serving_address}/a") as remote:
            until_it_shows(remote, 6)
            send_all(scanner, camera, keys[6:])
            location = scanner.finish()
            until_it_shows(remote, len(keys))
            until(lambda: not remote.growing, LONG_S)
            with open_slide(location) as slide:
                assert remote.n_fields == slide.n_fields
                for field, channel in np.argwhere(slide.acquired()).tolist():
                    np.testing.assert_array_equal(remote.read_plane(field, channel), slide.read_plane(field, channel))


def test_viewers_of_a_scan_whose_writer_is_killed_find_it_again(serve):
    camera = microscope(20)
    manager = serve(serve=ANY)
    keys = list(planes_in_order(camera))
    rest = threading.Event()
    with Scanner(manager.address) as scanner:
        begin(scanner, "a", camera)
        send_all(scanner, camera, keys[:6])
        remote = looked_at(f"{manager.serving_address}/a")
        until_it_shows(remote, 6)
        [scan] = manager._scans.values()
        scan.writer.kill()
        send_all(scanner, camera, keys[6:])
        location = scanner.finish()
    try:
        while remote.growing or remote.replaced:
            if remote.replaced:
                remote.close()
                remote = looked_at(f"{manager.serving_address}/a")
            remote.refresh()
            rest.wait(0.02)
        with open_slide(location) as slide:
            assert remote.acquired().sum() == len(keys)
            for field, channel in np.argwhere(slide.acquired()).tolist():
                np.testing.assert_array_equal(remote.read_plane(field, channel), slide.read_plane(field, channel))
    finally:
        remote.close()


def until_it_shows(remote: RemoteSlide, n_planes: int) -> None:
    def shows() -> bool:
        remote.refresh()
        return remote.acquired().sum() >= n_planes

    until(shows, LONG_S)


def looked_at(location: str) -> RemoteSlide:
    """A slide on a server, once it is there."""
    found: list[RemoteSlide] = []

    def there() -> bool:
        try:
            found.append(RemoteSlide(location, disk_cache=None))
        except (NotASlideError, UnreachableError):
            return False
        return True

    until(there, LONG_S)
    return found[0]


def test_a_slide_that_is_deleted_is_served_no_more(serve, tmp_path):
    camera = microscope(18)
    manager = serve(serve=ANY)
    with Scanner(manager.address) as scanner:
        location = simulate(camera, scanner, name="a")
    looked_at(f"{manager.serving_address}/a").close()
    shutil.move(location, tmp_path / "elsewhere.h5")
    until(lambda: manager._catalogue.names == (), LONG_S)


# a database of slides


def test_a_library_hears_of_scans_and_does_not_hold_them_up(serve):
    told, free = [], threading.Event()

    class Slow:
        def acquiring(self, name, uid, location, facts):
            told.append(("acquiring", name, uid, location, facts["channels"]))
            assert free.wait(LONG_S)

        def complete(self, uid, location):
            told.append(("complete", uid, location))
            raise RuntimeError("the database is away")

        def failed(self, uid, error):
            told.append(("failed", uid, error))

    manager = serve(library=Slow())
    with Scanner(manager.address) as scanner:
        location = simulate(microscope(19), scanner, name="a")  # while the database hangs
        uid = scanner.uid
    free.set()
    until(lambda: len(told) == 2, LONG_S)
    assert told == [("acquiring", "a", uid, location, ["DAPI", "GFP"]), ("complete", uid, location)]


def test_a_scan_that_a_full_disk_keeps_from_ending_says_so_and_ends_once_there_is_room(serve, monkeypatch):
    camera, full, add = microscope(23), threading.Event(), FinishedScans.add
    full.set()

    def add_where_there_is_room(self: FinishedScans, scan: FinishedScan) -> None:
        if full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        add(self, scan)

    monkeypatch.setattr(FinishedScans, "add", add_where_there_is_room)
    with Scanner(serve().address) as scanner, Server(scanner.address) as server:
        begin(scanner, "a", camera)
        send_all(scanner, camera)
        scanner.finish(wait=False)
        until(lambda: "No space left" in server.find("a")["error"], LONG_S)
        full.clear()
        until(lambda: server.find("a")["state"] == "complete", LONG_S)
        assert server.find("a")["error"] == ""


def test_a_folder_of_finished_scans_says_so_after_a_torn_line(serve, data):
    entry = {"uid": "u1", "name": "old", "state": "complete", "location": "/x/old.h5", "planes": 7}
    (data / "finished.scans").write_text(json.dumps(entry) + "\n" + '{"uid": "torn')
    with Server(serve().address) as server:
        assert server.find("old")["planes"] == 7


def test_what_becomes_of_a_scan_after_a_torn_line_is_remembered(tmp_path):
    path = tmp_path / "finished.scans"
    path.write_text('{"uid": "torn')
    scans = [FinishedScan(f"u{number}", f"n{number}", "complete", "/x.h5", number) for number in range(2)]
    remembered = FinishedScans(path)
    for scan in scans:
        remembered.add(scan)
    assert list(FinishedScans(path)) == scans
