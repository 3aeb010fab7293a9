// SPDX-License-Identifier: Apache-2.0
#include "system/enum_names.h"

#include <gtest/gtest.h>

namespace amalgam {
namespace {

enum class Fruit { apple, pear, unnamed };

}  // namespace

template <>
inline constexpr auto enum_names<Fruit> = std::to_array<NamedValue<Fruit>>({{Fruit::pear, "Pear"},
                                                                            {Fruit::apple, "apple"}});

namespace {

TEST(EnumNames, go_both_ways) {
    for (const Fruit fruit : {Fruit::apple, Fruit::pear}) {
        EXPECT_EQ(find_value<Fruit>(name_of(fruit)), fruit);
        EXPECT_EQ(value_named<Fruit>("fruit", name_of(fruit)), fruit);
    }
    EXPECT_EQ(name_of(Fruit::pear), "Pear");
}

TEST(EnumNames, are_listed_as_the_table_has_them) {
    EXPECT_EQ(names_of<Fruit>(), (std::vector<std::string>{"Pear", "apple"}));
}

TEST(EnumNames, unknown_names_are_refused_with_all_that_are_known) {
    for (const std::string name : {"", "pear", "apple ", "unnamed"}) {
        EXPECT_EQ(find_value<Fruit>(name), std::nullopt) << name;
        try {
            value_named<Fruit>("--fruit", name);
            ADD_FAILURE() << "\"" << name << "\" is taken";
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ExitCode::bad_input);
            EXPECT_EQ(std::string(error.what()), "--fruit: \"" + name + "\" is not known (Pear, apple)");
        }
    }
}

TEST(EnumNames, a_value_without_a_name_is_a_mistake_in_the_program) {
    EXPECT_THROW(name_of(Fruit::unnamed), std::logic_error);
}

}  // namespace
}  // namespace amalgam
