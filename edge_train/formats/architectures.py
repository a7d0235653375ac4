"""The architectures that are checked, one by one, against transformers; and those refused by name.

Of each there is a tiny random model in the tests (`tests/test_architectures.py`): its loss before
the first step is that of transformers, and the folder that a run saves loads there with the metric
of the report. Others that transformers knows are taken, too; nobody has compared them.
"""

from collections.abc import Mapping

# What `model_type` in config.json says -> what people call it. Task classify takes all of both.
ENCODERS: Mapping[str, str] = {
    "albert": "ALBERT",
    "bart": "BART (as a classifier)",
    "bert": "BERT, MiniLM, BGE, E5, GTE",
    "big_bird": "BigBird",
    "camembert": "CamemBERT",
    "convbert": "ConvBERT",
    "deberta": "DeBERTa",
    "deberta-v2": "DeBERTa v2 and v3",
    "distilbert": "DistilBERT",
    "electra": "ELECTRA",
    "ernie": "ERNIE",
    "flaubert": "FlauBERT",
    "fnet": "FNet",
    "funnel": "Funnel Transformer",
    "layoutlm": "LayoutLM (its texts)",
    "longformer": "Longformer",
    "mobilebert": "MobileBERT",
    "modernbert": "ModernBERT",
    "mpnet": "MPNet, all-mpnet",
    "rembert": "RemBERT",
    "roberta": "RoBERTa, DistilRoBERTa, CodeBERT",
    "roformer": "RoFormer",
    "squeezebert": "SqueezeBERT",
    "t5": "T5, Flan-T5 (as a classifier)",
    "xlm": "XLM",
    "xlm-roberta": "XLM-RoBERTa, multilingual E5, BGE-M3",
    "xlnet": "XLNet",
}
LANGUAGE_MODELS: Mapping[str, str] = {
    "bloom": "BLOOM (ALiBi)",
    "codegen": "CodeGen",
    "cohere": "Command R",
    "falcon": "Falcon",
    "gemma": "Gemma, CodeGemma (scaled embedding)",
    "gemma2": "Gemma 2 (soft caps, sliding window)",
    "gemma3_text": "Gemma 3, texts alone",
    "glm": "GLM-4",
    "gpt2": "GPT-2, DistilGPT-2",
    "gpt_bigcode": "SantaCoder, StarCoder",
    "gpt_neo": "GPT-Neo, TinyStories",
    "gpt_neox": "GPT-NeoX, Pythia (partial rotary)",
    "gptj": "GPT-J",
    "granite": "Granite",
    "llama": "Llama 1 to 3, TinyLlama, SmolLM, SmolLM2, Yi",
    "mamba": "Mamba",
    "mistral": "Mistral, Zephyr (sliding window)",
    "mixtral": "Mixtral (experts)",
    "mpt": "MPT (ALiBi)",
    "olmo": "OLMo",
    "olmo2": "OLMo 2",
    "opt": "OPT (offset positions)",
    "phi": "Phi-1, Phi-2",
    "phi3": "Phi-3, Phi-4-mini",
    "qwen2": "Qwen 1.5 to 2.5",
    "qwen2_moe": "Qwen 1.5 and 2 MoE",
    "qwen3": "Qwen 3",
    "qwen3_moe": "Qwen 3 MoE",
    "smollm3": "SmolLM3",
    "stablelm": "StableLM",
    "starcoder2": "StarCoder2",
    "xglm": "XGLM",
}
# What cannot be trained here, and why.
REFUSED: Mapping[str, str] = {
    "canine": "reads letters, which no tokenizer.json gives",
    "nystromformer": "takes texts of one length alone, its segment_means_seq_len",
    "perceiver": "reads bytes, which no tokenizer.json gives",
    "reformer": "takes texts of one length alone, that of its axial positions",
}
