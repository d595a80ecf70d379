/* The picture: on the left operations a second over time (failures red), on the right latency by
 * quantile, both axes of it logarithmic: each step to the right is ten times rarer. */
#include "bench/report.h"

#include <math.h>

enum { PLOT_WIDTH = 420, PLOT_HEIGHT = 260, LEFT_X = 80, RIGHT_X = 600, TOP_Y = 60 };
enum { QUANTILE_STEPS = 100 };
static const double DECADES = 4; /* 1 - quantile from 1 down to 10^-4 */

static void write_escaped(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '&':
            fputs("&amp;", out);
            break;
        default:
            fputc((unsigned char)*text < 0x20 ? ' ' : *text, out);
            break;
        }
    }
}

static void write_frame(FILE *out, int x, const char *title)
{
    fprintf(out,
            "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"none\" stroke=\"#888\"/>\n"
            "<text x=\"%d\" y=\"%d\" font-weight=\"bold\">%s</text>\n",
            x, TOP_Y, PLOT_WIDTH, PLOT_HEIGHT, x, TOP_Y - 8, title);
}

static void write_over_time(FILE *out, const struct load_result *result)
{
    /* The last second is seldom a whole one, and would look like a fall. */
    uint32_t count = (uint32_t)(result->measured_ns / 1000000000u);
    count = count < result->interval_count ? count : result->interval_count;
    uint64_t most = 1;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t sum = result->intervals[i].done + result->intervals[i].failed;
        most = sum > most ? sum : most;
    }
    write_frame(out, LEFT_X, "operations a second, by second");
    for (int line = 0; line <= 4; line++) {
        double y = TOP_Y + PLOT_HEIGHT * (1 - line / 4.0);
        fprintf(out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.0f</text>\n", LEFT_X - 6,
                y + 4, (double)most * line / 4);
    }
    double width = count > 0 ? (double)PLOT_WIDTH / count : PLOT_WIDTH;
    for (uint32_t i = 0; i < count; i++) {
        double done = PLOT_HEIGHT * (double)result->intervals[i].done / (double)most;
        double failed = PLOT_HEIGHT * (double)result->intervals[i].failed / (double)most;
        double x = LEFT_X + width * i;
        fprintf(out,
                "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"#4477aa\"/>\n",
                x, TOP_Y + PLOT_HEIGHT - done, width * 0.9, done);
        if (failed > 0) {
            fprintf(
                out,
                "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"#cc3311\"/>\n",
                x, TOP_Y + PLOT_HEIGHT - done - failed, width * 0.9, failed);
        }
    }
    fprintf(out,
            "<text x=\"%d\" y=\"%d\">0 s</text><text x=\"%d\" y=\"%d\" text-anchor=\"end\">%u "
            "s</text>\n",
            LEFT_X, TOP_Y + PLOT_HEIGHT + 18, LEFT_X + PLOT_WIDTH, TOP_Y + PLOT_HEIGHT + 18, count);
}

static void write_quantiles(FILE *out, const struct histogram *histogram)
{
    write_frame(out, RIGHT_X, "latency by quantile");
    if (histogram->count == 0) {
        return;
    }
    double low = floor(log10((double)(histogram->min_ns > 0 ? histogram->min_ns : 1)));
    double high = ceil(log10((double)histogram->max_ns + 1));
    high = high > low ? high : low + 1;
    for (int decade = (int)low; decade <= (int)high; decade++) {
        double y = TOP_Y + PLOT_HEIGHT * (1 - (decade - low) / (high - low));
        fprintf(out,
                "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" stroke=\"#ddd\"/>"
                "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g ms</text>\n",
                RIGHT_X, y, RIGHT_X + PLOT_WIDTH, y, RIGHT_X - 6, y + 4, pow(10, decade - 6));
    }
    static const char *const marks[] = {"0", "p90", "p99", "p99.9", "p99.99"};
    for (int i = 0; i < 5; i++) {
        fprintf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n",
                RIGHT_X + PLOT_WIDTH * i / DECADES, TOP_Y + PLOT_HEIGHT + 18, marks[i]);
    }
    fputs("<polyline fill=\"none\" stroke=\"#4477aa\" stroke-width=\"2\" points=\"", out);
    for (int i = 0; i <= QUANTILE_STEPS; i++) {
        double along = (double)i / QUANTILE_STEPS;
        double quantile = 1 - pow(10, -DECADES * along);
        uint64_t ns = histogram_quantile_ns(histogram, (uint32_t)lround(quantile * 100000));
        double value = log10((double)(ns > 0 ? ns : 1));
        fprintf(out, "%.1f,%.1f ", RIGHT_X + PLOT_WIDTH * along,
                TOP_Y + PLOT_HEIGHT * (1 - (value - low) / (high - low)));
    }
    fputs("\"/>\n", out);
}

bool report_svg(const struct bench_options *options, const struct report_machine *machine,
                const struct load_result *result, const char *path)
{
    FILE *out = fopen(path, "we");
    if (out == NULL) {
        return false;
    }
    fputs("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1060\" height=\"360\" "
          "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"1060\" height=\"360\" "
          "fill=\"white\"/>\n<text x=\"20\" y=\"24\">",
          out);
    write_escaped(out,
                  options->label != NULL ? options->label : bench_target_name(options->target));
    fprintf(out, ", %s, ", bench_target_name(options->target));
    write_escaped(out, machine->date);
    fprintf(out, ", %ld x ", machine->processors);
    write_escaped(out, machine->processor);
    uint64_t failures = load_result_failures(result);
    if (failures > 0) {
        fprintf(out, " <tspan fill=\"#cc3311\">%llu failures</tspan>",
                (unsigned long long)failures);
    }
    fputs("</text>\n", out);
    write_over_time(out, result);
    write_quantiles(out, &result->all);
    fputs("</svg>\n", out);
    bool written = ferror(out) == 0;
    return fclose(out) == 0 && written;
}
