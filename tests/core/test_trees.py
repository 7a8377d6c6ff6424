"""Folders of user code: what is read, what is refused, and that nothing in them leads elsewhere."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from modelyard.core import trees
from modelyard.core.trees import Folder, NotPlain, Reason


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("the master key")
    folder = tmp_path.resolve() / "job" / "outputs"
    folder.mkdir(parents=True)
    return folder


def walked(top: Path, within: Path | None = None) -> dict[str, str | Reason]:
    with Folder(top) as folder:
        return {
            entry.path: entry.reason if isinstance(entry, trees.Refused) else entry.file.read().decode()
            for entry in folder.entries(1_000, within)
        }


def test_plain_files_are_read_folder_by_folder_in_the_order_of_their_names(top: Path) -> None:
    (top / "b").mkdir()
    (top / "b" / "inner.txt").write_text("inner")
    (top / "a.txt").write_text("a")
    (top / "c.txt").write_text("c")
    assert list(walked(top).items()) == [("a.txt", "a"), ("b/inner.txt", "inner"), ("c.txt", "c")]


def test_a_link_to_a_file_of_the_same_tree_is_that_file(top: Path) -> None:
    (top / "steps").mkdir()
    (top / "steps" / "epoch=3.ckpt").write_text("weights")
    (top / "last.ckpt").symlink_to("steps/epoch=3.ckpt")
    (top / "steps" / "best.ckpt").symlink_to("../last.ckpt")
    (top / "absolute.ckpt").symlink_to(top / "steps" / "epoch=3.ckpt")
    (top / "latest").symlink_to("steps")
    (top / "through.ckpt").symlink_to("latest/../latest/epoch=3.ckpt")
    found = walked(top)
    assert set(found.values()) == {"weights"}
    assert set(found) == {
        "steps/epoch=3.ckpt", "steps/best.ckpt", "last.ckpt", "absolute.ckpt", "through.ckpt", "latest/epoch=3.ckpt", "latest/best.ckpt",
    }  # fmt: skip


def test_a_link_to_a_folder_is_that_folder_and_a_circle_of_links_ends(top: Path) -> None:
    (top / "a" / "inner").mkdir(parents=True)
    (top / "a" / "inner" / "w.bin").write_text("w")
    (top / "a" / "inner" / "beside.bin").symlink_to("../x.bin")  # beside the folder that it lies in, whatever link led there
    (top / "a" / "x.bin").write_text("x")
    (top / "best").symlink_to("a/inner")
    (top / "a" / "to-b").symlink_to("../b")
    (top / "b").mkdir()
    (top / "b" / "to-a").symlink_to("../a")
    (top / "b" / "out").symlink_to("../..")
    found = walked(top)
    assert (found["best/w.bin"], found["best/beside.bin"]) == ("w", "x")
    assert (found["a/to-b/to-a"], found["b/to-a/to-b"]) == (Reason.LOOP, Reason.LOOP)
    assert (found["b/to-a/x.bin"], found["b/out"], found["a/to-b/out"]) == ("x", Reason.OUTSIDE, Reason.OUTSIDE)


def test_links_that_multiply_folders_are_bounded_in_number_and_in_descriptors(top: Path) -> None:
    deep = top.joinpath(*"d" * 40)
    deep.mkdir(parents=True)
    (deep / "f").write_text("x")
    for number in range(12):
        (top / f"l{number}").mkdir()
        for other in range(12):
            if other != number:
                (top / f"l{number}" / f"to{other}").symlink_to(f"../l{other}")
        (top / f"l{number}" / "deep").symlink_to("../" + "/".join("d" * 40))
    opened = []
    with Folder(top) as folder, pytest.raises(trees.TooMany):
        for _ in folder.entries(5_000):
            opened.append(len(os.listdir("/proc/self/fd")))
    assert max(opened) < 2 * trees.MAX_DEPTH + 100


@pytest.mark.parametrize("target", ["../../secret", "../../../../../../etc/passwd", "/etc/passwd", "sub/../../x", "../outputs/plain"])
def test_a_link_that_leads_out_is_refused(top: Path, target: str) -> None:
    (top / "sub").mkdir()
    (top / "plain").write_text("x")
    (top / "x").symlink_to(target)
    assert walked(top)["x"] is Reason.OUTSIDE


def test_links_that_end_nowhere_are_refused_and_end(top: Path) -> None:
    (top / "a").symlink_to("b")
    (top / "b").symlink_to("a")
    (top / "gone").symlink_to("missing")
    (top / "up").symlink_to(".")
    (top / "file").write_text("x")
    (top / "below").symlink_to("file/x")
    assert walked(top) == {
        "a": Reason.DANGLING, "b": Reason.DANGLING, "below": Reason.DANGLING, "file": "x", "gone": Reason.DANGLING, "up": Reason.LOOP,
    }  # fmt: skip


def test_a_folder_that_holds_nothing_is_told(top: Path) -> None:
    (top / "full/none/deeper").mkdir(parents=True)
    (top / "full/file").write_text("x")
    (top / "none").mkdir()
    (top / "to-none").symlink_to("none")
    assert walked(top) == {"full/file": "x", "full/none/deeper": Reason.EMPTY, "none": Reason.EMPTY, "to-none": Reason.EMPTY}
    (top / "none").rmdir()


def test_pipes_and_sockets_are_refused_without_waiting(top: Path) -> None:
    os.mkfifo(top / "pipe")
    (top / "to-pipe").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(top / "s"))
        assert walked(top) == {"pipe": Reason.SPECIAL, "s": Reason.SPECIAL, "to-pipe": Reason.SPECIAL}
        with pytest.raises(NotPlain):
            trees.read(top / "pipe", 10)
        with pytest.raises(NotPlain):
            trees.read(top / "s", 10)
        with pytest.raises(NotPlain):
            trees.append(top / "pipe", "x")


def test_a_hard_link_is_read_only_when_all_its_names_are_the_jobs(top: Path) -> None:
    job = top.parent
    os.link(top.parent.parent / "secret", top / "stolen")
    (job / "code").mkdir()
    (job / "code" / "model").write_text("model")
    os.link(job / "code" / "model", top / "model")
    (top / "alias").symlink_to("stolen")
    assert walked(top, job) == {"stolen": Reason.HARD_LINK, "model": "model", "alias": Reason.HARD_LINK}


def test_a_link_anywhere_on_the_way_is_not_followed(top: Path) -> None:
    control = top.parent.parent / "control"
    control.mkdir()
    (control / "master.key").write_text("key")
    (top / "way").symlink_to(control)
    (top / "file").symlink_to(control / "master.key")
    for path in (top / "way" / "master.key", top / "file"):
        with pytest.raises(NotPlain):
            trees.read(path, 10)
        with pytest.raises(NotPlain):
            trees.append(path, "x")
    with pytest.raises(NotPlain):
        trees.make(top / "way" / "new")
    with pytest.raises(NotPlain):
        trees.make(top / "way")
    with pytest.raises(NotPlain):
        trees.replace(top / "way" / "x", b"x")
    with pytest.raises(NotPlain):
        trees.remove(top / "way" / "master.key")
    assert not trees.has(top / "way" / "master.key") and not trees.has(top / "file")
    trees.replace(top / "file", b"x")  # takes the place of the link itself
    assert (control / "master.key").read_text() == "key" and [path.name for path in control.iterdir()] == ["master.key"]
    assert (top / "file").read_text() == "x"


def test_removing_follows_no_link_and_is_stopped_by_no_depth_and_no_mode(top: Path) -> None:
    victim = top.parent.parent / "victim"
    victim.mkdir()
    (victim / "kept").write_text("x")
    (top / "first").symlink_to(victim)
    at = os.open(top, os.O_RDONLY)
    for _ in range(1_500):
        os.mkdir("d", dir_fd=at)
        following = os.open("d", os.O_RDONLY, dir_fd=at)
        os.symlink(victim, "link", dir_fd=at)
        os.close(at)
        at = following
    os.close(at)
    (top / "closed").mkdir()
    (top / "closed" / "file").write_text("x")
    (top / "closed").chmod(0)
    trees.remove(top)
    assert not top.exists() and (victim / "kept").exists()
    trees.remove(top)
    (top.parent / "link").symlink_to(victim)
    trees.remove(top.parent / "link")
    assert (victim / "kept").exists() and not (top.parent / "link").is_symlink()


def test_reading_is_bounded_in_number_and_in_depth(top: Path) -> None:
    for number in range(5):
        (top / f"{number}").write_text("x")
    with Folder(top) as folder, pytest.raises(trees.TooMany):
        list(folder.entries(4))
    deep = top
    for _ in range(trees.MAX_DEPTH + 1):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    refused = [name for name, found in walked(top).items() if found is Reason.DEEP]
    assert refused == ["/".join("d" * (trees.MAX_DEPTH + 1))]


def test_no_descriptor_is_left_open(top: Path) -> None:
    (top / "a").mkdir()
    (top / "a" / "f").write_text("x")
    (top / "l").symlink_to("a/../a/../a/f")
    (top / "o").symlink_to("a/../../x")
    (top / "m").symlink_to(top / "a")
    os.mkfifo(top / "p")
    before = len(os.listdir("/proc/self/fd"))
    walked(top, top.parent)
    with Folder(top) as folder:
        next(folder.entries(100))  # left half way
    for name in ("l", "o", "p", "a"):
        with pytest.raises(NotPlain):
            trees.read(top / name, 1)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_folder_exchanged_for_a_link_while_it_is_read_leads_nowhere(top: Path) -> None:
    outside = top.parent.parent / "outside"
    outside.mkdir()
    (outside / "f").write_text("outside")
    (top / "d").mkdir()
    (top / "d" / "f").write_text("inside")
    done = threading.Event()

    def exchange() -> None:
        while not done.is_set():
            (top / "d").rename(top / "e")
            (top / "d").symlink_to(outside)
            (top / "d").unlink()
            (top / "e").rename(top / "d")

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for _ in range(500):
            assert "outside" not in walked(top).values()
            try:
                assert trees.read(top / "d" / "f", 100) == b"inside"
            except (FileNotFoundError, NotPlain):
                pass
    finally:
        done.set()
        thread.join()
