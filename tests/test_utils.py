"""Atomic writes, locks, exit statuses, worker processes, cores and OpenMP's variables."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock, patch

import pytest
from conftest import ROOT

from bsbimamba import openmp
from bsbimamba.utils import DataError, FailedError, carry_out, hold, replacing, write_text


def test_replacing_writes_a_file_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "first ü\n")
    assert path.read_text("utf-8") == "first ü\n"
    with pytest.raises(TypeError), replacing(path) as temporary:
        temporary.write_text(None)  # type: ignore[arg-type]
    assert path.read_text("utf-8") == "first ü\n"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_hold_refuses_a_second_process_until_the_first_is_gone(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from bsbimamba.utils import hold;"
        "lock = hold(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        being_written = tmp_path / f".{'b' * 32}.partial"
        being_written.touch()
        with pytest.raises(DataError, match="is in use by another process"):
            hold(tmp_path)
        assert being_written.exists()  # the other may be writing it
        other.send_signal(signal.SIGKILL)
    hold(tmp_path).release()
    assert not being_written.exists()


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (DataError("bad file"), 2, "x: bad file\n"),
        (FailedError("no room"), 1, "x: no room\n"),
        (OSError(28, "No space left on device", "/a/b"), 1, "x: /a/b: No space left on device\n"),
        (KeyboardInterrupt(), 130, "x: interrupted\n"),
    ],
)
def test_carry_out_returns_a_status_and_prints_a_line(
    error: BaseException, status: int, message: str, capsys: pytest.CaptureFixture
) -> None:
    assert carry_out("x", Mock(side_effect=error)) == status
    assert capsys.readouterr().err == message


def alive(pid: int) -> bool:
    """Tell whether a process runs. A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


WORKERS = """
import os, pathlib, sys, time
from concurrent.futures import ProcessPoolExecutor
from bsbimamba.utils import carry_out
from bsbimamba.data.workers import begin_worker, process_context

def work(number):
    pathlib.Path(str(os.getpid())).write_text(os.environ["OMP_NUM_THREADS"])
    time.sleep(int(sys.argv[1]))

def main():
    with ProcessPoolExecutor(2, process_context(), begin_worker) as pool:
        return len(list(pool.map(work, range(9))))

if __name__ == "__main__":
    sys.exit(carry_out("x", main))
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
@pytest.mark.parametrize("killed", [False, True])
def test_workers_end_with_their_parent(killed: bool, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(WORKERS)
    command = [sys.executable, "script.py", "60" if killed else "3"]
    variables = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    parent = subprocess.Popen(
        command, env=variables | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
        start_new_session=True, cwd=tmp_path,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while len(started := list(tmp_path.glob("[0-9]*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [path.read_text() for path in started] == ["1", "1"]  # one thread each
    if killed:
        parent.kill()
    else:
        os.killpg(parent.pid, signal.SIGINT)  # as a terminal does
    errors = parent.communicate(timeout=60)[1]
    assert killed or (parent.returncode, errors) == (130, "x: interrupted\n")
    while any(alive(int(path.name)) for path in started) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(int(path.name)) for path in started)


@pytest.mark.parametrize("command", ["app.py", "enhance.py", "baseline/train.py", "abl3/train.py"])
@pytest.mark.parametrize("given", [{}, {"OMP_WAIT_POLICY": "active"}])
def test_command_sets_the_wait_policy_before_it_imports_torch(
    command: str, given: dict[str, str], tmp_path: Path
) -> None:
    stand_in = "import os; print(os.environ.get('OMP_WAIT_POLICY'), flush=True); os._exit(0)"
    (tmp_path / "torch.py").write_text(stand_in)
    variables = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | given
    variables["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{ROOT}"
    words = [sys.executable, command, "--help"]
    found = subprocess.check_output(words, cwd=ROOT, env=variables, text=True)
    assert found.strip() == given.get("OMP_WAIT_POLICY", "passive")


@pytest.mark.parametrize(
    ("own", "quotas", "cores"),
    [
        ("0::/a/b", {"a/b": "150000 100000", "a": "max 100000"}, 2),
        ("0::/a/b", {"a/b": "900000 100000", "a": "30000 10000"}, 3),
        ("5:memory:/\n4:cpu,cpuacct:/a\n0::/", {"cpu/a": "200000 100000"}, 2),
        ("4:cpuacct,cpu:/docker/of-the-host", {"cpu": "50000 100000"}, 1),
        ("4:cpu:/a\n3:cpuset:/b", {"cpu/a": "-1 100000", "cpu/b": "100000 100000"}, 8),
        ("", {}, 8),
    ],
)
def test_usable_cores_and_threads_heed_the_quota_of_a_container(
    own: str, quotas: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")
    for place, text in quotas.items():
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        for name, value in zip(names, (text, *text.split()), strict=True):
            (tmp_path / place / name).write_text(f"{value}\n")
    (tmp_path / "own").write_text(own)
    monkeypatch.setattr(openmp, "_CGROUPS", tmp_path)
    monkeypatch.setattr(openmp, "_OWN", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    assert openmp.usable_cores() == cores
    with patch.dict(os.environ, clear=True):
        openmp.set_variables()
        assert os.environ.get("OMP_NUM_THREADS") == (str(cores) if cores < 8 else None)
