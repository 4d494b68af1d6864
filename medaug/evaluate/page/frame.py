"""What every page of ours is put in: one HTML file that asks nobody for anything.

Style and pictures are inside, there is no script, and a content security policy forbids every
request.
"""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from medaug.text import visible


def framed(folder: Path, **content: Any) -> str:
    """``page.html`` of ``folder`` with its ``style.css``, in the frame; all of it can be seen."""
    env = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (folder / "style.css").read_text()
    return visible(env.get_template("page.html").render(style=style, **content))
