"""Tests of the recorder of the terminal tour, and of the images that the README shows."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from tools.tour import COLUMNS, IMAGES, Recorder, Screen, render_animation, render_screenshot
from workers.settings import CHECKOUT

SVG = "{http://www.w3.org/2000/svg}"


def words_of(svg: str) -> list[str]:
    return [text.text or "" for text in ET.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314 - written by us


def test_a_screen_shows_what_is_written_again_instead_of_what_was() -> None:
    screen = Screen()
    screen.feed("heading\n\x1b[?25lone\n\x1b[32mtwo\x1b[0m")
    screen.feed("\r\x1b[2K\x1b[1A\x1b[2Kthree\nfour\n")
    assert screen.lines == ["heading", "three", "four", ""]


def test_frames_of_a_program_on_a_terminal_become_an_animation() -> None:
    recorder = Recorder()
    recorder.type("./run forecast")
    recorder.run(
        ["sh", "-c", "stty size | cut -d' ' -f2; printf 'a < b \\033[1;31mred\\033[0m\\n'"], {"PATH": "/usr/bin:/bin"}
    )
    assert words_of(render_screenshot(recorder.screen.lines)) == ["$", "./run forecast", str(COLUMNS), "a < b", "red"]
    svg = render_animation(recorder.frames)
    assert words_of(svg) == ["$", "./run forecast", str(COLUMNS), "a < b", "red"]
    assert len(re.findall("@keyframes", svg)) == len(recorder.frames) == 3


def test_readme_shows_the_tour_and_three_screenshots_that_need_nothing_else() -> None:
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    images = re.findall(r"docs/img/(terminal-[\w-]+\.svg)", readme)
    assert sorted(images) == sorted(path.name for path in IMAGES.glob("terminal-*.svg"))
    assert len(images) == 4
    for name in images:
        svg = (IMAGES / name).read_text(encoding="utf-8")
        assert not re.search(r"(href|src)=\"(?!#)|url\(|@import", svg), name
        assert words_of(svg), name
    for noun, order_id in re.findall(r"`\./run (explain|show) order (\d+)` +\|", readme.partition("terminal-tour")[2])[
        :2
    ]:
        assert f"./run {noun} order {order_id}" in (IMAGES / f"terminal-{noun}.svg").read_text(encoding="utf-8")
    tour = (IMAGES / "terminal-tour.svg").read_text(encoding="utf-8")
    assert all(f"./run {command}" in tour for command in ("demo", "explain order", "show order"))
