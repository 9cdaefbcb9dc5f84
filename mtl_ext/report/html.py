"""From blocks to one HTML file without links to anything outside."""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from mtl_ext.files import write_text
from mtl_ext.report.blocks import Block, Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def render(report: Report) -> str:
    """The report as one HTML page; texts are escaped, figures are inside."""
    environment = Environment(
        loader=PackageLoader("mtl_ext.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["block"] = _is_block
    environment.filters["base64"] = lambda image: base64.b64encode(image).decode()
    return environment.get_template("report.html.j2").render(report=report)


def write_report(path: Path, report: Report) -> None:
    """Writes the page atomically."""
    write_text(path, render(report))


def svg(figure: "Figure") -> bytes:
    """A matplotlib figure as an SVG file, the same bytes for the same figure."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "mtl_ext"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _is_block(block: Block, kind: str) -> bool:
    return type(block).__name__ == kind
