"""The cast of the embedded corpus: 36 people, no two of whom share an eSpeak variant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType

import numpy as np

from data.espeak import Voice

# Women and men: as many in training as in VoiceBank-DEMAND, which tests with one of each. One
# synthetic voice may be odd, so here it takes two.
CAST = {"train": (14, 14), "valid": (2, 2), "test": (2, 2)}

# Name, language, variant; words a minute, pitch and its range; vocal tract; breath.
_SPEAKERS = """
f01 en-us           f1         160 52 70 1.00 0.45
f02 en-us           f2         172 48 62 1.03 0.55
f03 en              f3         156 45 78 0.97 0.40
f04 en-gb-scotland  f4         168 58 66 1.06 0.60
f05 en-gb-x-rp      f5         152 62 74 0.90 0.50
f06 en-us           Annie      166 36 64 0.94 0.65
f07 en-029          belinda    170 38 76 1.02 0.40
f08 en-gb-x-gbclan  linda      162 34 70 0.98 0.70
f09 en-gb-x-gbcwmd  aunty      158 50 80 1.04 0.45
f10 en              grandma    148 46 66 0.99 0.75
f11 en-us-nyc       shelby     174 55 75 1.05 0.50
f12 en-us           Andrea     140 34 65 0.93 0.55
f13 en-gb-x-rp      Alicia     182 36 68 0.96 0.60
f14 en-gb-scotland  zac        156 14 62 0.90 0.45
f15 en              rob        160 86 60 1.20 0.60
f16 en-us           Michael    164 90 62 1.18 0.50
f17 en-gb-x-gbclan  max        158 92 58 1.21 0.40
f18 en-us-nyc       Nguyen     168 62 66 1.15 0.65
m01 en-us           m1         158 50 65 1.00 0.40
m02 en-us           m2         170 42 72 0.96 0.50
m03 en              m3         164 58 75 1.04 0.35
m04 en-gb-scotland  m4         176 45 62 0.94 0.45
m05 en-gb-x-rp      m6         152 52 76 1.02 0.60
m06 en-us-nyc       m7         168 55 66 1.06 0.40
m07 en-us           Mike       160 52 80 0.98 0.55
m08 en-gb-x-gbclan  Mario      172 60 70 1.05 0.50
m09 en-gb-x-gbcwmd  boris      166 44 74 0.93 0.45
m10 en-029          robert     158 62 70 1.00 0.65
m11 en-us           pablo      172 56 62 0.97 0.40
m12 en              grandpa    146 40 68 1.03 0.70
m13 en-029          travis     164 46 64 1.05 0.50
m14 en-us           victor     178 60 74 0.95 0.45
m15 en-gb-scotland  kaukovalta 156 60 62 1.01 0.55
m16 en-gb-x-rp      Alex       166 48 78 0.97 0.60
m17 en-us-nyc       adam       150 54 70 1.07 0.35
m18 en              Lee        174 64 66 0.92 0.50
"""


@dataclass(frozen=True)
class Speaker:
    """A person: a voice of eSpeak NG and what it lacks.

    Attributes:
        voice: see there; its rate is the one that is heard, whatever the tract.
        tract: a factor on all formants, and on the pitch: above 1 for a shorter vocal tract.
        breath: 0 to 1, the share of noise in the upper half of the spectrum.
    """

    voice: Voice
    tract: float = 1.0
    breath: float = 0.5

    def __str__(self) -> str:
        return f"{self.voice}/{self.tract}/{self.breath}"

    @classmethod
    def parse(cls, text: str) -> Speaker:
        """The inverse of `str`: "en-us+f2/165/50/50/1.03/0.5". ValueError if not of this form."""
        voice, *numbers = text.rsplit("/", 2)
        if len(numbers) != 2:
            raise ValueError(f"not a speaker: {text!r}")
        tract, breath = map(float, numbers)
        return cls(Voice.parse(voice), tract, breath)

    def varied(self, rng: np.random.Generator) -> Speaker:
        """The same person on another occasion: livelier or calmer, faster or slower."""
        mood = rng.uniform(-1, 1)  # who is excited speaks higher, faster and with more melody
        voice = self.voice
        return replace(
            self,
            voice=replace(
                voice,
                rate=voice.rate + round(8 * mood + rng.uniform(-14, 14)),
                pitch=int(np.clip(voice.pitch + round(5 * mood + rng.uniform(-5, 5)), 0, 99)),
                pitch_range=int(
                    np.clip(voice.pitch_range + round(12 * mood + rng.uniform(-10, 10)), 0, 99)
                ),
            ),
            breath=round(float(np.clip(self.breath + rng.uniform(-0.1, 0.1), 0, 1)), 2),
        )

    def stranger(self, rng: np.random.Generator) -> Speaker:
        """Somebody who sounds related: of the same variant, with another tract and register."""
        other = self.varied(rng)
        pitch = int(np.clip(other.voice.pitch + rng.integers(-12, 13), 0, 99))
        return replace(
            other,
            voice=replace(other.voice, pitch=pitch),
            tract=round(self.tract * float(rng.uniform(0.9, 1.1)), 3),
        )


@cache
def speakers() -> Mapping[str, Speaker]:
    """The 36 speakers: 18 women (f01 ...) and 18 men (m01 ...)."""
    words = iter(_SPEAKERS.split())
    return MappingProxyType(
        {
            name: Speaker(
                Voice(language, variant, int(rate), int(pitch), int(width)),
                float(tract),
                float(breath),
            )
            for name, language, variant, rate, pitch, width, tract, breath in zip(
                *[words] * 8, strict=True
            )
        }
    )
