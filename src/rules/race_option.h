// SPDX-License-Identifier: Apache-2.0
// select.race_errors, the key of all rules whose candidates may leave before they are measured to the end
// (selection/early_exit.h).
#pragma once

#include "options/options.h"

namespace amalgam {

const Option& race_option();

/// Of a rule's options; 0, too, where they lack the key: then all candidates are measured to the end.
double race_errors(const Options& options);

}  // namespace amalgam
