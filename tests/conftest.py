"""Fixtures of all tests: speech, small corpora and trainers."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from saved_runs import run  # noqa: F401, a fixture

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("clean", "noisy")

# The same examples each time. `make test-slow` searches for others, with its own profile.
settings.register_profile("same", derandomize=True)
settings.register_profile("search", print_blob=True)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def _seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.delenv("BSBIMAMBA_SCAN", raising=False)


@pytest.fixture
def own_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this test caches of its own."""
    monkeypatch.setattr("bsbimamba.data.audio.INDEX", tmp_path / ".cache" / "index.json")
    monkeypatch.setattr("bsbimamba.data.samples.CACHE", tmp_path / ".cache" / "decoded")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of recordings for development, which the repository does not have."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the development recordings (shared/data beside the repository) are not here")
    return folder


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a corpus of 6 training, 2 validation and 4 test pairs."""
    from recordings import put_corpus

    return put_corpus(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture
def make(
    tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """Return a function that makes a trainer of a narrow network with a fake PESQ pool."""
    from fake_pool import FakePool

    from abl1.mbs_net import MBSNet
    from bsbimamba.data.corpus import load_pairs
    from bsbimamba.data.dataset import PairDataset
    from bsbimamba.training import loop as trainer_module
    from bsbimamba.training import precision
    from bsbimamba.training.config import Config, Data, Loss, Optim, Run
    from bsbimamba.training.loop import Trainer

    monkeypatch.setattr(trainer_module, "PesqPool", FakePool)
    monkeypatch.setattr(precision, "can_do", lambda amp: True)  # every CPU can, without an LSTM
    made = []

    def build(folder: str = "run", network: type = MBSNet, **changes: Any) -> Trainer:
        config = replace(
            Config(
                name="test",
                model={"channels": 12, "hidden": 8},
                loss=Loss(metric=0.05),
                data=Data(batch_size=2, crop_seconds=0.5),
                optim=Optim(epochs=2, warmup_steps=0, fall=0.0),
                run=Run(workers=0, device="cpu", amp="off", log_every=100, validate_every=3),
            ),
            **changes,
        )
        frames = round(config.data.crop_seconds * 16000)
        train = PairDataset(load_pairs(tiny_corpus, "train"), config.seed, frames)
        valid = PairDataset(load_pairs(tiny_corpus, "valid"), config.seed, None, 16000)
        for trainer in made:
            if trainer.folder.name == folder:
                trainer.close()
        made.append(Trainer(network, config, train, valid, tmp_path / folder))
        made[-1].pool.noisy = [valid[0, i]["noisy"].numpy() for i in range(len(valid))]
        return made[-1]

    yield build
    for trainer in made:
        trainer.close()


@pytest.fixture(scope="session")
def speech() -> tuple[Any, Any]:
    """Return a clean and a noisy utterance (s,) within [-1, 1]."""
    import soundfile
    from recordings import SAMPLE

    clean, noisy = (soundfile.read(SAMPLE / "test" / side / "p232_114.flac")[0] for side in SIDES)
    return clean, noisy
