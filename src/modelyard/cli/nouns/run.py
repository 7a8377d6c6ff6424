from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ...spec.nouns import NOUNS
from ..options import Multi, client, differences, name_option, noun_group, show_columns, verb, yes_option

NOUN = NOUNS["run"]
group = noun_group(NOUN)

experiments_option = click.option("-e", "--experiment-name", "experiments", cls=Multi, help="Only of these experiments; else of all.")
filter_option = click.option("--filter", "filter", help="MLflow's filter, such as \"metrics.loss < 1 AND params.model = 'tree'\".")


@verb(group, "list", columns=NOUN.columns, help="List runs, newest first or in an order of your own.")
@experiments_option
@filter_option
@click.option("--order-by", cls=Multi, help='Such as "metrics.loss ASC".')
@click.option("--columns", cls=Multi, help="What to show: metrics.NAME, params.NAME, tags.NAME.")
@click.option("-r", "--max-results", type=int, default=50, show_default=True)
@click.option("--deleted-only", is_flag=True, help="Those that can be restored.")
def list_(experiments: Any, filter: str | None, order_by: Any, columns: Any, max_results: int, deleted_only: bool) -> Any:
    view = "DELETED_ONLY" if deleted_only else "ACTIVE_ONLY"
    runs = client().runs.list(
        experiments=experiments, filter=filter, order_by=order_by, columns=columns, max_results=max_results, view=view
    )
    if not columns:
        return list(runs)
    show_columns("run_id", *columns, "status", "name")
    return [_flat(item, columns) for item in runs]


def _flat(document: Mapping[str, Any], columns: Any) -> dict[str, Any]:
    """A row for a table: the asked columns under the names they were asked by."""
    row = {key: document[key] for key in ("run_id", "name", "status")}
    for column in columns:
        part, _, key = column.partition(".")
        row[column] = document[part].get(key)
    return row


@verb(group, "count", help="Count runs.")
@experiments_option
@filter_option
def count(experiments: Any, filter: str | None) -> Any:
    return {"count": client().runs.count(experiments=experiments, filter=filter)}


@verb(group, "group", help="Mean and spread of metrics over runs that belong together, such as the seeds of one setting.")
@click.option("--over", cls=Multi, required=True, help="Metrics to summarise.")
@click.option("--by", cls=Multi, help="What the runs of a group agree in: params.NAME, tags.NAME.")
@click.option("--ignore", cls=Multi, help="Or: the params in which they may differ, such as seed.")
@experiments_option
@filter_option
def grouped(over: Any, by: Any, ignore: Any, experiments: Any, filter: str | None) -> Any:
    groups = client().runs.groups(over, by=by, ignore=ignore, experiments=experiments, filter=filter)
    rows = [_group_row(item) for item in groups]
    same = {key for item in groups for key in item["by"] if len({str(other["by"].get(key)) for other in groups}) == 1}
    if len(rows) > 1:  # what all groups agree in tells none from another
        show_columns(*(key for key in dict.fromkeys(key for row in rows for key in row) if key not in same))
    return rows


def _group_row(item: Mapping[str, Any]) -> dict[str, Any]:
    summaries = {f"{name}.{part}": value for name, summary in item["metrics"].items() for part, value in summary.items()}
    return {**item["by"], "runs": item["runs"], **summaries}


@verb(group, "show", help="Show a run with everything that was logged.")
@name_option
def show(name: str) -> Any:
    return client().runs.get(name)


@verb(group, "compare", draw=differences, help="Show in what runs differ, side by side; they may be of different experiments.")
@click.argument("runs", nargs=-1, required=True)
def compare(runs: tuple[str, ...]) -> Any:
    return client().runs.compare(runs)


@verb(group, "delete", help="Delete a run; it can be restored until `yard gc` removes it.")
@name_option
@click.option("--permanent", is_flag=True, help="Remove it and its artifacts now.")
@yes_option
def delete(name: str, permanent: bool) -> None:
    client().runs.delete(name, permanent=permanent)


@verb(group, "restore", help="Bring a deleted run back.")
@name_option
def restore(name: str) -> None:
    client().runs.restore(name)
