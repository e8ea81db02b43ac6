"""VoiceBank-DEMAND as published, but small: its archives, made of noise."""

from __future__ import annotations

import hashlib
import io
import zipfile

import numpy as np
import soundfile

from data.voicebank import Archive

RATE = 48_000
TRAIN = [f"{speaker}_{number:03}" for speaker in ("p225", "p226", "p287") for number in (1, 2)]
TEST = ["p232_001", "p257_001", "p257_002"]
FOLDERS = {
    "clean_testset_wav": TEST,
    "noisy_testset_wav": TEST,
    "clean_trainset_28spk_wav": TRAIN,
    "noisy_trainset_28spk_wav": TRAIN,
}
LOG = "".join(f"{name} bus 17.5\n" for name in TEST)


def wav(x: np.ndarray, rate: int = RATE, subtype: str = "PCM_16") -> bytes:
    """Return a wav file's content; x: (s,)."""
    encoded = io.BytesIO()
    soundfile.write(encoded, x, rate, subtype, format="WAV")
    return encoded.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    """Return an archive's content."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return whole.getvalue()


def recordings() -> dict[str, dict[str, bytes]]:
    """Return the published recordings, by folder and name."""
    return {
        folder: {
            f"{name}.wav": wav(0.1 * np.random.default_rng([seed, i]).standard_normal(14_400))
            for i, name in enumerate(names)
        }
        for seed, (folder, names) in enumerate(FOLDERS.items())
    }


def contents() -> dict[str, bytes]:
    """Return the archives by name, with what macOS adds."""
    logs = {"logs/log_testset.txt": LOG.encode()}
    return {"logfiles.zip": zipped(logs)} | {
        f"{folder}.zip": zipped(
            {"__MACOSX/._a.wav": b"x"} | {f"{folder}/{name}": x for name, x in files.items()}
        )
        for folder, files in recordings().items()
    }


def archives(contents: dict[str, bytes], base: str) -> list[Archive]:
    """Return their description, for archives below an address."""
    return [
        Archive(
            name,
            (f"{base}{name}",),
            hashlib.md5(content).hexdigest(),
            len(FOLDERS.get(name.removesuffix(".zip"), ())),
        )
        for name, content in contents.items()
    ]
