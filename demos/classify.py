"""Train a text classifier on pairs in memory: `python demos/classify.py MODEL_FOLDER`."""

import sys

import edge_train as et

PAIRS = [
    ("a film that is a joy from its first minute", "good"),
    ("the best evening in a year", "good"),
    ("warm, funny and wise", "good"),
    ("two hours that nobody gives back", "bad"),
    ("dull, loud and far too long", "bad"),
    ("the worst of a weak series", "bad"),
] * 4


def main(model, steps=50, mem="2GB", out=None):
    recipe = et.ClassifyRecipe(model=model, steps=steps, samples=4, new_head=True, out=out)
    run = et.run(recipe, mem=mem, data=PAIRS)
    try:
        run.wait()
    except et.TrainingStopped as error:  # everything before is saved
        print(error)
        run = et.resume(run.folder).wait()
    print(run.report["status"], run.report["metrics"])
    return run.outputs


if __name__ == "__main__":
    print(main(sys.argv[1]))
