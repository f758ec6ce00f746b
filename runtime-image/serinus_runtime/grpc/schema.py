"""The messages of the Open Inference Protocol, of gRPC's health check and of its reflection, as descriptors built here.

They live in a pool of their own: in protobuf's default pool they would collide with the generated modules of
tritonclient and of kserve, as those collide with each other. Numbers and types are the protocol's; messages and fields
of Triton's extensions that this server neither reads nor sends are left out (readers skip what they do not know).
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Message = Any
"""A protobuf message; its fields are attributes that no type checker knows."""

_INFERENCE = """
ServerLiveRequest
ServerLiveResponse: bool live 1
ServerReadyRequest
ServerReadyResponse: bool ready 1
ModelReadyRequest: string name 1, string version 2
ModelReadyResponse: bool ready 1
ServerMetadataRequest
ServerMetadataResponse: string name 1, string version 2, string* extensions 3
ModelMetadataRequest: string name 1, string version 2
ModelMetadataResponse: string name 1, string* versions 2, string platform 3, .TensorMetadata* inputs 4,
    .TensorMetadata* outputs 5
ModelMetadataResponse.TensorMetadata: string name 1, string datatype 2, int64* shape 3
InferParameter: bool? bool_param 1, int64? int64_param 2, string? string_param 3, double? double_param 4,
    uint64? uint64_param 5
InferTensorContents: bool* bool_contents 1, int32* int_contents 2, int64* int64_contents 3, uint32* uint_contents 4,
    uint64* uint64_contents 5, float* fp32_contents 6, double* fp64_contents 7, bytes* bytes_contents 8
ModelInferRequest: string model_name 1, string model_version 2, string id 3, map:InferParameter parameters 4,
    .InferInputTensor* inputs 5, .InferRequestedOutputTensor* outputs 6, bytes* raw_input_contents 7
ModelInferRequest.InferInputTensor: string name 1, string datatype 2, int64* shape 3, map:InferParameter parameters 4,
    InferTensorContents contents 5
ModelInferRequest.InferRequestedOutputTensor: string name 1, map:InferParameter parameters 2
ModelInferResponse: string model_name 1, string model_version 2, string id 3, map:InferParameter parameters 4,
    .InferOutputTensor* outputs 5, bytes* raw_output_contents 6
ModelInferResponse.InferOutputTensor: string name 1, string datatype 2, int64* shape 3,
    map:InferParameter parameters 4, InferTensorContents contents 5
ModelStreamInferResponse: string error_message 1, ModelInferResponse infer_response 2
ModelConfigRequest: string name 1, string version 2
ModelConfigResponse: ModelConfig config 1
ModelInput: string name 1, enum:DataType data_type 2, int64* dims 4
ModelOutput: string name 1, enum:DataType data_type 2, int64* dims 3
ModelVersionPolicy: .Specific specific 3
ModelVersionPolicy.Specific: int64* versions 1
ModelDynamicBatching: int32* preferred_batch_size 1, uint64 max_queue_delay_microseconds 2
ModelParameter: string string_value 1
ModelConfig: string name 1, string platform 2, ModelVersionPolicy version_policy 3, int32 max_batch_size 4,
    ModelInput* input 5, ModelOutput* output 6, ModelDynamicBatching dynamic_batching 11,
    map:ModelParameter parameters 14, string backend 17
ModelStatisticsRequest: string name 1, string version 2
StatisticDuration: uint64 count 1, uint64 ns 2
InferStatistics: StatisticDuration success 1, StatisticDuration fail 2, StatisticDuration queue 3,
    StatisticDuration compute_input 4, StatisticDuration compute_infer 5, StatisticDuration compute_output 6,
    StatisticDuration cache_hit 7, StatisticDuration cache_miss 8
InferBatchStatistics: uint64 batch_size 1, StatisticDuration compute_input 2, StatisticDuration compute_infer 3,
    StatisticDuration compute_output 4
ModelStatistics: string name 1, string version 2, uint64 last_inference 3, uint64 inference_count 4,
    uint64 execution_count 5, InferStatistics inference_stats 6, InferBatchStatistics* batch_stats 7
ModelStatisticsResponse: ModelStatistics* model_stats 1
RepositoryIndexRequest: string repository_name 1, bool ready 2
RepositoryIndexResponse: .ModelIndex* models 1
RepositoryIndexResponse.ModelIndex: string name 1, string version 2, string state 3, string reason 4
ModelRepositoryParameter: bool? bool_param 1, int64? int64_param 2, string? string_param 3, bytes? bytes_param 4
RepositoryModelLoadRequest: string repository_name 1, string model_name 2, map:ModelRepositoryParameter parameters 3
RepositoryModelLoadResponse
RepositoryModelUnloadRequest: string repository_name 1, string model_name 2, map:ModelRepositoryParameter parameters 3
RepositoryModelUnloadResponse
"""
_INFERENCE_ENUMS = {
    "DataType": (
        "TYPE_INVALID TYPE_BOOL TYPE_UINT8 TYPE_UINT16 TYPE_UINT32 TYPE_UINT64 TYPE_INT8 TYPE_INT16 TYPE_INT32 "
        "TYPE_INT64 TYPE_FP16 TYPE_FP32 TYPE_FP64 TYPE_STRING TYPE_BF16"
    )
}
_INFERENCE_METHODS = (
    "ServerLive ServerReady ModelReady ServerMetadata ModelMetadata ModelInfer ModelStreamInfer ModelConfig "
    "ModelStatistics RepositoryIndex RepositoryModelLoad RepositoryModelUnload"
)
_STREAMING = {
    "ModelStreamInfer": ("ModelInferRequest", "ModelStreamInferResponse", True),
    "Watch": ("HealthCheckRequest", "HealthCheckResponse", False),
    "Check": ("HealthCheckRequest", "HealthCheckResponse", None),
    "ServerReflectionInfo": ("ServerReflectionRequest", "ServerReflectionResponse", True),
}
"""Methods whose types do not follow from their name, or that stream: request, answer, whether the client streams, too
(None: neither does)."""

_HEALTH = """
HealthCheckRequest: string service 1
HealthCheckResponse: enum:HealthCheckResponse.ServingStatus status 1
"""
_HEALTH_ENUMS = {"HealthCheckResponse.ServingStatus": "UNKNOWN SERVING NOT_SERVING SERVICE_UNKNOWN"}

_REFLECTION = """
ServerReflectionRequest: string host 1, string? file_by_filename 3, string? file_containing_symbol 4,
    ExtensionRequest? file_containing_extension 5, string? all_extension_numbers_of_type 6, string? list_services 7
ExtensionRequest: string containing_type 1, int32 extension_number 2
ServerReflectionResponse: string valid_host 1, ServerReflectionRequest original_request 2,
    FileDescriptorResponse? file_descriptor_response 4, ExtensionNumberResponse? all_extension_numbers_response 5,
    ListServiceResponse? list_services_response 6, ErrorResponse? error_response 7
FileDescriptorResponse: bytes* file_descriptor_proto 1
ExtensionNumberResponse: string base_type_name 1, int32* extension_number 2
ListServiceResponse: ServiceResponse* service 1
ServiceResponse: string name 1
ErrorResponse: int32 error_code 1, string error_message 2
"""

INFERENCE = "inference"
HEALTH = "grpc.health.v1"
REFLECTION = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
SERVICES = {
    "inference.GRPCInferenceService": "inference.proto",
    "grpc.health.v1.Health": "health.proto",
    "grpc.reflection.v1.ServerReflection": "grpc.reflection.v1.proto",
    "grpc.reflection.v1alpha.ServerReflection": "grpc.reflection.v1alpha.proto",
}
"""Services by their full name, and the file that declares each."""

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
    "float": _Field.TYPE_FLOAT,
    "double": _Field.TYPE_DOUBLE,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}


def _declare(
    package: str, file: str, text: str, enums: dict[str, str], service: str, methods: str
) -> descriptor_pb2.FileDescriptorProto:
    """A file from lines such as `Name: type field number, ...`; `type*` is repeated, `type?` one of the message's only
    oneof, `map:type` a map from strings, and a type that begins with a dot is nested in the message."""
    made = descriptor_pb2.FileDescriptorProto(name=file, package=package, syntax="proto3")
    found: dict[str, descriptor_pb2.DescriptorProto] = {}
    for line in text.replace(",\n", ",").strip().splitlines():
        name, _, fields = line.partition(":")
        outer, _, inner = name.partition(".")
        message = found[outer].nested_type.add(name=inner) if inner else made.message_type.add(name=outer)
        found[name] = message
        for field in filter(None, map(str.strip, fields.split(","))):
            kind, called, number = field.split()
            _field(message, f".{package}.", name, kind, called, int(number))
    for name, values in enums.items():
        outer, _, inner = name.partition(".")
        enum = found[outer].enum_type.add(name=inner) if inner else made.enum_type.add(name=outer)
        for at, value in enumerate(values.split()):
            enum.value.add(name=value, number=at)
    declared = made.service.add(name=service)
    for method in methods.split():
        asked, answered, both = _STREAMING.get(method, (f"{method}Request", f"{method}Response", None))
        declared.method.add(
            name=method,
            input_type=f".{package}.{asked}",
            output_type=f".{package}.{answered}",
            client_streaming=both is True,
            server_streaming=both is not None,
        )
    return made


def _field(
    message: descriptor_pb2.DescriptorProto, package: str, owner: str, kind: str, name: str, number: int
) -> None:
    base = kind.rstrip("*?")
    field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if base.startswith("map:"):
        entry = message.nested_type.add(name=name.capitalize() + "Entry")
        entry.options.map_entry = True
        _field(entry, package, "", "string", "key", 1)
        _field(entry, package, "", base[4:], "value", 2)
        field.label, field.type, field.type_name = (
            _Field.LABEL_REPEATED,
            _Field.TYPE_MESSAGE,
            f"{package}{owner}.{entry.name}",
        )
        return
    if kind.endswith("*"):
        field.label = _Field.LABEL_REPEATED
    elif kind.endswith("?"):
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if base in _SCALARS:
        field.type = _SCALARS[base]
    elif base.startswith("enum:"):
        field.type, field.type_name = _Field.TYPE_ENUM, package + base[5:]
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, package + (owner + base if base[0] == "." else base)


def _files() -> list[descriptor_pb2.FileDescriptorProto]:
    made = [
        _declare(
            INFERENCE, "inference.proto", _INFERENCE, _INFERENCE_ENUMS, "GRPCInferenceService", _INFERENCE_METHODS
        ),
        _declare(HEALTH, "health.proto", _HEALTH, _HEALTH_ENUMS, "Health", "Check Watch"),
    ]
    for package in REFLECTION:
        made.append(_declare(package, f"{package}.proto", _REFLECTION, {}, "ServerReflection", "ServerReflectionInfo"))
    return made


FILES = {file.name: file.SerializeToString() for file in _files()}
"""The declarations, serialised, by their file's name."""
_pool = descriptor_pool.DescriptorPool()
for _serialized in FILES.values():
    _pool.AddSerializedFile(_serialized)


def message_class(name: str) -> Message:
    """The class of a message, such as `inference.ModelInferRequest`."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(name))


def file_of(symbol: str) -> str | None:
    """The name of the file that declares a message, service or method."""
    try:
        found: str = _pool.FindFileContainingSymbol(symbol).name
    except KeyError:
        return None
    return found
