// SPDX-License-Identifier: Apache-2.0
// Parameters of one type laid one behind the other in one flat buffer, cut evenly over the ranks of a group. This rank
// keeps its shard; the whole buffer exists only from allocate() to release(). Compute tensors are views of it and stay
// valid in saved graphs: the storage is the same, only its memory comes and goes.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "parameters/parameters.h"

namespace amalgam {

/// The piece of a parameter that this rank's shard has. At most one of each.
struct ShardPiece {
    Parameter* parameter;
    int64_t in_parameter, in_shard, count;  // first elements, and how many
};

class FlatParameters {
  public:
    /// Gives the parameters their compute tensors, of `type`. `trainable`: the shard is the fp32 master, else it has
    /// `type`. The shard is not filled.
    FlatParameters(std::vector<Parameter*> parameters, at::ScalarType type, at::Device device, int64_t ranks,
                   int64_t rank, bool trainable);

    const std::vector<Parameter*>& parameters() const { return parameters_; }
    const std::vector<ShardPiece>& pieces() const { return pieces_; }
    /// The shard's piece of `parameter`; no elements if it has none.
    ShardPiece piece_of(const Parameter& parameter) const;
    /// The first element of a parameter in the flat buffer.
    int64_t first_of(const Parameter& parameter) const;

    int64_t elements() const { return elements_; }  // of all ranks, padding included
    int64_t shard_elements() const { return per_rank_; }
    at::Tensor shard() const { return shard_; }

    bool is_allocated() const { return allocated_; }
    void allocate();
    void release();
    /// The flat buffer [elements], outside autograd: writing it does not count as a change of the compute tensors.
    at::Tensor data() const;
    /// This rank's shard of data().
    at::Tensor own_data() const;

  private:
    std::vector<Parameter*> parameters_;
    std::vector<int64_t> firsts_;
    std::vector<ShardPiece> pieces_;
    int64_t elements_ = 0, per_rank_ = 0, rank_;
    at::Tensor whole_, shard_;
    bool allocated_ = true;
};

/// Calls `visit` for every named tensor of a parameter: its name, its shape, its first element within the parameter.
void for_each_named_piece(
    const Parameter& parameter,
    const std::function<void(const std::string& name, std::vector<int64_t> shape, int64_t first)>& visit);

}  // namespace amalgam
