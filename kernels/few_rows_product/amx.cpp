// SPDX-License-Identifier: Apache-2.0
// The product in bfloat16 with AMX, as y^T = W x^T: a tile of weights, 16 outputs x 32 inputs, is loaded straight from
// their rows, and meets 16 rows of x in the time of one. The weights that follow are fetched meanwhile into the second
// cache, in the order in which they lie: so the processor foresees what follows.
#include <immintrin.h>

#include <memory>

#include "kernels/elementwise/elements.h"
#include "kernels/few_rows_product/few_rows_product.h"
#include "kernels/isa/operand.h"
#include "kernels/isa/row_of.h"

namespace amalgam::kernels::AMALGAM_ISA {
namespace {

constexpr int side = 16;             // rows of a tile, and 32-bit words of one of its rows
constexpr int depth = 2 * side;      // inputs that a tile of weights or of x has
constexpr int outputs = 2 * side;    // of two tiles of weights, which are multiplied together
constexpr int most_rows = 2 * side;  // of x, likewise: four tiles of sums
constexpr int row_bytes = 4 * side;

struct alignas(64) Tile {
    std::uint8_t rows[side][row_bytes];
};

/// Compilers need not know that loads into tile registers read memory: stores neither pass this line nor are left out.
inline void keep_order(const Tile* tile) {
    asm volatile("" ::"r"(tile) : "memory");
}

/// The tile registers of this thread, all of whole tiles. Once they are released the system need not save them.
class TileRegisters {
  public:
    TileRegisters() { _tile_loadconfig(&whole_tiles); }
    ~TileRegisters() { _tile_release(); }
    TileRegisters(const TileRegisters&) = delete;
    TileRegisters& operator=(const TileRegisters&) = delete;

  private:
    struct alignas(64) Configuration {
        std::uint8_t palette, start_row, reserved[14];
        std::uint16_t row_bytes[16];
        std::uint8_t rows[16];
    };
    static constexpr Configuration whole_tiles = {
        1,
        0,
        {},
        {row_bytes, row_bytes, row_bytes, row_bytes, row_bytes, row_bytes, row_bytes, row_bytes},
        {side, side, side, side, side, side, side, side}};
};

std::int64_t tiles_of(std::int64_t count, int size) {
    return (count + size - 1) / size;
}

/// The first `count` of 32 elements, zero after them.
__m512i load_elements(const Bfloat16* from, std::int64_t count) {
    if (count >= depth) return _mm512_loadu_si512(from);
    return _mm512_maskz_loadu_epi16(static_cast<__mmask32>((1ULL << count) - 1), from);
}

/// 16 rows of 32 elements, of which `rows` x `count` are there, among zeros.
void copy_tile(const Bfloat16* from, std::int64_t stride, std::int64_t rows, std::int64_t count, Tile& to) {
    keep_order(&to);
    for (int r = 0; r < side; ++r)
        _mm512_store_si512(to.rows[r], r < rows ? load_elements(from + r * stride, count) : _mm512_setzero_si512());
    keep_order(&to);
}

/// x^T in tiles of 16 pairs of inputs x 16 rows: those of the first 32 inputs for all rows, then of the next.
void pack(const FewRowsProduct& a, Tile* packed) {
    Tile rows;
    for (std::int64_t i = 0; i < a.in; i += depth)
        for (std::int64_t r = 0; r < a.rows; r += side, ++packed) {
            copy_tile(row_of<Bfloat16>(a.x, r, i), a.x.stride, a.rows - r, a.in - i, rows);
            transpose_block(reinterpret_cast<const float*>(&rows), side, reinterpret_cast<float*>(packed), side);
            keep_order(packed);
        }
}

/// 16 rows of 32 weights where they lie or, at the edges, in a copy among zeros.
struct WeightTile {
    const void* at;
    std::int64_t stride;  // bytes
};

inline WeightTile weights_at(const FewRowsProduct& a, std::int64_t output, std::int64_t input, Tile& copy) {
    const Bfloat16* from = row_of<Bfloat16>(a.weight, output, input);
    if (output + side <= a.out && input + depth <= a.in) return {from, 2 * a.weight.stride};
    copy_tile(from, a.weight.stride, a.out - output, a.in - input, copy);
    return {&copy, row_bytes};
}

/// Fetches the weights of some outputs, a part with every step of the products of the outputs before them.
class Ahead {
  public:
    Ahead(const FewRowsProduct& a, std::int64_t output)
        : next_(reinterpret_cast<const char*>(row_of<Bfloat16>(a.weight, 0)) + 2 * output * a.weight.stride),
          steps_(tiles_of(a.in, depth)) {}
    void step() {
        if (steps_-- <= 0) return;
#pragma GCC unroll 32
        for (int line = 0; line < outputs; ++line) __builtin_prefetch(next_ + line * row_bytes, 0, 2);
        next_ += outputs * row_bytes;
    }

  private:
    const char* next_;
    std::int64_t steps_;
};

/// Sums of 16 outputs x 16 rows, to the elements of y that are there.
void store_sums(const FewRowsProduct& a, const Tile& sums, std::int64_t output, std::int64_t row) {
    if (output >= a.out) return;
    float of_rows[side * side];
    transpose_block(reinterpret_cast<const float*>(&sums), side, of_rows, side);
    const Part part{static_cast<int>(a.out - output < side ? a.out - output : side)};
    const Vector bias = a.bias == nullptr ? zero() : load(static_cast<const Bfloat16*>(a.bias) + output, part);
    for (std::int64_t r = 0; r < side && row + r < a.rows; ++r)
        store(row_of<Bfloat16>(a.y, row + r, output), add(load(of_rows + r * side), bias), part);
}

/// y of up to 32 outputs and, as `wide` says, up to 32 or 16 rows. Tile registers are named by constants: 0 to 3 are
/// sums, 4 and 5 weights, 6 and 7 x.
template <bool wide>
void multiply_block(const FewRowsProduct& a, const Tile* packed, std::int64_t output, std::int64_t row, Ahead& ahead) {
    const std::int64_t across = tiles_of(a.rows, side);
    const bool both = output + side < a.out;
    const Tile* x = packed + row / side;
    Tile copy;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (std::int64_t i = 0; i < a.in; i += depth, x += across) {
        const WeightTile first = weights_at(a, output, i, copy);
        _tile_loadd(4, first.at, first.stride);
        _tile_loadd(6, x, row_bytes);
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (wide) {
            _tile_loadd(7, x + 1, row_bytes);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (both) {
            const WeightTile second = weights_at(a, output + side, i, copy);
            _tile_loadd(5, second.at, second.stride);
            _tile_dpbf16ps(2, 5, 6);
            if constexpr (wide) _tile_dpbf16ps(3, 5, 7);
        }
        ahead.step();
    }
    Tile sums;
    _tile_stored(0, &sums, row_bytes);
    store_sums(a, sums, output, row);
    _tile_stored(2, &sums, row_bytes);
    store_sums(a, sums, output + side, row);
    if constexpr (wide) {
        _tile_stored(1, &sums, row_bytes);
        store_sums(a, sums, output, row + side);
        _tile_stored(3, &sums, row_bytes);
        store_sums(a, sums, output + side, row + side);
    }
}

}  // namespace

void few_rows_product_in_bfloat16(const FewRowsProduct& a, int threads) {
    const std::unique_ptr<Tile[]> packed(new Tile[tiles_of(a.in, depth) * tiles_of(a.rows, side)]);
    pack(a, packed.get());
#pragma omp parallel num_threads(threads)
    {
        const TileRegisters registers;
#pragma omp for schedule(static)
        for (std::int64_t output = 0; output < a.out; output += outputs) {
            Ahead ahead(a, output + outputs);
            for (std::int64_t row = 0; row < a.rows; row += most_rows) {
                if (a.rows - row > side)
                    multiply_block<true>(a, packed.get(), output, row, ahead);
                else
                    multiply_block<false>(a, packed.get(), output, row, ahead);
            }
        }
    }
}

}  // namespace amalgam::kernels::AMALGAM_ISA
