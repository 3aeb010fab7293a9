// SPDX-License-Identifier: Apache-2.0
#include "estimate/model_sizes.h"

#include <algorithm>

namespace amalgam {
namespace {

constexpr double decay_rank = 16;  // of gated linear attention (src/model/gated_linear_attention.h)

}  // namespace

ModelSizes::ModelSizes(const ModelShape& shape, const StudentJob& student)
    : hidden_(double(shape.hidden_size)),
      intermediate_(double(shape.intermediate_size)),
      layers_(double(shape.layers)),
      vocabulary_(double(shape.vocabulary_size)),
      heads_(double(shape.query_heads)),
      head_dim_(double(shape.head_dim)),
      width_(heads_ * head_dim_),
      key_value_width_(double(shape.key_value_heads) * head_dim_),
      tied_(shape.tied),
      linear_attention_(student.mixer == "gated_linear_attention"),
      output_gate_(student.output_gate),
      output_norm_(student.output_norm),
      short_convolution_(student.short_convolution) {}

double ModelSizes::softmax_mixer() const {
    return 2 * hidden_ * width_ + 2 * hidden_ * key_value_width_;
}

double ModelSizes::linear_mixer() const {
    double parameters = 4 * hidden_ * width_ + (linear_attention_ ? decay_rank * (hidden_ + width_) + width_
                                                                  : 2 * hidden_ * heads_ + 2 * heads_);
    if (output_gate_) parameters += hidden_ * width_;
    if (output_norm_) parameters += head_dim_;
    if (short_convolution_) parameters += 12 * width_;
    return parameters;
}

double ModelSizes::largest_block(double kept) const {
    return std::max(kept > 0 ? softmax_block() : 0, kept < layers_ ? linear_block() : 0);
}

double ModelSizes::parameters(double kept) const {
    return kept * softmax_block() + (layers_ - kept) * linear_block() + outside();
}

double ModelSizes::softmax_mixer_flops(double length) const {
    return 2 * softmax_mixer() + 2 * width_ * length;
}

double ModelSizes::linear_mixer_flops() const {
    const double matrices = (output_gate_ ? 5 : 4) * hidden_ * width_ +
                            (linear_attention_ ? decay_rank * (hidden_ + width_) : 2 * hidden_ * heads_);
    const double rule =
        linear_attention_ ? 4 * head_dim_ * head_dim_ + 256 * head_dim_ : 6 * head_dim_ * head_dim_ + 512 * head_dim_;
    return 2 * matrices + heads_ * rule;
}

double ModelSizes::block_flops(double kept, double length) const {
    return layers_ * 6 * hidden_ * intermediate_ + kept * softmax_mixer_flops(length) +
           (layers_ - kept) * linear_mixer_flops();
}

double ModelSizes::softmax_block_activations(double compute) const {
    return compute * (rest_activations() + 3 * width_ + 3 * key_value_width_);
}

double ModelSizes::linear_mixer_activations(double compute) const {
    return compute * width_ * ((output_gate_ ? 6 : 5) + head_dim_ / 64 + 1);
}

double ModelSizes::linear_block_activations(double compute) const {
    return compute * rest_activations() + linear_mixer_activations(compute);
}

double ModelSizes::largest_block_activations(double kept, double compute) const {
    return std::max(kept > 0 ? softmax_block_activations(compute) : 0,
                    kept < layers_ ? linear_block_activations(compute) : 0);
}

double ModelSizes::activations(double kept, double compute) const {
    return kept * softmax_block_activations(compute) + (layers_ - kept) * linear_block_activations(compute);
}

}  // namespace amalgam
