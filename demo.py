"""Opens a page to draw digits on, and shows what networks with and without a transformer see.

    python demo.py                                    # two of the published models
    python demo.py models/mnist-R-cnn-stn models/mnist-R-cnn

The page lets each of these and of the published models be chosen.
"""
import logging
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH leaves it out

from common import find_mxnet  # noqa: F401  first, so that MXNet can be imported

# isort: split
from common import cli
from common.models import trained
from common.page import panels, server

PAIR = ("mnist-RTS-mlp-stn-stable", "mnist-RTS-mlp")  # as many parameters, trained on the same


def parse_flags():
    parser = cli.Parser(prog="demo.py", description=__doc__.splitlines()[0])
    flag = parser.add_argument
    flag("models", nargs="*", metavar="model",
         help="folders of exports, or prefixes of checkpoints; the page begins with the first two")
    flag("--host", default="127.0.0.1", help="address to listen at")
    flag("--port", type=cli.number(int, least=0, most=65535), default=8000,
         help="port to listen at; 0 is any that is free")
    return parser.parse_args()


def choice(models):
    """The paths of some models and of the published ones behind them, each once."""
    names = [*PAIR, *(name for name in trained.published() if name not in PAIR)]
    paths = {}
    for path in [*models, *(os.path.join(trained.PUBLISHED, name) for name in names)]:
        paths.setdefault(os.path.realpath(path), path)
    return list(paths.values())


def of_one_kind(networks, asked):
    """Those panels that have the classes of the first; ValueError if one that was asked has not."""
    first = networks[0]
    for other in networks:
        if other.path in asked and other.classes != first.classes:
            raise ValueError(f"{other.path}: its classes are not those of {first.path}, beside "
                             "which it would be shown: show each by itself")
    return [network for network in networks if network.classes == first.classes]


def name_apart(networks):
    """Names panels that would have the same name by their paths."""
    names = [network.name for network in networks]
    for network in networks:
        if names.count(network.name) > 1:
            network.name = network.path


def main():
    args = parse_flags()
    logging.basicConfig(format="%(message)s")
    networks = of_one_kind([panels.Panel(path) for path in choice(args.models)], args.models)
    name_apart(networks)
    with server.Server(args.host, args.port, networks) as page:
        if not page.is_private:
            logging.warning("--host %s: anybody in the network can use the page", args.host)
        print(f"Open {page.url} (Ctrl-C ends it)", flush=True)
        page.serve_forever()


if __name__ == "__main__":
    cli.run(main)
