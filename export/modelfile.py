"""An Ollama `Modelfile`: which model, which adapter, how messages become text, where to stop."""

from edge_train.formats.language_folder import LanguageFolder


def modelfile(base: LanguageFolder, *, model: str, adapter: str | None) -> tuple[str, str]:
    """Return the text of a Modelfile, and a line about what it does not say; empty if nothing."""
    lines = [f"FROM {model}"]
    if adapter is not None:
        lines.append(f"ADAPTER {adapter}")
    return "\n".join(lines) + "\n", ""
