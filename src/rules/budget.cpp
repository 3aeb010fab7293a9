// SPDX-License-Identifier: Apache-2.0
#include "rules/budget.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "rules/selection_rule.h"
#include "system/error.h"

namespace amalgam {

namespace {

constexpr size_t most_digits = 9;  // no model has more layers than an int32 can count

const std::string automatic = "auto";

bool is_whole_number(const std::string& word) {
    const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
    return !word.empty() && word.size() <= most_digits && std::all_of(word.begin(), word.end(), is_digit);
}

std::string rules_with_an_order() {
    std::string names;
    for (const SelectionRule& rule : selection_rules())
        if (rule.order) names += (names.empty() ? "" : ", ") + rule.name;
    return names;
}

}  // namespace

const Option& budget_option() {
    static const Option budget = {.name = "budget",
                                  .default_value = "25%",
                                  .unit = "layers",
                                  .description =
                                      "kept softmax layers: a count (7) or a ratio (25%, 0.25); auto: as "
                                      "few as reach recall_at_least and kl_at_most"};
    return budget;
}

bool is_automatic(const Options& options) {
    return option<std::string>(options, "budget") == automatic;
}

int64_t kept_layers(const std::string& budget, int64_t layers) {
    require(budget != automatic,
            "select.budget is auto but the rule has no order of the layers from which as many as are needed could be "
            "kept (",
            rules_with_an_order(),
            " have) write a count such as 7, or a "
            "ratio such as 25%");
    const bool percent = budget.ends_with("%");
    const bool ratio = !percent && budget.find('.') != std::string::npos;
    const std::string number = percent ? budget.substr(0, budget.size() - 1) : budget;
    double value = -1;
    const auto [end, error] =
        std::from_chars(number.data(), number.data() + number.size(), value, std::chars_format::fixed);
    const bool is_number = error == std::errc() && end == number.data() + number.size() && std::isfinite(value);
    const bool is_count = percent || ratio || is_whole_number(number);
    require(is_number && is_count && value >= 0, "select.budget is \"", budget,
            "\" (how many layers keep softmax?) write a count such as 7, or a ratio such as 25% or 0.25");
    if (percent) value /= 100;
    if (percent || ratio) {
        require(value <= 1, "select.budget is \"", budget, "\", more than all layers (a ratio is at most 100% or 1.0)",
                ratio ? " a count has no decimal point" : "");
        return static_cast<int64_t>(std::floor(value * static_cast<double>(layers) + 0.5));
    }
    require(value <= static_cast<double>(layers), "select.budget is ", budget, " but the teacher has ", layers,
            " layers (no more than all can keep softmax) give at most ", layers);
    return static_cast<int64_t>(value);
}

int64_t kept_by_budget(const Options& options, int64_t layers) {
    return kept_layers(option<std::string>(options, "budget"), layers);
}

}  // namespace amalgam
