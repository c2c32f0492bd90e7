// A run of rows forward and backward; included once per instruction set, as lanes.h.
//
// ROWS rows go together: they share the loads of weight and bias and the stores of the partial sums,
// and their long chains of additions overlap. Two passes over a row for the statistics (it stays in
// the first-level cache), because E[x^2] - E[x]^2 loses all digits once the mean is large.

// The next rows are asked for early: a row of 1024 floats is a page, at whose end the processor's own
// prefetch stops.
template <typename T> VITRESNAS_INLINE void ask_for(const T *address) {
    __builtin_prefetch(address);
}

template <typename X, typename Y, int ROWS, typename A = typename Accumulator<X>::type>
VITRESNAS_INLINE void forward_rows(const X *x, const A *weight, const A *bias, Y *y, A *mean_out,
                                   A *rstd_out, int64_t active, int64_t end, int64_t channels,
                                   A eps) {
    using V = Lanes<A>;
    const int64_t full = active / UNIT * UNIT, part = active - full, room = channels - full;
    const A scale = A(1) / static_cast<A>(active > 1 ? active : 1);
    V sum[ROWS] = {}, square[ROWS] = {}, mean[ROWS], rstd[ROWS], shift[ROWS];
    for (int64_t c = 0; c < full; c += UNIT) {
        for (int r = 0; r < ROWS; ++r) {
            sum[r] += take(x + r * channels + c);
            ask_for(x + (r + ROWS) * channels + c);
        }
    }
    for (int r = 0; r < ROWS; ++r) {
        if (part) sum[r] += take_part(x + r * channels + full, part, room);
        mean_out[r] = scale * across<A>(sum[r]);
        mean[r] = V{} + mean_out[r];
    }
    for (int64_t c = 0; c < full; c += UNIT) {
        for (int r = 0; r < ROWS; ++r) {
            const V centred = take(x + r * channels + c) - mean[r];
            square[r] += centred * centred;
        }
    }
    for (int r = 0; r < ROWS; ++r) {
        if (part) {
            const V centred = take_part(x + r * channels + full, part, room) - mean[r];
            square[r] += only(centred * centred, part);
        }
        rstd_out[r] = A(1) / std::sqrt(scale * across<A>(square[r]) + eps);
        rstd[r] = V{} + rstd_out[r];
        shift[r] = V{} - mean_out[r] * rstd_out[r];
    }
    for (int64_t c = 0; c < full; c += UNIT) {
        const V w = take(weight + c), b = take(bias + c);
        V out[ROWS];
        for (int r = 0; r < ROWS; ++r) {
            out[r] = (take(x + r * channels + c) * rstd[r] + shift[r]) * w + b;
        }
        // All loads first: a load may have to wait for a store to the same place of another page.
        for (int r = 0; r < ROWS; ++r) put(y + r * channels + c, out[r]);
    }
    const V w = part ? take_part(weight + full, part, room) : V{};
    const V b = part ? take_part(bias + full, part, room) : V{};
    for (int r = 0; r < ROWS; ++r) {
        if (part) {
            const V last = take_part(x + r * channels + full, part, room) * rstd[r] + shift[r];
            put_part(y + r * channels + full, only(last * w + b, part), room);
        }
        clear(y + r * channels, padded_width(active, channels), end);
    }
}

template <typename X, typename Y, typename A = typename Accumulator<X>::type>
VITRESNAS_INLINE void forward_run(const ForwardRun &run) {
    const int64_t stride = run.channels;
    const X *x = static_cast<const X *>(run.x);
    const A *weight = static_cast<const A *>(run.weight), *bias = static_cast<const A *>(run.bias);
    Y *y = static_cast<Y *>(run.y);
    A *mean = static_cast<A *>(run.mean), *rstd = static_cast<A *>(run.rstd);
    int64_t row = run.rows.first;
    for (; row + TOGETHER <= run.rows.last; row += TOGETHER) {
        forward_rows<X, Y, TOGETHER>(x + row * stride, weight, bias, y + row * stride, mean + row,
                                     rstd + row, run.active, run.end, stride,
                                     static_cast<A>(run.eps));
    }
    for (; row < run.rows.last; ++row) {
        forward_rows<X, Y, 1>(x + row * stride, weight, bias, y + row * stride, mean + row,
                              rstd + row, run.active, run.end, stride, static_cast<A>(run.eps));
    }
}

// dx of a few rows, and their share added to the two partial sums. `residual` may be null; where it
// is not, its first `passed` columns (at least the active ones) are added to dx.
template <typename X, typename Y, int ROWS, typename A = typename Accumulator<X>::type>
VITRESNAS_INLINE void backward_rows(const Y *dy, const X *x, const A *mean_in, const A *rstd_in,
                                    const A *weight, const X *residual, X *dx, A *dweight,
                                    A *dbias, int64_t active, int64_t passed, int64_t end,
                                    int64_t channels) {
    using V = Lanes<A>;
    const int64_t full = active / UNIT * UNIT, part = active - full, room = channels - full;
    const A scale = A(1) / static_cast<A>(active > 1 ? active : 1);
    V mean[ROWS], rstd[ROWS], shift[ROWS], first[ROWS] = {}, second[ROWS] = {};
    for (int r = 0; r < ROWS; ++r) {
        mean[r] = V{} + mean_in[r];
        rstd[r] = V{} + rstd_in[r];
        shift[r] = V{} - mean_in[r] * rstd_in[r];
    }
    for (int64_t c = 0; c < full; c += UNIT) {
        const V w = take(weight + c);
        for (int r = 0; r < ROWS; ++r) {
            const int64_t at = r * channels + c;
            const V scaled = take(dy + at) * w;
            first[r] += scaled;
            second[r] += scaled * (take(x + at) - mean[r]);
            ask_for(x + ROWS * channels + at);
            ask_for(dy + ROWS * channels + at);
        }
    }
    for (int r = 0; r < ROWS; ++r) {
        const int64_t at = r * channels + full;
        if (part) {
            const V scaled = take_part(dy + at, part, room) * take_part(weight + full, part, room);
            first[r] += scaled;
            second[r] += scaled * (take_part(x + at, part, room) - mean[r]);
        }
        const A share = rstd_in[r] * scale;
        first[r] = V{} + across<A>(first[r]) * share;
        second[r] = V{} + across<A>(second[r]) * share * rstd_in[r];
    }
    for (int64_t c = 0; c < full; c += UNIT) {
        const V w = take(weight + c);
        V dw = take(dweight + c), db = take(dbias + c), out[ROWS];
        for (int r = 0; r < ROWS; ++r) {
            const int64_t at = r * channels + c;
            const V gradient = take(dy + at), xhat = take(x + at) * rstd[r] + shift[r];
            out[r] = gradient * w * rstd[r] - (xhat * second[r] + first[r]);
            if (residual) out[r] += take(residual + at);
            dw += gradient * xhat;
            db += gradient;
        }
        put(dweight + c, dw);
        put(dbias + c, db);
        for (int r = 0; r < ROWS; ++r) put(dx + r * channels + c, out[r]);
    }
    for (int r = 0; r < ROWS; ++r) {
        const int64_t at = r * channels + full;
        if (part) {
            const V gradient = take_part(dy + at, part, room);
            const V xhat = take_part(x + at, part, room) * rstd[r] + shift[r];
            const V w = take_part(weight + full, part, room);
            V out = only(gradient * w * rstd[r] - (xhat * second[r] + first[r]), part);
            if (residual) out += take_part(residual + at, passed - full, room);
            put_part(dx + at, out, room);
            put_part(dweight + full, take_part(dweight + full, part, room) + gradient * xhat, room);
            put_part(dbias + full, take_part(dbias + full, part, room) + gradient, room);
        }
        X *row = dx + r * channels;
        const int64_t done = padded_width(active, channels);
        if (residual && passed > done) {
            std::memcpy(static_cast<void *>(row + done), residual + r * channels + done,
                        (passed - done) * sizeof(X));
        }
        clear(row, passed > done ? passed : done, end);
    }
}

template <typename X, typename Y, typename A = typename Accumulator<X>::type>
VITRESNAS_INLINE void backward_run(const BackwardRun &run) {
    const int64_t stride = run.channels;
    const Y *dy = static_cast<const Y *>(run.dy);
    const X *x = static_cast<const X *>(run.x), *residual = static_cast<const X *>(run.residual);
    const A *mean = static_cast<const A *>(run.mean), *rstd = static_cast<const A *>(run.rstd);
    const A *weight = static_cast<const A *>(run.weight);
    X *dx = static_cast<X *>(run.dx);
    A *dweight = static_cast<A *>(run.partial), *dbias = dweight + stride;
    clear(dweight, 0, run.active);
    clear(dbias, 0, run.active);
    const auto rows = [&](int64_t row, auto count) VITRESNAS_BODY {
        const int64_t at = row * stride;
        backward_rows<X, Y, decltype(count)::value>(
            dy + at, x + at, mean + row, rstd + row, weight, residual ? residual + at : nullptr,
            dx + at, dweight, dbias, run.active, run.passed, run.end, stride);
    };
    int64_t row = run.rows.first;
    for (; row + TOGETHER <= run.rows.last; row += TOGETHER) {
        rows(row, std::integral_constant<int, TOGETHER>());
    }
    for (; row < run.rows.last; ++row) rows(row, std::integral_constant<int, 1>());
}

// The storage types of x and of y, as `which` of masked_layer_norm.cpp numbers them.
void forward(int which, const ForwardRun &run) {
    switch (which) {
        case 0: return forward_run<float, float>(run);
        case 1: return forward_run<float, bfloat16>(run);
        case 2: return forward_run<bfloat16, float>(run);
        case 3: return forward_run<bfloat16, bfloat16>(run);
        default: return forward_run<double, double>(run);
    }
}

void backward(int which, const BackwardRun &run) {
    switch (which) {
        case 0: return backward_run<float, float>(run);
        case 1: return backward_run<float, bfloat16>(run);
        case 2: return backward_run<bfloat16, float>(run);
        case 3: return backward_run<bfloat16, bfloat16>(run);
        default: return backward_run<double, double>(run);
    }
}

// target[c] += source[c] for the first n columns.
template <typename A> VITRESNAS_INLINE void add(A *target, const A *source, int64_t n) {
    int64_t c = 0;
    for (; c + UNIT <= n; c += UNIT) put(target + c, take(target + c) + take(source + c));
    for (; c < n; ++c) target[c] += source[c];
}
void add_float(float *target, const float *source, int64_t n) { add(target, source, n); }
void add_double(double *target, const double *source, int64_t n) { add(target, source, n); }
