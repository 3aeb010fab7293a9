// SPDX-License-Identifier: Apache-2.0
// What a model is: all one needs, next to the weights, to build it. Stored as JSON in every checkpoint.
#pragma once

#include <string>

#include "specification/layout.h"
#include "specification/model_config.h"

namespace amalgam {

/// Options of the linear mixers: the gated delta net has all (gdn_v1 to gdn_v6 of the paper's code), gated linear
/// attention (gla_v1) the output gate and norm.
struct LinearOptions {
    bool short_convolution = false;
    int64_t convolution_width = 4;
    bool output_gate = true, output_norm = true, activation = true, rope = false;
    double norm_eps = 1e-6;
};

struct ModelSpec {
    ModelConfig config;
    Layout layout;
    LinearOptions linear;
};

/// The JSON of the attribute `config` of checkpoints (outputs/README.md).
std::string to_json(const ModelSpec& spec);
/// Throws Error(damaged_file) naming the file `where` if `text` is not what to_json writes.
ModelSpec spec_from_json(const std::string& text, const std::string& where);

}  // namespace amalgam
