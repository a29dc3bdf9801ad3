"""Messages made wrong: flipped bytes, lost and surplus frames, wrong types, huge numbers, deep nesting. The same for a seed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence

DEEP = "[" * 3000 + "]" * 3000
NASTY = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**53,
    2**63,
    10**300,
    0.5,
    1e308,
    "",
    "x",
    "a",
    "stage",
    "\ud800",
    "\x00",
    "/etc/passwd",
    "x" * 5000,
    [],
    {},
    [[]],
    [None],
    {"buffer": 0, "shape": [1]},
    {"buffer": 10**9, "shape": [2**40, 2**40]},
    [0] * 500,
    {str(number): number for number in range(200)},
)
RAW_TOKENS = (
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e999",
    b"9" * 5000,
    DEEP.encode(),
    b'{"":' * 2000,
    b"\xff\xfe",
    b'"\\ud800"',
    b"",
)


class Mutator:
    """Wrong versions of right messages, from a seed."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def mutated(self, frames: Sequence[bytes]) -> list[bytes]:
        """A message that differs in one to three ways."""
        frames = [bytes(frame) for frame in frames]
        for _ in range(self.random.choice((1, 1, 1, 2, 3))):
            change = self.random.choice(
                (self._value, self._value, self._token, self._bytes, self._bytes, self._length, self._frames)
            )
            frames = change(frames) or [b""]
        return frames

    def value(self, value: object) -> object:
        """A JSON value with something in it, at any depth, replaced, dropped or added."""
        value = copy.deepcopy(value)
        if not isinstance(value, dict | list) or not value or self.random.random() < 0.1:
            return self.random.choice(NASTY)
        inner, key = value, None
        while True:
            key = self.random.choice(list(inner)) if isinstance(inner, dict) else self.random.randrange(len(inner))
            if isinstance(inner[key], dict | list) and inner[key] and self.random.random() < 0.7:
                inner = inner[key]
            else:
                break
        kind = self.random.random()
        if kind < 0.15:
            del inner[key]
        elif kind < 0.25 and isinstance(inner, list):
            inner.append(self.random.choice(NASTY))
        elif kind < 0.45 and isinstance(inner[key], int | float) and not isinstance(inner[key], bool):
            inner[key] = self.random.choice((inner[key] + 1, inner[key] - 1, -inner[key], inner[key] * 1000, float(inner[key])))
        else:
            inner[key] = self.random.choice(NASTY)
        return value

    def bytes(self, data: bytes) -> bytes:
        """Bytes with a few of them changed."""
        data = bytearray(data or b"\x00")
        for _ in range(self.random.choice((1, 1, 2, 8))):
            data[self.random.randrange(len(data))] = self.random.randrange(256)
        return bytes(data)

    def length(self, data: bytes) -> bytes:
        """Bytes cut off, repeated, or with some more."""
        at = self.random.randrange(len(data) + 1)
        return self.random.choice((data[:at], data[at:], data + data, data + self.random.randbytes(at % 64), data[:at] + data))

    def _value(self, frames: list[bytes]) -> list[bytes]:
        try:
            header = self.value(json.loads(frames[0]))
            return [json.dumps(header).encode(), *frames[1:]]
        except (ValueError, RecursionError, IndexError):
            return self._bytes(frames)

    def _token(self, frames: list[bytes]) -> list[bytes]:
        """Something that is hardly JSON in place of a value."""
        header = frames[0]
        at = header.find(b":", self.random.randrange(len(header) + 1)) + 1
        end = min((end for end in (header.find(b",", at), header.find(b"}", at)) if end >= 0), default=len(header))
        return [header[:at] + self.random.choice(RAW_TOKENS) + header[end:], *frames[1:]]

    def _bytes(self, frames: list[bytes]) -> list[bytes]:
        at = self.random.randrange(len(frames))
        return [*frames[:at], self.bytes(frames[at]), *frames[at + 1 :]]

    def _length(self, frames: list[bytes]) -> list[bytes]:
        at = self.random.randrange(len(frames))
        return [*frames[:at], self.length(frames[at]), *frames[at + 1 :]]

    def _frames(self, frames: list[bytes]) -> list[bytes]:
        at = self.random.randrange(len(frames))
        return self.random.choice(
            (
                frames[:at],
                frames[at:],
                [*frames, b""],
                [*frames, *[self.random.randbytes(20)] * self.random.choice((1, 2, 7, 300))],
                [*frames[:at], frames[at], *frames[at:]],
                frames[::-1],
            )
        )
