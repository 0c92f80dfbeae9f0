"""The zoo's networks: name -> module. The names are also the choices of ``--network``."""
import inspect
from collections import Counter

from . import (
    addition,
    cnn,
    lenet,
    mlp,
    resnet,
    svhn,
)

NETWORKS = {
    "addition": addition,
    "cnn": cnn,
    "lenet": lenet,
    "mlp": mlp,
    "resnet": resnet,
    "svhn": svhn,
}


def options_of(network):
    """The names of the options of a network's ``get_symbol``."""
    return list(inspect.signature(NETWORKS[network].get_symbol).parameters)


def networks_with(option):
    """The names of the networks that have an option."""
    return [network for network in NETWORKS if option in options_of(network)]


def get_symbol(network, **options):
    """Builds a network by name.

    Args:
        network: a key of ``NETWORKS``.
        **options: those of the network's own ``get_symbol``.

    Returns:
        The training symbol.

    Raises:
        ValueError: unknown network, an option that it does not have, or parameters of one name.
    """
    if network not in NETWORKS:
        raise ValueError(f"no network {network!r}: there is {', '.join(NETWORKS)}")
    known = options_of(network)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"{network} has no option {', '.join(unknown)}: "
                         f"it has {', '.join(known)}")
    symbol = NETWORKS[network].get_symbol(**options)
    twice = [name for name, count in Counter(symbol.list_arguments()).items() if count > 1]
    if twice:
        raise ValueError(f"{network} has more than one {twice[0]}: layers, and transformers with "
                         "their localisation heads, need different names")
    return symbol
