"""OME-TIFF: images are fields, whatever the files, the order of dimensions and the units."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from acquisitions import cut, every_plane

from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import AcquisitionError, DamagedSlideError
from rawmosaic.storage.importers.ome_tiff import source

PLACES_UM = [(0.0, 0.0), (25.0, 0.5), (-0.5, 15.0)]


def opened(path: Path, **options):
    return open_slide(path, in_place_cache=False, **options)


def stack(number: int) -> np.ndarray:
    """(t 2, c 2, z 3, 40, 60) uint16."""
    x, y = PLACES_UM[number]
    planes = [cut((x * 2 + 3 * z, y * 2 + 5 * t), channel=c) for t in range(2) for c in range(2) for z in range(3)]
    return np.stack(planes).reshape(2, 2, 3, 40, 60)


def metadata(number: int, unit: str = "µm", scale: float = 1.0) -> dict:
    x, y = PLACES_UM[number]
    return {
        "axes": "TCZYX",
        "PhysicalSizeX": 0.5,
        "PhysicalSizeXUnit": "µm",
        "Channel": {"Name": ["DAPI", "GFP"], "EmissionWavelength": [460, 520]},
        "Plane": {
            "PositionX": [x * scale] * 12,
            "PositionY": [y * scale] * 12,
            "PositionXUnit": [unit] * 12,
            "PositionYUnit": [unit] * 12,
        },
    }


def check(slide) -> None:
    assert [channel.name for channel in slide.channels] == ["DAPI", "GFP"]
    assert slide.channels[1].emission_nm == 520
    assert (slide.n_fields, slide.size_z, slide.size_t) == (3, 3, 2)
    assert slide.header.pixel_size_um == 0.5
    np.testing.assert_allclose(slide.positions(), PLACES_UM, atol=1e-9)
    count = 0
    for field, channel, z, t, plane in every_plane(slide):
        np.testing.assert_array_equal(plane, stack(field)[t, channel, z])
        count += 1
    assert count == 36


@pytest.mark.parametrize(("unit", "scale"), [("µm", 1.0), ("mm", 1e-3), ("nm", 1e3), ("reference frame", 1.0)])
def test_one_file_of_several_images(tmp_path: Path, unit: str, scale: float):
    with tifffile.TiffWriter(tmp_path / "scan.ome.tif", ome=True) as tiff:
        for number in range(3):
            tiff.write(stack(number), photometric="minisblack", metadata=metadata(number, unit, scale))
    with opened(tmp_path / "scan.ome.tif") as slide:
        check(slide)
        assert slide.header.name == "scan"
        assert slide.header.extra["ome_xml"]["scan.ome.tif"].startswith("<?xml")


def test_folder_of_files_of_their_own(tmp_path: Path):
    for number in range(3):
        tifffile.imwrite(tmp_path / f"{number}.ome.tif", stack(number), photometric="minisblack", metadata=metadata(number))
    with opened(tmp_path) as slide:
        check(slide)
    with opened(tmp_path / "1.ome.tif") as slide:
        assert slide.n_fields == 1


def xml(images: list[str]) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Instrument ID="Instrument:0"><Objective ID="Objective:0" NominalMagnification="20" LensNA="0.8"/></Instrument>'
        + "".join(images)
        + "</OME>"
    )


def image_xml(number: int, order: str, blocks: str, extra: str = "") -> str:
    x, y = PLACES_UM[number]
    return (
        f'<Image ID="Image:{number}"><AcquisitionDate>2020-02-03T04:05:06</AcquisitionDate><Pixels ID="Pixels:{number}" '
        f'DimensionOrder="XY{order}" Type="uint16" SizeX="60" SizeY="40" SizeZ="3" SizeC="2" SizeT="2" PhysicalSizeX="500" '
        f'PhysicalSizeXUnit="nm"><Channel ID="Channel:{number}:0" Name="DAPI" Color="65535"/>'
        f'<Channel ID="Channel:{number}:1" Name="GFP" EmissionWavelength="520"/>{blocks}'
        f'<Plane TheC="0" TheZ="0" TheT="0" PositionX="{x}" PositionY="{y}" PositionZ="7" ExposureTime="0.05"/>'
        f"{extra}</Pixels></Image>"
    )


@pytest.mark.parametrize("order", ["".join(order) for order in itertools.permutations("ZCT")])
def test_files_that_refer_to_each_other(tmp_path: Path, order: str):
    """Every file holds the XML of all, as the specification wants; pages follow the order of dimensions."""
    uuids = [f'<UUID FileName="{n}.ome.tif">urn:uuid:0000000{n}-0000-0000-0000-000000000000</UUID>' for n in range(3)]
    text = xml([image_xml(n, order, f'<TiffData IFD="0" PlaneCount="12">{uuids[n]}</TiffData>') for n in range(3)])
    axes = order[::-1]  # slowest first
    for number in range(3):
        pages = stack(number).transpose(*("TCZ".index(axis) for axis in axes), 3, 4).reshape(12, 40, 60)
        tifffile.imwrite(tmp_path / f"{number}.ome.tif", pages, photometric="minisblack", description=text, metadata=None)
    for place in (tmp_path, tmp_path / "2.ome.tif"):
        with opened(place) as slide:
            check(slide)
            assert slide.header.acquired_at == "2020-02-03T04:05:06"
            assert slide.header.objective == "20x 0.8"
            assert slide.channels[0].color == "#0000ff"
            assert slide.channels[0].exposure_ms == 50
            assert list(slide.fields["z_um"]) == [7, 7, 7]


def test_companion_file_is_followed(tmp_path: Path):
    uuids = [f'<UUID FileName="{n}.ome.tif">urn:uuid:0000000{n}-0000-0000-0000-000000000000</UUID>' for n in range(3)]
    text = xml([image_xml(n, "ZCT", f'<TiffData IFD="0" PlaneCount="12">{uuids[n]}</TiffData>') for n in range(3)])
    (tmp_path / "scan.companion.ome").write_text(text, encoding="utf-8")
    binary = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<BinaryOnly MetadataFile="scan.companion.ome" UUID="urn:uuid:00000009-0000-0000-0000-000000000000"/></OME>'
    )
    for number in range(3):
        pages = stack(number).reshape(12, 40, 60)
        tifffile.imwrite(tmp_path / f"{number}.ome.tif", pages, photometric="minisblack", description=binary, metadata=None)
    for place in (tmp_path, tmp_path / "0.ome.tif", tmp_path / "scan.companion.ome"):
        with opened(place) as slide:
            check(slide)
    (tmp_path / "scan.companion.ome").unlink()
    with pytest.raises(AcquisitionError, match=r"scan.companion.ome is missing"):
        opened(tmp_path / "0.ome.tif")


def test_positions_that_differ_between_channels_are_kept(tmp_path: Path):
    moved = '<Plane TheC="1" TheZ="0" TheT="0" PositionX="1.25" PositionY="0"/>'
    text = xml([image_xml(0, "ZCT", "", moved)])
    tifffile.imwrite(
        tmp_path / "a.ome.tif", stack(0).reshape(12, 40, 60), photometric="minisblack", description=text, metadata=None
    )
    with opened(tmp_path / "a.ome.tif") as slide:
        np.testing.assert_array_equal(slide.placement().centres_um(1) - slide.placement().centres_um(0), [(1.25, 0)])


def rewritten(path: Path, change) -> None:
    with tifffile.TiffFile(path) as tiff:
        text, pages = change(tiff.ome_metadata), tiff.asarray().reshape(-1, 40, 60)
    tifffile.imwrite(path, pages, photometric="minisblack", description=text.encode(), metadata=None)


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        (r'PositionX="[^"]*"', 'PositionX="left"', AcquisitionError, "PositionX is 'left', not a number"),
        (r'PositionXUnit="[^"]*"', 'PositionXUnit="furlong"', AcquisitionError, "furlong"),
        (r'PhysicalSizeX="[^"]*"', "", AcquisitionError, "--pixel-size-um"),
        (r"<Pixels.*</Pixels>", "", DamagedSlideError, "no Pixels"),
        (r"<Pixels ", "<Pixels <", DamagedSlideError, "cannot be read"),
        (
            r"<TiffData[^>]*/?>(.*?</TiffData>)?",
            '<TiffData><UUID FileName="gone.tif">urn</UUID></TiffData>',
            AcquisitionError,
            "missing: gone",
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, error: type, message: str):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, stack(0), photometric="minisblack", metadata=metadata(0))

    rewritten(path, lambda text: re.sub(old, new, text, flags=re.DOTALL))
    with pytest.raises(error, match=message):
        source.open(str(path), in_place_cache=False)


def test_images_without_positions_are_refused(tmp_path: Path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tiff:
        for _ in range(2):
            tiff.write(cut((0, 0)), metadata={"PhysicalSizeX": 1.0})
    with pytest.raises(AcquisitionError, match="2 of 2 images have no position"):
        opened(tmp_path / "a.ome.tif")


def test_single_image_needs_no_position(tmp_path: Path):
    tifffile.imwrite(tmp_path / "a.ome.tif", cut((0, 0)), metadata={"PhysicalSizeX": 1.0})
    with opened(tmp_path / "a.ome.tif") as slide:
        np.testing.assert_array_equal(slide.positions(), [(0, 0)])
