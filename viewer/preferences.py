"""What a user prefers in every window, kept in the user's configuration folder. A damaged file is as good as none."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

SCROLLS = ("zoom", "pan")


@dataclass
class Preferences:
    """`scroll`: what the wheel or two fingers do (Ctrl always zooms, Shift pans sideways); `invert`: the other way round."""

    scroll: str = "zoom"
    invert: bool = False
    side_panel: bool = True
    minimap: bool = True
    scale_bar: bool = True


def preferences_path() -> Path:
    """Where they are kept."""
    from platformdirs import user_config_path

    return user_config_path("rawmosaic", appauthor=False) / "window.json"


def load_preferences(path: Path | None = None) -> Preferences:
    """The user's, or the defaults for whatever is not there or makes no sense."""
    kept = {}
    with suppress(OSError, ValueError):
        kept = json.loads((path or preferences_path()).read_text())
    defaults = Preferences()
    if isinstance(kept, dict):
        for field in fields(Preferences):
            value = kept.get(field.name)
            if type(value) is type(getattr(defaults, field.name)):
                setattr(defaults, field.name, value)
    if defaults.scroll not in SCROLLS:
        defaults.scroll = SCROLLS[0]
    return defaults


def save_preferences(preferences: Preferences, path: Path | None = None) -> None:
    """Keep them; where that cannot be, they last as long as the window."""
    path = path or preferences_path()
    draft = path.with_name(path.name + ".part")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(asdict(preferences), indent=1) + "\n")
        os.replace(draft, path)
