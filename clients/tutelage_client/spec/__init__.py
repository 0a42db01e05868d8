"""A run is a file: `RunSpec`, written as TOML by hand and as JSON over HTTP, stored resolved with the run.

What needs no model is refused here, with the field, the limit and the remedy. What needs the tokenizer or the data is
checked by the trainer before the first rollout.
"""

from tutelage_client.spec.changes import differing, merged, touches
from tutelage_client.spec.credits import ControlVariate, Credit, KStepReturn, ReturnToGo, TokenCredit
from tutelage_client.spec.models import Lora, Model, Reference, Student, TeacherRef
from tutelage_client.spec.needs import Unmet, unmet
from tutelage_client.spec.objectives import (
    ConstantPenaltyObjective,
    DivergenceObjective,
    ExtrapolationTarget,
    MixtureTarget,
    PolicyGradientObjective,
    PreferenceObjective,
    RewardObjective,
    SupervisedObjective,
    Target,
    TeacherTarget,
)
from tutelage_client.spec.reading import load_spec, parse_spec, resolve_paths
from tutelage_client.spec.rewards import RewardSpec
from tutelage_client.spec.routing import all_names, asked_now, teacher_for
from tutelage_client.spec.rules import SOURCES, uncorrected
from tutelage_client.spec.run import RunSpec, required_signals, signals_watched, unrepeatable
from tutelage_client.spec.sections import (
    Adaptive,
    Budget,
    CheckpointSpec,
    Data,
    Diagnostics,
    EvalSpec,
    Optim,
    RolloutSpec,
)
from tutelage_client.spec.stabilizers import (
    EntropyGate,
    Freshness,
    RatioClip,
    ReferenceKl,
    SignalClip,
    SpecialTokenMask,
    Stabilizer,
)
from tutelage_client.spec.sums import Objective, SumObjective, Term, Where, parts, size_asked
from tutelage_client.spec.supports import (
    FullSupport,
    SampledSupport,
    StudentTopK,
    Support,
    TeacherTopK,
    UnionTopK,
)
from tutelage_client.wire.refusal import explain

__all__ = [
    "SOURCES",
    "Adaptive",
    "Budget",
    "CheckpointSpec",
    "ConstantPenaltyObjective",
    "ControlVariate",
    "Credit",
    "Data",
    "Diagnostics",
    "DivergenceObjective",
    "EntropyGate",
    "EvalSpec",
    "ExtrapolationTarget",
    "Freshness",
    "FullSupport",
    "KStepReturn",
    "Lora",
    "MixtureTarget",
    "Model",
    "Objective",
    "Optim",
    "PolicyGradientObjective",
    "PreferenceObjective",
    "RatioClip",
    "Reference",
    "ReferenceKl",
    "ReturnToGo",
    "RewardObjective",
    "RewardSpec",
    "RolloutSpec",
    "RunSpec",
    "SampledSupport",
    "SignalClip",
    "SpecialTokenMask",
    "Stabilizer",
    "Student",
    "StudentTopK",
    "SumObjective",
    "SupervisedObjective",
    "Support",
    "Target",
    "TeacherRef",
    "TeacherTarget",
    "TeacherTopK",
    "Term",
    "TokenCredit",
    "UnionTopK",
    "Unmet",
    "Where",
    "all_names",
    "asked_now",
    "differing",
    "explain",
    "load_spec",
    "merged",
    "parse_spec",
    "parts",
    "required_signals",
    "resolve_paths",
    "signals_watched",
    "size_asked",
    "teacher_for",
    "touches",
    "uncorrected",
    "unmet",
    "unrepeatable",
]
