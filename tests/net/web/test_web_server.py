"""The server, asked over real HTTP."""

from __future__ import annotations

import io
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from web_client import Answer, FakeRenderer, ask, painted

from rawmosaic.net.web import WebServer
from rawmosaic.net.web.app import SECURITY_HEADERS
from rawmosaic.net.web.deepzoom import DeepZoom, mosaic_bounds_um
from rawmosaic.net.web.server import host_and_port
from rawmosaic.net.web.style import Look, style_of
from rawmosaic.storage.errors import DamagedSlideError, OutOfRangeError, SlideError, UnreachableError
from rawmosaic.storage.testing import GrowingSlide, SyntheticSlide

TILE = "/slides/one/mosaic_files/11/0_0.png"
WAIT_S = 20


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.005)


def in_thread(call: Callable[[], Answer]) -> tuple[threading.Thread, list[Answer]]:
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(call()))
    thread.start()
    return thread, answers


# pages and facts


def test_the_list_names_every_slide_and_runs_no_script_of_theirs(serve: Callable, slide: SyntheticSlide, renderer: FakeRenderer):
    server = serve({"one": slide, '<b onload="x">&': slide}, renderer)
    answer = ask(server, "/")
    text = answer.body.decode()
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert 'href="slides/one"' in text
    assert "&lt;b onload=&quot;x&quot;&gt;&amp;" in text
    assert "<b " not in text
    assert "<script" not in text
    link = re.search(r'href="(slides/%3C[^"]+)"', text)[1]
    assert ask(server, f"/{link}").status == 200
    assert ask(server, f"/{link}/info.json").json["name"] == '<b onload="x">&'


def test_slides_are_listed_as_json(server: WebServer):
    (entry,) = ask(server, "/slides").json["slides"]
    assert entry["name"] == "one"
    assert entry["title"] == "made up"
    assert entry["n_fields"] == 12
    assert entry["channels"] == ["C0", "C1", "C2"]


def test_the_page_asks_for_nothing_that_is_not_there(server: WebServer):
    text = ask(server, "/slides/one").body.decode()
    wanted = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert len(wanted) >= 5
    for path in wanted:
        answer = ask(server, path.replace("../", "/"))
        assert answer.status == 200, path
    for name in re.findall(r'from "\./([^"]+)"', ask(server, "/static/page.js").body.decode()):
        assert ask(server, f"/static/{name}").headers["content-type"] == "text/javascript; charset=utf-8"


def test_pages_hold_no_inline_code_or_style(server: WebServer):
    for path in ("/", "/slides/one"):
        text = ask(server, path).body.decode()
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", text), path


def test_openseadragon_is_served_from_where_it_is_installed(server: WebServer, library: Path):
    assert ask(server, "/static/openseadragon.js").body == library.read_bytes()


def test_without_openseadragon_the_server_says_what_to_type(
    slide: SyntheticSlide, renderer: FakeRenderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RAWMOSAIC_OPENSEADRAGON", str(tmp_path / "nothing"))
    with pytest.raises(SlideError, match="RAWMOSAIC_OPENSEADRAGON"):
        WebServer({"one": slide}, renderer, "127.0.0.1:0")
    monkeypatch.delenv("RAWMOSAIC_OPENSEADRAGON")
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setattr("rawmosaic.net.web.openseadragon.data_folder", lambda: tmp_path / "data folder")
    with pytest.raises(SlideError) as caught:
        WebServer({"one": slide}, renderer, "127.0.0.1:0")
    assert f'npm install --prefix "{tmp_path / "data folder"}" openseadragon@' in str(caught.value)
    assert renderer.n_closed == 2


def test_the_info_tells_what_the_page_shows(server: WebServer, slide: SyntheticSlide):
    info = ask(server, "/slides/one/info.json").json
    assert info["pixel_size_um"] == slide.header.pixel_size_um
    assert (info["size_z"], info["size_t"]) == (2, 1)
    assert [scene["name"] for scene in info["scenes"]] == ["left", "right"]
    assert [(c["name"], c["color"], c["limits"], c["gamma"]) for c in info["channels"]] == [
        ("C0", "#0000ff", [100, 4000], 1),
        ("C1", "#00ff00", [100, 4001], 1),
        ("C2", "#ff0000", [100, 4002], 1),
    ]
    for number, channel in enumerate(info["channels"]):
        assert sum(channel["histogram"]["counts"]) + channel["histogram"]["above"] == slide.histogram(number).sum()
    for entry in info["position_sets"]:
        bounds = mosaic_bounds_um(slide, entry["name"])
        assert entry["bounds_um"] == pytest.approx(bounds)
        assert tuple(entry["size_px"]) == DeepZoom.of(bounds, 0.5).l0_size


def test_the_descriptor_is_that_of_the_position_set(server: WebServer, slide: SyntheticSlide):
    for name in slide.position_sets:
        width, height = DeepZoom.of(mosaic_bounds_um(slide, name), 0.5).l0_size
        answer = ask(server, f"/slides/one/mosaic.dzi?positions={name}")
        assert answer.headers["content-type"].startswith("application/xml")
        assert f'Width="{width}" Height="{height}"'.encode() in answer.body


# tiles


def test_a_tile_shows_its_region_in_its_style(server: WebServer, slide: SyntheticSlide, renderer: FakeRenderer):
    zoom = DeepZoom.of(mosaic_bounds_um(slide, "registered"), 0.5)
    region, (width, height) = zoom.tile(zoom.last_level, 1, 1)
    query = "c=2,ff00ff,20,30,0.5&overlap=max&positions=registered&z=1"
    for ending, media_type in (("png", "image/png"), ("jpeg", "image/jpeg")):
        answer = ask(server, f"/slides/one/mosaic_files/{zoom.last_level}/1_1.{ending}?{query}")
        assert answer.status == 200
        assert answer.headers["content-type"] == media_type
        pixels = np.asarray(Image.open(io.BytesIO(answer.body)))
        assert pixels.shape == (height, width, 3)
        assert np.abs(pixels.astype(int) - painted(region)[:3]).max() <= (0 if ending == "png" else 3)
    (asked_region, size, style), _ = renderer.asked
    assert asked_region == pytest.approx(region)
    assert size == (width, height)
    assert style == style_of(query, slide, [look.look for look in renderer.looks(slide)])
    assert style.looks == ((2, Look("#ff00ff", (20.0, 30.0), 0.5)),)


def test_a_tile_at_hand_is_not_drawn_again(server: WebServer):
    first = ask(server, f"{TILE}?c=0&c=1")
    second = ask(server, f"{TILE}?c=1,00FF00&c=0,,100&overlap=top&z=0")
    assert first == second or (first.body, first.headers["etag"]) == (second.body, second.headers["etag"])
    assert server.n_drawn == 1


def test_who_has_the_tile_is_told_so_without_drawing(server: WebServer):
    etag = ask(server, TILE).headers["etag"]
    drawn = server.n_drawn
    assert re.fullmatch('"[0-9a-f]{32}"', etag)
    for told in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        answer = ask(server, TILE, if_none_match=told)
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["etag"] == etag
    assert server.n_drawn == drawn
    assert ask(server, TILE, if_none_match='"other"').status == 200


def test_other_pixels_have_another_tag(server: WebServer):
    tags = {
        ask(server, path).headers["etag"]
        for path in (
            TILE,
            f"{TILE}?c=0",
            f"{TILE}?c=0,,,4001",
            f"{TILE}?z=1",
            TILE.replace("png", "jpeg"),
            TILE.replace("11/", "9/"),
            "/slides/one/mosaic_files/11/1_0.png",
        )
    }
    assert len(tags) == 7


def test_a_tile_is_kept_for_good_only_under_the_version_of_its_content(server: WebServer):
    version = ask(server, "/slides/one/info.json").json["version"]
    assert "immutable" in ask(server, f"{TILE}?v={version}&c=0").headers["cache-control"]
    for query in ("c=0", "v=other&c=0", f"v={version}&v={version}&c=0"):
        assert ask(server, f"{TILE}?{query}").headers["cache-control"] == "private, no-cache"


def test_a_tile_of_a_growing_slide_is_kept_for_a_moment(serve: Callable, slide: SyntheticSlide, renderer: FakeRenderer):
    growing = GrowingSlide(slide, 12, fields_known=True)
    server = serve({"one": growing}, renderer)
    version = ask(server, "/slides/one/info.json").json["version"]
    before = ask(server, f"{TILE}?v={version}")
    assert before.headers["cache-control"] == "private, max-age=1, must-revalidate"
    growing.grow(10**6)
    growing.refresh()
    info = ask(server, "/slides/one/info.json").json
    assert info["version"] != version
    assert not info["growing"]
    after = ask(server, f"{TILE}?v={info['version']}")
    assert "immutable" in after.headers["cache-control"]
    assert after.headers["etag"] != before.headers["etag"]


def test_a_tile_drawn_while_the_slide_grew_is_not_kept(serve: Callable, slide: SyntheticSlide, renderer: FakeRenderer):
    growing = GrowingSlide(slide, 12, fields_known=True)
    server = serve({"one": growing}, renderer)
    renderer.gate.clear()
    thread, answers = in_thread(lambda: ask(server, TILE))
    assert renderer.started.wait(WAIT_S)
    growing.grow(3)
    growing.refresh()
    renderer.gate.set()
    thread.join(WAIT_S)
    assert answers[0].status == 200
    assert answers[0].headers["cache-control"] == "no-store"
    assert "etag" not in answers[0].headers


def test_an_incomplete_tile_says_so_and_is_not_kept(server: WebServer, renderer: FakeRenderer):
    renderer.told_failures = ("field 3 cannot be read: ∅\r\nX: y", "field 4")
    answer = ask(server, TILE)
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["rawmosaic-incomplete"] == "field 3 cannot be read: X: y"
    renderer.told_failures = ()
    assert "rawmosaic-incomplete" not in ask(server, TILE).headers


def test_head_is_get_without_the_body(server: WebServer):
    for path in (
        "/",
        "/slides",
        "/slides/one",
        "/slides/one/info.json",
        "/slides/one/mosaic.dzi",
        TILE,
        "/static/page.css",
        "/no",
    ):
        get, head = ask(server, path), ask(server, path, "HEAD")
        assert head.status == get.status
        assert head.body == b""
        assert {k: v for k, v in head.headers.items() if k != "date"} == {k: v for k, v in get.headers.items() if k != "date"}


def test_many_who_ask_for_one_tile_have_it_drawn_once(server: WebServer, renderer: FakeRenderer):
    renderer.gate.clear()
    waiting = [in_thread(lambda: ask(server, TILE)) for _ in range(6)]
    assert renderer.started.wait(WAIT_S)
    renderer.gate.set()
    for thread, _ in waiting:
        thread.join(WAIT_S)
    assert len({answers[0].body for _, answers in waiting}) == 1
    assert server.n_drawn == 1


def test_a_tile_that_nobody_waits_for_any_more_is_not_drawn(server: WebServer, renderer: FakeRenderer):
    ask(server, "/slides/one/info.json")
    renderer.gate.clear()
    first, first_answers = in_thread(lambda: ask(server, TILE))
    assert renderer.started.wait(WAIT_S)
    queue = server._queue
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as leaving:
        leaving.sendall(b"GET /slides/one/mosaic_files/11/1_0.png HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: len(queue._waiting) == 1)
        future = queue._waiting[0][0]
    until(future.cancelled)
    third, third_answers = in_thread(lambda: ask(server, "/slides/one/mosaic_files/11/0_1.png"))
    until(lambda: len(queue._waiting) == 2)
    renderer.gate.set()
    for thread in (first, third):
        thread.join(WAIT_S)
    assert [first_answers[0].status, third_answers[0].status] == [200, 200]
    assert len(renderer.asked) == 2


def test_one_of_two_may_leave_and_the_other_gets_the_tile(server: WebServer, renderer: FakeRenderer):
    ask(server, "/slides/one/info.json")
    renderer.gate.clear()
    first, _ = in_thread(lambda: ask(server, TILE))
    assert renderer.started.wait(WAIT_S)
    path = "/slides/one/mosaic_files/11/1_0.png"
    staying, answers = in_thread(lambda: ask(server, path))
    until(lambda: len(server._queue._waiting) == 1)
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as leaving:
        leaving.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        time.sleep(0.2)
    time.sleep(0.2)
    renderer.gate.set()
    for thread in (first, staying):
        thread.join(WAIT_S)
    assert answers[0].status == 200
    assert len(renderer.asked) == 2


# what is wrong

NOT_THERE = [
    "/nothing",
    "/slides/",
    "/slides/two",
    "/slides/two/info.json",
    "/slides/one/",
    "/slides/one/info.json/",
    "/slides/one/overview/info.json",
    "/slides/one/mosaic_files/12/0_0.png",
    "/slides/one/mosaic_files/-1/0_0.png",
    "/slides/one/mosaic_files/10/2_0.png",
    "/slides/one/mosaic_files/10/0_9.png",
    "/slides/one/mosaic_files/10/-1_0.png",
    "/slides/one/mosaic_files/99999999999999999999/0_0.png",
    "/slides/one/mosaic_files/10/999999999_999999999.png",
    "/slides/one/mosaic_files/10/99999999999999999999999_0.png",
    "/slides/one/mosaic_files/10/0_0.gif",
    "/slides/one/mosaic_files/10/0_0.png/",
    "/slides/one/mosaic_files/10/0_0",
    "/slides/one/mosaic_files/10/0_0.PNG",
    "/slides/one/mosaic_files/10/%30_%30.png%00",
    "/slides/one/mosaic_files/1e1/0_0.png",
    "/slides/one/mosaic_files/10/%D9%A0_%D9%A0.png",
    "/static/",
    "/static/page.html",
    "/static/list.html",
    "/static/slide.html",
    "/static/../server.py",
    "/static/..%2fserver.py",
    "/static/%2e%2e/%2e%2e/server.py",
    "/static/....//server.py",
    "/static//etc/passwd",
    "/static/%2fetc%2fpasswd",
    "/static/..\\server.py",
    "/static/page.css%00.js",
    "/slides/../../etc/passwd",
    "/slides/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "/slides/..%5c..%5cwindows/info.json",
    "//etc/passwd",
    "/%",
    "/%zz/%ff",
]


def test_what_is_not_there_is_404_and_json(server: WebServer):
    for path in NOT_THERE:
        answer = ask(server, path)
        assert answer.status == 404, path
        assert answer.headers["content-type"] == "application/json"
        assert set(answer.json) == {"error", "message"}
        assert str(Path(__file__).parents[3]) not in answer.body.decode()


def test_a_bad_style_is_400_with_the_limits(server: WebServer):
    for query, *words in (
        ("c=3", "channel '3'", "0 to 2"),
        ("c=0,ffffff,0,1e99", "contrast limit", "131071"),
        ("z=99999999999999999999999999", "z", "0 to 1"),
        ("positions=../../etc/passwd", "position set", "stage, registered"),
        ("overlap=%00", "overlap mode", "feather"),
        ("<script>", "style"),
        ("c=" + "0" * 40000, "style", "32768"),
    ):
        for path in (TILE, "/slides/one/mosaic.dzi"):
            answer = ask(server, f"{path}?{query}")
            assert answer.status == 400, query
            assert all(word in answer.json["message"] for word in words)
            assert len(answer.json["message"]) < 400


def test_other_methods_are_refused(server: WebServer):
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
        answer = ask(server, TILE, method, content_length="0")
        assert answer.status == 405
        assert "GET and HEAD" in answer.json["message"]


def test_every_answer_has_the_security_headers(server: WebServer, renderer: FakeRenderer):
    paths = ["/", "/slides", "/slides/one", TILE, f"{TILE}?z=9", "/static/page.js", "/nothing", "/slides/one/info.json"]
    answers = [ask(server, path) for path in paths]
    answers.append(ask(server, TILE, if_none_match=answers[3].headers["etag"]))
    answers.append(ask(server, "/", host="evil.example"))
    renderer.error = RuntimeError("on purpose")
    answers.append(ask(server, f"{TILE}?c=1"))
    for answer in answers:
        assert SECURITY_HEADERS.items() <= answer.headers.items()
        assert "unsafe" not in answer.headers["content-security-policy"]
    assert [answer.status for answer in answers] == [200, 200, 200, 200, 400, 200, 404, 200, 304, 421, 500]


def test_a_page_of_somebody_else_cannot_read_what_is_served_here(server: WebServer):
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost@evil.example", ""):
        answer = ask(server, "/slides", host=host)
        assert answer.status == 421, host
        assert "localhost" in answer.json["message"]


def test_the_server_is_called_by_its_own_names(serve: Callable, slide: SyntheticSlide, renderer: FakeRenderer):
    server = serve({"one": slide}, renderer, hosts=["slides.example"])
    for host in ("localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:99", "slides.example"):
        assert ask(server, "/slides", host=host).status == 200, host


def test_a_damaged_slide_is_told_without_its_path(server: WebServer, renderer: FakeRenderer):
    renderer.error = DamagedSlideError("tile 7 is damaged", location="/secret/place/slide.h5")
    answer = ask(server, TILE)
    assert (answer.status, answer.json["message"]) == (500, "tile 7 is damaged")
    renderer.error = UnreachableError("the dealer is gone", location="tcp://10.0.0.1:5555")
    assert ask(server, TILE).status == 502
    renderer.error = KeyError("/secret/place")
    answer = ask(server, TILE)
    assert answer.status == 500
    assert b"secret" not in answer.body
    renderer.error = None
    assert ask(server, TILE).status == 200


def test_more_than_is_drawn_in_time_is_asked_for_again(serve: Callable, slide: SyntheticSlide, renderer: FakeRenderer):
    server = serve({"one": slide}, renderer)
    server._queue._most_waiting = 1
    ask(server, "/slides/one/info.json")
    renderer.gate.clear()
    first, _ = in_thread(lambda: ask(server, TILE))
    assert renderer.started.wait(WAIT_S)
    second, answers = in_thread(lambda: ask(server, f"{TILE}?c=0"))
    until(lambda: len(server._queue._waiting) == 1)
    third, _ = in_thread(lambda: ask(server, f"{TILE}?c=1"))
    second.join(WAIT_S)
    assert answers[0].status == 503
    assert answers[0].headers["retry-after"] == "1"
    renderer.gate.set()
    for thread in (first, third):
        thread.join(WAIT_S)


def test_bytes_that_are_no_http_harm_nobody(server: WebServer):
    for data in (
        b"\0" * 1000,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 20000,
        b"GET " + b"/" * 200000,
        b"\x16\x03\x01",
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as client:
            try:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                while client.recv(4096):
                    pass
            except ConnectionError:
                pass
    assert ask(server, "/slides").status == 200


# life


def test_closing_does_not_wait_for_who_still_asks(serve: Callable, slide: SyntheticSlide, renderer: FakeRenderer):
    server = serve({"one": slide}, renderer)
    ask(server, "/slides/one/info.json")
    renderer.gate.clear()
    first, _ = in_thread(lambda: ask(server, TILE))
    assert renderer.started.wait(WAIT_S)
    second, answers = in_thread(lambda: ask(server, f"{TILE}?c=0"))
    until(lambda: len(server._queue._waiting) == 1)
    threading.Timer(0.2, renderer.gate.set).start()
    server.close()
    server.close()
    first.join(WAIT_S)
    second.join(WAIT_S)
    assert answers[0].status == 503
    assert renderer.n_closed == 1
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S).close()


def test_answers_do_not_wait_for_acknowledgements(server: WebServer):
    assert server._socket.proto == socket.IPPROTO_TCP  # else asyncio leaves TCP_NODELAY off, and a small tile takes 40 ms more


def test_a_port_that_is_taken_is_told(server: WebServer, slide: SyntheticSlide):
    other = FakeRenderer()
    with pytest.raises(UnreachableError, match="choose another port"):
        WebServer({"one": slide}, other, f"127.0.0.1:{server.port}")
    assert other.n_closed == 1


def test_the_owner_can_draw_in_its_own_thread(serve: Callable, slide: SyntheticSlide, renderer: FakeRenderer):
    server = serve({"one": slide}, renderer, draws_in_thread=False)
    thread, answers = in_thread(lambda: ask(server, TILE))
    thread_of_close = threading.Thread(target=lambda: (thread.join(WAIT_S), server.close()))
    thread_of_close.start()
    server.draw()
    thread_of_close.join(WAIT_S)
    assert answers[0].status == 200
    assert threading.current_thread().name in renderer.threads


@pytest.mark.parametrize(
    ("bind", "found"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:*", ("localhost", 0)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
    ],
)
def test_an_address_is_host_and_port(bind: str, found: tuple[str, int]):
    assert host_and_port(bind) == found


@pytest.mark.parametrize("bind", ["", "8080", ":8080", "host", "host:", "host:-1", "host:65536", "host:٨", "http://host:80/"])
def test_what_is_no_address_is_refused(bind: str):
    with pytest.raises(OutOfRangeError, match="write HOST:PORT"):
        host_and_port(bind)
