"""Enhance a recording by an exported ONNX model, without PyTorch, as enhance.py does.

    python enhance_onnx.py MODEL_FOLDER INPUT OUTPUT

OUTPUT is a WAV file of 32-bit floats, which do not clip, at INPUT's rate and with its channels.
"""

import argparse
import io
import json
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile
import soxr


class Endless(io.BytesIO):
    """Bytes that claim to end 16 TB later: libsndfile guesses by their number where an MP3 ends."""

    def tell(self):
        return super().tell() + ((super().tell() == len(self.getbuffer())) << 44)


def main(folder, recording, out):
    """Enhance each channel of a file as if it were alone. Raise OSError or LibsndfileError."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    session = onnxruntime.InferenceSession((folder / "model.onnx").read_bytes())
    content, blocks = recording.read_bytes(), []
    is_mp3 = soundfile.info(recording).format == "MP3"
    is_guess = is_mp3 and soundfile.info(Endless(content)).frames > 1 << 40
    # The zeros complete a frame that was cut.
    with soundfile.SoundFile(Endless(content + bytes(1000)) if is_guess else recording) as file:
        file.seekable = lambda: False  # soundfile seeks after every block otherwise
        while len(block := file.read(1 << 17, "float32", always_2d=True)):
            blocks.append(block)
    x, rate = np.concatenate([np.zeros((0, file.channels)), *blocks]), file.samplerate
    order = {b"RIFF": "little", b"FORM": "big"}.get(content[:4])  # of the bytes of its size
    announced = int.from_bytes(content[4:8], order) if order else 0
    is_cut = len(x) < file.frames < 1 << 32 or len(content) + 64 < announced < 0x7FFF0000
    if is_cut or not x.size or not np.isfinite(x).all():
        raise OSError("it is empty or cut short, or has NaN or infinite samples")
    padding = -(-rate // 16_000) * (rate != 16_000)  # so that there is a sample at 16 kHz
    at_16_khz = soxr.resample(np.pad(x, ((0, padding), (0, 0))), rate, 16_000, "VHQ")
    clean = [enhanced(each, session, config["signal"], config["windows"]) for each in at_16_khz.T]
    y = soxr.resample(np.stack(clean, 1), 16_000, rate, "VHQ")[: len(x)]
    encoded = io.BytesIO()  # soundfile itself does not notice that a disk is full
    soundfile.write(encoded, y, rate, "FLOAT", format="WAV")
    out.write_bytes(encoded.getvalue())


def enhanced(x, session, signal, windows):
    """Return a channel (s,) at 16 kHz, enhanced; above 30 s, in windows faded into each other."""
    n_fft, hop, widths = signal["n_fft"], signal["hop"], np.array(signal["band_widths"])
    # The STFT of the recording divided by its loudness, with zeros beyond its ends.
    hann = np.sin(np.pi * np.arange(n_fft) / n_fft) ** 2
    loudness = max(np.sqrt(np.mean(x**2)), signal["loudness_floor"])
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(x, n_fft // 2), n_fft)[::hop]
    spectrum = np.fft.rfft(frames * hann).T[..., None] / loudness
    parts = np.concatenate([spectrum.real, spectrum.imag], -1)  # (257, frames, 2)
    # Mean and deviation of each band of the compressed spectrum, over the whole recording.
    compressed = parts * (np.abs(spectrum) ** 2 + 1e-9) ** -0.35
    first, counts = np.cumsum(widths) - widths, 2 * widths * len(frames)
    mean, power = (np.add.reduceat((compressed**k).sum((1, 2)), first) / counts for k in (1, 2))
    statistics = np.stack([mean, np.sqrt(power - mean**2 + signal["variance_floor"])], -1)
    length, fade = windows["length"] // hop + 1, windows["fade"] // hop + 1  # in frames
    rise = np.clip((np.arange(-windows["context"] // hop, fade) + 0.5) / fade, 0, 1)[:, None]
    filtered, overlap = np.zeros_like(parts), 2 * len(rise) - fade
    for begin in range(0, max(1, len(frames) - overlap), length - overlap):
        given = {"spectrum": parts[:, begin : begin + length], "statistics": statistics}
        inputs = {i.name: given[i.name][None].astype("float32") for i in session.get_inputs()}
        window = session.run(None, inputs)[0][0]
        window[:, : len(rise)] *= rise if begin > 0 else 1
        window[:, -len(rise) :] *= rise[::-1] if begin + length < len(frames) else 1
        filtered[:, begin : begin + length] += window
    # The inverse: windowed once more, added up, divided by the sum of the squared windows.
    y = np.zeros((2, len(x) + n_fft))
    for i, frame in enumerate(np.fft.irfft((filtered @ [1, 1j]).T, n_fft)):
        y[:, i * hop :][:, :n_fft] += frame * hann, hann**2
    y, weight = y[:, n_fft // 2 :][:, : len(x)]
    return y / weight * loudness


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage="%(prog)s MODEL_FOLDER INPUT OUTPUT")
    parser.add_argument("paths", nargs=3, type=Path)
    paths = parser.parse_args().paths
    try:
        main(*paths)
    except (OSError, soundfile.LibsndfileError) as error:
        parser.exit(1, f"{paths[1]} is not enhanced: {error}\n")
