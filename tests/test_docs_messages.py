"""docs/troubleshooting.md quotes what the software says."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest
from document_pages import DOCS, PAGES, SOURCES, prose, rows, text_of

# A value in a message: of an f-string, of str.format, of logging.
VALUE = "\N{OBJECT REPLACEMENT CHARACTER}"


def template(node: ast.expr) -> str:
    """The text of a literal, a mark in the place of each value."""
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) for part in node.values)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"\{\w*(:[^{}]*)?\}|%[sdg]", VALUE, node.value)
    return VALUE


@cache
def messages() -> str:
    """All that the software may say, a text on a line; values are marks."""
    texts = []
    for path in SOURCES:
        nodes = list(ast.walk(ast.parse(text_of(path))))
        comments = [node.value for node in nodes if isinstance(node, ast.Expr)]  # docstrings
        texts += [
            template(node)
            for node in nodes
            if isinstance(node, ast.JoinedStr | ast.Constant) and node not in comments
        ]
    return "\n".join(" ".join(text.split()) for text in texts)


def quoted() -> list[str]:
    """The messages on the page: quotations, and the reasons in its last table."""
    page = text_of(DOCS / "troubleshooting.md")
    reasons = rows("troubleshooting.md", "A file has no score")
    return [*re.findall(r"^> `(.+)`$", page, re.M), *list(reasons)[2:]]


@pytest.mark.parametrize("message", quoted())
def test_every_message_that_is_quoted_is_in_the_code(message: str) -> None:
    assert re.sub(r"\{\w+\}", VALUE, message) in messages()


def test_every_quotation_is_a_message() -> None:
    page = text_of(DOCS / "troubleshooting.md")
    assert len(re.findall(r"^>", page, re.M)) == len(re.findall(r"^> `.+`$", page, re.M)) > 20


def test_every_thread_is_named_with_its_repository() -> None:
    """A bare number would be taken for an issue of this repository."""
    for page in PAGES:
        assert not re.search(r"(?<![\w/-])#\d+", prose(page)), page
