"""A page to try trained networks on: hear and see a recording, enhanced, and the removed noise.

    python app.py [MODEL...] [--host HOST] [--port PORT]

MODEL is a run folder, a checkpoint, a model folder or a model's name; by default, all in models/
and runs/. Only this machine can reach the page, unless --host says otherwise. Status 0: it was
ended; 1: the port is taken; 2: the command line or a model is wrong.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr

from bsbimamba.data.audio import AudioError
from bsbimamba.data.levels import SAMPLE_RATE
from bsbimamba.data.workers import stop_by_signals
from bsbimamba.inference.files import KINDS, FileSource
from bsbimamba.inference.model import Model, load
from bsbimamba.inference.trained import MODELS, WEIGHTS
from bsbimamba.inference.windows import enhanced
from bsbimamba.training.logging import spectrograms
from bsbimamba.utils import ROOT, DataError, UserError, carry_out, say

MINUTES, MEGABYTES = 10, 200  # of a recording, at most
INTRODUCTION = f"""# BS-BiMamba: speech without its noise
Up to {MINUTES} minutes, mono or stereo, {MEGABYTES} MB: {KINDS}. Deleted after an hour."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="app.py", description="A page to try networks on.")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="by default, all that are here")
    parser.add_argument("--host", default="127.0.0.1", help="address; by default, for this machine")
    parser.add_argument("--port", type=int, help="by default, the first free one from 7860 on")
    return carry_out("app.py", partial(serve, parser.parse_args(arguments)))


def serve(options: argparse.Namespace) -> int:
    """Serve the page until interrupted. Raise OSError if the port is taken."""
    if find_spec("gradio") is None:
        raise DataError("the page needs Gradio: pip install -e '.[page]'")
    models = load_models(options.models)
    # Gradio's own folder in /tmp is shared by all users of a machine.
    with tempfile.TemporaryDirectory(prefix="bs-bimamba-page-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # before Gradio is imported
        where = {"server_name": options.host, "server_port": options.port, "share": False}
        limits = {"max_file_size": MEGABYTES << 20, "run_history": False, "footer_links": []}
        page(models).launch(**where, **limits)
    return 0


def load_models(wanted: Sequence[str]) -> dict[str, Model]:
    """Load the models with these names; by default those in models/, then those in runs/.

    Returns them by name. Raises UserError if a wanted one cannot be loaded, or there is none.
    """
    shipped = sorted(file.parent for file in MODELS.glob(f"*/{WEIGHTS}"))
    runs = sorted({file.parent for file in ROOT.glob("runs/*/*st.pt")})  # best.pt or last.pt
    names = wanted or [os.path.relpath(folder) for folder in (*shipped, *runs)]
    models = {}
    for name in names:
        try:
            models[name] = load(name)
        except UserError as error:
            if wanted:
                raise
            say(f"{name} is left out: {error}")
    if not models:
        raise DataError("no trained model in models/ or runs/: name one, or train one (README)")
    return models


def page(models: Mapping[str, Model]) -> Any:
    """Build the page (`gr.Blocks`) that offers these models."""
    import gradio as gr

    def enhance(path: str | None, name: str, progress: Any = gr.Progress()) -> list[Any]:  # noqa: B008
        """Return the files of the recording, enhanced, and of the removed noise, and a picture."""
        network, windows, blocks = models[name].network, models[name].windows, []
        try:
            if path is None:
                raise AudioError("upload or record something first")
            source = FileSource(Path(path))
            if source.channels > 2 or source.frames > 60 * MINUTES * source.rate:
                raise AudioError(f"at most {MINUTES} minutes in mono or stereo are allowed")
            for block in enhanced(network, source, windows):
                blocks.append(block)
                progress(sum(each.shape[1] for each in blocks) / source.frames, desc="Enhancing")
            noisy, clean = (np.concatenate(list(x), axis=1) for x in (source.blocks(), blocks))
        except AudioError as error:
            raise gr.Error(f"No usable recording: {error}.", print_exception=False) from None
        signals = {"noisy": noisy, "enhanced": clean, "removed noise": noisy - clean}
        # Gradio serves files from its own folder alone, and deletes them there.
        folder = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]))
        files = {kind: folder / f"{Path(path).stem} {kind}.wav" for kind in signals}
        for kind, file in files.items():
            sf.write(file, signals[kind].T, source.rate, "FLOAT")  # which does not clip
        loud = np.square(noisy).sum(axis=1).argmax()  # a mean of the channels may cancel
        seen = {k: soxr.resample(x[loud], source.rate, SAMPLE_RATE) for k, x in signals.items()}
        return [*files.values(), spectrograms(seen)]

    audio = partial(gr.Audio, type="filepath", editable=False, buttons=["download"])
    with gr.Blocks(title="BS-BiMamba", analytics_enabled=False, delete_cache=(60, 3600)) as layout:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            recording = audio(label="Recording", scale=2)
            with gr.Column():
                model = gr.Radio(list(models), value=next(iter(models)), label="Model")
                button = gr.Button("Enhance", variant="primary")
        with gr.Row():  # of players, as a browser plays some kinds of recordings only as wav
            results = [audio(label=each) for each in ("Noisy", "Enhanced", "Removed noise")]
        results.append(gr.Image(show_label=False, format="png", buttons=["fullscreen"]))
        button.click(enhance, [recording, model], results, concurrency_limit=1, api_name="enhance")
    return layout.queue(max_size=8)


if __name__ == "__main__":
    stop_by_signals()
    status = main()
    sys.stdout.flush()
    os._exit(status)  # a thread that still enhances would abort a usual exit
