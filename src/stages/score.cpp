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
          sharding_(run.sharding("score", run.job.score.ranks_per_candidate)),
          teacher_(run.teacher(sharding_, group)),
          training_states_(teacher_, int64_t(job_.teacher_cache_gib * double(1 << 30))),
          held_out_states_(teacher_, int64_t(job_.teacher_cache_gib * double(1 << 30))),
          aligned_(run.all_linear()) {
        const TokenFile& tokens = run.training_tokens();
        run.world.together([&] {
            batches_ = std::make_unique<Batches>(tokens, job_.sequence_length, uint64_t(run.job.seed), "score");
        });
    }

    std::vector<double> measure_all_linear() {
        const Student student =
            run_.make_student(all_linear(layers(), run_.job.student.mixer), {aligned_.get()}, group_, sharding_);
        if (!student.shards) keep_in_memory(*student.model);
        return held_out_kl(*student.model, held_out_states_, set_, held_out_micro_batch, job_.loss_chunk_tokens,
                           run_.world);
    }

    /// How many of `candidates` this group trains in step.
    int64_t in_step(int64_t candidates) const {
        if (job_.candidates_in_step > 0) return std::min(job_.candidates_in_step, std::max<int64_t>(1, candidates));
        const double bytes = run_.compute.type == at::kBFloat16 ? 2 : 4;
        const double of_states = double(training_steps(job_) * job_.batch_sequences * job_.sequence_length) /
                                 double(group_.size()) * double(teacher_.config().hidden_size) * bytes;
        if (of_states <= job_.teacher_cache_gib * double(1 << 30)) return 1;  // the teacher runs once for all anyway
        return candidates_that_fit(run_.estimate("score"), sharding_, run_.memory(), candidates);
    }

    /// Trains them in turn, step by step. False if a stop was asked for before all candidates were done.
    bool score_candidates(const std::vector<int64_t>& candidates);

    int64_t layers() const { return run_.teacher_config().layers; }

  private:
    class Candidate;

    /// All candidates start from these weights; reading and checking the file for each took half of its time on a GPU.
    void keep_in_memory(CausalLM& student) {
        const int64_t bytes = student.parameters().elements() * int64_t(sizeof(float));
        const int64_t share = available_memory() / run_.node.size();
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
    ShardingStrategy sharding_;
    const CausalLM& teacher_;
    TeacherStates training_states_, held_out_states_;
    std::unique_ptr<Checkpoint> aligned_;
    std::unique_ptr<ModelSource> in_memory_;  // the weights of aligned_
    std::unique_ptr<Batches> batches_;
};

/// One candidate in training.
class Scoring::Candidate {
  public:
    Candidate(Scoring& scoring, int64_t layer) : scoring_(scoring), layer_(layer) {
        const Stopwatch watch;
        Run& run = scoring.run_;
        fault_point("score.candidate", layer);
        student_ = run.make_student(keep_softmax(scoring.layers(), run.job.student.mixer, {layer}),
                                    {&scoring.aligned(), &run.teacher_source()}, scoring.group_, scoring.sharding_);
        objective_ = std::make_unique<Distillation>(*student_.model, scoring.training_states_, scoring.job_,
                                                    run.job.sharding.activations);
        result_.candidate = result_.layer = layer;
        result_.rank = run.world.rank() - scoring.group_.rank();
        trainer_ = std::make_unique<Trainer>(*student_.model, *objective_, scoring.job_, *scoring.batches_,
                                             scoring.group_, setup());
        seconds_ = watch.seconds();
    }

    bool is_done() const { return trainer_->is_done(); }

    void step() {
        const Stopwatch watch;
        trainer_->step();
        seconds_ += watch.seconds();
    }

    void finish() {
        const TrainerOutcome outcome = trainer_->finish();
        const Communicator& group = scoring_.group_;
        result_.train_loss = outcome.step_losses;
        result_.logged = outcome.logged;
        result_.seconds = seconds_;
        group.on_root(
            [&] { write_candidate(scoring_.run_.candidate_file(layer_), result_, scoring_.run_.provenance()); });
        if (!group.is_root()) return;
        if (outcome.skipped_updates > 0)
            log_rank(LogLevel::warning,
                     text("score: layer ", layer_, ": ", outcome.skipped_updates, " updates skipped"));
        const auto kl = mean_and_error(result_.kl.back());
        log_rank(LogLevel::info, text("score: layer ", layer_, ": held-out KL ", kl.mean, " +- ", kl.standard_error,
                                      " nat/token (", format_duration(seconds_), ")"));
    }

  private:
    TrainerSetup setup() {
        const ScoreJob& job = scoring_.job_;
        TrainerSetup setup = scoring_.run_.trainer_setup("score");
        setup.candidate = layer_;
        setup.announce = result_.rank == 0;  // one group speaks for all: their steps are alike
        setup.stop = nullptr;                // asked once for all candidates that are trained in step
        setup.checkpoints.reset();
        setup.shards = student_.shards.get();
        setup.in_step = student_.shards || scoring_.teacher_.weights_on_demand();
        // Most candidates find the teacher's states kept by those before or beside them.
        setup.flops_per_token = known_states_flops(student_.model->spec(), job.sequence_length);
        setup.peak_flops = scoring_.run_.compute.peak_flops * scoring_.group_.size();
        setup.on_step = [this, &job, steps = measured_steps(job)](int64_t done) {
            if (std::find(steps.begin(), steps.end(), done) == steps.end()) return;
            result_.measured_tokens.push_back(done * job.batch_sequences * job.sequence_length);
            result_.kl.push_back(held_out_kl(*student_.model, scoring_.held_out_states_, scoring_.set_,
                                             held_out_micro_batch, job.loss_chunk_tokens, scoring_.group_));
        };
        return setup;
    }

    Scoring& scoring_;
    int64_t layer_;
    Student student_;
    CandidateResult result_;
    std::unique_ptr<Distillation> objective_;
    std::unique_ptr<Trainer> trainer_;
    double seconds_ = 0.0;
};

bool Scoring::score_candidates(const std::vector<int64_t>& candidates) {
    training_states_.forget();
    if (candidates.size() > 1) training_states_.keep_until_forgotten();
    std::vector<std::unique_ptr<Candidate>> running;
    for (const int64_t layer : candidates) running.push_back(std::make_unique<Candidate>(*this, layer));
    while (!running.front()->is_done()) {  // all have as many steps
        const Stopwatch watch;
        for (const auto& candidate : running) candidate->step();
        training_states_.forget();
        const bool stop = run_.stop.ask(group_, watch.seconds()).stop;
        if (stop && !running.front()->is_done()) return false;
    }
    for (const auto& candidate : running) candidate->finish();
    return !run_.stop.stopping();
}

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
    std::vector<int64_t> own;
    for (size_t i = 0; i < missing.size(); ++i)
        if (int64_t(i) % groups == mine) own.push_back(missing[i]);
    const auto in_step = size_t(scoring.in_step(int64_t(own.size())));
    if (in_step > 1) info(text("score: ", in_step, " candidates are trained in step"));
    for (size_t first = 0; first < own.size() && !stopped && !failure; first += in_step) {
        try {
            const auto begin = own.begin() + std::ptrdiff_t(first);
            stopped = !scoring.score_candidates({begin, begin + std::ptrdiff_t(std::min(in_step, own.size() - first))});
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
