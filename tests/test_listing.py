"""Which files make pairs: names of the DNS challenge, tables of pairs, names nearly right."""

from __future__ import annotations

from pathlib import Path

import pytest
from recordings import put, put_pairs

from data.corpus import has_split, list_pairs, load_pairs, pair_up
from data.utils import DataError

DNS = "book_00041_chp_0009_reader_{:05}_8_street_snr{}_tl-24_fileid_{}"


pytestmark = pytest.mark.usefixtures("own_index")


def test_names_of_the_dns_challenge(tmp_path: Path):
    for number, reader in ((0, 6709), (1, 6709), (10, 11)):
        put(tmp_path / "clean" / f"clean_fileid_{number}.wav", seed=number)
        put(tmp_path / "noisy" / f"{DNS.format(reader, 5, number)}.wav", seed=50 + number)
    pairs = load_pairs(tmp_path, "train")
    assert [(pair.clean.name, pair.noisy.stem, pair.speaker) for pair in pairs] == [
        ("clean_fileid_10.wav", DNS.format(11, 5, 10), "reader_00011"),
        ("clean_fileid_0.wav", DNS.format(6709, 5, 0), "reader_06709"),
        ("clean_fileid_1.wav", DNS.format(6709, 5, 1), "reader_06709"),
    ]
    assert [pair.name for pair in pairs] == [pair.noisy.stem for pair in pairs]


def test_several_noisy_files_of_one_clean_one_and_none(tmp_path: Path):
    for number in (3, 4):
        put(tmp_path / "clean" / f"clean_fileid_{number}.wav", seed=number)
    for snr in (0, 10):
        put(tmp_path / "noisy" / f"{DNS.format(1, snr, 3)}.wav", seed=snr)
    put(tmp_path / "noisy" / "other_fileid_33.wav")
    with pytest.raises(DataError) as caught:
        load_pairs(tmp_path, "train")
    assert "clean_fileid_4.wav: has no noisy file of that name" in str(caught.value)
    assert "other_fileid_33.wav: has no clean file of that name" in str(caught.value)
    pairs = load_pairs(tmp_path, "train", skip_bad=True)
    assert {pair.clean.name for pair in pairs} == {"clean_fileid_3.wav"}
    assert len(pairs) == 2


def test_sub_folders_number_their_files_each_for_itself(tmp_path: Path):
    for folder, number in (("a", "4"), ("b", "04")):
        put(tmp_path / "clean" / folder / f"clean_fileid_{number}.wav")
        put(tmp_path / "noisy" / folder / "x_fileid_4.wav")
    pairs = load_pairs(tmp_path, "train")
    assert [(p.clean.parent.name, p.noisy.parent.name) for p in pairs] == [("a", "a"), ("b", "b")]


def test_a_clean_file_has_one_speaker(tmp_path: Path):
    """Or it would be in training and in validation by different noisy files."""
    put(tmp_path / "clean" / "clean_fileid_0.wav")
    for name in ("a_snr5", DNS.format(3, 5, 0)[:-9], DNS.format(2, 5, 0)[:-9]):
        put(tmp_path / "noisy" / f"{name}_fileid_0.wav")
    assert {pair.speaker for pair in load_pairs(tmp_path, "train")} == {"reader_00002"}
    path = _table(
        tmp_path,
        "Clean,Noisy,Speaker,Name\nclean/clean_fileid_0.wav,noisy/a_snr5_fileid_0.wav,ann,1\n"
        "noisy/../clean/clean_fileid_0.wav,noisy/a_snr5_fileid_0.wav,bob,2\n",
    )
    assert {pair.speaker for pair in load_pairs(path, "train")} == {"ann"}


@pytest.mark.parametrize("name", ["vctk_p232_001", "noisy_P257 1", "book_reader_00001_p232_1"])
def test_test_speakers_are_found_wherever_they_are_named(tmp_path: Path, name: str):
    put(tmp_path / "c" / "clean_fileid_0.wav")
    put(tmp_path / "c" / f"{name}.wav", seed=1)
    put(tmp_path / "clean" / "clean_fileid_1.wav")
    put(tmp_path / "noisy" / f"{name}_fileid_1.wav", seed=2)
    (tmp_path / "lists").mkdir()
    path = _table(tmp_path / "lists", f"clean,noisy\n../c/{name}.wav,../c/clean_fileid_0.wav\n")
    for root in (path, tmp_path):
        with pytest.raises(DataError, match=r"p2.. is a test speaker of VoiceBank-DEMAND"):
            load_pairs(root, "train")


def test_speakers_csv_is_believed_of_dns_files_too(tmp_path: Path):
    put(tmp_path / "clean" / "clean_fileid_0.wav")
    put(tmp_path / "noisy" / f"{DNS.format(1, 5, 0)}.wav")
    (tmp_path / "clean" / "speakers.csv").write_text("file,speaker\nclean_fileid_0.wav,ann\n")
    assert [pair.speaker for pair in load_pairs(tmp_path, "train")] == ["ann"]


def test_a_dns_file_of_nobody_is_a_speaker_by_itself(tmp_path: Path):
    for number in (0, 1):
        put(tmp_path / "clean" / f"clean_fileid_{number}.wav", seed=number)
        put(tmp_path / "noisy" / f"x_fileid_{number}.wav", seed=9 + number)
    speakers = [pair.speaker for pair in load_pairs(tmp_path, "train")]
    assert speakers == ["clean_fileid_0", "clean_fileid_1"]


def test_names_that_are_the_same_go_before_numbers():
    one, two = Path("1"), Path("2")
    clean = {"clean_fileid_1": one, "a_fileid_1": two}
    assert pair_up(clean, {"a_fileid_1": Path("x")}) == {"a_fileid_1": two, "clean_fileid_1": one}


def test_a_folder_in_one_of_its_name_is_that_folder(tmp_path: Path):
    for side in ("clean", "noisy"):
        folder = tmp_path / f"{side}_trainset_28spk_wav"
        put(folder / folder.name / "p226_001.wav")
    (pair,) = load_pairs(tmp_path, "train")
    assert pair.name == "p226_001"
    assert pair.speaker == "p226"


# Tables


def _table(root: Path, text: str) -> Path:
    path = root / "pairs.csv"
    path.write_text(text, "utf-8")
    return path


def test_a_table_of_pairs(tmp_path: Path):
    for name in ("one/ü 1.wav", "one/2.wav", "far/3.flac", "x/a.wav", "x/b.wav", "x/c.wav"):
        put(tmp_path / name)
    (tmp_path / "lists").mkdir()
    path = _table(
        tmp_path / "lists",
        "\ufeffnoisy,clean,speaker,split,name,other\n"
        "../x/a.wav,../one/ü 1.wav,ann,train,,7\n"
        f'{tmp_path / "x/b.wav"}, ../one/2.wav ,"bob, jr",valid,second,\n'
        "../x/c.wav,../far/3.flac,,test,,\n",
    )
    (first,), (second,), (third,) = (load_pairs(path, s) for s in ("train", "valid", "test"))
    assert (first.name, first.speaker) == ("one/ü 1", "ann")
    assert (second.name, second.speaker) == ("second", "bob, jr")
    assert third.speaker == "far"
    assert [p.noisy.name for p in (first, second, third)] == ["a.wav", "b.wav", "c.wav"]


def test_a_table_without_splits_serves_for_both(tmp_path: Path):
    put_pairs(tmp_path, ["s1_1.wav", "s2_1.wav"])
    path = _table(
        tmp_path, "clean,noisy\nclean/s1_1.wav,noisy/s1_1.wav\nclean/s2_1.wav,noisy/s2_1.wav\n"
    )
    assert load_pairs(path, "train") == load_pairs(path, "test")
    assert [pair.speaker for pair in load_pairs(path, "train")] == ["s1", "s2"]
    assert not has_split(path, "valid")
    with pytest.raises(DataError, match=r"pairs.csv: no valid pairs$"):
        list_pairs(path, "valid")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected a first line with the columns clean and noisy"),
        ("clean;noisy\na;b\n", "expected a first line"),
        ("clean,noisy\na.wav\n", "line 2 lacks one of clean, noisy"),
        ("clean,noisy\na.wav,\n", "line 2 lacks"),
        ("clean,noisy,split\na.wav,b.wav,dev\n", "line 2: split 'dev' is not one of"),
        ("clean,noisy\na.wav,b.wav\na.wav,c.wav\n", "line 3: a second pair is called a"),
        ("clean,noisy,split\na.wav,b.wav,train\nc.wav,d.wav,\n", "line 3: split '' is not one of"),
        ("clean,noisy,name\na.wav,b.wav,../../c\n", "leads out of a folder"),
        ("clean,noisy,name\na.wav,b.wav,/c\n", "leads out of a folder"),
        ("clean,noisy,snr_db\na.wav,b.wav,loud\n", "line 2: snr_db 'loud' is not a number"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str, reason: str):
    with pytest.raises(DataError, match=reason):
        load_pairs(_table(tmp_path, text), "train")


def test_a_table_that_is_no_text(tmp_path: Path):
    path = tmp_path / "pairs.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"pairs.csv is not a table in UTF-8"):
        load_pairs(path, "train")
    with pytest.raises(DataError, match=r"missing.csv cannot be read"):
        load_pairs(tmp_path / "missing.csv", "train")


def test_a_folder_called_csv_is_a_folder(tmp_path: Path):
    put_pairs(tmp_path / "corpus.csv", ["s_1.wav"])
    assert len(load_pairs(tmp_path / "corpus.csv", "train")) == 1
