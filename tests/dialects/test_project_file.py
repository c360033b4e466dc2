from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.dialects.project_file import PROCESS_APP, STAGE_KEYS, parse
from orchestra.dialects.toml_fields import MISTAKES_MAX
from orchestra.errors import Malformed
from orchestra.statemachine import limits
from orchestra.statemachine.commands import StageDraft, SubmitJob
from orchestra.statemachine.records import OnFailure, Span

HERE = "/srv/farm"
WHOLE = """
[project]
name = "digits"
shared = "out"

[job]
name = "grid 7"
priority = 3
on_failure = "stop"

[stages.split]
argv = ["{python}", "{here}/digits.py", "split", "{shared}"]

[stages.train]
after = ["split"]
over = { C = [1, 10], gamma = [0.001, 0.01] }
argv = ["{python}", "{here}/digits.py", "train", "--c", "{item.C}", "{{literal}}"]
needs = { cpu = 0.5, memory = "500MiB" }
labels = ["gpu"]
priority = -2
retries = 2
backoff = "2s"
backoff_max = "1m"
timeout = "10m"
queue_timeout = "1h"
grace = "5s"
env = { KEY = "value", SEED = "{attempt}" }

[stages.check]
pairwise = ["train"]
over = "1-4"
app = "farm.check"
args = [1, "two"]
kwargs = { strict = true }
"""


def stage(fields: str, top: str = "") -> str:
    return f'[project]\nname = "p"\n{top}\n[stages.s]\n{fields}\n'


def one(fields: str, top: str = "") -> StageDraft:
    return parse(stage(fields, top), folder=HERE).stages[0]


def template(draft: StageDraft) -> Any:
    return json.loads(draft.template)


def mistake(text: str) -> Malformed:
    with pytest.raises(Malformed) as caught:
        parse(text, folder=HERE)
    return caught.value


def test_a_whole_file_is_the_command_that_it_says() -> None:
    job = parse(WHOLE, folder=HERE)
    assert (job.project, job.name, job.priority) == ("digits", "grid 7", 3)
    assert job.on_failure is OnFailure.STOP
    assert [draft.name for draft in job.stages] == ["split", "train", "check"]
    train = job.stages[1]
    assert train == StageDraft(
        name="train",
        app=PROCESS_APP,
        template=train.template,
        over=(
            b'{"C":1,"gamma":0.001}',
            b'{"C":1,"gamma":0.01}',
            b'{"C":10,"gamma":0.001}',
            b'{"C":10,"gamma":0.01}',
        ),
        after=("split",),
        needs=(("cpu", 500), ("memory", 524_288_000_000)),
        labels=("gpu",),
        priority=-2,
        retries=2,
        backoff_ms=2_000,
        backoff_ms_max=60_000,
        queue_ms_max=3_600_000,
        run_ms_max=600_000,
        grace_ms=5_000,
    )
    assert template(train) == {
        "argv": ["{python}", f"{HERE}/digits.py", "train", "--c", "{item.C}", "{{literal}}"],
        "env": {"KEY": "value", "SEED": "{attempt}"},
        "folder": f"{HERE}/out",
        "memory_bytes": 524_288_000,
    }
    check = job.stages[2]
    assert (check.app, check.over, check.pairwise) == ("farm.check", Span(1, 5), ("train",))
    assert template(check) == {"args": [1, "two"], "kwargs": {"strict": True}}


def test_the_smallest_file_takes_every_default() -> None:
    job = parse(stage('argv = ["true"]'), folder=HERE)
    draft = StageDraft(name="s", app=PROCESS_APP, template=b'{"argv":["true"]}')
    assert job == SubmitJob(name="p", project="p", stages=(draft,))


def test_the_same_file_says_the_same_twice() -> None:
    assert parse(WHOLE, folder=HERE) == parse(WHOLE, folder=HERE)


def test_shared_may_be_absolute_and_braces_in_a_folder_stand_for_themselves() -> None:
    text = stage('argv = ["{here}/x", "{shared}"]', 'shared = "/mnt/{all}"')
    found = template(parse(text, folder="/srv/{a}").stages[0])
    assert found["argv"] == ["/srv/{{a}}/x", "/mnt/{{all}}"]
    assert found["folder"] == "/mnt/{all}"


def test_a_program_may_be_given_input_and_variables_of_the_worker() -> None:
    fields = 'argv = ["x", "{item.0}"]\nover = [["a", 1]]\nstdin = "{item}\\n"\ninherit = ["PATH"]'
    found = template(one(fields))
    assert found == {"argv": ["x", "{item.0}"], "inherit": ["PATH"], "stdin": "{item}\n"}


@pytest.mark.parametrize("name", ["a/b", "schöne Aufnahme", "日本", "a.b", "'quoted'", "x" * 200])
def test_stages_may_have_names_of_any_printable_kind(name: str) -> None:
    text = f'[project]\nname="p"\n[stages.{json.dumps(name, ensure_ascii=False)}]\nargv=["true"]\n'
    assert parse(text, folder=HERE).stages[0].name == name


@pytest.mark.parametrize(
    ("over", "items"),
    [
        ('["a", 1, 2.5, true]', [b'"a"', b"1", b"2.5", b"true"]),
        ("[{ x = 1 }, { x = 2, y = [3] }]", [b'{"x":1}', b'{"x":2,"y":[3]}']),
        ("[2026-11-23]", [b'"2026-11-23"']),
        ('{ a = "1-2", b = ["é"] }', ['{"a":1,"b":"é"}'.encode(), '{"a":2,"b":"é"}'.encode()]),
    ],
)
def test_items_are_json(over: str, items: list[bytes]) -> None:
    assert one(f'argv = ["x"]\nover = {over}').over == tuple(items)


@pytest.mark.parametrize(
    ("over", "span"),
    [
        ("1-24", Span(1, 25)),
        ("7-7", Span(7, 8)),
        ("0-100:10", Span(0, 101, 10)),
        ("-5-5", Span(-5, 6)),
        ("-5--3", Span(-5, -2)),
    ],
)
def test_ranges_include_both_ends_and_store_no_items(over: str, span: Span) -> None:
    assert one(f'argv = ["x", "{{item}}"]\nover = "{over}"').over == span


SYNTAX = [
    ("[project]\nname = ", "line 2, at the end"),
    ("[project]\nname == 3", "line 2, column 7"),
    ("[project]\n[project]", "line 2, column 9"),
    ("a = " + "[" * 5_000, ""),
    ("a = " + "9" * 5_000, ""),
    ("x" + ".x" * 1_000 + " = 1", "line 1"),
    ("[project]\nname = '\ud800'", ""),
    ("# " + "x" * limits.PROJECT_FILE_BYTES_MAX, ""),
]


@pytest.mark.parametrize(("text", "where"), SYNTAX)
def test_what_is_no_toml_is_named_by_its_place(text: str, where: str) -> None:
    assert mistake(text).where == where


FIELDS = [
    ('argv = "ls -l"', "stages.s.argv", "there is no shell"),
    ("argv = []", "stages.s.argv", "names no program"),
    ('argv = ["", "x"]', "stages.s.argv", "names no program"),
    ('argv = ["x", 5]', "stages.s.argv[1]", 'write "5"'),
    ('argv = ["x\\u0000"]', "stages.s.argv[0]", "zero character"),
    ('argv = ["{pyton}"]', "stages.s.argv[0]", "did you mean {python}?"),
    ('argv = ["{"]', "stages.s.argv[0]", "write {{ for a plain {"),
    ('argv = ["x}"]', "stages.s.argv[0]", "write }} for a plain }"),
    ('argv = ["{item}"]', "stages.s.argv[0]", "there are no items"),
    ('argv = ["{shared}"]', "stages.s.argv[0]", "no shared folder"),
    ('argv = ["{item.C}"]\nover = "1-3"', "stages.s.argv[0]", "not every item has a 'C'"),
    ('argv = ["{item.c}"]\nover = {C=[1]}', "stages.s.argv[0]", "did you mean {item.C}?"),
    ('argv = ["{item.x}"]\nover = [{x=1}, {y=1}]', "stages.s.argv[0]", "not every item"),
    ("retries = 1", "stages.s", "has neither argv nor app"),
    ('argv = ["x"]\napp = "y"', "stages.s", "has both argv and app"),
    ('argv = ["x"]\nargs = [1]', "stages.s.args", "belongs to a stage with app"),
    ('app = "y"\nenv = {}', "stages.s.env", "belongs to a stage with argv"),
    ('app = "process"', "stages.s.app", "programs are run with argv"),
    ('app = "y"\nargs = {}', "stages.s.args", "is not a list"),
    ('app = "y"\nargs = [nan]', "stages.s.args[0]", "not a number that can be passed on"),
    ('app = "y"\nkwargs = { a = { b = 99999999999999999999 } }', "stages.s.kwargs.a.b", "64 bits"),
    ('argv = ["x"]\nretry = 1', "stages.s.retry", 'did you mean "retries"?'),
    ('argv = ["x"]\nretries = -1', "stages.s.retries", "between 0 and 1,000"),
    ('argv = ["x"]\nretries = true', "stages.s.retries", "not a whole number"),
    ('argv = ["x"]\npriority = 5000', "stages.s.priority", "between -1,000 and 1,000"),
    ('argv = ["x"]\nneeds = { cpu = "two" }', "stages.s.needs.cpu", "not an amount"),
    ('argv = ["x"]\nneeds = { memory = 2 }', "stages.s.needs.memory", "the unit is missing"),
    ('argv = ["x"]\nneeds = 3', "stages.s.needs", "not a table"),
    ('argv = ["x"]\nlabels = "gpu"', "stages.s.labels", 'write ["gpu"]'),
    ('argv = ["x"]\nlabels = [""]', "stages.s.labels[0]", "is empty"),
    ('argv = ["x"]\ntimeout = "soon"', "stages.s.timeout", "not a duration"),
    ('argv = ["x"]\ntimeout = 0', "stages.s.timeout", "no time at all"),
    ('argv = ["x"]\nqueue_timeout = "0s"', "stages.s.queue_timeout", "no time at all"),
    ('argv = ["x"]\ngrace = "2h"', "stages.s.grace", "longer than 1h"),
    ('argv = ["x"]\nenv = { "A-B" = "1" }', "stages.s.env.A-B", "can not be the name"),
    ('argv = ["x"]\nenv = { A = 1 }', "stages.s.env.A", 'write "1"'),
    ('argv = ["x"]\ninherit = ["A=B"]', "stages.s.inherit[0]", "can not be the name"),
    ('argv = ["x"]\nstdin = "{item}"', "stages.s.stdin", "there are no items"),
    ('argv = ["{item.1}"]\nover = [[1, 2], [1]]', "stages.s.argv[0]", "not every item has a '1'"),
    ('app = "x"\nstdin = "y"', "stages.s.stdin", "belongs to a stage with argv"),
    ('argv = ["x"]\nafter = ["t"]', "stages.s.after[0]", 'no stage "t"'),
    ('argv = ["x"]\npairwise = ["z"]', "stages.s.pairwise[0]", 'no stage "z"'),
    ('argv = ["x"]\nafter = "s"', "stages.s.after", "is not a list"),
    ('argv = ["x"]\nover = []', "stages.s.over", "nothing to go over"),
    ('argv = ["x"]\nover = {}', "stages.s.over", "nothing to go over"),
    ('argv = ["x"]\nover = 3', "stages.s.over", "nothing to go over"),
    ('argv = ["x"]\nover = "3"', "stages.s.over", "not a range"),
    ('argv = ["x"]\nover = "9-1"', "stages.s.over", 'did you mean "1-9"?'),
    ('argv = ["x"]\nover = "1-9:0"', "stages.s.over", "step of 0"),
    ('argv = ["x"]\nover = "1-9999999"', "stages.s.over", "more than 1,000,000"),
    ('argv = ["x"]\nover = {a = 1}', "stages.s.over.a", "not a list"),
    ('argv = ["x"]\nover = {a = "1-2000", b = "1-2000"}', "stages.s.over", "4,000,000 tasks"),
    ('argv = ["x"]\nover = {a = ["' + "x" * 900 + '"], b = "1-99999"}', "stages.s.over", "bytes"),
    ('argv = ["' + "x" * 300_000 + '"]', "stages.s", "take more than 256KiB"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "where", "told"), FIELDS)
def test_each_wrong_field_is_named_and_told(fields: str, where: str, told: str) -> None:
    found = mistake(stage(fields))
    assert found.where == where
    assert told in str(found)


TOPS = [
    ("", "project", "is missing"),
    ("[project]", "project.name", "is missing"),
    ("project = 3", "project", "not a table"),
    ('name = "x"', "name", "belongs under [project]"),
    ('[project]\nname = ""', "project.name", "can not be a name"),
    ('[project]\nname = "a\\nb"', "project.name", "can not be a name"),
    ('[project]\nname = "p"', "stages", "there is no stage"),
    ('[project]\nname = "p"\nshare = "x"', "project.share", 'did you mean "shared"?'),
    ('[project]\nname = "p"\nshared = ""', "project.shared", "is empty"),
    ('stages = 3\n[project]\nname = "p"', "stages", "not a table"),
    ('[project]\nname = "p"\n[stages]\na = 3', "stages.a", "not a table"),
    ('[project]\nname = "p"\n[stage.a]\nargv = ["x"]', "stage", 'did you mean "stages"?'),
    (
        '[project]\nname = "p"\n[job]\non_failure = "halt"\n[stages.s]\napp = "x"',
        "job.on_failure",
        "neither",
    ),
    ('[project]\nname = "p"\n[stages." "]\nargv = ["x"]', 'stages." "', "can not be a name"),
]


@pytest.mark.parametrize(("text", "where", "told"), TOPS)
def test_each_wrong_section_is_named_and_told(text: str, where: str, told: str) -> None:
    found = mistake(text)
    assert found.where == where
    assert told in str(found)


def test_all_mistakes_are_told_at_once_and_a_flood_is_counted() -> None:
    found = mistake(stage('argv = "x"\nretries = -1\nneeds = { cpu = "x" }'))
    assert str(found).count("\n") == 2
    assert found.where == "stages.s.needs.cpu"
    for name in ("argv", "retries", "needs.cpu"):
        assert f"stages.s.{name}: " in str(found)
    flood = mistake(stage('argv = ["x"]\n' + "".join(f"k{i} = 1\n" for i in range(500))))
    assert str(flood).endswith(f"and {500 - MISTAKES_MAX} more")


def test_unknown_keys_far_from_any_other_get_no_guess() -> None:
    assert "did you mean" not in str(mistake(stage('argv = ["x"]\nzzzz = 1')))


def test_circles_are_left_for_the_core() -> None:
    assert one('argv = ["x"]\nafter = ["s"]').after == ("s",)


def test_a_relative_folder_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="absolute"):
        parse(WHOLE, folder="farm")


def test_too_many_stages_are_refused_in_bounded_time() -> None:
    lines = "".join(f"[stages.s{i}]\n" for i in range(40_000))
    assert "argv" in str(mistake('[project]\nname = "p"\n' + lines))


JSONISH = st.recursive(
    st.one_of(
        st.integers(), st.booleans(), st.floats(), st.text(max_size=12),
        st.sampled_from(["1-9", "10m", "2GiB", "{item.C}", "{shared}", "s", "{{", "}", "process"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip


def toml(value: object) -> str:
    """Any value as TOML; dictionaries inline."""
    if isinstance(value, dict):
        cells = ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items())
        return "{" + cells + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(entry) for entry in value) + "]"
    if isinstance(value, str):
        return json.dumps(value)
    return str(value).lower()


STAGES = st.dictionaries(
    st.one_of(st.text(max_size=4), st.sampled_from(["s", "t"])),
    st.dictionaries(st.one_of(st.sampled_from(STAGE_KEYS), st.text(max_size=5)), JSONISH, max_size=6),
    max_size=3,
)  # fmt: skip


@given(st.one_of(JSONISH, st.just({"name": "p", "shared": "out"})), JSONISH, STAGES)
def test_any_tables_are_a_command_or_malformed(
    project: object, job: object, stages: object
) -> None:
    text = f"project = {toml(project)}\njob = {toml(job)}\nstages = {toml(stages)}\n"
    try:
        command = parse(text, folder=HERE)
    except Malformed:
        return
    assert all(draft.app for draft in command.stages)


@given(st.text(max_size=200))
def test_any_text_is_a_command_or_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        parse(text, folder=HERE)


@given(st.data())
def test_any_damage_to_a_good_file_is_a_command_or_malformed(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(WHOLE)))
    cut = data.draw(st.integers(0, 30))
    new = data.draw(st.text(alphabet='"[]{}=.,\n#\\x1-', max_size=5))
    with contextlib.suppress(Malformed):
        parse(WHOLE[:at] + new + WHOLE[at + cut :], folder=HERE)


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0\x7f"), min_size=1, max_size=20)


@given(st.lists(WORDS, min_size=1, max_size=5))
def test_every_word_reaches_the_template_as_it_is(words: list[str]) -> None:
    escaped = [word.replace("{", "{{").replace("}", "}}") for word in words]
    text = stage("argv = " + json.dumps(escaped, ensure_ascii=False))
    assert template(parse(text, folder=HERE).stages[0])["argv"] == escaped


def test_the_documentation_names_every_key() -> None:
    page = Path(__file__).parents[2] / "docs" / "project-file.md"
    text = page.read_text(encoding="utf-8")
    for key in (*STAGE_KEYS, "name", "shared", "on_failure"):
        assert f"`{key}`" in text
