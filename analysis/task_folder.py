# SPDX-License-Identifier: Apache-2.0
"""A folder of questions for lm-evaluation-harness that needs nothing from outside and may be moved: documents as JSONL, a
YAML group that names the harness's own tasks with only their data replaced, and a manifest of where all came from.

`lm_eval --include_path FOLDER --tasks GROUP` of the harness itself can use it, too.
"""

import hashlib
import json
import shutil
from pathlib import Path

MANIFEST = "manifest.json"
DOCUMENTS = {"documents.py": "task_documents.py"}
HASHED = (".yaml", ".py", ".json", ".jsonl", ".parquet")
MOST_HASHES = 200


def file_sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_documents(folder, task, documents):
    with open(folder / f"{task}.jsonl", "w", encoding="utf-8") as file:
        for document in documents:
            file.write(json.dumps(document, ensure_ascii=False) + "\n")


def write_group(folder, group, entries, aggregates=(), modules=None):
    """`entries`: {task: {YAML key: YAML text}}; `aggregates`: metrics that the harness averages over the tasks; `modules`:
    {name in the folder: file of analysis/} of what the YAML calls."""
    lines = ["# SPDX-License-Identifier: Apache-2.0", f"group: {group}", "task:"]
    for task, overrides in entries.items():
        lines.append(f"  - task: {task}")
        lines += [f"    {key}: {value}" for key, value in overrides.items()]
    if aggregates:
        lines.append("aggregate_metric_list:")
        lines += [f'  - {{metric: "{metric}", weight_by_size: false}}' for metric in aggregates]
    (folder / f"{group}.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, source in (modules or DOCUMENTS).items():
        shutil.copyfile(Path(__file__).with_name(source), folder / name)


def from_documents(task, split):
    """Overrides that give a task of the harness the documents of TASK.jsonl as its only split."""
    splits = {f"{name}_split": "null" for name in ("training", "validation", "test", "fewshot") if name != split}
    return {"custom_dataset": "!function documents.load", "dataset_kwargs": f'{{file: "{task}.jsonl", split: {split}}}',
            **splits, f"{split}_split": split}


def write_manifest(folder, harness_folders, **contents):
    """`harness_folders`: those below lm_eval/tasks that hold the named tasks."""
    text = json.dumps({"harness_folders": harness_folders, **contents}, indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def harness_folders(folders):
    """Those that the folders' manifests name; None if one of them has no manifest, or there are none."""
    found = []
    for folder in folders:
        manifest = Path(folder) / MANIFEST
        if not manifest.is_file():
            return None
        found += json.loads(manifest.read_text(encoding="utf-8"))["harness_folders"]
    return sorted(set(found)) if folders else None


def hashes(folder):
    """{relative name: SHA-256} of all that decides about the questions; of very many files one hash of all."""
    folder = Path(folder)
    found = {str(path.relative_to(folder)): file_sha256(path) for path in sorted(folder.rglob("*"))
             if path.is_file() and path.suffix in HASHED and "__pycache__" not in path.parts}
    if len(found) > MOST_HASHES:  # they go into an HDF5 attribute, which holds 64 KiB
        return {f"all {len(found)} files": hashlib.sha256(json.dumps(found).encode()).hexdigest()}
    return found
