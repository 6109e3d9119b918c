"""`tfp-vae explore`: a page in the browser to turn the latents of a model and see what happens.

The page is plain HTML on the standard library's server. Panel and Gradio would bring dozens of packages
and still leave the map and the drawing, its two main parts, to be written by hand.
"""

import threading
import webbrowser

from tfp_vae.cli.explore.models import open_explorer
from tfp_vae.cli.explore.server import Server
from tfp_vae.cli.report import busy, console


def explore(
    model: str | None,
    dataset: str | None,
    condition: str | None,
    *,
    port: int,
    browser: bool,
    seed: int,
) -> None:
    """Serve the page of a model until Ctrl-C, and open it in the browser.

    Raises:
        ValueError: if the model, its data or the port cannot be used.
    """
    with busy("Compiling the model for the page"):
        explorer = open_explorer(model, dataset, condition, seed)
    with Server(explorer, port) as server:
        console.print(
            f"Explore {explorer.name} at {server.address}\n"
            "Only this computer can open it. Ctrl-C ends it."
        )
        if browser:
            # In a thread, as a browser in the terminal would keep this one.
            threading.Thread(target=webbrowser.open, args=[server.opening], daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.print("\nEnded.")


__all__ = ["explore"]
