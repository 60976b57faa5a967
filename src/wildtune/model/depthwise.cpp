// The gradient of a depthwise convolution for its weights. Tensors are (B, H, W, C) in memory: channels_last.
//
// A block of channels, as many as a vector has lanes, of one photo at a time. Its rows come into a ring of float32 as
// deep as the kernel, with their padding, so that the sums need not ask where they are; each sum, one for a place in
// the kernel, stays in a register while a row is gone through. Photos are added up in their order: what comes out does
// not depend on the number of threads.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#ifdef __AVX512F__
constexpr int LANES = 16, SUMS_AT_ONCE = 25;
#else
constexpr int LANES = 8, SUMS_AT_ONCE = 12;
#endif

// All in pixels but for `photos` and `channels`. depthwise.py has the same fields.
struct Shape {
    int64_t photos, channels;
    int64_t height, width, out_height, out_width;
    int64_t kernel_height, kernel_width, stride_down, stride_across, padding_down, padding_across;
};

typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef uint32_t Words __attribute__((vector_size(LANES * 4)));
typedef uint16_t Halves __attribute__((vector_size(LANES * 2)));

static inline Floats load(const float* from) {
    Floats values;
    std::memcpy(&values, from, sizeof values);
    return values;
}

// bfloat16 is the upper half of a float32.
static inline Floats load(const uint16_t* from) {
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    const Words words = __builtin_convertvector(halves, Words) << 16;
    Floats values;
    std::memcpy(&values, &words, sizeof values);
    return values;
}

template <typename T>
static inline Floats load_some(const T* from, int64_t count) {
    if (count == LANES) return load(from);
    T some[LANES] = {};
    std::memcpy(some, from, count * sizeof(T));
    return load(some);
}

static inline void store(float* to, Floats values) { std::memcpy(to, &values, sizeof values); }

// Add one row of the outputs' gradient, times the inputs below it, to the sums of `ROWS` rows of the kernel.
template <int ACROSS, int ROWS>
static inline void add_row(const float* gradient, float* const* inputs, float* sums, int64_t width, int64_t stride) {
    Floats sum[ROWS][ACROSS];
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 16
        for (int j = 0; j < ACROSS; j++) sum[i][j] = load(sums + (i * ACROSS + j) * LANES);
    for (int64_t x = 0; x < width; x++) {
        const Floats outer = load(gradient + x * LANES);
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 16
            for (int j = 0; j < ACROSS; j++) sum[i][j] += outer * load(inputs[i] + (x * stride + j) * LANES);
    }
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 16
        for (int j = 0; j < ACROSS; j++) store(sums + (i * ACROSS + j) * LANES, sum[i][j]);
}

// The sums of one photo's block of `count` channels, (kernel_height, ACROSS, LANES).
template <typename T, int ACROSS>
static void sum_block(const Shape& s, const T* inputs, const T* gradient, int64_t count, float* sums) {
    constexpr int ROWS = std::min(ACROSS, SUMS_AT_ONCE / ACROSS);
    const int64_t depth = s.kernel_height, length = (s.width + 2 * s.padding_across) * LANES;
    std::vector<float> ring(depth * length), outer(s.out_width * LANES);
    std::vector<float*> rows(depth);
    std::fill(sums, sums + depth * ACROSS * LANES, 0.0f);
    int64_t filled = 0;
    for (int64_t y = 0; y < s.out_height; y++) {
        for (; filled < y * s.stride_down + depth; filled++) {
            float* row = ring.data() + filled % depth * length;
            const int64_t from = filled - s.padding_down;
            std::fill(row, row + length, 0.0f);
            if (from < 0 || from >= s.height) continue;
            for (int64_t x = 0; x < s.width; x++)
                store(row + (x + s.padding_across) * LANES,
                      load_some(inputs + (from * s.width + x) * s.channels, count));
        }
        for (int64_t x = 0; x < s.out_width; x++)
            store(outer.data() + x * LANES, load_some(gradient + (y * s.out_width + x) * s.channels, count));
        for (int64_t i = 0; i < depth; i++) rows[i] = ring.data() + (y * s.stride_down + i) % depth * length;
        int64_t i = 0;
        for (; i + ROWS <= depth; i += ROWS)
            add_row<ACROSS, ROWS>(outer.data(), &rows[i], sums + i * ACROSS * LANES, s.out_width, s.stride_across);
        for (; i < depth; i++)
            add_row<ACROSS, 1>(outer.data(), &rows[i], sums + i * ACROSS * LANES, s.out_width, s.stride_across);
    }
}

template <typename T, int ACROSS>
static void sum_all(const Shape& s, const T* inputs, const T* gradient, float* found) {
    const int64_t blocks = (s.channels + LANES - 1) / LANES, places = s.kernel_height * ACROSS;
    std::vector<float> partial(s.photos * blocks * places * LANES);
#pragma omp parallel
    {
#pragma omp for collapse(2)
        for (int64_t photo = 0; photo < s.photos; photo++)
            for (int64_t block = 0; block < blocks; block++) {
                const int64_t first = block * LANES;
                sum_block<T, ACROSS>(s, inputs + photo * s.height * s.width * s.channels + first,
                                     gradient + photo * s.out_height * s.out_width * s.channels + first,
                                     std::min<int64_t>(LANES, s.channels - first),
                                     partial.data() + (photo * blocks + block) * places * LANES);
            }
#pragma omp for
        for (int64_t c = 0; c < s.channels; c++)
            for (int64_t place = 0; place < places; place++) {
                float sum = 0;
                for (int64_t photo = 0; photo < s.photos; photo++)
                    sum += partial[((photo * blocks + c / LANES) * places + place) * LANES + c % LANES];
                found[c * places + place] = sum;
            }
    }
}

template <typename T>
static int sum_by_width(const Shape& s, const T* inputs, const T* gradient, float* found) {
    switch (s.kernel_width) {
        case 3: sum_all<T, 3>(s, inputs, gradient, found); return 0;
        case 5: sum_all<T, 5>(s, inputs, gradient, found); return 0;
        case 7: sum_all<T, 7>(s, inputs, gradient, found); return 0;
        case 9: sum_all<T, 9>(s, inputs, gradient, found); return 0;
        case 11: sum_all<T, 11>(s, inputs, gradient, found); return 0;
    }
    return 1;
}

// `found` is (channels, kernel_height, kernel_width) float32. Returns 0, or 1 for a kernel of another width than these.
extern "C" int weight_gradient(const Shape* shape, int bfloat16, const void* inputs, const void* gradient,
                               float* found) {
    return bfloat16 ? sum_by_width(*shape, static_cast<const uint16_t*>(inputs),
                                   static_cast<const uint16_t*>(gradient), found)
                    : sum_by_width(*shape, static_cast<const float*>(inputs), static_cast<const float*>(gradient),
                                   found);
}
