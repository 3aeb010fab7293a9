// SPDX-License-Identifier: Apache-2.0
#include "estimate/known_shapes.h"

#include "system/error.h"

namespace amalgam {

const std::vector<KnownShape>& known_shapes() {
    // hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim, intermediate_size,
    // vocab_size, tie_word_embeddings
    static const std::vector<KnownShape> shapes = {
        {"qwen2.5-0.5b", {896, 24, 14, 2, 64, 4864, 151936, true}},
        {"qwen2.5-1.5b", {1536, 28, 12, 2, 128, 8960, 151936, true}},
        {"qwen2.5-3b", {2048, 36, 16, 2, 128, 11008, 151936, true}},
        {"qwen2.5-7b", {3584, 28, 28, 4, 128, 18944, 152064, false}},
        {"qwen2.5-14b", {5120, 48, 40, 8, 128, 13824, 152064, false}},
        {"qwen2.5-32b", {5120, 64, 40, 8, 128, 27648, 152064, false}},
        {"qwen2.5-72b", {8192, 80, 64, 8, 128, 29568, 152064, false}},
        {"llama-3.2-1b", {2048, 16, 32, 8, 64, 8192, 128256, true}},
        {"llama-3.2-3b", {3072, 28, 24, 8, 128, 8192, 128256, true}},
        {"llama-3.1-8b", {4096, 32, 32, 8, 128, 14336, 128256, false}},
        {"llama-3.1-70b", {8192, 80, 64, 8, 128, 28672, 128256, false}},
        {"smollm2-135m", {576, 30, 9, 3, 64, 1536, 49152, true}},
    };
    return shapes;
}

ModelShape find_shape(const std::string& name) {
    std::string names;
    for (const KnownShape& known : known_shapes()) {
        if (known.name == name) return known.shape;
        names += (names.empty() ? "" : ", ") + known.name;
    }
    throw Error(text("--shape: \"", name, "\" is not known (", names, ")"), ExitCode::bad_input);
}

}  // namespace amalgam
