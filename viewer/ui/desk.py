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
MOST_PROBLEMS = 20
"""Lines about tiles that cannot be read; a disk that is gone would fill the list."""

PROBLEM_AGAIN_S = 60.0
"""A problem that was away for so long is told again when it comes back."""

SILENCE_LOOK_S = 0.25
"""How often one looks whether a server that does not answer is back."""

KINDS = ("info", "warning", "error")


@dataclass(frozen=True)
class Message:
    """One line for the user; `kind`: info, warning or error.

    It was told so many `times`, last `at` (`time.monotonic()`), which is `told_at`, seconds since 1970.
    """

    text: str
    kind: str
    at: float
    told_at: float = 0.0
    times: int = 1


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
class Naming:
    """A channel's name that is being typed. `begun`: the keyboard is in its field."""

    channel: int
    text: str
    begun: bool = False


@dataclass
class Desk:
    """One window's state beside the engine's. `act` holds what the window does when asked, by name.

    `renaming` is the number of the channel group whose name is typed, `naming` the channel whose name is.
    `unread` counts warnings and errors that were not seen in the list of messages yet; `gravest_unread` is their worst kind.
    `measured_of` is what the lines in `measured` are about. `edits` counts how often a field was clicked into: what is typed
    there from then on is one step to undo.
    """

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
    renaming: int | None = None
    naming: Naming | None = None
    cursor_um: tuple[float, float] | None = None
    board: Board | None = None
    measured: list[str] = field(default_factory=list)
    measured_of: tuple = ()
    edits: int = 0
    messages: deque[Message] = field(default_factory=lambda: deque(maxlen=MOST_MESSAGES))
    unread: int = 0
    gravest_unread: str = KINDS[0]
    picture_changed: bool = False
    away: str = ""
    """Who does not answer just now, and is waited for; empty while all goes well."""
    _latest: Message | None = None
    _again_in_s: float | None = None
    _problems: dict[str, float] = field(default_factory=dict)

    @property
    def slide(self) -> Slide:
        """The slide that is shown."""
        return self.engine.slide

    def touch(self, changed: bool = True) -> None:
        """The picture is to be drawn anew."""
        self.picture_changed = self.picture_changed or changed

    def say(self, text: str, kind: str = "info") -> None:
        """Tell the user a line, and keep it in the list of messages; the same line again is the same message."""
        self._latest = self._keep(text, kind)

    def note(self, text: str, kind: str = "info") -> None:
        """Keep a line in the list of messages alone."""
        self._keep(text, kind)

    def note_silence(self) -> None:
        """Keep a line on a server that does not answer; the status line says so until it does."""
        away = self.slide.away
        if away and away != self.away:
            self.note(silence_text(away), "warning")
        self.away = away
        if away:
            self.look_again(SILENCE_LOOK_S)

    def note_problems(self) -> None:
        """Keep lines on tiles that cannot be read, each once while it lasts; the status line counts them."""
        if not self.engine.report.tiles_failed or self.away:  # of a server that is away, that is all there is to say
            return
        now = time.monotonic()
        for problem in self.engine.failures():
            known = self._problems.get(problem)
            if known is None and len(self._problems) >= MOST_PROBLEMS:
                continue
            if known is None or now - known > PROBLEM_AGAIN_S:
                self.note(problem, "error")
                if len(self._problems) == MOST_PROBLEMS - 1:
                    self.note("more tiles cannot be read; the status line counts them", "error")
            self._problems[problem] = now

    def read_messages(self) -> None:
        """The user has seen them: nothing is unread, and an error does not stay in the status line."""
        self.unread, self.gravest_unread = 0, KINDS[0]
        if self._latest is not None and self._latest.kind == "error":
            self._latest = None

    def clear_messages(self) -> None:
        """Forget what was told."""
        self.messages.clear()
        self._latest = None
        self.read_messages()

    @property
    def message(self) -> Message | None:
        """The line to show now: errors stay until another comes or they are read, others fade."""
        last = self._latest
        if last is None or last.kind == "error" or time.monotonic() - last.at < MESSAGE_S:
            return last
        return None

    def _keep(self, text: str, kind: str) -> Message:
        now, last = time.monotonic(), self.messages[-1] if self.messages else None
        again = last is not None and (last.text, last.kind) == (text, kind)
        if again:
            self.messages.pop()
        message = Message(text, kind, now, time.time(), last.times + 1 if again else 1)
        self.messages.append(message)
        if kind != KINDS[0]:  # mere information was read where it passed by
            self.unread = max(self.unread, 1) if again else min(self.unread + 1, MOST_MESSAGES)
            self.gravest_unread = max(self.gravest_unread, kind, key=KINDS.index)
        return message

    def look_again(self, in_s: float) -> None:
        """Something is shown that goes on by itself: the next frame is due after so many seconds."""
        self._again_in_s = in_s if self._again_in_s is None else min(in_s, self._again_in_s)

    def wants_frame_in(self) -> float | None:
        """After a frame: seconds until the line that is shown goes away, or something else goes on; None if nothing does."""
        (wanted, self._again_in_s), message = (self._again_in_s, None), self.message
        if message is not None and message.kind != "error":
            fades = max(MESSAGE_S - (time.monotonic() - message.at), 0.0)
            return fades if wanted is None else min(wanted, fades)
        return wanted

    def chosen_channels(self) -> list[int]:
        """The channels that a command is about: the selected ones, or the active one."""
        known = range(len(self.engine.channels))
        chosen = sorted(number for number in self.selected if number in known)
        return chosen or [min(self.active_channel, len(self.engine.channels) - 1)]


def silence_text(away: str) -> str:
    """What is said while somebody does not answer."""
    return f"{away} does not answer; trying again"
