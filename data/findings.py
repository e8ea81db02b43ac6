"""What is found out about a corpus of pairs, as lines of a table. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data.benchmark import NAME, TEST_FILES, TEST_PAIRS, TRAIN_PAIRS, TRAIN_SPEAKERS
from data.checks import Looked, Side
from data.listing import Listing

OK, PART, WRONG = "ok", "note", "wrong"
# VoiceBank-DEMAND's sets: pairs, speakers, what they are called.
SETS = {
    "train": (TRAIN_PAIRS, TRAIN_SPEAKERS, f"{NAME}'s training set of 28 speakers"),
    "test": (TEST_PAIRS, TEST_FILES.keys(), f"{NAME}'s test set"),
}
# A split with this share of a set's speakers among its files is meant to be of that set; one with
# this share of a set's files is meant to be the set, and not a part of it.
MOST = 0.9
AGAIN = "take them from a fresh copy of the corpus (python -m data.voicebank), or remove both sides"


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

    @property
    def kind(self) -> str:
        """The benchmark's set that it may be of: what is held out for validation is of training."""
        return "test" if self.name == "test" else "train"

    @cached_property
    def is_benchmark(self) -> bool:
        """Whether nearly all of it is by the speakers of VoiceBank-DEMAND's set."""
        _, speakers, _ = SETS[self.kind]
        known = sum(speaker in speakers for speaker in self.listing.speakers.values())
        return known >= MOST * len(self.listing.speakers)

    def paths(self, key: str) -> tuple[Path, Path]:
        """The clean and the noisy file of a pair."""
        return self.listing.clean[key], self.listing.noisy[key]

    def sides(self) -> Iterator[tuple[Path, Side]]:
        """Every recording of a pair, once."""
        seen = set()
        for key, looked in self.looked.items():
            for path, side in zip(self.paths(key), (looked.clean, looked.noisy), strict=True):
                if path not in seen:
                    seen.add(path)
                    yield path, side


def finding(
    split: str, check: str, files: Sequence[str], text: str, remedy: str, fine: str
) -> Finding:
    """What is wrong with these files, or that all is fine where there are none."""
    if not files:
        return Finding(split, check, OK, fine)
    return Finding(split, check, WRONG, text, tuple(files), remedy)
