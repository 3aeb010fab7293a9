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

/// expect(results, reference, type) of all variants and types: one reference a type, which takes longer than any
/// variant.
template <class Case, class Describe, class Expect>
void in_all_variants(Case c, int threads, Describe describe, Expect expect) {
    for (const ElementType type : {ElementType::float32, ElementType::bfloat16}) {
        c.options.element_type = type;
        c.fill();
        const NamedValues reference = c.run_reference();
        for (const Isa isa : variants_of_delta_rules()) {
            const NamedValues results = c.run(isa, threads);
            SCOPED_TRACE(describe(c));
            expect(results, reference, type);
        }
    }
}

template <class Case, class AcceptedError, class Describe>
void expect_close_in_all_variants(const Case& c, AcceptedError accepted_error, Describe describe) {
    in_all_variants(c, 2, describe, [&](const NamedValues& results, const NamedValues& reference, ElementType type) {
        expect_close(results, reference, type, accepted_error);
    });
}

/// Where gates forget nearly all, their own gradients are made of terms below what bf16 products keep apart from
/// rounding; the other results must still be right, and all must be finite.
template <class Case, class AcceptedError, class Describe>
void expect_finite_in_all_variants(const Case& c, AcceptedError accepted_error, Describe describe) {
    in_all_variants(c, 1, describe, [&](const NamedValues& results, const NamedValues& reference, ElementType type) {
        for (const char* name : {"o", "dq", "dk", "dv", "db", "final_state"})
            EXPECT_LE(relative_error(results.at(name), reference.at(name)), accepted_error(name, type)) << name;
        for (const auto& [name, values] : results)
            for (const double value : values) ASSERT_TRUE(std::isfinite(value)) << name;
    });
}

}  // namespace amalgam::kernels
