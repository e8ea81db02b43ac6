"""The page, of Gradio's parts."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from data.audio import AudioError
from enhancement.model import Model
from page import markup
from page.models import described
from page.store import Store
from page.upload import Upload
from page.work import Progress, work

TITLE = "BS-BiMamba"
WAITING = 8  # requests that may wait for the one that is being worked on
_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_FIXED_FONTS = ("ui-monospace", "Menlo", "Consolas", "monospace")
# For the page itself: a button, and whether it can be pressed for a value.
_ENABLED_BY = "value => ({__type__: 'update', interactive: Boolean(value)})"
log = logging.getLogger("page")

Shown = tuple[Any, Any]  # what is said, and the results; None: nothing


def answers(
    path: str | None, chosen: Sequence[str], models: Mapping[str, Model], store: Store
) -> Iterator[tuple[str, str]]:
    """What the page says and shows, one after the other, of an upload and the models chosen."""
    if not path:
        yield markup.fault("Upload a recording first, or make one."), ""
        return
    picked = [(label, model) for label, model in models.items() if label in chosen]
    if not picked:
        yield markup.fault("Choose a model."), ""
        return
    name = Path(path).name
    if store.full():
        yield markup.fault("There is no room for more results: try again in a while."), ""
        return
    try:
        upload = Upload(Path(path))
        for state in work(upload, picked, store.place()):
            if isinstance(state, Progress):
                yield markup.progress(state), ""
            else:
                yield markup.status("Done."), markup.results(state, store)
    except AudioError as error:
        yield markup.fault(f"{name}: {error}."), ""
    except OSError as error:
        if not store.closed:
            log.warning("%s: %s", error.filename, error.strerror)
        yield markup.fault(f"{name}: the server's disk failed ({error.strerror})."), ""
    except (MemoryError, torch.OutOfMemoryError):
        yield markup.fault(f"{name}: there is not enough memory for it."), ""


def theme() -> Any:
    """Quiet colours, and fonts that are there already."""
    import gradio as gr

    return gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=_FONTS, font_mono=_FIXED_FONTS
    )


def interface(models: Mapping[str, Model], store: Store) -> Any:
    """The page as Gradio's blocks. Uploads go where GRADIO_TEMP_DIR says (`page.serve`)."""
    import gradio as gr

    def run(path: str | None, chosen: list[str]) -> Iterator[tuple[str, str]]:
        yield from answers(path, chosen, models, store)

    labels = list(models)
    with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        gr.HTML(markup.introduction(described(models)), js_on_load=None)
        with gr.Row(equal_height=False):
            with gr.Column(min_width=280):
                # Trimming would change the rate to that of the listener's sound card.
                recording = gr.Audio(
                    sources=["upload", "microphone"],
                    type="filepath",
                    label="Noisy recording",
                    editable=False,
                    buttons=[],
                    elem_id="recording",
                )
                gr.HTML(markup.limits(), js_on_load=None)
            with gr.Column(min_width=280):
                chosen = gr.CheckboxGroup(labels, value=labels[:1], label="Models")
                with gr.Row():
                    go = gr.Button(
                        "Enhance",
                        variant="primary",
                        min_width=120,
                        elem_id="enhance",
                        interactive=False,
                    )
                    stop = gr.Button("Stop", min_width=120, elem_id="stop")
                status = gr.HTML(js_on_load=None)
        results = gr.HTML(js_on_load=None)
        running = go.click(
            run, [recording, chosen], [status, results], concurrency_limit=1, show_progress="hidden"
        )
        # What was recorded can be played before it has been uploaded, but not yet be enhanced.
        recording.change(None, recording, go, js=_ENABLED_BY)
        stop.click(None, cancels=[running])
        # By the page itself: a request for it would have to wait with the others.
        stop.click(None, outputs=status, js=f"() => {json.dumps(markup.status('Stopped.'))}")
    blocks.queue(max_size=WAITING, default_concurrency_limit=1)
    return blocks
