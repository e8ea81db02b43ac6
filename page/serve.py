"""The server of the page: an address of this machine, and what leaves nothing behind."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from types import FrameType
from typing import Any

from data.utils import DataError, say
from enhancement.model import Model
from page.store import Store
from page.upload import MOST_BYTES


def bound(host: str, port: int) -> socket.socket:
    """A socket at an address.

    Raises:
        DataError: it is taken, or not one of this machine's.
    """
    if port not in range(1 << 16):  # the system would take another one
        raise DataError(f"--port {port}: expected 0 (any that is free) to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            found.listen(128)
        except OSError:
            found.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"--host {host} --port {port}: {reason}. Choose others.") from None
    return found


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(models: Mapping[str, Model], host: str, listening: socket.socket) -> None:
    """Serve the page until the process is asked to end; then end it, with status 0."""
    store = Store()

    def end(number: int, frame: FrameType | None) -> None:
        # Nothing that is being computed is worth waiting for.
        store.close()
        os._exit(0)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    try:
        _quieten(store)
        server = _server(models, store, host)
        port = listening.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        say(f"app.py: http://{shown}:{port} (Ctrl-C ends it)")
        if not is_loopback(host):
            say("app.py: warning: whoever reaches this port can use the page; there is no password")
        store.sweep_for_ever()
        server.run(sockets=[listening])
    finally:
        store.close()


def _quieten(store: Store) -> None:
    """Settings that Gradio reads when it is imported: none but these."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(store.uploads)
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def application(models: Mapping[str, Model], store: Store, host: str) -> Any:
    """The page, its results and the gate before both, as ASGI has it."""
    import gradio as gr
    from fastapi import FastAPI, HTTPException
    from fastapi.responses import FileResponse

    from page.gate import Gate
    from page.interface import interface, theme
    from page.markup import SCRIPT, STYLE

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/results/{key}")
    def result(key: str) -> FileResponse:
        path, name = store.results.get(key, (None, ""))
        if path is None or not path.is_file():
            raise HTTPException(404, "deleted, or never there")
        return FileResponse(path, filename=name or None, content_disposition_type="inline")

    gr.mount_gradio_app(
        app,
        interface(models, store),
        path="/",
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        blocked_paths=[],
        show_error=False,
        max_file_size=MOST_BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        css=STYLE,
        head=SCRIPT,
    )
    names = frozenset({"localhost", "127.0.0.1", "[::1]", host}) if is_loopback(host) else None
    return Gate(app, store, names, MOST_BYTES)


def _server(models: Mapping[str, Model], store: Store, host: str) -> Any:
    import uvicorn

    class Server(uvicorn.Server):
        def capture_signals(self) -> AbstractContextManager[None]:
            """Signals are ours."""
            return nullcontext()

    config = uvicorn.Config(
        application(models, store, host), log_level="warning", access_log=False, ws="none"
    )
    return Server(config)
