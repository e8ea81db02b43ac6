"""Looking many audio files over, remembered between runs. Free of torch."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from data.audio import AudioError, Info, inspect
from data.files import DAMAGE, replacing, stamp_of
from data.workers import usable_cores

log = logging.getLogger("data")

# Looking a file over means decoding all of it; what is known of good files is kept here.
INDEX = Path(__file__).resolve().parents[1] / ".cache" / "audio-index.json"
# Counted up when `inspect` comes to other results.
_VERSION = 2


def look_over(paths: Sequence[Path]) -> dict[Path, Info | str]:
    """`inspect` for many files: what each is, or why it is unusable.

    A file is decoded again if its size or its time of change is another one, or if it was
    unusable: what was wrong may lie outside it, as its permissions do.
    """
    index = _read()
    # Taken before the file is read, so that a change in between is noticed the next time.
    stamps = {path: _stamp(path) for path in paths}
    result: dict[Path, Info | str] = {
        path: index[stamp] for path, stamp in stamps.items() if stamp in index
    }
    new = [path for path in stamps if path not in result]
    with ThreadPoolExecutor(usable_cores()) as pool:
        looking = pool.map(_inspect_or_reason, new)
        progress = tqdm(
            looking, total=len(new), desc="checking audio", leave=False, disable=not new
        )
        result |= dict(zip(new, progress, strict=True))
    found = {stamps[path]: info for path in new if isinstance(info := result[path], Info)}
    if found:
        _write(index | found)
    return result


def _inspect_or_reason(path: Path) -> Info | str:
    try:
        return inspect(path)
    except AudioError as error:
        return str(error)
    except MemoryError:
        return "needs more memory than there is; cut it into pieces"


def _stamp(path: Path) -> str:
    stamp = stamp_of(path)
    return "|".join([os.path.abspath(path), *map(str, stamp)]) if stamp else ""


def _read() -> dict[str, Info]:
    """The index; nothing where it is missing, damaged, or of another version."""
    try:
        index = json.loads(INDEX.read_text(encoding="utf-8"))
        if index["version"] != _VERSION:
            return {}
        return {stamp: Info(**info) for stamp, info in index["files"].items()}
    except DAMAGE:
        return {}


def _write(files: dict[str, Info]) -> None:
    """Keep the index, without files that are gone.

    Of several processes that do so at once, the last one's stays, whole.
    """
    there = {s: asdict(info) for s, info in files.items() if os.path.exists(s.split("|")[0])}
    try:
        INDEX.parent.mkdir(exist_ok=True)
        with replacing(INDEX) as temporary:
            temporary.write_text(json.dumps({"version": _VERSION, "files": there}), "utf-8")
    except OSError as error:
        log.info("the list of checked files is not kept (%s)", error)
