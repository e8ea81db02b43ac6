"""`python -m training.runlog RUN`: what a run has come to, as a table and a picture."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from data.utils import replacing
from training.plots import PLOT, plot_history

METRICS, CONFIG = "metrics.jsonl", "config.json"
Line = Mapping[str, Any]


class HistoryError(Exception):
    """There is no history to show; the text says why."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; ends the process with status 2 where a run cannot be shown."""
    parser = argparse.ArgumentParser(
        prog="python -m training.runlog", description="Print a run's history and plot it."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="a run folder")
    parser.add_argument("--no-plot", action="store_true", help=f"write no {PLOT}")
    options = parser.parse_args(arguments)
    try:
        for run in options.runs:
            config, lines = read(run)
            print(describe(run, config, lines))
            if not options.no_plot:
                with replacing(run / PLOT) as temporary:
                    plot_history(temporary, str(config.get("config", {}).get("name", run)), lines)
                print(f"\nplotted in {run / PLOT}")
    except HistoryError as error:
        print(f"training.runlog: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        sys.stdout = None
    except OSError as error:
        where = error.filename or "the output"
        print(f"training.runlog: {where}: {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        print(f"training.runlog: a {CONFIG} that no run has written ({error})", file=sys.stderr)
        raise SystemExit(2) from None


def read(run: Path) -> tuple[dict[str, Any], list[Line]]:
    """A run folder's `config.json` and the lines of its `metrics.jsonl`; unreadable ones left out.

    Raises:
        HistoryError: it is no run folder.
    """
    config = read_config(run)
    if config is None:
        raise HistoryError(f"{run}: no readable {CONFIG}: is it a run folder?")
    path = run / METRICS
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return config, [line for line in map(_line, text.splitlines()) if line]


def read_config(run: Path) -> dict[str, Any] | None:
    """The content of a folder's `config.json`, or None where that cannot be read."""
    path = run / CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _line(text: str) -> Line | None:
    """A line of the log, or None where it is not as `RunLog.record` writes it."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict):
        return None
    places = [line.get("step"), line.get("epoch")]
    groups = [line.get(name, {}) for name in ("train", "valid", "speed", "skipped", "rollback")]
    names = line.get("names", [])
    sound = (
        all(type(place) is int and 0 <= place < 2**53 for place in places)
        and all(isinstance(group, dict) for group in groups)
        and all(_is_number(value) for group in groups for value in group.values())
        and isinstance(names, list)
        and all(isinstance(name, str) for name in names)
    )
    return line if sound else None


def _is_number(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and abs(value) < 1e300)


def describe(run: Path, config: Mapping[str, Any], lines: Sequence[Line]) -> str:
    """Return a run's history in words and a table, with a row for each validation."""
    facts, settings = config.get("facts", {}), config.get("config", {})
    text = [
        f"{run}: {settings.get('name')}, recipe {settings.get('recipe')}, seed "
        f"{settings.get('seed')}, {facts.get('parameters', 0):,} parameters"
    ]
    text += [f"  {session_line(session)}" for session in config.get("sessions", [])]
    batch = settings.get("data.batch_size")
    text += ["", *_table(lines, batch if type(batch) is int else None)]
    skipped = [line for line in lines if "skipped" in line]
    for line in skipped[-5:]:
        values = ", ".join(
            f"{k} {'not finite' if v is None else v}" for k, v in line["skipped"].items()
        )
        text.append(f"step {line['step']} left out ({values}): {', '.join(line.get('names', []))}")
    if len(skipped) > 5:
        text.append(f"{len(skipped)} steps left out in all")
    for line in lines:
        if "rollback" in line:
            text.append(
                f"went back from step {line['rollback'].get('from')} to {line['step']}, to "
                f"{line['rollback'].get('rate_factor')} times the learning rate"
            )
    return "\n".join(text)


def session_line(session: Mapping[str, Any]) -> str:
    """One start of a run: when, where, from which code, and how it ended."""
    source = session.get("source") or {}
    commit = str(source.get("commit", "unknown"))[:10] + ("+" if source.get("dirty") else "")
    end = f"stopped at step {session['last_step']}" if "last_step" in session else "killed, or on"
    if "error" in session:
        end += f", by an error: {str(session['error']).partition(chr(10))[0]}"
    return (
        f"{session.get('started')} on {session.get('host')} ({session.get('device')}, "
        f"{session.get('processes', 1)} processes), commit {commit}, from step "
        f"{session.get('first_step')}: {end}"
    )


def circumstances(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the sessions of a run's `config.json` say of its making; nothing where there are none.

    `hours`: all sessions together; of one that was killed, until it last saved. Left out where one
    does not say that. `sessions`: how many; `devices`, `torch`, `commits`: each once, in the order
    of the sessions, a commit with "+" where files differed from it.
    """
    sessions = config.get("sessions")
    if not (isinstance(sessions, list) and sessions and all(type(s) is dict for s in sessions)):
        return {}
    found: dict[str, Any] = {"sessions": len(sessions)}
    try:
        times = [
            datetime.fromisoformat(each.get("ended") or each["saved"])
            - datetime.fromisoformat(each["started"])
            for each in sessions
        ]
        found["hours"] = sum(time.total_seconds() for time in times) / 3600
    except (KeyError, TypeError, ValueError):
        pass
    sources = [_table_in(each, "source") for each in sessions]
    texts = {
        "devices": [each.get("hardware", each.get("device")) for each in sessions],
        "torch": [_table_in(each, "versions").get("torch") for each in sessions],
        "commits": [
            str(each.get("commit", "unknown"))[:10] + ("+" if each.get("dirty") else "")
            for each in sources
        ],
    }
    return found | {name: list(dict.fromkeys(map(str, each))) for name, each in texts.items()}


def _table_in(session: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = session.get(name)
    return value if isinstance(value, dict) else {}


def _table(lines: Sequence[Line], batch: int | None) -> list[str]:
    """Return a row for each validation and one for the steps since; losses and speeds are means."""
    rows: list[tuple[int, list[Line], Mapping[str, Any]]] = []
    steps: list[Line] = []
    for line in lines:
        if "train" in line:
            steps.append(line)
        elif "valid" in line:
            rows.append((line["step"], steps, line["valid"]))
            steps = []
    if steps:
        rows.append((steps[-1]["step"], steps, {}))
    table = [
        f"{'step':>8} {'crops':>9} {'loss':>8} {'rate':>8} {'crops/s':>8} {'PESQ':>6} {'STOI':>6}"
    ]
    best = max((valid["pesq_wb"] for _, _, valid in rows if valid.get("pesq_wb")), default=None)
    for step, steps, valid in rows:
        train = [line["train"] for line in steps]
        speeds = [line.get("speed", {}).get("crops_per_second") for line in steps]
        mark = " best" if best is not None and valid.get("pesq_wb") == best else ""
        table.append(
            f"{step:>8} {'-' if batch is None else batch * step:>9} "
            f"{_mean([values.get('loss') for values in train], '8.4f')} "
            f"{_mean([values.get('learning_rate') for values in train[-1:]], '8.1e')} "
            f"{_mean(speeds, '8.2f')} {_mean([valid.get('pesq_wb')], '6.3f')} "
            f"{_mean([valid.get('stoi')], '6.4f')}{mark}"
        )
    noisy = [valid["noisy_pesq_wb"] for _, _, valid in rows if valid.get("noisy_pesq_wb")]
    if noisy:
        table.append(f"held-out recordings as they are: PESQ {noisy[-1]:.3f}")
    return table if rows else ["nothing logged yet"]


def _mean(values: Sequence[float | None], form: str) -> str:
    known = [v for v in values if v is not None]
    width = int(form.split(".")[0])
    return format(sum(known) / len(known), form) if known else f"{'-':>{width}}"
