"""A block schedule: blocks take turns."""

from edge_train.methods.choosing import Schedule


class Turns:
    forgets = False

    def trains(self, step, name):
        return name.split(".")[0] == str(step % 2)


TURNS = Schedule(
    name="turns",
    says="first block in even steps, second in odd ones",
    build=lambda recipe, blocks, measured: Turns(),
)
