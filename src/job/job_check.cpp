// SPDX-License-Identifier: Apache-2.0
#include "job/job_check.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <numeric>
#include <set>

#include "exports/formats.h"
#include "job/job_values.h"
#include "job/student_spec.h"
#include "job/training_check.h"
#include "job/training_notes.h"
#include "job/training_plan.h"
#include "mixers/declaration.h"
#include "rules/budget.h"
#include "system/error.h"

namespace amalgam {

namespace {

namespace fs = std::filesystem;

class Check {
  public:
    Check(const Job& job, int64_t ranks, const std::optional<ModelConfig>& teacher,
          const std::optional<TokenCounts>& counts)
        : job_(job), ranks_(ranks), teacher_(teacher), counts_(counts) {}

    Findings all() {
        check_run();
        check_files();
        check_stages();
        check_data();
        check_student();
        check_selection();
        check_export();
        if (teacher_)
            for (const std::string& note :
                 training_notes(job_, *teacher_, counts_ ? counts_->training : std::numeric_limits<int64_t>::max()))
                findings_.note_if(true, note);
        return findings_;
    }

  private:
    /// Parsers throw; here their text is one finding among others. `otherwise` where they do.
    template <class Parse>
    int64_t parsed(Parse parse, int64_t otherwise) {
        try {
            return parse();
        } catch (const Error& error) {
            findings_.problems.push_back(error.what());
            return otherwise;
        }
    }

    void check_run() {
        const bool one_folder = !job_.name.empty() && job_.name.find('/') == std::string::npos && job_.name[0] != '.';
        findings_.problem_if(
            !one_folder, "name is \"", job_.name,
            "\" (it names the run folder inside \"output\") use letters, digits, dots, - and _, without \"/\"");
        findings_.problem_if(job_.output.empty(),
                             "output is empty (results need a folder) leave it out for \"outputs\"");
        findings_.problem_if(is_there(job_.output) && !fs::is_directory(job_.output), "output: ", job_.output,
                             " is not a folder (results go into one) choose another name");
        parsed([&] { return walltime_seconds(job_.walltime); }, 0);
        for (const auto& [key, deadline] :
             {std::pair("deadlines.setup", job_.deadlines.setup), std::pair("deadlines.step", job_.deadlines.step),
              std::pair("deadlines.checkpoint", job_.deadlines.checkpoint)})
            parsed([&] { return int64_t(deadline_seconds(key, deadline)); }, 0);
        parsed([&] { return int64_t(given_peak_flops(job_.peak_flops).has_value()); }, 0);
        findings_.problem_if(ranks_ < 1, "there are ", ranks_, " ranks (somebody must do the work) give at least 1");
    }

    void check_files() {
        const fs::path teacher = job_.teacher.path;
        if (teacher.empty()) {
            findings_.problem_if(
                true, "teacher.path is not given (there is nothing to convert) name a Hugging Face model folder");
        } else if (std::error_code unreadable; !fs::is_directory(teacher, unreadable)) {
            findings_.problem_if(true, "teacher.path: ", teacher.string(), " is not a folder", relative_hint(teacher));
        } else {
            findings_.problem_if(
                !is_there(teacher / "config.json"), "teacher.path: ", teacher.string(),
                " has no config.json (sizes are unknown without it) is it a Hugging Face model folder?");
            bool has_weights = false;
            std::error_code failed;
            for (fs::directory_iterator entry(teacher, failed), end; !failed && entry != end; entry.increment(failed))
                has_weights = has_weights || entry->path().extension() == ".safetensors";
            findings_.problem_if(bool(failed), "teacher.path: ", teacher.string(), " cannot be read (",
                                 failed.message(), ") look at its permissions");
            findings_.problem_if(
                !failed && !has_weights, "teacher.path: ", teacher.string(),
                " has no *.safetensors (other weight formats are not read) download or convert the weights");
            findings_.problem_if(
                fs::equivalent(teacher, job_.run_folder(), unreadable), "teacher.path: ", teacher.string(),
                " is the run folder (results would be written among the teacher's files) choose another name");
            findings_.note_if(!is_there(teacher / "tokenizer.json"), "teacher.path: ", teacher.string(),
                              " has no tokenizer.json; the exported student will come without a tokenizer");
        }
        check_token_file("data.training", job_.data.training);
        check_token_file("data.validation", job_.data.validation);
        check_requests();
        const std::string start = start_of(job_.student);
        findings_.problem_if(!start.empty() && !is_file(start), "student.start: ", start,
                             " is not a file (it names the checkpoint of a trained student)", relative_hint(start));
        findings_.problem_if(job_.evaluate.recall.questions > 0 && job_.evaluate.sequences == 0,
                             "evaluate.recall.questions is ", job_.evaluate.recall.questions,
                             " but evaluate.sequences is 0 (the stage would be skipped) give at least 1");
        check_recall("evaluate.recall", job_.evaluate.recall);
        check_recall("score.recall", job_.score.recall);
        findings_.problem_if(
            !job_.data.training.empty() && job_.data.training == job_.data.validation,
            "data.validation is the training file (scores must come from tokens never trained on) give another");
    }

    void check_requests() {
        const std::string& path = job_.evaluate.requests;
        if (path.empty()) return;
        findings_.problem_if(!is_file(path), "evaluate.requests: ", path, " is not a file", relative_hint(path));
        findings_.problem_if(
            job_.evaluate.sequences == 0,
            "evaluate.requests is given but evaluate.sequences is 0 (the stage would be skipped) give at least 1");
    }

    void check_recall(const std::string& section, const RecallJob& recall) {
        if (recall.questions == 0) return;
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

    void check_token_file(const std::string& key, const std::string& path) {
        if (path.empty())
            findings_.problem_if(true, key, " is not given (nothing to train or measure on) name an HDF5 token file");
        else
            findings_.problem_if(!is_file(path), key, ": ", path, " is not a file", relative_hint(path));
    }

    /// What cannot be looked at (permissions) is not there.
    static bool is_there(const fs::path& path) {
        std::error_code unreadable;
        return fs::exists(path, unreadable);
    }
    static bool is_file(const fs::path& path) {
        std::error_code unreadable;
        return fs::is_regular_file(path, unreadable);
    }

    static std::string relative_hint(const fs::path& path) {
        if (path.is_absolute()) return " (the run needs it) check the path";
        return text(" (relative paths mean the current directory, now ", fs::current_path().string(),
                    ") check the path");
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
        const int64_t group = job_.score.ranks_per_candidate;
        findings_.problem_if(has_score_stage(job_) && ranks_ >= 1 && ranks_ % group != 0,
                             "score.ranks_per_candidate is ", group, " but there are ", ranks_,
                             " ranks (candidates need groups of equal size) use a divisor of ", ranks_);
        if (candidates_are_trained(job_)) {
            check_training("score", job_.score, group, 1);
            const int64_t steps = training_steps(job_.score);
            findings_.problem_if(steps > 0 && job_.score.measurements > steps, "score.measurements is ",
                                 job_.score.measurements, " but a candidate trains for ", steps,
                                 " steps (at most one measurement per step) lower it");
        } else if (has_score_stage(job_)) {
            note_length("score", job_.score.sequence_length);
            findings_.note_if(job_.score.question_fraction > 0.0,
                              "score.question_fraction is not used: candidates are not trained");
        }
        check_far_context();
        check_training("distill", job_.distill, sharers(), job_.sharding.context);
        check_training("finetune", job_.finetune, sharers(), job_.sharding.context);
        if (job_.evaluate.sequences > 0) note_length("evaluate", job_.evaluate.sequence_length);
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
        findings_.problem_if(
            is_measured && job_.data.documents == DocumentBorders::separate,
            "score.far_context.weight is above 0 but data.documents is separate (windows are cut without "
            "regard to documents) use data.documents: joined, or a weight of 0");
    }

    /// Of a batch: ranks, or groups of ranks that share sequences.
    int64_t sharers() const { return ranks_ / job_.sharding.context; }

    void check_context() {
        const int64_t context = job_.sharding.context;
        if (context == 1) return;
        findings_.problem_if(ranks_ >= 1 && ranks_ % context != 0, "sharding.context is ", context, " but there are ",
                             ranks_, " ranks (so many share each sequence) start a multiple of ", context,
                             ", or lower it to a divisor of ", ranks_);
        findings_.note_if(candidates_are_trained(job_),
                          "sharding.context does not divide the sequences of candidates (stage score)");
    }

    void check_documents() {
        if (job_.data.documents == DocumentBorders::joined) return;
        findings_.problem_if(job_.sharding.context > 1, "sharding.context is ", job_.sharding.context,
                             " but data.documents is separate (pieces of a sequence know of no documents) use "
                             "sharding.context: 1, or data.documents: joined");
        findings_.note_if(gates_are_trained(job_),
                          "data.documents is separate, but gates are trained on joined documents (stage score)");
        if (!counts_) return;
        findings_.problem_if(counts_->training_documents < 2,
                             "data.documents is separate but data.training is one document (nothing tells where others "
                             "begin) tokenise it again document by document, or use data.documents: joined");
        findings_.note_if(counts_->validation_documents < 2,
                          "data.documents is separate: data.validation is one "
                          "document, so nothing is kept apart there");
    }

    void check_data() {
        check_documents();
        if (!counts_) return;
        check_corpus("align", job_.align);
        if (candidates_are_trained(job_)) check_corpus("score", job_.score);
        if (gates_are_trained(job_)) check_corpus_of_gates();
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

    void check_selection() {
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
        const std::optional<int64_t> layers = teacher_ ? std::optional(teacher_->layers) : std::nullopt;
        for (const std::string& problem : rule.problems(select.options, layers)) findings_.problem_if(true, problem);
        const int64_t enough = std::numeric_limits<int32_t>::max();  // where only the form of a budget can be checked
        const int64_t kept = parsed([&] { return kept_layers(select, layers.value_or(enough)).value_or(-1); }, -1);
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
        if (!layers) return;
        findings_.note_if(kept >= 0, "select: ", kept, " of ", *layers, " layers keep softmax");
        if (rule.scorer != nullptr) check_candidates(*rule.scorer, *layers);
    }

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
        const int64_t per_group = job_.score.ranks_per_candidate;
        if (!has_score_stage(job_) || ranks_ < 1 || ranks_ % per_group != 0) return;
        const int64_t groups = ranks_ / per_group;
        const auto candidates =
            int64_t(scorer.next({layers, job_.student.mixer, {}, {}, job_.select.options}).size());  // at a time
        findings_.note_if(groups > candidates, "score: ", groups, " groups of ranks but ", candidates, " candidates; ",
                          groups - candidates, " groups have nothing to do (raise score.ranks_per_candidate)");
    }

    void check_export() {
        std::set<std::string> distinct;
        const ModelSpec student = exported_student();
        note_windows();
        for (const std::string& format : job_.export_to.formats) {
            findings_.problem_if(!distinct.insert(format).second, "export.formats names ", format,
                                 " twice (a mistake?) remove one");
            const auto refusal = find_export_format(format).refusal(student);
            findings_.problem_if(refusal.has_value(), "export.formats: ", refusal.value_or(""), "; or take ", format,
                                 " out of export.formats");
            findings_.note_if(
                !teacher_ && job_.student.output_norm_eps == OutputNormEps::reference &&
                    !find_export_format(format).scales_for_eps(),
                "export.formats: ", format,
                " has one eps for all norms, so student.output_norm_eps: reference can be written only if the "
                "teacher's is 1e-5");
        }
    }

    /// Scores may choose a layer that no format can express.
    void note_windows() {
        if (!teacher_ || job_.export_to.formats.empty() || selection_rule(job_.select.rule).scorer == nullptr) return;
        const auto windowed =
            std::count_if(teacher_->window.begin(), teacher_->window.end(), [](int64_t window) { return window > 0; });
        findings_.note_if(
            windowed > 0, "export.formats: ", windowed, " of ", teacher_->window.size(),
            " layers of the teacher have a sliding window, which no format can express: if the scores choose one of "
            "them to keep softmax, the run stops before distill");
    }

    /// What the export will get, as far as it is known: of layouts that the scores will decide, one that can be written
    /// if any can. Of a teacher that is not there yet nothing is held against the formats.
    ModelSpec exported_student() {
        ModelConfig teacher;
        if (teacher_) {
            teacher = *teacher_;
        } else {
            teacher.hidden_size = teacher.head_dim = 64;
            teacher.query_heads = teacher.key_value_heads = 1;
            teacher.layers = 2;
            teacher.rms_norm_eps = 1e-5;
            teacher.window = {0, 0};
        }
        std::vector<int64_t> kept;
        try {
            kept = likely_layers(teacher);
        } catch (const Error&) {  // a budget that check_selection has refused
        }
        return student_spec(job_.student, teacher, keep_softmax(teacher.layers, job_.student.mixer, kept));
    }

    std::vector<int64_t> likely_layers(const ModelConfig& teacher) const {
        const SelectionRule& rule = selection_rule(job_.select.rule);
        std::vector<int64_t> layers;
        if (rule.scorer == nullptr) {
            layers = rule.choose(job_.select.options, teacher.layers, {});
            std::erase_if(layers, [&](int64_t layer) { return layer >= teacher.layers; });
            return layers;
        }
        layers.resize(size_t(teacher.layers));
        std::iota(layers.begin(), layers.end(), int64_t{0});
        std::stable_partition(layers.begin(), layers.end(),
                              [&](int64_t layer) { return teacher.window[size_t(layer)] == 0; });
        layers.resize(size_t(likely_kept_layers(job_.select, teacher.layers)));
        return layers;
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
