"""Every tiny input that the cases are tried on: texts, tables, pictures and model folders.

`python tests/cases/inputs.py FOLDER` makes them all in the desk environment, without a download.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

import edge_train

WORDS = (
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "then",
    "ran",
    "home",
    "again",
    "blue",
    "red",
)
PHOTOS = Path(edge_train.__file__).parent / "data" / "photos" / "bag"

# Sizes that every language model and every encoder here shares.
CAUSAL = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
ENCODER = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
PLACES = {"intermediate_size": 64, "max_position_embeddings": 64}
GEMMA = {
    "vocab_size": 320,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
    "query_pre_attn_scalar": 32,
    "sliding_window": 32,
}


def texts(folder: Path) -> None:
    """Write text.txt and the same lines as jsonl, and a text that is too short."""
    random = np.random.default_rng(0)
    lines = [" ".join(random.choice(WORDS, 8)) for _ in range(400)]
    (folder / "text.txt").write_text("\n".join(lines) + "\n")
    (folder / "short.txt").write_text("\n".join(lines[:3]))
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in lines))


def labelled() -> list[tuple[str, int]]:
    """Return 80 texts of two classes; the last word of each decides."""
    random = np.random.default_rng(1)
    return [
        (" ".join(random.choice(WORDS[:6], 4)) + (" blue" if row % 2 else " red"), row % 2)
        for row in range(80)
    ]


def _table(path: Path, head: str, rows: list[tuple[str, str]], separator: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [head, *(separator.join(row) for row in rows)]
    path.write_text("".join(line + "\n" for line in lines))


def tables(folder: Path) -> None:
    """Write labelled texts in the shapes that people have, and small tables of numbers."""
    rows = labelled()
    named = [(text, ("ham", "spam")[label]) for text, label in rows]
    numbered = [(text, str(label)) for text, label in rows]
    _table(folder / "hamspam.csv", "text,label", named)
    _table(folder / "header.csv", "Tweet,Category", named)
    _table(folder / "three.csv", "text,label", [(t, "abc"[i % 3]) for i, (t, _) in enumerate(rows)])
    _table(
        folder / "stars.csv", "text,label", [(t, str(1 + i % 5)) for i, (t, _) in enumerate(rows)]
    )
    _table(folder / "UPPER.CSV", "text,label", numbered)
    _table(folder / "glue/train.tsv", "sentence\tlabel", numbered, "\t")
    _table(folder / "glue/dev.tsv", "sentence\tlabel", numbered[:20], "\t")
    unlabelled = [(str(row), text) for row, (text, _) in enumerate(rows[:20])]
    _table(folder / "glue/test.tsv", "index\tsentence", unlabelled, "\t")
    _table(folder / "hf/train.csv", "text,label", numbered)
    _table(folder / "hf/test.csv", "text,label", [(text, "-1") for text, _ in rows[:20]])
    _table(folder / "book.csv", "text,label", [("word " * 30_000, str(i % 2)) for i in range(20)])
    long = [("the cat sat " * 200 + text, label) for text, label in numbered]
    _table(folder / "long.csv", "text,label", long)
    scores = [{"text": text, "label": float(label)} for text, label in rows]
    (folder / "floats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scores))

    random = np.random.default_rng(2)
    numbers = [(i % 2, *random.normal(3 * (i % 2), 1, 3).round(1)) for i in range(60)]
    body = "".join(",".join(map(str, row)) + "\n" for row in numbers)
    (folder / "bom-table.csv").write_text("label,a,b,c\n" + body, "utf-8-sig")
    (folder / "capital-table.csv").write_text("Label,a,b,c\n" + body)
    (folder / "table.csv").write_text("label,a,b,c\n" + body)


def pictures(folder: Path) -> None:
    """Write folders of classes with what notebooks and Macs leave there, and captioned photos."""
    random = np.random.default_rng(3)
    for name in ("cats", "dogs", ".ipynb_checkpoints", "__MACOSX"):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(2 if name[0] in "._" else 8):
            pixels = random.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            pixels[..., 0] = 255 * (name == "dogs")
            Image.fromarray(pixels).save(folder / "pictures" / name / f"{number}.png")
    (folder / "pictures" / "cats" / "._0.png").write_bytes(b"\0\5\x16\7 of a Mac")
    (folder / "pictures" / "cats" / "Thumbs.db").write_bytes(b"of Windows")
    for name in ("up", "down"):  # half of each is stored upside down and turned by its EXIF tag
        (folder / "turned" / name).mkdir(parents=True)
        for number in range(8):
            pixels = np.full((16, 16, 3), 20, np.uint8)
            pixels[slice(0, 8) if name == "up" else slice(8, 16)] = 220
            exif = Image.Exif()
            exif[0x0112] = 3 if number % 2 else 1
            upright = Image.fromarray(pixels)
            stored = upright.rotate(180) if number % 2 else upright
            stored.save(folder / "turned" / name / f"{number}.jpg", exif=exif, quality=95)
    for name in ("left", "dotcaption", "kohya/10_mybag bag"):
        (folder / name).mkdir(parents=True)
        for photo in sorted(PHOTOS.glob("*.png")):
            shutil.copy(photo, folder / name)
            if name == "left":
                tail = " ".join(f"word{number}" for number in range(120))
                caption = f"a photo of {{}} on the left side, {tail}, END"
                (folder / name / f"{photo.stem}.txt").write_text(caption)
            if name == "dotcaption":
                (folder / name / f"{photo.stem}.caption").write_text("a photo of {} on a table")


def _tokenizer(folder: Path, marks: tuple[str, ...]) -> None:
    """Write a tokenizer that puts the first of its marks before a text and the last behind it."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(marks),
        show_progress=False,
    )
    tokenizer.train([str(folder.parent / "text.txt")], trainer)
    if marks:
        before, behind = [marks[0]], list(marks[1:][-1:])
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*before, "$A", *behind],
            pair=[*before, "$A", *behind, "$B:1", *behind],
            special_tokens=[(mark, number) for number, mark in enumerate(marks)],
        )
    tokenizer.save(str(folder / "tokenizer.json"))


def _model(folder: Path, kind, configuration, *, marks: tuple[str, ...] = (), **changed):
    """Save a model of random weights; `changed` are keys of its config.json, None drops one."""
    folder.mkdir()
    torch.manual_seed(0)
    model = kind(configuration)
    model.save_pretrained(folder)
    _tokenizer(folder, marks)
    if changed:
        path = folder / "config.json"
        words = {**json.loads(path.read_text()), **changed}
        path.write_text(json.dumps({key: word for key, word in words.items() if word is not None}))
    return model


Tensors = dict[str, torch.Tensor]


def _rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    path = folder / "model.safetensors"
    changed = {name: tensor.contiguous() for name, tensor in change(load_file(path)).items()}
    save_file(changed, path, {"format": "pt"})


def language_models(folder: Path) -> None:
    """Write causal models of the kinds that were reported, with random weights."""
    t = transformers

    def llama(name: str, *, tied: bool = False, marks: tuple[str, ...] = ()) -> Path:
        sizes = {**CAUSAL, **PLACES, "num_key_value_heads": 1, "tie_word_embeddings": tied}
        _model(folder / name, t.LlamaForCausalLM, t.LlamaConfig(**sizes), marks=marks)
        return folder / name

    llama("llama")
    llama("begins", marks=("<s>",))
    tied = llama("tied-both", tied=True)
    _rewrite(tied, lambda w: {**w, "lm_head.weight": w["model.embed_tokens.weight"].clone()})
    (tied / "tokenizer.model").write_bytes(b"sentencepiece")
    (tied / "chat_template.jinja").write_text("{{ messages }}")
    (tied / "added_tokens.json").write_text("{}")
    _rewrite(
        llama("fp8"),
        lambda w: {n: v.to(torch.float8_e4m3fn) if v.ndim > 1 else v for n, v in w.items()},
    )
    _rewrite(
        llama("int8"),
        lambda w: {n: (v * 100).to(torch.int8) if "proj" in n else v for n, v in w.items()},
    )
    places = {"ffn_dim": 64, "max_position_embeddings": 64, "word_embed_proj_dim": 32}
    _model(folder / "opt", t.OPTForCausalLM, t.OPTConfig(**CAUSAL, **places, pad_token_id=1))
    _model(folder / "pythia", t.GPTNeoXForCausalLM, t.GPTNeoXConfig(**CAUSAL, **PLACES))
    small = {"vocab_size": 320, "n_head": 2}
    bloom = t.BloomConfig(**small, hidden_size=32, n_layer=2)
    _model(folder / "bloom", t.BloomForCausalLM, bloom)
    gptj = t.GPTJConfig(**small, n_embd=32, n_layer=2, n_positions=64, rotary_dim=8)
    _model(folder / "gptj", t.GPTJForCausalLM, gptj)
    _model(folder / "gemma2", t.Gemma2ForCausalLM, t.Gemma2Config(**GEMMA))
    _gemma3(folder / "gemma3")


def _gemma3(folder: Path) -> None:
    """Write a Gemma 3 that transformers fitted, so that it knows something that can be lost."""
    model = _model(folder, transformers.Gemma3ForCausalLM, transformers.Gemma3TextConfig(**GEMMA))
    text = (folder.parent / "text.txt").read_text()
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    rule = torch.optim.AdamW(model.parameters(), 1e-2)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(4)
    for _ in range(60):
        starts = torch.randint(0, len(ids) * 9 // 10 - 17, (8,))
        batch = torch.tensor([ids[start : start + 17] for start in starts])
        model(input_ids=batch, labels=batch).loss.backward()
        rule.step()
        rule.zero_grad()
    model.save_pretrained(folder)


def classifiers(folder: Path) -> None:
    """Write encoders and classifiers of the kinds that were reported, with random weights."""
    t = transformers
    bert = {**ENCODER, **PLACES}
    _model(folder / "bert", t.BertModel, t.BertConfig(**bert))
    _model(folder / "bert-mlm", t.BertForMaskedLM, t.BertConfig(**bert))
    _model(folder / "bert-3", t.BertForSequenceClassification, t.BertConfig(**bert, num_labels=3))
    _model(folder / "bert-5", t.BertForSequenceClassification, t.BertConfig(**bert, num_labels=5))
    distil = {"vocab_size": 320, "dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64}
    distil_config = t.DistilBertConfig(**distil, max_position_embeddings=64)
    _model(folder / "distilbert", t.DistilBertModel, distil_config)
    deberta = t.DebertaV2Config(
        **bert,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=16,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
    )
    _model(folder / "deberta-v3", t.DebertaV2ForSequenceClassification, deberta)
    _model(folder / "mpnet", t.MPNetForSequenceClassification, t.MPNetConfig(**bert))
    bart = t.BartConfig(
        vocab_size=320,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        num_labels=2,
    )
    marks = ("<s>", "<pad>", "</s>")
    _model(folder / "bart", t.BartForSequenceClassification, bart, marks=marks)
    _model(folder / "bart-without-end", t.BartForSequenceClassification, bart)
    gpt2 = t.GPT2Config(
        vocab_size=320,
        n_embd=32,
        n_layer=1,
        n_head=2,
        n_positions=64,
        num_labels=2,
        eos_token_id=299,
        bos_token_id=299,
        pad_token_id=299,
    )
    _model(folder / "gpt2", t.GPT2ForSequenceClassification, gpt2, pad_token_id=None)


def make(folder: Path) -> None:
    """Make every input in an empty or new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    texts(folder)
    tables(folder)
    pictures(folder)
    language_models(folder)
    classifiers(folder)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
