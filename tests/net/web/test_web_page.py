"""The page in a real browser without a screen: what it shows is what `rawmosaic render` draws of the same view."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rawmosaic.net.web.deepzoom import mosaic_bounds_um
from rawmosaic.net.web.openseadragon import find_openseadragon
from rawmosaic.net.web.style import Look, style_of
from rawmosaic.storage.errors import SlideError
from rawmosaic.storage.testing import SyntheticSlide
from rawmosaic.viewer import OffscreenViewer

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WINDOW = (900, 600)
DESK = (1280, 800)
PHONE = (390, 844)
TIMEOUT_MS = 30_000
PIXEL_UM = 0.5

SERVER = """
import sys, threading
from rawmosaic.cli.web import EngineRenderer
from rawmosaic.net.web import WebServer
from rawmosaic.storage.testing import SyntheticSlide

slides = {name: SyntheticSlide(**options) for name, options in SLIDES.items()}
with WebServer(slides, EngineRenderer("64M", "64M"), "127.0.0.1:0") as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""
SLIDES = {
    "mosaic": {
        "grid": (4, 5),
        "field_shape": (300, 400),
        "channels": 3,
        "smooth": True,
        "extra_sets": ("registered",),
        "size_z": 3,
    },
    "many": {"grid": (1, 2), "field_shape": (64, 96), "channels": [f"marker {n:02d} of a long panel" for n in range(60)]},
}


def slide_named(name: str) -> SyntheticSlide:
    """The same slide as the server's."""
    return SyntheticSlide(**SLIDES[name])


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server in a process of its own; the connections that a browser keeps are not this one's."""
    try:
        find_openseadragon()
    except SlideError as error:
        pytest.skip(str(error))
    script = SERVER.replace("SLIDES.items()", f"{SLIDES!r}.items()")
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, through the DevTools protocol."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium here (looked for " + ", ".join(BROWSERS) + ")")
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    options = ["--force-color-profile=srgb", *(["--no-sandbox"] if as_root else [])]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=options)
        yield browser
        browser.close()


class Page:
    """A page with what tests ask of it. Whatever the browser complains about is a failure."""

    def __init__(self, browser: Any, url: str, path: str, size: tuple[int, int] = WINDOW, **options: Any):
        self.context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(TIMEOUT_MS)
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self._noted(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self._tools = self.context.new_cdp_session(self.page)
        self.page.goto(url + path)

    def _noted(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text[:300])

    def js(self, expression: str) -> Any:
        """The value of an expression, waited for; not hindered by the page's policy, which forbids to evaluate text."""
        asked = {"expression": expression, "awaitPromise": True, "returnByValue": True, "userGesture": True}
        answer = self._tools.send("Runtime.evaluate", asked)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def settle(self) -> None:
        """Wait until all that is in view is drawn and nothing moves any more."""
        self.page.wait_for_selector("body[data-settled=true]")
        self.js(
            """new Promise((resolve) => {
              let since = performance.now(), frames = 0, before = "";
              const look = () => {
                const now = document.body.dataset.settled + document.getElementById("zoom-text").textContent + location.hash;
                if (now !== before || !now.startsWith("true")) [since, frames] = [performance.now(), 0];
                before = now;
                frames += 1;
                frames > 10 && performance.now() - since > 450 ? resolve() : requestAnimationFrame(look);
              };
              look();
            })"""
        )

    def go(self, hash_: str) -> None:
        """Change the address as a person would."""
        self.js(f"location.hash = {json.dumps(hash_)}")
        self.settle()

    @property
    def hash(self) -> dict[str, str]:
        """The address after the #, each key's last value."""
        return dict(part.split("=", 1) for part in self.page.url.partition("#")[2].split("&"))

    @property
    def view_box(self) -> dict[str, float]:
        return self.page.locator("#view").bounding_box()

    def picture(self) -> np.ndarray:
        """(h, w, 3) uint8 of the mosaic as it is on the screen, without what lies over it."""
        over = "['tools', 'minimap', 'scale-bar', 'readout', 'status'].map((id) => document.getElementById(id).style)"
        self.js(f"{over}.forEach((style) => {{ style.visibility = 'hidden'; }})")
        data = self.page.screenshot(clip=self.view_box, animations="disabled", caret="hide")
        self.js(f"{over}.forEach((style) => {{ style.visibility = ''; }})")
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def close(self) -> None:
        self.context.close()


@pytest.fixture
def open_page(browser: Any, url: str) -> Iterator[Callable[..., Page]]:
    pages: list[Page] = []

    def opened(path: str, *arguments: Any, **options: Any) -> Page:
        pages.append(Page(browser, url, path, *arguments, **options))
        if path.startswith("slides/"):
            pages[-1].settle()
        return pages[-1]

    yield opened
    complaints = [complaint for page in pages for complaint in page.complaints]
    for page in pages:
        page.close()
    assert complaints == []


def aligned_view(page: Page, slide: SyntheticSlide, column: int, row: int, scale: float) -> tuple[float, float, str]:
    """A centre (µm), and its hash, that puts the corner of a full-resolution pixel into the corner of the view."""
    left, top, _, _ = mosaic_bounds_um(slide)
    box = page.view_box
    x = left + PIXEL_UM * (column + 0.5 * box["width"] / scale)
    y = top + PIXEL_UM * (row + 0.5 * box["height"] / scale)
    return round(x, 4), round(y, 4), f"x={x:.4f}&y={y:.4f}&scale={scale:g}"


def rendered(slide: SyntheticSlide, page: Page, x: float, y: float, scale: float, **look: Any) -> np.ndarray:
    """What the engine draws for the same view."""
    size = int(page.view_box["width"]), int(page.view_box["height"])
    with OffscreenViewer(slide, size=size, ram_bytes="64M", vram_bytes="64M") as viewer:
        for number, changes in look.pop("channels", {}).items():
            for name, value in changes.items():
                setattr(viewer.channels[number], name, value)
        for name, value in look.items():
            setattr(viewer, name, value)
        viewer.look_at(x, y, scale=scale)
        return viewer.render()[..., :3]


def compare(picture: np.ndarray, expected: np.ndarray, most: int = 0, share: float = 0.0) -> None:
    """Fail unless at most a `share` of the pixels differs by more than `most`."""
    assert picture.shape == expected.shape
    difference = np.abs(picture.astype(int) - expected).max(axis=2)
    assert (difference > most).mean() <= share, f"up to {difference.max()}, {(difference > most).mean():.2%} above {most}"


def test_the_page_shows_what_the_engine_renders(open_page: Callable[..., Page]):
    slide = slide_named("mosaic")
    page = open_page("slides/mosaic")
    for scale in (1, 0.5, 0.25, 4):
        corner = (480, 280) if scale >= 1 else (-64, -64)
        x, y, hash_ = aligned_view(page, slide, *corner, scale)
        page.go(f"#{hash_}")
        expected = rendered(slide, page, x, y, scale)
        assert expected.any(axis=2).mean() > 0.1
        # reduced: last bits of the filter's weights; magnified: a field may begin inside a screen pixel
        compare(page.picture(), expected, most=0 if scale >= 1 else 1, share=0.02 if scale > 1 else 0.001)


def test_zooming_keeps_the_centre_and_pixels_stay_sharp(open_page: Callable[..., Page]):
    slide = slide_named("mosaic")
    page = open_page("slides/mosaic")
    x, y, hash_ = aligned_view(page, slide, 400, 200, 1)
    page.go(f"#{hash_}")
    page.page.keyboard.press("+")
    page.settle()
    assert float(page.hash["scale"]) == pytest.approx(2)
    assert (float(page.hash["x"]), float(page.hash["y"])) == pytest.approx((x, y), abs=0.001)
    page.page.click("#zoom-out")
    page.settle()
    page.page.click("#zoom-out")
    page.settle()
    assert float(page.hash["scale"]) == pytest.approx(0.5)
    page.page.click("#one-to-one")
    page.settle()
    assert page.page.inner_text("#zoom-text") == "1:1"
    compare(page.picture(), rendered(slide, page, x, y, 1.0), share=0.001)


def test_the_wheel_zooms_where_the_pointer_is(open_page: Callable[..., Page]):
    page = open_page("slides/mosaic#x=300&y=200&scale=1")
    box = page.view_box
    at = box["x"] + 200, box["y"] + 150
    page.page.mouse.move(*at)
    place = page.page.inner_text("#place")
    page.page.mouse.wheel(0, -300)
    page.page.wait_for_selector("#zoom-text:not(:text-is('1:1'))")
    page.settle()
    page.page.mouse.move(at[0] + 1, at[1])
    page.page.mouse.move(*at)
    assert float(page.hash["scale"]) > 1.1
    numbers = [[float(number) for number in re.findall(r"-?[\d.]+", text)] for text in (place, page.page.inner_text("#place"))]
    assert numbers[1] == pytest.approx(numbers[0], abs=0.3)


def test_a_drag_moves_the_mosaic_with_the_hand(open_page: Callable[..., Page]):
    slide = slide_named("mosaic")
    page = open_page("slides/mosaic")
    x, y, hash_ = aligned_view(page, slide, 400, 200, 1)
    page.go(f"#{hash_}")
    page.page.mouse.move(500, 400)
    page.page.mouse.down()
    page.page.mouse.move(450, 380, steps=3)
    page.page.wait_for_timeout(200)  # held still: no flick
    page.page.mouse.move(400, 370, steps=3)
    page.page.wait_for_timeout(200)
    page.page.mouse.up()
    page.settle()
    moved = x + 100 * PIXEL_UM, y + 30 * PIXEL_UM
    assert (float(page.hash["x"]), float(page.hash["y"])) == pytest.approx(moved, abs=0.01)
    compare(page.picture(), rendered(slide, page, *moved, 1.0), share=0.001)


def test_channels_contrast_colour_and_modes_change_the_picture(open_page: Callable[..., Page]):
    slide = slide_named("mosaic")
    page = open_page("slides/mosaic")
    x, y, hash_ = aligned_view(page, slide, 300, 150, 1)
    page.go(f"#{hash_}")
    page.page.keyboard.press("2")
    page.settle()
    compare(page.picture(), rendered(slide, page, x, y, 1.0, channels={1: {"visible": False}}), share=0.001)
    row = page.page.locator(".channel").nth(0)
    for label, value in (("Lower limit", "9000"), ("Upper limit", "21000.5"), ("Gamma", "0.6")):
        row.get_by_label(f"{label} of C0").fill(value)
        page.page.keyboard.press("Tab")
    page.js(
        """(() => {
          const color = document.querySelector('input[type=color]');
          color.value = '#ff8000';
          color.dispatchEvent(new Event('input'));
        })()"""
    )
    page.page.select_option("#overlap", "max")
    page.page.locator("#z").focus()
    page.page.keyboard.press("ArrowRight")
    page.settle()
    changed = {"limits": (9000.0, 21000.5), "gamma": 0.6, "color": "#ff8000"}
    expected = rendered(slide, page, x, y, 1.0, channels={0: changed, 1: {"visible": False}}, overlap="max", z=1)
    compare(page.picture(), expected, share=0.001)
    assert page.hash["c"] == "0,ff8000,9000,21000.5,0.6"
    assert (page.hash["off"], page.hash["overlap"], page.hash["z"]) == ("1", "max", "1")
    page.page.click("#reset-all")
    page.page.select_option("#overlap", "top")
    page.page.keyboard.press("Escape")
    page.js("document.activeElement.blur()")
    page.page.keyboard.press(",")
    page.settle()
    compare(page.picture(), rendered(slide, page, x, y, 1.0), share=0.001)


def test_handles_move_the_limits_and_do_not_cross(open_page: Callable[..., Page]):
    page = open_page("slides/mosaic")
    low, high = page.page.get_by_label("Lower contrast limit of C1"), page.page.get_by_label("Upper contrast limit of C1")
    box = low.bounding_box()
    page.page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] / 2)
    before = [float(page.page.get_by_label(f"{which} limit of C1", exact=True).input_value()) for which in ("Lower", "Upper")]
    low.focus()
    page.page.keyboard.press("End")
    page.settle()
    after = [float(page.page.get_by_label(f"{which} limit of C1", exact=True).input_value()) for which in ("Lower", "Upper")]
    assert after == [before[1] - 1, before[1]]
    page.page.get_by_label("Automatic contrast of C1").click()
    page.settle()
    again = [float(page.page.get_by_label(f"{which} limit of C1", exact=True).input_value()) for which in ("Lower", "Upper")]
    assert again == before
    page.page.get_by_label("Automatic contrast of C1").click()
    stronger = [float(page.page.get_by_label(f"{which} limit of C1", exact=True).input_value()) for which in ("Lower", "Upper")]
    assert before[0] < stronger[0] < stronger[1] < before[1]
    assert float(high.input_value()) == stronger[1]


def test_the_address_brings_back_view_and_style(open_page: Callable[..., Page]):
    first = open_page(
        "slides/mosaic#x=300&y=200&scale=0.7&c=1,00ffff,6000,20000,2&off=2&overlap=feather&positions=registered&z=2"
    )
    address = first.page.url
    second = open_page(address[address.index("slides/") :])
    assert second.page.url == address
    compare(second.picture(), first.picture())
    controls = (
        """[...document.querySelectorAll('input, select')].map((each) => each.type === 'checkbox' ? each.checked : each.value)"""
    )
    assert second.js(controls) == first.js(controls)
    assert second.page.input_value("#overlap") == "feather"
    assert second.page.input_value("#positions") == "registered"
    assert not second.page.get_by_label("Show C2").is_checked()


def test_back_leaves_the_slide_and_forward_comes_to_the_same_view(open_page: Callable[..., Page]):
    page = open_page("")
    page.page.click("text=mosaic")
    page.settle()
    for key in "++1":
        page.page.keyboard.press(key)
        page.settle()
    address = page.page.url
    page.page.go_back()
    assert page.page.title() == "Slides"
    page.page.go_forward()
    page.settle()
    assert page.page.url == address
    assert not page.page.get_by_label("Show C0").is_checked()


def test_a_hash_of_nonsense_shows_the_slide_as_at_first(open_page: Callable[..., Page]):
    plain = open_page("slides/mosaic").hash
    odd = "x=NaN&y=1&scale=-3&c=99,zz,1,2&c=__proto__&c=0,ff,&off=7-1,x&overlap=nope&positions=constructor&z=99&t=-1&%ff"
    assert open_page(f"slides/mosaic#{odd}").hash == plain


def test_nothing_flickers_while_the_style_changes(open_page: Callable[..., Page]):
    page = open_page("slides/mosaic#x=400&y=250&scale=1&c=0,ffffff,0,20000,1&c=1,ffffff,0,20000,1")
    page.js(
        """(() => {
          const canvas = document.querySelector('.openseadragon-canvas canvas');
          window.darkest = 255;
          window.frames = 0;
          const look = () => {
            const { data } = canvas.getContext('2d').getImageData(canvas.width / 2 - 40, canvas.height / 2 - 40, 80, 80);
            let sum = 0;
            for (let at = 0; at < data.length; at += 4) sum += data[at] + data[at + 1] + data[at + 2];
            window.darkest = Math.min(window.darkest, sum / (data.length / 4) / 3);
            window.frames += 1;
            requestAnimationFrame(look);
          };
          look();
        })()"""
    )
    for high in (19000, 18000, 17000, 16000, 15000):
        row = page.page.locator(".channel").nth(0)
        row.get_by_label("Upper limit of C0").fill(str(high))
        page.page.keyboard.press("Tab")
        page.page.wait_for_timeout(60)
    page.settle()
    assert page.js("window.frames") > 20
    assert page.js("window.darkest") > 100
    page.complaints = [text for text in page.complaints if "willReadFrequently" not in text]  # this test's own reading


def test_sixty_channels_are_found_shown_and_hidden(open_page: Callable[..., Page]):
    page = open_page("slides/many#off=0-59")
    assert page.page.locator(".channel").count() == 60
    page.page.fill("#filter", "MARKER 37")
    assert page.page.locator(".channel:visible").count() == 1
    page.page.get_by_label("Show marker 37 of a long panel").check()
    page.settle()
    assert page.hash["off"] == "0-36,38-59"
    assert page.picture().any()
    page.page.click("#show-all")
    page.settle()
    assert "off" not in page.hash


@pytest.mark.parametrize("size", [DESK, PHONE])
@pytest.mark.parametrize("name", ["mosaic", "many"])
def test_nothing_is_clipped_or_overlaps(open_page: Callable[..., Page], size: tuple[int, int], name: str):
    page = open_page(f"slides/{name}", size)
    if size == PHONE:
        page.page.click("#show-panel")
    boxes = page.js(
        """[...document.querySelectorAll('header > *, #tools, #minimap, #scale-bar, #readout, section *, .channel:first-child *')]
          .filter((each) => each.checkVisibility() && !each.closest('option'))
          .map((each) => {
            const { left, top, right, bottom } = each.getBoundingClientRect();
            return [each.id || each.className, left, top, right, bottom];
          })"""
    )
    assert len(boxes) > 12
    for what, left, _, right, _ in boxes:
        assert left >= 0, what
        assert right <= size[0] + 0.5, what
    assert page.js("document.documentElement.scrollWidth") <= size[0]
    if size == DESK:
        assert max(bottom for *_, bottom in boxes) <= size[1]
    over = {box[0]: box[1:] for box in boxes if box[0] in ("tools", "minimap", "scale-bar", "readout")}
    for one, (left, top, right, bottom) in over.items():
        for other, (left2, top2, right2, bottom2) in over.items():
            apart = right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top
            assert one == other or apart, (one, other)


def test_errors_of_the_server_are_shown_as_a_line(open_page: Callable[..., Page]):
    page = open_page("slides/mosaic")
    answer = json.dumps({"error": "failed", "message": "tile 7 is damaged"})
    page.page.route("**/mosaic_files/**", lambda route: route.fulfill(status=500, content_type="application/json", body=answer))
    page.page.keyboard.press("1")
    page.page.wait_for_selector("#status:not([hidden])")
    assert page.page.inner_text("#status") == "tile 7 is damaged"
    page.page.unroute("**/mosaic_files/**")
    page.complaints.clear()  # the browser says so too
    missing = open_page("static/../slides/nobody")
    assert "no slide of this name" in missing.page.content()
    missing.complaints.clear()


def test_a_growing_slide_is_followed(browser: Any, url: str):
    news = {"growing": True, "version": None}

    def answered(route: Any) -> None:
        response = route.fetch()
        info = response.json()
        info["growing"] = news["growing"]
        info["version"] = news["version"] or info["version"]
        route.fulfill(response=response, json=info)

    page = Page(browser, url, "")
    try:
        page.page.route("**/info.json", answered)
        page.page.goto(f"{url}slides/mosaic")
        page.settle()
        assert "growing" in page.page.inner_text("#facts")
        asked: list[str] = []
        page.page.on("request", lambda request: asked.append(request.url))
        news.update(growing=False, version="other")
        page.page.wait_for_selector("#facts:not(:has-text('growing'))", timeout=TIMEOUT_MS)
        page.settle()
        assert any("v=other" in address for address in asked)
        assert page.complaints == []
    finally:
        page.close()


def test_page_and_server_write_a_style_alike(open_page: Callable[..., Page]):
    page = open_page("slides/mosaic")
    slide = slide_named("mosaic")
    info = page.js("fetch(location.pathname + '/info.json').then((answer) => answer.json())")
    defaults = [Look(channel["color"], tuple(channel["limits"]), channel["gamma"]) for channel in info["channels"]]
    for hash_ in (
        "",
        "off=0-2",
        "off=1",
        "c=0,ff8000,100.25,4000,0.7&positions=registered",
        "c=2,00ff00,-5,131071,100&off=0&overlap=feather&z=2",
    ):
        query = page.js(
            f"""import(new URL('../static/style.js', location.href)).then(({{ fromHash, queryText }}) =>
              queryText(fromHash({json.dumps(hash_)}, {json.dumps(info)}).style))"""
        )
        assert style_of(query, slide, defaults).text() == query, hash_


def test_the_list_leads_to_every_slide(open_page: Callable[..., Page]):
    page = open_page("")
    page.page.wait_for_load_state("networkidle")
    assert page.page.locator(".cards .name").all_inner_texts() == list(SLIDES)
    assert page.js("[...document.images].every((image) => image.complete && image.naturalWidth > 8)")
    page.page.click("text=many")
    page.settle()
    assert page.page.title() == "many"
    page.page.click("#back")
    assert page.page.title() == "Slides"


def test_the_minimap_shows_the_whole_and_leads_elsewhere(open_page: Callable[..., Page]):
    page = open_page("slides/mosaic#x=200&y=150&scale=2")
    left, top, right, bottom = mosaic_bounds_um(slide_named("mosaic"))
    box = page.page.locator("#minimap-picture").bounding_box()
    assert box["width"] / box["height"] == pytest.approx((right - left) / (bottom - top), rel=0.03)
    frame = page.page.locator("#minimap-view").bounding_box()
    seen = page.view_box["width"] / 2 * PIXEL_UM / (right - left) * box["width"]
    assert frame["width"] == pytest.approx(seen, abs=5)
    page.page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 0.5 * box["height"])
    page.settle()
    assert float(page.hash["x"]) == pytest.approx(left + 0.75 * (right - left), abs=6)
    assert float(page.hash["y"]) == pytest.approx(0.5 * (top + bottom), abs=6)


def test_the_scale_bar_has_a_round_length_that_is_true(open_page: Callable[..., Page]):
    page = open_page("slides/mosaic")
    for scale, text in ((1, "50 µm"), (0.25, "200 µm"), (64, "1 µm")):
        page.go(f"#x=300&y=200&scale={scale}")
        assert page.page.inner_text("#scale-text") == text
        length_px = float(text.split()[0]) / PIXEL_UM * scale
        assert page.page.locator("#scale-line").bounding_box()["width"] == pytest.approx(length_px, abs=1)


def test_on_a_fine_screen_a_camera_pixel_is_a_pixel_of_the_screen(open_page: Callable[..., Page]):
    page = open_page("slides/mosaic#x=300&y=200&scale=1", (900, 700), device_scale_factor=2)
    assert page.page.inner_text("#zoom-text") == "1:1"
    line = page.page.locator("#scale-line").bounding_box()["width"]
    length_um = float(page.page.inner_text("#scale-text").split()[0])
    assert line == pytest.approx(length_um / PIXEL_UM / 2, abs=1)
    slide = slide_named("mosaic")
    picture = page.picture()
    with OffscreenViewer(slide, size=(picture.shape[1], picture.shape[0]), ram_bytes="64M", vram_bytes="64M") as viewer:
        viewer.look_at(300, 200, scale=1.0)
        compare(picture, viewer.render()[..., :3], most=60, share=0.01)  # the corner lies between pixels
