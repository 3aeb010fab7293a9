// SPDX-License-Identifier: Apache-2.0
#include "mixers/context_exchange.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "mixers/sequence_pieces.h"

namespace amalgam {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::tensor_list;

/// Groups outlive the passes over them.
void keep_in(AutogradContext* ctx, ContextGroup* context) {
    ctx->saved_data["context"] = int64_t(reinterpret_cast<intptr_t>(context));
}

ContextGroup& kept_in(AutogradContext* ctx) {
    return *reinterpret_cast<ContextGroup*>(intptr_t(ctx->saved_data["context"].toInt()));
}

/// Of a few tokens of many, to be sent: what is on the way is kept, and the many would be with it.
at::Tensor copied(const at::Tensor& t) {
    return t.clone(at::MemoryFormat::Contiguous);
}

struct InputsBefore : Function<InputsBefore> {
    static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, ContextGroup* context, int64_t count) {
        keep_in(ctx, context);
        ctx->saved_data["count"] = count;
        const std::vector<int64_t> sizes = {x.size(0), count, x.size(2)};
        const tensor_list before = context->once([&]() -> tensor_list {
            if (!context->is_last()) context->send(copied(x.narrow(1, x.size(1) - count, count)), context->rank() + 1);
            return {context->is_first() ? at::zeros(sizes, x.options())
                                        : context->receive(sizes, x.options(), context->rank() - 1)};
        });
        return at::cat({before[0], x}, 1);
    }

    static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
        ContextGroup& context = kept_in(ctx);
        const int64_t count = ctx->saved_data["count"].toInt();
        const at::Tensor& d = gradients[0];
        if (!context.is_first()) context.send(copied(d.narrow(1, 0, count)), context.rank() - 1);
        at::Tensor dx = d.narrow(1, count, d.size(1) - count);
        if (!context.is_last()) {
            dx = dx.clone(at::MemoryFormat::Contiguous);
            at::Tensor last = dx.narrow(1, dx.size(1) - count, count);
            last.add_(context.receive(last.sizes(), last.options(), context.rank() + 1));
        }
        return {dx, at::Tensor(), at::Tensor()};
    }
};

struct ReceiveState : Function<ReceiveState> {
    static tensor_list forward(AutogradContext* ctx, const at::Tensor& input, ContextGroup* context,
                               at::IntArrayRef sizes, at::ScalarType type) {
        keep_in(ctx, context);
        const tensor_list state = context->once([&]() -> tensor_list {
            return {context->receive(sizes, input.options().dtype(type), context->rank() - 1)};
        });
        return {input, state[0]};
    }

    static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
        ContextGroup& context = kept_in(ctx);
        context.send(gradients[1], context.rank() - 1);
        return {gradients[0], at::Tensor(), at::Tensor(), at::Tensor()};
    }
};

struct SendState : Function<SendState> {
    static at::Tensor forward(AutogradContext* ctx, const at::Tensor& mixed, const at::Tensor& state,
                              ContextGroup* context) {
        keep_in(ctx, context);
        ctx->saved_data["sizes"] = state.sizes();
        ctx->saved_data["type"] = state.scalar_type();
        context->once([&]() -> tensor_list {
            context->send(state, context->rank() + 1);
            return {};
        });
        return mixed;
    }

    static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
        ContextGroup& context = kept_in(ctx);
        const at::TensorOptions like = gradients[0].options().dtype(ctx->saved_data["type"].toScalarType());
        return {gradients[0], context.receive(ctx->saved_data["sizes"].toIntVector(), like, context.rank() + 1),
                at::Tensor()};
    }
};

/// Tokens [first, end).
struct Span {
    int64_t first, end;
    int64_t count() const { return std::max<int64_t>(end - first, 0); }
};

/// Who has which keys, and who sees which of them.
struct SharedKeys {
    ContextGroup& context;
    int64_t length;
    std::vector<int64_t> first_seen;  // by rank

    SequencePiece piece(int64_t rank) const { return sequence_piece(length, context.ranks(), rank); }
    /// Keys of the piece of `owner` that those of `reader`, a later rank, see.
    Span seen(int64_t owner, int64_t reader) const {
        return {std::max(piece(owner).first, first_seen[size_t(reader)]), piece(owner).end()};
    }
    /// The same as places within the piece of this rank.
    Span own_seen(int64_t reader) const {
        const Span span = seen(context.rank(), reader);
        const int64_t first = piece(context.rank()).first;
        return {span.first - first, span.end - first};
    }
};

struct KeysBefore : Function<KeysBefore> {
    /// -> k, v, and those before.
    static tensor_list forward(AutogradContext* ctx, const at::Tensor& k, const at::Tensor& v, ContextGroup* context,
                               int64_t length, const std::vector<int64_t>& first_seen) {
        keep_in(ctx, context);
        ctx->saved_data["length"] = length;
        ctx->saved_data["first_seen"] = first_seen;
        const tensor_list before = context->once([&] { return exchange({*context, length, first_seen}, k, v); });
        return {k, v, before[0], before[1]};
    }

    static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
        ContextGroup& context = kept_in(ctx);
        const SharedKeys shared{context, ctx->saved_data["length"].toInt(),
                                ctx->saved_data["first_seen"].toIntVector()};
        // The nearest rank first: it is the first to wait.
        int64_t end = gradients[2].size(2);
        for (int64_t rank = context.rank() - 1; rank >= 0; --rank) {
            const int64_t count = shared.seen(rank, context.rank()).count();
            if (count == 0) continue;
            end -= count;
            context.send(at::stack({gradients[2].narrow(2, end, count), gradients[3].narrow(2, end, count)}), rank);
        }
        const at::Tensor own = at::stack({gradients[0], gradients[1]});
        // Several ranks' parts are added before they are rounded.
        at::Tensor sum = own.scalar_type() == at::kDouble ? own : own.to(at::kFloat);
        for (int64_t rank = context.rank() + 1; rank < context.ranks(); ++rank) {
            const Span span = shared.own_seen(rank);
            if (span.count() == 0) continue;
            at::Tensor part = sum.narrow(3, span.first, span.count());
            part.add_(context.receive(part.sizes(), own.options(), rank));
        }
        sum = sum.to(own.scalar_type());
        return {sum.select(0, 0), sum.select(0, 1), at::Tensor(), at::Tensor(), at::Tensor()};
    }

  private:
    /// -> k and v before.
    static tensor_list exchange(const SharedKeys& shared, const at::Tensor& k, const at::Tensor& v) {
        ContextGroup& context = shared.context;
        at::Tensor both;
        for (int64_t rank = context.rank() + 1, count = -1; rank < context.ranks(); ++rank) {
            const Span span = shared.own_seen(rank);
            if (span.count() == 0) continue;
            // Several later ranks may see the same.
            if (span.count() != count)
                both = at::stack({k.narrow(2, span.first, span.count()), v.narrow(2, span.first, span.count())});
            count = span.count();
            context.send(both, rank);
        }
        std::vector<at::Tensor> before = {k.new_empty({2, k.size(0), k.size(1), 0, k.size(3)})};
        for (int64_t rank = context.rank() - 1; rank >= 0; --rank)
            if (const Span span = shared.seen(rank, context.rank()); span.count() > 0)
                before.push_back(
                    context.receive({2, k.size(0), k.size(1), span.count(), k.size(3)}, k.options(), rank));
        std::reverse(before.begin(), before.end());
        const auto part = [&](int64_t i) {
            std::vector<at::Tensor> of_ranks;
            for (const at::Tensor& both : before) of_ranks.push_back(both.select(0, i));
            return at::cat(of_ranks, 2);
        };
        return {part(0), part(1)};
    }
};

}  // namespace

at::Tensor with_inputs_before(ContextGroup& context, const at::Tensor& x, int64_t count) {
    return InputsBefore::apply(x, &context, count);
}

EnteringState receive_state(ContextGroup& context, const at::Tensor& input, at::IntArrayRef sizes) {
    const at::ScalarType type = input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    if (context.is_first()) return {input, at::zeros(sizes, input.options().dtype(type))};
    const tensor_list both = ReceiveState::apply(input, &context, sizes, type);
    return {both[0], both[1]};
}

at::Tensor send_state(ContextGroup& context, const MixedPiece& piece) {
    return context.is_last() ? piece.mixed : SendState::apply(piece.mixed, piece.state, &context);
}

KeysAndValues with_keys_before(ContextGroup& context, const at::Tensor& k, const at::Tensor& v, int64_t length,
                               const std::vector<int64_t>& first_seen) {
    const tensor_list all = KeysBefore::apply(k, v, &context, length, first_seen);
    return {all[0], all[1], all[2], all[3]};
}

}  // namespace amalgam
