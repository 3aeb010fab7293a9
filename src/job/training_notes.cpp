// SPDX-License-Identifier: Apache-2.0
#include "job/training_notes.h"

#include <algorithm>
#include <cmath>

#include "job/learning_rate_rule.h"
#include "job/learning_rate_trials.h"
#include "job/training_plan.h"
#include "rules/selection_rule.h"
#include "system/error.h"

namespace amalgam {
namespace {

constexpr double far_from_the_rule = 4.0;  // times
// Measured (analysis/results/recipe): alignment of 135 M parameters got better up to the 1025 steps that were tried;
// their distillation from 6 M to 30 M tokens.
constexpr int64_t enough_alignment_steps = 500;
constexpr double enough_tokens_per_parameter = 0.2;
constexpr double enough_tokens = 5e8;  // for 7 billion parameters and more (arXiv 2505.03005)

class Notes {
  public:
    Notes(const Job& job, const ModelConfig& teacher, int64_t corpus_tokens)
        : job_(job), teacher_(teacher), corpus_tokens_(corpus_tokens) {}

    std::vector<std::string> all() {
        const Scorer* scorer = selection_rule(job_.select.rule).scorer;
        of_rates("align", job_.align, 1);
        if (candidates_are_trained(job_))
            of_rates("score", job_.score, scorer->count({teacher_.layers, job_.student.mixer}));
        of_rates("distill", job_.distill, 1);
        of_rates("finetune", job_.finetune, 1);
        of_alignment_steps();
        of_distillation_tokens();
        return notes_;
    }

  private:
    template <class... Parts>
    void note(const Parts&... parts) {
        notes_.push_back(text(parts...));
    }

    void of_rates(const std::string& stage, const TrainingJob& job, int64_t candidates) {
        if (job.tokens == 0) return;
        const LearningRates rule = rule_of_thumb(stage, teacher_.hidden_size);
        const AutomaticRates automatic = automatic_rates(stage, job.optimizer);
        if (automatic.any()) of_race(stage, job, candidates, automatic, rule);
        if (job_.recipe == Recipe::reference) return;
        of_given(stage + ".optimizer.learning_rate", job.optimizer.learning_rate, rule.mixers);
        if (stage != "align")
            of_given(stage + ".optimizer.learning_rate_rest", job.optimizer.learning_rate_rest, rule.rest);
    }

    void of_race(const std::string& stage, const TrainingJob& job, int64_t candidates, const AutomaticRates& automatic,
                 const LearningRates& rule) {
        const std::string of_mixers = automatic.mixers ? text(" ", rule.mixers, " (mixers)") : "",
                          of_rest = automatic.rest ? text(" ", rule.rest, " (rest)") : "";
        const std::string begin = text(stage, ": learning rate auto: rule of thumb", of_mixers, of_rest);
        if (job.optimizer.race_fraction == 0.0) return note(begin);
        const auto plan = trial_plan(stage, job, candidates, corpus_tokens_);
        if (!plan) return note(begin, ", without a race: too few tokens for its trials");
        const double share = plan->most_tokens() / (double(job.tokens) * double(candidates));
        note(begin, ", then a race of at most ", plan->most_trials, " trials of ", plan->trained_steps(), " steps of ",
             batches_in_words(TrainingPlan(plan->training)), " tokens, ", std::round(1000.0 * share) / 10.0,
             " % of the stage's tokens");
    }

    void of_given(const std::string& key, const std::optional<double>& given, double rule) {
        if (!given || *given <= 0.0) return;  // 0 is meant
        const double times = *given / rule;
        if (times <= far_from_the_rule && times >= 1.0 / far_from_the_rule) return;
        const double factor = std::max(times, 1.0 / times);
        note(key, " is ", *given, ", ", factor < 10 ? std::round(10.0 * factor) / 10.0 : std::round(factor), " times ",
             times > 1.0 ? "above" : "below", " the rule of thumb for hidden size ", teacher_.hidden_size, ", ", rule,
             " (", times > 1.0 ? "training may diverge" : "the student may learn less than its tokens allow",
             "); auto takes the rule");
    }

    void of_alignment_steps() {
        if (job_.align.tokens == 0 || job_.recipe == Recipe::reference) return;
        const int64_t steps = training_steps(job_.align);
        if (steps == 0 || steps >= enough_alignment_steps) return;
        note("align: ", steps,
             " steps are few: with 135 M parameters alignment got better up to 1000 steps, the most that "
             "were tried; a smaller align.batch_sequences makes more steps of the same tokens");
    }

    void of_distillation_tokens() {
        if (job_.distill.tokens == 0) return;
        const double parameters = double(count_parameters(teacher_)), tokens = double(job_.distill.tokens);
        const double per_parameter = tokens / parameters;
        if (tokens >= std::min(enough_tokens, enough_tokens_per_parameter * parameters)) return;
        note("distill: ", std::round(1000.0 * per_parameter) / 1000.0,
             " tokens per parameter: more will lower the KL "
             "(135 M parameters: 0.092 after 6 M tokens, 0.044 per parameter; 0.065 after 30 M, 0.22 per parameter)");
    }

    const Job& job_;
    const ModelConfig& teacher_;
    const int64_t corpus_tokens_;
    std::vector<std::string> notes_;
};

}  // namespace

std::vector<std::string> training_notes(const Job& job, const ModelConfig& teacher, int64_t corpus_tokens) {
    return Notes(job, teacher, corpus_tokens).all();
}

}  // namespace amalgam
