"""Where a file that is open cannot be renamed, as on Windows: who writes waits and says for what, and who follows lets go."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from test_hdf5_following import SHAPE, TIMEOUT_S, Acquisition, acquire, plane

from rawmosaic.storage import SlideWriter, open_slide
from rawmosaic.storage.errors import DamagedSlideError, SlideError
from rawmosaic.storage.hdf5 import final_name, letting_go
from rawmosaic.storage.hdf5 import reader as reader_module
from rawmosaic.storage.hdf5.letting_go import forget_wish, is_wanted, patiently
from rawmosaic.storage.hdf5.reader import Hdf5Slide


def in_use(winerror: int = 32) -> PermissionError:
    """What Windows says of a file that somebody has open."""
    error = PermissionError(errno.EACCES, "The process cannot access the file because it is being used by another process")
    error.winerror = winerror
    return error


class Refusing:
    """A change that is refused so many times."""

    def __init__(self, times: int):
        self.left = times

    def __call__(self) -> None:
        if self.left:
            self.left -= 1
            raise in_use()


def test_file_that_others_have_open_is_waited_for_in_words(tmp_path: Path):
    path, told, wished = tmp_path / "kidney 7.h5.part", [], []

    def waiting(why: str) -> None:
        told.append(why)
        wished.append(is_wanted(path))

    patiently(Refusing(3), path, waiting)
    assert len(told) == 3
    assert all("close the viewers that show kidney 7.h5" in why for why in told)
    assert wished == [True] * 3
    assert list(tmp_path.iterdir()) == []


def test_waiting_can_be_given_up_and_leaves_no_wish(tmp_path: Path):
    class EnoughError(Exception):
        pass

    def enough(_: str) -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        patiently(Refusing(100), tmp_path / "a.h5.part", enough)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_nobody_may_write_to_is_not_waited_for(tmp_path: Path):
    def refused() -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(PermissionError):
        patiently(refused, tmp_path / "a.h5.part", lambda _: pytest.fail("nobody has it open"))


def test_wish_of_a_writer_that_was_killed_is_soon_none(tmp_path: Path):
    path = tmp_path / "a.h5.part"
    wish = tmp_path / "a.h5.part.wanted"
    wish.touch()
    assert is_wanted(path)
    long_ago = wish.stat().st_mtime - 2 * letting_go.WISH_LASTS_S
    os.utime(wish, (long_ago, long_ago))
    assert not is_wanted(path)
    forget_wish(path)
    forget_wish(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="which files are open is asked of /proc")
@pytest.mark.parametrize("killed", [False, True])
def test_follower_lets_go_of_a_file_that_is_to_be_renamed_and_finds_what_comes_after(tmp_path: Path, killed: bool):
    path, part, kept = (tmp_path / name for name in ("scan.h5", "scan.h5.part", "scan.h5.kept"))
    former = Acquisition(path)
    former.ask("acquire(writer, range(4)); writer.publish()")
    if killed:
        former.process.kill()
        former.process.wait(TIMEOUT_S)
    else:
        former.ask("writer.leave()")
    former.end()
    ends, slides = threading.Event(), [open_slide(path)]
    assert is_open(part)

    def follow() -> None:  # as viewers and servers do
        while not ends.wait(0.01):
            with contextlib.suppress(SlideError):  # one that is just begun is there a moment later
                if slides[-1].replaced:
                    slides.append(open_slide(path))

    def renamed() -> None:
        if is_open(part):
            raise in_use()
        os.replace(part, kept)

    follower = threading.Thread(target=follow)
    follower.start()
    try:
        refused = []
        patiently(renamed, part, lambda why: (refused.append(why), ends.wait(0.02), len(refused) < 3000 or pytest.fail(why)))
        assert refused
        with SlideWriter(path, field_shape=SHAPE, channels=["a", "b"]) as anew:
            acquire(anew, range(2))
            anew.publish()
            for _ in range(int(TIMEOUT_S / 0.02)):
                if len(slides) > 1:
                    break
                ends.wait(0.02)
            assert len(slides) == 2
            assert slides[1].location == slides[0].location
    finally:
        ends.set()
        follower.join()
        for slide in slides:
            slide.close()


@contextlib.contextmanager
def asked(slide: Hdf5Slide) -> Iterator[None]:
    """Somebody who asks now and then whether the slide was replaced."""
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.01):
            assert not slide.replaced

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    over.set()
    thread.join()


@contextlib.contextmanager
def viewed(slide: Hdf5Slide) -> Iterator[None]:
    """A viewer's thread, which began while the slide was growing."""
    from rawmosaic.viewer.follower import Follower

    follower = Follower(slide, lambda: None)
    yield
    assert not follower.replaced
    follower.close()


@contextlib.contextmanager
def served(slide: Hdf5Slide) -> Iterator[None]:
    """`rawmosaic serve FILE`."""
    from rawmosaic.net.dealer import TileDealer

    with TileDealer({"scan": slide}, "tcp://127.0.0.1:*"):
        yield


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="which files are open is asked of /proc")
@pytest.mark.parametrize(("used", "from_the_start"), [(asked, True), (viewed, True), (served, True), (served, False)])
def test_finished_file_that_is_to_be_renamed_is_let_go_and_read_on(tmp_path: Path, used: Callable, from_the_start: bool):
    path, part = tmp_path / "scan.h5", tmp_path / "scan.h5.part"
    writer = Acquisition(path)
    writer.ask("acquire(writer, range(4)); writer.publish()")
    refused: list[str] = []

    def renamed() -> None:
        if is_open(part):
            raise in_use()
        os.replace(part, path)

    def waiting(why: str) -> None:
        refused.append(why)
        over.wait(0.02)
        assert len(refused) < TIMEOUT_S / 0.02

    def read() -> None:
        while not over.is_set():
            with contextlib.suppress(SlideError):  # it says so where its renaming takes long
                np.testing.assert_array_equal(slide.read_plane(3, 1), plane(3, 1))
                np.testing.assert_array_equal(slide.histogram(0), counts)

    the_rest = "acquire(writer, range(4, 6)); writer.seal()"
    if not from_the_start:
        writer.ask(the_rest)
    with open_slide(path) as slide:
        over, failures = threading.Event(), []
        with used(slide):
            if from_the_start:
                writer.ask(the_rest)
            writer.end()
            for _ in range(int(TIMEOUT_S / 0.02)):
                if not slide.growing:
                    break
                if used is asked:
                    slide.refresh()
                over.wait(0.02)
            assert slide.awaits_name
            counts = slide.histogram(0)
            reader = threading.Thread(target=failing(read, failures))
            reader.start()
            try:
                patiently(renamed, part, waiting)
            finally:
                over.set()
                reader.join()
        assert refused
        assert not failures
        assert not slide.awaits_name or not is_open(part)
        np.testing.assert_array_equal(slide.read_plane(5, 0), plane(5, 0))
        np.testing.assert_array_equal(slide.histogram(0), counts)
        assert not slide.awaits_name
        assert not slide.replaced
        assert slide.n_fields == 6
        assert slide.identity


def failing(work: Callable[[], None], failures: list[BaseException]) -> Callable[[], None]:
    """The work, whose error is kept."""

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    return run


def test_finished_file_that_awaits_its_name_says_so_while_it_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, part = tmp_path / "scan.h5", tmp_path / "scan.h5.part"
    writer = Acquisition(path)
    writer.ask("acquire(writer, range(4)); writer.seal()")
    writer.end()
    monkeypatch.setattr(reader_module, "_ASKING_S", 0.0)
    wish = part.with_name(part.name + letting_go.WISH_SUFFIX)
    with open_slide(path) as slide:
        assert slide.awaits_name
        wish.touch()
        assert not slide.replaced
        with pytest.raises(SlideError, match="just being renamed; try again"):
            slide.read_plane(0, 0)
        forget_wish(part)
        np.testing.assert_array_equal(slide.read_plane(0, 0), plane(0, 0))
        assert slide.awaits_name
        wish.touch()
        assert not slide.replaced
    forget_wish(part)  # closed while it had stepped aside
    with pytest.raises(SlideError, match="closed"):
        slide.read_plane(0, 0)


def test_file_that_is_wanted_is_not_opened_meanwhile(tmp_path: Path):
    path = tmp_path / "scan.h5"
    slide_writer = SlideWriter(path, field_shape=SHAPE, channels=["a", "b"])
    acquire(slide_writer, range(2))
    slide_writer.publish()
    slide_writer.leave()
    (tmp_path / "scan.h5.part.wanted").touch()
    with pytest.raises(DamagedSlideError, match="about to be renamed"):
        open_slide(path)
    forget_wish(tmp_path / "scan.h5.part")
    with open_slide(path) as slide:
        assert slide.n_fields == 2


def test_name_that_no_copy_has_room_for_is_an_error_that_says_who_has_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    part, path = tmp_path / "a.h5.part", tmp_path / "a.h5"
    part.write_bytes(b"planes")

    class Windows:
        name = "nt"

        @staticmethod
        def replace(*_: object) -> None:
            raise in_use()

    def full(_: object, copy: Path) -> None:
        copy.write_bytes(b"pla")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(final_name, "os", Windows)
    monkeypatch.setattr(final_name, "PATIENCE_S", 0.0)
    monkeypatch.setattr(final_name.shutil, "copyfile", full)
    with pytest.raises(OSError, match="open in another program") as caught:
        final_name.take_final_name(part, path)
    assert caught.value.errno == errno.ENOSPC
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5.part"]
    assert part.read_bytes() == b"planes"


def is_open(path: Path) -> bool:
    """Whether this process has the file open."""
    there = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            there.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:
            continue
    return str(path.resolve()) in there
