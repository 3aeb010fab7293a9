// SPDX-License-Identifier: Apache-2.0
#include "job/job_estimate.h"

#include <algorithm>

#include "job/job_values.h"
#include "system/error.h"

namespace amalgam {

namespace {

constexpr double automatic_logits = 4.0 * 1024 * 1024 * 1024;  // bytes, as in training/chunked_losses.cpp

/// Sizes of one model family in doubles: products exceed what is exact in int64 only far beyond any model, but flop do
/// not.
class Sizes {
  public:
    Sizes(const ModelShape& shape, const StudentJob& student)
        : hidden_(double(shape.hidden_size)),
          intermediate_(double(shape.intermediate_size)),
          layers_(double(shape.layers)),
          vocabulary_(double(shape.vocabulary_size)),
          heads_(double(shape.query_heads)),
          head_dim_(double(shape.head_dim)),
          width_(heads_ * head_dim_),
          key_value_width_(double(shape.key_value_heads) * head_dim_),
          tied_(shape.tied),
          student_(student) {}

    double softmax_mixer() const { return 2 * hidden_ * width_ + 2 * hidden_ * key_value_width_; }

    double linear_mixer() const {
        double parameters = 4 * hidden_ * width_ + 2 * hidden_ * heads_ + 2 * heads_;
        if (student_.output_gate) parameters += hidden_ * width_;
        if (student_.output_norm) parameters += head_dim_;
        if (student_.short_convolution) parameters += 12 * width_;
        return parameters;
    }

    double head() const { return hidden_ * vocabulary_; }

    /// Parameters of the model that keeps softmax in `kept` layers.
    double parameters(double kept) const { return blocks(kept) + head() * (tied_ ? 1 : 2) + hidden_; }

    /// Forward flop per token of the blocks, sequences of `length` tokens.
    double block_flops(double kept, double length) const {
        const double softmax = 2 * width_ * length;
        return 2 * blocks(kept) + kept * softmax + (layers_ - kept) * delta_rule_flops();
    }

    double model_flops(double kept, double length) const { return block_flops(kept, length) + 2 * head(); }

    double linear_mixer_flops() const { return 2 * linear_mixer() + delta_rule_flops(); }

    /// Numbers kept per token for the backward pass.
    double activations(double kept) const {
        const double softmax = 3 * width_ + 3 * key_value_width_;
        return layers_ * (4 * hidden_ + 4 * intermediate_) + kept * softmax + (layers_ - kept) * linear_activations();
    }

    double linear_activations() const { return 12 * width_ + width_ * head_dim_ / 64; }
    double align_activations() const { return 2 * hidden_ + linear_activations(); }
    double layers() const { return layers_; }
    double vocabulary() const { return vocabulary_; }

  private:
    double blocks(double kept) const {
        const double rest = 3 * hidden_ * intermediate_ + 2 * hidden_;
        return layers_ * rest + kept * softmax_mixer() + (layers_ - kept) * linear_mixer();
    }

    double delta_rule_flops() const { return heads_ * (6 * head_dim_ * head_dim_ + 512 * head_dim_); }

    double hidden_, intermediate_, layers_, vocabulary_, heads_, head_dim_, width_, key_value_width_;
    bool tied_;
    const StudentJob& student_;
};

int64_t micro_batch(const TrainingJob& stage, int64_t sharers) {
    const int64_t share = std::max<int64_t>(1, stage.batch_sequences / sharers);
    return stage.micro_batch_sequences > 0 ? std::min(stage.micro_batch_sequences, share) : share;
}

double trained_tokens(const TrainingJob& stage) {
    return double(training_steps(stage)) * double(stage.batch_sequences) * double(stage.sequence_length);
}

StageEstimate training_stage(const std::string& name, const TrainingJob& job, int64_t sharers) {
    return {.name = name,
            .steps = training_steps(job),
            .micro_batch_sequences = micro_batch(job, sharers),
            .tokens = trained_tokens(job)};
}

double micro_batch_tokens(const StageEstimate& stage, const TrainingJob& job) {
    return double(stage.micro_batch_sequences) * double(job.sequence_length);
}

class Estimator {
  public:
    Estimator(const Job& job, const ModelShape& shape, const Machine& machine)
        : job_(job), machine_(machine), sizes_(shape, job.student), bytes_(double(compute_bytes(job))) {
        kept_ = kept_layers(job.select, shape.layers);
    }

    Estimate all() {
        Estimate result;
        result.kept_layers = kept_;
        result.teacher_parameters = sizes_.parameters(sizes_.layers());
        result.student_parameters = sizes_.parameters(double(kept_));
        if (job_.align.tokens > 0) result.stages.push_back(align());
        if (job_.score.tokens > 0) result.stages.push_back(score());
        if (job_.distill.tokens > 0) result.stages.push_back(distill());
        if (job_.finetune.tokens > 0) result.stages.push_back(finetune());
        if (job_.evaluate.sequences > 0) result.stages.push_back(evaluate());
        double largest = 0;
        for (const StageEstimate& stage : result.stages) {
            result.flops += stage.flops;
            result.seconds += stage.seconds;
            result.disk_bytes += stage.checkpoint_bytes * double(job_.checkpoint.keep_last);
            largest = std::max(largest, stage.checkpoint_bytes);
        }
        const double export_bytes = job_.export_to.precision == "bfloat16" ? 2 : 4;
        result.disk_bytes += largest + 4 * sizes_.parameters(0) +
                             export_bytes * result.student_parameters * double(job_.export_to.formats.size());
        return result;
    }

  private:
    double trained_bytes(double parameters) const { return parameters * (bytes_ == 2 ? 18 : 16); }
    double teacher_bytes() const { return bytes_ * sizes_.parameters(sizes_.layers()); }
    double teacher_flops(double length) const { return sizes_.model_flops(sizes_.layers(), length); }
    double seconds(double flops, double ranks) const {
        return flops / (ranks * machine_.peak_flops * machine_.utilisation);
    }

    /// Student's and teacher's; the gradient takes the place of the student's.
    double logit_bytes(int64_t chunk, double tokens) const {
        const double of_token = 2 * bytes_ * sizes_.vocabulary();
        return chunk > 0 ? of_token * std::min(double(chunk), tokens) : std::min(of_token * tokens, automatic_logits);
    }

    StageEstimate align() const {
        StageEstimate stage = training_stage("align", job_.align, machine_.ranks);
        const double length = double(job_.align.sequence_length);
        const double trained = sizes_.layers() * sizes_.linear_mixer();
        stage.trained_bytes = trained_bytes(trained);
        stage.teacher_bytes = teacher_bytes();
        stage.activation_bytes = bytes_ * sizes_.align_activations() * micro_batch_tokens(stage, job_.align);
        stage.flops = stage.tokens *
                      (sizes_.block_flops(sizes_.layers(), length) + 3 * sizes_.layers() * sizes_.linear_mixer_flops());
        stage.seconds = seconds(stage.flops, double(machine_.ranks));
        stage.checkpoint_bytes = 4 * sizes_.parameters(0) + 8 * trained;
        return stage;
    }

    StageEstimate score() const {
        const ScoreJob& score = job_.score;
        const double candidates = sizes_.layers(), length = double(score.sequence_length);
        StageEstimate stage = training_stage("score", score, score.ranks_per_candidate);
        stage.tokens *= candidates;
        const double trained = sizes_.parameters(1), student = sizes_.model_flops(1, length);
        const double tokens = micro_batch_tokens(stage, score);
        stage.trained_bytes = trained_bytes(trained);
        stage.teacher_bytes = teacher_bytes();
        stage.activation_bytes = bytes_ * sizes_.activations(1) * tokens + logit_bytes(score.loss_chunk_tokens, tokens);
        const double measured = double(score.measurements) * double(score.validation_sequences) * length;
        const double of_candidate = trained_tokens(score) * (teacher_flops(length) + 3 * student) +
                                    measured * (teacher_flops(length) + student);
        stage.flops = candidates * of_candidate;
        const int64_t groups = std::max<int64_t>(1, machine_.ranks / score.ranks_per_candidate);
        const int64_t rounds = (int64_t(candidates) + groups - 1) / groups;
        stage.seconds = double(rounds) * seconds(of_candidate, double(score.ranks_per_candidate));
        return stage;
    }

    /// All parameters of the selected hybrid are trained; `teacher_forward` flop per token come on top.
    StageEstimate train_hybrid(const std::string& name, const DistillJob& job, double teacher_forward) const {
        StageEstimate stage = training_stage(name, job, machine_.ranks);
        const double student = sizes_.model_flops(double(kept_), double(job.sequence_length));
        const double tokens = micro_batch_tokens(stage, job), trained = sizes_.parameters(double(kept_));
        stage.trained_bytes = trained_bytes(trained);
        stage.activation_bytes =
            bytes_ * sizes_.activations(double(kept_)) * tokens + logit_bytes(job.loss_chunk_tokens, tokens);
        stage.flops = stage.tokens * (teacher_forward + 3 * student);
        stage.seconds = seconds(stage.flops, double(machine_.ranks));
        stage.checkpoint_bytes = 12 * trained;
        return stage;
    }

    StageEstimate distill() const {
        StageEstimate stage =
            train_hybrid("distill", job_.distill, teacher_flops(double(job_.distill.sequence_length)));
        stage.teacher_bytes = teacher_bytes();
        return stage;
    }

    StageEstimate finetune() const { return train_hybrid("finetune", job_.finetune, 0); }

    StageEstimate evaluate() const {
        const double length = double(job_.evaluate.sequence_length), kept = double(kept_);
        StageEstimate stage{.name = "evaluate"};
        const double tokens = double(job_.evaluate.sequences) * length;
        stage.teacher_bytes = teacher_bytes() + bytes_ * sizes_.parameters(kept);
        stage.activation_bytes = logit_bytes(job_.distill.loss_chunk_tokens, length);
        stage.flops = tokens * (teacher_flops(length) + sizes_.model_flops(kept, length));
        const double busy = double(std::min(machine_.ranks, job_.evaluate.sequences));
        stage.seconds = seconds(stage.flops, busy);
        return stage;
    }

    const Job& job_;
    const Machine& machine_;
    Sizes sizes_;
    double bytes_;
    int64_t kept_ = 0;
};

}  // namespace

int64_t compute_bytes(const Job& job) {
    if (job.precision == "float32") return 4;
    if (job.precision == "bfloat16") return 2;
    return job.device == "cpu" ? 4 : 2;
}

Estimate estimate_job(const Job& job, const ModelShape& shape, const Machine& machine) {
    return Estimator(job, shape, machine).all();
}

}  // namespace amalgam
