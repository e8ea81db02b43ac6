"""Recordings out of archives: the samples, bad members, what is kept and what is made again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from small_voicebank import recording, wav, zipped

from data import conversion
from data.conversion import Converted, Journal, convert, decoded, resampled
from data.errors import DataError

GOOD = {f"p232_{i:03}.wav": wav(recording(i)) for i in range(3)}


class Place:
    """An archive `set.zip`, the folder of its files and its journal."""

    def __init__(self, base: Path) -> None:
        self.archive, self.folder = base / "set.zip", base / "set"
        self.path = base / "set.jsonl"

    def put(self, files: dict[str, bytes]) -> None:
        self.archive.write_bytes(zipped({f"set/{name}": data for name, data in files.items()}))

    def journal(self, sha256: str = "one") -> Journal:
        return Journal(self.path, self.folder, sha256)

    def convert(self, files: dict[str, bytes], workers: int = 1) -> dict[str, str]:
        self.put(files)
        return convert(self.archive, self.folder, self.journal(), workers)

    def stamps(self) -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in self.folder.glob("*.wav")}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_samples_are_those_of_the_resampler_rounded(place: Place):
    assert place.convert(GOOD) == {}
    for i, name in enumerate(GOOD):
        info = soundfile.info(place.folder / name)
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
        made, _ = soundfile.read(place.folder / name, dtype="int16")
        expected = soxr.resample(recording(i) / 32768, 48_000, 16_000, quality="VHQ")
        assert len(made) == 4800
        np.testing.assert_array_equal(made, np.round(32768 * expected))
    journal = place.journal()
    assert journal.complete
    size = (place.folder / "p232_000.wav").stat().st_size
    assert journal.done["p232_000.wav"] == Converted("p232_000.wav", 48_000, 4800, size, 0)


def test_a_tone_keeps_its_level_and_what_is_above_8_khz_goes():
    time = np.arange(48_000) / 48_000
    low, high = (0.5 * np.sin(2 * np.pi * hertz * time) for hertz in (1000, 12_000))
    samples, _ = resampled(low + high, 48_000)
    expected = 16384 * np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    assert np.abs(samples[1000:-1000] - expected[1000:-1000]).max() <= 1


def test_what_is_beyond_16_bits_is_clipped_and_counted():
    samples, clipped = resampled(np.array([1.0, -1.0, 1.5, -1.5, 0.99999, 0.5]), 16_000)
    assert samples.tolist() == [32767, -32768, 32767, -32768, 32767, 16384]
    assert clipped == 4  # 1.0 and 0.99999 both come to 32768
    square = np.where(np.arange(4800) // 24 % 2, 0.999, -0.999)
    samples, clipped = resampled(square, 48_000)
    assert clipped > 0
    assert samples.max() == 32767
    assert samples.min() == -32768


def test_16_khz_stay_as_they_are(place: Place):
    assert place.convert({"a.wav": wav(recording(0, rate=16_000), 16_000)}) == {}
    made, _ = soundfile.read(place.folder / "a.wav", dtype="int16")
    np.testing.assert_array_equal(made, recording(0, rate=16_000))


def cut(encoded: bytes) -> bytes:
    return encoded[:-5000]


def not_finite() -> bytes:
    samples = recording() / 32768
    samples[77] = np.nan
    return wav(samples, subtype="FLOAT")


BAD = {
    "stereo.wav": (wav(np.stack([recording(), recording()], 1)), "has 2 channels"),
    "nan.wav": (not_finite(), "has NaN or infinite samples"),
    "empty.wav": (wav(recording()[:0]), "empty: no samples"),
    "no bytes.wav": (b"", "cannot be decoded"),
    "text.wav": (b"hello", "cannot be decoded"),
    "cut.wav": (cut(wav(recording())), "cut short"),
    "slow.wav": (wav(recording(), rate=100), "a sampling rate of 100 Hz"),
}


def flac() -> bytes:
    import io

    encoded = io.BytesIO()
    soundfile.write(encoded, recording(), 48_000, format="FLAC")
    return encoded.getvalue()


def test_all_bad_members_are_told_and_the_good_ones_made(place: Place):
    bad = BAD | {"flac.wav": (flac(), "is no wav file but FLAC")}
    assert set(place.convert(GOOD | {name: data for name, (data, _) in bad.items()})) == set(bad)
    found = place.convert(GOOD | {name: data for name, (data, _) in bad.items()}, workers=2)
    for name, (_, reason) in bad.items():
        assert reason in found[name], name
    assert place.stamps().keys() == GOOD.keys()
    assert not place.journal().complete


def test_a_member_with_a_wrong_checksum_is_told(place: Place):
    place.put(GOOD)
    whole = bytearray(place.archive.read_bytes())
    whole[len(whole) // 2] ^= 1
    place.archive.write_bytes(whole)
    (reason,) = convert(place.archive, place.folder, place.journal(), 1).values()
    assert "set.zip has a damaged member, set/p232_001.wav" in reason


def test_names_of_all_kinds(place: Place):
    names = ["p 1.wav", "Ünï.wav", "日本.wav", "UP.WAV"]
    assert place.convert(dict.fromkeys(names, GOOD["p232_000.wav"])) == {}
    assert sorted(place.stamps()) == sorted(["p 1.wav", "Ünï.wav", "日本.wav", "UP.wav"])


def test_what_is_made_stays_and_what_is_missing_is_made(place: Place):
    files = {f"{i:02}.wav": GOOD["p232_000.wav"] for i in range(20)}
    place.convert(files, workers=2)
    before, content = place.stamps(), (place.folder / "03.wav").read_bytes()
    (place.folder / "03.wav").unlink()
    (place.folder / "07.wav").write_bytes(content[:-2])
    (place.folder / f".{'a' * 32}.partial").write_bytes(b"of a process that was killed")
    assert not place.journal().complete
    place.convert(files)
    after = place.stamps()
    assert {name for name in files if before[name] != after[name]} == {"03.wav", "07.wav"}
    assert {path.read_bytes() for path in place.folder.iterdir()} == {content}
    assert place.journal().complete


def test_a_journal_that_ends_in_the_middle_of_a_line(place: Place):
    place.convert(GOOD)
    before, text = place.stamps(), place.path.read_text()
    place.path.write_text(text[:-5])
    place.convert(GOOD)
    after = place.stamps()
    assert [name for name in GOOD if before[name] == after[name]] == list(GOOD)[:2]
    assert place.path.read_text() == text


@pytest.mark.parametrize("damaged", ["", "[]", "{}", "\n\n", "nonsense", '{"archive": "one"}\n'])
def test_a_journal_that_is_damaged(damaged: str, place: Place):
    place.convert(GOOD)
    place.path.write_text(damaged)
    assert not place.journal().done
    assert place.convert(GOOD) == {}
    assert place.journal().complete


def test_another_archive_or_resampler_makes_all_files_anew(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    place.convert(GOOD)
    assert place.journal().complete
    assert not place.journal("another").done
    monkeypatch.setattr(conversion, "RESAMPLER", {**conversion.RESAMPLER, "version": "0"})
    assert not place.journal().done


def test_other_people_s_files_are_not_touched(place: Place):
    place.folder.mkdir()
    (place.folder / "mine.wav").write_text("mine")
    with pytest.raises(DataError, match=r"set/mine\.wav is not of set\.zip; move it elsewhere"):
        place.convert(GOOD)
    assert place.stamps().keys() == {"mine.wav"}


def test_an_archive_without_recordings(place: Place):
    with pytest.raises(DataError, match=r"set\.zip has no wav files"):
        place.convert({"readme.txt": b""})


def test_an_interruption_leaves_no_half_file(place: Place, monkeypatch: pytest.MonkeyPatch):
    real = Path.write_bytes

    def failing(path: Path, content: bytes) -> int:
        if len(place.stamps()) == 1:
            real(path, content[:100])
            raise KeyboardInterrupt
        return real(path, content)

    place.put(GOOD)
    monkeypatch.setattr(Path, "write_bytes", failing)
    with pytest.raises(KeyboardInterrupt):
        convert(place.archive, place.folder, place.journal(), 1)
    monkeypatch.undo()
    assert sorted(path.name for path in place.folder.iterdir()) == ["p232_000.wav"]
    assert list(place.journal().done) == ["p232_000.wav"]
    assert [json.loads(line).get("name") for line in place.path.read_text().splitlines()] == [
        None,
        "p232_000.wav",
    ]


def test_a_header_that_lies_about_its_length():
    encoded = bytearray(wav(recording()))
    encoded[40:44] = (0x7FFF0000).to_bytes(4, "little")
    assert len(decoded(bytes(encoded))[0]) == len(recording())
