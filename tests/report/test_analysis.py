"""Which runs are one model, what is compared with what, groups, and when scores are doubted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from systems import NOISY, analysed, numbered, system, trained

from bsbimamba.data.benchmark import TEST_FILES
from bsbimamba.metrics.scores import METRICS
from bsbimamba.metrics.statistics import Interval, holm
from bsbimamba.report.analysis import (
    NOISE,
    SNR,
    SPEAKER,
    Breakdown,
    choose_baseline,
    doubts,
    find_breakdowns,
    models_of,
    summary,
)
from bsbimamba.report.tables import tables
from bsbimamba.training.config import Config, Data, Loss, Optim, Run, method
from bsbimamba.utils import DataError

# Models


def test_runs_that_differ_in_their_seed_alone_are_one_model():
    runs = [
        system("noisy", {})[0],
        system("x", {}, seed=0)[0],
        system("y", {}, seed=1, family={"is": "another"})[0],
        system("z", {}, seed=1, step=9)[0],  # the best checkpoint of another seed is another step's
        system("again", {}, seed=1)[0],
    ]
    models = models_of(runs)
    assert [model.name for model in models] == ["noisy", "abl3 (2 seeds)", "y", "again"]
    assert models[1].runs == ["x", "z"]
    assert [model.seeds for model in models] == [0, 2, 1, 1]


def test_method_is_all_but_the_seed_the_place_of_the_data_and_the_speed():
    one = method(Config(seed=0, data=Data(root="/a")))
    assert method(Config(seed=1, data=Data(root="/b"), run=Run(workers=3))) == one
    others = (
        Config(optim=Optim(epochs=2)),
        Config(run=Run(amp="fp16")),
        Config(model={"d_state": 8}),
    )
    assert all(method(other) != one for other in others)
    for weight in (0, 0.05):  # labels are for the metric term
        pesq, torch = (
            method(Config(loss=Loss(metric=weight), run=Run(metric_labels=labels)))
            for labels in ("pesq", "torch")
        )
        assert (pesq != torch) is bool(weight)


def test_model_averages_its_runs_and_leaves_out_files_that_one_lacks():
    first = system("x", {"a": 1.0, "b": 2.0}, seed=0, hours=1.0)
    (model,) = analysed(first, system("y", {"a": None, "b": 4.0}, seed=1, hours=2.0)).models
    assert model.fact("hours") == 1.5
    assert np.isnan(model.fact("unknown"))
    assert np.array_equal(model.by_file("pesq_wb"), [np.nan, 3.0], equal_nan=True)
    assert model.means["pesq_wb"] == Interval(3.0, 3.0, 3.0, 1)


@pytest.mark.parametrize(
    ("configurations", "chosen"),
    [
        ({"first": "abl1"}, "noisy"),
        ({"x": "abl3", "base": "bsrnn"}, "base"),
        ({"baseline": "m"}, "baseline"),
    ],
)
def test_baseline_is_bsrnn_or_the_noisy_files(configurations: dict[str, str], chosen: str):
    runs = [system(n, {}, model=m, family={"is": m})[0] for n, m in configurations.items()]
    assert choose_baseline(models_of([system("noisy", {})[0], *runs]), None).name == chosen
    assert choose_baseline(models_of([system("one", {})[0]]), None).name == "one"


def test_baseline_can_be_named_by_model_or_by_run():
    models = models_of([system(n, {}, seed=s)[0] for n, s in (("x", 0), ("y", 1))])
    assert choose_baseline(models, "y") is choose_baseline(models, "abl3 (2 seeds)") is models[0]
    with pytest.raises(DataError, match=r"no z to compare with; there are: abl3 \(2"):
        choose_baseline(models, "z")


def test_p_values_are_corrected_over_the_models_of_one_metric():
    analysis = analysed(*(numbered(f"s{n}", 0.01 * n, seed=n) for n in range(4)), baseline="s0")
    assert [pair.other.name for pair in analysis.comparisons] == ["s1", "s2", "s3"]
    found = [pair.comparisons["stoi"] for pair in analysis.comparisons]
    assert [each.p_holm for each in found] == holm([each.p for each in found])
    pesq, wss = (analysis.comparisons[-1].comparisons[name] for name in ("pesq_wb", "wss"))
    assert pesq.wins > pesq.losses
    assert wss.wins < wss.losses  # lower is better for a distance


def test_primary_pairs_are_known_by_their_configuration():
    """A folder's name counts only for files that have no configuration."""
    renamed = system("abl3", {}, model="uniform31", family={"is": "u"})
    runs = [*trained("bsrnn_bi", 0.0), *trained("abl3", 0.4), *trained("abl2", 0.2)]
    analysis = analysed(renamed, *runs, numbered("lstm_dualpath", 0.0))
    pairs = [(pair.other.name, pair.reference.name) for pair in analysis.primary]
    assert pairs == [("abl3-0", "bsrnn_bi-0"), ("abl2-0", "lstm_dualpath")]
    found = analysis.primary[0].comparisons["pesq_wb"]
    assert found.difference.mean == pytest.approx(0.4)
    assert [table.name for table in tables(analysis)][:2] == ["Scores", "Primary comparisons"]


WHOLE = [f"{who}_{n:03}" for who, count in TEST_FILES.items() for n in range(count)]


def test_benchmarks_noisy_side_is_doubted_unless_it_scores_as_it_should():
    assert doubts(WHOLE, np.full(824, 1.975)) == []
    more = ["another", *(f"wav/{name}" for name in WHOLE)]
    assert doubts(more, np.r_[4.5, np.full(824, 1.97)]) == []
    assert doubts(WHOLE[:393], np.full(393, 3.0)) == []  # another set of files is not judged
    (text,) = doubts(WHOLE, np.full(824, 1.985))
    assert "824 of its 824 files is 1.985 instead of 1.97 ± 0.01" in text
    (text,) = doubts(WHOLE, np.r_[np.nan, np.full(823, 1.97)])
    assert "823 of its 824 files" in text


NAMES = ["p232_001", "p232_002", "p257_001", "p257_002"]
LOG = "p232_001 bus 17.5\np232_002 cafe 2.5\np257_001.wav bus 2.5\np257_002 office 17.5\n"
SNRS = [1.0, 6.0, -9.0, float("inf")]


def breakdowns(names: list[str], root: Path, snrs: Any = None) -> list[Breakdown]:
    return find_breakdowns(pd.Series(snrs, names, dtype=float), root)


@pytest.mark.parametrize("place", ["log_testset.txt", "logfiles/log_testset.txt"])
@pytest.mark.parametrize("root", [".", "test/clean"])
def test_breakdowns_come_from_voicebanks_log(tmp_path: Path, place: str, root: str):
    (tmp_path / "logfiles").mkdir()
    (tmp_path / root).mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text(f"name noise snr\n{LOG}")
    snr, noise, speaker = breakdowns([f"speech/{x}" for x in NAMES], tmp_path / root, SNRS)
    assert (snr.axis, snr.source) == (SNR, "log_testset.txt")
    assert list(snr.groups) == ["0 to 5", "15 to 20"]
    assert snr.groups["0 to 5"] == ["speech/p232_002", "speech/p257_001"]
    assert (noise.axis, list(noise.groups)) == (NOISE, ["bus", "cafe", "office"])
    assert (speaker.axis, list(speaker.groups)) == (SPEAKER, ["p232", "p257"])


def test_breakdowns_come_from_a_table_of_pairs(tmp_path: Path):
    table = tmp_path / "pairs.csv"
    table.write_text(
        "clean,noisy,speaker,noise,snr_db\na.wav,n/a.wav,x,bus,2.5\nb.wav,n/b.wav,y,cafe,-5\n"
    )
    assert breakdowns(["a", "b"], table, [40, 1]) == [
        Breakdown(SNR, "pairs.csv", {"-5 to 0": ["b"], "0 to 5": ["a"]}),
        Breakdown(NOISE, "pairs.csv", {"bus": ["a"], "cafe": ["b"]}),
        Breakdown(SPEAKER, "pairs.csv", {"x": ["a"], "y": ["b"]}),
    ]


def test_measured_snrs_go_into_bins(tmp_path: Path):
    groups = {"below -5": ["c"], "0 to 5": ["a"], "5 to 10": ["b"], "20 and above": ["d"]}
    assert breakdowns(list("abcd"), tmp_path, SNRS) == [Breakdown(SNR, "measured", groups)]


@pytest.mark.parametrize(
    ("one", "other", "speakers"),
    [
        ("p232_001", "p257_002", ["p232", "p257"]),
        ("sub/f01_012_mic1", "f02_001", ["f01", "f02"]),
        ("1089-134686-0001", "121-1-0002", ["1089", "121"]),
        ("p232_001", "p232_002", None),  # one group is no breakdown
        ("take 1", "take 2", None),
    ],
)
def test_speakers_come_from_names(one: str, other: str, speakers: list[str] | None, tmp_path: Path):
    found = breakdowns([one, other], tmp_path)
    assert [list(each.groups) for each in found] == ([speakers] if speakers else [])


def test_summary_holds_everything():
    runs = trained("abl3", 0.4, 0.5, 0.6)
    content = json.loads(summary(analysed(NOISY, *runs, system("none", {"a0": None}))))
    assert (content["files"], content["baseline"]) == (30, "noisy")
    none, one = content["systems"]["none"], content["systems"]["abl3-1"]
    assert none["means"] == dict.fromkeys(METRICS)
    assert none["notes"] == {"a0": "PESQ finds no speech"}
    assert (one["facts"]["seed"], one["scored"]) == (1, dict.fromkeys(METRICS, 30))
    model = content["models"]["abl3 (3 seeds)"]
    assert model["means"]["stoi"].keys() == {"mean", "low", "high", "count"}
    assert np.diff(model["run_means"]["pesq_wb"]) == pytest.approx(0.1)
    assert content["comparisons"]["abl3 (3 seeds)"]["pesq_wb"]["wins"] > 0
    assert content["comparisons"]["none"]["pesq_wb"] is None
    (groups,) = content["breakdowns"]
    assert groups["pesq_wb"]["noisy"].keys() == groups["groups"].keys()
