"""Which recordings of a corpus go into which part of a bundle. Free of torch.

What is dealt is speech and noise for `--mix`; a part that arrives alone must do for a training.
Nothing is drawn by chance: files come in the order of a hash of their names.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import heapify, heapreplace
from pathlib import Path, PurePosixPath

from data.errors import DataError

_BLOCK, _RECORD = tarfile.BLOCKSIZE, tarfile.RECORDSIZE
_END = 2 * _BLOCK  # of zeros, after the last member
_VOICES = 2  # speakers, and noise files: one to train on, one to validate with
_LONGEST = 1 / 3  # of what is wanted of a kind in all: several files rather than a long one
_SMALLER = 0.95  # than the last try, where that was too large
_LEAST = 1e-4
_TOO_SMALL = (
    "parts of {:,} bytes are too small for this corpus: two speakers and two noises have to fit "
    "into each (--mib)"
)


@dataclass(frozen=True)
class Item:
    """A file to be carried.

    Attributes:
        name: in the archive, "clean/..." or "noise/...".
        path: where it is.
        size: bytes.
        seconds: of sound; 0 of what is no recording.
        kind: of speech, the speaker; of noise, its folder: of each, some are wanted.
    """

    name: str
    path: Path
    size: int
    seconds: float = 0.0
    kind: str = ""

    def header(self) -> tarfile.TarInfo:
        """Its member, with nothing in it of when, where and by whom it was made."""
        info = tarfile.TarInfo(self.name)
        info.size, info.mode = self.size, 0o644
        return info

    @cached_property
    def weight(self) -> int:
        """Bytes that it takes in an archive, with its header and what fills the last block."""
        header = self.header().tobuf(tarfile.PAX_FORMAT, "utf-8")
        return len(header) + -(-self.size // _BLOCK) * _BLOCK


def archive_size(items: Iterable[Item]) -> int:
    """Bytes of an archive of these."""
    size = sum(item.weight for item in items) + _END
    return -(-size // _RECORD) * _RECORD


def deal(
    clean: Sequence[Item], noise: Sequence[Item], common: Sequence[Item], limit: int
) -> list[list[Item]]:
    """As few parts of at most `limit` bytes as hold everything, about equally large, sorted.

    `common` is in every part. Where there is too little of something for all of them, as of long
    noises, it is in several: unpacked together, that makes no difference.

    Raises:
        DataError: a file is larger than a part, or parts of that size cannot be made.
    """
    room = limit - archive_size(common)
    for item in (*clean, *noise):
        if (needed := archive_size([*common, item])) > limit:
            raise DataError(
                f"{item.path}: {item.size:,} bytes, more than fits into a part of {limit:,}. Cut "
                f"it into pieces, or take larger parts: --mib {-(-needed // 2**20)} at least"
            )
    count = max(1, -(-sum(item.weight for item in (*clean, *noise)) // max(room + _RECORD, 1)))
    while count <= len(clean) + len(noise):
        parts = [[*common, *part] for part in _dealt(clean, noise, count)]
        if all(archive_size(part) <= limit for part in parts):
            return [sorted(part, key=lambda item: item.name) for part in parts]
        count += 1 + count // 20
    raise DataError(_TOO_SMALL.format(limit))


def _dealt(clean: Sequence[Item], noise: Sequence[Item], count: int) -> list[list[Item]]:
    parts: list[list[Item]] = [[] for _ in range(count)]
    loads = [(0, i) for i in range(count)]
    for items in (noise, clean):  # the few and long ones first, so that the others even that out
        dealt: list[list[Item]] = [[] for _ in range(count)]
        heapify(loads)
        for item in sorted(items, key=_draw):
            load, i = loads[0]
            heapreplace(loads, (load + item.weight, i))
            dealt[i].append(item)
        for part, own in zip(parts, dealt, strict=True):
            part += _topped_up(own, items)
    return parts


def quick(
    clean: Sequence[Item],
    noise: Sequence[Item],
    common: Sequence[Item],
    limit: int,
    seconds: float,
) -> list[Item]:
    """About so many seconds of all, sorted: speech and noise in the proportion that they have.

    Of as many speakers as can be, and of all folders of noise alike. Less sound where it would
    take more than `limit` bytes.

    Raises:
        DataError: not even a little of everything fits.
    """
    share = min(1.0, seconds / sum(item.seconds for item in (*clean, *noise)))
    in_turn = [_in_turn(clean), _in_turn(noise)]
    while share > _LEAST:
        chosen = list(common)
        for items in in_turn:
            chosen += _topped_up(_first(items, share), items)
        if archive_size(chosen) <= limit:
            return sorted(chosen, key=lambda item: item.name)
        share *= _SMALLER
    raise DataError(_TOO_SMALL.format(limit))


def _draw(item: Item) -> bytes:
    return hashlib.sha256(item.name.encode("utf-8", "surrogateescape")).digest()


def _in_turn(items: Sequence[Item]) -> list[Item]:
    """One of each kind, then another of each.

    First the shortest of each, in the order of their lengths, so that there is time for many.
    """
    kinds: dict[str, list[Item]] = {}
    for item in sorted(items, key=_draw):
        kinds.setdefault(item.kind, []).append(item)
    shortest = [min(each, key=lambda item: item.seconds) for each in kinds.values()]
    others = [
        (turn, _draw(item), item)
        for each, first in zip(kinds.values(), shortest, strict=True)
        for turn, item in enumerate(item for item in each if item is not first)
    ]
    return [
        *sorted(shortest, key=lambda item: (item.seconds, item.name)),
        *(item for *_, item in sorted(others, key=lambda each: each[:2])),
    ]


def _first(items: Sequence[Item], share: float) -> list[Item]:
    """Of these in their order, as many as last `share` of all."""
    wanted = share * sum(item.seconds for item in items)
    left = wanted * (1 + 1e-9)  # for rounding, where all are wanted
    chosen: dict[str, Item] = {}
    for longest in (_LONGEST * wanted, left):
        for item in items:
            if item.name not in chosen and item.seconds <= min(left, longest):
                chosen[item.name] = item
                left -= item.seconds
    return list(chosen.values())


def _topped_up(chosen: Sequence[Item], items: Sequence[Item]) -> list[Item]:
    """These, and the smallest of all where they are too few to train on and to validate with."""
    result = list(chosen)
    key = _voice(items)
    for item in sorted(items, key=lambda item: (item.weight, item.name)):
        voices = set(map(key, result))
        if len(voices) >= _VOICES:
            break
        if key(item) not in voices:
            result.append(item)
    return result


def _voice(items: Sequence[Item]) -> Callable[[Item], str]:
    """By what training holds some out: speakers, or files of noise."""
    noisy = PurePosixPath(items[0].name).parts[0] == "noise"
    return (lambda item: item.name) if noisy else (lambda item: item.kind)
