"""The page's server: what it refuses, what it never does, what it leaves behind."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from page_server import API, Served, end, serving
from recordings import sound
from saved_runs import save_run

from page.upload import MOST_BYTES


def wav(x: np.ndarray, rate: int = 16000, subtype: str = "PCM_16", kind: str = "WAV") -> bytes:
    """Samples (s,) or (s, c) as a file's content."""
    content = io.BytesIO()
    sf.write(content, x, rate, subtype, format=kind)
    return content.getvalue()


def named(value: object) -> str | None:
    """What a case is called: not by its bytes."""
    return "content" if isinstance(value, bytes) else None


SPOKEN = sound(1.0)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("text.wav", b"no audio at all", "cannot be decoded"),
        ("empty.wav", b"", "empty: no bytes"),
        ("nothing.wav", wav(SPOKEN[:0]), "empty: no samples"),
        ("lies.wav", wav(SPOKEN)[:20000], "cut short"),
        ("nan.wav", wav(np.full(4000, np.nan), subtype="FLOAT"), "NaN or infinite"),
        ("slow.wav", wav(SPOKEN, 2000), "a sampling rate of 2000 Hz"),
        ("fast.wav", wav(SPOKEN, 384000), "at most 192000 Hz"),
        ("wide.wav", wav(np.tile(SPOKEN[:100, None], 9)), "9 channels: at most 8"),
        ("long.flac", wav(np.zeros(4000 * 601), 4000, kind="FLAC"), "too long: 10.0 minutes"),
        ("many.flac", wav(np.zeros((4000 * 301, 4)), 4000, kind="FLAC"), "4 channels of 5.0 min"),
        ("browser.webm", b"\x1aE\xdf\xa3" + bytes(500), "What can be read: wav, flac"),
    ],
    ids=named,
)
def test_what_is_no_recording_is_refused_with_the_reason(
    served: Served, name: str, content: bytes, reason: str
):
    before = set(served.results)
    status, path = served.upload(name, content)
    assert status == 200
    shown = served.enhanced(path, ["small"], f"refused-{name}")
    assert reason in shown
    assert f"{name}: " in shown
    assert 'role=\\"alert' in shown
    assert "Traceback" not in shown
    assert str(served.folder) not in shown
    assert set(served.results) == before


@pytest.mark.parametrize(
    ("name", "content", "facts"),
    [
        ("one.wav", wav(SPOKEN[:1]), "1 sample, 16,000 Hz"),
        ("silent.wav", wav(np.zeros(4000)), "<li>silent</li>"),
        ("loud.wav", wav(np.sign(SPOKEN) * (np.arange(16000) % 2)), "clipped: 50 %"),
        ("low.wav", wav(SPOKEN, 4000), "4,000 Hz, 1 channel"),
        ("high.wav", wav(SPOKEN, 192000), "above 8 kHz is taken away"),
        ("eight.wav", wav(np.tile(SPOKEN[:, None], 8)), "8 channels"),
        ("some.ogg", wav(SPOKEN, subtype="VORBIS", kind="OGG"), "OGG VORBIS"),
        ("some.mp3", wav(SPOKEN, subtype="MPEG_LAYER_III", kind="MP3"), "MPEG_LAYER_III"),
    ],
    ids=named,
)
def test_odd_recordings_are_enhanced(served: Served, name: str, content: bytes, facts: str):
    before = set(served.results)
    status, path = served.upload(name, content)
    assert status == 200
    assert facts in served.enhanced(path, ["small"], f"odd-{name}")
    (made,) = set(served.results) - before
    assert sorted(file.name for file in made.iterdir()) == [
        *("0-enhanced.png", "0-enhanced.wav", "0-removed.png", "0-removed.wav"),
        *("noisy.png", "noisy.wav"),
    ]
    stored = [sf.info(made / f"{each}.wav") for each in ("noisy", "0-enhanced", "0-removed")]
    assert len({(each.frames, each.samplerate, each.channels) for each in stored}) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "http://example.com/a.wav",
        "https://huggingface.co/a.wav",
        "file:///etc/passwd",
        "data:audio/wav;base64,UklGRg==",
        "UPLOADS/../../../../../../etc/passwd",
        "UPLOADS/gone.wav",
        "UPLOADS",
        "app.py",
        "",
    ],
)
def test_files_that_were_not_uploaded_are_not_read(served: Served, path: str):
    path = path.replace("UPLOADS", str(served.folder / "uploads"))
    status, answer = served.join(path, ["small"], "stranger")
    assert status == 403
    assert answer["detail"].startswith("only files that were uploaded here can be enhanced")
    assert served.connections() == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{API}/file=/etc/passwd", 403),
        (f"{API}/file=FOLDER/uploads/../../../../etc/passwd", 403),
        (f"{API}/file=FOLDER/uploads/%2e%2e/%2e%2e/connections", 403),
        (f"{API}/file=FOLDER", 403),
        (f"{API}/file=FOLDER/uploads", 403),
        (f"{API}/file=FOLDER/uploads/%00", 403),
        (f"{API}/file=app.py", 403),
        (f"{API}/file=http://example.com/", 403),
        (f"{API}/file=https://huggingface.co/", 403),
        (f"{API}/file/etc/passwd", 404),
        (f"{API}/proxy=https://huggingface.co/", 404),
        (f"{API}/info", 404),
        (f"{API}/runs", 404),
        (f"{API}/vibe-code/", 404),
        ("/file=/etc/passwd", 404),
        ("/results/", 404),
        ("/results/..%2f..%2fetc%2fpasswd", 404),
        ("/results/unknown", 404),
        ("/static/..%2f..%2f..%2froutes.py", 403),
        ("/assets/../../../../etc/passwd", 403),
        ("/monitoring", 404),
        ("/docs", 404),
        ("/openapi.json", 404),
        ("/llms.txt", 404),
    ],
)
def test_nothing_of_the_machine_can_be_read(served: Served, path: str, status: int):
    answered, content, _ = served.ask("GET", path.replace("FOLDER", str(served.folder)))
    assert answered == status, content
    assert b"root:" not in content
    assert served.connections() == []


@pytest.mark.parametrize(
    "path",
    [
        *("/run/run", "/api/run", "/call/run", "/call/v2/run", "/component_server"),
        *("/process_recording", "/vibe-edit/", "/run-history/connect", "/stream/x"),
    ],
)
def test_there_is_no_other_way_in(served: Served, path: str):
    status, content, _ = served.ask(
        "POST", API + path, b'{"data": []}', Content_Type="application/json"
    )
    assert (status, content) == (404, b'{"detail": "not found"}')


def test_only_its_own_page_may_ask(served: Served):
    assert served.ask("GET", "/", Host="evil.example:80")[0] == 403
    assert served.ask("GET", "/", Host=f"localhost:{served.port}")[0] == 200
    own = f"http://127.0.0.1:{served.port}"
    for origin, status in ((own, 422), ("http://evil.example", 403), ("null", 403)):
        asked = served.ask(
            "POST", f"{API}/cancel", b"{}", Origin=origin, Content_Type="application/json"
        )
        assert asked[0] == status, origin


def test_browsers_are_told_to_ask_nobody_else(served: Served):
    headers = served.ask("GET", "/")[2]
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("../../../evil.wav", "evil.wav"),
        ("..\\\\..\\\\evil.wav", None),
        ("<img src=x onerror=alert(1)>.wav", None),
        ("%22 $" + "{alert(1)} {{x}} `.wav", None),
        ("a" * 400 + ".wav", None),
    ],
)
def test_names_do_no_harm(served: Served, name: str, stored: str | None):
    status, path = served.upload(name, wav(SPOKEN))
    assert status == 200
    assert Path(path).is_relative_to(served.folder / "uploads")
    assert stored in (None, Path(path).name)
    shown = served.enhanced(path, ["small"], f"named-{len(name)}")
    assert "Done." in shown
    assert "<img src=x" not in shown
    assert "${" not in shown
    assert "{{" not in shown


def test_an_upload_may_not_be_larger_than_said(served: Served):
    assert served.ask(
        "POST",
        f"{API}/upload",
        b"x",
        Content_Length=str(MOST_BYTES + 100_000),
        Content_Type="multipart/form-data; boundary=x",
    )[0] == 413  # fmt: skip
    before = list((served.folder / "uploads").rglob("*"))
    status, reason = served.upload("large.wav", bytes(MOST_BYTES + 10))
    assert status == 413
    assert "maximum allowed size" in reason
    assert set(before) == set((served.folder / "uploads").rglob("*"))


def test_a_request_may_not_be_long_nor_nonsense(served: Served):
    kind = {"Content_Type": "application/json"}
    assert served.ask("POST", f"{API}/queue/join", b" " * 70_000, **kind)[0] == 413
    for body in (b"no json", b"[" * 60_000, b'{"data": [{"path": 7}]}'):
        assert served.ask("POST", f"{API}/queue/join", body, **kind)[0] == 403


def test_a_choice_that_is_none_is_said_to_be(served: Served):
    _, path = served.upload("a.wav", wav(SPOKEN))
    assert "Choose a model." in served.enhanced(path, [], "none-chosen")
    assert "Upload a recording first" in served.enhanced(None, ["small"], "no-file")
    assert served.join(path, ["unknown"], "unknown-model")[0] == 200
    assert '"success": false' in json.dumps(served.result("unknown-model"))


def test_only_so_many_may_wait(served: Served):
    """One is worked on, eight wait, the others are told that there are too many."""
    _, path = served.upload("long.wav", wav(np.tile(SPOKEN, 10)))
    found = [served.join(path, ["small"], f"crowd{n}") for n in range(12)]
    statuses = [status for status, _ in found]
    assert statuses.count(200) in (9, 10)
    assert statuses.count(503) == 12 - statuses.count(200)
    assert "full" in str(found[-1][1]).lower()
    for number, status in enumerate(statuses):
        if status == 200:
            assert "Done." in json.dumps(served.result(f"crowd{number}"))


def test_what_is_cancelled_is_worked_on_no_longer(served: Served):
    before = set(served.results)
    _, path = served.upload("longer.wav", wav(np.tile(SPOKEN, 590)))
    status, answer = served.join(path, ["small", "other"], "cancelled")
    assert status == 200
    until(lambda: set(served.results) - before)
    (made,) = set(served.results) - before
    call = {"session_hash": "cancelled", "fn_index": 0, "event_id": answer["event_id"]}
    kind = {"Content_Type": "application/json"}
    assert served.ask("POST", f"{API}/cancel", json.dumps(call).encode(), **kind)[0] == 200
    until(lambda: not made.exists())


def until(condition) -> None:
    for _ in range(400):
        if condition():
            return
        time.sleep(0.025)
    raise AssertionError("never")


def test_it_ends_at_once_and_leaves_nothing(served: Served, tmp_path: Path):
    """Also while it is working, and while somebody has the page open."""
    # Settings of Gradio's that would open it are not looked at.
    opened = {"GRADIO_ALLOWED_PATHS": "/", "GRADIO_SHARE": "True", "GRADIO_SERVER_NAME": "0.0.0.0"}
    with serving(tmp_path, str(save_run(tmp_path / "run")), **opened) as own:
        assert own.ask("GET", f"{API}/file=/etc/passwd")[0] == 403
        _, path = own.upload("long.wav", wav(np.tile(SPOKEN, 590)))
        assert own.join(path, ["run"], "ended")[0] == 200
        until(lambda: own.results)
        status, errors, seconds = end(own)
    assert (status, errors) == (0, "")
    assert seconds < 2
    assert not own.folder.exists()
    assert own.connections() == []
