#include "samples.h"

#include <stdlib.h>

#include "wire.h"

void samples_add(struct samples *samples, int64_t nanoseconds) {
    if (samples->count == samples->capacity) {
        samples->capacity = samples->capacity != 0 ? 2 * samples->capacity : 4096;
        samples->milliseconds = realloc(samples->milliseconds, samples->capacity * sizeof(double));
        if (samples->milliseconds == NULL) die("out of memory");
    }
    samples->milliseconds[samples->count++] = (double)nanoseconds / 1e6;
}

static int compare(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

double samples_quantile(struct samples *samples, double quantile) {
    if (samples->count == 0) return -1;
    qsort(samples->milliseconds, samples->count, sizeof(double), compare);
    size_t index = (size_t)((double)samples->count * quantile);
    return samples->milliseconds[index < samples->count ? index : samples->count - 1];
}
