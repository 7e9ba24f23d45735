"""SHIFT on a planted spurious correlation (Marks et al. 2024, arXiv:2403.19647, section 4); ``sparse-circuits shift``.

A probe of the bundled model's activations is trained to tell singular from plural subjects, on texts in which plurals come
with women and singulars with men. It learns gender. SHIFT looks for the features that it uses, has those ablated that are
about gender, and measures it on texts in which the two are independent.

Ablation moves the mean of what the probe reads, and with it all logits to one side of the threshold. So the probe's offset
is set, in every row with an ablation, such that its mean logit over training texts is the one before; "offset kept" is
without that. "+ retrain" trains the probe again, on the edited model and the same training texts. Skylines and the oracle
see labels that SHIFT does not: of texts in which the attributes are independent.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from sparse_circuits.attribution import EAPIG, Ablation, attribute
from sparse_circuits.dictionary import Dictionaries, Dictionary, load_dictionaries
from sparse_circuits.dictionary.edit import ablate_features
from sparse_circuits.errors import InputError
from sparse_circuits.graph import Graph
from sparse_circuits.model.load import load_model
from sparse_circuits.task.task import Task
from sparse_circuits.zoo.shift_data import Texts, ambiguous, balanced, single
from sparse_circuits.zoo.shift_model import Probe, ProbeLogit, classifier, mean_features, pooled, word_embeddings
from sparse_circuits.zoo.shift_result import Outcome, ShiftResult

KINDS = ("attn", "mlp", "resid")
# training texts over which a probe's mean logit is kept where it was
_CENTRED = 100


@dataclass(frozen=True)
class Shift:
    """What a run of the experiment depends on.

    Attributes:
        seeds: of texts and probes: the experiment is run once for each. Candidates and threshold were chosen on seed 0.
        layers: the probe reads the stream after so many of the bundled model's layers.
        texts: how many are in each training set, and in the test of each seed; a multiple of 4.
        candidates: the features (neurons, words) of the largest effect on the probe, which are judged.
        attributed: training texts that effects are averaged over.
        judged: sentences of each kind that candidates are judged by.
        threshold: of its mean activation, by how much a feature must differ between men and women to be about them.
        penalty: of the probes' weights.
        draws: how many random sets of features are tried.
    """

    seeds: tuple[int, ...] = (1, 2, 3)
    layers: int = 3
    texts: int = 400
    candidates: int = 200
    attributed: int = 32
    judged: int = 400
    threshold: float = 0.3
    penalty: float = 0.1
    draws: int = 2

    def __post_init__(self) -> None:
        if not self.seeds or self.texts < 8 or self.texts % 4 or min(self.candidates, self.draws) < 1:
            raise InputError(
                "Shift(...): expected at least one seed, candidate and draw, and a multiple of 4 texts, 8 or more; got "
                f"seeds={self.seeds}, candidates={self.candidates}, draws={self.draws}, texts={self.texts}."
            )

    def run(
        self, dictionaries: Mapping[str, Dictionary] | None = None, progress: Callable[[str], None] = lambda _: None
    ) -> ShiftResult:
        """The experiment.

        Args:
            dictionaries: of the bundled model, by default the bundled SAEs; those of the layers that the probe sees are used.
            progress: told what is being done.
        """
        if dictionaries is None:
            dictionaries = load_dictionaries("toy", load_model("toy", device="cpu"), sites=KINDS)
        seen = Dictionaries(d for d in dictionaries.values() if d.site.layer < self.layers)
        outcomes = []
        for seed in self.seeds:
            progress(f"seed {seed}")
            outcomes.append(_Experiment(self, seed, seen).outcome())
        return ShiftResult.of(tuple(outcomes), {**asdict(self), "dictionaries": seen.ids})


class _Experiment:
    """One seed."""

    def __init__(self, shift: Shift, seed: int, features: Dictionaries) -> None:
        self.shift, self.seed, self.features = shift, seed, features
        self.train, self.test = ambiguous(shift.texts, seed), balanced(shift.texts, seed, "test")
        self.independent = balanced(shift.texts, seed, "train")  # for skylines only
        self.glossary = single(shift.judged, seed)
        plain = classifier(shift.layers)
        seen = pooled(plain, self.train)
        self.probe = Probe.fitted(seen, self.train.intended, shift.penalty)
        self.model = classifier(shift.layers, self.probe)
        self.some = self.train.first(_CENTRED)
        self.middle = pooled(self.model, self.some).mean(0)
        both = pooled(plain, self.independent)
        self.oracle = Probe.fitted(both, self.independent.intended, shift.penalty)
        self.gender = Probe.fitted(both, self.independent.unintended, shift.penalty)
        self.neurons = load_dictionaries("neurons", self.model, sites=KINDS)
        self.words = Dictionaries([word_embeddings(self.model)])

    def outcome(self) -> Outcome:
        predictions: dict[str, list[Tensor]] = {"original": [self.probe(pooled(self.model, self.test))]}
        removed: dict[str, list[list[str]]] = {}

        def note(name: str, dictionaries: Dictionaries, names: list[str], retrain: bool = False) -> None:
            edited = ablate_features(self.model, dictionaries, names)
            seen, moved = pooled(edited, self.test), pooled(edited, self.some).mean(0)
            removed.setdefault(name, []).append(names)
            predictions.setdefault(name, []).append(self.probe(seen + self.middle - moved))
            if name == "shift":
                removed["shift, offset kept"] = [names]
                predictions["shift, offset kept"] = [self.probe(seen)]
            if retrain:
                again = Probe.fitted(pooled(edited, self.train), self.train.intended, self.shift.penalty)
                removed[f"{name} + retrain"] = [names]
                predictions[f"{name} + retrain"] = [again(seen)]

        chosen = self.judged(self.features, self.model, self.probe, self.train)
        note("shift", self.features, chosen, retrain=True)
        for draw in range(self.shift.draws):
            note("random features", self.features, self.random(len(chosen), draw))
        note("neurons", self.neurons, self.judged(self.neurons, self.model, self.probe, self.train), retrain=True)
        note("embedding", self.words, self.judged(self.words, self.model, self.probe, self.train), retrain=True)
        skyline = classifier(self.shift.layers, self.gender)
        for name, dictionaries in (("feature skyline", self.features), ("neuron skyline", self.neurons)):
            labels = Texts(self.independent.texts, self.independent.unintended, self.independent.unintended)
            strongest = self.strongest(dictionaries, skyline, self.gender, labels)
            note(name, dictionaries, strongest[: len(chosen)])
        predictions["oracle"] = [self.oracle(pooled(self.model, self.test))]
        return Outcome(self.seed, self.test, predictions, removed)

    def strongest(self, dictionaries: Dictionaries, model: Any, probe: Probe, texts: Texts) -> list[str]:
        """The features that the probe's logit for the right class (``intended``) depends on most, by |effect|."""
        n = min(self.shift.attributed, len(texts))
        metric = ProbeLogit(texts.intended[:n], probe.bias)
        task = Task(list(texts.texts[:n]), metric=metric, name="shift")
        scores = attribute(
            model,
            Graph.of(model, dictionaries),
            task,
            EAPIG(steps=5, path="activations"),
            ablation=Ablation.ZERO,
            batch_size=n,
        )
        effects = {name: value for name, value in scores.to_dict().items() if not name.endswith(".error")}
        return sorted(effects, key=lambda name: -abs(effects[name]))

    def judged(self, dictionaries: Dictionaries, model: Any, probe: Probe, texts: Texts) -> list[str]:
        """Those candidates that are about the unintended attribute; this is the human's part in the paper.

        With a the mean activation over a sentence's words, and D the difference between a's means over the two kinds of
        sentences, of men and women or with singular and plural subjects: |D(gender)| > |D(number)|, and |D(gender)| above
        the threshold's share of the mean of |a| over sentences about people. No sentence has both attributes, and none
        is of the test.
        """
        numbers, people = self.glossary
        spread = {}
        by_number, by_gender = (mean_features(model, list(dictionaries.values()), part) for part in self.glossary)
        for site in dictionaries:
            number = _difference(by_number[site], numbers.intended)
            gender = _difference(by_gender[site], people.unintended)
            about = (gender > number) & (gender > self.shift.threshold * by_gender[site].abs().mean(0))
            spread[site] = about.tolist()
        names = self.strongest(dictionaries, model, probe, texts)[: self.shift.candidates]
        parts = [(name, *name.rpartition(".f")[::2]) for name in names]
        return [name for name, site, feature in parts if spread[site][int(feature)]]

    def random(self, n: int, draw: int) -> list[str]:
        """So many features among those that fire on training texts."""
        means = mean_features(self.model, list(self.features.values()), self.train)
        names = [f"{site}.f{i}" for site, found in means.items() for i in (found > 0).any(0).nonzero()[:, 0].tolist()]
        return random.Random(f"shift/random/{self.seed}/{draw}").sample(names, min(n, len(names)))


def _difference(values: Tensor, labels: Tensor) -> Tensor:
    """How far apart the means of two classes are: ``[texts, features]`` to ``[features]``."""
    return (values[labels == 1].mean(0) - values[labels == 0].mean(0)).abs()
