"""LitServe, with its batching: `python -m bench.peer_servers.litserve_app PORT`."""

import sys
from typing import Any

import litserve
import numpy as np

from bench.peer_servers import model


class LogProb(litserve.LitAPI):
    """API that scores rows; requests within two milliseconds are computed together."""

    def setup(self, device: str) -> None:  # noqa: ARG002  as LitServe calls it
        """Load the flow."""
        self.flow = model.load()

    def decode_request(self, request: dict[str, Any], **_: object) -> np.ndarray:
        """Return the rows of a request."""
        return np.array(request["rows"])

    def batch(self, inputs: list[np.ndarray]) -> tuple[np.ndarray, list[int]]:
        """Return all rows, and the end of each request's rows."""
        return np.concatenate(inputs), np.cumsum([len(rows) for rows in inputs]).tolist()

    def predict(self, batch: tuple[np.ndarray, list[int]], **_: object) -> list[np.ndarray]:
        """Return the log densities, request by request."""
        rows, ends = batch
        return np.split(self.flow.log_prob(rows), ends[:-1])

    def unbatch(self, output: list[np.ndarray]) -> list[np.ndarray]:
        """Return the output unchanged: it is split already."""
        return output

    def encode_response(self, output: np.ndarray, **_: object) -> dict[str, list[float]]:
        """Return the response body."""
        return {"log_prob": output.tolist()}


if __name__ == "__main__":
    api = LogProb(max_batch_size=32, batch_timeout=0.002, api_path="/log_prob")
    server = litserve.LitServer(api, accelerator="cpu", timeout=120)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False
    )
