"""Configurations: strict models, read from YAML, with errors that name the key."""

from gradscope.config.audit import AuditConfig
from gradscope.config.classifiers import ClassifierSpec, ModuleClassifier, TimmClassifier, classifier_mapping
from gradscope.config.data import DataConfig
from gradscope.config.evaluation import EvaluationConfig, Inception
from gradscope.config.fields import Options, Strict, Text
from gradscope.config.guides import EnergyGuide, GuideSpec, MeasurementGuide, SumGuide, guide_mapping
from gradscope.config.loading import apply, check, load, read_yaml
from gradscope.config.messages import error_lines
from gradscope.config.oracle import GuideKind, OracleConfig
from gradscope.config.presets import find, preset_folder, presets
from gradscope.config.run import (
    ClassifierInput,
    ExecutionConfig,
    Normalize,
    Objective,
    RunConfig,
    SamplingConfig,
    Weight,
)
from gradscope.config.training import (
    AdversarialConfig,
    DenoiserEvaluation,
    TrainClassifierConfig,
    TrainDenoiserConfig,
    TrainingConfig,
)

__all__ = [
    "AdversarialConfig",
    "AuditConfig",
    "ClassifierInput",
    "ClassifierSpec",
    "DataConfig",
    "DenoiserEvaluation",
    "EnergyGuide",
    "EvaluationConfig",
    "ExecutionConfig",
    "GuideKind",
    "GuideSpec",
    "Inception",
    "MeasurementGuide",
    "ModuleClassifier",
    "Normalize",
    "Objective",
    "Options",
    "OracleConfig",
    "RunConfig",
    "SamplingConfig",
    "Strict",
    "SumGuide",
    "Text",
    "TimmClassifier",
    "TrainClassifierConfig",
    "TrainDenoiserConfig",
    "TrainingConfig",
    "Weight",
    "apply",
    "check",
    "classifier_mapping",
    "error_lines",
    "find",
    "guide_mapping",
    "load",
    "preset_folder",
    "presets",
    "read_yaml",
]
