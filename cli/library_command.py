"""`rawmosaic library`: which slides there are, where their copies lie, and whether they are still there."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from rawmosaic.cli.options import acquisition_options, opening_options

if TYPE_CHECKING:
    from rawmosaic.storage.database import Library
    from rawmosaic.storage.database.records import CopyRecord, SlideRecord
    from rawmosaic.storage.database.scanning import ScanReport

DAMAGED = 1

EXAMPLES = """\b
Examples:
  rawmosaic library scan /data/scans
  rawmosaic library search brain channel:DAPI acquired:2026-11
  rawmosaic library show "brain 17"
  rawmosaic view "library:brain 17"
  rawmosaic library verify
"""

LIBRARY = click.option(
    "--library",
    "address",
    metavar="URL",
    help="A file or postgresql://user@host/name; else RAWMOSAIC_LIBRARY, else one of your own.",
)
THUMBNAILS = click.option("--thumbnails/--no-thumbnails", default=True, help="Draw a small picture of each slide.")
LIMIT = click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="So many slides at most.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Everything that is known, as JSON.")


@click.group("library", epilog=EXAMPLES)
def command() -> None:
    """Keep account of slides: what they hold, where their copies lie, whether they are still there and sound.

    A slide is known by its content, so copies are recognised wherever they lie and whatever they are called. Files are never
    changed. `library:NAME` is a LOCATION for all other commands.
    """


@command.command("add")
@click.argument("locations", nargs=-1, required=True, metavar="LOCATION…")
@LIBRARY
@THUMBNAILS
@acquisition_options
def add(locations: Sequence[str], address: str | None, thumbnails: bool, **acquisition: Any) -> None:
    """Take in single slides: virtual slides, raw acquisitions, slides on servers.

    Options of raw acquisitions are kept, and used whenever the slide is opened by its name.
    """
    with _library(address) as library:
        draw = _thumbnails(thumbnails)
        for location in locations:
            noted = library.add(location, opening_options(location, acquisition), draw)
            click.echo(_news_line(noted.news, noted.name, noted.location, noted.before))


@command.command("scan")
@click.argument("folders", nargs=-1, required=True, metavar="FOLDER…")
@LIBRARY
@THUMBNAILS
def scan(folders: Sequence[str], address: str | None, thumbnails: bool) -> None:
    """Bring the library up to date with all slides in FOLDER and below.

    Says which are new, copied, moved, changed, replaced, found again or missing, and what could not be read. What looks as it did
    is not opened. Ctrl+C stops it; what was found until then is kept.
    """
    from rawmosaic.cli.progress import progress_bar

    with _library(address) as library:
        draw = _thumbnails(thumbnails)
        for folder in folders:
            with progress_bar(f"Scanning {folder}") as progress:
                report = library.scan(folder, draw, progress)
            _echo_report(folder, report)


@command.command("list")
@click.option("--state", metavar="STATE", help="Only slides that are acquiring, complete, verified, damaged, missing or failed.")
@LIMIT
@AS_JSON
@LIBRARY
def show_list(state: str | None, limit: int, as_json: bool, address: str | None) -> None:
    """List the slides, the latest acquired first."""
    with _library(address, create=False) as library:
        found = library.slides(state, limit)
        total = library.count_found(f"state:{state}" if state else "")
        _echo_slides(library, found, total, as_json)


@command.command("search")
@click.argument("words", nargs=-1, required=True, metavar="WORDS…")
@LIMIT
@AS_JSON
@LIBRARY
def search(words: Sequence[str], limit: int, as_json: bool, address: str | None) -> None:
    """Find slides that match all WORDS, in their name, path, objective, assay, channels, tags or note.

    A word finds what begins with it; with a star before it, what ends with it; between two stars, what holds it. In one place
    only: name:WORD, path:, objective:, assay:, channel:, tag:, note:. By date: acquired:2026-11, acquired:2026-11..2027-02. By
    state: state:missing.
    """
    from rawmosaic.storage.database.searching import joined

    text = joined(words)
    with _library(address, create=False) as library:
        found = library.search(text, limit)
        _echo_slides(library, found, len(found) if len(found) < limit else library.count_found(text), as_json)


@command.command("show")
@click.argument("name")
@AS_JSON
@click.option("--thumbnail", metavar="FILE.png", help="Write the small picture there.")
@LIBRARY
def show(name: str, as_json: bool, thumbnail: str | None, address: str | None) -> None:
    """Show all that is known of the slide called NAME, its copies included.

    NAME may also be one of its locations, or the first six or more characters of its identity.
    """
    with _library(address, create=False) as library:
        slide = library.find(name)
        if thumbnail is not None:
            _write_thumbnail(library, slide, thumbnail)
        if as_json:
            click.echo(json.dumps(_as_json(slide), indent=2, ensure_ascii=False))
        else:
            click.echo("\n".join(_described(slide, library.host)))


@command.command("verify")
@click.argument("name", required=False)
@LIBRARY
def verify(name: str | None, address: str | None) -> int:
    """Read every copy of the slide called NAME as a whole, or of all slides, and note whether it is sound.

    Planes of virtual slides are compared with their checksums; other files, from the second time on, with what was read the first
    time. Exit code 0: sound. 1: something is damaged. Copies on other machines and on servers are left out.
    """
    from rawmosaic.cli.progress import progress_bar

    damaged = 0
    with _library(address, create=False) as library:
        slides = library.slides() if name is None else [library.find(name)]
        for slide in slides:
            for copy in slide.copies:
                if not _lies_here(copy, library.host):
                    continue
                with progress_bar(f"Verifying {slide.name}") as progress:
                    problem, told = _judged(library, copy, progress)
                damaged += problem
                click.echo(f"{copy.location}: {told}")
    return DAMAGED if damaged else 0


@command.command("forget")
@click.argument("name")
@LIBRARY
def forget(name: str, address: str | None) -> None:
    """Take the slide called NAME out of the library, with its tags and note. Its files stay."""
    with _library(address, create=False) as library:
        slide = library.find(name)
        library.forget(slide.id)
    click.echo(f"{slide.name} ({slide.short_identity}) is forgotten; its files are as they were.")


@command.command("tag")
@click.argument("name")
@click.argument("tags", nargs=-1, required=True, metavar="TAG…")
@click.option("--remove", is_flag=True, help="Take the tags away.")
@LIBRARY
def tag(name: str, tags: Sequence[str], remove: bool, address: str | None) -> None:
    """Give the slide called NAME tags, which `search` finds."""
    with _library(address, create=False) as library:
        library.tag(library.find(name).id, tags, remove)


@command.command("note")
@click.argument("name")
@click.argument("text")
@LIBRARY
def note(name: str, text: str, address: str | None) -> None:
    """Write a note about the slide called NAME, in place of the former one."""
    with _library(address, create=False) as library:
        library.annotate(library.find(name).id, text)


def _library(address: str | None, create: bool = True) -> Library:
    from rawmosaic.storage.library_source import open_library

    return open_library(address, create)


def _thumbnails(wanted: bool) -> Callable | None:
    if not wanted:
        return None
    from rawmosaic.cli.thumbnails import thumbnails

    return thumbnails()


def _news_line(news: str, name: str, location: str, before: str = "") -> str:
    since = {"moved": f" (was {before})", "copied": f" (also {before})"}.get(news, "")
    return f"{news + ':':<12} {name}  {location}{since}"


def _echo_report(folder: str, report: ScanReport) -> None:
    for noted in report.noted:
        click.echo(_news_line(noted.news, noted.name, noted.location, noted.before))
    for name, location in report.missing:
        click.echo(_news_line("missing", name, location))
    for location, reason in report.problems:
        click.echo(f"rawmosaic: {location}: cannot be read: {reason}", err=True)
    click.echo(f"{folder}: {len(report.noted)} with news, {report.unchanged} unchanged, {len(report.missing)} missing")


def _echo_slides(library: Library, found: Sequence[SlideRecord], total: int, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([_as_json(slide) for slide in found], indent=2, ensure_ascii=False))
        return
    if not found:
        click.echo("no slide found", err=True)
        return
    from rawmosaic.cli.tables import bytes_text, echo_table

    columns = ("identity", "name", "state", "acquired", "channels", "fields", "size", "where")
    rows = [
        (
            slide.short_identity,
            slide.name,
            slide.state,
            (slide.acquired or slide.acquired_at)[:16].replace("T", " "),
            ", ".join(channel.name for channel in slide.channels),
            "" if slide.n_fields is None else str(slide.n_fields),
            bytes_text(slide.nbytes),
            _where(slide, library.host),
        )
        for slide in found
    ]
    echo_table(columns, rows, right=("fields", "size"))
    if total > len(found):
        click.echo(f"{len(found)} of {total} slides; --limit shows more", err=True)


def _where(slide: SlideRecord, host: str) -> str:
    if not slide.copies:
        return "-"
    there = [copy for copy in slide.copies if copy.state != "missing"] or slide.copies
    more = f" and {len(slide.copies) - 1} more" if len(slide.copies) > 1 else ""
    return there[0].place(host) + more


def _described(slide: SlideRecord, host: str) -> list[str]:
    from rawmosaic.cli.tables import bytes_text

    stack = (slide.size_z or 1) * (slide.size_t or 1)
    rows = [
        ("name", slide.name),
        ("identity", slide.identity),
        ("acquisition", slide.uid),
        *_of_scan(slide),
        ("state", slide.state + (f": {slide.error}" if slide.error else "")),
        ("acquired at", slide.acquired_at),
        ("objective", slide.objective),
        ("assay", slide.assay),
        ("pixel size", f"{slide.pixel_size_um:g} µm" if slide.pixel_size_um else None),
        ("fields", f"{slide.n_fields}, up to {slide.field_width} × {slide.field_height} pixels" if slide.field_width else None),
        ("z, t", f"{slide.size_z} × {slide.size_t}" if stack > 1 else None),
        ("pixels", f"{slide.n_pixels:,}" if slide.n_pixels is not None else None),
        ("bytes", bytes_text(slide.nbytes)),
        ("tags", ", ".join(slide.tags)),
        ("note", slide.note),
    ]
    rows += [(f"channel {number}", channel.name) for number, channel in enumerate(slide.channels)]
    rows += [(f"copy {number}", _copy_line(copy, host)) for number, copy in enumerate(slide.copies, start=1)]
    indent = max(len(name) for name, _ in rows) + 2
    return [f"{name:<{indent}}{text}" for name, text in rows if text]


def _of_scan(slide: SlideRecord) -> list[tuple[str, str]]:
    """What an acquisition server noted of the scan: whether it was planned, and why it ended early, if it did."""
    extra = json.loads(slide.extra) if slide.extra else {}
    scan = extra.get("acquisition")
    planned = scan.get("planned") if isinstance(scan, dict) else None
    rows = [] if planned is None else [("planned", "yes" if planned else "no, fields as they came")]
    early = extra.get("ended_early")
    if early or planned is not None:
        rows.append(("ended early", " ".join(str(early).split()) if early else "no"))
    return rows


def _copy_line(copy: CopyRecord, host: str) -> str:
    parts = [copy.place(host), copy.state + (f": {copy.error}" if copy.error else ""), f"seen {copy.seen_at}"]
    if copy.verified_at:
        parts.append(f"verified {copy.verified_at}")
    return ", ".join(parts)


def _lies_here(copy: CopyRecord, host: str) -> bool:
    return copy.host == host and "://" not in copy.location and copy.state != "acquiring"


def _judged(library: Library, copy: CopyRecord, progress: Callable[[int, int], None]) -> tuple[bool, str]:
    """(whether it is damaged, what to say) of a copy."""
    from rawmosaic.storage.errors import NotASlideError

    try:
        verdict = library.verify(copy, progress)
    except NotASlideError:
        return True, "missing"
    except OSError as error:
        return True, f"cannot be read: {error.strerror or error}"
    if verdict.problem:
        return True, f"damaged: {verdict.problem}"
    return False, "sound" if verdict.known else "read; its checksum is noted, to be compared the next time"


def _write_thumbnail(library: Library, slide: SlideRecord, path: str) -> None:
    from rawmosaic.cli.picture import picture_path

    png = library.thumbnail(slide.id)
    if png is None:
        raise click.ClickException(f"there is no small picture of {slide.name}; `rawmosaic library add` draws one")
    picture_path(path).write_bytes(png)


def _as_json(slide: SlideRecord) -> dict[str, Any]:
    facts = asdict(slide)
    facts["extra"] = json.loads(slide.extra) if slide.extra else {}
    facts["copies"] = [{**asdict(copy), "options": dict(copy.options)} for copy in slide.copies]
    return facts
