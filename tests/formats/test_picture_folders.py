"""What of a folder is a picture, and what is left aside and why."""

import os
import subprocess

import pytest

from edge_train.errors import InputError
from edge_train.formats.picture_folders import (
    PictureRoot,
    duplicates,
    holds_classes,
    parts_of,
    pictures_below,
)


def files(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def names(paths):
    return [path.name for path in paths]


def test_files_of_systems_and_programs_are_left_aside_by_name(tmp_path):
    files(
        tmp_path,
        *("b.JPG", "a.png", "c.Heic", "a.TXT", "a.caption", "Metadata.csv", "notes.pdf"),
        *("._a.png", ".DS_Store", "Thumbs.db", "DESKTOP.INI"),
        *("__MACOSX/._a.png", "@eaDir/a.png", ".ipynb_checkpoints/a-checkpoint.png", "cat/1.png"),
    )
    root = PictureRoot(tmp_path)
    found = root.list(tmp_path)
    assert names(found.pictures) == ["a.png", "b.JPG", "c.Heic"]
    assert names(found.captions) == ["a.TXT", "a.caption"]
    assert names(found.folders) == ["cat"]
    assert found.table == tmp_path / "Metadata.csv"
    system = "made by the system, not by you"
    assert root.skipped == {
        ".DS_Store": "hidden file",
        "._a.png": "hidden file",
        ".ipynb_checkpoints": "hidden folder",
        "@eaDir": system,
        "DESKTOP.INI": system,
        "Thumbs.db": system,
        "__MACOSX": system,
        "notes.pdf": "not a picture; .jpg, .png, .webp, .gif, .bmp, .tif, .avif or .heic are read",
    }


def test_no_folder_is_entered_twice_and_none_through_a_link(tmp_path):
    files(tmp_path, "cat/1.png", "cat/deeper/2.png")
    (tmp_path / "cat" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "cat" / "self").symlink_to("self")
    root = PictureRoot(tmp_path)
    assert names(root.below(tmp_path / "cat")) == ["1.png", "2.png"]
    assert (
        root.skipped["cat/loop"]
        == "a link to a folder; those are not followed, copy it with cp -L -r"
    )
    assert "cat/self" in root.skipped


def test_folders_in_folders_without_end_are_walked_or_refused(tmp_path):
    """Deeper than calls may be nested, and deeper than a path may be long."""
    here, depth = os.open(tmp_path, os.O_RDONLY), 0
    while depth < 1100:
        os.mkdir("a", dir_fd=here)
        deeper, depth = os.open("a", os.O_RDONLY, dir_fd=here), depth + 1
        os.close(here)
        here = deeper
    os.close(os.open("1.png", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    try:
        assert names(PictureRoot(tmp_path).below(tmp_path)) == ["1.png"]
        assert pictures_below(tmp_path)
    finally:  # pytest's own sweep goes down by calls
        subprocess.run(["rm", "-r", tmp_path / "a"], check=True)


def test_nothing_outside_is_opened_whatever_it_is_called(tmp_path):
    outside = files(tmp_path / "outside", "secret.png", "secret.txt", "metadata.csv")
    inside = files(tmp_path / "inside", "a.png")
    for name in ("secret.txt", "metadata.csv"):
        (inside / name).symlink_to(outside / name)
    root = PictureRoot(inside)
    found = root.list(inside)
    assert not found.captions and found.table is None
    assert sorted(root.skipped) == ["metadata.csv", "secret.txt"]
    assert all("leads out of the folder" in reason for reason in root.skipped.values())
    (inside / "b.png").symlink_to("../outside/secret.png")
    with pytest.raises(InputError, match=r"b\.png: .*leads out of the folder"):
        PictureRoot(inside).list(inside)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", ["a.png", "a.txt", "metadata.csv"])
def test_a_pipe_is_refused_or_left_aside_unopened(tmp_path, name):
    os.mkfifo(tmp_path / name)
    root = PictureRoot(tmp_path)
    if name == "a.png":
        with pytest.raises(InputError, match="no ordinary file"):
            root.list(tmp_path)
    else:
        root.list(tmp_path)
        assert name in root.skipped


def test_a_device_is_refused_unopened(tmp_path):
    (tmp_path / "a.png").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="no ordinary file"):
        PictureRoot(tmp_path).list(tmp_path)


def test_a_folder_named_by_a_link_is_the_folder(tmp_path):
    files(tmp_path / "real", "a.png")
    (tmp_path / "real" / "b.png").symlink_to("a.png")
    (tmp_path / "link").symlink_to("real")
    assert names(PictureRoot(tmp_path / "link").list(tmp_path / "link").pictures) == [
        "a.png",
        "b.png",
    ]


def test_parts_go_by_their_usual_names_and_a_class_may_be_called_train(tmp_path):
    files(tmp_path, "Training/cat/1.png", "valid/cat/2.png", "TEST/cat/3.png", "docs/x.md")
    parts = parts_of(sorted(tmp_path.iterdir()))
    assert {part: path.name for part, path in parts.items()} == {
        "test": "TEST",
        "train": "Training",
        "val": "valid",
    }
    assert holds_classes(parts["train"])
    assert not holds_classes(files(tmp_path / "vehicles", "train/1.png") / "train")
    assert parts_of([tmp_path / "test", tmp_path / "val"]) == {}


def test_the_same_bytes_are_found_under_any_name(tmp_path):
    for name, content in {"a": b"xx", "b": b"xy", "c": b"xx", "d": b"xxx", "e": b"xx"}.items():
        (tmp_path / name).write_bytes(content)
    (group,) = duplicates(sorted(tmp_path.iterdir()))
    assert names(group) == ["a", "c", "e"]
