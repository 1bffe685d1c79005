#include "base/device.cuh"
#include "base/philox.h"
#include "ops/quad.cuh"
#include "ops/sample.h"
#include "ops/select.cuh"

namespace redrafter {
namespace {

// A logit as it counts: NaN where its bit of the mask is 0. Without a mask every one is what it is.
__device__ __forceinline__ float masked(const uint32_t* mask, int64_t id, float logit) {
  return mask == nullptr || (mask[id / 32] >> (id % 32) & 1u) != 0 ? logit : __uint_as_float(0x7fc00000u);
}

// --- the best of each row

// A row is shared between blocks, and the last of them to end merges.
constexpr int64_t kSegment = 8192;
constexpr int kArgmaxThreads = 256;

__global__ void __launch_bounds__(kArgmaxThreads)
    argmax_kernel(SampleParams p, int64_t segments, uint64_t* partial, uint32_t* counters) {
  __shared__ uint64_t parts[kMostWarps];
  __shared__ bool last;
  const int64_t row = blockIdx.x / segments, segment = blockIdx.x % segments;
  const int64_t begin = segment * kSegment;
  const int64_t end = segment + 1 < segments ? begin + kSegment : p.vocab;
  const uint32_t* mask = mask_of(p, row);
  uint64_t best = 0;
  visit_row<4>(p.logits + row * p.vocab, begin, end, static_cast<int>(threadIdx.x),
               static_cast<int>(blockDim.x),
               [&](int64_t id, float logit) { best = Larger{}(best, top_key(masked(mask, id, logit), id)); });
  best = block_reduce(best, Larger{}, 0, parts);
  if (segments > 1) {
    if (threadIdx.x == 0) {
      partial[blockIdx.x] = best;
      __threadfence();
      last = atomicAdd(&counters[row], 1u) == static_cast<uint32_t>(segments - 1);
      __threadfence();
    }
    __syncthreads();
    if (!last) return;
    best = 0;
    for (int64_t i = threadIdx.x; i < segments; i += blockDim.x) {
      best = Larger{}(best, partial[row * segments + i]);
    }
    best = block_reduce(best, Larger{}, 0, parts);
    if (threadIdx.x == 0) counters[row] = 0;
  }
  if (threadIdx.x == 0) p.token[row] = top_id(best);
}

// --- weights

constexpr int kOctaves = kCells;
constexpr uint32_t kListed = 4096;

// Weights are known by their bits, which for positive floats order as integers; 0 stands for "never drawn".
// Octave n holds those of [2^-n, 2^(1-n)), the last one all that are smaller.
__device__ __forceinline__ int octave_of(uint32_t weight) {
  const int octave = 127 - static_cast<int>(weight >> 23);
  return octave < 0 ? 0 : octave < kOctaves ? octave : kOctaves - 1;
}

// weight * 2^scale, rounded down.
__device__ __forceinline__ uint64_t mass_of(uint32_t weight, int scale) {
  const int shift = static_cast<int>(weight >> 23) - 150 + scale;
  const uint64_t fraction = (weight & 0x7fffffu) | 0x800000u;
  return weight == 0 || shift <= -24 ? 0 : shift < 0 ? fraction >> -shift : fraction << shift;
}

struct Row {
  const float* logits;
  int64_t vocab;
  float largest, temperature;
  float least;  // logits below it have no weight, or one too small to count
  int scale;    // masses of vocab weights of 1 add up to at most 2^63
  const uint32_t* mask;

  __device__ __forceinline__ uint32_t weight(float logit) const {
    const float w = expf((logit - largest) / temperature);
    return w > 0.0f ? __float_as_uint(w) : 0;  // NaN has none
  }
  // A logit below this has a weight below exp(exponent), with room for the roundings of weight().
  __device__ __forceinline__ float logit_of(double exponent) const {
    return static_cast<float>(largest + static_cast<double>(temperature) * (exponent - 1e-3));
  }
};

// --- search in order of id

// The id at which the running sum of measure(logit), by rising id, passes target(sum of all).
template <typename Measure, typename Target>
__device__ int32_t find_id(const Row& row, const Measure& measure, const Target& target, uint64_t* parts) {
  int64_t begin = 0, end = row.vocab;
  uint64_t rest = 0;
  bool whole = true;
  while (whole || end - begin > kWarpThreads) {
    const int64_t step = ceil_to(ceil_div(end - begin, warp_count()), kWarpThreads);
    const int64_t from = begin + warp_index() * step, to = from + step < end ? from + step : end;
    uint64_t sum = 0;
    visit_row<2>(row.logits, from, to, lane_index(), kWarpThreads,
                 [&](int64_t id, float logit) { sum += measure(masked(row.mask, id, logit)); });
    sum = warp_reduce(sum, Sum{});
    __syncthreads();
    if (lane_index() == 0) parts[warp_index()] = sum;
    __syncthreads();
    sum = lane_index() < warp_count() ? parts[lane_index()] : 0;
    if (whole) rest = target(warp_reduce(sum, Sum{}));
    whole = false;
    const Passed part = first_past(sum, rest);
    rest -= part.before;
    begin += part.at * step;
    if (end - begin > step) end = begin + step;
  }
  const int64_t id = begin + lane_index();
  return static_cast<int32_t>(
      begin + first_past(id < end ? measure(masked(row.mask, id, row.logits[id])) : 0, rest).at);
}

// --- search in order of falling weight

struct Totals {
  uint64_t mass[kCells];
  uint32_t count[kCells];
};

struct DrawShared {
  uint64_t parts[kMostWarps];
  Totals octaves, cells;
  // A histogram with a column for each lane, so that lanes do not wait for each other; 64-bit sums in two
  // words.
  uint32_t low[kCells][kWarpThreads], high[kCells][kWarpThreads], count[kCells][kWarpThreads];
  uint32_t list[kListed];  // the weights of one octave
  uint32_t listed;
};

// The place of a draw in falling order: a weight, the mass before it, and how many of its ids come before.
struct Place {
  uint32_t weight;
  uint64_t before, ties;
};

class Order {
 public:
  __device__ Order(const Row& row, DrawShared& s) : row_(row), s_(s) {
    clear();
    visit_row<2>(row.logits, 0, row.vocab, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x),
                 [&](int64_t id, float logit) {
                   if (logit < row.least) return;
                   if (const uint32_t w = row.weight(masked(row.mask, id, logit)); w != 0)
                     add(octave_of(w), w);
                 });
    total(s.octaves);
  }

  __device__ uint64_t mass() const {
    return warp_reduce(s_.octaves.mass[lane_index()] + s_.octaves.mass[lane_index() + kWarpThreads], Sum{});
  }
  __device__ uint64_t count() const {
    return warp_reduce(
        uint64_t{s_.octaves.count[lane_index()]} + s_.octaves.count[lane_index() + kWarpThreads], Sum{});
  }

  // Where the running count, or mass, passes the target.
  __device__ Place find(uint64_t target, bool by_count) {
    Place place{0, 0, target};
    const int octave = pick(s_.octaves, by_count, place);
    enter(octave);
    const bool open = octave == kOctaves - 1;
    place.weight = open ? 0 : static_cast<uint32_t>(127 - octave) << 23;
    for (int bits = open ? 30 : 23; bits > 0;) {
      const int step = bits > 6 ? bits - 6 : 0;
      clear();
      visit([&](uint32_t w) {
        const uint32_t from_start = w - place.weight;
        if (from_start >> bits == 0) add(kCells - 1 - static_cast<int>(from_start >> step), w);
      });
      total(s_.cells);
      place.weight += static_cast<uint32_t>(kCells - 1 - pick(s_.cells, by_count, place)) << step;
      bits = step;
    }
    place.ties /= by_count ? 1 : mass_of(place.weight, row_.scale);
    return place;
  }

  // The mass up to and with a place.
  __device__ uint64_t mass_to(const Place& place) const {
    return place.before + (place.ties + 1) * mass_of(place.weight, row_.scale);
  }

  // The mass of weights of at least `least`.
  __device__ uint64_t mass_from(uint32_t least) {
    enter(octave_of(least));
    uint64_t sum = 0;
    visit([&](uint32_t w) { sum += w >= least ? mass_of(w, row_.scale) : 0; });
    for (int octave = static_cast<int>(threadIdx.x); octave < octave_;
         octave += static_cast<int>(blockDim.x)) {
      sum += s_.octaves.mass[octave];
    }
    return block_reduce(sum, Sum{}, 0, s_.parts);
  }

 private:
  __device__ void clear() {
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kCells * kWarpThreads;
         i += static_cast<int>(blockDim.x)) {
      (&s_.low[0][0])[i] = (&s_.high[0][0])[i] = (&s_.count[0][0])[i] = 0;
    }
    __syncthreads();
  }

  __device__ __forceinline__ void add(int cell, uint32_t weight) {
    const uint64_t mass = mass_of(weight, row_.scale);
    const auto low = static_cast<uint32_t>(mass);
    const uint32_t before = atomicAdd(&s_.low[cell][lane_index()], low);
    const uint32_t carry = before + low < low ? 1 : 0;
    atomicAdd(&s_.high[cell][lane_index()], static_cast<uint32_t>(mass >> 32) + carry);
    atomicAdd(&s_.count[cell][lane_index()], 1u);
  }

  __device__ void total(Totals& totals) {
    __syncthreads();
    for (int cell = static_cast<int>(threadIdx.x); cell < kCells; cell += static_cast<int>(blockDim.x)) {
      uint64_t mass = 0;
      uint32_t count = 0;
#pragma unroll 8
      for (int i = 0; i < kWarpThreads; ++i) {
        const int column = (cell + i) % kWarpThreads;  // threads read different banks
        mass += uint64_t{s_.high[cell][column]} << 32 | s_.low[cell][column];
        count += s_.count[cell][column];
      }
      totals.mass[cell] = mass;
      totals.count[cell] = count;
    }
    __syncthreads();
  }

  // The cell in which the target lies; the target and the mass before are moved to its start.
  __device__ int pick(const Totals& totals, bool by_count, Place& place) const {
    const Passed cell =
        by_count ? first_cell_past(totals.count, place.ties) : first_cell_past(totals.mass, place.ties);
    place.ties -= cell.before;
    uint64_t mass = 0;
    for (int i = lane_index(); i < cell.at; i += kWarpThreads) mass += totals.mass[i];
    place.before += warp_reduce(mass, Sum{});
    return cell.at;
  }

  // Makes `octave` the one that visit() goes through. Few weights are kept in a list.
  __device__ void enter(int octave) {
    if (octave == octave_) return;
    octave_ = octave;
    listed_ = false;
    if (s_.octaves.count[octave] > kListed) return;
    __syncthreads();
    if (threadIdx.x == 0) s_.listed = 0;
    __syncthreads();
    visit([&](uint32_t w) { s_.list[atomicAdd(&s_.listed, 1u)] = w; });
    __syncthreads();
    listed_ = true;
  }

  // Calls body(weight) for every weight of the octave, each in one of the threads.
  template <typename Body>
  __device__ void visit(const Body& body) const {
    if (listed_) {
      for (uint32_t i = threadIdx.x; i < s_.octaves.count[octave_]; i += blockDim.x) body(s_.list[i]);
      return;
    }
    constexpr double kLog2 = 0.6931471805599453;
    float least = row_.least;
    if (octave_ < kOctaves - 1) least = fmaxf(least, row_.logit_of(-kLog2 * octave_));
    visit_row<2>(row_.logits, 0, row_.vocab, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x),
                 [&](int64_t id, float logit) {
                   if (logit < least) return;
                   const uint32_t w = row_.weight(masked(row_.mask, id, logit));
                   if (w != 0 && octave_of(w) == octave_) body(w);
                 });
  }

  const Row& row_;
  DrawShared& s_;
  int octave_ = -1;
  bool listed_ = false;
};

// --- the draw

// u * mass as a whole number below mass, for u of [0, 1).
__device__ __forceinline__ uint64_t share_of(double u, uint64_t mass) {
  const auto share = static_cast<uint64_t>(u * static_cast<double>(mass));
  return share < mass ? share : mass - 1;
}

// The mass that top-k, top-p and min-p leave: what each keeps begins with the most probable id, in falling
// order, so that a mass tells it. by_k: whether top-k drops any.
__device__ uint64_t kept_mass(const SampleSpec& spec, bool by_k, Order& order, int scale) {
  uint64_t kept = order.mass();
  if (by_k) kept = order.mass_to(order.find(static_cast<uint64_t>(spec.top_k) - 1, true));
  if (spec.top_p < 1.0f) {
    const double limit = ceil(static_cast<double>(spec.top_p) * static_cast<double>(kept));
    const uint64_t least = limit < 1.0 ? 1 : static_cast<uint64_t>(limit);
    kept = order.mass_to(order.find((least < kept ? least : kept) - 1, false));
  }
  if (spec.min_p > 0.0f) {
    const uint64_t one = mass_of(__float_as_uint(1.0f), scale);
    const uint64_t rest = Larger{}(one, order.mass_from(__float_as_uint(spec.min_p)));
    kept = Smaller{}(kept, rest);
  }
  return kept;
}

constexpr int kDrawThreads = 1024;

// After argmax_kernel, which has left the best id of every row. One block a row; rows go through memory once,
// in argmax_kernel, and lie in the second-level cache from then on. A draw without filters goes through its
// row once more, one with filters once for the octaves, once for each octave that a search ends in (up to
// four more times per search where it holds more than kListed weights), and once for the id.
__global__ void __launch_bounds__(kDrawThreads) draw_kernel(SampleParams p, int scale) {
  __shared__ DrawShared s;
  const int64_t index = blockIdx.x;
  const SampleSpec spec = p.spec[index];
  const int32_t best = p.token[index];
  if (!(spec.temperature > 0.0f) || best < 0) return;
  Row row{p.logits + index * p.vocab, p.vocab, 0.0f, spec.temperature, 0.0f, scale, mask_of(p, index)};
  row.largest = row.logits[best];
  if (!isfinite(row.largest)) return;
  // exp(-105) is 0 in fp32; where nothing is counted, neither is a mass of 0 missed.
  row.least = row.logit_of(spec.top_k > 0 ? -105.0 : -0.7 * (scale + 1));

  const double u =
      philox_uniform(spec.seed, static_cast<uint64_t>(p.position[index]), 0, DrawPurpose::kToken);
  int32_t token = -1;
  const bool filters = spec.top_p < 1.0f || spec.min_p > 0.0f;
  bool by_weight = false;
  if (filters || spec.top_k > 0) {
    Order order(row, s);
    const bool by_k = spec.top_k > 0 && static_cast<uint64_t>(spec.top_k) < order.count();
    by_weight = filters || by_k;
    if (by_weight) {
      const uint64_t kept = kept_mass(spec, by_k, order, scale);
      const Place place = order.find(share_of(u, kept), false);
      // Of the ids of one weight, the one that has as many before it.
      const float least = row.logit_of(log(static_cast<double>(__uint_as_float(place.weight))));
      token = find_id(
          row, [&](float logit) { return logit >= least && row.weight(logit) == place.weight ? 1 : 0; },
          [&](uint64_t) { return place.ties; }, s.parts);
    }
  }
  if (!by_weight) {
    token = find_id(
        row, [&](float logit) { return logit < row.least ? 0 : mass_of(row.weight(logit), scale); },
        [&](uint64_t mass) { return share_of(u, mass); }, s.parts);
  }
  if (threadIdx.x == 0) p.token[index] = token;
}

// The largest at which the masses of `vocab` weights of 1 add up to 2^63 at most.
int mass_scale(int64_t vocab) {
  int bits = 0;
  while ((int64_t{1} << bits) < vocab) ++bits;
  return 63 - bits;
}

}  // namespace

void sample_cuda(const SampleParams& p, Stream& stream) {
  int64_t segments = ceil_div(p.vocab, kSegment);
  const int64_t bytes = p.rows * segments * static_cast<int64_t>(sizeof(uint64_t));
  if (bytes > stream.workspace_bytes || p.rows > stream.counter_count) segments = 1;
  launch("argmax", argmax_kernel, dim3(static_cast<unsigned>(p.rows * segments)),
         dim3(p.vocab < 1024 ? kWarpThreads : kArgmaxThreads), 0, stream, p, segments,
         static_cast<uint64_t*>(stream.workspace), stream.counters);
  launch("draw", draw_kernel, dim3(static_cast<unsigned>(p.rows)), dim3(p.vocab <= 2048 ? 64 : kDrawThreads),
         0, stream, p, mass_scale(p.vocab));
}

}  // namespace redrafter
