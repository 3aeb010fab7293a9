// SPDX-License-Identifier: Apache-2.0
// Two keys that stand for several: `recipe` and `student.variant` set defaults of other keys. What a job file gives
// explicitly always wins; job_reader.cpp applies these first.
//
// recipe: reference does what the published implementation of KL-guided layer selection (arXiv 2512.20569) does, with
// what is known to be unfortunate about it:
//   student.key_value_expansion per_row    repeats rows of W_k and W_v instead of heads, so heads are paired wrongly
//   student.output_norm_eps     reference  1e-5 whatever the teacher's rms_norm_eps is
//   *.optimizer.weight_decay    0.01       AdamW's default of PyTorch, on every parameter, norms and biases too
//   align: 96 sequences a step at 1e-3, the norm of the difference as loss, cosine to 0 without warm-up
//   score, distill: 1e-4 for the mixers, 7e-6 for the rest; finetune: 1e-5 (RADLADS, arXiv 2505.03005); all of them
//   constant, without warm-up
#pragma once

#include "job/job.h"

namespace amalgam {

/// Sets the defaults that `job.recipe` stands for. "amalgam" are the defaults of job.h.
void apply_recipe(Job& job);

/// Sets the mixer and its options as `student.variant` says: the mixers' declarations name the variants. Throws
/// std::logic_error if there is none of that name: the schema has refused it.
void apply_variant(StudentJob& student);

/// Where `student.mixer` was given and is not the variant's, its options are its own defaults. job_check.h refuses such
/// a job; until then no mixer has another one's options.
void apply_mixer(StudentJob& student);

}  // namespace amalgam
