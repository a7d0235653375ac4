"""Chats, chat templates, adapters and GGUF files of every block type, and what reads them."""

import json
import tempfile
from datetime import datetime
from pathlib import Path

import numpy as np
from chat_templates import CHATML, QWEN3
from samples import Sample

from edge_train.formats.tensor_store import to_safetensors

LLAMA = Path(__file__).resolve().parents[1] / "golden" / "stopped" / "llama"
_DAY = datetime(2026, 1, 2)
_TOOL = {"type": "function", "function": {"name": "sum", "parameters": {"type": "object"}}}


def language_samples() -> list[Sample]:
    """Return all of them."""
    return [*_chats(), *_templates(), *_adapters(), *_blocks()]


# ----------------------------------------------------------------------------- chats


def _chats() -> list[Sample]:
    chats, pairs, shared, told = [], [], [], []
    for n in range(12):
        asked, said = f"how many are {n} and {n % 3}?", f"{n + n % 3}, I think"
        call = {"function": {"name": "sum", "arguments": json.dumps({"a": n})}}
        turns = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": asked},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "name": "sum", "content": str(n)},
            {"role": "assistant", "content": [{"type": "text", "text": said}]},
        ]
        chats.append({"messages": turns, "tools": [_TOOL]})
        pairs.append({"prompt": asked, "completion": said})
        both = (("human", asked), ("gpt", said))
        shared.append({"conversations": [{"from": who, "value": text} for who, text in both]})
        told.append({"instruction": asked, "input": str(n), "output": said})
    files = {
        "messages.jsonl": _lines(chats),
        "messages.json": json.dumps(chats, indent=1).encode(),
        "pairs.jsonl": _lines(pairs),
        "conversations.json": json.dumps(shared).encode(),
        "instructions.jsonl": _lines(told),
        "instructions.csv": b"instruction,output\n"
        + b"".join(f'"say {n}, please","it is {n}"\n'.encode() for n in range(12)),
    }
    return [Sample(f"chats/{n}", {n: of}, (n,), _read_chats, n) for n, of in files.items()]


def _lines(rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _read_chats(folder: Path, work: Path) -> None:
    from tokenizers import Tokenizer

    from edge_train.formats.chat_template import ChatTemplate
    from edge_train.paths import check_path
    from edge_train.tasks.infer import infer
    from edge_train.tasks.language_model.chat_stream import write_chats
    from edge_train.tasks.language_model.documents import open_texts
    from edge_train.tasks.language_model.marks import Marks
    from edge_train.tasks.language_model.passages import Reader
    from edge_train.tasks.language_model.token_stream import id_type, write_ids

    (path,) = folder.iterdir()
    check_path(str(path), "data")
    infer(path)
    texts = open_texts(path, None)
    texts.check()
    tokenizer = Tokenizer.from_file(str(LLAMA / "tokenizer.json"))
    if texts.chats_found() is None:
        write_ids(texts, Marks((1,), (2,)), tokenizer, work / "ids", id_type(300))
        return
    template = ChatTemplate({"default": QWEN3}, {}, _DAY)
    reader = Reader(template, "completions", ["<|im_start|>", "<|im_end|>"], 4 * 64 * 10)
    parts = [(reader.passages(texts.chats(texts.train)), False)]
    write_chats(parts, Marks((1,), (2,)), tokenizer, work / "ids", id_type(300), 64)
    for line in texts.notices:
        line.encode()


# ----------------------------------------------------------------------------- templates


def _templates() -> list[Sample]:
    plain = {path.name: path.read_bytes() for path in LLAMA.glob("*.json")}
    plain["model.safetensors"] = to_safetensors({"model.x": np.zeros((4, 4), np.float32)}, {})
    told = {"eos_token": {"content": "a"}, "bos_token": "b", "chat_template": CHATML}
    several = [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": QWEN3}]
    settings = json.dumps(told).encode()
    extra = {
        "additional_chat_templates/tool_use.jinja": QWEN3.encode(),
        "chat_template.jinja": CHATML.encode(),
    }
    found = []
    for name, files, attacked in (
        ("settings", {"tokenizer_config.json": settings}, "tokenizer_config.json"),
        (
            "list",
            {"tokenizer_config.json": json.dumps({**told, "chat_template": several}).encode()},
            "tokenizer_config.json",
        ),
        ("jinja", {"tokenizer_config.json": settings, **extra}, "chat_template.jinja"),
        ("tools", {"tokenizer_config.json": settings, **extra}, next(iter(extra))),
    ):
        found.append(Sample(f"template/{name}", plain | files, (attacked,), _read_template))
    return found


def _read_template(folder: Path, work: Path) -> None:
    from edge_train.errors import InputError, TemplateError
    from edge_train.formats.chat_template import chat_template_of
    from edge_train.formats.language_folder import open_language_model
    from edge_train.tasks.language_model.answers import text_and_answers
    from edge_train.tasks.language_model.chats import Chat

    template = chat_template_of(open_language_model(folder), _DAY)
    if template is None:
        return
    asked = ({"role": "user", "content": "how?"}, {"role": "assistant", "content": "so"})
    template.takes_tools(), template.marks_answers()
    for chat in (Chat(asked), Chat(asked, (_TOOL,))):
        try:
            text_and_answers(template, chat, ["<|im_end|>"])
        except TemplateError as error:  # said of a row, whose number stands before it
            raise InputError(f"row 1 {error}") from error


# ----------------------------------------------------------------------------- adapters


def _adapters() -> list[Sample]:
    from edge_train.formats.adapter import Adapter, Target, write_adapter

    targets = (
        Target("model.layers.0.self_attn.q_proj", 8, 8),
        Target("model.layers.0.mlp.down_proj", 8, 12),
    )
    found = []
    for kind in ("lora", "dora"):
        adapter = Adapter(kind, 2, 4.0, targets, base="a/model", base_sha256="1" * 64)
        blocks = adapter.drawn(0, {t.path: np.ones(t.outputs, np.float32) for t in targets})
        with tempfile.TemporaryDirectory() as folder:
            write_adapter(Path(folder) / "a", adapter, blocks)
            files = {p.name: p.read_bytes() for p in (Path(folder) / "a").iterdir()}
        found.append(Sample(f"adapter/{kind}", files, tuple(files), _read_adapter))
    made = {"adapter.gguf": _adapter_gguf()}
    return [
        *found,
        Sample("adapter/gguf", made, ("adapter.gguf",), _read_adapter_gguf, "adapter.gguf"),
    ]


def _adapter_gguf() -> bytes:
    from gguf_files import F32, gguf_bytes

    metadata = {
        "general.type": "adapter",
        "general.architecture": "llama",
        "adapter.type": "lora",
        "adapter.lora.alpha": 4.0,
    }
    shapes = {"lora_a": (2, 32), "lora_b": (32, 2)}
    tensors = {
        f"blk.0.attn_q.weight.{half}": (F32, shape, np.ones(shape, "<f4").tobytes())
        for half, shape in shapes.items()
    }
    return gguf_bytes(metadata, tensors)


def _read_adapter(folder: Path, work: Path) -> None:
    from edge_train.export.adapter_gguf import adapter_parts
    from edge_train.formats.adapter import read_adapter, write_adapter

    adapter, blocks = read_adapter(folder)
    write_adapter(work / "again", adapter, blocks)
    if adapter.kind == "lora":
        config = {"head_dim": 4, "num_attention_heads": 2, "num_key_value_heads": 2}
        for part in adapter_parts(adapter, blocks, "llama", config, name="a", base="b"):
            bytes(part)


def _read_adapter_gguf(folder: Path, work: Path) -> None:
    """Read what no run takes for a model: the sentence that says so is what a whole one gets."""
    from edge_train.errors import ModelError
    from edge_train.formats.gguf.model import is_gguf, open_gguf

    is_gguf(folder / "adapter.gguf")
    try:
        open_gguf(folder / "adapter.gguf")
    except ModelError as error:
        if "is an adapter" not in str(error):
            raise


# ----------------------------------------------------------------------------- blocks


def _blocks() -> list[Sample]:
    from edge_train.formats.gguf.blocks import BLOCK_TYPES

    found = []
    for kind, of in BLOCK_TYPES.items():
        files = {"m.gguf": _model_in(kind, of)}
        found.append(Sample(f"blocks/{of.name}", files, ("m.gguf",), _read_blocks, "m.gguf"))
    return found


def _model_in(kind: int, of) -> bytes:
    """Return a model of one small layer, a matrix of which is in blocks of a type."""
    from gguf_models import plain_llama

    inner = 256 if of.weights == 256 else 32
    draw = np.random.default_rng(kind)
    raw = draw.integers(0, 256, 32 * inner // of.weights * of.nbytes, np.uint8)
    raw &= 0x3F  # so that no half is infinite or NaN
    return plain_llama(inner=inner, down=(kind, (32, inner), raw.tobytes()))


def _read_blocks(folder: Path, work: Path) -> None:
    from edge_train.formats.gguf.model import open_gguf

    model = open_gguf(folder / "m.gguf")
    (file,) = model.files
    for name, entry in file.entries.items():
        file.read(name)
        file.part(name, slice(0, min(entry.shape[0], 2)))
        if len(entry.shape) > 1:
            file.rows(name, [0])
