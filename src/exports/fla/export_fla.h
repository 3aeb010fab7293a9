// SPDX-License-Identifier: Apache-2.0
// A hybrid as flash-linear-attention's GatedDeltaNetForCausalLM (model_type gated_deltanet), with the softmax layers in
// the config's `attn`. Its attention knows no q/k norm, no RoPE scaling, and only head_dim = hidden / heads.
#pragma once

#include "exports/export_folder.h"

namespace amalgam {

void export_fla(ExportFolder& folder, const ModelSpec& spec);

}  // namespace amalgam
