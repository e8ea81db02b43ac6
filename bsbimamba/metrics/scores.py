"""Objective scores of one enhanced utterance against its clean one.

All take 16-kHz signals (s,) of one length, at a full scale of 1. What cannot be scored raises
`MetricError` with a reason. No placeholder replaces a score.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import pesq

from bsbimamba.data.audio import SAMPLE_RATE
from bsbimamba.metrics.intelligibility import stoi, stoi_pystoi
from bsbimamba.metrics.segmental import llr, segsnr, si_sdr, snr, wss
from bsbimamba.metrics.signals import MetricError, Samples, checked

# `pesq` has room for 50 stretches of speech and writes past its end when there are more: the score
# is wrong, or the process dies. It joins what is less than 0.2 s apart and leaves out what is
# shorter than that, so that 20 s have 50 at most.
_PESQ_SECONDS = 20
_PESQ_REASONS = {
    pesq.PesqError.BUFFER_TOO_SHORT: "too short for PESQ (a quarter of a second)",
    pesq.PesqError.NO_UTTERANCES_DETECTED: "PESQ finds no speech",
}


def pesq_wb(clean: Samples, enhanced: Samples) -> float:
    """Return PESQ, wideband, as MOS-LQO (about 1.04 to 4.64).

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


# Predicted opinion scores, each within 1 to 5: Hu and Loizou, "Evaluation of objective quality
# measures for speech enhancement", IEEE TASLP 2008, section V. The coefficients were fitted to
# narrowband PESQ; the field puts wideband PESQ in, and so does this.


def csig(pesq: float, llr: float, wss: float) -> float:
    """Return the distortion of the speech itself."""
    return _limited(3.093 - 1.029 * llr + 0.603 * pesq - 0.009 * wss)


def cbak(pesq: float, wss: float, segsnr: float) -> float:
    """Return the intrusiveness of the background."""
    return _limited(1.634 + 0.478 * pesq - 0.007 * wss + 0.063 * segsnr)


def covl(pesq: float, llr: float, wss: float) -> float:
    """Return the overall quality."""
    return _limited(1.594 + 0.805 * pesq - 0.512 * llr - 0.007 * wss)


def _limited(score: float) -> float:
    return min(max(score, 1.0), 5.0)


@dataclass(frozen=True)
class Metric:
    """How a metric is computed and shown, and which way is better.

    measure: of a clean and an enhanced signal or, where there are parts, of these scores.
    tie: a difference up to this is none that anybody hears or a table shows.
    """

    heading: str
    digits: int
    tie: float
    measure: Callable[..., float]
    parts: tuple[str, ...] = ()
    higher_is_better: bool = True

    @property
    def column(self) -> str:
        """The heading of its column; an arrow says where lower is better."""
        return self.heading if self.higher_is_better else f"{self.heading} ↓"

    def show(self, value: float) -> str:
        """Return a value as tables show it."""
        return f"{value:.{self.digits}f}"


METRICS: dict[str, Metric] = {
    "pesq_wb": Metric("PESQ-WB", 3, 0.01, pesq_wb),
    "stoi": Metric("STOI", 4, 0.001, stoi),
    "estoi": Metric("ESTOI", 4, 0.001, partial(stoi_pystoi, extended=True)),
    "csig": Metric("CSIG", 3, 0.01, csig, ("pesq_wb", "llr", "wss")),
    "cbak": Metric("CBAK", 3, 0.01, cbak, ("pesq_wb", "wss", "segsnr")),
    "covl": Metric("COVL", 3, 0.01, covl, ("pesq_wb", "llr", "wss")),
    "segsnr": Metric("SegSNR (dB)", 2, 0.05, segsnr),
    "si_sdr": Metric("SI-SDR (dB)", 2, 0.05, si_sdr),
    "csig_float": Metric("CSIG, float scale", 3, 0.01, csig, ("pesq_wb", "llr", "wss_float")),
    "cbak_float": Metric("CBAK, float scale", 3, 0.01, cbak, ("pesq_wb", "wss_float", "segsnr")),
    "covl_float": Metric("COVL, float scale", 3, 0.01, covl, ("pesq_wb", "llr", "wss_float")),
    "llr": Metric("LLR", 3, 0.005, llr, higher_is_better=False),
    "wss": Metric("WSS", 2, 0.1, wss, higher_is_better=False),
    # Float samples, in Loizou's program (see `wss`).
    "wss_float": Metric(
        "WSS, float scale", 2, 0.1, partial(wss, full_scale=1 / 32768), higher_is_better=False
    ),
    "stoi_pystoi": Metric("STOI by pystoi", 4, 0.001, stoi_pystoi),
    "snr": Metric("SNR (dB)", 2, 0.05, snr),
}


def score(
    clean: Samples, enhanced: Samples, names: tuple[str, ...] = tuple(METRICS)
) -> dict[str, float | str]:
    """Return the named scores of one utterance; where one does not exist, the reason instead."""

    @cache  # PESQ, LLR and WSS are parts of several scores
    def value(name: str) -> float | str:
        metric = METRICS[name]
        parts = [value(part) for part in metric.parts]
        for part in parts:
            if isinstance(part, str):
                return part
        try:
            found = metric.measure(*(parts or (clean, enhanced)))
        except MetricError as error:
            return str(error)
        return found if math.isfinite(found) else f"{name} is no number"

    return {name: value(name) for name in names}
