"""One picture of a run, for people: photos, then what was drawn before and after training.

python demos/before_after.py runs/my-item docs/demo.png
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

PIXELS, GAP, LABELS = 128, 8, 112  # of a picture, between two, and beside a row
ROWS = (("photo", "your photos"), ("before", "before"), ("after", "after"))


def main(run: Path, out: Path) -> None:
    """Write the picture of a run that is finished."""
    files = {kind: sorted(run.glob(f"samples/{kind}-*.png"))[:5] for kind, _ in ROWS}
    columns = max(map(len, files.values()))
    if not columns:
        sys.exit(f"{run} has no samples/*.png; name the folder of a finished run.")
    size = (LABELS + columns * (PIXELS + GAP), len(ROWS) * (PIXELS + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for row, (kind, label) in enumerate(ROWS):
        y = row * (PIXELS + GAP)
        draw.text((0, y + PIXELS // 2), label, fill="black", font=font, anchor="lm")
        for column, file in enumerate(files[kind]):
            picture = Image.open(file).convert("RGB").resize((PIXELS, PIXELS), Image.Resampling.BOX)
            sheet.paste(picture, (LABELS + column * (PIXELS + GAP), y))
    sheet.save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
