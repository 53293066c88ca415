"""Proposals scored in two processes for as long as it takes: ``pruning_workers.py`` prints a line a score."""

from __future__ import annotations

from trained_fakes import ARCHITECTURE, SIDE, fake_trained
from training_fakes import images

from mnv3search.layer_search.proposals import Proposal
from mnv3search.layer_search.scoring import ShortTerm, workers_for


def main() -> None:
    seed, planned = fake_trained(), Proposal("expansion", "none", ARCHITECTURE, 1.0)
    learn, held = images(12, seed=1, side=SIDE), images(10, seed=2, side=SIDE)
    with workers_for(seed, learn, held, ShortTerm(steps=1, batch_size=4), 2) as workers:
        while True:  # both work or wait whenever this process is killed
            for scored in workers.score(seed, 1, [(number, planned) for number in range(2)]):
                print(scored.number, flush=True)


if __name__ == "__main__":
    main()
