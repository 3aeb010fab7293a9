// SPDX-License-Identifier: Apache-2.0
#include "job/job_check.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <set>

#include "job/format_check.h"
#include "job/input_check.h"
#include "job/job_values.h"
#include "job/selection_check.h"
#include "job/training_check.h"
#include "job/training_notes.h"
#include "job/training_plan.h"
#include "mixers/declaration.h"
#include "system/error.h"

namespace amalgam {

namespace {

class Check {
  public:
    Check(const Job& job, int64_t ranks, const std::optional<ModelConfig>& teacher,
          const std::optional<TokenCounts>& counts)
        : job_(job), ranks_(ranks), teacher_(teacher), counts_(counts) {}

    Findings all() {
        check_run();
        check_inputs(job_, findings_);
        check_questions();
        check_stages();
        check_data();
        check_student();
        check_selection(job_, ranks_, teacher_ ? std::optional(teacher_->layers) : std::nullopt, findings_);
        check_formats(job_, teacher_, findings_);
        if (teacher_)
            for (const std::string& note :
                 training_notes(job_, *teacher_, counts_ ? counts_->training : std::numeric_limits<int64_t>::max()))
                findings_.note_if(true, note);
        return findings_;
    }

  private:
    void check_run() {
        const bool one_folder = !job_.name.empty() && job_.name.find('/') == std::string::npos && job_.name[0] != '.';
        findings_.problem_if(
            !one_folder, "name is \"", job_.name,
            "\" (it names the run folder inside \"output\") use letters, digits, dots, - and _, without \"/\"");
        findings_.problem_if(job_.output.empty(),
                             "output is empty (results need a folder) leave it out for \"outputs\"");
        std::error_code unreadable;  // what cannot be looked at is not there
        findings_.problem_if(
            std::filesystem::exists(job_.output, unreadable) && !std::filesystem::is_directory(job_.output, unreadable),
            "output: ", job_.output, " is not a folder (results go into one) choose another name");
        findings_.parsed([&] { return walltime_seconds(job_.walltime); }, 0);
        for (const auto& [key, deadline] :
             {std::pair("deadlines.setup", job_.deadlines.setup), std::pair("deadlines.step", job_.deadlines.step),
              std::pair("deadlines.checkpoint", job_.deadlines.checkpoint)})
            findings_.parsed([&] { return int64_t(deadline_seconds(key, deadline)); }, 0);
        findings_.parsed([&] { return int64_t(given_peak_flops(job_.peak_flops).has_value()); }, 0);
        findings_.problem_if(ranks_ < 1, "there are ", ranks_, " ranks (somebody must do the work) give at least 1");
    }

    void check_questions() {
        check_recall("evaluate.recall", job_.evaluate.recall, job_.evaluate.sequences > 0);
        check_recall("score.recall", job_.score.recall, has_score_stage(job_) && !candidates_are_trained(job_));
    }

    void check_recall(const std::string& section, const RecallJob& recall, bool is_used) {
        if (recall.questions == 0) return;
        if (is_used)
            for (const int64_t length : recall.lengths)
                check_pieces(section + ".lengths", length, job_.sharding.context, findings_);
        check_list(section, "kinds", recall.kinds);
        check_list(section, "lengths", recall.lengths);
        check_list(section, "depths", recall.depths);
        for (const int64_t length : recall.lengths)
            findings_.note_if(teacher_ && length > teacher_->max_positions, section, ".lengths holds ", length,
                              " but the teacher was made for at most ", teacher_ ? teacher_->max_positions : 0,
                              " positions: expect little of it there");
    }

    /// Something to ask, and nothing twice.
    template <class Value>
    void check_list(const std::string& section, const std::string& name, const std::vector<Value>& values) {
        const std::string key = section + "." + name;
        findings_.problem_if(values.empty(), key, " is empty (no question could be asked) name some, or set ", section,
                             ".questions: 0");
        std::set<Value> distinct;
        for (const Value& value : values)
            findings_.problem_if(!distinct.insert(value).second, key, " names ", value,
                                 " twice (a mistake?) remove one");
    }

    void note_length(const std::string& stage, int64_t sequence_length) {
        note_positions(stage, sequence_length, max_positions(), findings_);
    }

    /// Of the teacher; 0: not known (published shapes leave it out).
    int64_t max_positions() const { return teacher_ ? teacher_->max_positions : 0; }

    /// `sharers`: ranks among which a batch of the stage is divided.
    void check_training(const std::string& name, const TrainingJob& stage, int64_t sharers, int64_t context) {
        amalgam::check_training(name, stage, sharers, context, max_positions(), findings_);
    }

    void check_stages() {
        check_context();
        check_training("align", job_.align, sharers(), job_.sharding.context);
        const int64_t group = ranks_per_candidate(job_), context = job_.sharding.context;
        findings_.problem_if(has_score_stage(job_) && group % context != 0, "score.ranks_per_candidate is ", group,
                             " but sharding.context is ", context, " (so many ranks share each sequence) use ",
                             group / context * context, " or ", (group / context + 1) * context);
        findings_.problem_if(has_score_stage(job_) && group > context && ranks_ >= 1 && ranks_ % group != 0,
                             "score.ranks_per_candidate is ", group, " but there are ", ranks_,
                             " ranks (candidates need groups of equal size) use a divisor of ", ranks_);
        if (candidates_are_trained(job_)) {
            check_training("score", job_.score, group / context, context);
            const int64_t steps = training_steps(job_.score);
            findings_.problem_if(steps > 0 && job_.score.measurements > steps, "score.measurements is ",
                                 job_.score.measurements, " but a candidate trains for ", steps,
                                 " steps (at most one measurement per step) lower it");
        } else if (has_score_stage(job_)) {
            note_length("score", job_.score.sequence_length);
            check_pieces("score.sequence_length", job_.score.sequence_length, context, findings_);
            findings_.note_if(job_.score.question_fraction > 0.0,
                              "score.question_fraction is not used: candidates are not trained");
        }
        check_far_context();
        check_gates();
        check_training("distill", job_.distill, sharers(), job_.sharding.context);
        check_training("finetune", job_.finetune, sharers(), job_.sharding.context);
        if (job_.evaluate.sequences > 0) {
            note_length("evaluate", job_.evaluate.sequence_length);
            check_pieces("evaluate.sequence_length", job_.evaluate.sequence_length, context, findings_);
        }
        findings_.problem_if(job_.evaluate.sequences > 0 && job_.evaluate.position_bins > job_.evaluate.sequence_length,
                             "evaluate.position_bins is ", job_.evaluate.position_bins, " but sequences have ",
                             job_.evaluate.sequence_length, " tokens (a bin would be empty) lower it");
        findings_.note_if(job_.align.tokens == 0,
                          "align.tokens is 0: linear layers start without having seen the teacher's "
                          "attention, which later stages do not make up for");
        findings_.note_if(job_.distill.tokens == 0, "distill.tokens is 0: the selected hybrid is not distilled");
    }

    void check_far_context() {
        const FarContextJob& far = job_.score.far_context;
        if (far.weight == 0.0) return;
        const bool is_measured = has_score_stage(job_) && !candidates_are_trained(job_);
        findings_.note_if(!is_measured, "score.far_context.weight is not used by rule ", job_.select.rule);
        findings_.problem_if(is_measured && job_.score.sequence_length <= 2 * far.window,
                             "score.far_context.window is ", far.window, " but score.sequence_length is ",
                             job_.score.sequence_length,
                             " (no token has anything before its last two windows) use longer sequences or a window "
                             "below half of them");
    }

    void check_gates() {
        if (!gates_are_trained(job_)) return;
        findings_.problem_if(!gates_see_text(job_.score) && job_.score.recall.questions == 0,
                             "score.gates.objective is ", name_of(job_.score.gates.objective),
                             " but score.recall.questions is 0 (only states at the tokens of answers are compared) ask "
                             "at least 1 question, or use score.gates.objective: kl");
        findings_.note_if(!gates_see_text(job_.score) && job_.score.far_context.weight > 0.0,
                          "score.far_context.weight counts when candidates are measured, not when gates are trained: "
                          "score.gates.objective is ",
                          name_of(job_.score.gates.objective));
    }

    /// Of a batch: ranks, or groups of ranks that share sequences.
    int64_t sharers() const { return ranks_ / job_.sharding.context; }

    void check_context() {
        const int64_t context = job_.sharding.context;
        if (context == 1) return;
        findings_.problem_if(ranks_ >= 1 && ranks_ % context != 0, "sharding.context is ", context, " but there are ",
                             ranks_, " ranks (so many share each sequence) start a multiple of ", context,
                             ", or lower it to a divisor of ", ranks_);
        findings_.note_if(has_score_stage(job_) && job_.score.ranks_per_candidate < context, "score: ", context,
                          " ranks measure a candidate, as many as share each sequence (sharding.context)");
        findings_.note_if(job_.evaluate.sequences > 0 && !job_.evaluate.requests.empty(),
                          "evaluate.requests: each rank answers them with whole contexts, which sharding.context does "
                          "not divide");
    }

    void check_packing() {
        if (job_.data.packing == DocumentPacking::none) return;
        findings_.problem_if(job_.data.documents == DocumentBorders::joined,
                             "data.packing is best_fit but data.documents is joined (documents that are one text need "
                             "not be whole) use data.documents: separate, or data.packing: none");
        check_one_length("align", job_.align);
        if (candidates_are_trained(job_)) check_one_length("score", job_.score);
        check_one_length("distill", job_.distill);
        check_one_length("finetune", job_.finetune);
    }

    void check_one_length(const std::string& stage, const TrainingJob& training) {
        if (training.tokens == 0) return;
        const TrainingPlan plan(training);
        const auto differs = [&](const PlannedPhase& phase) { return phase.sequence_length != plan.block_length(); };
        findings_.problem_if(std::ranges::any_of(plan.phases(), differs), "data.packing is best_fit but ", stage,
                             ".phases have sequences of several lengths (documents are packed into sequences of one "
                             "length) use one sequence_length in the stage, or data.packing: none");
    }

    void check_documents() {
        check_packing();
        if (job_.data.documents == DocumentBorders::joined) return;
        findings_.note_if(gates_are_trained(job_) && gates_see_text(job_.score),
                          "data.documents is separate, but gates are trained on joined documents (stage score)");
        if (!counts_) return;
        findings_.problem_if(counts_->training_documents < 2,
                             "data.documents is separate but data.training is one document (nothing tells where others "
                             "begin) tokenise it again document by document, or use data.documents: joined");
        findings_.problem_if(counts_->training_documents == counts_->training,
                             "data.documents is separate but every document of data.training has one token (no token "
                             "predicts another) use data.documents: joined");
        findings_.note_if(counts_->validation_documents < 2,
                          "data.documents is separate: data.validation is one "
                          "document, so nothing is kept apart there");
    }

    void check_data() {
        check_documents();
        if (!counts_) return;
        check_corpus("align", job_.align);
        if (candidates_are_trained(job_)) check_corpus("score", job_.score);
        if (gates_are_trained(job_) && gates_see_text(job_.score)) check_corpus_of_gates();
        check_corpus("distill", job_.distill);
        check_corpus("finetune", job_.finetune);
        if (has_score_stage(job_))
            check_validation("score.validation_sequences", job_.score.validation_sequences, job_.score.sequence_length);
        check_validation("evaluate.sequences", job_.evaluate.sequences, job_.evaluate.sequence_length);
        if (teacher_)
            findings_.problem_if(counts_->vocabulary_size > teacher_->vocabulary_size,
                                 "data: the token files need a vocabulary of ", counts_->vocabulary_size,
                                 " tokens but the teacher knows ", teacher_->vocabulary_size,
                                 " (token numbers would mean nothing to it) tokenise with the teacher's tokenizer");
    }

    void check_corpus(const std::string& name, const TrainingJob& stage) {
        if (stage.tokens == 0) return;
        const int64_t longest = TrainingPlan(stage).block_length();
        findings_.problem_if(counts_->training < longest, "data.training has ", counts_->training, " tokens but ", name,
                             stage.phases.empty() ? ".sequence_length is " : ".phases have sequences of up to ",
                             longest, " (not one sequence) use a larger corpus");
        findings_.note_if(counts_->training >= longest && counts_->training < stage.tokens, name, ": ", stage.tokens,
                          " tokens from a corpus of ", counts_->training, ": sequences are repeated");
    }

    void check_corpus_of_gates() {
        ScoreJob seen = job_.score;
        seen.tokens = seen.gates.steps * seen.batch_sequences * seen.sequence_length;
        check_corpus("score", seen);
    }

    void check_validation(const std::string& key, int64_t sequences, int64_t length) {
        findings_.problem_if(counts_->validation / length < sequences, key, " is ", sequences,
                             " but data.validation has only ", counts_->validation / length, " sequences of ", length,
                             " tokens (they would be counted twice) lower it");
    }

    void check_student() {
        const StudentJob& student = job_.student;
        const MixerDeclaration& of_variant = *find_variant(student.variant)->mixer;
        std::string its_variants;
        for (const MixerVariant& variant : find_mixer(student.mixer).variants())
            its_variants += (its_variants.empty() ? "" : " or ") + variant.name;
        findings_.problem_if(of_variant.name() != student.mixer, "student.mixer is ", student.mixer,
                             " but student.variant ", student.variant, " is a ", of_variant.name(),
                             " (a variant sets the mixer) set student.variant: ", its_variants);
    }

    const Job& job_;
    int64_t ranks_;
    const std::optional<ModelConfig>& teacher_;
    const std::optional<TokenCounts>& counts_;
    Findings findings_;
};

}  // namespace

Findings check_job(const Job& job, int64_t ranks, const std::optional<ModelConfig>& teacher,
                   const std::optional<TokenCounts>& counts) {
    return Check(job, ranks, teacher, counts).all();
}

}  // namespace amalgam
