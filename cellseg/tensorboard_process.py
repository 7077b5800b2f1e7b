"""TensorBoard's process: serves a folder of logs until its stdin ends, as it does when the program that began it ends.

It is started by `cellseg.tensorboard_server`, which says what it prints, and imports nothing of ours.
"""

import os
import sys

# TensorBoard keeps 10 pictures a tag by default; a training here has some dozens.
SAMPLES = "images=100,pr_curves=200"
RELOAD_S = 5


def main() -> None:
    """Serve the folder of the first argument at the port of the second, 0 = any free one, on this machine alone.

    Prints the address, or ends with status 3 and the reason where it cannot be served.
    """
    from tensorboard import default, program

    folder, port = sys.argv[1:3]
    server = program.TensorBoard(default.get_plugins())
    options = ["--logdir", folder, "--host", "127.0.0.1", "--port", port, "--reload_interval", str(RELOAD_S)]
    server.configure(argv=["", *options, "--samples_per_plugin", SAMPLES])
    try:
        address = server.launch()
    except program.TensorBoardServerException as error:
        print(error.msg, flush=True)
        os._exit(3)
    print(address, flush=True)
    # Whatever way the other program ends, kill -9 included, the pipe does so with it.
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
