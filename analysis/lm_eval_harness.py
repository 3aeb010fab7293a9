# SPDX-License-Identifier: Apache-2.0
"""Makes lm-evaluation-harness ask: the same settings put the same questions, in any process, to any number of models.
Whatever the harness and its tasks raise becomes a RequestError with a text for people."""

import difflib
import logging
import os
import sys
from pathlib import Path

import lm_eval
from lm_eval.tasks import TaskManager

from lm_eval_requests import RequestError
from task_folder import harness_folders

logging.getLogger("lm_eval.api.task").setLevel(logging.ERROR)  # explains options of its own program for each task

SEED_NAMES = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
DEFAULT_SEEDS = (0, 1234, 1234, 1234)  # the harness's own
UNREACHABLE = ("ConnectionError", "ConnectTimeout", "DatasetNotFoundError", "HfHubHTTPError", "LocalEntryNotFoundError",
               "OfflineModeIsEnabled", "HTTPError", "OSError")
BOOTSTRAP_SAMPLES = 1000  # for errors of metrics that are not means: known to some 2 % of themselves


def parse_seeds(text):
    """"7" for all four generators, or "0,1234,1234,1234" as lm-eval's own --seed."""
    seeds = [int(part) for part in text.split(",")]
    if len(seeds) not in (1, len(SEED_NAMES)):
        raise ValueError(f"{len(seeds)} seeds")
    return seeds * len(SEED_NAMES) if len(seeds) == 1 else seeds


class Harness:
    """`settings` as lm_eval_export.py records them; `folders`: where own tasks are; `tokenizer`: the model folder, for
    tasks that size their questions by tokens."""

    def __init__(self, settings, folders, tokenizer):
        self.settings = settings
        found = harness_folders(folders)
        paths = list(map(str, folders))
        if found is not None:  # the folders say which of the harness's tasks they need: reading all takes 20 s
            paths = [str(Path(lm_eval.__file__).parent / "tasks" / folder) for folder in found] + paths
        self.manager = TaskManager(include_path=paths, include_defaults=found is None,
                                   metadata={"tokenizer": str(tokenizer), **(settings["metadata"] or {})})
        for name in settings["tasks"]:
            if name not in self.manager.task_index and not Path(name).is_file():
                near = difflib.get_close_matches(name, self.manager.all_tasks, 3, 0.5)
                hint = f"; did you mean {' or '.join(near)}?" if near else ""
                raise RequestError(f"--tasks: the harness knows no task, group or tag \"{name}\" (`lm-eval ls tasks` lists "
                                   f"its own, --include-path adds yours){hint}")

    def ask(self, model, **options):
        forget_task_modules()
        settings = self.settings
        try:
            return lm_eval.simple_evaluate(
                model=model, tasks=list(settings["tasks"]), num_fewshot=settings["num_fewshot"], limit=settings["limit"],
                apply_chat_template=settings["apply_chat_template"], fewshot_as_multiturn=settings["apply_chat_template"],
                task_manager=self.manager, **dict(zip(SEED_NAMES, settings["seeds"])), **options)
        except RequestError:
            raise
        except Exception as error:  # noqa: BLE001 - tasks are anybody's code
            raise RequestError(explanation(settings["tasks"], error)) from error


def forget_task_modules():
    """Modules that YAML files name keep state, such as random generators: each asking starts with fresh ones, as the
    first in a process does."""
    for name in [name for name, module in sys.modules.items() if hasattr(module, "__mtime__")]:
        del sys.modules[name]


def explanation(tasks, error):
    text = " ".join(str(error).split()) or "no message"
    text = f"{','.join(tasks)}: the harness could not ask: {type(error).__name__}: {text[:600]}"
    if type(error).__name__ in UNREACHABLE or os.environ.get("HF_HUB_OFFLINE") == "1" and "hub" in text.lower():
        text += (" (its data are fetched when it is asked); export where there is a network, or from files: ruler.py, "
                 "commonsense.py and extraction.py write their tasks from installed packages or your files")
    return text
