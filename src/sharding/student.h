// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "sharding/sharded_model.h"

namespace amalgam {

/// A student in training: whole on every rank, or with shards.
struct Student {
    std::unique_ptr<CausalLM> model;
    std::unique_ptr<ShardedModel> shards;  // null: whole
};

}  // namespace amalgam
