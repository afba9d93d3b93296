"""llama.cpp as the model server runs it: its number formats, its tokens and its probabilities.

The one file of the trainer that knows xllamacpp. Quantising goes through `ggml_quantize_chunk` of ggml.h, a function of
the library's C interface that its Python module does not wrap; xllamacpp leaves out `llama_model_quantize`.
"""

from __future__ import annotations

import ctypes
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_contract.artifacts import ChatMessage
from finetune_trainer.errors import BaseModelRejected, InvalidRun, TrainerError

if TYPE_CHECKING:
    import numpy as np

_QUANTIZE = "ggml_quantize_chunk"
_FORCED = 1e6
"""Added to the logit of a token so that it is sampled; the probabilities that the server tells are those before."""


def check_can_quantize(kind: str) -> None:
    """Prove that the library is there and has the function.

    Raises:
        InvalidRun: it is not, or has not.
    """
    try:
        _quantizer()
    except (ImportError, AttributeError, OSError) as error:
        raise InvalidRun(
            f"spec.packaging.gguf: {kind} needs the package xllamacpp with {_QUANTIZE} ({error}); "
            "install it, or take q8_0 or f16"
        ) from error


def quantize_rows(
    rows: np.ndarray[Any, np.dtype[np.float32]], type_number: int, target: np.ndarray[Any, Any]
) -> None:
    """Fill `target` with the rows in a number format of ggml, on all processors of this process.

    Args:
        rows: (R, C) float32, contiguous; C is a multiple of the format's block.
        type_number: ggml_type.
        target: (R, bytes of a row) uint8, contiguous.
    """
    quantize = _quantizer()
    count, columns = rows.shape
    workers = len(os.sched_getaffinity(0))
    step = max(1, -(-count // workers))

    def part(start: int) -> None:
        size = min(step, count - start)
        quantize(type_number, rows[start:].ctypes.data, target[start:].ctypes.data, 0, size, columns, None)

    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(part, range(0, count, step)):
            pass


@lru_cache(1)
def _quantizer() -> Any:
    from xllamacpp import xllamacpp as module

    function = getattr(ctypes.CDLL(module.__file__), _QUANTIZE)
    function.restype = ctypes.c_size_t
    integer, pointer = ctypes.c_int64, ctypes.c_void_p
    function.argtypes = [ctypes.c_int, pointer, pointer, integer, integer, integer, pointer]
    return function


class ServedModel:
    """A GGUF file behind llama.cpp's HTTP server, on this machine alone."""

    def __init__(self, address: str) -> None:
        self.address = address
        """http://host:port; below it lies an OpenAI-compatible API as well, at /v1."""

    def prompt_token_ids(self, prompt: Sequence[ChatMessage]) -> list[int]:
        """What the server makes of a chat before the model sees it: its template, then its tokenizer."""
        messages = [{"role": message.role, "content": message.content} for message in prompt]
        text = self._post("/apply-template", {"messages": messages})["prompt"]
        return self._token_ids(str(text), add_special=True)

    def token_ids(self, text: str) -> list[int]:
        """A text in tokens, without those that the tokenizer would put around it."""
        return self._token_ids(text, add_special=False)

    def _token_ids(self, text: str, add_special: bool) -> list[int]:
        body: dict[str, object] = {"content": text, "add_special": add_special, "parse_special": True}
        return [int(token) for token in self._post("/tokenize", body)["tokens"]]

    def answer_losses(self, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> list[float]:
        """Cross entropy of each token of an answer, given all before it.

        One request a token: the token is forced by a bias, and the server tells its probability without the bias. The
        prompt is read once, it stays in the slot.
        """
        losses = []
        before = list(prompt_ids)
        for token in answer_ids:
            answer = self._post(
                "/completion",
                {
                    "prompt": before,
                    "n_predict": 1,
                    "n_probs": 1,
                    "temperature": 0,
                    "logit_bias": [[token, _FORCED]],
                    "cache_prompt": True,
                },
            )
            told = answer["completion_probabilities"][0]
            if int(told["id"]) != token:
                raise TrainerError(f"the model server told of token {told['id']} instead of {token}")
            losses.append(-float(told["logprob"]))
            before.append(token)
        return losses

    def _post(self, path: str, body: dict[str, object]) -> Any:
        request = urllib.request.Request(  # noqa: S310 - always http to this machine
            self.address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=600) as response:  # noqa: S310
                return json.load(response)
        except (urllib.error.URLError, ValueError) as error:
            raise TrainerError(f"llama.cpp's server gave no answer to {path} ({error})") from error


@contextmanager
def served(path: Path, context_tokens: int) -> Iterator[ServedModel]:
    """Serve a GGUF file as the model server does.

    Raises:
        BaseModelRejected: llama.cpp cannot load it.
    """
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.n_parallel = 1
    parameters.n_ctx = context_tokens
    parameters.n_gpu_layers = 0
    threads = len(os.sched_getaffinity(0))
    parameters.cpuparams.n_threads = threads
    parameters.cpuparams_batch.n_threads = threads
    parameters.cache_ram_mib = 0
    parameters.fit_params = False
    parameters.use_jinja = True
    parameters.warmup = False
    parameters.ui = False
    parameters.verbosity = 0
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError as error:
        raise BaseModelRejected(
            f"spec.baseModel.uri: llama.cpp cannot load what was made of this model ({error})"
        ) from error
    try:
        yield ServedModel(str(server.listening_address))
    finally:
        del server
