// SPDX-License-Identifier: Apache-2.0
// An export is looked at before it gets its name: what was written must compute what the student computes.
#pragma once

#include "exports/export_folder.h"
#include "exports/formats.h"

namespace amalgam {

/// Logits [1, time, vocabulary] in fp32 that readers of a format get from what was written: its tensors under the
/// format's names, its config.json. tokens [1, time].
using ExportReader = at::Tensor (*)(const TensorSource& written, const nlohmann::json& config, const ModelSpec& spec,
                                    const at::Tensor& tokens);

ExportReader reader_of(const ExportFormat& format);

/// Logits in fp32, block after block, so that one of them is in memory at a time. With `rounded_at` above 0, weights
/// that an export in bfloat16 narrows are rounded to it as multiples of 1 / rounded_at: each number rounds them
/// differently.
at::Tensor logits_block_by_block(const TensorSource& student, const ModelSpec& spec, const at::Tensor& tokens,
                                 double rounded_at = 0.0);

/// Compares the logits of a few tokens. Throws Error(failure) with both numbers if they differ by more than 3e-4 of the
/// largest and, in bfloat16, four times the most that one of four roundings of the student's weights changes: from
/// one rounding to another it differs up to sevenfold (seen with a student of few tokens).
void expect_same_logits(const TensorSource& student, const ModelSpec& spec, ExportPrecision precision,
                        ExportReader reader, const TensorSource& written, const nlohmann::json& config);

}  // namespace amalgam
