// SPDX-License-Identifier: Apache-2.0
// Models small enough for tests, with random weights that depend on seed and name only, in memory and as a Hugging Face
// folder.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "../system/normal_stream.h"
#include "model/causal_lm.h"
#include "storage/safetensors.h"
#include "system/random.h"

namespace amalgam::test {

/// Where tests compute: the CPU, or what AMALGAM_TEST_DEVICE names ("cuda": under mpirun each rank of a node its own).
/// fp64 references are computed there too.
inline at::Device device() {
    static const at::Device chosen = [] {
        const char* name = std::getenv("AMALGAM_TEST_DEVICE");
        at::Device device(name ? name : "cpu");
        if (device.is_cpu() || device.has_index()) return device;
        const char* rank = std::getenv("OMPI_COMM_WORLD_LOCAL_RANK");
        device.set_index(c10::DeviceIndex(rank ? std::atoi(rank) : 0));
        c10::impl::VirtualGuardImpl(device.type()).setDevice(device);
        return device;
    }();
    return chosen;
}

inline at::TensorOptions on_device(at::ScalarType type) {
    return at::TensorOptions(device()).dtype(type);
}

/// Standard normal numbers, fp32.
inline at::Tensor normal_numbers(at::IntArrayRef shape, uint64_t seed, const std::string& name = "numbers") {
    const NormalStream random(seed, name);
    at::Tensor t = at::empty(shape, at::kFloat);
    for (int64_t i = 0; i < t.numel(); ++i) t.data_ptr<float>()[i] = float(random(uint64_t(i)));
    return t.to(device());
}

inline at::Tensor random_tokens(int64_t sequences, int64_t time, int64_t vocabulary, uint64_t seed) {
    const RandomStream random(seed, "tokens");
    at::Tensor t = at::empty({sequences, time}, at::kLong);
    for (int64_t i = 0; i < t.numel(); ++i)
        t.data_ptr<int64_t>()[i] = int64_t(random.bits(uint64_t(i)) % uint64_t(vocabulary));
    return t.to(device());
}

/// Two query heads for each key and value head, and heads that are together wider than the hidden size.
inline ModelConfig small_config(const std::string& family = "llama", int64_t layers = 3) {
    ModelConfig c;
    c.family = family;
    c.hidden_size = 24;
    c.layers = layers;
    c.query_heads = 4;
    c.key_value_heads = 2;
    c.head_dim = 8;
    c.intermediate_size = 40;
    c.vocabulary_size = 61;
    c.max_positions = 256;
    c.tied_head = family == "llama";
    c.qkv_bias = family == "qwen2";
    c.qk_norm = family == "qwen3";
    c.window.assign(size_t(layers), 0);
    return c;
}

inline constexpr const char* linear_mixer = "gated_delta_net";

inline bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

/// Values of the size that trained models have: activations of all layers stay near 1.
inline at::Tensor random_weight(const std::string& name, at::IntArrayRef shape, uint64_t seed) {
    const at::Tensor t = normal_numbers(shape, seed, name);
    if (contains(name, "norm")) return 1.0 + 0.2 * t;
    if (contains(name, "A_log")) return 0.5 * t;
    if (contains(name, "dt_bias")) return 0.5 * t - 2.0;
    if (contains(name, "conv1d")) return 0.4 * t;
    if (contains(name, "bias")) return 0.3 * t;
    if (contains(name, "embed_tokens")) return t;
    return t / std::sqrt(double(shape.back()));
}

inline void fill_randomly(ParameterStore& store, uint64_t seed) {
    store.for_each_named(
        [&](const std::string& name, at::Tensor t, Parameter&) { t.copy_(random_weight(name, t.sizes(), seed)); });
    store.refresh_compute();
}

inline std::unique_ptr<CausalLM> small_model(const ModelSpec& spec, uint64_t seed, bool trainable = false,
                                             at::ScalarType type = at::kFloat) {
    auto model = std::make_unique<CausalLM>(spec, device(), type, trainable);
    fill_randomly(model->parameters(), seed);
    return model;
}

/// config.json of `c`, without scaling of positions or windows.
inline std::string config_json(const ModelConfig& c) {
    std::ostringstream out;
    out << R"({"model_type": ")" << c.family << R"(", "hidden_size": )" << c.hidden_size << R"(, "num_hidden_layers": )"
        << c.layers << R"(, "num_attention_heads": )" << c.query_heads << R"(, "num_key_value_heads": )"
        << c.key_value_heads << R"(, "head_dim": )" << c.head_dim << R"(, "intermediate_size": )" << c.intermediate_size
        << R"(, "vocab_size": )" << c.vocabulary_size << R"(, "max_position_embeddings": )" << c.max_positions
        << R"(, "rms_norm_eps": )" << c.rms_norm_eps << R"(, "tie_word_embeddings": )"
        << (c.tied_head ? "true" : "false") << R"(, "rope_theta": )" << c.rope.rope_theta
        << R"(, "bos_token_id": 1, "eos_token_id": 2})";
    return out.str();
}

/// The model as a Hugging Face folder in fp32.
inline void write_model_folder(CausalLM& model, const std::filesystem::path& folder) {
    std::filesystem::create_directories(folder);
    SafetensorsWriter writer(folder);
    model.parameters().for_each_named([&](const std::string& name, at::Tensor t, Parameter&) {
        const at::Tensor written = t.to(at::kCPU, at::kFloat).contiguous();
        writer.add(name, SafetensorsType::f32, t.sizes().vec(), written.const_data_ptr());
    });
    writer.finish();
    writer.publish();
    std::ofstream(folder / "config.json") << config_json(model.config());
}

/// Root mean square of the difference over that of `expected`.
inline double relative_error(const at::Tensor& found, const at::Tensor& expected) {
    const at::Tensor e = expected.to(at::kDouble), d = found.to(at::kDouble) - e;
    return std::sqrt(d.square().mean().item<double>() / (e.square().mean().item<double>() + 1e-300));
}

}  // namespace amalgam::test
