"""Draws a folder of small coloured pictures, a folder a class, to try things with.

    python -m examples.draw_pictures shapes                       # triangle, square, star, cross
    python -m examples.draw_pictures others --kinds arrow,moon,hexagon

Each shape is turned, scaled and put anywhere, in any colours; 100 pictures of each for training and
50 for the test.
"""
import argparse
import os
import random

from PIL import Image, ImageDraw

TRAIN, TEST, SIZE = 100, 50, 32  # pictures of a kind, and pixels of their sides
KINDS = {  # corners of polygons in a square from -1 to 1
    "triangle": [(0, -1), (0.9, 0.7), (-0.9, 0.7)],
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "star": [(0, -1), (0.25, -0.3), (1, -0.3), (0.4, 0.15), (0.6, 0.9), (0, 0.45), (-0.6, 0.9),
             (-0.4, 0.15), (-1, -0.3), (-0.25, -0.3)],
    "cross": [(-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3), (0.3, 1),
              (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3)],
    "arrow": [(0, -1), (0.8, 0), (0.3, 0), (0.3, 1), (-0.3, 1), (-0.3, 0), (-0.8, 0)],
    "moon": [(0.3, -1), (-0.4, -0.8), (-0.8, 0), (-0.4, 0.8), (0.3, 1), (-0.1, 0.5), (-0.2, 0),
             (-0.1, -0.5)],
    "hexagon": [(-0.5, -0.9), (0.5, -0.9), (1, 0), (0.5, 0.9), (-0.5, 0.9), (-1, 0)],
}


def draw(kind, rng):
    """A picture of a shape: drawn large, turned, made small, and put on a background."""
    shades = [[rng.randint(low, low + 105) for _ in range(3)] for low in rng.choice(((0, 150),
                                                                                     (150, 0)))]
    mask = Image.new("L", (8 * SIZE, 8 * SIZE))
    middle, radius = 4 * SIZE, 2.6 * SIZE
    ImageDraw.Draw(mask).polygon([(middle + radius * x, middle + radius * y)
                                  for x, y in KINDS[kind]], fill=255)
    shift = [rng.uniform(-1, 1) * SIZE for _ in range(2)]
    mask = mask.rotate(rng.uniform(-60, 60), translate=shift)
    size = round(SIZE * rng.uniform(1, 1.5))
    edge = (size - SIZE) // 2
    mask = mask.resize((size, size), Image.BILINEAR).crop((edge, edge, edge + SIZE, edge + SIZE))
    background, ink = (Image.new("RGB", (SIZE, SIZE), tuple(shade)) for shade in shades)
    return Image.composite(ink, background, mask)


def main():
    parser = argparse.ArgumentParser(description="Draws a folder of small coloured pictures.")
    parser.add_argument("folder")
    parser.add_argument("--kinds", default="triangle,square,star,cross",
                        help=f"some of {','.join(KINDS)}")
    args = parser.parse_args()
    kinds = args.kinds.split(",")
    if len(set(kinds).intersection(KINDS)) < len(kinds):
        parser.error(f"--kinds {args.kinds}: there are {','.join(KINDS)}, to be named once")
    try:
        os.makedirs(args.folder)
    except OSError as error:
        parser.error(f"{args.folder!r}: {error.strerror}: name a new folder")
    for part, count in (("train", TRAIN), ("test", TEST)):
        for kind in kinds:
            rng, folder = random.Random(f"{part} {kind}"), os.path.join(args.folder, part, kind)
            os.makedirs(folder)
            for number in range(count):
                draw(kind, rng).save(os.path.join(folder, f"{number}.png"))
    print(f"{args.folder}: {TRAIN} + {TEST} pictures of each: {args.kinds}")


if __name__ == "__main__":
    main()
