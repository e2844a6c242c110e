"""Function tools as TypeScript."""

from __future__ import annotations

from typing import Any

import pytest

from quotaguard.counting.typescript import MAX_CHARACTERS, render_namespace


def shown(parameters: dict[str, Any], **options: Any) -> str:
    """The type of one function's argument."""
    text = render_namespace([{"name": "f", "parameters": parameters}], **options)
    return text.removeprefix("namespace functions {\n\ntype f = (_: ").removesuffix(
        ") => any;\n\n} // namespace functions"
    )


def properties(**fields: Any) -> dict[str, Any]:
    """An object schema with these properties."""
    return {"type": "object", "properties": fields}


def test_a_function_without_parameters_takes_nothing() -> None:
    """Its description is a comment, line by line."""
    function = {"name": "f", "description": " One\n\n  two ", "parameters": {"type": "object"}}

    assert render_namespace([function, {"name": "g"}]) == (
        "namespace functions {\n\n// One\n//\n// two\ntype f = () => any;\n\n"
        "type g = () => any;\n\n} // namespace functions"
    )


@pytest.mark.parametrize(
    ("schema", "written"),
    [
        ({"type": "string"}, "string"),
        ({"type": "integer"}, "number"),
        ({"type": "boolean"}, "boolean"),
        ({"type": "null"}, "null"),
        ({}, "any"),
        ({"type": "object"}, "object"),
        ({"type": "array"}, "any[]"),
        ({"type": "array", "items": {"type": "integer"}}, "number[]"),
        ({"enum": ["a", 1, None]}, '"a" | 1 | null'),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, '("a" | "b")[]'),
        ({"const": "x"}, '"x"'),
        ({"type": ["string", "null"]}, "string | null"),
        ({"anyOf": [{"type": "string"}, {"type": "number"}]}, "string | number"),
        ({"type": "object", "properties": {"a": {"type": "string"}}}, "{ a?: string }"),
    ],
)
def test_each_type_has_its_form(schema: dict[str, Any], written: str) -> None:
    """An object without comments stands in one line."""
    assert shown(properties(x=schema)) == f"{{ x?: {written} }}"


def test_required_properties_have_no_question_mark() -> None:
    """Others may be left out."""
    both = {**properties(a={"type": "string"}, b={"type": "string"}), "required": ["b"]}

    assert shown(both) == "{ a?: string, b: string }"


def test_comments_break_an_object_into_lines() -> None:
    """Title, description, default, bounds and format each have a place."""
    fields = properties(
        a={"type": "string", "title": "A", "description": "The a", "default": None},
        b={"type": "integer", "minimum": 0, "maximum": 9},
        c={"type": "number", "minimum": 0},
        d={"type": "string", "format": "date"},
    )

    assert shown(fields) == (
        "{\n// A\n//\n// The a\na?: string, // default: null\n"
        "b?: number, // minimum: 0, maximum: 9\n"
        "c?: number, // minimum: 0.0\n"
        'd?: string, // format: "date"\n}'
    )


def test_the_models_of_june_2023_see_no_titles() -> None:
    """They are older than that part of the rendering."""
    assert shown(properties(a={"type": "string", "title": "A"}), titles=False) == "{ a?: string }"


def test_references_are_written_out_with_their_titles() -> None:
    """As if they stood in place."""
    schema = {
        **properties(
            one={"$ref": "#/$defs/P"}, many={"type": "array", "items": {"$ref": "#/$defs/P"}}
        ),
        "$defs": {"P": {"title": "P", **properties(x={"type": "string", "title": "X"})}},
    }
    point = "{\n// X\nx?: string,\n}"

    assert shown(schema) == f"{{\n// P\none?: {point},\nmany?: Array<\n// P\n{point}\n>,\n}}"


def test_several_types_repeat_the_description_in_chat_only() -> None:
    """The Responses API shows it once."""
    schema = properties(a={"type": ["string", "null"], "description": "A"})

    assert shown(schema) == "{\n// A\na?: // A\nstring\n  | // A\nnull,\n}"
    assert shown(schema, repeat_comments=False) == "{\n// A\na?: string | null,\n}"


def test_recursive_schemas_end() -> None:
    """A type inside itself is written as any."""
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/N"}}}

    assert shown({**properties(n={"$ref": "#/$defs/N"}), "$defs": {"N": node}}) == (
        "{ n?: { next?: any } }"
    )


def test_schemas_that_double_at_every_level_stay_bounded() -> None:
    """Thirty levels of two references each would be a billion types."""
    defs = {
        f"L{n}": properties(a={"$ref": f"#/$defs/L{n + 1}"}, b={"$ref": f"#/$defs/L{n + 1}"})
        for n in range(30)
    }

    written = shown({**properties(x={"$ref": "#/$defs/L0"}), "$defs": defs})

    assert len(written) < 20 * MAX_CHARACTERS


def test_schemas_too_large_to_write_out_count_in_full() -> None:
    """What was left out stands as JSON at the end."""
    many = properties(**{f"field_{n}": {"type": "string"} for n in range(30_000)})

    assert len(shown(many)) > len(str(many)) / 2


def test_schemas_that_hold_themselves_end() -> None:
    """Python's dictionaries can be their own members."""
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    schema["properties"] = {"a": schema, "b": schema}

    assert "any" in shown(schema)
