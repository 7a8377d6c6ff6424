"""MLTable: the whole list of transformations, read in scripts under the name `mltable`, as inputs and in parallel steps."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from checked_yard import YardUnderTest
from modelyard_runtime import files

TABLE = """
type: mltable
paths:
  - pattern: ./sales/**/*.csv
transformations:
  - read_delimited: {delimiter: ",", encoding: ascii, header: all_files_same_headers, include_path_column: true}
  - extract_columns_from_partition_format: /sales/{region}/{month:yyyy/MM}/day.csv
  - convert_column_types:
      - columns: when
        column_type: {datetime: {formats: ["%d/%m/%Y"]}}
      - columns: [paid]
        column_type: {boolean: {true_values: ["yes"], false_values: ["no"]}}
      - columns: words
        column_type: int
  - filter: 'col("amount") >= 15 and not col("paid") == True'
  - drop_columns: nothing
  - skip: 1
  - take: 5
"""
DETAILS = """
import json, pathlib, sys
import mltable, pandas
from mltable import DataType, MLTableHeaders

found = {}
table = mltable.load(sys.argv[1])
frame = table.to_pandas_dataframe()
found["amounts"] = [int(value) for value in frame.amount]
found["regions"] = sorted(set(frame.region))
found["months"] = sorted({str(value.date()) for value in frame.month})
found["first"] = str(frame.when[0].date())
found["unreadable"] = bool(frame.words.isna().all())
found["columns"] = list(frame.columns)

files = [{"pattern": sys.argv[1] + "/sales/**/*.csv"}]
whole = mltable.from_delimited_files(files)
found["rows"] = len(whole.to_pandas_dataframe())
one, other = whole.random_split(0.3, seed=1)
parts = [set(part.to_pandas_dataframe().amount) for part in (one, other)]
found["split"] = [sorted(int(v) for v in parts[0] | parts[1]), len(parts[0] & parts[1])]
sample = whole.take_random_sample(0.5, seed=3)
found["sampled_alike"] = sample.to_pandas_dataframe().equals(sample.to_pandas_dataframe()) and 0 < len(sample.to_pandas_dataframe()) < 20
chosen = whole.convert_column_types({("amount", "words"): DataType.to_string(), "paid": DataType.to_bool(["yes"], ["no"])})
chosen = chosen.filter('col("amount") in ("10", "11") or isnull(col("words"))').keep_columns(["amount", "paid"])
found["chosen"] = chosen.to_pandas_dataframe().to_dict("list")
chosen.save("saved")
found["saved_alike"] = mltable.load("saved").to_pandas_dataframe().equals(chosen.to_pandas_dataframe())

pandas.DataFrame({"x": [1, 2], "y": ["a", "b"]}).to_parquet("f.parquet")
found["parquet"] = mltable.from_parquet_files([{"file": "f.parquet"}]).to_pandas_dataframe().to_dict("list")
pathlib.Path("f.jsonl").write_text('{"x": 1}\\nnot json\\n{"x": 2}\\n')
found["json"] = mltable.from_json_lines_files([{"file": "f.jsonl"}], invalid_lines="drop").to_pandas_dataframe().to_dict("list")
pathlib.Path("l.csv").write_bytes("x;y\\n1;ä\\n2;ö\\n".encode("cp1252"))
western = dict(delimiter=";", encoding="windows1252")
found["western"] = mltable.from_delimited_files([{"file": "l.csv"}], **western).to_pandas_dataframe().to_dict("list")
plain = mltable.from_delimited_files([{"file": "l.csv"}], header=MLTableHeaders.no_header, infer_column_types=False, **western)
found["headless"] = plain.to_pandas_dataframe().to_dict("list")
pathlib.Path("h1.csv").write_text("a,b\\n1,2\\n")
pathlib.Path("h2.csv").write_text("3,4\\n")
pathlib.Path("h3.csv").write_text("a,c\\n5,6\\n")
pair = lambda other: [{"file": "h1.csv"}, {"file": other}]
found["first_header"] = mltable.from_delimited_files(pair("h2.csv"), header="from_first_file").to_pandas_dataframe().to_dict("list")
found["headers"] = sorted(mltable.from_delimited_files(pair("h3.csv"), header="all_files_different_headers").to_pandas_dataframe().columns)
from deltalake import write_deltalake
for mode in ("overwrite", "append"):
    write_deltalake("delta", pandas.DataFrame({"x": [1, 2]}), mode=mode)
found["delta"] = [len(mltable.from_delta_lake("delta", version_as_of=n).to_pandas_dataframe()) for n in (0, 1)]
found["refused"] = []
for wrong in ("__import__('os')", 'col("a"', "col(a) > 1", "(lambda: 1)()", 'col("x").y'):
    try:
        whole.filter(wrong)
    except ValueError as error:
        found["refused"].append(str(error))
try:
    whole.keep_columns("zz").to_pandas_dataframe()
except ValueError as error:
    found["refused"].append(str(error))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def environment(yard: YardUnderTest, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("environment") / "environment.yml"
    path.write_text(json.dumps({"name": "tables", "version": "1", "pip": ["mltable", "deltalake>=1,<2", "pyarrow"]}))
    yard.run("environment", "create", "-f", str(path))
    built = yard.json("environment", "build", "-n", "tables")
    return str(yard.built / built["key"] / "bin" / "python")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    folder = tmp_path / "table"
    for month in (1, 2):
        day = folder / "sales" / "eu" / "2026" / f"0{month}"
        day.mkdir(parents=True)
        lines = [f"{i + 10 * month},w{i},0{i % 9 + 1}/0{month}/2026,{'yes' if i % 2 else 'no'},\n" for i in range(10)]
        (day / "day.csv").write_text("amount,words,when,paid,nothing\n" + "".join(lines))
    (folder / "MLTable").write_text(TABLE)
    return folder


def test_every_transformation_and_reader_of_a_table(environment: str, table: Path, tmp_path: Path) -> None:
    (tmp_path / "details.py").write_text(DETAILS)
    done = subprocess.run([environment, "details.py", str(table)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    refused = found.pop("refused")
    assert len(refused) == 6 and "there is no column zz" in refused[-1]
    assert found == {
        "amounts": [18, 20, 22, 24, 26], "regions": ["eu"], "months": ["2026-01-01", "2026-02-01"], "first": "2026-01-09", "unreadable": True,
        "columns": ["Path", "amount", "words", "when", "paid", "region", "month"], "rows": 20, "split": [list(range(10, 30)), 0],
        "sampled_alike": True, "chosen": {"amount": ["10", "11"], "paid": [False, True]}, "saved_alike": True,
        "parquet": {"x": [1, 2], "y": ["a", "b"]}, "json": {"x": [1, 2]}, "western": {"x": [1, 2], "y": ["ä", "ö"]},
        "headless": {"Column1": ["x", "1", "2"], "Column2": ["y", "ä", "ö"]}, "first_header": {"a": [1, 3], "b": [2, 4]},
        "headers": ["a", "b", "c"], "delta": [2, 4],
    }  # fmt: skip


def test_a_job_and_a_parallel_step_read_a_table_and_a_script_reads_it_by_its_address(
    yard: YardUnderTest, environment: str, table: Path, tmp_path: Path
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "read.py").write_text(
        "import sys, mltable\n"
        "for place in sys.argv[1:]:\n"
        "    print(mltable.load(place).to_pandas_dataframe().amount.tolist(), flush=True)\n"
    )
    (tmp_path / "code" / "score.py").write_text("def run(batch):\n    return (batch.amount * 2).tolist()\n")
    base = "azureml://datastores/workspaceblobstore/paths/near/"
    (tmp_path / "code" / "near.py").write_text(
        "import mltable\n"
        f"for item in ({{'folder': '{base}x'}}, {{'folder': '{base}x/'}}, {{'file': '{base}x.csv'}}):\n"
        "    print(mltable.from_delimited_files([item]).to_pandas_dataframe().a.tolist(), flush=True)\n"
    )
    files = " && ".join(
        f"mkdir -p $(dirname {at}) && printf 'a\\n{number}\\n' > {at}"
        for number, at in enumerate((f"${{{{outputs.near}}}}/{name}" for name in ("x/a.csv", "x.csv", "x_old/a.csv", "xy/a.csv")), 1)
    )
    assert yard.wait_job(yard.submit(files, outputs={"near": {"path": base}}))["status"] == "Completed"
    (tmp_path / "data.yml").write_text("name: sales\nversion: 1\ntype: mltable\npath: ./table\n")
    yard.run("data", "create", "-f", str(tmp_path / "data.yml"))
    (tmp_path / "pipeline.yml").write_text(
        """
type: pipeline
inputs: {rows: {type: mltable, path: "azureml:sales:1"}}
outputs: {doubled: {type: uri_file}}
jobs:
  read:
    type: command
    inputs: {rows: "${{parent.inputs.rows}}"}
    code: ./code
    command: python read.py ${{inputs.rows}} azureml:sales:1 azureml:sales azureml:sales@latest && python near.py
    environment: azureml:tables:1
  score:
    type: parallel
    mini_batch_size: "1kb"
    mini_batch_error_threshold: 0
    input_data: ${{inputs.rows}}
    inputs: {rows: {type: mltable, mode: direct, path: "${{parent.inputs.rows}}"}}
    outputs: {doubled: "${{parent.outputs.doubled}}"}
    task: {type: run_function, code: ./code, entry_script: score.py, environment: "azureml:tables:1", append_row_to: "${{outputs.doubled}}"}
"""
    )
    job = yard.json("job", "create", "-f", str(tmp_path / "pipeline.yml"))["name"]
    ended = yard.wait_job(job)
    steps = ended["steps"]
    assert ended["status"] == "Completed", [yard.job_log(step["job_name"]) for step in steps.values() if step.get("job_name")]
    assert yard.job_log(steps["read"]["job_name"]).splitlines() == ["[18, 20, 22, 24, 26]"] * 4 + ["[1]", "[1]", "[2]"]
    yard.run("job", "download", "-n", job, "--output-name", "doubled", "-p", str(tmp_path / "got"))
    assert next(path for path in (tmp_path / "got").rglob("*") if path.is_file()).read_text().split() == ["36", "40", "44", "48", "52"]


def test_a_file_is_read_under_its_own_name_whatever_that_looks_like(environment: str, tmp_path: Path) -> None:
    """DuckDB takes `[1]` and `*` in a name for a pattern, and read another file in its place."""
    for name in ("a[1].csv", "a1.csv", "x*y.csv", "xzy.csv", "it's.csv"):
        (tmp_path / name).write_text(f"name\n{name}\n")
    script = """
import json, mltable
read = lambda name: mltable.from_delimited_files([{"file": name}]).to_pandas_dataframe().name.tolist()
print(json.dumps([read(name) for name in ("a[1].csv", "x*y.csv", "it's.csv")]))
"""
    done = subprocess.run([environment, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["a[1].csv"], ["x*y.csv"], ["it's.csv"]]


def test_folders_named_like_partitions_neither_add_columns_nor_replace_those_of_the_files(environment: str, tmp_path: Path) -> None:
    """DuckDB reads `region=eu` in a path as a column, and took it for what the files hold under that name."""
    script = """
import json, os, mltable, pyarrow, pyarrow.parquet
for region in ("eu", "us"):
    folder = "part/region=" + region
    os.makedirs(folder)
    open(folder + "/rows.csv", "w").write("amount,region\\n1,own\\n")
    open(folder + "/rows.jsonl", "w").write('{"amount": 1, "region": "own"}\\n')
    pyarrow.parquet.write_table(pyarrow.table({"amount": [1], "region": ["own"]}), folder + "/rows.parquet")
of = lambda end: [{"pattern": "part/*/rows." + end}]
tables = [mltable.from_delimited_files(of("csv")), mltable.from_json_lines_files(of("jsonl")), mltable.from_parquet_files(of("parquet"))]
tables.append(mltable.from_delimited_files(of("csv")).drop_columns("region").extract_columns_from_partition_format("region={region}"))
print(json.dumps([table.to_pandas_dataframe().to_dict("list") for table in tables]))
"""
    done = subprocess.run([environment, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *read, extracted = json.loads(done.stdout)
    assert read == [{"amount": [1, 1], "region": ["own", "own"]}] * 3
    assert extracted["amount"] == [1, 1]
    assert extracted["region"] == ["eu", "us"], "also where a column of that name was dropped"


ROWS = """
def run(frame, context):
    import pandas
    assert list(frame.index) == list(range(len(frame)))
    keys = context.partition_key_value
    return pandas.DataFrame({"index": context.global_row_index_lower_bound + frame.index, "text": [f"{row} {keys}" for row in frame.itertuples(index=False, name=None)]})
"""


def parallel(environment: str, folder: Path, *options: str, script: str = ROWS) -> tuple[list[str], str]:
    """Rows that were appended, and what was logged, or why it failed."""
    (folder / "entry.py").write_text(script)
    command = [
        environment,
        "-I",
        str(files.RUNTIME),
        "parallel",
        "--script",
        "entry.py",
        "--input",
        "table",
        "--append-to",
        "out.txt",
        *options,
        "--",
    ]
    (folder / "out.txt").unlink(missing_ok=True)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    return (folder / "out.txt").read_text().splitlines() if done.returncode == 0 else [], done.stdout + done.stderr


def test_rows_of_a_table_are_cut_by_bytes_or_by_keys_and_come_with_their_path(environment: str, tmp_path: Path) -> None:
    folder = tmp_path / "table"
    for region in ("eu", "us"):
        (folder / region).mkdir(parents=True)
        (folder / region / "rows.csv").write_text("name,note\n" + "".join(f"{region}{number},x\n" for number in range(2)))
    (folder / "us" / "rows.csv").write_text("name,note\nus0,x\n,y\n")
    head = "paths: [{pattern: ./*/rows.csv}]\ntransformations:\n  - read_delimited: {include_path_column: true}\n"
    parts = head + "  - extract_partition_format_into_columns: {partition_format: '/{region}/rows.csv'}\n"
    (folder / "MLTable").write_text(parts + "  - drop_columns: [Path]\n")
    rows, log = parallel(environment, tmp_path, "--size", "8")
    assert rows == [
        "0 \"('eu0', 'x', 'eu') None\"",
        "1 \"('eu1', 'x', 'eu') None\"",
        "2 \"('us0', 'x', 'us') None\"",
        "3 \"(nan, 'y', 'us') None\"",
    ], log
    assert "4 items in 4 mini batches" in log
    rows, log = parallel(environment, tmp_path, "--keys", "region")
    assert "Warning" not in log, log
    assert [row.rpartition(") ")[2] for row in rows] == ["{'region': 'eu'}\""] * 2 + ["{'region': 'us'}\""] * 2, log
    rows, log = parallel(environment, tmp_path, "--keys", "name")
    assert len(rows) == 4 and "4 items in 4 mini batches" in log, "a row without a value of the key is an item too"
    assert (
        "partition key day: the table has no such column; it has name, note, region" in parallel(environment, tmp_path, "--keys", "day")[1]
    )
    (folder / "MLTable").write_text(parts + '  - filter: \'col("Path") != "x"\'\n  - keep_columns: [Path, name]\n')
    rows, log = parallel(environment, tmp_path)
    assert len(rows) == 4 and "table/eu/rows.csv', 'eu0')" in rows[0], log


def test_a_table_that_reads_nothing_is_its_files(environment: str, tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / "table" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "table" / name).write_text(name)
    (tmp_path / "table" / "MLTable").write_text(
        "paths: [{pattern: ./*/*.png}]\ntransformations:\n  - extract_columns_from_partition_format: /{kind}/{number}.png\n"
    )
    script = "def run(batch, context):\n    return [f'{open(path).read()} {context.partition_key_value}' for path in batch]\n"
    assert parallel(environment, tmp_path, script=script)[0] == ["a/1.png None", "a/2.png None", "b/1.png None"]
    rows, log = parallel(environment, tmp_path, "--keys", "kind", script=script)
    assert rows == ["a/1.png {'kind': 'a'}", "a/2.png {'kind': 'a'}", "b/1.png {'kind': 'b'}"] and "3 items in 2 mini batches" in log
