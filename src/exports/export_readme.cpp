// SPDX-License-Identifier: Apache-2.0
#include "exports/export_readme.h"

#include "system/error.h"

namespace amalgam {
namespace {

constexpr const char* qwen3_5_warning =
    "\n## Load it in bfloat16 or float32, never in float16\n\n"
    "Queries and keys of the softmax layers are scaled down so far that the norms which this model type puts on them\n"
    "change nothing. float16 cannot hold numbers that small: the model would load without a warning and answer\n"
    "nonsense. That also holds for `--dtype half` of serving programs, and for GPUs without bfloat16 (use float32\n"
    "there). Quantisers must leave `q_proj` and `k_proj` of the softmax layers, and `A_log` and `dt_bias` of the "
    "linear\n"
    "layers, as they are.\n";

constexpr const char* layout_warning =
    "\n## Programs that take the layers for others\n\n"
    "Which layers are softmax is written in `layer_types` of config.json. transformers, vLLM and llama.cpp's "
    "converter\n"
    "honour it. SGLang and MLX-LM compute it from `full_attention_interval` instead, without an error: their answers\n"
    "are wrong for this model.\n";

}  // namespace

std::string export_readme(const ModelSpec& spec, const std::string& format) {
    std::string result = text(export_heading, "\n\nLayers: ", describe(spec.layout), ". Format: ", format,
                              ". Converted from a ", spec.config.family, " model.\n");
    if (format != "qwen3_5") return result;
    const bool scaled = !spec.config.qk_norm && !softmax_layers(spec.layout).empty();
    if (scaled) result += qwen3_5_warning;
    return result + layout_warning;
}

}  // namespace amalgam
