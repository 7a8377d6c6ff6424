"""What the decorators say of a function, for its OpenAPI document."""

import inspect

VERSIONS = ["2.0", "3.0", "3.1"]


def is_schema_decorated(func):
    return hasattr(func, "input_schemas") or hasattr(func, "output_type")


def get_input_schema(func):
    """An object with an entry for every argument; one without a schema takes anything."""
    types = getattr(func, "input_schemas", None)
    if not types:
        return {"type": "object"}
    arguments = {name: types[name].input_to_swagger() if name in types else {} for name in inspect.signature(func).parameters}
    examples = {name: schema.pop("example", "") for name, schema in arguments.items()}
    return {"type": "object", "properties": arguments, "example": examples}


def get_output_schema(func):
    return func.output_type.input_to_swagger() if hasattr(func, "output_type") else {"type": "object"}


def get_supported_versions(func):
    """The versions of OpenAPI that can describe the sample of the first decorator, and that of the output."""
    types = [*list(getattr(func, "input_schemas", {}).values())[:1], *([func.output_type] if hasattr(func, "output_type") else [])]
    return [version for version in VERSIONS if all(version in kind.supported_versions() for kind in types)]
