"""Speech from text, and the texts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from data.espeak import EspeakError, Voice, speak
from data.sentences import sentence
from data.voices import speakers
from data.workers import process_pool


def test_speech_depends_on_nothing_spoken_before():
    text = "Seven foxes pass the old harbour, why not?"
    voices = [speaker.voice for speaker in speakers().values()]
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
    for speaker in speakers().values():
        text = "All our yellow boats go far out, father, to the open water."
        samples, _ = speak(text, speaker.voice)
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


def test_marks_are_heard_and_not_read():
    def seconds(text: str) -> float:
        samples, rate = speak(text, Voice("en-us", "f2"))
        return len(samples) / rate

    plain = seconds("The old sailor sold the boat.")
    assert 0.2 < seconds("The old sailor | sold the boat.") - plain < 0.5
    stressed = speak("The *old* sailor sold the boat.", Voice("en-us", "f2"))[0]
    assert not np.array_equal(
        stressed, speak("The old sailor sold the boat.", Voice("en-us", "f2"))
    )
    assert abs(seconds("The *old* sailor sold the boat.") - plain) < 0.3


def test_other_markup_is_read_as_text():
    assert len(speak("<break time='2s'/>", Voice())[0]) > 0
    long, short = (len(speak(text, Voice())[0]) for text in ("5 < 6 & 7 > 6", "5 6 7 6"))
    assert long > 1.3 * short


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


def test_sentences_are_many_and_well_formed():
    rng = np.random.default_rng(0)
    drawn = [sentence(rng) for _ in range(3000)]
    assert len(set(drawn)) > 2800
    words = Counter(word.strip(".,?!:;*").lower() for text in drawn for word in text.split())
    assert len(words) > 700
    for marked in drawn:
        assert marked.count("*") in (0, 2)
        text = marked.replace("*", "").replace("| ", "")
        assert text[0].isupper() or text[0].isdigit()
        assert text[-1] in ".?!"
        assert 3 <= len(text.split()) <= 22
        assert "{" not in text
        assert "_" not in text
        assert "  " not in text
        for article, following in zip(text.lower().split(), text.lower().split()[1:], strict=False):
            if article == "a":
                assert following[0] not in "aeio"
            if article == "an":
                assert following[0] in "aeiou"


def test_sentences_are_of_several_kinds():
    rng = np.random.default_rng(1)
    drawn = [sentence(rng) for _ in range(1000)]
    for mark, least, most in (("?", 150, 400), ("!", 50, 200), (" | ", 100, 400), ("*", 200, 450)):
        assert least < sum(mark in text for text in drawn) < most, mark
