// SPDX-License-Identifier: Apache-2.0
// What the tests of the delta rules on CPUs ask of results. accepted_error(name, type) is the RMS(error) /
// RMS(reference) that a result of that name may have, describe(case) a line about a case.
#pragma once

#include <gtest/gtest.h>

#include <cmath>

#include "gated_delta_rule_case.h"

namespace amalgam::kernels {

template <class AcceptedError>
void expect_close(const NamedValues& results, const NamedValues& reference, ElementType type,
                  AcceptedError accepted_error) {
    for (const auto& [name, values] : results) {
        ASSERT_EQ(values.size(), reference.at(name).size()) << name;
        const double error = relative_error(values, reference.at(name));
        EXPECT_LE(error, accepted_error(name, type)) << name;
        EXPECT_FALSE(std::isnan(error)) << name;
    }
}

/// All variants and types against one reference a type, which takes longer than any of them.
template <class Case, class AcceptedError, class Describe>
void expect_close_in_all_variants(Case c, AcceptedError accepted_error, Describe describe) {
    for (const ElementType type : {ElementType::float32, ElementType::bfloat16}) {
        c.options.element_type = type;
        c.fill();
        const NamedValues reference = c.run_reference();
        for (const Isa isa : variants_of_delta_rules()) {
            const NamedValues results = c.run(isa, 2);
            SCOPED_TRACE(describe(c));
            expect_close(results, reference, type, accepted_error);
        }
    }
}

}  // namespace amalgam::kernels
