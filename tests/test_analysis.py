"""Which runs are one model, what is compared with what, and when scores are to be doubted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from systems import FACTS, numbered, system, trained

from data.errors import DataError
from evaluation.analysis import Analysis, AnalysisError, analyse
from evaluation.models import Model, System, kept_apart, models_of, names_of, without_gain
from evaluation.published import BENCHMARK, PUBLISHED, Benchmark
from evaluation.statistics import compare, mean_interval, with_holm
from training.config import Config, Data, Optim, Run, method

OTHER = {"is": "another"}


def run(name: str, **facts: Any) -> System:
    return System(name, numbered(name, 0.1).rows, {**FACTS, **facts})


# Models


def test_runs_that_differ_in_their_seed_alone_are_one_model():
    runs = [run("x", seed=0), run("y", seed=1, family=OTHER), run("z", seed=1, step=9)]
    # The best checkpoint of another seed is another step's.
    models = models_of([numbered("noisy", 0), *runs])
    assert [model.name for model in models] == ["noisy", "abl3 (2 seeds)", "y"]
    assert models[1].systems == [runs[0], runs[2]]
    assert models[1].scores("pesq_wb").shape == (2, 30)


def test_the_hours_of_runs_are_averaged_where_they_are_known():
    runs = [run("x", seed=0, hours=1.0), run("y", seed=1, hours=2.0)]
    assert models_of(runs)[0].facts == {**runs[0].facts, "hours": 1.5}
    assert "hours" not in models_of([runs[0], run("y", seed=1)])[0].facts
    assert "hours" not in models_of([run("y", seed=1), runs[0]])[0].facts


def test_what_runs_of_one_model_have_in_common():
    """All but the seed, where data lie, and how fast a run is carried out."""
    one = method(Config(seed=0, data=Data(root="/a")))
    assert method(Config(seed=1, data=Data(root="/b"), run=Run(workers=3))) == one
    others = [
        Config(optim=Optim(epochs=2)),
        Config(run=Run(amp="fp16")),
        Config(model={"d_state": 8}),
        Config(data=Data(crop_seconds=1.0)),
    ]
    assert all(method(other) != one for other in others)


def test_runs_that_are_not_pooled_say_why():
    """As are those of other data, another length, or another kind of checkpoint."""
    family = {"network": "n", "steps": 9, "checkpoint": "best.pt", "training data": "a"}
    runs = [run("x", seed=0, family=family)]
    for seed, (key, value) in enumerate(
        {"steps": 8, "checkpoint": "last.pt", "training data": "b"}.items(), start=1
    ):
        runs.append(run(key, seed=seed, family={**family, key: value}))
    assert len(models_of(runs)) == 4
    assert kept_apart(runs)[0] == ("steps", "x", ["steps"])
    assert not kept_apart([run("x", seed=0), run("y", seed=1)])
    assert not kept_apart([run("x", seed=0), run("y", seed=1, model="another", family=OTHER)])


def test_the_same_seed_twice_is_no_second_seed():
    models = models_of([run("x", seed=0), run("y", seed=0)])
    assert [model.name for model in models] == ["x", "y"]


def test_folders_of_files_are_never_pooled():
    models = models_of([numbered("one", 0), numbered("two", 0)])
    assert [model.name for model in models] == ["one", "two"]


def test_no_pooled_model_takes_another_systems_name():
    taken = System("abl3 (2 seeds)", numbered("", 0).rows)
    names = [model.name for model in models_of([run("x", seed=0), run("y", seed=1), taken])]
    assert len(set(names)) == 2


def test_a_file_that_one_seed_lacks_is_no_files_mean():
    first = System("x", system("x", {"a": 1.0, "b": 2.0}).rows, {**FACTS, "seed": 0})
    second = System("y", system("y", {"a": None, "b": 4.0}).rows, {**FACTS, "seed": 1})
    model = Model("m", [first, second])
    assert np.array_equal(model.row_scores("pesq_wb"), [math.nan, 3.0], equal_nan=True)
    analysis = analyse([first, second], "corpus", {})
    mean = analysis.means["abl3 (2 seeds)"]["pesq_wb"]
    assert mean is not None
    assert (mean.mean, mean.count) == (3.0, 1)


# Names


def test_a_loop_of_links_has_a_name(tmp_path: Path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert names_of([tmp_path / "loop"]) == ["loop"]


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["runs/abl1", "runs/abl3"], ["abl1", "abl3"]),
        (["today/abl3", "yesterday/abl3"], ["today-abl3", "yesterday-abl3"]),
        (["corpus/noisy"], ["corpus-noisy"]),
        (["runs/abl1/../abl3/."], ["abl3"]),
    ],
)
def test_a_system_is_called_as_its_folder(folders: list[str], names: list[str]):
    assert names_of([Path(folder) for folder in folders]) == names


def test_two_checkpoints_of_a_run_are_called_as_their_files(tmp_path: Path):
    for name in ("best.pt", "last.pt"):
        (tmp_path / name).touch()
    above = tmp_path.parent.name
    assert names_of([tmp_path / "best.pt"]) == [tmp_path.name]
    assert names_of([tmp_path / "best.pt", tmp_path / "last.pt"]) == [
        f"{above}-{tmp_path.name}-best",
        f"{above}-{tmp_path.name}-last",
    ]


def test_two_systems_of_one_name_are_refused():
    with pytest.raises(DataError, match="two runs would be called runs-abl3"):
        names_of([Path("a/runs/abl3"), Path("b/runs/abl3")])


# Whether a system is above the noisy recordings


def pesqs(name: str, *values: float | None) -> System:
    return system(name, {str(number): value for number, value in enumerate(values)})


RECORDED = pesqs("noisy", 1.0, 2.0, None)


@pytest.mark.parametrize(
    ("others", "behind"),
    [
        ([pesqs("a", 1.5, 1.6, 1.0)], []),
        ([pesqs("a", 1.5, 1.6, None)], []),
        ([pesqs("a", 1.0, 2.0, 4.0)], ["a"]),
        ([pesqs("a", 0.5, 2.4, 4.0)], ["a"]),
        ([pesqs("a", 4.0, None, 4.0)], ["a"]),
        ([pesqs("a", None, None, None)], ["a"]),
        ([pesqs("a", 1.1, 2.0, 1.0), pesqs("b", 1.0, 1.0, 1.0)], ["b"]),
        ([pesqs("noisy", 1.0, 1.0, 1.0)], ["noisy"]),
    ],
)
def test_gain(others: list[System], behind: list[str]):
    assert without_gain([RECORDED, *others]) == behind


def test_nothing_is_a_gain_over_recordings_without_a_score():
    assert without_gain([pesqs("noisy", None), pesqs("a", 3.0)]) == ["a"]


# The baseline, and the family of tests


@pytest.mark.parametrize(
    ("systems", "chosen"),
    [
        ([numbered("noisy", 0), run("first", model="abl1", family=OTHER)], "noisy"),
        ([numbered("noisy", 0), run("x"), run("base", model="bsrnn", family=OTHER)], "base"),
        ([numbered("noisy", 0), run("x"), run("baseline", model="m", family=OTHER)], "baseline"),
        ([numbered("one", 0), numbered("two", 0)], "one"),
    ],
)
def test_the_baseline_if_nobody_names_one(systems: list[System], chosen: str):
    assert analyse(systems, "corpus", {}).baseline.name == chosen


def test_a_baseline_can_be_named_by_model_or_by_run():
    systems = [numbered("noisy", 0), run("x", seed=0), run("y", seed=1)]
    for name in ("abl3 (2 seeds)", "y"):
        assert analyse(systems, "", {}, baseline=name).baseline.name == "abl3 (2 seeds)"
    with pytest.raises(AnalysisError, match=r"no z to compare with; there are: noisy, abl3 \(2"):
        analyse(systems, "", {}, baseline="z")


def test_p_values_are_corrected_over_the_models_of_one_metric():
    systems = [numbered(f"s{n}", 0.01 * n, seed=n) for n in range(4)]
    analysis = analyse(systems, "", {}, baseline="s0")
    values = [each.values("stoi")[None] for each in systems]
    expected = with_holm([compare(values[0], other, 0.001) for other in values[1:]])
    found = [analysis.comparisons[f"s{n}"]["stoi"] for n in (1, 2, 3)]
    assert found == expected
    assert "s0" not in analysis.comparisons


def test_primary_pairs_are_known_by_their_configuration():
    """A folder's name counts only for files that have no configuration."""
    renamed = run("abl3", model="uniform31", family={"is": "u"})
    reference, other = trained("bsrnn_bi", 0.0), trained("abl3", 0.4)
    analysis = analyse([renamed, *reference, *other], "", {})
    (pair,) = analysis.primary
    assert (pair.other.systems, pair.reference.systems) == (other, reference)
    comparison = pair.comparisons["pesq_wb"]
    assert comparison is not None
    assert comparison.difference.mean == pytest.approx(0.4)
    assert comparison.p_holm == comparison.p
    folders = analyse([numbered("bsrnn_bi", 0), numbered("abl3", 0.4)], "", {})
    assert [pair.other.name for pair in folders.primary] == ["abl3"]
    assert not analyse([renamed, *reference], "", {}).primary


def test_primary_pairs_are_corrected_over_themselves():
    systems = [
        *(*trained("bsrnn_bi", 0.0), *trained("abl3", 0.4)),
        *(*trained("lstm_dualpath", 0.0), *trained("abl2", 0.4), numbered("else", 1)),
    ]
    for pair in analyse(systems, "", {}).primary:
        comparison = pair.comparisons["pesq_wb"]
        assert comparison is not None
        assert comparison.p is not None
        assert comparison.p_holm == pytest.approx(2 * comparison.p)


def test_lower_is_better_for_distances():
    analysis = analyse([numbered("one", 0), numbered("two", 1, seed=1)], "", {})
    pesq, wss = (analysis.comparisons["two"][name] for name in ("pesq_wb", "wss"))
    assert pesq is not None
    assert wss is not None
    assert (pesq.wins, pesq.losses) == (wss.losses, wss.wins) == (30, 0)


# Breakdowns


def test_groups_have_their_own_means():
    """The noisy side's measured SNR, where no table and no name says more."""
    noisy = system("noisy", {f"a{n}": 0.3 * n for n in range(30)})
    snrs = noisy.values("snr")
    analysis = analyse([noisy, numbered("one", 1)], "", {})
    ((breakdown, means),) = analysis.breakdowns
    assert (breakdown.axis, breakdown.source) == ("input SNR (dB)", "measured")
    assert sum(map(len, breakdown.groups.values())) == 30
    for label, names in breakdown.groups.items():
        members = [analysis.utterances.index(name) for name in names]
        assert (snrs[members] < 5).all() == (label == "0 to 5")
        expected = mean_interval(noisy.values("pesq_wb")[members][None])
        assert means["noisy"]["pesq_wb"][label] == expected


# The benchmark

SMALL = Benchmark("the small benchmark", {"p232": 2, "p257": 1}, 1.97, 0.02)
WHOLE = ["p232_001", "p232_002", "p257_009"]


def scored(names: list[str], *values: float | None) -> Analysis:
    return analyse(
        [system("noisy", dict(zip(names, values, strict=True))), system("x", dict.fromkeys(names))],
        "corpus",
        {},
        benchmark=SMALL,
    )


@pytest.mark.parametrize("values", [(1.97, 1.97, 1.97), (1.0, 1.0, 3.96), (1.0, 1.0, 3.86)])
def test_a_right_noisy_side_is_not_doubted(values: tuple[float, ...]):
    analysis = scored(WHOLE, *values)
    assert analysis.benchmark == [0, 1, 2]
    assert not analysis.warnings


@pytest.mark.parametrize("values", [(1.97, 1.97, 2.04), (1.0, 1.0, 3.84)])
def test_a_wrong_noisy_side_is_doubted(values: tuple[float, ...]):
    (text,) = scored(WHOLE, *values).warnings
    assert "their PESQ is " in text
    assert "instead of 1.97 ± 0.02" in text


def test_a_noisy_side_without_all_scores_is_doubted():
    (text,) = scored(WHOLE, 1.97, 1.97, None).warnings
    assert "only 2 of 3 have a PESQ" in text


def test_other_files_beside_the_benchmark_do_not_hide_it():
    names = ["another", "wav/p232_001", "wav/p232_002", "p226_001", "wav/p257_009"]
    assert not scored(names, 4.5, 1.97, 1.97, 4.5, 1.97).warnings
    analysis = scored(names, 1.97, 1.97, 1.97, 1.97, 4.5)
    assert analysis.benchmark == [1, 2, 4]
    assert "their PESQ is 2.813 instead of" in analysis.warnings[0]


@pytest.mark.parametrize(
    "names",
    [
        ["p232_001", "p232_002"],
        ["p232_001", "p232_002", "p257_009", "p257_010"],
        ["p232_001", "p232_002", "p226_001"],
        ["p232_001", "p232_002", "other"],
        ["p232_001", "p232_002", "p257_009_mic1"],
    ],
)
def test_another_set_of_files_is_not_judged(names: list[str]):
    analysis = scored(names, *[3.0] * len(names))
    assert not analysis.benchmark
    assert not analysis.warnings


def test_the_benchmark_is_the_one_that_is_known():
    assert sum(BENCHMARK.files.values()) == 824
    names = [f"p232_{n:03}" for n in range(393)] + [f"p257_{n:03}" for n in range(431)]
    assert len(BENCHMARK.members(names)) == 824
    assert not BENCHMARK.members(names[1:])
    assert all(3 < each.pesq < 3.7 for each in PUBLISHED)


def test_p232_alone_is_not_the_benchmark(shared_data: Path):
    names = [path.stem for path in (shared_data / "voicebank_demand_p232" / "noisy").iterdir()]
    assert len(names) == BENCHMARK.files["p232"]
    assert not BENCHMARK.members(names)
