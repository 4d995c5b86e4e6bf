"""Helpers of the book: the plumbing around the lesson.

Names are loaded on first use, so that `import tlhelpers` is quick and never imports the book stack.
"""

import os
import sys

import lazy_loader

# TensorFlow reads both when it is imported. Its informational messages would stand on every page; and the kernels of
# oneDNN, which it takes by itself on some processors only, are the faster ones on the others, too.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# Keras reads this when it is imported; without it, a file in the home folder may name another backend.
if (backend := os.environ.get("KERAS_BACKEND") or "tensorflow") != "tensorflow" and "keras" not in sys.modules:
    print(f"tlhelpers computes with TensorFlow, so that KERAS_BACKEND={backend} is set aside", file=sys.stderr)
if "keras" not in sys.modules:
    os.environ["KERAS_BACKEND"] = "tensorflow"

__version__ = "0.1.0"

# The public names, by the module that defines them.
PUBLIC = {
    "weights": ["load_card"],
    "chapters": ["Chapter", "begin_chapter", "glue"],
    "results.claims": ["check_claims"],
    "exercises": ["build_rescue_head", "check_rescue", "get_rescue_budget"],
    "experiments.runner": ["Experiment"],
    "synthetic.collection": ["plan_files"],
    "figures.galleries": ["plot_heat_maps", "plot_image_grid", "plot_prediction_grid"],
    "synthetic.flowers": ["draw_flower", "draw_species"],
    "devices": ["describe_choices", "list_gpus", "prepare_device", "strategy"],
    "exports": ["export_model", "save_classifier"],
    "interpret": [
        "domain_distance",
        "embed_2d",
        "feature_maps",
        "grad_cam",
        "nearest_neighbours",
        "strongest_channels",
    ],
    "features": ["ViewBatches", "extract_features_parallel", "extract_features", "extract_views"],
    "loaders": ["augment_image", "load_arrays", "load_dataset", "read_images"],
    "datasets.manifest": ["build_manifest", "load_manifest"],
    "metrics": [
        "apply_temperature",
        "bootstrap_difference",
        "bootstrap_interval",
        "class_weights",
        "compare_paired",
        "evaluate",
        "expected_calibration_error",
        "fit_temperature",
        "mean_interval",
        "pareto_front",
        "permutation_test",
        "top_confusions",
    ],
    "models": [
        "baseline_cnn",
        "build_backbone",
        "build_head",
        "connect",
        "count_parameters",
        "freeze",
        "partial_block",
        "pooled",
        "small_cnn",
        "split_backbone",
        "unfreeze",
    ],
    "experiments.grids": ["plan_depths", "plan_domains", "plan_sizes"],
    "predictions": ["predict_folder"],
    "figures.plotting": [
        "plot_bars",
        "plot_calibration",
        "plot_comparison",
        "plot_confusion_matrix",
        "plot_embedding",
        "plot_grid",
        "plot_growth",
        "plot_learning_curves",
        "plot_pareto",
        "plot_per_class",
        "plot_reliability",
        "plot_runs",
        "use_book_style",
    ],
    "experiments.pretraining": [
        "build_quiz",
        "draw_pictures",
        "load_probe",
        "load_quiz",
        "picture_folder",
        "probe_accuracy",
        "quiz_losses",
        "set_batch_norm_momentum",
    ],
    "profiles": ["choose_profile"],
    "quizzes": ["show_quiz"],
    "experiments.optimizers": ["warm_up_and_decay"],
    "experiments.recipes": ["Recipe", "get_recipe"],
    "experiments.records": ["load_records", "make_record", "save_record"],
    "settings": ["exports_folder", "pocket_folder"],
    "datasets.sources": ["MissingDataError", "prepare_images"],
    "files": ["BadArchiveError"],
    "results.benchmarks": ["load_speed", "speed_table"],
    "datasets.splits": ["count_leaks", "rows_of", "split_manifest"],
    "datasets.studies": ["describe_folder", "get_study", "published_model", "published_numbers", "quote"],
    "experiments.sweeps": ["best_rates", "load_sweep"],
    "results.tables": [
        "accuracy_intervals",
        "calibrate",
        "compare_sources",
        "cost_table",
        "describe_conditions",
        "describe_gain",
        "describe_recorded",
        "epoch_shares",
        "metrics_table",
        "name_build",
        "name_run",
        "pool_predictions",
        "reproduction_table",
        "summarise",
        "summarise_pooled",
    ],
    "results.cross_study": ["check_conclusion", "domain_table", "chance_adjusted_accuracy", "studies_table"],
    "training": ["TraceOnce", "Resume", "predict_probabilities", "save_model"],
    "widgets": ["explore_confusions", "explore_depths", "explore_heat_maps", "explore_threshold"],
}

# Names of the first edition, with those that they have now: a chapter from then is told so.
RENAMED = {
    "QuickStart": "TraceOnce",
    "extract_elsewhere": "extract_features_parallel",
    "separability": "chance_adjusted_accuracy",
    "soften_batch_norm": "set_batch_norm_momentum",
}
MOVED = {"pretraining": "experiments.pretraining", "summaries": "results.tables"}

_load, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs=PUBLIC)


def __getattr__(name):
    if name in RENAMED:
        raise AttributeError(f"What the first edition called `tl.{name}` is `tl.{RENAMED[name]}` now")
    if name in MOVED:  # an AttributeError would be lost in `from tlhelpers import ...`
        raise ImportError(f"What the first edition called `tlhelpers.{name}` is `tlhelpers.{MOVED[name]}` now")
    return _load(name)
