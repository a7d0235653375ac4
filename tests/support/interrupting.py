"""The `edge-train` command, interrupted at a call: `interrupting.py PLACE CALL SIGNAL run ...`.

PLACE is `command` (the process that was started), `worker` (the training process behind the wall)
or `fresh` (that process after its rehearsal). When the main thread of PLACE makes this call, the
command is sent SIGNAL, so no clock decides where it is hit. CALL is the name of a function, whose
first call it is, or the number of a call of any. With 0 nothing is sent, and how many calls there
were is written to the file that the environment names as CALLS.
"""

import os
import signal
import sys

from edge_train.process import interrupts


class Calls:
    """Counts the calls of functions in this thread; at one of them it sends a signal."""

    def __init__(self, at, number, command):
        self.made, self.number, self.command, self.own = 0, number, command, os.getpid()
        self.at, self.name = (int(at), "") if at.isdigit() else (0, at)

    def __call__(self, frame, event, argument):
        if os.getpid() != self.own:
            sys.setprofile(None)  # in a child that it forked
        elif event in ("call", "c_call"):
            self.made += 1
            named = event == "call" and frame.f_code.co_name == self.name
            if self.made == self.at or named:
                sys.setprofile(None)
                self.send()

    def send(self):
        """Have the command interrupted; in its worker, go on only when that is told."""
        if self.command == os.getpid():
            os.kill(self.command, self.number)
            return
        told, telling = os.pipe()
        os.set_blocking(telling, False)
        signal.set_wakeup_fd(telling)
        os.kill(self.command, self.number)
        os.read(told, 1)
        signal.set_wakeup_fd(-1)

    def note(self):
        """Write how many calls there were."""
        sys.setprofile(None)
        with open(os.environ["CALLS"], "w") as file:
            file.write(str(self.made))


def counted(place, here, at, number, command, run):
    """Run a function whose calls count, if this process is the place where they do."""
    if place != here:
        return run()
    calls = Calls(at, int(number), command)
    sys.setprofile(calls)
    try:
        return run()
    finally:
        if at == "0":
            calls.note()


def main():
    place, at, number, *rest = sys.argv[1:]
    if rest[0].startswith("{"):  # what a supervisor says to its worker
        here = "fresh" if os.environ.get("WORKERS") else "worker"
        os.environ["WORKERS"] = "1"

        def run():
            from edge_train import worker

            again = worker._again
            if place == here and at == "0":  # no `finally` of ours runs when it becomes another

                def noting(*arguments):
                    sys.getprofile().note()
                    again(*arguments)

                worker._again = noting
            return worker.main(rest[0], rest[1:])

        return counted(place, here, at, number, os.getppid(), run)

    def run():
        from edge_train.memory import supervisor

        supervisor._WORKER = (__file__, place, at, number)
        sys.argv[1:] = rest
        from edge_train.__main__ import main

        return main()

    interrupts.listen()
    return counted(place, "command", at, number, os.getpid(), run)


if __name__ == "__main__":
    sys.exit(main())
