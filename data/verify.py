"""Verify a corpus of pairs: is everything there, and what training and scoring take it for?

    python -m data.verify ROOT [--no-scores] [--workers N]

Prints a table of what was checked, and what to do about what is wrong. What tells most about
VoiceBank-DEMAND's test set are the scores of its noisy files, which every paper states. Status 0:
nothing is wrong (a part of VoiceBank-DEMAND is right, too); 1: something is; 2: there is nothing to
be looked at; 130: interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from tqdm import tqdm

from data import benchmark
from data.audio import CLIPPED, FULL_SCALE, SAMPLE_RATE, AudioError, Signal, examine, read
from data.benchmark import LOG_FOLDER, TEST_FILES, TEST_PAIRS, TRAIN_PAIRS, TRAIN_SPEAKERS, read_log
from data.corpus import SPLITS, Listing, has_split, list_pairs
from data.speakers import is_test_speaker
from data.utils import DataError, carry_out, show, some_lines
from data.workers import mapped, stop_by_signals, usable_cores
from evaluation.scores import score

T = TypeVar("T")
_LISTED = 5  # files, before "and N more"
_AT_ONCE = 4  # pairs that a process is given
# A split with this share of a set's speakers among its files is meant to be of that set; one with
# this share of a set's files is meant to be the set, and not a part of it.
_MOST = 0.9
_LARGEST_LAG = SAMPLE_RATE  # samples, of which one side may be late
_ENOUGH = 20 * SAMPLE_RATE  # samples of a pair that are looked at for its lag
# In dB: below the first there is nothing but rounding; noise never makes pauses quieter, but for
# what it cancels by chance.
_NOISE, _FLOOR = 45.0, 3.0
_FRAME = SAMPLE_RATE // 50
_FRESH = "get the corpus again (python -m data.voicebank), or remove both sides"
# What is looked for: the check, what is wrong, what to do about it. The first ones in each pair.
_IN_PAIRS = ("content", "format", "clipping", "lengths", "alignment", "mixtures")
_CHECKS = {
    "content": ("files cannot be used", _FRESH),
    "format": (
        "files are not of 16 kHz and one channel",
        "convert them once, rather than at every reading",
    ),
    "clipping": (
        "files are clipped",
        "convert them again from their source with some dB less gain, or remove both sides",
    ),
    "lengths": ("noisy files are longer or shorter than their clean ones", _FRESH),
    "alignment": (
        "noisy files are late or early",
        f"these are not mixtures of their clean files, or were shifted by a codec: {_FRESH}",
    ),
    "mixtures": (
        "noisy files are not their clean files and noise",
        f"see that the folders of clean and noisy files are not exchanged; else {_FRESH}",
    ),
    "pairing": (
        "files without their other side",
        "names must be the same on both sides, capital letters too; rename or remove them",
    ),
    "duplicates": (
        "recordings are there more than once",
        "keep one of each; a noisy file that is its clean one is to be taken from the corpus",
    ),
    "speakers": (
        "speakers are where they should not be",
        "move or remove their files: what is tested on must not be trained on",
    ),
    "noisy scores": (
        "scores do not exist",
        _FRESH,
    ),
}


@dataclass(frozen=True)
class Finding:
    """One line of the table. files: all that the text is about. remedy: "" where all is well."""

    split: str
    check: str
    text: str
    files: Sequence[str] = ()
    remedy: str = ""


def verify(root: Path, workers: int, scores: bool = True) -> list[Finding]:
    """Look at every file of a corpus, in `workers` processes.

    scores: whether to score the noisy test files, if nothing else is wrong with them.

    Raises:
        DataError: there are no pairs, or a worker process died.
    """
    listings = {split: list_pairs(root, split) for split in SPLITS if has_split(root, split)}
    if not listings:
        raise DataError(f"{root}: no pairs there, as in train/clean and train/noisy below it")
    if {"train", "test"} <= listings.keys() and listings["train"].noisy == listings["test"].noisy:
        tested = all(map(is_test_speaker, listings["train"].speakers.values()))
        del listings["train" if tested else "test"]
    findings = [_count(root, split, listings) for split in listings]
    same: dict[str, set[str]] = defaultdict(set)
    for split, listing in listings.items():
        findings.append(_pairing(split, listing))
        looked = _in_processes(look_at, _pairs(listing), workers, f"looking at {split}")
        for check in _IN_PAIRS:
            found = (text for wrong, _ in looked for c, text in wrong if c == check)
            findings.append(_finding(split, check, list(dict.fromkeys(found))))
        for path, digest in (item for _, digests in looked for item in digests.items()):
            same[digest].add(path)
    copies = [" = ".join(sorted(paths)) for paths in same.values() if len(paths) > 1]
    findings += [_finding("all", "duplicates", copies), _speakers(listings)]
    if "test" in listings and _is_benchmark("test", listings["test"]) and scores:
        if any(finding.remedy for finding in findings if finding.split == "test"):
            text = "not scored, as something is wrong above"
            findings.append(Finding("test", "noisy scores", text))
        else:
            paths = _pairs(listings["test"])
            scored = _in_processes(noisy_scores, paths, workers, "scoring noisy files")
            findings.append(check_scores(scored))
    return findings


def look_at(paths: tuple[Path, Path]) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Look at a clean and a noisy file.

    Return what is wrong, as (check, where and why); and by file a digest of its samples in 16 bits,
    which a copy in another format has, too.
    """
    wrong, digests, signals = [], {}, []
    for path in paths:
        try:
            info, x = examine(path)
        except AudioError as error:
            wrong.append(("content", f"{path}: {error}"))
            continue
        if (info.rate, info.channels) != (SAMPLE_RATE, 1):
            wrong.append(("format", f"{path}: {info.rate} Hz, {info.channels} channels"))
        if (share := float(np.mean(np.abs(x) >= FULL_SCALE))) > CLIPPED:
            wrong.append(("clipping", f"{path}: {share:.2%} of the samples"))
        content = np.round(x * 32768).astype("<i4").tobytes()
        digests[str(path)] = hashlib.sha256(content).hexdigest()
        signals.append(x)
    if len(signals) == 2:
        clean, noisy = signals
        if longer := len(noisy) - len(clean):
            wrong.append(("lengths", f"{paths[1]}: {longer:+d} samples"))
        if lag := lag_of(clean[:_ENOUGH], noisy[:_ENOUGH]):
            wrong.append(("alignment", f"{paths[1]}: {lag:+d} samples"))
        elif fault := mixture_fault(clean, noisy):
            wrong.append(("mixtures", f"{paths[1]} {fault}"))
    return wrong, digests


def mixture_fault(clean: Signal, noisy: Signal) -> str:
    """Return why a noisy signal, in time with a clean one, is not that and noise, or ""; (s,)."""
    length = min(len(clean), len(noisy))
    x, y = (np.diff(side[:length].astype(np.float64)) for side in (clean, noisy))
    power = float(x @ x)
    if power == 0:
        return ""
    gain = float(x @ y) / power
    if gain < 0:
        return "is turned upside down"
    residual = y - gain * x
    if float(residual @ residual) < 10 ** (-_NOISE / 10) * gain**2 * power:
        return "has no noise"
    missing = _floor(gain * clean[:length]) - _floor(noisy[:length])
    if missing > _FLOOR:
        return f"has {missing:.0f} dB less noise in its pauses than its clean file"
    return ""


def _floor(x: Signal) -> float:
    """Return the level in dB below which a tenth of all frames of 20 ms lies, at least -100."""
    frames = x[: len(x) // _FRAME * _FRAME].reshape(-1, _FRAME)
    powers = np.mean(np.square(frames, dtype=np.float64), axis=1)
    return 10 * math.log10(max(float(np.quantile(powers, 0.1)), 1e-10)) if len(frames) else -100.0


def lag_of(clean: Signal, noisy: Signal) -> int:
    """Return by how many samples a noisy signal is late (below 0: early), by correlation.

    Differences are correlated rather than the signals (s,): rumble, which both may have much of,
    would hide the maximum.
    """
    if min(len(clean), len(noisy)) < 2:
        return 0
    x, y = np.diff(clean), np.diff(noisy)
    size = next_fast_len(len(x) + len(y) + 1, real=True)
    correlation = irfft(rfft(y, size) * np.conj(rfft(x, size)), size)
    reach = min(_LARGEST_LAG, size // 2 - 1)
    around = np.concatenate([correlation[-reach:], correlation[: reach + 1]])
    return int(np.argmax(np.abs(around))) - reach  # of one turned upside down it is a minimum


def _pairs(listing: Listing) -> list[tuple[Path, Path]]:
    names = sorted(listing.clean.keys() & listing.noisy.keys())
    return [(listing.clean[name], listing.noisy[name]) for name in names]


def _finding(split: str, check: str, wrong: Sequence[str]) -> Finding:
    what, remedy = _CHECKS[check]
    if not wrong:
        return Finding(split, check, "ok")
    return Finding(split, check, f"{len(wrong)} {what}", wrong, remedy)


def _is_benchmark(split: str, listing: Listing) -> bool:
    """Tell whether nearly all of a split is by the speakers of VoiceBank-DEMAND's set."""
    speakers = TEST_FILES.keys() if split == "test" else TRAIN_SPEAKERS
    known = sum(speaker in speakers for speaker in listing.speakers.values())
    return known >= _MOST * len(listing.speakers)


def _count(root: Path, split: str, listings: Mapping[str, Listing]) -> Finding:
    listing = listings[split]
    if not _is_benchmark(split, listing):
        return Finding(split, "count", f"{len(_pairs(listing)):,} pairs")
    of_set = [split] if split == "test" else [x for x in ("train", "valid") if x in listings]
    names = {PurePosixPath(name).name for x in of_set for name in listings[x].noisy}
    total = TEST_PAIRS if split == "test" else TRAIN_PAIRS
    text = f"{len(names):,} of the {total:,} pairs of {benchmark.NAME}'s set"
    if len(names) == total or len(names) < _MOST * total:
        return Finding(split, "count", text)
    log = benchmark.TEST_LOG if split == "test" else benchmark.TRAIN_LOG
    places = (root, root / LOG_FOLDER, listing.folders[0].parent)
    logged = {name for place in places for name in read_log(place / log)}
    remedy = "get the corpus again: python -m data.voicebank goes on where it stopped"
    return Finding(split, "count", text, sorted(logged - names), remedy)


def _pairing(split: str, listing: Listing) -> Finding:
    clean, noisy = listing.clean, listing.noisy
    alone = [clean.get(key) or noisy[key] for key in sorted(clean.keys() ^ noisy.keys())]
    return _finding(split, "pairing", [str(path) for path in alone])


def _speakers(listings: Mapping[str, Listing]) -> Finding:
    by_split = {split: set(listing.speakers.values()) for split, listing in listings.items()}
    trained = by_split.get("train", set()) | by_split.get("valid", set())
    wrong = sorted(filter(is_test_speaker, trained))
    for one, other in combinations(by_split, 2):
        both = sorted(by_split[one] & by_split[other])
        wrong += [f"{speaker} in {one} and {other}" for speaker in both]
    return _finding("all", "speakers", wrong)


def noisy_scores(paths: tuple[Path, Path]) -> dict[str, float | str]:
    """Return PESQ-WB and STOI of a noisy against its clean file, on their common length.

    In the place of a score that does not exist is the reason.
    """
    clean, noisy = (read(path) for path in paths)
    length = min(len(clean), len(noisy))
    return score(clean[:length], noisy[:length], ("pesq_wb", "stoi"))


def check_scores(scores: Sequence[Mapping[str, float | str]]) -> Finding:
    """Compare the mean scores of the noisy files with the published ones."""
    failed = [value for each in scores for value in each.values() if isinstance(value, str)]
    if failed:
        return _finding("test", "noisy scores", failed)
    pesq, stoi = (statistics.fmean(found[x] for found in scores) for x in ("pesq_wb", "stoi"))  # type: ignore[misc]
    known = f"{benchmark.NOISY_PESQ:.2f} and {benchmark.NOISY_STOI:.2f}"
    text = f"PESQ {pesq:.3f}, STOI {stoi:.3f} over {len(scores)} files; of all 824: {known}"
    near = abs(pesq - benchmark.NOISY_PESQ) <= benchmark.PESQ_TOLERANCE
    near = near and abs(stoi - benchmark.NOISY_STOI) <= benchmark.STOI_TOLERANCE
    if near or len(scores) != TEST_PAIRS:
        return Finding("test", "noisy scores", text)
    remedy = "these are not the published recordings, or resampled badly: get the corpus again"
    return Finding("test", "noisy scores", text, (), remedy)


def _in_processes(
    function: Callable[[tuple[Path, Path]], T],
    pairs: Sequence[tuple[Path, Path]],
    workers: int,
    what: str,
) -> list[T]:
    try:
        with mapped(function, pairs, workers, _AT_ONCE) as found:
            return list(tqdm(found, total=len(pairs), desc=what, unit="pair", disable=None))
    except BrokenProcessPool:
        raise DataError("a process was killed (out of memory?); try --workers 1") from None


def table(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield what was found, a line each; then what is wrong, with its files and what to do."""
    for f in findings:
        yield f"{f.split:<6}{f.check:<14}{'wrong: ' if f.remedy else ''}{f.text}"
    for f in findings:
        if f.remedy:
            yield f"\n{f.check} of {f.split}: {f.text}"
            yield from [some_lines(f.files, _LISTED)] if f.files else []
            yield f"  What to do: {f.remedy}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m data.verify", description="Verify a corpus of pairs.", allow_abbrev=False
    )
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("--no-scores", action="store_true", help="do not score noisy test files")
    parser.add_argument("--workers", type=int, metavar="N", default=usable_cores())
    options = parser.parse_args(arguments)

    def work() -> int:
        findings = verify(options.root, options.workers, not options.no_scores)
        show("\n".join(table(findings)) + "\n")
        return int(any(finding.remedy for finding in findings))

    return carry_out("verify", work)


if __name__ == "__main__":
    # Worker processes find `noisy_scores` by the name of its module: that must not be `__main__`.
    from data.verify import main as imported_main

    stop_by_signals()
    raise SystemExit(imported_main())
