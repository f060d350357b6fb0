/*
 * sallyport-export: turns the recording of an RDP session into a video or a picture. sallyctl
 * starts it with descriptors, and it opens nothing itself: the recording is read from --in, what
 * comes of it is written to --out, and what there is to tell goes line by line to --report:
 *
 *   progress AT_MS END_MS
 *   note SENTENCE                      something about the result that one should know
 *   damaged SENTENCE                   the same, and pictures are missing or wrong
 *   done AT_MS WIDTH HEIGHT FRAMES DURATION_MS EXACT
 *   error SENTENCE                     and no result
 *
 * It decodes a stranger's bytes with large libraries, so it runs in the sandbox of sandbox.c. A
 * crash is an end without "done".
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libavutil/log.h>

#include <sallyport/clock.h>
#include <sallyport/text.h>

#include "tracker/export/decoder.h"
#include "tracker/export/index.h"
#include "tracker/export/picture.h"
#include "tracker/export/replay.h"
#include "tracker/export/sandbox.h"
#include "tracker/export/scan.h"
#include "tracker/export/video.h"

#define PROGRESS_MS 100
#define TO_THE_END  (UINT64_MAX / 2)
#define ERR_LEN     512

enum mode { MODE_NONE, MODE_VIDEO, MODE_PICTURE, MODE_THUMBNAIL };

struct job {
    enum mode mode;
    int in, out, report, index_in, index_out; /* -1: none */
    uint64_t from_us, until_us, idle_us;      /* idle 0: pauses stay as they are */
    bool is_exact;                            /* a picture: of that very moment */

    struct index_identity identity;
    struct scan scan;
    struct index_writer *index;
    struct video *video;
    struct shot best; /* of a thumbnail */
    uint64_t best_us, best_for_us;

    /* the video's own time */
    bool has_begun;
    uint64_t shown_us; /* of the recording: when its last picture came */
    uint64_t video_us; /* of the video: the same */
    uint64_t frames;

    int64_t told_ms;
    char err[ERR_LEN];
};

static void tell(const struct job *j, const char *word, const char *text)
{
    dprintf(j->report, "%s %s\n", word, text);
}

static int fail(struct job *j, int code, const char *text)
{
    tell(j, "error", text[0] ? text : error_text(code));
    return code;
}

static void on_progress(void *arg, uint64_t at_us)
{
    struct job *j = arg;
    int64_t now = clock_mono_ms();
    uint64_t end_us = j->scan.end_us < j->until_us ? j->scan.end_us : j->until_us;

    if (now - j->told_ms < PROGRESS_MS)
        return;
    j->told_ms = now;
    dprintf(j->report, "progress %llu %llu\n", (unsigned long long)at_us / 1000,
            (unsigned long long)end_us / 1000);
}

static void tell_done(const struct job *j, uint64_t at_us, const struct shot *s,
                      uint64_t duration_us, bool is_exact)
{
    dprintf(j->report, "done %llu %u %u %llu %llu %d\n", (unsigned long long)at_us / 1000, s->width,
            s->height, (unsigned long long)j->frames, (unsigned long long)duration_us / 1000,
            is_exact);
}

/* ---- the video ---- */

/* Time of the video for a time of the recording that is not before the last one. */
static uint64_t video_time(const struct job *j, uint64_t at_us)
{
    uint64_t pause = at_us - j->shown_us;

    if (j->idle_us && pause > j->idle_us)
        pause = j->idle_us;
    return j->video_us + pause;
}

static int show(struct job *j, uint64_t at_us, const struct shot *s)
{
    if (!j->has_begun)
        j->shown_us = at_us;
    j->video_us = video_time(j, at_us);
    j->shown_us = at_us;
    j->has_begun = true;
    j->frames++;
    return video_put(j->video, s, j->video_us);
}

/* A part begins with what stood there before it; the whole with an empty desktop, so that times of
 * the video are times of the recording. */
static int begin_part(struct job *j, const struct shot *before, const struct shot *first)
{
    struct shot empty = {NULL, 0, 0, 0};
    int r;

    if (j->has_begun)
        return 0;
    if (before)
        return show(j, j->from_us, before);
    r = shot_resize(&empty, first->width, first->height);
    if (r == 0) {
        memset(empty.pixels, 0, shot_len(&empty));
        r = show(j, j->from_us, &empty);
    }
    shot_finish(&empty);
    return r;
}

static int add_to_video(struct job *j, uint64_t at_us, const struct shot *now,
                        const struct shot *before)
{
    int r;

    if (at_us < j->from_us)
        return 0;
    r = at_us > j->from_us ? begin_part(j, before, now) : 0;
    return r < 0 ? r : show(j, at_us, now);
}

/* ---- thumbnails ---- */

/* The picture that stood longest says best what the session was about. */
static int consider(struct job *j, uint64_t at_us, uint64_t until_us, const struct shot *s)
{
    const struct decoder_screen same = {s->pixels, s->width * 4, s->width, s->height};

    if (j->best.pixels && until_us - at_us <= j->best_for_us)
        return 0;
    j->best_us = at_us;
    j->best_for_us = until_us - at_us;
    return shot_copy(&j->best, &same);
}

/* Where decoding begins: at the front, unless what came before cannot be seen. */
static uint64_t choose_start(const struct job *j)
{
    return j->scan.restart_record > 0 ? j->scan.restart_us : 0;
}

/* The part's first moment that a decoder must have seen everything for. */
static uint64_t first_needed(const struct job *j)
{
    return j->mode == MODE_PICTURE ? j->until_us : j->mode == MODE_VIDEO ? j->from_us : 0;
}

/* ---- pictures as they come ---- */

static int on_stood(struct job *j, uint64_t at_us, uint64_t until_us, const struct shot *s)
{
    if (j->index)
        index_writer_add(j->index, at_us, until_us, s);
    return j->mode == MODE_THUMBNAIL ? consider(j, at_us, until_us, s) : 0;
}

static int on_picture(void *arg, uint64_t at_us, const struct shot *now, uint64_t before_us,
                      const struct shot *before)
{
    struct job *j = arg;
    int r = before ? on_stood(j, before_us, at_us, before) : 0;

    if (r < 0 || j->mode != MODE_VIDEO)
        return r;
    return add_to_video(j, at_us, now, before);
}

static int write_picture(struct job *j, uint64_t at_us, const struct shot *s, bool is_exact)
{
    int r = picture_write(s, j->mode == MODE_THUMBNAIL ? PICTURE_THUMBNAIL_WIDTH : 0, j->out);

    if (r == ERR_SYSTEM)
        snprintf(j->err, sizeof(j->err), "cannot write the picture: %s", strerror(errno));
    else if (r == ERR_NOT_FOUND)
        snprintf(j->err, sizeof(j->err), "libavcodec has no PNG encoder here");
    if (r == 0)
        tell_done(j, at_us, s, 0, is_exact);
    return r;
}

static int finish_video(struct job *j, const struct shot *now, uint64_t end_us)
{
    struct video *v = j->video;
    uint64_t duration_us;
    int r = end_us >= j->from_us ? begin_part(j, now, now) : 0;

    if (r < 0 || !j->has_begun)
        return r < 0 ? r : ERR_NOT_FOUND;
    duration_us = video_time(j, end_us);
    j->video = NULL;
    r = video_finish(v, duration_us, j->err, sizeof(j->err));
    if (r == 0)
        tell_done(j, j->from_us, now, duration_us, true);
    return r;
}

static int on_end(void *arg, uint64_t at_us, const struct shot *now, uint64_t end_us)
{
    struct job *j = arg;
    int r = on_stood(j, at_us, end_us, now);

    const struct index_end end = {choose_start(j), end_us, j->scan.end_us};

    if (j->index && index_writer_finish(j->index, &end) < 0)
        tell(j, "note", "the index could not be written; the next picture takes as long");
    j->index = NULL;
    if (r < 0)
        return r;
    switch (j->mode) {
    case MODE_VIDEO:
        return finish_video(j, now, end_us);
    case MODE_THUMBNAIL:
        return write_picture(j, j->best_us, &j->best, true);
    default:
        return write_picture(j, j->until_us < end_us ? j->until_us : end_us, now, true);
    }
}

/* ---- from the index ---- */

static struct cursor map_index(int fd)
{
    struct stat st;
    void *at;

    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size <= 0)
        return cursor_of(NULL, 0);
    at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    return at == MAP_FAILED ? cursor_of(NULL, 0) : cursor_of(at, (size_t)st.st_size);
}

/* 1: answered, 0: the recording must be decoded. */
static int answer_from_index(struct job *j)
{
    struct cursor file = map_index(j->index_in);
    struct shot s = {NULL, 0, 0, 0};
    struct index_key key;
    uint64_t at_us = j->until_us;
    bool is_exact;
    int r;

    if (cursor_at_end(&file) || j->mode == MODE_VIDEO)
        return 0;
    if (j->mode == MODE_THUMBNAIL && index_longest(file, &j->identity, &at_us) < 0)
        return 0;
    if (at_us == TO_THE_END && index_end_time(file, &j->identity, &at_us) < 0)
        return 0;
    if (index_find(file, &j->identity, at_us, &s, &key) < 0)
        return 0;
    is_exact = at_us <= key.until_us;
    if (!is_exact && (j->is_exact || at_us - key.at_us > INDEX_NEAR_US))
        return 0;
    r = write_picture(j, is_exact ? at_us : key.at_us, &s, is_exact);
    return r < 0 ? r : 1;
}

/* ---- the whole ---- */

static struct recording_reader *open_recording(struct job *j)
{
    int fd = dup(j->in);

    if (fd < 0 || lseek(fd, 0, SEEK_SET) < 0) {
        snprintf(j->err, sizeof(j->err), "cannot read the recording: %s", strerror(errno));
        return NULL;
    }
    return recording_reader_open_part(fd, j->identity.length, j->err, sizeof(j->err));
}

static void tell_state(struct job *j, struct recording_reader *reader)
{
    char text[256];
    uint64_t frame;

    if (recording_reader_end(reader, &frame, text, sizeof(text)) == RECORDING_COMPLETE)
        return;
    if (j->scan.is_damaged)
        tell(j, "damaged", text);
    else
        tell(j, "note", text);
}

static int scan(struct job *j)
{
    struct recording_reader *reader = open_recording(j);
    int r;

    if (!reader)
        return ERR_CORRUPT;
    if (!recording_reader_is_desktop(reader)) {
        snprintf(j->err, sizeof(j->err),
                 "this is no recording of a desktop, or its beginning is damaged");
        return ERR_INVALID;
    }
    r = scan_recording(reader, first_needed(j), &j->scan, j->err, sizeof(j->err));
    if (r == 0)
        tell_state(j, reader);
    recording_reader_close(reader);
    return r;
}

static bool check_times(struct job *j)
{
    unsigned end_s = (unsigned)(j->scan.end_us / 1000000);

    if (first_needed(j) <= j->scan.end_us || first_needed(j) == TO_THE_END)
        return true;
    snprintf(j->err, sizeof(j->err), "the recording is %02u:%02u:%02u long", end_s / 3600,
             end_s / 60 % 60, end_s % 60);
    return false;
}

static int decode(struct job *j, struct decoder *decoder, int fd)
{
    struct replay replay = {
        .decoder = decoder,
        .fd = fd,
        .scan = &j->scan,
        .from_us = choose_start(j),
        .until_us = j->until_us,
        .on_picture = on_picture,
        .on_end = on_end,
        .on_progress = on_progress,
        .arg = j,
    };
    char text[ERR_LEN] = "";
    int r;

    replay.reader = open_recording(j);
    if (!replay.reader)
        return ERR_CORRUPT;
    if (j->index_out >= 0)
        j->index = index_writer_create(j->index_out, &j->identity);
    if (j->mode == MODE_VIDEO) {
        j->video = video_create(j->out, (j->scan.max_width + 1u) & ~1u,
                                (j->scan.max_height + 1u) & ~1u, j->err, sizeof(j->err));
        if (!j->video)
            return ERR_INVALID;
    }
    r = replay_run(&replay, text, sizeof(text));
    if (r < 0 && j->err[0] == '\0')
        snprintf(j->err, sizeof(j->err), "%s", text);
    else if (r == 0 && text[0])
        tell(j, "damaged", text);
    return r;
}

static int run(struct job *j)
{
    struct decoder *decoder;
    int pair[2], r;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ||
        fcntl(pair[1], F_SETFL, O_NONBLOCK) < 0)
        return fail(j, ERR_SYSTEM, strerror(errno));
    decoder = decoder_create(pair[0]);
    if (!decoder)
        return fail(j, ERR_MEMORY, "the FreeRDP library cannot be used");
    if (export_sandbox_enter(j->err, sizeof(j->err)) < 0)
        return fail(j, ERR_SYSTEM, j->err);
    r = index_identify(j->in, &j->identity);
    if (r == 0 && j->identity.length == 0)
        return fail(j, ERR_NOT_FOUND, "nothing of it has been written yet");
    if (r == 0)
        r = answer_from_index(j);
    if (r > 0)
        return 0;
    if (r == 0)
        r = scan(j);
    if (r == 0 && !check_times(j))
        r = ERR_NOT_FOUND;
    if (r == 0)
        r = decode(j, decoder, pair[1]);
    return r < 0 ? fail(j, r, j->err) : 0;
}

static bool parse_option(struct job *j, int c, const char *value)
{
    uint64_t n = 0;

    if (value && !text_parse_u64(value, &n))
        return false;
    switch (c) {
    case 'v':
        j->mode = MODE_VIDEO;
        return true;
    case 'p':
        j->mode = MODE_PICTURE;
        return true;
    case 't':
        j->mode = MODE_THUMBNAIL;
        return true;
    case 'e':
        j->is_exact = true;
        return true;
    case 'f':
        j->from_us = n * 1000;
        return n < TO_THE_END / 1000;
    case 'u':
        j->until_us = n * 1000;
        return n < TO_THE_END / 1000;
    case 'd':
        j->idle_us = n * 1000;
        return n < TO_THE_END / 1000;
    default:
        break;
    }
    if (n > 65535)
        return false;
    switch (c) {
    case 'i':
        j->in = (int)n;
        return true;
    case 'o':
        j->out = (int)n;
        return true;
    case 'r':
        j->report = (int)n;
        return true;
    case 'x':
        j->index_in = (int)n;
        return true;
    case 'y':
        j->index_out = (int)n;
        return true;
    default:
        return false;
    }
}

static bool parse(struct job *j, int argc, char **argv)
{
    static const struct option options[] = {
        {"video", no_argument, NULL, 'v'},
        {"picture", no_argument, NULL, 'p'},
        {"thumbnail", no_argument, NULL, 't'},
        {"exact", no_argument, NULL, 'e'},
        {"from-ms", required_argument, NULL, 'f'},
        {"until-ms", required_argument, NULL, 'u'},
        {"idle-ms", required_argument, NULL, 'd'},
        {"in", required_argument, NULL, 'i'},
        {"out", required_argument, NULL, 'o'},
        {"report", required_argument, NULL, 'r'},
        {"index-in", required_argument, NULL, 'x'},
        {"index-out", required_argument, NULL, 'y'},
        {NULL, 0, NULL, 0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (!parse_option(j, c, optarg))
            return false;
    return optind == argc && j->mode != MODE_NONE && j->in >= 0 && j->out >= 0 && j->report >= 0;
}

int main(int argc, char **argv)
{
    struct job j = {.in = -1, .out = -1, .report = -1, .index_in = -1, .index_out = -1};
    int r;

    j.until_us = TO_THE_END;
    if (!parse(&j, argc, argv)) {
        fputs("sallyport-export is started by `sallyctl recording export`\n", stderr);
        return 2;
    }
    av_log_set_level(AV_LOG_QUIET);
    r = run(&j);
    /* the decoder's threads are still there, and have nothing to put in order */
    _exit(r < 0 ? 1 : 0);
}
