// SPDX-License-Identifier: Apache-2.0
#include "objectives/chunked_losses.h"

#include <ATen/ATen.h>

#include <functional>

#include "job/training_plan.h"
#include "operations/kernel_calls.h"
#include "operations/kernel_views.h"
#include "operations/products.h"

namespace amalgam {
namespace {

int64_t chunk_tokens(int64_t asked, int64_t models, const at::Tensor& head) {
    return asked > 0 ? asked : automatic_loss_chunk(models, head);
}

/// Calls `work(first, count)` for consecutive ranges of at most `chunk` tokens.
void for_each_chunk(int64_t tokens, int64_t chunk, const std::function<void(int64_t, int64_t)>& work) {
    for (int64_t first = 0; first < tokens; first += chunk) work(first, std::min(chunk, tokens - first));
}

/// Adds up losses on their device; the sum is read once, since reading waits for the device.
class LossSum {
  public:
    explicit LossSum(at::Device device) : sum_(at::zeros({}, at::TensorOptions(device).dtype(at::kDouble))) {}
    void add(const at::Tensor& losses) { sum_.add_(losses.sum(at::kDouble)); }
    double read() const { return sum_.item<double>(); }

  private:
    at::Tensor sum_;
};

/// Loss per token; student logits become weight * gradient.
at::Tensor kl_with_gradient(at::Tensor& student, const at::Tensor& teacher, double temperature, double weight) {
    if (runs_on_kernels(student)) {
        at::Tensor loss = at::empty({student.size(0)}, student.options().dtype(at::kFloat));
        kernels::KlDivergenceGradient call{};
        call.type = element_type(student);
        call.rows = student.size(0);
        call.vocabulary = student.size(1);
        call.temperature = float(temperature);
        call.gradient_weight = float(weight);
        call.student = rows(student, 1);
        call.teacher = const_rows(teacher, 1);
        call.loss = loss.data_ptr<float>();
        run(student, call);
        return loss;
    }
    const auto log_softmax = [&](const at::Tensor& logits) {
        const at::Tensor wide = logits.to(at::kFloat);
        return at::log_softmax(temperature == 1.0 ? wide : wide / temperature, -1);
    };
    // In place: every temporary is a pass over tokens * vocabulary numbers.
    at::Tensor log_s = log_softmax(student), log_t = log_softmax(teacher);
    const at::Tensor p_t = log_t.exp();
    const at::Tensor loss = log_t.sub_(log_s).mul_(p_t).sum(-1) * (temperature * temperature);
    student.copy_(log_s.exp_().sub_(p_t).mul_(temperature * weight));
    return loss;
}

at::Tensor kl(const at::Tensor& student, const at::Tensor& teacher) {
    if (runs_on_kernels(student)) {
        at::Tensor loss = at::empty({student.size(0)}, student.options().dtype(at::kFloat));
        kernels::KlDivergence call{};
        call.type = element_type(student);
        call.rows = student.size(0);
        call.vocabulary = student.size(1);
        call.temperature = 1.0F;
        call.student = const_rows(student, 1);
        call.teacher = const_rows(teacher, 1);
        call.loss = loss.data_ptr<float>();
        run(student, call);
        return loss;
    }
    const at::Tensor log_s = at::log_softmax(student.to(at::kFloat), -1),
                     log_t = at::log_softmax(teacher.to(at::kFloat), -1);
    return (log_t.exp() * (log_t - log_s)).sum(-1);
}

at::Tensor cross_entropy_with_gradient(at::Tensor& logits, const at::Tensor& targets, double weight) {
    if (runs_on_kernels(logits)) {
        at::Tensor loss = at::empty({logits.size(0)}, logits.options().dtype(at::kFloat));
        kernels::CrossEntropyGradient call{};
        call.type = element_type(logits);
        call.rows = logits.size(0);
        call.vocabulary = logits.size(1);
        call.gradient_weight = float(weight);
        call.logits = rows(logits, 1);
        call.targets = targets.const_data_ptr<int64_t>();
        call.loss = loss.data_ptr<float>();
        run(logits, call);
        return loss;
    }
    const at::Tensor log_p = at::log_softmax(logits.to(at::kFloat), -1);
    const at::Tensor counted = targets.ge(0).to(at::kFloat), target = targets.clamp_min(0).unsqueeze(-1);
    at::Tensor gradient = log_p.exp();
    gradient.scatter_add_(-1, target, at::full(target.sizes(), -1.0, gradient.options()));
    logits.copy_(gradient * counted.unsqueeze(-1) * weight);
    return -log_p.gather(-1, target).squeeze(-1) * counted;
}

/// dX = dlogits W, and dW += dlogits^T X.
void add_head_gradients(const at::Tensor& d_logits, const at::Tensor& hidden, const at::Tensor& head,
                        const at::Tensor& d_hidden, at::Tensor& d_head) {
    multiply_into(d_hidden, d_logits, head);
    if (!d_head.defined()) return;
    if (d_head.is_cuda() && d_head.scalar_type() != hidden.scalar_type()) {
        // The product of bf16 matrices is added to the fp32 sum where it is made.
        at::addmm_out(d_head, d_head, d_logits.t(), hidden, d_head.scalar_type());
        return;
    }
    multiply_into(d_head, d_logits.t(), hidden, /*add=*/true);
}

}  // namespace

int64_t automatic_loss_chunk(int64_t models, const at::Tensor& head) {
    return automatic_loss_chunk(head.device().is_cpu(), models * head.size(0) * head.element_size());
}

LossAndGradient chunked_kl_divergence(const at::Tensor& student_hidden, const at::Tensor& student_head,
                                      const at::Tensor& teacher_hidden, const at::Tensor& teacher_head,
                                      double temperature, double weight, int64_t chunk, at::Tensor d_head) {
    LossAndGradient result{0.0, at::empty_like(student_hidden)};
    LossSum loss(student_hidden.device());
    for_each_chunk(student_hidden.size(0), chunk_tokens(chunk, 2, student_head), [&](int64_t first, int64_t count) {
        const auto hidden = student_hidden.narrow(0, first, count);
        at::Tensor student = linear_map(hidden, student_head);
        const at::Tensor teacher = linear_map(teacher_hidden.narrow(0, first, count), teacher_head);
        loss.add(kl_with_gradient(student, teacher, temperature, weight));
        add_head_gradients(student, hidden, student_head, result.d_hidden.narrow(0, first, count), d_head);
    });
    result.loss = loss.read();
    return result;
}

LossAndGradient chunked_cross_entropy(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets,
                                      double weight, int64_t chunk, at::Tensor d_head) {
    LossAndGradient result{0.0, at::empty_like(hidden)};
    LossSum loss(hidden.device());
    for_each_chunk(hidden.size(0), chunk_tokens(chunk, 1, head), [&](int64_t first, int64_t count) {
        const auto part = hidden.narrow(0, first, count);
        at::Tensor logits = linear_map(part, head);
        loss.add(cross_entropy_with_gradient(logits, targets.narrow(0, first, count), weight));
        add_head_gradients(logits, part, head, result.d_hidden.narrow(0, first, count), d_head);
    });
    result.loss = loss.read();
    return result;
}

at::Tensor token_kl_divergence(const at::Tensor& student_hidden, const at::Tensor& student_head,
                               const at::Tensor& teacher_hidden, const at::Tensor& teacher_head, int64_t chunk) {
    at::Tensor losses = at::empty({student_hidden.size(0)}, student_hidden.options().dtype(at::kFloat));
    for_each_chunk(student_hidden.size(0), chunk_tokens(chunk, 2, student_head), [&](int64_t first, int64_t count) {
        losses.narrow(0, first, count)
            .copy_(kl(linear_map(student_hidden.narrow(0, first, count), student_head),
                      linear_map(teacher_hidden.narrow(0, first, count), teacher_head)));
    });
    return losses;
}

TokenLosses token_cross_entropy(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets,
                                int64_t chunk) {
    TokenLosses result{at::empty({hidden.size(0)}, hidden.options().dtype(at::kFloat)),
                       at::empty({hidden.size(0)}, hidden.options().dtype(at::kByte))};
    for_each_chunk(hidden.size(0), chunk_tokens(chunk, 1, head), [&](int64_t first, int64_t count) {
        const at::Tensor logits = linear_map(hidden.narrow(0, first, count), head);
        const at::Tensor target = targets.narrow(0, first, count);
        if (runs_on_kernels(logits)) {
            kernels::CrossEntropy call{};
            call.type = element_type(logits);
            call.rows = count;
            call.vocabulary = logits.size(1);
            call.logits = const_rows(logits, 1);
            call.targets = target.const_data_ptr<int64_t>();
            call.loss = result.loss.data_ptr<float>() + first;
            call.correct = result.correct.data_ptr<uint8_t>() + first;
            run(logits, call);
            return;
        }
        const at::Tensor counted = target.ge(0);
        const at::Tensor log_p = at::log_softmax(logits.to(at::kFloat), -1);
        result.loss.narrow(0, first, count)
            .copy_(-log_p.gather(-1, target.clamp_min(0).unsqueeze(-1)).squeeze(-1) * counted);
        result.correct.narrow(0, first, count).copy_(log_p.argmax(-1).eq(target));
    });
    return result;
}

}  // namespace amalgam
