"""From an attempt of the core to what a worker of Flamenco is sent: its settings, its parser and its command."""

from __future__ import annotations

import json

import msgspec

from orchestra.dialects.flamenco_compilers import Compilers, Piece, Place
from orchestra.dialects.flamenco_desk import Run
from orchestra.dialects.flamenco_parsers import PARSERS, TaskParser
from orchestra.dialects.flamenco_posted import read_posted
from orchestra.errors import Malformed
from orchestra.statemachine.replies import Order
from orchestra.statemachine.values import value

_piece = msgspec.json.Decoder(dict[str, int])


@value
class Compiled:
    """
    One attempt as its worker reads it.

    Args:
        settings: Those of the posted task, with the frames of this piece.
        argv: The program and its arguments.
    """

    parser: str
    settings: dict[str, object]
    argv: tuple[str, ...]

    @property
    def command(self) -> str:
        """The arguments as they travel."""
        return json.dumps(self.argv)


def piece_of(order: Order) -> Piece:
    """The frames and the tile of one attempt."""
    return Piece(**_piece.decode(order.item)) if order.item else Piece()


def compile_run(compilers: Compilers, run: Run, *, pull: bool) -> Compiled:
    """What the run's worker is sent. Raises `Malformed` when there is nothing for its system, or this manager did not make it."""
    posted = read_posted(run.order.template)
    compiler = compilers.by_kind.get(run.order.app)
    if posted is None or compiler is None:
        raise Malformed("this manager did not make it", where="task")
    piece = piece_of(run.order)
    read = compiler.read(json.dumps(posted.settings))
    argv = compiler.command(read, run.order.app, piece, Place(run.card.system, pull=pull))
    settings: dict[str, object] = dict(posted.settings)
    if run.order.item:
        settings |= {"frame_start": piece.first, "frame_end": piece.last}
    return Compiled(posted.parser, settings, argv)


def parser_of(run: Run) -> TaskParser:
    """What reads the log of a run."""
    posted = read_posted(run.order.template)
    return PARSERS.get(posted.parser if posted else "", PARSERS["none"])
