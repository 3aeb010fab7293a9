// SPDX-License-Identifier: Apache-2.0
// The names of an enumeration's values, written once. Reading, writing, lists of what is allowed and messages all take
// them from a table that stands beside the enumeration:
//
//     enum class Schedule { constant, cosine };
//     template <>
//     inline constexpr auto enum_names<Schedule> =
//         std::to_array<NamedValue<Schedule>>({{Schedule::constant, "constant"}, {Schedule::cosine, "cosine"}});
#pragma once

#include <array>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "system/error.h"

namespace amalgam {

template <class Enum>
struct NamedValue {
    Enum value;
    const char* name;
};

/// All values of `Enum` in the order in which people read them. Empty: the enumeration has no names.
template <class Enum>
inline constexpr std::array<NamedValue<Enum>, 0> enum_names = {};

/// A value that the table lacks is a mistake in the program (std::logic_error).
template <class Enum>
std::string name_of(Enum value) {
    static_assert(!enum_names<Enum>.empty(), "this enumeration has no table of names");
    for (const NamedValue<Enum>& named : enum_names<Enum>)
        if (named.value == value) return named.name;
    throw std::logic_error(text("value ", static_cast<long long>(value), " of an enumeration has no name"));
}

template <class Enum>
std::vector<std::string> names_of() {
    static_assert(!enum_names<Enum>.empty(), "this enumeration has no table of names");
    std::vector<std::string> names;
    for (const NamedValue<Enum>& named : enum_names<Enum>) names.emplace_back(named.name);
    return names;
}

/// Nothing if no value has this name.
template <class Enum>
std::optional<Enum> find_value(const std::string& name) {
    static_assert(!enum_names<Enum>.empty(), "this enumeration has no table of names");
    for (const NamedValue<Enum>& named : enum_names<Enum>)
        if (named.name == name) return named.value;
    return std::nullopt;
}

/// Throws Error(bad_input), which names `option` and lists all names, if no value has this one.
template <class Enum>
Enum value_named(const std::string& option, const std::string& name) {
    if (const std::optional<Enum> value = find_value<Enum>(name)) return *value;
    std::string all;
    for (const NamedValue<Enum>& named : enum_names<Enum>) all += (all.empty() ? "" : ", ") + std::string(named.name);
    throw Error(text(option, ": \"", name, "\" is not known (", all, ")"), ExitCode::bad_input);
}

}  // namespace amalgam
