"""FastAPI with pydantic on uvicorn (uvloop, httptools), as most teams begin."""

import sys

import numpy as np
import uvicorn
from common import answer, predict, session
from fastapi import FastAPI
from pydantic import BaseModel


class Tensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Request(BaseModel):
    inputs: list[Tensor]


app = FastAPI()
model = session(sys.argv[1])


@app.post("/predict")
async def infer(request: Request) -> dict:
    tensor = request.inputs[0]
    return answer(predict(model, np.array(tensor.data).reshape(tensor.shape)))


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error", access_log=False)
