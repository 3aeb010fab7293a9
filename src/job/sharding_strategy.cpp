// SPDX-License-Identifier: Apache-2.0
#include "job/sharding_strategy.h"

#include "system/error.h"

namespace amalgam {

ShardingStrategy parse_sharding_strategy(const std::string& name) {
    for (const auto strategy :
         {ShardingStrategy::none, ShardingStrategy::optimizer, ShardingStrategy::full, ShardingStrategy::hybrid})
        if (name == describe(strategy)) return strategy;
    throw Error(text("sharding.strategy: \"", name, "\" is not known (none, optimizer, full, hybrid, auto)"),
                ExitCode::bad_input);
}

std::string describe(ShardingStrategy strategy) {
    switch (strategy) {
        case ShardingStrategy::none:
            return "none";
        case ShardingStrategy::optimizer:
            return "optimizer";
        case ShardingStrategy::full:
            return "full";
        case ShardingStrategy::hybrid:
            return "hybrid";
    }
    throw Error("unknown sharding strategy");
}

}  // namespace amalgam
