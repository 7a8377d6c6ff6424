from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...spec.nouns import NOUNS
from ..resources import NamedOperations

if TYPE_CHECKING:
    from ...spec.compute import AmlCompute, LocalCompute


class ComputeOperations(NamedOperations["AmlCompute | LocalCompute"]):
    noun = NOUNS["compute"]

    def list(self, *, compute_type: str | None = None, **kwargs: Any) -> Iterator[AmlCompute | LocalCompute]:
        type_name = compute_type.lower() if compute_type is not None else None
        return (compute for compute in super().list() if type_name is None or compute.type == type_name)

    begin_update = NamedOperations.begin_create_or_update
