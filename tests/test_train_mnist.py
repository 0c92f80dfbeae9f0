"""The training script as a user runs it: real MNIST, and where it may matter real processes."""
import functools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import mxnet as mx
import numpy as np
import pytest
from PIL import Image

import score
import symbols
import train_mnist
import visualize_stn
from common import cli
from common.data import idx, mnist, signs, synthetic
from common.models import export_folder
from common.storage import checkpoint
from symbols import stn
from tests.conftest import ON_DEVICE, ROOT, hear_interrupts, run_script

QUICK = ["--dataset", "synthetic", "--num-examples", "300", "--num-epochs", "2"]


@pytest.fixture
def run(run_main):
    return functools.partial(run_main, train_mnist)


def test_it_trains_on_the_device(run, tmp_path):
    done = run("--add-stn", *QUICK, *ON_DEVICE, "--model-prefix", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"^Test accuracy: (.*)$", done.stdout, flags=re.M).group(1)) > 0.2


def test_flags_that_are_options_of_networks_reach_them():
    parser = cli.Parser()
    train_mnist.add_flags(parser)
    options = set().union(*map(symbols.options_of, symbols.NETWORKS))
    given = options.intersection(vars(parser.parse_args([])))
    assert given - {"add_stn", "image_shape", "num_classes"} == set(train_mnist.OF_NETWORK)


@pytest.mark.slow
def test_it_learns_mnist(train, tmp_path):
    done = train("--add-stn", "--num-examples", 12000, "--num-epochs", 2,
                 "--model-prefix", tmp_path / "a", "--result", tmp_path / "result.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "result.json").read_text())
    assert figures["test_accuracy"] > 0.9
    assert figures["parameters"] == 27360
    assert figures["epochs"] == 2
    assert set(figures) == {"test_accuracy", "test_loss", "train_accuracy", "train_loss",
                            "seconds", "epochs", "parameters", "seed", "command", "versions",
                            "processor", "threads", "history", "transformers"}
    assert len(figures["history"]) == 2
    assert figures["history"][-1]["test_loss"] == figures["test_loss"]
    for words in ("Epoch[0] Train-accuracy=", "Epoch[1] Validation-accuracy=",
                  "Epoch[1] Time cost="):
        assert words in done.stderr
    accuracy, wall_time, exported = done.stdout.splitlines()
    assert accuracy == f"Test accuracy: {figures['test_accuracy']:.4f}"
    assert wall_time.startswith("Wall time: ")

    json_path, params_path = exported.split()[1:]
    block = mx.gluon.SymbolBlock.imports(json_path, ["data"], params_path)
    _, _, images, labels = mnist.load("mnist", os.path.join(ROOT, "data", "mnist"))
    answers = [block(mx.nd.array(part[:, None] / 255)).asnumpy().argmax(axis=1)
               for part in np.split(images, 10)]
    assert (np.concatenate(answers) == labels).mean() == figures["test_accuracy"]


@pytest.mark.parametrize("network", ["cnn", "lenet", "mlp"])
def test_without_the_transformer(run, tmp_path, network):
    done = run(*QUICK, "--network", network, "--model-prefix", "a")
    assert done.returncode == 0, done.stderr
    assert "stn" not in (tmp_path / "a-symbol.json").read_text()


def test_default_names(train, tmp_path):
    done = train(*QUICK, "--add-stn", "--save-period", 5, cwd=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path / "models")) == [
        "synthetic-lenet-stn-0002.json", "synthetic-lenet-stn-0002.params",
        "synthetic-lenet-stn-0002.state",
        "synthetic-lenet-stn-export", "synthetic-lenet-stn-symbol.json"]


def test_reading_speed_and_monitor(run, tmp_path, caplog):
    caplog.set_level("INFO")
    assert "images/s read" in run(*QUICK, "--test-io", 1).stdout
    assert os.listdir(tmp_path) == []
    done = run(*QUICK, "--add-stn", "--monitor", 2, "--model-prefix", "a")
    assert done.returncode == 0
    assert "stn_loc_fc2_output" in caplog.text


@pytest.mark.parametrize(("flags", "words"), [
    (["--network", "lennet"], ["--network", "did you mean lenet?"]),
    (["--network", "no-such-network"], ["--network", "lenet", "mlp"]),
    (["--dataset", "no-such-dataset"], ["--dataset", "fashion-mnist"]),
    (["--optimizer", "sdg"], ["--optimizer", "sgd"]),
    (["--kv-store", "redis"], ["--kv-store", "local"]),
    (["--initializer", "zero"], ["--initializer", "xavier"]),
    (["--dtype", "float16"], ["--dtype", "float32"]),
    (["--lr", "nan"], ["--lr", "above 0", "nan"]),
    (["--lr", "-1"], ["--lr", "above 0", "-1"]),
    (["--lr", "1e308"], ["--lr", "float32", "'1e308'"]),
    (["--wd", "5e-324"], ["--wd", "float32", "'5e-324'"]),
    (["--batch-size", "0"], ["--batch-size"]),
    (["--batch-size", "301"], ["301", "300"]),
    (["--num-epochs", "0"], ["--num-epochs"]),
    (["--lr-step-epochs", "2,1"], ["--lr-step-epochs"]),
    (["--lr-schedule", "step"], ["--lr-step-epochs"]),
    (["--warmup-epochs", "2"], ["--warmup-epochs", "--num-epochs 2"]),
    (["--gpus", "0"], ["--gpus", "GPU", "without --gpus"]),
    (["--gpus", "x"], ["--gpus", "0,1"]),
    (["--load-epoch", "1", "--model-prefix", "nowhere/a"], ["nowhere/a-0001.params", "no such"]),
    (["--load-epoch", "2"], ["--load-epoch 2", "nothing to train"]),
    (["--load-epoch", "1", "--resume"], ["--resume", "--load-epoch"]),
    (["--validation", "300"], ["--validation 300", "300 training images"]),
    (["--keep-best"], ["--keep-best", "--keep-last"]),
    (["--keep-last", "0"], ["--keep-last", "at least 1"]),
    (["--model-prefix", "file/a"], ["file/a-export: cannot be written: Not a directory"]),
    (["--result", "file/a"], ["file: is no folder"]),
    (["--result", "."], ["names no file"]),
    (["--ad-stn"], ["--ad-stn", "did you mean --add-stn?"]),
    (["--add-stn", "--transform", "afine"], ["--transform", "did you mean affine?"]),
    (["--add-stn", "--transform", "no-such-transform"],
     ["--transform", "'no-such-transform'", "translation", "tps:K"]),
    (["--add-stn", "--transform", "tps:1"], ["--transform", "2 x 2 points or more"]),
    (["--transform", "tps"], ["--transform", "--add-stn"]),
    (["--bounded"], ["--bounded", "--add-stn"]),
    (["--stable"], ["--stable", "--add-stn"]),
    (["--outside", "border"], ["--outside", "--add-stn"]),
    (["--pool", "2"], ["--pool", "--add-stn"]),
    (["--visualize-every", "2"], ["--visualize-every", "--add-stn"]),
    (["--add-stn", "--pool", "2"], ["--pool: lenet has no such option", "cnn", "mlp"]),
    (["--add-stn", "--network", "cnn", "--pool", "2"], ["cnn's classifier", "21 x 21"]),
    (["--stn-at", "input"], ["--stn-at", "--add-stn"]),
    (["--add-stn", "--stn-at", "input"], ["--stn-at: lenet has no such option", "resnet"]),
    (["--add-stn", "--network", "resnet", "--stn-at", "input,stage9"], ["stage3", "stage9"]),
    (["--stn-steps", "2"], ["--stn-steps", "--add-stn"]),
    (["--add-stn", "--stn-steps", "0"], ["--stn-steps", "at least 1"]),
    (["--add-stn", "--stn-steps", "101"], ["--stn-steps", "at most 100"]),
    (["--network", "mlp", "--width", "2000000000"], ["--width", "at most 65536"]),
    (["--network", "resnet", "--depth", "1001"], ["--depth", "at most 1000"]),
    (["--random-crop", "1", "--pad-size", "1001"], ["--pad-size", "at most 1000"]),
    *[([*flags, "--result", "r.json"], ["--result", "nothing is to be trained"])
      for flags in (["--summary"], ["--test-io", "1"], ["--benchmark", "1"])],
    (["--summary", "--benchmark", "1"], ["--benchmark 1", "--summary", "one of them"]),
    (["--draw-graph", "a.dot", "--test-io", "1"], ["--test-io 1", "--draw-graph", "one of them"]),
    (["--add-stn", "--stn-steps", "2", "--transform", "tps"], ["tps", "more than one step"]),
    (["--add-stn", "--network", "resnet", "--stn-steps", "2"],
     ["--stn-steps: resnet has no such option", "lenet"]),
    (["--depth", "2"], ["--depth: lenet has no such option", "resnet"]),
    (["--dataset", "signs", "--distort", "R"], ["to be grey", "3, 48, 48)"]),
    (["--dataset", "signs", "--data-dir", "."], ["--dataset signs", "no files"]),
    (["--distort", "no-such-distortion"], ["--distort", "RTS", "addition"]),
])
def test_bad_flags_are_refused(run, refused, tmp_path, flags, words):
    (tmp_path / "file").write_text("in the way of a folder")
    refused(run(*QUICK, *flags), *words)
    left = {os.path.join(folder, name) for folder, _, names in os.walk(tmp_path) for name in names}
    assert left == {str(tmp_path / "file")}


@pytest.mark.parametrize("transform", [*stn.TRANSFORMS, "tps:3"])
def test_every_transform_trains_and_names_its_files(run, tmp_path, transform):
    done = run(*QUICK, "--add-stn", "--transform", transform, "--bounded", "--stable")
    assert done.returncode == 0, done.stderr
    named = "" if transform == "affine" else f"-{transform.replace(':', '')}"  # which is implied
    prefix = f"synthetic-lenet-stn{named}-bounded-stable"
    assert (tmp_path / "models" / f"{prefix}-export" / "model-symbol.json").exists()


def test_transformers_at_several_places_train_and_name_their_files(run, tmp_path):
    done = run(*QUICK, "--network", "resnet", "--width", 4, "--depth", 2, "--add-stn",
               "--stn-at", "input,stage1", "--result", "result.json")
    assert done.returncode == 0, done.stderr
    prefix = "synthetic-resnet-stn-input-stage1"
    symbol = mx.sym.load(str(tmp_path / "models" / f"{prefix}-symbol.json"))
    assert "stage1_block2_sum_output" in symbol.get_internals().list_outputs()
    figures = json.loads((tmp_path / "result.json").read_text())
    assert list(figures["transformers"]) == ["stn0", "stn1"]
    other = run(*QUICK, "--network", "resnet", "--width", 4, "--depth", 2, "--add-stn",
                "--model-prefix", f"models/{prefix}", "--resume")
    assert other.returncode == 2
    assert "--stn-at input,stage1 there, no --stn-at here" in other.stderr


def test_an_iterated_transformer_trains_and_names_its_files(run, tmp_path):
    flags = ["--network", "cnn", "--add-stn", "--stable"]
    done = run(*QUICK, *flags, "--stn-steps", 2, "--result", "result.json")
    assert done.returncode == 0, done.stderr
    assert list(json.loads((tmp_path / "result.json").read_text())["transformers"]) == [
        "stn_step1", "stn"]
    once = run(*QUICK, *flags, "--resume", "--model-prefix",
               "models/synthetic-cnn-stn-stable-2-steps")
    assert once.returncode == 2
    assert "--stn-steps 2 there, no --stn-steps here" in once.stderr


def test_a_default_that_is_spelt_out_is_none(run, tmp_path, caplog):
    caplog.set_level("INFO")
    flags = [*QUICK, "--network", "cnn", "--add-stn", "--resume"]
    spelt = ["--transform", "affine", "--outside", "zero", "--stn-steps", 1, "--pool", 1]
    for given, said in ((flags, "starts anew"), (flags + spelt, "All 2 epochs are trained"),
                        (flags, "All 2 epochs are trained")):
        caplog.clear()
        assert run(*given).returncode == 0
        assert said in caplog.text
    assert sorted(path.name for path in (tmp_path / "models").glob("*-0002.params")) == [
        "synthetic-cnn-stn-0002.params"]


def test_colour_pictures_with_names_train(run, run_main, tmp_path):
    done = run("--dataset", "signs", "--num-examples", 400, "--num-epochs", 2, "--add-stn",
               "--network", "resnet", "--width", 4, "--stn-at", "input,stage2")
    assert done.returncode == 0, done.stderr
    prefix = "models/signs-resnet-stn-input-stage2"
    names = (tmp_path / f"{prefix}-export" / "synset.txt").read_text().splitlines()
    assert names == list(signs.CLASS_NAMES)
    done = run_main(score, prefix, "--mistakes", "mistakes.png", "--top-k", 3)
    assert done.returncode == 0, done.stderr
    assert "Test images: signs, as in the training" in done.stdout
    assert Image.open(tmp_path / "mistakes.png").mode == "RGBA"
    done = run_main(visualize_stn, prefix, "--num-images", 4)
    assert done.returncode == 0, done.stderr
    assert "stn1" in done.stdout


def test_distorted_images_train_and_name_their_files(run, tmp_path):
    done = run(*QUICK, "--add-stn", "--distort", "RTS")
    assert done.returncode == 0, done.stderr
    assert os.path.exists(tmp_path / "models" / "synthetic-RTS-lenet-stn-0001.params")
    _, symbol_path, params_path = done.stdout.splitlines()[-1].split()
    block = mx.gluon.SymbolBlock.imports(str(tmp_path / symbol_path), ["data"],
                                         str(tmp_path / params_path))
    assert block(mx.nd.zeros((1, 1, 42, 42))).shape == (1, 10)


@pytest.mark.parametrize("network", ["mlp", "addition"])
def test_the_paper_s_networks_add_digits(run, network):
    done = run(*QUICK, "--add-stn", "--distort", "addition", "--network", network, "--pool", 2,
               "--width", 20, "--model-prefix", "a")
    assert done.returncode == 0, done.stderr
    symbol_path, params_path = done.stdout.split()[-2:]
    block = mx.gluon.SymbolBlock.imports(symbol_path, ["data"], params_path)
    assert block(mx.nd.zeros((1, 2, 42, 42))).shape == (1, 19)


def test_a_film_of_the_training_changes_nothing_of_it(run, tmp_path, caplog):
    caplog.set_level("INFO")
    flags = ["--dataset", "synthetic", "--num-examples", 300, "--num-epochs", 4, "--add-stn"]
    assert run(*flags, "--model-prefix", "plain").returncode == 0
    prefix = ["--model-prefix", "a", "--visualize-every", 2]
    done = run(*flags, *prefix)
    assert done.returncode == 0, done.stderr
    assert "Drawn: a-film.gif" in caplog.text
    assert sorted(os.listdir(tmp_path / "a-film")) == ["0000.png", "0002.png", "0004.png"]
    with Image.open(tmp_path / "a-film.gif") as gif:
        assert gif.n_frames == 3
    params = [(tmp_path / f"{name}-0004.params").read_bytes() for name in ("a", "plain")]
    assert params[0] == params[1]
    (tmp_path / "a-film" / "0009.png").write_bytes(b"of a longer run before")
    assert run(*flags, *prefix, "--load-epoch", 2, "--overwrite").returncode == 0
    with Image.open(tmp_path / "a-film.gif") as gif:
        assert gif.n_frames == 3


def test_a_checkpoint_of_another_network_is_refused(run, refused, tmp_path):
    prefix = ["--model-prefix", "a"]
    assert run(*QUICK, *prefix).returncode == 0
    before = {path.name: path.read_bytes() for path in tmp_path.glob("a-0*")}
    refused(run(*QUICK, *prefix, "--load-epoch", 1, "--add-stn", "--overwrite"),
            "a-0001.params", "of another network", "is missing")
    assert before == {path.name: path.read_bytes() for path in tmp_path.glob("a-0*")}


def test_a_folder_in_the_way_of_the_export_is_said_early(run, refused, tmp_path):
    (tmp_path / "a-export").mkdir()
    (tmp_path / "a-export" / "README.md").write_text("mine")
    refused(run(*QUICK, "--model-prefix", "a"), "a-export: holds something else")
    assert os.listdir(tmp_path) == ["a-export"]


@pytest.mark.parametrize("result", ["a-0001.json", "a-symbol.json", "a-export/README.md",
                                    "a-film.gif", "a.lock"])
def test_figures_do_not_replace_a_file_of_the_model(run, refused, tmp_path, result):
    refused(run(*QUICK, "--model-prefix", "a", "--result", result), "a file of a itself")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_runs_do_not_write_the_same_files(train, refused, tmp_path):
    flags = ["--dataset", "synthetic", "--num-examples", 4000, "--num-epochs", 50,
             "--model-prefix", tmp_path / "a"]
    process = start(*flags)
    while not (tmp_path / "a-0001.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    refused(train(*flags, "--resume"), "a.lock", "another run")
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    process.kill()
    process.communicate()
    done = train(*flags[:-4], "--num-epochs", 1, *flags[-2:], "--overwrite")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "a.lock").exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The prefix of a finished run on own files, its flags, and all its files."""
    folder = tmp_path_factory.mktemp("finished")
    write_digits(folder / "own", 1)
    flags = ["--data-dir", folder / "own", "--num-epochs", 1, "--batch-size", 20,
             "--model-prefix", folder / "a"]
    done = run_script("train_mnist.py", *flags)
    assert done.returncode == 0, done.stderr
    return folder, flags, contents(folder)


def contents(folder):
    """All files below a folder: path -> bytes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_digits(folder, seed):
    folder.mkdir()
    for part in ("train", "t10k"):
        for kind, array in zip(("images-idx3", "labels-idx1"), synthetic.draw(60, seed=seed)):
            (folder / f"{part}-{kind}-ubyte").write_bytes(idx.encode(array))


@pytest.mark.parametrize(("flags", "words"), [
    ([], ["a-0001.params: this run is there already", "--resume", "--overwrite"]),
    (["--network", "mlp", "--width", 9], ["--network lenet there, --network mlp here",
                                          "no --width there, --width 9 here", "--model-prefix"]),
    (["--resume", "--add-stn"], ["no --add-stn there, --add-stn here"]),
    (["--resume", "--lr", 0.5, "--num-examples", 30],
     ["--lr 0.003 there, --lr 0.5 here", "no --num-examples there, --num-examples 30 here"]),
    (["--resume", "--distort", "R"], ["no --distort there, --distort R here"]),
    (["--resume", "--dataset", "fashion-mnist"],
     ["--dataset mnist there, --dataset fashion-mnist here"]),
    (["--load-epoch", 1, "--num-epochs", 2], ["a-export", "would be lost", "--overwrite"]),
])
def test_another_run_eats_nothing(run, refused, finished, flags, words):
    folder, before, files = finished
    refused(run(*before, *flags), *words)
    assert contents(folder) == files


def test_the_images_are_part_of_a_run_not_their_folder(run, finished, tmp_path):
    _, flags, _ = finished
    write_digits(tmp_path / "same", 1)
    write_digits(tmp_path / "others", 2)
    assert run(*flags, "--resume", "--data-dir", tmp_path / "same").returncode == 0
    done = run(*flags, "--resume", "--data-dir", tmp_path / "others")
    assert done.returncode == 2
    assert f"--data-dir {tmp_path / 'others'} here" in done.stderr
    own = flags[1]
    try:
        own.rename(tmp_path / "away")
        (tmp_path / "others").rename(own)
        done = run(*flags, "--resume")
        assert done.returncode == 2
        assert "images with the SHA-256" in done.stderr
    finally:
        own.rename(tmp_path / "others")
        (tmp_path / "away").rename(own)


def test_an_export_without_checkpoints_is_left_alone(run, refused, tmp_path, caplog):
    caplog.set_level("INFO")
    flags = [*QUICK, "--model-prefix", "a"]
    assert run(*flags).returncode == 0
    for path in tmp_path.glob("a-*.*"):
        path.unlink()
    refused(run(*flags, "--resume"), "a-export: there already", "--overwrite")
    assert run(*flags, "--resume", "--overwrite").returncode == 0
    assert "No checkpoint to resume from" in caplog.text


def test_to_resume_and_to_overwrite_goes_on_with_the_same_run_alone(run, tmp_path, caplog):
    caplog.set_level("INFO")
    flags = [*QUICK, "--num-epochs", 1, "--lr-schedule", "constant", "--model-prefix", "a"]
    both = ["--resume", "--overwrite"]
    assert run(*flags).returncode == 0
    first = (tmp_path / "a-0001.params").read_bytes()
    assert run(*flags, *both, "--num-epochs", 2).returncode == 0
    assert "Resumes from the checkpoint after 1 epochs" in caplog.text
    assert (tmp_path / "a-0001.params").read_bytes() == first
    assert run(*flags, *both, "--lr", 0.01).returncode == 0
    assert (tmp_path / "a-0001.params").read_bytes() != first
    assert not (tmp_path / "a-0002.params").exists()


def test_a_finished_run_is_resumed_to_the_same_figures(train, tmp_path):
    flags = [*QUICK, "--add-stn", "--model-prefix", tmp_path / "a"]
    found = []
    for name in ("first", "second"):
        done = train(*flags, "--resume", "--result", tmp_path / f"{name}.json")
        assert done.returncode == 0, done.stderr
        found.append([{path.name: (path.read_bytes(), path.stat().st_mtime_ns)
                       for path in tmp_path.glob("a-0*")},
                      json.loads((tmp_path / f"{name}.json").read_text()),
                      (tmp_path / "a-export" / "model-0000.params").read_bytes()])
        found[-1][1].update(seconds=None)
        (tmp_path / "a-export" / "model-0000.params").unlink()
    assert found[0] == found[1]  # with the command that trained it
    card = (tmp_path / "a-export" / "README.md").read_text()
    assert f"Trained by: `{found[0][1]['command']}`" in card
    assert "first.json" in card
    assert "All 2 epochs are trained" in done.stderr


def test_images_are_held_out_to_choose_by(train, refused, tmp_path):
    flags = [*QUICK, "--add-stn", "--distort", "R", "--validation", 100, "--model-prefix",
             tmp_path / "a", "--result", tmp_path / "result.json"]
    done = train(*flags)
    assert done.returncode == 0, done.stderr
    assert "with 200 images on" in done.stderr
    figures = json.loads((tmp_path / "result.json").read_text())
    assert figures["validation_accuracy"] == figures["history"][-1]["validation_accuracy"]
    assert round(100 * figures["validation_accuracy"], 9) % 1 == 0  # of 100 images
    assert f"Test-accuracy={figures['test_accuracy']:f}" in done.stderr
    told = [export_folder.read_card(str(tmp_path / "a-export")),
            export_folder.about(checkpoint.load_state(str(tmp_path / "a"), 2)[1])]
    for said in told:
        assert said["Validation accuracy"] == f"{figures['validation_accuracy']:.4f}"
    assert told[0]["Test accuracy"] == f"{figures['test_accuracy']:.4f}"
    assert "Test accuracy" not in told[1]
    refused(train(*flags, "--resume", "--validation", 0),
            "(--validation 100 there, no --validation here)")


@pytest.mark.parametrize("damage", [lambda c: c[:100], lambda c: c[:-1], lambda c: b"x" + c[1:]])
def test_damaged_data_is_refused(run, refused, tmp_path, damage):
    for name in mnist.NAMES:
        os.symlink(os.path.join(ROOT, "data", "mnist", name), tmp_path / name)
    name = mnist.NAMES[2]
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(damage(content))
    refused(run("--data-dir", tmp_path, "--model-prefix", "a"), name)


def test_divergence_has_its_own_status(train, tmp_path):
    done = train(*QUICK, "--add-stn", "--optimizer", "sgd", "--lr", "1e38",
                 "--lr-schedule", "constant", "--model-prefix", tmp_path / "a")
    assert done.returncode == 3
    assert "non-finite" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.params"))


def test_a_step_that_fails_ends_the_run(train, tmp_path):
    done = train(*QUICK, "--lr", "1.2e-38", "--model-prefix", tmp_path / "a")
    assert done.returncode == 2
    assert "the optimizer cannot make a step: MXNetError: Out of range" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def start(*flags):
    return subprocess.Popen([sys.executable, "train_mnist.py", *map(str, flags)], cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            universal_newlines=True, preexec_fn=hear_interrupts)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status", "word"), [
    (signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")])
def test_stopped_in_an_epoch_it_says_how_to_go_on(train, tmp_path, number, status, word):
    flags = ["--dataset", "synthetic", "--num-examples", 4000, "--add-stn", "--num-epochs", 4,
             "--model-prefix", tmp_path / "a"]
    process = start(*flags)
    while not (tmp_path / "a-0002.params").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == status, stderr
    assert "Traceback" not in stderr
    last = stderr.splitlines()[-1]
    assert re.search(f"{word} in epoch [23], after [0-9]+ of 31 batches; --resume goes on", last)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".params", ".state"}
    assert (tmp_path / "a-stopped.params").exists()
    done = train(*flags, "--resume")
    assert done.returncode == 0, done.stderr
    place = last.partition("in epoch ")[2].partition(";")[0]
    assert f"Resumes in epoch {place}" in done.stderr


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="sees imports by /proc")
@pytest.mark.parametrize("library", ["numpy", "libmxnet"])
def test_interrupted_while_it_imports_it_leaves_no_traceback(tmp_path, library):
    process = start("--add-stn", "--model-prefix", tmp_path / "a")
    maps = pathlib.Path(f"/proc/{process.pid}/maps")
    while library not in maps.read_text():
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr


def test_another_number_of_threads_is_said_and_goes_on(tmp_path, run_main, monkeypatch, caplog):
    flags = [*QUICK, "--network", "mlp", "--lr-schedule", "constant", "--model-prefix", "a"]
    assert run_main(train_mnist, *flags).returncode == 0
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert run_main(train_mnist, *flags, "--resume", "--num-epochs", 3).returncode == 0
    assert "one thread on each device there, 3 threads on each device here" in caplog.text
