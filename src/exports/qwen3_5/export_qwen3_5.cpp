// SPDX-License-Identifier: Apache-2.0
#include "exports/qwen3_5/export_qwen3_5.h"

#include <ATen/ATen.h>

#include <cmath>

#include "mixers/gated_delta_net/gated_delta_net.h"
#include "system/error.h"

namespace amalgam {
namespace {

const double query_key_scale = std::ldexp(1.0, -20);  // a power of two costs no bits

double rounded_to_bf16(double x) {
    return double(float(at::BFloat16(float(x))));
}

void refuse_linear_options(const ModelSpec& spec) {
    const ModelConfig& c = spec.config;
    const char* instead = "; train another student, or keep the checkpoint";
    require(spec.linear.output_norm, "export qwen3_5: the student has no output norm (Qwen3.5 always has one)",
            instead);
    require(spec.linear.output_gate,
            "export qwen3_5: the student has no output gate (Qwen3.5 always has one); try --to fla");
    require(spec.linear.activation, "export qwen3_5: the student has no SiLU on q, k, v (Qwen3.5 always has it)",
            instead);
    require(!spec.linear.rope, "export qwen3_5: the linear layers use rotary embedding (Qwen3.5 has none there)",
            instead);
    require(spec.linear.norm_eps == c.rms_norm_eps, "export qwen3_5: the output norm's eps is ", spec.linear.norm_eps,
            " but rms_norm_eps is ", c.rms_norm_eps,
            " (Qwen3.5 has one for both); train with student.output_norm_eps: teacher");
    require(!spec.linear.short_convolution || spec.linear.convolution_width == 4,
            "export qwen3_5: the short convolution has width ", spec.linear.convolution_width, " (only 4 is exported)",
            instead);
}

void refuse_what_qwen3_5_lacks(const ModelSpec& spec) {
    const ModelConfig& c = spec.config;
    const auto softmax = softmax_layers(spec.layout);
    const std::string linear = linear_mixer(spec.layout);
    require(linear.empty() || linear == gated_delta_net_mixer, "export qwen3_5: the linear layers are ", linear,
            " (Qwen3.5 has gated delta nets only); try --to fla");
    if (!linear.empty()) refuse_linear_options(spec);
    require(!c.mlp_bias, "export qwen3_5: the MLP has biases (Qwen3.5 has none); keep the checkpoint");
    for (int64_t layer : softmax)
        require(c.window[size_t(layer)] == 0, "export qwen3_5: softmax layer ", layer, " has a sliding window of ",
                c.window[size_t(layer)],
                " tokens (Qwen3.5 has none); keep other layers, or set use_sliding_window to false in the teacher's "
                "config.json before the run");
}

nlohmann::json rope_parameters(const ModelConfig& c) {
    const RopeConfig& r = c.rope;
    nlohmann::json json = {{"rope_type", r.rope_type}, {"rope_theta", r.rope_theta}, {"partial_rotary_factor", 1.0}};
    // Text has one position per token: any split of the channels over the three position axes gives the same rotation.
    const int64_t half = c.head_dim / 2, section = half / 3;
    json["mrope_section"] = {half - 2 * section, section, section};
    json["mrope_interleaved"] = true;
    if (r.rope_type == "default") return json;
    json["factor"] = r.factor;
    if (r.rope_type == "llama3" || r.rope_type == "yarn")
        json["original_max_position_embeddings"] = r.original_max_position_embeddings;
    if (r.rope_type == "llama3") {
        json["low_freq_factor"] = r.low_freq_factor;
        json["high_freq_factor"] = r.high_freq_factor;
    }
    if (r.rope_type == "yarn") {
        json["beta_fast"] = r.beta_fast;
        json["beta_slow"] = r.beta_slow;
        json["truncate"] = r.truncate;
        if (r.attention_factor > 0.0) json["attention_factor"] = r.attention_factor;
        if (r.mscale > 0.0) json["mscale"] = r.mscale;
        if (r.mscale_all_dim > 0.0) json["mscale_all_dim"] = r.mscale_all_dim;
    }
    return json;
}

nlohmann::json config_of(const ModelSpec& spec, const char* dtype) {
    const ModelConfig& c = spec.config;
    std::vector<std::string> types;
    for (const std::string& mixer : spec.layout)
        types.push_back(mixer == softmax_mixer ? "full_attention" : "linear_attention");
    nlohmann::json json = {{"architectures", {"Qwen3_5ForCausalLM"}},
                           {"model_type", "qwen3_5_text"},
                           {"dtype", dtype},
                           {"hidden_size", c.hidden_size},
                           {"intermediate_size", c.intermediate_size},
                           {"num_hidden_layers", c.layers},
                           {"num_attention_heads", c.query_heads},
                           {"num_key_value_heads", c.key_value_heads},
                           {"head_dim", c.head_dim},
                           {"vocab_size", c.vocabulary_size},
                           {"max_position_embeddings", c.max_positions},
                           {"hidden_act", "silu"},
                           {"rms_norm_eps", c.rms_norm_eps},
                           {"attention_bias", c.qkv_bias || c.output_bias},
                           {"attention_dropout", 0.0},
                           {"tie_word_embeddings", c.tied_head},
                           {"linear_conv_kernel_dim", 4},
                           {"linear_key_head_dim", c.head_dim},
                           {"linear_value_head_dim", c.head_dim},
                           {"linear_num_key_heads", c.query_heads},
                           {"linear_num_value_heads", c.query_heads},
                           {"layer_types", types},
                           {"rope_parameters", rope_parameters(c)},
                           // transformers counts the cached tokens in a softmax layer and stops if there is none.
                           {"use_cache", !softmax_layers(spec.layout).empty()}};
    add_special_tokens(json, c);
    return json;
}

void put_linear(ExportFolder& folder, const ModelSpec& spec, int64_t layer, const at::Tensor& norm) {
    const std::string from = layer_name(layer, "linear_attn."), to = from;
    const auto projection = [&](const char* name) { return folder.take(from + name) * norm; };
    const int64_t width = spec.config.query_heads * spec.config.head_dim;
    folder.put(to + "in_proj_qkv.weight",
               at::cat({projection("q_proj.weight"), projection("k_proj.weight"), projection("v_proj.weight")}));
    folder.put(to + "in_proj_z.weight", projection("g_proj.weight"));
    folder.put(to + "in_proj_a.weight", projection("a_proj.weight"));
    folder.put(to + "in_proj_b.weight", projection("b_proj.weight"));
    at::Tensor taps;
    if (spec.linear.short_convolution) {
        taps = folder.take(from + "conv1d.weight");
    } else {
        taps = at::zeros({3 * width, 4});
        taps.select(1, 3).fill_(1.0);
    }
    folder.put(to + "conv1d.weight", taps.unsqueeze(1));
    folder.put(to + "A_log", folder.take(from + "A_log"), /*full_precision=*/true);
    folder.put(to + "dt_bias", folder.take(from + "dt_bias"), /*full_precision=*/true);
    folder.put(to + "norm.weight", folder.take(from + "o_norm.weight"), /*full_precision=*/true);
    folder.copy(from + "o_proj.weight", to + "out_proj.weight");
}

/// Rows of q_proj per head become [query | gate], the gate zero.
at::Tensor with_closed_gate(const at::Tensor& query, int64_t heads) {
    const auto by_head = query.unflatten(0, {heads, query.size(0) / heads});
    return at::cat({by_head, at::zeros_like(by_head)}, 1).flatten(0, 1);
}

/// A norm's weight, in fp32 because the subtraction costs bits in bf16.
void put_minus_one(ExportFolder& folder, const std::string& name) {
    folder.put(name, folder.take(name) - 1.0, /*full_precision=*/true);
}

void put_softmax(ExportFolder& folder, const ModelSpec& spec, int64_t layer, const at::Tensor& norm) {
    const ModelConfig& c = spec.config;
    const std::string name = layer_name(layer, "self_attn.");
    const double scale = c.qk_norm ? 1.0 : query_key_scale;
    folder.put(name + "q_proj.weight",
               with_closed_gate(folder.take(name + "q_proj.weight") * norm * scale, c.query_heads));
    folder.put(name + "k_proj.weight", folder.take(name + "k_proj.weight") * norm * scale);
    folder.put(name + "v_proj.weight", folder.take(name + "v_proj.weight") * norm);
    folder.put(name + "o_proj.weight", folder.take(name + "o_proj.weight") * 2.0);
    if (c.qkv_bias) {
        folder.put(name + "q_proj.bias", with_closed_gate(folder.take(name + "q_proj.bias") * scale, c.query_heads));
        folder.put(name + "k_proj.bias", folder.take(name + "k_proj.bias") * scale);
        folder.copy(name + "v_proj.bias", name + "v_proj.bias");
        // The gate halves the attention only, not what is added after it.
        folder.put(name + "o_proj.bias",
                   c.output_bias ? folder.take(name + "o_proj.bias") : at::zeros({c.hidden_size}));
    }
    if (c.qk_norm) {
        put_minus_one(folder, name + "q_norm.weight");
        put_minus_one(folder, name + "k_norm.weight");
        return;
    }
    const auto [q, k] = neutral_norm_weights(c.rms_norm_eps);
    folder.put(name + "q_norm.weight", at::full({c.head_dim}, q, at::kFloat));
    folder.put(name + "k_norm.weight", at::full({c.head_dim}, k, at::kFloat));
}

}  // namespace

std::pair<double, double> neutral_norm_weights(double eps) {
    const double target = eps / (query_key_scale * query_key_scale), half = std::sqrt(target);
    std::pair<double, double> best{0.0, 0.0};
    double smallest = INFINITY;
    for (int i = -128; i <= 128; ++i) {
        const double a = rounded_to_bf16(half * (1.0 + double(i) / 256.0));
        const double b = rounded_to_bf16(target / (1.0 + a) - 1.0);
        const double error = std::abs((1.0 + a) * (1.0 + b) / target - 1.0);
        if (error < smallest) {
            smallest = error;
            best = {a, b};
        }
    }
    return best;
}

void export_qwen3_5(ExportFolder& folder, const ModelSpec& spec) {
    refuse_what_qwen3_5_lacks(spec);
    const ModelConfig& c = spec.config;
    const at::Tensor nothing = at::zeros({c.hidden_size});
    folder.copy("model.embed_tokens.weight", "model.embed_tokens.weight");
    for (int64_t layer = 0; layer < c.layers; ++layer) {
        const std::string mixer_norm = layer_name(layer, "input_layernorm.weight"),
                          mlp_norm = layer_name(layer, "post_attention_layernorm.weight");
        const at::Tensor norm = folder.take(mixer_norm);
        if (spec.layout[size_t(layer)] == softmax_mixer)
            put_softmax(folder, spec, layer, norm);
        else
            put_linear(folder, spec, layer, norm);
        for (const char* part : {"mlp.gate_proj.weight", "mlp.up_proj.weight"})
            folder.put(layer_name(layer, part), folder.take(layer_name(layer, part)) * folder.take(mlp_norm));
        folder.copy(layer_name(layer, "mlp.down_proj.weight"), layer_name(layer, "mlp.down_proj.weight"));
        folder.put(mixer_norm, nothing);
        folder.put(mlp_norm, nothing);
    }
    if (c.tied_head) {  // folding would change the embedding
        put_minus_one(folder, "model.norm.weight");
    } else {
        folder.put("lm_head.weight", folder.take("lm_head.weight") * folder.take("model.norm.weight"));
        folder.put("model.norm.weight", nothing);
    }
    folder.finish(config_of(spec, folder.dtype()));
}

}  // namespace amalgam
