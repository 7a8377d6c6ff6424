"""What nouns with names have in common on the server: the routes, and for a noun without behavior of its own the use cases and the table.

    MONITORS = PlainNoun(NOUNS["monitor"])
    FEATURE = Feature("oversight.monitors", tables=(MONITORS.table,), routes=named_routes(MONITORS.noun, MONITORS))

`assets/versions/routes.py` is the same for nouns whose names have versions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from fastapi import APIRouter, Response

from ..core.actor import requires
from ..core.errors import NotFound
from ..core.names import check_name
from ..spec.answers import Page
from ..spec.fields import Spec
from ..spec.loading import any_of, spec_class
from ..spec.nouns import Noun
from ..storage.resources import Resource, Resources
from ..storage.unit import Unit
from .http import Call, CallDep, answer, listing
from .openapi import answers


@dataclass(frozen=True)
class Cases:
    """The use cases of a noun, where its service has them under other names. Those of a deployment take the endpoint before the name."""

    list_: Callable[..., Any]
    get: Callable[..., Any]
    put: Callable[..., Any]
    delete: Callable[..., Any]


class PlainNoun:
    """A noun without behavior of its own: its table, and its use cases with their permissions."""

    def __init__(self, noun: Noun) -> None:
        self.noun = noun
        self.rows = Resources(noun)
        self.table = self.rows.table
        actions = f"workspaces/{noun.plural.split('_')[0]}{''.join(map(str.capitalize, noun.plural.split('_')[1:]))}"
        self.list_ = requires(f"{actions}/read")(self._list)
        self.get = requires(f"{actions}/read")(self._get)
        self.put = requires(f"{actions}/write")(self._put)
        self.delete = requires(f"{actions}/delete")(self._delete)

    def _list(self, unit: Unit) -> list[Resource]:
        return self.rows.list_(unit)

    def _get(self, unit: Unit, name: str) -> Resource:
        """Raises NotFound."""
        resource = self.rows.get(unit, name)
        if resource is None:
            hint = f"`yard {self.noun.command} list` shows them."
            raise NotFound(
                f"there is no {self.noun.title} {name} in workspace {unit.workspace}", code=f"{self.noun.name}_not_found", hint=hint
            )
        return resource

    def _put(self, unit: Unit, spec: Spec) -> Resource:
        """Create or replace."""
        document = spec.document()
        name = check_name("asset", str(document.pop("name", "")), self.noun.title)
        earlier = self.rows.get(unit, name)
        stored = {key: value for key, value in document.items() if key not in spec.read_only_fields()}
        created = (earlier.created_ms, earlier.created_by) if earlier else (unit.now, unit.actor.name)
        resource = Resource(self.noun, unit.workspace, name, stored, *created)
        self.rows.put(unit, resource)
        unit.record(f"{self.noun.name}.{'updated' if earlier else 'created'}", name)
        return resource

    def _delete(self, unit: Unit, name: str) -> None:
        self._get(unit, name)
        self.rows.delete(unit, name)
        unit.record(f"{self.noun.name}.deleted", name)


Shown = Callable[[Call, Any], Any]
Needs = Callable[[Call], tuple[Any, ...]]
After = Callable[[Call], Awaitable[None]]


def _shown(call: Call, result: Any) -> Any:
    return result.document() if hasattr(result, "document") else result


def _no_needs(call: Call) -> tuple[Any, ...]:
    return ()


async def _nothing(call: Call) -> None:
    return None


def page_of(model: Any) -> Any:
    """Of a model that only the running program knows."""
    return Page[model]


async def spec_of(call: Call, noun: Noun, case: Callable[..., Any], **names: str) -> Spec:
    """The body as the spec of its type, for a caller who may do what `case` does with it; the names in the address win."""
    return await call.spec(case, lambda document: spec_class(noun.name, document), noun.title, **names)


def named_routes(
    noun: Noun, cases: ModuleType | Cases | PlainNoun, *, shown: Shown = _shown, needs: Needs = _no_needs, after: After = _nothing,
    without: Sequence[str] = (),
) -> APIRouter:  # fmt: skip
    """List, get, create or update (PUT) and delete, by name.

    `shown` makes a document of what a use case returns, `needs` is what `put` takes behind the spec, and `after` is done about a change
    before the caller gets its answer. What is named in `without` the feature adds itself.
    """
    router = APIRouter(prefix=f"/workspaces/{{workspace}}/{noun.collection}", tags=[noun.plural.replace("_", " ")])
    model = any_of(noun)

    if "list_" not in without:

        @router.get("")
        @answers(page_of(model))
        async def list_(call: CallDep) -> Response:
            return listing(await call.shown(lambda items: [shown(call, item) for item in items], cases.list_))

    if "get" not in without:

        @router.get("/{name}")
        @answers(model)
        async def get(call: CallDep, name: str) -> Response:
            return answer(await call.shown(lambda item: shown(call, item), cases.get, name))

    @router.put("/{name}")
    @answers(model, body=model)
    async def create_or_update(call: CallDep, name: str) -> Response:
        spec = await spec_of(call, noun, cases.put, name=name)
        result = await call.write(cases.put, spec, *needs(call), show=lambda result: shown(call, result))
        await after(call)
        return answer(shown(call, result))

    @router.delete("/{name}")
    @answers(status=204)
    async def delete(call: CallDep, name: str) -> Response:
        await call.write(cases.delete, name)
        await after(call)
        return Response(status_code=204)

    return router


def add_deployment_routes(
    router: APIRouter, noun: Noun, cases: Cases, *, shown: Shown = _shown, after: After = _nothing, without: Sequence[str] = ()
) -> None:
    """The same of what belongs to an endpoint, added to the endpoints' router."""
    model = any_of(noun)

    @router.get(f"/{{endpoint}}/{noun.collection}")
    @answers(page_of(model))
    async def list_deployments(call: CallDep, endpoint: str) -> Response:
        return listing(await call.shown(lambda items: [shown(call, item) for item in items], cases.list_, endpoint))

    if "get" not in without:

        @router.get(f"/{{endpoint}}/{noun.collection}/{{name}}")
        @answers(model)
        async def get_deployment(call: CallDep, endpoint: str, name: str) -> Response:
            return answer(await call.shown(lambda item: shown(call, item), cases.get, endpoint, name))

    @router.put(f"/{{endpoint}}/{noun.collection}/{{name}}")
    @answers(model, body=model)
    async def create_or_update_deployment(call: CallDep, endpoint: str, name: str) -> Response:
        spec = await spec_of(call, noun, cases.put, name=name, endpoint_name=endpoint)
        result = await call.write(cases.put, spec, show=lambda result: shown(call, result))
        return answer(shown(call, result))

    @router.delete(f"/{{endpoint}}/{noun.collection}/{{name}}")
    @answers(status=204)
    async def delete_deployment(call: CallDep, endpoint: str, name: str) -> Response:
        await call.write(cases.delete, endpoint, name)
        await after(call)
        return Response(status_code=204)
