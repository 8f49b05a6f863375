"""Label files read back: annotations with the people who made them and the times at which they did."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.utils.dateparse import parse_datetime
from tasks.models import Annotation, Task
from users.models import User

logger = logging.getLogger(__name__)


class Authors:
    """Finds the user of this Label Studio for a `completed_by` of another one, by e-mail address.

    Unknown people become users who cannot log in (inactive, no password): their labels keep their names.
    """

    def __init__(self, project: Any) -> None:
        self._project = project
        self._known: dict[str, User | None] = {}

    def find(self, person: Any) -> User | None:
        """`person`: what a label file says under completed_by: a dict with an e-mail address, or None."""
        email = str(person.get("email") or "").strip().lower() if isinstance(person, dict) else ""
        if not email:
            return None
        if email not in self._known:
            self._known[email] = self._load(email, person)
        return self._known[email]

    def _load(self, email: str, person: dict[str, Any]) -> User:
        user = User.objects.filter(email__iexact=email).first()
        if user is None:
            names = {name: str(person.get(name) or "")[:256] for name in ("first_name", "last_name")}
            user = User(email=email, username=email[:256], is_active=False, **names)
            user.set_unusable_password()
            user.save()
            logger.info("A user without log-in was made for the author of imported labels")
        organization = self._project.organization
        if not organization.has_user(user):
            organization.add_user(user)
        return user


def add_annotations(project: Any, authors: Authors, given: Iterable[tuple[Task, list[dict[str, Any]]]]) -> list[str]:
    """Create the annotations that came with tasks. Returns: a sentence for each that was left out."""
    problems, made, times = [], [], []
    for task, parts in given:
        for one in parts:
            result = one.get("result")
            if not isinstance(result, list):
                problems.append(f"Task {task.id}: an annotation without a list of results was left out.")
                continue
            author = authors.find(one.get("completed_by"))
            number = one.get("id")
            made.append(
                Annotation(
                    task=task,
                    project=project,
                    result=result,
                    result_count=len({part.get("id") for part in result if isinstance(part, dict)}),
                    completed_by=author,
                    updated_by=author,
                    was_cancelled=bool(one.get("was_cancelled")),
                    ground_truth=bool(one.get("ground_truth")),
                    lead_time=one.get("lead_time"),
                    import_id=number if isinstance(number, int) else None,
                )
            )
            times.append([parse_datetime(str(one.get(name) or "")) for name in ("created_at", "updated_at")])
    if not made:
        return problems
    made = Annotation.objects.bulk_create(made, batch_size=settings.BATCH_SIZE)
    for annotation, (created, updated) in zip(made, times, strict=True):
        annotation.created_at = created or annotation.created_at
        annotation.updated_at = updated or created or annotation.updated_at
    # A second statement, because Label Studio sets both times itself when a row is made.
    Annotation.objects.bulk_update(made, ["created_at", "updated_at"], batch_size=settings.BATCH_SIZE)
    project.summary.update_created_annotations_and_labels(made)
    return problems
