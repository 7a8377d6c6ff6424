"""Runs, experiments and lineage: what the yard adds to MLflow's client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..differences import differing
from ..resources import Operations, at_most

if TYPE_CHECKING:
    from ...spec.answers import Page
    from ...spec.tracking import Experiment, Lineage, MetricPoint, OpenLineageEvent, Run, RunGroup

Document = dict[str, Any]
Documents = list[Document]


class RunOperations(Operations):
    def list(
        self, *, experiments: Sequence[str] = (), filter: str | None = None, order_by: Sequence[str] = (), columns: Sequence[str] = (),
        max_results: int | None = 100, view: str = "ACTIVE_ONLY",
    ) -> Iterator[Run]:  # fmt: skip
        """Runs of the named experiments, or of all; `columns` such as metrics.loss keep an answer small."""
        params = {
            "experiment": list(experiments), "filter": filter, "order_by": list(order_by), "columns": list(columns),
            "limit": min(max_results or 1000, 1000), "view": view,
        }  # fmt: skip
        return at_most(max_results, self._pages("/runs", params))

    def count(self, *, experiments: Sequence[str] = (), filter: str | None = None) -> int:
        params = {"experiment": list(experiments), "filter": filter, "count": "true", "limit": 1, "columns": ["tags.none"]}
        return int(self._call("GET", "/runs", params=params)["count"])

    def groups(
        self, over: Sequence[str], *, by: Sequence[str] = (), ignore: Sequence[str] = (), experiments: Sequence[str] = (),
        filter: str | None = None,
    ) -> Sequence[RunGroup]:  # fmt: skip
        """Mean and spread of metrics over runs that agree in `by`, or in all params but `ignore` (the seed)."""
        params = {"over": list(over), "by": list(by), "ignore": list(ignore), "experiment": list(experiments), "filter": filter}
        page: Page[RunGroup] = self._call("GET", "/runs/groups", params=params)
        return page["value"]

    def get(self, id: str) -> Run:
        run: Run = self._call("GET", f"/runs/{id}")
        return run

    def history(self, id: str, metric: str, points: int = 1000) -> Sequence[MetricPoint]:
        page: Page[MetricPoint] = self._call("GET", f"/runs/{id}/metrics/{quote(metric)}", params={"points": points})
        return page["value"]

    def compare(self, ids: Sequence[str]) -> Documents:
        """A row for each field in which the runs differ: {field, <run id>: value, …}. Runs may be of any experiments."""
        runs = {id: self.get(id) for id in ids}
        return differing(
            {
                id: {"": {"status": run["status"]}, "params": run["params"], "metrics": run["metrics"], "tags": run["tags"]}
                for id, run in runs.items()
            }
        )

    def delete(self, id: str, *, permanent: bool = False) -> None:
        self._call("DELETE", f"/runs/{id}", params={"permanent": str(permanent).lower()})

    def restore(self, id: str) -> None:
        self._call("POST", f"/runs/{id}/restore")


class ExperimentOperations(Operations):
    def list(self, *, view: str = "ACTIVE_ONLY") -> Iterator[Experiment]:
        return self._pages("/experiments", {"view": view})

    def delete(self, name: str) -> None:
        self._call("DELETE", f"/experiments/{quote(name)}")

    def restore(self, id: str) -> None:
        self._call("POST", f"/experiments/{id}/restore")


class LineageOperations(Operations):
    def show(self, kind: str, name: str, *, depth: int = 10) -> Lineage:
        """Upstream: the resources that it was made from, and theirs, up to `depth`; downstream: those made from it."""
        lineage: Lineage = self._call("GET", f"/lineage/{kind}/{name}", params={"depth": depth})
        return lineage

    def openlineage(self, kind: str, name: str, *, depth: int = 10) -> Sequence[OpenLineageEvent]:
        """The same jobs as OpenLineage run events."""
        page: Page[OpenLineageEvent] = self._call("GET", f"/lineage/{kind}/{name}/openlineage", params={"depth": depth})
        return page["value"]
