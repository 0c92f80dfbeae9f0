"""Networks that start from what is trained, and parameters that stand still."""
import json
import re
import shutil

import mxnet as mx
import numpy as np
import pytest

import compare_stn
import symbols
import train_mnist
from common.data import synthetic
from common.data.batches import ImageIter
from common.graph import rewrite
from common.models import export_folder, trained
from common.storage import checkpoint, state_file
from common.training import fit, flags, pretrained, resume
from common.training.fused_update import Module
from tests.conftest import ROOT, SMALL
from tests.test_fit import check_same, parsed, rename, run, run_until

MODEL = f"{ROOT}/published/mnist-lenet-stn"
QUICK = ["--dataset", "synthetic", "--num-examples", 300, "--num-epochs", 1]
WHOLE = ["--pretrained", "mnist-lenet-stn", "--reset", "fc2", "--fix", "stn_loc_conv|conv1",
         "--loc-lr-mult", "0.5"]  # all flags of a start


@pytest.fixture
def train(run_main):
    """Runs train_mnist.py under the prefix "a"."""
    return lambda *given: run_main(train_mnist, *QUICK, "--model-prefix", "a", *given)


def numbers(params):
    return {name: value.asnumpy() for part in params for name, value in part.items()}


def of_model(model=MODEL):
    params = trained.load_params(model)
    return numbers((params.arg_params, params.aux_params))


def of_checkpoint(prefix, epoch=1):
    return of_model(f"{prefix}-{epoch:04d}")


def started(tmp_path, *given, symbol=None):
    """The Module of a run that has just begun."""
    args = parsed(tmp_path, *given)
    train = ImageIter(*synthetic.draw(100, seed=0), args.batch_size, seed=0)
    symbol = symbols.get_symbol("lenet") if symbol is None else symbol
    return fit.start(symbol, train, flags.recipe(args))


def normalised():
    net = mx.sym.Convolution(mx.sym.Variable("data"), num_filter=4, kernel=(5, 5), name="conv")
    net = mx.sym.BatchNorm(net, fix_gamma=False, name="first_norm")
    net = mx.sym.BatchNorm(mx.sym.Flatten(net, name="flatten"), fix_gamma=False, name="norm")
    net = mx.sym.FullyConnected(net, num_hidden=10, name="fc")
    return mx.sym.SoftmaxOutput(net, name="softmax")


def test_what_fits_is_taken_and_all_else_starts_as_ever(tmp_path, caplog):
    caplog.set_level("INFO")
    symbol = symbols.get_symbol("lenet", num_classes=26)
    anew = numbers(started(tmp_path, symbol=symbol)[0].get_params())
    caplog.clear()
    module, begun = started(tmp_path, "--pretrained", MODEL, "--reset", "conv2_b", symbol=symbol)
    found, model = numbers(module.get_params()), of_model()
    others = {"fc2_weight", "fc2_bias", "conv2_bias"}
    for name, value in found.items():
        np.testing.assert_array_equal(value, (anew if name in others else model)[name])
    assert set(begun.started_from["anew"]) == others
    lines = caplog.text.splitlines()
    assert len(lines) == 4
    for words in (f"Taken from {MODEL}: 13 of 16 parameters (stn_loc_conv1, ",
                  "(other shape): fc2_weight 26 x 50 instead of 10 x 50, fc2_bias 26 instead of 10",
                  "Starts anew (--reset): conv2_bias"):
        assert any(words in line for line in lines)
    caplog.clear()
    started(tmp_path, "--pretrained", f"{ROOT}/published/mnist-lenet", "--fix", "stn_")
    assert "Starts anew (no such name there): stn_loc_conv1, stn_loc_conv2, stn_lo" in caplog.text
    assert "Stands still (--fix): stn_loc_conv1, stn_loc_conv2, stn_loc_fc1, stn_" in caplog.text
    assert "Training 21840 parameters" in caplog.text


def test_parameters_of_other_types_are_taken(tmp_path):
    arg_params = {name: mx.nd.array(value.astype(np.float16), dtype="float16")
                  for name, value in of_model().items()}
    checkpoint.save_params(str(tmp_path / "half-0000.params"), arg_params, {})
    module, _ = started(tmp_path, "--pretrained", str(tmp_path / "half"))
    for name, value in numbers(module.get_params()).items():
        np.testing.assert_array_equal(value, arg_params[name].asnumpy().astype(np.float32))


@pytest.mark.parametrize("given", [
    ["--optimizer", "sgd", "--wd", "0.1", "--cpus", "3"],
    ["--optimizer", "adam", "--wd", "0.1", "--cpus", "2", "--kv-store", "device"],
    ["--optimizer", "nag", "--cpus", "1", "--dtype", "float64"]])
def test_what_is_fixed_is_the_models_to_the_bit_after_an_epoch(tmp_path, given):
    run(parsed(tmp_path, "--num-epochs", "1", "--pretrained", MODEL, "--fix", "stn_|fc1", *given))
    model, found = of_model(), of_checkpoint(tmp_path / "a")
    for name, value in found.items():
        still = name.startswith(("stn_", "fc1"))
        assert (value == model[name]).all() if still else (value != model[name]).any(), name


@pytest.mark.parametrize("transform", ["affine", "tps"])
@pytest.mark.parametrize("network", symbols.NETWORKS)
@pytest.mark.parametrize("pattern", [r"stn\d*_", r"(?!stn\d*_)", ".*weight", ".*bias"])
def test_all_others_make_the_step_that_they_would_make(network, transform, pattern):
    symbol = rewrite.for_cpu(
        symbols.get_symbol(network, image_shape=(2, 42, 42), transform=transform,
                           **SMALL.get(network, {})),
        [mx.cpu()], "float32", data=(4, 2, 42, 42))
    still = set(pretrained.fixed(pattern, symbol, ("data", "softmax_label")))
    trained = set(symbol.list_arguments())  # moving means are another matter: see below
    still &= trained
    start, free = one_step(Module, symbol, None)
    kinds = [Module] if pattern == ".*weight" else [Module, mx.mod.Module]  # upstream loses biases
    for kind in kinds:
        _, found = one_step(kind, symbol, still)
        for name in trained.intersection(found):
            expected = (start if name in still else free)[name]
            np.testing.assert_array_equal(found[name], expected, name)
    assert any((start[name] != free[name]).any() for name in still)


def one_step(kind, symbol, still):
    """The parameters before and after a step, with weight decay."""
    module = kind(symbol, context=[mx.cpu(0), mx.cpu(1)], fixed_param_names=still)
    module.bind([("data", (4, 2, 42, 42))], [("softmax_label", (4,))])
    mx.random.seed(0)
    module.init_params(mx.init.Normal(0.1))
    before = numbers(module.get_params())
    module.init_optimizer(mx.kv.create("local"), "sgd", {"learning_rate": 1.0, "wd": 0.1})
    rng = np.random.RandomState(0)
    mx.random.seed(1)
    module.forward_backward(mx.io.DataBatch([mx.nd.array(rng.rand(4, 2, 42, 42))],
                                            [mx.nd.array(rng.randint(0, 10, 4))]))
    module.update()
    mx.nd.waitall()
    return before, numbers(module.get_params())


@pytest.mark.parametrize("devices", ["1", "2"])
def test_fixed_means_and_variances_stand_still_and_are_what_is_trained_with(tmp_path, devices):
    symbol = normalised()
    run(parsed(tmp_path, "--num-epochs", "1", "--lr", "0.01"), symbol)
    before = of_checkpoint(tmp_path / "a")
    args = parsed(tmp_path, "--model-prefix", str(tmp_path / "b"), "--num-epochs", "1", "--cpus",
                  devices, "--pretrained", str(tmp_path / "a"), "--fix", "conv|first_norm")
    module, _ = run(args, symbol)
    after = of_checkpoint(tmp_path / "b")
    moved = {name for name in before if (before[name] != after[name]).any()}
    assert moved == {"fc_weight", "fc_bias", "norm_gamma", "norm_beta", "norm_moving_mean",
                     "norm_moving_var"}
    assert (tmp_path / "a-symbol.json").read_bytes() == (tmp_path / "b-symbol.json").read_bytes()
    inner = mx.mod.Module(module.symbol.get_internals()["first_norm_output"], label_names=None)
    inner.bind([("data", (4, 1, 28, 28))])
    inner.set_params(*module.get_params(), allow_extra=True)
    batch = mx.io.DataBatch([mx.nd.random.uniform(shape=(4, 1, 28, 28))])
    outputs = []
    for is_train in (True, False):
        inner.forward(batch, is_train=is_train)
        outputs.append(inner.get_outputs()[0].asnumpy())
    np.testing.assert_allclose(*outputs, atol=1e-5)


def test_resume_is_exact_with_all_flags(tmp_path, caplog):
    caplog.set_level("INFO")
    given = ["--num-epochs", "3", "--wd", "0.01", *WHOLE]
    _, undisturbed = run(parsed(tmp_path, *given))
    for epoch in (1, 2):
        rename(tmp_path, "a", "b", epoch)
        args = parsed(tmp_path, *given, "--model-prefix", str(tmp_path / "b"),
                      "--load-epoch", str(epoch), "--overwrite")
        check_same(tmp_path, "b", undisturbed, run(args)[1])
    args = parsed(tmp_path, *given, "--model-prefix", str(tmp_path / "c"), "--resume")
    for place in ((0, 2), (1, 5)):
        run_until(args, symbols.get_symbol("lenet"), *place)
    caplog.clear()
    _, resumed = run(args)
    check_same(tmp_path, "c", undisturbed, resumed)
    assert resumed["started_from"] == undisturbed["started_from"]
    assert "Stands still (--fix): stn_loc_conv1, stn_loc_conv2, conv1" in caplog.text
    assert "Taken" not in caplog.text
    assert "not as the run would have" not in caplog.text


@pytest.mark.parametrize(("given", "words"), [
    (["--fix", "conv"], "(--fix stn_loc_conv|conv1 there, --fix conv here)"),
    (["--reset", "fc"], "(--reset fc2 there, --reset fc here)"),
    (["--loc-lr-mult", "1"], "(--loc-lr-mult 0.5 there, --loc-lr-mult 1.0 here)"),
    (["--pretrained", f"{ROOT}/published/mnist-lenet"],
     f"(--pretrained mnist-lenet-stn there, --pretrained {ROOT}/published/mnist-lenet here)"),
])
def test_another_start_is_another_run(tmp_path, given, words):
    run(parsed(tmp_path, "--num-epochs", "1", *WHOLE))
    with pytest.raises(ValueError, match=re.escape(words)):
        run(parsed(tmp_path, "--num-epochs", "1", "--resume", *WHOLE, *given))


def test_the_model_is_part_of_a_run_not_its_place(tmp_path):
    for name in ("one", "same"):
        shutil.copy(f"{MODEL}/model-0000.params", tmp_path / f"{name}-0000.params")
    given = ["--num-epochs", "1", "--pretrained"]
    run(parsed(tmp_path, *given, str(tmp_path / "one")))
    run(parsed(tmp_path, *given, str(tmp_path / "same"), "--resume"))
    shutil.copy(f"{ROOT}/published/mnist-lenet/model-0000.params", tmp_path / "one-0000.params")
    with pytest.raises(ValueError, match=r"\(--pretrained of the SHA-256 \w{8}\.\.\. there, "
                                         r"--pretrained of the SHA-256 \w{8}\.\.\. here\)"):
        run(parsed(tmp_path, *given, str(tmp_path / "one"), "--resume"))


def test_a_checkpoint_from_before_these_flags_is_of_the_same_run(tmp_path):
    args = ["--num-epochs", "2"]
    run_until(parsed(tmp_path, *args), symbols.get_symbol("lenet"), 0, 5)
    prefix = str(tmp_path / "a")
    arrays, meta = checkpoint.load_state(prefix, checkpoint.STOPPED)
    for name in ("pretrained", "pretrained_sha256", "reset", "fix", "loc_lr_mult"):
        assert meta["recipe"].pop(name) is None
        assert resume.BEFORE[name] is None
    (tmp_path / "a-stopped.json").unlink()
    state_file.write(f"{prefix}-stopped.state", arrays, meta)
    run(parsed(tmp_path, *args, "--resume"))
    with pytest.raises(ValueError, match="no --fix there, --fix conv here"):
        run(parsed(tmp_path, *args, "--resume", "--fix", "conv"))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_what_was_fixed_can_be_trained_later_and_the_other_way_round(tmp_path, caplog, optimizer):
    patterns, still = [["--fix", "stn_"], [], ["--fix", "conv1"]], ["stn_", "", "conv1"]
    begin = ["--pretrained", MODEL]
    for epoch, pattern in enumerate(patterns, start=1):
        further = ["--load-epoch", str(epoch - 1)] if epoch > 1 else begin
        run(parsed(tmp_path, "--num-epochs", str(epoch), "--optimizer", optimizer, *pattern,
                   *further))
    assert "no --fix there, --fix conv1 here" in caplog.text
    assert "--pretrained" not in caplog.text
    found = [of_model(), *(of_checkpoint(tmp_path / "a", epoch) for epoch in (1, 2, 3))]
    for before, after, start in zip(found, found[1:], still):
        for name, value in before.items():
            fixed = bool(start) and name.startswith(start)
            assert (value == after[name]).all() == fixed, name
    assert export_folder.about(checkpoint.load_state(str(tmp_path / "a"), 3)[1])[
        "Started from"].startswith(f"`{MODEL}`")


def test_a_checkpoint_is_no_start_from_a_model(tmp_path):
    run(parsed(tmp_path, "--num-epochs", "1"))
    with pytest.raises(ValueError, match="a-0001.params: not begun with this --pretrained"):
        run(parsed(tmp_path, "--load-epoch", "1", "--pretrained", MODEL))
    for suffix in ("json", "state"):  # as other programs leave it
        (tmp_path / f"a-0001.{suffix}").unlink()
    with pytest.raises(ValueError, match="leave them out"):
        run(parsed(tmp_path, "--load-epoch", "1", "--pretrained", MODEL))


def test_the_card_says_what_a_model_was_made_from(train, tmp_path):
    done = train("--add-stn", *WHOLE, "--result", "result.json")
    assert done.returncode == 0, done.stderr
    sha256 = trained.load_params(MODEL).sha256
    words = (f"`mnist-lenet-stn`, params with the SHA-256 {sha256}: 14 of 16 parameters taken "
             "(stn_loc_conv1, stn_loc_conv2, stn_loc_fc1, stn_loc_fc2, conv1, conv2, fc1), anew "
             "fc2")
    assert export_folder.read_card(str(tmp_path / "a-export"))["Started from"] == words
    assert export_folder.about(checkpoint.load_state(str(tmp_path / "a"), 1)[1])[
        "Started from"] == words
    start = json.loads((tmp_path / "result.json").read_text())["started_from"]
    assert (start["model"], start["sha256"]) == ("mnist-lenet-stn", sha256)
    assert start["anew"] == ["fc2_weight", "fc2_bias"]
    # and what is made of that says so
    done = train("--add-stn", "--pretrained", "a", "--model-prefix", "b")
    assert export_folder.read_card(str(tmp_path / "b-export"))["Started from"].startswith("`a`")


@pytest.mark.parametrize("damage", [
    {"model": 1}, {"taken": "fc2"}, {"anew": [1]}, {"more": ""}])
def test_a_damaged_start_is_refused(tmp_path, damage):
    run(parsed(tmp_path, "--num-epochs", "1", *WHOLE))
    prefix = str(tmp_path / "a")
    arrays, meta = checkpoint.load_state(prefix, 1)
    meta["started_from"].update(damage)
    (tmp_path / "a-0001.json").unlink()
    state_file.write(f"{prefix}-0001.state", arrays, meta)
    with pytest.raises(ValueError, match="started_from"):
        checkpoint.load_state(prefix, 1)


@pytest.mark.parametrize("network", symbols.NETWORKS)
@pytest.mark.parametrize("stable", [False, True])
def test_the_localisation_layers_get_another_rate(tmp_path, network, stable):
    symbol = symbols.get_symbol(network, image_shape=(1, 28, 28), stable=stable,
                                **SMALL.get(network, {}))
    args = parsed(tmp_path, "--loc-lr-mult", "0.25")
    train = ImageIter(*synthetic.draw(100, seed=0), args.batch_size, seed=0)
    before = symbol.tojson()
    module, _ = fit.start(symbol, train, flags.recipe(args))
    own = {name for name, of_it in symbol.attr_dict().items() if "__lr_mult__" in of_it}
    for name in pretrained.parameters(symbol, ("data", "softmax_label")):
        assert module._multipliers(name)[0] == (0.25 if name in own else 1), name
        assert (name in own) == bool(re.match(r"stn\d?_loc_(fc|hidden)", name))
    assert symbol.tojson() == before


def test_a_network_without_such_layers_has_no_such_rate(tmp_path):
    with pytest.raises(ValueError, match="no layer of the localisation network has an lr_mult"):
        started(tmp_path, "--loc-lr-mult", "0.5", symbol=normalised())


@pytest.mark.parametrize(("given", "words"), [
    (["--fix", "("], ["--fix", "regular expression", "'('"]),
    (["--fix", "a{99999999999999999999}"], ["--fix", "regular expression"]),
    (["--reset", "[", "--pretrained", MODEL], ["--reset", "regular expression"]),
    (["--fix", "sn_"], ["--fix 'sn_' matches the name of no parameter", "conv1_weight"]),
    (["--fix", "onv1"], ["--fix 'onv1' matches the name of no parameter"]),
    (["--fix", ""], ["--fix '' fixes every parameter"]),
    (["--fix", ".*_"], ["--fix '.*_' fixes every parameter"]),
    (["--reset", "stn_", "--pretrained", MODEL], ["--reset 'stn_' matches the name of no par"]),
    (["--reset", "conv"], ["--reset", "needs --pretrained"]),
    (["--reset", ".*", "--pretrained", MODEL], ["nothing of it is taken", "(--reset: 8)"]),
    (["--loc-lr-mult", "0.1"], ["--loc-lr-mult", "--add-stn"]),
    (["--add-stn", "--loc-lr-mult", "0"], ["--loc-lr-mult", "above 0"]),
    (["--pretrained", "mnist-lennet-stn"], ["mnist-lennet-stn: ", "did you mean mnist-lenet-stn?"]),
    (["--pretrained", ""], ["'': neither"]),
    (["--pretrained", "published"], ["published: neither"]),
    (["--pretrained", "mnist-lenet", "--network", "mlp", "--width", 9],
     ["nothing of it is taken", "(no such name there: 2, other shape: 4)"]),
    (["--pretrained", "damaged"], ["damaged/model-0000.params: not the file that"]),
    (["--pretrained", "damaged/model"], ["damaged/model-0000.params: not the file that"]),
    (["--pretrained", "other"], ["other-0001.params", "not a whole params file"]),
    (["--pretrained", "other-0001.params"], ["other-0001.params", "not a whole params file"]),
    (["--pretrained", "whole"], ["whole-0001.params: conv1_weight is int32"]),
    (["--pretrained", "nan"], ["nan-0001.params: conv1_weight is not finite"]),
    (["--pretrained", "a"], ["--pretrained a is what this run would write", "--model-prefix"]),
    (["--pretrained", "a-export"], ["--pretrained a-export is what this run would write"]),
])
def test_bad_starts_are_refused(train, refused, tmp_path, given, words):
    shutil.copytree(MODEL, tmp_path / "damaged")
    content = bytearray((tmp_path / "damaged" / "model-0000.params").read_bytes())
    content[900] ^= 1
    (tmp_path / "damaged" / "model-0000.params").write_bytes(content)
    (tmp_path / "other-0001.params").write_bytes(b"of another kind")
    for name, value in (("whole", mx.nd.ones(10, dtype="int32")), ("nan", mx.nd.ones(10) / 0)):
        checkpoint.save_params(str(tmp_path / f"{name}-0001.params"), {"conv1_weight": value}, {})
    shutil.copytree(MODEL, tmp_path / "a-export")
    shutil.copy(f"{MODEL}/model-0000.params", tmp_path / "a-0000.params")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    refused(train("--overwrite", *given), *words)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_of_many_checkpoints_one_is_taken(tmp_path):
    run(parsed(tmp_path))
    prefix = str(tmp_path / "a")
    found = {name: trained.load_params(f"{prefix}{name}").path
             for name in ("", "-0001", "-0001.params")}
    assert found == {"": f"{prefix}-0002.params", "-0001": f"{prefix}-0001.params",
                     "-0001.params": f"{prefix}-0001.params"}
    (tmp_path / "a-0001.params").write_bytes((tmp_path / "a-0002.params").read_bytes())
    with pytest.raises(ValueError, match="a-0001"):
        trained.load_params(f"{prefix}-0001")


@pytest.mark.parametrize(("given", "plain"), [
    ({"fix": "stn_", "pretrained": "m", "loc_lr_mult": 0.1}, {"pretrained": "m"}),
    ({"fix": "stn_|conv1", "reset": "fc1|stn_"}, {"fix": "stn_|conv1", "reset": "fc1|stn_"}),
    ({"pretrained": "m", "reset": "(?!stn_)", "fix": "stn_"}, {}),
])
def test_the_arm_without_the_transformer_gets_what_has_a_meaning_there(given, plain):
    assert compare_stn.of_classifier({"network": "cnn", "lr": 1, **given}) == {
        "network": "cnn", "lr": 1, **plain}


@pytest.mark.slow
def test_both_arms_start_from_a_model(run_main, refused, tmp_path):
    compared = [*QUICK, "--seeds", 1, "--cpus", 1, "--output", "out"]
    refused(run_main(compare_stn, *compared, "--fix", "(?!stn_)"), "without the transformer",
            "fixes every parameter")
    refused(run_main(compare_stn, *compared, "--fix", "x"), "with the transformer",
            "matches the name of no")
    refused(run_main(compare_stn, *compared, "--pretrained", "no-model"), "no-model: neither")
    assert not list(tmp_path.iterdir())
    done = run_main(compare_stn, *compared, "--pretrained", "mnist-lenet-stn", "--fix", "stn_",
                    "--loc-lr-mult", 0.5)
    assert done.returncode == 0, done.stderr
    for arm, count in (("with", 16), ("without", 8)):
        figures = json.loads((tmp_path / "out" / arm / "seed-0.json").read_text())
        assert len(figures["started_from"]["taken"]) == count
