"""The embedded corpus: eSpeak NG, sentences, noises, the plan and its rendering."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import median_filter
from scipy.signal import welch
from scipy.stats import kurtosis

from data import espeak, synthesise
from data.espeak import EspeakError, Voice, speak
from data.noises import NOISES, ambience, babble, reverberate, unit_rms
from data.sentences import sentence
from data.synthesise import CorpusError, active_level, ensure, from_csv, plan, render, to_csv
from data.workers import process_pool

ROOT = Path(__file__).resolve().parents[1]
RATE = 16000
SECONDS = 4
SMALL = {"train": 5, "valid": 5, "test": 20}  # a test of 20 has every noise at every SNR


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure(tmp_path_factory.mktemp("corpus") / "small", **SMALL, workers=1)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.wav")}


def pair(folder: Path, row: synthesise.Row) -> tuple[np.ndarray, np.ndarray]:
    clean, noisy = (
        soundfile.read(folder / row.split / side / f"{row.name}.wav") for side in ("clean", "noisy")
    )
    assert clean[1] == noisy[1] == RATE
    return clean[0], noisy[0]


# eSpeak NG


def test_speech_depends_on_nothing_spoken_before():
    text = "Seven foxes pass the old harbour, why not?"
    voices = list(synthesise.speakers().values())
    forth = [speak(text, voice) for voice in voices]
    back = [speak(text, voice) for voice in reversed(voices)][::-1]
    with process_pool(1) as pool:
        elsewhere = list(pool.map(speak, [text] * len(voices), voices))
    for (one, rate), (two, _), (three, _) in zip(forth, back, elsewhere, strict=True):
        assert rate == 22050
        assert one.dtype == np.int16
        assert np.array_equal(one, two)
        assert np.array_equal(one, three)


def test_no_voice_of_the_corpus_saturates():
    for voice in synthesise.speakers().values():
        samples, _ = speak("All our yellow boats go far out, father, to the open water.", voice)
        assert 3000 < np.abs(samples.astype(int)).max() < 32000


@pytest.mark.parametrize(
    ("text", "voice", "message"),
    [
        ("Hello", Voice("martian"), "no voice 'martian'"),
        ("Hello", Voice("en-us", "nobody"), "no voice variant 'nobody'"),
        ("", Voice(), "nothing to say"),
        ("...", Voice(), "nothing to say"),
    ],
)
def test_what_cannot_be_spoken(text: str, voice: Voice, message: str):
    with pytest.raises(EspeakError, match=message):
        speak(text, voice)
    assert len(speak("Hello", Voice())[0]) > 5000, "an error must not spoil the next call"


def test_parameters_are_heard():
    def seconds(voice: Voice) -> float:
        samples, rate = speak("We shall see the green valley again.", voice)
        return len(samples) / rate

    assert seconds(Voice(rate=120)) > 1.2 * seconds(Voice(rate=200))
    low, high = (speak("Aaaah", Voice(pitch=pitch, pitch_range=0))[0] for pitch in (10, 90))
    assert not np.array_equal(low, high)


@pytest.mark.parametrize("wrong", [{"rate": 20}, {"pitch": 100}, {"pitch_range": -1}])
def test_voice_refuses_numbers_out_of_range(wrong: dict[str, int]):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        Voice(**wrong)


def test_voice_text_form():
    for voice in (Voice(), Voice("en", "f2", 150, 40, 60)):
        assert Voice.parse(str(voice)) == voice
    for text in ("", "en-us", "en-us/1/2", "en-us/a/b/c"):
        with pytest.raises(ValueError, match="not a voice"):
            Voice.parse(text)


# Sentences


def test_sentences_are_many_and_well_formed():
    rng = np.random.default_rng(0)
    drawn = [sentence(rng) for _ in range(3000)]
    assert len(set(drawn)) > 2900
    words = Counter(word.strip(".,?").lower() for text in drawn for word in text.split())
    assert len(words) > 700
    for text in drawn:
        assert text[0].isupper() or text[0].isdigit()
        assert text[-1] in ".?"
        assert 7 <= len(text.split()) <= 18
        assert "{" not in text
        assert "_" not in text
        assert "  " not in text
        for article, following in zip(text.lower().split(), text.lower().split()[1:], strict=False):
            if article == "a":
                assert following[0] not in "aeio"
            if article == "an":
                assert following[0] in "aeiou"


# Noises


def talk(seed: int) -> list[np.ndarray]:
    """Stand-ins for six talkers at 16 kHz."""
    rng = np.random.default_rng(seed)
    names = rng.choice(list(synthesise.speakers()), 6, replace=False)
    return [synthesise._spoken(sentence(rng), synthesise.speakers()[name]) for name in names]


def make(name: str, seed: int, samples: int = SECONDS * RATE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if name == "babble":
        return babble(rng, samples, RATE, speech=talk(seed))
    return NOISES[name](rng, samples, RATE)


def share(signal: np.ndarray, low: float, high: float) -> float:
    """The part of the energy between two frequencies in Hz."""
    power = np.abs(np.fft.rfft(signal)) ** 2
    frequency = np.fft.rfftfreq(len(signal), 1 / RATE)
    return float(power[(frequency >= low) & (frequency < high)].sum() / power.sum())


@pytest.mark.parametrize("name", [*NOISES, "babble"])
@pytest.mark.parametrize("seed", [0, 1])
def test_noise_is_finite_normalised_and_its_seed_s_own(name: str, seed: int):
    noise = make(name, seed)
    assert noise.shape == (SECONDS * RATE,)
    assert noise.dtype == np.float64
    assert np.isfinite(noise).all()
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(1, abs=1e-9)
    assert abs(noise.mean()) < 0.05
    assert np.array_equal(noise, make(name, seed))
    assert not np.allclose(noise, make(name, seed + 100), atol=0.1)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(list(NOISES)), st.integers(8000, 40000), st.sampled_from([8000, 16000]))
def test_noise_has_any_length_and_rate(name: str, samples: int, rate: int):
    noise = NOISES[name](np.random.default_rng(3), samples, rate)
    assert noise.shape == (samples,)
    assert np.isfinite(noise).all()


@pytest.mark.parametrize("seed", range(4))
def test_hum_is_at_multiples_of_the_mains_frequency(seed: int):
    frequency, power = welch(make("hum", seed), RATE, nperseg=RATE)
    power = power[(frequency >= 30) & (frequency < 2010)]
    frequency = frequency[(frequency >= 30) & (frequency < 2010)]
    near = {
        mains: power[np.abs((frequency + mains / 2) % mains - mains / 2) <= 4].sum() / power.sum()
        for mains in (50, 60)
    }
    assert max(near.values()) > 0.8
    assert min(near.values()) < 0.5


@pytest.mark.parametrize("seed", range(4))
def test_wind_is_low_and_gusty(seed: int):
    noise = make("wind", seed)
    assert share(noise, 0, 300) > 0.8
    levels = np.log10([np.mean(piece**2) for piece in np.split(noise, 16)])
    steady = np.log10([np.mean(piece**2) for piece in np.split(make("coloured", seed), 16)])
    assert 10 * np.std(levels) > 1.5
    assert np.std(levels) > 2 * np.std(steady)


@pytest.mark.parametrize("seed", range(4))
def test_keyboard_is_impulsive(seed: int):
    noise = make("keyboard", seed)
    # Above the ambience of the room, which is low.
    clicks = np.diff(noise, prepend=0.0)
    assert kurtosis(clicks) > 10
    assert np.abs(clicks).max() / np.std(clicks) > 10


@pytest.mark.parametrize("seed", range(3))
def test_babble_has_the_spectrum_of_speech(seed: int):
    noise = make("babble", seed)
    speech = np.concatenate(talk(seed + 50))
    voiced = [share(signal, 250, 4000) for signal in (noise, speech)]
    assert voiced[0] > 0.1  # the rest is the ambience of the room
    bands = [(250, 500), (500, 1000), (1000, 2000), (2000, 4000)]
    shape = np.array([[share(x, *band) for band in bands] for x in (noise, speech)])
    decibels = 10 * np.log10(shape / shape.sum(1, keepdims=True))
    assert np.abs(decibels[0] - decibels[1]).max() < 8
    # Many voices fill each other's pauses.
    assert kurtosis(noise) < kurtosis(speech)


@pytest.mark.parametrize("seed", range(3))
def test_traffic_passes_by(seed: int):
    noise = make("traffic", seed)
    assert share(noise, 0, 1000) > 0.7
    # Tyres are heard above the rumble while a vehicle is near, so that the level there changes.
    tyres = np.diff(noise, prepend=0.0)
    levels = 10 * np.log10([np.mean(piece**2) for piece in np.split(tyres, 16)])
    assert np.ptp(levels) > 2


@pytest.mark.parametrize("seed", range(3))
def test_music_is_tonal(seed: int):
    def prominence(noise: np.ndarray) -> float:
        """The strongest line between 200 Hz and 2 kHz against the spectrum around it."""
        frequency, power = welch(noise, RATE, nperseg=8192)
        power = (power / median_filter(power, 61))[(frequency > 200) & (frequency < 2000)]
        return float(power.max())

    assert prominence(make("music", seed)) > 30
    assert prominence(make("coloured", seed)) < 8


def test_coloured_is_steady_and_of_many_colours():
    above = []
    for seed in range(12):
        noise = make("coloured", seed)
        assert abs(kurtosis(noise)) < 0.3
        above.append(share(noise, 1000, 8000))
    assert min(above) < 0.3
    assert max(above) > 0.8


def test_reverberation_starts_after_the_sound_and_has_its_level():
    click = np.zeros(RATE)
    click[100] = 1.0
    room = reverberate(np.random.default_rng(0), click, RATE, decay=0.3, level=-10.0)
    assert np.abs(room[:100]).max() < 1e-12
    assert room[100] == pytest.approx(1)
    tail = room[101:] ** 2
    assert 10 * np.log10(tail.sum()) == pytest.approx(-10, abs=0.5)
    assert tail[int(0.2 * RATE) :].sum() < 0.02 * tail.sum()


def test_ambience_is_low():
    assert share(ambience(np.random.default_rng(0), 64000, RATE), 0, 500) > 0.9


def test_silence_has_no_level():
    for silent in (np.zeros(0), np.zeros(9)):
        with pytest.raises(ValueError, match="silent"):
            unit_rms(silent)
    with pytest.raises(ValueError, match="silent"):
        active_level(np.zeros(RATE))


# Active speech level


def test_active_level_counts_activity_only():
    tone = np.sqrt(2) * np.sin(2 * np.pi * 440 * np.arange(4 * RATE) / RATE)
    assert active_level(tone) == pytest.approx(0, abs=0.2)
    paused = np.concatenate([tone, np.zeros(4 * RATE)])
    assert active_level(paused) == pytest.approx(0, abs=0.4)
    assert active_level(0.01 * paused) == pytest.approx(active_level(paused) - 40, abs=1e-6)


# The plan


def test_plan_is_a_function_of_the_seed_and_splits_do_not_depend_on_each_other():
    assert plan(3) == plan(3)
    assert plan(3) != plan(4)
    longer = [row for row in plan(3, train=30, valid=2, test=40) if row.split == "test"]
    assert longer == [row for row in plan(3) if row.split == "test"]


@pytest.mark.parametrize("seed", [0, 1, 77])
def test_plan_follows_the_protocol(seed: int):
    rows = plan(seed)
    by_split = {
        split: [row for row in rows if row.split == split] for split in ("train", "valid", "test")
    }
    assert {split: len(part) for split, part in by_split.items()} == synthesise.SIZES
    assert len({row.name for row in rows}) == len(rows)
    assert len({row.noise_seed for row in rows}) == len(rows)
    assert len({row.text for row in rows}) == len(rows)
    people = {split: {row.speaker for row in part} for split, part in by_split.items()}
    variants = {split: {row.variant for row in part} for split, part in by_split.items()}
    for kind in (people, variants):
        assert not kind["train"] & kind["valid"]
        assert not kind["train"] & kind["test"]
        assert not kind["valid"] & kind["test"]
    assert sum(map(len, people.values())) >= 24
    for part in people.values():
        assert {name[0] for name in part} == {"f", "m"}
    assert all(row.name.split("_")[0] == row.speaker and "-" not in row.name for row in rows)

    assert {row.snr_db for row in by_split["train"]} == {0, 5, 10, 15}
    assert {row.snr_db for row in by_split["valid"]} == {0, 5, 10, 15}
    assert {row.snr_db for row in by_split["test"]} == {2.5, 7.5, 12.5, 17.5}
    noises = {split: {row.noise for row in part} for split, part in by_split.items()}
    assert noises["test"] - noises["train"] == {"wind", "music"}
    conditions = Counter((row.noise, row.snr_db) for row in by_split["test"])
    assert set(conditions.values()) == {2}
    for row in rows:
        talkers = {Voice.parse(text).variant for text in row.babble.split()}
        assert bool(talkers) == (row.noise == "babble")
        assert row.variant not in talkers
        assert talkers <= variants[row.split]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 3), st.integers(0, 3), st.integers(1, 3))
def test_csv_keeps_every_bit(seed: int, train: int, valid: int, test: int):
    rows = plan(seed, train, valid, test)
    assert from_csv(to_csv(rows)) == rows
    assert to_csv(from_csv(to_csv(rows))) == to_csv(rows)


@pytest.mark.parametrize("text", ["a,b\n1,2\n", to_csv(plan())[:3000], "recipe\n"])
def test_other_csv_is_refused(text: str):
    if text == "recipe\n":
        assert from_csv(text) == []
        return
    with pytest.raises(CorpusError, match=r"corpus\.csv is not a plan"):
        from_csv(text)


@pytest.mark.parametrize("sizes", [{"train": -1}, {"train": 0, "valid": 0, "test": 0}])
def test_impossible_sizes(sizes: dict[str, int]):
    with pytest.raises(CorpusError, match="must not be negative"):
        plan(0, **sizes)


# Rendering


def test_pairs(corpus: Path):
    rows = from_csv((corpus / "corpus.csv").read_text("utf-8"))
    assert len(files(corpus)) == 2 * len(rows) == 60
    for row in rows:
        info = soundfile.info(corpus / row.split / "noisy" / f"{row.name}.wav")
        assert (info.channels, info.subtype) == (1, "PCM_16")
        clean, noisy = pair(corpus, row)
        assert clean.shape == noisy.shape
        assert 1.8 < len(clean) / RATE < 7
        for side in (clean, noisy):
            assert np.abs(side).max() < 0.96
            assert np.sqrt(np.mean(side**2)) > 10 ** (-45 / 20)
        snr = active_level(clean) - 10 * np.log10(np.mean((noisy - clean) ** 2))
        assert snr == pytest.approx(row.snr_db, abs=0.5)
        assert active_level(clean) < row.level_dbfs + 0.5
        if np.abs(noisy).max() < 0.94:
            assert active_level(clean) == pytest.approx(row.level_dbfs, abs=0.5)
        # The pauses before and after the words are short, and quiet but not digitally silent.
        ends = np.concatenate([clean[: int(0.15 * RATE)], clean[-int(0.1 * RATE) :]])
        level = 10 * np.log10(np.mean(ends**2)) - active_level(clean)
        assert -60 < level < -15


def test_same_rows_same_bytes_in_any_order_and_selection(corpus: Path, tmp_path: Path):
    rows = from_csv((corpus / "corpus.csv").read_text("utf-8"))
    render(rows[::-3], tmp_path, workers=1)
    made, reference = files(tmp_path), files(corpus)
    assert len(made) == 20
    assert all(reference[name] == content for name, content in made.items())


def test_a_seed_changes_the_noise_only_in_the_noisy_side():
    row = replace(plan(0, 1, 0, 1)[-1], noise="coloured", snr_db=2.5, level_dbfs=-30.0)
    other = replace(row, noise_seed=row.noise_seed + 1)
    (clean, noisy), (_, changed) = (synthesise.render_row(each) for each in (row, other))
    assert not np.array_equal(noisy, changed)
    assert len(clean) == len(noisy) == len(changed)


def test_joint_scaling_keeps_the_snr_where_it_would_clip():
    row = replace(plan(0, 0, 0, 1)[0], noise="keyboard", snr_db=-20.0, level_dbfs=-10.0)
    clean, noisy = (side / 32768 for side in synthesise.render_row(row))
    assert np.abs(noisy).max() == pytest.approx(0.95, abs=1e-3)
    snr = active_level(clean) - 10 * np.log10(np.mean((noisy - clean) ** 2))
    assert snr == pytest.approx(-20, abs=0.5)


def test_finished_corpus_is_left_alone(corpus: Path, capsys: pytest.CaptureFixture[str]):
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    assert ensure(corpus, **SMALL) == corpus
    assert capsys.readouterr().out == f"{corpus}: the corpus is there already\n"
    assert before == {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A corpus of one pair, alone in its folder."""
    return ensure(tmp_path / "tiny", train=0, valid=0, test=1, workers=1)


def test_another_corpus_is_kept_unless_forced(tiny: Path, capsys: pytest.CaptureFixture[str]):
    options = ["--out", str(tiny), "--train=0", "--valid=0", "--test=1", "--workers=1"]
    before = files(tiny)
    capsys.readouterr()
    assert synthesise.main([*options, "--seed=1"]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("synthesise: ")
    assert "holds another corpus (line 2 of its corpus.csv differs); --force" in output.err
    assert output.err.count("\n") == 1
    assert synthesise.main([*options, "--test=2"]) == 2
    assert "1 pairs instead of 2" in capsys.readouterr().err
    assert files(tiny) == before

    assert synthesise.main([*options, "--seed=1", "--force"]) == 0
    assert files(tiny) != before
    assert os.listdir(tiny.parent) == ["tiny"]


def test_missing_files_are_noticed(tiny: Path):
    next(tiny.rglob("noisy/*.wav")).unlink()
    with pytest.raises(CorpusError, match="1 files are missing"):
        ensure(tiny, train=0, valid=0, test=1)
    ensure(tiny, train=0, valid=0, test=1, workers=1, force=True)
    assert len(files(tiny)) == 2


def test_other_people_s_files_are_never_touched(tiny: Path):
    (tiny / "thesis.txt").write_text("mine")
    ensure(tiny, train=0, valid=0, test=1)
    with pytest.raises(CorpusError, match=r"also holds thesis\.txt"):
        ensure(tiny, train=0, valid=0, test=2, force=True)
    with pytest.raises(CorpusError, match="something other than a corpus"):
        ensure(tiny / "test", train=0, valid=0, test=1, force=True)
    assert (tiny / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_interrupted_rendering_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
):
    write = synthesise._write_row
    done: list[str] = []

    def failing(folder: Path, row: synthesise.Row) -> None:
        if done:
            raise error
        write(folder, row)
        done.append(row.name)
        assert not (tmp_path / "new").exists()

    monkeypatch.setattr(synthesise, "_write_row", failing)
    options = ["--train=0", "--valid=0", "--test=2", "--workers=1", "--out", str(tmp_path / "new")]
    status = synthesise.main(options)
    assert status == (130 if isinstance(error, KeyboardInterrupt) else 2)
    message = capsys.readouterr().err
    assert ("interrupted" if status == 130 else "No space left on device") in message
    assert len(done) == 1
    assert not list(tmp_path.iterdir())


def test_failing_replacement_keeps_the_old_corpus(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    before = files(tiny)
    rename = Path.rename

    def refusing(path: Path, target: Path) -> Path:
        if path.suffix == ".partial":
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refusing)
    with pytest.raises(CorpusError, match=r"cannot write the corpus to .*: Permission denied"):
        ensure(tiny, train=0, valid=0, test=2, workers=1, force=True)
    assert files(tiny) == before
    assert os.listdir(tiny.parent) == ["tiny"]


def test_two_at_once_agree(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    """The corpus appears while this process is still rendering it."""
    out = tiny.parent / "second"
    made = synthesise.render

    def slow(rows: list[synthesise.Row], folder: Path, workers: int) -> None:
        made(rows, folder, workers)
        monkeypatch.setattr(synthesise, "render", made)
        ensure(out, train=0, valid=0, test=1, workers=1)

    monkeypatch.setattr(synthesise, "render", slow)
    ensure(out, train=0, valid=0, test=1, workers=1)
    assert files(out) == files(tiny)
    assert sorted(os.listdir(tiny.parent)) == ["second", "tiny"]


# The command line


def test_out_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").write_text("")
    assert synthesise.main(["--out", str(tmp_path / "file" / "corpus"), "--test=1"]) == 2
    assert "cannot write the corpus to" in capsys.readouterr().err


def test_missing_espeak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    espeak._paths.cache_clear()
    try:
        assert synthesise.main(["--out", str(tmp_path / "new"), "--workers=1"]) == 2
    finally:
        espeak._paths.cache_clear()
    assert capsys.readouterr().err.endswith(
        "espeakng-loader is not installed: pip install -r requirements.txt\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [["--train=-1"], ["--train=0", "--valid=0", "--test=0"]])
def test_wrong_sizes_on_the_command_line(
    wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert synthesise.main(["--out", str(tmp_path / "new"), *wrong]) == 2
    assert "must not be negative" in capsys.readouterr().err


def test_command_with_worker_processes(tmp_path: Path, corpus: Path):
    command = [sys.executable, "-m", "data.synthesise", "--out", str(tmp_path / "made")]
    command += ["--train=0", "--valid=5", "--test=0", "--workers=2"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("made: 0 training, 5 validation and 0 test pairs\n")
    # The same bytes as those that the fixture made in one process.
    made, reference = files(tmp_path / "made"), files(corpus)
    assert len(made) == 10
    assert all(reference[name] == content for name, content in made.items())


def test_default_folder_is_in_the_repository():
    assert ROOT / "data" / "synthetic" == synthesise.FOLDER


def test_nothing_here_imports_torch():
    code = "import sys, data.synthesise; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# Scores


@pytest.mark.slow
def test_noisy_scores_of_the_default_test_split():
    """PESQ-WB of the unprocessed test split, the baseline of every result on this corpus.

    If it moves, a row sounds different: count RECIPE up, and earlier results do not compare.
    """
    from pesq import pesq

    scores = []
    for row in (row for row in plan() if row.split == "test"):
        clean, noisy = synthesise.render_row(row)
        scores.append(pesq(RATE, clean, noisy, "wb"))
    assert np.isfinite(scores).all()
    assert np.mean(scores) == pytest.approx(1.66, abs=0.02)
