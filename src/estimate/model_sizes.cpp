// SPDX-License-Identifier: Apache-2.0
#include "estimate/model_sizes.h"

#include <algorithm>
#include <limits>

namespace amalgam {

ModelSizes::ModelSizes(const ModelConfig& teacher, const std::string& mixer, const Options& options)
    : teacher_(teacher),
      softmax_(find_mixer(softmax_mixer)),
      linear_(find_mixer(mixer)),
      options_(options),
      hidden_(double(teacher.hidden_size)),
      intermediate_(double(teacher.intermediate_size)),
      layers_(double(teacher.layers)),
      vocabulary_(double(teacher.vocabulary_size)) {}

double ModelSizes::softmax_mixer_size() const {
    return count_elements(softmax_.parameters(teacher_, {}));
}

double ModelSizes::linear_mixer() const {
    return count_elements(linear_.parameters(teacher_, options_));
}

double ModelSizes::largest_block(double kept) const {
    return std::max(kept > 0 ? softmax_block() : 0, kept < layers_ ? linear_block() : 0);
}

double ModelSizes::parameters(double kept) const {
    return kept * softmax_block() + (layers_ - kept) * linear_block() + outside();
}

double ModelSizes::softmax_mixer_flops(double length) const {
    return softmax_.flops(teacher_, {}, length);
}

double ModelSizes::linear_mixer_flops(double length) const {
    return linear_.flops(teacher_, options_, length);
}

double ModelSizes::block_flops(double kept, double length) const {
    return layers_ * 6 * hidden_ * intermediate_ + kept * softmax_mixer_flops(length) +
           (layers_ - kept) * linear_mixer_flops(length);
}

double ModelSizes::softmax_block_activations(double compute) const {
    return compute * (rest_activations() + softmax_.kept_numbers(teacher_, {}));
}

double ModelSizes::linear_mixer_activations(double compute) const {
    return compute * linear_.kept_numbers(teacher_, options_);
}

double ModelSizes::linear_mixer_gradients(double compute) const {
    return compute * linear_.gradient_numbers(teacher_, options_);
}

double ModelSizes::linear_block_activations(double compute) const {
    return compute * rest_activations() + linear_mixer_activations(compute);
}

double ModelSizes::largest_block_activations(double kept, double compute) const {
    return std::max(kept > 0 ? softmax_block_activations(compute) : 0,
                    kept < layers_ ? linear_block_activations(compute) : 0);
}

double ModelSizes::keys_before(double before, double compute) const {
    int64_t widest = 0;
    for (const int64_t window : teacher_.window) {
        if (window == 0) widest = std::numeric_limits<int64_t>::max();
        widest = std::max(widest, window);
    }
    const double seen = widest > 0 ? std::min(before, double(widest - 1)) : before;
    return 2 * compute * double(teacher_.key_value_heads * teacher_.head_dim) * seen;
}

double ModelSizes::queries(double tokens, double compute) const {
    return compute * double(teacher_.query_heads * teacher_.head_dim) * tokens;
}

bool ModelSizes::has_unwindowed_softmax(int64_t length) const {
    return std::any_of(teacher_.window.begin(), teacher_.window.end(),
                       [&](int64_t window) { return window == 0 || window >= length; });
}

double ModelSizes::activations(double kept, double compute) const {
    return kept * softmax_block_activations(compute) + (layers_ - kept) * linear_block_activations(compute);
}

}  // namespace amalgam
