"""The page of claims: verdicts follow from figures, and what others published is none of them."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from benchmarks import claims
from benchmarks.choices import (
    CHOICES,
    CLAIMS,
    FAILS,
    HOLDS,
    MORE,
    NO_CARD,
    VARIANTS,
    WHOLE,
    Variant,
)
from benchmarks.claims_page import NOT_MEASURED, render
from benchmarks.fitting import usable

MIB = 2**20
CHECKPOINTING, TIME, MIXED, BOTH, CARD = (CLAIMS[number].text for number in range(4, 9))


def made_up() -> dict[str, Any]:
    """What measuring might give on a CPU: everything the same, but for what the tests change."""
    figures: dict[str, dict[str, Any]] = {
        name: {
            "peak": 1000 * MIB,
            "kept": 900 * MIB,
            "train": [1.0, 3.0, 2.0],
            "enhance": [0.5, 0.5, 0.5],
        }
        for name in VARIANTS
    }
    for name in WHOLE:
        figures[name]["whole"] = 3_000_000_000
    entry = {
        "device": "a processor", "date": "2026-01-02T03:04:05+00:00", "commit": "0123456789",
        "versions": {"torch": "2"}, "cuda": False, "threads": 2,
        "batch": 6, "crop": 2.0, "rounds": 3,
    }  # fmt: skip
    return {
        "sizes": {name: {"parameters": 2_000_936, "macs_per_second": 6.43e9} for name in VARIANTS},
        "machines": {"cpu": {**entry, "variants": figures}},
    }


def with_cost(variant: str, cost: str, value: Any) -> dict[str, Any]:
    found = made_up()
    found["machines"]["cpu"]["variants"][variant][cost] = value
    return found


def on_a_gpu(found: dict[str, Any]) -> dict[str, Any]:
    """The same, with the CPU's figures as a GPU's, too."""
    entry = copy.deepcopy(found["machines"]["cpu"])
    return {**found, "machines": {**found["machines"], "cuda": {**entry, "cuda": True}}}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def claim(found: dict[str, Any], text: str) -> dict[str, str]:
    """The cells of a claim's row, by their headings."""
    lines = render(found).splitlines()
    heads = next(cells(line) for line in lines if line.startswith("| claim "))
    row = next(cells(line) for line in lines if line.startswith("|") and cells(line)[0] == text)
    return dict(zip(heads, row, strict=True))


@pytest.mark.parametrize(
    ("peak", "verdict"), [(600, FAILS), (501, FAILS), (499, HOLDS), (401, HOLDS), (399, MORE)]
)
def test_a_saving_is_judged_by_its_bounds(peak: int, verdict: str) -> None:
    row = claim(with_cost("abl3", "peak", peak * MIB), CHECKPOINTING)
    assert row["verdict, CPU"] == verdict
    assert row["measured, CPU"] == f"peak memory −{(1000 - peak) / 10:.1f} %"


@pytest.mark.parametrize(("seconds", "verdict"), [(2.19, HOLDS), (2.21, FAILS)])
def test_time_is_judged_by_medians(seconds: float, verdict: str) -> None:
    found = with_cost("abl3", "train", [seconds, 0.1, 99.0])
    assert claim(found, TIME)["verdict, CPU"] == verdict


def test_mixed_precision_and_both_are_judged_by_their_own_variants() -> None:
    mixed = with_cost("abl3, use_checkpoint False, bf16", "peak", 550 * MIB)
    assert claim(mixed, MIXED)["verdict, CPU"] == MORE
    assert claim(mixed, BOTH)["verdict, CPU"] == FAILS
    both = with_cost("abl3, bf16", "peak", 250 * MIB)
    assert claim(both, MIXED)["verdict, CPU"] == FAILS
    assert claim(both, BOTH)["verdict, CPU"] == HOLDS


@pytest.mark.parametrize(("more", "verdict"), [(0, HOLDS), (1, FAILS)])
@pytest.mark.parametrize("name", WHOLE)
def test_the_card_must_hold_either_precision(name: str, more: int, verdict: str) -> None:
    found = on_a_gpu(with_cost(name, "whole", usable() + more))
    assert claim(found, CARD)["verdict, GPU"] == verdict


def test_bytes_of_a_cpu_say_nothing_about_the_card() -> None:
    row = claim(with_cost("abl3", "whole", 2_000_000_000), CARD)
    assert row["verdict, CPU"] == NO_CARD
    assert row["measured, CPU"].startswith("counted on a CPU: a whole step takes 2.00 GB in fp32")
    assert row["verdict, GPU"] == ""


def test_a_machine_says_when_and_of_what_code() -> None:
    line = "- CPU: a processor, 2026-01-02, commit 0123456789; torch 2; 2 threads; 6 crops of 2 s"
    assert line in render(made_up())


def test_a_smaller_batch_says_nothing_about_the_card() -> None:
    found = made_up()
    found["machines"]["cpu"]["batch"] = 2
    row = claim(found, CARD)
    assert (row["measured, CPU"], row["verdict, CPU"]) == (NOT_MEASURED, "")


@pytest.mark.parametrize(
    ("number", "variant"),
    [(1, "abl1, chunk_size 64"), (2, "abl3")],
)
def test_choices_that_claim_something_are_judged(number: int, variant: str) -> None:
    found = with_cost(variant, "peak", 400 * MIB)
    found["machines"]["cpu"]["variants"][variant]["train"] = [0.5]
    assert claim(found, CLAIMS[number].text)["verdict, CPU"] == HOLDS
    found["machines"]["cpu"]["variants"][variant]["train"] = [5.0]
    assert claim(found, CLAIMS[number].text)["verdict, CPU"] == FAILS


def test_what_is_missing_is_not_measured() -> None:
    found = made_up()
    assert claim(found, CHECKPOINTING)["measured, GPU"] == NOT_MEASURED
    del found["machines"]["cpu"]["variants"]["abl3, use_checkpoint False"]
    row = claim(found, CHECKPOINTING)
    assert (row["measured, CPU"], row["verdict, CPU"]) == (NOT_MEASURED, "")
    nothing = render({"sizes": {}, "machines": {}})
    assert "MiB" not in nothing.partition("## Choices")[2].partition("###")[2]
    assert "- CPU: not measured\n- GPU: not measured" in nothing


def test_a_gpu_has_figures_of_its_own() -> None:
    found = on_a_gpu(made_up())
    found["machines"]["cuda"]["variants"]["abl3"]["peak"] = 450 * MIB
    row = claim(found, CHECKPOINTING)
    assert (row["verdict, CPU"], row["verdict, GPU"]) == (FAILS, HOLDS)


def test_published_figures_are_in_their_own_column() -> None:
    """Whatever is measured, its columns hold no figure from elsewhere."""
    found = made_up()
    for each in CLAIMS:
        row = claim(found, each.text)
        assert row.pop("published or expected, by whom") == each.stated
        for heading, cell in row.items():
            if heading.startswith(("measured", "verdict")):
                assert not any(figure in cell for figure in ("86.8", "2.8", "1248", "50 to 60"))
    page = render(found)
    assert page.count("86.8") == page.count("1248 × 1248") == 1
    for each in CLAIMS:  # a figure says whose it is
        whose = re.match(r"\w[\w ]*'s [\w ]+: ", each.stated)
        assert whose or not re.search(r"\d", each.stated), each.stated


def test_a_choice_shows_medians_with_spread_and_shares() -> None:
    found = with_cost("abl3, d_state 32", "train", [4.0, 4.0, 5.0])
    found["machines"]["cpu"]["variants"]["abl3, d_state 32"]["peak"] = 1500 * MIB
    table = render(found).partition("### States")[2].partition("###")[0].splitlines()
    chosen, larger = (
        next(line for line in table if line.startswith(f"| {x} ")) for x in ("16", "32")
    )
    assert cells(chosen)[1:4] == ["2,000,936", "6.43", "CPU"]
    assert cells(chosen)[5:7] == ["1,000 MiB", "2,000.0 ms (1,000.0 to 3,000.0)"]
    assert cells(larger)[5:7] == ["1,500 MiB, +50 %", "4,000.0 ms (4,000.0 to 5,000.0), +100 %"]


def test_every_variant_is_shown_and_every_row_is_a_variant() -> None:
    shown = {name for choice in CHOICES for name in choice.rows.values()}
    assert shown == set(VARIANTS)


def test_the_command_measures_and_renders(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    narrow = {"model.channels": 8}
    few = {"abl3": Variant("abl3", narrow), "abl1, long": Variant("abl1", narrow, is_long=True)}
    monkeypatch.setattr(claims, "VARIANTS", few)
    other = made_up()["machines"]["cpu"]
    (tmp_path / "claims.json").write_text(json.dumps({"sizes": {}, "machines": {"cuda": other}}))
    common = ["--out", str(tmp_path)]
    claims.main(["--device", "cpu", "--batch", "1", "--crop", "0.25", "--rounds", "2", *common])
    found = json.loads((tmp_path / "claims.json").read_text())
    assert found["machines"]["cuda"] == other
    figures = found["machines"]["cpu"]["variants"]
    assert set(figures) == set(found["sizes"]) == set(few)
    for each in figures.values():
        assert 0 < each["kept"] < each["peak"]
        assert len(each["train"]) == len(each["enhance"]) == 2
    assert figures["abl3"]["whole"] > figures["abl3"]["peak"]
    assert "whole" not in figures["abl1, long"]
    page = (tmp_path / "claims.md").read_text()
    assert page == render(found)
    (tmp_path / "claims.md").unlink()
    claims.main(["--render", *common])
    assert (tmp_path / "claims.md").read_text() == page


def test_without_figures_there_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="measure first"):
        claims.main(["--render", "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_the_page_in_docs_is_that_of_the_figures_beside_it() -> None:
    figures, page = ROOT / "docs" / "claims.json", ROOT / "docs" / "claims.md"
    if not figures.exists():
        assert not page.exists()
        pytest.skip("docs/claims.json is not there yet: python -m benchmarks.claims measures it")
    found = json.loads(figures.read_text(encoding="utf-8"))
    assert page.read_text(encoding="utf-8") == render(found), "python -m benchmarks.claims --render"
