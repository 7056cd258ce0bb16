import numpy as np
import pytest

from glint.core.policy import Costs, Policy
from glint.core.policy_trial import try_policy

CLASSES = ("good", "open")


def test_a_trial_sets_the_new_policy_beside_the_present_one_on_the_same_images() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(2000, 1), scale=2) * [[1, -1]]
    targets = (random.random(2000) > 1 / (1 + np.exp(logits[:, 1] - logits[:, 0]))).astype(int)
    sure = np.exp(3 * logits) / np.exp(3 * logits).sum(1, keepdims=True)
    present = Policy(review_below=0.5, accept_classes=("good",))
    new = Policy(accept_classes=("good",), costs=Costs(missed_defect=50, false_alarm=5, human_look=1))
    tried = try_policy(present, new, sure, targets, CLASSES)
    assert tried.policy.temperature == tried.new.temperature == pytest.approx(3, rel=0.15)
    assert (tried.present.temperature, tried.num_images) == (1, 2000)
    assert tried.new.ece < 0.03 < tried.present.ece
    assert tried.present.rates.review_share == 0 < tried.new.rates.review_share
    assert tried.present.rates.escape_rate is not None
    assert tried.new.rates.escape_rate is not None
    assert tried.new.rates.escape_rate < tried.present.rates.escape_rate
    assert tried.present.rates.cost_per_image is not None
    assert tried.new.rates.cost_per_image is not None
    assert tried.new.rates.cost_per_image < min(1, tried.present.rates.cost_per_image)


def test_both_policies_are_priced_by_the_new_costs() -> None:
    sure = np.array([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.1, 0.9]])
    dear, cheap = (
        Policy(accept_classes=("good",), costs=Costs(missed_defect=20, false_alarm=5, human_look=look))
        for look in (4, 2)
    )
    tried = try_policy(dear, cheap, sure, np.array([0, 0, 1, 1]), CLASSES)
    rates = tried.present.rates
    assert rates.reviewed > 0
    assert rates.cost_per_image == (20 * rates.escaped + 5 * rates.falsely_rejected + 2 * rates.reviewed) / 4
