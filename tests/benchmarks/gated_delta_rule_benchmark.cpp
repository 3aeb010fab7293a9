// SPDX-License-Identifier: Apache-2.0
// Times the gated delta rule, or Kimi Delta Attention, on this machine's CPU. Prints one line per kernel variant:
//     VARIANT forward_ns forward_backward_ns decode_ns
// each the median over repetitions, per token and head. The inputs of repetitions lie in different memory, so that no
// cache holds them from the repetition before.
//
// usage: gated_delta_rule_benchmark [BATCH TIME HEADS DIM bf16|fp32 THREADS REPETITIONS silu|plain [gdn|kda [VARIANT]]]

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/gated_delta_rule/gated_delta_rule.h"
#include "kernels/kimi_delta_attention/kimi_delta_attention.h"

namespace {

using namespace amalgam::kernels;

struct GatedDeltaRule {
    using Options = GatedDeltaRuleOptions;
    static constexpr auto workspace_bytes = gated_delta_rule_workspace_bytes;
    static constexpr auto forward = gated_delta_rule_forward;
    static constexpr auto backward = gated_delta_rule_backward;
    static constexpr auto decode = gated_delta_rule_decode;
    /// Raw gates of a token and head.
    static int64_t gates(const GatedDeltaRuleShape&) { return 1; }
};

struct KimiDeltaAttention {
    using Options = KimiDeltaAttentionOptions;
    static constexpr auto workspace_bytes = kimi_delta_attention_workspace_bytes;
    static constexpr auto forward = kimi_delta_attention_forward;
    static constexpr auto backward = kimi_delta_attention_backward;
    static constexpr auto decode = kimi_delta_attention_decode;
    static int64_t gates(const GatedDeltaRuleShape& shape) { return shape.key_dim; }
};

struct Problem {
    GatedDeltaRuleShape shape;
    KimiDeltaAttentionOptions options;  // those of the other rule are among them
    int repetitions;
};

struct Aligned {
    explicit Aligned(size_t size)
        : data(static_cast<std::byte*>(std::aligned_alloc(64, (size + 63) / 64 * 64)), &std::free) {
        std::memset(data.get(), 0, size);
    }
    std::unique_ptr<std::byte, decltype(&std::free)> data;
};

double median(std::vector<double> x) {
    std::nth_element(x.begin(), x.begin() + static_cast<long>(x.size() / 2), x.end());
    return x[x.size() / 2];
}

template <class Task>
double seconds(Task task) {
    const auto start = std::chrono::steady_clock::now();
    task();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void fill_random(std::byte* data, int64_t n, ElementType type, std::mt19937& random) {
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < n; ++i) {
        const float x = normal(random);
        if (type == ElementType::float32) {
            std::memcpy(data + i * 4, &x, 4);
        } else {
            std::memcpy(data + i * 2, reinterpret_cast<const char*>(&x) + 2, 2);
        }
    }
}

/// Buffers of one repetition: the fused projection [q | k | v | a | b] and its gradient, output and its gradient.
struct Buffers {
    Buffers(const Problem& p, int64_t gates, std::mt19937& random)
        : width(p.shape.heads * (2 * p.shape.key_dim + p.shape.value_dim + gates + 1)),
          element_bytes(p.options.element_type == ElementType::float32 ? 4 : 2),
          fused(p.shape.batch * p.shape.time * width * element_bytes),
          fused_gradient(p.shape.batch * p.shape.time * width * element_bytes),
          o(p.shape.batch * p.shape.time * p.shape.heads * p.shape.value_dim * element_bytes),
          o_gradient(p.shape.batch * p.shape.time * p.shape.heads * p.shape.value_dim * element_bytes) {
        const int64_t tokens = p.shape.batch * p.shape.time;
        fill_random(fused.data.get(), tokens * width, p.options.element_type, random);
        fill_random(o_gradient.data.get(), tokens * p.shape.heads * p.shape.value_dim, p.options.element_type, random);
        const int64_t key = p.shape.heads * p.shape.key_dim;
        const int64_t value = p.shape.heads * p.shape.value_dim;
        const int64_t starts[] = {0, key, 2 * key, 2 * key + value, 2 * key + value + p.shape.heads * gates};
        for (int i = 0; i < 5; ++i) {
            read[i] = {fused.data.get() + starts[i] * element_bytes, width};
            write[i] = {fused_gradient.data.get() + starts[i] * element_bytes, width};
        }
    }
    int64_t width;
    int64_t element_bytes;
    Aligned fused, fused_gradient, o, o_gradient;
    ConstRows read[5];
    Rows write[5];
};

template <class Rule>
void time_variant(Problem p, Isa isa) {
    p.options.isa = isa;
    const typename Rule::Options options = p.options;
    const int64_t gates = Rule::gates(p.shape);
    std::mt19937 random(1);
    constexpr int n_buffers = 3;
    std::vector<Buffers> buffers;
    for (int i = 0; i < n_buffers; ++i) buffers.emplace_back(p, gates, random);
    const std::vector<float> A_log(p.shape.heads, 0.0F);
    const std::vector<float> dt_bias(p.shape.heads * gates, -2.0F);
    std::vector<float> A_log_gradient(p.shape.heads);
    std::vector<float> dt_bias_gradient(p.shape.heads * gates);
    Aligned workspace(Rule::workspace_bytes(p.shape, options));
    std::vector<float> state(p.shape.batch * p.shape.heads * p.shape.key_dim * p.shape.value_dim);

    std::vector<double> forward;
    std::vector<double> both;
    std::vector<double> decode;
    for (int i = 0; i < p.repetitions; ++i) {
        Buffers& b = buffers[i % n_buffers];
        const GatedDeltaRuleInputs inputs{b.read[0], b.read[1],    b.read[2],      b.read[3],
                                          b.read[4], A_log.data(), dt_bias.data(), nullptr};
        const GatedDeltaRuleOutputs outputs{b.o.data.get(), nullptr};
        forward.push_back(seconds([&] { Rule::forward(p.shape, options, inputs, outputs, nullptr); }));
        both.push_back(seconds([&] {
            Rule::forward(p.shape, options, inputs, outputs, workspace.data.get());
            Rule::backward(p.shape, options, inputs, b.o_gradient.data.get(), nullptr, workspace.data.get(),
                           {b.write[0], b.write[1], b.write[2], b.write[3], b.write[4], A_log_gradient.data(),
                            dt_bias_gradient.data(), nullptr});
        }));
        GatedDeltaRuleShape one = p.shape;
        one.time = 1;
        decode.push_back(seconds([&] { Rule::decode(one, options, inputs, state.data(), b.o.data.get()); }));
    }
    const double heads = static_cast<double>(p.shape.batch * p.shape.heads);
    const double tokens = heads * static_cast<double>(p.shape.time);
    std::printf("%s %.1f %.1f %.1f\n", std::string(isa_name(isa)).c_str(), median(forward) / tokens * 1e9,
                median(both) / tokens * 1e9, median(decode) / heads * 1e9);
}

}  // namespace

int main(int argc, char** argv) {
    const auto number = [&](int i, int standard) { return i < argc ? std::atoi(argv[i]) : standard; };
    const auto word = [&](int i, const char* standard) { return std::string(i < argc ? argv[i] : standard); };
    Problem p{};
    p.shape = {number(1, 4), number(2, 2048), number(3, 9), number(4, 64), number(4, 64)};
    p.options.element_type = word(5, "bf16") == "fp32" ? ElementType::float32 : ElementType::bfloat16;
    p.options.threads = number(6, 2);
    p.repetitions = number(7, 15);
    p.options.silu = word(8, "plain") == "silu";
    const auto time = word(9, "gdn") == "kda" ? time_variant<KimiDeltaAttention> : time_variant<GatedDeltaRule>;
    const std::string wanted = word(10, "");
    for (Isa isa : supported_isas()) {
        if (wanted.empty() ? isa != Isa::reference : isa_name(isa) == wanted) time(p, isa);
    }
    return 0;
}
