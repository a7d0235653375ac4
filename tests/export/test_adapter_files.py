"""Adapters as others load them: adapter.gguf by its definition, merged models by their losses.

A merged weight in F16 differs by 2^-11 of itself at most, one in Q8_0 by 1/254 of its block's
largest; what an adapter changes in the logits is far above both, and errors are measured by it. In
float32 losses are held to 1e-5, for sums in another order.
"""

import json

import numpy as np
import pytest
from gguf_files import F32, Q8_0
from gguf_models import GROUPS, HEADS, make_gguf

from edge_train import cli
from edge_train.errors import EdgeTrainError
from edge_train.export.adapter_gguf import adapter_parts
from edge_train.formats.adapter import Adapter, Target, names_of, read_adapter, write_adapter
from edge_train.formats.gguf.file import GgufFile
from edge_train.formats.gguf.model import open_gguf
from edge_train.formats.gguf.weights import stored_name
from edge_train.formats.gguf.writing import stored_values
from edge_train.tasks.language_model.export import export_language_model
from edge_train.units import format_bytes

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`"),  # of peft and transformers
    pytest.mark.filterwarnings("ignore:Could not find a config file"),  # of peft, of a bare network
]

RANK, HALF, SAME = 4, 1e-3, 1e-5
IDS = np.random.default_rng(0).integers(3, 260, (2, 17))


def quiet(*_):
    return None


def adapter_of(base, kind="lora", rslora=False):
    """Return an adapter of every layer's matrices that changes what the model says."""
    draw = np.random.default_rng(1)
    targets = [
        Target(name.removesuffix(".weight"), *entry.shape)
        for name, entry in base.files[0].entries.items()
        if len(entry.shape) == 2 and ".layers." in name
    ]
    adapter = Adapter(
        kind, RANK, 6.0, tuple(targets), rslora, base=base.base, base_sha256=base.sha256()
    )
    lengths = {}
    for target in targets:
        whole = base.files[0].read(f"{target.path}.weight")
        lengths[target.path] = np.linalg.norm(whole, axis=1) * draw.uniform(0.5, 2, len(whole))
    blocks = adapter.drawn(0, lengths)
    for target in targets:
        second = names_of(target.path)[1]
        blocks[second] = (0.3 * draw.standard_normal(blocks[second].shape)).astype(np.float32)
    return adapter, blocks


@pytest.fixture
def made(tmp_path):
    def make(name, stored_as=F32, kind="lora", rslora=False):
        make_gguf(tmp_path / "base.gguf", name, stored_as)
        adapter, blocks = adapter_of(open_gguf(tmp_path / "base.gguf"), kind, rslora)
        write_adapter(tmp_path / "learned", adapter, blocks)
        return adapter, blocks

    return make


def export(tmp_path, out, to, quant=None, base=None, say=quiet):
    export_language_model(tmp_path / "learned", tmp_path / out, to, quant=quant, base=base, say=say)


def loss_of(network):
    tokens = torch.from_numpy(IDS)
    with torch.no_grad():
        logits = network(input_ids=tokens[:, :-1]).logits.float()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).item()


def logits_of(network):
    with torch.no_grad():
        return network(input_ids=torch.from_numpy(IDS[:1])).logits[0, -1].numpy()


def merged_by_definition(tmp_path, adapter, blocks):
    """Return transformers' network of the base, its weights W + scale * B A by plain formulas."""
    from edge_train.runtimes.torch.language_network import build_network

    base = open_gguf(tmp_path / "base.gguf")
    network = build_network(base)
    network = type(network)(network.config).float().eval()
    values = {name: base.files[0].read(name) for name in base.files[0].entries}
    for target in adapter.targets:
        first, second, lengths = (blocks.get(name) for name in names_of(target.path))
        whole = values[f"{target.path}.weight"] + adapter.scale * second @ first
        if lengths is not None:
            whole *= (lengths / np.linalg.norm(whole, axis=1))[:, None]
        values[f"{target.path}.weight"] = whole.astype(np.float32)
    found = network.load_state_dict(
        {name: torch.from_numpy(np.asarray(one, np.float32)) for name, one in values.items()},
        strict=False,
    )
    assert not found.unexpected_keys
    network.tie_weights()
    return network


def test_rows_of_queries_and_keys_stand_in_pairs_in_the_file_of_a_llama(tmp_path, made):
    adapter, blocks = made("llama")
    export(tmp_path, "a.gguf", "adapter-gguf")
    file = GgufFile(tmp_path / "a.gguf")
    heads = {"q_proj": HEADS, "k_proj": GROUPS}
    assert len(file.tensors) == 2 * len(adapter.targets)
    for target in adapter.targets:
        name = stored_name(target.path, "llama")
        found = {}
        for half in "ab":
            place = file.tensors[f"{name}.lora_{half}"]
            found[half] = np.empty(place.shape, np.float32)
            file.rows_into(f"{name}.lora_{half}", range(place.shape[0]), found[half])
        first, second, _ = names_of(target.path)
        wanted = blocks[second]
        if count := heads.get(target.path.rpartition(".")[2]):
            two = wanted.reshape(count, 2, len(wanted) // count // 2, RANK)
            wanted = two.swapaxes(1, 2).reshape(wanted.shape)
        assert np.array_equal(found["a"], blocks[first])
        assert np.array_equal(found["b"], wanted)


@pytest.mark.parametrize("rslora", [False, True])
def test_an_adapter_file_says_what_llama_cpp_asks_for(tmp_path, made, rslora):
    adapter, _ = made("qwen3", rslora=rslora)
    said = []
    export(tmp_path, "a.gguf", "adapter-gguf", say=said.append)
    found = GgufFile(tmp_path / "a.gguf").metadata
    assert found["general.architecture"] == "qwen3"
    assert (found["general.type"], found["adapter.type"]) == ("adapter", "lora")
    assert found["adapter.lora.alpha"] / RANK == pytest.approx(adapter.scale, rel=1e-6)
    size = format_bytes((tmp_path / "a.gguf").stat().st_size)
    assert size in said[0] and "--lora" in said[0]


def test_the_same_adapter_gives_the_same_bytes_from_a_folder_of_the_base(tmp_path, made):
    made("llama")
    adapter, blocks = read_adapter(tmp_path / "learned")
    export(tmp_path, "a.gguf", "adapter-gguf")
    export(tmp_path, "folder", "merged")  # of the same layers
    base = open_gguf(tmp_path / "base.gguf")
    parts = adapter_parts(adapter, blocks, "llama", base.config, name="learned", base="base.gguf")
    assert b"".join(parts) == (tmp_path / "a.gguf").read_bytes()
    export(tmp_path, "b.gguf", "adapter-gguf", base=None)
    hashless = Adapter(adapter.kind, RANK, adapter.alpha, adapter.targets)
    write_adapter(tmp_path / "learned", hashless, blocks)
    export(tmp_path, "c.gguf", "adapter-gguf", base=str(tmp_path / "folder"))
    one, other = (GgufFile(tmp_path / name) for name in ("b.gguf", "c.gguf"))
    assert list(one.tensors) == list(other.tensors)
    for name, tensor in one.tensors.items():
        found = [np.empty(tensor.shape, np.float32) for _ in range(2)]
        for file, out in zip((one, other), found, strict=True):
            file.rows_into(name, range(tensor.shape[0]), out)
        assert np.array_equal(*found)


@pytest.mark.parametrize(
    ("name", "stored_as", "quant", "kind"),
    [
        ("llama", Q8_0, "f16", "lora"),
        ("gemma3", F32, "f16", "lora"),
        ("phi3", F32, "f16", "dora"),
        ("llama", F32, "q8_0", "dora"),
    ],
)
def test_a_merged_gguf_says_what_base_and_adapter_say(tmp_path, made, name, stored_as, quant, kind):
    from edge_train.runtimes.torch.language_model import TorchLanguageModel

    adapter, blocks = made(name, stored_as, kind)
    export(tmp_path, "merged.gguf", "merged-gguf", quant)
    runtime = TorchLanguageModel.open(
        open_gguf(tmp_path / "merged.gguf"), quant="none", threads=1, seed=0
    )
    found = runtime.next_logits(IDS[0].tolist())
    wanted = logits_of(merged_by_definition(tmp_path, adapter, blocks))
    change = wanted - logits_of(make_gguf(tmp_path / "again.gguf", name, stored_as))
    error = np.linalg.norm(found - wanted) / np.linalg.norm(change)
    assert error < (1e-2 if quant == "f16" else 0.1)


def test_a_merged_gguf_carries_the_rest_over_as_it_is(tmp_path, made):
    made("llama", Q8_0)
    export(tmp_path, "merged.gguf", "merged-gguf", "q8_0")
    before, after = (GgufFile(tmp_path / f"{name}.gguf") for name in ("base", "merged"))
    assert list(before.tensors) == list(after.tensors)
    for name in ("token_embd.weight", "output_norm.weight", "blk.1.ffn_norm.weight"):
        raw = [
            file.path.read_bytes()[place.start : place.start + place.nbytes]
            for file in (before, after)
            for place in [file.tensors[name]]
        ]
        assert raw[0] == raw[1]
    values = stored_values(before.path)
    found = stored_values(after.path)
    new = {"general.name", "general.file_type", "general.quantization_version"}
    assert {key: of for key, of in found.items() if key not in new} == values


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_a_merged_folder_has_the_loss_that_peft_has_with_the_adapter(tmp_path, made, kind):
    peft = pytest.importorskip("peft")
    adapter, blocks = made("llama", Q8_0, kind)
    wanted = merged_by_definition(tmp_path, adapter, blocks)
    export(tmp_path, "out", "merged")
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert found.dtype == torch.float16
    assert loss_of(found.float().eval()) == pytest.approx(loss_of(wanted), rel=HALF)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    own = open_gguf(tmp_path / "base.gguf").tokenizer()
    assert tokenizer("the hat").input_ids == own.encode("the hat").ids
    # the same of a base in a folder, in float32, beside peft's own merge
    draw = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").float()
    draw.save_pretrained(tmp_path / "folder")
    tokenizer.save_pretrained(tmp_path / "folder")
    hashless = Adapter(kind, RANK, adapter.alpha, adapter.targets)
    write_adapter(tmp_path / "learned", hashless, blocks)
    with_peft = peft.PeftModel.from_pretrained(draw, tmp_path / "learned").eval()
    export(tmp_path, "second", "merged", base=str(tmp_path / "folder"))
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "second")
    assert merged.dtype == torch.float32
    assert loss_of(merged.eval()) == pytest.approx(loss_of(with_peft), rel=SAME)


def test_a_transposed_matrix_is_merged_as_peft_does_it(tmp_path):
    peft = pytest.importorskip("peft")
    config = transformers.GPT2Config(
        vocab_size=300, n_embd=32, n_layer=1, n_head=2, n_positions=64, eos_token_id=1
    )
    torch.manual_seed(0)
    network = transformers.GPT2LMHeadModel(config).eval()
    network.save_pretrained(tmp_path / "base")
    make_gguf(tmp_path / "base.gguf", "smollm")
    tokenizer = open_gguf(tmp_path / "base.gguf").tokenizer()
    tokenizer.save(str(tmp_path / "base" / "tokenizer.json"))
    target = Target("transformer.h.0.attn.c_attn", 96, 32, transposed=True)
    adapter = Adapter("dora", RANK, 6.0, (target,))
    draw = np.random.default_rng(2)
    blocks = {
        name: draw.standard_normal(shape).astype(np.float32)
        for name, shape in adapter.shapes().items()
    }
    write_adapter(tmp_path / "learned", adapter, blocks)
    export(tmp_path, "out", "merged", base=str(tmp_path / "base"))
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    wanted = peft.PeftModel.from_pretrained(network, tmp_path / "learned").merge_and_unload()
    assert loss_of(merged) == pytest.approx(loss_of(wanted), rel=SAME)


def refused(tmp_path, *words, **named):
    with pytest.raises(EdgeTrainError) as caught:
        export(tmp_path, *words, **named)
    assert str(caught.value).count("\n") == 0
    return str(caught.value)


def test_dora_is_refused_as_an_adapter_file_with_what_to_type(tmp_path, made):
    made("llama", kind="dora")
    assert "--to merged-gguf" in refused(tmp_path, "a.gguf", "adapter-gguf")
    assert not (tmp_path / "a.gguf").exists()


@pytest.mark.parametrize("to", ["adapter-gguf", "merged-gguf", "merged", "ollama"])
def test_nothing_that_is_there_is_overwritten(tmp_path, made, to):
    made("llama")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    assert "exists already" in refused(tmp_path, "out", to)
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["mine"]


@pytest.mark.parametrize("to", ["adapter-gguf", "merged-gguf", "merged", "ollama"])
def test_a_base_that_has_changed_since_is_refused(tmp_path, made, to):
    made("llama")
    path = tmp_path / "base.gguf"
    path.write_bytes(path.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    assert "is not the model that learned was trained on" in refused(tmp_path, "out", to)
    assert not (tmp_path / "out").exists()


def test_a_base_that_was_renamed_is_taken(tmp_path, made):
    made("llama")
    base = tmp_path / "base.gguf"
    base.rename(tmp_path / "better name.gguf")
    said = refused(tmp_path, "a.gguf", "adapter-gguf")
    assert "name it with --base." in said and said.count("--") == 1
    export(tmp_path, "a.gguf", "adapter-gguf", base=str(tmp_path / "better name.gguf"))
    assert (tmp_path / "a.gguf").is_file()


def test_a_base_of_other_sizes_is_refused_where_no_hash_is_known(tmp_path, made):
    adapter, blocks = made("llama")
    hashless = Adapter("lora", RANK, adapter.alpha, adapter.targets)
    write_adapter(tmp_path / "learned", hashless, blocks)
    make_gguf(tmp_path / "other.gguf", "smollm")
    for to in ("adapter-gguf", "merged-gguf", "merged"):
        other = str(tmp_path / "other.gguf")
        assert "belongs to another model" in refused(tmp_path, "out", to, base=other)
    assert "name it with --base" in refused(tmp_path, "out", "merged")


def test_a_base_that_is_gone_is_asked_for(tmp_path, made):
    made("llama")
    (tmp_path / "base.gguf").unlink()
    said = refused(tmp_path, "a.gguf", "adapter-gguf")
    assert "name it with --base." in said and said.count("--") == 1


@pytest.mark.parametrize("name", ["/no/such.gguf", "/no/such folder"])
def test_a_base_that_was_named_wrongly_is_asked_for_by_a_flag_that_export_has(tmp_path, made, name):
    made("llama")
    said = refused(tmp_path, "a.gguf", "adapter-gguf", base=name)
    assert "--base " in said and "--model" not in said


def test_a_layer_that_no_gguf_file_has_is_refused(tmp_path, made):
    adapter, _ = made("llama")
    hostile = "model.layers.0.../../x"
    other = Adapter("lora", RANK, 6.0, (Target(hostile, 64, 64),))
    write_adapter(tmp_path / "learned", other, other.drawn(0))
    base = str(tmp_path / "base.gguf")
    assert "no GGUF file of a llama model has" in refused(
        tmp_path, "a.gguf", "adapter-gguf", base=base
    )
    assert "does not store" in refused(tmp_path, "out", "merged", base=base)
    assert adapter.targets


def test_a_weight_too_large_for_a_half_is_refused_and_nothing_stays(tmp_path, made):
    adapter, blocks = made("llama")
    first, second, _ = names_of(adapter.targets[0].path)
    huge = {**blocks, first: blocks[first] * 1e4, second: blocks[second] * 1e4}
    write_adapter(tmp_path / "learned", adapter, huge)
    assert "65504" in refused(tmp_path, "a.gguf", "merged-gguf")
    assert "65504" in refused(tmp_path, "out", "merged")
    assert {one.name for one in tmp_path.iterdir()} == {"base.gguf", "learned"}


def test_words_that_do_not_go_together_are_refused(tmp_path, made):
    made("llama")
    assert "leave it out" in refused(tmp_path, "out", "merged", quant="f16")
    assert "f16 or q8_0" in refused(tmp_path, "out", "merged-gguf", quant="int4")


def test_a_folder_that_is_no_run_and_a_run_of_another_task_are_refused(tmp_path):
    (tmp_path / "learned").mkdir()
    assert "neither a run folder" in refused(tmp_path, "out", "merged")
    (tmp_path / "learned" / "recipe.toml").write_text('task = "classify"\n')
    assert "run of task 'classify'" in refused(tmp_path, "out", "merged")
    (tmp_path / "learned" / "recipe.toml").write_text('task = "language-model"\n')
    assert "--resume" in refused(tmp_path, "out", "merged")


def test_an_adapter_that_peft_wrote_is_exported(tmp_path):
    peft = pytest.importorskip("peft")
    network = make_gguf(tmp_path / "base.gguf", "llama")
    settings = peft.LoraConfig(
        r=RANK, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"
    )
    peft.get_peft_model(network, settings).save_pretrained(tmp_path / "learned")
    path = tmp_path / "learned" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": None}))
    export(tmp_path, "a.gguf", "adapter-gguf", base=str(tmp_path / "base.gguf"))
    adapter, _ = read_adapter(tmp_path / "learned")
    assert len(GgufFile(tmp_path / "a.gguf").tensors) == 2 * len(adapter.targets) == 8


def test_a_run_on_a_gguf_writes_its_adapter_file_by_itself(tmp_path, capsys):
    make_gguf(tmp_path / "base.gguf", "llama", Q8_0)
    words = np.random.default_rng(0).choice(["the", "hat", "and", "tin", "a"], 900)
    (tmp_path / "text.txt").write_text(" ".join(words))
    out = tmp_path / "run"
    told = ["--model", str(tmp_path / "base.gguf"), "--out", str(out), "--steps", "2"]
    told += ["--threads", "1", "--length", "16", "--samples", "2", "--lr", "1e-2", "--rank", "4"]
    assert cli.main(["run", str(tmp_path / "text.txt"), *told]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["outputs"]["adapter_gguf"] == "adapter.gguf"
    export_language_model(
        out, tmp_path / "a.gguf", "adapter-gguf", quant=None, base=None, say=quiet
    )
    assert (out / "adapter.gguf").read_bytes() == (tmp_path / "a.gguf").read_bytes()
    place = GgufFile(out / "adapter.gguf").tensors["blk.1.attn_q.weight.lora_b"]
    assert place.shape == (128, 4)
    capsys.readouterr()
    asked = ["generate", str(out), "--raw", "--prompt", "the hat", "--temperature", "0", "--base"]
    assert cli.main([*asked, "--max-tokens", "8", "--threads", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "--- run: the hat" and "--- base: the hat" in said
    (tmp_path / "base.gguf").rename(tmp_path / "elsewhere.gguf")
    assert cli.main(asked) == 2
    refusal = capsys.readouterr().err
    assert "there is no such file" in refusal and refusal.endswith("name it with --model.\n")
    moved = [*asked, "--max-tokens", "8", "--threads", "1", "--model"]
    assert cli.main([*moved, str(tmp_path / "elsewhere.gguf")]) == 0
    assert capsys.readouterr().out.splitlines() == said


@pytest.mark.parametrize(("kind", "says"), [("dora", True), ("lora", False)])
def test_a_run_of_dora_says_at_its_start_that_no_file_for_llama_cpp_comes_of_it(
    tmp_path, kind, says
):
    from edge_train.tasks.language_model.job import LanguageModelJob
    from edge_train.tasks.language_model.recipe import LanguageModelRecipe

    make_gguf(tmp_path / "base.gguf", "llama")
    (tmp_path / "text.txt").write_text("the hat " * 300)
    recipe = LanguageModelRecipe(
        model=str(tmp_path / "base.gguf"), data=str(tmp_path / "text.txt"), trainable=kind
    )
    assert any("--to merged-gguf" in line for line in LanguageModelJob(recipe).notes) == says


def test_with_and_without_torch_a_run_says_the_same(tmp_path, made, monkeypatch):
    from edge_train.tasks.language_model import speaking
    from edge_train.tasks.language_model.learned import learned_in

    adapter, blocks = made("llama", Q8_0)
    learned = learned_in(tmp_path / "learned")
    base = open_gguf(tmp_path / "base.gguf")
    ids = IDS[0].tolist()
    wanted = logits_of(merged_by_definition(tmp_path, adapter, blocks))
    merged = speaking.on_torch(base, learned, 1).next_logits(ids)
    monkeypatch.setattr(speaking, "machine_bytes", lambda: 1000)  # too small for float weights
    kept = speaking.on_torch(base, learned, 1)
    assert set(kept.parameters) == set(blocks)  # the base stays in its file
    without = speaking.on_numpy(base, learned, 1).next_logits(ids)
    for found in (merged, kept.next_logits(ids), without):
        assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()
    plain = speaking.on_numpy(base, None, 1).next_logits(ids)
    assert np.abs(plain - wanted).max() > 0.1 * np.abs(wanted).max()
    monkeypatch.setattr(speaking, "find_spec", lambda _: None)
    opened = speaking.open_speaker(tmp_path / "learned", 1)
    assert type(opened.engine).__name__ == "NumpyLanguageModel"
