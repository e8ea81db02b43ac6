"""Objective scores of one enhanced utterance against its clean one.

All take 16-kHz signals (s,) of one length, at a full scale of 1; DNSMOS takes the enhanced one
alone. What cannot be scored raises `MetricError` with a reason. No placeholder replaces a score.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pesq
from numpy.typing import NDArray

from bsbimamba.data.levels import SAMPLE_RATE
from bsbimamba.metrics.intelligibility import stoi, stoi_pystoi
from bsbimamba.metrics.segmental import llr, segsnr, si_sdr, snr, wss
from bsbimamba.metrics.signals import MetricError, NoSpeechError, Samples, checked, usable

# `pesq` has room for 50 stretches of speech and writes past its end when there are more: the score
# is wrong, or the process dies. It joins what is less than 0.2 s apart and leaves out what is
# shorter than that, so that 20 s have 50 at most.
_PESQ_SECONDS = 20
_DNSMOS_SECONDS = 9.01
# What the extra `dnsmos` brings. speechmos imports the others, but does not require them.
HAS_DNSMOS = all(map(find_spec, ("speechmos", "onnxruntime", "requests")))


def pesq_wb(clean: Samples, enhanced: Samples) -> float:
    """Return PESQ, wideband, as MOS-LQO (about 1.04 to 4.64), of at most 20 s.

    ITU-T P.862.2 without Corrigendum 2, by the package `pesq` 0.0.4, the field's reference.
    """
    clean, enhanced = checked(clean, enhanced)
    if len(clean) > _PESQ_SECONDS * SAMPLE_RATE:
        raise MetricError(f"too long for PESQ ({_PESQ_SECONDS} s)")
    result = pesq.pesq(SAMPLE_RATE, clean, enhanced, "wb", pesq.PesqError.RETURN_VALUES)
    if result == pesq.PesqError.NO_UTTERANCES_DETECTED:
        raise NoSpeechError("PESQ finds no speech")
    if result == pesq.PesqError.BUFFER_TOO_SHORT:
        raise MetricError("too short for PESQ (a quarter of a second)")
    # An error's number is negative; NaN comes of levels that are too far apart.
    if not result > 0:
        raise MetricError("PESQ fails")
    return float(result)


def pesq_parts(clean: Samples, enhanced: Samples) -> NDArray[np.float64]:
    """Return PESQ of the fewest equal parts of at most 20 s (p,), NaN where there is no speech.

    Their lengths differ by a sample at most: the mean is the one that is weighted by length.
    """
    checked(clean, enhanced)
    count = math.ceil(len(clean) / (_PESQ_SECONDS * SAMPLE_RATE))
    found = np.full(count, np.nan)
    parts = zip(np.array_split(clean, count), np.array_split(enhanced, count), strict=True)
    for number, part in enumerate(parts):
        with suppress(NoSpeechError):
            found[number] = pesq_wb(*part)
    if np.isnan(found).all():
        raise NoSpeechError("PESQ finds no speech")
    return found


def dnsmos(enhanced: Samples) -> tuple[float, ...]:
    """Return DNSMOS P.835 of one signal (s,) of any level: SIG, BAK and OVRL, about 1 to 5.

    Reddy, Gopal and Cutler, "DNSMOS P.835: a non-intrusive perceptual objective speech quality
    metric to evaluate noise suppressors", ICASSP 2022; weights and polynomials by `speechmos`. As
    in the official script (dnsmos_local.py of microsoft/DNS-Challenge), a signal below 9.01 s is
    doubled until it is not, the scores are means over segments of 9.01 s that begin each second,
    and levels stay as they are, also beyond ±1, which `speechmos.dnsmos.run` refuses.
    """
    session, polynomials = _dnsmos_network()
    size = int(_DNSMOS_SECONDS * SAMPLE_RATE)
    x = usable("enhanced", enhanced).astype(np.float32)
    while len(x) < size:
        x = np.append(x, x)
    raw = []
    for second in range(int(len(x) // SAMPLE_RATE - _DNSMOS_SECONDS) + 1):
        segment = x[second * SAMPLE_RATE : int((second + _DNSMOS_SECONDS) * SAMPLE_RATE)]
        if len(segment) == size:  # some lack a sample by rounding: the script leaves them out
            raw.append(session.run(None, {"input_1": segment[None]})[0][0])
    return tuple(float(np.mean(scores)) for scores in polynomials(*np.transpose(raw)))


@cache
def _dnsmos_network() -> tuple[Any, Callable]:
    """Return the network in one thread, and what maps its three values to scores."""
    import onnxruntime
    from speechmos import dnsmos

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    weights = Path(dnsmos.__file__).with_name("dnsmos_models") / "sig_bak_ovr.onnx"
    session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    return session, partial(dnsmos.DNSMOS.get_polyfit_val, None, is_personalized_MOS=False)


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

    measure: of a clean and an enhanced signal or, where there are parts, of these values: other
        scores, or what `_SHARED` has.
    tie: a difference up to this is none that anybody hears or a table shows.
    """

    heading: str
    digits: int
    tie: float
    measure: Callable[..., float]
    parts: tuple[str, ...] = ()
    higher_is_better: bool = True

    def show(self, value: float) -> str:
        """Return a value as tables show it."""
        return f"{value:.{self.digits}f}"


METRICS: dict[str, Metric] = {
    "pesq_wb": Metric("PESQ-WB", 3, 0.01, np.nanmean, ("pesq_parts",)),
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
    "llr": Metric("LLR ↓", 3, 0.005, llr, higher_is_better=False),
    "wss": Metric("WSS ↓", 2, 0.1, wss, higher_is_better=False),
    # Float samples, in Loizou's program (see `wss`).
    "wss_float": Metric(
        "WSS, float scale ↓", 2, 0.1, partial(wss, full_scale=1 / 32768), higher_is_better=False
    ),
    "stoi_pystoi": Metric("STOI by pystoi", 4, 0.001, stoi_pystoi),
    "snr": Metric("SNR (dB)", 2, 0.05, snr),
}
# What a paper's table has, of a clean and an enhanced signal; of all of them, higher is better.
COMPARED = ("pesq_wb", "csig", "cbak", "covl", "stoi", "estoi", "segsnr", "si_sdr")
if HAS_DNSMOS:
    METRICS |= {
        f"dnsmos_{name.lower()}": Metric(f"DNSMOS {name}", 2, 0.01, itemgetter(n), ("dnsmos",))
        for n, name in enumerate(("SIG", "BAK", "OVRL"))
    }
# What is computed of both signals once, for several metrics or for a note. `score` takes its names.
_SHARED: dict[str, Callable[..., Any]] = {
    "pesq_parts": pesq_parts,
    "dnsmos": lambda _clean, enhanced: dnsmos(enhanced),
}


def score(clean: Samples, enhanced: Samples, names: Sequence[str] = tuple(METRICS)) -> dict:
    """Return the named scores of one utterance; where one does not exist, the reason instead."""

    @cache  # PESQ, LLR, WSS and DNSMOS are parts of several scores
    def value(name: str) -> Any:
        metric = METRICS.get(name)
        parts = [value(part) for part in metric.parts] if metric else []
        for part in parts:
            if isinstance(part, str):
                return part
        try:
            found = (metric.measure if metric else _SHARED[name])(*(parts or (clean, enhanced)))
        except MetricError as error:
            return str(error)
        return found if not metric or math.isfinite(found) else f"{name} is no number"

    return {name: value(name) for name in names}
