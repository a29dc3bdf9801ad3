"""What a page is told of a slide, and what is kept of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawmosaic.net.web.cache import BYTES_PER_ENTRY, BytesCache
from rawmosaic.net.web.info import HISTOGRAM_BINS, ServedSlide, SlideInfo, compact_histogram, version_of, worth_showing
from rawmosaic.net.web.renderer import FirstLook
from rawmosaic.net.web.style import Look
from rawmosaic.storage.slide import Channel
from rawmosaic.storage.testing import GrowingSlide, SyntheticSlide


@given(st.dictionaries(st.integers(0, 65535), st.integers(1, 10**9), max_size=40), st.integers(0, 65535))
def test_a_compact_histogram_loses_no_pixel(counts: dict[int, int], last: int):
    full = np.zeros(65536, np.uint64)
    full[list(counts)] = list(counts.values())
    compact = compact_histogram(full, last)
    first, width, bins = compact["first"], compact["width"], compact["counts"]
    assert 1 <= len(bins) <= HISTOGRAM_BINS
    assert first >= 0
    assert first + width * len(bins) <= 65536
    assert bins == [
        sum(n for level, n in counts.items() if low <= level < low + width)
        for low in range(first, first + width * len(bins), width)
    ]
    assert sum(bins) + compact["above"] == sum(counts.values())
    assert sum(bins) >= sum(n for level, n in counts.items() if level <= last)


def test_a_narrow_histogram_keeps_every_grey_level():
    full = np.zeros(65536, np.uint64)
    full[1000:1200] = 3
    assert compact_histogram(full) == {"first": 1000, "width": 1, "counts": [3] * 200, "above": 0}


def test_a_glaring_speck_does_not_squeeze_the_rest_into_a_corner():
    full = np.zeros(65536, np.uint64)
    full[100:1100] = 1000
    full[65535] = 7
    look = FirstLook(Look("#ffffff", (100.0, 1100.0)), ((100.0, 1100.0), (200.0, 900.0)))
    compact = compact_histogram(full, worth_showing(look))
    assert (compact["first"], compact["width"], len(compact["counts"])) == (96, 8, 189)
    assert compact["above"] == 7
    assert worth_showing(look) == 1600


def test_an_empty_histogram_is_all_of_nothing():
    compact = compact_histogram(np.zeros(65536, np.uint64))
    assert compact == {"first": 0, "width": 256, "counts": [0] * 256, "above": 0}


def test_the_info_is_json_whatever_the_source_says(renderer: Any):
    slide = SyntheticSlide((2, 2), (16, 16), [Channel("odd", emission_nm=float("nan"), exposure_ms=float("inf"))])
    facts = SlideInfo(slide, renderer.looks(slide)).facts
    json.dumps(facts, allow_nan=False)
    assert facts["channels"][0]["emission_nm"] is None


def test_sixty_channels_are_told_in_a_few_kilobytes_each(renderer: Any):
    slide = SyntheticSlide((1, 2), (64, 64), 60)
    text = json.dumps(SlideInfo(slide, renderer.looks(slide)).facts)
    assert len(text) < 60 * 2500


def test_the_info_is_made_once_while_nothing_comes(slide: SyntheticSlide, renderer: Any):
    served = ServedSlide("one", slide, renderer)
    assert served.known_info() is None
    info = served.info()
    assert served.info() is info
    assert served.known_info() is info


def test_a_slide_that_grew_is_told_anew(slide: SyntheticSlide, renderer: Any):
    growing = GrowingSlide(slide, 10)
    served = ServedSlide("one", growing, renderer)
    before = served.info()
    growing.grow(9)
    growing.refresh()
    assert served.known_info() is None
    after = served.info()
    assert after.version != before.version
    assert after.facts["n_fields"] > before.facts["n_fields"]


@pytest.mark.parametrize("change", ["stage", "registered", "offsets"])
def test_a_version_is_another_where_only_places_differ(change: str):
    one, other = (SyntheticSlide((2, 2), (16, 16), extra_sets=("registered",)) for _ in range(2))
    one._identity = other._identity = "the same tiles"
    assert version_of(one) == version_of(other)
    if change == "offsets":
        other.offsets_um[1, 0] += 0.5
    else:
        other.position_set(change).positions_um[3, 1] += 0.5
    assert version_of(one) != version_of(other)


def test_a_cache_keeps_to_its_budget_and_loses_the_least_recent_first():
    cache = BytesCache(3 * (BYTES_PER_ENTRY + 100))
    for key in "abc":
        cache.put(key, bytes(100))
    assert cache.get("a") == bytes(100)
    cache.put("d", bytes(100))
    assert [cache.get(key) is not None for key in "abcd"] == [True, False, True, True]
    cache.put("e", bytes(10**6))
    assert cache.get("e") is None
    assert cache.nbytes == 3 * (BYTES_PER_ENTRY + 100)
    cache.put("a", bytes(50))
    assert cache.nbytes == 3 * (BYTES_PER_ENTRY + 100) - 50
    assert len(cache) == 3


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3000)), max_size=60))
def test_a_cache_counts_what_it_holds(puts: list[tuple[int, int]]):
    cache = BytesCache(6000)
    for key, size in puts:
        cache.put(key, bytes(size))
        assert cache.nbytes <= 6000
        assert cache.nbytes == sum(len(cache.get(k)) + BYTES_PER_ENTRY for k in range(10) if cache.get(k) is not None)
