"""Cases that gave a wrong result without a word, or broke a promise."""

import json
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
from trying import Place, case, expect, kill, steps_in

LANGUAGE = ("--task", "language-model", "--length", 16, "--samples", 4, "--steps", 3)
CLASSIFY = ("--task", "classify", "--samples", 8, "--steps", 3)
NETWORK = ("--task", "network", "--steps", 40, "--samples", 8, "--network", "mlp 8")
WORD = ("--token", "<my-bag>", "--class", "bag", "--steps", 1, "--no-previews")


def held_out_loss_of_transformers(folder: Path, text: Path, length: int) -> float:
    """Return the mean loss of transformers on the last tenth of a text's tokens."""
    import torch
    import transformers
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(f"{folder}/tokenizer.json").encode(text.read_text()).ids
    held = ids[len(ids) - len(ids) // 10 :]
    rows = [held[at : at + length + 1] for at in range(0, len(held) - length, length)]
    batch = torch.tensor(rows)
    model = transformers.AutoModelForCausalLM.from_pretrained(str(folder)).eval()
    with torch.no_grad():
        logits = model(input_ids=batch[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).item()


def near(ours: float, theirs: float) -> None:
    """Expect two held-out losses to be equal but for the windows that were cut: 2 %."""
    expect(abs(ours - theirs) <= 0.02 * theirs, f"we say {ours:.4f}, transformers {theirs:.4f}")


@case("1", "a tied model whose files hold the head a second time")
def tied_and_stored_twice(place: Place) -> None:
    words = ("--data", "text.txt", "--model", "tied-both", "--learning-rate", "3e-2")
    done = place.edge_train("run", *LANGUAGE, *words).trains()
    theirs = held_out_loss_of_transformers(done.folder / "model", place.inputs / "text.txt", 16)
    near(done.report["metrics"]["held_out_loss"], theirs)


@case("2", "an embedding that scales what it looks up")
def scaled_embedding(place: Place) -> None:
    done = place.edge_train("run", *LANGUAGE, "--data", "text.txt", "--model", "gemma3").trains()
    text = place.inputs / "text.txt"
    theirs = held_out_loss_of_transformers(place.inputs / "gemma3", text, 16)
    near(done.report["eval"]["first"], theirs)


@case("3", "a container that is smaller than the machine", only_root=True)
def small_container(place: Place) -> None:
    done = place.python("-m", "edge_train", "bench", "container", "--help")
    expect(done.returncode == 0, "no bench of containers")
    old, new = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    version1 = (old / "memory.limit_in_bytes").exists()
    group = (old if version1 else new) / "edge-train-case-3"
    group.mkdir()
    try:
        limit = "memory.limit_in_bytes" if version1 else "memory.max"
        (group / limit).write_text("350000000")
        script = (
            "import os, pathlib, sys, runpy; "
            f"pathlib.Path({str(group / 'cgroup.procs')!r}).write_text(str(os.getpid())); "
            "sys.argv[0] = 'edge-train'; runpy.run_module('edge_train', run_name='__main__')"
        )
        done = place.python("-c", script, "run", *WORD, "--mem", "8GB", "--out", place.out / "run")
    finally:
        group.rmdir()
    expect(done.returncode == 2, f"status {done.returncode}: {done.stdout[-300:]}")
    expect("350 MB" in done.stdout, "the container's limit is not named")
    expect("Try --mem" not in done.stdout, "a larger cap is advised")


@case("4", "--resume of a run that is still going on")
def two_writers(place: Place) -> None:
    words = ("--task", "network", "--data", "table.csv", "--network", "mlp 64", "--samples", 10)
    folder = place.out / "race"
    first = place.started(folder, "run", *words, "--steps", 100_000)
    try:
        second = place.edge_train("run", "--resume", folder)
        expect(first.poll() is None, "the first run ended by itself")
    finally:
        kill(first)
    expect(second.status == 2, f"status {second.status} instead of 2: {second.last}")
    second.says(str(first.pid))
    expect(steps_in(folder) > 0, "the first run lost its steps")


@case("5", "a numpy.py beside the data")
def files_beside_you(place: Place) -> None:
    here = place.out / "here"
    here.mkdir()
    shutil.copy(place.inputs / "table.csv", here)
    (here / "numpy.py").write_text('raise SystemExit("I was run")')
    for cap in ((), ("--mem", "500MB")):
        done = place.edge_train("run", *NETWORK, "--data", "table.csv", *cap, where=here)
        expect("I was run" not in done.said, "a file of the current folder was run")
        done.trains()


@case("6", "a csv saved by Excel, and `Label` with a capital")
def label_column(place: Place) -> None:
    losses = set()
    for name in ("table.csv", "bom-table.csv", "capital-table.csv"):
        done = place.edge_train("run", *NETWORK, "--data", name).trains()
        expect(len(done.report["metrics"]["class_names"]) == 2, f"{name}: not two classes")
        losses.add(done.report["eval"]["best"])
    expect(len(losses) == 1, "the same numbers gave different results")


@case("7", "a header of unknown words")
def unknown_header(place: Place) -> None:
    for model in ("bert", "bert-3"):
        done = place.edge_train("run", *CLASSIFY, "--model", model, "--data", "header.csv")
        expect(done.status in (0, 2), f"status {done.status}: {done.last}")
        if done.status == 0:
            expect("Category" not in done.report["labels"], "the header's word is a class")
        else:
            done.refused().says("--text-column" if model == "bert" else "label")
    columns = ("--text-column", "Tweet", "--label-column", "Category")
    done = place.edge_train("run", *CLASSIFY, "--model", "bert", "--data", "header.csv", *columns)
    expect(sorted(done.trains().report["labels"]) == ["ham", "spam"], "labels are not the data's")


@case("8", "pictures stored upside down and turned by their EXIF tag")
def turned_pictures(place: Place) -> None:
    words = (*NETWORK, "--data", "turned", "--steps", 200)
    done = place.edge_train("run", *words).trains()
    accuracy = done.report["metrics"]["test_accuracy"]
    expect(accuracy == 1, f"accuracy {accuracy}: they are told apart by one bright half")


@case("10", "hidden folders of pictures")
def hidden_folders(place: Place) -> None:
    done = place.edge_train("run", *NETWORK, "--data", "pictures").trains()
    done.says(".ipynb_checkpoints", "__MACOSX")
    expect(done.report["metrics"]["class_names"] == ["cats", "dogs"], "not the two classes' names")


def ids_of(folder: Path) -> list[int]:
    """Return the tokens of a run, two bytes each: vocabularies here are small."""
    return np.fromfile(folder / "tokens.bin", "<u2").tolist()


@case("12", "a jsonl of texts for a language model")
def jsonl_of_texts(place: Place) -> None:
    done = place.edge_train("run", *LANGUAGE, "--data", "train.jsonl", "--model", "llama").trains()
    tokenizer = json.loads((place.inputs / "llama" / "tokenizer.json").read_text())
    braces = {tokenizer["model"]["vocab"]["{"], tokenizer["model"]["vocab"]["}"]}
    expect(not braces & set(ids_of(done.folder)), "the model learns braces")


@case("13", "texts longer than the model is asked to read")
def long_texts(place: Place) -> None:
    done = place.edge_train("run", *CLASSIFY, "--model", "bert", "--data", "long.csv").trains()
    done.says("80 of 80 texts", "--length").page_says("80 of 80 texts")


@case("14", "captions that lose their end, and `left` on mirrored photos")
def captions(place: Place) -> None:
    done = place.edge_train("run", "left", *WORD).trains()
    done.says("5 of 5 captions", "lose their end", "mirror").page_says("mirror")


@case("15", "the token that a tokenizer puts first")
def beginning_of_text(place: Place) -> None:
    words = ("--data", "train.jsonl", "--model", "begins")
    done = place.edge_train("run", *LANGUAGE, *words).trains()
    ids = ids_of(done.folder)
    expect(ids[0] == 0, "the first token is not <s>")
    expect(ids.count(0) == 400, f"{ids.count(0)} of 400 documents begin with <s>")


def bits_of(folder: Path) -> str:
    """Return the hash of a network that was trained."""
    return sha256((folder / "network.safetensors").read_bytes()).hexdigest()


@case("4b", "killed and resumed: the bits of an undisturbed run")
def killed_and_resumed(place: Place) -> None:
    words = ("--task", "network", "--data", "table.csv", "--network", "mlp 8", "--steps", 3000)
    undisturbed = place.edge_train("run", *words).trains()
    folder = place.out / "killed"
    kill(place.started(folder, "run", *words))
    expect(steps_in(folder) < 3000, "it was killed too late to say anything")
    resumed = place.edge_train("run", "--resume", folder)
    expect(resumed.status == 0, f"status {resumed.status}: {resumed.last}")
    expect(bits_of(folder) == bits_of(undisturbed.folder), "other bits")
