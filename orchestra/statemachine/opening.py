"""A project by its name, opened when it is new: projects and jobs both need it."""

from __future__ import annotations

from orchestra.errors import Conflict
from orchestra.statemachine.bounds import check_name
from orchestra.statemachine.lifecycles import ProjectStatus, Verb
from orchestra.statemachine.records import Project, evolve
from orchestra.statemachine.transaction import Transaction


def ensure_project(tx: Transaction, name: str) -> Project:
    """The project of this name, opened if it is new."""
    known = tx.state.index.project_names.get(name)
    if known is not None:
        return tx.get(Project, known)
    check_name(name, "project")
    counters = tx.put(evolve(tx.state.counters, projects=tx.state.counters.projects + 1))
    return tx.create(
        Project(
            id=tx.new_id(counters.projects),
            number=counters.projects,
            name=name,
            owner=tx.principal,
            status=ProjectStatus.OPEN,
            created_at_ms=tx.now_ms,
        ),
        Verb.CREATE,
    )


def open_for_jobs(tx: Transaction, name: str) -> Project:
    """As `ensure_project`. Raises `Conflict` when it is archived."""
    project = ensure_project(tx, name)
    if project.status is ProjectStatus.ARCHIVED:
        raise Conflict(
            f"the project {name!r} is archived", where="project", remedy="open it again first"
        )
    return project
