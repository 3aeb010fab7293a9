// SPDX-License-Identifier: Apache-2.0
// Two keys that stand for several: `recipe` and `student.variant` set defaults of other keys. What a job file gives
// explicitly always wins; job_reader.cpp applies these first.
//
// recipe: reference does what the published implementation of KL-guided layer selection (arXiv 2512.20569) does, with
// what is known to be unfortunate about it:
//   student.key_value_expansion per_row    repeats rows of W_k and W_v instead of heads, so heads are paired wrongly
//   student.output_norm_eps     reference  1e-5 whatever the teacher's rms_norm_eps is
//   *.optimizer.weight_decay    0.01       AdamW's default of PyTorch, on every parameter, norms and biases too
//   align: cosine to 0 without warm-up; score, distill, finetune: constant rate without warm-up
#pragma once

#include "job/job.h"

namespace amalgam {

/// Sets the defaults that `job.recipe` stands for. "amalgam" are the defaults of job.h.
void apply_recipe(Job& job);

/// Sets mixer, short_convolution, output_gate, output_norm and activation as `student.variant` says.
/// The names are those of the published code: gdn_v1 convolution, gdn_v2 neither, gdn_v3 convolution and gate, gdn_v4
/// gate, gdn_v6 bare: no convolution, gate, norm or SiLU; gla_v1 gated linear attention with a gate.
void apply_variant(StudentJob& student);

}  // namespace amalgam
