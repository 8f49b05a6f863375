"""Pipeline specs: from JSON text or a request message to what is stored, with every default filled in.

The effective spec is the merge (RFC 7396: later wins, null deletes) of the built-in defaults, the cluster's, the
project's and the user's.  Names of fields may be written as in the .proto files or in camel case; an unknown one is an
error, because a misspelt option that is silently ignored costs its author a day.
"""

from __future__ import annotations

import json
import re
from typing import Any

from google.protobuf import json_format

from pachd.errors import InvalidArgument, PachError
from pachd.pps import inputs
from pachd.proto import pps_pb2

MAX_NAME = 51
MAX_WORKER = 63  # characters of project, pipeline and version together, as a cluster names the workers
BUILT_IN: dict[str, Any] = {
    "transform": {"image": "ubuntu:20.04"},
    "outputBranch": "master",
    "datumTries": "3",
    "reprocessSpec": "until_success",
}
CLUSTER: dict[str, Any] = {
    "resourceRequests": {"cpu": 1, "memory": "256Mi", "disk": "1Gi"},
    "sidecarResourceRequests": {"cpu": 1, "memory": "256Mi", "disk": "1Gi"},
}
# messages that JSON writes as one value, not as an object of their fields
_PLAIN = {"google.protobuf.Duration", "google.protobuf.Timestamp", "google.protobuf.Int64Value"}
_SHOWN = 2000  # characters of a spec that an error repeats
_NAME = re.compile(r"^[a-zA-Z0-9_-]+$")


def canonical(value: Any, descriptor: Any, where: str = "") -> Any:
    """The same JSON object with every field name in camel case.

    Raises InvalidArgument for a field that ``descriptor`` does not have and for an object where none may be.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InvalidArgument(f"{where or 'pipeline spec'}: expected an object, found {json.dumps(value)[:60]}")
    known: dict[str, Any] = {}
    for field in descriptor.fields:
        known[field.name] = known[field.json_name] = field
    result: dict[str, Any] = {}
    for name, item in value.items():
        field = known.get(name)
        path = f"{where}.{name}" if where else name
        if field is None:
            raise InvalidArgument(f'unknown field "{path}" in {descriptor.full_name}')
        if field.json_name in result:
            raise InvalidArgument(f'duplicate field "{name}"')
        result[field.json_name] = _canonical_field(item, field, path)
    return result


def _canonical_field(item: Any, field: Any, path: str) -> Any:
    message = field.message_type
    if field.enum_type is not None:
        names = field.enum_type.values_by_number
        return [_enum(one, names) for one in item] if isinstance(item, list) else _enum(item, names)
    if message is None or message.full_name in _PLAIN or item is None:
        return item
    if message.GetOptions().map_entry:
        return item
    if field.is_repeated:
        if not isinstance(item, list):
            raise InvalidArgument(f"{path}: expected a list, found {json.dumps(item)[:60]}")
        return [canonical(one, message, f"{path}[{i}]") for i, one in enumerate(item)]
    return canonical(item, message, path)


def _enum(item: Any, names: Any) -> Any:
    """The name of a number that has one."""
    return names[item].name if isinstance(item, int) and item in names else item


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidArgument(f'duplicate field "{key}"')
        found[key] = value
    return found


def merge(base: Any, patch: Any) -> Any:
    """RFC 7396: objects are merged, everything else is replaced, null deletes."""
    if not isinstance(patch, dict):
        return patch
    result = dict(base) if isinstance(base, dict) else {}
    for name, item in patch.items():
        if item is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), item)
    return result


def parse_json(text: str) -> dict[str, Any]:
    """One JSON object from ``text``; InvalidArgument says where it is malformed."""
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        rest = text[error.pos :].lstrip()
        if text.strip() and not rest:
            raise InvalidArgument("unexpected EOF") from None
        place = f"{error.lineno}:{error.colno}" if rest else "1:1"
        raise InvalidArgument(f"syntax error (line {place}): unexpected token {_token(rest)}") from None
    except RecursionError:
        raise InvalidArgument("exceeded max recursion depth") from None
    if not isinstance(value, dict):
        raise InvalidArgument(f"syntax error (line 1:1): unexpected token {_token(text.lstrip())}")
    return value


def _token(text: str) -> str:
    match = re.match(r'"[^"]*"|[\w.+-]+|.', text)
    return match[0] if match else ""


def parse_user(text: str) -> dict[str, Any]:
    """A user's spec from JSON text. Raises InvalidArgument, with the line, for what is no spec."""
    try:
        user = parse_json(text)
        known = canonical(user, pps_pb2.CreatePipelineRequest.DESCRIPTOR)
        json_format.ParseDict(known, pps_pb2.CreatePipelineRequest())
    except (RecursionError, json_format.ParseError, InvalidArgument) as error:
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"  # the reason comes after it
        told = f"could not parse {shown} as Create Pipeline Request message"
        raise InvalidArgument(f"{told}: proto: {placed(text, str(error))}") from None
    return user


def placed(text: str, told: str) -> str:
    """An error with the line and column of the field that is unknown, or there again."""
    wrong = re.match(r'(unknown|duplicate) field "(?:[^"]*\.)?([^".]+)"', told)
    found = list(re.finditer(rf'"{re.escape(wrong[2])}"\s*:', text)) if wrong else []
    if not wrong or not found:
        return told
    start = found[0 if wrong[1] == "unknown" else -1].start()
    before = text[:start]
    return f'(line {before.count(chr(10)) + 1}:{start - before.rfind(chr(10))}): {wrong[1]} field "{wrong[2]}"'


def effective(user: dict[str, Any], *defaults: dict[str, Any]) -> tuple[pps_pb2.CreatePipelineRequest, str]:
    """Merge a user's spec over the defaults (weakest first) on top of the built-in ones.

    Returns the request message and the merged spec as JSON text.
    Raises InvalidArgument for unknown fields, wrong types and what `_check_effective` refuses.
    """
    descriptor = pps_pb2.CreatePipelineRequest.DESCRIPTOR
    merged: dict[str, Any] = BUILT_IN
    request = pps_pb2.CreatePipelineRequest()
    try:
        for layer in defaults:
            merged = merge(merged, layer)
        merged = merge(merged, canonical(user, descriptor))
        json_format.ParseDict(merged, request)
    except (RecursionError, json_format.ParseError) as error:
        raise InvalidArgument(f"malformed pipeline spec: {error}") from None
    text = json.dumps(merged, separators=(",", ":"), sort_keys=True)
    try:
        _check_effective(request)
    except PachError as error:
        raise InvalidArgument(f"invalid effective spec {text}: {error}") from None
    if request.HasField("pipeline") and not request.pipeline.project.name:
        request.pipeline.project.name = "default"
    return request, text


def to_json(message: Any) -> str:
    """A message as JSON in Pachyderm's form: camel case, 64-bit numbers as strings, zero fields left out."""
    return json.dumps(json_format.MessageToDict(message), separators=(",", ":"), sort_keys=True)


def read(text: str) -> pps_pb2.CreatePipelineRequest:
    """The message that the JSON text of an effective spec stands for."""
    return json_format.Parse(text, pps_pb2.CreatePipelineRequest(), ignore_unknown_fields=True)


def _check_effective(request: pps_pb2.CreatePipelineRequest) -> None:
    """What can be said of a merged spec by itself; PachError with the words that Pachyderm uses."""
    if request.HasField("tf_job"):
        raise PachError("embedding TFJobs in pipelines is not supported yet")
    if request.reprocess_spec not in ("", "until_success", "every_job"):
        raise PachError('invalid pipeline spec: ReprocessSpec must be one of "until_success" or "every_job"')
    total = len(request.tolerations)
    wrong = [i for i, each in enumerate(request.tolerations, 1) if each.operator == pps_pb2.EMPTY]
    if wrong:
        told = "cannot omit key/value comparison operator; specify EQUAL or EXISTS"
        raise PachError("\n".join(f"toleration {i}/{total}: {told}" for i in wrong))
    for label, text in (("PodSpec", request.pod_spec), ("PodPatch", request.pod_patch)):
        if text:
            try:
                json.loads(text)
            except (RecursionError, ValueError):
                raise PachError(f"malformed {label}") from None
    if request.HasField("service") and request.service.type not in ("", "ClusterIP", "LoadBalancer", "NodePort"):
        raise PachError(f"the following service type {request.service.type} is not allowed")


def validate_request(request: pps_pb2.CreatePipelineRequest) -> None:
    """The checks of a request before anything is looked up; PachError with the words that Pachyderm uses."""
    name = request.pipeline.name
    if not request.HasField("pipeline"):
        raise PachError("invalid pipeline spec: request.Pipeline cannot be nil")
    if not name:
        raise PachError("invalid pipeline spec: request.Pipeline.Name cannot be empty")
    check_name(name)
    if len(name) > MAX_NAME:
        raise PachError(f'pipeline name "{name}" is {len(name) - MAX_NAME} characters longer than the {MAX_NAME} max')
    project = request.pipeline.project.name
    worker = f"{project}-{name}-v99".replace("_", "-").lower()
    if len(worker) > MAX_WORKER:
        told = f'Kubernetes name "{worker}" is {len(worker) - MAX_WORKER} characters longer than the {MAX_WORKER} max'
        raise PachError(told)
    if request.s3_out and (request.HasField("service") or request.HasField("spout")):
        raise PachError("s3 output is not supported in spouts or services")
    if not request.HasField("transform"):
        raise PachError("pipeline must specify a transform")
    if request.HasField("spout") and request.autoscaling:
        raise PachError("autoscaling can't be used with spouts (spouts aren't triggered externally)")


def check_name(name: str) -> None:
    """Refuse a pipeline name that no repo could have."""
    if not _NAME.match(name):
        raise PachError(
            f"invalid pipeline name: name ({name}) invalid: only alphanumeric characters, underscores, "
            "and dashes are allowed"
        )


def validate_details(pipeline: pps_pb2.Pipeline, details: pps_pb2.PipelineInfo.Details) -> None:
    """The checks of a spec after its defaults are in; PachError with the words that Pachyderm uses."""
    if not pipeline.name[0].isalnum():
        raise PachError("pipeline names must start with an alphanumeric character")
    if not details.transform.image:
        raise PachError("invalid transform: pipeline transform must contain an image")
    if details.HasField("input"):
        inputs.validate(details.input, pipeline.project.name)
    if details.HasField("service") and details.HasField("parallelism_spec") and details.parallelism_spec.constant != 1:
        raise PachError("services can only be run with a constant parallelism of 1")
    if details.HasField("spout") and not details.spout.HasField("service") and details.HasField("input"):
        raise PachError("spout pipelines (without a service) must not have an input")


_COPIED_MESSAGES = (
    "transform",
    "parallelism_spec",
    "egress",
    "resource_requests",
    "resource_limits",
    "sidecar_resource_limits",
    "input",
    "service",
    "spout",
    "datum_set_spec",
    "datum_timeout",
    "job_timeout",
    "scheduling_spec",
    "metadata",
    "sidecar_resource_requests",
    "determined",
    "maximum_expected_uptime",
)
_COPIED_VALUES = (
    "output_branch",
    "description",
    "datum_tries",
    "pod_spec",
    "pod_patch",
    "s3_out",
    "reprocess_spec",
    "autoscaling",
)


def pipeline_type(request: pps_pb2.CreatePipelineRequest) -> pps_pb2.PipelineInfo.PipelineType:
    """What kind of pipeline a spec describes."""
    if request.HasField("spout"):
        return pps_pb2.PipelineInfo.PIPELINE_TYPE_SPOUT
    if request.HasField("service"):
        return pps_pb2.PipelineInfo.PIPELINE_TYPE_SERVICE
    return pps_pb2.PipelineInfo.PIPELINE_TYPE_TRANSFORM


def details_of(request: pps_pb2.CreatePipelineRequest) -> pps_pb2.PipelineInfo.Details:
    """What a pipeline stores of a request, with the defaults of inputs and services filled in."""
    details = pps_pb2.PipelineInfo.Details()
    for name in _COPIED_MESSAGES:
        if request.HasField(name):
            getattr(details, name).CopyFrom(getattr(request, name))
    for name in _COPIED_VALUES:
        setattr(details, name, getattr(request, name))
    details.tolerations.extend(request.tolerations)
    details.output_branch = details.output_branch or "master"
    details.datum_tries = details.datum_tries or 3
    details.reprocess_spec = details.reprocess_spec or "until_success"
    details.transform.image = details.transform.image or "ubuntu:20.04"
    if details.spout.HasField("service"):
        details.spout.service.type = details.spout.service.type or "NodePort"
    if details.HasField("service"):
        details.service.type = details.service.type or "NodePort"
    if details.HasField("input"):
        inputs.fill(details.input, request.pipeline.name, request.pipeline.project.name)
    return details
