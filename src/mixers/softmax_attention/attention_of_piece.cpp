// SPDX-License-Identifier: Apache-2.0
#include "mixers/softmax_attention/attention_of_piece.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

#include "mixers/sequence_pieces.h"
#include "operations/partial_attention.h"
#include "operations/products.h"

namespace amalgam {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::tensor_list;

at::Tensor summed(const at::Tensor& t) {
    return t.scalar_type() == at::kDouble ? t : t.to(at::kFloat);
}

/// Of one layer, on this rank. Ranks are taken the nearest first, as the protocol has it.
class SharedAttention {
  public:
    SharedAttention(ContextGroup& context, int64_t length, PartialAttention by)
        : context_(context), length_(length), by_(by) {
        for (int64_t rank = context.rank() - 1; rank >= 0; --rank) earlier_.push_back(rank);
        for (int64_t rank = context.rank() + 1; rank < context.ranks(); ++rank) later_.push_back(rank);
    }

    /// -> k and v before, o, log_sum, seed, offset.
    tensor_list forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const {
        const int64_t asked = asked_of(context_.rank()), time = q.size(2);
        if (!later_.empty()) send(at::stack({k, v}), later_);
        const std::vector<Arrival> keys = expect_keys(k);
        if (!earlier_.empty()) send(q.narrow(2, 0, asked).clone(at::MemoryFormat::Contiguous), earlier_);
        std::vector<Arrival> questions;
        for (const int64_t rank : later_)
            questions.push_back(context_.expect(with_time(q, asked_of(rank)), q.options(), rank));

        const Attended all = attend(by_, q, k, v, AttentionMask::causal);
        for (size_t i = 0; i < later_.size(); ++i) {
            const Attended found = attend(by_, taken(questions[i]), k, v, AttentionMask::none);
            context_.send(found.o, later_[i]);
            context_.send(found.log_sum, later_[i]);
        }
        if (earlier_.empty()) return {none(k), none(v), all.o, all.log_sum, all.seed, all.offset};

        const auto [k_before, v_before] = joined(keys);
        merge_into(all.narrow(asked, time - asked),
                   {attend(by_, q.narrow(2, asked, time - asked), k_before, v_before, AttentionMask::none)});
        // Not expected before: a GPU that waits for a message has multiprocessors occupied by that.
        const Attended first = all.narrow(0, asked);
        std::vector<Arrival> answers, log_sums;
        for (const int64_t rank : earlier_) {
            answers.push_back(context_.expect(first.o.sizes(), first.o.options(), rank));
            log_sums.push_back(context_.expect(first.log_sum.sizes(), first.log_sum.options(), rank));
        }
        std::vector<Attended> others;
        for (size_t i = 0; i < earlier_.size(); ++i) others.push_back({answers[i](), log_sums[i](), {}, {}});
        merge_into(first, others);
        return {k_before, v_before, all.o, all.log_sum, all.seed, all.offset};
    }

    AttendedGradients backward(const at::Tensor& d_o, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const at::Tensor& k_before, const at::Tensor& v_before, const Attended& all) const {
        const int64_t asked = asked_of(context_.rank()), time = q.size(2);
        if (!earlier_.empty()) {
            const auto first = [&](const at::Tensor& t) { return t.narrow(2, 0, asked); };
            const at::Tensor question = at::stack({first(q), first(d_o), first(all.o)}),
                             log_sum = first(all.log_sum).clone(at::MemoryFormat::Contiguous);
            for (const int64_t rank : earlier_) {
                context_.send(question, rank);
                context_.send(log_sum, rank);
            }
        }
        std::vector<Arrival> questions, log_sums;
        for (const int64_t rank : later_) {
            std::vector<int64_t> sizes = with_time(q, asked_of(rank));
            sizes.insert(sizes.begin(), 3);
            questions.push_back(context_.expect(sizes, q.options(), rank));
            sizes = with_time(all.log_sum, asked_of(rank));
            log_sums.push_back(context_.expect(sizes, all.log_sum.options(), rank));
        }

        // Parts are added before they are rounded.
        at::Tensor d_k, d_v;
        const auto add = [](at::Tensor& sum, const at::Tensor& part) {
            sum = sum.defined() ? sum.add_(part) : summed(part);
        };
        for (size_t i = 0; i < later_.size(); ++i) {
            const at::Tensor question = taken(questions[i]);
            const AttendedGradients found =
                attend_backward(by_, question[1], question[0], k, v, {question[2], log_sums[i](), all.seed, all.offset},
                                AttentionMask::none);
            context_.send(found.q, later_[i]);
            add(d_k, found.k);
            add(d_v, found.v);
        }

        AttendedGradients before;
        if (!earlier_.empty()) {
            const auto second = [&](const at::Tensor& t) { return t.narrow(2, asked, time - asked); };
            before = attend_backward(by_, second(d_o), second(q), k_before, v_before, all.narrow(asked, time - asked),
                                     AttentionMask::none);
        }
        // Expected before the last of this rank's work, during which they come.
        std::vector<Arrival> answers;
        for (const int64_t rank : earlier_) answers.push_back(context_.expect(with_time(q, asked), q.options(), rank));
        for (const int64_t rank : earlier_) {
            const SequencePiece piece = piece_of(rank);
            const auto part = [&](const at::Tensor& t) { return t.narrow(2, piece.first, piece.count); };
            context_.send(at::stack({part(before.k), part(before.v)}), rank);
        }
        std::vector<Arrival> of_later;
        for (const int64_t rank : later_)
            of_later.push_back(context_.expect({2, k.size(0), k.size(1), k.size(2), k.size(3)}, k.options(), rank));

        const AttendedGradients own = attend_backward(by_, d_o, q, k, v, all, AttentionMask::causal);
        add(d_k, own.k);
        add(d_v, own.v);
        for (const Arrival& arrival : of_later) {
            const at::Tensor part = arrival();
            d_k.add_(part[0]);
            d_v.add_(part[1]);
        }
        const at::Tensor d_q = own.q;
        if (!earlier_.empty()) {
            d_q.narrow(2, asked, time - asked).add_(before.q);
            const at::Tensor first = d_q.narrow(2, 0, asked);
            at::Tensor sum = summed(first);
            for (const Arrival& answer : answers) sum.add_(answer());
            first.copy_(sum);
        }
        return {d_q, d_k.to(k.scalar_type()), d_v.to(v.scalar_type())};
    }

  private:
    SequencePiece piece_of(int64_t rank) const { return sequence_piece(length_, context_.ranks(), rank); }
    /// Queries of a rank that go to the keys of earlier ones.
    int64_t asked_of(int64_t rank) const { return piece_of(rank).count / 2; }

    /// Leaves nothing that keeps its memory.
    static at::Tensor taken(Arrival& arrival) { return std::exchange(arrival, nullptr)(); }

    static std::vector<int64_t> with_time(const at::Tensor& t, int64_t time) {
        return {t.size(0), t.size(1), time, t.size(3)};
    }
    static at::Tensor none(const at::Tensor& t) { return t.new_empty(with_time(t, 0)); }

    void send(const at::Tensor& t, const std::vector<int64_t>& ranks) const {
        for (const int64_t rank : ranks) context_.send(t, rank);
    }

    std::vector<Arrival> expect_keys(const at::Tensor& k) const {
        std::vector<Arrival> keys;
        for (const int64_t rank : earlier_)
            keys.push_back(
                context_.expect({2, k.size(0), k.size(1), piece_of(rank).count, k.size(3)}, k.options(), rank));
        return keys;
    }

    /// Keys and values in the order of the sequence.
    static std::pair<at::Tensor, at::Tensor> joined(const std::vector<Arrival>& arrivals) {
        std::vector<at::Tensor> k, v;
        for (auto arrival = arrivals.rbegin(); arrival != arrivals.rend(); ++arrival) {
            const at::Tensor both = (*arrival)();
            k.push_back(both[0]);
            v.push_back(both[1]);
        }
        return {at::cat(k, 2), at::cat(v, 2)};
    }

    ContextGroup& context_;
    int64_t length_;
    PartialAttention by_;
    std::vector<int64_t> earlier_, later_;
};

struct AttentionOfPiece : Function<AttentionOfPiece> {
    static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              ContextGroup* context, int64_t length, PartialAttention by) {
        const tensor_list found = context->once([&] { return SharedAttention(*context, length, by).forward(q, k, v); });
        tensor_list saved = {q, k, v};
        saved.insert(saved.end(), found.begin(), found.end());
        ctx->save_for_backward(saved);
        ctx->saved_data["context"] = int64_t(reinterpret_cast<intptr_t>(context));  // groups outlive the passes
        ctx->saved_data["length"] = length;
        ctx->saved_data["by"] = int64_t(by);
        return found[2];
    }

    static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
        const auto saved = ctx->get_saved_variables();
        auto& context = *reinterpret_cast<ContextGroup*>(intptr_t(ctx->saved_data["context"].toInt()));
        const SharedAttention attention(context, ctx->saved_data["length"].toInt(),
                                        PartialAttention(ctx->saved_data["by"].toInt()));
        const AttendedGradients d = attention.backward(gradients[0], saved[0], saved[1], saved[2], saved[3], saved[4],
                                                       {saved[5], saved[6], saved[7], saved[8]});
        return {d.q, d.k, d.v, at::Tensor(), at::Tensor(), at::Tensor()};
    }
};

}  // namespace

at::Tensor attention_of_piece(ContextGroup& context, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              int64_t length) {
    // As causal_attention.
    if (is_widened(q)) {
        const auto wide = [](const at::Tensor& t) { return t.to(at::kFloat); };
        return attention_of_piece(context, wide(q), wide(k), wide(v), length).to(q.scalar_type());
    }
    return AttentionOfPiece::apply(q, k, v, &context, length, *partial_attention_of(q, k, v));
}

}  // namespace amalgam
