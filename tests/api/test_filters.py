"""jq expressions that never end."""

import pytest

from pachd.api import filters
from pachd.errors import DeadlineExceeded
from pachd.proto import pps_pb2


def test_an_endless_filter_is_a_deadline_that_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    with filters.Filter("last(repeat(.))") as endless:
        monkeypatch.setattr(filters, "SECONDS", 0.1)
        with pytest.raises(DeadlineExceeded, match="error applying jq filter on proto message"):
            endless.matches(pps_pb2.PipelineInfo(state=pps_pb2.PIPELINE_RUNNING))
