"""The table of a measure, and its place in RESULTS.md."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path

from frame import HERE, PROJECT, Measure, Taken, Target, is_met, spread_text

RESULTS = HERE / "RESULTS.md"
PREFACE = """# Results

Written by `python benchmarks/run.py`; each section tells the machine, the commit and the command. Absolute figures move by a
factor of two between machines and between hours, so what counts are the ratios, taken in one run with the contenders interleaved.
Figures are medians [least-most] of the rounds.
"""


def verdicts(taken: Taken) -> list[tuple[Target, tuple[float, float, float], bool]]:
    """Each target with its ratio (median, least, most), and whether it holds."""
    found: list[tuple[Target, tuple[float, float, float], bool]] = []
    for target in taken.measure.targets:
        ratio = taken.ratio(target)
        if ratio is not None:
            found.append((target, ratio, is_met(target, ratio[0])))
    return found


def render(taken: Taken, command: str) -> str:
    """The section of one measure as Markdown."""
    measure = taken.measure
    delay_ms = measure.flush_delay_ms
    slower = f", each flush {delay_ms:g} ms slower" if delay_ms else ""
    lines = [f"## {measure.id}: {measure.title}{slower}", ""]
    shown = [
        column
        for column in measure.columns
        if any(column[0] in figures for rounds in taken.rounds.values() for figures in rounds)
    ]
    lines += ["| | " + " | ".join(heading for _, heading, _ in shown) + " |"]
    lines += ["|---" * (len(shown) + 1) + "|"]
    for contender in measure.contenders:
        name = contender.name
        version = taken.versions.get(name)
        cells = [
            spread_text(taken.spread(name, figure), places, taken.rounds[name])
            for figure, _, places in shown
        ]
        lines.append(f"| {name}{f' ({version})' if version else ''} | " + " | ".join(cells) + " |")
    lines.append("")
    told = verdicts(taken)
    if told:
        lines += ["| bound | measured | |", "|---|---|---|"]
        for target, ratio, met in told:
            places = 2 if target.others else 0
            if not target.others and ratio[0] < 10:
                places = 2
            lines.append(
                f"| {'goal: ' if target.goal else ''}{target.text} | {spread_text(ratio, places, taken.rounds[target.ours])}"
                f"{' times' if target.others else ''} | {'met' if met else '**missed**'} |"
            )
        lines.append("")
    if measure.remark:
        lines += [measure.remark, ""]
    lines += [f"{circumstances()}; `{command}`", ""]
    return "\n".join(lines)


def circumstances() -> str:
    """Date, machine and commit in a line."""
    today = datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"{today}; {os.cpu_count()} cpus ({_processor()}), {_memory_gib():.0f} GiB, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}; load {os.getloadavg()[0]:.1f}; "
        f"commit {_commit()}"
    )


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", listing.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError):  # not every system tells
        return 0.0


def _commit() -> str:
    commit = _git("rev-parse", "--short=10", "HEAD")
    # The results themselves change while a run goes on.
    changed = _git("status", "--porcelain", "--", ".", f":!{RESULTS.relative_to(PROJECT)}")
    return f"{commit}-dirty" if commit and changed else commit or "unknown"


def _git(*words: str) -> str:
    told = subprocess.run(["git", *words], cwd=PROJECT, capture_output=True, text=True, check=False)
    return told.stdout.strip()


def write(measure: Measure, text: str) -> None:
    """Put the section into RESULTS.md in place of the former one of the same measure."""
    begin, end = f"<!-- {measure.key} -->", f"<!-- /{measure.key} -->"
    section = f"{begin}\n{text}{end}\n"
    before = RESULTS.read_text() if RESULTS.exists() else PREFACE
    pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end) + r"\n", re.DOTALL)
    found = pattern.search(before)
    after = (
        before[: found.start()] + section + before[found.end() :]
        if found
        else before.rstrip() + "\n\n" + section
    )
    RESULTS.write_text(after)
