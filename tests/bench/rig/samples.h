/* Durations that are collected and then asked for their quantiles. */
#ifndef SAMPLES_H
#define SAMPLES_H

#include <stddef.h>
#include <stdint.h>

struct samples {
    double *milliseconds;
    size_t count, capacity;
};

void samples_add(struct samples *samples, int64_t nanoseconds);

/* In milliseconds; -1 when there are none. Sorts the samples. */
double samples_quantile(struct samples *samples, double quantile);

#endif
