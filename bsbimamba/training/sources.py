"""From a configuration's data settings to a training and a validation set that share nothing."""

import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from bsbimamba.data.corpus import Pair, Recording, has_split, load_pairs, load_recordings
from bsbimamba.data.dataset import MixDataset, PairDataset, SpeechDataset
from bsbimamba.data.levels import SAMPLE_RATE
from bsbimamba.data.samples import Samples
from bsbimamba.data.speakers import hold_out
from bsbimamba.training.config import Config, Data
from bsbimamba.utils import DataError, is_within, some

log = logging.getLogger("training")

Item = TypeVar("Item", Pair, Recording)
_Options = dict[str, Any]  # of a dataset

# The seed of what is held out and of the mixtures that are validated on. It is not the run's: runs
# of several seeds learn from the same data, and their validations compare.
_SPLIT = 0
# The SNRs of VoiceBank-DEMAND's test set, for validation on mixtures.
_TEST_LEVELS = (2.5, 7.5, 12.5, 17.5)
# How many speakers are held out of a corpus to mix, where it has twice as many.
_FEWEST_SPEAKERS = 8

MISSING = """no data set at {root}. There are three ways to name one:
  --sample            the recordings that come with this program (for a first try)
  --data ROOT         pairs, in ROOT/train/clean and ROOT/train/noisy, or VoiceBank-DEMAND, which
                      python -m bsbimamba voicebank downloads and converts
  --mix CLEAN NOISE   a folder of clean speech and one of noise, mixed on the fly"""


def make_datasets(config: Config, skip_bad: bool) -> tuple[SpeechDataset, SpeechDataset]:
    """Return a set of training pieces and one of whole validation utterances.

    Speakers, and noise files to mix with, are held out. The split is logged, and does not depend on
    the run's seed. No test split is ever opened. Both read decoded copies of recordings that are
    slow to decode.

    Raises:
        DataError: data are missing or unusable.
    """
    data, samples = config.data, Samples()
    frames, limit = (round(x * SAMPLE_RATE) for x in (data.crop_seconds, data.validation_seconds))
    pieces = {"seed": config.seed, "frames": frames, "samples": samples}
    whole = {"seed": _SPLIT, "frames": None, "limit": limit, "samples": samples}
    make = _mixtures if data.source == "mix" else _pairs
    train, valid = make(data, skip_bad, pieces, whole)
    log.info("data: %d files for training, %d for validation", len(train), len(valid))
    log.info("speakers held out for validation: %s", some(valid.speakers(), 8))
    if config.run.packed:
        paths = []
        for each in (*train.files(), *valid.files()):
            paths += [each.clean, each.noisy] if isinstance(each, Pair) else [each.path]
        samples.keep_decoded(paths)
    return train, valid


def _pairs(
    data: Data, skip_bad: bool, pieces: _Options, whole: _Options
) -> tuple[SpeechDataset, SpeechDataset]:
    root = Path(data.root)
    if not has_split(root, "train"):
        raise DataError(MISSING.format(root=root))
    train = load_pairs(root, "train", skip_bad)
    if has_split(root, "valid"):
        valid = load_pairs(root, "valid", skip_bad)
        shared = {pair.speaker for pair in train} & {pair.speaker for pair in valid}
        if shared:
            raise DataError(
                f"{root}: {some(sorted(shared), 8)}: speakers of its valid split are in its train "
                "split too. Move their files, or remove the valid folder: speakers are then held "
                "out of train."
            )
    else:
        held_out = _held_out_speakers(train, data, root)
        valid = [pair for pair in train if pair.speaker in held_out]
        train = [pair for pair in train if pair.speaker not in held_out]
    # Where the files really are, however they are named.
    sides = ([x for pair in pairs for x in (pair.clean, pair.noisy)] for pairs in (train, valid))
    if both := set.intersection(*({os.path.realpath(x) for x in side} for side in sides)):
        names = some(sorted(both), 8)
        raise DataError(f"{root}: files to train on are also to validate with: {names}")
    valid = _in_turn(valid, data.validation_files)
    return PairDataset(train, **pieces), PairDataset(valid, **whole)


def _mixtures(
    data: Data, skip_bad: bool, pieces: _Options, whole: _Options
) -> tuple[SpeechDataset, SpeechDataset]:
    folders = Path(data.clean), Path(data.noise)
    if is_within(*folders) or is_within(*reversed(folders)):
        raise DataError(f"{data.clean} and {data.noise}: one is in the other; move it out of there")
    clean = load_recordings(folders[0], skip_bad)
    noise = load_recordings(folders[1], skip_bad, speech=False)
    if len(noise) < 2:
        raise DataError(
            f"{data.noise}: one usable noise file only; validation needs another that training "
            "never hears. Add one, or cut this one in two."
        )
    enough = _FEWEST_SPEAKERS, data.validation_files
    held_out = _held_out_speakers(clean, data, folders[0], *enough)
    kept_noise = _held_out_noise([r.name for r in noise], 2 * data.validation_share)
    train = [r for r in clean if r.speaker not in held_out]
    valid = _in_turn([r for r in clean if r.speaker in held_out], data.validation_files)
    train_noise = [r for r in noise if r.name not in kept_noise]
    valid_noise = [r for r in noise if r.name in kept_noise]
    kept = some(sorted(kept_noise), 8)
    log.info("noise: %d files for training; held out: %s", len(train_noise), kept)
    mixed: Any = {name: getattr(data, name) for name in ("snr_db", "babble", "speech_shaped")}
    return (
        MixDataset(train, train_noise, **pieces, **mixed),
        MixDataset(valid, valid_noise, levels=_TEST_LEVELS, **whole, **mixed),
    )


def _held_out_speakers(
    items: Sequence[Pair | Recording], data: Data, where: Path, least: int = 1, utterances: int = 0
) -> set[str]:
    """Return the speakers that are kept from training (`hold_out`)."""
    speakers = [item.speaker for item in items]
    if len(set(speakers)) < 2:
        raise DataError(
            f"{where}: all files are of one speaker ({speakers[0]}); validation needs another. A "
            "file speakers.csv in the clean folder (columns file, speaker) can name them."
        )
    if len(set(speakers)) == len(speakers):
        log.warning(
            f"{where}: each file counts as a speaker of its own, by its name. If one person speaks "
            "in several, that person may be both trained and validated on: name the speakers in "
            "speakers.csv in the clean folder (columns file, speaker)"
        )
    wanted, share = data.validation_speakers, data.validation_share
    return hold_out(speakers, wanted, share, _SPLIT, least, utterances)


def _held_out_noise(names: Sequence[str], share: float) -> set[str]:
    """Return which noise files are kept from training: a share of each folder of several."""
    folders = defaultdict(list)
    for name in names:
        folders[os.path.dirname(name)].append(name)
    kept = [hold_out(files, (), share, _SPLIT) for files in folders.values()]
    return set().union(*kept) or hold_out(names, (), share, _SPLIT)


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
