"""FastAPI as in its tutorial: `python -m bench.peer_servers.fastapi_app PORT`."""

import sys

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from bench.peer_servers import model

app = FastAPI()
flow = model.load()


class Rows(BaseModel):
    """Request body with rows."""

    rows: list[list[float]]


class Scores(BaseModel):
    """Response body with log-densities."""

    log_prob: list[float]


@app.post("/log_prob")
def log_prob(body: Rows) -> Scores:
    """Return the log density of each row."""
    return Scores(log_prob=flow.log_prob(np.array(body.rows)).tolist())


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
