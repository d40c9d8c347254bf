"""Pieces of the report's page: escaped text, numbers, tables, figures, sections, and the page around them."""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from voxloom.deferred import Deferred

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Deferred("pandas")

ABSOLUTE = re.compile(r"(?<![\w.~/:\-])(?:~|[A-Za-z]:)?[/\\](?:[\w.+@%\-]+[/\\])+([\w.+@%\-]*)")
SCORES = re.compile(
    r"^(average_precision|accuracy|all_background_accuracy|precision|recall|f1|iou|dice|cldice|foreground_share)"
    r"(_low|_high|_at_half)?$|^threshold$|^prevalence$"
)
SEPARATOR = "\u202f"  # narrow space between thousands


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Parameters
    ----------
    name : str
        Its anchor, letters and hyphens.
    title : str
        Plain text; escaped by the page.
    body : str
        HTML.
    """

    name: str
    title: str
    body: str


def without_folders(text: str) -> str:
    """Replace absolute paths in a text by their last part: a report is passed on, its author's folders are not.

    Parameters
    ----------
    text : str

    Returns
    -------
    text : str

    Examples
    --------
    >>> without_folders("read from /data/ada/scans/brain.nrrd, 40 m/s")
    'read from …/brain.nrrd, 40 m/s'
    """
    return ABSOLUTE.sub(lambda match: f"…/{match[1]}", text)


def public(value: Any) -> Any:
    """A configuration without absolute paths, as plain dicts, lists and scalars.

    Parameters
    ----------
    value : object
        Nested mappings, sequences and scalars.

    Returns
    -------
    value : object
    """
    if isinstance(value, Mapping):
        return {without_folders(str(key)): public(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [public(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float):
        return value
    return without_folders(str(value))


def text(value: object) -> str:
    """Text from anywhere as HTML: escaped, without absolute paths.

    Parameters
    ----------
    value : object

    Returns
    -------
    html : str
    """
    return html.escape(without_folders(str(value)), quote=True)


def badge(word: str) -> str:
    """A small label, "synthetic" for instance; nothing for an empty word."""
    if not word:
        return ""
    kind = {"ok": "good", "passed": "good", "violated": "bad", "failed": "bad"}.get(word, "plain")
    return f' <span class="badge {kind}">{text(word)}</span>'


def score(value: Any, *, low: Any = None, high: Any = None) -> str:
    """A score with three decimals and, where there is one, its interval.

    Parameters
    ----------
    value, low, high : float or None
        NaN and None count as missing.

    Returns
    -------
    html : str
    """
    if _is_missing(value):
        return '<span class="missing">–</span>'
    shown = f"{value:.3f}"
    if not (_is_missing(low) or _is_missing(high)):
        shown += f' <span class="interval">[{low:.3f}, {high:.3f}]</span>'
    return shown


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float | np.floating) and math.isnan(value))


def number(value: Any, *, column: str = "") -> str:
    """A table cell's text: scores with three decimals, whole numbers with spaces, else three digits.

    Parameters
    ----------
    value : object
    column : str
        The column's name, which tells scores from the rest.

    Returns
    -------
    text : str
        Not escaped; "–" for a missing value.
    """
    if _is_missing(value):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{int(value):,}".replace(",", SEPARATOR)
    if isinstance(value, float | np.floating):
        real = float(value)
        if SCORES.match(column):
            return f"{real:.3f}" if real >= 0.0005 or real == 0 else f"{real:.2g}"
        if real.is_integer() and abs(real) < 1e15:
            return f"{int(real):,}".replace(",", SEPARATOR)
        if 1 <= abs(real) < 1e6:
            digits = max(0, 2 - math.floor(math.log10(abs(real))))
            return f"{real:,.{digits}f}".replace(",", SEPARATOR)
        return f"{real:.3g}"
    return str(value)


def heading_of(column: str) -> str:
    """A column's name as a table's heading: spaces, units in brackets."""
    for ending, unit in (("_um3", "µm³"), ("_um", "µm"), ("_mib", "MiB"), ("_bytes", "B"), ("_s", "s")):
        if column.endswith(ending) and column != ending[1:]:
            return f"{column.removesuffix(ending)} [{unit}]".replace("_", " ")
    return column.replace("_", " ")


def table(
    frame: pd.DataFrame,
    *,
    columns: Sequence[str] | None = None,
    wrap: Sequence[str] = (),
    caption: str = "",
    is_sortable: bool = False,
    kind: str = "",
    headings: Mapping[str, str] | None = None,
    cells: Mapping[str, Callable[[pd.Series], str]] | None = None,
) -> str:
    """A table as HTML.

    Parameters
    ----------
    frame : DataFrame
        One row a row.
    columns : sequence of str, optional
        The columns to show, in this order; all of them if not given.
    wrap : sequence of str
        Columns of text that may take several lines.
    caption : str
        Plain text above it.
    is_sortable : bool
        Whether clicking a heading sorts.
    kind : str
        "compact" breaks headings and puts intervals on their own line, "long" scrolls inside itself.
    headings : mapping of str to str, optional
        Headings where the column's own name won't do.
    cells : mapping of str to function, optional
        Per column, a function from the row to the cell's HTML; what it returns is not escaped.

    Returns
    -------
    html : str
        Each number's full value is in its `data-value`, by which the table sorts.
    """
    headings, cells = headings or {}, cells or {}
    columns = list(frame.columns) if columns is None else list(columns)
    is_number = {column: pd.api.types.is_numeric_dtype(frame[column]) for column in columns}

    def head(column: str) -> str:
        name = text(headings.get(column, heading_of(column)))
        inside = f'<button type="button">{name}</button>' if is_sortable else name
        return f'<th scope="col"{" class=num" if is_number[column] else ""}>{inside}</th>'

    def cell(column: str, row: pd.Series) -> str:
        value = row[column]
        shown = cells[column](row) if column in cells else text(number(value, column=column))
        if is_number[column]:
            full = "" if _is_missing(value) else text(repr(public(value)))
            return f'<td class="num" data-value="{full}">{shown}</td>'
        return f'<td class="wrap">{shown}</td>' if column in wrap else f"<td>{shown}</td>"

    # a row taken as a Series turns whole numbers into floats, so each keeps its own cell's type
    records = [pd.Series(record, dtype=object) for record in frame.astype(object).to_dict("records")]
    body = "\n".join("<tr>" + "".join(cell(column, row) for column in columns) + "</tr>" for row in records)
    inside = f' class="{kind} sortable"' if is_sortable else f' class="{kind}"' if kind else ""
    return (
        f'<div class="scroll{" long" if kind == "long" else ""}"><table{inside}>'
        + (f"<caption>{text(caption)}</caption>" if caption else "")
        + f"<thead><tr>{''.join(map(head, columns))}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def pairs(values: Mapping[str, Any]) -> str:
    """Names and values below each other.

    Parameters
    ----------
    values : mapping of str to object
        Scalars are shown as they are, anything nested as YAML.

    Returns
    -------
    html : str
    """
    lines = []
    for name, value in values.items():
        shown = public(value)
        if not isinstance(shown, str | int | float):
            shown = yaml.safe_dump(shown, default_flow_style=True, allow_unicode=True).strip()
        lines.append(f"<dt>{text(name)}</dt><dd>{text(shown)}</dd>")
    return f"<dl>{''.join(lines)}</dl>"


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as a data: address.

    Parameters
    ----------
    content : bytes
    kind : str
        Media type, "image/png" for instance.

    Returns
    -------
    uri : str
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def download(frame: pd.DataFrame, *, name: str) -> str:
    """A link that saves a table as CSV; the numbers in full.

    Parameters
    ----------
    frame : DataFrame
    name : str
        File name.

    Returns
    -------
    html : str
    """
    cleaned = frame.map(lambda value: without_folders(value) if isinstance(value, str) else value)
    content = cleaned.to_csv(index=False, lineterminator="\n").encode("utf-8")
    uri = data_uri(content, "text/csv;charset=utf-8")
    return f'<a class="download" download="{text(name)}" href="{uri}">Download as CSV</a>'


def figure(content: bytes, *, kind: str, alt: str, caption: str, file: str = "") -> str:
    """A picture with its caption.

    Parameters
    ----------
    content : bytes
        SVG, PNG or JPEG.
    kind : str
        Media type.
    alt : str
        What a reader who can't see it is told. Plain text.
    caption : str
        HTML.
    file : str
        Name without suffix, under figures/ beside the page.

    Returns
    -------
    html : str
    """
    where = f' <span class="file">figures/{text(file)}.svg, .png</span>' if file else ""
    return (
        f'<figure><img src="{data_uri(content, kind)}" alt="{text(alt)}">'
        f"<figcaption>{caption}{where}</figcaption></figure>"
    )


def paragraph(content: str, *, kind: str = "") -> str:
    """A paragraph of HTML, optionally with a class ("note" is set apart)."""
    return f"<p{f' class={kind}' if kind else ''}>{content}</p>"


def collapsible_yaml(title: str, document: Any) -> str:
    """A configuration that opens by a click.

    Parameters
    ----------
    title : str
        Plain text.
    document : object
        Nested mappings, sequences and scalars.

    Returns
    -------
    html : str
    """
    written = yaml.safe_dump(public(document), sort_keys=False, allow_unicode=True, width=100)
    return f"<details><summary>{text(title)}</summary><pre>{html.escape(written)}</pre></details>"


def page(*, title: str, subtitle: str, sections: Sequence[Section], language: str = "en") -> str:
    """The whole page.

    Parameters
    ----------
    title : str
        Plain text.
    subtitle : str
        HTML under the title.
    sections : sequence of Section
        In order; they are numbered and listed in the contents.
    language : str
        Language code.

    Returns
    -------
    html : str
        Self-contained: style, script and pictures are inside.
    """
    template = resources.files("voxloom").joinpath("report_template.html").read_text(encoding="utf-8")
    contents = "\n".join(f'<li><a href="#{text(section.name)}">{text(section.title)}</a></li>' for section in sections)
    body = "\n".join(
        f'<section id="{text(section.name)}" aria-labelledby="{text(section.name)}-title">'
        f'<h2 id="{text(section.name)}-title"><span class="count">{count}</span>{text(section.title)}</h2>\n'
        f"{section.body}\n</section>"
        for count, section in enumerate(sections, start=1)
    )
    values = {
        "language": text(language),
        "title": text(title),
        "subtitle": subtitle,
        "contents": contents,
        "sections": body,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)
