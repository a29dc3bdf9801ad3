"""Placements turn field pixels into mosaic µm; orientations turn and flip as their names say."""

from __future__ import annotations

import numpy as np
import pytest

from rawmosaic.storage.errors import OutOfRangeError
from rawmosaic.storage.placement import ORIENTATIONS, Placement, orientation_matrix

IMAGE = np.array([[1, 2, 3], [4, 5, 6]])
"""What each orientation makes of it is written out by hand below."""

ON_SCREEN = {
    "identity": [[1, 2, 3], [4, 5, 6]],
    "flip-x": [[3, 2, 1], [6, 5, 4]],
    "flip-y": [[4, 5, 6], [1, 2, 3]],
    "rotate-180": [[6, 5, 4], [3, 2, 1]],
    "transpose": [[1, 4], [2, 5], [3, 6]],
    "rotate-90": [[4, 1], [5, 2], [6, 3]],
    "rotate-270": [[3, 6], [2, 5], [1, 4]],
    "anti-transpose": [[6, 3], [5, 2], [4, 1]],
}


def shown(matrix: np.ndarray) -> list[list[int]]:
    """The image as it lies in the mosaic frame: each pixel's centre is carried over."""
    height, width = IMAGE.shape
    places = {}
    for row in range(height):
        for column in range(width):
            x, y = matrix @ (column + 0.5 - width / 2, row + 0.5 - height / 2)
            places[round(float(y), 6), round(float(x), 6)] = int(IMAGE[row, column])
    rows = sorted({y for y, _ in places})
    return [[places[y, x] for x in sorted({x for _, x in places})] for y in rows]


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_orientation_does_what_its_name_says(name: str):
    assert shown(orientation_matrix(name)) == ON_SCREEN[name]


def test_there_are_eight_orientations():
    assert set(ORIENTATIONS) == set(ON_SCREEN)
    matrices = [orientation_matrix(name) for name in ORIENTATIONS]
    assert len({matrix.tobytes() for matrix in matrices}) == 8
    assert all(abs(np.linalg.det(matrix)) == 1 for matrix in matrices)


def test_camera_angle_turns_clockwise_on_screen():
    np.testing.assert_allclose(orientation_matrix(camera_angle_deg=90), orientation_matrix("rotate-90"), atol=1e-15)
    x, y = orientation_matrix(camera_angle_deg=10) @ (1.0, 0.0)
    assert x > 0 < y  # y points down: the image's x axis dips


def test_orientation_comes_before_the_angle():
    turned = orientation_matrix("flip-x", 30.0)
    np.testing.assert_allclose(turned, orientation_matrix(camera_angle_deg=30.0) @ orientation_matrix("flip-x"))


def test_unknown_orientation_names_the_known_ones():
    with pytest.raises(OutOfRangeError, match=r"sideways.*flip-x.*anti-transpose"):
        orientation_matrix("sideways")


def test_centres_add_up_offsets():
    positions = np.array([[0.0, 0.0], [100.0, 50.0]])
    offsets = np.array([[0.0, 0.0], [1.0, -2.0]])
    plane_offsets = np.zeros((2, 2, 2))
    plane_offsets[1, 1] = (0.25, 0.5)
    np.testing.assert_array_equal(Placement(positions, np.eye(2), offsets).centres_um(1), [[1, -2], [101, 48]])
    placed = Placement(positions, np.eye(2), offsets, plane_offsets)
    np.testing.assert_array_equal(placed.centres_um(0), positions)
    np.testing.assert_array_equal(placed.centres_um(1), [[1, -2], [101.25, 48.5]])


def test_channels_share_places_only_without_offsets_of_their_own():
    positions, none, same = np.zeros((3, 2)), np.zeros((2, 2)), np.full((2, 2), 4.0)
    assert Placement(positions, np.eye(2), none).shared_by_channels
    assert Placement(positions, np.eye(2), same).shared_by_channels
    assert not Placement(positions, np.eye(2), np.array([[0.0, 0.0], [0.0, 1.0]])).shared_by_channels
    field_offsets = np.random.default_rng(0).normal(size=(3, 1, 2)).repeat(2, axis=1)
    assert Placement(positions, np.eye(2), none, field_offsets).shared_by_channels
    field_offsets[2, 1] += 1
    assert not Placement(positions, np.eye(2), none, field_offsets).shared_by_channels


@pytest.mark.parametrize(
    "matrix", [np.eye(2), [[0.5, 0.1], [-0.2, 0.6]], [[0, -2], [2, 0]]], ids=["straight", "sheared", "turned"]
)
def test_half_extents_hold_all_corners(matrix: list):
    matrix = np.asarray(matrix, float)
    widths, heights = np.array([64, 10]), np.array([48, 99])
    placed = Placement(np.zeros((2, 2)), matrix, np.zeros((1, 2)))
    extents = placed.half_extents_um(widths, heights)
    for width, height, extent in zip(widths, heights, extents, strict=True):
        corners = [matrix @ (sx * width / 2, sy * height / 2) for sx in (-1, 1) for sy in (-1, 1)]
        np.testing.assert_allclose(np.abs(corners).max(axis=0), extent)
