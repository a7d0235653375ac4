"""What is saved is what was trained, however the source spells its tensors."""

import json

import architectures
import numpy as np
import pytest

pytest.importorskip("torch")

import torch
import transformers
from safetensors.torch import load_file, save_file

from edge_train.export.language_files import write_language_model
from edge_train.export.result_texts import write_texts
from edge_train.formats.language_folder import open_language_model
from edge_train.formats.model_texts import model_texts
from edge_train.runtimes.torch.language_model import TorchLanguageModel
from edge_train.runtimes.torch.language_network import sources

WEIGHTS = "model.safetensors"
IDS = np.random.default_rng(0).integers(3, architectures.VOCABULARY, (2, 13))


def change(folder, edit):
    save_file(edit(load_file(folder / WEIGHTS)), folder / WEIGHTS, {"format": "pt"})


def store_head(folder):
    table = "model.embed_tokens.weight"
    change(folder, lambda tensors: {**tensors, "lm_head.weight": tensors[table].clone()})


def store_other_head(folder):
    table = "model.embed_tokens.weight"
    change(folder, lambda tensors: {**tensors, "lm_head.weight": tensors[table] + 0.5})


def store_head_alone(folder):
    table = "model.embed_tokens.weight"
    change(folder, lambda t: {"lm_head.weight": t.pop(table), **t})


def name_variant(folder):
    (folder / WEIGHTS).rename(folder / "model.fp16.safetensors")


def leave_out_prefix(folder):
    change(folder, lambda t: {name.removeprefix("model."): value for name, value in t.items()})


SPELLINGS = (store_head, store_other_head, store_head_alone, name_variant, leave_out_prefix)


@pytest.mark.parametrize("spell", SPELLINGS, ids=lambda one: one.__name__)
def test_a_saved_model_computes_what_was_trained(tmp_path, spell):
    """A tied head that was stored, too, kept its old numbers, and transformers took those."""
    sizes = architectures.LANGUAGE_MODELS["llama"]
    config = transformers.LlamaConfig(
        **sizes, vocab_size=architectures.VOCABULARY, tie_word_embeddings=True
    )
    source, out = tmp_path / "source", tmp_path / "out"
    transformers.LlamaForCausalLM(config).save_pretrained(source)
    spell(source)
    folder = open_language_model(source)
    runtime = TorchLanguageModel.open(folder, quant="none", threads=1, seed=0)
    batch = {"ids": IDS}
    before = runtime.forward(batch, [runtime.parameters])[0]
    variant = "fp16" if spell is name_variant else None
    network = transformers.AutoModelForCausalLM.from_pretrained(source, variant=variant)
    np.testing.assert_allclose(before, losses(network), rtol=1e-5)
    for name in runtime.parameters:
        runtime.parameters[name][...] *= np.float32(1.5)
    trained = runtime.forward(batch, [runtime.parameters])[0]
    write_texts(source, out, {})
    write_language_model(out, runtime.parameters, sources(folder), folder.files)
    saved = transformers.AutoModelForCausalLM.from_pretrained(out)
    np.testing.assert_allclose(losses(saved), trained, rtol=1e-5)
    assert np.abs(trained - before).max() > 1e-3


def losses(network):
    ids = torch.from_numpy(IDS)
    with torch.no_grad():
        logits = network.eval()(input_ids=ids[:, :-1], use_cache=False).logits
    found = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    return found.mean(dim=1).numpy()


def test_every_file_of_a_tokenizer_travels_and_no_text_to_train_on_does(tmp_path):
    kept = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer.model")
    kept += ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")
    kept += ("merges.txt", "vocab.txt", "chat_template.jinja", "spiece.model", "LICENSE")
    left = ("train.json", "text.txt", "model.safetensors", "model.safetensors.index.json")
    left += ("modeling_mine.py", "optimizer.pt", "trainer_state.json", ".gitattributes")
    for name in (*kept, *left):
        (tmp_path / name).write_text("{}")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tools.jinja").write_text("x")
    found = {path.relative_to(tmp_path).as_posix() for path in model_texts(tmp_path)}
    assert found == {*kept, "additional_chat_templates/tools.jinja"}


def test_a_configuration_keeps_its_nulls_and_loses_code(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    written = {"sliding_window": None, "auto_map": {"AutoModel": "x.Y"}, "num_labels": 3}
    (source / "config.json").write_text(json.dumps(written))
    write_texts(source, tmp_path / "out", {"num_labels": None, "pad_token_id": 4})
    found = json.loads((tmp_path / "out" / "config.json").read_text())
    assert found == {"sliding_window": None, "pad_token_id": 4}
