"""A causal language model of transformers in two halves: hidden states, and logits made of them.

Every kind computes `forward` as its body, then its head, then what its authors wanted beside: a
soft cap, a scale. To compute logits of some positions alone, the same `forward` runs with the body
replaced by one that knows the answer.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_train.runtimes.torch.card import HOST
from edge_train.runtimes.torch.documents import positions_in
from edge_train.runtimes.torch.stored_matrices import StoredMatrix

_PROBE = (-50.0, -1.0, 0.0, 0.3, 40.0)  # logits that no cap or scale leaves as they are


class Head(Protocol):
    """The layer that makes a number for every word, of any engine.

    Attributes:
      answer: what its forward pass returns instead, where it is not None.
    """

    bias: nn.Parameter | None
    answer: Tensor | None

    @property
    def inputs(self) -> int:
        """Numbers of a token's hidden state."""
        ...

    @property
    def outputs(self) -> int:
        """How many words there are."""
        ...

    @property
    def words(self) -> StoredMatrix | None:
        """A row for each word, where these may be gone through one after the other."""
        ...

    def forward_product(self, values: Tensor) -> Tensor:
        """Return the outputs without the bias, (tokens, outputs)."""
        ...

    def backward_product(self, errors: Tensor) -> Tensor:
        """Return the errors at the inputs for those at the outputs."""
        ...


class Halves:
    """The body of a network, and what turns the outputs of its head into logits.

    Attributes:
      body: computes hidden states.
      head: the layer that makes a number for every token of them.
      after: what happens to those numbers; None: nothing.
    """

    def __init__(
        self, body: nn.Module, head: Any, after: Callable[[Tensor], Tensor] | None
    ) -> None:
        self.body, self.head, self.after = body, head, after


def halves_of(network: Any, kind: type[Head], device: torch.device = HOST) -> Halves | None:
    """Return the halves of a network, None where it has none that can be told apart.

    Args:
      kind: of layer that the head must be.
      device: where the network computes.
    """
    # Llama 4's text model is called by the name that it has in a larger one, and stands in `model`
    names = [one for one in (network.base_model_prefix, "model") if one and hasattr(network, one)]
    name = names[0] if names else ""
    body, head = getattr(network, name, None), network.get_output_embeddings()
    if not isinstance(body, nn.Module) or not isinstance(head, kind):
        return None
    width = head.inputs

    def after(numbers: Tensor) -> Tensor:
        answer = _Known(torch.zeros(1, len(numbers), width, device=numbers.device), body)
        head.answer = numbers.unsqueeze(0)
        setattr(network, name, answer)
        try:
            ids = torch.zeros(1, len(numbers), dtype=torch.long, device=numbers.device)
            found: Tensor = network(input_ids=ids).logits
        finally:
            setattr(network, name, body)
            head.answer = None
        return found.squeeze(0)

    probe = torch.tensor([_PROBE]).to(device)
    try:
        with torch.no_grad():
            changed = after(probe)
            alone = after(probe[:, 2:3])
    except Exception:  # noqa: BLE001 - code of any kind, asked what it was not made for
        return None
    if changed.shape != probe.shape or not torch.equal(alone, changed[:, 2:3]):
        return None  # words are left out, or mixed
    return Halves(body, head, None if torch.equal(changed, probe) else after)


def hidden_states(
    network: Any, halves: Halves | None, ids: Tensor, document: NDArray[Any] | None
) -> Tensor:
    """Return hidden states (sequences, length, width), or logits of a network without halves.

    Args:
      document: of every token, as `positions_in` takes it.
    """
    found = positions_in(document, network.config.model_type)
    positions = {name: values.to(ids.device) for name, values in found.items()}
    if halves is None:
        logits: Tensor = network(input_ids=ids, use_cache=False, **positions).logits
        return logits
    output: Any = halves.body(input_ids=ids, use_cache=False, **positions)
    hidden: Tensor = output[0]
    return hidden


class _Known(nn.Module):
    """Stands for the body of a network, whatever it is asked, and for each module of it.

    OPT calls the decoder of its body, not that itself. Falcon-H1 reads a scale of logits there.
    """

    def __init__(self, hidden: Tensor, body: nn.Module) -> None:
        super().__init__()
        self._hidden = hidden
        self.__dict__["_body"] = body  # not a module of this one

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.__dict__["_body"], name)
        return self if isinstance(found, nn.Module) else found

    def forward(self, *_: Any, **__: Any) -> Any:
        """Return the hidden states."""
        return _answer_type()(last_hidden_state=self._hidden)


@cache
def _answer_type() -> Any:
    from transformers.modeling_outputs import BaseModelOutputWithPast

    class Answer(BaseModelOutputWithPast):  # type: ignore[misc]
        """Has what a network reads of its body beside hidden states, too: nothing."""

        def __getattr__(self, name: str) -> None:
            if name.startswith("__"):
                raise AttributeError(name)

    return Answer
