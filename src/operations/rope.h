// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding: the tables of cosines and sines for a range of positions, in the rotate-half convention of
// Hugging Face (channel i is paired with i + dim/2). Scalings: linear and dynamic NTK (transformers), llama3 (Llama 3.1
// model card), yarn (Peng et al., arXiv 2309.00071). Positions are tokens, counted from 0; angles are radians. Nothing
// here throws: parse_config has refused what these formulas cannot take.
#pragma once

#include <ATen/core/Tensor.h>

#include "specification/model_config.h"

namespace amalgam {

/// cos and sin of consecutive positions times the scaling's factor, fp32 [time, head_dim]; both halves of a row are
/// alike.
struct RotaryTables {
    at::Tensor cos, sin;
};

/// Tables for positions [first, first + count), on `device`. `dynamic` scaling depends on `length`, the tokens of the
/// whole context (0: first + count), as in transformers. `head_dim` is even.
RotaryTables rotary_tables(const RopeConfig& rope, int64_t head_dim, int64_t first, int64_t count, at::Device device,
                           int64_t length = 0);

/// Tables for tokens that are computed one at a time: row p is that of position p in a context that ends with it.
RotaryTables rotary_step_tables(const RopeConfig& rope, int64_t head_dim, int64_t count, at::Device device);

/// Inverse frequencies [head_dim / 2], radians per position, of a context of `length` tokens (only `dynamic` looks at
/// it). `scale` becomes the factor on cos and sin, 1 but for yarn.
std::vector<double> inverse_frequencies(const RopeConfig& rope, int64_t head_dim, int64_t length, double& scale);

}  // namespace amalgam
