// SPDX-License-Identifier: Apache-2.0
#include "estimate/job_estimate.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "estimate/model_sizes.h"
#include "job/job_values.h"
#include "job/learning_rate_trials.h"
#include "job/training_plan.h"
#include "mixers/sequence_pieces.h"
#include "rules/kept_curve.h"
#include "system/error.h"

namespace amalgam {

namespace {

/// Fitted to runs of the built-in teacher (2 M parameters, half of the peak in float32); models of 135 M parameters
/// come out at 0.8, and take up to 1.7 times as long as that (analysis/results/speed-cpu).
constexpr double flops_of_a_number = 200.0;

/// The largest micro-batch of all phases, and how many the busiest rank has at most in a step.
struct Share {
    int64_t sequences = 0, tokens = 0, micro_batches = 0;
};

Share share_of_rank(const Job& job, const TrainingJob& stage, int64_t sharers) {
    const TrainingPlan plan(stage);
    Share share;
    for (const PlannedPhase& phase : plan.phases()) {
        const int64_t sequences =
            std::min(micro_batch_sequences(phase, sharers, job.deterministic), phase.batch_sequences);
        const int64_t all = micro_batches(phase, sharers, job.deterministic);
        share.micro_batches = std::max(share.micro_batches, (all + sharers - 1) / sharers);
        if (sequences * phase.sequence_length <= share.tokens) continue;
        share.sequences = sequences;
        share.tokens = sequences * phase.sequence_length;
    }
    return share;
}

/// What the race for learning rates may cost, in a corpus that is large enough.
double race_tokens(const std::string& name, const TrainingJob& stage, int64_t candidates = 1) {
    const auto plan = trial_plan(name, stage, candidates, std::numeric_limits<int64_t>::max());
    return plan ? plan->most_tokens() : 0.0;
}

double trained_tokens(const TrainingJob& stage) {
    return double(TrainingPlan(stage).tokens());
}

class Estimator {
  public:
    Estimator(const Job& job, const ModelConfig& teacher, const Machine& machine, const RequestCounts& requests)
        : job_(job),
          machine_(machine),
          requests_(requests),
          sizes_(teacher, job.student.mixer, job.student.options),
          bytes_(double(compute_bytes(job, machine))) {
        kept_ = double(likely_kept_layers(job.select, teacher.layers));
    }

    Estimate all() {
        Estimate result;
        result.kept_layers = int64_t(kept_);
        result.teacher_parameters = teacher();
        result.student_parameters = sizes_.parameters(kept_);
        if (job_.align.tokens > 0) result.stages.push_back(align());
        if (has_score_stage(job_)) result.stages.push_back(scorer().distils ? score() : direct_score());
        result.stages.push_back(distill());  // without tokens it still makes the hybrid
        if (job_.finetune.tokens > 0) result.stages.push_back(finetune());
        if (job_.evaluate.sequences > 0) result.stages.push_back(evaluate());
        double largest = 0;
        for (const StageEstimate& stage : result.stages) {
            result.flops += stage.flops;
            result.seconds += stage.seconds;
            const int64_t every = job_.checkpoint.keep_every_steps;
            const int64_t kept = job_.checkpoint.keep_last + (every > 0 ? stage.steps / every : 0);
            result.disk_bytes += stage.checkpoint_bytes * double(kept);
            largest = std::max(largest, stage.checkpoint_bytes);
        }
        const double export_bytes = job_.export_to.precision == ExportPrecision::bfloat16 ? 2 : 4;
        result.disk_bytes += largest + 4 * sizes_.parameters(0) +
                             export_bytes * result.student_parameters * double(job_.export_to.formats.size());
        return result;
    }

  private:
    /// Of the job's selection rule, if it has one.
    const Scorer& scorer() const { return *selection_rule(job_.select.rule).scorer; }
    ScoresSoFar before_scores() const {
        return {.layers = int64_t(sizes_.layers()), .mixer = job_.student.mixer, .options = job_.select.options};
    }
    double teacher() const { return sizes_.parameters(sizes_.layers()); }
    double teacher_flops(double length) const { return sizes_.model_flops(sizes_.layers(), length); }
    /// Of a training step, per token: forward and twice that for the backward pass; blocks once more if recomputed.
    double student_flops(double kept, double length) const {
        const bool again = job_.sharding.activations == Activations::recompute;
        return 3 * sizes_.model_flops(kept, length) + (again ? sizes_.block_flops(kept, length) : 0);
    }
    double seconds(double flops, double ranks) const {
        return flops / (ranks * machine_.peak_flops * machine_.utilisation);
    }

    /// What all training stages have in common; `sharers` ranks share a batch.
    StageEstimate training_stage(const std::string& name, const TrainingJob& job, int64_t sharers) const {
        return {.name = name,
                .steps = training_steps(job),
                .micro_batch_sequences = share_of_rank(job_, job, sharers).sequences,
                .tokens = trained_tokens(job) + (name == "score" ? 0 : race_tokens(name, job))};
    }

    StageSizes stage_sizes(const TrainingJob& job, int64_t sharers, double kept, double trained) const {
        StageSizes sizes;
        sizes.trained = trained;
        sizes.student = sizes_.parameters(kept);
        sizes.block = std::max(sizes_.largest_block(kept), sizes_.softmax_block());
        sizes.outside = sizes_.outside();
        sizes.trained_block = trained > 0 ? sizes.block : 0;
        sizes.trained_outside = trained > 0 ? sizes.outside : 0;
        sizes.compute_bytes = bytes_;
        sizes.reduce_bytes = job_.sharding.reduce == ReductionPrecision::bfloat16 ? 2 : 4;
        sizes.deterministic = job_.deterministic;
        sizes.micro_batches = double(share_of_rank(job_, job, sharers).micro_batches);
        return sizes;
    }

    /// Ranks, or groups of ranks that share sequences (sharding.context): of a run, and of those that measure a
    /// candidate.
    int64_t sharers() const { return std::max<int64_t>(machine_.ranks / context(), 1); }
    int64_t sharers_of_candidate() const { return std::max<int64_t>(group() / context(), 1); }
    int64_t context() const { return job_.sharding.context; }
    int64_t group() const { return ranks_per_candidate(job_); }
    /// Those of the ranks that have something to do where work is cut into so many parts.
    double busy_ranks(double parts) const { return std::min(double(machine_.ranks), parts * double(context())); }

    /// Of a rank, which may have a piece of each sequence only.
    double micro_batch_tokens(const TrainingJob& job, int64_t sharers) const {
        return double(share_of_rank(job_, job, sharers).tokens) / double(context());
    }

    /// What ranks that share sequences have of each other's, on the rank that has most of it. Keys and values before
    /// its piece: of `kept` softmax layers until their backward pass; and of the layer at work, the teacher's too, as
    /// they came and as they are read, or their gradients twice; documents that are kept apart may be as long as the
    /// sequence. Where causal attention is shared evenly (attention_of_piece.h): outputs of these layers until their
    /// backward pass, if their blocks are computed again; and of the layer at work half of the queries of its own piece
    /// and of later ones (in the backward pass with outputs and their gradients), and what earlier ranks found for its
    /// own half.
    double of_other_pieces(const TrainingJob& job, int64_t sharers, double kept, bool with_teacher) const {
        if (kept == 0 && !with_teacher) return 0;
        const Share share = share_of_rank(job_, job, sharers);
        return share.sequences == 0 ? 0 : of_other_pieces(share.sequences, share.tokens / share.sequences, kept);
    }
    double of_other_pieces(int64_t sequences, int64_t length, double kept) const {
        if (context() == 1) return 0;
        const bool evenly = (on_cpu() || bytes_ == 2) && sizes_.has_unwindowed_softmax(length) &&
                            job_.data.documents == DocumentBorders::joined,
                   again = job_.sharding.activations == Activations::recompute;
        double most = 0;
        for (int64_t rank = 0; rank < context(); ++rank) {
            const SequencePiece piece = sequence_piece(length, context(), rank);
            double bytes = (kept + 2) * sizes_.keys_before(double(piece.first), bytes_);
            if (evenly) {
                const double asking = double(length - (rank > 0 ? piece.first : piece.count));
                bytes += sizes_.queries((again ? kept * double(piece.count) : 0) + (kept > 0 ? 3 : 1) * asking / 2 +
                                            double(piece.first) / 2,
                                        bytes_);
            }
            most = std::max(most, bytes);
        }
        return double(sequences) * most;
    }

    /// What a rank has of forward passes of teacher and student over so many sequences: the tokens of its piece, and
    /// the bytes that the blocks need, one at a time.
    struct Pass {
        double tokens = 0, bytes = 0;
    };
    Pass forward_pass(int64_t sequences, int64_t length) const {
        const double tokens = double(sequences * length) / double(context());
        const double of_block =
            std::max(sizes_.softmax_block_activations(bytes_), sizes_.linear_block_activations(bytes_));
        return {tokens, tokens * of_block + of_other_pieces(sequences, length, 0)};
    }
    Pass held_out_pass(int64_t sequences, int64_t length) const {
        return forward_pass(std::min(sequences, held_out_batch(length)), length);
    }
    double recall_pass(const RecallJob& job) const {
        double largest = 0;
        for (const int64_t length : job.lengths) {
            const int64_t asked = std::min(job.questions_of_a_length(), recall_batch(length));
            largest = std::max(largest, forward_pass(asked, length).bytes);
        }
        return largest;
    }

    /// Logits of `models` for a chunk of the tokens (the gradient takes the student's place), and what the gradient of
    /// the head needs on its way into the sum.
    double logit_bytes(int64_t asked_chunk, double tokens, int models) const {
        return chunk_bytes(asked_chunk, tokens, models) +
               (on_cpu() || bytes_ == 4 ? bytes_ * sizes_.vocabulary() * sizes_.hidden() : 0);
    }

    double chunk_bytes(int64_t asked_chunk, double tokens, int models) const {
        const double of_token = models * bytes_ * sizes_.vocabulary();
        const int64_t chunk = asked_chunk > 0 ? asked_chunk : automatic_loss_chunk(on_cpu(), int64_t(of_token));
        return of_token * std::min(double(chunk), tokens);
    }

    bool on_cpu() const { return machine_.cpu; }

    /// Everything of the student is trained on a loss of its logits.
    StageSizes whole_student(const DistillJob& job, int64_t sharers, double kept, bool with_teacher) const {
        StageSizes sizes = stage_sizes(job, sharers, kept, sizes_.parameters(kept));
        const double tokens = micro_batch_tokens(job, sharers);
        sizes.teacher = with_teacher ? teacher() : 0;
        sizes.activation_bytes = tokens * (block_activations(kept) + 3 * bytes_ * sizes_.hidden()) +
                                 of_other_pieces(job, sharers, kept, with_teacher);
        sizes.logit_bytes = logit_bytes(job.loss_chunk_tokens, tokens, with_teacher ? 2 : 1);
        return sizes;
    }

    /// Per token: of all blocks, or the inputs of all and what one keeps while it is computed again.
    double block_activations(double kept) const {
        if (job_.sharding.activations == Activations::keep) return sizes_.activations(kept, bytes_);
        return sizes_.layers() * bytes_ * sizes_.hidden() + sizes_.largest_block_activations(kept, bytes_);
    }

    void shard(StageEstimate& stage, const StageSizes& sizes, int64_t sharers) const {
        stage.shardings = estimate_all_shardings(sizes, sharers, machine_.ranks_on_node());
        stage.automatic = size_t(&choose_sharding(stage.shardings, machine_.memory_per_rank) - stage.shardings.data());
        stage.chosen = stage.automatic;
        for (size_t i = 0; i < stage.shardings.size(); ++i)
            if (stage.shardings[i].strategy == chosen_strategy(job_.sharding.strategy)) stage.chosen = i;
    }

    void save(StageEstimate& stage, double bytes) const {
        stage.checkpoint_bytes = bytes;
        stage.checkpoint_seconds = bytes / (double(machine_.nodes()) * machine_.node_bandwidth);
    }

    StageEstimate align() const {
        const AlignJob& job = job_.align;
        StageEstimate stage = training_stage("align", job, sharers());
        StageSizes sizes = stage_sizes(job, sharers(), 0, sizes_.layers() * sizes_.linear_mixer());
        sizes.teacher = teacher();
        sizes.trained_block = sizes_.linear_mixer();
        sizes.trained_outside = 0;
        sizes.activation_bytes = micro_batch_tokens(job, sharers()) *
                                     (sizes_.linear_mixer_activations(bytes_) + sizes_.linear_mixer_gradients(bytes_) +
                                      (2 * bytes_ + 12) * sizes_.hidden()) +
                                 of_other_pieces(job, sharers(), 0, true);
        shard(stage, sizes, machine_.ranks);
        stage.flops = stage.tokens * TrainingPlan(job).mean_cost([&](int64_t length) {
            return sizes_.block_flops(sizes_.layers(), double(length)) +
                   3 * sizes_.layers() * sizes_.linear_mixer_flops(double(length));
        });
        stage.seconds = seconds(stage.flops, double(machine_.ranks));
        save(stage, 4 * sizes.student + 8 * sizes.trained);
        return stage;
    }

    StageEstimate score() const {
        const ScoreJob& score = job_.score;
        const double candidates = double(most_candidates(selection_rule(job_.select.rule), before_scores())),
                     length = double(score.sequence_length);  // of held-out sequences
        const auto [kept, most_memory] = kept_by_candidates();
        StageEstimate stage = training_stage("score", score, sharers_of_candidate());
        stage.tokens *= candidates;
        StageSizes sizes = whole_student(score, sharers_of_candidate(), most_memory, true);
        const Pass pass = held_out_pass(score.validation_sequences, score.sequence_length);
        sizes.activation_bytes = std::max(sizes.activation_bytes, pass.bytes) + kept_teacher_states();
        sizes.logit_bytes = std::max(sizes.logit_bytes, chunk_bytes(score.loss_chunk_tokens, pass.tokens, 2));
        shard(stage, sizes, group());
        const double held_out = double(score.validation_sequences) * length;
        // Of the teacher: its blocks where its states are not kept, its head always. Of a token in training: the mean
        // over phases.
        const TrainingPlan plan(score);
        const auto in_training = [&](auto flops) {
            return plan.mean_cost([&](int64_t of_sequence) { return flops(double(of_sequence)); });
        };
        const double teacher_trains = in_training([&](double l) { return teacher_flops(l); }),
                     student_trains = in_training([&, kept = kept](double l) { return student_flops(kept, l); }),
                     linear_trains = in_training([&](double l) { return student_flops(0, l); });
        const double teacher_blocks = teacher_flops(length) - sizes_.head_flops(),
                     teacher_blocks_train = teacher_trains - sizes_.head_flops();
        const double trained_once = kept_part(trained_tokens(score)), held_out_once = kept_part(held_out);
        const double measured = double(score.measurements + 1) * held_out;  // before training too
        const double of_candidate =
            trained_tokens(score) * (student_trains + sizes_.head_flops() + (1 - trained_once) * teacher_blocks_train) +
            measured * (sizes_.model_flops(kept, length) + sizes_.head_flops() + (1 - held_out_once) * teacher_blocks);
        const double of_group =
            trained_once * trained_tokens(score) * teacher_blocks_train + held_out_once * held_out * teacher_blocks;
        const int64_t groups = std::max<int64_t>(1, machine_.ranks / group());
        const int64_t rounds = (int64_t(candidates) + groups - 1) / groups;
        const double raced = race_tokens("score", score, int64_t(candidates));
        const double of_race = raced * (teacher_trains + linear_trains);
        stage.tokens += raced;
        stage.flops = candidates * of_candidate + std::min(double(groups), candidates) * of_group + of_race;
        stage.seconds = seconds(double(rounds) * of_candidate + of_group + of_race, double(group()));
        return stage;
    }

    /// Softmax layers of the score stage's candidates: their mean, and those of the candidate with most activations.
    std::pair<double, double> kept_by_candidates() const {
        double sum = 0, most_memory = 0, candidates = 0;
        for (const Candidate& one : scorer().next(before_scores())) {
            const auto kept = double(softmax_layers(one.layout).size());
            sum += kept;
            candidates += 1.0;
            if (candidates == 1.0 || block_activations(kept) > block_activations(most_memory)) most_memory = kept;
        }
        return {sum / candidates, most_memory};
    }

    /// Forward passes of candidates that are put together from teacher and aligned student. Of each, on average half of
    /// the blocks are those of a candidate before.
    StageEstimate direct_score() const {
        const ScoreJob& score = job_.score;
        const double ranks = double(group()), length = double(score.sequence_length);
        const Pass pass = held_out_pass(score.validation_sequences, score.sequence_length);
        StageEstimate stage{.name = "score"};
        StageSizes sizes = stage_sizes({}, sharers_of_candidate(), 0, 0);
        sizes.teacher = teacher();
        sizes.micro_batches = 0;
        sizes.logit_bytes = chunk_bytes(score.loss_chunk_tokens, pass.tokens, 2);
        const double text = double(score.validation_sequences) * length;
        double tokens = text,
               of_one = text * (sizes_.block_flops(sizes_.layers(), length) / 2 + 2 * sizes_.head_flops());
        for (const int64_t length_of_question : score.recall.lengths) {
            const auto asked = double(score.recall.questions_of_a_length() * length_of_question);
            tokens += asked;
            of_one += asked * sizes_.block_flops(sizes_.layers(), double(length_of_question)) / 2;
        }
        const double most = score.teacher_cache_gib * double(1 << 30);
        const double of_teacher = tokens / ranks * sizes_.hidden() * bytes_;
        sizes.activation_bytes = std::min(most, of_teacher) + std::min(most, of_teacher * sizes_.layers()) +
                                 std::max(pass.bytes, recall_pass(score.recall));
        if (scorer().trains_gates) add_gates(stage, sizes);
        shard(stage, sizes, group());
        const double candidates = double(most_candidates(selection_rule(job_.select.rule), before_scores()));
        const double groups = std::max<double>(1, double(machine_.ranks) / ranks);
        // Every group runs the whole teacher and the whole aligned student once.
        const double before = 4 * of_one + (score.far_context.weight > 0 ? near_context_flops(text) : 0.0);
        const double at_once = sizes_.layers() / std::ceil(sizes_.layers() / groups);  // of the first round
        stage.flops += candidates * of_one + std::min(groups, sizes_.layers()) * before;
        stage.seconds += seconds(candidates * of_one / at_once + before, ranks);
        return stage;
    }

    /// Of the teacher, which predicts so many tokens of text once more with near context alone
    /// (selection/far_context.h).
    double near_context_flops(double tokens) const {
        const auto of_windows = double(2 * job_.score.far_context.window);
        return tokens * (2 * sizes_.block_flops(sizes_.layers(), of_windows) + 2 * sizes_.head_flops());
    }

    /// Forward passes of the teacher and, with both mixers in every block, of the gated model; then a backward pass
    /// that makes gradients of inputs only. Of text only where it counts.
    void add_gates(StageEstimate& stage, StageSizes& sizes) const {
        const ScoreJob& score = job_.score;
        const auto layers = sizes_.layers(), batch = double(score.batch_sequences);
        double flops = 0, most_bytes = 0;
        const double of_token =
            job_.sharding.activations == Activations::keep
                ? sizes_.activations(layers, bytes_) + layers * sizes_.linear_mixer_activations(bytes_)
                : layers * bytes_ * sizes_.hidden();
        const auto add = [&](double sequences, double length, double predicted) {
            const double forward = sizes_.block_flops(layers, length) + layers * sizes_.linear_mixer_flops(length);
            flops += sequences * length * (sizes_.block_flops(layers, length) + 2 * forward);
            flops += sequences * predicted * 3 * sizes_.head_flops();
            const int64_t micro_batch = gate_micro_batch(score);
            most_bytes = std::max(most_bytes, double(micro_batch) * length / double(context()) * of_token +
                                                  of_other_pieces(micro_batch, int64_t(length), layers));
        };
        if (gates_see_text(score)) {
            const auto length = double(score.sequence_length);
            add(batch, length, length);
            if (score.far_context.weight > 0)
                flops += batch * length * sizes_.block_flops(layers, length) + near_context_flops(batch * length);
        }
        if (score.recall.questions > 0)
            for (const int64_t asked : score.recall.lengths)
                add(batch / double(score.recall.lengths.size()), double(asked), 0);
        sizes.activation_bytes = std::max(sizes.activation_bytes, most_bytes);
        stage.flops = double(score.gates.steps) * flops;
        stage.seconds = seconds(stage.flops, busy_ranks(batch));
    }

    /// Of the teacher's states of so many tokens of the score stage: the part that a group of ranks keeps.
    double kept_part(double tokens) const {
        const double bytes = tokens / double(group()) * sizes_.hidden() * bytes_;
        return bytes > 0 ? std::min(1.0, job_.score.teacher_cache_gib * double(1 << 30) / bytes) : 1.0;
    }

    /// Candidates train on the same sequences, so the teacher's states are kept as far as the job allows: of this
    /// rank's share of the training sequences, and as much again of the held-out ones.
    double kept_teacher_states() const {
        const ScoreJob& score = job_.score;
        const double most = score.teacher_cache_gib * double(1 << 30), ranks = double(group());
        const double per_token = sizes_.hidden() * bytes_;
        const double held_out = double(score.validation_sequences) * double(score.sequence_length);
        return std::min(most, trained_tokens(score) / ranks * per_token) + std::min(most, held_out / ranks * per_token);
    }

    /// All parameters of the selected hybrid are trained; `teacher_forward` flop per token come on top.
    StageEstimate train_hybrid(const std::string& name, const DistillJob& job, bool with_teacher) const {
        StageEstimate stage = training_stage(name, job, sharers());
        const StageSizes sizes = whole_student(job, sharers(), kept_, with_teacher);
        shard(stage, sizes, machine_.ranks);
        stage.flops = stage.tokens * TrainingPlan(job).mean_cost([&](int64_t length) {
            return (with_teacher ? teacher_flops(double(length)) : 0) + student_flops(kept_, double(length));
        });
        stage.seconds = seconds(stage.flops, double(machine_.ranks));
        save(stage, 12 * sizes.trained);
        return stage;
    }

    StageEstimate distill() const { return train_hybrid("distill", job_.distill, true); }
    StageEstimate finetune() const { return train_hybrid("finetune", job_.finetune, false); }

    /// A trainable student (with masters) and the teacher, forward only.
    StageEstimate evaluate() const {
        const double length = double(job_.evaluate.sequence_length);
        StageEstimate stage{.name = "evaluate"};
        const Pass pass = held_out_pass(job_.evaluate.sequences, job_.evaluate.sequence_length);
        StageSizes sizes = stage_sizes({}, sharers(), kept_, 0);
        sizes.teacher = teacher();
        sizes.micro_batches = 0;
        sizes.activation_bytes = pass.bytes;
        sizes.logit_bytes = chunk_bytes(job_.evaluate.loss_chunk_tokens, pass.tokens, 2);
        const double tokens = double(job_.evaluate.sequences) * length;
        stage.flops = tokens * (teacher_flops(length) + sizes_.model_flops(kept_, length));
        stage.seconds = seconds(stage.flops, busy_ranks(double(job_.evaluate.sequences)));
        if (job_.evaluate.recall.questions > 0) recall(stage, sizes);
        if (requests_.size() > 0) answer_requests(stage, sizes);
        shard(stage, sizes, machine_.ranks);
        return stage;
    }

    /// One forward pass of both models over every question; the head sees only the answers.
    void recall(StageEstimate& stage, StageSizes& sizes) const {
        const RecallJob& job = job_.evaluate.recall;
        double flops = 0, batches = 0;
        for (const int64_t length : job.lengths) {
            const double tokens = double(job.questions_of_a_length()) * double(length);
            const auto batch = double(recall_batch(length) * length);
            flops += tokens *
                     (sizes_.block_flops(sizes_.layers(), double(length)) + sizes_.block_flops(kept_, double(length)));
            batches += std::ceil(tokens / batch);
        }
        sizes.activation_bytes = std::max(sizes.activation_bytes, recall_pass(job));
        stage.flops += flops;
        stage.seconds += seconds(flops, busy_ranks(batches));
    }

    /// Requests are dealt to all ranks, whole ones even where ranks share other sequences.
    void answer_requests(StageEstimate& stage, StageSizes& sizes) const {
        const RequestCounts& r = requests_;
        const auto blocks = [&](double length) {
            return sizes_.block_flops(sizes_.layers(), length) + sizes_.block_flops(kept_, length);
        };
        const double head = 2 * sizes_.head_flops();  // of both models
        const double judged = r.judged_tokens * blocks(r.judged_length) + r.judged_predictions * head,
                     prompts = r.prompt_tokens * blocks(r.prompt_length),
                     steps = r.new_tokens * (blocks(r.new_length) + head);
        stage.flops += judged + prompts + steps;
        const auto ranks = [&](int64_t parts) { return double(std::clamp<int64_t>(parts, 1, machine_.ranks)); };
        stage.seconds +=
            seconds(judged, ranks(r.judged_batches)) + seconds(prompts + tokens_of_a_step * steps, ranks(r.generating));
        const double of_block =
            std::max(sizes_.softmax_block_activations(bytes_), sizes_.linear_block_activations(bytes_));
        const double in_pass = std::min(r.judged_tokens, double(std::max(judged_batch_tokens, r.longest_judged))),
                     chunk = double(prompt_chunk_tokens(on_cpu(), int64_t(sizes_.intermediate()), int64_t(bytes_))),
                     in_chunk = std::min(r.prompt_tokens, chunk),
                     cache = sizes_.layers() * sizes_.keys_before(double(r.longest_generating), bytes_);
        sizes.activation_bytes = std::max({sizes.activation_bytes, in_pass * of_block, in_chunk * of_block + cache});
    }

    const Job& job_;
    const Machine& machine_;
    const RequestCounts& requests_;
    ModelSizes sizes_;
    double bytes_;
    double kept_ = 0;
};

}  // namespace

int64_t compute_bytes(const Job& job, const Machine& machine) {
    if (job.precision == ComputePrecision::float32) return 4;
    if (job.precision == ComputePrecision::bfloat16) return 2;
    return machine.fast_bfloat16 ? 2 : 4;
}

double cpu_utilisation(const Job& job, const ModelConfig& teacher, double peak, double float32_peak) {
    const ModelSizes sizes(teacher, job.student.mixer, job.student.options);
    const double numbers = sizes.activations(0, /*compute=*/1.0) + sizes.vocabulary(),
                 flops = TrainingPlan(job.align).mean_cost(
                     [&](int64_t length) { return sizes.model_flops(0, double(length)); });
    return 1.0 / (1.0 + flops_of_a_number * numbers / flops * peak / float32_peak);
}

Estimate estimate_job(const Job& job, const ModelConfig& teacher, const Machine& machine,
                      const RequestCounts& requests) {
    return Estimator(job, teacher, machine, requests).all();
}

}  // namespace amalgam
