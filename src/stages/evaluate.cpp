// SPDX-License-Identifier: Apache-2.0
// Evaluate: perplexity, KL to the teacher, answer accuracy and recall of teacher and student on the validation tokens.
#include <iomanip>
#include <sstream>

#include "evaluation/evaluation_file.h"
#include "evaluation/kept_answers.h"
#include "job/training_plan.h"
#include "stages/stages.h"
#include "system/fault_injection.h"
#include "system/log.h"

namespace amalgam {
namespace {

std::string table(const std::vector<EvaluatedModel>& models, const HeldOutSet& set) {
    std::ostringstream out;
    out << std::fixed << std::setprecision(4);
    for (const EvaluatedModel& model : models) {
        const EvaluationSummary s = summarise(model, set);
        out << "\n  " << std::left << std::setw(8) << s.name << std::right << " perplexity " << s.perplexity
            << "  loss " << s.loss << plus_minus(s.loss_error) << "  KL " << s.kl << plus_minus(s.kl_error);
        if (s.answer_count > 0) out << "  answers " << 100.0 * s.answer_accuracy << " % of " << s.answer_count;
    }
    return out.str();
}

std::string recall_table(const std::vector<EvaluatedModel>& models) {
    std::ostringstream out;
    out << std::fixed << std::setprecision(3);
    for (const EvaluatedModel& model : models) {
        const RecallJob& asked = model.recall->asked;
        const MeanAndError all = mean_and_error(model.recall->right);
        out << "\n  " << std::left << std::setw(8) << model.name << std::right << " recall " << all.mean
            << plus_minus(all.standard_error, 3);
        for (size_t i = 0; i < asked.lengths.size(); ++i)
            out << "  at " << asked.lengths[i] << " tokens " << recall_at_length(*model.recall, i).mean;
    }
    return out.str();
}

}  // namespace

StageOutcome evaluate(Run& run) {
    const EvaluateJob& job = run.job.evaluate;
    const HeldOutSet set = run.held_out(job.sequences, job.sequence_length);
    const auto checkpoint = run.newest_student();
    const Layout& layout = checkpoint->spec().layout;
    const ShardingStrategy sharding = run.sharding("evaluate", run.world.size());
    CausalLM& teacher = run.teacher(sharding, run.world);
    const Student student = run.make_student(layout, {checkpoint.get()}, run.world, sharding);
    TeacherStates states(teacher, 0);
    const int64_t chunk = job.loss_chunk_tokens, batch = held_out_batch(set.time());
    const SequenceRanks ranks(run.world, run.context());
    std::unique_ptr<RequestFile> requests;
    if (!job.requests.empty()) run.world.together([&] { requests = std::make_unique<RequestFile>(job.requests); });
    const std::filesystem::path kept = kept_answers_folder(run.folder);
    std::unique_ptr<RecallQuestions> questions;
    if (job.recall.questions > 0) {
        const TokenFile& text = run.validation_tokens();
        run.world.together([&] {
            const auto wording = read_recall_wording(run.job.data.validation, job.recall);
            questions = std::make_unique<RecallQuestions>(job.recall, wording, text);
        });
    }
    const auto recall = [&](const CausalLM& model) -> std::optional<RecallAnswers> {
        if (!questions) return std::nullopt;
        return measure_recall(model, *questions, chunk, ranks);
    };
    std::vector<EvaluatedModel> models;
    fault_point("evaluate.measure");
    /// False if a stop was asked for before all requests were answered.
    const auto evaluated = [&](const std::string& name, const CausalLM& model, TeacherStates* reference) {
        // What may be stopped comes first: there is no use in measurements that a stop would throw away.
        std::optional<Answers> answers;
        if (requests) {
            answers = answer_requests_until([&] { return run.stop.seen(); }, model, *requests, chunk, run.world,
                                            {kept, name});
            if (!answers) return false;
        }
        models.push_back(
            {name, measure_tokens(model, reference, set, batch, chunk, ranks), std::move(answers), recall(model)});
        return true;
    };
    if (!evaluated("teacher", teacher, nullptr) || !evaluated("student", *student.model, &states))
        return StageOutcome::stopped;
    run.world.on_root([&] {
        write_evaluation(run.evaluation_file(), models, set, job.position_bins, checkpoint->spec().layout,
                         run.provenance());
        remove_kept_answers(kept);
        info(text("evaluate: ", set.sequences(), " sequences of ", set.time(), " tokens", table(models, set)));
        if (requests) info(text("evaluate: ", requests->size(), " requests answered by each model"));
        if (questions)
            info(text("evaluate: ", questions->size(), " recall questions answered by each model",
                      recall_table(models)));
    });
    return StageOutcome::finished;
}

}  // namespace amalgam
