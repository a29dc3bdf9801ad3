"""Groups of channels are values: what is made of them is said, and nothing else changes."""

from __future__ import annotations

import pytest

from rawmosaic.viewer import groups
from rawmosaic.viewer.channels import ChannelView
from rawmosaic.viewer.display_state import ChannelGroup
from rawmosaic.viewer.groups import Row

NAMES = ["DAPI 1", "CD45", "DAPI 2", "Ki67", "DAPI 3", "CD8"]
TWO = (ChannelGroup("nuclei", (0, 2, 4)), ChannelGroup("immune", (1, 5)))


def looks(*visible: int) -> list[ChannelView]:
    """Six channels, these of them shown."""
    return [ChannelView(name, (0.0, 1.0), "#ffffff", visible=number in visible) for number, name in enumerate(NAMES)]


def test_a_channel_is_in_one_group_at_a_time():
    made = groups.grouped(TWO, [2, 5, 3, 2], "new")
    assert made == (ChannelGroup("nuclei", (0, 4)), ChannelGroup("immune", (1,)), ChannelGroup("new", (2, 5, 3)))
    assert groups.joined(made, 1, [3, 0]) == (
        ChannelGroup("nuclei", (4,)),
        ChannelGroup("immune", (1, 3, 0)),
        ChannelGroup("new", (2, 5)),
    )


def test_a_group_whose_channels_all_leave_is_gone():
    assert groups.grouped(TWO, [1, 5], "other") == (TWO[0], ChannelGroup("other", (1, 5)))
    assert groups.without_channels(TWO, [0, 1, 2, 4]) == (ChannelGroup("immune", (5,)),)
    assert groups.grouped(TWO, [], "empty") == TWO


def test_taking_a_group_apart_leaves_the_others():
    assert groups.ungrouped(TWO, 0) == (TWO[1],)
    assert groups.renamed(TWO, 1, "T cells") == (TWO[0], ChannelGroup("T cells", (1, 5)))
    assert TWO[1].name == "immune"


@pytest.mark.parametrize(
    ("names", "proposed"),
    [
        (["DAPI 1", "DAPI 2"], "DAPI"),
        (["Cycle 01 (A)", "Cycle 01 (B)"], "Cycle 01"),
        (["CD45", "Ki67"], "group 1"),
        (["nuclei a", "nuclei b"], "group 1"),
        (["", "x"], "group 1"),
        ([], "group 1"),
    ],
)
def test_a_group_is_called_what_its_channels_begin_with(names: list[str], proposed: str):
    assert groups.proposed_name(TWO, names) == proposed


def test_no_name_is_proposed_twice():
    taken = (ChannelGroup("group 1", (0,)), ChannelGroup("DAPI", (2,)))
    assert groups.proposed_name(taken, ["DAPI 1", "DAPI 3"]) == "group 2"


def test_a_group_is_shown_hidden_or_partly_shown():
    assert groups.shown(looks(0, 2, 4), (0, 2, 4)) is True
    assert groups.shown(looks(1), (0, 2, 4)) is False
    assert groups.shown(looks(2), (0, 2, 4)) is None


def test_a_group_alone_hides_all_others_and_again_shows_all():
    seen = looks(1, 3)
    groups.show_alone(seen, (0, 2))
    assert [look.visible for look in seen] == [True, False, True, False, False, False]
    assert groups.is_alone(seen, (0, 2))
    groups.show_alone(seen, (0, 2))
    assert all(look.visible for look in seen)


def test_the_table_lists_groups_first_and_every_channel_once():
    assert groups.table_rows(TWO, NAMES) == [
        Row(0, None), Row(0, 0), Row(0, 2), Row(0, 4), Row(1, None), Row(1, 1), Row(1, 5), Row(None, 3),
    ]  # fmt: skip
    assert groups.table_rows((), NAMES) == [Row(None, channel) for channel in range(6)]


def test_a_folded_group_is_a_heading_unless_something_is_searched():
    folded = groups.folded(TWO, 0)
    assert groups.table_rows(folded, NAMES)[:2] == [Row(0, None), Row(1, None)]
    assert groups.table_rows(folded, NAMES, "dapi 2") == [Row(0, None), Row(0, 2)]
    assert groups.folded(folded, 0) == TWO


def test_a_group_stays_folded_whatever_is_done_to_it():
    folded = groups.folded(TWO, 0)
    for changed in (groups.renamed(folded, 0, "all"), groups.joined(folded, 0, [3]), groups.without_channels(folded, [2])):
        assert [group.folded for group in changed] == [True, False]


def test_a_search_finds_names_of_channels_and_of_groups_in_any_case():
    assert groups.table_rows(TWO, NAMES, "IMMUNE") == [Row(1, None), Row(1, 1), Row(1, 5)]
    assert groups.table_rows(TWO, NAMES, "immune cd8") == [Row(1, None), Row(1, 5)]
    assert groups.table_rows(TWO, NAMES, "ki") == [Row(None, 3)]
    assert groups.table_rows(TWO, NAMES, "nothing like it") == []


def test_numbers_that_this_slide_does_not_have_are_not_listed():
    assert groups.table_rows((ChannelGroup("far", (4, 99)),), NAMES[:5])[:2] == [Row(0, None), Row(0, 4)]


def test_the_group_of_a_selection_is_that_with_exactly_these_channels():
    assert groups.group_of(TWO, {5, 1}) == 1
    assert groups.group_of(TWO, {0, 2}) is None
