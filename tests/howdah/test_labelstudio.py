"""What the API of Label Studio says about tasks."""

import base64

import pytest

from howdah.labelstudio import ADDRESS, original

STORED = "pachyderm://default/images@99d66bc692fa45da9af1972b0d74f0b9/digits/0000.png"


@pytest.mark.parametrize("start", ["/tasks/7/resolve/", "http://127.0.0.1:8080/tasks/7/resolve/"])
def test_a_task_keeps_its_item(start: str) -> None:
    link = f"{start}?fileuri={base64.urlsafe_b64encode(STORED.encode()).decode()}"
    assert original(link) == original(STORED) == STORED
    found = ADDRESS.fullmatch(original(link))
    assert found is not None and found["item"] == "digits/0000.png"


def test_other_values_stay_as_they_are() -> None:
    for value in ("https://example.com/a.png", "/tasks/7/resolve/?fileuri=%", "text"):
        assert original(value) == value
