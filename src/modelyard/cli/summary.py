"""What `show` tells a person of one resource: how it is first, then what it is. `-o json|yaml` gives the whole document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from . import table, values

Document = dict[str, Any]

_FIRST = ("name", "version", "status", "provisioning_state", "error")
_TIMES = ("start_time", "end_time", "created_at", "last_modified_at", "next_run", "last_run")
_MOST_TRIALS = 10
_KEYS = 14
"""Characters that the names of a job's facts take, with the gap behind them."""
_BOOKKEEPING = ("metrics.system/", "tags.mlflow.")
"""Fields in which any two runs differ."""


def of_any(document: Document) -> Document:
    """Any resource: its state before the rest, times with their age, who made it in one line."""
    rest = dict(document)
    summary = {key: rest.pop(key) for key in _FIRST if key in rest}
    if isinstance(error := summary.get("error"), dict):
        summary["error"] = _reason(error)
    if isinstance(context := rest.pop("creation_context", None), dict):
        summary["created"] = created(context)
    id = rest.pop("id", None)
    for key, value in rest.items():
        summary[key] = values.time_and_age(value) if key in _TIMES else _rows(value)
    return {**summary, "id": id}


def of_job(job: Document) -> Document:
    """Status, reason, times; then what was asked. A pipeline's steps by their state, a sweep's trials by their number."""
    error = job.get("error")
    return {
        "name": job.get("name"),
        "status": job.get("status"),
        "reason": _reason(error) if error else None,
        "created": created(job.get("creation_context") or {}),
        **_spent(job),
        "part of": job.get("parent_job_name"),
        "experiment": job.get("experiment_name"),
        "display name": job.get("display_name"),
        "description": job.get("description"),
        "steps": "\n".join(_steps(job.get("steps") or {})),
        **(_sweep(job) if job.get("type") == "sweep" else {}),
        "command": job.get("command"),
        "code": job.get("code"),
        "environment": _one_line(job.get("environment")),
        "component": _one_line(job.get("component")),
        "inputs": _ports(job.get("inputs")),
        "outputs": _ports(job.get("outputs")),
        "compute": job.get("compute"),
        "tags": job.get("tags"),
        "notes": "\n".join(job.get("warnings") or ()),
    }


def _rows(value: Any) -> Any:
    """A list of flat documents as a table, such as a deployment's instances."""
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        return value
    if any(isinstance(part, (dict, list)) for item in value for part in item.values()):
        return value
    columns = table.columns_of(value, tuple(dict.fromkeys(key for item in value for key in item)))
    fitted = [(column, column.widest) for column in columns if any(column.cells)]
    return "\n".join([table.titles(fitted), *table.rows(fitted)])


def created(context: Mapping[str, Any]) -> str:
    by = f" by {context['created_by']}" if context.get("created_by") else ""
    return f"{values.time_and_age(context.get('created_at'))}{by}".strip()


def _reason(error: Mapping[str, Any]) -> str:
    return "\n".join(str(error[part]) for part in ("message", "hint") if error.get(part))


def _spent(job: Document) -> Document:
    """When it ran, and how long."""
    began, ended = job.get("start_time"), job.get("end_time")
    seconds = values.seconds_between(began, ended)
    took = f", ran {values.exact_duration(seconds)}" if seconds is not None else ""
    return {"started": began and values.time_and_age(began), "ended": ended and values.time_and_age(ended) + took}


def _steps(steps: Mapping[str, Document]) -> Iterator[str]:
    """A line for each step: its state, how long it ran, its job. Below it, why it failed or was not run again."""
    rows = [{"name": name, "status": step.get("status"), "took": _took(step), "job": step.get("job_name")} for name, step in steps.items()]
    lines = list(_lines(rows, ("name", "status", "took", "job")))
    if max(map(table.cell_len, lines), default=0) > table.terminal_width() - _KEYS:  # names are long, or the terminal is narrow
        lines = [f"{row['name']}\n  {', '.join(str(row[key]) for key in ('status', 'took', 'job') if row[key])}" for row in rows]
    for line, step in zip(lines, steps.values(), strict=True):
        yield line
        if reason := step.get("reason") or (f"reused from {step['reused_from']}" if step.get("reused_from") else None):
            yield f"  {reason}"


def _took(step: Document) -> str | None:
    seconds = values.seconds_between(step.get("start_time"), step.get("end_time"))
    return None if seconds is None else values.exact_duration(seconds)


def _sweep(job: Document) -> Document:
    """How far it is, its best trial, the trials by their number, and what it varies."""
    trials = job.get("trials") or []
    objective = job.get("objective") or {}
    metric = str(objective.get("primary_metric", "metric"))
    rows = [{"number": trial["number"], "status": trial["status"], metric: trial.get("metric"), "params": pairs(trial.get("params"))}
            for trial in trials]  # fmt: skip
    lines = list(_lines(rows[:_MOST_TRIALS], ("number", "status", metric, "params")))
    if len(rows) > _MOST_TRIALS:
        lines.append(f"… and {len(rows) - _MOST_TRIALS:,} more; `yard job list --parent-job-name {job.get('name')}` has them all")
    return {
        "progress": progress_of_sweep(job),
        "best": best_trial(job),
        "trials": "\n".join(lines),
        "searched": pairs({name: _space(space) for name, space in (job.get("search_space") or {}).items()}),
        "objective": f"{objective.get('goal')} {metric}" if objective else None,
        "command": (job.get("trial") or {}).get("command") if isinstance(job.get("trial"), dict) else job.get("trial"),
    }


def progress_of_sweep(job: Document) -> str:
    """`12 of 20 trials done (1 failed), 3 running`"""
    states = [trial.get("status") for trial in job.get("trials") or []]
    done = sum(state in ("Completed", "Failed", "Canceled") for state in states)
    failed = states.count("Failed")
    running = len(states) - done
    total = (job.get("limits") or {}).get("max_total_trials", len(states))
    text = f"{done} of {total} trials done"
    return text + (f" ({failed} failed)" if failed else "") + (f", {running} running" if running else "")


def best_trial(job: Document) -> str | None:
    """`accuracy 0.98 in trial 3: lr=0.01`"""
    best = job.get("best")
    if not best or best.get("metric") is None:
        return None
    metric = (job.get("objective") or {}).get("primary_metric", "metric")
    return f"{metric} {values.number(float(best['metric']))} in trial {best['number']}: {pairs(best.get('params'))}"


def _space(space: Any) -> str:
    if not isinstance(space, dict):
        return str(space)
    if "values" in space:
        return " or ".join(map(str, space["values"]))
    parts = (f"{key} {value}" for key, value in space.items() if key != "type")
    return f"{space.get('type')}({', '.join(parts)})"


def pairs(document: Any) -> str:
    return ", ".join(f"{key}={values.text_of(value)}" for key, value in (document or {}).items())


def _ports(ports: Mapping[str, Any] | None) -> str:
    """`name: reference or value` of each."""
    return "\n".join(f"{name}: {_port(port)}" for name, port in (ports or {}).items())


def _port(port: Any) -> str:
    if not isinstance(port, dict):
        return values.text_of(port)
    for key in ("path", "value", "default"):
        if port.get(key) is not None:
            return values.text_of(port[key])
    named = f" registered as {port['name']}" if port.get("name") else ""
    return f"{port.get('type', '')}{named}"


def _one_line(value: Any) -> str | None:
    """A reference as it is; of what is written out, what it is made of."""
    if not isinstance(value, dict):
        return None if value is None else str(value)
    shown = {key: part for key, part in value.items() if part not in (None, {}, [], "") or key == "pip"}
    return "; ".join(f"{key}: {_short(part)}" for key, part in shown.items())


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_short(part) for part in value) or "nothing"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(part)}" for key, part in value.items())
    return values.text_of(value)


def differences(rows: list[Document]) -> Iterator[str]:
    """Rows {field, name: value, …} as a table, or each field by itself where the names have no room beside one another."""
    if not rows:
        yield "(they differ in nothing that is recorded)"
        return
    rows = sorted(rows, key=lambda row: row["field"].startswith(_BOOKKEEPING))
    columns = table.columns_of(rows, tuple(dict.fromkeys(key for row in rows for key in row)))
    width = table.terminal_width()
    if len(fitted := table.fitting(columns, width)) == len(columns):
        yield table.titles(fitted)
        yield from table.rows(fitted)
        return
    for row in rows:
        yield str(row["field"])
        names = table.Column("", [f"  {name}" for name in row if name != "field"])
        cells = table.Column("", [values.text_of(value) for name, value in row.items() if name != "field"])
        room = max(cells.least, min(cells.widest, width - names.widest - table.GAP))
        yield from table.rows([(names, names.widest), (cells, room)])


def _lines(rows: list[Document], names: tuple[str, ...]) -> Iterator[str]:
    if not rows:
        return iter(())
    columns = [column for column in table.columns_of(rows, names) if any(column.cells)]
    return table.rows([(column, column.widest) for column in columns])
