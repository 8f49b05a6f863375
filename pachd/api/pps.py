"""pps_v2: the service, put together from its parts."""

from typing import Any

from pachd.api.activation import Activation
from pachd.api.datums import Datums
from pachd.api.jobs import Jobs
from pachd.api.logs import Logs
from pachd.api.pipelines import Pipelines
from pachd.api.service import Service
from pachd.api.settings import Settings
from pachd.api.worker import worker_service


class API(Pipelines, Jobs, Datums, Logs, Settings, Activation, Service):
    name = "pps_v2.API"

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        if context.engine is not None:
            context.engine.worker_service = worker_service


SERVICES = [API]
