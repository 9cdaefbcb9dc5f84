"""Reports of studies: one HTML file each, that needs nothing else to be read."""

from mtl_ext.report.blocks import Block, Bullets, Cell, Facts, Figure, Prose, Report, Section, Table
from mtl_ext.report.html import render, svg, write_report

__all__ = [
    "Block",
    "Bullets",
    "Cell",
    "Facts",
    "Figure",
    "Prose",
    "Report",
    "Section",
    "Table",
    "render",
    "svg",
    "write_report",
]
