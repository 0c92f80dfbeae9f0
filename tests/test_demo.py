"""The page to draw digits on: what it answers and refuses, and a browser that shows it."""
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import demo
import symbols
from common.data import strokes
from common.models import export_folder, trained
from common.page import panels, server
from tests import chromium
from tests.conftest import ROOT, hear_interrupts
from tests.test_networks import bound

SEVEN = [[[.25, .2], [.75, .2], [.6, .5], [.45, .88]]]
FOUR = [[[.4, .15], [.25, .55], [.75, .55]], [[.62, .2], [.6, .88]]]  # the page's example
SMALL = "mnist-lenet (published)"  # for pictures of 28 x 28
QUESTION = {"strokes": SEVEN, "turn": 0, "scale": 1, "shift": [0, 0],
            "panels": [f"{name} (published)" for name in demo.PAIR]}


@pytest.fixture(scope="module")
def page():
    """The page of all published models, served."""
    networks = [panels.Panel(path) for path in demo.choice([])]
    with server.Server("127.0.0.1", 0, networks) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def ask(page, method, path, body=None, **headers):
    """The status of an answer, its headers and its text."""
    connection = http.client.HTTPConnection(*page.server_address, timeout=60)
    connection.request(method, path, body, headers)
    reply = connection.getresponse()
    return reply.status, reply.headers, reply.read().decode()


def look(page, **changes):
    """What two networks make of a seven."""
    status, _, text = ask(page, "POST", "/look", json.dumps({**QUESTION, **changes}))
    assert status == 200, text
    return json.loads(text)


def test_the_page_brings_all_that_it_needs(page):
    status, headers, text = ask(page, "GET", "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert not re.search(r"//\w+\.\w|@import|@font-face", text)


def test_the_published_models_are_offered_and_the_pair_is_first(page):
    offered = json.loads(ask(page, "GET", "/models")[2])
    names = [model["name"] for model in offered]
    assert names[:2] == [f"{name} (published)" for name in demo.PAIR]
    assert sorted(names) == sorted(f"{name} (published)" for name in os.listdir(trained.PUBLISHED))
    assert [model["transformer"] for model in offered[:2]] == [True, False]
    assert [model["learnt"] for model in offered[:2]] == ["mnist, distorted by RTS"] * 2
    assert offered[0]["classes"] == list("0123456789")


def test_the_frame_follows_the_digit_and_the_pair_shows_the_point(page):
    moved = {"turn": 45, "scale": 0.7, "shift": [7, -6]}
    for changes, read in (({}, [4, 4]), (moved, [4, 9])):
        first, second = look(page, strokes=FOUR, **changes)
        assert [np.argmax(answer["probabilities"]) for answer in (first, second)] == read
        assert [np.argmax(answer["as_drawn"]) for answer in (first, second)] == [4, 4]
        assert second["views"] == []
    view, = first["views"]
    assert np.shape(view["outline"]) == (2 * (42 + 42) - 3, 2)
    scale, right, down = map(float, re.fullmatch(
        r"turn [+-]\d+°, scale (0\.\d\d), shift (\S+), (\S+) px", view["words"]).groups())
    assert scale == pytest.approx(0.7, abs=0.15)
    assert (right, down) == pytest.approx((7, -6), abs=1.5)


def test_the_curve_goes_through_all_turns(page):
    for turn in (-90, 0, 35):
        for answer in look(page, turn=turn):
            assert np.shape(answer["curve"]) == (len(panels.ANGLES), 10)
            np.testing.assert_allclose(answer["curve"][(turn + 90) // 5], answer["probabilities"],
                                       atol=2e-4)


def test_the_sliders_move_the_picture(page):
    digit = strokes.as_digit(list(map(np.array, SEVEN))).astype(int)

    def picture(**changes):
        return np.array(look(page, panels=[SMALL], **changes)[0]["picture"])

    np.testing.assert_allclose(picture(), digit, atol=1)
    np.testing.assert_allclose(picture(turn=90), np.rot90(digit, -1), atol=1)  # clockwise
    np.testing.assert_allclose(picture(shift=[3, -2])[:-2, 3:], digit[2:, :-3], atol=1)
    assert picture(scale=0.5).sum() == pytest.approx(digit.sum() / 4, rel=0.05)


def test_sizes_are_those_of_the_model(page):
    first, second = look(page, panels=[QUESTION["panels"][0], SMALL])
    assert np.shape(first["picture"]) == (42, 42)
    assert np.shape(first["views"][0]["seen"]) == (21, 21)  # averaged by its --pool 2
    assert np.shape(second["picture"]) == (28, 28)


def test_many_at_once_get_what_each_alone_gets(page):
    turns = list(range(-80, 80, 10))
    alone = [look(page, turn=turn) for turn in turns]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda turn: look(page, turn=turn), turns)) == alone


@pytest.mark.parametrize(("body", "words"), [
    ("{", "no JSON"), ("[" * 100000, "no JSON"), (b"\xff", "no JSON"),
    ("[]", "an object of strokes"), ({"more": 1}, "an object of strokes"),
    ({"strokes": 1}, "lists"), ({"panels": 1}, "lists"), ({"panels": []}, "one or two"),
    ({"panels": ["a"] * 3}, "one or two"), ({"panels": ["a"]}, "no model 'a' any more"),
    ({"panels": [["a"]]}, "no model ['a']"), ({"panels": [0]}, "no model 0"),
    ({"strokes": []}, "from 1 to"),
    ({"strokes": [[[0, 0]] * 5000]}, "from 1 to 4096 points"), ({"strokes": [[]]}, "points"),
    ({"strokes": [[[0, 2]]]}, "from 0 to 1"), ({"strokes": [[[0, 0], [0]]]}, "points"),
    ({"strokes": [[[0, 0, 0]] * 2]}, "points"), ({"strokes": [["a"]]}, "points"),
    ({"strokes": [[[0, None]]]}, "points"), ({"turn": float("nan")}, "a number from -180 to 180"),
    ({"turn": "1"}, "a number"), ({"turn": [1]}, "a number"), ({"turn": True}, "a number"),
    ({"turn": 10**400}, "a number"), ({"scale": 0}, "a number"), ({"shift": [1]}, "two numbers"),
    ({"shift": [1, 1e9]}, "two numbers"),
])
def test_bad_drawings_are_refused_in_a_line(page, capfd, body, words):
    body = json.dumps({**QUESTION, **body}) if isinstance(body, dict) else body
    status, headers, text = ask(page, "POST", "/look", body)
    assert (status, headers["Content-Type"]) == (400, "text/plain; charset=utf-8")
    assert text.count("\n") == 1
    assert words in text
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("length", ["a", "-1", "9" * 9, "9" * 5000, str(server.LARGEST + 1)])
def test_what_is_too_large_is_not_read(page, length):
    assert ask(page, "POST", "/look", **{"Content-Length": length})[0] == 400


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/etc/passwd", 404), ("GET", "/look", 404), ("POST", "/", 404),
    ("GET", "/../demo.py", 404), ("GET", "/?a", 200), ("PUT", "/", 501),
    ("HEAD", "/", 501)])
def test_other_addresses(page, method, path, status):
    found, headers, text = ask(page, method, path, b"")
    assert (found, headers["X-Content-Type-Options"]) == (status, "nosniff")
    assert status == 200 or text.count("\n") == (method != "HEAD")


def test_a_body_that_does_not_arrive_is_waited_for_some_seconds(page, monkeypatch):
    monkeypatch.setattr(server.Handler, "timeout", 0.2)
    status, _, text = ask(page, "POST", "/look", **{"Content-Length": "9"})
    assert (status, text) == (408, "the body did not arrive within 0.2 s\n")


def test_a_drawing_that_arrives_at_the_end_is_refused(page, monkeypatch):
    closed = ThreadPoolExecutor(1)
    closed.shutdown()
    monkeypatch.setattr(page, "worker", closed)
    status, _, text = ask(page, "POST", "/look", json.dumps(QUESTION))
    assert (status, text) == (503, "this page has come to its end\n")


@pytest.mark.parametrize(("host", "status"), [
    ("127.0.0.1:80", 200), ("localhost", 200), ("LOCALHOST:1", 200), ("[::1]:80", 200),
    ("10.1.2.3", 200), ("example.org", 403), ("127.0.0.1.example.org:80", 403), ("", 403)])
def test_names_of_others_that_lead_here_are_refused(page, host, status):
    assert ask(page, "GET", "/models", Host=host)[0] == status
    assert ask(page, "POST", "/look", json.dumps(QUESTION), Host=host)[0] == status


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_it_says_where_it_is_and_ends_by_ctrl_c(host):
    process = subprocess.Popen(
        [sys.executable, os.path.join(ROOT, "demo.py"), "--port", "0", "--host", host],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
        preexec_fn=hear_interrupts)
    line = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert re.fullmatch(rf"Open http://{re.escape(host)}:\d+/ \(Ctrl-C ends it\)\n", line)
    warning = f"--host {host}: anybody in the network can use the page\n" * (host == "0.0.0.0")
    assert (stdout, stderr) == ("", f"{warning}demo.py: interrupted\n")
    assert process.returncode == 130


def test_an_address_that_cannot_be_had(run_main, refused, page):
    port = page.server_address[1]
    refused(run_main(demo, "--port", port), f"--host 127.0.0.1 --port {port}", "in use")
    refused(run_main(demo, "--host", "192.0.2.1"), "--host 192.0.2.1", "assign")
    refused(run_main(demo, "--host", "a..b"), "--host a..b", "not the name of a machine")
    refused(run_main(demo, "--port", 70000), "--port", "at most 65535")
    refused(run_main(demo, "nothing"), "nothing", "neither the folder of an export")


@pytest.mark.parametrize("channels", [2, 3])
def test_networks_for_other_images_are_refused(run_main, refused, tmp_path, channels):
    shape = (channels, 30, 40)
    symbol = symbols.get_symbol("lenet", image_shape=shape)
    export_folder.export(str(tmp_path / "a"), symbol, *bound(symbol, shape).get_params(), shape)
    refused(run_main(demo, "a"), f"a: made for images of {channels} channels; a drawing has one")


def test_networks_for_whole_numbers_are_refused(run_main, refused, tmp_path):
    shape = (1, 20, 30)
    symbol = symbols.get_symbol("svhn", digits=5, width=2, image_shape=shape)
    export_folder.export(str(tmp_path / "a"), symbol, *bound(symbol, shape).get_params(), shape)
    refused(run_main(demo, "a"), "a: reads whole numbers; a drawing is one digit")


def test_models_of_other_classes_are_not_shown_beside_the_first(run_main, refused, tmp_path):
    for name, classes in (("a", 4), ("b", 10)):
        symbol = symbols.get_symbol("lenet", num_classes=classes)
        export_folder.export(str(tmp_path / name), symbol,
                             *bound(symbol, (1, 28, 28)).get_params(), (1, 28, 28))
    refused(run_main(demo, "a", "b"), "b: its classes are not those of a")
    own, other = (panels.Panel(str(tmp_path / name)) for name in "ab")
    assert demo.of_one_kind([own, other], [own.path]) == [own]  # the other is a published one


def test_answers_that_are_not_finite_are_refused_in_a_line(page, tmp_path, monkeypatch):
    symbol = symbols.get_symbol("mlp", add_stn=False)
    params, _ = bound(symbol, (1, 28, 28)).get_params()
    huge = {name: value * 1e20 for name, value in params.items()}  # finite, unlike their products
    export_folder.export(str(tmp_path / "a"), symbol, huge, {}, (1, 28, 28))
    monkeypatch.setitem(page.networks, "a", panels.Panel(str(tmp_path / "a")))
    status, _, text = ask(page, "POST", "/look", json.dumps({**QUESTION, "panels": ["a"]}))
    assert (status, text) == (500, "what a network answers is not finite\n")


def test_models_of_one_name_are_told_apart_by_their_paths(tmp_path):
    paths = []
    for folder in ("one/models", "two/models"):
        (tmp_path / folder).mkdir(parents=True)
        paths.append(shutil.copytree(os.path.join(trained.PUBLISHED, "mnist-lenet"),
                                     tmp_path / folder / "m"))
    networks = [panels.Panel(str(path)) for path in [*paths, *demo.choice([])[:1]]]
    demo.name_apart(networks)
    assert [network.name for network in networks] == [
        *map(str, paths), QUESTION["panels"][0]]


def test_a_model_of_one_s_own_comes_first_and_each_is_there_once(tmp_path):
    published = os.path.join(trained.PUBLISHED, "mnist-lenet")
    paths = demo.choice(["models/own", os.path.relpath(published)])
    assert paths[:2] == ["models/own", os.path.relpath(published)]
    assert len(paths) == 1 + len(os.listdir(trained.PUBLISHED))


def test_a_folder_beside_the_published_models_is_passed_over(monkeypatch, tmp_path):
    monkeypatch.setattr(trained, "PUBLISHED", str(tmp_path))
    for name in ("a", "b", "other"):
        (tmp_path / name).mkdir()
    for name in ("a", "b"):
        (tmp_path / name / "model-symbol.json").write_text("{}")
    monkeypatch.setattr(demo, "PAIR", ("b",))
    assert [os.path.basename(path) for path in demo.choice([])] == ["b", "a"]


@pytest.mark.skipif(chromium.PATH is None, reason="needs a chromium")
def test_a_browser_draws_moves_and_clears(page, tmp_path):
    says = "[...document.querySelectorAll('.says')].map(told => told.textContent)"
    turn = "document.querySelector('#turn').parentNode.querySelector('output').textContent"
    curves = "[...document.querySelectorAll('path')].filter(path => path.getAttribute('d')).length"
    with chromium.opened(page.url, tmp_path) as shown:
        shown.wait_until("!!document.querySelector('.panel select')")
        left, top, side = shown.value("(({x, y, width}) => [x, y, width])"
                                      "(document.querySelector('#paper').getBoundingClientRect())")
        shown.drag([(left + side * x, top + side * y) for x, y in SEVEN[0]])
        shown.wait_until(f"{says}.every(told => told === '7 ✓')")
        assert shown.value(curves) == 3  # of both networks, and where the slider is
        before = shown.value("document.querySelector('.pose').textContent")
        shown.value("document.querySelector('#turn').focus()")
        for _ in range(30):
            shown.press("ArrowRight")
        assert shown.value(turn) == "30°"
        shown.wait_until("document.querySelector('.pose').textContent !== " + json.dumps(before))
        shown.value("document.querySelector('#clear').click()")
        shown.wait_until(f"{says}.every(told => told === '')")
        shown.value("document.querySelector('#example').click()")
        shown.wait_until(f"{says}[0] === '4 ✓' && {says}[1] === '9 ✗'")
        assert shown.value("[...document.querySelectorAll('.says')].map(told => told.className)"
                           ) == ["says good", "says bad"]
        assert shown.value("document.querySelector('.pose').textContent").startswith("Frame: turn ")
        assert shown.value(curves) == 3
        assert shown.value("document.querySelector('#trouble').textContent") == ""
