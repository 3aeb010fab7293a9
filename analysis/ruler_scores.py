# SPDX-License-Identifier: Apache-2.0
"""Copied as scores.py into folders that ruler.py writes: the harness's own scores of a document, without its -1 for a length
of 4096 that was not asked (a plain mean and its standard error then hold for every length)."""

from lm_eval.tasks.ruler import common_utils


def of_all(doc, results):
    """Share of the references that the answer contains."""
    return only_asked(doc, common_utils.process_results(doc, results))


def of_part(doc, results):
    """For questions with several references for one answer: the harness takes the share here, too (NVIDIA's program the best)."""
    return only_asked(doc, common_utils.process_results_part(doc, results))


def only_asked(doc, scores):
    length = str(doc["max_length"])
    return {length: scores[length]}
