"""Work of one ensemble job: a choice among trained flows, and one model file of those that it takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flows import EnsembleSpec, Flow, FlowSpec, MixedSpec, ensemble_of, spec_from_dict
from flows.ensemble import mix
from flows.training.evaluate import default_chunk_rows, spread_table
from flows.training.robust import robust_mean
from models_store.errors import BlobDiskError, BlobError
from models_store.files.blobs import BlobStore
from models_store.files.checkpoints import load_model
from models_store.requests.search import AcceptedEnsemble, Member
from workers.errors import TrainingError
from workers.protocol import EnsembleTask, Interrupted, Note, Send
from workers.trainer.checkpoints import Result, store
from workers.trainer.data import SplitRows, chunks, load_parts
from workers.trainer.devices import find_device
from workers.trainer.training import held_out_quantiles, likelihoods

# An ensemble is slower to serve than its best member: it must be this much better, in nats a row.
_LEAST_GAIN = 0.005


def assemble(task: EnsembleTask, send: Send, *, interrupted: Callable[[], bool]) -> None:
    """Store the best ensemble of the members that `task` names, or the best member alone.

    The candidates are the means of the best one, two, ... members; the one with the highest robust
    validation likelihood is taken. The last message is `Trained`, or `Interrupted` once
    `interrupted()` is true.

    Args:
        task: Task of the trainer.
        send: Function that sends a message.
        interrupted: Function that returns True to stop, called between two members.

    Raises:
        TrainingError: The job cannot succeed.
        StorageFullError: The model could not be written.
    """
    torch.set_num_threads(task.threads)
    request = AcceptedEnsemble.model_validate(task.request)
    device = find_device(task.device)
    blobs = BlobStore(Path(task.blob_root))
    parts = load_parts(task, blobs, split=request.split, columns=request.column_types).to(device)
    flows, scores = [], []
    for member in request.members:
        if interrupted():
            send(Interrupted(metrics={}, progress={}, checkpoint=None))
            return
        flow = _load(blobs, member, request.columns).to(device)
        flows.append(flow)
        scores.append(_scores(flow, parts, seed=request.seed))
    count, reached = _best_count(torch.stack(scores), request.row_loss_bound)
    flow, spec = _mixture(flows[:count], request)
    send(Note(text=_account(request.members[:count], reached)))
    metrics: dict[str, Any] = {
        "members": [member.trial for member in request.members[:count]],
        "best_robust_validation_log_likelihood": reached[count - 1],
        **likelihoods(flow, parts, seed=request.seed, on_chunk=lambda: None),
    }
    result = Result(
        flow=flow,
        spec=spec,
        columns=request.columns,
        context_columns=request.context_columns,
        types=request.types,
        preprocessing=request.preprocessing,
        seed=request.seed,
        metrics=metrics,
        held_out=held_out_quantiles(flow, parts, device, on_chunk=lambda: None),
    )
    send(store(result, task, blobs))


def _load(blobs: BlobStore, member: Member, columns: list[str]) -> Flow:
    try:
        return load_model(blobs, member.key, member.sha256, spec=member.flow, columns=columns)
    except BlobDiskError:
        raise
    except BlobError as error:
        raise TrainingError("model_unusable", "The file of a member cannot be used.") from error


def _scores(flow: Flow, parts: SplitRows, *, seed: int) -> Tensor:
    """Return the log densities of the validation rows; discrete values have the noise of the seed."""
    noise = torch.Generator().manual_seed(seed)
    found = []
    with torch.no_grad():
        for rows in chunks(parts.validation):
            for some in torch.split(rows, default_chunk_rows(flow)):
                spread = spread_table(flow, some.to(flow.device), noise)
                found.append(flow.log_prob_of_table(spread).double().cpu())
    return torch.cat(found)


def _best_count(scores: Tensor, bound: float | None) -> tuple[int, list[float]]:
    """Return the number of members of the best ensemble, and the likelihood of each number."""
    reached = []
    for count in range(1, len(scores) + 1):
        mixed = mix(scores[:count], torch.full((count,), 1 / count, dtype=torch.float64))
        reached.append(float(mixed.mean()) if bound is None else robust_mean(mixed, bound))
    best = max(range(len(reached)), key=lambda at: reached[at] - (_LEAST_GAIN if at else 0.0))
    return best + 1, reached


def _mixture(flows: list[Flow], request: AcceptedEnsemble) -> tuple[Flow, FlowSpec]:
    specs = [spec_from_dict(member.flow) for member in request.members[: len(flows)]]
    if len(flows) == 1:
        return flows[0], specs[0]
    members = [spec for spec in specs if not isinstance(spec, EnsembleSpec)]
    weights = [1 / len(flows)] * len(flows)
    spec = EnsembleSpec(members=members, weights=weights)
    return ensemble_of(flows, weights).eval(), spec


def _account(members: list[Member], reached: list[float]) -> str:
    families = [_family(spec_from_dict(member.flow)) for member in members]
    gain = reached[len(members) - 1] - reached[0]
    if len(members) == 1:
        return f"The best flow alone ({families[0]}) is the model: a mixture gains no more than it costs."
    return f"The model is a mixture of {', '.join(families)}, {gain:.3f} nats better than the best alone."


def _family(spec: FlowSpec) -> str:
    inner = spec.flow if isinstance(spec, MixedSpec) else None
    return spec.family if inner is None else inner.family
