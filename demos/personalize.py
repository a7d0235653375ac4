"""Learn a word from photos that are in memory, under a cap; draw with it."""

import edge_train as et


def photos():
    """Return the five photos that every installation has, as a camera would hand them over."""
    from pathlib import Path

    from PIL import Image

    folder = Path(et.__file__).parent / "data" / "photos" / "bag"
    return [Image.open(path) for path in sorted(folder.glob("*.png"))]


def main(steps=100, mem="8GB", out=None):
    recipe = et.PersonalizeRecipe(token="<my-bag>", class_word="bag", steps=steps, out=out)
    run = et.run(recipe, mem=mem, data=photos())
    for event in run.events():  # the events of `edge-train run --json`
        if event["event"] == "step" and event["eval"] is not None:
            print(f"step {event['step'] + 1}: evaluation {event['eval']:.4f}")
    report = run.report
    print(f"{report['status']}, held {report['measured_peak_bytes'] / 1e6:.0f} MB of {mem}")
    print(run.outputs["token"])
    return et.generate(run.folder, ["a photo of {}"], count=2, steps=5)


if __name__ == "__main__":
    print(*main(), sep="\n")
