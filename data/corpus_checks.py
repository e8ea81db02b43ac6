"""What is checked of a corpus of pairs as a whole, and the scores of its noisy files.

Free of torch.
"""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from data.audio import SAMPLE_RATE
from data.benchmark import (
    HELD_OUT,
    NOISY_PESQ,
    NOISY_STOI,
    PESQ_TOLERANCE,
    STOI_TOLERANCE,
    TEST_PAIRS,
)
from data.entry import SPLITS, Entry, path_of, read_entries
from data.findings import AGAIN, OK, PART, WRONG, Finding, Split, finding
from data.pair_table import is_table
from data.speakers import is_test_speaker

Entries = Mapping[str, Sequence[Entry]]  # of the manifests, by split


def check_corpus(root: Path, splits: Mapping[str, Split]) -> list[Finding]:
    """All that concerns several splits."""
    there = (split for split in SPLITS if os.path.lexists(path_of(root, split)))
    entries = {split: read_entries(path_of(root, split)) for split in there}
    return [
        _duplicates(splits),
        _speakers(entries, splits),
        _manifests(root, entries, splits),
    ]


def check_scores(test: Split, scores: Sequence[Mapping[str, float | str]]) -> Finding:
    """The last word: the mean scores of the noisy files, as `noisy_scores` gives them."""
    failed = []
    for key, found in zip(test.looked, scores, strict=True):
        reasons = {str(value) for value in found.values() if isinstance(value, str)}
        failed += [f"{test.paths(key)[1]}: {reason}" for reason in sorted(reasons)]
    if failed:
        text = f"{len(failed)} scores do not exist"
        return Finding("test", "noisy scores", WRONG, text, tuple(failed), AGAIN)
    pesq, stoi = (statistics.fmean(found[x] for found in scores) for x in ("pesq_wb", "stoi"))  # type: ignore[misc]
    told = f"PESQ {pesq:.3f}, STOI {stoi:.3f}"
    known = f"{NOISY_PESQ:.2f} and {NOISY_STOI:.2f}"
    if len(scores) != TEST_PAIRS:
        text = f"{told} over {len(scores)} files; only the mean of all 824 is known: {known}"
        return Finding("test", "noisy scores", PART, text)
    text = f"{told}; expected {known}"
    if abs(pesq - NOISY_PESQ) <= PESQ_TOLERANCE and abs(stoi - NOISY_STOI) <= STOI_TOLERANCE:
        return Finding("test", "noisy scores", OK, text)
    remedy = (
        "these are other recordings than everybody tests on, or were resampled badly: prepare the "
        "corpus anew from the published archives, python -m data.voicebank"
    )
    return Finding("test", "noisy scores", WRONG, text, (), remedy)


def _duplicates(splits: Mapping[str, Split]) -> Finding:
    same: defaultdict[str, set[str]] = defaultdict(set)
    for split in splits.values():
        for key, looked in split.looked.items():
            for path, side in zip(split.paths(key), (looked.clean, looked.noisy), strict=True):
                if side.digest:
                    same[side.digest].add(str(path))
    groups = [" = ".join(sorted(paths)) for paths in same.values() if len(paths) > 1]
    text = f"{len(groups)} recordings are there more than once"
    remedy = "keep one of each; a noisy file that is its clean one is to be taken from the corpus"
    return finding("all", "duplicates", groups, text, remedy, "none")


def _speakers(entries: Entries, splits: Mapping[str, Split]) -> Finding:
    by_split = {name: set(split.listing.speakers.values()) for name, split in splits.items()}
    # Who is held out for validation, a manifest says.
    by_split |= {name: {e.speaker for e in found} for name, found in entries.items()}
    trained = by_split.get("train", set()) | by_split.get("valid", set())
    wrong = sorted(filter(is_test_speaker, trained))
    for one, other in combinations(SPLITS, 2):
        both = by_split.get(one, set()) & by_split.get(other, set())
        wrong += [f"{who} in {one} and {other}" for who in sorted(both)]
    told = ", ".join(f"{len(who)} in {name}" for name, who in by_split.items())
    if "valid" not in by_split and set(HELD_OUT) <= trained:
        told += f"; {' and '.join(HELD_OUT)} can be held out"
    text = f"{len(wrong)} speakers are where they should not be"
    remedy = "move or remove their files: what is tested on must not be trained on"
    return finding("all", "speakers", wrong, text, remedy, told)


def _manifests(root: Path, entries: Entries, splits: Mapping[str, Split]) -> Finding:
    """Whether manifests say what is there, of all of it."""
    if is_table(root):
        return Finding("all", "manifests", OK, "none, as a table says what there is")
    remedy = f"put back what was there, or take in what is: python -m data.manifest {root}"
    if not entries:
        text = f"none; python -m data.manifest {root} makes them"
        return Finding("all", "manifests", PART, text)
    sides = {os.path.normpath(x): side for split in splits.values() for x, side in split.sides()}
    wrong, known = [], defaultdict(list)
    for split, found in entries.items():
        for entry in found:
            files = {role: os.path.normpath(root / file) for role, file in entry.files.items()}
            lengths = []
            for role, file in files.items():
                known[file].append(f"{role} in {split}")
                side = sides.get(file)
                if side is None:
                    wrong.append(f"{file}: is in the manifest of {split}, and not there in a pair")
                elif not side.fault:
                    lengths.append(side.frames)
                    if side.sha256 != entry.sha256[role]:
                        wrong.append(f"{file}: has another checksum")
            if lengths and min(lengths) != round(entry.seconds * SAMPLE_RATE):
                wrong.append(f"{entry.name}: is not {entry.seconds:g} s long")
    wrong += [f"{file}: {', '.join(uses)}" for file, uses in known.items() if len(set(uses)) > 1]
    wrong += [f"{file}: is in no manifest" for file in sides if file not in known]
    text = f"{len(wrong)} times the manifests say something else"
    return finding("all", "manifests", wrong, text, remedy, "all is there, every checksum is right")
