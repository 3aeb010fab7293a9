# SPDX-License-Identifier: Apache-2.0
"""Small pieces of HTML that the report is built of: tables, figures, fact lists, strips of layers."""

from html import escape

from table import NOT_THERE


def missing(what, why=NOT_THERE):
    return f'<p class="missing-piece">{escape(what)}: {escape(why)}.</p>'


def figure(svg, title, caption, narrow=None, why_missing=NOT_THERE):
    """A figure with its caption, or the note why it is not there. `narrow` takes its place on a phone."""
    if svg is None:
        return missing(title, why_missing)
    kind = ""
    if narrow is not None:
        kind = ' class="wide"'
        svg = f'<div class="on-wide">{svg}</div><div class="on-narrow">{narrow}</div>'
    return f"<figure{kind}>{svg}<figcaption><b>{escape(title)}.</b> {escape(caption)}</figcaption></figure>"


def facts(pairs):
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in pairs)
    return f'<dl class="facts">{items}</dl>'


def big_numbers(pairs):
    return '<div class="numbers">' + "".join(
        f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in pairs) + "</div>"


def swatch(colour):
    return f'<i class="swatch" style="background:{colour}"></i>'


def table(titles, rows, words=(), best=()):
    """A table; `words` are the columns of text, `best` the (row, column) pairs to show in bold. Cells may be HTML."""
    head = "".join(f'<th class="words">{escape(title)}</th>' if column in words else f"<th>{escape(title)}</th>"
                   for column, title in enumerate(titles))
    body = ""
    for row_number, row in enumerate(rows):
        body += "<tr>"
        for column, cell in enumerate(row):
            classes = ["words"] if column in words else []
            classes += ["best"] if (row_number, column) in best else []
            classes += ["absent"] if cell == NOT_THERE else []
            kind = f' class="{" ".join(classes)}"' if classes else ""
            body += f'<td{kind} data-title="{escape(titles[column])}">{cell}</td>'
        body += "</tr>"
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def layout_strip(layout, is_softmax, notes=None):
    """One cell per layer. `notes` maps a layer to the small print in its cell; without it the strip is compact."""
    cells = ""
    for layer, mixer in enumerate(layout):
        softmax = is_softmax(mixer)
        kind = "cell softmax" if softmax else "cell"
        hint = f"layer {layer}: {mixer}"
        if notes is None:
            cells += f'<div class="{kind}" title="{escape(hint)}">{layer}</div>'
        else:
            small = "".join(f"<small>{escape(line)}</small>" for line in notes.get(layer, []))
            word = "softmax" if softmax else "linear"
            cells += f'<div class="{kind}" title="{escape(hint)}"><b>{layer}</b><small>{word}</small>{small}</div>'
    if notes is None:
        return f'<div class="strip compact">{cells}</div>'
    columns = f"--wide:{even_columns(layout, 16)};--narrow:{even_columns(layout, 7)}"
    return f'<div class="strip" style="{columns}">{cells}</div>'


def even_columns(layout, most):
    """Cells in a row so that no row is much shorter than the others."""
    rows = -(-len(layout) // most)
    return -(-len(layout) // rows)


def document(title, style, body):
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
            f"<style>{style}</style></head>\n<body><main>{body}</main></body></html>\n")
