"""What networks say of themselves, and the test images that follow from it."""
import pytest

import score
import train_mnist
from common.data import idx, mnist, synthetic
from common.models import card, export_folder
from common.storage import checkpoint

COMMAND = "`python train_mnist.py --resume --distort R{}`"


def write(folder, told):
    (folder / export_folder.CARD).write_text("".join(["# a model\n\n", *(
        f"- {what}: {text}\n" for what, text in told.items())]))


@pytest.mark.parametrize(("told", "known"), [
    ({}, {}),
    ({"Data": "mnist", "Seed": "7"}, {"origin": "mnist", "distort": None, "seed": 7}),
    ({"Data": "mnist, distorted by R", "Trained by": COMMAND.format("")},
     {"origin": "mnist", "distort": "R", "seed": 0}),
    ({"Data": "synthetic", "Trained by": COMMAND.format(" --num_examples 600 --seed=3")},
     {"origin": "synthetic", "distort": None, "seed": 3, "num_examples": 600}),
    ({"Data": "own files", "Seed": "-1", "Training images": "1" * 400},
     {"origin": "own files", "distort": None, "seed": 0}),
    ({"Data": "mnist", "Seed": str(2**31 - 1)},
     {"origin": "mnist", "distort": None, "seed": 2**31 - 1}),
    ({"Data": "\033[2J"}, {}),
    ({"Data": "a" * 61}, {}),
])
def test_a_card_is_read(tmp_path, told, known):
    write(tmp_path, told)
    assert card.trained_on(str(tmp_path)) == known


def test_a_folder_without_card_or_with_any_bytes_says_nothing(tmp_path):
    assert card.trained_on(str(tmp_path)) == {}
    (tmp_path / export_folder.CARD).write_bytes(bytes(range(256)))
    assert card.trained_on(str(tmp_path)) == {}


@pytest.mark.parametrize(("flags", "said"), [
    ({"dataset": "mnist", "distort": "RTS", "seed": 3, "num_examples": None},
     {"origin": "mnist", "distort": "RTS", "seed": 3}),
    ({"dataset": "mnist", "data_origin": "mnist and own files", "seed": 0, "num_examples": 50},
     {"origin": "mnist and own files", "distort": None, "seed": 0, "num_examples": 50}),
])
def test_what_is_said_of_a_checkpoint_is_what_its_card_says(tmp_path, flags, said):
    write(tmp_path, export_folder.about({"flags": flags}))
    assert card.trained_on(str(tmp_path)) == said


@pytest.fixture
def own(tmp_path):
    """A folder with someone's own files, of images of 8 x 8 pixels."""
    (tmp_path / "own").mkdir()
    for name in mnist.NAMES:
        array = synthetic.draw(40, seed=0, image_shape=(8, 8))["labels" in name]
        (tmp_path / "own" / name.replace("-idx", ".idx")).write_bytes(idx.encode(array))
    return tmp_path


def test_a_model_of_own_files_says_so(own, run_main):
    done = run_main(train_mnist, "--dataset", "fashion-mnist", "--data-dir", "own", "--num-epochs",
                    1, "--network", "mlp", "--width", 8, "--batch-size", 20, "--model-prefix", "a")
    assert done.returncode == 0, done.stderr
    assert "- Data: own files\n" in (own / "a-export" / export_folder.CARD).read_text()
    assert (own / "a-export" / export_folder.CLASSES).read_text().split() == list("0123456789")
    for model in ("a", "a-export"):
        assert run_main(score, model).returncode == 2
        done = run_main(score, model, "--data-dir", "own")
        assert "Test images: own files; the network was trained on own files\n" in done.stdout
    assert checkpoint.load_state("a", 1)[1]["flags"]["data_origin"] == "own files"


@pytest.mark.parametrize(("flags", "origin", "dataset"), [
    ((None, None), None, "mnist"),
    ((None, None), "synthetic", "synthetic"),
    (("mnist", None), "own files", "mnist"),
    ((None, "x"), None, "mnist"),
    ((None, "x"), "own files", "mnist"),
    ((None, "x"), "fashion-mnist", "fashion-mnist"),
    ((None, "x"), "synthetic", "mnist"),
])
def test_the_dataset_that_is_loaded(flags, origin, dataset):
    assert card.choose_dataset("a", *flags, origin) == dataset
