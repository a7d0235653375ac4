"""A small whole input of every format, and the functions that the product reads it by."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_train.formats.tensor_store import to_safetensors

TESTS = Path(__file__).resolve().parents[1]
GOLDEN = TESTS / "golden"
Files = Mapping[str, bytes]
_VOCABULARY = 77  # of the golden classifier


@dataclass(frozen=True)
class Sample:
    """An input as a user names it.

    Attributes:
      files: path inside the folder -> content.
      attacked: those that are damaged; the others stay as they are.
      read: reads it by the product's own functions; gets the folder, and one to write into.
      named: the file that the user names, where it is not the folder.
    """

    name: str
    files: Files
    attacked: tuple[str, ...]
    read: Callable[[Path, Path], None]
    named: str = ""


def samples() -> dict[str, Sample]:
    """Return every sample by its name."""
    from cloud_samples import cloud_samples
    from diffusion_samples import diffusion_samples
    from kept_samples import kept_samples
    from language_samples import language_samples

    found = (
        *_pictures(),
        *_tables(),
        *_arrays(),
        *_model_folders(),
        *_artifacts(),
        *_gguf(),
        *_words(),
        *language_samples(),
        *diffusion_samples(),
        *kept_samples(),
        *cloud_samples(),
    )
    return {sample.name: sample for sample in found}


# ----------------------------------------------------------------------------- pictures


def _pictures() -> list[Sample]:
    from PIL import Image

    draws = np.random.default_rng(3)
    image = Image.fromarray(draws.integers(0, 256, (24, 36, 3), np.uint8))
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = image.getexif()
    exif[0x0112] = 6
    files = {
        "a.png": _saved(image, "PNG", icc_profile=profile, exif=exif),
        "a.jpg": _saved(image, "JPEG", icc_profile=profile, exif=exif),
        "b.jpg": _saved(image, "JPEG", progressive=True),
        "a.gif": _saved(image, "GIF", save_all=True, append_images=[image.rotate(90)]),
        "a.webp": _saved(image, "WEBP", exif=exif),
        "b.webp": _saved(image, "WEBP", lossless=True, save_all=True, append_images=[image]),
        "a.bmp": _saved(image, "BMP"),
        "a.tif": _saved(image, "TIFF", compression="tiff_lzw", icc_profile=profile),
        "b.tif": _saved(image.convert("CMYK"), "TIFF", compression="tiff_adobe_deflate"),
        "c.tif": _saved(image, "TIFF"),
        "b.png": _saved(image.convert("P"), "PNG", transparency=3),
        "c.png": _saved(Image.fromarray(draws.integers(0, 65535, (9, 9), np.uint16)), "PNG"),
        "a.avif": _saved(image, "AVIF"),
    }
    found = [
        Sample(
            f"photos/{Path(name).suffix[1:]}",
            {name: content, "a.txt": b"a photo of {}"},
            (name,),
            _read_photos,
        )
        for name, content in files.items()
        if name.startswith("a.")
    ]
    found += [
        Sample(
            f"photos/{Path(name).suffix[1:]} again {name[0]}",
            {name: content},
            (name,),
            _read_photos,
        )
        for name, content in files.items()
        if not name.startswith("a.")
    ]
    if (heif := _heif(image)) is not None:
        found.append(Sample("photos/heic", {"a.heic": heif}, ("a.heic",), _read_photos))
    small = _saved(image.resize((8, 6)), "PNG")
    captions = {"a.png": small, "b.png": small, "a.txt": b"a photo of {}\nsecond line\n"}
    captions["b.caption"] = "\ufeffä dog, sitting".encode()
    found.append(Sample("captions", captions, ("a.txt", "b.caption"), _read_photos))
    pictures = {f"{letter}.png": small for letter in "abcdefgh"}
    rows = [(name, f"a dog, {n}", "xy"[n % 2]) for n, name in enumerate(pictures)]
    records = [dict(zip(("file_name", "text", "label"), row, strict=True)) for row in rows]
    tables = {
        "metadata.csv": _delimited(("file_name", "text", "label"), rows, ","),
        "metadata.jsonl": b"".join(json.dumps(record).encode() + b"\n" for record in records),
    }
    for name, table in tables.items():
        sample = Sample(name, {**pictures, name: table}, (name,), _read_picture_table)
        found.append(sample)
    classes = {
        f"{part}/{word}/{n}.png": small
        for part in ("train", "test")
        for word in ("x", "y")
        for n in range(3)
    }
    found.append(Sample("picture folder", classes, ("train/x/0.png", "test/y/1.png"), _read_data))
    return found


def _saved(image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _heif(image) -> bytes | None:
    """Return a picture in HEIF, None where nothing here writes it."""
    try:
        import pillow_heif

        file = io.BytesIO()
        pillow_heif.from_pillow(image).save(file)
    except (ImportError, RuntimeError):
        return None
    return file.getvalue()


def _read_photos(folder: Path, work: Path) -> None:
    from edge_train.tasks.personalize.captions import captions_for
    from edge_train.tasks.personalize.named_things import class_word_of
    from edge_train.tasks.personalize.photos import load_photos

    class_word_of(folder)
    found = load_photos(folder, 16)
    captions_for(found.photos, "<my-dog>", "dog", "object")
    for line in found.notices:
        line.encode()


def _read_picture_table(folder: Path, work: Path) -> None:
    from edge_train.errors import EdgeTrainError
    from edge_train.tasks.personalize.photos import load_photos

    refused = None
    try:
        load_photos(folder, 16)
    except EdgeTrainError as error:
        refused = error
    _read_data(folder, work)
    if refused is not None:
        raise refused


# ----------------------------------------------------------------------------- tables


def _tables() -> list[Sample]:
    rows = [(f'text {n % 7}, and "more" of it', ("good", "bad")[n % 2]) for n in range(24)]
    numbers = [(f"{n * 0.37:.3f}", str(n), ("a", "b", "c")[n % 3]) for n in range(24)]
    both = (("texts", ("sentence", "label"), rows), ("numbers", ("x", "y", "class"), numbers))
    found = []
    for what, head, table in both:
        read = _read_texts if what == "texts" else _read_data
        records = [dict(zip(head, row, strict=True)) for row in table]
        columns = {name: [record[name] for record in records] for name in head}
        kinds = {
            "train.csv": _delimited(head, table, ","),
            "train.tsv": _delimited(head, table, "\t"),
            "train.jsonl": b"".join(json.dumps(r).encode() + b"\n" for r in records),
            "train.json": json.dumps(records, indent=1).encode(),
            "columns.json": json.dumps(columns).encode(),
            "train.csv.gz": gzip.compress(_delimited(head, table, ","), mtime=0),
            "wide.csv": _delimited(head, table, ";").decode().encode("utf-16"),
            "latin.tsv": _delimited(head, table, "\t").replace(b"text", b"t\xe9xt"),
        }
        if (packed := _parquet(columns)) is not None:
            kinds["train.parquet"] = packed
        for name, content in kinds.items():
            named = name if not name.startswith("train") or what == "numbers" else ""
            found.append(Sample(f"tables/{what} {name}", {name: content}, (name,), read, named))
    text = b"the cat sat on the mat and the dog\n" * 40
    found.append(
        Sample("tables/text.txt", {"text.txt": text}, ("text.txt",), _read_corpus, "text.txt")
    )
    return found


def _delimited(head, rows, delimiter: str) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerows([head, *rows])
    return file.getvalue().encode()


def _parquet(columns) -> bytes | None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        return None
    file = io.BytesIO()
    parquet.write_table(pa.table(columns), file)
    return file.getvalue()


def _named(folder: Path) -> Path:
    """Return the only file of a folder, as a user names it, else the folder."""
    if (folder / "train").exists() or any(p.name.startswith("metadata") for p in folder.iterdir()):
        return folder
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 else folder


def _read_data(folder: Path, work: Path) -> None:
    from edge_train.paths import check_path
    from edge_train.tasks.network.datasets import load

    path = _named(folder)
    check_path(str(path), "data")  # as the recipe's key does
    for line in load(path).notices:
        line.encode()


def _read_texts(folder: Path, work: Path) -> None:
    from edge_train.errors import EdgeTrainError
    from edge_train.paths import check_path
    from edge_train.tasks.classify.texts import load_texts
    from edge_train.tasks.infer import infer

    inside = list(folder.iterdir())
    path = folder if inside and inside[0].name.startswith("train") else _named(folder)
    check_path(str(path), "data")
    refused = None
    try:
        infer(path)
    except EdgeTrainError as error:
        refused = error
        if "was not asked" in str(error):
            raise AssertionError(str(error)) from error
    found = load_texts(path, ())
    for line in (*found.notices, *found.labels):
        line.encode()
    tokenizer = _tokenizer()
    for part in (found.train, found.dev, found.test):
        if part:
            tokenizer.encode([example.text for example in part], 16)
    _read_corpus(folder, work)
    if refused is not None:
        raise refused


def _read_corpus(folder: Path, work: Path) -> None:
    from tokenizers import Tokenizer

    from edge_train.tasks.language_model.documents import open_texts
    from edge_train.tasks.language_model.marks import Marks
    from edge_train.tasks.language_model.token_stream import id_type, write_ids

    path = _named(folder)
    texts = open_texts(path, None)
    texts.check()
    tokenizer = Tokenizer.from_file(str(GOLDEN / "stopped" / "llama" / "tokenizer.json"))
    write_ids(texts, Marks((1,), (2,)), tokenizer, work / "tokens.bin", id_type(300))
    for line in texts.notices:
        line.encode()


def _tokenizer():
    from edge_train.tasks.classify.tokenizer import TextTokenizer

    return TextTokenizer.from_folder(GOLDEN / "stopped" / "bert", 0, _VOCABULARY)


# ----------------------------------------------------------------------------- arrays


def _arrays() -> list[Sample]:
    draws = np.random.default_rng(4)
    labels = np.arange(24) % 3
    pictures = {
        "train_images": draws.integers(0, 256, (24, 6, 5), np.uint8),
        "train_labels": labels,
        "test_images": draws.integers(0, 256, (6, 6, 5), np.uint8),
        "test_labels": labels[:6].astype(np.uint8),
        "class_names": np.array(["a", "b", "c"]),
    }
    numbers = {"train_inputs": draws.standard_normal((24, 4)), "train_labels": labels}
    jpegs = _jpegs(24)
    offsets = np.cumsum([0, *map(len, jpegs)])
    stored = {
        "train_jpeg": np.frombuffer(b"".join(jpegs), np.uint8),
        "train_offsets": offsets,
        "train_labels": labels,
    }
    found = []
    for name, arrays, save in (
        ("pictures", pictures, np.savez_compressed),
        ("numbers", numbers, np.savez),
        ("jpegs", stored, np.savez),
    ):
        file = io.BytesIO()
        save(file, **arrays)
        found.append(
            Sample(
                f"npz/{name}", {"data.npz": file.getvalue()}, ("data.npz",), _read_data, "data.npz"
            )
        )
    weights = {
        "a.weight": draws.standard_normal((4, 3)).astype(np.float32),
        "b": np.arange(5),
        "c": np.zeros((2, 2), np.float16),
    }
    plain = to_safetensors(weights, {"format": "pt"})
    found.append(
        Sample(
            "safetensors/weights",
            {"a.safetensors": plain},
            ("a.safetensors",),
            _read_tensors,
            "a.safetensors",
        )
    )
    token = to_safetensors({"token": np.ones((2, 8), np.float32)}, {"base_model_sha256": "1" * 64})
    found.append(
        Sample(
            "safetensors/token of --from",
            {"t.safetensors": token},
            ("t.safetensors",),
            _read_token,
            "t.safetensors",
        )
    )
    network = (GOLDEN / "stopped" / "network" / "network.safetensors").read_bytes()
    found.append(
        Sample(
            "safetensors/network",
            {"n.safetensors": network},
            ("n.safetensors",),
            _read_network,
            "n.safetensors",
        )
    )
    return found


def _jpegs(count: int) -> list[bytes]:
    from PIL import Image

    draws = np.random.default_rng(5)
    return [
        _saved(Image.fromarray(draws.integers(0, 256, (8, 8, 3), np.uint8)), "JPEG")
        for _ in range(count)
    ]


def _read_tensors(folder: Path, work: Path) -> None:
    from edge_train.formats.packed_weights import refuse_packed
    from edge_train.formats.tensor_file import TensorFile

    file = TensorFile(folder / "a.safetensors")
    refuse_packed(folder, {}, [file])
    for name, entry in file.entries.items():
        if entry.is_float:
            file.read(name)
        if entry.is_float and len(entry.shape) > 1 and entry.shape[0]:
            file.part(name, slice(0, 1))
            file.rows(name, [0])


def _read_token(folder: Path, work: Path) -> None:
    from edge_train.tasks.personalize.start import learned_vectors

    wanted = {"token": np.ones((2, 8), np.float32)}
    learned_vectors(folder / "t.safetensors", wanted, "model", ("1" * 64,))


def _read_network(folder: Path, work: Path) -> None:
    from edge_train.formats.network_file import load

    load(folder / "n.safetensors")


# ----------------------------------------------------------------------------- model folders


def _texts_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in (".json", ".txt")
    }


def _model_folders() -> list[Sample]:
    bert = _texts_of(GOLDEN / "stopped" / "bert")
    bert["tokenizer_config.json"] = json.dumps(
        {"tokenizer_class": "BertTokenizer", "chat_template": "{{ a }}", "pad_token": "[PAD]"}
    ).encode()
    bert["chat_template.jinja"] = b"{% for m in messages %}{{ m.content }}{% endfor %}"
    bert["generation_config.json"] = b'{"max_length": 20}'
    width = {"bert.embeddings.word_embeddings.weight": np.zeros((_VOCABULARY, 4), np.float32)}
    head = {"classifier.weight": np.zeros((2, 4), np.float32)}
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    index = {
        "metadata": {"total_size": 1264},
        "weight_map": {next(iter(width)): first, "classifier.weight": second},
    }
    shards = {first: to_safetensors(width, {}), second: to_safetensors(head, {})}
    sharded = {**bert, **shards, "model.safetensors.index.json": json.dumps(index).encode()}
    texts = [name for name in sharded if name.endswith((".json", ".jinja"))]
    weights = [name for name in sharded if name.endswith(".safetensors")]
    # the two old files of BERT's tokenizer in the place of one
    old = {name: content for name, content in sharded.items() if name != "tokenizer.json"}
    words = json.loads(bert["tokenizer.json"])["model"]["vocab"]
    words = [*sorted(words, key=words.get), *(["[UNK]"] if "[UNK]" not in words else [])]
    old["vocab.txt"] = "\n".join(words).encode()
    old["config.json"] = bert["config.json"].replace(b'"vocab_size": 77', b'"vocab_size": 99')
    llama = _texts_of(GOLDEN / "stopped" / "llama")
    llama["model.safetensors"] = to_safetensors({"model.x": np.zeros((4, 4), np.float32)}, {})
    llama["tokenizer_config.json"] = b'{"eos_token": {"content": "a"}}'
    del_eos = json.loads(llama["config.json"])
    del del_eos["eos_token_id"]
    llama["config.json"] = json.dumps(del_eos).encode()
    found = [
        Sample("model/config.json", sharded, ("config.json",), _read_classifier),
        Sample("model/tokenizer.json", sharded, ("tokenizer.json",), _read_classifier),
        Sample("model/index", sharded, ("model.safetensors.index.json",), _read_classifier),
        Sample("model/shards", sharded, tuple(weights), _read_classifier),
        Sample(
            "model/templates and settings",
            sharded,
            tuple(n for n in texts if n not in ("config.json", "tokenizer.json")),
            _read_classifier,
        ),
        Sample("model/vocab.txt", old, ("vocab.txt", "tokenizer_config.json"), _read_classifier),
        Sample("model/language model", llama, tuple(llama), _read_language_model),
    ]
    return [*found, *_diffusion()]


def _diffusion() -> list[Sample]:
    from edge_train.formats.embedded import MODEL_FOLDER

    files = _texts_of(MODEL_FOLDER)
    table = {"text_model.embeddings.token_embedding.weight": np.zeros((639, 128), np.float16)}
    small = to_safetensors({"a": np.zeros((2, 2), np.float16)}, {})
    files["text_encoder/model.safetensors"] = to_safetensors(table, {})
    for part in ("unet", "vae"):
        files[f"{part}/diffusion_pytorch_model.safetensors"] = small
    tokenizer = tuple(name for name in files if name.startswith("tokenizer/"))
    configs = tuple(n for n in files if n.endswith(".json") and n not in tokenizer)
    weights = tuple(n for n in files if n.endswith(".safetensors"))
    return [
        Sample("diffusion/configurations", files, configs, _read_diffusion),
        Sample("diffusion/tokenizer", files, tokenizer, _read_diffusion),
        Sample("diffusion/weights", files, weights, _read_diffusion),
    ]


def _read_classifier(folder: Path, work: Path) -> None:
    from edge_train.export.result_texts import write_texts
    from edge_train.formats.classifier_folder import open_classifier
    from edge_train.formats.training_artifact import is_training_artifact
    from edge_train.tasks.classify.model import network_module
    from edge_train.tasks.classify.tokenizer import TextTokenizer

    is_training_artifact(folder)
    model = open_classifier(folder)
    network_module(model)
    tokenizer = TextTokenizer.from_folder(folder, model.pad, model.vocabulary)
    texts = ["a text of words", "", "x" * 300]
    tokenizer.parts_pairs  # noqa: B018 - it encodes
    tokenizer.longest(texts, 16)
    tokenizer.encode(texts, 16)
    tokenizer.encode([("one", "two")], 16)
    for file in model.weight_files():
        for name, entry in file.entries.items():
            if entry.is_float:
                file.read(name)
    model.sha256()
    write_texts(folder, work / "model", {"num_labels": None}, "[PAD]")


def _read_language_model(folder: Path, work: Path) -> None:
    from edge_train.export.result_texts import write_texts
    from edge_train.formats.language_folder import open_language_model
    from edge_train.formats.tokenizer_files import open_tokenizer
    from edge_train.tasks.language_model.marks import marks_of

    model = open_language_model(folder)
    tokenizer = open_tokenizer(folder, model.vocabulary)
    marks_of(tokenizer, model.config, folder)
    model.sha256()
    write_texts(folder, work / "model", {})


def _read_gguf(folder: Path, work: Path) -> None:
    from edge_train.export.result_texts import write_made
    from edge_train.formats.gguf.model import is_gguf, open_gguf
    from edge_train.tasks.language_model.marks import marks_of

    is_gguf(folder / "m.gguf")
    model = open_gguf(folder / "m.gguf")
    tokenizer = model.tokenizer()
    for text in ("a text of words", "", "x" * 300, "<s>\u0378\n"):
        tokenizer.decode(tokenizer.encode(text).ids)
    marks_of(tokenizer, model.config, model.path)
    for file in model.files:
        for name, entry in file.entries.items():
            file.read(name)
            file.part(name, slice(0, min(entry.shape[0], 2)))
    model.sha256()
    write_made(work / "model", model.config, tokenizer, model.made.settings)


def _read_diffusion(folder: Path, work: Path) -> None:
    from edge_train.formats.artifact import is_artifact
    from edge_train.formats.hub import find_model
    from edge_train.tasks.personalize.prompt_tokenizer import PromptTokenizer

    is_artifact(folder)
    model = find_model(str(folder))
    tokenizer = PromptTokenizer.from_folder(model.tokenizers[0])
    tokenizer.check_new_token("<my-dog>")
    ids = tokenizer.encode("a photo of {} item", 1)
    model.embedding_rows("text_encoder", [int(number) for number in ids if number >= 0])
    model.sha256()


# ----------------------------------------------------------------------------- artifacts


def _artifacts() -> list[Sample]:
    folder = GOLDEN / "artifact-v1"
    whole = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    small = _smaller(whole)
    head = GOLDEN / "stopped" / "bert-head"
    trained = {path.name: path.read_bytes() for path in head.iterdir() if path.is_file()}
    graphs = tuple(name for name in small if name.endswith(".onnx"))
    return [
        Sample("artifact/manifest", small, ("manifest.json",), _read_artifact),
        Sample("artifact/onnx", small, graphs, _read_resealed),
        Sample(
            "artifact/tables and tokenizer",
            small,
            tuple(n for n in small if n.startswith("tokenizer") or n.endswith(".safetensors")),
            _read_resealed,
        ),
        Sample("artifact/training manifest", trained, ("manifest.json",), _read_training_artifact),
        Sample(
            "artifact/training files",
            trained,
            tuple(n for n in trained if n != "manifest.json"),
            _read_training_artifact,
        ),
    ]


def _smaller(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return an artifact with a few tensors of each file, so that a case takes milliseconds."""
    manifest = json.loads(files["manifest.json"])
    kept: dict[str, int] = {}
    tensors = []
    for tensor in manifest["tensors"]:
        kept[tensor["file"]] = kept.get(tensor["file"], 0) + 1
        if kept[tensor["file"]] <= 3:
            tensors.append(tensor)
    manifest["tensors"] = tensors
    return {**files, "manifest.json": json.dumps(manifest, indent=1).encode()}


def resealed(folder: Path) -> None:
    """Write the lengths and hashes of a folder's files into its manifest, as an attacker would."""
    from edge_train.formats.manifest import MANIFEST, describe_file

    manifest = json.loads((folder / MANIFEST).read_bytes())
    for name, entry in manifest["files"].items():
        if (folder / name).is_file() and not (folder / name).is_symlink():
            found = describe_file(folder / name)
            entry["bytes"], entry["sha256"] = found.bytes, found.sha256
    (folder / MANIFEST).write_text(json.dumps(manifest))


def _read_artifact(folder: Path, work: Path) -> None:
    from edge_train.formats.artifact import is_artifact, open_artifact
    from edge_train.formats.training_artifact import is_training_artifact
    from edge_train.tasks.personalize.prompt_tokenizer import PromptTokenizer

    is_training_artifact(folder)
    if not is_artifact(folder):
        return
    artifact = open_artifact(folder)
    artifact.alphas_cumprod, artifact.integer_products  # noqa: B018
    artifact.embedding_rows("text_encoder", [0, 1])
    tokenizer = PromptTokenizer.from_folder(artifact.tokenizers[0])
    tokenizer.encode("a photo of {} item", 1)


def _read_resealed(folder: Path, work: Path) -> None:
    _read_artifact(folder, work)


def _read_training_artifact(folder: Path, work: Path) -> None:
    from edge_train.formats.training_artifact import is_training_artifact, open_training_artifact
    from edge_train.tasks.classify.tokenizer import TextTokenizer

    if not is_training_artifact(folder):
        return
    artifact = open_training_artifact(folder)
    artifact.sha256(), artifact.manifest.new_heads
    TextTokenizer.from_folder(folder, artifact.pad, artifact.vocabulary).encode(["a text"], 8)


# ----------------------------------------------------------------------------- words


def _gguf() -> list[Sample]:
    from gguf_models import plain_llama

    whole = {"m.gguf": plain_llama()}
    return [Sample("gguf/model", whole, ("m.gguf",), _read_gguf, "m.gguf")]


def _words() -> list[Sample]:
    recipe = (
        b'task = "network"\ndata = "pictures.npz"\nnetwork = "mlp 8 6"\nquant = "int8"\n'
        b'steps = 24\nsamples = 10\nmomentum = 0.5\nmem = "300MB"\nseries = [4, 2]\n'
    )
    token = (
        b'task = "personalize"\nmodel = "tiny-sd"\nphotos = "p"\ntoken = "<my-dog>"\n'
        b'class_word = "dog"\nprompts = ["a {}", "the {}"]\nlearning_rate = 1e-3\n'
    )
    return [
        Sample("recipe/network", {"r.toml": recipe}, ("r.toml",), _read_recipe, "r.toml"),
        Sample("recipe/personalize", {"r.toml": token}, ("r.toml",), _read_recipe, "r.toml"),
    ]


def _read_recipe(folder: Path, work: Path) -> None:
    from edge_train.cli.options import Words
    from edge_train.recipe import to_toml

    recipe = Words(["--recipe", str(folder / "r.toml")], resumable=True).read()
    to_toml(recipe).encode()
