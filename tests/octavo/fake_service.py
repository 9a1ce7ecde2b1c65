"""Starts, talks and ends as a process of the cluster does; run with a list of actions.

    fake_service.py ACTION... --ready-fd N

stage:TEXT ready fail:TEXT   report on the ready pipe
say:TEXT                     write a line to standard error
note:PATH:TEXT               append a line to a file
crash-until:PATH:N           end with status 3 while the file has fewer than N lines
await:FIFO                   read a line that somebody notes there
spawn                        start a process that sleeps, and say its number
exit:STATUS                  end
drain:PATH:NAME              wait for SIGTERM, note "NAME asked", write 1 MB, note "NAME ended", end
stay                         say "asked to end" at every SIGTERM, and stay
"""

import json
import os
import signal
import subprocess
import sys


def main(actions: list[str], ready_fd: int) -> None:
    for action in actions:
        kind, _, argument = action.partition(":")
        match kind:
            case "stage":
                report(ready_fd, {"stage": argument, "seconds": 0.5})
            case "ready":
                report(ready_fd, {"ready": ""})
            case "fail":
                report(ready_fd, {"failed": argument})
            case "say":
                say(argument)
            case "note":
                note(*argument.split(":"))
            case "crash-until":
                path, count = argument.split(":")
                with open(path) as file:
                    if len(file.readlines()) < int(count):
                        sys.exit(3)
            case "await":
                with open(argument) as file:
                    file.readline()
            case "spawn":
                command = [sys.executable, "-S", "-c", "import signal; signal.pause()"]
                say(str(subprocess.Popen(command).pid))
            case "exit":
                sys.exit(int(argument))
            case "drain":
                path, name = argument.split(":")
                signal.sigwait([signal.SIGTERM])
                note(path, f"{name} asked")
                sys.stderr.write(("x" * 1023 + "\n") * 1024)
                note(path, f"{name} ended")
                sys.exit(0)
            case "stay":
                while True:
                    signal.sigwait([signal.SIGTERM])
                    say("asked to end")
            case _:
                raise ValueError(action)


def report(fd: int, message: dict[str, object]) -> None:
    os.write(fd, json.dumps(message).encode() + b"\n")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def note(path: str, text: str) -> None:
    with open(path, "a") as file:
        file.write(text + "\n")


if __name__ == "__main__":
    # Blocked, so that a signal waits for sigwait.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    *wanted, flag, fd = sys.argv[1:]
    assert flag == "--ready-fd"
    main(wanted, int(fd))
