// SPDX-License-Identifier: Apache-2.0
#include "objectives/objective.h"

namespace amalgam {

std::vector<Parameter*> all_parameters(CausalLM& model) {
    std::vector<Parameter*> parameters;
    for (Parameter& p : model.parameters().all()) parameters.push_back(&p);
    return parameters;
}

}  // namespace amalgam
