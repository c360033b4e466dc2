"""
A second opinion: the lease and the fence once more, in Promela, for spin to search.

The moves are exported from the lifecycle tables; who makes them, and when, is written down here a second time, by hand and without a line
of the core. The model is of the world ``silent``: one task, two workers, one message on its way, one silence of a whole lease. Spin then
has to come to the same verdict as the search does, with every rule in force and with each of `RULES` taken out, and to the very same
combinations of what the task, the workers' rows and the living work can be at one moment.

What is not in both is not compared: what the model leaves out (cancelling, failures, people, restarts) is the search's alone.

Source: Holzmann, "The model checker SPIN", IEEE Transactions on Software Engineering 23 (1997).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import attrs

from orchestra.statemachine.lifecycles import ATTEMPT, TASK, WORKER
from orchestra.statemachine.records import Task, Worker
from orchestra.statemachine.table import Table
from orchestra.testing.explore.search import Search
from orchestra.testing.explore.world import Whole
from orchestra.testing.explore.worlds import WORLDS
from orchestra.testing.removed_rules import removed

RULES: Mapping[str, str] = MappingProxyType(
    {
        "endless_lease": "NO_FENCE",
        "no_expiry": "NO_EXPIRY",
        "endless_losses": "ENDLESS_LOSSES",
    }
)
"""Rules of `removed_rules`, and what takes the same rule out of the model."""

SPIN_S_MAX = 300.0
"""Spin and the compiler need seconds; what takes this long hangs."""

Combination = tuple[str, int, tuple[tuple[str, int], ...]]
"""The task's status and number of attempts, and for each worker the status of its row and how many attempts live on it."""


@attrs.frozen(slots=True)
class Opinion:
    """
    What spin says.

    Args:
        states: How many states it stored.
        broken: Whether an assertion does not hold.
        combinations: What it came by; all of them only when nothing is broken.
    """

    states: int
    broken: bool
    combinations: frozenset[Combination]


class SpinMissing(RuntimeError):
    """There is no spin, or no compiler for what it writes."""


def model() -> str:
    """The model's text."""
    tables = "\n".join(_exported(table) for table in (TASK, ATTEMPT, WORKER))
    return f"{tables}\n{_MODEL}"


def _exported(table: Table) -> str:
    kind = table.kind
    lines = [f"/* {kind} */", f"#define {kind}_none 0"]
    lines += [f"#define {kind}_{status} {at}" for at, status in enumerate(table.statuses(), 1)]
    verbs = dict.fromkeys(row.verb for row in table.rows)
    for verb in verbs:
        lines.append(f"inline {kind}_{_word(verb)}(x) {{ if")
        lines += [
            f":: x == {kind}_{row.source or 'none'} -> x = {kind}_{row.target}"
            for row in table.rows
            if row.verb == verb and (row.source is not None or row.verb in ("create", "start"))
        ]
        lines.append(":: else -> assert(false) fi }")
    return "\n".join(lines)


def _word(verb: str) -> str:
    return "move_" + verb.replace("-", "_")


def ask_spin(rule: str = "") -> Opinion:
    """
    Have spin search the model, with one of `RULES` taken out if one is named.

    Raises:
        SpinMissing: The programs ``spin`` and ``cc`` are not both there.
    """
    spin, compiler = shutil.which("spin"), shutil.which("cc")
    if spin is None or compiler is None:
        raise SpinMissing("install spin and a C compiler (Debian: apt-get install spin gcc)")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "lease.pml").write_text(model(), encoding="utf-8")
        defined = [f"-D{RULES[rule]}"] if rule else []
        _run([spin, *defined, "-a", "lease.pml"], folder)
        _run([compiler, "-O1", "-w", "-DSAFETY", "-DNOREDUCE", "-o", "pan", "pan.c"], folder)
        told = _run(["./pan", "-m1000000"], folder)
    errors = re.search(r"errors: (\d+)", told)
    states = re.search(r"(\d+) states, stored", told)
    if errors is None or states is None or "search depth too small" in told:
        raise RuntimeError(f"spin did not finish its search: {told[-2_000:]}")
    return Opinion(int(states[1]), int(errors[1]) > 0, _combinations(told))


def _run(words: list[str], folder: str) -> str:
    done = subprocess.run(  # noqa: S603 - spin and the compiler that the user installed, and what they made
        words,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SPIN_S_MAX,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise RuntimeError(f"{words[0]} failed: {done.stdout[-2_000:]}{done.stderr[-2_000:]}")
    return done.stdout


def _combinations(told: str) -> frozenset[Combination]:
    tasks, rows = ("none", *TASK.statuses()), ("none", *WORKER.statuses())
    found: set[Combination] = set()
    for line in re.findall(r"^seen ([\d ]+)$", told, re.MULTILINE):
        task, attempts, row0, alive0, row1, alive1 = (int(word) for word in line.split())
        workers = sorted(((rows[row0], alive0), (rows[row1], alive1)))
        found.add((tasks[task], attempts, tuple(workers)))
    return frozenset(found)


def ask_search(rule: str = "") -> Opinion:
    """What the search of the same world says, in the same words."""
    found: set[Combination] = set()
    search = Search(
        WORLDS["silent"], states_max=1_000_000, seen=lambda whole: found.add(_of(whole))
    )
    if rule:
        with removed(rule):
            explored = search.run()
    else:
        explored = search.run()
    return Opinion(explored.states, bool(explored.broken), frozenset(found))


def _of(whole: Whole) -> Combination:
    (task,) = whole.near.state.each(Task)
    rows = {worker.name: str(worker.status) for worker in whole.near.state.each(Worker)}
    workers = sorted(
        (rows.get(f"w{machine.place}", "none"), len(machine.bodies)) for machine in whole.far
    )
    return (str(task.status), task.attempts, tuple(workers))


_MODEL = r"""
/* What is on its way: one message at most. */
#define m_none 0
#define m_ask_join 1
#define m_ask_beat 2
#define m_ask_tell 3
#define m_joined 4
#define m_beaten 5
#define m_told 6
#define m_order 7
byte m_kind; byte m_to; byte m_age; byte m_mask; byte m_inc; byte m_attempt; bool m_known; byte m_foreign;

/* The orchestrator: one task, its attempts 1 and 2, a row for each worker. */
byte task = task_queued; byte attempts; byte losses; byte live;
byte attempt[4]; byte owner[4]; byte owner_inc[4];
byte row[2]; byte row_inc[2]; byte unheard[2]; byte front; byte silences = 1;

/* The workers: what each of them holds, by attempt. */
#define h_no 0
#define h_runs 1
#define h_done 2
#define h_fenced 3
#define h_killed 4
bool up[2]; bool member[2]; byte inc[2]; byte renewed[2]; bool waits_join[2]; bool waits_beat[2]; bool waits_tell[2];
byte held[8]; bool told[8]; bool acked[8];
byte w; byte n; byte k;

c_code {
static char seen_before[16][4][8][3][8][3];
static void look(int t, int a, int r0, int b0, int r1, int b1) {
  if (!seen_before[t][a][r0][b0][r1][b1]) {
    seen_before[t][a][r0][b0][r1][b1] = 1;
    printf("seen %d %d %d %d %d %d\n", t, a, r0, b0, r1, b1);
  }
}
#define ALIVE(w) ((now.held[w*4+1] == 1) + (now.held[w*4+2] == 1) + (now.held[w*4+3] == 1))
}

#define is_free(x) (row[x] == worker_online && !(live != 0 && owner[live] == x))
#define mask_of(x) ((held[x*4+1] != h_no) * 2 + (held[x*4+2] != h_no) * 4 + (held[x*4+3] != h_no) * 8)
#define news(x) ((held[x*4+1] > h_runs && !told[x*4+1]) || (held[x*4+2] > h_runs && !told[x*4+2]) || (held[x*4+3] > h_runs && !told[x*4+3]))
#define alive(x) ((held[x*4+1] == h_runs) + (held[x*4+2] == h_runs) + (held[x*4+3] == h_runs))
#define stale 3

/* Who is free first is served first. */
inline now_free(x) { if :: is_free(1 - x) -> front = 1 - x :: else -> front = x fi }

inline push() {
  if
  :: m_kind == m_none && member[owner[live]] ->
     m_kind = m_order; m_to = owner[live]; m_attempt = live; m_inc = row_inc[m_to]
  :: else -> skip
  fi
}

inline give_out() {
  if
  :: task == task_queued && (is_free(0) || is_free(1)) ->
     if :: is_free(0) && is_free(1) -> k = front :: is_free(0) && !is_free(1) -> k = 0 :: else -> k = 1 fi;
     task_move_lease(task);
     attempts++; assert(attempts < 4); live = attempts;
     attempt_move_start(attempt[live]);
     owner[live] = k; owner_inc[live] = row_inc[k];
     push()
  :: else -> skip
  fi
}

inline elsewhere(is_lost) {
#ifndef ENDLESS_LOSSES
  losses = losses + is_lost;
#endif
  if :: is_lost && losses >= 2 -> task_move_fail(task) :: else -> task_move_retry(task) fi
}

inline fence_now(x) {
#ifndef NO_FENCE
  if
  :: up[x] && renewed[x] >= 2 ->
     if :: held[x*4+1] == h_runs -> held[x*4+1] = h_fenced :: else -> skip fi;
     if :: held[x*4+2] == h_runs -> held[x*4+2] = h_fenced :: else -> skip fi;
     if :: held[x*4+3] == h_runs -> held[x*4+3] = h_fenced :: else -> skip fi
  :: else -> skip
  fi
#else
  skip
#endif
}

#ifdef NO_FENCE
#define in_time(x) true
#else
#define in_time(x) (renewed[x] < 2)
#endif

inline obey(x, a) {
  if
  :: a != 0 && held[x*4+a] == h_no && !acked[x*4+a] && in_time(x) -> held[x*4+a] = h_runs
  :: else -> skip
  fi
}

inline disown(x, a) {
  if :: (m_foreign & (1 << a)) && held[x*4+a] == h_runs -> held[x*4+a] = h_killed :: else -> skip fi
}

inline take_report(x, a) {
  if
  :: (m_mask & (1 << a)) && live == a && owner[a] == x && owner_inc[a] == m_inc ->
     live = 0;
     if
     :: held[x*4+a] == h_done ->
        attempt_move_run(attempt[a]); attempt_move_complete(attempt[a]);
        task_move_run(task); task_move_complete(task)
     :: held[x*4+a] == h_fenced -> attempt_move_stop(attempt[a]); elsewhere(1)
     :: else -> attempt_move_stop(attempt[a]); elsewhere(0)
     fi;
     now_free(x)
  :: else -> skip
  fi
}

inline acknowledge(x, a) {
  if :: told[x*4+a] && (m_mask & (1 << a)) -> held[x*4+a] = h_no; told[x*4+a] = false; acked[x*4+a] = true :: else -> skip fi
}

inline tell(x, a) {
  if :: held[x*4+a] > h_runs && !told[x*4+a] -> told[x*4+a] = true; m_mask = m_mask + (1 << a) :: else -> skip fi
}

inline expire(x) {
  if
  :: row[x] == worker_online && unheard[x] == stale ->
     worker_move_lose(row[x]);
#ifndef NO_EXPIRY
     if
     :: live != 0 && owner[live] == x -> attempt_move_fail(attempt[live]); live = 0; elsewhere(1)
     :: else -> skip
     fi
#else
     assert(!(live != 0 && owner[live] == x))
#endif
  :: else -> skip
  fi
}

#define newly_silent(x) (row[x] == worker_online && unheard[x] == 2 && up[x])
#define cost (newly_silent(0) + newly_silent(1))
inline age(x) { if :: x < stale -> x++ :: else -> skip fi }
inline hush() { m_kind = m_none; m_to = 0; m_age = 0; m_mask = 0; m_inc = 0; m_attempt = 0; m_known = false; m_foreign = 0 }

inline of_worker(x) {
  /* fills m_attempt and m_foreign of an answer, from m_mask: what the worker said that it holds */
  k = 0;
  if :: live != 0 && owner[live] == x -> k = live :: else -> skip fi;
  if :: k != 0 -> m_foreign = m_mask & (15 - (1 << k)) :: else -> m_foreign = m_mask fi;
  m_attempt = k
}

init {
  do
  :: atomic {
       c_code { look(now.task, now.attempts, now.row[0], ALIVE(0), now.row[1], ALIVE(1)); };
       assert(!(alive(0) > 0 && alive(1) > 0));
       k = 0; w = 0; n = 0;
       if
       /* a worker starts, joins, beats, finishes, tells */
       :: !up[0] -> w = 0; up[w] = true; renewed[w] = stale
       :: !up[1] -> w = 1; up[w] = true; renewed[w] = stale
       :: m_kind == m_none ->
          if :: w = 0 :: w = 1 fi;
          if
          :: up[w] && !member[w] && !waits_join[w] -> waits_join[w] = true; m_kind = m_ask_join; m_to = w; m_mask = mask_of(w)
          :: up[w] && member[w] && !waits_beat[w] && !waits_join[w] ->
             waits_beat[w] = true; m_kind = m_ask_beat; m_to = w; m_mask = mask_of(w); m_inc = inc[w]
          :: up[w] && member[w] && !waits_tell[w] && news(w) ->
             waits_tell[w] = true; m_kind = m_ask_tell; m_to = w; m_inc = inc[w]; tell(w, 1); tell(w, 2); tell(w, 3)
          :: else -> skip
          fi
       :: true ->
          if :: w = 0 :: w = 1 fi;
          if :: n = 1 :: n = 2 :: n = 3 fi;
          if :: held[w*4+n] == h_runs -> held[w*4+n] = h_done :: else -> skip fi
       /* what is on its way arrives */
       :: m_kind == m_ask_join -> w = m_to;
          if
          :: row[w] == worker_none -> worker_move_create(row[w]); row_inc[w] = 1; now_free(w)
          :: row[w] == worker_lost -> worker_move_return(row[w]); row_inc[w]++; now_free(w)
          :: else -> skip
          fi;
          unheard[w] = 0; of_worker(w); m_inc = row_inc[w]; m_mask = 0; m_kind = m_joined; give_out()
       :: m_kind == m_ask_beat -> w = m_to;
          if
          :: row[w] == worker_lost || row_inc[w] != m_inc -> m_known = false; m_attempt = 0; m_foreign = 0
          :: else -> m_known = true; unheard[w] = 0; of_worker(w);
             if :: m_attempt != 0 && (m_mask & (1 << m_attempt)) -> m_attempt = 0 :: else -> skip fi
          fi;
          m_mask = 0; m_inc = 0; m_kind = m_beaten
       :: m_kind == m_ask_tell -> w = m_to; take_report(w, 1); take_report(w, 2); take_report(w, 3);
          m_inc = 0; m_kind = m_told; give_out()
       :: m_kind == m_joined -> w = m_to; waits_join[w] = false; member[w] = true; inc[w] = m_inc;
          if :: m_age < renewed[w] -> renewed[w] = m_age :: else -> skip fi;
          disown(w, 1); disown(w, 2); disown(w, 3); obey(w, m_attempt); fence_now(w); hush()
       :: m_kind == m_beaten -> w = m_to; waits_beat[w] = false;
          if
          :: m_known -> if :: m_age < renewed[w] -> renewed[w] = m_age :: else -> skip fi;
             disown(w, 1); disown(w, 2); disown(w, 3); obey(w, m_attempt)
          :: else -> member[w] = false
          fi;
          fence_now(w); hush()
       :: m_kind == m_told -> w = m_to; waits_tell[w] = false;
          acknowledge(w, 1); acknowledge(w, 2); acknowledge(w, 3); hush()
       :: m_kind == m_order -> w = m_to;
          if :: m_inc == inc[w] -> n = m_attempt; hush(); obey(w, n) :: else -> hush() fi
       /* the orchestrator looks at the time */
       :: (row[0] == worker_online && unheard[0] == stale) || (row[1] == worker_online && unheard[1] == stale) ->
          expire(0); expire(1); give_out()
       /* time passes */
       :: cost <= silences ->
          silences = silences - cost;
          age(renewed[0]); age(renewed[1]);
          if :: row[0] == worker_online -> age(unheard[0]) :: else -> skip fi;
          if :: row[1] == worker_online -> age(unheard[1]) :: else -> skip fi;
          if
          :: m_kind == m_ask_join || m_kind == m_ask_beat || m_kind == m_joined || m_kind == m_beaten -> age(m_age)
          :: else -> skip
          fi;
          fence_now(0); fence_now(1)
       fi;
       k = 0; w = 0; n = 0
     }
  od
}
"""
