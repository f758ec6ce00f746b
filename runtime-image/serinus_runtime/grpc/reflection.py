"""Server reflection, versions 1 and 1alpha: what lets grpcurl and its like call without a .proto file."""

from __future__ import annotations

from serinus_runtime.grpc import status
from serinus_runtime.grpc.call import Call
from serinus_runtime.grpc.codec import parsed
from serinus_runtime.grpc.schema import FILES, SERVICES, Message, file_of, message_class
from serinus_runtime.problems import InvalidRequestError

_REQUEST = message_class("grpc.reflection.v1.ServerReflectionRequest")
_RESPONSE = message_class("grpc.reflection.v1.ServerReflectionResponse")


class Reflection:
    """One ServerReflectionInfo. Both versions have the same messages under different names."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def wants(self) -> bool:
        """Every request is answered at once."""
        return True

    def message(self, payload: bytes) -> None:
        """The next question."""
        try:
            request = parsed(_REQUEST, payload)
        except InvalidRequestError as error:
            self._call.fail(400, str(error))
            return
        self._call.send([reflect(request).SerializeToString()])

    def end(self) -> None:
        """No more questions."""
        self._call.finish()


def reflect(request: Message) -> Message:
    """The answer to one ServerReflectionRequest."""
    answer = _RESPONSE(valid_host=request.host, original_request=request)
    asked = request.WhichOneof("parameter_choice")
    if asked == "list_services":
        for service in SERVICES:
            answer.list_services_response.service.add(name=service)
        return answer
    file: str | None = None
    if asked == "file_by_filename":
        file = request.file_by_filename
    elif asked == "file_containing_symbol":
        file = file_of(request.file_containing_symbol)
    if file is not None and file in FILES:
        answer.file_descriptor_response.file_descriptor_proto.append(FILES[file])
    elif asked == "all_extension_numbers_of_type":
        answer.all_extension_numbers_response.base_type_name = request.all_extension_numbers_of_type
    else:
        answer.error_response.error_code = status.NOT_FOUND
        answer.error_response.error_message = "there is no such file, symbol or extension here"
    return answer
