# SPDX-License-Identifier: Apache-2.0
"""Writes the report of one or more runs: one HTML page that needs nothing else, neither network nor scripts.

    python analysis/report.py outputs/first [outputs/second ...] --output report.html
"""

import argparse
import os
import sys
from html import escape
from pathlib import Path

import numpy as np

import gates
import kept_curve
import page
import plots
import recall
from rates_table import table_of
from result_files import NO_LAYER
from run_folder import is_softmax, paired_gap, read_run_folder
from table import (NOT_THERE, comparison_row, format_answers, format_duration, format_recall, format_value,
                   with_error)


def stage_states(run):
    """(stage, what is there of it or None) in the order of the pipeline."""
    newest = {checkpoint.stage: checkpoint for checkpoint in run.checkpoints}

    def checkpointed(stage):
        if stage in newest:
            return f"{stage}: step {newest[stage].step}{'' if newest[stage].finished else ', going on'}"
        curve = run.metrics.curve(stage)
        return f"{stage}: step {curve.step[-1]}, no checkpoint" if curve is not None else None

    scored = None
    if run.scores is not None:
        count = len(run.scores.layer)
        scored = f"score: {count} candidates" if run.scores.complete else f"score: {count} candidates so far"
    selection = run.selection
    return [("transfer", "transfer" if "transfer" in newest else None), ("align", checkpointed("align")),
            ("score", scored), ("select", f"select: {len(selection.layers)} layers" if selection else None),
            ("distill", checkpointed("distill")), ("finetune", checkpointed("finetune")),
            ("evaluate", "evaluate" if run.evaluation is not None else None),
            ("export", "export" if run.exported else None)]


def why_missing(run, stage):
    """Why there is nothing to show of a stage."""
    if not run.asks_for(stage):
        return "not asked for"
    if stage == "score" and run.scores is not None and len(run.scores.checkpoint_tokens) < 2:
        return "its candidates are not trained"
    if run.took_over(stage):
        return f'taken over from {Path(run.job["reuse"]).name}'
    return NOT_THERE


def header(run):
    chips = "".join(f"<li>{escape(done)}</li>" if done else
                    f'<li class="missing">{stage}: {escape(why_missing(run, stage))}</li>'
                    for stage, done in stage_states(run))
    html = f'<ul class="chips">{chips}</ul>'
    html += "".join(f'<p class="problem">{escape(problem)}</p>' for problem in run.problems)
    row = comparison_row(run)
    if row["KL"] is None:
        html += page.missing("KL, perplexity and answers", why_missing(run, "evaluate"))
    else:
        html += page.big_numbers([("KL to the teacher, nat/token", with_error(row["KL"], row["KL error"])),
                                  ("perplexity of the student", format_value(row["student perplexity"])),
                                  ("perplexity of the teacher", format_value(row["teacher perplexity"])),
                                  ("answers right: student / teacher", pair(row, "answers", format_answers)),
                                  ("recall: student / teacher", pair(row, "recall", format_recall))])
    oldest_to_newest = run.provenances()
    provenance = run.provenance()
    config = run.model_config()
    pairs = [("job", run.job.get("name", run.name)), ("teacher", run.teacher() or NOT_THERE)]
    if config:
        pairs.append(("model", model_words(config)))
    if provenance:
        pairs += [("ranks", provenance.ranks), ("machine", provenance.machine),
                  ("first file", date_words(oldest_to_newest[0].date)), ("last file", date_words(provenance.date)),
                  ("git", provenance.git_sha or "unknown"),
                  ("version", provenance.software_version), ("scheduler job", provenance.job_id or "none"),
                  ("libraries", provenance.libraries)]
    if run.metrics.seconds:
        stages = ", ".join(f"{stage} {format_duration(seconds)}" for stage, seconds in run.metrics.seconds.items())
        pairs.append(("wall time", f'{format_duration(row["seconds"])} ({stages})'))
    return html + page.facts(pairs)


def date_words(date):
    return date.replace("T", " ", 1)


def pair(row, what, format_one):
    student, teacher = row[f"student {what}"], row[f"teacher {what}"]
    if student is None or teacher is None:
        return format_one(row, "student")
    return f"{student:.3f} / {teacher:.3f}"


def model_words(config):
    words = [str(config["family"])] if "family" in config else []
    for key, unit in (("layers", "layers"), ("hidden_size", "hidden"), ("query_heads", "query heads"),
                      ("key_value_heads", "key/value heads"), ("vocabulary_size", "vocabulary")):
        if key in config:
            words.append(f"{config[key]} {unit}")
    return ", ".join(words)


def layout_section(run):
    layout = run.layout()
    html = "<h3>Layout</h3>"
    if not layout:
        return html + page.missing("The chosen layout")
    selection = run.selection
    softmax = run.softmax_layers()
    where = f"softmax at {', '.join(map(str, softmax))}" if softmax else "all linear"
    rule = f' Chosen by the rule "{escape(selection.rule)}" with a budget of {len(selection.layers)}.' if selection else ""
    html += f"<p><b>{len(layout)} layers, {where}.</b>{rule}</p>"
    notes = {}
    if run.scores is not None:
        scores = run.scores.of_layers()
        rank = {int(scores.layer[row]): place for place, row in
                enumerate(np.argsort(-scores.score, kind="stable"), start=1)}
        for layer, score in zip(scores.layer, scores.score):
            rounded = round(float(score), 3) + 0.0  # the sum has no sign where it is 0
            number = f"{rounded:.3f}".replace("-", "−") if np.isfinite(score) else "not a number"
            notes[int(layer)] = [number, f"#{rank[int(layer)]}"]
        if scores.gates is not None:
            for place, layer in enumerate(scores.gates.order(), start=1):
                notes[int(layer)] = [f"{scores.gates.value[-1, layer]:.3f}", f"#{place}"]
    html += page.layout_strip(layout, is_softmax, notes)
    what = "gate" if run.scores is not None and run.scores.gates is not None else "importance (nat/token)"
    scored = f" In each cell: {what} and place among the layers." if notes else ""
    html += (f'<p class="legend">{page.swatch(plots.SOFTMAX)}softmax attention '
             f'{page.swatch("#dfe6ec")}linear attention.{scored}</p>')
    return html


def with_same_scores(run, earlier):
    """The place of the first of the earlier runs that has the scores of this run (`reuse` in a job), or None."""
    for place, other in enumerate(earlier):
        if other.scores is not None and np.array_equal(run.scores.kl, other.scores.kl, equal_nan=True):
            return place
    return None


def score_section(run, earlier):
    html = "<h3>Importance of each layer</h3>"
    scores = run.scores
    if scores is None:
        return html + page.missing("The scores of the candidates", why_missing(run, "score"))
    if not scores.complete:
        html += f"<p>{len(scores.layer)} candidate(s) are scored so far; scores.h5 is {NOT_THERE}.</p>"
    gap = paired_gap(scores, run.selection)
    if gap:
        inside, outside, difference, error = gap
        ratio = f" ({abs(difference) / error:.1f} standard errors)" if error > 0 else ""
        by = f"<b>{abs(difference):.4f} ± {error:.4f} nat/token</b>{ratio}, compared sequence by sequence.</p>"
        if difference >= 0:
            html += f"<p>At the border of the choice, layer {inside} (in) beats layer {outside} (out) by {by}"
        else:
            html += (f"<p>The choice does not follow the scores: layer {outside}, left out, beats layer {inside}, "
                     f"kept, by {by}")
    shown = with_same_scores(run, earlier)
    if shown is not None:
        return html + f'<p>The scores are those of <a href="#run{shown}">{escape(earlier[shown].name)}</a>.</p>'
    if scores.gates is not None:
        return html + gates.section(run) + kept_curve.section(run)
    html += page.figure(plots.importance(run), "Importance per layer",
                        ("Higher: the teacher loses more if that layer alone is linear. " if scores.of_removal() else
                         "Higher: restoring softmax attention there lowers the held-out KL more. ") + "Thin bars: standard "
                        "error over sequences. Thick bars: the same after the difficulty common to all candidates is "
                        "taken out of each sequence, which is what a comparison of layers rests on.",
                        narrow=plots.importance(run, plots.NARROW))
    html += kept_curve.section(run)
    if len(scores.checkpoint_tokens) < 2:  # candidates that are not trained have no course
        return html
    aligned = ""
    if scores.all_linear_kl is not None:
        aligned = f" The aligned all-linear student starts at {np.mean(scores.all_linear_kl):.3g} nat/token."
    html += '<div class="plots">'
    html += page.figure(plots.race(run), "The race",
                        "KL on held-out sequences against training tokens, one line per candidate." + aligned)
    html += page.figure(plots.race(run, relative=True), "The race, relative",
                        "The same minus the mean over the candidates: the lower, the better. Numbers are layers"
                        f"{other_candidates(scores)}.")
    html += "</div>"
    return html + settling(run)


def other_candidates(scores):
    return ", those in brackets candidates of other layouts" if (scores.layer == NO_LAYER).any() else ""


def settling(run):
    """The K most important layers at every held-out measurement: shows when the choice stopped changing."""
    scores, selection = run.scores, run.selection
    if selection is None or len(selection.layers) == 0 or len(scores.checkpoint_tokens) < 2:
        return ""
    scores = scores.of_layers()
    rows = ""
    for measurement, tokens in enumerate(scores.checkpoint_tokens):
        kl = -scores.kl_mean[:, measurement] if scores.of_removal() else scores.kl_mean[:, measurement]
        kl = np.where(np.isfinite(kl), kl, np.inf)
        order = np.lexsort((scores.layer, kl))[: len(selection.layers)]
        best = set(int(scores.layer[row]) for row in order if np.isfinite(kl[row]))
        layout = ["softmax" if layer in best else "linear" for layer in range(len(selection.layout))]
        rows += f"<div>{plots.short_number(tokens)} tokens</div>{page.layout_strip(layout, is_softmax)}"
    return (f'<h3>When the choice settled</h3><p class="note">The {len(selection.layers)} most important layers by '
            f'the KL at each held-out measurement.</p><div class="rows">{rows}</div>')


def training_section(run):
    html = '<h3>Training</h3><div class="plots">'
    html += page.figure(plots.loss_curve([run], "align"), "Align", "Mean over the layers.",
                        why_missing=why_missing(run, "align"))
    html += page.figure(plots.align_heat_map(run), "Align, layer by layer", "Dark is high loss.",
                        why_missing=why_missing(run, "align"))
    html += page.figure(plots.candidate_losses(run), "Score", "KL to the teacher on training batches, the same for "
                        "every candidate. Orange: chosen.", why_missing=why_missing(run, "score"))
    html += page.figure(plots.loss_curve([run], "distill"), "Distill", "KL to the teacher on training batches.",
                        why_missing=why_missing(run, "distill"))
    html += page.figure(plots.loss_curve([run], "finetune"), "Finetune", "Next-token loss on training batches.",
                        why_missing=why_missing(run, "finetune"))
    html += page.figure(plots.gradient_norms(run), "Gradient norm", "Before clipping.")
    return html + "</div>" + table_of(run.learning_rates)


def evaluation_section(runs):
    html = '<div class="plots">'
    html += page.figure(plots.by_position(runs, "perplexity"), "Perplexity by position", "Held-out sequences.")
    html += page.figure(plots.by_position(runs, "kl"), "KL by position", "Held-out sequences.")
    if any(run.evaluation is not None and run.evaluation.recall is not None for run in runs):
        html += page.figure(recall.by_length(runs), "Recall by length", "Over all kinds and depths. Bars: standard errors "
                            "over questions.")
    return html + "</div>"


def evaluation_table(run):
    evaluation = run.evaluation
    if evaluation is None:
        return page.missing("The evaluation", why_missing(run, "evaluate"))
    titles = ["model", "loss (nat/token)", "perplexity", "KL (nat/token)"]
    rows = []
    answers = evaluation.answer_accuracy is not None and evaluation.answer_count
    if answers:
        titles.append(f"answers right, of {evaluation.answer_count}")
    for index, model in enumerate(evaluation.model):
        row = [escape(model), with_error(float(evaluation.loss[index]), evaluation.loss_standard_error[index]),
               format_value(float(evaluation.perplexity[index])),
               with_error(float(evaluation.kl[index]), evaluation.kl_standard_error[index])]
        if answers:
            accuracy = float(evaluation.answer_accuracy[index])
            row.append(f"{accuracy:.3f} ± {np.sqrt(accuracy * (1 - accuracy) / evaluation.answer_count):.3f}")
        rows.append(row)
    html = page.table(titles, rows)
    if not answers:
        html += '<p class="note">The validation tokens mark no answers, so there are no answers to count.</p>'
    return html


def throughput_table(run):
    rows = []
    provenance = run.provenance()
    ranks = provenance.ranks if provenance else None
    for stage in run.metrics.stages():
        series = [run.metrics.curve(stage, candidate) for candidate in [None] + run.metrics.candidates(stage)]
        series = [curve for curve in series if curve is not None]
        if not series:
            continue
        speed = np.concatenate([curve.tokens_per_second for curve in series])
        memory = np.concatenate([curve.memory_gib for curve in series])
        speed, memory = speed[np.isfinite(speed)], memory[np.isfinite(memory)]
        median = float(np.median(speed)) if speed.size else None
        rows.append([stage, format_duration(run.metrics.seconds.get(stage)),
                     str(max(curve.step[-1] for curve in series)),
                     plots.short_number(sum(curve.tokens[-1] for curve in series)),
                     NOT_THERE if median is None else plots.short_number(median),
                     NOT_THERE if median is None or not ranks else plots.short_number(median / ranks),
                     f"{memory.max():.3g}" if memory.size else NOT_THERE])
    if not rows:
        return page.missing("Throughput (metrics.csv)")
    return page.table(["stage", "wall time", "steps", "tokens", "tokens/s (median)", "per rank", "memory (GiB)"], rows)


def run_section(runs, number):
    run, several = runs[number], len(runs) > 1
    html = f'<h2 id="run{number}"{"" if several else " class=first"}>{escape(run.name)}</h2>' if several else ""
    html += header(run) + layout_section(run) + score_section(run, runs[:number]) + training_section(run)
    html += "<h3>Evaluation</h3>" + evaluation_table(run)
    if run.evaluation is not None:
        html += evaluation_section([run]) + recall.section(run)
    html += "<h3>Throughput</h3>" + throughput_table(run)
    if run.log_tail and run.evaluation is None:
        html += f"<h3>End of log.txt</h3><pre>{escape(chr(10).join(run.log_tail))}</pre>"
    if run.job_text:
        html += f"<details><summary>Resolved job file</summary><pre>{escape(run.job_text)}</pre></details>"
    return html


def comparison_section(runs):
    rows = [comparison_row(run) for run in runs]
    colours = [colour for colour, _ in plots.run_colours(len(runs))]
    best = set()
    for column, name, sign in ((2, "KL", 1), (4, "student perplexity", 1), (6, "student answers", -1),
                               (8, "student recall", -1)):
        values = [sign * row[name] if row[name] is not None and np.isfinite(row[name]) else np.inf for row in rows]
        if np.isfinite(values).sum() > 1:
            best.add((int(np.argmin(values)), column))
    cells = [[page.swatch(colour) + escape(row["run"]), escape(format_value(row["rule"])),
              with_error(row["KL"], row["KL error"]), format_value(row["teacher perplexity"]),
              with_error(row["student perplexity"], row["perplexity error"]), format_answers(row, "teacher"),
              format_answers(row, "student"), format_recall(row, "teacher"), format_recall(row, "student"),
              format_value(row["ranks"]), format_duration(row["seconds"])]
             for row, colour in zip(rows, colours)]
    html = '<h2 class="first" id="comparison">Comparison</h2>'
    html += page.table(["run", "rule", "KL (nat/token)", "perplexity, teacher", "perplexity, student",
                        "answers, teacher", "answers, student", "recall, teacher", "recall, student", "ranks", "wall time"], cells, words=(1,), best=best)
    html += "<h3>Layouts</h3>"
    strips = "".join(f"<div>{page.swatch(colour)}{escape(run.name)}</div>" +
                     (page.layout_strip(run.layout(), is_softmax) if run.layout()
                      else f'<div class="quiet">{NOT_THERE}</div>') for run, colour in zip(runs, colours))
    html += f'<div class="rows">{strips}</div>'
    html += (f'<p class="legend">{page.swatch(plots.SOFTMAX)}softmax attention '
             f'{page.swatch("#dfe6ec")}linear attention</p>')
    html += "<h3>Quality</h3>" + evaluation_section(runs)
    trade_off = plots.trade_off(rows)
    if trade_off is not None:
        html += page.figure(trade_off, "Recall, KL and the cost of the selection", "Over all recall questions; bars: standard "
                            "errors; dashed: the teacher. Seconds of the selection are summed over groups of ranks.")
    html += page.figure(plots.importance_overlay(runs), "Importance per layer", "Error bars: standard error over "
                        "sequences. Runs are shifted a little sideways so that the bars can be told apart.",
                        narrow=plots.importance_overlay(runs, plots.NARROW))
    html += '<h3>Training</h3><div class="plots">'
    for stage in ("align", "distill", "finetune"):
        html += page.figure(plots.loss_curve(runs, stage), stage.capitalize(), "Training loss.")
    return html + "</div>"


def build_report(runs):
    several = len(runs) > 1
    title = "Amalgam: " + ", ".join(run.name for run in runs)
    body = f"<h1>{escape(title)}</h1>"
    if several:
        links = "".join(f'<a href="#run{number}">{escape(run.name)}</a>' for number, run in enumerate(runs))
        body += f'<nav><a href="#comparison">Comparison</a>{links}</nav>' + comparison_section(runs)
    body += "".join(run_section(runs, number) for number in range(len(runs)))
    style = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    return page.document(title, style, body)


def is_report(path):
    """A page of an earlier call, which may be replaced."""
    try:
        with open(path, "rb") as file:
            return file.read(64).lstrip().lower().startswith(b"<!doctype html")
    except OSError:
        return False


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Write the report of one or more runs as one HTML page.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder, outputs/NAME")
    parser.add_argument("--output", default="report.html", help="the page to write (default: report.html)")
    options = parser.parse_args(arguments)
    try:
        runs = [read_run_folder(path) for path in options.runs]
    except FileNotFoundError as error:
        sys.exit(str(error))
    output = Path(options.output)
    if output.exists() and not is_report(output):
        sys.exit(f"{output}: is there already and is no report (it would be lost); name another file with --output")
    if not output.parent.is_dir():
        sys.exit(f"{output.parent}: is not a folder; make it, or name another file with --output")
    temporary = output.with_name(output.name + ".part")
    page_of_runs = build_report(runs)
    try:
        temporary.write_text(page_of_runs, encoding="utf-8")
        os.replace(temporary, output)
    except OSError as error:
        sys.exit(f"{output}: cannot be written ({error.strerror})")
    print(f"{output}: {output.stat().st_size / 1024:.0f} KiB, {len(runs)} run(s)")


if __name__ == "__main__":
    main()
