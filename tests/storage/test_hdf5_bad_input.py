"""Files that are not slides, not whole, not ours or not sound: one clear error each, and the rest still reads."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from contract import acquired_planes

from rawmosaic.storage import SlideError, open_slide
from rawmosaic.storage.errors import DamagedSlideError, FormatVersionError, NotASlideError, PlaneMissingError
from rawmosaic.storage.hdf5.reader import Hdf5Slide
from rawmosaic.storage.hdf5.verify import verify_slide
from rawmosaic.storage.testing import SyntheticSlide, write_slide


@pytest.fixture(scope="module")
def truth() -> SyntheticSlide:
    return SyntheticSlide((2, 3), (96, 128), 2, sparse=0.2, plane_offset_px=2, extra_sets=("registered",), seed=12)


@pytest.fixture(scope="module", params=["lz4", "zstd"])
def original(request: pytest.FixtureRequest, truth: SyntheticSlide, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(truth, tmp_path_factory.mktemp("original") / "slide.h5", codec=request.param)


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copy(original, tmp_path / "slide.h5"))


# not a slide


def _nothing(path: Path) -> None:
    assert not path.exists()


def _text(path: Path) -> None:
    path.write_text("file, channel, x_um, y_um\n")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _other_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros((4, 4), np.uint16)


def _signature_alone(path: Path) -> None:
    path.write_bytes(b"\x89HDF\r\n\x1a\n")


def _signature_and_noise(path: Path) -> None:
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + np.random.default_rng(0).bytes(5000))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (_text, NotASlideError),
        (_empty, NotASlideError),
        (Path.mkdir, NotASlideError),
        (_nothing, NotASlideError),
        (_other_hdf5, NotASlideError),
        (_signature_alone, DamagedSlideError),
        (_signature_and_noise, DamagedSlideError),
    ],
    ids=["text", "empty", "folder", "nothing there", "other HDF5", "signature alone", "signature and noise"],
)
@pytest.mark.parametrize("opened", [Hdf5Slide, open_slide, verify_slide])
def test_what_is_no_slide_is_refused(tmp_path: Path, make: Callable[[Path], None], error: type, opened: Callable):
    path = tmp_path / "thing.h5"
    make(path)
    with pytest.raises(error, match=r"thing\.h5") as caught:
        opened(path)
    assert caught.value.location == str(path)


# not whole


@pytest.mark.parametrize("kept", [0, 3, 8, 9, 48, 0.02, 0.1, 0.3, 0.5, 0.8, 0.95, -100, -1])
def test_truncated_file_is_refused(path: Path, kept: float):
    size = path.stat().st_size
    with open(path, "rb+") as file:
        file.truncate(size + kept if kept < 0 else round(kept * size) if 0 < kept < 1 else kept)
    with pytest.raises(
        NotASlideError if kept < 8 and kept >= 0 and isinstance(kept, int) else DamagedSlideError, match=r"slide\.h5"
    ):
        Hdf5Slide(path)


def test_bytes_appended_do_no_harm(path: Path, truth: SyntheticSlide):
    with open(path, "ab") as file:
        file.write(b"\0" * 1000)
    assert damages(path, truth) == []


# not of this version


def test_newer_major_version_says_what_to_do(path: Path):
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = (99, 3)
    with pytest.raises(FormatVersionError, match=r"slide\.h5.*99\.3.*update"):
        Hdf5Slide(path)


def test_newer_minor_version_is_read(path: Path, truth: SyntheticSlide):
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = (1, 99)
        file.attrs["something new"] = 1
        file["new table"] = np.zeros(3)
        for name, table in (("header", json.loads(file.attrs["header"])), ("channels", json.loads(file.attrs["channels"]))):
            for facts in table if isinstance(table, list) else [table]:
                facts["new fact"] = 1
            file.attrs[name] = json.dumps(table)
    assert damages(path, truth) == []


# not sound


def chunk_of(path: Path, field: int, channel: int) -> tuple[int, int]:
    """(offset, bytes) of the first tile of a plane, from HDF5 itself."""
    with h5py.File(path) as file:
        info = file["levels/0"].id.get_chunk_info_by_coord((field, channel, 0, 0, 0, 0))
        return info.byte_offset, info.size


def flip(path: Path, offset: int, bits: int = 0x55) -> None:
    with open(path, "rb+") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ bits]))


def damages(path: Path, truth: SyntheticSlide) -> list[tuple[int, int]]:
    """(field, channel) of the planes that do not read as they were acquired; only slide errors may come."""
    found = []
    with Hdf5Slide(path) as slide:
        for key in acquired_planes(truth):
            try:
                sound = np.array_equal(slide.read_plane(*key), truth.read_plane(*key))
            except DamagedSlideError:
                sound = False
            if not sound:
                found.append(key[:2])
    return found


@pytest.mark.parametrize("place", [0.4, 0.6, 0.95], ids="at {}".format)
def test_flipped_byte_is_found_by_verify_and_the_rest_reads(path: Path, truth: SyntheticSlide, place: float):
    field, channel, z, t = list(acquired_planes(truth))[5]
    offset, size = chunk_of(path, field, channel)
    flip(path, offset + int(place * size))
    (damage,) = verify_slide(path)
    assert (damage.field, damage.channel, damage.z, damage.t) == (field, channel, z, t)
    for part in (f"field {field}", f"channel {channel}", "z 0", "t 0"):
        assert part in str(damage)
    assert set(damages(path, truth)) <= {(field, channel)}


@pytest.mark.parametrize("byte", range(16))
def test_flipped_byte_in_the_head_of_a_chunk_is_found(path: Path, truth: SyntheticSlide, byte: int):
    field, channel, _, _ = next(acquired_planes(truth))
    flip(path, chunk_of(path, field, channel)[0] + byte, 0xFF)
    assert set(damages(path, truth)) <= {(field, channel)}
    found = verify_slide(path)
    assert {(damage.field, damage.channel) for damage in found} == {(field, channel)} or (not found and not damages(path, truth))


def test_damaged_zoom_layer_is_found(path: Path, truth: SyntheticSlide):
    with h5py.File(path) as file:
        dataset = file["levels/2"]
        info = dataset.id.get_chunk_info(0)
    flip(path, info.byte_offset + info.size // 2)
    found = verify_slide(path)
    assert found
    assert "layer 2" in str(found[0]) or "level 2" in str(found[0])
    assert damages(path, truth) == []


def test_chunk_wiped_out_is_found(path: Path, truth: SyntheticSlide):
    field, channel, _, _ = next(acquired_planes(truth))
    offset, size = chunk_of(path, field, channel)
    with open(path, "rb+") as file:
        file.seek(offset)
        file.write(b"\0" * size)
    assert damages(path, truth) == [(field, channel)]
    assert [(damage.field, damage.channel) for damage in verify_slide(path)] == [(field, channel)]
    with Hdf5Slide(path) as slide, pytest.raises(DamagedSlideError, match=f"field {field}"):
        slide.read_plane(field, channel)


@pytest.mark.parametrize("seed", range(60))
def test_any_flipped_byte_is_found_or_harmless(path: Path, truth: SyntheticSlide, seed: int):
    random = np.random.default_rng(seed)
    size = path.stat().st_size
    tables_first = 0.0 if seed % 2 else 0.97  # half of them where the tables and indices lie
    flip(path, int(size * random.uniform(tables_first, 1.0)), int(random.integers(1, 256)))
    try:
        found = verify_slide(path)
    except SlideError:
        return
    if found:
        return
    with Hdf5Slide(path) as slide:
        assert damages(path, truth) == []
        np.testing.assert_array_equal(slide.acquired(), truth.acquired())
        for channel in range(2):
            np.testing.assert_array_equal(slide.histogram(channel), truth.histogram(channel))
        for name in truth.position_sets:
            np.testing.assert_array_equal(slide.positions(name), truth.positions(name))
        assert dict(slide.header.extra) == dict(truth.header.extra)


@pytest.mark.parametrize(
    "name",
    [
        "fields",
        "metadata",
        "positions",
        "channel_offsets",
        "planes/acquired",
        "histograms/total",
        "levels",
        "levels/0",
        "levels/1",
    ],
)
def test_missing_table_is_a_damage(path: Path, name: str):
    with h5py.File(path, "r+") as file:
        del file[name]

    def use() -> None:
        with Hdf5Slide(path) as slide:
            slide.acquired()
            slide.histogram(0)
            field, channel = np.argwhere(slide.acquired())[0].tolist()
            slide.read_plane(field, channel)
            slide.read_plane(field, channel, level=1)

    with pytest.raises(DamagedSlideError, match=r"slide\.h5"):
        use()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("header", "{not json"),
        ("header", "[]"),
        ("channels", 7),
        ("channels", '[{"color": "#ff0000"}]'),
        ("channels", '["DAPI"]'),
        ("scenes", "null"),
        ("format_version", "one"),
        ("field_shape", (96,)),
        ("field_shape", (0, 0)),
        ("field_shape", (-96, 128)),
        ("field_shape", (10, 10)),
        ("tile_shape", (0, 0)),
        ("tile_shape", (1 << 30, 1 << 30)),
        ("levels", (0,)),
        ("levels", (2, 4)),
        ("levels", (1, 3, -4)),
        ("size_z", -1),
        ("size_z", 1000),
        ("orientation", np.zeros((3, 3))),
        ("orientation", np.zeros((2, 2))),
        ("orientation", np.full((2, 2), np.nan)),
        ("header", '{"name": "s", "pixel_size_um": 0}'),
        ("header", '{"name": "s", "pixel_size_um": NaN}'),
    ],
    ids=lambda value: str(value).replace("\n", "")[:24],
)
def test_attribute_that_makes_no_sense_is_a_damage(path: Path, name: str, value: object):
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    with pytest.raises(SlideError, match=r"slide\.h5"):
        Hdf5Slide(path).close()


def test_attributes_missing_are_a_damage(path: Path):
    with h5py.File(path) as file:
        names = [name for name in file.attrs if name not in ("format", "finished", "uuid")]
    for name in names:
        copy = Path(shutil.copy(path, path.with_name("copy.h5")))
        with h5py.File(copy, "r+") as file:
            del file.attrs[name]
        with pytest.raises(DamagedSlideError, match=r"copy\.h5"):
            Hdf5Slide(copy)


@pytest.mark.parametrize("address", [(1 << 62, 100), ((1 << 64) - 1, 100), (0, 1 << 40), (8, 1 << 20), (1 << 63, 1 << 63)])
def test_chunk_index_that_points_anywhere_is_a_damage(path: Path, truth: SyntheticSlide, address: tuple[int, int]):
    with h5py.File(path, "r+") as file:
        file["chunk_index/0"][:] = address
    field, channel, _, _ = next(acquired_planes(truth))
    with Hdf5Slide(path) as slide, pytest.raises(DamagedSlideError, match=r"slide\.h5"):
        slide.read_plane(field, channel)
    assert len(verify_slide(path)) == len(list(acquired_planes(truth)))


def test_missing_plane_says_which(path: Path, truth: SyntheticSlide):
    field, channel = np.argwhere(~truth.acquired())[0].tolist()
    with Hdf5Slide(path) as slide, pytest.raises(PlaneMissingError, match=rf"slide\.h5.*field {field}.*C{channel}.*not acquired"):
        slide.read_plane(field, channel)


def test_closed_slide_says_so(path: Path):
    slide = Hdf5Slide(path)
    slide.close()
    with pytest.raises(SlideError, match=r"slide\.h5.*closed"):
        slide.read_plane(0, 0)


# no room


@pytest.fixture
def limited(tmp_path: Path) -> Callable[[int], subprocess.CompletedProcess]:
    """Writes a slide in a process that may not let a file grow beyond so many bytes."""
    pytest.importorskip("resource", reason="file size limits are POSIX")
    script = """
        import resource, sys, threading
        import numpy as np
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
        from rawmosaic.storage import SlideWriter
        from rawmosaic.storage.errors import WriteError
        random = np.random.default_rng(0)
        try:
            with SlideWriter(sys.argv[1], field_shape=(256, 256), channels=["a"]) as writer:
                for number in range(40):
                    image = random.integers(0, 65536, (256, 256), dtype=np.uint16)
                    writer.write_plane(image, channel=0, x_um=200.0 * number, y_um=0)
        except WriteError as error:
            print("WriteError:", error)
        print("threads", threading.active_count())
    """

    def run(limit: int) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "slide.h5"), str(limit)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.mark.parametrize("limit", [0, 100, 10_000, 300_000, 2_000_000, 5_200_000])
def test_no_space_left_is_a_write_error_and_leaves_nothing(limited: Callable, limit: int, tmp_path: Path):
    result = limited(limit)
    assert result.returncode == 0, result.stderr
    assert "WriteError:" in result.stdout
    assert "slide.h5" in result.stdout
    assert "threads 1" in result.stdout
    assert list(tmp_path.iterdir()) == []
    assert result.stderr == ""


# other readers


def test_plain_h5py_reads_a_plane(path: Path, truth: SyntheticSlide, tmp_path: Path):
    field, channel, z, t = list(acquired_planes(truth))[3]
    script = f"""
        import sys
        import h5py, hdf5plugin, numpy
        with h5py.File({str(path)!r}) as file:
            assert file["planes/acquired"][{field}, {channel}, {z}, {t}]
            numpy.save({str(tmp_path / "plane.npy")!r}, file["levels/0"][{field}, {channel}, {z}, {t}])
        assert not any(name.startswith("rawmosaic") for name in sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)
    np.testing.assert_array_equal(np.load(tmp_path / "plane.npy"), truth.read_plane(field, channel, z, t))


def test_plain_h5py_finds_the_positions(path: Path, truth: SyntheticSlide):
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["fields"]["x_um"], truth.fields["x_um"])
        np.testing.assert_array_equal(file["positions/registered"][:], truth.positions("registered"))
