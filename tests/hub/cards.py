"""The part of the Hub's card schema that pushes of models and datasets meet; a subset, written by hand."""

import re

import yaml

NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_]([\w.-]{0,94}[A-Za-z0-9_])?")
LANGUAGE = re.compile(r"[a-z]{2,3}|code|multilingual")  # ISO 639-1, -2 or -3
LICENSES = (
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-"
    "openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-"
    "by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-"
    "nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-"
    "permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl "
    "gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openmdw-1.0 openrail++ "
    "osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license fair-noncommercial-research-"
    "license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma apple-ascl apple-amlr intel-"
    "research h-research unknown other"
).split()
STRINGS = "library_name", "pipeline_tag", "pretty_name", "license_name"
LISTS = "license tags datasets metrics language base_model source_datasets size_categories task_categories".split()


def as_list(value) -> list:
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def front_matter(text: str) -> tuple[object, str | None]:
    """(metadata, error) of a README."""
    if not (found := re.match(r"\s*---[ \t]*\r?\n(.*?)\r?\n?---[ \t]*(\r?\n|$)", text, re.S)):
        return None, None
    try:
        return yaml.safe_load(found[1]) or {}, None
    except yaml.YAMLError as error:
        return None, f"YAML Metadata Error: {error}"


def validate_card(text: str, kind: str) -> tuple[list[str], list[str]]:
    """(errors, warnings) of a README in a repository of this kind."""
    card, error = front_matter(text)
    if error or not isinstance(card, (dict, type(None))):
        return [error or "YAML metadata must be a mapping"], []
    if not card:
        return [], ["empty or missing yaml metadata in repo card"]
    errors = type_errors(card) + value_errors(card, kind)
    errors += [e for model in as_list(card.get("model-index")) for e in index_errors(model)]
    return errors, ["no license in the metadata"] if kind == "model" and "license" not in card else []


def type_errors(card: dict) -> list[str]:
    errors = [f'"{key}" must be a string' for key in STRINGS if not isinstance(card.get(key, ""), str)]
    return errors + [
        f'"{key}" must be a string or a list of strings'
        for key in LISTS
        if not all(isinstance(v, str) for v in as_list(card.get(key)))
    ]


def value_errors(card: dict, kind: str) -> list[str]:
    def check(key, valid, rule):
        return [f'"{key}" with value "{v}" is not valid. {rule}' for v in as_list(card.get(key)) if not valid(str(v))]

    def is_id(value):
        return re.fullmatch(rf"({NAME.pattern}/)?{NAME.pattern}", value)

    errors = check("license", LICENSES.__contains__, "Use one of the Hub's license identifiers.")
    errors += check("language", LANGUAGE.fullmatch, "It must be an ISO 639-1, 639-2 or 639-3 code.")
    for key in ("base_model", "datasets") if kind == "model" else ():
        errors += check(key, is_id, "Use an id from the Hub.")
    relations = "finetune", "adapter", "quantized", "merge"
    errors += check("base_model_relation", relations.__contains__, f"It must be one of {relations}.")
    if kind == "space":
        errors += check("sdk", ("gradio", "streamlit", "docker", "static").__contains__, "It is not known.")
    return errors


def index_errors(model: object) -> list[str]:
    """What is wrong with one entry of `model-index`."""
    if not isinstance(model, dict) or not isinstance(model.get("name"), str):
        return ['"model-index[].name" is required']
    errors = []
    for result in as_list(model.get("results")):
        place = "model-index[].results[]"
        errors += [f'"{place}.{key}" is required' for key in ("task", "metrics") if not result.get(key)]
        metrics = as_list(result.get("metrics"))
        errors += [f'"{place}.metrics[].{k}" is required' for m in metrics for k in ("type", "value") if k not in m]
        if "dataset" in result and not {"name", "type"} <= set(result["dataset"] or ()):
            errors.append(f'"{place}.dataset.name" and ".type" are required')
    return errors
