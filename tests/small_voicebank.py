"""VoiceBank-DEMAND as published, but small: its archives, made of noise that rises and falls."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from data.datashare import Archive

PUBLISHED_RATE = 48_000
TRAIN = [f"{speaker}_{number:03}" for speaker in ("p225", "p226", "p287") for number in (1, 2)]
TEST = ["p232_001", "p257_001", "p257_002"]
FOLDERS = {
    "clean_testset_wav": TEST,
    "noisy_testset_wav": TEST,
    "clean_trainset_28spk_wav": TRAIN,
    "noisy_trainset_28spk_wav": TRAIN,
}
LOGS = {
    "log_testset.txt": "".join(f"{name} bus 17.5\n" for name in TEST),
    "log_trainset_28spk.txt": "".join(f"{name} cafe 5\n" for name in TRAIN),
    "log_readme.txt": "NAME NOISE SNR\n",
}


def recording(seed: int = 0, seconds: float = 0.3, rate: int = PUBLISHED_RATE) -> NDArray[np.int16]:
    """Noise that rises and falls as syllables do, (s,)."""
    length = round(seconds * rate)
    noise = np.random.default_rng(seed).standard_normal(length)
    swell = 0.05 + np.sin(8 * np.pi * np.arange(length) / rate) ** 2
    return np.round(4000 * swell * noise).clip(-32768, 32767).astype(np.int16)


def wav(samples: NDArray, rate: int = PUBLISHED_RATE, subtype: str = "PCM_16") -> bytes:
    """A wav file's content; samples (s,) or (s, channels)."""
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, rate, subtype, format="WAV")
    return encoded.getvalue()


def zipped(files: dict[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive's content."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", packing) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return whole.getvalue()


def published_folders() -> dict[str, dict[str, bytes]]:
    """The recordings, by folder and name; noisy ones are their clean ones and something."""
    folders = {}
    for seed, (folder, names) in enumerate(FOLDERS.items()):
        folders[folder] = {
            f"{name}.wav": wav(recording(100 * seed + i)) for i, name in enumerate(names)
        }
    return folders


@dataclass
class Published:
    """What a publisher has: `folders` of recordings and `logs`, to be changed by tests.

    unstated: names of archives of which no MD5 is stated.
    """

    folders: dict[str, dict[str, bytes]] = field(default_factory=published_folders)
    logs: dict[str, str] = field(default_factory=lambda: dict(LOGS))
    unstated: set[str] = field(default_factory=set)

    def contents(self) -> dict[str, bytes]:
        """The archives, by name."""
        logs = {f"logs/{name}": text.encode() for name, text in self.logs.items()}
        recordings = {
            f"{folder}.zip": zipped({f"{folder}/{name}": data for name, data in files.items()})
            for folder, files in self.folders.items()
        }
        return {"logfiles.zip": zipped(logs), **recordings}

    def archives(self, contents: dict[str, bytes], base: str) -> list[Archive]:
        """Their description, for archives below an address."""
        return [
            Archive(
                name,
                (f"{base}{name}",),
                None if name in self.unstated else hashlib.md5(content).hexdigest(),
                len(content),
                required=name != "logfiles.zip",
            )
            for name, content in contents.items()
        ]


def write_all(folder: Path, contents: dict[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
