"""A text encoder in ONNX gives the vectors that its tokens and weights give by hand."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from medssl.errors import BadInput
from medssl.inference.networks.text_encoder import TextEncoder
from tests.helpers.text_encoders import WORDS, draw_vectors, write_text_encoder

SENTENCES = ["No nodule.", "The heart is normal", "nodule in the left lung", "zebra"]


def expected_rows(pool):
    vectors = draw_vectors()
    rows = []
    for sentence in SENTENCES:
        words = sentence.lower().replace(".", " .").split()
        rows.append(pool([vectors[WORDS.index(word if word in WORDS else "[UNK]")] for word in words], 0))
    return np.array([row / np.linalg.norm(row) for row in rows])


def test_a_sentence_is_the_mean_of_its_tokens_without_padding(tmp_path):
    encoder = TextEncoder.open(write_text_encoder(tmp_path / "text"))
    np.testing.assert_allclose(encoder.encode(SENTENCES), expected_rows(np.mean), atol=1e-6)
    many = encoder.encode(SENTENCES * 20)  # several batches
    np.testing.assert_allclose(many, np.tile(encoder.encode(SENTENCES), (20, 1)), atol=1e-6)


def test_a_network_that_pools_by_itself_is_taken_as_it_is(tmp_path):
    encoder = TextEncoder.open(write_text_encoder(tmp_path / "text", pools=True))
    np.testing.assert_allclose(encoder.encode(SENTENCES[:1]), expected_rows(np.max)[:1], atol=1e-6)


def test_the_hash_tells_encoders_apart(tmp_path):
    hashes = [TextEncoder.open(write_text_encoder(tmp_path / str(seed), seed=seed)).sha256 for seed in (0, 1)]
    hashes.append(TextEncoder.open(write_text_encoder(tmp_path / "again")).sha256)
    assert hashes[0] == hashes[2] != hashes[1]


def damage(folder, name, content):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)


def write_image_network(folder):
    x = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "model.onnx")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: damage(folder, "tokenizer.json", None), "has no tokenizer.json; give the folder of a sentence"),
        (lambda folder: damage(folder, "model.onnx", None), "has no model.onnx; give the folder of a sentence"),
        (lambda folder: damage(folder, "tokenizer.json", b"{"), r"tokenizer.json: cannot be read \("),
        (lambda folder: damage(folder, "model.onnx", b"\xff" * 9), "is damaged or no ONNX file; give the folder"),
        (write_image_network, "model.onnx: takes image, a text encoder takes input_ids"),
    ],
)
def test_other_folders_are_refused(tmp_path, spoil, message):
    folder = write_text_encoder(tmp_path / "text")
    spoil(folder)
    with pytest.raises(BadInput, match=message):
        TextEncoder.open(folder)
