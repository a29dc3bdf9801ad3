"""Importing copies everything, bit for bit, and leaves nothing half done."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from contract import KINDS, SlideContract, acquired_planes

from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import DamagedSlideError, WriteError
from rawmosaic.storage.importing import import_slide
from rawmosaic.storage.testing import FailingSlide, SyntheticSlide


class TestImportedSlide(SlideContract):
    @pytest.fixture(params=["z and t", "many tiles, sizes", "placed", "no plane"])
    def truth(self, request: pytest.FixtureRequest) -> SyntheticSlide:
        return KINDS[request.param]()

    @pytest.fixture
    def slide(self, truth: SyntheticSlide, tmp_path: Path):
        with open_slide(import_slide(truth, tmp_path / "slide.h5")) as slide:
            yield slide


def test_real_acquisition_is_imported_whole(data: Path, tmp_path: Path):
    for place, options in (
        ("imagexpress-9987-overlap/9987_Plate_3434", {}),
        ("wsi-brain-tileconfig", {"pixel_size_um": 2.583, "orientation": "flip-y", "camera_angle_deg": 1.0}),
    ):
        with open_slide(data / place, in_place_cache=False, **options) as source:
            with open_slide(import_slide(source, tmp_path / "slide.h5", codec="zstd")) as slide:
                assert slide.header == source.header
                assert dict(slide.header.extra) == dict(source.header.extra)
                assert (slide.channels, slide.scenes) == (source.channels, source.scenes)
                np.testing.assert_array_equal(slide.fields, source.fields)
                for name in source.position_sets:
                    np.testing.assert_array_equal(slide.positions(name), source.positions(name))
                    np.testing.assert_array_equal(slide.placement(name).matrix_um, source.placement(name).matrix_um)
                for address in acquired_planes(source):
                    np.testing.assert_array_equal(slide.read_plane(*address), source.read_plane(*address))
                for channel in range(len(source.channels)):
                    np.testing.assert_array_equal(slide.histogram(channel), source.histogram(channel))


def test_progress_counts_every_plane(tmp_path: Path):
    seen = []
    import_slide(KINDS["dense"](), tmp_path / "slide.h5", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 24) for done in range(25)]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_interrupted_import_leaves_nothing(tmp_path: Path, stop: type[BaseException]):
    def interrupt(done: int, _: int) -> None:
        if done == 5:
            raise stop

    with pytest.raises(stop):
        import_slide(KINDS["dense"](), tmp_path / "slide.h5", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_unreadable_plane_stops_the_import_and_keeps_the_older_file(tmp_path: Path):
    target = tmp_path / "slide.h5"
    target.write_bytes(b"an older slide")
    with pytest.raises(DamagedSlideError):
        import_slide(FailingSlide(KINDS["dense"](), 0.2), target)
    assert [path.name for path in tmp_path.iterdir()] == ["slide.h5"]
    assert target.read_bytes() == b"an older slide"


def test_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(WriteError, match="nowhere"):
        import_slide(KINDS["dense"](), tmp_path / "nowhere" / "slide.h5")
