"""The Llama family as its equations stand, in float64, one token and one head after the other.

Written apart from the engine: no batch, no grouping, no pieces, masks and tables spelled out.
"""

from typing import Any

import numpy as np


def losses(
    config: dict[str, Any],
    tensors: dict[str, np.ndarray],
    blocks: dict[str, np.ndarray],
    scale: float,
    batch: dict[str, np.ndarray],
    lengths: dict[str, np.ndarray] | None = None,
) -> np.ndarray:
    """Return the loss of every sequence of a batch with adapters beside the linear layers.

    Args:
      lengths: of the rows of adapted layers, for DoRA; those that are missing are added.
    """
    lengths = {} if lengths is None else lengths
    found = []
    for row, ids in enumerate(batch["ids"]):
        length = len(ids) - 1
        weight = batch["weight"][row] if "weight" in batch else np.full(length, 1 / length)
        documents = batch["document"][row] if "document" in batch else np.zeros(length, int)
        logits = _Network(config, tensors, blocks, scale, documents, lengths).logits(ids[:-1])
        most = logits.max(1, keepdims=True)
        logs = logits - most - np.log(np.exp(logits - most).sum(1, keepdims=True))
        share = batch["smoothing"][row] if "smoothing" in batch else 0.0
        each = -(1 - share) * logs[np.arange(length), ids[1:]] - share * logs.mean(1)
        found.append((weight * each).sum())
    return np.array(found)


class _Network:
    def __init__(self, config, tensors, blocks, scale, documents, lengths):
        self.lengths = lengths
        self.config, self.tensors, self.blocks, self.scale = config, tensors, blocks, scale
        self.documents = documents
        begins = [n for n, d in enumerate(documents) if n == 0 or documents[n - 1] != d]
        self.positions = [n - max(b for b in begins if b <= n) for n in range(len(documents))]
        self.gemma = config["model_type"].startswith("gemma")

    def norm(self, name, x):
        weight = self.tensors[f"{name}.weight"].astype(np.float64) + self.gemma
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + self.config["rms_norm_eps"]) * weight

    def linear(self, path, x):
        weight = self.tensors[f"{path}.weight"].astype(np.float64)
        if f"{path}.lora_A" in self.blocks:
            change = self.scale * self.blocks[f"{path}.lora_B"] @ self.blocks[f"{path}.lora_A"]
            weight = weight + change
        if f"{path}.lora_magnitude" in self.blocks:
            # constants of the gradient, so they stay where a difference moves the other blocks
            lengths = self.lengths.setdefault(path, np.sqrt((weight**2).sum(1)))
            weight = weight * (self.blocks[f"{path}.lora_magnitude"] / lengths)[:, None]
        y = x @ weight.T
        return y + self.tensors[f"{path}.bias"] if f"{path}.bias" in self.tensors else y

    def turned(self, head):
        """Turn one head (tokens, length)."""
        half = head.shape[1] // 2
        out = np.empty_like(head)
        for token, position in enumerate(self.positions):
            for pair in range(half):
                angle = position * self.config["rope_theta"] ** (-pair / half)
                a, b = head[token, pair], head[token, half + pair]
                out[token, pair] = a * np.cos(angle) - b * np.sin(angle)
                out[token, half + pair] = b * np.cos(angle) + a * np.sin(angle)
        return out

    def attention(self, layer, x):
        config, path = self.config, f"model.layers.{layer}.self_attn"
        heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
        size = config["head_dim"]
        if config["model_type"] == "phi3":
            wide = self.linear(f"{path}.qkv_proj", x)
            queries, keys, values = np.split(wide, [heads * size, (heads + groups) * size], axis=1)
        else:
            queries, keys, values = (self.linear(f"{path}.{n}_proj", x) for n in "qkv")
        window = config["sliding_window"] if self.windowed(layer) else len(x)
        scale = config.get("query_pre_attn_scalar", size) ** -0.5
        cap = config.get("attn_logit_softcapping")
        out = []
        for head in range(heads):
            group = head // (heads // groups)
            q = queries[:, head * size : (head + 1) * size]
            k = keys[:, group * size : (group + 1) * size]
            v = values[:, group * size : (group + 1) * size]
            if f"{path}.q_norm.weight" in self.tensors:
                q, k = self.norm(f"{path}.q_norm", q), self.norm(f"{path}.k_norm", k)
            q, k = self.turned(q), self.turned(k)
            found = np.empty_like(v)
            for token in range(len(x)):
                seen = [
                    other
                    for other in range(token + 1)
                    if self.documents[other] == self.documents[token] and token - other < window
                ]
                scores = k[seen] @ q[token] * scale
                if cap:
                    scores = cap * np.tanh(scores / cap)
                shares = np.exp(scores - scores.max())
                found[token] = shares @ v[seen] / shares.sum()
            out.append(found)
        return self.linear(f"{path}.o_proj", np.concatenate(out, 1))

    def windowed(self, layer):
        kind = self.config["model_type"]
        return kind in ("mistral", "phi3") or (kind == "gemma2" and layer % 2 == 0)

    def products(self, layer, x):
        path = f"model.layers.{layer}.mlp"
        if self.config["model_type"] == "phi3":
            gate, up = np.split(self.linear(f"{path}.gate_up_proj", x), 2, axis=1)
        else:
            gate, up = self.linear(f"{path}.gate_proj", x), self.linear(f"{path}.up_proj", x)
        if self.gemma:
            bent = np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3))
            act = gate * (1 + bent) / 2
        else:
            act = gate / (1 + np.exp(-gate))
        return self.linear(f"{path}.down_proj", act * up)

    def logits(self, ids):
        config = self.config
        x = self.tensors["model.embed_tokens.weight"][ids].astype(np.float64)
        if self.gemma:
            x = x * config["hidden_size"] ** 0.5
        four = config["model_type"] == "gemma2"
        for layer in range(config["num_hidden_layers"]):
            path = f"model.layers.{layer}"
            added = self.attention(layer, self.norm(f"{path}.input_layernorm", x))
            x = x + (self.norm(f"{path}.post_attention_layernorm", added) if four else added)
            between = "pre_feedforward_layernorm" if four else "post_attention_layernorm"
            added = self.products(layer, self.norm(f"{path}.{between}", x))
            x = x + (self.norm(f"{path}.post_feedforward_layernorm", added) if four else added)
        tied = config["tie_word_embeddings"]
        head = self.tensors["model.embed_tokens.weight" if tied else "lm_head.weight"]
        logits = self.norm("model.norm", x) @ head.astype(np.float64).T
        cap = config.get("final_logit_softcapping")
        return cap * np.tanh(logits / cap) if cap else logits
