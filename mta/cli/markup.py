"""Markup: HTML and SVG in which nothing that a stranger wrote can become a tag.

What is put into an element is text, and is escaped, unless it is an element itself.
"""

from html import escape

from mta.cli.words import printable

VOID = frozenset({"meta", "path", "rect", "line", "circle"})
"""Elements that have nothing in them."""


class Markup(str):
    """Made here: it stands as it is."""

    __slots__ = ()


def element(name: str, /, *inside: str, **attributes: str) -> Markup:
    """`<name ...>inside</name>`. An attribute's name is written without the underscore at its end (`class_`), and with
    hyphens for those within."""
    shown = "".join(f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items())
    if name in VOID and not inside:
        return Markup(f"<{name}{shown}/>")
    return Markup(f"<{name}{shown}>{joined(*inside)}</{name}>")


def text(value: str) -> Markup:
    """As it is read: nothing in it is a tag, ends an attribute or moves what stands beside it."""
    return Markup(escape(printable(value)))


def joined(*parts: str) -> Markup:
    """One behind the other."""
    return Markup("".join(part if isinstance(part, Markup) else text(part) for part in parts))
