"""Projects: opened when first named, closed for new jobs by archiving."""

from __future__ import annotations

from orchestra.errors import NotFound
from orchestra.statemachine.commands import ArchiveProject, OpenProject
from orchestra.statemachine.lifecycles import ProjectStatus, Verb
from orchestra.statemachine.opening import ensure_project
from orchestra.statemachine.records import Project
from orchestra.statemachine.replies import ProjectChanged
from orchestra.statemachine.transaction import Transaction


def open_project(tx: Transaction, command: OpenProject) -> ProjectChanged:
    """Open a project by name, or open an archived one again."""
    project = ensure_project(tx, command.name)
    if project.status is ProjectStatus.ARCHIVED:
        project = tx.move(project, Verb.REOPEN)
    return ProjectChanged(project.id, project.name, project.status)


def archive(tx: Transaction, command: ArchiveProject) -> ProjectChanged:
    """Close a project for new jobs; what runs in it goes on. One that is closed already stays so."""
    project_id = tx.state.index.project_names.get(command.name)
    if project_id is None:
        raise NotFound(f"there is no project {command.name!r}", where="name")
    project = tx.get(Project, project_id)
    if project.status is ProjectStatus.OPEN:
        project = tx.move(project, Verb.ARCHIVE)
    return ProjectChanged(project.id, project.name, project.status)
