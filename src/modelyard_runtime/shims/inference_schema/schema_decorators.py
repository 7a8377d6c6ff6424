"""`@input_schema` and `@output_schema`: what `run` takes and gives, by samples."""

import functools
import inspect

from .parameter_types.abstract_parameter_type import AbstractParameterType


def input_schema(param_name, param_type, convert_to_provided_type=True, optional=False):
    """The argument `param_name` of `run` is read as `param_type`. Raises ValueError, of a request too, naming the argument."""
    _check(param_type, "input_schema")

    def decorate(function):
        names = list(inspect.signature(function).parameters)
        if param_name not in names:
            raise ValueError("run() has no argument %r to give a schema to; it has %s" % (param_name, ", ".join(names) or "none"))

        @functools.wraps(function)
        def converted(*args, **kwargs):
            bound = dict(zip(names, args), **kwargs)
            if param_name in bound and convert_to_provided_type and not (optional and not _is_given(bound[param_name])):
                bound[param_name] = _deserialize_input_argument(bound[param_name], param_type, param_name)
            return function(**bound)

        converted.input_schemas = {param_name: param_type, **getattr(function, "input_schemas", {})}
        return converted

    return decorate


def output_schema(output_type):
    """What `run` returns, for the OpenAPI document."""
    _check(output_type, "output_schema")

    def decorate(function):
        @functools.wraps(function)
        def described(*args, **kwargs):
            return function(*args, **kwargs)

        described.output_type = output_type
        return described

    return decorate


def _deserialize_input_argument(value, param_type, param_name):
    try:
        return param_type.deserialize_input(value)
    except (ValueError, TypeError) as error:
        raise ValueError("%s: %s" % (param_name, error)) from error


def _is_given(value):
    """An optional argument that is empty stays as it is."""
    try:
        return bool(value)
    except ValueError:  # an array
        return True


def _check(parameter, what):
    if not isinstance(parameter, AbstractParameterType):
        raise TypeError("@%s takes a parameter type such as NumpyParameterType(sample), not %s" % (what, type(parameter).__name__))
