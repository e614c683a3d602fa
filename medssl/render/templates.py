"""Fills the HTML templates of reports."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).parent


def render_template(path: Path, **values: Any) -> str:
    """Returns an HTML template filled with values.

    Args:
        path: The template. It may extend or include `base.html` and `report.css` of this folder.
        values: The names that the template uses. Text is escaped; a name that is missing raises an error.
    """
    environment = Environment(
        loader=FileSystemLoader([path.parent, FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(path.name).render(values)
