import pickle
import threading
from pathlib import Path
from types import SimpleNamespace

from tests.pipelines.progress import Told

from glint.pipelines.fitting import BEST_BY
from glint.pipelines.loop import EPOCHS_DONE
from glint.pipelines.trial_scores import note_score
from glint.pipelines.trial_telling import Teller


def test_what_tells_of_trials_is_kept_without_its_terminal_and_goes_on_where_it_was(tmp_path: Path) -> None:
    told = Told()
    told.lock = threading.RLock()  # type: ignore[attr-defined]
    teller = Teller(told, tmp_path, 9)
    teller.set_state({"ended": ["a", "b"], "best": 0.5})
    assert told.lines == ["trials that have ended before: 2; going on with the others"]
    kept = pickle.loads(pickle.dumps(teller))  # noqa: S301
    assert kept.get_state() == {"ended": [], "best": -1.0}
    kept.set_state(teller.get_state())
    assert kept.get_state() == teller.get_state() == {"ended": ["a", "b"], "best": 0.5}


def test_the_end_of_a_trial_says_how_far_it_came(tmp_path: Path) -> None:
    told = Told()
    teller = Teller(told, tmp_path, 9)
    for name, config in (("a", {"optimisation.lr": 0.01}), ("b", {"optimisation.epochs": 4})):
        for epoch, score in enumerate((0.3, 0.5, 0.4)):
            note_score(tmp_path / name, epoch, score)
        ended = SimpleNamespace(trial_id=name, config=config, last_result={BEST_BY: 0.4, EPOCHS_DONE: 3})
        teller.on_trial_complete(1, [], ended)
    assert told.lines == [
        "trial 1 (a): best val macro-F1 0.5000 after 3 of 9 epochs, with optimisation.lr 0.01",
        "trial 2 (b): best val macro-F1 0.5000 after 3 of 4 epochs, with optimisation.epochs 4",
    ]
