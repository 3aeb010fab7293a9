// SPDX-License-Identifier: Apache-2.0
#include "job/selection_check.h"

#include <algorithm>
#include <limits>

#include "job/job_values.h"
#include "job/training_plan.h"
#include "rules/budget.h"

namespace amalgam {
namespace {

class SelectionCheck {
  public:
    SelectionCheck(const Job& job, int64_t ranks, std::optional<int64_t> layers, Findings& findings)
        : job_(job), ranks_(ranks), layers_(layers), findings_(findings) {}

    void all() {
        const SelectJob& select = job_.select;
        const SelectionRule& rule = selection_rule(select.rule);
        std::string others;  // that need no scores
        for (const SelectionRule& one : selection_rules())
            if (one.scorer == nullptr || !one.scorer->distils) others += (others.empty() ? "" : ", ") + one.name;
        findings_.problem_if(
            rule.scorer != nullptr && !has_score_stage(job_), "select.rule is ", rule.name,
            " but score.tokens is 0 (there are no scores to guide it) give score.tokens, or a rule that needs "
            "none: ",
            others);
        findings_.problem_if(rule.needs_recall && job_.score.recall.questions == 0, "select.rule is ", rule.name,
                             " but score.recall.questions is 0 (it chooses by what candidates recall) ask at least 1");
        findings_.note_if(rule.scorer == nullptr && job_.score.tokens > 0, "select.rule is ", rule.name,
                          ": scores are not used, so the stage score is left out");
        check_unused_options(rule);
        for (const std::string& problem : rule.problems(select.options, layers_)) findings_.problem_if(true, problem);
        const int64_t enough = std::numeric_limits<int32_t>::max();  // where only the form of a budget can be checked
        const int64_t kept =
            findings_.parsed([&] { return kept_layers(select, layers_.value_or(enough)).value_or(-1); }, -1);
        if (rule.order != nullptr && is_automatic(select.options)) {
            findings_.note_if(
                true,
                "select: as few layers keep softmax as reach the bounds, measured before any distillation; "
                "estimates take half of them");
            findings_.problem_if(
                job_.score.recall.questions == 0 && option<double>(select.options, "recall_at_least") > 0.0,
                "select.recall_at_least is given but score.recall.questions is 0 (nothing is recalled) ask at "
                "least 1");
        }
        if (!layers_) return;
        findings_.note_if(kept >= 0, "select: ", kept, " of ", *layers_, " layers keep softmax");
        if (rule.scorer != nullptr) check_candidates(*rule.scorer, *layers_);
    }

  private:
    /// Keys of other rules that somebody has set all the same.
    void check_unused_options(const SelectionRule& rule) {
        for (const Option& option : options_of(selection_rules())) {
            const bool is_used = std::any_of(rule.options.begin(), rule.options.end(),
                                             [&](const Option& own) { return own.name == option.name; });
            findings_.note_if(!is_used && job_.select.options.at(option.name) != option.default_value, "select.",
                              option.name, " is not used by rule ", rule.name);
        }
    }

    void check_candidates(const Scorer& scorer, int64_t layers) {
        const int64_t per_group = ranks_per_candidate(job_);
        if (!has_score_stage(job_) || ranks_ < 1 || ranks_ % per_group != 0) return;
        const int64_t groups = ranks_ / per_group;
        const auto candidates =
            int64_t(scorer.next({layers, job_.student.mixer, {}, {}, job_.select.options}).size());  // at a time
        findings_.note_if(groups > candidates, "score: ", groups, " groups of ranks but ", candidates, " candidates; ",
                          groups - candidates, " groups have nothing to do (raise score.ranks_per_candidate)");
    }

    const Job& job_;
    int64_t ranks_;
    std::optional<int64_t> layers_;
    Findings& findings_;
};

}  // namespace

void check_selection(const Job& job, int64_t ranks, std::optional<int64_t> layers, Findings& findings) {
    SelectionCheck(job, ranks, layers, findings).all();
}

}  // namespace amalgam
