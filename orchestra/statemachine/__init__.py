"""
The core: records, the tables of legal moves, and pure functions that decide.

Nothing here does I/O, asks a clock or draws randomness: time and a seed come in with each `Stimulus`.
"""

from orchestra.statemachine.answers import answer
from orchestra.statemachine.leases import next_deadline
from orchestra.statemachine.state import State, load
from orchestra.statemachine.step import Outcome, Stimulus, step

__all__ = ["Outcome", "State", "Stimulus", "answer", "load", "next_deadline", "step"]
