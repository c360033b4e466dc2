"""
Source finding on a real image of the globular cluster M13: one program, a verb for each stage of the project.

The image (300 by 300 pixels of one arc second, from SkyView) comes with astropy. ``background`` takes the cluster's glow away,
``detect`` searches one of nine tiles, ``merge`` joins the nine catalogues, ``check`` compares them with a search of the whole
image, ``plot`` marks what was found. Each output is written under another name and then renamed, so a run that is repeated,
or killed half-way, leaves nothing broken.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

TILES = 3  # a side
MARGIN = 32  # pixels around a tile; the largest group of touching stars is 23 wide
SEAM = 3  # pixels beyond its own edge from which a tile still reports, so that no star falls between two
SAME = 1.0  # two tiles' stars nearer than this are one; the image resolves none that are so close
MESH = 8  # pixels of a cell of the background: small, as the cluster's glow is steep
RESOLUTION = 1.97  # points in the picture for one pixel of the image
THRESHOLD = 5.0  # standard deviations of the background
COLUMNS = ("x", "y", "flux", "peak", "pixels")


def written(path: Path, content: bytes) -> None:
    """Write a file so that it is seen whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)


def progress(fraction: float, message: str) -> None:
    """Tell the engine how far it is."""
    print(f"::progress {fraction:.2f} {message}", flush=True)


def image_path() -> Path:
    """Where astropy keeps the image; looking for it imports nothing of astropy."""
    from importlib.util import find_spec

    found = find_spec("astropy")
    if found is None or found.origin is None:
        sys.exit("astropy is not installed")
    return Path(found.origin).parent / "io/fits/hdu/compressed/tests/data/m13.fits"


def background(shared: Path) -> None:
    """The image without the glow between the stars, and how much the rest scatters."""
    import sep
    from astropy.io import fits

    progress(0.1, "reading the image")
    image: Any = fits.getdata(image_path())
    pixels = np.ascontiguousarray(image, dtype=np.float32)
    progress(0.5, "estimating the background")
    glow = sep.Background(pixels, bw=MESH, bh=MESH, fw=3, fh=3)
    content = io.BytesIO()
    np.savez_compressed(content, stars=pixels - glow.back(), scatter=glow.globalrms)
    written(shared / "background.npz", content.getvalue())
    print(f"background {glow.globalback:.1f}, scatter {glow.globalrms:.2f}")


def found_in(pixels: Any, scatter: float) -> Any:
    """
    All sources of a piece of the image, one row each with `COLUMNS`; x and y count from the piece's corner.

    What is found at a place has to be the same in whichever piece it lies, so sep's cleaning, which lets a bright star swallow
    faint ones at any distance, stays off.
    """
    import sep

    sources = sep.extract(
        np.ascontiguousarray(pixels),
        THRESHOLD,
        err=scatter,
        minarea=4,
        deblend_nthresh=32,
        deblend_cont=0.005,
        clean=False,
    )
    names = ("x", "y", "flux", "peak", "npix")
    return np.column_stack([np.asarray(sources[name], dtype=np.float64) for name in names])


def detect(shared: Path, row: int, column: int) -> None:
    """Search one tile together with a margin, and report what is centred on the tile."""
    work = np.load(shared / "background.npz")
    stars = work["stars"]
    spans = [
        (size * place // TILES, size * (place + 1) // TILES)
        for place, size in zip((row, column), stars.shape, strict=True)
    ]
    (low, high), (left, right) = spans
    corner = np.array([max(0, left - MARGIN), max(0, low - MARGIN)])
    piece = stars[corner[1] : high + MARGIN, corner[0] : right + MARGIN]
    progress(0.3, f"searching {piece.shape[1]} by {piece.shape[0]} pixels")
    sources = found_in(piece, float(work["scatter"]))
    sources[:, :2] += corner
    depth = np.minimum.reduce(
        [sources[:, 0] - left, right - sources[:, 0], sources[:, 1] - low, high - sources[:, 1]]
    )
    kept = depth > -SEAM
    content = io.BytesIO()
    np.savez(content, sources=sources[kept], depth=depth[kept])
    written(shared / "tiles" / f"tile-{row}-{column}.npz", content.getvalue())
    print(f"{int(kept.sum())} sources on tile {row}, {column}")


def merge(shared: Path) -> None:
    """One catalogue: of a source that several tiles saw, the one that lies deepest in its tile; the brightest first."""
    paths = sorted((shared / "tiles").glob("tile-*.npz"))
    if len(paths) != TILES * TILES:
        sys.exit(f"{len(paths)} tiles of {TILES * TILES}")
    tiles = [np.load(path) for path in paths]
    sources = np.concatenate([tile["sources"] for tile in tiles])
    depth = np.concatenate([tile["depth"] for tile in tiles])
    origin = np.repeat(np.arange(len(tiles)), [len(tile["depth"]) for tile in tiles])
    kept: list[int] = []
    for index in np.argsort(-depth, kind="stable"):
        apart = np.hypot(*(sources[kept, :2] - sources[index, :2]).T)
        if not np.any((apart < SAME) & (origin[kept] != origin[index])):
            kept.append(int(index))
    catalogue = sources[kept][np.argsort(-sources[kept][:, 2], kind="stable")]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    rows.writerows([f"{value:.3f}" for value in source] for source in catalogue)
    written(shared / "catalogue.csv", text.getvalue().encode())
    print(f"{len(catalogue)} sources; {len(sources) - len(catalogue)} were seen by several tiles")


def catalogue_of(shared: Path) -> Any:
    return np.loadtxt(shared / "catalogue.csv", delimiter=",", skiprows=1, ndmin=2)


def check(shared: Path) -> None:
    """Compare with a search of the whole image: as many sources, at the same places. Fails when they differ."""
    work = np.load(shared / "background.npz")
    whole = found_in(work["stars"], float(work["scatter"]))
    tiled = catalogue_of(shared)
    progress(0.5, "comparing")
    apart = np.hypot(*(tiled[:, None, :2] - whole[None, :, :2]).transpose(2, 0, 1))
    farthest = float(max(apart.min(axis=0).max(), apart.min(axis=1).max()))
    result = {"tiled": len(tiled), "whole": len(whole), "farthest_pixels": round(farthest, 3)}
    written(shared / "check.json", json.dumps(result).encode())
    print(
        f"{len(tiled)} sources in tiles, {len(whole)} at once, at most {farthest:.3f} pixels apart"
    )
    if len(tiled) != len(whole) or farthest > SAME:
        sys.exit("the tiles and the whole image disagree")


def plot(shared: Path) -> None:
    """sky.png: the image in its celestial coordinates, the sources ringed by brightness, the tiles drawn."""
    import matplotlib as mpl

    mpl.use("agg")
    from astropy.io import fits
    from astropy.wcs import WCS
    from matplotlib import pyplot as plt
    from matplotlib.colors import AsinhNorm

    catalogue = catalogue_of(shared)
    progress(0.3, "drawing")
    with fits.open(image_path()) as file:
        primary: Any = file[0]
        image, header = primary.data, primary.header
    figure = plt.figure(figsize=(9.6, 9), layout="constrained")
    axes = figure.add_subplot(projection=WCS(header))
    low, high = np.percentile(image, (2, 99.8))
    norm = AsinhNorm((high - low) / 25, low, high)
    axes.imshow(image, origin="lower", cmap="bone", norm=norm, interpolation="bicubic")
    for place in range(1, TILES):
        edge = image.shape[0] * place / TILES - 0.5
        axes.axhline(edge, color="#4fa3c7", linewidth=0.7, linestyle=(0, (6, 6)))
        axes.axvline(edge, color="#4fa3c7", linewidth=0.7, linestyle=(0, (6, 6)))
    across = 2 * (
        np.sqrt(catalogue[:, 4] / np.pi) + 1.5
    )  # of a disc as large as the source, and a rim
    rings = {"facecolor": "none", "edgecolor": "#ffb454", "linewidth": 0.8}
    axes.scatter(catalogue[:, 0], catalogue[:, 1], s=(RESOLUTION * across) ** 2, **rings)
    axes.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(-0.5, image.shape[0] - 0.5))
    axes.set(xlabel="right ascension (J2000)", ylabel="declination (J2000)")
    axes.set_title(
        f"M13: {len(catalogue)} sources above {THRESHOLD:g} sigma, found in {TILES**2} tiles"
    )
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    written(shared / "sky.png", content.getvalue())
    progress(1, "done")
    print(shared / "sky.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1] if __doc__ else None)
    verbs = parser.add_subparsers(dest="verb", required=True)
    stages = {
        "background": background,
        "detect": detect,
        "merge": merge,
        "check": check,
        "plot": plot,
    }
    for verb in stages:
        verbs.add_parser(verb).add_argument("shared", type=Path)
    verbs.choices["detect"].add_argument("--row", type=int, required=True)
    verbs.choices["detect"].add_argument("--column", type=int, required=True)
    arguments = vars(parser.parse_args())
    stages[arguments.pop("verb")](**arguments)


if __name__ == "__main__":
    main()
