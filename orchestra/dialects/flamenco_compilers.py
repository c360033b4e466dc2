"""
Task compilers: from the settings of a posted task to stages of the core, and from one piece of it to the arguments of a program.

A compiler is a Python object that whoever runs the manager has registered under a word. Its settings are a typed structure. Nothing in a
request names code, a module or a program: the program comes from the operator, and a path in the settings never starts with a dash.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from orchestra.dialects.native_wire import malformed
from orchestra.dialects.strict_json import check_json
from orchestra.errors import Malformed, NotFound
from orchestra.statemachine.commands import StageDraft
from orchestra.statemachine.limits import TASKS_PER_JOB_MAX
from orchestra.statemachine.values import value

FRAME_MAX = 1_048_574
"""Blender's own highest frame."""

SETTINGS_CHARS_MAX = 64 * 1024
"""Settings are some dozen of short fields."""

SYSTEMS: Mapping[str, str] = MappingProxyType({"Darwin": "osx", "Windows": "win", "Linux": "linux"})
"""What a worker's system contains → how settings abbreviate it."""

MARK_COMMAND, MARK_JOB, MARK_OUTPUT = "==command==", "==jobpath==", "==outputpath=="
"""What a worker of the pull protocol replaces with its own program and folders."""

_FORMAT = re.compile(r"[A-Z][A-Z0-9_]{0,31}")
_PATH_CHARS_MAX = 1_000

Frame = Annotated[int, msgspec.Meta(ge=0, le=FRAME_MAX)]
S = TypeVar("S", bound=msgspec.Struct)


@value
class Piece:
    """What one attempt renders: frames, both ends included, and which tile."""

    first: int = 0
    last: int = 0
    tile: int = 0


@value
class Place:
    """Where a command will run: the worker's system, and whether it fetches its files (pull) or shares a file system (push)."""

    system: str
    pull: bool

    def suffix(self) -> str:
        """How settings abbreviate the system; that of Linux for an unknown one."""
        return next((short for word, short in SYSTEMS.items() if word in self.system), "linux")


class TaskCompiler(Generic[S]):
    """
    One kind of task.

    ``name`` is the word for it in requests, ``kinds`` are the apps that workers offer for it, ``settings`` is its structure.
    """

    name: str
    kinds: tuple[str, ...]
    settings: type[S]

    def read(self, text: str) -> S:
        """The settings, from the JSON in a request. Raises `Malformed` with the field."""
        raw = text.encode()
        if len(raw) > SETTINGS_CHARS_MAX:
            raise Malformed(f"is longer than {SETTINGS_CHARS_MAX} bytes", where="settings")
        try:
            check_json(raw or b"{}")
            read = msgspec.json.decode(raw or b"{}", type=self.settings)
        except msgspec.ValidationError as error:
            raise malformed(error) from None
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise Malformed("is no JSON object", where="settings") from None
        self.check(read)
        return read

    def check(self, settings: S) -> None:
        """Raises `Malformed` for what types alone do not tell."""

    def stages(self, settings: S) -> tuple[StageDraft, ...]:
        """The stages of the work; ``template`` is filled in by whoever submits them."""
        raise NotImplementedError

    def command(self, settings: S, kind: str, piece: Piece, place: Place) -> tuple[str, ...]:
        """The program and its arguments. Raises `Malformed` when the settings lack a path for that system."""
        raise NotImplementedError

    def frames(self, settings: S) -> tuple[int, int]:
        """The first and the last frame of the whole, for people."""
        del settings
        return 0, 0


class PrintSettings(msgspec.Struct, frozen=True):
    """What `PrintString` writes."""

    text: Annotated[str, msgspec.Meta(max_length=10_000)] = ""


class PrintString(TaskCompiler[PrintSettings]):
    """Writes a text: the smallest task."""

    name = "print_string"
    kinds = ("print_string",)
    settings = PrintSettings

    def __init__(self, program: str = "echo") -> None:
        self._program = program

    def stages(self, settings: PrintSettings) -> tuple[StageDraft, ...]:
        """As `TaskCompiler.stages`."""
        del settings
        return (StageDraft("print", self.kinds[0]),)

    def check(self, settings: PrintSettings) -> None:
        """As `TaskCompiler.check`."""
        if settings.text.startswith("-") or "\0" in settings.text:
            raise Malformed("begins with a dash or holds a NUL", where="text")

    def command(
        self, settings: PrintSettings, kind: str, piece: Piece, place: Place
    ) -> tuple[str, ...]:
        """As `TaskCompiler.command`."""
        del kind, piece
        return (MARK_COMMAND if place.pull else self._program, settings.text)


class RenderSettings(msgspec.Struct, frozen=True):
    """Frames and files of a render. A path for each system, or one for all."""

    frame_start: Frame
    frame_end: Frame
    chunk_size: Annotated[int, msgspec.Meta(ge=1, le=FRAME_MAX)] | None = None
    filepath: str = ""
    file_path_linux: str = ""
    file_path_osx: str = ""
    file_path_win: str = ""
    output_path: str = ""
    output_path_linux: str = ""
    output_path_osx: str = ""
    output_path_win: str = ""
    render_settings: str = ""
    format: str = "PNG"

    def path(self, what: str, place: Place) -> str:
        """The path for a system. Raises `Malformed` when there is none."""
        suffix = place.suffix()
        found: str = getattr(self, f"{what}_{suffix}") or (
            self.filepath if what == "file_path" else self.output_path
        )
        if not found:
            raise Malformed(f"there is no path for {suffix}", where=f"{what}_{suffix}")
        return found


_PATHS = tuple(name for name in RenderSettings.__struct_fields__ if "path" in name)


def check_path(path: str, where: str, roots: tuple[str, ...]) -> None:
    """Raises `Malformed` unless a path is absolute (on any system), plain, and below a root when there are any."""
    if not path:
        return
    parts = re.split(r"[/\\]", path)
    absolute = path.startswith("/") or re.match(r"[A-Za-z]:[/\\]|\\\\", path) is not None
    if len(path) > _PATH_CHARS_MAX or not absolute or ".." in parts or not path.isprintable():
        raise Malformed("is no absolute plain path", where=where)
    if roots and not any(path.startswith(root.rstrip("/") + "/") for root in roots):
        raise Malformed("lies outside the folders of this manager", where=where)


class BlenderRender(TaskCompiler[RenderSettings]):
    """
    Renders frames with Blender, in chunks when ``chunk_size`` asks for them; the last chunk is what remains.

    Args:
        programs: Blender on each system (``linux``, ``osx``, ``win``), for workers that share a file system.
        render_settings: Python files that a task may name, by name: the operator's own.
        roots: Folders below which files and outputs must lie; empty for anywhere.
        autoexec: Let files run the scripts in them.
    """

    name = "simple_blender_render"
    kinds = ("simple_blender_render",)
    settings = RenderSettings

    def __init__(
        self,
        programs: Mapping[str, str] | None = None,
        *,
        render_settings: Mapping[str, str] | None = None,
        roots: tuple[str, ...] = (),
        autoexec: bool = False,
    ) -> None:
        self.programs = dict(programs or {"linux": "blender", "osx": "blender", "win": "blender"})
        self._render_settings = dict(render_settings or {})
        self._roots = roots
        self._autoexec = "--enable-autoexec" if autoexec else "--disable-autoexec"

    def check(self, settings: RenderSettings) -> None:
        """As `TaskCompiler.check`."""
        if settings.frame_end < settings.frame_start:
            raise Malformed("is before frame_start", where="frame_end")
        if _FORMAT.fullmatch(settings.format) is None:
            raise Malformed("is no format of pictures", where="format", remedy="PNG, for example")
        if settings.render_settings and settings.render_settings not in self._render_settings:
            raise Malformed("is not one of this manager's", where="render_settings")
        for name in _PATHS:
            check_path(getattr(settings, name), name, self._roots)
        chunks = -(-self.size(settings) // (settings.chunk_size or FRAME_MAX + 1))
        if chunks > TASKS_PER_JOB_MAX:
            raise Malformed(f"makes {chunks} chunks", where="chunk_size")

    @staticmethod
    def size(settings: RenderSettings) -> int:
        """How many frames there are."""
        return settings.frame_end - settings.frame_start + 1

    def frames(self, settings: RenderSettings) -> tuple[int, int]:
        """As `TaskCompiler.frames`."""
        return settings.frame_start, settings.frame_end

    def chunks(self, settings: RenderSettings) -> tuple[bytes, ...]:
        """The items of the fan-out: ``{"first":5,"last":9}``."""
        step = settings.chunk_size or self.size(settings)
        return tuple(
            b'{"first":%d,"last":%d}' % (first, min(first + step - 1, settings.frame_end))
            for first in range(settings.frame_start, settings.frame_end + 1, step)
        )

    def stages(self, settings: RenderSettings) -> tuple[StageDraft, ...]:
        """As `TaskCompiler.stages`."""
        return (StageDraft("render", self.kinds[0], over=self.chunks(settings)),)

    def command(
        self, settings: RenderSettings, kind: str, piece: Piece, place: Place
    ) -> tuple[str, ...]:
        """As `TaskCompiler.command`; in the order in which Flamenco's manager writes it."""
        del kind
        if place.pull:
            name = re.split(r"[/\\]", settings.path("file_path", place))[-1]
            program, file = MARK_COMMAND, f"{MARK_JOB}/{name}"
            output = f"{MARK_OUTPUT}/######"
        else:
            program = self.programs.get(place.suffix(), "blender")
            file = settings.path("file_path", place)
            output = settings.path("output_path", place)
        argv = [program, "--background"]
        # Blender takes its arguments in order: scripts in a file are forbidden before it is opened.
        if self._autoexec == "--disable-autoexec":
            argv.append(self._autoexec)
        argv += [file, "--render-output", output]
        if settings.render_settings:
            argv += ["--python", self._render_settings[settings.render_settings]]
        argv += ["--frame-start", str(piece.first), "--frame-end", str(piece.last)]
        argv += ["--render-format", settings.format, "--render-anim"]
        if self._autoexec == "--enable-autoexec":
            argv.append(self._autoexec)
        return tuple(argv)


class TiledSettings(RenderSettings, frozen=True):
    """A render whose frame is cut into tiles, and the program's output that joins them."""

    tiles: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4


class TiledBlenderRender(TaskCompiler[TiledSettings]):
    """
    Renders one frame in tiles, then a merge task puts them together: it runs after the last tile.

    Args:
        render: Words the render of one tile.
        tiler: The operator's Python file that crops the scene to one tile, told by ``-- TILE TILES`` at the end of the arguments.
        merger: The operator's program: ``MERGER OUTPUT PART...`` joins the pictures whose paths begin with each part into some that begin
            with ``OUTPUT``. Both get Blender's frame number and ending behind them.
    """

    name = "tiled_blender_render"
    kinds = ("tiled_blender_render", "tiled_blender_render_simple_mix")
    settings = TiledSettings

    def __init__(self, render: BlenderRender, tiler: str, merger: str) -> None:
        self._render, self._tiler, self._merger = render, tiler, merger

    def check(self, settings: TiledSettings) -> None:
        """As `TaskCompiler.check`."""
        self._render.check(settings)

    def frames(self, settings: TiledSettings) -> tuple[int, int]:
        """As `TaskCompiler.frames`."""
        return settings.frame_start, settings.frame_end

    def stages(self, settings: TiledSettings) -> tuple[StageDraft, ...]:
        """As `TaskCompiler.stages`."""
        tiles = tuple(
            b'{"first":%d,"last":%d,"tile":%d}' % (settings.frame_start, settings.frame_end, tile)
            for tile in range(settings.tiles)
        )
        render, mix = self.kinds
        return (
            StageDraft("tiles", render, over=tiles),
            StageDraft("merge", mix, after=("tiles",)),
        )

    def command(
        self, settings: TiledSettings, kind: str, piece: Piece, place: Place
    ) -> tuple[str, ...]:
        """As `TaskCompiler.command`."""
        output = MARK_OUTPUT + "/merged" if place.pull else settings.path("output_path", place)
        merges = kind == self.kinds[1]
        # Where nothing is shared, what the tiles' workers sent back comes along as files of the merge task.
        beside = MARK_JOB + "/merged" if place.pull and merges else output
        parts = [f"{beside}-{tile}" for tile in range(settings.tiles)]
        if merges:
            return (MARK_COMMAND if place.pull else self._merger, output, *parts)
        argv = list(self._render.command(settings, kind, piece, place))
        argv[argv.index("--render-output") + 1] = parts[piece.tile]
        at = argv.index("--frame-start")
        argv[at:at] = ["--python", self._tiler]
        return (*argv, "--", str(piece.tile), str(settings.tiles))


class Compilers:
    """The compilers of one manager, by word and by kind. Raises `Malformed` when two have the same word."""

    def __init__(self, compilers: Iterable[TaskCompiler[Any]]) -> None:
        self.by_name: dict[str, TaskCompiler[Any]] = {}
        self.by_kind: dict[str, TaskCompiler[Any]] = {}
        for compiler in compilers:
            if compiler.name in self.by_name:
                raise Malformed("two compilers have this name", where=compiler.name)
            self.by_name[compiler.name] = compiler
            self.by_kind |= dict.fromkeys(compiler.kinds, compiler)

    def named(self, name: str) -> TaskCompiler[Any]:
        """The compiler of a type. Raises `NotFound`; a word is looked up, never imported."""
        found = self.by_name.get(name)
        if found is None:
            known = ", ".join(sorted(self.by_name))
            raise NotFound(f"there is no type {name[:80]!r}", where="type", remedy=f"it is {known}")
        return found


def usual_compilers() -> Compilers:
    """A manager's compilers when nothing else is said."""
    return Compilers((BlenderRender(), PrintString()))
