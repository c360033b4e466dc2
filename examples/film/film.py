"""
A short film, ray-traced frame by frame: one program, a verb for each stage of the project.

``render`` traces one frame: five coloured spheres circle a golden one over a dark sea at dusk. ``join`` makes a GIF of the
frames, and an MP4 when ffmpeg is there. After the last frame comes the first, so the film has no end. Each output is written
under another name and then renamed, so a run that is repeated, or killed half-way, leaves nothing broken.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from PIL import Image

FRAMES = 24
FRAMES_PER_SECOND = 16
WIDTH, HEIGHT = 320, 180
SAMPLES = 2  # rays a side of a pixel, so that edges are smooth
BOUNCES = 2
SPHERES = 5  # that circle; in the whole film each moves on to the next one's place
ATTEMPTS_OF_THE_UNLUCKY = 3
NEAR = 1e-3  # a reflected ray starts so far off its surface, or it would hit it again

SUN = np.array([-0.5, 0.165, 0.8])
SUN /= np.linalg.norm(SUN)


@attrs.frozen
class Surface:
    """What rays hit: points, outward normals, colours, and how much is mirrored when seen head-on. One row for each ray."""

    points: Any
    normals: Any
    colours: Any
    mirrored: Any


def written(path: Path, content: bytes) -> None:
    """Write a file so that it is seen whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)


def progress(fraction: float, message: str) -> None:
    """Tell the engine how far it is."""
    print(f"::progress {fraction:.2f} {message}", flush=True)


def spheres_at(time: float) -> list[tuple[Any, float, Any, float]]:
    """Centre, radius, colour and mirror of each sphere at a time from 0 to 1."""
    gold = (np.array([0, 1.05, 0]), 1.05, np.array([1.0, 0.72, 0.30]), 0.55)
    found = [gold]
    for number in range(SPHERES):
        angle = 2 * np.pi * (number + time) / SPHERES
        height = 0.62 + 0.22 * np.sin(2 * angle)
        centre = np.array([2.25 * np.cos(angle), height, 2.25 * np.sin(angle)])
        hue = angle + np.array([0, 2.1, 4.2])  # the colour belongs to the place, so the film closes
        found.append((centre, 0.46, 0.55 + 0.42 * np.cos(hue), 0.16))
    return found


def sky(directions: Any) -> Any:
    """Dusk: orange at the horizon, violet above, and a sun with its glow."""
    height = np.clip(directions[:, 1], 0, 1)[:, None]
    low, middle, high = np.array([[1.0, 0.52, 0.25], [0.55, 0.26, 0.42], [0.06, 0.08, 0.22]])
    first = np.clip(height / 0.22, 0, 1) ** 0.8
    second = np.clip((height - 0.12) / 0.6, 0, 1)
    colour = (low * (1 - first) + middle * first) * (1 - second) + high * second
    towards = np.clip(directions @ SUN, 0, 1)[:, None]
    glow = 0.55 * towards**24 + 0.9 * towards**220 + 6.0 * (towards > 0.9992)
    return colour + glow * np.array([1.0, 0.72, 0.42])


def sphere_distance(origins: Any, directions: Any, centre: Any, radius: float) -> Any:
    """How far each ray goes until it meets the sphere; infinity when it does not."""
    offset = origins - centre
    half = np.einsum("ij,ij->i", offset, directions)
    inside = half * half - np.einsum("ij,ij->i", offset, offset) + radius * radius
    distance = -half - np.sqrt(np.maximum(inside, 0))
    return np.where((inside > 0) & (distance > NEAR), distance, np.inf)


def sea_normals(points: Any, time: float) -> Any:
    """Small waves, which run once through their phase in the film, and fade with distance."""
    x, z = points[:, 0], points[:, 2]
    phase = 2 * np.pi * time
    fade = 0.05 / (1 + 0.02 * (x * x + z * z))
    slopes = np.zeros_like(points)
    slopes[:, 0] = fade * (
        np.sin(3.1 * x + 1.7 * z + phase) + 0.6 * np.sin(6.3 * x - 2.9 * z - phase)
    )
    slopes[:, 2] = fade * (
        np.sin(2.3 * z - 1.3 * x + phase) + 0.6 * np.cos(5.9 * z + 3.7 * x - phase)
    )
    slopes[:, 1] = 1
    return slopes / np.linalg.norm(slopes, axis=1, keepdims=True)


def nearest(origins: Any, directions: Any, spheres: list[Any], time: float) -> tuple[Any, Surface]:
    """Which rays hit anything, and what these hit."""
    falling = directions[:, 1] < -NEAR
    slope = np.where(falling, directions[:, 1], -1)
    distances = [np.where(falling, -origins[:, 1] / slope, np.inf)]
    distances += [sphere_distance(origins, directions, s[0], s[1]) for s in spheres]
    table = np.stack(distances)
    which = table.argmin(axis=0)
    far = table.min(axis=0)
    hit = np.isfinite(far) & (far > 0)
    which, far = which[hit], far[hit]
    points = origins[hit] + far[:, None] * directions[hit]
    normals = sea_normals(points, time)
    colours = np.broadcast_to(np.array([0.015, 0.035, 0.06]), points.shape).copy()
    mirrored = np.full(len(points), 0.06)
    for number, (centre, radius, colour, mirror) in enumerate(spheres, start=1):
        mine = which == number
        normals[mine] = (points[mine] - centre) / radius
        colours[mine] = colour
        mirrored[mine] = mirror
    return hit, Surface(points, normals, colours, mirrored)


def lit(surface: Surface, directions: Any, spheres: list[Any]) -> Any:
    """The light of the sun and the sky on a surface, with the shadows of the spheres."""
    starts = surface.points + surface.normals * NEAR
    towards = np.broadcast_to(SUN, starts.shape)
    free = np.ones(len(starts), dtype=bool)
    for centre, radius, _, _ in spheres:
        free &= ~np.isfinite(sphere_distance(starts, towards, centre, radius))
    facing = np.clip(surface.normals @ SUN, 0, 1) * free
    above = 0.5 + 0.5 * surface.normals[:, 1]
    half = SUN - directions
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    shine = np.clip(np.einsum("ij,ij->i", surface.normals, half), 0, 1) ** 90 * free
    warm, cool = np.array([1.45, 0.95, 0.55]), np.array([0.34, 0.30, 0.44])
    light = facing[:, None] * warm + above[:, None] * cool
    return surface.colours * light + 0.8 * shine[:, None] * warm


def traced(origins: Any, directions: Any, spheres: list[Any], time: float, bounces: int) -> Any:
    """The colour that each ray sees: what is lit, and what is mirrored in it."""
    colour = sky(directions)
    hit, surface = nearest(origins, directions, spheres, time)
    if not hit.any():
        return colour
    seen = directions[hit]
    cosine = np.einsum("ij,ij->i", surface.normals, seen)[:, None]
    own = lit(surface, seen, spheres)
    if bounces:
        away = seen - 2 * cosine * surface.normals
        away[:, 1] = np.where(surface.points[:, 1] < NEAR, np.abs(away[:, 1]), away[:, 1])
        starts = surface.points + surface.normals * NEAR
        mirror = traced(starts, away, spheres, time, bounces - 1)
        tint = np.where(surface.mirrored[:, None] > 0.5, surface.colours, 1.0)
        share = surface.mirrored[:, None]
        share = share + (1 - share) * np.clip(1 + cosine, 0, 1) ** 5  # Schlick's approximation
        own = own * (1 - share) + mirror * share * tint
    far = np.linalg.norm(surface.points - origins[hit], axis=1)[:, None]
    haze = 1 - np.exp(-((far / 42) ** 2))
    level = seen * np.array([1, 0, 1])
    level /= np.linalg.norm(level, axis=1, keepdims=True)
    colour[hit] = own * (1 - haze) + sky(level) * haze
    return colour


def picture(time: float) -> Image.Image:
    """The frame at a time from 0 to 1."""
    eye, target = np.array([0.0, 2.15, -6.6]), np.array([0.0, 0.92, 0.0])
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(np.array([0.0, 1.0, 0.0]), forward)
    right /= np.linalg.norm(right)
    up = np.cross(forward, right)
    wide, tall = WIDTH * SAMPLES, HEIGHT * SAMPLES
    across = ((np.arange(wide) + 0.5) / wide * 2 - 1) * WIDTH / HEIGHT
    down = 1 - (np.arange(tall) + 0.5) / tall * 2
    spheres = spheres_at(time)
    bands: list[Any] = []
    for number, rows in enumerate(np.array_split(down, 4)):
        x, y = np.meshgrid(across, rows)
        rays = forward + 0.47 * (x.reshape(-1, 1) * right + y.reshape(-1, 1) * up)
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        band = traced(np.broadcast_to(eye, rays.shape), rays, spheres, time, BOUNCES)
        bands.append(band.reshape(len(rows), wide, 3))
        progress((number + 1) / 4, f"band {number + 1} of 4")
    light = np.concatenate(bands)
    light = (
        light * (1 + light / 6) / (1 + light)
    )  # bright light keeps its colour instead of being cut off
    light = light.reshape(HEIGHT, SAMPLES, WIDTH, SAMPLES, 3).mean(axis=(1, 3))
    grey = light.mean(axis=2, keepdims=True)
    shades = np.clip(1.12 * (grey + 1.45 * (light - grey)), 0, 1) ** (1 / 2) * 255
    return Image.fromarray(np.round(shades).astype(np.uint8))


def render(shared: Path, frame: int, attempt: int, unlucky: int) -> None:
    """Trace one frame. The unlucky one fails twice, as renderers do, and is drawn by its third attempt."""
    if frame == unlucky and attempt < ATTEMPTS_OF_THE_UNLUCKY:
        sys.exit(f"frame {frame}, attempt {attempt}: out of luck")
    content = io.BytesIO()
    picture((frame - 1) / FRAMES).save(content, format="png")
    written(shared / "frames" / f"frame-{frame:04d}.png", content.getvalue())
    print(f"frame {frame} in attempt {attempt}")


def join(shared: Path) -> None:
    """film.gif of all frames in order; film.mp4 as well when ffmpeg is there."""
    paths = sorted((shared / "frames").glob("frame-*.png"))
    if len(paths) != FRAMES:
        sys.exit(f"{len(paths)} frames of {FRAMES}")
    frames = [Image.open(path).convert("RGB") for path in paths]
    progress(0.2, "choosing colours")
    strip = Image.new("RGB", (WIDTH, HEIGHT * 4))
    for place in range(4):
        strip.paste(frames[place * FRAMES // 4], (0, place * HEIGHT))
    palette = strip.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=2)
    drawn = [
        frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames
    ]
    content = io.BytesIO()
    drawn[0].save(
        content,
        format="gif",
        save_all=True,
        append_images=drawn[1:],
        duration=1000 // FRAMES_PER_SECOND,
        loop=0,
    )
    written(shared / "film.gif", content.getvalue())
    print(f"{len(paths)} frames: {shared / 'film.gif'}")
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is not None:
        progress(0.7, "encoding film.mp4")
        encode(ffmpeg, shared)
    progress(1, "done")


def encode(ffmpeg: str, shared: Path) -> None:
    """film.mp4, four times through the loop."""
    partial = shared / f".film.{os.getpid()}.mp4"
    command = [
        ffmpeg,
        "-v",
        "error",
        "-y",
        "-stream_loop",
        "3",
        "-framerate",
        str(FRAMES_PER_SECOND),
    ]
    command += [
        "-i",
        str(shared / "frames" / "frame-%04d.png"),
        "-pix_fmt",
        "yuv420p",
        str(partial),
    ]
    subprocess.run(command, check=True)  # noqa: S603 - no shell, and our own words only
    partial.replace(shared / "film.mp4")
    print(shared / "film.mp4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1] if __doc__ else None)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("render", "join"):
        verbs.add_parser(verb).add_argument("shared", type=Path)
    verbs.choices["render"].add_argument("--frame", type=int, required=True)
    verbs.choices["render"].add_argument("--attempt", type=int, default=1)
    verbs.choices["render"].add_argument("--unlucky", type=int, default=0)
    arguments = vars(parser.parse_args())
    {"render": render, "join": join}[arguments.pop("verb")](**arguments)


if __name__ == "__main__":
    main()
