"""The embedded corpus is the same on every machine, and as noisy as ever."""

from __future__ import annotations

import hashlib
import platform
import sys

import numpy as np
import pytest

from data.plan import Row, plan
from data.synthesise import render_row

RATE = 16000
SMALL_SUM = "b120720dbd70e49213351db2be9a2d24f07102a9ba2117c03114aad9b46d37c8"
DEFAULT_SUM = "54618e216ddb7053a888e78b5a4a8e5256cb58f0beab55b280fffdd4d1410216"


def checksum(rows: list[Row]) -> str:
    """Of all samples of both sides, as 16-bit little-endian integers."""
    digest = hashlib.sha256()
    for row in rows:
        for side in render_row(row):
            digest.update(side.astype("<i2").tobytes())
    return digest.hexdigest()


# eSpeak NG's wheels for other systems come from other compilers, which round otherwise.
same_machine = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="the checksums are those of Linux on x86-64",
)


@same_machine
def test_checksum_of_a_small_corpus():
    """Every machine renders the same samples: of another processor, order, number of threads.

    If this changes on all machines alike, rows sound different: count RECIPE up, say so in the
    changelog, and earlier results on this corpus do not compare. If it changes on one machine only,
    something in the rendering depends on the machine, which is a fault.
    """
    assert checksum(plan(0, 4, 2, 4)) == SMALL_SUM


@pytest.mark.slow
@same_machine
def test_checksum_of_the_default_corpus():
    """The same of all 364 pairs."""
    assert checksum(plan()) == DEFAULT_SUM


@pytest.mark.slow
def test_noisy_scores_of_the_default_test_split():
    """PESQ-WB and STOI of the unprocessed test split, the baseline of every result on this corpus.

    VoiceBank-DEMAND's are 1.97 and 0.92. If they move, a row sounds different: count RECIPE up, and
    earlier results do not compare.
    """
    from pesq import pesq
    from pystoi import stoi

    scores = []
    for row in (row for row in plan() if row.split == "test"):
        clean, noisy = (side.astype(float) for side in render_row(row))
        scores.append((pesq(RATE, clean, noisy, "wb"), stoi(clean, noisy, RATE)))
    assert np.isfinite(scores).all()
    assert np.mean(scores, axis=0) == pytest.approx([1.736, 0.925], abs=0.005)
