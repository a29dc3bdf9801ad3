"""Slides that come, go and are replaced while a dealer runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from bare_client import BareClient, error_of

from rawmosaic.net.dealer import TileDealer
from rawmosaic.net.remote_slide import RemoteSlide
from rawmosaic.storage.errors import ProtocolError, SlideError
from rawmosaic.storage.slide import Slide
from rawmosaic.storage.testing import GrowingSlide, SyntheticSlide, WrappedSlide

ANY = "tcp://127.0.0.1:*"
LONG_S = 60


@pytest.fixture
def dealer() -> Iterator[TileDealer]:
    """A dealer that serves nothing yet."""
    with TileDealer({}, ANY) as dealer:
        yield dealer


@pytest.fixture
def client(dealer: TileDealer) -> Iterator[BareClient]:
    with BareClient(dealer.address) as client:
        yield client


def slide_of(seed: int) -> SyntheticSlide:
    return SyntheticSlide((2, 2), (40, 60), ["DAPI", "GFP"], seed=seed)


class GatedSlide(WrappedSlide):
    """Every read waits until `gate` is set; `begun` is set by the first."""

    def __init__(self, slide: Slide):
        super().__init__(slide)
        self.gate, self.begun = threading.Event(), threading.Event()

    def _before(self, key) -> None:  # noqa: ARG002
        self.begun.set()
        assert self.gate.wait(LONG_S)


def test_a_slide_that_comes_while_the_dealer_runs_is_served(dealer, client):
    assert client.ask("slides")[0]["slides"] == []
    assert dealer.add("late", slide_of(1)) is None
    assert [entry["name"] for entry in client.ask("slides")[0]["slides"]] == ["late"]
    assert dealer.names == ("late",)
    with RemoteSlide(f"{dealer.address}/late", disk_cache=None) as remote:
        np.testing.assert_array_equal(remote.read_plane(3, 1), slide_of(1).read_plane(3, 1))


def test_a_slide_that_goes_is_served_no_more_and_given_back(dealer, client):
    slide = slide_of(1)
    dealer.add("a", slide)
    assert dealer.remove("a") is slide
    assert dealer.remove("a") is None
    assert error_of(client.ask("open", "a")) == "not-a-slide"


def test_another_slide_under_the_same_name_is_never_mixed_with_the_former(dealer):
    for seed in range(5):  # the same place in memory may be used again: what is kept of one must not be taken for the next
        former = dealer.add("a", slide_of(seed))
        assert (former is None) == (seed == 0)
        del former
        with RemoteSlide(f"{dealer.address}/a", disk_cache=None) as remote:
            np.testing.assert_array_equal(remote.read_plane(1, 0), slide_of(seed).read_plane(1, 0))


def test_whoever_waits_for_a_slide_that_is_replaced_is_told_to_ask_again(dealer, client):
    gated = GatedSlide(slide_of(1))
    dealer.add("a", gated)
    asked = client.tiles("a", [(0, 0, 0, 0, 0)])
    assert gated.begun.wait(LONG_S)
    swap = threading.Thread(target=dealer.add, args=("a", slide_of(2)))
    swap.start()  # returns when the former is no longer read
    assert error_of(client.reply_to(asked)) == "busy"
    header, [tile] = client.reply_to(client.tiles("a", [(0, 0, 0, 0, 0)]))
    assert header["identity"] == slide_identity(dealer)
    assert tile
    gated.gate.set()
    swap.join(LONG_S)
    assert not swap.is_alive()


def slide_identity(dealer: TileDealer) -> str:
    with BareClient(dealer.address) as other:
        return other.ask("open", "a")[0]["identity"]


def test_those_who_watch_a_slide_that_is_replaced_find_the_new_one(dealer, client):
    dealer.add("a", GrowingSlide(slide_of(1), 3))
    watch = client.send("watch", "a")
    before = client.reply_to(watch)[0]["identity"]
    after = GrowingSlide(slide_of(2), 3)
    dealer.add("a", after)
    while not error_of(reply := client.reply_to(watch)):
        pass
    assert error_of(reply) == "busy"
    watch = client.send("watch", "a")
    assert client.reply_to(watch)[0]["identity"] == after.identity != before
    after.grow(2)
    while client.reply_to(watch)[0]["event"] != "grown":
        pass


def test_a_viewer_of_a_growing_slide_that_is_begun_anew_sees_the_new_one(dealer):
    first, second = (GrowingSlide(slide_of(seed), 4, fields_known=True) for seed in (1, 2))
    dealer.add("a", first)
    with RemoteSlide(f"{dealer.address}/a", disk_cache=None) as remote:
        dealer.add("a", second)
        while second.grow(1):
            pass
        rest = threading.Event()
        while remote.growing:
            remote.refresh()
            rest.wait(0.01)
        for field, channel in np.argwhere(slide_of(2).acquired()).tolist():
            np.testing.assert_array_equal(remote.read_plane(field, channel), slide_of(2).read_plane(field, channel))


def test_a_name_that_cannot_be_asked_for_is_refused(dealer):
    with pytest.raises(ProtocolError, match="cannot name"):
        dealer.add("a/overview", slide_of(1))
    assert dealer.names == ()


def test_a_closed_dealer_takes_no_slide(dealer):
    dealer.close()
    with pytest.raises(SlideError, match="ended"):
        dealer.add("a", slide_of(1))


def test_a_slide_whose_writer_is_gone_is_watched_until_nothing_more_is_expected(dealer, client):
    growing, more = GrowingSlide(slide_of(1), 3, fields_known=True), threading.Event()
    dealer.add("a", growing, lambda: not more.is_set())
    watch = client.send("watch", "a")
    while growing.grow(1):
        pass
    while (header := client.reply_to(watch)[0])["event"] != "grown":
        pass
    assert header["growing"]  # all planes are there, and yet
    more.set()
    while (header := client.reply_to(watch)[0])["status"] != "ok":
        pass
    assert header["identity"] == growing.identity
