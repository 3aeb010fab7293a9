// SPDX-License-Identifier: Apache-2.0
#include "kernels/elementwise/blocks.h"
#include "kernels/elementwise/exponential.h"
#include "kernels/silu_convolution/silu_convolution.h"

namespace amalgam::kernels::AMALGAM_ISA {
namespace {

constexpr int tile = 4;  // tokens that share one load of the weights

// Rows of one sequence, continued into the past by the initial state or by zeros.
template <class T>
struct Inputs {
    ConstRows x;
    const T* state;
    const T* zeros;
    std::int64_t first_token;
    std::int64_t channels;
    int past;

    const T* operator()(std::int64_t t) const {
        if (t >= 0) return row_of<T>(x, first_token + t);
        return state != nullptr ? state + (t + past) * channels : zeros;
    }
};

// Whose state a sequence has; negative: nobody's.
std::int64_t slot_of(const SiluConvolutionForward& a, std::int64_t sequence) {
    return a.slot != nullptr ? a.slot[sequence] : sequence;
}
std::int64_t slot_of(const SiluConvolutionBackward&, std::int64_t sequence) {
    return sequence;
}

template <class T, class Arguments>
Inputs<T> inputs_of(const Arguments& a, std::int64_t sequence, const T* zeros) {
    const int past = a.taps - 1;
    const std::int64_t slot = slot_of(a, sequence);
    const T* state = slot < 0 ? nullptr : static_cast<const T*>(a.initial_state);
    if (state != nullptr) state += slot * past * a.channels;
    return {a.x, state, zeros, sequence * a.time, a.channels, past};
}

// float32 [taps, channels] of weight [channels, taps]: vectors run over the channels.
void transpose_weight(const float* weight, std::int64_t channels, int taps, float* transposed) {
    for (std::int64_t c = 0; c < channels; ++c)
        for (int j = 0; j < taps; ++j) transposed[j * channels + c] = weight[c * taps + j];
}

// `count` successive tokens: inputs[k] is the row of token k - (taps - 1).
template <int taps, int count, class T>
void forward_tile(const T* const* inputs, T* const* outputs, const float* weight, std::int64_t channels, bool silu) {
    for_each_vector(channels, [&](std::int64_t i, auto part) {
        Vector w[taps];
        for (int j = 0; j < taps; ++j) w[j] = load(weight + j * channels + i, part);
        Vector x[taps - 1 + count];
        for (int k = 0; k < taps - 1 + count; ++k) x[k] = load(inputs[k] + i, part);
#pragma GCC unroll 4
        for (int r = 0; r < count; ++r) {
            Vector u = w[0] * x[r];
            for (int j = 1; j < taps; ++j) u = fma(w[j], x[r + j], u);
            store(outputs[r] + i, silu ? u * accurate_sigmoid(u) : u, part);
        }
    });
}

template <int taps, class T>
void forward_block(const SiluConvolutionForward& a, const Inputs<T>& input, const float* weight, std::int64_t begin,
                   std::int64_t end) {
    for (std::int64_t t = begin; t < end; t += tile) {
        const int count = static_cast<int>(end - t < tile ? end - t : tile);
        const T* inputs[taps - 1 + tile];
        T* outputs[tile];
        for (int k = 0; k < taps - 1 + count; ++k) inputs[k] = input(t + k - (taps - 1));
        for (int r = 0; r < count; ++r) outputs[r] = row_of<T>(a.y, input.first_token + t + r);
        if (count == tile) {
            forward_tile<taps, tile>(inputs, outputs, weight, a.channels, a.silu);
        } else {
            for (int r = 0; r < count; ++r) {
                forward_tile<taps, 1>(inputs + r, outputs + r, weight, a.channels, a.silu);
            }
        }
    }
}

// One token of the backward: what it reads, and where its results go.
template <class T>
struct BackwardToken {
    const T* y_gradient;  // null beyond the end of the sequence, where du = 0
    T* x_gradient;        // of the token taps - 1 earlier, which this token's du completes; null if not of this block
    bool in_block;        // else another block adds its part of the weight gradient
};

// `count` successive tokens. `carried` [taps - 1, channels] holds the du of the tokens before them, oldest first.
template <int taps, int count, class T>
void backward_tile(const T* const* inputs, const BackwardToken<T>* tokens, const float* weight, std::int64_t channels,
                   bool silu, float* carried, float* weight_gradient) {
    constexpr int past = taps - 1;
    for_each_vector(channels, [&](std::int64_t i, auto part) {
        Vector w[taps], dw[taps], x[past + count], du[past + count];
        for (int j = 0; j < taps; ++j) w[j] = load(weight + j * channels + i, part);
        for (int j = 0; j < taps; ++j) dw[j] = load(weight_gradient + j * channels + i, part);
        for (int k = 0; k < past; ++k) x[k] = load(inputs[k] + i, part);
        for (int k = 0; k < past; ++k) du[k] = load(carried + k * channels + i, part);
#pragma GCC unroll 4  // keeps the windows of x and du in registers
        for (int r = 0; r < count; ++r) {
            const int now = past + r;
            x[now] = zero();
            du[now] = zero();
            if (tokens[r].y_gradient != nullptr) {
                x[now] = load(inputs[now] + i, part);
                du[now] = load(tokens[r].y_gradient + i, part);
                if (silu) {
                    Vector u = w[0] * x[r];
                    for (int j = 1; j < taps; ++j) u = fma(w[j], x[r + j], u);
                    const Vector sigmoid = accurate_sigmoid(u);
                    du[now] = du[now] * fma(u * sigmoid, broadcast(1.0F) - sigmoid, sigmoid);
                }
            }
            if (tokens[r].in_block) {
                for (int j = 0; j < taps; ++j) dw[j] = fma(du[now], x[r + j], dw[j]);
            }
            if (tokens[r].x_gradient != nullptr) {
                Vector dx = w[0] * du[now];
                for (int j = 1; j < taps; ++j) dx = fma(w[j], du[now - j], dx);
                store(tokens[r].x_gradient + i, dx, part);
            }
        }
        for (int j = 0; j < taps; ++j) store(weight_gradient + j * channels + i, dw[j], part);
        for (int k = 0; k < past; ++k) store(carried + k * channels + i, du[count + k], part);
    });
}

template <int taps, class T>
void backward_block(const SiluConvolutionBackward& a, const Inputs<T>& input, const float* weight, std::int64_t begin,
                    std::int64_t end, float* carried, float* weight_gradient) {
    constexpr int past = taps - 1;
    std::memset(carried, 0, sizeof(float) * past * a.channels);
    std::memset(weight_gradient, 0, sizeof(float) * taps * a.channels);
    // The last tokens of the block need the du of the first `past` tokens after it.
    for (std::int64_t t = begin; t < end + past; t += tile) {
        const int count = static_cast<int>(end + past - t < tile ? end + past - t : tile);
        const T* inputs[past + tile];
        BackwardToken<T> tokens[tile];
        for (int k = 0; k < past + count; ++k) inputs[k] = t + k - past < a.time ? input(t + k - past) : input.zeros;
        for (int r = 0; r < count; ++r) {
            const std::int64_t now = t + r;
            tokens[r].y_gradient = now < a.time ? row_of<T>(a.y_gradient, input.first_token + now) : nullptr;
            tokens[r].x_gradient =
                now - past >= begin ? row_of<T>(a.x_gradient, input.first_token + now - past) : nullptr;
            tokens[r].in_block = now < end;
        }
        if (count == tile) {
            backward_tile<taps, tile>(inputs, tokens, weight, a.channels, a.silu, carried, weight_gradient);
        } else {
            for (int r = 0; r < count; ++r) {
                backward_tile<taps, 1>(inputs + r, tokens + r, weight, a.channels, a.silu, carried, weight_gradient);
            }
        }
    }
}

// The last taps - 1 rows of the sequence, in ascending order, so that the initial state may lie in the same memory.
template <class T>
void write_final_state(const SiluConvolutionForward& a, const Inputs<T>& input, std::int64_t sequence) {
    const std::int64_t slot = slot_of(a, sequence);
    if (slot < 0) return;
    T* state = static_cast<T*>(a.final_state) + slot * input.past * a.channels;
    for (int k = 0; k < input.past; ++k) {
        std::memmove(state + k * a.channels, input(a.time - input.past + k), sizeof(T) * a.channels);
    }
}

// Calls body with the number of taps as a compile-time constant.
template <class Body>
void with_taps(int taps, Body&& body) {
    if (taps == 2) body(std::integral_constant<int, 2>{});
    if (taps == 3) body(std::integral_constant<int, 3>{});
    if (taps == 4) body(std::integral_constant<int, 4>{});
}

template <class T>
void run_forward(const SiluConvolutionForward& a, int threads) {
    const Blocks blocks = blocks_of(a.time, 64);
    const Scratch<T> zeros(a.channels);
    std::memset(static_cast<void*>(zeros.get()), 0, sizeof(T) * a.channels);
    const Scratch<float> weight(a.taps * a.channels);
    transpose_weight(a.weight, a.channels, a.taps, weight.get());
    with_taps(a.taps, [&](auto taps) {
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
        for (std::int64_t sequence = 0; sequence < a.batch; ++sequence) {
            for (std::int64_t block = 0; block < blocks.count; ++block) {
                const Inputs<T> input = inputs_of<T>(a, sequence, zeros.get());
                forward_block<decltype(taps)::value>(a, input, weight.get(), block * blocks.size,
                                                     blocks.end(block, a.time));
            }
        }
    });
    if (a.final_state == nullptr) return;
    for (std::int64_t sequence = 0; sequence < a.batch; ++sequence) {
        write_final_state(a, inputs_of<T>(a, sequence, zeros.get()), sequence);
    }
}

template <class T>
void run_backward(const SiluConvolutionBackward& a, int threads) {
    const Blocks blocks = blocks_of(a.time, 64);
    const Scratch<T> zeros(a.channels);
    std::memset(static_cast<void*>(zeros.get()), 0, sizeof(T) * a.channels);
    const std::int64_t weight_size = a.taps * a.channels;
    const Scratch<float> weight(weight_size);
    transpose_weight(a.weight, a.channels, a.taps, weight.get());
    const Scratch<float> carried(a.batch * blocks.count * (a.taps - 1) * a.channels);
    const Scratch<float> partial(a.batch * blocks.count * weight_size);
    with_taps(a.taps, [&](auto taps) {
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
        for (std::int64_t sequence = 0; sequence < a.batch; ++sequence) {
            for (std::int64_t block = 0; block < blocks.count; ++block) {
                const Inputs<T> input = inputs_of<T>(a, sequence, zeros.get());
                const std::int64_t index = sequence * blocks.count + block;
                backward_block<decltype(taps)::value>(
                    a, input, weight.get(), block * blocks.size, blocks.end(block, a.time),
                    carried.get() + index * (a.taps - 1) * a.channels, partial.get() + index * weight_size);
            }
        }
    });
    if (a.weight_gradient == nullptr) return;
    const Scratch<float> total(weight_size);
    sum_blocks(partial.get(), a.batch * blocks.count, weight_size, total.get());
    for (std::int64_t c = 0; c < a.channels; ++c) {
        for (int j = 0; j < a.taps; ++j) a.weight_gradient[c * a.taps + j] = total.get()[j * a.channels + c];
    }
}

}  // namespace

void silu_convolution_forward(const SiluConvolutionForward& a, int threads) {
    with_element_type(a.type,
                      [&](auto* element) { run_forward<std::remove_pointer_t<decltype(element)>>(a, threads); });
}

void silu_convolution_backward(const SiluConvolutionBackward& a, int threads) {
    with_element_type(a.type,
                      [&](auto* element) { run_backward<std::remove_pointer_t<decltype(element)>>(a, threads); });
}

}  // namespace amalgam::kernels::AMALGAM_ISA
