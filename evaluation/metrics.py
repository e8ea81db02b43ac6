"""Objective scores of one enhanced utterance against its clean one. Free of torch.

All take 16-kHz signals (s,) of one length: real numbers at a full scale of 1, or signed whole
numbers. What cannot be scored raises `MetricError` with a reason; no score is ever replaced by a
placeholder. The measures themselves stand in `intelligibility`, `distortion` and `composite`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pesq
import soundfile
from numpy.typing import NDArray

import data.audio
from data.audio import SAMPLE_RATE
from data.utils import digest_of
from evaluation import composite
from evaluation.distortion import llr, segsnr, si_sdr, snr, wss
from evaluation.intelligibility import estoi, stoi, stoi_pystoi
from evaluation.signals import MetricError, Samples, checked

# `pesq` has room for 50 stretches of speech and writes past its end when there are more: the score
# is wrong, or the process dies. It joins what is less than 0.2 s apart and leaves out what is
# shorter than that, so that 20 s have 50 at most.
_PESQ_SECONDS = 20
_PESQ_REASONS = {
    pesq.PesqError.BUFFER_TOO_SHORT: "too short for PESQ (a quarter of a second)",
    pesq.PesqError.NO_UTTERANCES_DETECTED: "PESQ finds no speech",
}
# Of what float samples are to Loizou's program (see `wss`).
_FLOAT_SCALE = 1 / 32768
# What scores depend on beside the files: the code that makes them and reads the files.
_PACKAGES_READING = ("soundfile", "soxr")
_SOURCES = (
    *(Path(__file__).with_name(f"{name}.py") for name in (
        "composite", "distortion", "intelligibility", "metrics", "scoring", "signals",
    )),
    Path(data.audio.__file__),
)  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """How a metric is shown, and which way is better.

    tie: differences below this are none that anybody hears or a table shows.
    """

    heading: str
    digits: int
    tie: float
    unit: str = ""
    higher_is_better: bool = True

    def show(self, value: float) -> str:
        return f"{value:.{self.digits}f}"


def pesq_wb(clean: Samples, enhanced: Samples) -> float:
    """PESQ, wideband, as MOS-LQO (about 1.04 to 4.64).

    ITU-T P.862.2 without Corrigendum 2, by the package `pesq` 0.0.4, the field's reference.
    """
    clean, enhanced = checked(clean, enhanced)
    if len(clean) > _PESQ_SECONDS * SAMPLE_RATE:
        raise MetricError(f"too long for PESQ ({_PESQ_SECONDS} s)")
    result = pesq.pesq(SAMPLE_RATE, clean, enhanced, "wb", pesq.PesqError.RETURN_VALUES)
    # An error's number is negative; NaN comes of levels that are too far apart.
    if not result > 0:
        raise MetricError(_PESQ_REASONS.get(result, "PESQ fails"))
    return float(result)


class _Utterance:
    """A pair of signals, and what has been found of it: PESQ, LLR and WSS serve several scores."""

    def __init__(self, clean: NDArray[Any], enhanced: NDArray[Any]) -> None:
        self._signals = clean, enhanced
        self._found: dict[str, float | MetricError] = {}

    def __call__(self, name: str) -> float:
        if name not in self._found:
            try:
                value = _SCORES[name](self)
                if not math.isfinite(value):
                    raise MetricError(f"{name} is no number")
                self._found[name] = value
            except MetricError as error:
                self._found[name] = error
        found = self._found[name]
        if isinstance(found, MetricError):
            raise found
        return found

    def by(self, measure: Callable[..., float], **options: float) -> float:
        return measure(*self._signals, **options)


_SCORES: dict[str, Callable[[_Utterance], float]] = {
    "pesq_wb": lambda of: of.by(pesq_wb),
    "stoi": lambda of: of.by(stoi),
    "estoi": lambda of: of.by(estoi),
    "csig": lambda of: composite.csig(of("pesq_wb"), of("llr"), of("wss")),
    "cbak": lambda of: composite.cbak(of("pesq_wb"), of("wss"), of("segsnr")),
    "covl": lambda of: composite.covl(of("pesq_wb"), of("llr"), of("wss")),
    "segsnr": lambda of: of.by(segsnr),
    "si_sdr": lambda of: of.by(si_sdr),
    "csig_float": lambda of: composite.csig(of("pesq_wb"), of("llr"), of("wss_float")),
    "cbak_float": lambda of: composite.cbak(of("pesq_wb"), of("wss_float"), of("segsnr")),
    "covl_float": lambda of: composite.covl(of("pesq_wb"), of("llr"), of("wss_float")),
    "llr": lambda of: of.by(llr),
    "wss": lambda of: of.by(wss),
    "wss_float": lambda of: of.by(wss, full_scale=_FLOAT_SCALE),
    "stoi_pystoi": lambda of: of.by(stoi_pystoi),
    "snr": lambda of: of.by(snr),
}
METRICS: dict[str, Metric] = {
    "pesq_wb": Metric("PESQ-WB", 3, 0.01),
    "stoi": Metric("STOI", 4, 0.001),
    "estoi": Metric("ESTOI", 4, 0.001),
    "csig": Metric("CSIG", 3, 0.01),
    "cbak": Metric("CBAK", 3, 0.01),
    "covl": Metric("COVL", 3, 0.01),
    "segsnr": Metric("SegSNR", 2, 0.05, "dB"),
    "si_sdr": Metric("SI-SDR", 2, 0.05, "dB"),
    "csig_float": Metric("CSIG, float scale", 3, 0.01),
    "cbak_float": Metric("CBAK, float scale", 3, 0.01),
    "covl_float": Metric("COVL, float scale", 3, 0.01),
    "llr": Metric("LLR", 3, 0.005, higher_is_better=False),
    "wss": Metric("WSS", 2, 0.1, higher_is_better=False),
    "wss_float": Metric("WSS, float scale", 2, 0.1, higher_is_better=False),
    "stoi_pystoi": Metric("STOI by pystoi", 4, 0.001),
    "snr": Metric("SNR", 2, 0.05, "dB"),
}
PACKAGES = ("pesq", "pystoi", "numpy", "scipy")


def score(
    clean: NDArray[Any], enhanced: NDArray[Any], names: tuple[str, ...] = tuple(METRICS)
) -> dict[str, float | str]:
    """The named scores of one utterance; in the place of one that does not exist, the reason."""
    utterance = _Utterance(clean, enhanced)
    scores: dict[str, float | str] = {}
    for name in names:
        try:
            scores[name] = utterance(name)
        except MetricError as error:
            scores[name] = str(error)
        except Exception as error:  # a fault in one metric must not cost the others, or other files
            scores[name] = f"{name} fails ({type(error).__name__}: {error})"
    return scores


@cache
def definition() -> str:
    """What scores depend on beside the files: kept ones are taken only where this is the same."""
    packages = [f"{name} {version(name)}" for name in (*PACKAGES, *_PACKAGES_READING)]
    return ", ".join([*packages, soundfile.__libsndfile_version__, digest_of(_SOURCES)])
