"""Recording: an act of a person on a predicted case, in the record if their role allows it."""

from typing import Any

from medssl.review.access import Reviewer
from medssl.review.event import Act, Event
from medssl.review.predictions import Index
from medssl.review.state import Refusal
from medssl.review.store import Store


def record(store: Store, index: Index, who: Reviewer, case: str, action: str, **said: Any) -> Event:
    """Stores what a person did to what this model predicted; `session` and `number` name it. Raises Refusal."""
    if not who.may(action):
        raise Refusal(f"As {who.role} you may not {action}.")
    return store.record(Act(case=case, action=action, model=index.weights, reviewer=who.name, role=who.role, **said))
