/* Thread pool with completion through an eventfd; see workers.h. */
#include "proxy/broker/workers.h"

#include <event2/event.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define WORKERS_MAX  64
#define WORKER_STACK (512 * 1024) /* getaddrinfo and its modules want some */
#define DESTROY_MS   250          /* three pools within the second that SIGTERM has */

struct workers {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t threads[WORKERS_MAX];
    uint64_t running_lane[WORKERS_MAX]; /* 0: none */
    uint64_t last_lane;                 /* of the job that was taken last */
    unsigned thread_count, max_threads, idle;
    struct job *queue, **queue_end;
    struct job *finished, **finished_end;
    size_t queued, max_queued;
    bool stop;
    int wake_fd;
    struct event *event;
    struct workers *next_left; /* see left_behind */
};

/* Pools whose threads did not end in time; they may still touch them, so the process's end frees
 * them. */
static struct workers *left_behind;

struct worker_arg {
    struct workers *pool;
    unsigned index;
};

static bool lane_runs(const struct workers *w, uint64_t lane)
{
    for (unsigned i = 0; i < w->thread_count; i++)
        if (w->running_lane[i] == lane)
            return true;
    return false;
}

/* First job whose lane runs nothing and had not the last turn, else one whose lane runs nothing,
 * else simply the first. */
static struct job *queue_take(struct workers *w)
{
    struct job **at = NULL, *job;

    for (struct job **j = &w->queue; *j; j = &(*j)->next) {
        if (lane_runs(w, (*j)->lane))
            continue;
        if (!at)
            at = j;
        if ((*j)->lane != w->last_lane) {
            at = j;
            break;
        }
    }
    if (!at)
        at = &w->queue;
    job = *at;
    w->last_lane = job->lane;
    *at = job->next;
    if (w->queue_end == &job->next)
        w->queue_end = at;
    job->next = NULL;
    w->queued--;
    return job;
}

static void *worker_main(void *p)
{
    struct worker_arg arg = *(struct worker_arg *)p;
    struct workers *w = arg.pool;
    const uint64_t one = 1;

    free(p);
    pthread_mutex_lock(&w->lock);
    for (;;) {
        struct job *job;

        while (!w->queue && !w->stop) {
            w->idle++;
            pthread_cond_wait(&w->wake, &w->lock);
            w->idle--;
        }
        if (!w->queue)
            break;
        job = queue_take(w);
        w->running_lane[arg.index] = job->lane;
        pthread_mutex_unlock(&w->lock);
        job->run(job);
        pthread_mutex_lock(&w->lock);
        w->running_lane[arg.index] = 0;
        *w->finished_end = job;
        w->finished_end = &job->next;
        if (write(w->wake_fd, &one, sizeof(one)) < 0) {
            /* the counter is full: the loop will wake anyway */
        }
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void deliver(struct workers *w)
{
    struct job *job, *next;

    pthread_mutex_lock(&w->lock);
    job = w->finished;
    w->finished = NULL;
    w->finished_end = &w->finished;
    pthread_mutex_unlock(&w->lock);
    for (; job; job = next) {
        next = job->next;
        job->next = NULL;
        job->done(job);
    }
}

static void wake_cb(evutil_socket_t fd, short what, void *arg)
{
    uint64_t count;

    (void)what;
    if (read(fd, &count, sizeof(count)) < 0)
        return;
    deliver(arg);
}

struct workers *workers_create(struct event_base *base, unsigned max_threads, size_t max_queued)
{
    struct workers *w = calloc(1, sizeof(*w));

    if (!w)
        return NULL;
    w->max_threads = max_threads < WORKERS_MAX ? max_threads : WORKERS_MAX;
    w->max_queued = max_queued;
    w->queue_end = &w->queue;
    w->finished_end = &w->finished;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->wake_fd >= 0)
        w->event = event_new(base, w->wake_fd, EV_READ | EV_PERSIST, wake_cb, w);
    if (!w->event || event_add(w->event, NULL) < 0) {
        workers_destroy(w);
        return NULL;
    }
    return w;
}

/* What is still queued is not run any more. */
static void drop_queue(struct workers *w)
{
    pthread_mutex_lock(&w->lock);
    if (w->queue) {
        *w->finished_end = w->queue;
        w->finished_end = w->queue_end;
        w->queue = NULL;
        w->queue_end = &w->queue;
        w->queued = 0;
    }
    pthread_mutex_unlock(&w->lock);
}

/* False when a thread did not end in time. */
static bool join_all(struct workers *w)
{
    struct timespec until;
    bool all = true;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += DESTROY_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    for (unsigned i = 0; i < w->thread_count; i++) {
        if (pthread_clockjoin_np(w->threads[i], NULL, CLOCK_MONOTONIC, &until) == 0)
            continue;
        all = false;
        drop_queue(w);
        pthread_detach(w->threads[i]);
    }
    return all;
}

void workers_destroy(struct workers *w)
{
    bool is_quiet;

    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_broadcast(&w->wake);
    pthread_mutex_unlock(&w->lock);
    is_quiet = join_all(w);
    deliver(w);
    if (w->event)
        event_free(w->event);
    if (!is_quiet) {
        w->next_left = left_behind;
        left_behind = w;
        return;
    }
    if (w->wake_fd >= 0)
        close(w->wake_fd);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

/* Called with the lock held. Signals are the loop's business: threads block them all. */
static void spawn_locked(struct workers *w)
{
    struct worker_arg *arg = malloc(sizeof(*arg));
    pthread_attr_t attr;
    sigset_t all, old;

    if (!arg)
        return;
    arg->pool = w;
    arg->index = w->thread_count;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, WORKER_STACK);
    if (pthread_create(&w->threads[w->thread_count], &attr, worker_main, arg) == 0)
        w->thread_count++;
    else
        free(arg);
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

int workers_submit(struct workers *w, struct job *job)
{
    int r = ERR_FULL;

    job->next = NULL;
    pthread_mutex_lock(&w->lock);
    if (!w->stop && w->queued < w->max_queued) {
        if (w->idle <= w->queued && w->thread_count < w->max_threads)
            spawn_locked(w);
        if (w->thread_count > 0) {
            *w->queue_end = job;
            w->queue_end = &job->next;
            w->queued++;
            pthread_cond_signal(&w->wake);
            r = 0;
        }
    }
    pthread_mutex_unlock(&w->lock);
    return r;
}

size_t workers_waiting(struct workers *w)
{
    size_t n;

    pthread_mutex_lock(&w->lock);
    n = w->queued;
    pthread_mutex_unlock(&w->lock);
    return n;
}
