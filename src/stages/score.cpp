// SPDX-License-Identifier: Apache-2.0
// Score: every candidate restores the teacher's softmax attention in one layer of the aligned all-linear student, is
// distilled briefly on the same batches as all others, and its KL to the teacher is measured on held-out sequences.
// Groups of ranks take candidates in turn; a finished candidate has its file and is not computed again.
#include <cmath>

#include "evaluation/statistics.h"
#include "job/job_values.h"
#include "stages/training_stage.h"
#include "system/available_memory.h"
#include "system/clock.h"
#include "system/error.h"
#include "system/fault_injection.h"
#include "system/log.h"

namespace amalgam {
namespace {

/// Steps after which the held-out KL is measured: 0, then `measurements` evenly spaced ones up to the last.
std::vector<int64_t> measured_steps(const ScoreJob& job) {
    std::vector<int64_t> steps = {0};
    const int64_t last = training_steps(job);
    for (int64_t m = 1; m <= job.measurements; ++m)
        if (const int64_t step = last * m / job.measurements; step > steps.back()) steps.push_back(step);
    return steps;
}

/// What needs all ranks of the run happens in the constructor: a group without a candidate never comes to the rest.
class Scoring {
  public:
    Scoring(Run& run, const Communicator& group)
        : run_(run),
          group_(group),
          job_(run.job.score),
          set_(run.held_out(job_.validation_sequences, job_.sequence_length)),
          training_states_(run.teacher(), int64_t(job_.teacher_cache_gib * double(1 << 30))),
          held_out_states_(run.teacher(), int64_t(job_.teacher_cache_gib * double(1 << 30))),
          aligned_(run.all_linear()) {
        const TokenFile& tokens = run.training_tokens();
        run.world.together([&] {
            batches_ = std::make_unique<Batches>(tokens, job_.sequence_length, uint64_t(run.job.seed), "score");
        });
    }

    std::vector<double> measure_all_linear() {
        const auto student =
            run_.make_student(all_linear(layers(), run_.job.student.mixer), {aligned_.get()}, run_.world);
        keep_in_memory(*student);
        return held_out_kl(*student, held_out_states_, set_, held_out_micro_batch, job_.loss_chunk_tokens, run_.world);
    }

    /// False if a stop was asked for before the candidate was done.
    bool score_candidate(int64_t layer) {
        const Stopwatch watch;
        fault_point("score.candidate", layer);
        const auto student = run_.make_student(keep_softmax(layers(), run_.job.student.mixer, {layer}),
                                               {&aligned(), &run_.teacher_source()}, group_);
        CandidateResult result;
        result.candidate = result.layer = layer;
        result.rank = run_.world.rank() - group_.rank();
        Distillation objective(*student, training_states_, job_);
        const auto steps = measured_steps(job_);
        TrainerSetup setup = run_.trainer_setup("score");
        setup.candidate = layer;
        setup.announce = run_.world.rank() - group_.rank() == 0;  // one group speaks for all: their steps are alike
        setup.checkpoints.reset();
        setup.flops_per_token = distillation_flops(student->config(), student->spec().layout, job_.sequence_length);
        setup.peak_flops = run_.compute.peak_flops * group_.size();
        setup.on_step = [&](int64_t done) {
            if (std::find(steps.begin(), steps.end(), done) == steps.end()) return;
            result.measured_tokens.push_back(done * job_.batch_sequences * job_.sequence_length);
            result.kl.push_back(
                held_out_kl(*student, held_out_states_, set_, held_out_micro_batch, job_.loss_chunk_tokens, group_));
        };
        const TrainerOutcome outcome = train(*student, objective, job_, *batches_, group_, setup);
        if (!outcome.finished) return false;
        result.train_loss = outcome.step_losses;
        result.logged = outcome.logged;
        result.seconds = watch.seconds();
        group_.on_root([&] { write_candidate(run_.candidate_file(layer), result, run_.provenance()); });
        const auto kl = mean_and_error(result.kl.back());
        if (outcome.skipped_updates > 0 && group_.is_root())
            log_rank(LogLevel::warning,
                     text("score: layer ", layer, ": ", outcome.skipped_updates, " updates skipped"));
        if (group_.is_root())
            log_rank(LogLevel::info, text("score: layer ", layer, ": held-out KL ", kl.mean, " +- ", kl.standard_error,
                                          " nat/token (", format_duration(result.seconds), ")"));
        return true;
    }

    int64_t layers() const { return run_.teacher().config().layers; }

  private:
    /// All candidates start from these weights; reading and checking the file for each took half of its time on a GPU.
    void keep_in_memory(CausalLM& student) {
        const int64_t bytes = student.parameters().elements() * int64_t(sizeof(float));
        const int64_t share = available_memory() / run_.world.split_by_node().size();
        if (run_.world.any(bytes > share / 4)) {
            info("score: too little host memory to keep the aligned student; it is read again for every candidate");
            return;
        }
        in_memory_ = std::make_unique<ModelSource>(student, aligned_->where());
    }

    const TensorSource& aligned() const {
        if (in_memory_) return *in_memory_;
        return *aligned_;
    }

    Run& run_;
    const Communicator& group_;
    const ScoreJob& job_;
    HeldOutSet set_;
    TeacherStates training_states_, held_out_states_;
    std::unique_ptr<Checkpoint> aligned_;
    std::unique_ptr<ModelSource> in_memory_;  // the weights of aligned_
    std::unique_ptr<Batches> batches_;
};

bool is_scored(const std::filesystem::path& file, int64_t candidate) {
    if (!std::filesystem::exists(file)) return false;
    try {
        if (read_candidate(file).candidate == candidate) return true;
        warn(text(file.string(), ": is of another candidate; it is scored again"));
    } catch (const std::exception& error) {  // damage has many faces
        warn(text(error.what(), "; the candidate is scored again"));
    }
    return false;
}

/// Candidates without a file that can be read: a damaged one is made again, since nothing but its candidate depends on
/// it. The root looks, so that all ranks deal the same ones out.
std::vector<int64_t> missing_candidates(const Run& run, int64_t layers) {
    std::string there(size_t(layers), 0);
    run.world.on_root([&] {
        for (int64_t c = 0; c < layers; ++c) there[size_t(c)] = is_scored(run.candidate_file(c), c);
    });
    there = run.world.broadcast(there);
    std::vector<int64_t> missing;
    for (int64_t c = 0; c < layers; ++c)
        if (!there[size_t(c)]) missing.push_back(c);
    return missing;
}

}  // namespace

StageOutcome score(Run& run) {
    const int64_t per_group = run.job.score.ranks_per_candidate, groups = run.world.size() / per_group;
    require(groups > 0, "score.ranks_per_candidate is ", per_group, " but there are ", run.world.size(), " ranks");
    // Ranks that do not fill a group join the last one.
    const int64_t mine = std::min(int64_t(run.world.rank()) / per_group, groups - 1);
    const Communicator group = run.world.split(int(mine));
    Scoring scoring(run, group);
    const auto missing = missing_candidates(run, scoring.layers());
    info(text("score: ", missing.size(), " of ", scoring.layers(), " candidates to do, ", groups, " groups of ",
              per_group, " ranks"));

    ScoreTable table;
    table.layers = scoring.layers();
    table.all_linear_kl = scoring.measure_all_linear();

    // A rank that fails must not leave the others waiting at the end of the stage: failures are agreed on there.
    bool stopped = false;
    std::exception_ptr failure;
    for (size_t i = 0; i < missing.size() && !stopped && !failure; ++i) {
        if (int64_t(i) % groups != mine) continue;
        try {
            stopped = !scoring.score_candidate(missing[i]);
        } catch (const SharedError&) {
            failure = std::current_exception();
        } catch (...) {
            if (group.size() > 1) throw;  // the others of the group wait for this rank: the job has to be ended
            failure = std::current_exception();
        }
    }
    run.world.together([&] {
        if (failure) std::rethrow_exception(failure);
    });
    if (run.world.any(stopped)) return StageOutcome::stopped;

    fault_point("score.gather");
    run.world.on_root([&] {
        for (int64_t c = 0; c < table.layers; ++c) table.candidates.push_back(read_candidate(run.candidate_file(c)));
        for (const CandidateResult& candidate : table.candidates)
            if (candidate.rank != 0)  // the first group writes its rows as it goes
                for (const StepMetrics& row : candidate.logged) run.metrics().append_foreign(row);
        write_scores(run.scores_file(), table, run.provenance());
    });
    return StageOutcome::finished;
}

}  // namespace amalgam
