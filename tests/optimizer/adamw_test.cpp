// SPDX-License-Identifier: Apache-2.0
#include "optimizer/adamw.h"

#include <gtest/gtest.h>

#include <set>

#include "../model/small_model.h"

namespace amalgam {
namespace {

OptimizerJob options() {
    OptimizerJob job;
    job.beta1 = 0.8;
    job.beta2 = 0.95;
    job.epsilon = 1e-6;
    job.weight_decay = 0.1;
    job.learning_rate = 3e-2;
    job.learning_rate_rest = 1e-2;
    return job;
}

/// A mixer's fused matrix and a norm of the rest.
struct Store {
    ParameterStore store;
    std::vector<Parameter*> parameters;
    explicit Store(at::ScalarType compute_type) {
        parameters.push_back(store.add_fused("fused", {{"q", 3}, {"k", 2}}, {7}, ParameterGroup::mixer, 0));
        parameters.push_back(store.add("norm", {7}, ParameterGroup::rest, 0, true));
        store.allocate(test::device(), compute_type, true);
        for (Parameter* p : parameters) p->master.copy_(test::normal_numbers(p->master.sizes(), 1, p->name));
        store.refresh_compute();
    }
};

void expect_formula(at::ScalarType compute_type) {
    const OptimizerJob job = options();
    Store s(compute_type);
    Gradients gradients(s.parameters, test::device(), false);
    for (Parameter* p : s.parameters) {
        at::Tensor w = p->master.to(at::kDouble), m = at::zeros_like(w), v = at::zeros_like(w);
        const double rate = p->group == ParameterGroup::mixer ? *job.learning_rate : *job.learning_rate_rest;
        AdamW alone({p}, job);
        for (int step = 1; step <= 5; ++step) {
            const double rate_factor = 1.0 / step, gradient_factor = 0.5;
            const at::Tensor g = test::normal_numbers(p->shape, uint64_t(step), p->name);
            gradients.clear();
            gradients.add(*p, g);
            alone.step(gradients, rate_factor, gradient_factor, 1);

            const at::Tensor scaled = g.to(at::kDouble) * gradient_factor;
            m = job.beta1 * m + (1.0 - job.beta1) * scaled;
            v = job.beta2 * v + (1.0 - job.beta2) * scaled * scaled;
            const at::Tensor m_hat = m / (1.0 - std::pow(job.beta1, step)),
                             v_hat = v / (1.0 - std::pow(job.beta2, step));
            w = w * (1.0 - rate_factor * rate * job.weight_decay) -
                rate_factor * rate * m_hat / (at::sqrt(v_hat) + job.epsilon);
            EXPECT_LT(test::relative_error(p->master, w), 1e-6) << p->name << " after " << step;
        }
        EXPECT_EQ(alone.steps(), 5);
        EXPECT_TRUE(at::equal(p->compute.detach(), p->master.to(p->compute.scalar_type()))) << p->name;
    }
}

TEST(AdamW, is_the_formula) {
    expect_formula(at::kFloat);
}

TEST(AdamW, keeps_bfloat16_copies_up_to_date) {
    expect_formula(at::kBFloat16);
}

TEST(AdamW, moments_have_the_names_of_pieces) {
    Store s(at::kFloat);
    AdamW optimizer(s.parameters, options());
    Gradients gradients(s.parameters, test::device(), false);
    at::Tensor g = at::zeros({5, 7}, test::on_device(at::kFloat));
    g.narrow(0, 3, 2).fill_(2.0);  // the piece k
    gradients.add(*s.parameters[0], g);
    optimizer.step(gradients, 1.0, 1.0, 1);
    std::set<std::string> names;
    optimizer.for_each_moment([&](const std::string& name, at::Tensor exp_avg, at::Tensor exp_avg_sq) {
        names.insert(name);
        const double expected = name == "k" ? 2.0 * (1.0 - 0.8) : 0.0, expected_sq = name == "k" ? 4.0 * 0.05 : 0.0;
        EXPECT_LT((exp_avg - expected).abs().max().item<double>(), 1e-6) << name;
        EXPECT_LT((exp_avg_sq - expected_sq).abs().max().item<double>(), 1e-6) << name;
    });
    EXPECT_EQ(names, (std::set<std::string>{"q", "k", "norm"}));
}

TEST(Schedule, warms_up_and_falls) {
    OptimizerJob job;
    job.warmup_steps = 4;
    job.final_fraction = 0.1;
    for (const std::string& name : names_of<Schedule>()) {
        job.schedule = *find_value<Schedule>(name);
        EXPECT_DOUBLE_EQ(schedule_factor(job, 0, 24), 0.25) << name;
        EXPECT_DOUBLE_EQ(schedule_factor(job, 3, 24), 1.0) << name;
        EXPECT_DOUBLE_EQ(schedule_factor(job, 4, 24), 1.0) << name;
    }
    job.schedule = Schedule::constant;
    EXPECT_DOUBLE_EQ(schedule_factor(job, 23, 24), 1.0);
    job.schedule = Schedule::linear;
    EXPECT_DOUBLE_EQ(schedule_factor(job, 14, 24), 0.1 + 0.9 * 0.5);
    EXPECT_DOUBLE_EQ(schedule_factor(job, 24, 24), 0.1);
    job.schedule = Schedule::cosine;
    EXPECT_DOUBLE_EQ(schedule_factor(job, 14, 24), 0.1 + 0.9 * 0.5);
    EXPECT_NEAR(schedule_factor(job, 9, 24), 0.1 + 0.9 * 0.5 * (1.0 + std::sqrt(0.5)), 1e-12);
    EXPECT_NEAR(schedule_factor(job, 24, 24), 0.1, 1e-12);
}

TEST(Schedule, warmup_stable_decay_falls_at_the_end_alone) {
    OptimizerJob job;
    job.schedule = Schedule::warmup_stable_decay;
    job.warmup_steps = 4;
    job.decay_fraction = 0.25;
    job.final_fraction = 0.1;
    for (int64_t step = 4; step <= 30; ++step) EXPECT_DOUBLE_EQ(schedule_factor(job, step, 40), 1.0) << step;
    EXPECT_DOUBLE_EQ(schedule_factor(job, 35, 40), 0.1 + 0.9 * 0.5);
    EXPECT_DOUBLE_EQ(schedule_factor(job, 40, 40), 0.1);
    job.decay_fraction = 1.0;  // begins after the warm-up all the same
    EXPECT_DOUBLE_EQ(schedule_factor(job, 4, 40), 1.0);
    EXPECT_LT(schedule_factor(job, 5, 40), 1.0);
    job.decay_fraction = 0.0;
    EXPECT_DOUBLE_EQ(schedule_factor(job, 39, 40), 1.0);
}

TEST(Schedule, the_longer_warmup_counts) {
    OptimizerJob job;
    job.warmup_steps = 2;
    job.warmup_fraction = 0.1;
    EXPECT_DOUBLE_EQ(schedule_factor(job, 0, 40), 0.25);
    EXPECT_DOUBLE_EQ(schedule_factor(job, 0, 10), 0.5);
    job.warmup_steps = 0;
    EXPECT_DOUBLE_EQ(schedule_factor(job, 0, 4), 1.0) << "too few steps to rise in";
}

TEST(Schedule, works_without_warmup) {
    OptimizerJob job;
    job.schedule = Schedule::cosine;
    EXPECT_DOUBLE_EQ(schedule_factor(job, 0, 10), 1.0);
    EXPECT_DOUBLE_EQ(schedule_factor(job, 0, 1), 1.0);
}

}  // namespace
}  // namespace amalgam
