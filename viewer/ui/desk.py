"""What the panels share: the engine, what is open and selected, and what is to be told. State only; it draws nothing."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rawmosaic.storage.slide import Slide
from rawmosaic.viewer.controls import Controls
from rawmosaic.viewer.engine import Engine
from rawmosaic.viewer.later import Later
from rawmosaic.viewer.preferences import Preferences
from rawmosaic.viewer.statistics import Statistics

if TYPE_CHECKING:
    from rawmosaic.viewer.ui.board import Board

MESSAGE_S = 8.0
MOST_MESSAGES = 200


@dataclass(frozen=True)
class Message:
    """One line for the user; `kind`: info, warning or error."""

    text: str
    kind: str
    at: float


@dataclass
class Shown:
    """Which panels are open."""

    side: bool = True
    toolbar: bool = True
    status: bool = True
    scale_bar: bool = True
    minimap: bool = True
    contrast: bool = True
    statistics: bool = False
    keys: bool = False
    messages: bool = False
    annotations: bool = True


@dataclass
class Desk:
    """One window's state beside the engine's. `act` holds what the window does when asked, by name."""

    engine: Engine
    controls: Controls
    later: Later
    statistics: Statistics
    preferences: Preferences
    act: dict[str, Callable[..., object]] = field(default_factory=dict)
    shown: Shown = field(default_factory=Shown)
    active_channel: int = 0
    selected: set[int] = field(default_factory=set)
    channel_filter: str = ""
    cursor_um: tuple[float, float] | None = None
    board: Board | None = None
    measured: list[str] = field(default_factory=list)
    messages: deque[Message] = field(default_factory=lambda: deque(maxlen=MOST_MESSAGES))
    picture_changed: bool = False

    @property
    def slide(self) -> Slide:
        """The slide that is shown."""
        return self.engine.slide

    def touch(self, changed: bool = True) -> None:
        """The picture is to be drawn anew."""
        self.picture_changed = self.picture_changed or changed

    def say(self, text: str, kind: str = "info") -> None:
        """Tell the user a line; the same line again is told once."""
        if not self.messages or self.messages[-1].text != text:
            self.messages.append(Message(text, kind, time.monotonic()))

    @property
    def message(self) -> Message | None:
        """The line to show now: errors stay until another comes, others fade."""
        if not self.messages:
            return None
        last = self.messages[-1]
        return last if last.kind == "error" or time.monotonic() - last.at < MESSAGE_S else None

    def message_fades_in(self) -> float | None:
        """Seconds until the line that is shown goes away."""
        message = self.message
        return None if message is None or message.kind == "error" else max(MESSAGE_S - (time.monotonic() - message.at), 0.0)

    def chosen_channels(self) -> list[int]:
        """The channels that a command is about: the selected ones, or the active one."""
        known = range(len(self.engine.channels))
        chosen = sorted(number for number in self.selected if number in known)
        return chosen or [min(self.active_channel, len(self.engine.channels) - 1)]
