"""A prepared VoiceBank-DEMAND: pairs that match, and a file that says what they are made of."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import soundfile

from data.audio import SAMPLE_RATE
from data.conversion import RESAMPLER, Converted, sizes_in
from data.corpus import PAIR_TOLERANCE
from data.datashare import Archive, Record
from data.entry import path_of
from data.files import DAMAGE, write_text
from data.noise_log import FOLDER as LOGS

PREPARED = "prepared.json"


def is_finished(root: Path, archives: Sequence[Archive]) -> bool:
    """Whether a folder holds all that was prepared there, as far as number and sizes tell."""
    try:
        facts = json.loads((root / PREPARED).read_text("utf-8"))
        for archive in archives:
            if archive.recordings:
                sizes, made = sizes_in(root / archive.stem), facts["folders"][archive.stem]
                if (len(sizes), sum(sizes.values())) != (made["files"], made["bytes"]):
                    return False
            elif archive.name not in facts["archives"] or not any((root / LOGS).glob("*.txt")):
                return False
        return all(path_of(root, split).is_file() for split in facts["entries"])
    except DAMAGE:
        return False


def write_prepared(
    root: Path,
    records: Mapping[str, Record],
    made: Mapping[str, Mapping[str, Converted]],
    entries: Mapping[str, int],
) -> None:
    """Write down that a folder is prepared, and all that its content depends on.

    Args:
        root: the folder.
        records: of the archives, by name.
        made: the files of each folder, by name.
        entries: the number of the manifest's entries, by split.

    Raises:
        OSError: it cannot be written.
    """
    facts = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "rate": SAMPLE_RATE,
        "resampler": RESAMPLER,
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "soundfile": soundfile.__version__,
            "libsndfile": soundfile.__libsndfile_version__,
        },
        "archives": {name: asdict(record) for name, record in records.items()},
        "folders": {folder: _summed(files.values()) for folder, files in made.items()},
        "entries": dict(entries),
    }
    write_text(root / PREPARED, json.dumps(facts, indent=2) + "\n")


def _summed(files: Iterable[Converted]) -> dict[str, object]:
    every = list(files)
    return {
        "files": len(every),
        "bytes": sum(each.size for each in every),
        "samples": sum(each.frames for each in every),
        "clipped": sum(each.clipped for each in every),
        "source_rates": Counter(str(each.rate) for each in every),
    }


def unmatched(
    sides: Mapping[str, Mapping[str, Converted]], unusable: Collection[str]
) -> dict[str, str]:
    """Recordings that have no partner, or one of another length: why, by folder/name.

    Args:
        sides: the files of the clean and of the noisy folder by name, by folder, in this order.
        unusable: names that one of the folders lacks for a reason that is known.
    """
    bad = {}
    (clean, first), (noisy, second) = sides.items()
    for one, there, other, theirs in ((clean, first, noisy, second), (noisy, second, clean, first)):
        alike = {name.casefold(): name for name in theirs}
        for name in there.keys() - theirs.keys() - set(unusable):
            near = alike.get(name.casefold())
            hint = f" (but {near}, which differs in case)" if near else ""
            bad[f"{one}/{name}"] = f"no such file in {other}{hint}"
    for name in first.keys() & second.keys():
        lengths = second[name].frames / SAMPLE_RATE, first[name].frames / SAMPLE_RATE
        if abs(second[name].frames - first[name].frames) > PAIR_TOLERANCE:
            bad[f"{noisy}/{name}"] = "lasts {:.2f} s, its clean file {:.2f} s".format(*lengths)
    return bad
