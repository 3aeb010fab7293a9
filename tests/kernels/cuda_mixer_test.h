// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the tests of the linear mixers' CUDA kernels share: random cases of one head dimension, run on the GPU and by
// the fp64 recurrence. Skipped where there is no GPU.

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "activations.h"
#include "device_block.h"

namespace amalgam::kernels {

template <class Case>
class CudaMixer : public testing::TestWithParam<int64_t> {
  protected:
    /// `accepted_error` gives RMS(error) / RMS(reference) of a result, over all cases of a test.
    explicit CudaMixer(double (*accepted_error)(const std::string& name)) : accepted_error_(accepted_error) {}

    void SetUp() override {
        int devices = 0;
        if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) GTEST_SKIP() << "no GPU";
    }

    Case make_case(int64_t batch, int64_t time, int64_t heads) const {
        Case c;
        c.shape = {batch, time, heads, GetParam(), GetParam()};
        c.options.element_type = ElementType::bfloat16;
        return c;
    }

    /// Runs a case by `run_cuda` and by the recurrence, and keeps both results for the comparison at the test's end.
    template <class RunCuda>
    void keep(Case& c, RunCuda run_cuda) {
        c.seed = ++cases_;
        c.fill();
        const NamedValues reference = c.run_reference(), results = run_cuda(c);
        EXPECT_EQ(results.size(), reference.size() - (c.with_states ? 0 : 1));
        for (const auto& [name, values] : results) {
            ASSERT_EQ(values.size(), reference.at(name).size()) << name;
            for (double value : values) ASSERT_TRUE(std::isfinite(value)) << name;
            results_[name].insert(results_[name].end(), values.begin(), values.end());
            reference_[name].insert(reference_[name].end(), reference.at(name).begin(), reference.at(name).end());
        }
    }

    void TearDown() override {
        for (const auto& [name, values] : results_) {
            const double error = relative_error(values, reference_.at(name));
            RecordProperty("error of " + name, std::to_string(error));
            EXPECT_LE(error, accepted_error_(name)) << name;
        }
    }

  private:
    double (*accepted_error_)(const std::string& name);
    unsigned cases_ = 0;
    NamedValues results_, reference_;
};

}  // namespace amalgam::kernels
