"""What adding up gradients over several workers costs, beside the steps of the networks.

    python launch.py -n 2 -- python -m experiments.communication

For each network it prints its parameters, the bytes that a worker sends and gets in a step, and
three times: of a step without any other worker (forward, backward and the optimizer, on one CPU
device); of adding up its gradients alone; and of a step of all workers, which overlaps the two
where it can. Each is the median of some rounds, in all of which all workers take part.
"""
import statistics
import time

from common import cli, find_mxnet, markdown  # noqa: F401

# isort: split
import mxnet as mx

import symbols
from common.data import synthetic
from common.data.batches import ImageIter
from common.training import fit, workers
from common.training.recipe import Recipe

ROUNDS = 3
STEPS = 10  # in a round


def seconds_per_call(function, group):
    """The median over the rounds, in seconds; all workers begin each round together."""
    rounds = []
    for _ in range(ROUNDS + 1):
        group.gather([1])
        begin = time.monotonic()
        for _ in range(STEPS):
            function()
        mx.nd.waitall()
        rounds.append((time.monotonic() - begin) / STEPS)
    return statistics.median(rounds[1:])  # the first one warms up


def stepper(symbol, batch_size, group):
    """A function that makes one step of a network, and the number of its parameters."""
    train = ImageIter(*synthetic.draw(batch_size, seed=0), batch_size, seed=0)
    recipe = Recipe(batch_size=batch_size, num_workers=group.count)
    module, _ = fit.start(symbol, train, recipe, workers=group)
    batch = next(train)

    def step():
        module.forward_backward(batch)
        module.update()
    return step, sum(value.size for value in module.get_params()[0].values())


def main():
    parser = cli.Parser(prog="experiments.communication", description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=cli.number(int, least=1), default=128,
                        help="images in a step of each worker")
    parser.add_argument("--kv-store", choices=workers.KV_STORES, default="dist_sync",
                        help="as for train_mnist.py")
    args = parser.parse_args()
    with workers.join(args.kv_store) as group:
        if group.first:
            print(markdown.heading(["network", "parameters", "KB each way", "step alone, ms",
                                    "adding up, ms", f"step of {group.count}, ms"]), flush=True)
        for network in ("lenet", "cnn", "mlp"):
            symbol = symbols.get_symbol(network, add_stn=True)
            alone = seconds_per_call(stepper(symbol, args.batch_size, workers.Alone())[0], group)
            step, parameters = stepper(symbol, args.batch_size, group)
            gradient = mx.nd.ones(parameters)
            adding = seconds_per_call(lambda key=network, gradient=gradient:
                                      group.add_up(key, gradient), group)
            together = seconds_per_call(step, group)
            if group.first:
                size = 4e-3 * parameters * group.rows
                times = (f"{1e3 * seconds:.1f}" for seconds in (alone, adding, together))
                print(markdown.row([network, f"{parameters:,}", f"{size:,.0f}", *times]),
                      flush=True)


if __name__ == "__main__":
    cli.run(main)
