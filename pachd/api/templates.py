"""Pipeline templates: jsonnet, evaluated in a process of its own with limits on time and memory."""

import asyncio
import json
import sys

from google.protobuf import json_format

from pachd.errors import InvalidArgument, PachError
from pachd.pps import gojson, spec
from pachd.proto import pps_pb2

SECONDS = 15.0  # that a template may take
_AT_ONCE = asyncio.Semaphore(2)  # each may take much memory


async def render(template: str, args: dict[str, str]) -> pps_pb2.RenderTemplateResponse:
    """Evaluate a jsonnet template, a function of its arguments (texts) or a plain value.

    Returns its JSON text and the pipeline specs in it, one object or a list of them.  It may import from http and
    https URLs, never files of this machine.  Raises PachError with what is wrong and where.
    """
    if not template.strip():
        raise PachError("template err: main:1:1 Unexpected end of file\n\n\n\n")
    async with _AT_ONCE:
        output = await _evaluate(json.dumps({"template": template, "args": args}).encode())
    if not output:
        raise PachError("template err: the template takes too much memory or time")
    answer = json.loads(output)
    if "error" in answer:
        raise PachError(f"template err: {answer['error']}")
    try:
        return _response(answer["json"])
    except (RecursionError, ValueError) as error:
        raise PachError(f"the template's result is no pipeline spec: {error}") from None


async def _evaluate(question: bytes) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-m", "pachd.api.jsonnet_process"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(question), SECONDS)
    except TimeoutError:
        raise PachError(f"template err: the template did not end within {SECONDS:g} seconds") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return output


def _response(text: str) -> pps_pb2.RenderTemplateResponse:
    value = json.loads(text)
    if not isinstance(value, dict | list):
        raise PachError(f"not a json object or list: {text}")
    response = pps_pb2.RenderTemplateResponse(json=text)
    if isinstance(value, list):  # which Pachyderm reads with less care
        for one in value:
            try:
                found = gojson.field(one, "value", dict, "pps.CreatePipelineRequest")
                json_format.ParseDict(found, response.specs.add(), ignore_unknown_fields=True)
            except (ValueError, json_format.ParseError) as error:
                raise PachError(str(error)) from None
        return response
    try:
        json_format.ParseDict(spec.canonical(value, pps_pb2.CreatePipelineRequest.DESCRIPTOR), response.specs.add())
    except (InvalidArgument, json_format.ParseError) as error:
        raise PachError(f"proto: {spec.placed(text, str(error))}") from None
    return response
