// SPDX-License-Identifier: Apache-2.0
// Checkpoints of a model and an optimizer that one process has whole.
#pragma once

#include "checkpoints/checkpoint.h"
#include "optimizer/checkpoint_tensors.h"

namespace amalgam::test {

/// Without moments if `optimizer` is null.
inline void write_checkpoint(const std::filesystem::path& path, CausalLM& model, AdamW* optimizer,
                             const CheckpointState& state) {
    CheckpointHeader header{state, model.spec(), {}, {}};
    if (optimizer) header.optimizer_steps = optimizer->steps();
    CheckpointWriter writer(path, header, checkpoint_tensors(model, optimizer), Communicator());
    writer.write();
    writer.finish();
}

inline void load_optimizer(const Checkpoint& checkpoint, AdamW& optimizer) {
    optimizer.set_steps(checkpoint.optimizer_steps().value());
    std::vector<TensorPiece> moments;
    optimizer.for_each_moment([&](const std::string& name, at::Tensor exp_avg, at::Tensor exp_avg_sq) {
        moments.push_back(whole_tensor("/optimizer/exp_avg/" + name, exp_avg));
        moments.push_back(whole_tensor("/optimizer/exp_avg_sq/" + name, exp_avg_sq));
    });
    checkpoint.read_replicas(moments, Communicator());
}

}  // namespace amalgam::test
