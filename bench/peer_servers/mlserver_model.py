"""MLServer runtime of the flow; `mlserver start FOLDER` finds it by the settings there."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from bench.peer_servers import model


class LogProb(MLModel):
    """Runtime that scores the rows of the only input."""

    async def load(self) -> bool:
        """Load the flow."""
        self.flow = model.load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the log density of each row."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        scores = self.flow.log_prob(rows).reshape(-1, 1)
        output = NumpyCodec.encode_output("log_prob", scores)
        return InferenceResponse(model_name=self.name, outputs=[output])
