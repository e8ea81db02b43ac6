"""Predicted opinion scores of signal, background and overall quality, each within 1 to 5.

Hu and Loizou, "Evaluation of objective quality measures for speech enhancement", IEEE TASLP 2008,
section V: linear regressions on PESQ, LLR, WSS and SegSNR. The coefficients were fitted to
narrowband PESQ; the field puts wideband PESQ in, and so does this.
"""

from __future__ import annotations


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
