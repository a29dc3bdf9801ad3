"""The menu of presets: the user's own looks by name, those of another slide, and keeping what is shown under a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from imgui_bundle import imgui

from rawmosaic.viewer import presets
from rawmosaic.viewer.display_state import DisplayState, apply, capture
from rawmosaic.viewer.ui import theme
from rawmosaic.viewer.ui.desk import Desk
from rawmosaic.viewer.ui.widgets import button, dim, shortened, told

WIDTH_UNITS = 250
MOST_SLIDES = 8
MOST_TOLD = 12
"""Lines on what does not match that are kept in the list of messages."""


class Offered(NamedTuple):
    """What the menu lists: names of presets, and (location, name) of slides that were looked at."""

    names: list[str]
    slides: list[tuple[str, str]]


class PresetsMenu:
    """The menu, and what is typed into it. Files are read and written by another thread."""

    def __init__(self):
        self._name = ""
        self._offered = Offered([], [])

    def draw(self, desk: Desk) -> None:
        """The button, and the menu while it is open."""
        if "when done" not in desk.act:
            return
        if button("presets", "give this slide looks that you kept, or those of another slide; keep these"):
            self._look(desk)
            imgui.open_popup("presets")
        if imgui.begin_popup("presets"):
            imgui.dummy((theme.units(WIDTH_UNITS), 0))
            self._own(desk)
            self._others(desk)
            self._keep(desk)
            imgui.end_popup()

    def _own(self, desk: Desk) -> None:
        imgui.text("your presets")
        told("contrast, colours, groups and rules of the view; not the place")
        if not self._offered.names:
            dim("none yet")
        for name in self._offered.names:
            imgui.push_id(name)
            if imgui.small_button("x"):
                self._run(desk, f"forget {name}", lambda name=name: presets.forget(name), lambda _: self._look(desk))
            told("remove this preset for good")
            imgui.same_line()
            if imgui.selectable(shortened(name, imgui.get_content_region_avail().x), False)[0]:
                self._apply(desk, f"preset “{name}”", lambda name=name: presets.read(name))
            imgui.pop_id()

    def _others(self, desk: Desk) -> None:
        imgui.separator()
        imgui.text("as another slide")
        for number, (location, name) in enumerate(self._offered.slides):
            if imgui.selectable(f"{shortened(name, imgui.get_content_region_avail().x)}###{number}", False)[0]:
                self._apply(desk, f"looks of {name}", lambda location=location: presets.read_from(location))
            told(location)
        if imgui.selectable("choose a slide or a .view.json file …", False)[0]:
            self._choose(desk)

    def _keep(self, desk: Desk) -> None:
        imgui.separator()
        imgui.set_next_item_width(-theme.units(72))
        enter = imgui.InputTextFlags_.enter_returns_true.value
        entered, self._name = imgui.input_text_with_hint("##name", "keep these looks as …", self._name, enter)
        imgui.same_line()
        kept = presets.file_name(self._name)
        there = kept in self._offered.names
        hint = f"in place of the “{kept}” that is there" if there else "for this and for other slides"
        if (button("replace" if there else "keep", hint, enabled=bool(kept)) or entered) and kept:
            state = capture(desk.engine)
            self._run(desk, f"keep {kept}", lambda: presets.keep(kept, state), lambda name: desk.say(f"preset “{name}” is kept"))
            self._name = ""
            imgui.close_current_popup()

    def _look(self, desk: Desk) -> None:
        """Have the lists made anew."""
        here = desk.slide.location

        def take(offered: Offered) -> None:
            self._offered = offered
            desk.touch()

        self._run(desk, "look", lambda: offered_beside(here), take)

    def _choose(self, desk: Desk) -> None:
        from rawmosaic.viewer.ui.file_question import NO_DIALOG, FileQuestion, can_ask

        if not can_ask():
            desk.say(NO_DIALOG, "warning")
            return
        question = FileQuestion("Looks of another slide", ["slides and display states", "*.view.json *.h5 *.*"])

        def take(chosen: list[str]) -> None:
            if chosen:
                self._apply(desk, f"looks of {chosen[0]}", lambda: presets.read_from(chosen[0]))

        desk.act["when done"](question, take)

    def _apply(self, desk: Desk, what: str, read: Callable[[], DisplayState]) -> None:
        self._run(desk, "apply", read, lambda state: give_looks(desk, state, what))

    @staticmethod
    def _run(desk: Desk, topic: str, work: Callable[[], object], take: Callable) -> None:
        """Have something done by another thread, and take what comes of it; errors are told."""
        desk.act["when done"](desk.later.newest(("presets", topic), work), take)


def offered_beside(here: str) -> Offered:
    """What can be chosen while looking at a slide. Reads the disk."""
    from rawmosaic.viewer.recent import recent

    slides = [(each.location, each.name) for each in recent() if each.location != here and presets.have_looks(each.location)]
    return Offered(presets.names(), slides[:MOST_SLIDES])


def give_looks(desk: Desk, state: DisplayState, what: str) -> None:
    """Apply looks as a preset; a line says so, and what does not match is in the list of messages."""
    told_lines = apply(state, desk.engine, preset=True)
    desk.selected = set()
    desk.touch()
    for line in told_lines[:MOST_TOLD]:
        desk.note(line, "warning")
    if len(told_lines) > MOST_TOLD:
        desk.note(f"… and {len(told_lines) - MOST_TOLD} more that do not match", "warning")
    if told_lines:
        desk.say(f"{what}: given, but {len(told_lines)} things do not match (see Messages)", "warning")
    else:
        desk.say(f"{what}: given")
