// SPDX-License-Identifier: Apache-2.0
// What transformers' Qwen3_5ForCausalLM computes from what was written (modeling_qwen3_5.py), in plain operations of
// LibTorch and fp32: nothing here is shared with the modules that the student runs in. Shapes: tokens T, heads h,
// channels d of a head.
#include <ATen/ATen.h>

#include <cmath>

#include "exports/export_check.h"
#include "specification/rope_parameters.h"

namespace amalgam {
namespace {

class Qwen3_5Reader {
  public:
    Qwen3_5Reader(const TensorSource& written, const nlohmann::json& config)
        : written_(written),
          config_(config),
          heads_(config.at("num_attention_heads")),
          key_value_heads_(config.at("num_key_value_heads")),
          dim_(config.at("head_dim")),
          eps_(config.at("rms_norm_eps")) {}

    at::Tensor logits(const at::Tensor& tokens) {
        at::Tensor x = at::embedding(take("model.embed_tokens.weight"), tokens[0]);
        const auto types = config_.at("layer_types").get<std::vector<std::string>>();
        for (size_t i = 0; i < types.size(); ++i) {
            prefix_ = layer_prefix(int64_t(i));
            const at::Tensor normed = norm(x, take(prefix_ + "input_layernorm.weight"));
            x = x + (types[i] == "full_attention" ? full_attention(normed) : linear_attention(normed));
            const at::Tensor y = norm(x, take(prefix_ + "post_attention_layernorm.weight"));
            const at::Tensor gate = at::silu(project(y, "mlp.gate_proj", false));
            x = x + project(gate * project(y, "mlp.up_proj", false), "mlp.down_proj", false);
        }
        x = norm(x, take("model.norm.weight"));
        const bool tied = config_.at("tie_word_embeddings");
        return at::linear(x, take(tied ? "model.embed_tokens.weight" : "lm_head.weight")).unsqueeze(0);
    }

  private:
    at::Tensor take(const std::string& name) const {
        const auto found = written_.find(name);
        if (!found) throw Error(text("export: tensor ", name, " was not written"));
        return found->to(at::kFloat);
    }

    at::Tensor project(const at::Tensor& x, const std::string& part, bool bias) const {
        return at::linear(x, take(prefix_ + part + ".weight"), bias ? take(prefix_ + part + ".bias") : at::Tensor());
    }

    at::Tensor norm(const at::Tensor& x, const at::Tensor& weight) const {
        return x * at::rsqrt(x.square().mean(-1, /*keepdim=*/true) + eps_) * (1.0 + weight);
    }

    at::Tensor rotated(const at::Tensor& x) const {  // [T, h, d]
        const RopeConfig rope = parse_rope(ConfigKeys(config_, "config.json"), config_.at("max_position_embeddings"));
        const RotaryTables tables = rotary_tables(rope, dim_, 0, x.size(0), at::kCPU);
        const auto halves = x.chunk(2, -1);
        return x * tables.cos.unsqueeze(1) + at::cat({-halves[1], halves[0]}, -1) * tables.sin.unsqueeze(1);
    }

    at::Tensor full_attention(const at::Tensor& x) const {
        const bool bias = config_.at("attention_bias");
        const int64_t time = x.size(0);
        const auto query_gate = project(x, "self_attn.q_proj", bias).view({time, heads_, 2 * dim_}).chunk(2, -1);
        const auto keys_or_values = [&](const char* part) {
            return project(x, part, bias).view({time, key_value_heads_, dim_});
        };
        const auto by_head = [&](const at::Tensor& t) {  // -> [h, T, d]
            return t.repeat_interleave(heads_ / t.size(1), 1).transpose(0, 1);
        };
        const at::Tensor q = by_head(rotated(norm(query_gate[0], take(prefix_ + "self_attn.q_norm.weight"))));
        const at::Tensor k =
            by_head(rotated(norm(keys_or_values("self_attn.k_proj"), take(prefix_ + "self_attn.k_norm.weight"))));
        const at::Tensor v = by_head(keys_or_values("self_attn.v_proj"));
        const at::Tensor future = at::ones({time, time}, at::kBool).triu(1);
        const at::Tensor scores = at::matmul(q, k.transpose(1, 2)) / std::sqrt(double(dim_));
        const at::Tensor mixed = at::matmul(scores.masked_fill(future, -INFINITY).softmax(-1), v).transpose(0, 1);
        return project((mixed * query_gate[1].sigmoid()).reshape({time, heads_ * dim_}), "self_attn.o_proj", bias);
    }

    at::Tensor linear_attention(const at::Tensor& x) const {
        const int64_t time = x.size(0);
        const at::Tensor inputs = project(x, "linear_attn.in_proj_qkv", false);  // [T, 3 h d]
        const at::Tensor taps = take(prefix_ + "linear_attn.conv1d.weight").squeeze(1);
        const at::Tensor padded = at::constant_pad_nd(inputs, {0, 0, taps.size(1) - 1, 0});
        at::Tensor convolved = at::zeros_like(inputs);
        for (int64_t i = 0; i < taps.size(1); ++i) convolved += padded.narrow(0, i, time) * taps.select(1, i);
        const auto qkv = at::silu(convolved).view({time, 3, heads_, dim_}).unbind(1);
        const auto unit = [](const at::Tensor& t) { return t * at::rsqrt(t.square().sum(-1, true) + 1e-6); };
        const at::Tensor q = unit(qkv[0]) / std::sqrt(double(dim_)), k = unit(qkv[1]), v = qkv[2];
        const at::Tensor beta = project(x, "linear_attn.in_proj_b", false).sigmoid();  // [T, h]
        const at::Tensor step = project(x, "linear_attn.in_proj_a", false) + take(prefix_ + "linear_attn.dt_bias");
        const at::Tensor decay = at::exp(-take(prefix_ + "linear_attn.A_log").exp() * at::softplus(step));

        at::Tensor state = at::zeros({heads_, dim_, dim_}), outputs = at::empty({time, heads_, dim_});
        for (int64_t t = 0; t < time; ++t) {
            state = state * decay[t].view({-1, 1, 1});
            const at::Tensor known = (state * k[t].unsqueeze(-1)).sum(1);
            state = state + k[t].unsqueeze(-1) * ((v[t] - known) * beta[t].unsqueeze(-1)).unsqueeze(1);
            outputs[t] = (state * q[t].unsqueeze(-1)).sum(1);
        }
        const at::Tensor gate = at::silu(project(x, "linear_attn.in_proj_z", false)).view({time, heads_, dim_});
        outputs =
            outputs * at::rsqrt(outputs.square().mean(-1, true) + eps_) * take(prefix_ + "linear_attn.norm.weight");
        return project((outputs * gate).reshape({time, heads_ * dim_}), "linear_attn.out_proj", false);
    }

    const TensorSource& written_;
    const nlohmann::json& config_;
    int64_t heads_, key_value_heads_, dim_;
    double eps_;
    std::string prefix_;  // of the layer at hand
};

}  // namespace

at::Tensor logits_of_qwen3_5(const TensorSource& written, const nlohmann::json& config, const ModelSpec&,
                             const at::Tensor& tokens) {
    return Qwen3_5Reader(written, config).logits(tokens);
}

}  // namespace amalgam
