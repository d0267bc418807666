"""The gunicorn process: it patches the standard library before anything else is there, then serves."""

from gevent import monkey

monkey.patch_all()

import pickle  # noqa: E402 - the lines above come first, that is their point
import sys  # noqa: E402 - as above

from marketflow.server.application import serve  # noqa: E402 - as above

if __name__ == "__main__":
    serve(pickle.load(sys.stdin.buffer))  # noqa: S301 - written by our own parent process
