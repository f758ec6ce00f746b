"""An LLM's API through the front: the real SDK against a small server that answers as vLLM does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

import openai as sdk
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from hypothesis import given
from hypothesis import strategies as st

from serinus_runtime.proxy import openai
from serinus_runtime.proxy.models import parse_models
from unit.runtime.engines import FastEngine, Front, Seen
from unit.runtime.ports import until
from unit.runtime.support import WAIT

WORDS = ["Ser", "inus", " sings", "."]
USAGE = {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9, "prompt_tokens_details": {"cached_tokens": 2}}


def llm_app(seen: Seen) -> FastAPI:
    """Chat, completions, embeddings, models; what was asked last is kept in `app.state.asked`."""
    app = FastAPI(docs_url=None)

    @app.get("/health")
    async def health() -> Response:
        return Response()

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "llama", "object": "model", "created": 1}]})

    def choice(delta: dict[str, str], reason: str | None = None) -> dict[str, object]:
        return {"index": 0, "delta": delta, "finish_reason": reason}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        seen.requests.append(("ASKED", json.dumps(await request.json()), dict(request.headers)))
        asked = await request.json()
        base = {"id": "c1", "created": 1, "model": asked["model"]}
        if not asked.get("stream"):
            message = {"role": "assistant", "content": "".join(WORDS)}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            return JSONResponse({**base, "object": "chat.completion", "choices": choices, "usage": USAGE})

        async def events() -> AsyncIterator[str]:
            try:
                for word in WORDS:
                    chunk = {**base, "object": "chat.completion.chunk", "choices": [choice({"content": word})]}
                    yield f"data: {json.dumps(chunk)}\n\n"
                    if asked.get("user") == "slow":
                        await seen.gate.wait()
                        seen.gate.clear()
                last: dict[str, object] = {**base, "object": "chat.completion.chunk", "choices": [choice({}, "stop")]}
                yield f"data: {json.dumps(last)}\n\n"
                if (asked.get("stream_options") or {}).get("include_usage"):
                    yield f"data: {json.dumps({**last, 'choices': [], 'usage': USAGE})}\n\n"
                yield "data: [DONE]\n\n"
            except BaseException:
                seen.cancelled += 1
                raise

        return StreamingResponse(events(), media_type="text/event-stream")

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        asked = await request.json()
        choices = [{"index": 0, "text": str(asked.get("max_tokens")), "finish_reason": "stop", "logprobs": None}]
        body = {"id": "t1", "object": "text_completion", "created": 1, "model": asked["model"], "choices": choices}
        return JSONResponse({**body, "usage": USAGE})

    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> Response:
        asked = await request.json()
        data = [{"object": "embedding", "index": 0, "embedding": [0.5] * 4096}]
        usage = {"prompt_tokens": 3, "total_tokens": 3}
        return JSONResponse({"object": "list", "data": data, "model": asked["model"], "usage": usage})

    return app


@pytest.fixture(scope="module")
def engine() -> Iterator[FastEngine]:
    with FastEngine(app=llm_app) as made:
        yield made


@pytest.fixture
def front(engine: FastEngine) -> Iterator[Front]:
    models = (("fraud-chat", "llama"), ("llama", "llama"))
    with Front(engine.port, proxy_models=models, max_tokens=100) as made:
        yield made


@pytest.fixture
def client(front: Front) -> Iterator[sdk.OpenAI]:
    with sdk.OpenAI(base_url=f"http://127.0.0.1:{front.port}/v1", api_key="none", max_retries=0, timeout=WAIT) as made:
        yield made


HELLO = [{"role": "user", "content": "hello"}]


def _tokens(front: Front) -> tuple[float, float]:
    counted = front.metrics()
    return counted['serinus_tokens_total{kind="prompt"}'], counted['serinus_tokens_total{kind="completion"}']


def test_chat(front: Front, client: sdk.OpenAI, engine: FastEngine) -> None:
    answer = client.chat.completions.create(model="fraud-chat", messages=HELLO, max_tokens=10)  # type: ignore[arg-type]
    assert answer.choices[0].message.content == "Serinus sings."
    assert answer.model == "llama", "the alias is translated"
    assert _tokens(front) == (5, 4)
    asked = json.loads([path for method, path, _ in engine.seen.requests if method == "ASKED"][-1])
    assert asked == {"model": "llama", "messages": HELLO, "max_tokens": 10}


def test_a_streamed_chat_comes_word_by_word(front: Front, client: sdk.OpenAI, engine: FastEngine) -> None:
    stream = client.chat.completions.create(model="llama", messages=HELLO, stream=True, user="slow")  # type: ignore[call-overload]
    heard = []
    for chunk in stream:
        if chunk.choices[0].delta.content:
            heard.append(chunk.choices[0].delta.content)
            engine.let_go()
    assert heard == WORDS
    until(lambda: front.metrics()['serinus_streams_total{outcome="whole"}'] == 1)
    counted = front.metrics()
    assert counted["serinus_stream_events_total"] == len(WORDS) + 2
    assert counted["serinus_time_to_first_token_seconds_count"] == 1
    assert counted["serinus_time_per_output_token_seconds_count"] == 1
    assert _tokens(front) == (0, 0), "the engine was not asked to tell"


def test_a_stream_that_tells_its_usage(front: Front, client: sdk.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="llama",
        messages=HELLO,
        stream=True,
        stream_options={"include_usage": True},  # type: ignore[call-overload]
    )
    assert [chunk.usage.total_tokens for chunk in stream if chunk.usage] == [9]
    until(lambda: _tokens(front) == (5, 4))


def test_a_stream_that_its_reader_leaves(front: Front, client: sdk.OpenAI, engine: FastEngine) -> None:
    before = engine.seen.cancelled
    stream = client.chat.completions.create(model="llama", messages=HELLO, stream=True, user="slow")  # type: ignore[call-overload]
    assert next(iter(stream)).choices[0].delta.content == WORDS[0]
    stream.close()
    until(lambda: engine.seen.cancelled == before + 1)
    until(lambda: front.metrics()['serinus_streams_total{outcome="gone"}'] == 1)


def test_the_others(front: Front, client: sdk.OpenAI) -> None:
    assert client.completions.create(model="llama", prompt="x").choices[0].text == "100", "the limit is the default"
    assert client.completions.create(model="llama", prompt="x", max_tokens=7).choices[0].text == "7"
    made = client.embeddings.create(model="fraud-chat", input="x", encoding_format="float")
    assert len(made.data[0].embedding) == 4096
    assert _tokens(front) == (13, 8)
    assert [model.id for model in client.models.list()] == ["llama"]


def test_what_is_refused_is_told_in_the_sdks_words(front: Front, client: sdk.OpenAI, engine: FastEngine) -> None:
    seen = len(engine.seen.requests)
    with pytest.raises(sdk.BadRequestError, match="at most 100 tokens") as many:
        client.chat.completions.create(model="llama", messages=HELLO, max_completion_tokens=101)  # type: ignore[arg-type]
    assert (many.value.param, many.value.code) == ("max_completion_tokens", "max_tokens_exceeded")
    with pytest.raises(sdk.NotFoundError, match="this server has fraud-chat, llama") as other:
        client.chat.completions.create(model="gpt-9", messages=HELLO)  # type: ignore[arg-type]
    assert (other.value.param, other.value.code) == ("model", "model_not_found")
    assert all(path != "/v1/chat/completions" for _, path, _ in engine.seen.requests[seen:])
    assert front.metrics()['serinus_rejected_total{reason="invalid"}'] == 2


def test_without_aliases_the_served_name_counts(engine: FastEngine) -> None:
    with Front(engine.port, model_name="llama") as front:
        assert front.ask("POST", "/v1/completions", {"model": "llama", "prompt": ""})[0] == 200
        assert front.ask("POST", "/v1/completions", {"model": "model", "prompt": ""})[0] == 404
    with Front(engine.port, proxy_models=(("*", "*"),)) as front:
        assert front.ask("POST", "/v1/completions", {"model": "anything", "prompt": ""})[0] == 200


def test_names_of_models() -> None:
    assert parse_models("a, b=c ,*") == (("a", "a"), ("b", "c"), ("*", "*"))
    for wrong in ("=a", "a=", "*=b", "a,a"):
        with pytest.raises(ValueError, match="name"):
            parse_models(wrong)


_GREEDY = {"model": "m", "max_tokens": 99}


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(_GREEDY).encode("utf-16"),
        json.dumps(_GREEDY).encode("utf-8-sig"),
        json.dumps({**_GREEDY, "x": float("nan")}).encode(),
        b'{"model": "m", "max_tokens": "99"}',
        b'{"max_tokens": 1, "max_tokens": 99}',
        b'{"max_tokens": 9e1}',
        b"[" * 10_000,
        b"",
    ],
)
def test_no_way_around_the_limit(body: bytes) -> None:
    with pytest.raises(openai.RefusedError) as refused:
        openai.checked(b"/v1/completions", body, {"m": "m"}, 10)
    assert refused.value.status == 400


@given(
    st.binary(max_size=200) | st.dictionaries(st.text(max_size=12), st.integers()).map(lambda d: json.dumps(d).encode())
)
def test_what_passes_has_a_limit(body: bytes) -> None:
    try:
        passed = json.loads(openai.checked(b"/v1/completions", body, {"m": "m"}, 10))
    except openai.RefusedError:
        return
    assert max(passed.get(name, 0) for name in ("max_tokens", "max_completion_tokens", "max_output_tokens")) <= 10


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.text(max_size=200))
def test_usage_is_found_at_the_end_of_answers(prompt: int, completion: int, content: str) -> None:
    told = {"prompt_tokens": prompt, "completion_tokens": completion, "details": {"cached": 1}}
    whole = json.dumps({"choices": [{"message": {"content": content}}], "usage": told}, ensure_ascii=False).encode()
    assert openai.usage(whole) == openai.Usage(prompt, completion)
    event = b"data: " + whole + b"\n\ndata: [DONE]\n\n"
    assert openai.usage(event) == openai.Usage(prompt, completion)


@given(st.binary(max_size=400))
def test_usage_of_garbage(tail: bytes) -> None:
    assert openai.usage(tail) is None or b"usage" in tail
