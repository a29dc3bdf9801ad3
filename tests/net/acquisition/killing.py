"""Whole scans with real processes, killed at moments and steps that a seed chooses, and what must be true afterwards.

    scanner ──► manager, proxy, writer ──► slide        a follower reads the slide while it grows
       │                                     │
       └── journal of what was acknowledged ─┴── compared, plane by plane

`Run(Script.of(seed), folder).run()` is one scan; it raises AssertionError where anything was lost, torn, wrong or left behind.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import kill_points
import numpy as np
from contract import area_mean
from kill_points import PROXY, SERVE, WRITER
from scanning_process import GATE, HELD, JOURNAL, SCAN, journaled
from server_process import processes_there
from specimen import CHANNELS, Key, Specimen

from rawmosaic.net.acquisition.files import read_json
from rawmosaic.net.acquisition.safe_mark import read_mark
from rawmosaic.net.acquisition.spool import SpoolWriter, planes_in, segment_path, segments
from rawmosaic.storage import open_slide
from rawmosaic.storage.errors import DamagedSlideError, NotASlideError, SlideError
from rawmosaic.storage.hdf5.verify import verify_slide
from rawmosaic.storage.slide import Slide

SCANNER = "scanner"
NAME = "kidney 7"
HERE = Path(__file__).resolve().parent
LONG_S = 250.0
"""No scan takes so long unless something is wrong."""

LOOK_S, FOLLOW_S = 0.004, 0.02
NOT_NOW = (
    "its writer did not finish it",
    "its writer was killed while it finished",
    "just being finished",
    "starting the server again makes it whole",
)
"""What opening says of a file whose writer was killed when it had only begun it, or was about to finish it."""

PORTS = range(20_000, 32_000)
"""Systems choose none of these by themselves: nobody takes one while its server is restarted."""

EVERYBODY = (SERVE, PROXY, WRITER, SCANNER)
TOGETHER = (
    *((role,) for role in EVERYBODY),
    (PROXY, WRITER),
    (SERVE, WRITER),
    (SERVE, PROXY),
    (SCANNER, PROXY),
    (SERVE, PROXY, WRITER),
    EVERYBODY,
    EVERYBODY,
)
RESUMING = ("before putting aside", "put aside", "copying", "copied", "forgot kept")
"""Steps of a writer that takes over from one that was killed."""

AMIDST = (
    *((PROXY, step) for step in kill_points.STEPS[PROXY][:-2]),
    *((WRITER, step) for step in ("begun", "plane", "read back", "released", *RESUMING)),
    *((WRITER, step) for step in RESUMING),
    (SERVE, "made a folder"),
    (SERVE, "saved a plan"),
)
AT_THE_END = (
    *((PROXY, step) for step in kill_points.STEPS[PROXY][-2:]),
    *((WRITER, step) for step in kill_points.STEPS[WRITER][9:]),
    *((SERVE, step) for step in kill_points.STEPS[SERVE][2:]),
)
GARBAGE, HALF, CUT = "garbage", "half a record", "cut"
"""What becomes of the end of the spool while nobody runs: bytes that mean nothing follow it; a plane of which the end is missing;
what nobody was told of is cut off, as a power cut may do."""


@dataclass(frozen=True)
class Kill:
    """Who is killed once `after` planes are acknowledged: at a moment; or, with `step`, at that step of the first victim.

    `again`: (seconds, victims): who is killed once more, so long after it was started again.
    """

    after: int
    delay_s: float
    victims: tuple[str, ...]
    step: str = ""
    times: int = 1
    again: tuple[tuple[float, tuple[str, ...]], ...] = ()
    damage: str = ""
    rest_s: float = 0.0

    @property
    def name(self) -> str:
        """In words."""
        who = " + ".join(self.victims)
        return f"{who} at {self.step}" if self.step else who


@dataclass(frozen=True)
class Script:
    """All that a seed decides about a run."""

    seed: int
    specimen: Specimen
    kills: tuple[Kill, ...]
    encoding: str
    window_nbytes: int
    durability: str
    resends: str
    aborts: bool
    tells: bool

    @classmethod
    def of(cls, seed: int, n_places: int | None = None) -> Script:
        """The script of a seed."""
        chosen = random.Random(f"script {seed}")
        specimen = Specimen.of(seed, n_places)
        n_planes = specimen.n_places * len(CHANNELS)
        times = sorted(chosen.randrange(n_planes - 1) for _ in range(chosen.choice((1, 1, 2, 2, 3))))
        kills = [_kill(chosen, after, AMIDST) for after in times]
        kills += [_kill(chosen, n_planes, AT_THE_END) for _ in range(chosen.choice((0, 1, 1, 2)))]
        return cls(
            seed,
            specimen,
            tuple(kills),
            encoding=chosen.choice(("raw", "raw", "blosc")),
            window_nbytes=chosen.choice((20_000, 100_000, 1 << 20)),
            durability=chosen.choice(("fsync", "fsync", "page-cache")),
            resends=chosen.choice(("everything", "what was not acknowledged")),
            aborts=chosen.random() < 0.1,
            tells=chosen.random() < 0.5,
        )


def _kill(chosen: random.Random, after: int, steps: tuple[tuple[str, str], ...]) -> Kill:
    rest_s, delay_s = chosen.choice((0.0, 0.0, 0.3)) * chosen.random(), 0.05 * chosen.random()
    if chosen.random() < 0.5:
        role, step = chosen.choice(steps)
        others = chosen.choice(TOGETHER) if chosen.random() < 0.4 else ()
        victims, times = (role, *(other for other in others if other != role)), 1
        times = chosen.randrange(1, 30) if step in ("copying", "plane", "appended", "half appended", "synced", "marked") else 1
    else:
        victims, step, times = chosen.choice(TOGETHER), "", 1
        delay_s *= 4 if after else 1
    again = tuple(
        (0.5 * chosen.random() ** 2, tuple(victim for victim in victims if chosen.random() < 0.7 or victim == victims[0]))
        for _ in range(chosen.choice((0, 0, 1, 2)))
    )
    damage = ""
    if SERVE in victims and chosen.random() < 0.6:
        damage = chosen.choice((GARBAGE, HALF, CUT) if SCANNER in victims and not step else (GARBAGE, HALF))
    return Kill(after, delay_s, victims, step, times, again, damage, rest_s)


@dataclass
class Result:
    """What came of a run."""

    seed: int
    killed: list[str] = field(default_factory=list)
    not_reached: list[str] = field(default_factory=list)
    damages: list[str] = field(default_factory=list)
    starts: dict[str, int] = field(default_factory=dict)
    planned: int = 0
    acknowledged: int = 0
    found: int = 0
    followed: int = 0
    opened: int = 0
    refused: int = 0
    seconds: float = 0.0


class Run:
    """A scan of the seed's script, in a folder of its own."""

    def __init__(self, script: Script, folder: Path, *, data: Path | None = None):
        self.script = script
        seed = script.seed
        self.specimen = self.script.specimen
        self.orders, self.data = folder / f"run {seed}", data or folder / f"run {seed}" / "data"
        self.data.mkdir(parents=True, exist_ok=True)
        self.orders.mkdir(exist_ok=True)
        self.scan, self.location = self.data / f"{NAME}.scan", self.data / f"{NAME}.h5"
        self.result = Result(seed, planned=len(self.specimen.keys))
        self._chosen = random.Random(f"run {seed}")
        self._server: subprocess.Popen | None = None
        self._scanner: subprocess.Popen | None = None
        self._not_before = 0.0
        self._damage = ""
        self._server_said = 0
        self._starts: Counter[str] = Counter()
        self._journal_size, self._journal = -1, set()
        self.over = False
        port = _free_port()
        self.address = f"tcp://127.0.0.1:{port}"

    # the run

    def run(self) -> Result:
        """Do all of it; raises AssertionError."""
        began = time.monotonic()
        self._deadline = began + LONG_S
        try:
            with Follower(self.location, self.specimen) as follower:
                try:
                    self._scan_it()
                    self._check(follower)
                finally:
                    self._end_all()
        except BaseException as error:
            error.add_note(self.report())
            raise
        self.result.starts = dict(self._starts)
        self.result.seconds = round(time.monotonic() - began, 2)
        return self.result

    def report(self) -> str:
        """All that helps to understand a failure."""
        parts = [f"seed {self.script.seed}: {self.script}", json.dumps(asdict(self.result))]
        folders = (self.orders, self.scan)
        for path in (path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())):
            if path.suffix in (".log", ".json", "") and path.is_file() and path.name not in (JOURNAL, GATE):
                parts.append(f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}")
        parts.append(f"--- {sorted(path.name for path in self.data.iterdir())}")
        return "\n".join(parts)

    def _begin(self) -> None:
        self._open_gate(0)
        told = {
            "specimen": asdict(self.specimen),
            "address": self.address,
            "name": NAME,
            "uid": f"scan-{self.script.seed}",
            **{name: getattr(self.script, name) for name in ("encoding", "window_nbytes", "resends", "aborts", "tells")},
        }
        (self.orders / SCAN).write_text(json.dumps(told))

    def _finish(self) -> None:
        self._open_gate(self.result.planned)
        self._until(lambda: self._scanner is not None and self._scanner.poll() == 0)
        self.over = True
        self._until(lambda: self._is_clean() and self._server.poll() is None and self._server_is_up())

    def _scan_it(self) -> None:
        self._begin()
        for number, kill in enumerate(self.script.kills):
            margin = self._chosen.randrange(1, 60)
            self._open_gate(kill.after + margin)
            if kill.step:
                self._order(kill)
                later = self.script.kills[number + 1 :]
                self._open_gate(later[0].after + margin if later else self.result.planned)
                if later and later[0].after >= self.result.planned:
                    continue  # those at the end are ordered together
                self._until(lambda kill=kill, later=later: self._done(kill) or (later and self.acknowledged >= later[0].after))
            else:
                self._until(lambda kill=kill: self.acknowledged >= min(kill.after, self.result.planned))
                self._rest(kill.delay_s)
                self._kill(kill)
            for delay_s, victims in kill.again:
                self._kill_again(delay_s, victims)
        self._finish()

    def _order(self, kill: Kill) -> None:
        kill_points.order(self.orders, kill.victims[0], kill.step, kill.times, kill.victims[1:])
        if kill.damage:
            self._damage = kill.damage
        if kill.step in RESUMING:
            self._until(lambda: kill_points.alive(self.orders, WRITER))
            self._rest(kill.delay_s)
            self._kill_roles((WRITER,))

    def _done(self, kill: Kill) -> bool:
        return not (self.orders / f"{kill.victims[0]} {kill.step}").exists()

    def _kill(self, kill: Kill) -> None:
        if kill.damage:
            self._damage = kill.damage
        self._not_before = time.monotonic() + kill.rest_s
        self._kill_roles(kill.victims)

    def _kill_again(self, delay_s: float, victims: tuple[str, ...]) -> None:
        """Kill those once more, `delay_s` after all of them are there again, if the scan is not over by then."""
        self._until(lambda: all(self._alive(victim) for victim in victims) or self._scan_over())
        self._rest(delay_s)
        self._kill_roles(victims)

    def _kill_roles(self, victims: tuple[str, ...]) -> None:
        victims, hit = self._chosen.sample(victims, len(victims)), []
        for victim in victims:
            process = {SERVE: self._server, SCANNER: self._scanner}.get(victim)
            if process is not None:
                if process.poll() is None:
                    process.kill()
                    hit.append(victim)
            elif victim not in (SERVE, SCANNER) and kill_points.killed(self.orders, victim):
                hit.append(victim)
        for role, process in ((SERVE, self._server), (SCANNER, self._scanner)):
            if role in hit:
                process.wait(LONG_S)
        if hit:
            self.result.killed.append(" + ".join(role for role in EVERYBODY if role in hit))

    def _alive(self, role: str) -> bool:
        process = {SERVE: self._server, SCANNER: self._scanner}.get(role)
        return kill_points.alive(self.orders, role) if role in (PROXY, WRITER) else process is not None and process.poll() is None

    def _scan_over(self) -> bool:
        return self._scanner is not None and self._scanner.poll() == 0

    # looking after it

    @property
    def acknowledged(self) -> int:
        """Planes in the journal."""
        try:
            size = (self.orders / JOURNAL).stat().st_size
        except OSError:
            return 0
        if size != self._journal_size:
            self._journal_size, self._journal = size, journaled(self.orders)
        return len(self._journal)

    def _open_gate(self, n_planes: int) -> None:
        fresh = self.orders / "gate.new"
        fresh.write_text(str(n_planes))
        os.replace(fresh, self.orders / GATE)

    def _until(self, what: Callable[[], object]) -> None:
        """Keep everything running until `what()` is true, or the scan is over."""
        while not what():
            self._keep()
            if self._scan_over() and not self.over:
                return
            assert time.monotonic() < self._deadline, "the scan does not come to its end"
            time.sleep(LOOK_S)

    def _rest(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        self._until(lambda: time.monotonic() >= ends)

    def _keep(self) -> None:
        """Start what was killed."""
        if self._server is None or self._server.poll() is not None:
            if self._server is not None:
                assert self._server.returncode == -kill_points.KILL, "the server ended by itself"
            if self._damage:
                self._damage_spool()
            if time.monotonic() >= self._not_before and not self._damage:
                self._server = self._started(SERVE, self._server_command())
            if self._damage == CUT:
                return  # the scanner is to learn nothing before
        if self._scanner is None or self._scanner.poll() not in (None, 0):
            if self._scanner is not None:
                assert self._scanner.returncode == -kill_points.KILL, "the scanner ended by itself"
            self._scanner = self._started(SCANNER, [sys.executable, str(HERE / "scanning_process.py"), str(self.orders)])

    def _server_command(self) -> list[str]:
        options = ["--data", str(self.data), "--bind", self.address, "--durability", self.script.durability, "--spool-gb", "0.01"]
        return [sys.executable, "-m", "kill_points", str(self.orders), SERVE, *options]

    def _server_is_up(self) -> bool:
        """Whether the server that was started last takes scanners in."""
        said = (self.orders / f"{SERVE}.log").read_bytes()
        return b"scanners: " in said[self._server_said :]

    def _started(self, role: str, command: list[str]) -> subprocess.Popen:
        self._starts[role] += 1
        environment = {**os.environ, "PYTHONPATH": str(HERE)}
        with (self.orders / f"{role}.log").open("ab") as log:
            if role == SERVE:
                self._server_said = log.tell()
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)

    def _damage_spool(self) -> None:
        """Do to the end of the spool what was told, once nobody runs."""
        scanner = self._scanner.pid if self._scanner is not None and self._scanner.poll() is None else None
        there = [pid for pid in kill_points.ours(self.orders) if pid != scanner]
        if there or processes_there(self.data) or (scanner is not None and self._damage == CUT):
            return
        damage, self._damage = self._damage, ""
        folder = self.scan / "spool"
        if not segments(folder) or (self.scan / "end.json").exists():
            return
        if damaged(folder, damage, self._chosen, self._known_to_scanner()):
            self.result.damages.append(damage)

    def _known_to_scanner(self) -> Callable[[object], bool]:
        known, specimen = journaled(self.orders), self.specimen

        def knows(facts: object) -> bool:
            place = facts.field if specimen.fields is not None else round(facts.x_um / 10.0)
            return (place, facts.channel) in known

        return knows

    def _is_clean(self) -> bool:
        return not [
            path for path in self.data.iterdir() if path.name not in (self.location.name, "manager.lock", "finished.scans")
        ]

    def _end_all(self) -> None:
        for process in (self._server, self._scanner):
            if process is not None:
                if process.poll() is None:
                    process.kill()
                process.wait()

    # what must be true

    def _check(self, follower: Follower) -> None:
        self._server.terminate()
        assert self._server.wait(LONG_S) == 0, "the server did not end in order"
        until_true(lambda: not kill_points.ours(self.orders))
        assert self._is_clean(), sorted(path.name for path in self.data.iterdir())
        done = (self.orders / kill_points.DONE).read_text().splitlines() if (self.orders / kill_points.DONE).exists() else []
        self.result.killed += done
        self.result.not_reached = [path.name for path in self.orders.iterdir() if path.name.split(" ")[0] in EVERYBODY]
        self._check_errors()
        for log in (self.orders / f"{SERVE}.log", self.orders / f"{SCANNER}.log"):
            assert "Traceback" not in log.read_text(), f"{log.name}: {log.read_text()}"
        [remembered] = [json.loads(line) for line in (self.data / "finished.scans").read_text().splitlines()[-1:]]
        assert (remembered["state"], remembered["planes"]) == ("complete", self.result.planned)
        acknowledged = journaled(self.orders)
        self.result.acknowledged = len(acknowledged)
        assert acknowledged == set(self.specimen.keys), "the scanner heard of every plane"
        assert verify_slide(self.location) == []
        with open_slide(self.location) as slide:
            found = places_in(slide)
            for key in acknowledged:
                assert key in found, f"the plane {key} is lost"
                np.testing.assert_array_equal(slide.read_plane(*found[key]), self.specimen.plane(key), f"the plane {key}")
                if self.script.tells:
                    assert slide.plane_metadata(*found[key]) == {"place": key[0]}
            assert len(found) == slide.acquired().sum() == self.result.planned
            assert bool(slide.header.extra.get("ended_early")) == self.script.aborts
        self.result.found = len(found)
        until_true(lambda: follower.failure is not None or follower.has_seen(acknowledged))
        assert follower.failure is None, follower.failure
        self.result.followed, self.result.opened, self.result.refused = follower.n_read, follower.opened, follower.refused

    def _check_errors(self) -> None:
        errors = self.orders / kill_points.ERRORS
        assert not errors.exists(), f"errors were logged:\n{errors.read_text()}"


class FullDiskRun(Run):
    """A scan whose disk becomes full in the midst, whose processes are killed then, and which goes on once there is room again.

    `fill` and `free` make it so; by themselves they pretend.
    """

    def fill(self) -> None:
        """Leave no room on the disk."""
        (self.orders / kill_points.FULL).touch()

    def free(self) -> None:
        """Have room again."""
        (self.orders / kill_points.FULL).unlink()

    def _scan_it(self) -> None:
        self._begin()
        half = self.result.planned // 2
        self._open_gate(half)
        self._until(lambda: self.acknowledged >= half)
        self.fill()
        self._open_gate(self.result.planned)
        self._until(lambda: "disk is full" in self._held())
        self._until(lambda: "disk is full" in (read_json(self.scan / "proxy.json") or {}).get("held", ""))
        for kill in self.script.kills:
            self._kill_roles(kill.victims)
            self._until(lambda kill=kill: all(self._alive(victim) for victim in kill.victims))
            self._rest(kill.delay_s)
        assert self.acknowledged < self.result.planned
        self.free()
        self._finish()

    def _held(self) -> str:
        try:
            return (self.orders / HELD).read_text()
        except OSError:
            return ""

    def _check_errors(self) -> None:
        """That the disk is full may be told, and nothing else."""
        errors = self.orders / kill_points.ERRORS
        told = errors.read_text().splitlines() if errors.exists() else []
        assert not [line for line in told if "No space left" not in line and "disk is full" not in line], told


class SmallDiskRun(FullDiskRun):
    """The same on a file system of its own, which really is full; `data` lies on it, and the rest of it is this run's."""

    def fill(self) -> None:
        with (self.data.parent / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
            while True:
                ballast.write(bytes(1 << 12))

    def free(self) -> None:
        (self.data.parent / "ballast").unlink()


class Follower:
    """Follows a slide through all its writers in a thread, and compares each plane that it hears of, at any layer.

    What is torn or wrong, and any error but that the slide is not there, is its `failure`.
    """

    def __init__(self, location: Path, specimen: Specimen):
        self._location, self._specimen, self._ends = location, specimen, threading.Event()
        self._seen: set[Key] = set()
        self.failure: BaseException | None = None
        self.opened = self.n_read = self.refused = 0
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def has_seen(self, keys: set[Key]) -> bool:
        """Whether it has read all of these in the file that is there."""
        return keys <= self._seen

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._ends.wait(FOLLOW_S):
                try:
                    slide = open_slide(self._location)
                except NotASlideError:  # none yet, or none just now
                    continue
                except SlideError as error:
                    if not any(words in str(error) for words in NOT_NOW):
                        raise
                    self.refused += 1
                    continue
                with slide:
                    self.opened += 1
                    self._seen = set()
                    self._look(slide, [(*found, 0, 0) for found in np.argwhere(slide.acquired()).tolist()])
                    while not self._ends.wait(FOLLOW_S) and not slide.replaced:
                        self._look(slide, slide.refresh().tolist())
        except BaseException as error:
            self.failure = error

    def _look(self, slide: Slide, planes: list) -> None:
        for number, channel, z, t in planes:
            key = (self._specimen.place(slide.fields[number]), channel)
            truth = self._specimen.plane(key)
            layer = key[0] % len(slide.levels)
            np.testing.assert_array_equal(slide.read_plane(number, channel, z, t), truth, f"the plane {key}")
            coarse = slide.read_plane(number, channel, z, t, layer)
            np.testing.assert_array_equal(coarse, area_mean(truth, slide.levels[layer]), f"the plane {key} at layer {layer}")
            self._seen.add(key)
            self.n_read += 1


def places_in(slide: Slide) -> dict[Key, tuple[int, int]]:
    """(place, channel) → (field, channel) of all planes of a slide."""
    return {
        (Specimen.place(slide.fields[number]), channel): (number, channel)
        for number, channel in np.argwhere(slide.acquired()).tolist()
    }


def damaged(folder: Path, damage: str, chosen: random.Random, known: Callable[[object], bool]) -> bool:
    """Do to the end of a spool that nobody writes what a crash may; whether anything was done. `known`: who was acknowledged."""
    last = segments(folder)[-1]
    path = segment_path(folder, last)
    if damage == GARBAGE:
        with path.open("ab") as file:
            file.write(chosen.randbytes(chosen.randrange(1, 5000)))
        return True
    planes = [found for found in planes_in(folder) if not isinstance(found, DamagedSlideError)]
    if damage == HALF:
        if not planes:
            return False
        with SpoolWriter(folder, 1 << 30) as spool:  # a plane once more, as when it was sent twice
            facts = planes[0][0]
            position = spool.append(facts, [bytes(2 * facts.shape[0] * facts.shape[1])])
        os.truncate(segment_path(folder, position.segment), position.offset + chosen.randrange(1, position.nbytes - 8))
        return True
    tail = [(facts, position) for facts, position in planes if position.segment == last]
    safe = read_mark(folder).end_in(last) or 0  # was synced before the scanner could be told
    end = max((position.offset + position.nbytes for facts, position in tail if known(facts)), default=0)
    end = max(end, safe)
    size = path.stat().st_size
    if end >= size:
        return False
    os.truncate(path, chosen.randrange(end, size))
    return True


def until_true(what: Callable[[], object], timeout_s: float = LONG_S) -> None:
    """Wait until something is so."""
    ends = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(LOOK_S)


def _free_port() -> int:
    with ExitStack() as stack:
        while True:
            port = random.SystemRandom().choice(PORTS)
            own = stack.enter_context(socket.socket())
            try:
                own.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
