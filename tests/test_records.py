"""RecordIO: against MXNet's own reader and writer, damaged, streamed, and packed from a folder."""
import io
import os
import signal
import struct
import subprocess
import sys
import threading
import tracemalloc

import mxnet as mx
import numpy as np
import pytest
from mxnet import recordio
from PIL import Image

from common.data import records, synthetic
from common.data.batches import ImageIter
from common.data.records import HEADER, MAGIC, Reader, Stream, frame
from tests.conftest import ROOT

COUNT, SHAPE = 30, (3, 12, 10)
JPEG = 3  # levels of 255 by which two builds of one family of JPEG decoders may differ


@pytest.fixture(scope="module")
def noise():
    return synthetic.noise(COUNT, seed=0, image_shape=SHAPE, num_classes=4)


@pytest.fixture(scope="module")
def packed(noise, tmp_path_factory):
    """A .rec file of ``noise``, without an index."""
    path = tmp_path_factory.mktemp("packed") / "a.rec"
    path.write_bytes(b"".join(record(encoded(image), label) for image, label in zip(*noise)))
    return str(path)


def encoded(image, kind="PNG", **options):
    """The bytes of a picture's file, of an image (C, H, W)."""
    file = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0).squeeze()).save(file, kind, **options)
    return file.getvalue()


def record(picture, label=0., number=0, flag=0, array=b""):
    return frame(HEADER.pack(flag, label, number, 0) + array + picture)


PICTURE = encoded(synthetic.noise(1, 0, SHAPE, 1)[0][0])


def smooth(count, shape=(3, 40, 40)):
    """Images that JPEG keeps well, as those of a camera are."""
    coarse = np.random.RandomState(0).randint(0, 256, (count, 6, 6, 3)).astype(np.uint8)
    return [np.asarray(Image.fromarray(image).resize(shape[:0:-1], Image.BICUBIC)).transpose(
        2, 0, 1) for image in coarse]


def by_mxnet(path, shape, count):
    """Images (count, C, H, W) and labels of a .rec file, as MXNet's iterator reads them."""
    batch = mx.io.ImageRecordIter(path_imgrec=path, data_shape=shape, batch_size=count,
                                  preprocess_threads=1, verbose=False).next()
    return batch.data[0].asnumpy(), batch.label[0].asnumpy()


# -- as MXNet reads and writes it

def test_mxnets_iterator_reads_the_same_pixels(packed, noise):
    images, labels = by_mxnet(packed, SHAPE, COUNT)
    own, own_labels = records.load(packed)
    np.testing.assert_array_equal(own, images)
    np.testing.assert_array_equal(own, noise[0])
    np.testing.assert_array_equal(own_labels, labels)
    np.testing.assert_array_equal(own_labels, noise[1])


def test_mxnets_iterator_reads_nearly_the_same_pixels_of_jpeg(tmp_path):
    path = tmp_path / "a.rec"
    path.write_bytes(b"".join(record(encoded(image, "JPEG", quality=90)) for image in smooth(8)))
    images, _ = by_mxnet(str(path), (3, 40, 40), 8)
    np.testing.assert_allclose(records.load(str(path))[0], images, atol=JPEG)


@pytest.mark.parametrize("indexed", [True, False])
def test_what_mxnet_has_packed_is_read(tmp_path, noise, indexed):
    path, index = str(tmp_path / "a.rec"), str(tmp_path / "a.idx")
    writer = recordio.MXIndexedRecordIO(index, path, "w")
    for number, (image, label) in enumerate(zip(*noise)):
        header = recordio.IRHeader(0, float(label), number, 0)
        writer.write_idx(number, recordio.pack(header, encoded(image)))
    writer.close()
    if not indexed:
        os.remove(index)
    for own, given in zip(records.load(path), noise):
        np.testing.assert_array_equal(own, given)


@pytest.mark.parametrize("content", [
    b"", b"1", b"1234", MAGIC, MAGIC * 3, b"a" + MAGIC, b"abcd" + MAGIC + b"12", MAGIC[:3],
    b"ab" + MAGIC * 2 + b"ab" + MAGIC, b"abcd" + MAGIC + b"abc" + MAGIC])
def test_records_are_framed_as_by_mxnet(tmp_path, content):
    path = str(tmp_path / "a.rec")
    writer = recordio.MXRecordIO(path, "w")
    writer.write(content)
    writer.close()
    with open(path, "rb") as file:
        assert file.read() == frame(content)


def test_records_that_hold_the_magic_number_are_joined_again(tmp_path, noise):
    images, _ = noise
    number, = struct.unpack("<I", MAGIC)
    trailing = MAGIC * 2 + b"abcd" + MAGIC
    pictures = [encoded(image) for image in images]
    pictures = [picture + bytes(-len(picture) % 4) + trailing for picture in pictures]
    path = tmp_path / "a.rec"
    path.write_bytes(b"".join(record(picture, 3., number) for picture in pictures))
    assert path.read_bytes().count(MAGIC) == 5 * COUNT
    own, labels = records.load(str(path))
    np.testing.assert_array_equal(own, images)
    assert (labels == 3).all()
    np.testing.assert_array_equal(by_mxnet(str(path), SHAPE, COUNT)[0], images)


def test_an_array_of_one_label(tmp_path):
    path = tmp_path / "a.rec"
    path.write_bytes(record(PICTURE, 0., flag=1, array=struct.pack("<f", 7)))
    images, labels = records.load(str(path))
    assert labels.tolist() == [7]
    assert images.shape == (1, *SHAPE)


# -- what is not good

WHOLE = record(PICTURE)

def parts(*kinds):
    """A record of empty parts."""
    return b"".join(MAGIC + struct.pack("<I", kind << 29) for kind in kinds)


BAD = {
    "empty": (b"", "holds no records"),
    "foreign": (b"neither this nor that", "record 0, at byte 0: not a record: .* pack it again"),
    "foreign end": (WHOLE + b"neither this nor that", f"record 1, at byte {len(WHOLE)}: not a rec"),
    "zeros at the end": (WHOLE + bytes(8), f"record 1, at byte {len(WHOLE)}: not a record"),
    "truncated": (WHOLE[:-1], "record 0, at byte 0: the file ends in it: copy or pack it again"),
    "truncated later": (WHOLE + WHOLE[:-9], "record 1, .*: the file ends in it"),
    "truncated head": (WHOLE + WHOLE[:5], "record 1, .*: the file ends in it"),
    "end of none": (parts(3), "record 0, at byte 0: not a record"),
    "no end": (parts(1, 2, 2), "record 0, at byte 0: the file ends in it"),
    "another in it": (parts(1, 0), "record 0, at byte 0: not a record"),
    "no kind": (parts(5), "record 0, at byte 0: not a record"),
    "not packed": (frame(b"short"), "record 0, at byte 0: too short for a packed picture"),
    "labels": (WHOLE + record(PICTURE, flag=2, array=bytes(8)), "record 1, .*: has 2 labels: pack"),
    "no label": (frame(HEADER.pack(1, 0, 0, 0)), "record 0, .*: has 1 labels: pack it with"),
    "half": (record(PICTURE, 0.5), "record 0, .*: the label 0.5 is no class: pack it with one of"),
    "negative": (record(PICTURE, -1.), "record 0, .*: the label -1.0 is no class"),
    "NaN": (record(PICTURE, np.nan), "record 0, .*: the label nan is no class"),
    "infinite": (record(PICTURE, np.inf), "record 0, .*: the label inf is no class"),
    "no picture": (WHOLE + record(b""),
                   "record 1, .*: not a whole picture in .* or WEBP: pack it anew, as "),
    "raw": (WHOLE + record(bytes(360)),
            "record 1, .*: not a whole picture in .* or WEBP: .* not as raw pixels"),
    "half a picture": (WHOLE + record(PICTURE[:200]), "record 1, .*: not a whole picture"),
    "another size": (
        WHOLE + record(encoded(np.zeros((3, 7, 9), np.uint8))),
        "record 1, .*: a picture of 3 x 7 x 9, but the first has 3 x 12 x 10: say what shape"),
    "grey": (WHOLE + record(encoded(np.zeros((1, 12, 10), np.uint8))),
             "record 1, .*: a picture of 1 x 12 x 10, but the first has 3 x 12 x 10"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_good_is_named(tmp_path, name):
    path = tmp_path / "a.rec"
    content, words = BAD[name]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path}: {words}"):
        records.load(str(path))


def test_a_record_that_is_too_large(tmp_path):
    path = tmp_path / "a.rec"
    with open(path, "wb") as file:
        file.write(MAGIC + struct.pack("<I", 2**27))
        file.truncate(8 + 2**27)
    with pytest.raises(ValueError, match="more than 67108864 bytes: pack smaller pictures"):
        Reader(str(path))


def test_no_file_and_no_shape(tmp_path, packed):
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        Reader(str(tmp_path / "a.rec"))
    for shape in ((2, 8, 8), (3, 0, 8), (3, 8), (3, 2**12, 2**12)):
        with pytest.raises(ValueError, match="expected an image shape of 1 or 3 channels"):
            Reader(packed, shape)


@pytest.mark.parametrize("index", ["", "0\t0\n", "0\n", "a\tb\n"])
def test_an_index_of_another_file_is_refused(tmp_path, index):
    (tmp_path / "a.rec").write_bytes(WHOLE * 2)
    (tmp_path / "a.idx").write_text(index)
    with pytest.raises(ValueError, match="a.idx: not the index of .*a.rec: remove it"):
        Reader(str(tmp_path / "a.rec"))


def test_class_names(tmp_path):
    (tmp_path / "a.rec").write_bytes(WHOLE + record(PICTURE, 2))
    reader = Reader(str(tmp_path / "a.rec"))
    assert reader.class_names() == {}
    (tmp_path / "a.lst").write_text("7\t2.0\ta b/é/1.jpg\n9\t0.000000\tc/2.jpg\n", "utf-8")
    assert reader.class_names() == {0: "c", 2: "a b/é"}
    for line in ("", "1", "1\t3\ta/b", "1\t1\ta/b", "1\t-1\ta/b", "1\tinf\ta/b",
                 "1\t0.5\ta/b", "1\tx\ta/b", "1\t0\t1\ta/b", "1\t0\t\ud800"):
        content = f"1\t0\ta/b\n{line}\n".encode("utf-8", "surrogatepass")
        (tmp_path / "a.lst").write_bytes(content)
        with pytest.raises(ValueError, match=r"a.lst: line 2 is not of a picture in .*: remove"):
            reader.class_names()


def test_class_names_are_composed_and_can_be_shown(tmp_path):
    (tmp_path / "a.rec").write_bytes(WHOLE)
    reader = Reader(str(tmp_path / "a.rec"))
    (tmp_path / "a.lst").write_text("1\t0\te\u0301/a.jpg\n", "utf-8")  # as macOS has it
    assert reader.class_names() == {0: "\u00e9"}
    for name in ("\033[31mx", " ", "a\u2028b"):
        (tmp_path / "a.lst").write_text(f"1\t0\t{name}/a.jpg\n", "utf-8")
        with pytest.raises(ValueError, match="a.lst: line 1: '.* cannot be the name of a class"):
            reader.class_names()


@pytest.mark.parametrize("lines", [
    "1\t0\ta/1.jpg\n2\t0\tb/1.jpg\n3\t2\tc/2.jpg\n",  # a label in two folders
    "1\t0\ta/1.jpg\n2\t2\ta/2.jpg\n", "1\t0\t1.jpg\n2\t2\t2.jpg\n",
    "1\t0\ta/1.jpg\n2\t2\t2.jpg\n",
    "1\t0\ta/1.jpg\n"])  # a label in none
def test_folders_that_are_not_the_classes_do_not_name_them(tmp_path, lines):
    (tmp_path / "a.rec").write_bytes(WHOLE + record(PICTURE, 2))
    (tmp_path / "a.lst").write_text(lines)
    assert Reader(str(tmp_path / "a.rec")).class_names() == {}


def test_a_file_that_changes_under_its_reader(tmp_path):
    path = tmp_path / "a.rec"
    path.write_bytes(WHOLE * 2)
    reader = Reader(str(path))
    path.write_bytes(record(PICTURE, 1) * 2)
    with pytest.raises(ValueError, match="record 1, .*: has changed since the file was opened"):
        reader.picture(1)
    path.write_bytes(WHOLE)
    with pytest.raises(ValueError, match="record 1, .*: the file ends in it"):
        reader.picture(1)


@pytest.mark.parametrize("size", [len(WHOLE) - 9, 20, 0])
def test_a_file_that_is_cut_off_while_a_record_is_read(tmp_path, size):
    class Interrupted(Reader):
        def _content(self, *args):
            os.truncate(path, size)
            return super()._content(*args)

    path = tmp_path / "a.rec"
    path.write_bytes(WHOLE)
    reader = Reader(str(path))
    reader.__class__ = Interrupted
    with pytest.raises(ValueError, match="record 0, at byte 0: the file ends in it"):
        reader.picture(0)


# -- many sizes

def test_pictures_of_many_sizes_are_made_one(tmp_path):
    path = tmp_path / "a.rec"
    large, small = smooth(1, (3, 40, 60))[0], np.full((1, 5, 4), 200, np.uint8)
    path.write_bytes(record(encoded(large)) + record(encoded(small)))
    with pytest.raises(ValueError, match="record 1, .*: a picture of 1 x 5 x 4"):
        records.load(str(path))
    images, _ = records.load(str(path), (3, 20, 30))
    halves = large.reshape(3, 20, 2, 30, 2).mean(axis=(2, 4))
    assert np.abs(images[0] - halves).mean() < 3
    assert (images[1] == 200).all()
    greys, _ = records.load(str(path), (1, 20, 30))
    assert greys.shape == (2, 1, 20, 30)
    np.testing.assert_allclose(greys[0, 0], np.tensordot([0.299, 0.587, 0.114], images[0], 1),
                               atol=2)


# -- streams

def test_a_stream_is_used_as_an_array(packed, noise):
    images, _ = noise
    stream = Stream(Reader(packed))
    assert (len(stream), stream.shape, stream.dtype, stream.ndim) == (
        COUNT, images.shape, images.dtype, images.ndim)
    for which in (np.array([7, 3, 3, -1]), [2], np.arange(COUNT) > 20, np.arange(0)):
        np.testing.assert_array_equal(stream[which], images[which])
    view = stream[20:4:-3][1:]
    assert isinstance(view, Stream)
    np.testing.assert_array_equal(np.asarray(view), images[20:4:-3][1:])
    stream.read_ahead(np.arange(5))
    np.testing.assert_array_equal(view[[0]], images[[17]])
    np.testing.assert_array_equal(stream[np.arange(5)], images[:5])
    stream.read_ahead(np.arange(5))
    np.testing.assert_array_equal(stream[np.arange(6)], images[:6])  # not what was announced


def contents(batches):
    return [(batch.index.tolist(), batch.pad, *(part[0].asnumpy().tolist()
            for part in (batch.data, batch.label))) for batch in batches]


def brighter(images, labels, seed):
    return np.minimum(images, 200) + np.uint8(seed % 50), labels + 1


@pytest.mark.parametrize("options", [
    {}, {"seed": 3}, {"seed": 3, "num_parts": 2, "part_index": 1},
    {"seed": 3, "augment": brighter}])
def test_the_iterator_gives_the_same_of_a_stream_as_of_arrays(packed, noise, options):
    stream = Stream(Reader(packed))
    streamed, whole = (ImageIter(images, noise[1], 7, **options) for images in (stream, noise[0]))
    assert streamed.image_shape == SHAPE
    for epoch, batch in ((0, 0), (1, 0), (5, 1)):
        for batches in (streamed, whole):
            batches.seek(epoch, batch)
        assert contents(streamed) == contents(whole)


class Noting(Reader):
    """Tells which pictures are decoded, and when some number of them are."""

    def __init__(self, path, awaited):
        self.decoded, self.awaited, self.there = [], awaited, threading.Event()
        super().__init__(path)

    def picture(self, number):
        picture = super().picture(number)
        self.decoded.append(number)
        if len(self.decoded) == self.awaited:
            self.there.set()
        return picture


def test_the_next_batch_is_decoded_in_the_background_and_once(packed, noise):
    reader = Noting(packed, awaited=1 + 20)  # the first picture, for the shape, and two batches
    batches = ImageIter(Stream(reader), noise[1], 10, seed=1)
    first = batches.next()
    assert reader.there.wait(60)
    taken = [*first.index, *batches.next().index, *batches.next().index]
    assert sorted(reader.decoded[1:]) == sorted(taken)


def test_a_stream_needs_the_memory_of_its_batches(tmp_path):
    path, count, shape = tmp_path / "a.rec", 60, (3, 100, 100)
    path.write_bytes(record(encoded(np.zeros(shape, np.uint8))) * count)
    batches = ImageIter(Stream(Reader(str(path))), np.zeros(count, int), 2, seed=1)
    tracemalloc.start()
    for _ in batches:
        mx.nd.waitall()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < count * np.prod(shape) / 2


def test_streams_of_other_pictures_have_other_identities(packed, noise, monkeypatch, tmp_path):
    monkeypatch.setattr(records, "IN_MEMORY", 0)
    images, _ = records.load(packed)
    same, _ = records.load(packed)
    assert images.identity() == same.identity()
    assert images[:5].identity() != images.identity() != images[::-1].identity()
    (tmp_path / "b.rec").write_bytes(b"".join(
        record(encoded(255 - image), label) for image, label in zip(*noise)))
    others, _ = records.load(str(tmp_path / "b.rec"))
    assert others.identity() != images.identity()


def test_large_sets_are_streamed(packed, noise, monkeypatch):
    assert isinstance(records.load(packed)[0], np.ndarray)
    monkeypatch.setattr(records, "IN_MEMORY", noise[0].size - 1)
    images, _ = records.load(packed)
    assert isinstance(images, Stream)
    np.testing.assert_array_equal(np.asarray(images), noise[0])


def test_a_stream_of_greys_can_be_without_their_channel(tmp_path):
    drawn, _ = synthetic.noise(5, 0, (1, 12, 10), 2)
    (tmp_path / "a.rec").write_bytes(b"".join(record(encoded(image)) for image in drawn))
    stream = Stream(Reader(str(tmp_path / "a.rec")))
    for images, expected in ((stream, drawn), (stream.with_ndim(3), drawn[:, 0]),
                             (stream.with_ndim(3).with_ndim(4), drawn)):
        assert (images.shape, images.ndim) == (expected.shape, expected.ndim)
        for taken in (slice(1, 4), [4, 0]):
            np.testing.assert_array_equal(np.asarray(images[taken]), expected[taken])


def test_a_picture_that_is_none_ends_the_epoch(tmp_path):
    path = tmp_path / "a.rec"
    path.write_bytes(WHOLE * 5 + record(b"none"))
    batches = ImageIter(Stream(Reader(str(path))), np.zeros(6, int), 3)
    batches.next()
    with pytest.raises(ValueError, match="record 5, .*: not a whole picture"):
        batches.next()


# -- the command

@pytest.fixture
def folder(tmp_path):
    """Six pictures in two classes."""
    images = smooth(6)
    for name, image in zip(("b/1.png", "b/2.jpg", "a c/1.jpg", "a c/2.png", "b/3.PNG", "b/é.jpg"),
                           images):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(image, "PNG" if name.lower().endswith("png") else "JPEG"))
    (tmp_path / "pictures" / ".hidden").write_text("")
    return tmp_path / "pictures"


def listed(path):
    """(label, name) of each picture in a .lst."""
    with open(path, encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    assert [int(number) for number, _, _ in rows] == list(range(len(rows)))
    return [(float(label), name) for _, label, name in rows]


def test_a_folder_is_packed_as_it_is(folder, run_main, tmp_path):
    done = run_main(records, folder, "out/a.rec")
    assert (done.returncode, done.stdout) == (0, "out/a.rec: 6 pictures of 2 classes\n"), done
    assert sorted(os.listdir(tmp_path / "out")) == ["a.idx", "a.lst", "a.rec"]
    path = str(tmp_path / "out" / "a.rec")
    rows = listed(tmp_path / "out" / "a.lst")
    assert sorted(rows) == [(0, "a c/1.jpg"), (0, "a c/2.png"), (1, "b/1.png"), (1, "b/2.jpg"),
                            (1, "b/3.PNG"), (1, "b/é.jpg")]
    reader = Reader(path)
    assert reader.class_names() == {0: "a c", 1: "b"}
    assert reader.labels.tolist() == [label for label, _ in rows] != sorted(reader.labels)
    packed = recordio.MXIndexedRecordIO(str(tmp_path / "out" / "a.idx"), path, "r")
    for number, (label, name) in enumerate(rows):
        header, content = recordio.unpack(packed.read_idx(number))
        assert (header.label, header.id) == (label, number)
        assert content == (folder / name).read_bytes()


@pytest.mark.parametrize("flags", [
    ["--image-shape", "3,24,20"], ["--image-shape", "1,24,20", "--format", "png"],
    ["--format", "jpg", "--quality", "80"], ["--format", "png"]])
def test_a_folder_is_encoded_anew_and_mxnet_reads_it(folder, run_main, tmp_path, flags):
    assert run_main(records, folder, "a.rec", *flags).returncode == 0
    path = str(tmp_path / "a.rec")
    reader = Reader(path)
    assert reader.image_shape == {"3,24,20": (3, 24, 20), "1,24,20": (1, 24, 20)}.get(
        flags[1], (3, 40, 40))
    images, labels = by_mxnet(path, reader.image_shape, 6)
    own, own_labels = records.load(path)
    np.testing.assert_array_equal(own_labels, labels)
    np.testing.assert_allclose(own, images, atol=0 if "png" in flags else JPEG)
    batch = mx.image.ImageIter(6, (3, *reader.image_shape[1:]), path_imgrec=path,
                               path_imgidx=str(tmp_path / "a.idx")).next()
    np.testing.assert_array_equal(batch.label[0].asnumpy(), own_labels)
    np.testing.assert_allclose(batch.data[0].asnumpy()[:, :reader.image_shape[0]], own,
                               atol=0 if "png" in flags else JPEG)


def test_quality(folder, tmp_path):
    sizes = []
    for quality in (None, 95, 30):
        path = str(tmp_path / f"{quality}.rec")
        records.write(str(folder), path, encoding="jpg", quality=quality)
        sizes.append(os.path.getsize(path))
    assert sizes[0] == sizes[1] > sizes[2]


@pytest.mark.parametrize(("make", "flags", "words"), [
    (None, ["a.txt"], "'a.txt': expected the name of a .rec file"),
    (None, ["a.rec", "--image-shape", "2,8,8"], "expected 1 channel for grey, or 3 for colour"),
    (None, ["a.rec", "--image-shape", "3,8"], "expected C,H,W such as 1,28,28"),
    (None, ["a.rec", "--quality", "50"], "the quality is one of JPEG files that are encoded anew"),
    (None, ["a.rec", "--format", "png", "--quality", "50"], "the quality is one of JPEG files"),
    ("c.png", ["a.rec"], "pictures/c.png: in no class"),
    ("b/c.png", ["a.rec"], "pictures/b/c.png: not a whole picture"),
    ("c/.hidden", ["a.rec"], "pictures/c: holds no pictures"),
    ("c/d/e", ["a.rec"], "pictures/c/d: a folder within that of a class: put its pictures into"),
    ("train/d/e", ["a.rec"], "pictures: holds train, with a folder for each class: pack "),
    (None, ["pictures/a.rec"], "where it would be taken for a picture: write it elsewhere"),
    (None, ["pictures/b/a.rec"], "where it would be taken for a picture: write it elsewhere"),
    ("b/\n.png", ["a.rec"], "a name that a .lst cannot hold: rename it"),
])
def test_what_cannot_be_packed_is_refused(folder, run_main, refused, tmp_path, make, flags, words):
    if make:
        (folder / make).parent.mkdir(parents=True, exist_ok=True)
        (folder / make).write_text("no picture")
    done = run_main(records, folder, *flags)
    refused(done, words)
    assert os.listdir(tmp_path) == ["pictures"]


def test_pictures_that_mxnet_does_not_read_are_to_be_encoded_anew(folder, run_main, refused):
    (folder / "b" / "4.gif").write_bytes(encoded(smooth(1)[0], "GIF"))
    refused(run_main(records, folder, "a.rec"), "4.gif: neither JPEG nor PNG, which MXNet reads: "
                                                "give --format")
    assert run_main(records, folder, "a.rec", "--format", "png").returncode == 0


def test_broken_pictures_are_left_out_if_that_is_said(folder, run_main, refused, tmp_path, caplog):
    def packed(name):
        images, labels = records.load(str(tmp_path / name))
        return sorted((label, image.tobytes()) for label, image in zip(labels, images))

    assert run_main(records, folder, "whole.rec").returncode == 0
    (folder / "b" / "0.png").write_text("no picture")
    refused(run_main(records, folder, "a.rec"), "b/0.png: not a whole picture",
            "--broken skip leaves it out")
    done = run_main(records, folder, "a.rec", "--broken", "skip")
    assert (done.returncode, done.stdout) == (0, "a.rec: 6 pictures of 2 classes\n")
    assert "1 of 7 pictures are broken and left out" in caplog.text
    assert packed("a.rec") == packed("whole.rec")
    lines = (tmp_path / "a.lst").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == list("012345")
    for path in folder.glob("*/*"):
        path.write_text("no picture")
    done = run_main(records, folder, "b.rec", "--broken", "skip")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("pictures: none of its pictures is whole\n")
    assert not (tmp_path / "b.rec").exists()


def test_files_that_are_there_are_replaced_if_that_is_said(folder, run_main, refused, tmp_path):
    for name in ("a.lst", "a.idx", "a.rec"):
        (tmp_path / name).write_text("mine")
        refused(run_main(records, folder, "a.rec"), f"{name}: is there already: give --overwrite")
        refused(run_main(records, folder, f"new-{name}/../a.rec"), f"{name}: is there already")
        assert (tmp_path / name).read_text() == "mine"
    assert run_main(records, folder, "a.rec", "--overwrite").returncode == 0
    assert len(Reader(str(tmp_path / "a.rec"))) == 6


KILLED = """
import os, signal, sys
from common import files
from common.data import records

owner, name, calls = getattr(sys.modules[sys.argv[1]], "__dict__"), sys.argv[2], int(sys.argv[3])
real = owner[name]

def call(*args):
    global calls
    calls -= 1
    if calls < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)

owner[name] = call
records.write(sys.argv[4], sys.argv[5], encoding="png", overwrite=True)
"""


@pytest.mark.parametrize(("module", "name", "calls", "new"), [
    ("common.data.records", "frame", 3, False), ("common.files", "remove", 1, False),
    ("os", "replace", 0, False), ("os", "replace", 1, True), ("os", "replace", 2, True)])
def test_killed_at_any_step_what_is_there_fits_together(folder, tmp_path, module, name, calls, new):
    path = str(tmp_path / "a.rec")
    records.write(str(folder), path)
    before = records.load(path)[0]
    done = subprocess.run([sys.executable, "-c", KILLED, module, name, str(calls), str(folder),
                           path], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    after = records.load(path)[0]  # with its index, or without
    np.testing.assert_allclose(after, before, atol=JPEG)
    with open(path, "rb") as file:
        assert (b"\xff\xd8\xff" not in file.read()) == new
    records.write(str(folder), path, overwrite=True)
    np.testing.assert_array_equal(records.load(path)[0], before)
