// SPDX-License-Identifier: Apache-2.0
#include "rules/selection_rule.h"

#include <algorithm>
#include <stdexcept>

#include "system/error.h"

namespace amalgam {

// Each in the file of its name; both kinds of rounds in rounds.cpp.
std::vector<SelectionRule> one_layer_rules();
SelectionRule removal_rounds_rule();
SelectionRule addition_rounds_rule();
SelectionRule joint_gates_rule();
SelectionRule swaps_rule();
SelectionRule uniform_rule();
SelectionRule random_rule();
SelectionRule explicit_rule();
SelectionRule all_linear_rule();

const std::vector<SelectionRule>& selection_rules() {
    static const std::vector<SelectionRule> rules = [] {
        std::vector<SelectionRule> all = one_layer_rules();
        for (const SelectionRule& rule :
             {removal_rounds_rule(), addition_rounds_rule(), joint_gates_rule(), swaps_rule(), uniform_rule(),
              random_rule(), explicit_rule(), all_linear_rule()})
            all.push_back(rule);
        return all;
    }();
    return rules;
}

const SelectionRule& selection_rule(const std::string& name) {
    std::string known;
    for (const SelectionRule& rule : selection_rules()) {
        if (rule.name == name) return rule;
        known += (known.empty() ? "" : ", ") + rule.name;
    }
    throw Error(text("select.rule: \"", name, "\" is not known (", known, ")"), ExitCode::bad_input);
}

std::vector<Option> options_of(const std::vector<SelectionRule>& rules) {
    std::vector<Option> all;
    for (const SelectionRule& rule : rules)
        for (const Option& option : rule.options) {
            const auto before =
                std::find_if(all.begin(), all.end(), [&](const Option& one) { return one.name == option.name; });
            if (before == all.end())
                all.push_back(option);
            else if (*before != option)
                throw std::logic_error("rule " + rule.name + " declares select." + option.name +
                                       " in another way than a rule before it");
        }
    return all;
}

}  // namespace amalgam
