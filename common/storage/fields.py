"""What the JSON beside a network may say: each field has its type and its bounds."""
import math

LARGEST_SIZE = 2**14  # of an image, in pixels or channels


def check(path, found, what, *needed):
    """Raises ValueError unless what a JSON file holds is fit for use.

    Args:
        path: of the file.
        found: what it holds.
        what: it should be.
        *needed: fields that it must have; all others may be missing.
    """
    if not isinstance(found, dict):
        raise ValueError(f"{path}: not {what}")
    for name, is_fit in FIELDS.items():
        if name in needed and name not in found or name in found and not is_fit(found[name]):
            raise ValueError(f"{path}: not {what}: its {name} is missing or of the wrong kind")


def is_image_shape(value):
    """Whether a value from JSON is a (C, H, W)."""
    return (isinstance(value, list) and len(value) == 3
            and all(type(size) is int and 0 < size <= LARGEST_SIZE for size in value))


def _is_number(value):
    return type(value) in (int, float)


def _is_share(value):
    return _is_number(value) and 0 <= value <= 1


def _is_duration(value):
    return _is_number(value) and 0 <= value < math.inf


def _is_count(value):
    return type(value) is int and 0 <= value < 2**31


def _is_text(value):
    return isinstance(value, str)


def _is_object(value):
    return isinstance(value, dict)


def _is_history(value):
    return isinstance(value, list) and all(map(_is_figures, value))


def _is_figures(value):
    if not _is_object(value):
        return False
    parts = [part for part in ("test", "validation") if f"{part}_accuracy" in value]
    return bool(parts) and all(_is_share(value[f"{part}_accuracy"])
                               and _is_number(value.get(f"{part}_loss", 0)) for part in parts)


def _is_flags(value):
    return (_is_object(value)
            and all(isinstance(value.get(name), (str, type(None)))
                    for name in ("network", "transform", "dataset", "data_origin", "distort"))
            and ("image_shape" not in value or value["image_shape"] is None
                 or is_image_shape(value["image_shape"]))
            and _is_names(value.get("classes", []))
            and _is_names(value.get("data_classes") or [])
            and isinstance(value.get("labels", ""), str))


def _is_names(value):
    return isinstance(value, list) and all(map(_is_text, value))


def _is_recipe(value):
    return (_is_object(value) and _is_names(value.get("classes", []))
            and all(_is_count(value.get(name, 1)) for name in ("threads", "num_workers")))


def _is_under_way(value):
    return value is None or (
        _is_object(value)
        and all(_is_count(value.get(name)) for name in ("epoch", "batch", "num_batches"))
        and value["batch"] <= value["num_batches"]
        and isinstance(value.get("others", []), list)
        and all(map(_is_tally, [value.get("tally"), *value.get("others", [])])))


def _is_start(value):
    return (_is_object(value) and set(value) == {"model", "sha256", "taken", "anew"}
            and _is_text(value["model"]) and _is_text(value["sha256"])
            and _is_names(value["taken"]) and _is_names(value["anew"]))


def _is_tally(value):
    return (_is_object(value) and set(value) == {"count", "correct", "total_loss"}
            and _is_count(value["count"]) and _is_count(value["correct"])
            and value["correct"] <= value["count"]
            and _is_number(value["total_loss"]) and math.isfinite(value["total_loss"]))


FIELDS = {  # name -> whether a value is fit for it
    "command": _is_text,
    "epochs": _is_count,
    "flags": _is_flags,
    "history": _is_history,
    "image_shape": is_image_shape,
    "parameters": _is_count,
    "params_sha256": _is_text,
    "recipe": _is_recipe,
    "seconds": _is_duration,
    "started_from": _is_start,
    "test_accuracy": _is_share,
    "under_way": _is_under_way,
    "updates": _is_count,
    "validation_accuracy": _is_share,
    "versions": _is_object,
}
