"""RecordIO, MXNet's format of packed pictures: read, streamed and written.

``python -m common.data.records FOLDER OUT.rec`` packs a folder of pictures, one subfolder a class.

All numbers are little-endian. A file is records. A record is its content in one part, as a rule:
the magic number; a word of 3 bits for the kind of part and 29 for its length; the bytes; zeros up
to a multiple of 4. Content that has the magic number at a multiple of 4 is cut in parts there,
without it. The content is a header (flag, label, two ids), an array of as many labels as the flag
says, and the bytes of a picture's file (mxnet/recordio.py; dmlc/recordio.h).
"""
import concurrent.futures
import contextlib
import copy
import hashlib
import io
import logging
import math
import os
import struct
import unicodedata

import numpy as np

from common import cli, files
from common.data import arrays, class_list, image_files, image_folder

MAGIC = struct.pack("<I", 0xCED7230A)
PART = struct.Struct("<4sI")
HEADER = struct.Struct("<IfQQ")
WHOLE, FIRST, MIDDLE, LAST = range(4)  # kinds of parts
LENGTH_BITS = 29
LABELS = 2**20  # more than any set has classes
IN_MEMORY = 2**30  # bytes of pixels that are loaded as a whole
THREADS = 2  # that decode; small pictures gain nothing by more
CHUNK = 16  # pictures that a thread decodes in one go
KEPT = b"\xff\xd8\xff", image_files.PNG  # what the files that are packed as they are begin with
ENCODINGS = {"jpg": "JPEG", "png": "PNG"}
QUALITY = 95
CUT_OFF = "the file ends in it: copy or pack it again"


class Reader:
    """The labelled pictures of a .rec file, decoded one at a time.

    It is opened by going through the headers of its records. They hold the labels, so that the .idx
    beside it would save nothing; where there is one, it is compared.

    Args:
        path: of the file.
        image_shape: (C, H, W) to make all pictures of, stretched; C is 1 or 3. By default they all
            have to be as the first one.

    Attributes:
        labels: int64 (N,).
        image_shape: (C, H, W).

    Raises:
        ValueError: the file is not good; the message names the record.
        OSError: it cannot be read.
    """

    def __init__(self, path, image_shape=None):
        self.path, self.image_shape, self._resizes = path, image_shape, image_shape is not None
        if self._resizes:
            _check_shape(image_shape)
        self._open = contextlib.ExitStack()
        self._handle = self._open.enter_context(files.reading(path, math.inf)).fileno()
        self._size = os.fstat(self._handle).st_size
        self._offsets, self.labels = self._scan()
        self._check_index(_beside(path, ".idx"))
        if not self._resizes:
            self.image_shape = self.picture(0).shape

    def __len__(self):
        return len(self.labels)

    def sha256(self):
        """Of the whole file, in bytes; it is read for that."""
        digest, offset = hashlib.sha256(), 0
        while offset < self._size:
            part = os.pread(self._handle, 2**20, offset)
            digest.update(part)
            offset += len(part)
            if not part:
                raise ValueError(f"{self.path}: has changed since it was opened: start again")
        return digest.digest()

    def picture(self, number):
        """A picture, uint8 (C, H, W); ValueError if it is none, or not of this shape."""
        offset = self._offsets[number]
        content = self._content(number, offset, self._parts(number, offset)[0])
        if self._label(number, offset, content) != self.labels[number]:
            raise self._fault(number, offset, "has changed since the file was opened: start again")
        flag, *_ = HEADER.unpack_from(content)
        try:
            image = _decoded(self._place(number, offset), content[HEADER.size + 4 * flag:],
                             self.image_shape if self._resizes else None)
        except ValueError as error:
            raise ValueError(f"{error}: pack it anew, as JPEG or PNG, not as raw pixels") from None
        if self.image_shape and image.shape != self.image_shape:
            own, first = map(arrays.in_words, (image.shape, self.image_shape))
            raise self._fault(number, offset, f"a picture of {own}, but the first has {first}: say "
                                              "what shape to make all of them")
        return image

    def class_names(self):
        """The names of the classes, label -> name: their folders, as the .lst beside says.

        There are none without a .lst, nor where its folders are not the classes: where a label is
        in two of them or in none, or two labels are in one, or pictures in none.

        Raises ValueError for a .lst of something else.
        """
        path = _beside(self.path, ".lst")
        lines = files.read(path, files.ARRAYS).splitlines() if os.path.exists(path) else []
        labels, found = set(self.labels.tolist()), set()
        for number, line in enumerate(lines, start=1):
            try:
                _, label, picture = line.decode().split("\t")
                if float(label) not in labels:
                    raise ValueError
            except ValueError:
                raise ValueError(f"{path}: line {number} is not of a picture in {self.path}: "
                                 "remove it, as it only names the classes") from None
            name = unicodedata.normalize("NFC", os.path.dirname(picture))  # as folders' are
            if name and not class_list.is_name(name):
                raise ValueError(f"{path}: line {number}: {name!a} cannot be the name of a class")
            found.add((int(float(label)), name))
        names = dict(sorted(found))
        is_one_to_one = len(names) == len(set(names.values())) == len(found) == len(labels)
        return names if is_one_to_one and all(names.values()) else {}

    def _scan(self):
        """The offsets and labels of all records."""
        offsets, labels, offset = [], [], 0
        while offset < self._size:
            number = len(offsets)
            parts, end = self._parts(number, offset)
            if len(parts) == 1:
                begin, length = parts[0]
                parts = [(begin, min(length, HEADER.size + 4))]  # up to the first of an array
            labels.append(self._label(number, offset, self._content(number, offset, parts)))
            offsets.append(offset)
            offset = end
        if not offsets:
            raise ValueError(f"{self.path}: holds no records")
        return offsets, np.array(labels, np.int64)

    def _parts(self, number, offset):
        """Where the parts of a record begin and how long they are; and where the next begins."""
        parts, kind, start = [], None, offset
        while kind not in (WHOLE, LAST):
            head = os.pread(self._handle, PART.size, offset)
            if len(head) < PART.size:
                raise self._fault(number, start, CUT_OFF)
            magic, word = PART.unpack(head)
            kind, length = word >> LENGTH_BITS, word % 2**LENGTH_BITS
            if magic != MAGIC or kind not in ((MIDDLE, LAST) if parts else (WHOLE, FIRST)):
                raise self._fault(number, start, "not a record: the file is damaged, or no RecordIO"
                                                 ": copy or pack it again")
            parts.append((offset + PART.size, length))
            offset += PART.size + length + -length % 4
            if offset > self._size:
                raise self._fault(number, start, CUT_OFF)
            if offset - start > image_files.LARGEST:
                raise self._fault(number, start, f"more than {image_files.LARGEST} bytes: pack "
                                                 "smaller pictures")
        return parts, offset

    def _content(self, number, offset, parts):
        contents = [os.pread(self._handle, length, begin) for begin, length in parts]
        if list(map(len, contents)) != [length for _, length in parts]:  # cut off meanwhile
            raise self._fault(number, offset, CUT_OFF)
        return MAGIC.join(contents)

    def _label(self, number, offset, content):
        if len(content) < HEADER.size:
            raise self._fault(number, offset, "too short for a packed picture: this is RecordIO of "
                                              "something else; pack pictures by im2rec")
        flag, label, *_ = HEADER.unpack_from(content)
        if flag == 1 and len(content) >= HEADER.size + 4:
            label, = struct.unpack_from("<f", content, HEADER.size)
        elif flag:
            raise self._fault(number, offset, f"has {flag} labels: pack it with one")
        if not (0 <= label < LABELS and label.is_integer()):
            raise self._fault(number, offset, f"the label {label} is no class: pack it with one of "
                                              "0, 1, 2, ...")
        return int(label)

    def _check_index(self, path):
        if not os.path.exists(path):
            return
        lines = files.read(path, files.ARRAYS).splitlines()
        try:
            fits = sorted(int(line.split(b"\t")[1]) for line in lines) == self._offsets
        except (IndexError, ValueError):
            fits = False
        if not fits:
            raise ValueError(f"{path}: not the index of {self.path}: remove it, as it is not "
                             "needed, or pack both again")

    def _place(self, number, offset):
        return f"{self.path}: record {number}, at byte {offset}"

    def _fault(self, number, offset, what):
        return ValueError(f"{self._place(number, offset)}: {what}")


class Stream:
    """Pictures on the disk that are used as an array of uint8 (N, C, H, W) is.

    As of an array, a slice is a view, and whole numbers (n,) take copies: these are decoded, by
    threads. What is announced by ``read_ahead`` is decoded in the background. So what is in memory
    is what has been taken last and what has been announced last, whatever N is.

    Args:
        reader: a ``Reader``.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, reader):
        self.reader, self.ndim = reader, 4
        self._numbers = np.arange(len(reader))
        self._pool = concurrent.futures.ThreadPoolExecutor(THREADS)
        self._announced = None

    def __len__(self):
        return len(self._numbers)

    @property
    def shape(self):
        return (len(self), *self.reader.image_shape[4 - self.ndim:])

    def with_ndim(self, ndim):
        """A view of shape (N, C, H, W), with 4 dimensions; or, of greys, with 3, (N, H, W)."""
        view = copy.copy(self)
        view.ndim = ndim
        return view

    def __getitem__(self, which):
        numbers = self._numbers[which]
        if isinstance(which, slice):
            view = copy.copy(self)
            view._numbers, view._announced = numbers, None
            return view
        announced, self._announced = self._announced, None
        if announced is None or not np.array_equal(announced[0], numbers):
            announced = self._begin(numbers)
        _, images, decoded = announced
        for future in decoded:
            future.result()
        return images.reshape(len(images), *self.shape[1:])

    def __array__(self, dtype=None, copy=None):
        return self[np.arange(len(self))].astype(dtype or self.dtype, copy=False)

    def identity(self):
        """Bytes that tell these pictures from others."""
        return self.reader.sha256() + self._numbers.tobytes()

    def read_ahead(self, which):
        """Begins to decode what is to be taken next."""
        self._announced = self._begin(self._numbers[which])

    def _begin(self, numbers):
        images = np.empty((len(numbers), *self.reader.image_shape), np.uint8)
        return numbers, images, [
            self._pool.submit(self._decode, numbers[start:start + CHUNK],
                              images[start:start + CHUNK])
            for start in range(0, len(numbers), CHUNK)]

    def _decode(self, numbers, images):
        for number, image in zip(numbers, images):
            image[:] = self.reader.picture(number)


def load(path, image_shape=None):
    """Images and labels of a .rec file.

    Args:
        path, image_shape: as for ``Reader``.

    Returns:
        Images (N, C, H, W): uint8, or a ``Stream`` where these would be more than ``IN_MEMORY``
        bytes; and labels (N,), int64.

    Raises:
        ValueError, OSError: as ``Reader``.
    """
    reader = Reader(path, image_shape)
    return pixels(reader), reader.labels


def pixels(reader):
    """The images of a ``Reader``: an array or a ``Stream``, as of ``load``."""
    images = Stream(reader)
    return np.asarray(images) if math.prod(images.shape) <= IN_MEMORY else images


def write(folder, path, image_shape=None, encoding=None, quality=None, overwrite=False,
          skip_broken=False):
    """Packs a folder of pictures, one subfolder a class, in a fixed random order.

    Labels number the subfolders as ``image_folder.in_order`` does. JPEG and PNG files are packed as
    they are, unless a shape or an encoding is asked for. Beside the .rec go its .idx, which says
    where the records begin, and a .lst as im2rec has it: number, label and path of each picture.

    Args:
        folder: of the subfolders.
        path: of the .rec file.
        image_shape: (C, H, W) to make all pictures of, stretched; C is 1 or 3.
        encoding: a key of ``ENCODINGS``; by default "jpg", where pictures are encoded anew.
        quality: of JPEG, from 1 to 100; by default 95.
        overwrite: whether files that are there are replaced. Until all is written, they stay.
        skip_broken: whether what cannot be packed is left out with a warning, where otherwise the
            first such picture ends all.

    Returns:
        The numbers of pictures that are packed, and of classes.

    Raises:
        ValueError: something in the folder is no picture, or in no class; files are there; or what
            is asked for does not fit together.
        OSError: files cannot be read or written.
    """
    if image_shape is not None:
        _check_shape(image_shape)
        encoding = encoding or "jpg"
    if quality is not None and encoding != "jpg":
        raise ValueError("the quality is one of JPEG files that are encoded anew: say so by "
                         "--format jpg or --image-shape")
    if not path.endswith(".rec"):
        raise ValueError(f"{path!r}: expected the name of a .rec file")
    if os.path.realpath(path).startswith(os.path.join(os.path.realpath(folder), "")):
        raise ValueError(f"{path}: within {folder}, where it would be taken for a picture: write "
                         "it elsewhere")
    index, listing = _beside(path, ".idx"), _beside(path, ".lst")
    for one in (path, index, listing):
        files.prepare_output(one)
    there = [one for one in (path, index, listing) if os.path.lexists(one)]
    if there and not overwrite:
        raise ValueError(f"{there[0]}: is there already: give --overwrite to replace it")
    pictures, classes = _listed(folder)
    packed = image_files.read_whole(folder, pictures, lambda picture: _packed(
        os.path.join(folder, picture[1]), image_shape, encoding, quality or QUALITY), skip_broken)
    count = 0
    # The .rec takes its place first, when none is beside it that is not its own: whenever this is
    # killed, what is there fits together.
    with files.replacing(listing) as new_listing, files.replacing(index) as new_index, \
            files.replacing(path) as new_path:
        with open(new_listing, "w", encoding="utf-8") as lst, \
                open(new_index, "w", encoding="ascii") as idx, open(new_path, "wb") as rec:
            for which, content in packed:
                label, name = pictures[which]
                lst.write(f"{count}\t{label:f}\t{name}\n")
                idx.write(f"{count}\t{rec.tell()}\n")
                rec.write(frame(HEADER.pack(0, label, count, 0) + content))
                count += 1
        if not count:
            raise ValueError(f"{folder}: none of its pictures is whole")
        for new in (new_path, new_index, new_listing):  # lest that take time in between
            files.sync(new)
        for one in (index, listing):
            files.remove(one)
    return count, classes


def frame(content):
    """The bytes of a record."""
    parts, begin, found = [], 0, content.find(MAGIC)
    while found >= 0:
        if found % 4 == 0:
            parts.append(content[begin:found])
            begin = found + len(MAGIC)
        found = content.find(MAGIC, found + 1)
    parts.append(content[begin:])
    kinds = [FIRST, *[MIDDLE] * (len(parts) - 2), LAST] if len(parts) > 1 else [WHOLE]
    return b"".join(PART.pack(MAGIC, kind << LENGTH_BITS | len(part)) + part + bytes(-len(part) % 4)
                    for kind, part in zip(kinds, parts))


def _listed(folder):
    """(label, path from the folder) of each picture, shuffled; and the number of classes."""
    pictures, classes = [], image_folder.in_order(_entries(folder))
    for label, name in enumerate(classes):
        if not os.path.isdir(os.path.join(folder, name)):
            raise ValueError(f"{os.path.join(folder, name)}: in no class: {folder} is to hold one "
                             "folder for each class, and nothing else")
        entries = _entries(os.path.join(folder, name))
        if not entries:
            raise ValueError(f"{os.path.join(folder, name)}: holds no pictures: remove it, or put "
                             "some there")
        deeper = [entry for entry in entries if os.path.isdir(os.path.join(folder, name, entry))]
        if deeper and name.lower() in (*image_folder.TRAINS, *image_folder.TESTS):
            raise ValueError(f"{folder}: holds {name}, with a folder for each class: pack "
                             f"{os.path.join(folder, name)}, and other parts by themselves")
        if deeper:
            raise ValueError(f"{os.path.join(folder, name, deeper[0])}: a folder within that of a "
                             f"class: put its pictures into {os.path.join(folder, name)} itself")
        pictures += [(label, f"{name}/{entry}") for entry in entries]
    if not pictures:
        raise ValueError(f"{folder}: holds no folders of pictures, one for each class")
    order = np.random.RandomState(0).permutation(len(pictures))  # lest a part be of one class
    return [pictures[index] for index in order], len(classes)


def _entries(folder):
    """The names in a folder, sorted, without hidden ones."""
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    for name in names:
        if not class_list.is_name(name):
            raise ValueError(f"{os.path.join(folder, name)}: a name that a .lst cannot hold: "
                             "rename it")
    return names


def _packed(path, image_shape, encoding, quality):
    """The bytes of a picture's file: encoded anew or, where there is no encoding, as they are."""
    content = files.read(path, image_files.LARGEST)
    image = _decoded(path, content, image_shape)
    if encoding is None:
        if not content.startswith(KEPT):
            raise ValueError(f"{path}: neither JPEG nor PNG, which MXNet reads: give --format to "
                             "encode the pictures anew")
        return content
    encoded = io.BytesIO()
    arrays.to_pillow(image).save(encoded, ENCODINGS[encoding], quality=quality)
    return encoded.getvalue()


def _decoded(path, content, image_shape):
    """The picture in a file's bytes, uint8 (C, H, W), made of that shape if there is one."""
    channels = None if image_shape else image_files.channels_of(path, content)
    pixels = image_files.decode(path, content, channels, image_shape).pixels
    return pixels if pixels.ndim == 3 else pixels[None]


def _beside(path, ending):
    return os.path.splitext(path)[0] + ending


def _check_shape(image_shape):
    if len(image_shape) != 3 or image_shape[0] not in (1, 3) or min(image_shape) < 1 \
            or math.prod(image_shape[1:]) > image_files.MOST_PIXELS:
        raise ValueError("expected an image shape of 1 or 3 channels, height and width, of up to "
                         f"{image_files.MOST_PIXELS} pixels, such as 3,48,48, "
                         f"got {','.join(map(str, image_shape))}")


def main():
    parser = cli.Parser(prog="common.data.records",
                        description="Packs a folder of pictures into a RecordIO file.")
    flag = parser.add_argument
    flag("folder", help="holds one folder for each class, with its pictures")
    flag("output", help="the .rec file; .idx and .lst go beside it")
    flag("--image-shape", type=cli.picture_shape, metavar="C,H,W",
         help="make all pictures of that size, 1 channel for greys, 3 for colours")
    flag("--format", choices=ENCODINGS,
         help="encode all pictures anew; by default only with --image-shape, as jpg")
    flag("--quality", type=cli.number(int, least=1, most=100), help=f"of jpg; by default {QUALITY}")
    flag("--overwrite", action="store_true", help="replace files that are there")
    flag("--broken", choices=("fail", "skip"), default="fail",
         help="what to do about pictures that cannot be packed")
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    pictures, classes = write(args.folder, args.output, args.image_shape, args.format, args.quality,
                              args.overwrite, args.broken == "skip")
    print(f"{args.output}: {pictures} pictures of {classes} classes")


if __name__ == "__main__":
    cli.run(main)
