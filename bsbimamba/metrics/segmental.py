"""How far an enhanced signal is from the clean one: ratios, and distances of spectra.

All take a clean and an enhanced 16-kHz signal (s,) and raise `MetricError` where there is no score.
The segmental ones follow the programs that come with Loizou, "Speech Enhancement: Theory and
Practice" (2nd ed., CRC Press 2013, chapter 11), in the form in which the field's script has them
(compute_metrics.py of CMGAN): frames of 30 ms every 7.5 ms, the last one left out.
"""

import numpy as np

from bsbimamba.metrics.signals import FRAME, MetricError, Samples, Signal, checked, windowed

# Of power: what is below this share of the rest is rounding in 64-bit arithmetic.
_ROUNDING = 1e-24
_SEGMENTAL = (-10.0, 35.0)  # dB, the range that a frame's SNR is limited to
_ORDER = 16  # of linear prediction
_TRIMMED = 0.95  # the share of frames, the best ones, that LLR and WSS are means over
# Klatt's critical bands: centres and widths in Hz.
_CENTRES = np.array([
    50, 120, 190, 260, 330, 400, 470, 540, 617.372, 703.378, 798.717, 904.128, 1020.38, 1148.30,
    1288.72, 1442.54, 1610.70, 1794.16, 1993.93, 2211.08, 2446.71, 2701.97, 2978.04, 3276.17,
    3597.63,
])  # fmt: skip
_WIDTHS = np.array([
    70, 70, 70, 70, 70, 70, 70, 77.3724, 86.0056, 95.3398, 105.411, 116.256, 127.914, 140.423,
    153.823, 168.154, 183.457, 199.776, 217.153, 235.631, 255.255, 276.072, 298.126, 321.465,
    346.136,
])  # fmt: skip
_FFT = 1024


def si_sdr(clean: Samples, enhanced: Samples) -> float:
    """Return the scale-invariant signal-to-distortion ratio in dB, without the signals' means.

    Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019, equation 3.
    """
    clean, enhanced = checked(clean, enhanced)
    reference = clean - clean.mean()
    estimate = enhanced - enhanced.mean()
    target = (estimate @ reference) / (reference @ reference) * reference
    return _ratio("SI-SDR", target, estimate - target)


def snr(clean: Samples, enhanced: Samples) -> float:
    """Return the power of the clean signal over that of the difference, in dB.

    For a noisy recording this is its input SNR.
    """
    clean, enhanced = checked(clean, enhanced)
    return _ratio("SNR", clean, enhanced - clean)


def segsnr(clean: Samples, enhanced: Samples) -> float:
    """Return the segmental signal-to-noise ratio in dB: the mean over frames, each -10 to 35.

    Hansen and Pellom, "An effective quality evaluation protocol for speech enhancement
    algorithms", ICSLP 1998; Loizou, equation 11.1.
    """
    clean, enhanced = checked(clean, enhanced)
    frames = windowed(clean)
    signal = np.square(frames).sum(axis=1)
    noise = np.square(frames - windowed(enhanced)).sum(axis=1)
    tiny = np.spacing(1)
    ratios = 10 * np.log10(signal / (noise + tiny) + tiny)
    return float(ratios.clip(*_SEGMENTAL).mean())


def llr(clean: Samples, enhanced: Samples) -> float:
    """Return the log-likelihood ratio of linear prediction (0 and above, lower is better).

    Quackenbush et al., "Objective Measures of Speech Quality" (1988); Loizou, equation 11.5. Each
    frame gives the logarithm of a ratio: the power of the clean frame that the enhanced frame's
    predictor leaves, over what its own leaves. The result is the mean of the lower 95 %. Frames of
    digital silence have no predictor; they rank behind all others, as the script's NaN do.
    """
    clean, enhanced = checked(clean, enhanced)
    correlation = _autocorrelation(windowed(clean))
    lags = np.abs(np.subtract.outer(np.arange(_ORDER + 1), np.arange(_ORDER + 1)))
    matrix = correlation[:, lags]
    left = []
    for lagged in (_autocorrelation(windowed(enhanced)), correlation):
        predictor = _predictor(lagged)
        left.append(np.einsum("ti,tij,tj->t", predictor, matrix, predictor))
    with np.errstate(all="ignore"):
        ratios = np.log(left[0] / left[1])
    return _mean_of_lower(ratios[np.isfinite(ratios)], len(ratios), "LLR")


def wss(clean: Samples, enhanced: Samples, full_scale: float = 1.0) -> float:
    """Return the weighted spectral slope distance (0 and above, lower is better).

    Klatt, "Prediction of perceived phonetic distance from critical-band spectra", ICASSP 1982;
    Loizou, equation 11.20. Differences of neighbouring bands' levels are compared where either
    spectrum is high. The result is the mean of the lower 95 % of frames.

    full_scale: what full scale is taken for; it matters, as levels have a floor. 1 is Loizou's.
    1/32768 results where his program, which divides by 32768, is given samples within [-1, 1].
    """
    clean, enhanced = checked(clean, enhanced)
    levels = [_band_levels(windowed(side * full_scale)) for side in (clean, enhanced)]
    slopes = [np.diff(level, axis=1) for level in levels]
    weight = (_weights(levels[0], slopes[0]) + _weights(levels[1], slopes[1])) / 2
    distances = (weight * np.square(slopes[0] - slopes[1])).sum(axis=1) / weight.sum(axis=1)
    return _mean_of_lower(distances, len(distances), "WSS")


def _ratio(name: str, signal: Signal, error: Signal) -> float:
    power, rest = float(signal @ signal), float(error @ error)
    if rest < _ROUNDING * power:
        raise MetricError(f"{name} is infinite: the enhanced signal is the clean one")
    if power < _ROUNDING * rest:
        raise MetricError(f"{name} is minus infinity: nothing of the clean signal is left")
    return 10 * float(np.log10(power / rest))


def _mean_of_lower(values: Signal, frames: int, name: str) -> float:
    """Return the mean of the lower 95 % of so many frames, of which some may have no value."""
    kept = np.sort(values)[: round(_TRIMMED * frames)]
    if not kept.size:
        raise MetricError(f"no frame has an {name}")
    return float(kept.mean())


def _autocorrelation(frames: Signal) -> Signal:
    """Return lags 0 to 16 of each frame: (t, 480) to (t, 17)."""
    lagged = [(frames[:, : FRAME - lag], frames[:, lag:]) for lag in range(_ORDER + 1)]
    return np.stack([np.einsum("tn,tn->t", *pair) for pair in lagged], axis=1)


def _predictor(lags: Signal) -> Signal:
    """Return prediction error filters (t, 17) from autocorrelations; NaN for a silent frame.

    By Levinson and Durbin's recursion.
    """
    filters = np.zeros_like(lags)
    filters[:, 0] = 1
    with np.errstate(all="ignore"):
        error = lags[:, 0].copy()
        for order in range(1, _ORDER + 1):
            found = (filters[:, :order] * lags[:, order:0:-1]).sum(axis=1)
            reflection = -found / error
            filters[:, 1 : order + 1] += (
                reflection[:, None] * filters[:, order - 1 :: -1][:, :order]
            )
            error *= 1 - reflection**2
    return filters


def _band_levels(frames: Signal) -> Signal:
    """Return levels (t, 25) in dB of Klatt's critical bands, not below -100."""
    power = np.abs(np.fft.rfft(frames, _FFT)[:, :-1]) ** 2
    hertz = 16_000 / _FFT
    distance = np.arange(_FFT // 2) - np.floor(_CENTRES / hertz)[:, None]
    shapes = (
        np.exp(-11 * (distance / (_WIDTHS / hertz)[:, None]) ** 2) * (_WIDTHS[0] / _WIDTHS)[:, None]
    )
    shapes[shapes <= np.exp(-30 / (2 * 2.303))] = 0
    return 10 * np.log10(np.maximum(power @ shapes.T, 1e-10))


def _weights(levels: Signal, slopes: Signal) -> Signal:
    """Return Klatt's weights (t, 24): high near the highest level, and near the local peak.

    The local peak is searched uphill. Upwards, Loizou's program stops one band before it.
    """
    bands = np.arange(slopes.shape[1])
    rising = slopes > 0
    # Per band, the first band from there on that does not rise, and the last one before that does.
    ends = np.minimum.accumulate(np.where(rising, slopes.shape[1], bands)[:, ::-1], axis=1)[:, ::-1]
    begins = np.maximum.accumulate(np.where(rising, bands, -1), axis=1)
    peaks = np.take_along_axis(levels, np.where(rising, ends - 1, begins + 1), axis=1)
    below = levels[:, :-1]
    highest = levels.max(axis=1, keepdims=True)
    return 20 / (20 + highest - below) * (1 / (1 + peaks - below))
