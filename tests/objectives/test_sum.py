"""A sum is exactly its parts, trains one decoder, and refuses settings of objectives that have no weight."""

import pytest
import torch

from medssl import config
from medssl.errors import BadInput
from medssl.nn.encoder import ResEncoder
from medssl.objectives.reconstruction.mae import Config as MaeConfig
from medssl.objectives.reconstruction.mae import Mae
from medssl.objectives.sum import Config, Sum
from tests.objectives.test_contract import crops


def build(**values):
    torch.manual_seed(0)
    return Sum(config.check(values, Config, "run.yaml"), ResEncoder((6, 8, 12), (1, 2, 2), in_channels=2))


def test_the_loss_is_the_weighted_sum_of_the_losses():
    step = build(weights={"mae": 2, "vicreg": 0.5, "rotation": 0.1}).step(crops(1))
    parts = 2 * step.logs["mae"] + 0.5 * step.logs["vicreg"] + 0.1 * step.logs["rotation"]
    torch.testing.assert_close(step.loss.detach(), parts)
    assert {"mae_hidden", "vicreg_spread", "rotation_accuracy"} <= step.logs.keys()


def test_one_objective_in_a_sum_is_that_objective():
    summed = build(weights={"mae": 1})
    torch.manual_seed(0)
    single = Mae(MaeConfig(), ResEncoder((6, 8, 12), (1, 2, 2), in_channels=2))
    assert summed.step(crops(1)).loss.item() == single.step(crops(1)).loss.item()
    assert not summed.is_contrastive and summed.step(crops(1)).positive_pairs is None


def test_objectives_that_hand_over_a_decoder_train_the_same_one():
    summed = build(weights={"spark": 1, "mae": 1, "vicreg": 0.1, "rotation": 0.1})
    mae, vicreg = summed.terms["mae"], summed.terms["vicreg"]
    assert mae.decoder is vicreg.decoder is summed.transferable()["decoder"]
    assert summed.terms["spark"].decoder is not mae.decoder  # it reads filled maps
    summed.step(crops(1)).loss.backward()
    assert all(weight.grad is not None for weight in mae.decoder.parameters())


SHARED = {"spark": 10, "jepa": 1, "select_patch": 1}
TERMS = {"select_patch": {"mask_ratio": 0.75}}


def count_masked_passes(summed, monkeypatch):
    passes, build_executor = [], type(summed.encoder).build_executor

    def count_pass(encoder, x, visible=None, num_visible=None):
        passes.append(visible is not None)
        return build_executor(encoder, x, visible, num_visible)

    with monkeypatch.context() as patch:
        patch.setattr(type(summed.encoder), "build_executor", count_pass)
        summed.step(crops(1))
    return sum(passes)


def test_objectives_with_equal_masks_read_one_encoding_and_have_the_losses_they_have_alone():
    summed, batch = build(weights=SHARED, terms=TERMS), crops(1)
    step = summed.step(batch)
    alone = {name: term.step(batch) for name, term in build(weights=SHARED, terms=TERMS).list_terms()}
    for name, single in alone.items():
        torch.testing.assert_close(step.logs[name], single.loss.detach())
    torch.testing.assert_close(step.loss, sum(SHARED[name] * single.loss for name, single in alone.items()))


def test_only_objectives_with_equal_masks_share_an_encoding(monkeypatch):
    # The candidates of select_patch are one pass more.
    assert count_masked_passes(build(weights=SHARED, terms=TERMS), monkeypatch) == 2
    assert count_masked_passes(build(weights=SHARED), monkeypatch) == 3
    assert count_masked_passes(build(weights={"spark": 1, "jepa": 1}), monkeypatch) == 1
    assert count_masked_passes(build(weights={"spark": 1, "jepa": 1}, terms={"jepa": {"seed": 1}}), monkeypatch) == 2


def test_every_term_runs_its_after_step():
    summed = build(weights={"mae": 1, "global_local": 1}, terms={"global_local": {"momentum": 0.9}})
    before = [weight.clone() for weight in summed.terms["global_local"].key.parameters()]
    with torch.no_grad():
        for weight in summed.encoder.parameters():
            weight.add_(1)
    summed.after_step()
    after = summed.terms["global_local"].key.parameters()
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_a_sum_has_the_most_views_and_the_strictest_augmentation_of_its_terms():
    summed = build(weights={"mae": 1, "global_local": 0.1}, terms={"global_local": {"num_views": 2, "queue_size": 8}})
    assert summed.views == 2 and summed.is_contrastive and not summed.allows_spatial_augmentation
    assert summed.step(crops(2)).loss.isfinite()
    assert build(weights={"mae": 1, "rotation": 1}).allows_spatial_augmentation


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": {"mae": 1}, "terms": {"vicreg": {}}}, "terms.vicreg: has no weight; add it to `weights`"),
        ({"weights": {"mae": 0}}, r"weights\.mae.*greater than 0"),
        ({"weights": {}}, "weights.*at least 1 item"),
        ({"weights": {"maee": 1}}, r"terms\.maee: 'maee' is unknown; known: .*mae"),
        ({"weights": {"mae": 1}, "terms": {"mae": {"mask_ratio": 2}}}, r"terms\.mae\.mask_ratio"),
    ],
)
def test_wrong_weights_and_terms_are_refused(values, message):
    with pytest.raises(BadInput, match=message):
        config.check(values, Config, "run.yaml")
