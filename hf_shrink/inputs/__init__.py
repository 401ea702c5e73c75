"""What users name, made into something callable: models, datasets, rows, tasks."""

from hf_shrink.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "TASKS": "hf_shrink.inputs.tasks",
        "Columns": "hf_shrink.inputs.columns",
        "GraphModel": "hf_shrink.inputs.graph_model",
        "OnnxModel": "hf_shrink.inputs.onnx",
        "OpenVinoModel": "hf_shrink.inputs.openvino",
        "Task": "hf_shrink.inputs.tasks",
        "align_labels": "hf_shrink.inputs.labels",
        "base_folder": "hf_shrink.inputs.models",
        "check_labels": "hf_shrink.inputs.labels",
        "dataset_name": "hf_shrink.inputs.datasets",
        "default_collator": "hf_shrink.inputs.rows",
        "explain_hub_error": "hf_shrink.inputs.remote",
        "find_columns": "hf_shrink.inputs.columns",
        "find_task": "hf_shrink.inputs.tasks",
        "load_model": "hf_shrink.inputs.models",
        "load_processing_class": "hf_shrink.inputs.models",
        "load_rows": "hf_shrink.inputs.datasets",
        "model_name": "hf_shrink.inputs.models",
        "row_batches": "hf_shrink.inputs.rows",
        "tokenize_rows": "hf_shrink.inputs.rows",
    },
)
