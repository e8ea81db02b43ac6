"""From a configuration's data settings to a training and a validation set that share nothing."""

import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from bsbimamba.data.audio import SAMPLE_RATE
from bsbimamba.data.corpus import Pair, Recording, has_split, load_pairs, load_recordings
from bsbimamba.data.dataset import MixDataset, PairDataset, SpeechDataset
from bsbimamba.data.samples import Samples
from bsbimamba.data.speakers import hold_out
from bsbimamba.training.config import Config, Data
from bsbimamba.utils import DataError, some

log = logging.getLogger("training")

Item = TypeVar("Item", Pair, Recording)

# The seed of what is held out and of the mixtures that are validated on. It is not the run's: runs
# of several seeds learn from the same data, and their validations compare.
_SPLIT = 0
# The SNRs of VoiceBank-DEMAND's test set, for validation on mixtures.
_TEST_LEVELS = (2.5, 7.5, 12.5, 17.5)
# How many speakers are held out of a corpus to mix, where it has twice as many.
_FEWEST_SPEAKERS = 8

MISSING = """no data set at {root}. There are three ways to name one:
  --sample                the recordings that come with this program (for a first try)
  --data ROOT             pairs, in ROOT/train/clean and ROOT/train/noisy or the folders of
                          VoiceBank-DEMAND as published: clean_trainset_28spk_wav and
                          noisy_trainset_28spk_wav (https://doi.org/10.7488/ds/2117), which
                          python -m bsbimamba.data.voicebank downloads and converts
  --mix CLEAN NOISE       a folder of clean speech and one of noise, mixed on the fly"""


def make_datasets(config: Config, skip_bad: bool) -> tuple[SpeechDataset, SpeechDataset]:
    """Return a set of training pieces and one of whole validation utterances.

    Speakers, and noise files to mix with, are held out. The split is logged, and does not depend on
    the run's seed. No test split is ever opened.

    Raises:
        DataError: data are missing or unusable.
    """
    data = config.data
    if data.source == "mix":
        return _mixtures(config, skip_bad)
    if not has_split(Path(data.root), "train"):
        raise DataError(MISSING.format(root=data.root))
    return _pairs(config, skip_bad)


def _pairs(config: Config, skip_bad: bool) -> tuple[SpeechDataset, SpeechDataset]:
    data, root = config.data, Path(config.data.root)
    train = load_pairs(root, "train", skip_bad)
    if has_split(root, "valid"):
        valid = load_pairs(root, "valid", skip_bad)
        shared = {pair.speaker for pair in train} & {pair.speaker for pair in valid}
        if shared:
            raise DataError(
                f"{root}: speakers of its valid split are in its train split too: {_some(shared)}. "
                "Move their files, or remove the valid folder: speakers are then held out of train."
            )
    else:
        held_out = _held_out_speakers(train, data, root)
        valid = [pair for pair in train if pair.speaker in held_out]
        train = [pair for pair in train if pair.speaker not in held_out]
    # Where the files really are, however they are named.
    sides = ([x for pair in pairs for x in (pair.clean, pair.noisy)] for pairs in (train, valid))
    if both := set.intersection(*({os.path.realpath(x) for x in side} for side in sides)):
        raise DataError(f"{root}: files to train on are also to validate with: {_some(both)}")
    valid = _in_turn(valid, data.validation_files)
    _log_split(train, valid)
    samples = _samples(config, [x for pair in (*train, *valid) for x in (pair.clean, pair.noisy)])
    crop, limit = _frames(data.crop_seconds), _frames(data.validation_seconds)
    return (
        PairDataset(train, config.seed, crop, samples=samples, augment=config.augment),
        PairDataset(valid, _SPLIT, None, limit, samples),
    )


def _mixtures(config: Config, skip_bad: bool) -> tuple[SpeechDataset, SpeechDataset]:
    data = config.data
    folders = [Path(os.path.realpath(folder)) for folder in (data.clean, data.noise)]
    if folders[0].is_relative_to(folders[1]) or folders[1].is_relative_to(folders[0]):
        raise DataError(f"{data.clean} and {data.noise}: one is in the other; move it out of there")
    noise = load_recordings(Path(data.noise), skip_bad, speech=False)
    clean = load_recordings(Path(data.clean), skip_bad)
    if len(noise) < 2:
        raise DataError(
            f"{data.noise}: one usable noise file only; validation needs another that training "
            "never hears. Add one, or cut this one in two."
        )
    # Speakers that were named, and VoiceBank's two, are held out as they are.
    named = set(data.validation_speakers)
    chosen = named and {r.speaker for r in clean} > named
    least, utterances = (1, 0) if chosen else (_FEWEST_SPEAKERS, data.validation_files)
    held_out = _held_out_speakers(clean, data, Path(data.clean), least, utterances)
    kept_noise = _held_out_noise([r.name for r in noise], 2 * data.validation_share)
    train = [r for r in clean if r.speaker not in held_out]
    valid = _in_turn([r for r in clean if r.speaker in held_out], data.validation_files)
    _log_split(train, valid)
    train_noise = [r for r in noise if r.name not in kept_noise]
    log.info("noise: %d files for training; held out: %s", len(train_noise), _some(kept_noise))
    shared: dict[str, Any] = {
        "snr_db": data.snr_db,
        "samples": _samples(config, [r.path for r in (*train, *valid, *noise)]),
        "babble": data.babble,
        "speech_shaped": data.speech_shaped,
    }
    crop, limit = _frames(data.crop_seconds), _frames(data.validation_seconds)
    valid_noise = [r for r in noise if r.name in kept_noise]
    return (
        MixDataset(train, train_noise, config.seed, frames=crop, augment=config.augment, **shared),
        MixDataset(
            valid, valid_noise, _SPLIT, frames=None, limit=limit, levels=_TEST_LEVELS, **shared
        ),
    )


def _samples(config: Config, paths: Sequence[Path]) -> Samples:
    """Return the reader of recordings, once those that are slow to decode are decoded."""
    samples = Samples()
    if config.run.packed:
        samples.keep_decoded(paths)
    return samples


def _held_out_speakers(
    items: Sequence[Pair | Recording], data: Data, where: Path, least: int = 1, utterances: int = 0
) -> set[str]:
    """Return the speakers that are kept from training (`hold_out`)."""
    first = items[0].clean if isinstance(items[0], Pair) else items[0].path
    speakers = [item.speaker for item in items]
    if len(set(speakers)) < 2:
        raise DataError(
            f"{where}: all files are of one speaker ({speakers[0]}); validation needs another. A "
            "file speakers.csv in the clean folder (columns file, speaker) can name them."
        )
    table = any((folder / "speakers.csv").is_file() for folder in first.parents)
    if len(set(speakers)) == len(speakers) and not table:
        log.warning(
            f"{where}: each file counts as a speaker of its own, by its name. If one person speaks "
            "in several, that person may be both trained and validated on: name the speakers in "
            "speakers.csv in the clean folder (columns file, speaker)"
        )
    wanted = data.validation_speakers
    held_out = hold_out(speakers, wanted, data.validation_share, _SPLIT, least, utterances)
    if not held_out.issuperset(wanted):
        log.info(f"{where}: {', '.join(wanted)} are not all there: other speakers are held out")
    return held_out


def _held_out_noise(names: Sequence[str], share: float) -> set[str]:
    """Return which noise files are kept from training: a share of each folder of several."""
    folders = defaultdict(list)
    for name in names:
        folders[os.path.dirname(name)].append(name)
    kept = [hold_out(files, (), share, _SPLIT) for files in folders.values()]
    return set().union(*kept) or hold_out(names, (), share, _SPLIT)


def _frames(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)


def _in_turn(items: Sequence[Item], count: int) -> list[Item]:
    """Return at most `count` items in their order, as equally many of each speaker as they have.

    Those of a speaker are spread evenly over all of theirs.
    """
    by_speaker: defaultdict[str, list[int]] = defaultdict(list)
    for number, item in enumerate(items):
        by_speaker[item.speaker].append(number)
    chosen: list[int] = []
    for place, own in enumerate(sorted(by_speaker.values(), key=len)):
        share = min(len(own), (count - len(chosen)) // (len(by_speaker) - place))
        chosen += [own[i * len(own) // share] for i in range(share)]
    return [items[number] for number in sorted(chosen)]


def _log_split(train: Sequence[Pair | Recording], valid: Sequence[Pair | Recording]) -> None:
    log.info("data: %d files for training, %d for validation", len(train), len(valid))
    speakers = {item.speaker for item in valid}
    log.info("speakers held out for validation: %s", _some(speakers))


def _some(names: set[str]) -> str:
    return some(sorted(names), 8)
