"""Flamenco's words, forms, compilers and parsers: the pure half of the dialect."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.dialects import flamenco_words as words
from orchestra.dialects.flamenco_compilers import (
    MARK_COMMAND,
    BlenderRender,
    Compilers,
    Piece,
    Place,
    PrintString,
    TiledBlenderRender,
    usual_compilers,
)
from orchestra.dialects.flamenco_forms import read_form
from orchestra.dialects.flamenco_parsers import PARSERS, Activity, fraction, read_activity
from orchestra.dialects.wire import WireRequest
from orchestra.errors import Malformed, NotFound
from orchestra.statemachine.lifecycles import JobStatus, TaskStatus, WorkerStatus

LINUX = Place("Linux 6.1", pull=False)


def test_every_status_has_a_word_on_the_other_side():
    assert set(words.TASK_WORD) == set(TaskStatus)
    assert set(words.JOB_WORD) == set(JobStatus)
    assert set(words.JOB_AS_TASK) == set(JobStatus)
    assert set(words.CONNECTION) == set(WorkerStatus)
    assert set(words.HAPPENING) == set(words.FlamencoTask)
    assert set(words.POSTED_WORD) == set(words.FlamencoTask)
    assert set(words.TASK_WORD.values()) == set(words.FlamencoTask)
    assert set(words.JOB_WORD.values()) == set(words.FlamencoJob)
    for word in words.FlamencoTask:
        assert words.report_word(word.value) is word
    assert words.report_word("rendering") is None
    every = {words.worker_word(paused=p, held=h) for p in (False, True) for h in (0, 1)}
    assert every == set(words.FlamencoWorker)


def _request(body: bytes, kind: str) -> WireRequest:
    return WireRequest("POST", "/", {}, {}, {"content-type": kind}, body)


def test_a_form_json_and_multipart_are_read_alike():
    form = read_form(_request(b"task_id=12&settings=%7B%7D", "application/x-www-form-urlencoded"))
    same = read_form(
        _request(b'{"task_id": 12, "settings": "{}", "log": null}', "application/json")
    )
    body = (
        b'--AbC\r\nContent-Disposition: form-data; name="task_id"\r\n\r\n12\r\n'
        b'--AbC\r\nContent-Disposition: form-data; name="settings"\r\n\r\n{}\r\n'
        b'--AbC\r\nContent-Disposition: form-data; name="taskfile"; filename="t.zip"\r\n'
        b"Content-Type: application/zip\r\n\r\nPK\r\n\x00\r\n--AbC--\r\n"
    )
    multi = read_form(_request(body, "multipart/form-data; boundary=AbC"))
    assert form.fields == same.fields == multi.fields == {"task_id": "12", "settings": "{}"}
    assert multi.files == {"taskfile": b"PK\r\n\x00"}
    assert form.number("task_id", None, 0, 99) == 12


@pytest.mark.parametrize("text", ["-1", "100", "1e3", "", " 1", "1" * 30, "٣", "0x1"])
def test_a_number_out_of_its_bounds_is_refused(text: str):
    with pytest.raises(Malformed, match="task_id"):
        read_form(WireRequest("POST", "/", {}, {"task_id": text}, {}, b"")).number(
            "task_id", None, 0, 99
        )


@given(
    st.binary(max_size=200),
    st.sampled_from(["application/json", "multipart/form-data; boundary=x", "a/b", ""]),
)
def test_any_bytes_are_a_form_or_malformed(body: bytes, kind: str):
    with contextlib.suppress(Malformed):
        form = read_form(_request(body, kind))
        assert all(isinstance(each, str) for each in form.fields.values())


def test_the_command_of_the_real_manager():
    render = BlenderRender(
        {"linux": "/path/blender"}, render_settings={"hd": "/srv/hd.py"}, autoexec=True
    )
    settings = render.read(
        '{"frame_start": 5, "frame_end": 10, "file_path_linux": "/srv/a.blend",'
        ' "output_path_linux": "/srv/out/##", "render_settings": "hd", "extra": [1]}'
    )
    assert " ".join(render.command(settings, render.name, Piece(5, 10), LINUX)) == (
        "/path/blender --background /srv/a.blend --render-output /srv/out/## --python /srv/hd.py"
        " --frame-start 5 --frame-end 10 --render-format PNG --render-anim --enable-autoexec"
    )
    pulled = render.command(settings, render.name, Piece(5, 10), Place("Linux", pull=True))
    assert pulled[:3] == (MARK_COMMAND, "--background", "==jobpath==/a.blend")
    with pytest.raises(Malformed, match="no path for osx"):
        render.command(settings, render.name, Piece(5, 10), Place("Darwin 14.1.0", pull=False))


def test_scripts_in_files_do_not_run_unless_the_operator_says_so():
    render = BlenderRender()
    settings = render.read('{"frame_start":1,"frame_end":1,"filepath":"/a","output_path":"/o"}')
    argv = render.command(settings, render.name, Piece(1, 1), LINUX)
    assert argv[1:4] == ("--background", "--disable-autoexec", "/a")
    assert "--enable-autoexec" not in argv


@pytest.mark.parametrize(
    ("size", "expected"),
    [(5, [(5, 9), (10, 14), (15, 16)]), (100, [(5, 16)]), (1, [(n, n) for n in range(5, 17)])],
)
def test_the_last_chunk_is_what_remains(size: int, expected: list[tuple[int, int]]):
    render = BlenderRender()
    settings = render.read(f'{{"frame_start":5,"frame_end":16,"chunk_size":{size}}}')
    items = [b'{"first":%d,"last":%d}' % pair for pair in expected]
    assert list(render.chunks(settings)) == items


@given(st.integers(0, 400), st.integers(0, 400), st.integers(1, 500))
def test_chunks_hold_every_frame_once(first: int, count: int, size: int):
    render = BlenderRender()
    last = first + count
    text = f'{{"frame_start":{first},"frame_end":{last},"chunk_size":{size}}}'
    frames: list[int] = []
    for item in render.chunks(render.read(text)):
        low, high = (int(part.partition(b":")[2]) for part in item.strip(b"{}").split(b","))
        assert high - low < size
        frames += range(low, high + 1)
    assert frames == list(range(first, last + 1))


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "[]",
        "null",
        '{"frame_start": 2, "frame_end": 1}',
        '{"frame_start": -1, "frame_end": 1}',
        '{"frame_start": 1, "frame_end": 1048575}',
        '{"frame_start": 1, "frame_end": 2, "chunk_size": 0}',
        '{"frame_start": "1", "frame_end": 2}',
        '{"frame_start": true, "frame_end": 2}',
        '{"frame_start": 1, "frame_end": 2, "filepath": "--python-expr"}',
        '{"frame_start": 1, "frame_end": 2, "filepath": "-b"}',
        '{"frame_start": 1, "frame_end": 2, "filepath": "relative.blend"}',
        '{"frame_start": 1, "frame_end": 2, "filepath": "/srv/../etc/passwd"}',
        '{"frame_start": 1, "frame_end": 2, "filepath": "C:\\\\a\\\\..\\\\b"}',
        '{"frame_start": 1, "frame_end": 2, "filepath": "/a\\u0000b"}',
        '{"frame_start": 1, "frame_end": 2, "filepath": "/elsewhere/a.blend"}',
        '{"frame_start": 1, "frame_end": 2, "format": "PNG --python-expr x"}',
        '{"frame_start": 1, "frame_end": 2, "render_settings": "/tmp/evil.py"}',
        '{"frame_start": 1, "frame_end": 2, "render_settings": "os.system"}',
    ],
)
def test_settings_never_become_code_nor_options(settings: str):
    with pytest.raises(Malformed):
        BlenderRender(roots=("/srv",)).read(settings)


@given(st.text(max_size=300))
def test_any_settings_are_read_or_malformed(text: str):
    for compiler in usual_compilers().by_name.values():
        with contextlib.suppress(Malformed):
            assert isinstance(compiler.read(text), compiler.settings)


@pytest.mark.parametrize("name", ["os", "orchestra.cli", "../evil", "", "__class__"])
def test_a_type_is_looked_up_and_never_imported(name: str):
    with pytest.raises(NotFound, match="type"):
        usual_compilers().named(name)


def test_tiles_come_before_their_merge():
    tiled = TiledBlenderRender(BlenderRender(), "/srv/tile.py", "/srv/merge")
    settings = tiled.read(
        '{"frame_start":7,"frame_end":7,"filepath":"/srv/a.blend","output_path":"/srv/o"}'
    )
    tiles, merge = tiled.stages(settings)
    assert tiles.over is not None
    assert len(tiles.over) == 4
    assert merge.after == (tiles.name,)
    argv = tiled.command(settings, tiles.app, Piece(7, 7, 2), LINUX)
    assert argv[argv.index("--render-output") + 1] == "/srv/o-2"
    assert argv[-3:] == ("--", "2", "4")
    joined = tiled.command(settings, merge.app, Piece(), LINUX)
    assert joined == ("/srv/merge", "/srv/o", "/srv/o-0", "/srv/o-1", "/srv/o-2", "/srv/o-3")


def test_two_compilers_can_not_have_one_word():
    with pytest.raises(Malformed, match="print_string"):
        Compilers((PrintString(), PrintString()))


LOG = """Fra:3 Mem:12.00M (Peak 12.00M) | Time:00:00.50 | Remaining:00:01.20 | Mem:1M | Scene | Sample 4/8
Saved: '/srv/out/f-000003.png'
Fra:4 Mem:12.00M (Peak 12.00M) | Time:00:00.50 | Mem:1M, Peak:1M | Scene | Rendering
"""


def test_progress_and_the_last_picture_from_the_log():
    parser = PARSERS["blender_render"]
    half = parser.feed(Activity(), LOG.splitlines()[0])
    assert (half.current_frame, half.remaining, half.part) == (3, "00:01.20", 0.5)
    assert fraction(half, 3, 4) == 0.25
    seen = parser.feed(Activity(), LOG)
    assert (seen.thumbnail, seen.saved) == ("/srv/out/f-000003.png", 1)
    assert (seen.current_frame, seen.process) == (4, "Rendering")
    assert fraction(seen, 3, 4) == 0.5
    old = parser.feed(Activity(), "Saved: /srv/f-1.png Time: 00:01.23 (Saving: 00:00.01)")
    assert old.thumbnail == "/srv/f-1.png"
    lost = parser.feed(Activity(), "Path '/srv/gone.blend' not found")
    assert lost.path_not_found == "/srv/gone.blend"


def test_of_a_long_text_its_end_counts():
    text = "Fra:1 |\n" * 100_000 + "Fra:9 | the last\n"
    assert PARSERS["blender_render"].feed(Activity(), text).current_frame == 9


def test_a_task_without_a_parser_tells_nothing_and_breaks_nothing():
    assert PARSERS["none"].feed(Activity(), LOG) == Activity()


HOSTILE = [
    "Fra:" * 262_144,
    "Saved: " + "'" * 1_048_576,
    "Path '" * 174_762,
    "Fra:1 | Remaining:" + "0:" * 500_000 + "\n" + "Sample 9/" * 100_000,
    "\n" * 1_048_576,
    "Fra:1|" + "| " * 524_288,
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_a_mebibyte_of_hostile_log_costs_little(number: int):
    begun = time.process_time()
    PARSERS["blender_render"].feed(Activity(), HOSTILE[number])
    # Milliseconds where it was measured; backtracking would take minutes.
    assert time.process_time() - begun < 20


@given(st.text(max_size=200))
def test_what_a_worker_tells_of_itself_is_bounded(text: str):
    told = read_activity(text, Activity())
    assert len(told.process) <= 200
    assert told.current_frame is None or told.current_frame >= 0
