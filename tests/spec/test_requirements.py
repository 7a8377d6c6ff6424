"""Requirements are values: what is parsed is installed, and no text of a user's becomes a line or an option of a tool."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from checked_yard import YardUnderTest
from grounds import NONE
from modelyard.assets.environments.model import curated, of_mlflow_model, older_than_programs, wanted_by
from modelyard.core.addresses import AddressGuard
from modelyard.core.errors import Invalid
from modelyard.drivers.builder import index
from modelyard.drivers.builder.venv import VenvBuilder
from modelyard.ports.builder import Requirements as BuilderRequirements
from modelyard.spec.environment import Environment
from modelyard.spec.requirements import Package, Requirements, Sources, inline, parse_package, parse_requirements

DIGEST = "sha256:" + "0123456789abcdef" * 4
WHEEL = "https://files.example/six-1.16.0-py2.py3-none-any.whl"


def packages(*lines: str) -> list[str]:
    return [str(package) for package in parse_requirements(lines).packages]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["six"], ["six"]),
        (["numpy >= 1.2 , < 2  # the old one"], ["numpy<2,>=1.2"]),
        (["six[b, a]==1.16.0 ; python_version < '3.12'"], ['six[a,b]==1.16.0; python_version < "3.12"']),
        (["# only words", "", "   ", "six"], ["six"]),
        (["six==1.16.0 \\", f"    --hash={DIGEST}"], [f"six==1.16.0 --hash={DIGEST}"]),
        ([f"six==1.16.0 \\\n  --hash={DIGEST}"], [f"six==1.16.0 --hash={DIGEST}"]),
        ([f"six==1.16.0 \\\n  --hash {DIGEST}\n"], [f"six==1.16.0 --hash={DIGEST}"]),
        (["six \\", "# a comment ends it \\", "attrs"], ["six", "attrs"]),
        ([f"six @ {WHEEL}"], [f"six @ {WHEEL}"]),
        ([f"{WHEEL} ; python_version > '3'"], [f'six @ {WHEEL} ; python_version > "3"']),
        (["torch==2.1.0+cpu"], ["torch==2.1.0+cpu"]),
        (["numpy>=1.16.*,<1.20.*", "Pandas  ==  1.0"], ["numpy<1.20,>=1.16", "Pandas==1.0"]),
        (["git+https://a.example/x/six.git@v1"], ["git+https://a.example/x/six.git@v1"]),
        (["git+https://a.example/x/six.git@v1#egg=six&subdirectory=py"], ["six @ git+https://a.example/x/six.git@v1#subdirectory=py"]),
        (["-e git+https://a.example/x/six.git@v1#egg=six[a]"], ["six[a] @ git+https://a.example/x/six.git@v1"]),
        (["six @ git+https://a.example/six ; python_version > '3'"], ['six @ git+https://a.example/six ; python_version > "3"']),
        (["https://a.example/en_core_web_sm-2.3.1.tar.gz"], ["https://a.example/en_core_web_sm-2.3.1.tar.gz"]),
        (["--no-cache-dir", "-U", "six"], ["six"]),
    ],
)
def test_a_requirement_is_understood_as_pip_understands_it(lines: list[str], expected: list[str]) -> None:
    assert packages(*lines) == expected


@pytest.mark.parametrize(
    ("item", "code", "words"),
    [
        ("six\n-e /dir", "invalid_environment", "holds a line break"),
        ("six\r-e /dir", "invalid_environment", "holds a line break"),
        ("six\u2028-e /dir", "invalid_environment", "holds a line break"),
        ("six # words\x85-e /dir", "invalid_environment", "holds a line break"),
        ("six\x00", "invalid_environment", "control character"),
        ('six; python_version > "3\x1b[2J"', "invalid_environment", "control character"),
        ("six \\\n-e /dir", "no_wheel", "is a path on some machine"),
        ("-e /dir", "no_wheel", "is a path on some machine"),
        ("-e/dir", "no_wheel", "is a path on some machine"),
        ("--editable=/dir", "no_wheel", "is a path on some machine"),
        ("six -e /dir", "no_wheel", "is a path on some machine"),
        ("six --no-binary six", "no_wheel", "--no-binary"),
        ("--no-binary :all:", "no_wheel", "--no-binary"),
        ("six --config-settings x=y", "no_wheel", "--config-settings"),
        ("six --global-option=x", "no_wheel", "--global-option"),
        ("six --pre", "unsupported_option", "--pre beside a requirement"),
        ("-r /etc/passwd", "unsupported_option", "--requirement /etc/passwd names a file"),
        ("-r/etc/passwd", "unsupported_option", "names a file"),
        ("--requirement=/etc/passwd", "unsupported_option", "names a file"),
        ("-c limits.txt", "unsupported_option", "--constraint limits.txt names a file"),
        ("--python /bin/sh", "unsupported_option", "not an option that is supported"),
        ("--index https://a.example", "unsupported_option", "not an option that is supported"),
        ("-", "unsupported_option", "not an option"),
        ("six -", "unsupported_option", "not an option"),
        ("--find-links /srv/packages", "invalid_environment", "takes an http or https address"),
        ("-f file:///srv/packages", "invalid_environment", "takes an http or https address"),
        ("-f.", "invalid_environment", "takes an http or https address"),
        ("--index-url", "invalid_environment", "has no value"),
        ("-i 'https://a.example/ --no-binary'", "invalid_environment", "takes an http or https address"),
        ("-i https://a.example:port/", "invalid_environment", "takes an http or https address"),
        ("-i https://[::1", "invalid_environment", "takes an http or https address"),
        ("--extra-index-url https://me:secret@a.example/simple", "invalid_environment", "password"),
        ("--index-url https://a.example/${YARD_TOKEN}", "invalid_environment", "environment variable"),
        ("--index-url https://a.example/$TOKEN", "invalid_environment", "takes an http or https address"),
        ("--trusted-host a.example/x", "invalid_environment", "takes a host"),
        ("--trusted-host='a --pre'", "invalid_environment", "takes a host"),
        ("--index-url 'https://a.example", "invalid_environment", "quotation mark"),
        ("six --hash=md5:d41d8cd98f00b204e9800998ecf8427e", "invalid_environment", "sha256"),
        (f"--hash={DIGEST}", "invalid_environment", "stands behind the requirement"),
        ("./pkg", "no_wheel", "is a path on some machine"),
        ("/abs/pkg", "no_wheel", "is a path"),
        ("~/pkg", "no_wheel", "is a path"),
        ("pkg/", "no_wheel", "is a path"),
        ("file:///x/six.whl", "no_wheel", "is a path"),
        ("six.whl", "no_wheel", "is a path"),
        ("six-1.0.tar.gz[extra]", "no_wheel", "is a path"),
        ("six @ file:///x/six-1.16.0-py2.py3-none-any.whl", "no_wheel", "is a path"),
        ("six @ ./six", "no_wheel", "is a path"),
        ("git+file:///srv/six", "no_wheel", "comes from a repository"),
        ("-e .", "no_wheel", "is a path on some machine"),
        ("hg+https://a.example/six", "no_wheel", "comes from a repository"),
        ("git+https://me:secret@a.example/six", "invalid_environment", "password"),
        ("git+https://a.example/six@--upload-pack=x", "invalid_environment", "begins with a dash"),
        ("six -e git+https://a.example/six", "unsupported_option", "--editable beside a requirement"),
        ("six @ git+ssh://a.example/six@main", "no_wheel", "comes from a repository"),
        ("https://a.example/six", "no_wheel", "is no package"),
        ("six @ https://a.example/six.exe", "no_wheel", "is no package"),
        ("https://a.example/six.whl", "invalid_environment", "does not name a wheel"),
        ("six @ https://a:b@a.example/six-1.16.0-py2.py3-none-any.whl", "invalid_environment", "password"),
        ("requirements.txt", "invalid_environment", "is the name of a file"),
        ("six==", "invalid_environment", "not a requirement that can be read"),
        ("six three", "invalid_environment", "not a requirement that can be read"),
        ("six;" + "(" * 3000, "invalid_environment", "nested too deeply"),
        ("x" * 20_000, "invalid_environment", "characters at most"),
        (" " * 1_000_000 + "x", "invalid_environment", "characters at most"),
        ("six \\\n" * 9_999 + "six", "invalid_environment", "characters at most"),
    ],
)  # fmt: skip
def test_what_is_no_requirement_is_refused_by_name(item: str, code: str, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_requirements(["attrs", item])
    assert refused.value.code == code and words in refused.value.message
    assert refused.value.message.startswith("pip, line 2: ")


def test_options_about_sources_become_fields() -> None:
    parsed = parse_requirements(
        [
            "-i https://a.example/simple --trusted-host a.example:8443",
            "--extra-index-url=https://b.example/simple",
            "--extra-index-url https://b.example/simple",
            '-f "https://c.example/wheels"',
            "--pre", "--prefer-binary", "--no-index", "--only-binary :all:",
        ]
    )  # fmt: skip
    assert parsed.sources == Sources(
        "https://a.example/simple", ("https://b.example/simple",), ("https://c.example/wheels",), ("a.example:8443",), True, True, True
    )
    assert parsed.notes == ("--only-binary :all:: wheels are taken anyway, where there are any",)
    assert parse_requirements(parsed.sources.lines()).sources == parsed.sources


def test_constraints_stay_constraints() -> None:
    parsed = parse_requirements(["six"], ["attrs<24"])
    assert (packages("six"), [str(limit) for limit in parsed.constraints]) == (["six"], ["attrs<24"])


def _read(files: dict[str, str]) -> Any:
    def read(name: str, source: str) -> tuple[str, str]:
        if name not in files:
            raise Invalid(f"{source} names {name!r}, which is not there")
        return name, files[name]

    return read


def test_named_files_are_put_in_their_place() -> None:
    files = {"base.txt": "six\n-c limits.txt\n-r deep.txt # more\n", "limits.txt": "attrs<24\n", "deep.txt": "idna"}
    found = inline(["numpy", "-r base.txt", "--constraint=limits.txt"], _read(files), source="all.txt")
    assert (found.lines, found.constraints) == (["numpy", "six", "idna"], ["attrs<24", "attrs<24"])
    assert found.files == ["base.txt", "limits.txt", "deep.txt", "limits.txt"]
    with pytest.raises(Invalid, match=r"base\.txt names 'gone\.txt'"):
        inline(["-r base.txt"], _read({"base.txt": "-r gone.txt"}), source="all.txt")
    with pytest.raises(Invalid, match="too deeply"):
        inline(["-r a.txt"], _read({"a.txt": "-r a.txt"}), source="all.txt")
    with pytest.raises(Invalid, match="more than 50 files"):
        inline(["-r a.txt"], _read({"a.txt": "-r b.txt\n" * 1000, "b.txt": "-r c.txt\n" * 1000, "c.txt": ""}), source="all.txt")


TOKENS = st.sampled_from(
    [
        "six", "==1.0", "-e", "--no-binary", "-r", " ", "\n", "\r", "\\\n", "\\", "\x00", "\t", "\u2028", "\x85", "\x0b", "#", ";", "'", '"',
        "--hash=" + DIGEST, " @ ", WHEEL, "file:///etc", "git+https://x/y", "--index-url", "=", "https://a.example", "/dir", "${HOME}", "$X",
        "[a]", "python_version", ">'3'", ",", "(", ")", "<2", "-", "--", ":all:", ".whl", "é", "\xa0",
    ]
)  # fmt: skip
TEXT = st.one_of(st.text(max_size=40), st.lists(TOKENS, max_size=8).map("".join))


def checked(parsed: Requirements) -> None:
    """Each line of the file for the tool reads as exactly one requirement, each option is one word of a known name."""
    every = (*parsed.packages, *parsed.constraints)
    written = index.written(every).splitlines()
    assert len(written) == len(every)
    for line, package in zip(written, every, strict=True):
        requirement, *hashes = line.split(" --hash=")
        assert (package.unnamed or Requirement(requirement) == package.requirement) and tuple(hashes) == package.hashes
        assert requirement[0].isalnum() and requirement.isprintable() and "${" not in requirement
        assert parse_package(line) == package
        assert package.requirement.url is None or package.requirement.url.lower().startswith(
            ("http://", "https://", "git+http://", "git+https://")
        )
    for option in index.source_options({}, parsed.sources):
        name, _, value = option.partition("=")
        assert name in ("--default-index", "--extra-index-url", "--find-links", "--allow-insecure-host", "--no-index", "--prerelease")
        assert not any(char.isspace() for char in value) and not value.startswith("-")


@given(st.lists(TEXT, max_size=5), st.lists(TEXT, max_size=2))
@settings(max_examples=600, deadline=None)
@example(['six; python_version > "3\n-e /dir"'], [])
@example(["six @ https://a.example/six-1-py3-none-any.whl\n-e"], [])
def test_no_text_becomes_a_line_that_was_not_parsed(lines: list[str], constraints: list[str]) -> None:
    try:
        parsed = parse_requirements(lines, constraints)
    except Invalid:
        return
    checked(parsed)


CONDA_ITEM = st.one_of(
    TEXT, st.tuples(st.sampled_from(["numpy", "pytorch", "python", "x::six"]), TEXT).map("".join), st.none(), st.integers()
)


@given(st.lists(st.one_of(CONDA_ITEM, st.lists(st.one_of(TEXT, st.none()), max_size=3).map(lambda items: {"pip": items})), max_size=4))
@settings(max_examples=400, deadline=None)
def test_no_text_of_a_conda_file_does_either(dependencies: list[Any]) -> None:
    try:
        wanted = wanted_by(Environment(conda_file={"dependencies": dependencies})).requirements
    except Invalid:
        return
    checked(Requirements(tuple(map(parse_package, wanted.packages)), (), wanted.sources))
    assert not wanted.python or wanted.python.replace(".", "").isdecimal() or str(SpecifierSet(wanted.python)) == wanted.python


def test_conda_lists_are_read_with_their_pip_part() -> None:
    wanted = wanted_by(
        Environment(
            conda_file={
                "channels": ["conda-forge", "mine"],
                "variables": {"A": "b"},
                "dependencies": [
                    "python>=3.9,<3.12", "mine::numpy=1.26.4=py311_0", "scipy 1.11", {"pip": ["--pre", "xgboost[plots]>=2 ; python_version>'3'"]},
                ],
            },
            constraints=["pandas<3"],
        )
    )  # fmt: skip
    assert wanted.requirements.packages == ("numpy==1.26.4", "scipy==1.11", 'xgboost-cpu[plots]>=2; python_version > "3"')
    assert (wanted.requirements.python, wanted.requirements.constraints) == ("<3.12,>=3.9", ("pandas<3",))
    assert wanted.requirements.variables == (("A", "b"),)
    assert wanted.requirements.sources == Sources(pre=True)
    notes = "\n".join(wanted.notes)
    for words in ("channels mine are not asked", "build py311_0"):
        assert words in notes


@pytest.mark.parametrize("item", [None, 3, "numpy\n-e /dir", "numpy=1\x00", "-e", "numpy==1;x @ file:///", {"pip": [None]}, {"npm": []}])
def test_what_is_no_conda_dependency_is_refused(item: Any) -> None:
    with pytest.raises(Invalid):
        wanted_by(Environment(conda_file={"dependencies": [item]}))


def of_model(**texts: str) -> Any:
    return of_mlflow_model({name.replace("_txt", ".txt").replace("_yaml", ".yaml"): text for name, text in texts.items()}.get)


def test_a_models_own_requirements_are_parsed() -> None:
    wanted = of_model(
        requirements_txt="mlflow[extras]==2.14.1 ; python_version>'3'\nPandas>=2 ; python_version < '3.9'\n-c limits.txt", limits_txt="numpy<2",
        python_env_yaml="python: 3.10.12",
    )  # fmt: skip
    assert wanted.requirements.packages == (
        'mlflow-skinny==2.14.1; python_version > "3"', 'Pandas>=2; python_version < "3.9"', "numpy",
    )  # fmt: skip
    assert (wanted.requirements.python, wanted.requirements.constraints) == ("3.10", ("numpy<2",))
    assert "mlflow-skinny" in wanted.notes[0]
    assert of_model(requirements_txt="", python_env_yaml='"python": "../../sh\\n"').requirements.python == ""


def test_a_models_files_count_in_mlflows_own_order() -> None:
    """python_env.yaml, requirements.txt, the pip list of conda.yaml; what conda.yaml alone has besides is installed too."""
    conda = "dependencies: [python=3.8.5, scikit-learn=0.24.2, numpy=1.19, vc=14, {pip: [mlflow==1.10.0, cloudpickle==1.6]}, r-caret]"
    old = of_model(conda_yaml=conda)
    assert old.requirements.packages == (
        "mlflow==1.10.0", "cloudpickle==1.6", "scikit-learn==0.24.2", "numpy==1.19.*", "pandas", "setuptools<81",
    )  # fmt: skip
    assert old.requirements.python == "3.8" and old.requirements.exact and any("vc, r-caret" in note for note in old.notes)
    later = of_model(conda_yaml=conda, requirements_txt="mlflow==1.30.0\nnumpy==1.20.1\n")
    assert later.requirements.packages == ("mlflow-skinny==1.30.0", "numpy==1.20.1", "scikit-learn==0.24.2", "pandas", "setuptools<81")
    described = (
        "python: 3.11.2\nbuild_dependencies: [pip==23.2.1, setuptools==65.5.0, wheel]\ndependencies: [-r requirements.txt, six==1.15]"
    )
    today = of_model(
        conda_yaml="dependencies: [python=3.8]", requirements_txt="xgboost==3.2.0\nxgboost-cpu==3.2.0", python_env_yaml=described
    )
    assert today.requirements.packages == ("setuptools==65.5.0", "xgboost-cpu==3.2.0", "six==1.15", "pandas", "numpy")
    assert today.requirements.python == "3.11"
    with pytest.raises(Invalid, match="give the deployment an environment"):
        of_model(MLmodel="flavors: {}")


def test_the_builder_takes_nothing_that_is_not_a_requirement(tmp_path: Path) -> None:
    from modelyard.ports.builder import Lock
    from modelyard.ports.builder import Requirements as Wanted

    builder = VenvBuilder(tmp_path, NONE)
    for text in ("-e /dir", "six\n-e /dir", "./dir", "--no-binary=:all:"):
        with pytest.raises(Invalid):
            builder.lock(Wanted((text,)), lambda line: None)
        with pytest.raises(Invalid):
            builder.build(Lock("3.11", text, "0" * 24), lambda line: None)


def test_hashes_bind_what_is_installed(tmp_path: Path) -> None:
    from modelyard.ports.builder import Requirements as Wanted

    builder = VenvBuilder(tmp_path, NONE)
    lock = builder.lock(Wanted((str(Package(Requirement("six==1.15.0"), (DIGEST,))),), constraints=("attrs<1",)), lambda line: None)
    assert lock.packages == f"six==1.15.0 --hash={DIGEST}"
    with pytest.raises(Invalid, match="Hash mismatch for `six==1.15.0`"):
        builder.build(lock, lambda line: None)


def test_the_key_of_a_lock_is_what_it_was(tmp_path: Path) -> None:
    """A home keeps its built environments: the text that is hashed has not changed."""
    import hashlib
    import platform
    import sys

    from modelyard.ports.builder import Requirements as Wanted

    builder = VenvBuilder(tmp_path, NONE)
    lock = builder.lock(Wanted(("six==1.15.0",)), lambda line: None)
    text = f"{lock.python} {platform.machine()} {sys.platform}\nsix==1.15.0\n"
    assert lock.key == hashlib.sha256(text.encode()).hexdigest()[:24]


def test_a_models_files_name_each_other_and_nothing_else() -> None:
    from types import SimpleNamespace

    from modelyard.ports.objects import File, Tree
    from modelyard.serving.online.replicas import Maker

    def wanted(**texts: str) -> Any:
        files = {name.replace("__", "/").replace("_txt", ".txt").replace("_yaml", ".yaml"): text for name, text in texts.items()}
        maker = Maker.__new__(Maker)
        maker.yard = SimpleNamespace(objects=SimpleNamespace(open=lambda digest: [files[digest].encode()]))  # type: ignore[assignment]
        return maker._wanted_by_model(Tree(tuple(File(name, name, 1) for name in files)))

    found = wanted(
        m__a__requirements_txt="not of the model", m__MLmodel="", m__requirements_txt="mlflow==2.14.1\n-c constraints.txt\nsix; python_version>'3' # x",
        m__constraints_txt="numpy<2\n", m__pythonenv_yaml="", m__python_env_yaml='build_dependencies: [pip]\n"python": "3.10.4"\n',
    ).requirements  # fmt: skip
    assert found.packages == ("mlflow-skinny==2.14.1", 'six; python_version > "3"', "pandas", "numpy")
    assert (found.constraints, found.python) == (("numpy<2",), "3.10")
    for line in ("-r ../../etc/passwd", "-r /etc/passwd", "-c gone.txt"):
        with pytest.raises(Invalid, match="no file of the model"):
            wanted(m__MLmodel="", m__requirements_txt=line)
    with pytest.raises(Invalid, match=r"requirements.txt, line 1"):
        wanted(m__MLmodel="", m__requirements_txt="-e .")


def test_a_hostile_environment_is_refused_and_runs_nothing(yard: YardUnderTest, tmp_path: Path) -> None:
    package, marker = tmp_path / "package", tmp_path / "ran"
    package.mkdir()
    (package / "setup.py").write_text(f"open({str(marker)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='bad', version='1')\n")
    (tmp_path / "secret.txt").write_text("the secret\n")
    for item, code in (
        (f"six\n-e {package}", "invalid_environment"),
        (f"six\r-e {package}", "invalid_environment"),
        (f"six \\\n-e {package}", "no_wheel"),
        (f"--find-links {tmp_path}", "invalid_environment"),
        (f"-r {tmp_path}/secret.txt", "unsupported_option"),
        (f"bad @ file://{package}", "no_wheel"),
        ("--no-binary :all:", "no_wheel"),
    ):
        for definition in (
            {"pip": [item]},
            {"conda_file": {"dependencies": ["pip", {"pip": [item]}]}},
            {"pip": ["six"], "constraints": [item]},
        ):
            made = yard.call("POST", "/api/v1/workspaces/default/environments", json={"name": "bad", **definition})
            assert (made.status_code, made.json()["error"]["code"]) == (400, code), made.text
            assert "the secret" not in made.text
            job = {"type": "command", "command": "true", "environment": definition}
            assert "line 1: " in yard.call("POST", "/api/v1/workspaces/default/jobs", json=job, expect=400).text
    assert yard.call("GET", "/api/v1/workspaces/default/environments", params={"name": "bad"}).json()["value"] == []
    inside = {"name": "inside", "version": "1", "pip": ["--index-url http://127.0.0.1:1/simple", "six"]}
    yard.call("POST", "/api/v1/workspaces/default/environments", json=inside, expect=201)
    log = yard.call("POST", "/api/v1/workspaces/default/environments/inside/build", params={"version": "1"}).text
    assert "failed: 127.0.0.1 port 1 is not a public address" in log and "allow_addresses, here `127.0.0.1:1=environments`" in log
    assert not marker.exists()


def test_the_client_reads_what_a_requirements_file_names(yard: YardUnderTest, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    (folder / "env").mkdir(parents=True)
    (folder / "env/requirements.txt").write_text("-r ../base.txt\nattrs # kept\n")
    (folder / "base.txt").write_text("six\n-c limits.txt\n")
    (folder / "limits.txt").write_text("six==1.15.0\n")
    (tmp_path / "outside.txt").write_text("idna\n")
    (folder / "env.yml").write_text("name: from-files\npip: env/requirements.txt\n")
    made = yard.json("environment", "create", "-f", str(folder / "env.yml"))
    assert (made["pip"], made["constraints"]) == (["six", "attrs"], ["six==1.15.0"])
    (folder / "conda.yml").write_text("dependencies: [python=3.11, {pip: [-r base.txt]}]\n")
    (folder / "env.yml").write_text("name: from-conda\nconda_file: conda.yml\n")
    made = yard.json("environment", "create", "-f", str(folder / "env.yml"))
    assert (made["conda_file"]["dependencies"][1], made["constraints"]) == ({"pip": ["six"]}, ["six==1.15.0"])
    (folder / "env/requirements.txt").write_text("six # the comment of a file that names none stays\n")
    (folder / "env.yml").write_text("name: plain\npip: env/requirements.txt\n")
    assert yard.json("environment", "create", "-f", str(folder / "env.yml"))["pip"] == ["six # the comment of a file that names none stays"]
    for line in ("-r ../../outside.txt", f"-r {tmp_path}/outside.txt"):
        (folder / "env/requirements.txt").write_text(line + "\n")
        done = yard.run("environment", "create", "-f", str(folder / "env.yml"), ok=False)
        assert done.returncode == 2 and "lies outside" in done.stderr, done.stderr


def test_a_package_is_fetched_from_where_its_definition_says(tmp_path: Path) -> None:
    """For the resolution and for the installation: an index of the same name elsewhere is not asked."""
    import functools
    import http.server
    import threading
    import zipfile

    from modelyard.ports.builder import Requirements as Wanted

    index = tmp_path / "index" / "only-here"
    index.mkdir(parents=True)
    with zipfile.ZipFile(index / "only_here-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("only_here.py", "where = 'the index of the definition'\n")
        wheel.writestr("only_here-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: only-here\nVersion: 1.0\n")
        wheel.writestr("only_here-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        names = ("only_here.py", "only_here-1.0.dist-info/METADATA", "only_here-1.0.dist-info/WHEEL", "only_here-1.0.dist-info/RECORD")
        wheel.writestr("only_here-1.0.dist-info/RECORD", "".join(f"{name},,\n" for name in names))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "index"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            sources = parse_requirements([f"--index-url http://127.0.0.1:{server.server_port}/"]).sources
            builder = VenvBuilder(tmp_path / "envs", NONE, guard=AddressGuard.of_setting("127.0.0.1=environments"))
            lock = builder.lock(Wanted(("only-here",), sources=sources), lambda line: None)
            assert lock.packages == "only-here==1.0"
            built = builder.build(lock, lambda line: None)
        finally:
            server.shutdown()
    assert list(built.python.parent.parent.glob("lib/python*/site-packages/only_here.py"))


@pytest.mark.parametrize("item", ["numpy --x", "six -- 1", "python=../../x", "python=3.12;x", "python=abc", "numpy=1.2/x", "numpy (1.2)"])
def test_a_conda_line_that_is_no_name_and_version_is_refused(item: str) -> None:
    """Its words must not become another package's name, nor its path a version."""
    with pytest.raises(Invalid):
        wanted_by(Environment.model_validate({"name": "e", "conda_file": {"dependencies": [item]}}))


@pytest.mark.parametrize(
    ("item", "package"),
    [
        ("numpy 1.21 py38_0", "numpy==1.21"),
        ("conda-forge::numpy=1.21=py38h_0", "numpy==1.21.*"),
        ("pytorch/linux-64::pytorch=1.13.1=py3.8_cpu_0", "torch==1.13.1"),
        ("numpy>=1.2,<2", "numpy<2,>=1.2"),
        ("numpy == 1.21.0", "numpy==1.21.0"),
        ("numpy=1.21.*", "numpy==1.21.*"),
        ("numpy==1.19.2=py38h54aff64_0", "numpy==1.19.2"),
        ("NumPy = 1.21", "numpy==1.21.*"),
        ("numpy=1.21|1.22", "numpy==1.21.*"),
        ("numpy[version='>=1.2,<2']", "numpy<2,>=1.2"),
        ("numpy[version=1.21.0, build=py38_0]", "numpy==1.21.0"),
        ("dask[complete]", "dask[complete]"),
        ("numpy *", "numpy"),
        ("numpy=*=*openblas*", "numpy"),
        ("pandas~=1.3.0", "pandas~=1.3.0"),
        ("py-xgboost=1.3.3", "xgboost==1.3.3"),
        ("xgboost", "xgboost-cpu"),
        ("setuptools<60", "setuptools<60"),
        ("pip", None),
        ("cudatoolkit=11.1.1=h6406543_8", None),
        ("libstdcxx-ng 9.3.0 h5101ec6_17", None),
    ],
)
def test_the_forms_of_a_conda_line_are_read(item: str, package: str | None) -> None:
    wanted = wanted_by(Environment.model_validate({"name": "e", "conda_file": {"dependencies": [item]}}))
    assert wanted.requirements.packages == ((package,) if package else ())


@pytest.mark.parametrize(
    ("item", "python"),
    [
        ("python =3.8", "3.8"), ("python=3.8.5", "3.8"), ("python=3.8=h12_0", "3.8"), ("python==3.7.*", "3.7"), ("python 3.9 h1_0", "3.9"), ("python=3.7|3.8", "3.8"),
        ("python>=3.6,<3.9", "<3.9,>=3.6"), ("python >=3.6", ">=3.6"), ("python<=3.8", "<=3.8"), ("python~=3.8.0", "3.8"), ("python", ""), ("python=3", "3"),
    ],
)  # fmt: skip
def test_the_python_of_a_conda_file_is_a_version_or_its_limits(item: str, python: str) -> None:
    assert wanted_by(Environment(conda_file={"dependencies": [item]})).requirements.python == python


@pytest.mark.parametrize(
    ("python", "older"), [("3.7", True), ("3.6", True), ("3.8", False), ("3.10", False), ("", False), (">=3.6", False)]
)
def test_deployments_know_a_python_that_is_too_old_for_them(python: str, older: bool) -> None:
    assert older_than_programs(BuilderRequirements((), python)) is older


CURATED = """
AzureML-sklearn-1.5 sklearn-1.5 sklearn-1.1 sklearn-1.0 AzureML-sklearn-1.0-ubuntu20.04-py38-cpu AzureML-sklearn-0.24-ubuntu18.04-py37-cpu
AzureML-lightgbm-3.3 AzureML-lightgbm-3.2-ubuntu18.04-py37-cpu AzureML-xgboost-0.9-ubuntu18.04-py37-cpu xgboost-sklearn-py38 model-evaluation
model-management acpt-pytorch-2.8-cuda12.6 AzureML-acpt-pytorch-2.8-cuda12.6 acpt-pytorch-2.2-cuda12.1 acpt-pytorch-1.13-cuda11.7
AzureML-ACPT-pytorch-1.11-py38-cuda11.3-gpu ACPT-Extended AzureML-pytorch-1.10-ubuntu18.04-py38-cuda11-gpu AzureML-tensorflow-2.16-cuda12
tensorflow-2.16-cuda12 AzureML-tensorflow-2.12-cuda11 AzureML-tensorflow-2.11-cuda11.8-cudnn8 AzureML-tensorflow-2.7-ubuntu20.04-py38-cuda11-gpu
AzureML-tensorflow-2.4-ubuntu18.04-py37-cuda11-gpu AzureML-tensorflow-1.15-ubuntu18.04-py37-cpu-inference responsibleai-tabular responsibleai-text
responsibleai-vision AzureML-responsibleai-0.21-ubuntu20.04-py38-cpu AzureML-AutoML AzureML-AutoML-DNN-Vision-GPU ai-ml-automl
ai-ml-automl-dnn-text-gpu AzureML-Minimal AzureML-minimal-ubuntu18.04-py37-cpu-inference minimal-ubuntu20.04-py38-cpu-inference
minimal-py311-inference minimal-py312-cuda12.4-inference mlflow-py312-inference mlflow-ubuntu20.04-py38-cpu-inference
AzureML-mlflow-ubuntu18.04-py37-cpu-inference python-sdk-v2 AzureML-Tutorial AzureML-Dask-CPU AzureML-onnxruntime-1.6-ubuntu18.04-py37-cpu-inference
AzureML-Scikit-learn-0.20.3 AzureML-PyTorch-1.6-CPU AzureML-TensorFlow-2.3-CPU AzureML-Triton AzureML-DeepSpeed-0.3-GPU acft-hf-nlp-gpu
AzureML-Designer AzureML-Hyperdrive-ForecastDNN
""".split()
"""Names that Azure has had since 2020."""


@pytest.mark.parametrize("name", CURATED)
def test_every_curated_name_has_its_packages_with_a_client_that_saves_every_model(name: str) -> None:
    for spelled in (name, name.lower(), f"AzureML-{name.removeprefix('AzureML-')}"):
        wanted = curated(spelled)
        assert wanted is not None and "mlflow-skinny<3.14" in wanted.requirements.packages
        packages = [parse_package(line) for line in wanted.requirements.packages]
        torch = [str(package) for package in packages if package.name == "torch"]
        assert torch in ([], ["torch==2.13.0"]) and len(wanted.notes) == 1 + len(torch)
        assert re.fullmatch(r"3\.[0-9]+", wanted.requirements.python) and "{" not in "".join(wanted.requirements.packages)


def test_a_curated_name_says_which_release_and_which_python_it_is() -> None:
    def of(name: str) -> tuple[str, str]:
        wanted = curated(name)
        assert wanted is not None
        return wanted.requirements.python, wanted.requirements.packages[0]

    assert of("sklearn-1.5") == of("sklearn") == ("3.10", "scikit-learn~=1.5.0")
    assert of("AzureML-sklearn-1.0-ubuntu20.04-py38-cpu") == ("3.8", "scikit-learn~=1.0.0")
    assert of("AzureML-sklearn-0.24-ubuntu18.04-py37-cpu") == ("3.7", "scikit-learn~=0.24.0")
    assert of("AzureML-sklearn-0.24.1-ubuntu18.04-py37-cpu-inference") == ("3.8", "scikit-learn~=0.24.0")
    assert of("AzureML-tensorflow-2.4-ubuntu18.04-py37-cuda11-gpu") == ("3.7", "tensorflow==2.4.*")
    assert of("tensorflow-2.12-cuda11") == ("3.9", "tensorflow==2.12.*") and of("tensorflow-2.16-cuda12")[1] == "tensorflow==2.16.2"
    assert curated("my-own-sklearn") is None and curated("regression-env") is None
    image = wanted_by(Environment(image="registry.example/azureml/curated/tensorflow-2.12-cuda11:latest"))
    assert image.requirements.packages[0] == "tensorflow==2.12.*"


def test_a_conda_file_as_people_write_it() -> None:
    wanted = wanted_by(
        Environment(
            conda_file={
                "name": "old", "channels": ["pytorch", "conda-forge"], "prefix": "/home/me/envs/old", "platforms": ["linux-64"],
                "variables": {"OMP_NUM_THREADS": 1, "MODE": "train"},
                "dependencies": [
                    {"pip": ["azureml-defaults", "azureml-mlflow", "mltable", "mlflow==1.27.0", "pandas==1.1.5", "--prefer-binary"]}, "python=3.8", {"pip": None}, "r-base",
                ],
            }
        )
    )  # fmt: skip
    assert wanted.requirements.packages == ("duckdb<2", "pyyaml<7", "mlflow==1.27.0", "pandas==1.1.5", "setuptools<81")
    assert wanted.requirements.variables == (("MODE", "train"), ("OMP_NUM_THREADS", "1"))
    assert any("no platforms: not used" in note for note in wanted.notes)


def test_xgboost_stays_itself_where_its_cpu_build_has_no_such_version() -> None:
    def packages(*lines: str, python: str = "3.8") -> tuple[str, ...]:
        return wanted_by(
            Environment(conda_file={"dependencies": [f"python={python}", "setuptools", {"pip": list(lines)}]})
        ).requirements.packages[1:]

    assert packages("xgboost==1.3.3") == ("xgboost==1.3.3",)
    assert packages("xgboost<2") == ("xgboost<2",)
    assert packages("xgboost", python="3.7") == ("xgboost",)
    assert packages("xgboost==2.1.4") == ("xgboost-cpu==2.1.4",)
