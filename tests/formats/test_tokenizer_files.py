"""Tokenizers from the files that models are published with: the ids of transformers."""

import io
import json

import pytest
from tokenizers import ByteLevelBPETokenizer

from edge_train.errors import ModelError
from edge_train.formats.tokenizer_files import open_tokenizer, tokenizer_files

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "Café, naïve façade: ÀÉÎÕÜ ßtraße",
    "JUST SHOUTING, AREN'T WE?",
    "  two  spaces\tand a tab \n and a line ",
    "映画はよかった。这部电影很好",
    "a 😀 smile 👩‍👩‍👧 and a flag 🇪🇺",
    "Фильм был хорошим",
    "don't can't we'll I'd they've",
    "1234 5,678.90 3rd",
    "[CLS] a film [MASK] of <s> <mask> </s> <|endoftext|>",
    "",
    "e\u0301 \u00a0 \u200b \ufffd \x07 end",
    "<extra> tokens <extra>side",
]
WORDS = ["the", "a", "film", "fox", "##s", "##e", "over", "good", "!", ",", ".", "cafe", "naive"]
WORDS += ["Café", "café", "two", "JUST", "just", "映", "画", "ß", "don", "'", "t", "1", "##2", "of"]
WORDS += list("abcdefghijklmnopqrstuvwxyzéàü") + [
    "##" + one for one in "abcdefghijklmnopqrstuvwxyzé"
]
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
CORPUS = [*TEXTS[:9], "the film of the fox over the lazy dog and the good café"] * 4


def words(folder, first=BERT):
    (folder / "vocab.txt").write_text("\n".join([*first, *WORDS]) + "\n", "utf-8")


def pieces(folder, first=("<|endoftext|>",)):
    model = ByteLevelBPETokenizer()
    model.train_from_iterator(
        CORPUS, vocab_size=420, min_frequency=2, special_tokens=list(first), show_progress=False
    )
    model.save_model(str(folder))


def write(folder, name, **values):
    (folder / name).write_text(json.dumps(values, ensure_ascii=False), "utf-8")


CASES = {
    "bert": (words, "bert", {}),
    "bert-cased": (words, "bert", {"do_lower_case": False}),
    "bert-accents": (words, "bert", {"do_lower_case": True, "strip_accents": False}),
    "bert-whole-chinese": (words, "bert", {"tokenize_chinese_chars": False}),
    "distilbert": (words, "distilbert", {"tokenizer_class": "DistilBertTokenizer"}),
    "electra": (words, "electra", {"tokenizer_class": "ElectraTokenizerFast"}),
    "mpnet": (
        lambda folder: words(folder, ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]),
        "mpnet",
        {"tokenizer_class": "MPNetTokenizer"},
    ),
    "gpt2": (pieces, "gpt2", {}),
    "gpt2-bos": (pieces, "gpt2", {"add_bos_token": True}),
    "opt": (
        lambda folder: pieces(folder, ROBERTA),
        "opt",
        {
            "tokenizer_class": "GPT2Tokenizer",
            "add_bos_token": True,
            "bos_token": "</s>",
            "eos_token": "</s>",
            "unk_token": "</s>",
            "pad_token": "<pad>",
        },
    ),
    "roberta": (lambda folder: pieces(folder, ROBERTA), "roberta", {}),
    "roberta-space": (
        lambda folder: pieces(folder, ROBERTA),
        "roberta",
        {"add_prefix_space": True, "tokenizer_class": "RobertaTokenizer"},
    ),
    "bart": (lambda folder: pieces(folder, ROBERTA), "bart", {"tokenizer_class": "BartTokenizer"}),
    "deberta": (lambda folder: pieces(folder, BERT), "deberta", {}),
    "qwen2": (pieces, "qwen2", {"tokenizer_class": "Qwen2Tokenizer", "bos_token": None}),
}


def made(folder, case):
    put, model, settings = CASES[case]
    put(folder)
    write(folder, "config.json", model_type=model)
    if settings:
        write(folder, "tokenizer_config.json", **settings)
    return folder


def theirs(folder):
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)


def check(folder):
    """Compare single texts and pairs, with and without what stands around them."""
    expected, found = theirs(folder), open_tokenizer(folder, 10_000)
    for text in TEXTS:
        assert found.encode(text).ids == expected(text)["input_ids"], text
        bare = expected(text, add_special_tokens=False)["input_ids"]
        assert found.encode(text, add_special_tokens=False).ids == bare
    one, two = found.encode(TEXTS[0], TEXTS[1]), expected(TEXTS[0], TEXTS[1])
    assert one.ids == two["input_ids"]
    if "token_type_ids" in two:
        assert one.type_ids == two["token_type_ids"]
    assert len(set(found.encode(TEXTS[0]).ids)) > 5  # not all of it is unknown
    return found


@pytest.mark.parametrize("case", CASES)
def test_files_without_tokenizer_json_give_the_ids_of_transformers(tmp_path, case):
    found = check(made(tmp_path, case))
    before = [found.encode(text).ids for text in TEXTS]
    found.save(str(tmp_path / "tokenizer.json"))  # as a result has it
    assert [theirs(tmp_path)(text)["input_ids"] for text in TEXTS] == before


@pytest.mark.parametrize("case", ["bert", "gpt2", "roberta"])
def test_tokens_of_the_maps_are_never_taken_apart(tmp_path, case):
    folder = made(tmp_path, case)
    size = open_tokenizer(folder, 10_000).get_vocab_size()
    write(folder, "added_tokens.json", **{"<extra>": size, "fox over": size + 1})
    mask = "[MASK]" if case == "bert" else "<mask>"
    if case != "gpt2":
        write(
            folder,
            "special_tokens_map.json",
            mask_token={"content": mask, "lstrip": True, "rstrip": False, "normalized": False},
        )
    assert size in check(folder).encode(TEXTS[-1]).ids


def test_added_tokens_of_the_settings_go_before_the_older_files(tmp_path):
    folder = made(tmp_path, "bert")
    size = open_tokenizer(folder, 10_000).get_vocab_size()
    tokens = {str(size): {"content": "<extra>", "special": False, "normalized": False}}
    write(folder, "tokenizer_config.json", added_tokens_decoder=tokens, do_lower_case=False)
    write(folder, "special_tokens_map.json", cls_token="[SEP]")
    assert check(folder).encode("a").ids[0] == BERT.index("[CLS]")


def test_a_vocabulary_of_which_nothing_is_known_is_berts(tmp_path):
    words(tmp_path)
    assert open_tokenizer(tmp_path, 10_000).encode("a").tokens == ["[CLS]", "a", "[SEP]"]


@pytest.mark.parametrize(
    ("put", "settings", "sentence"),
    [
        (words, {"tokenizer_class": "BertJapaneseTokenizer"}, "vocab.txt of a BertJapaneseTok"),
        (pieces, {"tokenizer_class": "OpenAIGPTTokenizer"}, "vocab.json of a OpenAIGPTTokenizer"),
        (lambda folder: words(folder, ["<s>", "[UNK]"]), {}, r"no \[CLS\] in the vocabulary"),
        (words, {"tokenizer_class": "BertTokenizer", "do_lower_case": "no"}, "cannot be read"),
        (pieces, {"tokenizer_class": "GPT2Tokenizer", "eos_token": 3}, "cannot be read"),
        (
            words,
            {"added_tokens_decoder": {"900": {"content": "<x>", "special": True}}},
            "'<x>' has number 900, which is not the next",
        ),
    ],
)
def test_what_is_not_read_or_damaged_is_one_sentence(tmp_path, put, settings, sentence):
    put(tmp_path)
    write(tmp_path, "tokenizer_config.json", **settings)
    with pytest.raises(ModelError, match=sentence):
        open_tokenizer(tmp_path, 10_000)


@pytest.mark.parametrize(
    "name", ["tokenizer.model", "spiece.model", "spm.model", "sentencepiece.bpe.model"]
)
def test_a_sentencepiece_model_names_the_command_that_makes_tokenizer_json(
    tmp_path, monkeypatch, name
):
    monkeypatch.setattr("edge_train.formats.tokenizer_files.find_spec", lambda name: None)
    (tmp_path / name).write_bytes(b"\n\x0e")
    with pytest.raises(
        ModelError, match=rf"{name} is a tokenizer .*edge-train\[desk\].*save_pretrained"
    ):
        open_tokenizer(tmp_path, 10_000)


def test_a_folder_with_tokenizer_json_is_told_by_the_files_it_always_was(tmp_path):
    pieces(tmp_path)
    assert {"vocab.json", "merges.txt"} <= set(tokenizer_files(tmp_path))
    write(tmp_path, "tokenizer.json")
    assert tokenizer_files(tmp_path) == (
        *("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"),
    )


def test_a_sentencepiece_model_goes_through_transformers_without_code_of_the_folder(
    tmp_path, monkeypatch
):
    transformers = pytest.importorskip("transformers")
    asked = {}

    class Made:
        backend_tokenizer = ByteLevelBPETokenizer()._tokenizer

        @classmethod
        def from_pretrained(cls, folder, **options):
            asked.update(options, folder=folder)
            return cls

    reader = "edge_train.formats.tokenizer_files"
    monkeypatch.setattr(f"{reader}.find_spec", lambda name: name)
    monkeypatch.setattr(f"{reader}._own_pieces", lambda path: ("", []))
    monkeypatch.setattr(transformers, "AutoTokenizer", Made)
    (tmp_path / "spiece.model").write_bytes(b"\n\x0e")
    assert open_tokenizer(tmp_path, 10) is Made.backend_tokenizer
    assert asked == {
        "folder": str(tmp_path),
        "local_files_only": True,
        "trust_remote_code": False,
    }


SAMPLES = [f"a cat number {n} sat on a mat and the dog ran {'home ' * (n % 4)}" for n in range(90)]


def sentencepiece_model(folder, name, kind):
    """Write a tiny sentencepiece model, and return sentencepiece's own reader of it."""
    sentencepiece = pytest.importorskip("sentencepiece")
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SAMPLES),
        model_writer=written,
        vocab_size=60,
        model_type=kind,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    (folder / name).write_bytes(written.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())


@pytest.mark.parametrize(
    ("name", "kind", "settings", "model"),
    [
        ("tokenizer.model", "bpe", {"tokenizer_class": "LlamaTokenizer"}, "llama"),
        ("tokenizer.model", "bpe", {"tokenizer_class": "LlamaTokenizer"}, "mistral"),
        ("tokenizer.model", "bpe", {}, "llama"),
        ("spiece.model", "unigram", {"tokenizer_class": "T5Tokenizer"}, "t5"),
        ("sentencepiece.bpe.model", "unigram", {}, "xlm-roberta"),
        ("spm.model", "unigram", {"tokenizer_class": "DebertaV2Tokenizer"}, "deberta-v2"),
    ],
)
def test_a_sentencepiece_model_gives_the_pieces_of_sentencepiece(
    tmp_path, name, kind, settings, model
):
    """Of a Mistral without tokenizer.json transformers lost the space before the first word."""
    pytest.importorskip("transformers")
    own = sentencepiece_model(tmp_path, name, kind)
    if settings:
        write(tmp_path, "tokenizer_config.json", **settings)
    write(tmp_path, "config.json", model_type=model, vocab_size=300)
    tokenizer = open_tokenizer(tmp_path, 300)
    for text in ("the cat sat on a mat", "a dog ran home"):
        found = tokenizer.encode(text, add_special_tokens=False)
        assert found.tokens == own.encode(text, out_type=str)
        assert tokenizer.decode(found.ids).strip() == text


def test_pieces_that_are_not_those_of_sentencepiece_are_refused(tmp_path):
    pytest.importorskip("transformers")
    sentencepiece_model(tmp_path, "tokenizer.model", "bpe")
    write(tmp_path, "tokenizer_config.json", tokenizer_class="GemmaTokenizer")
    write(tmp_path, "config.json", model_type="gemma", vocab_size=300)
    with pytest.raises(ModelError, match=r"tokenizer\.model apart in another way than sentence"):
        open_tokenizer(tmp_path, 300)


WRONG = [None, 3, [], {}, "", "x", True, [1], {"content": 3}, {"content": None}, "\ud800", 1e999]


@pytest.mark.parametrize("case", ["bert", "mpnet", "roberta", "opt"])
def test_every_damage_of_the_files_is_a_sentence_or_a_tokenizer(tmp_path, case):
    folder = made(tmp_path, case)
    names = [name for name in ("vocab.txt", "vocab.json", "merges.txt") if (folder / name).exists()]
    keys = ("do_lower_case", "cls_token", "sep_token", "unk_token", "mask_token", "bos_token")
    keys += ("add_bos_token", "add_prefix_space", "tokenizer_class", "added_tokens_decoder")
    damages = [("tokenizer_config.json", json.dumps({k: w}).encode()) for k in keys for w in WRONG]
    damages += [("added_tokens.json", json.dumps({"<x>": w}).encode()) for w in WRONG]
    damages += [("config.json", json.dumps({"model_type": w}).encode()) for w in WRONG]
    for name in (*names, "config.json", "tokenizer_config.json"):
        whole = (folder / name).read_bytes() if (folder / name).exists() else b"{}"
        cuts = [len(whole) * n // 12 for n in range(12)]
        damages += [(name, whole[:cut]) for cut in cuts]
        damages += [(name, whole[:cut] + b"\xff\0\n" + whole[cut:]) for cut in cuts]
        damages.append((name, b"[" * 100_000))
    read = 0
    for name, content in damages:
        before = (folder / name).read_bytes() if (folder / name).exists() else None
        (folder / name).write_bytes(content)
        try:
            open_tokenizer(folder, 10_000).encode("a film", "two")
            read += 1
        except ModelError as error:
            assert "\n" not in str(error), (name, content[:50])
        if before is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(before)
    assert 0 < read < len(damages)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"merges": ["a b", "b a"]}, "merges 'b a' to what is no token"),
        ({"merges": [["a", "b"], ["b", "a"]]}, "merges 'b a' to what is no token"),
        ({"continuing_subword_prefix": "##"}, "merges 'a b' to what is no token"),
        # tokenizers ends the whole process at this one
        (
            {"vocab": {"a": 0, "é": 1, "aé": 2}, "merges": ["a é"]}
            | {"continuing_subword_prefix": "#"},
            "merges 'a é' to what is no token",
        ),
    ],
)
def test_merges_at_which_the_library_would_panic_are_one_sentence(tmp_path, capfd, model, sentence):
    whole = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"], **model}
    write(tmp_path, "tokenizer.json", version="1.0", added_tokens=[], model=whole)
    with pytest.raises(ModelError, match=sentence):
        open_tokenizer(tmp_path, 10)
    assert capfd.readouterr().err == ""


def test_merges_of_a_file_at_which_the_library_would_panic_are_one_sentence(tmp_path, capfd):
    pieces(tmp_path)
    write(tmp_path, "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    merges = tmp_path / "merges.txt"
    merges.write_text(merges.read_text("utf-8") + "zq zq\n", encoding="utf-8")
    with pytest.raises(ModelError, match="merges 'zq zq' to what is no token"):
        open_tokenizer(tmp_path, 10_000)
    assert capfd.readouterr().err == ""


def test_a_line_of_merges_ends_where_the_library_ends_it(tmp_path):
    pieces(tmp_path)
    write(tmp_path, "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    known = json.loads((tmp_path / "vocab.json").read_text("utf-8"))
    joined = {token: len(known) + n for n, token in enumerate(("\u2028", "a\u2028"))}
    write(tmp_path, "vocab.json", **known, **joined)
    merges = (tmp_path / "merges.txt").read_text("utf-8") + "a \u2028\n"
    (tmp_path / "merges.txt").write_bytes(merges.replace("\n", "\r\n").encode())
    assert open_tokenizer(tmp_path, 10_000).token_to_id("a\u2028") is not None
