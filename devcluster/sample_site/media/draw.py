"""Draws the six pictures of the sample site as flat PNG files, with the standard library only.

Run `python devcluster/sample_site/media/draw.py [FOLDER]`; the same pixels come out every time, and a
test compares them with the committed files. It knows nothing of WordPress or of the posts.
"""

import math
import struct
import sys
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

Colour = tuple[int, int, int]
Point = tuple[float, float]

WIDTH, HEIGHT = 480, 320
SKY, WATER, SHINGLE, GRASS = (214, 232, 240), (86, 142, 166), (222, 205, 170), (142, 172, 112)
WHITE, BLACK, OAK, DARK_OAK = (250, 248, 242), (44, 44, 50), (150, 106, 66), (98, 66, 42)
SLATE, BRICK, CRUST, YELLOW = (92, 98, 112), (180, 92, 66), (128, 80, 42), (240, 200, 90)


class Canvas:
    """A picture of WIDTH x HEIGHT pixels, painted shape over shape; the origin is the top left corner."""

    def __init__(self, background: Colour) -> None:
        self._rows = [[background] * WIDTH for _ in range(HEIGHT)]

    def rectangle(self, left: int, top: int, right: int, bottom: int, colour: Colour) -> None:
        for row in self._rows[max(top, 0) : min(bottom, HEIGHT)]:
            first, last = max(left, 0), min(right, WIDTH)
            row[first:last] = [colour] * (last - first)

    def ellipse(self, centre: Point, radius_x: float, radius_y: float, colour: Colour) -> None:
        for y in range(max(0, int(centre[1] - radius_y)), min(HEIGHT, int(centre[1] + radius_y) + 1)):
            share = 1 - ((y - centre[1]) / radius_y) ** 2
            if share > 0:
                half = radius_x * math.sqrt(share)
                self.rectangle(round(centre[0] - half), y, round(centre[0] + half), y + 1, colour)

    def ring(self, centre: Point, inner: float, outer: float, colour: Colour) -> None:
        for y in range(max(0, int(centre[1] - outer)), min(HEIGHT, int(centre[1] + outer) + 1)):
            height = abs(y - centre[1])
            if height < outer:
                reach = math.sqrt(outer**2 - height**2)
                hole = math.sqrt(inner**2 - height**2) if height < inner else 0.0
                self.rectangle(round(centre[0] - reach), y, round(centre[0] - hole), y + 1, colour)
                self.rectangle(round(centre[0] + hole), y, round(centre[0] + reach), y + 1, colour)

    def polygon(self, corners: Iterable[Point], colour: Colour) -> None:
        points = list(corners)
        edges = list(zip(points, points[1:] + points[:1], strict=True))
        for y in range(HEIGHT):
            crossings = sorted(
                x0 + (y + 0.5 - y0) * (x1 - x0) / (y1 - y0)
                for (x0, y0), (x1, y1) in edges
                if (y0 <= y + 0.5) != (y1 <= y + 0.5)
            )
            for left, right in zip(crossings[::2], crossings[1::2], strict=True):
                self.rectangle(round(left), y, round(right), y + 1, colour)

    def line(self, start: Point, end: Point, thickness: float, colour: Colour) -> None:
        length = math.hypot(end[0] - start[0], end[1] - start[1])
        across_x = (end[1] - start[1]) / length * thickness / 2
        across_y = (start[0] - end[0]) / length * thickness / 2
        self.polygon(
            [
                (start[0] + across_x, start[1] + across_y),
                (end[0] + across_x, end[1] + across_y),
                (end[0] - across_x, end[1] - across_y),
                (start[0] - across_x, start[1] - across_y),
            ],
            colour,
        )

    def png(self) -> bytes:
        palette = sorted({pixel for row in self._rows for pixel in row})
        index = {colour: number for number, colour in enumerate(palette)}
        lines = b"".join(b"\0" + bytes(index[pixel] for pixel in row) for row in self._rows)
        header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 3, 0, 0, 0)
        return (
            b"\x89PNG\r\n\x1a\n"
            + _chunk(b"IHDR", header)
            + _chunk(b"PLTE", b"".join(bytes(colour) for colour in palette))
            + _chunk(b"IDAT", zlib.compress(lines, 9))
            + _chunk(b"IEND", b"")
        )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _wheel(canvas: Canvas, centre: Point, radius: float, paddles: int) -> None:
    for number in range(paddles):
        angle = 2 * math.pi * number / paddles
        tip = (centre[0] + radius * 1.14 * math.cos(angle), centre[1] + radius * 1.14 * math.sin(angle))
        canvas.line(centre, tip, max(3.0, radius / 18), DARK_OAK)
    canvas.ring(centre, radius * 0.94, radius * 1.06, OAK)
    canvas.ellipse(centre, radius / 6, radius / 6, OAK)
    canvas.ellipse(centre, radius / 16, radius / 16, BLACK)


def mill() -> Canvas:
    canvas = Canvas(SKY)
    canvas.ellipse((400, 62), 30, 30, YELLOW)
    canvas.rectangle(0, 210, WIDTH, 240, GRASS)
    canvas.rectangle(0, 240, WIDTH, HEIGHT, WATER)
    canvas.rectangle(130, 110, 330, 245, WHITE)
    canvas.polygon([(112, 112), (170, 46), (290, 46), (348, 112)], SLATE)
    canvas.rectangle(272, 28, 292, 74, BRICK)
    for left in (152, 206, 260):
        canvas.rectangle(left, 132, left + 28, 166, SLATE)
    canvas.rectangle(206, 190, 236, 245, DARK_OAK)
    _wheel(canvas, (362, 226), 46, 12)
    canvas.rectangle(0, 276, WIDTH, 282, SKY)
    canvas.rectangle(40, 232, 130, 250, OAK)
    return canvas


def wheel() -> Canvas:
    canvas = Canvas(SKY)
    canvas.rectangle(0, 0, 90, HEIGHT, WHITE)
    canvas.rectangle(0, 268, WIDTH, HEIGHT, WATER)
    canvas.rectangle(60, 150, 260, 166, DARK_OAK)
    _wheel(canvas, (260, 158), 112, 24)
    canvas.rectangle(0, 286, WIDTH, 292, SKY)
    return canvas


def loaf() -> Canvas:
    canvas = Canvas(WHITE)
    canvas.rectangle(0, 230, WIDTH, HEIGHT, OAK)
    canvas.ellipse((240, 236), 170, 22, DARK_OAK)
    canvas.ellipse((240, 170), 150, 78, CRUST)
    canvas.ellipse((240, 158), 132, 60, (150, 98, 56))
    canvas.line((150, 140), (330, 176), 12, SHINGLE)
    canvas.line((322, 136), (158, 180), 12, SHINGLE)
    for x, y in ((190, 128), (288, 204), (250, 118), (180, 206), (330, 154), (136, 166)):
        canvas.ellipse((x, y), 5, 3, SHINGLE)
    return canvas


def tern() -> Canvas:
    canvas = Canvas(SKY)
    canvas.rectangle(0, 260, WIDTH, HEIGHT, WATER)
    canvas.rectangle(0, 278, WIDTH, 283, SKY)
    canvas.polygon([(225, 150), (300, 146), (206, 24), (186, 20)], SLATE)
    canvas.polygon([(240, 164), (300, 160), (356, 50), (372, 40), (330, 150)], WHITE)
    canvas.ellipse((250, 160), 82, 24, WHITE)
    canvas.polygon([(176, 152), (60, 150), (120, 164), (64, 190), (184, 172)], WHITE)
    canvas.ellipse((330, 150), 26, 20, WHITE)
    canvas.polygon([(306, 148), (312, 132), (334, 128), (354, 138), (357, 148)], BLACK)
    canvas.polygon([(354, 148), (402, 160), (352, 160)], BRICK)
    canvas.line((388, 150), (404, 190), 6, SLATE)
    return canvas


def sensor() -> Canvas:
    canvas = Canvas(SKY)
    canvas.rectangle(0, 230, WIDTH, HEIGHT, WATER)
    canvas.rectangle(120, 30, 150, HEIGHT, DARK_OAK)
    canvas.rectangle(150, 64, 290, 76, SLATE)
    canvas.rectangle(244, 52, 330, 112, WHITE)
    canvas.rectangle(252, 60, 322, 90, SLATE)
    canvas.ellipse((310, 101), 5, 5, BRICK)
    canvas.polygon([(262, 112), (312, 112), (322, 128), (252, 128)], BLACK)
    for number, top in enumerate(range(146, 226, 26)):
        canvas.rectangle(262 - 9 * number, top, 312 + 9 * number, top + 5, YELLOW)
    for number, top in enumerate(range(60, 300, 20)):
        canvas.rectangle(120, top, 136 if number % 2 else 150, top + 4, WHITE)
    return canvas


def site_map() -> Canvas:
    canvas = Canvas(GRASS)
    canvas.polygon(
        [(0, 320), (0, 230), (120, 220), (210, 150), (250, 0), (310, 0), (270, 170), (190, 320)], WATER
    )
    canvas.ellipse((372, 190), 84, 60, WATER)
    canvas.ellipse((386, 196), 16, 10, SHINGLE)
    canvas.line((262, 190), (300, 190), 10, WATER)
    canvas.rectangle(266, 170, 294, 212, WHITE)
    canvas.rectangle(266, 170, 294, 182, SLATE)
    canvas.line((0, 110), (150, 120), 9, SHINGLE)
    canvas.line((150, 120), (196, 148), 9, SHINGLE)
    canvas.line((196, 148), (276, 160), 8, OAK)
    canvas.rectangle(150, 166, 190, 186, BRICK)
    canvas.rectangle(24, 60, 90, 96, SHINGLE)
    canvas.polygon([(440, 20), (450, 56), (440, 48), (430, 56)], BLACK)
    return canvas


PICTURES: dict[str, Callable[[], Canvas]] = {
    "mill.png": mill,
    "wheel.png": wheel,
    "loaf.png": loaf,
    "tern.png": tern,
    "sensor.png": sensor,
    "map.png": site_map,
}


def main(arguments: list[str]) -> None:
    folder = Path(arguments[0]) if arguments else Path(__file__).parent
    for name, draw in PICTURES.items():
        (folder / name).write_bytes(draw().png())


if __name__ == "__main__":
    main(sys.argv[1:])
