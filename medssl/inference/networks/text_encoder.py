"""A frozen text encoder that a user gives: a tokenizer and a network in ONNX, which turn sentences into vectors.

The folder is that of sentence-transformers models on the Hugging Face hub (Reimers and Gurevych, "Sentence-BERT"
(2019), https://arxiv.org/abs/1908.10084): tokenizer.json, and model.onnx next to it or in a folder `onnx`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import tokenizers
from jaxtyping import Float32

from medssl.errors import BadInput
from medssl.inference.networks.onnx_file import read_metadata
from medssl.inference.networks.onnx_network import QUIET, RUNTIME_ERRORS

MAX_TOKENS = 256
BATCH = 32
GIVE = "give the folder of a sentence encoder with tokenizer.json and model.onnx"


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """Turns sentences into vectors of length 1: the mean over tokens, unless the network pools them itself.

    Attributes:
        folder: The folder, for messages.
        tokenizer: What divides a sentence into numbered tokens.
        session: What runs the network.
        sha256: Hash of tokenizer and network.
    """

    folder: Path
    tokenizer: Any
    session: Any
    sha256: str

    @classmethod
    def open(cls, folder: Path) -> "TextEncoder":
        """Opens a folder; raises BadInput if a file is missing or damaged, or the network takes other inputs."""
        words = folder / "tokenizer.json"
        places = (folder / "model.onnx", folder / "onnx" / "model.onnx")
        network = next((path for path in places if path.is_file()), None)
        if not words.is_file() or network is None:
            raise BadInput(f"{folder}: has no {'model.onnx' if words.is_file() else 'tokenizer.json'}; {GIVE}")
        read_metadata(network, GIVE)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = QUIET
        try:
            tokenizer = tokenizers.Tokenizer.from_str(words.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises no narrower one
            raise BadInput(f"{words}: cannot be read ({' '.join(str(error).split())[:100]}); {GIVE}") from None
        try:
            session = onnxruntime.InferenceSession(network.read_bytes(), options, providers=["CPUExecutionProvider"])
        except RUNTIME_ERRORS as error:
            raise BadInput(f"{network}: cannot be opened ({' '.join(str(error).split())[:200]}); {GIVE}") from None
        names = {node.name for node in session.get_inputs()}
        if not {"input_ids"} <= names <= {"input_ids", "attention_mask", "token_type_ids"}:
            raise BadInput(f"{network}: takes {', '.join(sorted(names))}, a text encoder takes input_ids; {GIVE}")
        tokenizer.enable_truncation(MAX_TOKENS)
        tokenizer.enable_padding()
        digest = hashlib.sha256(words.read_bytes() + network.read_bytes()).hexdigest()
        return cls(folder, tokenizer, session, digest)

    def encode(self, sentences: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        """Returns a row of length 1 for each sentence."""
        batches = [self._encode_batch(sentences[first : first + BATCH]) for first in range(0, len(sentences), BATCH)]
        rows = np.concatenate(batches)
        return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(np.float32)

    def _encode_batch(self, sentences: Sequence[str]) -> np.ndarray:
        encoded = self.tokenizer.encode_batch(list(sentences))
        ids = np.array([tokens.ids for tokens in encoded], np.int64)
        mask = np.array([tokens.attention_mask for tokens in encoded], np.int64)
        arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        inputs = {node.name: arrays[node.name] for node in self.session.get_inputs()}
        try:
            output = self.session.run(None, inputs)[0]
        except RUNTIME_ERRORS as error:
            raise BadInput(f"{self.folder}: cannot be run ({' '.join(str(error).split())[:200]}); {GIVE}") from None
        if output.ndim == 3 and output.shape[:2] == mask.shape:
            output = (output * mask[..., None]).sum(1) / np.maximum(mask.sum(1, keepdims=True), 1)
        if output.ndim != 2 or len(output) != len(sentences) or not np.isfinite(output).all():
            raise BadInput(f"{self.folder}: its output is no finite vector for each token or sentence; {GIVE}")
        return output.astype(np.float32)
