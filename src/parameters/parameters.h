// SPDX-License-Identifier: Apache-2.0
// The parameters of a model: fp32 masters, which the optimizer updates and checkpoints keep, and the tensors that the
// forward pass reads, in the compute type. Projections of the same input are one parameter (one matrix product); its
// pieces keep the names that the world knows them by.
//
// Words: a `piece` is a run of elements of one tensor or parameter, whoever has it (TensorPiece, ShardPiece); a `shard`
// is what sharding leaves a rank of a flat buffer of parameters; a `chunk` is a number of tokens that are computed
// together.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <vector>

namespace amalgam {

/// Learning rates differ by group (the paper's stage 2: 1e-4 for mixers, 7e-6 for the rest).
enum class ParameterGroup { mixer, rest };

/// Rows [first, first + rows) of a fused parameter, under their own global name.
struct Piece {
    std::string name;
    int64_t first, rows;
};

struct Parameter {
    std::string name;
    std::vector<int64_t> shape;
    ParameterGroup group = ParameterGroup::rest;
    int64_t layer = -1;           // -1: outside the blocks
    bool full_precision = false;  // norms, gates: computed in fp32 whatever the compute type
    bool in_mixer = false;        // of the mixer itself, not of the norm before it
    std::vector<Piece> pieces;    // empty: the parameter is its own only piece
    at::Tensor master;            // fp32; undefined in a frozen model
    at::Tensor compute;           // leaf; is `master` itself where the types agree

    int64_t elements() const;
};

/// The compute tensor of a parameter that not every model has; undefined without one.
inline at::Tensor compute_if_there(const Parameter* parameter) {
    return parameter ? parameter->compute : at::Tensor();
}

class ParameterStore {
  public:
    Parameter* add(const std::string& name, std::vector<int64_t> shape, ParameterGroup group, int64_t layer,
                   bool full_precision = false);
    /// Several matrices (or biases) of the same input, stacked by rows: pieces of {name, rows}.
    Parameter* add_fused(const std::string& name, const std::vector<std::pair<std::string, int64_t>>& pieces,
                         std::vector<int64_t> trailing_shape, ParameterGroup group, int64_t layer);

    /// Gives every parameter its tensors, uninitialised. A trainable store has masters and gradients.
    void allocate(at::Device device, at::ScalarType compute_type, bool trainable);

    /// Copies masters to compute tensors where these differ.
    void refresh_compute();

    /// Every named tensor: its name and the rows of its parameter's master (compute tensor in a frozen store).
    void for_each_named(const std::function<void(const std::string&, at::Tensor, Parameter&)>& visit);

    std::deque<Parameter>& all() { return parameters_; }
    int64_t elements() const;
    bool trainable() const { return trainable_; }

  private:
    std::deque<Parameter> parameters_;  // addresses stay
    bool trainable_ = false;
};

}  // namespace amalgam
