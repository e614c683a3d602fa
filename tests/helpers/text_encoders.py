"""A sentence encoder that knows a few words: a random vector for each, and their mean for a sentence."""

from pathlib import Path

import numpy as np
import onnx
import tokenizers
from onnx import TensorProto, helper, numpy_helper
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace

WORDS = ("[UNK]", "[PAD]", "no", "nodule", "in", "the", "left", "right", "lung", "heart", "is", "normal", ".")
WIDTH = 16


def draw_vectors(width: int = WIDTH, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(len(WORDS), width)).astype(np.float32)


def write_text_encoder(folder: Path, width: int = WIDTH, seed: int = 0, pools: bool = False) -> Path:
    """Writes tokenizer.json and model.onnx; with `pools`, the network itself returns one vector for a sentence."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizers.Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "n"])
    mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["b", "n"])
    vectors = numpy_helper.from_array(draw_vectors(width, seed), "vectors")
    nodes = [helper.make_node("Gather", ["vectors", "input_ids"], ["states"], axis=0)]
    output = helper.make_tensor_value_info("states", TensorProto.FLOAT, ["b", "n", width])
    if pools:
        nodes.append(helper.make_node("ReduceMax", ["states"], ["pooled"], axes=[1], keepdims=0))
        output = helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["b", width])
    graph = helper.make_graph(nodes, "words", [ids] if pools else [ids, mask], [output], [vectors])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    return folder
