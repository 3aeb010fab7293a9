// SPDX-License-Identifier: Apache-2.0
// Skips the tests where the variant named by the environment variable AMALGAM_ISA cannot run.
#include <gtest/gtest.h>

#include <stdexcept>

#include "kernels/isa/isa.h"

namespace {

class IsaEnvironment : public testing::Environment {
  public:
    void SetUp() override {
        try {
            amalgam::kernels::resolve_isa(amalgam::kernels::Isa::automatic);
        } catch (const std::invalid_argument& error) {
            GTEST_SKIP() << error.what();
        }
    }
};

[[maybe_unused]] const auto* environment = testing::AddGlobalTestEnvironment(new IsaEnvironment);

}  // namespace
