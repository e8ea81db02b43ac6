"""What is checked of every split of a corpus of pairs, and what to do about it. Free of torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from data.audio import SAMPLE_RATE
from data.benchmark import NAME, TEST_FILES
from data.checks import CLIPPED, Looked
from data.corpus import EXTRACTED_TWICE
from data.findings import AGAIN, MOST, OK, PART, SETS, WRONG, Finding, Split, finding
from data.noise_log import FOLDER, LOGS, read_log

_UTTERANCE = re.compile(r"p\d{3}_\d{3}")


def check_split(root: Path, split: Split, splits: Mapping[str, Split]) -> list[Finding]:
    """All of one split. splits: the corpus' others, too."""
    return [
        _count(root, split, splits),
        _names(split),
        _pairing(split),
        *_recordings(split),
        _lengths(split),
        _alignment(split),
        _mixtures(split),
    ]


def _count(root: Path, split: Split, splits: Mapping[str, Split]) -> Finding:
    pairs = len(split.looked)
    if not split.is_benchmark:
        return Finding(split.name, "count", OK, f"{pairs:,} pairs")
    total, _, called = SETS[split.kind]
    of_kind = [s for s in splits.values() if s.kind == split.kind]
    found = {key for s in of_kind for key in s.looked}
    logged: set[str] = set()
    for place in (root, root / FOLDER, split.listing.folders[0].parent):
        logged |= read_log(place / LOGS[split.kind][0]).keys()
    names = {PurePosixPath(key).name for key in found}
    missing = sorted(name for name in logged - names if _UTTERANCE.fullmatch(name))
    share = f"{len(found):,} of {total:,} pairs" + (f", {pairs:,} here" if of_kind[1:] else "")
    if len(found) >= total and (strange := _other_speakers(of_kind)):
        remedy = "get the corpus again: python -m data.voicebank goes on where it stopped"
        text = f"{share} of {called}, but of other speakers"
        return Finding(split.name, "count", WRONG, text, tuple(strange), remedy)
    if len(found) > total:
        remedy = "remove what is not of the set; the lines below tell what that may be"
        return Finding(split.name, "count", WRONG, f"{share} of {called}", (), remedy)
    if len(found) == total and not missing:
        return Finding(split.name, "count", OK, f"{share} of {called}")
    if len(found) > MOST * total:
        remedy = "get the corpus again: python -m data.voicebank goes on where it stopped"
        text = f"{share}: {total - len(found):,} of {called} are missing"
        return Finding(split.name, "count", WRONG, text, tuple(missing), remedy)
    return Finding(split.name, "count", PART, f"a part of: {called}, {share}")


def _other_speakers(splits: Sequence[Split]) -> list[str]:
    """What is wrong with the speakers of a whole set."""
    found = Counter(split.listing.speakers[key] for split in splits for key in split.looked)
    wanted = SETS[splits[0].kind][1]
    wrong = [f"{who}: is missing" for who in sorted(wanted - found.keys())]
    wrong += [f"{who}: is not of the set" for who in sorted(found.keys() - wanted)]
    if splits[0].kind == "test":
        wrong += [
            f"{who}: {found[who]} files instead of {count}"
            for who, count in TEST_FILES.items()
            if found[who] not in (0, count)
        ]
    return wrong


def _names(split: Split) -> Finding:
    if nested := split.listing.nested:
        folder = split.listing.folders[0].name
        text = f"{len(nested)} files lie in {folder}/{folder}"
        return Finding(split.name, "names", WRONG, text, tuple(nested), EXTRACTED_TWICE)
    if split.is_benchmark:
        names = {*split.listing.clean, *split.listing.noisy}
        strange = sorted(x for x in names if not _UTTERANCE.fullmatch(PurePosixPath(x).name))
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
    return finding(split.name, "pairing", alone, text, remedy, "each clean file has its noisy one")


def _recordings(split: Split) -> Iterator[Finding]:
    """What one recording by itself may have."""
    unusable = [f"{path}: {side.fault}" for path, side in split.sides() if side.fault]
    text = f"{len(unusable)} files cannot be used"
    yield finding(split.name, "content", unusable, text, AGAIN, "all readable, none silent")
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
    yield finding(split.name, "format", others, text, remedy, "16 kHz, one channel")
    clipped = [
        f"{path}: {side.clipped:.2%} of the samples"
        for path, side in sides
        if side.clipped > CLIPPED
    ]
    text = f"{len(clipped)} files are clipped"
    remedy = "convert them again from their source with some dB less gain, or remove both sides"
    yield finding(split.name, "clipping", clipped, text, remedy, "none is clipped")


def _lengths(split: Split) -> Finding:
    def told(looked: Looked) -> str:
        longer = looked.noisy.frames - looked.clean.frames
        return f": {longer:+d} samples" if longer and not looked.fault else ""

    differ = _noisy_files(split, told)
    text = f"{len(differ)} noisy files are longer or shorter than their clean ones"
    return finding(split.name, "lengths", differ, text, AGAIN, "equal on both sides")


def _alignment(split: Split) -> Finding:
    late = _noisy_files(split, lambda looked: f": {looked.lag:+d} samples" if looked.lag else "")
    text = f"{len(late)} noisy files are late or early"
    remedy = "these are not mixtures of their clean files, or were shifted by a codec: " + AGAIN
    return finding(split.name, "alignment", late, text, remedy, "no lag between the sides")


def _mixtures(split: Split) -> Finding:
    wrong = _noisy_files(split, lambda looked: f" {looked.mixture}" if looked.mixture else "")
    text = f"{len(wrong)} noisy files are not their clean files and noise"
    remedy = "see that the folders of clean and noisy files are not exchanged; else " + AGAIN
    return finding(split.name, "mixtures", wrong, text, remedy, "all are speech and noise")


def _noisy_files(split: Split, told: Callable[[Looked], str]) -> list[str]:
    """The noisy files that there is something to tell of, with that."""
    found = ((split.listing.noisy[key], told(looked)) for key, looked in split.looked.items())
    return [f"{path}{text}" for path, text in found if text]
