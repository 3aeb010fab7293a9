// SPDX-License-Identifier: Apache-2.0
#include "stages/work_left.h"

#include <algorithm>
#include <set>

#include "evaluation/kept_answers.h"
#include "exports/whole_export.h"
#include "system/error.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;

/// Names of files in a folder of the run, with the folder's.
std::vector<std::string> files_in(const fs::path& folder) {
    std::vector<std::string> names;
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder, ignored))
        if (entry.path().extension() == ".h5") names.push_back((folder.filename() / entry.path().filename()).string());
    std::sort(names.begin(), names.end());
    return names;
}

/// What a stage has left in the run folder, finished or not, as seen from there.
std::vector<std::string> results_of(const Run& run, const std::string& stage) {
    std::vector<std::string> found;
    const auto add_if_there = [&](const std::string& file) {
        if (fs::exists(run.folder / file)) found.push_back(file);
    };
    for (const std::string& file : files_in(run.folder / "checkpoints"))
        if (file == "checkpoints/" + stage + ".h5" || file.starts_with("checkpoints/" + stage + "-"))
            found.push_back(file);
    if (stage == "score") {
        if (!files_in(run.folder / "candidates").empty()) found.push_back("candidates/");
        add_if_there("scores.h5");
    }
    if (stage == "select") add_if_there("selection.h5");
    if (stage == "evaluate") {
        for (const std::string& file : files_in(kept_answers_folder(run.folder)))
            if (fs::path(file).filename().string().starts_with("student.")) found.push_back(file);
        add_if_there("evaluation.h5");
    }
    if (stage == "export")
        for (const std::string& folder : exports_in(run.folder)) found.push_back(folder + "/");
    return found;
}

bool reads_any(const Run& run, const Stage& stage, const std::set<std::string>& names) {
    const std::vector<std::string> read = stage.reads(run);
    return std::any_of(read.begin(), read.end(), [&](const std::string& name) { return names.contains(name); });
}

/// Weights and scores that are made again may be others, if only by their rounding.
void expect_nothing_made_of(const Run& run, const Stage& stage) {
    std::set<std::string> after = {stage.name};
    std::string results;
    for (const Stage& later : pipeline_stages()) {
        if (!reads_any(run, later, after)) continue;
        after.insert(later.name);
        for (const std::string& file : results_of(run, later.name)) results += "\n  " + file;
    }
    require(results.empty(), run.folder.string(), ": the result of ", stage.name,
            " is not there, but what was made of it is (the stage would run again, and results of older and newer "
            "weights would be mixed); restore it, or remove these, which are then made again:",
            results);
}

}  // namespace

std::vector<StageWork> work_left(const Run& run) {
    const std::vector<Stage>& stages = pipeline_stages();
    std::vector<StageWork> work;
    for (const Stage& stage : stages)
        work.push_back(!stage.wanted(run) ? StageWork::unwanted : stage.done(run) ? StageWork::done : StageWork::left);
    const std::vector<std::string> trained = stages.back().reads(run);
    std::set<std::string> needed(trained.begin(), trained.end());  // a run is for the student, whatever else it does
    for (size_t i = stages.size(); i-- > 0;) {
        if (work[i] != StageWork::left) continue;
        if (!stages[i].is_for_people && !needed.contains(stages[i].name)) {
            work[i] = StageWork::unneeded;
            continue;
        }
        for (const std::string& name : stages[i].reads(run)) needed.insert(name);
    }
    for (size_t i = 0; i < stages.size(); ++i)
        if (work[i] == StageWork::left && stages[i].makes_anew) expect_nothing_made_of(run, stages[i]);
    return work;
}

}  // namespace amalgam
