// SPDX-License-Identifier: Apache-2.0
#include "estimate/known_shapes.h"

#include "system/error.h"

namespace amalgam {

namespace {

/// What differs between teachers of one family.
struct Sizes {
    int64_t hidden_size, layers, query_heads, key_value_heads, head_dim, intermediate_size, vocabulary_size;
    bool tied_head;
};

ModelConfig teacher(const std::string& family, const Sizes& sizes) {
    ModelConfig c;
    c.family = family;
    c.hidden_size = sizes.hidden_size;
    c.layers = sizes.layers;
    c.query_heads = sizes.query_heads;
    c.key_value_heads = sizes.key_value_heads;
    c.head_dim = sizes.head_dim;
    c.intermediate_size = sizes.intermediate_size;
    c.vocabulary_size = sizes.vocabulary_size;
    c.tied_head = sizes.tied_head;
    c.qkv_bias = family == "qwen2";
    c.window.assign(size_t(sizes.layers), 0);
    return c;
}

}  // namespace

const std::vector<KnownShape>& known_shapes() {
    // hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim, intermediate_size,
    // vocab_size, tie_word_embeddings
    static const std::vector<KnownShape> shapes = {
        {"qwen2.5-0.5b", teacher("qwen2", {896, 24, 14, 2, 64, 4864, 151936, true})},
        {"qwen2.5-1.5b", teacher("qwen2", {1536, 28, 12, 2, 128, 8960, 151936, true})},
        {"qwen2.5-3b", teacher("qwen2", {2048, 36, 16, 2, 128, 11008, 151936, true})},
        {"qwen2.5-7b", teacher("qwen2", {3584, 28, 28, 4, 128, 18944, 152064, false})},
        {"qwen2.5-14b", teacher("qwen2", {5120, 48, 40, 8, 128, 13824, 152064, false})},
        {"qwen2.5-32b", teacher("qwen2", {5120, 64, 40, 8, 128, 27648, 152064, false})},
        {"qwen2.5-72b", teacher("qwen2", {8192, 80, 64, 8, 128, 29568, 152064, false})},
        {"llama-3.2-1b", teacher("llama", {2048, 16, 32, 8, 64, 8192, 128256, true})},
        {"llama-3.2-3b", teacher("llama", {3072, 28, 24, 8, 128, 8192, 128256, true})},
        {"llama-3.1-8b", teacher("llama", {4096, 32, 32, 8, 128, 14336, 128256, false})},
        {"llama-3.1-70b", teacher("llama", {8192, 80, 64, 8, 128, 28672, 128256, false})},
        {"smollm2-135m", teacher("llama", {576, 30, 9, 3, 64, 1536, 49152, true})},
    };
    return shapes;
}

const ModelConfig& find_shape(const std::string& name) {
    std::string names;
    for (const KnownShape& known : known_shapes()) {
        if (known.name == name) return known.teacher;
        names += (names.empty() ? "" : ", ") + known.name;
    }
    throw Error(text("--shape: \"", name, "\" is not known (", names, ")"), ExitCode::bad_input);
}

}  // namespace amalgam
