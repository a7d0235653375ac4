"""Cases of common jobs that could not be done, or ended in a traceback."""

import json
import subprocess
from pathlib import Path

from trying import Place, case, expect
from wrong_results import CLASSIFY, LANGUAGE, NETWORK, WORD, held_out_loss_of_transformers, near


@case("16", "OPT, whose places are looked up with an offset")
def opt(place: Place) -> None:
    words = ("--data", "text.txt", "--model", "opt")
    done = place.edge_train("run", *LANGUAGE, *words).trains()
    text = place.inputs / "text.txt"
    near(
        done.report["eval"]["first"], held_out_loss_of_transformers(place.inputs / "opt", text, 16)
    )
    place.edge_train("run", *LANGUAGE, *words, "--preset", "mezo").trains()


@case("17", "three classes on a plain encoder; numbers from 1 to 5")
def other_numbers_of_classes(place: Place) -> None:
    done = place.edge_train("run", *CLASSIFY, "--model", "bert", "--data", "three.csv").trains()
    expect(done.report["labels"] == ["a", "b", "c"], "labels are not the data's")
    done = place.edge_train("run", *CLASSIFY, "--model", "bert-5", "--data", "stars.csv").trains()
    expect(done.report["labels"] == ["1", "2", "3", "4", "5"], "labels are not the data's")


@case("18", "models without sdpa")
def eager_attention(place: Place) -> None:
    for model in ("deberta-v3", "mpnet"):
        place.edge_train("run", *CLASSIFY, "--model", model, "--data", "hamspam.csv").trains()
    text = place.inputs / "text.txt"
    for model in ("gemma2", "bloom", "gptj"):
        done = place.edge_train("run", *LANGUAGE, "--data", "text.txt", "--model", model).trains()
        theirs = held_out_loss_of_transformers(place.inputs / model, text, 16)
        near(done.report["eval"]["first"], theirs)


@case("19", "a trained GPT-2 classifier takes a batch")
def batch_of_texts(place: Place) -> None:
    import torch
    import transformers

    done = place.edge_train("run", *CLASSIFY, "--model", "gpt2", "--data", "hamspam.csv").trains()
    folder = str(done.folder / "model")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[5, 6, 7], [5, 6, 0]]), attention_mask=mask).logits
    expect(logits.shape == (2, 2), "not a batch of two")


@case("20", "a model says the labels of its data")
def names_of_labels(place: Place) -> None:
    done = place.edge_train("run", *CLASSIFY, "--model", "gpt2", "--data", "hamspam.csv").trains()
    configuration = json.loads((done.folder / "model" / "config.json").read_text())
    expect(configuration["id2label"] == {"0": "ham", "1": "spam"}, "id2label is not the data's")
    expect(configuration["label2id"] == {"ham": 0, "spam": 1}, "label2id is not the data's")
    expect(done.report["labels"] == ["ham", "spam"], "report.json does not say the labels")


@case("21", "every file of a tokenizer travels with the result")
def files_of_a_tokenizer(place: Place) -> None:
    words = ("--data", "text.txt", "--model", "tied-both")
    done = place.edge_train("run", *LANGUAGE, *words).trains()
    for name in ("chat_template.jinja", "tokenizer.model", "added_tokens.json", "tokenizer.json"):
        expect((done.folder / "model" / name).exists(), f"{name} is not in the result")


@case("22", "names that transformers converts while it loads")
def converted_names(place: Place) -> None:
    done = place.edge_train("run", *LANGUAGE, "--data", "text.txt", "--model", "pythia").trains()
    text = place.inputs / "text.txt"
    theirs = held_out_loss_of_transformers(done.folder / "model", text, 16)
    near(done.report["metrics"]["held_out_loss"], theirs)
    words = (*CLASSIFY, "--data", "hamspam.csv")
    place.edge_train("run", *words, "--model", "bart").trains()
    place.edge_train("run", *words, "--model", "bart-without-end").refused().says(
        "bart", "end token"
    )


@case("23", "weights in FP8 and INT8")
def packed_weights(place: Place) -> None:
    for model, kind in (("fp8", "F8_E4M3"), ("int8", "I8")):
        done = place.edge_train("run", *LANGUAGE, "--data", "text.txt", "--model", model)
        done.refused().says(kind)


@case("25", "a BERT without a pooler")
def no_pooler(place: Place) -> None:
    words = ("--model", "bert-mlm", "--data", "hamspam.csv")
    place.edge_train("run", *CLASSIFY, *words).trains().says("pooler")


@case("26", "a test part without labels")
def unlabelled_test(place: Place) -> None:
    for data, name in (("glue", "test.tsv"), ("hf", "test.csv")):
        done = place.edge_train("run", *CLASSIFY, "--model", "bert", "--data", data)
        done.trains().says(name)


@case("28", "a run from a thread of Python")
def from_a_thread(place: Place) -> None:
    script = place.out / "thread.py"
    script.write_text(
        "import sys, threading\n"
        "from pathlib import Path\n"
        "from edge_train.run import session\n"
        "from edge_train.run.observer import Bar\n"
        "from edge_train.tasks import read_recipe\n"
        "recipe = read_recipe(Path(sys.argv[1]))\n"
        "thread = threading.Thread(target=session.run, args=(recipe, Bar()))\n"
        "thread.start()\n"
        "thread.join()\n"
    )
    recipe = place.out / "thread.toml"
    recipe.write_text(
        'task = "network"\nnetwork = "mlp 8"\nsteps = 40\n'
        f'data = "{place.inputs / "table.csv"}"\nout = "{place.out / "in-a-thread"}"\n'
    )
    done = place.python(script, recipe)
    expect("Traceback" not in done.stdout, done.stdout[-300:])
    report = json.loads((place.out / "in-a-thread" / "report.json").read_text())
    expect(report["status"] == "done", f"it ended as {report['status']}")


@case("29", "more steps for a finished run, and a start from what was learned")
def go_on(place: Place) -> None:
    done = place.edge_train("run", *NETWORK, "--data", "table.csv").trains()
    less = place.edge_train("run", "--resume", done.folder, "--steps", 40)
    expect(less.status == 2, f"--steps 40 of 40 is status {less.status}: {less.last}")
    less.says("40")
    more = place.edge_train("run", "--resume", done.folder, "--steps", 60)
    expect(more.status == 0, f"status {more.status}: {more.last}")
    expect(done.report["steps"] == 60, f"{done.report['steps']} steps instead of 60")
    more.says("60")
    place.edge_train("run", *NETWORK, "--data", "table.csv", "--from", done.folder).trains()
    word = place.edge_train("run", "left", *WORD).trains()
    token = word.folder / "my-bag.safetensors"
    expect(token.exists(), "no token file")
    place.edge_train("run", "left", *WORD, "--from", token).trains()


@case("31", "a document longer than 131,072 characters")
def long_document(place: Place) -> None:
    place.edge_train("run", *CLASSIFY, "--model", "bert", "--data", "book.csv").trains()


@case("33", "adapters for an encoder that peft has no projections for")
def adapters(place: Place) -> None:
    words = ("--model", "distilbert", "--data", "hamspam.csv", "--method", "lora")
    done = place.edge_train("run", *CLASSIFY, *words).trains()
    found = list(done.folder.rglob("adapter_config.json"))
    expect(len(found) == 1, "no adapter_config.json")
    base = json.loads(found[0].read_text())["base_model_name_or_path"]
    expect(Path(base).is_absolute(), f"others cannot find the base {base!r}")


@case("34", "a container's share of the processors", only_root=True)
def quota_of_a_container(place: Place) -> None:
    old = Path("/sys/fs/cgroup/cpu")
    group = (old if old.exists() else Path("/sys/fs/cgroup")) / "edge-train-case-34"
    group.mkdir()
    try:
        if old.exists():
            (group / "cpu.cfs_quota_us").write_text("100000")
        else:
            (group / "cpu.max").write_text("100000 100000")
        script = (
            "import os, pathlib; "
            f"pathlib.Path({str(group / 'cgroup.procs')!r}).write_text(str(os.getpid())); "
            "from edge_train.memory.machine import cores; print(cores())"
        )
        done = place.python("-c", script)
    finally:
        group.rmdir()
    expect(done.stdout.strip() == "1", f"{done.stdout.strip()} cores instead of 1")


@case("36", "the command of diffusers' own example")
def command_of_diffusers(place: Place) -> None:
    from inputs import PHOTOS

    import edge_train

    model = Path(edge_train.__file__).parent / "data" / "tiny_sd"
    done = place.edge_train(
        "run",
        f"--pretrained_model_name_or_path={model}",
        f"--train_data_dir={PHOTOS}",
        "--learnable_property=object",
        "--placeholder_token=<cat-toy>",
        "--initializer_token=toy",
        "--resolution=32",
        "--train_batch_size=1",
        "--gradient_accumulation_steps=4",
        "--max_train_steps=3",
        "--learning_rate=5.0e-04",
        "--scale_lr",
        "--lr_scheduler=constant",
        "--lr_warmup_steps=0",
        "--push_to_hub",
    )
    if done.status != 0:
        done.refused().says("--gradient_accumulation_steps", "--scale_lr", "--push_to_hub")
        expect("--lr_warmup_steps" not in done.said, "a warm-up of 0 steps is what we do anyway")


@case("37", "kohya's folders and captions")
def folders_of_kohya(place: Place) -> None:
    done = place.edge_train("run", "kohya", *WORD)
    done.trains() if done.status == 0 else done.refused().says("10_mybag bag")
    done = place.edge_train("run", "dotcaption", *WORD).trains()
    expect("not a photo" not in done.said, ".caption is not read")


@case("38", "a disk that is too small for the run folder", only_root=True)
def small_disk(place: Place) -> None:
    disk = place.out / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(disk)]
    subprocess.run(mount, check=True)
    try:
        words = (*LANGUAGE, "--data", "text.txt", "--model", "llama", "--out", disk / "run")
        done = place.python("-m", "edge_train", "run", *words)
        left = sorted(path.name for path in disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    expect(done.returncode == 2, f"status {done.returncode}: {done.stdout[-300:]}")
    expect("--out" in done.stdout, "it does not say where to put it")
    expect(not left, f"{left} is left on the disk")
