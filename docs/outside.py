"""A hook of mkdocs: links that leave docs/ lead to the code host, or are plain words without one.

On a code host the same links lead to the files themselves.
"""

import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Return the text of a page with its links to files outside docs/ replaced."""
    docs = Path(config["docs_dir"]).resolve()
    here = (docs / page.file.src_uri).parent

    def replaced(link: "re.Match[str]") -> str:
        text, target, _ = link.groups()
        path = (here / target).resolve()
        if path.is_relative_to(docs) and path.is_file():
            return link[0]
        name = path.relative_to(docs.parent).as_posix()
        if config.get("repo_url"):
            return f"[{text}]({config['repo_url'].rstrip('/')}/blob/main/{name})"
        shown = text.strip("`")
        return f"`{name}`" if shown in name else f"{text} (`{name}`)"

    return _LINK.sub(replaced, markdown)
