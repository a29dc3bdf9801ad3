"""Go to a field, well or stage position by typing it; bookmarks."""

from __future__ import annotations

from imgui_bundle import imgui

from rawmosaic.viewer.display_state import Bookmark
from rawmosaic.viewer.places import NoPlace, camera_at, find_place, suggestions
from rawmosaic.viewer.ui import theme
from rawmosaic.viewer.ui.desk import Desk
from rawmosaic.viewer.ui.widgets import button, dim, told, wrapped

MOST_SUGGESTIONS = 4


class PlacesPanel:
    """What is being typed, and what came of it."""

    def __init__(self):
        self.typed, self._problem = "", ""
        self.wants_focus = False

    def draw(self, desk: Desk) -> None:
        """The line to type into, suggestions, bookmarks."""
        if self.wants_focus:
            imgui.set_keyboard_focus_here()
            self.wants_focus = False
        imgui.set_next_item_width(-1)
        flags = imgui.InputTextFlags_.enter_returns_true.value | imgui.InputTextFlags_.auto_select_all.value
        entered, typed = imgui.input_text_with_hint("##go", "go to: #12, r3 c7, B03, x 1200 y 800, 20x", self.typed, flags)
        told("a field by number or row and column, a well, a stage position in µm, or a magnification; Enter goes there (Ctrl+G)")
        if typed != self.typed:
            self.typed, self._problem = typed, ""
        if entered:
            self._go(desk, self.typed)
        if self._problem:
            wrapped(self._problem, theme.WARNING)
            for text in suggestions(self.typed, desk.slide, desk.engine.geometry)[:MOST_SUGGESTIONS]:
                if imgui.small_button(text):
                    self._go(desk, text)
                imgui.same_line()
            imgui.new_line()
        self._bookmarks(desk)

    def _go(self, desk: Desk, text: str) -> None:
        place = find_place(text, desk.slide, desk.engine.geometry)
        if isinstance(place, NoPlace):
            self._problem = place.why
            return
        self.typed, self._problem = text, ""
        desk.engine.camera = camera_at(place, desk.engine.camera)
        desk.say(place.what)  # in place of what was said of the view before, another well for instance
        desk.touch()

    def _bookmarks(self, desk: Desk) -> None:
        engine = desk.engine
        if button("bookmark this view", "keep centre, scale, z and t under a name"):
            camera = engine.camera
            name = f"place {len(engine.bookmarks) + 1}"
            mark = Bookmark(name, camera.x_um, camera.y_um, camera.scale, engine.z, engine.t)
            engine.bookmarks = (*engine.bookmarks, mark)
        for number, mark in enumerate(engine.bookmarks):
            imgui.push_id(number)
            if button("go", "back to this view"):
                engine.look_at(mark.x_um, mark.y_um, mark.scale)
                engine.z, engine.t = min(mark.z, desk.slide.size_z - 1), min(mark.t, desk.slide.size_t - 1)
                desk.touch()
            imgui.same_line()
            imgui.set_next_item_width(-theme.units(34))
            changed, name = imgui.input_text("##name", mark.name)
            if changed:
                marks = list(engine.bookmarks)
                marks[number] = Bookmark(name, mark.x_um, mark.y_um, mark.scale, mark.z, mark.t)
                engine.bookmarks = tuple(marks)
            imgui.same_line()
            if button("x", "forget it"):
                engine.bookmarks = tuple(other for place, other in enumerate(engine.bookmarks) if place != number)
            imgui.pop_id()
        if not engine.bookmarks:
            dim("no bookmarks yet")
