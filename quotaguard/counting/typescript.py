"""Function tools as OpenAI shows them to the model: TypeScript declarations.

The rendering was fitted on recorded API usage (see ``docs/explanation/counting.md``). Schemas can
be recursive and deep, so its depth and size are bounded: what lies beyond is written as ``any``,
and stands as JSON at the end, so that the count errs upward.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .body import compact_json, fields_of, get, items_of, text_of

MAX_CHARACTERS = 200_000
MAX_DEPTH = 24


def render_namespace(
    functions: Iterable[Mapping[str, Any]], *, titles: bool = True, repeat_comments: bool = True
) -> str:
    """All functions as one TypeScript namespace.

    Args:
        functions: ``name``, ``description`` and ``parameters`` of each.
        titles: whether schema titles are shown (models of June 2023 do not).
        repeat_comments: whether a property of several types repeats its description at each
            (chat does, Responses does not).
    """
    writer = _Writer(titles, repeat_comments)
    listed = list(functions)
    body = "".join(writer.function(function) for function in listed)
    text = f"namespace functions {{\n\n{body}}} // namespace functions"
    return text + compact_json(listed) if writer.exhausted else text


class _Writer:
    """Writes types and keeps what bounds them."""

    def __init__(self, titles: bool, repeat_comments: bool) -> None:
        self._titles = titles
        self._repeat = repeat_comments
        self._root: Mapping[str, Any] = {}
        self._left = MAX_CHARACTERS
        self._open: list[str] = []

    @property
    def exhausted(self) -> bool:
        """Whether the functions were too large to be written out."""
        return self._left <= 0

    def function(self, function: Mapping[str, Any]) -> str:
        """One function: its description as a comment, its parameters as one object."""
        head = _comment(text_of(get(function, "description")))
        name = text_of(get(function, "name"))
        self._left -= len(head) + len(name)
        self._root = fields_of(get(function, "parameters"))
        if not fields_of(get(self._root, "properties")):
            return f"{head}type {name} = () => any;\n\n"
        title = _comment(self._title(self._root))
        return f"{head}type {name} = (_: {title}{self._type(self._root)}) => any;\n\n"

    def _type(self, schema: Mapping[str, Any]) -> str:
        self._left -= 4
        if len(self._open) >= MAX_DEPTH or self._left <= 0:
            return "any"
        self._open.append(text_of(get(schema, "$ref")))
        try:
            return self._written(self._resolved(schema))
        finally:
            self._open.pop()

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema itself, or what its local ``$ref`` names."""
        reference = get(schema, "$ref")
        if not isinstance(reference, str):
            return schema
        node: Any = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            node = fields_of(node).get(step) if step else node
        return fields_of(node)

    def _written(self, schema: Mapping[str, Any]) -> str:
        if self._open[-1] and self._open.count(self._open[-1]) > 1:
            return "any"
        for key in ("anyOf", "oneOf"):
            options = [fields_of(option) for option in items_of(get(schema, key))]
            if options:
                return self._union(options)
        enum = items_of(get(schema, "enum"))
        if enum:
            return self._spent(" | ".join(compact_json(value) for value in enum))
        if "const" in schema:
            return self._spent(compact_json(schema["const"]))
        kind = get(schema, "type")
        if isinstance(kind, (list, tuple)):
            dropped = ("title",) if self._repeat else ("title", "description")
            rest = {key: value for key, value in schema.items() if key not in dropped}
            return self._union([{**rest, "type": name} for name in kind])
        return self._named(schema, text_of(kind))

    def _spent(self, written: str) -> str:
        self._left -= len(written)
        return written

    def _named(self, schema: Mapping[str, Any], kind: str) -> str:
        properties = fields_of(get(schema, "properties"))
        if properties:
            return self._object(schema, properties)
        if kind == "array":
            return self._array(fields_of(get(schema, "items")))
        return "number" if kind == "integer" else kind or "any"

    def _array(self, items: Mapping[str, Any]) -> str:
        written = self._type(items) if items else "any"
        if "\n" in written:
            return f"Array<\n{self._comments(self._resolved(items))}{written}\n>"
        return f"({written})[]" if " | " in written and written[0] != "{" else f"{written}[]"

    def _union(self, options: list[Mapping[str, Any]]) -> str:
        parts = []
        commented = False
        for option in options:
            resolved = self._resolved(option)
            comment = self._comments(resolved) + self._limits(resolved)
            commented = commented or bool(comment)
            parts.append(comment + self._type(option))
        return ("\n  | " if commented else " | ").join(parts)

    def _object(self, schema: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
        required = {text_of(name) for name in items_of(get(schema, "required"))}
        rows = []
        plain = True
        for name, value in properties.items():
            if self._left <= 0:
                break
            fields = fields_of(value)
            resolved = {**self._resolved(fields), **fields}
            comment = self._comments(resolved)
            trailing = self._limits(resolved).rstrip("\n")
            if "default" in resolved:
                trailing += f"// default: {compact_json(resolved['default'])}"
            row = f"{name}{'' if name in required else '?'}: {self._type(fields)}"
            plain = plain and not comment and not trailing and "\n" not in row
            rows.append((comment, row, f" {trailing}" if trailing else ""))
            self._left -= len(comment) + len(trailing) + len(str(name))
        if plain:
            return "{ " + ", ".join(row for _, row, _ in rows) + " }"
        lines = "".join(f"{comment}{row},{trailing}\n" for comment, row, trailing in rows)
        return f"{{\n{lines}}}"

    def _title(self, schema: Mapping[str, Any]) -> str:
        return text_of(get(schema, "title")) if self._titles else ""

    def _comments(self, schema: Mapping[str, Any]) -> str:
        title = _comment(self._title(schema))
        described = _comment(text_of(get(schema, "description")))
        return f"{title}//\n{described}" if title and described else title + described

    def _limits(self, schema: Mapping[str, Any]) -> str:
        """Bounds of a number, or the format of a string, as a comment line."""
        kind = get(schema, "type")
        notes: list[str] = []
        if kind in ("integer", "number"):
            bounds = [key for key in ("minimum", "maximum") if key in schema]
            notes += [f"{key}: {_number(schema[key], kind)}" for key in bounds]
        elif kind == "string" and isinstance(get(schema, "format"), str):
            notes.append(f"format: {compact_json(schema['format'])}")
        return f"// {', '.join(notes)}\n" if notes else ""


def _number(value: Any, kind: str) -> str:
    if kind == "number" and isinstance(value, int) and not isinstance(value, bool):
        return f"{value}.0"
    return compact_json(value)


def _comment(text: str) -> str:
    if not text:
        return ""
    lines = [line.strip() for line in text.strip().split("\n")]
    return "".join(f"// {line}\n" if line else "//\n" for line in lines)
