"""What is found out about a corpus of pairs, check by check, and what to do about it.

VoiceBank-DEMAND (`data.benchmark`) is known by its speakers. Free of torch.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from data.audio import SAMPLE_RATE
from data.benchmark import (
    HELD_OUT,
    NAME,
    NOISY_PESQ,
    NOISY_STOI,
    PESQ_TOLERANCE,
    STOI_TOLERANCE,
    TEST_FILES,
    TEST_PAIRS,
    TRAIN_PAIRS,
    TRAIN_SPEAKERS,
)
from data.checks import CLIPPED, Looked, Side
from data.corpus import EXTRACTED_TWICE
from data.entry import path_of, read_entries
from data.listing import Listing
from data.noise_log import FOLDER, LOGS, read_log
from data.speakers import is_test_speaker

OK, PART, WRONG = "ok", "note", "wrong"
# Pairs of a set, its speakers, what it is called.
_SETS = {
    "train": (TRAIN_PAIRS, TRAIN_SPEAKERS, f"{NAME}'s training set of 28 speakers"),
    "test": (TEST_PAIRS, TEST_FILES.keys(), f"{NAME}'s test set"),
}
_UTTERANCE = re.compile(r"p\d{3}_\d{3}")
# A split with this share of a set's speakers among its files is meant to be of that set; one with
# this share of a set's files is meant to be the set, and not a part of it.
_MOST = 0.9
_AGAIN = (
    "take them from a fresh copy of the corpus (python -m data.voicebank), or remove both sides"
)


@dataclass(frozen=True)
class Finding:
    """One line of the table. files: all that the text is about. remedy: "" where all is well."""

    split: str
    check: str
    verdict: str
    text: str
    files: tuple[str, ...] = ()
    remedy: str = ""


@dataclass(frozen=True)
class Split:
    """A split with what a look at its pairs has told."""

    name: str
    listing: Listing
    looked: Mapping[str, Looked]

    @cached_property
    def is_benchmark(self) -> bool:
        """Whether nearly all of it is by the speakers of VoiceBank-DEMAND's set."""
        _, speakers, _ = _SETS["test" if self.name == "test" else "train"]
        known = sum(speaker in speakers for speaker in self.listing.speakers.values())
        return known >= _MOST * len(self.listing.speakers)

    def sides(self) -> Iterator[tuple[Path, Side]]:
        """Every recording of a pair, once."""
        seen = set()
        for key, looked in self.looked.items():
            both = (
                (self.listing.clean[key], looked.clean),
                (self.listing.noisy[key], looked.noisy),
            )
            for path, side in both:
                if path not in seen:
                    seen.add(path)
                    yield path, side


def judge(root: Path, splits: Mapping[str, Split]) -> list[Finding]:
    """All checks but the noisy scores."""
    findings = []
    for split in splits.values():
        findings += [
            _count(root, split, splits),
            _names(split),
            _pairing(split),
            *_recordings(split),
            _lengths(split),
            _alignment(split),
        ]
    findings += [_duplicates(splits), _speakers(splits), _manifests(root, splits)]
    return findings


def judge_scores(test: Split, scores: Sequence[tuple[float, float]]) -> Finding:
    """The last word: the mean scores of the noisy files."""
    valid = [pair for pair in scores if not any(map(math.isnan, pair))]
    if not valid:
        return Finding("test", "noisy scores", WRONG, "no file can be scored", (), _AGAIN)
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
    if right and len(valid) == len(scores):
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


def _count(root: Path, split: Split, splits: Mapping[str, Split]) -> Finding:
    pairs = len(split.looked)
    if not split.is_benchmark:
        return Finding(split.name, "count", OK, f"{pairs:,} pairs")
    kind = "test" if split.name == "test" else "train"
    total, _, called = _SETS[kind]
    # What is held out for validation is of the training set.
    of_kind = [s for s in splits.values() if (s.name == "test") == (kind == "test")]
    found = {key for s in of_kind for key in s.looked}
    logged: set[str] = set()
    for place in (root, root / FOLDER, split.listing.folders[0].parent):
        logged |= read_log(place / LOGS[kind][0]).keys()
    missing = sorted(logged - {PurePosixPath(key).name for key in found})
    share = f"{len(found):,} of {total:,} pairs" + (f", {pairs:,} here" if of_kind[1:] else "")
    if len(found) > total:
        remedy = "remove what is not of the set; the lines below tell what that may be"
        return Finding(split.name, "count", WRONG, f"{share} of {called}", (), remedy)
    if len(found) == total and not missing:
        return Finding(split.name, "count", OK, f"{share} of {called}")
    if missing or len(found) > _MOST * total:
        remedy = "get the corpus again: python -m data.voicebank goes on where it stopped"
        text = f"{share}: {total - len(found):,} of {called} are missing"
        return Finding(split.name, "count", WRONG, text, tuple(missing), remedy)
    return Finding(split.name, "count", PART, f"a part of: {called}, {share}")


def _names(split: Split) -> Finding:
    if nested := split.listing.nested:
        folder = split.listing.folders[0].name
        text = f"{len(nested)} files lie in {folder}/{folder}"
        return Finding(split.name, "names", WRONG, text, tuple(nested), EXTRACTED_TWICE)
    if split.is_benchmark:
        names = {*split.listing.clean, *split.listing.noisy}
        strange = sorted(name for name in names if not _UTTERANCE.fullmatch(name))
        if strange:
            text = f"{len(strange)} files are not called as those of {NAME} (p226_001)"
            remedy = "remove or rename them"
            return Finding(split.name, "names", WRONG, text, tuple(strange), remedy)
    return Finding(split.name, "names", OK, f"{len(split.listing.noisy):,} distinct")


def _pairing(split: Split) -> Finding:
    clean, noisy = split.listing.clean, split.listing.noisy
    alone = [str(clean[key]) for key in sorted(clean.keys() - noisy)]
    alone += [str(noisy[key]) for key in sorted(noisy.keys() - clean)]
    text = f"{len(alone)} files without their other side"
    remedy = "names must be the same on both sides, capital letters too; rename or remove them"
    return _finding(split.name, "pairing", alone, text, remedy, "each clean file has its noisy one")


def _recordings(split: Split) -> Iterator[Finding]:
    """What one recording by itself may have."""
    unusable = [f"{path}: {side.fault}" for path, side in split.sides() if side.fault]
    text = f"{len(unusable)} files cannot be used"
    yield _finding(split.name, "content", unusable, text, _AGAIN, "all readable, none silent")
    sides = [(path, side) for path, side in split.sides() if not side.fault]
    others = [
        f"{path}: {side.rate} Hz, {side.channels} channels"
        for path, side in sides
        if (side.rate, side.channels) != (SAMPLE_RATE, 1)
    ]
    text = f"{len(others)} files are not of 16 kHz and one channel"
    remedy = (
        "they would be converted at every reading; python -m data.voicebank prepares the published "
        "archives as this project expects them"
    )
    yield _finding(split.name, "format", others, text, remedy, "16 kHz, one channel")
    clipped = [
        f"{path}: {side.clipped:.2%} of the samples"
        for path, side in sides
        if side.clipped > CLIPPED
    ]
    text = f"{len(clipped)} files are clipped"
    remedy = "convert them again from their source with some dB less gain, or remove both sides"
    yield _finding(split.name, "clipping", clipped, text, remedy, "none is clipped")


def _lengths(split: Split) -> Finding:
    differ = [
        f"{split.listing.noisy[key]}: {looked.noisy.frames - looked.clean.frames:+d} samples"
        for key, looked in split.looked.items()
        if not (looked.clean.fault or looked.noisy.fault)
        and looked.clean.frames != looked.noisy.frames
    ]
    text = f"{len(differ)} noisy files are longer or shorter than their clean ones"
    return _finding(split.name, "lengths", differ, text, _AGAIN, "equal on both sides")


def _alignment(split: Split) -> Finding:
    late = [
        f"{split.listing.noisy[key]}: {looked.lag:+d} samples"
        for key, looked in split.looked.items()
        if looked.lag
    ]
    text = f"{len(late)} noisy files are late or early"
    remedy = "these are not mixtures of their clean files, or were shifted by a codec: " + _AGAIN
    return _finding(split.name, "alignment", late, text, remedy, "no lag between the sides")


def _duplicates(splits: Mapping[str, Split]) -> Finding:
    same: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for split in splits.values():
        for path, side in split.sides():
            if side.digest:
                same[side.digest][str(path)] = split.name
    groups = [" = ".join(paths) for paths in same.values() if len(paths) > 1]
    text = f"{len(groups)} recordings are there more than once"
    remedy = "keep one of each; a noisy file that is its clean one is to be taken from the corpus"
    return _finding("all", "duplicates", groups, text, remedy, "none")


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
    return _finding("all", "speakers", wrong, text, remedy, told)


def _manifests(root: Path, splits: Mapping[str, Split]) -> Finding:
    changed, there = [], 0
    for name, split in splits.items():
        if not path_of(root, name).is_file():
            continue
        there += 1
        found = {str(path): side.sha256 for path, side in split.sides() if not side.fault}
        for entry in read_entries(path_of(root, name)):
            for role, file in entry.files.items():
                digest = found.get(str(root / file))
                if digest and digest != entry.sha256[role]:
                    changed.append(str(root / file))
    if not there:
        text = f"none; python -m data.manifest {root} makes them"
        return Finding("all", "manifests", PART, text)
    text = f"{len(changed)} files are not what the manifests say"
    remedy = f"put the old ones back, or take them in as they are: python -m data.manifest {root}"
    return _finding("all", "manifests", changed, text, remedy, "every checksum is right")


def _finding(
    split: str, check: str, files: Sequence[str], text: str, remedy: str, fine: str
) -> Finding:
    """What is wrong with these files, or that all is fine where there are none."""
    if not files:
        return Finding(split, check, OK, fine)
    return Finding(split, check, WRONG, text, tuple(files), remedy)
