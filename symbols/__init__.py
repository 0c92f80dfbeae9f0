"""The zoo's networks: name -> module. The names are also the choices of ``--network``."""
import inspect

from . import addition, cnn, lenet, mlp

NETWORKS = {"addition": addition, "cnn": cnn, "lenet": lenet, "mlp": mlp}


def get_symbol(network, **options):
    """Builds a network by name.

    Args:
        network: a key of ``NETWORKS``.
        **options: those of the network's own ``get_symbol``.

    Returns:
        The training symbol.

    Raises:
        ValueError: unknown network, or an option that it does not have.
    """
    if network not in NETWORKS:
        raise ValueError(f"no network {network!r}: there is {', '.join(NETWORKS)}")
    build = NETWORKS[network].get_symbol
    known = inspect.signature(build).parameters
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"{network} has no option {', '.join(unknown)}: "
                         f"it has {', '.join(known)}")
    return build(**options)
