"""What is checked of a corpus of pairs as a whole, and the scores of its noisy files.

Free of torch.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
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
from data.entry import path_of, read_entries
from data.findings import AGAIN, OK, PART, WRONG, Finding, Split, finding
from data.speakers import is_test_speaker


def check_corpus(root: Path, splits: Mapping[str, Split]) -> list[Finding]:
    """All that concerns several splits."""
    return [_duplicates(splits), _speakers(splits), _manifests(root, splits)]


def check_scores(test: Split, scores: Sequence[tuple[float, float]]) -> Finding:
    """The last word: the mean scores of the noisy files."""
    paired = list(zip(test.looked, scores, strict=True))
    valid = [pair for _, pair in paired if not any(map(math.isnan, pair))]
    failed = [str(test.paths(key)[1]) for key, pair in paired if any(map(math.isnan, pair))]
    if failed:
        text = f"{len(failed)} files cannot be scored"
        return Finding("test", "noisy scores", WRONG, text, tuple(failed), AGAIN)
    pesq, stoi = (sum(column) / len(valid) for column in zip(*valid, strict=True))
    found = f"PESQ {pesq:.3f}, STOI {stoi:.3f}"
    known = f"{NOISY_PESQ:.2f} and {NOISY_STOI:.2f}"
    if len(test.looked) != TEST_PAIRS:
        text = (
            f"{found} over {len(valid)} files; only the mean of all {TEST_PAIRS} is known: {known}"
        )
        return Finding("test", "noisy scores", PART, text)
    wanted = f"expected {known}"
    right = abs(pesq - NOISY_PESQ) <= PESQ_TOLERANCE and abs(stoi - NOISY_STOI) <= STOI_TOLERANCE
    if right:
        return Finding("test", "noisy scores", OK, f"{found}; {wanted}")
    return Finding(
        "test",
        "noisy scores",
        WRONG,
        f"{found}; {wanted}",
        (),
        "these are other recordings than everybody tests on, or were resampled badly: prepare the "
        "corpus anew from the published archives, python -m data.voicebank",
    )


def _duplicates(splits: Mapping[str, Split]) -> Finding:
    same: defaultdict[str, set[str]] = defaultdict(set)
    for split in splits.values():
        for key, looked in split.looked.items():
            for path, side in zip(split.paths(key), (looked.clean, looked.noisy), strict=True):
                if side.digest:
                    same[side.digest].add(str(path))
    groups = [" = ".join(sorted(paths)) for paths in same.values() if len(paths) > 1]
    by_file: defaultdict[str, set[str]] = defaultdict(set)
    for split in splits.values():
        for key in split.looked:
            for role, path in zip(("clean", "noisy"), split.paths(key), strict=True):
                by_file[str(path.resolve())].add(f"{role} in {split.name}")
    twice = {path: uses for path, uses in by_file.items() if len(uses) > 1}
    groups += [f"{path}: {', '.join(sorted(uses))}" for path, uses in twice.items()]
    text = f"{len(groups)} recordings are there more than once"
    remedy = "keep one of each; a noisy file that is its clean one is to be taken from the corpus"
    return finding("all", "duplicates", groups, text, remedy, "none")


def _speakers(splits: Mapping[str, Split]) -> Finding:
    by_split = {name: set(split.listing.speakers.values()) for name, split in splits.items()}
    trained = by_split.get("train", set()) | by_split.get("valid", set())
    wrong = sorted(filter(is_test_speaker, trained))
    wrong += [f"{who} in train and test" for who in sorted(trained & by_split.get("test", set()))]
    both = by_split.get("train", set()) & by_split.get("valid", set())
    wrong += [f"{who} in train and valid" for who in sorted(both)]
    told = ", ".join(f"{len(who)} in {name}" for name, who in by_split.items())
    if trained and set(HELD_OUT) <= trained:
        told += f"; {' and '.join(HELD_OUT)} can be held out"
    text = f"{len(wrong)} speakers are where they should not be"
    remedy = "move or remove their files: what is tested on must not be trained on"
    return finding("all", "speakers", wrong, text, remedy, told)


def _manifests(root: Path, splits: Mapping[str, Split]) -> Finding:
    changed, there = [], 0
    for name, split in splits.items():
        if not os.path.isfile(path_of(root, name)):
            continue
        there += 1
        found = {str(path): side for path, side in split.sides() if not side.fault}
        for entry in read_entries(path_of(root, name)):
            sides = {role: found.get(str(root / file)) for role, file in entry.files.items()}
            for role, side in sides.items():
                if side and side.sha256 != entry.sha256[role]:
                    changed.append(str(root / entry.files[role]))
            lengths = [side.frames for side in sides.values() if side]
            if lengths and min(lengths) != round(entry.seconds * SAMPLE_RATE):
                changed.append(f"{entry.name}: is not {entry.seconds:g} s long")
    if not there:
        text = f"none; python -m data.manifest {root} makes them"
        return Finding("all", "manifests", PART, text)
    text = f"{len(changed)} times the manifests say something else"
    remedy = f"put the old ones back, or take them in as they are: python -m data.manifest {root}"
    return finding("all", "manifests", changed, text, remedy, "every checksum is right")
