"""References as people write them."""

import pytest

from pachd.client import parse_ref

ID = "573f7fd9f7d74d0f8ee8d5b1a9ab8a1c"


@pytest.mark.parametrize(
    ("text", "repo", "branch", "commit", "path"),
    [
        ("images", "default/images.user", "master", "", ""),
        ("images@dev", "default/images.user", "dev", "", ""),
        ("vision/images@dev:/cats/1.jpg", "vision/images.user", "dev", "", "/cats/1.jpg"),
        (f"images={ID}", "default/images.user", "", ID, ""),
        (f"images@{ID}:/a", "default/images.user", "", ID, "/a"),
        (f"images@master={ID}", "default/images.user", "master", ID, ""),
        ("edges.meta@master", "default/edges.meta", "master", "", ""),
        ("images@master^2:/x:y", "default/images.user", "master^2", "", "/x:y"),
    ],
)
def test_parse_ref(text: str, repo: str, branch: str, commit: str, path: str) -> None:
    file = parse_ref(text)
    found = file.commit.repo
    assert f"{found.project.name}/{found.name}.{found.type}" == repo
    assert (file.commit.branch.name, file.commit.id, file.path) == (branch, commit, path)


@pytest.mark.parametrize("text", ["", "a/b/c", "@master", "=x"])
def test_not_a_reference(text: str) -> None:
    with pytest.raises(ValueError, match="is not a reference"):
        parse_ref(text)
