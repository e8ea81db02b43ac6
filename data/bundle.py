"""Carries a corpus for `--mix` to another machine, in pieces of a limited size, as it is.

    python -m data.bundle CLEAN NOISE --out DIR [--mib 55] [--quick-minutes 30]
    python -m data.bundle --unpack PART... --into DIR

The first form writes DIR/part-1.tar and so on, which hold all recordings of both folders,
DIR/quick.tar with some minutes of them, and DIR/SHA256SUMS. Any of the archives alone is enough for
a training (`data.shares`), and the same corpus gives the same bytes. The second form, on the other
side, verifies archives, unpacks them and packs what is there for training (`data.unbundle`).
Free of torch.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from data.audio import EXTENSIONS, SAMPLE_RATE
from data.console import carry_out, say, show
from data.corpus import load_recordings
from data.errors import DataError, FailedError
from data.files import is_within, remove_partials, replacing, sha256_of
from data.listing import half_of_pairs
from data.packed import FOLDER as PACKED
from data.shares import Item, archive_size, deal, quick
from data.unbundle import CLEAN, NOISE, SUMS, unpack
from data.workers import stop_by_signals

_PART = re.compile(r"part-\d+\.tar")
_QUICK = "quick.tar"
# Made anew where a part is unpacked: what is written of the whole would be wrong of it.
_MADE = (PACKED, "manifests")
_SPEAKERS = "speakers.csv"
_SMALL = 1 << 20  # bytes of a file beside the recordings that is carried along
_BESIDE = 10  # one such part of an archive is for all of them


def bundle(
    clean: Path, noise: Path, out: Path, mib: float = 55.0, quick_minutes: float = 30.0
) -> dict[str, list[Item]]:
    """Write a corpus as archives of at most so many MiB; returns what is in each of them.

    Until all are written, those of an earlier time stay as they were.

    Raises:
        DataError: the folders cannot be used, or hold a file larger than a part.
        FailedError: something cannot be read or written.
    """
    _check_places(clean, noise, out)
    limit = int(mib * (1 << 20))
    speech, noises = list(_recordings(clean, CLEAN)), list(_recordings(noise, NOISE))
    common = _beside(clean, noise, limit)
    named = {
        f"part-{number}.tar": part
        for number, part in enumerate(deal(speech, noises, common, limit), 1)
    }
    named[_QUICK] = quick(speech, noises, common, limit, 60 * quick_minutes)
    try:
        _write_all(out, named)
    except OSError as error:
        reason = error.strerror or error
        raise FailedError(f"{error.filename or out}: {reason}. Nothing was replaced") from None
    return named


def _sides(clean: Path, noise: Path) -> tuple[tuple[Path, str], tuple[Path, str]]:
    return (clean, CLEAN), (noise, NOISE)


def _check_places(clean: Path, noise: Path, out: Path) -> None:
    """Refuse folders that would become part of one another, or that `data.pack` will not take."""
    if is_within(clean, noise) or is_within(noise, clean):
        raise DataError(f"{clean} and {noise}: one is in the other; move it out of there")
    for folder in (clean, noise):
        if is_within(out, folder):
            raise DataError(f"{out} is in {folder}, which is to be carried; choose another --out")
        if half := half_of_pairs(folder):
            raise DataError(
                f"{half}: in a folder of single recordings, one of that name stands for one side "
                "of pairs; call it otherwise"
            )


def _recordings(folder: Path, side: str) -> Iterator[Item]:
    for each in load_recordings(folder, None, speech=side == CLEAN):
        name = each.path.relative_to(folder).as_posix()
        kind = each.speaker if side == CLEAN else PurePosixPath(name).parent.as_posix()
        seconds = each.info.frames / SAMPLE_RATE
        yield Item(f"{side}/{name}", each.path, _size_of(each.path), seconds, kind)


def _beside(clean: Path, noise: Path, limit: int) -> list[Item]:
    """What else describes a corpus, as licences do: the uppermost first, while it is little.

    Without `speakers.csv` speakers would be others, so it is always there.
    """
    found = []
    for folder, side in _sides(clean, noise):
        for path in folder.rglob("*"):
            inner = path.relative_to(folder)
            hidden = any(part.startswith(".") for part in inner.parts)
            audio = path.suffix.lower() in EXTENSIONS
            if hidden or audio or inner.parts[0] in _MADE or not path.is_file():
                continue
            found.append(Item(f"{side}/{inner.as_posix()}", path, _size_of(path)))
    table = f"{CLEAN}/{_SPEAKERS}"
    found.sort(key=lambda item: (item.name != table, item.name.count("/"), item.name))
    kept: list[Item] = []
    for item in found:
        little = item.size <= _SMALL and archive_size([*kept, item]) <= limit // _BESIDE
        if little or item.name == table:
            kept.append(item)
    if left := len(found) - len(kept):
        say(f"bundle: {left:,} files that are no recordings are left out: too large, or too many")
    return kept


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise FailedError(f"{path} cannot be read ({error.strerror})") from None


def _write_all(out: Path, named: dict[str, list[Item]]) -> None:
    """Write all archives under temporary names, and rename them when the last is there."""
    out.mkdir(parents=True, exist_ok=True)
    remove_partials(out, older_than=3600)
    needed = sum(map(archive_size, named.values()))
    free = shutil.disk_usage(out).free
    if needed > free:
        raise FailedError(
            f"{out}: the archives take {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free. "
            "Make room and run again"
        )
    bar = tqdm(total=needed, desc="bundling", unit="B", unit_scale=True, disable=None)
    with bar, ExitStack() as stack:
        # Entered first and so renamed last: what was cut off does not agree with its sums.
        sums = stack.enter_context(replacing(out / SUMS))
        lines = []
        for name, items in named.items():
            temporary = stack.enter_context(replacing(out / name))
            _write(temporary, items)
            lines.append(f"{sha256_of(temporary)}  {name}\n")
            bar.update(archive_size(items))
        sums.write_text("".join(lines), "utf-8", newline="\n")
    for path in out.iterdir():
        if _PART.fullmatch(path.name) and path.name not in named:
            path.unlink()


def _write(path: Path, items: Sequence[Item]) -> None:
    # The encoding is otherwise the system's.
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive:
        for item in items:
            with item.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size != item.size:
                    raise FailedError(f"{item.path} has changed meanwhile; run again")
                archive.addfile(item.header(), file)


def _summary(out: Path, named: dict[str, list[Item]]) -> str:
    lines = []
    for name, items in named.items():
        sound = {
            side: [item for item in items if item.seconds and item.name.startswith(f"{side}/")]
            for side in (CLEAN, NOISE)
        }
        minutes = {side: sum(item.seconds for item in each) / 60 for side, each in sound.items()}
        speakers = len({item.kind for item in sound[CLEAN]})
        lines.append(
            f"{out / name}: {archive_size(items) / 2**20:,.1f} MiB, {minutes[CLEAN]:,.1f} minutes "
            f"of speech ({len(sound[CLEAN]):,} files, {speakers:,} speakers), "
            f"{minutes[NOISE]:,.1f} of noise ({len(sound[NOISE]):,} files)\n"
        )
    return "".join(lines)


def _positive(text: str) -> float:
    number = float(text)
    if not (number > 0 and math.isfinite(number)):
        raise ValueError
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0; 1 or 2 after a message; 130, interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m data.bundle",
        usage="%(prog)s CLEAN NOISE --out DIR [--mib N] [--quick-minutes N]\n"
        "       %(prog)s --unpack PART... --into DIR",
        description="Carry a corpus of speech and noise to another machine, in pieces.",
        allow_abbrev=False,
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="CLEAN NOISE")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where archives are written")
    parser.add_argument(
        "--mib", type=_positive, default=55.0, metavar="N", help="of an archive at most (55)"
    )
    parser.add_argument(
        "--quick-minutes",
        type=_positive,
        default=30.0,
        metavar="N",
        help=f"of sound, about, in {_QUICK} (30)",
    )
    parser.add_argument("--unpack", nargs="+", type=Path, metavar="PART", help="archives")
    parser.add_argument("--into", type=Path, metavar="DIR", help="where they are unpacked")
    options = parser.parse_args(arguments)
    if options.unpack is None:
        if len(options.folders) != 2 or options.out is None or options.into is not None:
            parser.error("name a folder of speech, one of noise, and --out DIR")
    elif options.folders or options.into is None or options.out is not None:
        parser.error("--unpack PART... goes with --into DIR, and with nothing else")

    def work() -> int:
        if options.unpack is not None:
            for line in unpack(options.unpack, options.into):
                show(f"{line}\n")
            return 0
        (clean, noise), out = options.folders, options.out
        named = bundle(clean, noise, out, options.mib, options.quick_minutes)
        show(_summary(out, named))
        return 0

    return carry_out("bundle", work)


if __name__ == "__main__":
    stop_by_signals()
    raise SystemExit(main())
