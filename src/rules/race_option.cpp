// SPDX-License-Identifier: Apache-2.0
#include "rules/race_option.h"

namespace amalgam {

const Option& race_option() {
    static const Option option = {
        .name = "race_errors",
        .default_value = 0.0,
        .unit = "",
        .description =
            "swaps, removal_rounds, addition_rounds: a set that is worse than the best one of its size so far by so "
            "many standard errors of the difference, after a part of text and questions, is measured no further; 0: "
            "all are measured to the end",
        .range = {.low = 0}};
    return option;
}

double race_errors(const Options& options) {
    double errors = 0.0;
    read_option(options, race_option().name, errors);
    return errors;
}

}  // namespace amalgam
