"""The report writer: escaping, self-containedness, structure."""

import base64
import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure as MatplotlibFigure

from mtl_ext.report import Bullets, Cell, Facts, Figure, Prose, Report, Section, Table, render, svg, write_report


class Page(HTMLParser):
    """Tags with attributes, and the text outside style and script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.stack = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag, f"{tag} closes another element"

    def handle_data(self, data):
        if not {"style", "script"} & set(self.stack) and data.strip():
            self.texts.append(data.strip())


def drawing():
    figure = MatplotlibFigure(figsize=(3, 2))
    figure.subplots().plot([1, 2, 3])
    return svg(figure)


def sample():
    table = Table(("name", "value"), [["a", Cell("1.5 ↑", "better", "± 0.1", 1.5)], ["b", "none"]], "a caption")
    blocks = [Prose("a paragraph"), Bullets(["first", "second"]), Facts({"seeds": "3"}), table]
    figure = Figure(drawing(), "a drawing")
    return Report("title", ["lead"], [Section("one", blocks), Section("two", [figure])], "made by tests")


def test_every_text_is_shown_once_and_the_elements_nest():
    page = Page(render(sample()))
    assert page.stack == []
    for text in (
        "a paragraph",
        "first",
        "second",
        "seeds",
        "3",
        "1.5 ↑",
        "± 0.1",
        "none",
        "a caption",
        "made by tests",
    ):
        assert page.texts.count(text) == 1, text
    assert page.texts.count("one") == 2  # contents and heading
    assert ("a", {"href": "#part-2"}) in page.tags and ("section", {"id": "part-2"}) in page.tags
    assert ("td", {"class": "better", "data-order": "1.5"}) in page.tags


def test_a_page_loads_nothing_from_outside():
    text = render(sample())
    for tag, attributes in Page(text).tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:image/svg+xml;base64,")), value
    assert "http" not in text and "@import" not in text and "url(" not in text


def test_figures_are_inside_and_the_same_every_time():
    assert drawing() == drawing()
    sources = [attributes["src"] for tag, attributes in Page(render(sample())).tags if tag == "img"]
    assert [base64.b64decode(source.partition(",")[2]) for source in sources] == [drawing()]


def test_texts_are_escaped_everywhere():
    evil = '<script>alert("x")</script>&\'"'
    blocks = [
        Prose(evil),
        Bullets([evil]),
        Facts({evil: evil}),
        Table((evil,), [[Cell(evil, detail=evil)]], evil),
        Figure(drawing(), evil),
    ]
    text = render(Report(evil, [evil], [Section(evil, blocks)], evil))
    page = Page(text)
    assert "<script>alert" not in text and sum(tag == "script" for tag, _ in page.tags) == 1
    assert page.texts.count(evil) == 15
    assert [attributes["alt"] for tag, attributes in page.tags if tag == "img"] == [evil]


def test_markup_in_a_template_is_not_run():
    assert "{{ 7 * 7 }}" in render(Report("title", ["{{ 7 * 7 }}"]))


def test_a_report_is_written_as_utf8(tmp_path):
    write_report(tmp_path / "new" / "report.html", sample())
    text = (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    assert "1.5 ↑" in text and re.search(r'<meta charset="utf-8">', text)


def test_tables_check_their_rows_and_tones():
    with pytest.raises(ValueError, match=r"row 1 has 1 cells, expected 2: \['a', 'b'\]"):
        Table(("a", "b"), [["1", "2"], ["3"]])
    with pytest.raises(ValueError, match="tone is 'red', expected one of"):
        Cell("1", "red")
