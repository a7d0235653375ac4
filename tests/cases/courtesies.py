"""Cases that were refused or slowed where others cope, and names that are hard to read."""

import os
import shutil

from trying import Place, case, expect
from wrong_results import CLASSIFY, LANGUAGE, NETWORK


@case("39", "names of folders that are not UTF-8, or hold odd letters; a recipe saved by Notepad")
def odd_names(place: Place) -> None:
    odd = place.out / os.fsdecode(b"lat\xe9")
    odd.mkdir()
    shutil.copy(place.inputs / "text.txt", odd)
    words = (*LANGUAGE, "--data", f"{odd}/text.txt", "--model", "llama")
    done = place.edge_train("run", *words)
    done.trains() if done.status == 0 else done.refused()

    delete = place.out / "a\x7fb"
    delete.mkdir()
    shutil.copy(place.inputs / "table.csv", delete)
    done = place.edge_train("run", *NETWORK, "--data", delete / "table.csv").trains()
    resumed = place.edge_train("run", "--resume", done.folder)
    expect(resumed.status == 0, f"its recipe cannot be read: {resumed.last}")

    recipe = place.out / "notepad.toml"
    recipe.write_bytes(b"\xef\xbb\xbf" + (done.folder / "recipe.toml").read_bytes())
    place.edge_train("run", "--recipe", recipe).trains()


@case("40", "a hub id")
def hub_id(place: Place) -> None:
    words = ("--model", "bert-base-uncased", "--data", "hamspam.csv")
    done = place.edge_train("run", *CLASSIFY, *words, HF_HUB_OFFLINE="1").refused()
    done.says("bert-base-uncased", "hub")


@case("41", "a suffix in capitals")
def suffix_in_capitals(place: Place) -> None:
    place.edge_train("run", *CLASSIFY, "--model", "bert", "--data", "UPPER.CSV").trains()


@case("42", "labels that are floats in jsonl")
def floats_for_labels(place: Place) -> None:
    done = place.edge_train("run", *CLASSIFY, "--model", "bert", "--data", "floats.jsonl").trains()
    expect(len(done.report["labels"]) == 2, "not two labels")


@case("43", "a text that is too short leaves nothing behind")
def short_text(place: Place) -> None:
    place.edge_train("run", *LANGUAGE, "--data", "short.txt", "--model", "llama").refused()
